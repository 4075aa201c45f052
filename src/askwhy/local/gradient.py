"""Gradients of the score with respect to the input, and the combinator that smooths any explainer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.answer import answer
from askwhy.errors import Cancelled, InputError, UnsupportedError
from askwhy.explanation import Explanation
from askwhy.game import Progress, batch_size_for, in_chunks, over_items, progress_of
from askwhy.local.slopes import check_differentiable, check_floats, needed, slopes
from askwhy.local.slopes import differentiate as differentiate
from askwhy.local.slopes import grad_mode as grad_mode
from askwhy.local.slopes import need_torch as need_torch
from askwhy.models.base import Items, to_numpy
from askwhy.registry import SCORE, SLOPE, method, plain
from askwhy.score import Score, ask

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")


@method(
    title="Gradient",
    needs="gradients",
    inputs=("image", "table", "other"),
    asks="If each number of the input were raised a little, how would the score change?",
    reads="positive: a larger value speaks for the class; negative: against it",
    unit=SLOPE,
    paper="Simonyan et al. 2014, https://arxiv.org/abs/1312.6034",
)
def gradient(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, batch_size: int | str = "auto", progress: bool | Progress | None = None
) -> Explanation:
    """The gradient of the score, dS/dx, shaped like the input; score units per input unit.

    Simonyan et al. 2014. Raises UnsupportedError where the score does not depend on x through differentiable operations.
    Example: `askwhy.gradient(net, x, target=3).values`.
    """
    score = ask(model, x, target, versus)
    refuse_tokens(score)
    return answer(score, gradients(score, batch_size=batch_size, progress=progress))


@method(
    title="Saliency",
    needs="gradients",
    inputs=("image", "text", "several"),
    asks="Which pixels (or words) would change the score most if they changed a little, in whichever direction?",
    reads="large: the score is sensitive to this pixel; the sign is dropped",
    unit=SLOPE,
    signed=False,
    paper="Simonyan et al. 2014, https://arxiv.org/abs/1312.6034",
    preference=10,
)
def saliency(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, batch_size: int | str = "auto", progress: bool | Progress | None = None
) -> Explanation:
    """The largest magnitude of the gradient over the channels, max_c |dS/dx_c|: [n, h, w], score units per input unit.

    Of tokens the length of the gradient at each token's vector, [n, tokens]; of several inputs every magnitude |dS/dx|.
    Simonyan et al. 2014. Raises UnsupportedError like `gradient`. Example: `askwhy.saliency(net, x).plot()`.
    """
    score = ask(model, x, target, versus)
    found = torch.from_numpy(gradients(score, batch_size=batch_size, progress=progress))
    return answer(score, strongest(score.items, found))


@method(
    title="Input x gradient",
    needs="gradients",
    inputs=("image", "table", "text", "several", "other"),
    asks="How much does each number of the input add to the score, if the network is read as the straight line that touches it here?",
    reads="positive: the number, as large as it is, speaks for the class; negative: against it. Numbers that are 0 get 0, so the scale's zero matters",
    paper="Shrikumar et al. 2016, https://arxiv.org/abs/1605.01713",
)
def input_x_gradient(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, batch_size: int | str = "auto", progress: bool | Progress | None = None
) -> Explanation:
    """The input times the gradient, x dS/dx, shaped like the input; score units.

    Exact for a network without biases whose activations are piecewise linear through 0: the sum is the score then.
    Shrikumar et al. 2016. Raises UnsupportedError like `gradient`. Example: `askwhy.input_x_gradient(net, x).values`.
    """
    score = ask(model, x, target, versus)
    found = gradients(score, batch_size=batch_size, progress=progress)
    return answer(score, to_numpy(score.items.batch) * found)


@method(
    title="SmoothGrad",
    needs="gradients",
    inputs=("image",),
    asks="Which pixels matter to the score on average over many slightly noisy copies of the picture?",
    reads="large: the score is sensitive to this pixel, and not only by chance of this exact picture; the sign is dropped",
    unit=SLOPE,
    signed=False,
    paper="Smilkov et al. 2017, https://arxiv.org/abs/1706.03825",
    preference=20,
)
def smooth_grad(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, samples: int = 50, sigma: float = 0.15, seed: int = 0,
    batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """The mean of `saliency` over `samples` noisy copies of x: [n, h, w], with its standard error.

    sigma: the noise's standard deviation as a share of max(x) - min(x). Smilkov et al. 2017; the same as
    `smooth(saliency, samples, sigma)`. Example: `askwhy.smooth_grad(net, x, samples=25).plot()`.
    """
    return smooth(saliency, samples, sigma, seed=seed)(model, x, target, versus=versus, batch_size=batch_size, progress=progress)


def smooth(
    explain: Callable[..., Explanation], samples: int = 50, sigma: float = 0.15, form: str = "mean", *, seed: int = 0
) -> Callable[..., Explanation]:
    """An explainer that asks `explain` about noisy copies of the input, x + sigma (max x - min x) e with e ~ N(0, 1).

    form: "mean" of the answers m (SmoothGrad, Smilkov et al. 2017), "square": the mean of m^2 (SmoothGrad-Squared,
    Hooker et al. 2019), or "variance" of m (VarGrad, Adebayo et al. 2018). `std_error` is that of the form.
    The target is fixed at the clean input. Raises InputError for a bad setting. Example: `smooth(gradient, 25)(net, x)`.
    """
    if samples < 2 or not sigma > 0:
        raise InputError(f"samples={samples}, sigma={sigma}: smoothing needs at least 2 samples and a positive sigma.")
    if form not in FORMS:
        raise InputError(f"form={form!r}: choose {', '.join(map(repr, FORMS))}.")
    name = f"smooth({getattr(explain, '__name__', type(explain).__name__)})"

    def smoothed(
        model: Any, x: Any, target: Any = None, *, versus: Any = None, progress: bool | Progress | None = None, **options: Any
    ) -> Explanation:
        score = ask(model, x, target, versus)
        score.predict()
        found = []
        with progress_of(progress, name) as tick:
            for i, count in enumerate(over_items(tick, len(score))):
                noise = Noise(score.items.batch[i : i + 1], samples, spread_of(score.items, i) * sigma, (seed, i))
                moments = Moments(form)
                direct = explain in READERS and options.keys() <= {"batch_size"}
                if not direct and score.items.kind in ("text", "several"):
                    raise UnsupportedError(
                        f"{name} of tokens or several inputs is not possible; smooth saliency or input_x_gradient, with no options."
                    )
                (by_slopes if direct else by_asking)(explain, score, i, noise, moments, options, count)
                found.append((*moments.result(), moments.unit))
        params = {"samples": samples, "sigma": sigma, "form": form, "seed": seed, **{k: plain(v) for k, v in options.items()}}
        means, errors = (np.stack(rows) for rows in zip(*((m, e) for m, e, _ in found), strict=True))
        return answer(score, means, std_error=errors, params=params, method=name, unit=found[0][2], seed=seed)

    smoothed.__name__ = name
    return smoothed


class Noise:
    """Copies of x [1, ...] with Gaussian noise, each from a seed of its own; spread: its standard deviation.

    In float32 for every model, so that a seed means one thing; in threads, since drawing takes as long as a layer.
    """

    def __init__(self, x: Any, samples: int, spread: Any, seed: tuple[int, int]) -> None:
        if to_numpy(x).dtype.kind != "f":
            raise UnsupportedError("smooth adds noise to numbers, but this input is made of integers.")
        self.x, self.samples, self.spread, self.seed = x, samples, spread, seed

    def __call__(self, start: int, stop: int) -> Any:
        """The copies start to stop."""
        e = np.empty((stop - start, *self.x.shape[1:]), np.float32)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda k: np.random.default_rng([*self.seed, start + k]).standard_normal(out=e[k], dtype=np.float32), range(len(e))))
        if not hasattr(self.x, "detach"):
            return self.x + (e * self.spread).astype(self.x.dtype)
        spread = torch.as_tensor(self.spread).to(self.x.device, self.x.dtype)
        return torch.addcmul(self.x, torch.as_tensor(e).to(self.x.device, self.x.dtype), spread)


def spread_of(items: Items, i: int) -> Any:
    """max x - min x of an item; of several inputs each has its own, for each of its numbers."""
    x = items.batch[i : i + 1]
    if items.kind != "several":
        return float(x.max() - x.min())
    return np.concatenate([np.full(part.size, float(own.max() - own.min())) for part, own in items.arguments.pieces(x)])


FORMS = ("mean", "square", "variance")


@dataclass
class Moments:
    """Sums of powers of the answers, from which a form and its standard error come."""

    form: str
    unit: str = ""
    count: int = 0
    first: Any = None  # an answer that the others are compared with, so that large numbers do not cancel
    sums: list[Any] = field(default_factory=list)  # of d, d^2, ... with d = answer - first

    def add(self, answers: np.ndarray) -> None:
        """Answers [k, ...]."""
        values = answers.astype(np.float64)
        if self.form == "square":
            values *= values
        if self.first is None:
            self.first, self.sums = values[0].copy(), [0.0] * (4 if self.form == "variance" else 2)
        values -= self.first
        power = values
        for k in range(len(self.sums)):
            self.sums[k] = self.sums[k] + power.sum(0)
            power = power * values if k + 1 < len(self.sums) else power
        self.count += len(values)

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """The form and its standard error."""
        n = self.count
        d1, d2, *higher = (total / n for total in self.sums)
        variance = np.maximum(d2 - d1**2, 0) * n / (n - 1)
        if self.form != "variance":
            return self.first + d1, np.sqrt(variance / n)
        d3, d4 = higher
        fourth = d4 - 4 * d1 * d3 + 6 * d1**2 * d2 - 3 * d1**4  # the central moment
        return variance, np.sqrt(np.maximum(fourth - variance**2 * (n - 3) / (n - 1), 0) / n)


def by_asking(
    explain: Callable[..., Explanation], score: Score, i: int, noise: Noise, moments: Moments, options: dict[str, Any], tick: Progress | None
) -> None:
    """Any explainer, 16 copies at a time."""
    versus = None if score.versus is None else score.versus[i]
    for start in range(0, noise.samples, 16):
        stop = min(start + 16, noise.samples)
        why = explain(score.model, noise(start, stop), score.targets[i], versus=versus, **options)
        if why.components is not None:
            raise UnsupportedError(f"{why.method} explains by components, which differ from copy to copy; smooth works on maps and gradients.")
        score.calls += why.model_calls
        moments.unit = in_form(why.unit, moments.form)
        moments.add(why.values)
        if tick is not None and tick(stop, noise.samples) is False:
            raise Cancelled(f"stopped after {stop} of {noise.samples} samples.")


def by_slopes(
    explain: Callable[..., Explanation], score: Score, i: int, noise: Noise, moments: Moments, options: dict[str, Any], tick: Progress | None
) -> None:
    """What is read from the plain gradient goes through the faster engine."""
    read, unit = READERS[explain]
    moments.unit = in_form(unit, moments.form)
    shown: list[Any] = []

    def copies(start: int, stop: int) -> torch.Tensor:
        shown[:] = [noise(start, stop)]
        return shown[0]

    def use(chunk: slice, found: torch.Tensor) -> None:
        moments.add(read(score.items, shown[0].detach(), found))

    own = score.items.batch[i : i + 1]
    samples = torch.cat([own * (1 - k / 32) for k in range(16)])
    with slopes(score, noise.samples, samples, i, options.get("batch_size", "auto")) as at:
        at(np.full(noise.samples, i), copies, use, tick)


def refuse_tokens(score: Score) -> None:
    """A gradient at a token has one number for each of its vector's."""
    if score.items.arguments is not None and any(part.lookups for part in score.items.arguments.parts):
        raise UnsupportedError(
            "the gradient at a token is a vector; use saliency, which takes its length, or integrated_gradients, lrp, deep_lift or input_x_gradient, whose numbers add up."
        )


