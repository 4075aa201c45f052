"""Gradient ascent on pictures: one pass forward and back a step, for several pictures at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy._memory import resident
from askwhy.errors import ModelError
from askwhy.game import Progress
from askwhy.models.base import to_numpy
from askwhy.models.torch_module import TorchModel
from askwhy.overall.objectives import Aim, Scale, layers_in, raised
from askwhy.overall.regularizers import Regularizer, Within
from askwhy.targets import Inside, Reached, one_tensor

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

SMOOTH = 0.9  # of the running mean by which the best picture is told, since a moved picture's score jumps


@dataclass(eq=False)
class Climb:
    """What a search holds, so that it can be stopped at any time."""

    best: torch.Tensor  # leaf [n, ...]
    start: torch.Tensor  # the leaf before the first step
    trace: list[np.ndarray] = field(default_factory=list)  # [n] a step: the aim as it was seen, moved and noisy
    engine: str = "forward"
    stopped: bool = False

    @property
    def steps(self) -> int:
        return len(self.trace)


@dataclass(frozen=True, eq=False)
class Search:
    """What is asked: pictures -> how far each aim is reached."""

    model: TorchModel
    aims: Sequence[Aim]
    made: Any  # parameters, what their picture is to the model, and the picture whose input is 0
    regularizer: Regularizer
    seeds: list[int]
    groups: np.ndarray  # [n]: copies of one target share a number
    scale: Scale | None = None  # of the classes' scores
    within: tuple[Within, ...] = ()  # the regularizer's penalties on what layers give

    def part(self, rows: slice) -> Search:
        return replace(self, aims=self.aims[rows], seeds=self.seeds[rows], groups=self.groups[rows])

    def climb(self, steps: int, rate: float, tick: Progress | None) -> Climb:
        """Adam, up. A callback that answers False, or an interrupt, ends it early with what there is."""
        with self.model.untouched(), torch.inference_mode(False), torch.enable_grad(), resident():
            leaf = self.made.parameters.start(self.seeds).detach().requires_grad_()
            climb, chance = Climb(leaf.detach().clone(), leaf.detach().clone()), [torch.Generator().manual_seed(2**32 + seed) for seed in self.seeds]
            run, climb.engine = self.engine(leaf, steps)
            adam = torch.optim.Adam([leaf], lr=rate)
            mean, top = None, None
            try:
                for step in range(steps):
                    gains, value = self.value(leaf, run, chance)
                    (leaf.grad,) = torch.autograd.grad(-value.sum(), [leaf])
                    self.check(gains, leaf.grad, climb)
                    now = to_numpy(value).astype(np.float64)
                    mean = now if mean is None or not self.moves else SMOOTH * mean + (1 - SMOOTH) * now
                    better = np.ones(len(now), bool) if top is None else mean >= top
                    top = np.where(better, mean, mean if top is None else top)
                    climb.best[torch.from_numpy(better)] = leaf.detach()[torch.from_numpy(better)]
                    climb.trace.append(to_numpy(gains).astype(np.float64))
                    adam.step()
                    self.clean(leaf, step)
                    if tick is not None and tick(step + 1, steps) is False:
                        climb.stopped = True
                        break
            except KeyboardInterrupt:
                if not climb.trace:
                    raise
                climb.stopped = True
        return climb

    @property
    def apart(self) -> bool:
        """Whether each picture can be sought without the others."""
        return all(part.alone for part in self.regularizer.parts)

    @property
    def moves(self) -> bool:
        return any(part.motion is not None or part.noise for part in self.regularizer.parts)

    def value(self, leaf: torch.Tensor, run: Any, chance: list[torch.Generator]) -> tuple[torch.Tensor, torch.Tensor]:
        """The aims [n], and the same less the penalties."""
        p = self.made.parameters.picture(leaf)
        gains, apart = run(self.made.inputs(self.moved(p, chance)))
        value = gains - apart
        for part in self.regularizer.parts:
            if part.penalty is not None:
                value = value - part.penalty(p - self.made.zero)
        return gains, value if self.made.parameters.prior is None else value - self.made.parameters.prior(leaf)

    def moved(self, p: torch.Tensor, chance: list[torch.Generator]) -> torch.Tensor:
        """The pictures as they are shown at this step: shifted, turned, cut, noisy, each in its own way."""
        motions = [part.motion for part in self.regularizer.parts if part.motion is not None]
        if motions:
            where = torch.stack([composed([motion(one, min(p.shape[2:])) for motion in motions]) for one in chance]).to(p)
            grid = torch.nn.functional.affine_grid(where, list(p.shape), align_corners=False)
            p = torch.nn.functional.grid_sample(p, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        for part in self.regularizer.parts:
            if part.noise:
                p = p + part.noise * torch.stack([torch.randn(p.shape[1:], generator=one) for one in chance]).to(p)
        return p

    def clean(self, leaf: torch.Tensor, step: int) -> None:
        """What is done to pixels between two steps; they stay between black and white."""
        if not self.made.parameters.of_pixels:
            return
        with torch.no_grad():
            u = leaf - self.made.zero
            for part in self.regularizer.parts:
                if part.after is not None:
                    u = part.after(u, leaf.grad, step)
            leaf.copy_((u + self.made.zero).clamp(0, 1))

    def check(self, gains: torch.Tensor, gradient: torch.Tensor, climb: Climb) -> None:
        """Refuse what cannot be climbed. Raises ModelError."""
        if not bool(torch.isfinite(gains).all() and torch.isfinite(gradient).all()):
            raise ModelError(f"after {climb.steps} steps the aim or its gradient is NaN or infinite; choose a smaller rate=, or another target.")
        if not climb.trace and not bool((gradient != 0).any()):
            raise ModelError(
                "the gradient is zero at the start, so that no direction leads up: the neuron is off there, or a probability is at its end; "
                "choose another seed=, the layer before the rectifier, or wrap the model without output='probabilities'."
            )

    # ---- one pass ---------------------------------------------------------------------------------------------------

    def engine(self, leaf: torch.Tensor, steps: int) -> tuple[Callable[[torch.Tensor], tuple[Any, Any]], str]:
        """inputs -> the aims [n] and the penalties within [n]; by a faster twin where only the output counts."""
        if not layers_in(self.aims) and not self.within:
            read = lambda outputs: torch.cat(raised(self.aims[: len(outputs)], outputs, {}, self.scale))  # noqa: E731
            twin = self.model.slope_twin(self.samples(), steps * len(leaf), ("climb", self.aims, self.scale is None), read)
            if twin is not None:
                return (lambda x: (read(twin(x)), 0.0)), "twin"
        return self.forward, "forward"

    def samples(self) -> torch.Tensor:
        """Inputs on which a twin is to be proved: the start, and noisier ones, since in a grey picture rounding flips rectifiers."""
        parameters = self.made.parameters
        p = parameters.picture(parameters.start([self.seeds[0] + k for k in range(6)])).detach()
        noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(self.seeds[0])).to(p)
        spread = torch.linspace(0, 0.3, len(p)).to(p)[:, None, None, None]
        return self.made.inputs(p + spread * noise).detach()  # type: ignore[no-any-return]

    def forward(self, x: torch.Tensor) -> tuple[Any, Any]:
        wanted = [*layers_in(self.aims), *(layer for one in self.within for layer in one.layers)]
        whole = any(not isinstance(target, Inside) for one in self.aims for _, target in one.terms)
        with listening(self.model, wanted, whole) as seen:
            outputs = self.run(x)
        gains = torch.cat(raised(self.aims, outputs, seen, self.scale))
        return gains, sum(one.penalty(seen, self.groups) for one in self.within)

    def run(self, x: torch.Tensor) -> Any:
        try:
            return self.model.forward(x)
        except Reached:
            return None


def composed(motions: list[torch.Tensor]) -> torch.Tensor:
    """[2, 3] of one motion after the other."""
    whole = motions[0]
    for motion in motions[1:]:
        whole = whole @ motion
    return whole[:2]


@contextmanager
def listening(model: TorchModel, layers: list[str], whole: bool) -> Iterator[dict[str, Any]]:
    """What layers give in a pass, which ends behind the last of them where the output is not needed."""
    seen: dict[str, Any] = {}

    def hook_for(name: str) -> Callable[..., Any]:
        def hook(module: Any, args: Any, out: Any) -> Any:
            found = one_tensor(out, name)
            seen[name] = found
            if not whole and len(seen) == len(set(layers)):
                raise Reached
            return out.clone() if found is out else None  # a later operation may write into it

        return hook

    handles = [model.net.get_submodule(name).register_forward_hook(hook_for(name)) for name in dict.fromkeys(layers)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
