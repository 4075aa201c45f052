"""Pixels for the page. Everything becomes a data URI: the page asks no network for anything."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

from askwhy.show.pictures import COLOURS

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST = 900  # pixels: sharp at the width in which a photo is shown, and twenty of them still travel by mail
SPREAD = (108, 45, 140)  # purple, since red and blue already speak for and against


def jpeg(picture: Image) -> str:
    """A photo without its metadata, no larger than it is shown."""
    small = picture.convert("L" if picture.mode == "L" else "RGB")
    small.thumbnail((LONGEST, LONGEST))
    small.info.clear()  # Pillow would write a comment of the original file into the copy
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=85, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def pale(seen: np.ndarray) -> str:
    """What the model saw, grey and lightened, so that the colours of a map lead."""
    from PIL import Image

    grey = seen[..., :3].mean(2) if seen.ndim == 3 else seen
    return jpeg(Image.fromarray((0.62 * grey + 0.38 * 255).astype(np.uint8)))


def spread(values: np.ndarray) -> np.ndarray:
    """Values from 0 up as one colour of growing opacity, uint8 [h, w, 4]."""
    out = np.empty((*values.shape, 4), np.uint8)
    out[..., :3] = SPREAD
    out[..., 3] = (values / (values.max() or 1) * 255).round()
    return out


def gradient(colours: str = COLOURS, low: float = 0.0) -> str:
    """A matplotlib colour map as a CSS gradient, from `low` (0..1) to its end."""
    stops = ", ".join(hexed(colours, at) for at in np.linspace(low, 1, 13))
    return f"linear-gradient(90deg, {stops})"


def hexed(colours: str, at: float) -> str:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return to_hex(colormaps[colours](float(at)))
