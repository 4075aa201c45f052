"""Gradient ascent on pictures: one pass forward and back a step, for several pictures at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy._memory import resident
from askwhy.errors import ModelError
from askwhy.game import Progress
from askwhy.models.base import to_numpy
from askwhy.models.torch_module import TorchModel
from askwhy.overall.made import Made
from askwhy.overall.objectives import Aim, Scale, layers_in, raised
from askwhy.overall.regularizers import Regularizer, Within
from askwhy.rules import Record, rules, scripted
from askwhy.tap import hooked
from askwhy.targets import Inside, Reached, one_tensor

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

LOUDER = (10.0, 100.0, 300.0)  # times the noise of the start, where a neuron is off
LATE = 0.03  # weight of the last step in the running mean of the leaves
SMOOTH = 0.9  # of the running mean of the slope, in units of which penalties count


@dataclass(eq=False)
class Climb:
    """What a search holds, so that it can be stopped at any time."""

    best: torch.Tensor  # leaf [n, ...]
    start: torch.Tensor  # the leaf before the first step
    trace: list[np.ndarray] = field(default_factory=list)  # [n] a step: the aim as it was seen, moved and noisy
    flat: list[int] = field(default_factory=list)  # pictures that had no gradient at the start
    unit: Any = None  # [n]: what a penalty of 1 counts; unknown before the first step where penalties are balanced
    pace: Any = None  # [n, 1, ...]: the gradient at the start, which moves by the rate in the mean
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
    made: Made
    regularizer: Regularizer
    seeds: list[int]
    groups: np.ndarray  # [n]: copies of one target share a number
    scale: Scale | None = None  # of the classes' scores
    plain: bool = False  # whether steps are as long as the gradient, and not made even by Adam
    balance: bool = False  # whether penalties count in units of the score's slope
    views: int = 1  # how often a step looks at the pictures, each time under other noise and motion
    within: tuple[Within, ...] = ()  # the regularizer's penalties on what layers give
    alone: bool = True  # whether these are all that are sought

    def part(self, rows: slice) -> Search:
        cut = replace(self, aims=self.aims[rows], seeds=self.seeds[rows], groups=self.groups[rows])
        return replace(cut, alone=self.alone and len(cut.aims) == len(self.aims))

    def climb(self, steps: int, rate: float, tick: Progress | None) -> Climb:
        """Up, by Adam or as the gradient says. A callback that answers False, or an interrupt, ends it early with what there is."""
        with self.model.untouched(), torch.inference_mode(False), torch.enable_grad(), resident():
            leaf = self.made.parameters.start(self.seeds).detach()
            run, engine = self.engine(leaf, steps)
            run = self.smoothed(run)
            leaf, flat = self.awake(leaf, run)
            climb, chance = Climb(leaf.clone(), leaf.clone(), flat=flat, engine=engine), self.chances()
            leaf.requires_grad_()
            steps_up = (torch.optim.SGD if self.plain else torch.optim.Adam)([leaf], lr=rate)
            top = None
            try:
                for step in range(steps):
                    p = self.made.parameters.picture(leaf)
                    gains, apart, slope = self.slope(p, run, chance, climb)
                    penalty, back = self.penalty(p)
                    value = gains - climb.unit * (penalty + apart)
                    (leaf.grad,) = torch.autograd.grad(p, [leaf], -slope + climb.unit[:, None, None, None] * back)
                    value = self.with_prior(leaf, value)
                    self.check(gains, leaf.grad, climb)
                    if self.plain:
                        climb.pace = mean_size(leaf.grad) if step == 0 else climb.pace
                        leaf.grad /= climb.pace
                    if self.comparable:
                        top = value if top is None else torch.maximum(value, top)
                        better = value == top
                        climb.best[better] = leaf.detach()[better]
                    else:
                        climb.best.lerp_(leaf.detach(), max(2 / (step + 2), LATE))
                    climb.trace.append(to_numpy(gains).astype(np.float64))
                    steps_up.step()
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
    def comparable(self) -> bool:
        """Whether the best step can be told: not where each sees other noise, or penalties in another unit. There the last ones are averaged."""
        return not self.balance and not self.regularizer.random

    @property
    def hidden(self) -> str | None:
        """The part that torch.jit made, where the regularizer says another way back and no operation can be seen."""
        return scripted(self.model.net) if any(part.back is not None for part in self.regularizer.parts) else None

    def slope(self, p: torch.Tensor, run: Any, chance: list[torch.Generator], climb: Climb) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The aims [n], the penalties within [n], and the slope of both at the pictures, in the mean of the views.

        The unit of penalties follows the aims' slope.
        """
        views = [self.view(p, run, chance) for _ in range(self.views)]
        gains, apart, slope, back = (torch.stack(each).mean(0) for each in zip(*views, strict=True))
        size = slope.abs().flatten(1).sum(1) if self.balance else p.new_ones(len(p))
        climb.unit = size if climb.unit is None else torch.lerp(size, climb.unit, SMOOTH)
        return gains, apart, slope - climb.unit[:, None, None, None] * back

    def view(self, p: torch.Tensor, run: Any, chance: list[torch.Generator]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The aims [n], the penalties within [n], and the slopes of each at the pictures, as they are shown once."""
        gains, apart = run(self.made.inputs(self.moved(p, chance)))
        if not self.within:
            return gains.detach(), torch.zeros_like(gains), slope_of(gains, p), p.new_zeros(())
        if not self.balance:
            return gains.detach(), apart.detach(), slope_of(gains - apart, p), p.new_zeros(())
        return gains.detach(), apart.detach(), slope_of(gains, p), slope_of(apart, p)

    def penalty(self, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum of the penalties [n], and its slope at the pictures."""
        rest = p.detach().requires_grad_()
        parts = [part.penalty(rest - self.made.zero) for part in self.regularizer.parts if part.penalty is not None]
        if not parts:
            return p.new_zeros(len(p)), torch.zeros_like(p)
        whole = torch.stack(parts).sum(0)
        return whole.detach(), torch.autograd.grad(whole.sum(), [rest])[0]

    def with_prior(self, leaf: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """The value less what a vector costs that a generator was not trained on."""
        prior = self.made.parameters.prior
        if prior is None:
            return value
        cost = prior(leaf)
        leaf.grad = leaf.grad + torch.autograd.grad(cost.sum(), [leaf])[0]  # type: ignore[operator]
        return value - cost.detach()

    def moved(self, p: torch.Tensor, chance: list[torch.Generator]) -> torch.Tensor:
        """The pictures as they are shown at this step: shifted, turned, cut, noisy, each in its own way."""
        motions = [part.motion for part in self.regularizer.parts if part.motion is not None]
        if motions:
            where = torch.stack([composed([motion(one, p.shape[2:]) for motion in motions], *p.shape[2:]) for one in chance]).to(p)
            grid = torch.nn.functional.affine_grid(where, list(p.shape), align_corners=False)
            p = torch.nn.functional.grid_sample(p, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
        for part in self.regularizer.parts:
            if part.noise is not None:
                p = p + torch.stack([part.noise(one) * torch.randn(p.shape[1:], generator=one, dtype=torch.float32) for one in chance]).to(p)
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

    def chances(self) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(2**32 + seed) for seed in self.seeds]

    def awake(self, leaf: torch.Tensor, run: Any) -> tuple[torch.Tensor, list[int]]:
        """Where a neuron is off at the start, begin with other and louder noise; the pictures that stay without a gradient."""
        for attempt, loud in enumerate((*LOUDER, 0.0)):
            p = self.made.parameters.picture(leaf).detach().requires_grad_()
            gains, _ = run(self.made.inputs(self.moved(p, self.chances())))
            flat = torch.nonzero(slope_of(gains, p).flatten(1).abs().amax(1) == 0).flatten().tolist()
            if not flat or not gains.requires_grad or not loud:
                break
            leaf[flat] = self.made.parameters.start([self.seeds[k] + 1000 * (attempt + 1) for k in flat], loud)
        if self.alone:
            check_awake(len(flat), len(leaf))
        return leaf, flat

    # ---- one pass ---------------------------------------------------------------------------------------------------

    def engine(self, leaf: torch.Tensor, steps: int) -> tuple[Callable[[torch.Tensor], tuple[Any, Any]], str]:
        """inputs -> the aims [n] and the penalties within [n]; by a faster twin where only the output counts."""
        if not layers_in(self.aims) and not self.within:
            read = lambda outputs: torch.cat(raised(self.aims[: len(outputs)], outputs, {}, self.scale))  # noqa: E731
            twin = self.model.slope_twin(self.samples(), steps * self.views * len(leaf), ("climb", self.aims, self.scale is None), read)
            if twin is not None:
                return (lambda x: (read(twin(x)), 0.0)), "twin"
        return self.forward, "forward"

    def smoothed(self, run: Callable[[torch.Tensor], tuple[Any, Any]]) -> Callable[[torch.Tensor], tuple[Any, Any]]:
        """The same pass, whose gradient takes the way back that the regularizer says, where the operations can be seen."""
        tables = [part.back for part in self.regularizer.parts if part.back is not None]
        if not tables or self.hidden:
            return run

        def ruled(x: torch.Tensor) -> tuple[Any, Any]:
            record = Record()
            table = {name: rule for made in tables for name, rule in made(record).items()}
            with rules(self.model.net, table, record=record, strict=False):
                return run(x)

        return ruled

    def samples(self) -> torch.Tensor:
        """Inputs on which a twin is to be proved: the start, and noisier ones, since in a grey picture rounding flips rectifiers."""
        parameters = self.made.parameters
        p = parameters.picture(parameters.start([self.seeds[0] + k for k in range(6)])).detach()
        noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(self.seeds[0]), dtype=torch.float32).to(p)
        spread = torch.linspace(0, 0.3, len(p), dtype=torch.float32).to(p)[:, None, None, None]
        return self.made.inputs(p + spread * noise).detach()  # type: ignore[no-any-return]

    def forward(self, x: torch.Tensor) -> tuple[Any, Any]:
        wanted = [*layers_in(self.aims), *(layer for one in self.within for layer in one.layers)]
        whole = any(not isinstance(target, Inside) for one in self.aims for _, target in one.terms)
        outputs = None
        with listening(self.model, wanted, whole) as seen, suppress(Reached):
            outputs = self.model.forward(x)
        gains = torch.cat(raised(self.aims, outputs, seen, self.scale))
        return gains, sum(one.penalty(seen, self.groups) for one in self.within)


def slope_of(score: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """The gradient of a sum of scores at the pictures; 0 where they do not depend on them."""
    found = torch.autograd.grad(score.sum(), [p], retain_graph=True, allow_unused=True)[0] if score.requires_grad else None
    return torch.zeros_like(p) if found is None else found


def check_awake(flat: int, sought: int) -> None:
    """Raises ModelError where none of what is sought has a gradient."""
    if flat == sought:
        raise ModelError(
            "no gradient with respect to the picture: it is zero wherever the search begins, so that no direction leads up. The neuron is off there, "
            "a probability is at its end, or the model or target= detaches it; choose the layer before the rectifier, or wrap the model without "
            "output='probabilities'."
        )


def mean_size(gradient: torch.Tensor) -> torch.Tensor:
    """[n, 1, ...]: the mean magnitude of each picture's gradient; 1 where it is zero."""
    size = gradient.flatten(1).abs().mean(1)
    return torch.where(size > 0, size, torch.ones_like(size)).reshape(-1, *[1] * (gradient.ndim - 1))


def composed(motions: list[torch.Tensor], height: int, width: int) -> torch.Tensor:
    """[2, 3] of one motion after the other, from pixels to units of half a side."""
    whole = reduce(torch.matmul, [motion.float() for motion in motions])
    sides = whole.new_tensor([width / 2, height / 2, 1])
    return (whole * sides / sides[:, None])[:2]


@contextmanager
def listening(model: TorchModel, layers: list[str], whole: bool) -> Iterator[dict[str, Any]]:
    """What layers give in a pass, which ends behind the last of them where the output is not needed."""
    seen: dict[str, Any] = {}

    def hook(name: str, module: Any, out: Any) -> Any:
        seen[name] = one_tensor(out, name)
        if not whole and len(seen) == len(set(layers)):
            raise Reached
        return out.clone() if seen[name] is out else None  # a later operation may write into it

    with hooked(model.net, layers, hook):
        yield seen
