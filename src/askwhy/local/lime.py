"""LIME: a simple model that stands in for the model near one input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from askwhy.answer import answer, in_words_of, pad
from askwhy.checks import is_whole
from askwhy.components import Components, absent
from askwhy.errors import InputError, UnsupportedError
from askwhy.explanation import Explanation
from askwhy.game import Game, Progress, over_items, progress_of, roughness, weights_of
from askwhy.local.lime_hidden import log_mass, neighbours, shares
from askwhy.local.lime_row import near
from askwhy.local.lime_table import Table, asked, table_of
from askwhy.local.surrogate import SELECTIONS, SURROGATES, Samples, Tell, fit
from askwhy.recipes import recipe
from askwhy.registry import method
from askwhy.score import Score, ask

USUAL_WIDTH = 0.25  # of pictures and texts, as in the authors' code, where it is 25 hundredths for texts


@method(
    title="LIME",
    needs="predictions",
    inputs=("image", "table", "text"),
    asks="Near this input, which parts raise and which lower the score, when parts are changed at random and a straight line is fitted to the answers?",
    reads="positive: that the part is as it is speaks for the class; negative: against it",
    paper="Ribeiro et al. 2016, https://arxiv.org/abs/1602.04938; sampling: Tan et al. 2023 (GLIME), https://arxiv.org/abs/2311.15722",
    preference={"image": 20, "text": 10, "table": 10},
)
def lime(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, samples: int | None = None, width: float | None = None,
    components: Any = None, baseline: Any = None, background: Any = None, bins: str | None = "quartile", around: str = "data",
    categorical: Sequence[int | str] | None = None, surrogate: str = "ridge", num_features: int | None = None, selection: str = "auto",
    ridge: float = 1.0, sampling: str = "local", precision: str = "float32", seed: int = 0, batch_size: int | str = "auto",
    progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """Coefficients [n, d] of a weighted ridge regression of the score on which parts are as they are, with standard errors.

    Pictures and texts: components are hidden behind `baseline` (or `background` rows). Tables: columns are drawn anew from `background` rows; bins "quartile", "decile",
    "entropy" or None (numbers as they are, per standard deviation); around "data" or "point" (numbers near the row's own);
    `categorical` names columns of codes. width: what "near" means, exp(-D^2 / (2 width^2)); D is 1 - sqrt(share shown), width
    0.25; for a table the distance over columns, width 0.75 sqrt(d). samples: 1,000, for tables 5,000. Vary them all.
    surrogate: "ridge", "lasso" or "tree". num_features, selection: keep the best ("none", "forward", "lasso",
    "highest_weights", "auto"). sampling: "local" draws neighbours by their weight, so that seeds agree; "uniform" is the
    original. details: fidelity (R2). Ribeiro et al. 2016; Tan et al. 2023.
    Example: `askwhy.lime(model, row, background=X).plot()`.
    """
    check_settings(samples, width, selection, sampling, num_features, surrogate, ridge)
    score = ask(model, x, target, versus)
    found = places(score, x, components, baseline, background, bins, around, categorical, seed, precision, batch_size)
    width = found.width if width is None else width
    samples = (5000 if found.tabular else 1000) if samples is None else samples
    settings: dict[str, Any] = {"surrogate": surrogate, "num_features": num_features, "selection": selection, "ridge": ridge}
    all_places, fits = [], []
    with progress_of(progress, "lime") as tick:
        for i, count in enumerate(over_items(tick, len(score))):
            place = found.make(i, count)
            s = place.draw(samples, width, sampling, np.random.default_rng([seed, i]))
            usable = seen(s, place, samples, width)
            fits.append(fit(s, place.ask(s), usable, place.tell, **settings))
            all_places.append(place)
    return told(score, found, all_places, fits, {"width": width, "samples": samples})


@dataclass(frozen=True, eq=False)
class Place:
    """One input and its neighbourhood, of whatever kind the input is."""

    components: Components
    draw: Callable[[int, float, str, np.random.Generator], Samples]
    ask: Callable[[Samples], np.ndarray]  # the scores [m]
    log_mass: Callable[[float], float]  # of the kernel of a width, over all that can be drawn
    tell: Tell
    tabular: bool = False
    data: tuple[str, ...] | None = None  # what a table holds in each component, in words
    game: Game | None = None


@dataclass(frozen=True, eq=False)
class Places:
    """How to come to the neighbourhood of item i, and what the answer says of all."""

    make: Callable[[int, Progress | None], Place]
    width: float
    params: dict[str, str]
    tabular: bool = False


def places(
    score: Score, x: Any, components: Any, baseline: Any, background: Any, bins: str | None, around: str, categorical: Any, seed: int,
    precision: str, batch_size: int | str,
) -> Places:  # fmt: skip
    """Columns drawn anew for a table with a background, else components that are hidden."""
    if baseline is not None and background is not None:
        raise InputError("baseline= and background= both say what stands where something is hidden; give one of them.")
    if score.items.kind == "table" and baseline is None:
        if components is not None:
            raise InputError(
                "components= of a table goes with baseline=, the row that stands for what is hidden; else the components are its columns."
            )
        if precision != "float32":
            raise UnsupportedError(f"precision={precision!r} is for pictures; leave it out.")
        table = table_of(score, x, background, bins, around, categorical, batch_size)
        score.predict()
        text = f"{len(table.names)} columns" + (f" in {bins} bins" if bins else "")
        make = partial(table_place, score, table, batch_size)
        return Places(make, 0.75 * len(table.names) ** 0.5, {"components": text, "background": table.text}, tabular=True)
    if bins != "quartile" or around != "data" or categorical is not None:
        raise InputError("bins=, around= and categorical= are for tables with background= rows; leave them out.")
    return hiding(score, components, baseline, background, seed, precision, batch_size)


def hiding(score: Score, components: Any, baseline: Any, background: Any, seed: int, precision: str, batch_size: int | str) -> Places:
    """Components that are hidden behind a baseline, or behind background items, over which the score is averaged."""
    chosen = recipe(components, score.items)
    usual = "component_mean" if score.items.kind == "image" else "auto"
    hidden = next((one for one in (baseline, background) if one is not None), usual)
    score.predict()
    params, names = {"components": chosen.text}, set()

    def make(i: int, count: Progress | None) -> Place:
        parts = chosen.make(score.items, i)
        rows, name = absent(hidden, score.items, i, parts, seed, weighted=True)
        names.add(name)
        params["baseline"] = ", ".join(sorted(names))
        v = Game(score, i, parts, rows, weights=weights_of(background), batch_size=batch_size, tick=count, precision=precision)
        base = shares(len(parts), even=score.items.kind == "text")
        draw = partial(neighbours, len(parts), base=base)
        return Place(parts, draw, lambda s: v(s.z), partial(log_mass, base), lambda j, _: f"{parts.names[j]} is shown", game=v)

    return Places(make, USUAL_WIDTH, params)


def table_place(score: Score, table: Table, batch_size: int | str, i: int, count: Progress | None) -> Place:
    found = near(table, score.items, i)
    names = tuple(axis.name for axis in found.axes)
    data = (
        None if table.discrete else tuple("" if axis.tell is None else in_words_of(value) for axis, value in zip(found.axes, found.row, strict=True))
    )
    parts = Components(names, np.arange(len(names)))
    return Place(parts, found.draw, lambda s: asked(score, i, s.rows, batch_size, count), found.log_mass, found.tell, True, data)


def told(score: Score, found: Places, all_places: list[Place], fits: list[dict[str, Any]], params: dict[str, Any]) -> Explanation:
    """The Explanation of what was fitted at each place."""
    details: dict[str, Any] = {
        name: tuple(f[name] for f in fits) for name in ("fidelity", "selected", "effective_samples", "tree") if name in fits[0]
    }
    unseen = [name for place, f in zip(all_places, fits, strict=True) for name in unvaried(place, f)]
    if unseen:
        shown = ", ".join(dict.fromkeys(unseen))
        details["note"] = f"no effect can be seen of: {shown} (too few neighbours differ from the input there, or are like it)"
    details |= roughness(p.game.deviation for p in all_places if p.game is not None)
    errors = None if "tree" in fits[0] else pad([f["std_error"] for f in fits], np.nan)
    why = answer(
        score, pad([f["values"] for f in fits]), std_error=errors, base_value=np.array([f["intercept"] for f in fits]),
        components=[p.components for p in all_places], params={**found.params, **params}, details=details,
    )  # fmt: skip
    return replace(why, data=tuple(p.data or () for p in all_places) if all_places[0].data else None) if found.tabular else why


def unvaried(place: Place, fitted: dict[str, Any]) -> list[str]:
    return [name for name, usable in zip(place.components.names, fitted["usable"], strict=True) if not usable]


def check_settings(
    samples: int | None, width: float | None, selection: str, sampling: str, num_features: int | None, surrogate: str = "ridge", ridge: float = 1.0
) -> None:
    """One clear message for each wrong setting."""
    if samples is not None and not is_whole(samples, 10):
        raise InputError(f"samples={samples}: a regression needs at least 10, better several hundred.")
    if width is not None and not width > 0:
        raise InputError(
            f"width={width}: the neighbourhood's width has to be positive; 0.25 is usual for pictures and texts, 0.75 sqrt(d) for tables."
        )
    if selection not in SELECTIONS and selection != "auto":
        raise InputError(f"selection={selection!r}: choose 'auto', {', '.join(map(repr, SELECTIONS))}.")
    if sampling not in ("local", "uniform"):
        raise InputError(f"sampling={sampling!r}: choose 'local' or 'uniform'.")
    if num_features is not None and num_features < 1:
        raise InputError(f"num_features={num_features}: keep at least one, or None for all.")
    if surrogate not in SURROGATES:
        raise InputError(f"surrogate={surrogate!r}: choose one of {', '.join(map(repr, SURROGATES))}.")
    if not ridge >= 0:
        raise InputError(f"ridge={ridge}: the penalty cannot be negative; 0 is plain least squares.")


def seen(s: Samples, place: Place, samples: int, width: float) -> np.ndarray:
    """bool [d]: the components whose effect the neighbours show. Raises InputError where it should be all, and is not."""
    names = place.components.names
    if len(names) == 1 and not place.tabular:
        raise InputError(
            "the whole input is one component, so nothing can be compared; choose finer components (superpixels, patches, words, characters)."
        )
    usable = varied(s)
    if (not place.tabular and not usable.all()) or not usable.any():
        what = "hides" if not place.tabular else "differs in"
        raise InputError(
            f"width={width}, samples={samples}: no neighbour that counts {what} {names[int(usable.argmin())]}, so its effect cannot be seen; "
            f"widen the neighbourhood, or take more samples{', or other background rows' if place.tabular else ''}."
        )
    return usable


def varied(s: Samples) -> np.ndarray:
    """bool [d]: whether enough neighbours that count hold a value apart from the commonest."""
    if s.z.dtype != bool:
        return np.ptp(s.z[1:], axis=0) > 0
    weight = s.weight[1:]
    if (weight == 1).all():
        shown = np.count_nonzero(s.z[1:], axis=0).astype(np.float64)
        hidden = len(weight) - shown
    else:
        z = s.z[1:].astype(np.float64)
        one, square = weight @ z, weight**2 @ z
        rest, rest_square = np.maximum(weight.sum() - one, 0), np.maximum((weight**2).sum() - square, 0)
        shown, hidden = one**2 / np.maximum(square, 1e-300), rest**2 / np.maximum(rest_square, 1e-300)
    return np.minimum(shown, hidden) > 1.5  # so many equal ones would say as much; one alone would be fitted exactly
