"""From a path or photo to what the model sees, and back to the photo's own pixels."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from askwhy.errors import FileError, InputError
from askwhy.models.base import Frame

LARGEST = 64_000_000  # pixels: a decoded photo of this size takes 0.2 GB, and no network looks that closely
SMALLEST = 8  # pixels a side


def is_picture(item: Any) -> bool:
    """A path, a PIL image, or a uint8 array [h, w], [h, w, 3] or [h, w, 4]."""
    from PIL import Image

    if isinstance(item, np.ndarray):
        return item.dtype == np.uint8 and (item.ndim == 2 or (item.ndim == 3 and item.shape[-1] in (3, 4)))
    return isinstance(item, (str, os.PathLike, Image.Image))


def read_picture(item: Any) -> Any:
    """An RGB PIL image, turned upright and put on white where it was transparent. Raises FileError, InputError."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = str(item) if isinstance(item, (str, os.PathLike)) else "the picture"
    picture = Image.fromarray(item) if isinstance(item, np.ndarray) else item
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is checked below, with a remedy
            if not isinstance(picture, Image.Image):
                picture = Image.open(Path(item))
            check_size(picture.size, name)
            picture = ImageOps.exif_transpose(picture)
            if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            if picture.mode.startswith("I") or picture.mode == "F":
                raise InputError(f"{name} has pixels of mode {picture.mode!r} (more than 8 bits); scale it to 0..255 and save it as RGB or grey.")
            return picture.convert("RGB")
    except UnidentifiedImageError as error:
        raise FileError(f"{name} is no picture that can be read; give a PNG, JPEG, WebP, GIF, BMP or TIFF file.") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is too large: {error}. Shrink it below {LARGEST:,} pixels.") from error
    except FileNotFoundError as error:
        raise FileError(f"{name}: there is no such file.") from error
    except IsADirectoryError as error:
        raise FileError(f"{name} is a folder; name the pictures in it.") from error
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise FileError(f"{name} is damaged or cut short ({error}); export it anew.") from error


def check_size(size: tuple[int, int], name: str) -> None:
    """Refuse what no network can use: a dot, or a picture that would fill the memory."""
    width, height = size
    if width * height > LARGEST:
        raise InputError(f"{name} is {width} x {height}, {width * height:,} pixels; shrink it below {LARGEST:,} pixels.")
    if min(size) < SMALLEST:
        raise InputError(f"{name} is {width} x {height} pixels; at least {SMALLEST} x {SMALLEST} are needed to explain anything.")


def frame_of(transform: Callable[[Any], Any], size: tuple[int, int]) -> Frame | None:
    """Find which part of a photo a transform keeps, by sending a ramp through it.

    Works for any resize and crop followed by any scaling of the channels; None when the transform does anything else
    (a rotation, statistics of the single picture).
    """
    from PIL import Image

    across = np.linspace(0, 255, size[0]).round().astype(np.uint8)[None].repeat(size[1], 0)
    down = np.linspace(0, 255, size[1]).round().astype(np.uint8)[:, None].repeat(size[0], 1)
    black, white, x, y = (
        np.asarray(transform(Image.fromarray(ramp).convert("RGB")), dtype=float)
        for ramp in (np.zeros_like(across), np.full_like(across, 255), across, down)
    )  # each [c, h, w] or [h, w, c]
    if black.shape != white.shape or black.ndim != 3 or np.abs(white - black).min() < 1e-6:
        return None
    channel = 0 if black.shape[0] in (1, 3) else 2
    u, v = (((ramp - black) / (white - black)).mean(channel) for ramp in (x, y))  # [h, w] in 0..1
    columns, rows = edges(u.mean(0), size[0]), edges(v.mean(1), size[1])
    if columns is None or rows is None or np.ptp(u, 0).max() > 0.02 or np.ptp(v, 1).max() > 0.02:
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
    scale = 255 / max(high - low, 1e-12)
    scaled = (x.astype(np.float32, copy=False) * np.float32(scale) + np.float32(0.5 - low * scale)).astype(np.uint8)
    scaled = scaled.transpose(1, 2, 0) if x.shape[0] in (1, 3) else scaled
    return np.broadcast_to(scaled, (*scaled.shape[:2], 3))
