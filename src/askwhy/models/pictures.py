"""From a path or photo to what the model sees, and back to the photo's own pixels."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from askwhy.errors import AskwhyError, FileError, InputError
from askwhy.models.base import Frame, to_numpy

LARGEST = 64_000_000  # pixels: a decoded photo of this size takes 0.2 GB, and no network looks that closely
SMALLEST = 8  # pixels a side
Ends = tuple[np.ndarray | None, np.ndarray | None]


def is_picture(item: Any) -> bool:
    """A path, a PIL image, or a uint8 array [h, w], [h, w, 3] or [h, w, 4]."""
    from PIL import Image

    if isinstance(item, np.ndarray):
        return item.dtype == np.uint8 and (item.ndim == 2 or (item.ndim == 3 and item.shape[-1] in (3, 4)))
    return isinstance(item, (str, os.PathLike, Image.Image))


def read_picture(item: Any) -> Any:
    """An RGB PIL image, turned upright and put on white where it was transparent. Raises FileError, InputError."""
    from PIL import Image

    named = isinstance(item, (str, os.PathLike))
    name = str(item)[:200] if named else "the picture"
    if isinstance(item, np.ndarray):
        check_size((item.shape[1], item.shape[0]), name)
        item = Image.fromarray(item)
    with warnings.catch_warnings(), said_clearly(name):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked below, with a remedy
        with Image.open(Path(item)) if named else nullcontext(item) as picture:
            return upright(picture, name)


def upright(picture: Any, name: str) -> Any:
    """The pixels as RGB, as a viewer would show them."""
    from PIL import Image, ImageOps

    check_size(picture.size, name)
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        raise InputError(f"{name} has pixels of mode {picture.mode!r} (more than 8 bits); scale it to 0..255 and save it as RGB or grey.")
    return picture.convert("RGB")


@contextmanager
def said_clearly(name: str) -> Iterator[None]:
    """Whatever reading a picture raises, as a FileError or InputError that names the file."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except (AskwhyError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise FileError(f"{name} is no picture that can be read; give a PNG, JPEG, WebP, GIF, BMP or TIFF file.") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is too large: {error}. Shrink it below {LARGEST:,} pixels.") from error
    except FileNotFoundError as error:
        raise FileError(f"{name}: there is no such file.") from error
    except IsADirectoryError as error:
        raise FileError(f"{name} is a folder; name the pictures in it.") from error
    except Exception as error:  # a damaged file makes Pillow raise almost anything, from struct.error to IndexError
        if isinstance(error, OSError) and error.errno is not None:
            raise FileError(f"{name} cannot be opened: {error.strerror}.") from error
        raise FileError(f"{name} is damaged or cut short, or of a kind that cannot be read ({error}); export it anew as PNG or JPEG.") from error


def check_size(size: tuple[int, int], name: str) -> None:
    """Refuse what no network can use: a dot, or a picture that would fill the memory."""
    width, height = size
    if width * height > LARGEST:
        raise InputError(f"{name} is {width} x {height}, {width * height:,} pixels; shrink it below {LARGEST:,} pixels.")
    if min(size) < SMALLEST:
        raise InputError(f"{name} is {width} x {height} pixels; at least {SMALLEST} x {SMALLEST} are needed to explain anything.")


def probe(transform: Callable[[Any], Any], picture: Any) -> np.ndarray | None:
    """What a transform makes of a picture of ours, as floats; None where it refuses it or finds no numbers for it.

    The user's own photo has passed the transform before, so a refusal only says that the transform needs more contrast
    (or a face, or a text) than a grey or a ramp has. What is not known then is left open, and not guessed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a division by the spread of a grey picture is no news for the user
            out = np.asarray(to_numpy(transform(picture)), dtype=float)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  whatever somebody else's transform raises
        return None
    return out if np.isfinite(out).all() else None


def plain(transform: Callable[[Any], Any], size: tuple[int, int], level: int) -> np.ndarray | None:
    """What a transform makes of one grey, from black (0) to white (255)."""
    from PIL import Image

    return probe(transform, Image.new("RGB", size, (level, level, level)))


def ends(transform: Callable[[Any], Any], size: tuple[int, int]) -> Ends:
    """What a transform makes of black and of white."""
    return plain(transform, size, 0), plain(transform, size, 255)


def grey_of(transform: Callable[[Any], Any], size: tuple[int, int], known: Ends | None = None) -> np.ndarray | None:
    """What the transform makes of a grey photo; None where it lies outside black and white, as after a division by the photo's own spread."""
    (black, white), grey = known or ends(transform, size), plain(transform, size, 127)
    if black is None or white is None or grey is None or not black.shape == white.shape == grey.shape:
        return None
    slack = 1e-6 * (1 + np.abs(white - black))
    between = (grey >= np.minimum(black, white) - slack) & (grey <= np.maximum(black, white) + slack)
    return grey if between.all() else None


