"""What keeps a sought picture from being noise: penalties, clean-ups between steps, motion, and a smoother way back. Values that add up: `l1(1) + jitter(8)`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from askwhy._lazy import lazy
from askwhy.errors import InputError, LayerError
from askwhy.layers import names_of
from askwhy.models.torch_module import TorchModel
from askwhy.overall.pooling import mean_square_pooling
from askwhy.rules import Record, Rule
from askwhy.tap import find_layer, hooked
from askwhy.targets import check_layer

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")


@dataclass(frozen=True)
class Within:
    """penalty(outputs by layer, groups [n]) -> [n]; pictures with the same number in groups are copies of one target."""

    layers: tuple[str, ...]
    penalty: Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Part:
    """One of them; p are pictures [n, c, h, w] in 0..1, and u = p - the picture whose input is 0. What is not given does nothing."""

    name: str
    penalty: Callable[[Any], Any] | None = field(default=None, compare=False)  # u -> [n]
    after: Callable[[Any, Any, int], Any] | None = field(default=None, compare=False)  # u, its gradient, step -> u
    motion: Callable[[Any, Any], Any] | None = field(default=None, compare=False)  # generator, (height, width) -> [3, 3], in pixels from the middle
    noise: Callable[[Any], float] | None = field(default=None, compare=False)  # generator -> how much of it
    within: Callable[[Any, Any], Within] | None = field(default=None, compare=False)  # model, an input -> a penalty on what its layers give
    back: Callable[[Record], Mapping[str, Rule]] | None = field(default=None, compare=False)  # rules of the backward pass
    alone: bool = True  # whether a picture's penalty is its own, and not about the other copies of its target


@dataclass(frozen=True)
class Regularizer:
    """A sum of parts. Example: `askwhy.regularizers.l1(2.0) + askwhy.regularizers.jitter(4)`."""

    parts: tuple[Part, ...] = ()

    def __add__(self, other: Regularizer) -> Regularizer:
        if not isinstance(other, Regularizer):
            return NotImplemented
        return Regularizer(self.parts + other.parts)

    @property
    def random(self) -> bool:
        """Whether each step sees the picture in another way."""
        return any(part.motion is not None or part.noise is not None for part in self.parts)

    def __repr__(self) -> str:
        return " + ".join(part.name for part in self.parts) or "none"


def only(name: str, **how: Any) -> Regularizer:
    return Regularizer((Part(name, **how),))


def check(name: str, number: float, low: float = 0.0, high: float = math.inf) -> float:
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not low <= number <= high or math.isinf(number):
        raise InputError(f"{name}({number!r}): give a number from {low:g}" + (" on." if math.isinf(high) else f" to {high:g}."))
    return float(number)


# ---- penalties -------------------------------------------------------------------------------------------------------


def l1(weight: float = 10.0) -> Regularizer:
    """- weight * mean |u|: few pixels differ from an input of 0 (for digits: from no ink)."""
    check("l1", weight)
    return only(f"l1({weight:g})", penalty=lambda u: weight * u.abs().flatten(1).mean(1))


def l2(weight: float = 10.0) -> Regularizer:
    """- weight * mean u^2: no pixel is extreme (Simonyan et al. 2014)."""
    check("l2", weight)
    return only(f"l2({weight:g})", penalty=lambda u: weight * u.square().flatten(1).mean(1))


def total_variation(weight: float = 10.0) -> Regularizer:
    """- weight * mean |difference of neighbours|: plain surfaces with sharp edges (Mahendran & Vedaldi 2015)."""
    check("total_variation", weight)

    def penalty(u: torch.Tensor) -> torch.Tensor:
        return weight * sum(u.diff(dim=axis).abs().flatten(1).mean(1) for axis in (2, 3))  # type: ignore[return-value]

    return only(f"total_variation({weight:g})", penalty=penalty)


# ---- between steps, of pixels ----------------------------------------------------------------------------------------


def blur(sigma: float = 1.0, every: int = 4) -> Regularizer:
    """Blur the pixels after every few steps: high frequencies fade (Yosinski et al. 2015)."""
    check("blur", sigma, 0.01), check("blur", every, 1)

    def after(u: torch.Tensor, gradient: torch.Tensor, step: int) -> torch.Tensor:
        return blurred(u, sigma) if step % every == every - 1 else u

    return only(f"blur({sigma:g}, every {every})", after=after)


def clip_small_pixels(share: float = 0.1) -> Regularizer:
    """Set the given share of pixels with the smallest length to 0 after each step (Yosinski et al. 2015)."""
    check("clip_small_pixels", share, 0, 1)
    return only(f"clip_small_pixels({share:g})", after=lambda u, gradient, step: without_smallest(u, u.square().sum(1, keepdim=True), share))


def clip_small_contributions(share: float = 0.1) -> Regularizer:
    """Set the given share of pixels to 0 that add least to the score, by |u * gradient| (Yosinski et al. 2015)."""
    check("clip_small_contributions", share, 0, 1)

    def after(u: torch.Tensor, gradient: torch.Tensor, step: int) -> torch.Tensor:
        return without_smallest(u, (u * gradient).sum(1, keepdim=True).abs(), share)

    return only(f"clip_small_contributions({share:g})", after=after)


def without_smallest(u: torch.Tensor, size: torch.Tensor, share: float) -> torch.Tensor:
    """u where its size [n, 1, h, w] is not among the smallest."""
    least = size.flatten(1).float().quantile(share, dim=1)
    return u * (size >= least[:, None, None, None])


def blurred(u: torch.Tensor, sigma: float) -> torch.Tensor:
    """A Gaussian, row by row and column by column; the border is repeated."""
    reach = max(1, min(math.ceil(3 * sigma), *(side - 1 for side in u.shape[2:])))
    at = torch.arange(-reach, reach + 1, device=u.device, dtype=u.dtype)
    weights = torch.exp(-((at / sigma) ** 2) / 2)
    weights /= weights.sum()
    planes = u.flatten(0, 1)[:, None]
    wide = torch.nn.functional.pad(planes, (reach,) * 4, mode="replicate")
    down = torch.nn.functional.conv2d(wide, weights[None, None, :, None])
    return torch.nn.functional.conv2d(down, weights[None, None, None, :]).view_as(u)


# ---- motion: the score has to stay high when the picture moves -----------------------------------------------------------


def jitter(pixels: float = 8) -> Regularizer:
    """Shift by up to so many pixels before each step (Mordvintsev et al. 2015)."""
    check("jitter", pixels)

    def motion(chance: torch.Generator, sides: Any) -> torch.Tensor:
        x, y = (between(chance, -pixels, pixels) for _ in range(2))
        return torch.tensor([[1, 0, x], [0, 1, y], [0, 0, 1]])

    return only(f"jitter({pixels:g})", motion=motion)


def rotate(degrees: float = 10) -> Regularizer:
    """Turn by up to so many degrees before each step."""
    check("rotate", degrees, 0, 180)

    def motion(chance: torch.Generator, sides: Any) -> torch.Tensor:
        angle = math.radians(between(chance, -degrees, degrees))
        return torch.tensor([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])

    return only(f"rotate({degrees:g})", motion=motion)


def scale(low: float = 0.9, high: float = 1.1) -> Regularizer:
    """Show the picture so many times as large, between low and high, before each step."""
    check("scale", low, 0.01, high)

    def motion(chance: torch.Generator, sides: Any) -> torch.Tensor:
        factor = 1 / between(chance, low, high)
        return torch.tensor([[factor, 0, 0], [0, factor, 0], [0, 0, 1.0]])

    return only(f"scale({low:g}, {high:g})", motion=motion)


def crops(low: float = 0.3, high: float = 1.0) -> Regularizer:
    """Show a part of the picture, between these shares of its side, at any place, before each step (Fel et al. 2023)."""
    check("crops", low, 0.01, high), check("crops", high, low, 1)

    def motion(chance: torch.Generator, sides: Any) -> torch.Tensor:
        share = between(chance, low, high)
        x, y = (between(chance, -1, 1) * (1 - share) * side / 2 for side in reversed(sides))
        return torch.tensor([[share, 0, x], [0, share, y], [0, 0, 1.0]])

    return only(f"crops({low:g}, {high:g})", motion=motion)


def noise(high: float = 0.2, low: float | None = None) -> Regularizer:
    """Add normal noise before each step, of a spread between low and high; of the spread high where low is left out."""
    check("noise", high), check("noise", high if low is None else low, 0, high)
    name = f"noise({high:g})" if low is None else f"noise({high:g}, {low:g})"
    return only(name, noise=lambda chance: high if low is None else between(chance, low, high))


def between(chance: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=chance, dtype=torch.float32))


# ---- the way back ----------------------------------------------------------------------------------------------------


def smooth_pooling() -> Regularizer:
    """On the way back through max pooling, each number of a window gets a share of the gradient, and not the largest one alone.

    As if y were the root mean square of the n numbers x >= 0: dS/dx_i = dS/dy x_i / (n y); scores stay as they are. The
    largest number changes place from step to step, and leaves the picture grainy (Olah et al. 2017, on the gradients of
    pooling; Wang et al. 2023, https://arxiv.org/abs/2306.12685, whose attacks it carries over to other networks).
    Pooling in one or three dimensions, adaptive, with gaps or with places asked for keeps its gradient; so does torch.jit.
    Example: `askwhy.activation_maximization(net, "cat", preset="lucid", regularizer=r.jitter(16) + r.smooth_pooling())`.
    """
    return only("smooth_pooling()", back=mean_square_pooling)


# ---- what layers give -----------------------------------------------------------------------------------------------


def diversity(weight: float = 1.0, layer: Any = None) -> Regularizer:
    """- weight * mean cosine between the Gram matrices of copies in a layer: copies of one target differ (Olah et al. 2017).

    layer: a name or module; the middle one of the model's stages where it is left out.
    """
    check("diversity", weight)

    def within(model: TorchModel, x: torch.Tensor) -> Within:
        stages = names_of(model)
        name = stages[len(stages) // 2] if layer is None else find_layer(model.net, layer)[0]
        check_layer(model.net, name, lambda: model.forward(x))
        return Within((name,), lambda seen, groups: weight * alike(seen[name], groups))

    told = "" if layer is None else f", {layer!r}" if isinstance(layer, str) else ", a module"
    return only(f"diversity({weight:g}{told})", within=within, alone=False)


def batch_norm(weight: float = 1.0) -> Regularizer:
    """- weight * how far the channels' means and spreads are from those of the training images, as batch norms keep them.

    The mean over the layers of mean_c (m_c - beta_c)^2 + (s_c - |gamma_c|)^2 over mean_c gamma_c^2, for the mean m and
    spread s of a batch norm's output over one picture; norms that do not run once in a pass are left out (after Yin et al. 2020, DeepInversion, who take it over a batch).
    """
    check("batch_norm", weight)

    def within(model: TorchModel, x: torch.Tensor) -> Within:
        every = {name: part for name, part in model.net.named_modules() if isinstance(part, torch.nn.BatchNorm2d) and part.affine}
        ran: list[str] = []
        with hooked(model.net, every, lambda name, norm, out: ran.append(name)):
            model.forward(x)
        norms = {name: norm for name, norm in every.items() if ran.count(name) == 1}
        if not norms:
            raise LayerError(
                "regularizers.batch_norm: the model has no batch norm that keeps what training images were like and runs once; leave it out."
            )
        return Within(tuple(norms), lambda seen, groups: weight * sum(off(seen[name], norm) for name, norm in norms.items()) / len(norms))

    return only(f"batch_norm({weight:g})", within=within)


def off(out: torch.Tensor, norm: torch.nn.BatchNorm2d) -> torch.Tensor:
    """[n]: how far the channels of a batch norm are from their usual mean and spread."""
    planes = out.flatten(2)
    mean, spread = planes.mean(2), planes.var(2, correction=0).add(1e-8).sqrt()
    return ((mean - norm.bias) ** 2 + (spread - norm.weight.abs()) ** 2).mean(1) / norm.weight.square().mean()


def alike(out: torch.Tensor, groups: Any) -> torch.Tensor:
    """[n]: the mean cosine of a picture's Gram matrix with those of its other copies."""
    planes = out.flatten(2) if out.ndim > 2 else out[:, :, None]
    gram = torch.nn.functional.normalize((planes @ planes.transpose(1, 2)).flatten(1), dim=1)
    same = torch.as_tensor(groups[:, None] == groups).fill_diagonal_(False).to(gram)
    return (gram @ gram.T * same).sum(1) / same.sum(1).clamp(min=1)


none = Regularizer()
