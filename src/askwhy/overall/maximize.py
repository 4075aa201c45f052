"""What does a cat look like to you? The input that raises a target as far as possible."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.answer import versions
from askwhy.checks import whole
from askwhy.errors import AskwhyError, InputError
from askwhy.game import Progress, over_items, progress_of
from askwhy.layers import torch_model
from askwhy.models import wrap
from askwhy.models.base import is_out_of_memory, to_numpy
from askwhy.models.torch_module import TorchModel
from askwhy.overall.ascent import Climb, Search, check_awake
from askwhy.overall.judge import Beside, Jury, Reals, Verdict, beside, check_jury, judged, reals_of
from askwhy.overall.made import LARGEST, PRIOR, Made, made_by
from askwhy.overall.objectives import Aim, Scale, aims_of, classes_of, layers_in, log_probability, named
from askwhy.overall.parameters import WAYS
from askwhy.overall.portrait import Portrait, joined
from askwhy.overall.presets import Preset, preset_of
from askwhy.overall.regularizers import Regularizer
from askwhy.score import too_large
from askwhy.targets import check_layer

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

TOGETHER = 8 * 2**20  # bytes of inputs that are sought together
DEFAULT = "robust"
SCALES: dict[str, Callable[[TorchModel], Scale | None]] = {"raw": lambda model: None, "log_probability": log_probability}
GENERATED = Preset("log_probability", "latent", Regularizer(), False, 200, 0.1, "Nguyen et al. 2016, https://arxiv.org/abs/1605.09304")


def activation_maximization(
    model: Any, target: Any, *, versus: Any = None, preset: str | None = None, score: str | None = None, parameters: str | None = None,
    regularizer: Regularizer | None = None, balance: bool | None = None, steps: int | None = None, rate: float | None = None, views: int | None = None, copies: int = 1,
    generator: Any = None, size: int | None = None, prior: float | None = None, shape: Any = None, bounds: Any = None, judge: Any = None,
    images: Any = None, layers: Any = None, seed: int = 0, batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Portrait:  # fmt: skip
    """What does a cat look like to you: x* = argmax_x S(x) + R(x), by gradient ascent from noise. A list of targets gives one portrait each.

    target: class, `neuron`, `concept`, `energy(layer)`, a function of the output, sums of `aim`s; versus is subtracted.
    preset: "naive", "lecture", "yosinski", "lucid", "maco", or "robust", the default: its score ("raw", or "log_probability" of
    classes), parameters ("pixels", "fourier", "phase"), regularizer (sums of `askwhy.regularizers`), balance (penalties in units
    of the score's slope), steps, rate and views (under other noise and motion in each step) may be replaced. copies of each target:
    see `regularizers.diversity`.
    generator, instead of a preset: G, a `Generator` or a function z [n, size] -> inputs: z* = argmax S(G(z)) - prior |z|^2 / 2,
    x* = G(z*). shape, bounds: of an input, and its black and white, where no transform tells. judge: another model, which says
    whether it sees the class. images: real ones, to compare the way through `layers`. Ctrl-C keeps the best so far.
    Raises TargetError, InputError, LayerError, ModelError.
    Example: `askwhy.activation_maximization(model, ["tiger cat", "lynx"], judge=other).plot()`.
    """
    began = time.perf_counter()
    wrapped = torch_model(model)
    how = chosen(preset, generator, score=score, parameters=parameters, regularizer=regularizer, balance=balance, steps=steps, rate=rate, views=views)
    aims = aims_of(wrapped, target, versus)
    copies, seed = whole("copies", copies, 1), whole("seed", seed, 0, LARGEST)
    if layers is not None and images is None:
        raise InputError(f"layers={layers!r}: on these the portraits are compared with real images, and there are none; give images=.")
    made = made_by(wrapped, how.parameters, generator, size, prior, shape, bounds, images)
    search = asked(wrapped, aims, how, copies, seed, made)
    groups = list(in_groups(search, batch_size))
    jury = None if judge is None else Jury(wrap(judge), wrapped.labels, classes_of(search.aims))
    reals = checked(search, jury, images, layers)
    with progress_of(progress, "activation maximization") as tick:
        climbs, parts, stopped = sought(groups, how, tick)
    fields = joined(parts)
    n = len(fields["values"])
    if not stopped:
        check_awake(sum(len(climb.flat) for climb in climbs), n)
    x = torch.from_numpy(fields["values"]).to(wrapped.like.device)
    verdict, real = None, None
    with suppress(KeyboardInterrupt):  # the portraits took long; they are handed over unjudged
        verdict = None if jury is None else judged(jury, fields["pictures"], x)
        real = None if reals is None else beside(wrapped, reals, x)
    names = tuple(named(wrapped, one) for one in search.aims)
    told = {"flat": flat_ones(climbs, fields, names), "engine": climbs[-1].engine, "stopped": stopped, "missing": list(names[n:]), "paper": how.paper}
    told |= {} if search.hidden is None else {"hidden": search.hidden}
    told |= {} if real is None else {"images": real.count}
    return Portrait(
        **fields, **fields_of(verdict, real), target=names[:n],
        method=(preset or DEFAULT) if generator is None else "generator", details=told,
        params=params_of(how, copies, None if generator is None else PRIOR if prior is None else float(prior)),
        model_calls=how.views * sum(part["trace"].size for part in parts), seconds=time.perf_counter() - began, seed=seed, versions=versions(),
    )  # fmt: skip


# ---- what is asked ---------------------------------------------------------------------------------------------------


def chosen(preset: str | None, generator: Any, **given: Any) -> Preset:
    """The preset with what the user puts in its place. Raises InputError."""
    if generator is not None and preset is not None:
        raise InputError(f"preset={preset!r}: a generator has its own way of seeking; leave one of them out.")
    how = preset_of(DEFAULT if preset is None else preset) if generator is None else GENERATED
    score, parameters, regularizer, balance, steps, rate, views = given.values()
    if score is not None and score not in SCALES:
        raise InputError(f"score={score!r}: choose {', '.join(map(repr, SCALES))}.")
    if parameters is not None and (parameters not in WAYS or generator is not None):
        remedy = "leave it out: a generator has its own" if generator is not None else f"choose {', '.join(map(repr, WAYS))}"
        raise InputError(f"parameters={parameters!r}: {remedy}.")
    if regularizer is not None and not isinstance(regularizer, Regularizer):
        raise InputError(f"regularizer={regularizer!r}: give a value of askwhy.regularizers, as l1(10) + jitter(8), or regularizers.none.")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < float("inf")):
        raise InputError(f"rate={rate!r}: give a positive number.")
    if balance is not None and not isinstance(balance, bool):
        raise InputError(f"balance={balance!r}: give True (penalties in units of the score's slope) or False (in units of the score).")
    given |= {name: None if value is None else whole(name, value, 1) for name, value in (("steps", steps), ("views", views))}
    given |= {"rate": None if rate is None else float(rate)}
    how = replace(how, **{name: value for name, value in given.items() if value is not None})
    if not how.regularizer.random:
        if (views or 1) > 1:
            raise InputError(f"views={views}: without noise or motion all are alike; add one, as regularizers.noise(0.2), or leave it out.")
        how = replace(how, views=1)
    if how.parameters != "pixels" and any(part.after for part in how.regularizer.parts):
        names = " + ".join(part.name for part in how.regularizer.parts if part.after)
        raise InputError(f"{names}: these change pixels between steps, and parameters={how.parameters!r} has none; use parameters='pixels'.")
    return how


def checked(search: Search, jury: Jury | None, images: Any, layers: Any) -> Reals | None:
    """What a judge and real images refuse is told before the search. Raises TargetError, InputError, LayerError, ModelError."""
    if jury is None and images is None:
        return None
    made = search.made
    with search.model.untouched(), torch.no_grad():
        p = made.parameters.picture(made.parameters.start(search.seeds[:1]))
        x = made.inputs(p)
        seen = made.seen(x, p)[0]
    if jury is not None:
        check_jury(jury, seen, x)
    return None if images is None else reals_of(search.model, images, x, layers)


def asked(model: TorchModel, aims: list[Aim], how: Preset, copies: int, seed: int, made: Made) -> Search:
    """Raises LayerError, InputError."""
    groups = np.repeat(np.arange(len(aims)), copies)
    every, seeds = [aims[g] for g in groups], [seed + k for _ in aims for k in range(copies)]
    if not all(part.alone for part in how.regularizer.parts):
        if copies < 2:
            raise InputError("regularizers.diversity drives the copies of one target apart, and there is one; give copies=4.")
        if model.seed is not None:
            raise InputError("regularizers.diversity compares copies in one pass, and wrap(seed=...) runs each input alone; leave it out.")
    with model.untouched(), torch.no_grad():
        x = made.inputs(made.parameters.picture(made.parameters.start(seeds[:1])))
        for layer in layers_in(aims):
            check_layer(model.net, layer, lambda: model.forward(x))
        within = tuple(part.within(model, x) for part in how.regularizer.parts if part.within is not None)
    return Search(model, every, made, how.regularizer, seeds, groups, SCALES[how.score](model), how.plain, how.balance, how.views, within)


def params_of(how: Preset, copies: int, prior: float | None) -> dict[str, Any]:
    own = {
        "score": how.score,
        "parameters": how.parameters,
        "regularizer": repr(how.regularizer),
        "balance": how.balance,
        "steps": how.steps,
        "rate": how.rate,
        "views": how.views,
        "copies": copies,
    }
    return own if prior is None else {**own, "prior": prior}


# ---- the search -----------------------------------------------------------------------------------------------------


def in_groups(search: Search, batch_size: int | str) -> Iterator[Search]:
    """Some portraits at a time; copies of a target that have to differ stay together. Raises InputError."""
    n = len(search.aims)
    together = n if batch_size == "auto" else whole("batch_size", batch_size, 1, instead="'auto' or ")
    if search.model.seed is not None:  # runs inputs one by one, so that a layer gives a row at a time
        together = batch_size = 1
    if batch_size == "auto":
        one = search.made.parameters.start(search.seeds[:1])
        together = max(1, TOGETHER // max(one.nbytes, 1))
    if not search.apart:
        copies = int((search.groups == 0).sum())
        together = max(copies, together - together % copies)
    for start in range(0, n, together):
        yield search.part(slice(start, start + together))


def sought(groups: list[Search], how: Preset, tick: Progress | None) -> tuple[list[Climb], list[dict[str, Any]], bool]:
    """One group after the other; whether it was stopped. An interrupt leaves those that are finished."""
    climbs: list[Climb] = []
    parts: list[dict[str, Any]] = []
    try:
        for group, count in zip(groups, over_items(tick, len(groups)), strict=True):
            for climb, found in climbed(group, how, count):
                climbs.append(climb)
                parts.append(found)
                if climb.stopped:
                    return climbs, parts, True
    except KeyboardInterrupt:
        if not climbs:
            raise
        return climbs, parts, True
    return climbs, parts, False


def climbed(search: Search, how: Preset, tick: Progress | None) -> Iterator[tuple[Climb, dict[str, Any]]]:
    """The search and what it found; in halves where it does not fit into memory."""
    halves: list[slice] = []
    try:
        found = climbed_whole(search, how, tick)
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, AskwhyError) or not is_out_of_memory(error):
            raise
        if len(search.aims) == 1 or not search.apart:
            raise too_large() from error
        half = len(search.aims) // 2
        halves = [slice(half), slice(half, None)]
    if not halves:
        yield found
    for rows in halves:
        yield from climbed(search.part(rows), how, tick)


def climbed_whole(search: Search, how: Preset, tick: Progress | None) -> tuple[Climb, dict[str, Any]]:
    climb = search.climb(how.steps, how.rate, tick)
    try:
        return climb, found_of(search, climb)
    except KeyboardInterrupt:  # what was found is rated all the same, unless there is a second one
        climb.stopped = True
        return climb, found_of(search, climb)


def flat_ones(climbs: list[Climb], fields: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The portraits that had no gradient where they began, and have not risen since."""
    before = np.cumsum([0, *(len(climb.best) for climb in climbs)])
    which = [at + k for at, climb in zip(before, climbs, strict=False) for k in climb.flat]
    return [names[k] for k in which if not fields["score"][k] > fields["start"][k]]


def found_of(search: Search, climb: Climb) -> dict[str, Any]:
    """The fields of these portraits, as the model itself sees them at rest."""
    made = search.made
    with search.model.untouched(), torch.no_grad():
        p = made.parameters.picture(climb.best)
        x, first = made.inputs(p), made.inputs(made.parameters.picture(climb.start))
        score = rated(search, x)
        seen, shown = made.seen(x, p)
        again = np.full(len(score), np.nan) if shown is None else rated(search, shown)
    found = {
        "values": to_numpy(x),
        "pictures": seen,
        "score": score,
        "shown_score": again,
        "start": rated(search, first),
        "trace": np.array(climb.trace),
    }
    return {**found, "latent": to_numpy(climb.best)} if made.parameters.prior is not None or made.canvas is None else found


def rated(search: Search, x: torch.Tensor) -> np.ndarray:
    """The aims as the model's own scores, whatever scale was climbed."""
    return to_numpy(replace(search, scale=None, within=()).forward(x)[0]).astype(np.float64)


def fields_of(verdict: Verdict | None, real: Beside | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if verdict is not None:
        found |= {"judge_rank": verdict.rank, "judge_probability": verdict.probability, "judge_top": verdict.top}
    if real is not None:
        found |= {"natural": real.natural, "natural_layers": real.layers, "nearest": real.nearest, "nearest_pictures": real.pictures}
    return found
