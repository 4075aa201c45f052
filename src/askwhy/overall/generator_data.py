"""The pictures that a generator learns from, and how far what it makes is from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.errors import InputError
from askwhy.models.base import check_finite, show_shape, to_numpy
from askwhy.models.pictures import is_picture, read_picture
from askwhy.overall.generator_nets import Run, pictures_of

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

LEAST, SIDES = 50, (4, 64)  # pictures; pixels a side
MEASURED = 500  # held-out pictures at most, and as many samples
NEIGHBOUR = 5  # of a held-out picture: a sample that is as near as this one covers it


@dataclass(frozen=True, eq=False)
class Pictures:
    """pixels uint8 or float32 [n, c, h, w]; low, high [c]: what 0 and 1 stand for in each channel."""

    pixels: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        return tuple(self.pixels.shape[1:])  # type: ignore[return-value]

    def unit(self, which: np.ndarray) -> np.ndarray:
        """float32 [m, c, h, w] in 0..1."""
        taken = self.pixels[which]
        if taken.dtype == np.uint8:
            return taken.astype(np.float32) / 255
        low, high = (end[:, None, None] for end in (self.low, self.high))
        return (taken - low) / np.where(high > low, high - low, np.float32(1))  # type: ignore[no-any-return]


def read_images(images: Any) -> Pictures:
    """Raises InputError, FileError."""
    pixels = in_channels(stacked(images) if isinstance(images, (list, tuple)) else array_of(images))
    n, c, h, w = pixels.shape
    if not SIDES[0] <= min(h, w) <= max(h, w) <= SIDES[1]:
        raise InputError(f"the pictures are {h} x {w}; this small network makes {SIDES[0]} to {SIDES[1]} pixels a side: resize them.")
    if n < LEAST:
        raise InputError(f"there are {n} pictures; at least {LEAST} are needed to learn from, and thousands for good ones.")
    check_finite(pixels, "picture")
    if (pixels == pixels[:1]).all():
        raise InputError(f"all {n} pictures are alike, and there is nothing to learn; give pictures that differ.")
    if pixels.dtype == np.uint8:
        return Pictures(pixels, np.zeros(c, np.float32), np.ones(c, np.float32))
    return Pictures(pixels, pixels.min((0, 2, 3)), pixels.max((0, 2, 3)))


def array_of(images: Any) -> np.ndarray:
    """A tensor or array as it was given. Raises InputError."""
    if is_picture(images) and not (isinstance(images, np.ndarray) and images.ndim == 3):
        raise InputError(f"images= is one picture; give a list of at least {LEAST}.")
    if not hasattr(images, "shape"):
        raise InputError(f"images= is a {type(images).__name__}; give a tensor, an array, or a list of paths or PIL images.")
    return to_numpy(images)


def stacked(images: Any) -> np.ndarray:
    """Paths, PIL images or arrays of bytes as bytes [n, h, w, 3], or [n, h, w] where all are grey. Raises InputError, FileError."""
    for k, item in enumerate(images):
        if not is_picture(item):
            what = f"picture {k} is a {type(item).__name__}{f' of shape {show_shape(item)}' if hasattr(item, 'shape') else ''}"
            raise InputError(f"{what}; a list holds paths, PIL images or arrays of bytes. torch.stack(images) makes a batch of tensors.")
    read = [np.asarray(read_picture(item)) for item in images]
    for k, one in enumerate(read):
        if one.shape != read[0].shape:
            raise InputError(
                f"picture {k} is {one.shape[0]} x {one.shape[1]}, and picture 0 {read[0].shape[0]} x {read[0].shape[1]}; resize all to one size."
            )
    pixels = np.stack(read) if read else np.empty((0, SIDES[0], SIDES[0], 3), np.uint8)
    return pixels[..., 0] if (pixels == pixels[..., :1]).all() else pixels


def in_channels(pixels: np.ndarray) -> np.ndarray:
    """uint8 or float32 [n, c, h, w]. Raises InputError."""
    shape, is_bytes = show_shape(pixels), pixels.dtype == np.uint8
    if not is_bytes and pixels.dtype.kind != "f":
        raise InputError(f"images= holds {pixels.dtype}; give bytes (uint8, 0..255) or floats.")
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif is_bytes and pixels.ndim == 4 and pixels.shape[-1] in (1, 3):
        pixels = pixels.transpose(0, 3, 1, 2)
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        form = "[n, h, w], [n, h, w, 3] or [n, 3, h, w]" if is_bytes else "[n, 1, h, w] or [n, 3, h, w] (channels first)"
        raise InputError(f"images= has the shape {shape}; {'bytes' if is_bytes else 'floats'} have the shape {form}.")
    return np.ascontiguousarray(pixels if is_bytes else pixels.astype(np.float32))


# ---- what was learned -----------------------------------------------------------------------------------------------


def measured(run: Run, pictures: Pictures, held: np.ndarray, own: np.ndarray, latent: int) -> dict[str, Any]:
    """Numbers for the summary, over held-out pictures and as many samples; `held` and `own` number the pictures."""
    device = next(run.maker.parameters()).device
    held = spaced(held, MEASURED)
    real, train = (torch.from_numpy(pictures.unit(which)).to(device) for which in (held, spaced(own, len(held))))
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((len(held), latent), dtype=np.float32)).to(device)
    with torch.no_grad():
        fake = pictures_of(run.maker, z, run.shape).sigmoid()
        heard = run.teacher(torch.cat([real, fake]))
        found = told_apart(heard, len(held)) if heard.shape[1] == 1 else missed(run, heard[: len(held)], real, pictures, own)
    a, b, c = (to_numpy(part.flatten(1)) for part in (real, fake, train))
    return {"held_out": len(held), **found, "spread": spread(a, b), "coverage": coverage(a, b), "coverage_of_real": coverage(a, c)}


def spaced(numbers: np.ndarray, most: int) -> np.ndarray:
    return numbers if len(numbers) <= most else numbers[np.linspace(0, len(numbers) - 1, most).astype(int)]


def told_apart(scores: torch.Tensor, n: int) -> dict[str, float]:
    """The area under the ROC curve of the discriminator."""
    real, fake = scores[:n], scores[n:, 0]
    return {"told_apart": float((real > fake).double().mean() + (real == fake).double().mean() / 2)}


def missed(run: Run, heard: torch.Tensor, real: torch.Tensor, pictures: Pictures, own: np.ndarray) -> dict[str, float]:
    """The squared error of what the encoder's mean is decoded to, and the same for the mean of the training pictures."""
    again = pictures_of(run.maker, heard.chunk(2, 1)[0], run.shape).sigmoid()
    mean = torch.from_numpy(pictures.unit(spaced(own, 10 * MEASURED)).mean(0)).to(real.device)
    error, least = float((again - real).square().mean()), float((mean - real).square().mean())
    return {"error": error, "relative_error": error / least if least else float("nan")}


def spread(real: np.ndarray, fake: np.ndarray) -> float:
    """The mean distance between two samples, in units of that between two real pictures."""
    from scipy.spatial.distance import pdist

    apart = pdist(real).mean()
    return float(pdist(fake).mean() / apart) if apart else float("nan")


def coverage(real: np.ndarray, fake: np.ndarray) -> float:
    """The share of real pictures with a sample as near as their fifth neighbour (Naeem et al. 2020)."""
    from scipy.spatial.distance import cdist

    near = np.sort(cdist(real, real), 1)[:, min(NEIGHBOUR, len(real) - 1)]  # the first is the picture itself
    return float((cdist(real, fake).min(1) <= near).mean())