def in_form(unit: str, form: str) -> str:
    return unit if form == "mean" else f"({unit}) squared"


def strongest(items: Items, grads: torch.Tensor) -> np.ndarray:
    """[n, c, h, w] -> [n, h, w]: the largest magnitude over the channels; of tokens the length of each gradient."""
    if items.kind in ("text", "several"):
        return items.shown(to_numpy(grads.abs()), "length")
    if grads.ndim != 4:
        raise InputError(f"saliency needs pictures [n, c, h, w], but x is {list(grads.shape)}; use gradient.")
    return to_numpy(grads.abs().amax(1 if grads.shape[1] in (1, 3, 4) or grads.shape[3] not in (1, 3, 4) else 3))


def gradients(
    score: Score, *, batch_size: int | str = "auto", progress: bool | Progress | None = None,
    around: Callable[[], AbstractContextManager[Any]] = nullcontext, check: Callable[[torch.Tensor, Any], None] | None = None,
    finish: Callable[[torch.Tensor, torch.Tensor, Any], np.ndarray] | None = None,
) -> np.ndarray:  # fmt: skip
    """dS/dx for all items, [n, *item]. `around` is entered for forward and backward; `check(score, what it gave)` may refuse.

    finish(input, gradient, what it gave) makes something else of the gradient.
    """
    model, batch = need_torch(score), score.items.batch
    check_floats(score)

    def work(start: int, stop: int) -> np.ndarray:
        leaf = batch[start:stop].clone().requires_grad_()
        with around() as record:
            items = range(start, stop)
            scores = score.settle(score.forward(leaf.clone(), items), items)  # a copy, since the model may write into its input
            score.calls += stop - start
            check_differentiable(scores)
            if check is not None:
                check(scores, record)
            found = needed(differentiate(scores, [leaf])[0])
        return to_numpy(found) if finish is None else finish(leaf, found, record)

    with model.untouched(), grad_mode(), progress_of(progress, "gradients") as tick:
        return in_chunks(len(score), work, batch_size_for(score, batch_size, "backward"), tick)


READERS: dict[Any, tuple[Callable[[Items, torch.Tensor, torch.Tensor], np.ndarray], str]] = {
    gradient: (lambda items, x, slope: to_numpy(slope), SLOPE),
    saliency: (lambda items, x, slope: strongest(items, slope), SLOPE),
    input_x_gradient: (lambda items, x, slope: items.shown(to_numpy(x * slope)), SCORE),
}  # (the items, copies, their gradients) -> what the explainer answers