def frame_of(transform: Callable[[Any], Any], size: tuple[int, int], known: Ends | None = None) -> Frame | None:
    """Find which part of a photo a transform keeps, by sending a ramp through it.

    Works for any resize and crop followed by any scaling of the channels; None when the transform does anything else
    (a rotation, statistics of the single picture, chance).
    """
    from PIL import Image

    black, white = ends(transform, size) if known is None else known
    if black is None or white is None or black.ndim != 3 or black.shape != white.shape or np.abs(white - black).min() < 1e-6:
        return None
    across = np.linspace(0, 255, size[0])[None].repeat(size[1], 0)
    down = np.linspace(0, 255, size[1])[:, None].repeat(size[0], 1)
    ramps = (across, down, 255 - (across + down) / 2)
    probes = [probe(transform, Image.fromarray(ramp.round().astype(np.uint8)).convert("RGB")) for ramp in ramps]  # [c, h, w] or [h, w, c]
    if any(p is None or p.shape != black.shape for p in probes):
        return None
    channel = 0 if black.shape[0] in (1, 3) else 2
    u, v, both = (((ramp - black) / (white - black)).mean(channel) for ramp in probes if ramp is not None)  # [h, w] in 0..1
    columns, rows = edges(u.mean(0), size[0]), edges(v.mean(1), size[1])
    bent = max(np.ptp(u, 0).max(), np.ptp(v, 1).max(), np.abs(both - 1 + (u + v) / 2)[2:-2, 2:-2].max(initial=0))
    if columns is None or rows is None or bent > 0.02:
        return None
    return Frame((columns[0], rows[0], columns[1], rows[1]), size)


def edges(profile: np.ndarray, length: int) -> tuple[float, float] | None:
    """Where the first and last pixel of a transformed ramp begin and end on the original axis; None if it is bent."""
    inside = np.arange(len(profile))[2:-2]  # resampling bends the ramp at the border
    if len(inside) < 2:
        return None
    step, start = np.polyfit(inside, profile[2:-2] * (length - 1) + 0.5, 1)
    miss = np.abs(start + step * inside - (profile[2:-2] * (length - 1) + 0.5)).max()
    if step <= 0 or miss > max(1.5, 0.01 * length):
        return None
    low, high = start - step / 2, start + step * (len(profile) - 0.5)
    return float(np.clip(low, 0, length)), float(np.clip(high, 0, length))


def seen(photo: Any, frame: Frame, height: int, width: int) -> np.ndarray:
    """The photo as the model sees it, uint8 [h, w, 3]."""
    return np.asarray(photo.resize((width, height), resample=2, box=frame.box))


def from_values(x: np.ndarray) -> np.ndarray | None:
    """A viewable picture, uint8 [h, w, 3], of a model input [c, h, w] or [h, w, c]; contrast stretched when not in 0..1 or 0..255."""
    if x.ndim != 3:
        return None
    if x.shape[0] not in (1, 3) and x.shape[-1] not in (1, 3):
        return None
    low, high = float(x.min()), float(x.max())
    if x.dtype == np.uint8 or (low >= 0 and 1 < high <= 255):
        low, high = 0, 255
    elif low >= 0 and high <= 1:
        low, high = 0, 1
    if high <= low:  # one colour: the middle of the scale
        low, high = low - 1, high + 1
    scale = 255 / (high - low)
    levels = np.multiply(x, np.float32(scale), dtype=np.float32, casting="same_kind")
    levels += np.float32(0.5 - low * scale)
    scaled = levels.astype(np.uint8)
    scaled = scaled.transpose(1, 2, 0) if x.shape[0] in (1, 3) else scaled
    return np.broadcast_to(scaled, (*scaled.shape[:2], 3))
