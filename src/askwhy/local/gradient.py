"""Gradients of the score with respect to the input, and the combinator that smooths any explainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.errors import AskwhyError, Cancelled, InputError, UnsupportedError
from askwhy.explanation import Explanation, answer
from askwhy.game import Progress, batch_size_for, in_chunks, over_items, progress_of
from askwhy.models.base import is_out_of_memory, to_numpy
from askwhy.registry import SLOPE, method, plain
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
    return answer(score, gradients(score, batch_size=batch_size, progress=progress))


@method(
    title="Saliency",
    needs="gradients",
    inputs=("image",),
    asks="Which pixels would change the score most if they changed a little, in whichever direction?",
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

    Simonyan et al. 2014. Raises UnsupportedError like `gradient`. Example: `askwhy.saliency(net, x).plot()`.
    """
    score = ask(model, x, target, versus)
    return answer(score, strongest(gradients(score, batch_size=batch_size, progress=progress)))


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


def smooth(explain: Callable[..., Explanation], samples: int = 50, sigma: float = 0.15, *, seed: int = 0) -> Callable[..., Explanation]:
    """An explainer that averages `explain` over noisy copies of the input, E[explain(x + sigma (max x - min x) e)], e ~ N(0, 1).

    The target is fixed at the clean input. `std_error` is that of the mean. Smilkov et al. 2017.
    Raises InputError for fewer than 2 samples. Example: `smooth(gradient, samples=25)(net, x)`.
    """
    if samples < 2 or sigma <= 0:
        raise InputError(f"samples={samples}, sigma={sigma}: smoothing needs at least 2 samples and a positive sigma.")
    name = f"smooth({getattr(explain, '__name__', type(explain).__name__)})"

    def smoothed(
        model: Any, x: Any, target: Any = None, *, versus: Any = None, progress: bool | Progress | None = None, **options: Any
    ) -> Explanation:
        score = ask(model, x, target, versus)
        score.predict()
        found = []
        with progress_of(progress, name) as tick:
            for i, count in enumerate(over_items(tick, len(score))):
                copies = noisy(score.items.batch[i : i + 1], samples, sigma, np.random.default_rng([seed, i]))
                found.append(mean_over(explain, score, i, copies, samples, options, count))
        params = {"samples": samples, "sigma": sigma, "seed": seed, **{k: plain(v) for k, v in options.items()}}
        means, errors = (np.stack(rows) for rows in zip(*((m, e) for m, e, _ in found), strict=True))
        return answer(score, means, std_error=errors, params=params, method=name, unit=found[0][2], seed=seed)

    smoothed.__name__ = name
    return smoothed


def noisy(x: Any, samples: int, sigma: float, rng: np.random.Generator) -> Iterator[Any]:
    """Copies of x [1, ...] with Gaussian noise, 16 at a time; sigma is a share of max x - min x."""
    if to_numpy(x).dtype.kind != "f":
        raise UnsupportedError("smooth adds noise to numbers, but this input is made of integers.")
    spread = float(x.max() - x.min()) * sigma
    for start in range(0, samples, 16):
        e = rng.standard_normal((min(16, samples - start), *x.shape[1:])) * spread
        yield x + (torch.as_tensor(e).to(x.device, x.dtype) if hasattr(x, "detach") else e.astype(x.dtype))


def mean_over(
    explain: Callable[..., Explanation], score: Score, i: int, copies: Iterator[Any], samples: int, options: dict[str, Any], tick: Progress | None
) -> tuple[np.ndarray, np.ndarray, str]:
    """The mean of the explanations of noisy copies of item i, its standard error, and their unit."""
    total = square = np.zeros(1)
    versus = None if score.versus is None else score.versus[i]
    done = 0
    for batch in copies:
        why = explain(score.model, batch, score.targets[i], versus=versus, **options)
        if why.components is not None:
            raise UnsupportedError(f"{why.method} explains by components, which differ from copy to copy; smooth works on maps and gradients.")
        score.calls += why.model_calls
        done += len(why)
        values = why.values.astype(np.float64)
        total, square = total + values.sum(0), square + (values**2).sum(0)
        if tick is not None and tick(done, samples) is False:
            raise Cancelled(f"stopped after {done} of {samples} samples.")
    mean = total / samples
    return mean, np.sqrt(np.maximum(square / samples - mean**2, 0) / (samples - 1)), why.unit


def strongest(grads: np.ndarray) -> np.ndarray:
    """[n, c, h, w] -> [n, h, w]: the largest magnitude over the channels."""
    if grads.ndim != 4:
        raise InputError(f"saliency needs pictures [n, c, h, w], but x is {list(grads.shape)}; use gradient.")
    return np.abs(grads).max(1 if grads.shape[1] in (1, 3, 4) or grads.shape[3] not in (1, 3, 4) else 3)


def gradients(
    score: Score, *, batch_size: int | str = "auto", progress: bool | Progress | None = None,
    around: Callable[[], AbstractContextManager[Any]] = nullcontext, check: Callable[[torch.Tensor, Any], None] | None = None,
) -> np.ndarray:  # fmt: skip
    """dS/dx for all items, [n, *item]. `around` is entered for forward and backward; `check(score, what it gave)` may refuse."""
    model, batch = need_torch(score), score.items.batch
    if not batch.is_floating_point():
        raise UnsupportedError(f"x is {batch.dtype}; a gradient needs floating-point inputs. Scale the picture to floats as the model was trained.")

    def work(start: int, stop: int) -> np.ndarray:
        leaf = batch[start:stop].clone().requires_grad_()
        with around() as record:
            scores = score.settle(model.forward(leaf.clone()), range(start, stop))  # a copy, since the model may write into its input
            score.calls += stop - start
            if not scores.requires_grad:
                raise UnsupportedError(
                    "the score does not depend on the input through differentiable operations (no_grad, detach, or integer steps in the model); use occlusion or lime."
                )
            if check is not None:
                check(scores, record)
            (found,) = differentiate(scores, [leaf])
        if found is None:
            raise UnsupportedError("the score does not depend on the input at all; check the target.")
        return to_numpy(found)

    with model.untouched(), grad_mode(), progress_of(progress, "gradients") as tick:
        return in_chunks(len(score), work, batch_size_for(score, batch_size, "backward"), tick)


def differentiate(scores: torch.Tensor, inputs: list[torch.Tensor]) -> tuple[torch.Tensor | None, ...]:
    """The gradient of each item's own score; None for an input that the scores do not depend on."""
    try:
        return torch.autograd.grad(scores.sum(), inputs, allow_unused=True)
    except RuntimeError as error:
        if is_out_of_memory(error) or isinstance(error, AskwhyError):
            raise
        remedy = "use checkpoint(..., use_reentrant=False)" if "reentrant" in str(error) else "use occlusion or lime, which need no gradient"
        raise UnsupportedError(f"the model cannot be differentiated: {str(error).splitlines()[0][:200]}; {remedy}.") from error


def grad_mode() -> AbstractContextManager[Any]:
    """Gradients on, whatever mode the caller is in."""
    from contextlib import ExitStack

    stack = ExitStack()
    stack.enter_context(torch.inference_mode(False))
    stack.enter_context(torch.enable_grad())
    return stack


def need_torch(score: Score) -> Any:
    """The torch model of a question. Raises UnsupportedError for a black box."""
    if "gradients" not in score.model.offers:
        raise UnsupportedError(
            "this model offers predictions only, and the method needs gradients; use occlusion or lime, or give the torch module itself."
        )
    return score.model
