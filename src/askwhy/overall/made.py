"""What a picture is made of while it is sought: from a leaf to inputs of the model, and to what a screen shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.checks import whole
from askwhy.errors import AskwhyError, InputError, ModelError
from askwhy.models.base import contents, first_line, is_out_of_memory, show_shape, to_numpy
from askwhy.models.pictures import from_values
from askwhy.models.torch_module import TorchModel
from askwhy.overall.canvas import Canvas, canvas_of, dtype_of, placed
from askwhy.overall.parameters import WAYS, Parameters, latent

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

LARGEST = 2**63 - 1  # of a seed; torch's generators take none that are much larger
PRIOR = 0.15  # weight of |z|^2 / 2, in units of the score


@dataclass(frozen=True, eq=False)
class Made:
    """From a leaf to a picture p or an input, and from inputs to what a screen shows."""

    parameters: Parameters
    inputs: Callable[[torch.Tensor], torch.Tensor]
    zero: torch.Tensor
    canvas: Canvas | None

    def seen(self, x: torch.Tensor, p: torch.Tensor) -> tuple[np.ndarray, torch.Tensor | None]:
        """Pictures uint8 [n, h, w, 3], and the inputs that they are; unknown where no scaling is known."""
        if self.canvas is None:
            shown = [from_values(to_numpy(one)) for one in x]
            if any(one is None for one in shown):
                raise InputError(f"the generator gives {show_shape(x)}; a portrait needs pictures [n, 1 or 3, height, width].")
            return np.stack([np.asarray(one) for one in shown]), None
        seen = self.canvas.seen(p)
        return seen, self.canvas.inputs(self.canvas.pictures(seen))


def made_by(
    model: TorchModel, parameters: str, generator: Any = None, size: Any = None, prior: float | None = None, shape: Any = None, bounds: Any = None,
    images: Any = None,
) -> Made:  # fmt: skip
    """Raises InputError."""
    if generator is None:
        check_unused(size=size, prior=prior)
        canvas = canvas_of(model, shape, bounds, images)
        return Made(WAYS[parameters](canvas), canvas.inputs, canvas.zero, canvas)
    size = getattr(generator, "latent", None) if size is None else size
    if size is None or not callable(generator):
        raise InputError("generator= has to be a function z [n, latent] -> inputs [n, c, h, w]; a plain one needs size=, how many numbers z has.")
    size = whole("size", size, 1)
    check_still(generator)
    prior = PRIOR if prior is None else prior
    if isinstance(prior, bool) or not isinstance(prior, (int, float)) or not 0 <= prior < float("inf"):
        raise InputError(f"prior={prior!r}: give the weight of |z|^2 / 2, a number from 0 on.")
    like = placed(model, np.zeros(1))
    known = canvas_of_pictures(model, generator, shape, bounds)
    made = Made(
        latent(generating(generator, model, known), size, float(prior), like), known.inputs if known else torch.clone, like.new_zeros(()), known
    )
    check_pictures(made)
    return made


def check_still(generator: Any) -> None:
    """Raises ModelError for a network in training mode: its batch norms would change, and mix the portraits."""
    if isinstance(generator, torch.nn.Module) and any(part.training for part in generator.modules()):
        raise ModelError("generator= is in training mode, where its pictures depend on each other and its batch norms change; call generator.eval().")


def generating(generator: Callable[[Any], Any], model: TorchModel, known: Canvas | None) -> Callable[[torch.Tensor], torch.Tensor]:
    """The generator on z in the model's precision; a grey picture as one of as many colours as the canvas has. Raises InputError."""

    def generate(z: torch.Tensor) -> torch.Tensor:
        try:
            p = generator(z.to(dtype_of(model)))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            if isinstance(error, AskwhyError) or is_out_of_memory(error):
                raise
            raise InputError(f"generator= failed on z of shape {show_shape(z)}: {first_line(error)}") from error
        if not isinstance(p, torch.Tensor) or p.ndim != 4 or len(p) != len(z):
            raise InputError(f"generator= gives {contents(p)} for z of shape {show_shape(z)}; a portrait needs pictures [n, 1 or 3, height, width].")
        return p if known is None else fitting(p, known)

    return generate


def fitting(p: torch.Tensor, canvas: Canvas) -> torch.Tensor:
    """Raises InputError for pictures of another size than the model's."""
    if p.shape[2:] != canvas.shape[1:] or p.shape[1] not in (1, canvas.shape[0]):
        raise InputError(
            f"generator= makes pictures {list(p.shape[1:])}, and an input of the model is {list(canvas.shape)}; give one that makes these."
        )
    return p.expand(-1, canvas.shape[0], -1, -1)


def check_pictures(made: Made) -> None:
    """Whether the generator's pictures can be shown. Raises InputError."""
    with torch.no_grad():
        p = made.parameters.picture(made.parameters.start([0, 1]))
        made.seen(made.inputs(p), p)


def canvas_of_pictures(model: TorchModel, generator: Any, shape: Any, bounds: Any) -> Canvas | None:
    """The canvas of a generator of pictures 0..1; None where what it gives goes into the model as it is. Raises InputError."""
    if not getattr(generator, "of_pictures", False):
        for name, value in (("shape", shape), ("bounds", bounds)):
            if value is not None:
                raise InputError(f"{name}={value!r}: the generator gives the model's inputs themselves, which are used as they are; leave it out.")
        return None
    if model.transform is None and bounds is None and shape is None:
        return None
    return canvas_of(model, getattr(generator, "shape", None) if shape is None and bounds is not None else shape, bounds, None)


def check_unused(**of_a_generator: Any) -> None:
    for name, value in of_a_generator.items():
        if value is not None:
            raise InputError(f"{name}={value!r} is about a generator's vector z; leave it out, or give generator=.")
