"""Named ways to seek a picture, from the bare gradient to a natural spectrum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from askwhy.errors import InputError, near
from askwhy.overall import regularizers as r
from askwhy.overall.regularizers import Regularizer


@dataclass(frozen=True)
class Preset:
    """How a picture is sought."""

    score: str  # "raw", or "log_probability" of a class
    parameters: str
    regularizer: Regularizer
    balance: bool  # whether penalties count in units of the score's slope, so that they suit scores of any scale
    steps: int
    rate: float  # of Adam; of a plain ascent, how far a number moves in the mean in the first step
    paper: str
    views: int = 1  # how often each step looks, under other noise and motion; the mean slope is climbed
    plain: bool = False  # whether steps are as long as the gradient, and end where the network is sure


PRESETS = {
    "naive": Preset("log_probability", "pixels", r.none, False, 200, 0.05, "Erhan et al. 2009", plain=True),
    "lecture": Preset("log_probability", "pixels", r.l1(2), False, 400, 0.1, "Simonyan et al. 2014, https://arxiv.org/abs/1312.6034, with R(x) = - sum |x|", plain=True),
    "yosinski": Preset(
        "log_probability", "pixels", r.l2(2) + r.blur(0.6, 4) + r.clip_small_pixels(0.1) + r.clip_small_contributions(0.1), False, 300, 0.03,
        "Yosinski et al. 2015, https://arxiv.org/abs/1506.06579",
    ),
    "lucid": Preset("raw", "fourier", r.jitter(16) + r.scale(0.85, 1.15) + r.rotate(10), False, 512, 0.05, "Olah et al. 2017, https://doi.org/10.23915/distill.00007"),
    "maco": Preset("raw", "phase", r.crops(0.35, 0.95) + r.noise(0.2), False, 300, 0.1, "Fel et al. 2023, https://arxiv.org/abs/2306.06805"),
    "robust": Preset(
        "raw", "fourier", r.crops(0.4, 1.0) + r.rotate(10) + r.noise(0.3, 0.0) + r.total_variation(0.1) + r.smooth_pooling(), True, 300, 0.025,
        "lucid's spectrum, under noise as in Cohen et al. 2019, https://arxiv.org/abs/1902.02918, whose gradients show objects and not texture",
        views=2,
    ),
}  # fmt: skip


def preset_of(name: Any) -> Preset:
    if name not in PRESETS:
        raise InputError(f"preset={name!r} is not known; {near(str(name), list(PRESETS))}")
    return PRESETS[name]
