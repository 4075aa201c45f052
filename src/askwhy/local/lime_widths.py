"""How far a LIME explanation depends on what "near" means."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.errors import InputError
from askwhy.game import Progress, progress_of
from askwhy.local.lime import Place, check_settings, places, varied
from askwhy.local.surrogate import Samples, fit
from askwhy.score import ask

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Widths:
    """The coefficients of one input for several widths of the kernel; NaN errors where too few neighbours show a component."""

    names: tuple[str, ...]  # d components
    widths: np.ndarray  # [k], ascending
    values: np.ndarray  # [k, d], score units
    std_error: np.ndarray  # [k, d]
    fidelity: np.ndarray  # [k]: R2 of the line
    effective_samples: np.ndarray  # [k]: how many neighbours of equal weight would say as much
    usual: float  # the width that lime takes by itself
    target: str
    prediction: float
    model_calls: int
    seconds: float

    def turned(self) -> list[str]:
        """The components whose sign depends on the width: sure to be above zero for one, and below for another."""
        above, below = ((sign * self.values - 1.96 * self.std_error > 0).any(0) for sign in (1, -1))
        return [self.names[j] for j in np.flatnonzero(above & below)]

    def summary(self) -> str:
        """A line for each width, and what turns its sign."""
        lines = [f"lime: why {self.target}? (score {self.prediction:.4g}) by the width of the neighbourhood"]
        for width, values, fidelity, many in zip(self.widths, self.values, self.fidelity, self.effective_samples, strict=True):
            strongest = ", ".join(f"{self.names[j]}: {values[j]:+.3g}" for j in np.argsort(-np.abs(values), kind="stable")[:3])
            lines.append(f"  {width:.3g}: {strongest}; R2 {fidelity:.2f}, {many:.0f} effective samples")
        turned = self.turned()
        lines.append(
            f"the sign depends on the width for {', '.join(turned)}" if turned else "no sign that is sure at one width is the other at another"
        )
        return "\n".join([*lines, f"{self.model_calls} model calls, {self.seconds:.2f} s"])

    def plot(self, ax: Axes | None = None, most: int = 6) -> Axes:
        """The strongest coefficients against the width, with 95 % bands. Returns the axes and never shows them."""
        from askwhy.show.lime import width_curves

        return width_curves(
            self.widths, self.values, self.std_error, self.names, ax, usual=self.usual, most=most, title=f"lime: {self.target}, by width"
        )


def lime_widths(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, widths: Sequence[float] | None = None, samples: int = 5000, components: Any = None,
    baseline: Any = None, background: Any = None, bins: str | None = "quartile", around: str = "data", categorical: Sequence[int | str] | None = None,
    ridge: float = 1.0, seed: int = 0, batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Widths:  # fmt: skip
    """LIME of one input for several kernel widths (default: 7, from a quarter of the usual one to four times it).

    The model is asked about `samples` neighbours in all, equally many drawn for each width; for a width each of them
    weighs kernel / (mean density of all the draws), the balance heuristic (Veach & Guibas 1995), so every answer serves
    every width. Other arguments are those of `askwhy.lime`. Returns a Widths with plot() and summary(); raises as lime does.
    Example: `askwhy.lime_widths(model, row, background=X).plot()`.
    """
    began = time.perf_counter()
    check_settings(samples, None, "auto", "local", None, ridge=ridge)
    score = ask(model, x, target, versus)
    if len(score) != 1:
        raise InputError(f"lime_widths looks at one input, and x holds {len(score)}; ask for each.")
    found = places(score, x, components, baseline, background, bins, around, categorical, seed, "float32", batch_size)
    chosen = chosen_widths(widths, found.width, samples)
    with progress_of(progress, "lime_widths") as tick:
        place = found.make(0, tick)
        drawn = gathered(place, chosen, samples, np.random.default_rng([seed, 0]))
        y = place.ask(drawn)
    masses = np.array([place.log_mass(width) for width in chosen])
    fits = []
    for k, width in enumerate(chosen):
        s = weighed(drawn, chosen, masses, k)
        usable = varied(s)
        if not usable.any():
            raise InputError(f"width={width:.3g}, samples={samples}: no neighbour that counts differs from the input; leave out this width.")
        fits.append(fit(s, y, usable, place.tell, ridge=ridge))
    name = score.name(score.targets[0]) + (f" rather than {score.name(score.versus[0])}" if score.versus else "")
    values, errors, fidelity, effective = (np.array([f[key] for f in fits]) for key in ("values", "std_error", "fidelity", "effective_samples"))
    return Widths(
        place.components.names, chosen, values, errors, fidelity, effective, found.width, name, float(score.prediction[0]),
        score.calls, time.perf_counter() - began,
    )  # fmt: skip


def chosen_widths(widths: Sequence[float] | None, usual: float, samples: int) -> np.ndarray:
    chosen = usual * np.geomspace(0.25, 4, 7) if widths is None else np.unique(np.asarray(widths, np.float64))
    if chosen.ndim != 1 or len(chosen) < 2 or not (chosen > 0).all() or not np.isfinite(chosen).all():
        raise InputError(f"widths={widths!r}: give two or more positive numbers; {usual:.3g} is usual here.")
    if samples < 10 * len(chosen):
        raise InputError(f"samples={samples} are too few for {len(chosen)} widths; take at least {10 * len(chosen)}, better a thousand for each.")
    return chosen


def gathered(place: Place, widths: np.ndarray, samples: int, rng: np.random.Generator) -> Samples:
    """Neighbours for every width, drawn by its kernel one by one, so that none has a partner; the input itself comes first."""
    parts = [place.draw(samples // len(widths), width, "single", rng) for width in widths]
    rows = None if parts[0].rows is None else np.concatenate([s.rows for s in parts])
    z, far = np.concatenate([s.z for s in parts]), np.concatenate([s.far for s in parts])
    return Samples(z, np.ones(len(z)), 1, None, far, rows)


def weighed(s: Samples, widths: np.ndarray, masses: np.ndarray, k: int) -> Samples:
    """The weights for width k, of mean 1 over what the widths' draws have together."""
    logs = -s.far / (2 * widths[:, None] ** 2) - masses[:, None]  # [widths, m]: log densities before the kernel
    return replace(s, weight=np.exp(logs[k] - np.logaddexp.reduce(logs) + np.log(len(widths))))
