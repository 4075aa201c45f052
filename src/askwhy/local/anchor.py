"""Anchors: the few conditions that settle the model's answer, whatever the rest of the input is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from askwhy.answer import answer, pad
from askwhy.checks import whole
from askwhy.components import absent
from askwhy.errors import InputError, UnsupportedError
from askwhy.explanation import Explanation
from askwhy.game import Game, Progress, over_items, progress_of, weights_of
from askwhy.local.anchor_search import Rule, Steps, fewest, find, lowest
from askwhy.local.bandit import Aim
from askwhy.local.decision import Decision
from askwhy.local.draws import Draws, Known, Table, asking, of_mixed_rows, of_parts, of_rows
from askwhy.models.base import to_numpy
from askwhy.recipes import recipe
from askwhy.registry import method
from askwhy.score import Score, ask
from askwhy.tables import Cut, columns_of

INTERVAL = 0.95  # of the precision that is reported


@method(
    title="Anchors",
    needs="predictions",
    inputs=("image", "table", "text"),
    asks="Which few facts about this input are enough for the answer, whatever the rest is?",
    reads="a rule, with how often it holds and how many cases it speaks of; each value is how much surer its condition made the answer",
    unit="share of cases in which the answer stays",
    paper="Ribeiro et al. 2018, https://doi.org/10.1609/aaai.v32i1.11491; search: Kaufmann & Kalyanakrishnan 2013, https://proceedings.mlr.press/v30/Kaufmann13.html",
)
def anchors(
    model: Any, x: Any, target: Any = None, *, versus: Any = None, threshold: float | None = None, precision: float = 0.95, delta: float = 0.05,
    background: Any = None, cases: str = "auto", components: Any = None, baseline: Any = "auto", bins: str | Cut = "quartile", categorical: Sequence[int | str] | None = None,
    beam: int = 4, tolerance: float = 0.15, samples: int = 1000, longest: int = 8, seed: int = 0, batch_size: int | str = "auto",
    progress: bool | Progress | None = None,
) -> Explanation:  # fmt: skip
    """If these conditions hold, the model gives this answer in at least `precision` of the cases: the shortest such rule, of these the one for most cases.

    The answer: the class is `target` (for another class than the model's own: it is not); score > threshold, for models of one number.
    Cases: `background` rows of a table, whose columns in the rule take values of the same bin; words and regions outside it come and go.
    precision, delta: a rule counts as found if it reaches that, with a probability of 1 - delta; else the best is given, and said so.
    beam, tolerance, longest, samples: rules that are kept, how much worse these may be, most conditions, most cases for each rule.
    values [n, d]: what each condition added to the precision (0: not in the rule, std_error NaN). details: rule, anchor, coverage, reached,
    precision with its 95 % interval, on fresh cases. Ribeiro et al. 2018. Example: `askwhy.anchors(forest, X[:3], background=X)`.
    """
    aim = Aim(precision, delta, samples, beam, tolerance)
    check_settings(aim, threshold, longest)
    score = ask(model, x, target, versus)
    named_target = target is not None
    score.predict()
    decisions = [Decision(score, i, threshold, named_target) for i in range(len(score))]
    asked = Score(score.model, score.items, [decision.reads for decision in decisions])
    asked.layer, asked.calls = score.layer, score.calls
    asked.predict()
    choices = Choices(cases, background, components, baseline, bins, categorical, seed, batch_size)
    table = score.items.kind == "table"
    prepare, params = of_a_table(asked, decisions, choices, aim) if table else of_item(asked, decisions, choices)
    rules, drawn = [], []
    with progress_of(progress, "anchors") as tick:
        for i, count in enumerate(over_items(tick, len(score))):
            steps = Steps(count, longest + 2)
            drawn.append(prepare(i, steps.again))
            rules.append(find(drawn[-1], aim, longest, [seed, i], steps))
    score.calls = asked.calls
    said = [decision.says(decision.is_yes(number)) for decision, number in zip(decisions, asked.prediction, strict=True)]
    return answer(
        score,
        pad([rule.values for rule in rules]),
        std_error=pad([rule.std_error for rule in rules], np.nan) if any(rule.members for rule in rules) else None,
        base_value=np.array([rule.shares[0] for rule in rules]),
        components=[one.components for one in drawn],
        params=params,
        details=details(rules, drawn, said, PLACES.get(params["cases"], PLACES["image"]), aim),
    )


def check_settings(aim: Aim, threshold: float | None, longest: int) -> None:
    """One clear message for each wrong setting."""
    for name, value in (("precision", aim.precision), ("delta", aim.delta), ("tolerance", aim.tolerance)):
        if not isinstance(value, (int, float)) or not 0 < value < 1:
            raise InputError(f"{name}={value!r}: give a share above 0 and below 1.")
    for name, count in (("beam", aim.beam), ("longest", longest), ("samples", aim.samples)):
        whole(name, count, 1)
    if aim.samples < fewest(aim):
        raise InputError(
            f"samples={aim.samples}: even a rule that never fails needs {fewest(aim)} cases to be sure of precision={aim.precision:g}; take more."
        )
    if threshold is not None and not math.isfinite(threshold):
        raise InputError(f"threshold={threshold!r}: give the number that the score has to be above.")


# ---- where the cases come from --------------------------------------------------------------------------------------

Prepare = Callable[[int, Progress], Draws]


@dataclass(frozen=True)
class Choices:
    """What the user said about the cases."""

    cases: str
    background: Any
    components: Any
    baseline: Any
    bins: str | Cut
    categorical: Sequence[int | str] | None
    seed: int
    batch_size: int | str


def of_item(asked: Score, decisions: list[Decision], choices: Choices) -> tuple[Prepare, dict[str, Any]]:
    """Words, or regions of a picture."""
    for name, usual in (("background", None), ("categorical", None), ("cases", "auto"), ("bins", "quartile")):
        given = getattr(choices, name)
        if not (given is usual or (isinstance(given, str) and given == usual)):
            raise UnsupportedError(f"{name}= is for tables; here parts are taken away (components=), and baseline= says what stands there.")
    chosen = recipe(choices.components, asked.items)
    params = {"cases": asked.items.kind, "components": chosen.text}

    def prepare(i: int, tick: Progress) -> Draws:
        found = chosen.make(asked.items, i)
        if found.windows is not None and any((w.sum(0) > 1).any() for w in found.windows):
            raise InputError(f"components={chosen.text}: the parts overlap, so that one hides another; give patches side by side, or superpixels.")
        rows, params["baseline"] = absent(choices.baseline, asked.items, i, found, choices.seed)
        if len(rows) > 1:
            raise InputError(f"baseline= has {len(rows)} inputs; give one, or its name.")
        return of_parts(Game(asked, i, found, rows, batch_size=choices.batch_size, tick=tick), decisions[i].stays(asked.prediction[i]))

    return prepare, params


def of_a_table(asked: Score, decisions: list[Decision], choices: Choices, aim: Aim) -> tuple[Prepare, dict[str, Any]]:
    """Columns of a table, or groups of them."""
    items = asked.items
    if choices.background is None:
        raise InputError("a rule about a table needs cases that it may hold for: give background=, many rows of the training data.")
    if choices.baseline != "auto":
        raise InputError(f"baseline={choices.baseline!r}: the cases of a table are rows; give them as background=.")
    chosen = recipe(choices.components, items)
    groups = chosen.make(items, 0)
    rows, name = absent(choices.background, items, 0, groups, choices.seed, weighted=True)
    columns, weights = columns_of(items, rows, choices.categorical, choices.bins), weights_of(choices.background)
    weights = np.full(len(rows), 1 / len(rows)) if weights is None else weights / weights.sum()
    table = Table(rows, weights, columns, np.stack([column.codes(rows[:, k]) for k, column in enumerate(columns)], 1), groups)
    real = only_real(choices.cases, weights, aim)
    known: dict[Any, Known] = {}

    def prepare(i: int, tick: Progress) -> Draws:
        ask_rows, row, stays = asking(asked, i, choices.batch_size, tick), to_numpy(items.batch[i]), decisions[i].stays(asked.prediction[i])
        if not real:
            return of_mixed_rows(table, row, ask_rows, stays)
        answers = known.setdefault(decisions[i].question, Known(rows, np.full(len(rows), np.nan)))
        return of_rows(table, row, ask_rows, stays, answers, choices.seed)

    return prepare, {"cases": "real" if real else "mixed", "components": chosen.text, "background": name}


def only_real(cases: str, weights: np.ndarray, aim: Aim) -> bool:
    """Real rows, if two fifths of them are enough to test a rule for a tenth of them."""
    if cases not in ("auto", "real", "mixed"):
        raise InputError(f"cases={cases!r}: choose 'auto', 'real' or 'mixed'.")
    needed = 25 * fewest(aim)
    if cases == "auto":
        return len(weights) >= needed and np.ptp(weights) < 1e-12
    if cases == "real" and len(weights) < needed:
        raise InputError(
            f"cases='real' needs at least {needed} background rows to test rules by, and these are {len(weights)}; take more, or cases='mixed'."
        )
    if cases == "real" and np.ptp(weights) > 1e-12:
        raise InputError("cases='real' counts every background row alike, and these have weights; take cases='mixed'.")
    return cases == "real"


# ---- in words -------------------------------------------------------------------------------------------------------

PLACES = {
    "real": ("{}", "rows", "the background"),
    "mixed": ("{}", "mixed rows", "the background"),
    "text": ('"{}"', "texts with words taken out", "them"),
    "image": ("{} is shown", "inputs with parts hidden", "them"),
}  # what is said of a condition, what the cases are, and what the coverage is a share of


def details(rules: list[Rule], drawn: list[Draws], said: list[str], where: tuple[str, str, str], aim: Aim) -> dict[str, Any]:
    """One entry for each item."""
    intervals = [interval(rule.stayed[-1], int(rule.cases[-1])) for rule in rules]
    names = [[where[0].format(one.components.names[k]) for k in rule.members] for rule, one in zip(rules, drawn, strict=True)]
    sentences = [sentence(found, then, rule, bounds, where, aim) for found, then, rule, bounds in zip(names, said, rules, intervals, strict=True)]
    return {
        "rule": tuple(sentences),
        "anchor": tuple(" and ".join(found) for found in names),
        "answer": tuple(said),
        "precision": tuple(float(rule.shares[-1]) for rule in rules),
        "precision_low": tuple(low for low, _ in intervals),
        "precision_high": tuple(high for _, high in intervals),
        "coverage": tuple(rule.coverage for rule in rules),
        "reached": tuple(rule.reached for rule in rules),
        "note": "; ".join(sentences[:3]) + (f"; and {len(rules) - 3} more rules" if len(rules) > 3 else ""),
    }


def interval(stayed: float, cases: int) -> tuple[float, float]:
    """Of the share of which `stayed` of `cases` is a sample (Clopper & Pearson 1934)."""
    tail = (1 - INTERVAL) / 2
    return lowest(stayed, cases, tail), 1 - lowest(cases - stayed, cases, tail)


def sentence(names: list[str], then: str, rule: Rule, bounds: tuple[float, float], where: tuple[str, str, str], aim: Aim) -> str:
    share = f"{rule.shares[-1]:.1%} of {rule.cases[-1]} fresh {where[1]} ({INTERVAL:.0%} interval {bounds[0]:.1%} to {bounds[1]:.1%})"
    if not names and rule.reached:
        return f"the model answers {then} whatever the input holds: in {share}"
    start = f"if {' and '.join(names)} then {then}" if names else f"without any condition {then}"
    missed = "" if rule.reached else f"; no rule was found that surely reaches {aim.precision:g}, this is the best"
    return f"{start}: holds in {share}, covers {rule.coverage:.1%} of {where[2]}{missed}"
