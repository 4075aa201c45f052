"""Scores and gradients at many points near the items: the one loop below smoothing and every path method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.errors import AskwhyError, UnsupportedError
from askwhy.game import BatchSize, Progress, batch_size_for, in_chunks
from askwhy.models.base import is_out_of_memory
from askwhy.score import Score, as_floats, check_count, check_numbers, check_rows

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

Points = Callable[[int, int], "torch.Tensor"]  # (start, stop) -> inputs [stop - start, *item], made when they are needed
Run = Callable[["torch.Tensor", list[int]], Any]  # inputs and the items that they belong to -> what the question is read from
Use = Callable[[slice, "torch.Tensor"], None]  # what to keep of the gradients of one chunk


@dataclass
class Slopes:
    """Asks for scores and gradients at points that belong to items of one question."""

    score: Score
    run: Run  # a forward pass that can be differentiated: of the model itself, or of its twin
    size: BatchSize
    forward_size: BatchSize

    def __call__(self, owners: np.ndarray, points: Points, use: Use, tick: Progress | None = None) -> np.ndarray:
        """The scores, float64 [m], of points 0..m, where point j belongs to item owners[j]; `use` sees their gradients chunk by chunk."""

        def work(start: int, stop: int) -> np.ndarray:
            scores, found = slope(self.score, self.run, points(start, stop), owners[start:stop])
            self.score.calls += stop - start
            use(slice(start, stop), found)
            return scores

        return in_chunks(len(owners), work, self.size, tick)

    def levels(self, owners: np.ndarray, points: Points) -> np.ndarray:
        """The scores alone."""

        def work(start: int, stop: int) -> np.ndarray:
            with torch.no_grad():
                scores = read(self.score, self.run(points(start, stop), owners[start:stop].tolist()), owners[start:stop])
            self.score.calls += stop - start
            return as_floats(scores)

        return in_chunks(len(owners), work, self.forward_size, None)


@contextmanager
def slopes(score: Score, calls: int, samples: torch.Tensor, owner: int, batch_size: int | str) -> Iterator[Slopes]:
    """Inside the block, gradients may be asked for, about `calls` of them; `samples` of item `owner` are to prove a faster engine."""
    model = need_torch(score)
    check_floats(score)
    with model.untouched(), grad_mode():

        def question(outputs: Any) -> torch.Tensor:
            return score.read(outputs, [owner])

        asked = score.targets[owner], None if score.versus is None else score.versus[owner], tuple(samples.shape[1:])
        whole = score.items.arguments is None and score.layer is None  # the twin takes one tensor, and shows no layer
        twin = model.slope_twin(samples, calls, asked, question) if whole else None
        run, name = (on_a_copy(score), "backward") if twin is None else (lambda batch, _: twin(batch), "twin backward")
        yield Slopes(score, run, batch_size_for(score, batch_size, name), batch_size_for(score, batch_size, f"{name}, forward"))


def on_a_copy(score: Score) -> Run:
    """The model itself, which may write into its input, and a leaf must not be written to."""
    return lambda batch, owners: score.forward(batch.clone(), owners)


def slope(score: Score, run: Run, batch: torch.Tensor, owners: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
    """The scores [k] of a batch, and the gradient [k, *item] of each with respect to its own input."""
    leaf = batch.requires_grad_()
    scores = read(score, run(leaf, owners.tolist()), owners)
    check_differentiable(scores)
    (found,) = differentiate(scores, [leaf])
    return as_floats(scores), needed(found)


def read(score: Score, outputs: Any, owners: np.ndarray) -> torch.Tensor:
    """The scores of points [k], differentiable; refuses NaN."""
    check_rows(outputs, len(owners))
    scores = score.read(outputs, owners.tolist())
    values = as_floats(scores)
    check_count(values, len(owners))
    if not np.isfinite(values).all():
        first = int(np.argmin(np.isfinite(values)))
        check_numbers(values[first : first + 1], range(owners[first], owners[first] + 1), "a perturbed input of ")
    return scores


def check_floats(score: Score) -> None:
    """A gradient needs numbers that can be moved a little."""
    dtype = score.items.batch.dtype
    if not dtype.is_floating_point:
        raise UnsupportedError(f"x is {dtype}; a gradient needs floating-point inputs. Scale the picture to floats as the model was trained.")


def check_differentiable(scores: torch.Tensor) -> None:
    if not scores.requires_grad:
        raise UnsupportedError(
            "the score does not depend on the input through differentiable operations (no_grad, detach, or integer steps in the model); use occlusion or lime."
        )


def needed(found: torch.Tensor | None) -> torch.Tensor:
    """A gradient that has to be there."""
    if found is None:
        raise UnsupportedError("the score does not depend on the input at all; check the target.")
    return found


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
