"""What a picture is to a model: its size, and the numbers that stand for black and white in each channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.errors import InputError
from askwhy.models.base import to_numpy
from askwhy.models.pictures import probe
from askwhy.models.torch_module import TorchModel

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

PHOTO, LARGER = (256, 256), (320, 320)  # pixels of the photos that show what a transform does
BENT = 0.02  # how far grey may lie from the middle of black and white, of the whole range


@dataclass(frozen=True, eq=False)
class Canvas:
    """Pictures p [n, 1 or 3, h, w], red, green, blue from 0 to 1, and inputs x = black + p (white - black) of a model.

    Pictures have single precision at least: in half precision Adam's steps are too small to be added, or no numbers.
    """

    shape: tuple[int, int, int]  # of an input: channels, height, width
    black: torch.Tensor  # [c, 1, 1], in the precision of pictures
    white: torch.Tensor
    order: tuple[int, ...]  # which colour of p each channel of the input shows
    dtype: torch.dtype  # of inputs
    last: bool = False  # whether the model's inputs have their channels last

    @property
    def zero(self) -> torch.Tensor:
        """The picture [c, 1, 1] whose input is 0, which lies outside 0..1 for some scalings."""
        return self._colours((-self.black / (self.white - self.black)).clamp(0, 1))

    def inputs(self, p: torch.Tensor) -> torch.Tensor:
        """[n, c, h, w] in 0..1 -> what the model is given."""
        x = p[:, list(self.order)] if self.order != tuple(range(p.shape[1])) else p
        x = (self.black + x * (self.white - self.black)).to(self.dtype)
        return x.permute(0, 2, 3, 1) if self.last else x

    def seen(self, p: torch.Tensor) -> np.ndarray:
        """uint8 [n, h, w, 3], as a screen shows it."""
        levels = (p.detach().clamp(0, 1) * 255).round().byte().cpu().numpy().transpose(0, 2, 3, 1)
        return np.broadcast_to(levels, (*levels.shape[:3], 3)).copy()

    def pictures(self, seen: np.ndarray) -> torch.Tensor:
        """p of what a screen shows."""
        p = torch.from_numpy(np.ascontiguousarray(seen.transpose(0, 3, 1, 2))).to(self.black) / 255
        return p[:, : self.shape[0]]

    def _colours(self, of_channels: torch.Tensor) -> torch.Tensor:
        """One number a channel -> one a colour of p."""
        return of_channels[[self.order.index(colour) for colour in range(len(self.order))]]


def canvas_of(model: TorchModel, shape: Any, bounds: Any, images: Any) -> Canvas:
    """How pictures become inputs of this model: as its transform does it, or as `shape` and `bounds` say. Raises InputError."""
    if bounds is None and model.transform is not None:
        return by_transform(model, None if shape is None else checked_shape(shape))
    if images is not None and hasattr(images, "ndim") and images.ndim == 4 and to_numpy(images[:1]).dtype.kind == "f":
        shape = tuple(images.shape[1:]) if shape is None else shape
        bounds = ends_of(to_numpy(images)) if bounds is None else bounds
    if shape is None or bounds is None:
        missing = " and ".join(name for name, value in (("shape", shape), ("bounds", bounds)) if value is None)
        raise InputError(
            f"{missing}= is missing: wrap(net, transform=...) says how photos become inputs, or give shape=(channels, height, width) "
            "and bounds=(what black is, what white is) in the model's input, as bounds=(0, 1)."
        )
    return of_numbers(model, checked_shape(shape), bounds)


def ends_of(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest number of each channel."""
    flat = images.swapaxes(0, 1).reshape(images.shape[1], -1)
    return flat.min(1), flat.max(1)


def checked_shape(shape: Any) -> tuple[int, int, int]:
    good = isinstance(shape, Sequence) and len(shape) == 3 and all(isinstance(side, int) and side > 0 for side in shape)
    if not good or shape[0] not in (1, 3) or min(shape[1:]) < 2:
        raise InputError(f"shape={shape!r}: give (channels, height, width) of one input, with 1 or 3 channels.")
    return shape[0], shape[1], shape[2]


