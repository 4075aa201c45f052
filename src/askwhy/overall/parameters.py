"""What is moved while a picture is sought: pixels, a spectrum, phases alone, or the latent vector of a generator."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.overall.canvas import Canvas

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

# Measured on crops of the photographs that scikit-image and scikit-learn ship, in logits of 0..1: the principal axes of
# their colours (light, red against blue, green against magenta) with their spread, and |spectrum| = LEVEL * frequency ** -FALL.
COLOURS = ((0.60, 0.55, 0.58), (0.77, -0.20, -0.61), (0.22, -0.81, 0.55))
SPREADS = (2.51, 1.19, 0.33)
LEVEL, FALL = 0.055, 1.4
SMALL = 0.01  # of a spectrum at the start, so that a picture begins grey


@dataclass(frozen=True, eq=False)
class Parameters:
    """start(seeds, loud) -> a leaf [n, ...], so many times as far from a plain picture; picture(leaf) -> p [n, c, h, w] in 0..1."""

    start: Callable[..., torch.Tensor]
    picture: Callable[[torch.Tensor], torch.Tensor]
    of_pixels: bool = False  # whether the leaf is the picture itself, which can be blurred and clipped between steps
    prior: Callable[[torch.Tensor], torch.Tensor] | None = None  # a penalty [n] on the leaf


def drawn(seeds: list[int], shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Standard normal numbers [n, *shape], each row from its own seed."""
    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32) for seed in seeds]
    return torch.stack(rows).to(like.device, like.dtype)


def pixels(canvas: Canvas) -> Parameters:
    """The picture itself, from noise: every number anywhere between black and white."""

    def start(seeds: list[int], loud: float = 1.0) -> torch.Tensor:
        return torch.special.ndtr(drawn(seeds, canvas.shape, canvas.black))

    return Parameters(start, lambda leaf: leaf, of_pixels=True)


def fourier(canvas: Canvas) -> Parameters:
    """A spectrum whose frequencies weigh 1 / f and whose colours are those of photos, decorrelated (Olah et al. 2017)."""
    c, h, w = canvas.shape
    fall = as_like(1 / frequencies(h, w) / math.sqrt(h * w), canvas)

    def start(seeds: list[int], loud: float = 1.0) -> torch.Tensor:
        return SMALL * loud * drawn(seeds, (c, h, w // 2 + 1, 2), canvas.black)

    def picture(leaf: torch.Tensor) -> torch.Tensor:
        return coloured(inverse(torch.view_as_complex(leaf.float()) * (fall * math.sqrt(h * w) / 4).float(), h, w), canvas)

    return Parameters(start, picture)


def phases(canvas: Canvas) -> Parameters:
    """Phases alone; the magnitudes are those of photos (MACO, Fel et al. 2023)."""
    c, h, w = canvas.shape
    magnitude = LEVEL * frequencies(h, w) ** -FALL / np.linalg.norm(SPREADS) * math.sqrt(3)
    magnitude[0, 0] = 0  # the mean colour: grey
    fixed = as_like(magnitude, canvas).float()

    def start(seeds: list[int], loud: float = 1.0) -> torch.Tensor:
        return math.pi * drawn(seeds, (c, h, w // 2 + 1), canvas.black)

    def picture(leaf: torch.Tensor) -> torch.Tensor:
        return coloured(inverse(torch.polar(fixed.expand(leaf.shape).contiguous(), leaf.float()), h, w), canvas, SPREADS)

    return Parameters(start, picture)


def latent(generate: Callable[[torch.Tensor], torch.Tensor], size: int, weight: float, like: torch.Tensor) -> Parameters:
    """What a generator makes of a vector z; penalty: weight |z|^2 / 2, the prior of a standard normal z."""

    def start(seeds: list[int], loud: float = 1.0) -> torch.Tensor:
        return drawn(seeds, (size,), like)

    return Parameters(start, generate, prior=(lambda z: weight * z.square().sum(1) / 2) if weight else None)


def frequencies(h: int, w: int) -> np.ndarray:
    """|f| in cycles a pixel of a half spectrum [h, w // 2 + 1]; the constant counts as the slowest wave."""
    return np.maximum(np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None]), 1 / max(h, w))


def inverse(spectrum: torch.Tensor, h: int, w: int) -> torch.Tensor:
    return torch.fft.irfft2(spectrum, s=(h, w), norm="ortho")


def coloured(planes: torch.Tensor, canvas: Canvas, spreads: Any = None) -> torch.Tensor:
    """Planes along the axes of photos' colours -> red, green, blue in 0..1."""
    if canvas.shape[0] == 3:
        scale = np.asarray(spreads or SPREADS) / (1 if spreads else SPREADS[0])
        turn = as_like(np.asarray(COLOURS).T * scale, canvas).to(planes.dtype)  # [colour, axis]
        planes = torch.einsum("ca,nahw->nchw", turn, planes)
    return torch.sigmoid(planes).to(canvas.black.dtype)


def as_like(numbers: np.ndarray, canvas: Canvas) -> torch.Tensor:
    return torch.tensor(np.asarray(numbers)).to(canvas.black.device, canvas.black.dtype)


WAYS: dict[str, Callable[[Canvas], Parameters]] = {"pixels": pixels, "fourier": fourier, "phase": phases}