def of_numbers(model: TorchModel, shape: tuple[int, int, int], bounds: Any) -> Canvas:
    """Raises InputError."""
    try:
        low, high = (np.broadcast_to(np.asarray(to_numpy(end), float), shape[:1]).reshape(-1, 1, 1) for end in bounds)
    except (TypeError, ValueError) as error:
        raise InputError(f"bounds={bounds!r}: give what black is and what white is, (0, 1), or one number a channel for each.") from error
    if not np.isfinite([*low.ravel(), *high.ravel()]).all() or (low == high).any():
        raise InputError(f"bounds={bounds!r}: black and white have to differ, and be finite numbers.")
    return Canvas(shape, placed(model, low), placed(model, high), tuple(range(shape[0])), dtype_of(model))


def by_transform(model: TorchModel, shape: tuple[int, int, int] | None = None) -> Canvas:
    """Send black, white, grey and the colours through the user's transform. Raises InputError where it does more than to scale the channels.

    shape: of an input, where it is not to be the one that the transform makes of any photo.
    """
    from PIL import Image

    def sent(*colour: int, size: tuple[int, int] = PHOTO) -> np.ndarray | None:
        return probe(model.transform, Image.new("RGB", size, colour))  # type: ignore[arg-type]

    black, white, grey = sent(0, 0, 0), sent(255, 255, 255), sent(127, 127, 127)
    remedy = "give shape=(channels, height, width) and bounds=(what black is, what white is) in the model's input."
    if black is None or white is None or grey is None or black.ndim != 3 or not black.shape == white.shape == grey.shape:
        raise InputError(f"transform= makes no picture [channels, height, width] of a plain photo; {remedy}")
    larger = sent(0, 0, 0, size=LARGER)
    if shape is None and larger is not None and larger.shape != black.shape:
        raise InputError("transform= keeps the size of a photo, so that it does not tell that of an input; give shape=(channels, height, width).")
    last = black.shape[0] not in (1, 3)
    black, white, grey = (one.transpose(2, 0, 1) if last else one for one in (black, white, grey))
    flat = max(float(np.ptp(one, (1, 2)).max()) for one in (black, white))
    span = np.abs(white - black).min()
    if black.shape[0] not in (1, 3) or flat > BENT * span or span == 0 or np.abs((grey - black) / (white - black) - 127 / 255).max() > BENT:
        raise InputError(f"transform= does more to a photo than to scale its channels, so that the way back is not known; {remedy}")
    order = (0,) if len(black) == 1 else colours_of([sent(*(255 * (k == colour) for k in range(3))) for colour in range(3)], black, white, last)
    if shape is not None and shape[0] != len(black):
        raise InputError(f"shape={shape!r}: transform= makes inputs with {len(black)} channels.")
    middle = black.shape[1] // 2, black.shape[2] // 2
    return Canvas(shape or black.shape, placed(model, at(black, middle)), placed(model, at(white, middle)), order, dtype_of(model), last)


def at(one: np.ndarray, middle: tuple[int, int]) -> np.ndarray:
    return one[:, middle[0], middle[1], None, None]


def colours_of(sent: list[np.ndarray | None], black: np.ndarray, white: np.ndarray, last: bool) -> tuple[int, ...]:
    """Which colour each channel shows. Raises InputError where channels mix colours."""
    shares = np.zeros((3, 3))  # channel, colour
    for colour, out in enumerate(sent):
        if out is not None:
            out = out.transpose(2, 0, 1) if last else out
            shares[:, colour] = ((out - black) / (white - black)).mean((1, 2))
    order = shares.argmax(1)
    if sorted(order) != [0, 1, 2] or np.abs(shares - np.eye(3)[order]).max() > BENT:
        raise InputError("transform= mixes the colours of a photo; give shape=(channels, height, width) and bounds=(what black is, what white is).")
    return tuple(map(int, order))


def placed(model: TorchModel, numbers: np.ndarray) -> torch.Tensor:
    """On the model's device, in the precision of pictures."""
    return torch.tensor(np.asarray(numbers)).to(model.like.device, torch.promote_types(dtype_of(model), torch.float32))


def dtype_of(model: TorchModel) -> torch.dtype:
    """Of the model's inputs; single precision where it has no parameters."""
    return model.like.dtype if model.like.numel() else torch.float32
