"""Many rows of a table at once: which columns matter, how, and for which rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy import show
from askwhy.explanation import PER_ITEM, Explanation
from askwhy.plots import cells_of
from askwhy.report import cards, words
from askwhy.report.case import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SECTIONS = 6  # questions: of more classes only the most frequent ones
FORCES = 1000  # rows that the force picture shows
LISTED = 500  # rows of the table that one can sort, of all sections together
STRONGEST = 3  # columns with a picture of their own
CLOUD = 20  # rows: fewer show no dependence
PAIRED = 5000  # rows that are enough to find the column that a picture is coloured by
INK = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "legend.labelcolor")
LIGHT: Any = {"figure.facecolor": "#ffffff", "axes.facecolor": "#ffffff", "savefig.facecolor": "auto", **dict.fromkeys(INK, "#20252b")}
DARK: Any = {"figure.facecolor": "#1c2024", "axes.facecolor": "#1c2024", "savefig.facecolor": "auto", **dict.fromkeys(INK, "#e7e4de")}


@dataclass(frozen=True)
class Picture:
    """Data URIs for light and for dark paper."""

    title: str
    reads: str
    light: str
    dark: str
    alt: str


@dataclass(frozen=True)
class Whole:
    """What the template shows of all rows that were asked one question by one method."""

    table: Table
    why: Explanation
    method: str
    which: str
    question: str
    facts: Sequence[tuple[str, str]]
    trust: Sequence[str]
    pictures: Sequence[Picture]
    force: Any  # SVG
    forced: str  # which rows that shows
    listed: Any  # HTML
    script: str


def sections(tables: Sequence[Table], model_name: str) -> tuple[list[Whole], list[str]]:
    """The views of all tables, and what was left out, in sentences."""
    parts: list[tuple[Table, str]] = []
    left_out: list[str] = []
    for table in tables:
        for why in table.questions:
            found, said = of_one_question(table, why)
            parts, left_out = [*parts, *found], [*left_out, *said]
    listed = max(LISTED // max(len(parts), 1), 50)
    return [view(table, which, model_name, listed) for table, which in parts], left_out


def of_one_question(table: Table, why: Explanation) -> tuple[list[tuple[Table, str]], list[str]]:
    """Rows that were asked the same; each for its own class makes a part for each class, the most frequent first."""
    name = cards.title(why.method)
    if why.components is None or len(set(why.components)) > 1 or why.values.ndim not in (2, 3):
        return [], [
            f"{name} speaks of other parts in each row, so that there is no picture of all rows; its answers are on the cards of single rows."
        ]
    asked = [why.question(i) for i in range(len(why))] if why.target else [""] * len(why)
    groups = {question: np.flatnonzero([one == question for one in asked]) for question in dict.fromkeys(asked)}
    large = sorted((which for which in groups.values() if len(which) > 1), key=len, reverse=True)
    missing = len(why) - sum(map(len, large[:SECTIONS]))
    said = [f"{name}: {missing:,} of {len(why):,} rows are not in these pictures, since their classes are rare."] if missing else []
    parts = [(replace(table, why=of_rows(why, which), numbers=[table.numbers[i] for i in which.tolist()]), len(which)) for which in large[:SECTIONS]]
    return [(part, f"{count:,} rows of {part.name}" if count == len(why) else
             f"{count:,} of the {len(why):,} rows of {part.name}: those that are explained for {part.why.question()}")
            for part, count in parts], said  # fmt: skip


def of_rows(why: Explanation, which: np.ndarray) -> Explanation:
    """Some of the rows; what was found out of each row goes with it."""
    if len(which) == len(why):
        return why
    cut = {f.name: taken(getattr(why, f.name), which) for f in fields(why) if f.name in PER_ITEM}
    details = {key: taken(one, which) if isinstance(one, tuple) and len(one) == len(why) else one for key, one in why.details.items()}
    return replace(why, **cut, details=details)


def taken(each: Any, which: np.ndarray) -> Any:
    if each is None or len(each) == 0:
        return each
    return each[which] if isinstance(each, np.ndarray) else tuple(each[i] for i in which)


def spread(count: int, most: int) -> np.ndarray:
    """The places of at most so many rows, evenly over all."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).round().astype(int)


# ---- one section ----------------------------------------------------------------------------------------------------


def view(table: Table, which: str, model_name: str, listed: int) -> Whole:
    from markupsafe import Markup

    from askwhy.report import reproduce

    why, cells = table.why, cells_of(table.why)
    assert why.components is not None
    names, pairs = why.components[0], why.values if why.values.ndim == 3 else None
    values = why.values if pairs is None else why.values.sum(2)  # a column's interactions sum to its value
    base = common(why.base_value) if why.residual is not None else None
    few = spread(len(values), FORCES)
    rows = [f"row {number}" for number in table.numbers]
    return Whole(
        table=table,
        why=why,
        method=cards.title(why.method),
        which=which,
        question=f"Why {why.question()}?",
        facts=facts(why, base, table.background),
        trust=why.trust(),
        pictures=pictures(values, pairs, names, cells, why.unit),
        force=None if base is None else Markup(
            show.force_rows_svg(
                values[few], names, base, features=None if cells is None else cells[few], row_names=[rows[i] for i in few], unit=why.unit
            )
        ),
        forced="all rows" if len(few) == len(values) else f"{len(few):,} of the {len(values):,} rows, evenly over the table",
        listed=Markup(
            show.table_html(values, names, features=cells, base=base, row_names=rows, title="Rows", unit=why.unit, most=listed, script=False)
        ),
        script=reproduce.of_table(table, model_name),
    )  # fmt: skip


def common(base: np.ndarray | None) -> float | None:
    """The base value that all rows share."""
    if base is None or np.ptp(base) > 1e-9 * max(1.0, float(np.abs(base).max())):
        return None
    return float(base[0])


VARIANTS = {
    "path-dependent": "path-dependent: what is absent follows the shares of the training data in the trees",
    "interventional": "interventional: what is absent comes from the rows that are compared with",
}


def facts(why: Explanation, base: float | None, background: str) -> list[tuple[str, str]]:
    """What a reader has to know of the numbers before looking at the pictures."""
    variant, compared = str(why.params.get("value_function", "")), background or why.params.get("background")
    span = f"{words.number(why.prediction.min())} to {words.number(why.prediction.max())}"
    found = [("rows", f"{len(why):,}"), ("scale", why.unit), ("scores", span)]
    found += [] if base is None else [("base value", f"{words.number(base)}: the score without any column")]
    found += [("values", VARIANTS.get(variant, variant))] if variant and variant != why.unit else []
    return found + ([("compared with", str(compared))] if compared and variant != "path-dependent" else [])


def pictures(values: np.ndarray, pairs: np.ndarray | None, names: Sequence[str], cells: Any, unit: str) -> list[Picture]:
    strong = np.argsort(-np.abs(values).mean(0), kind="stable")
    told = "Strongest: " + ", ".join(names[j] for j in strong[:3]) + "."
    found = [
        picture("Which columns matter, and which way", f"Every row's value of each column. {MEANING[cells is not None]}", told,
                lambda: show.beeswarm(values, names, cells, unit=unit)),
        picture("How much each column matters", "The mean of |value| over the rows: how far a column moves the score, whichever way.", told,
                lambda: show.importance(values, names, unit=unit)),
    ]  # fmt: skip
    if pairs is not None and len(names) > 1:
        found += of_pairs(pairs, names, unit)
    if cells is not None and len(values) >= CLOUD:
        found += [dependence(values, pairs, names, cells, int(j), unit) for j in strong[:STRONGEST] if values[:, j].any()]
    return found


MEANING = {
    True: "To the right it raises the score, to the left it lowers it; the colour is what the row holds there.",
    False: "To the right it raises the score, to the left it lowers it.",
}


def of_pairs(pairs: np.ndarray, names: Sequence[str], unit: str) -> list[Picture]:
    return [
        picture("What pairs of columns do together", "The mean of |interaction|; on the diagonal what a column does by itself.", "A map of pairs.",
                lambda: show.interactions(pairs, names, unit=unit)),
        picture("The strongest pairs", "What two columns do together, beyond what each does by itself.", "Pairs as bars.",
                lambda: show.interaction_pairs(pairs, names, unit=unit)),
    ]  # fmt: skip


def dependence(values: np.ndarray, pairs: np.ndarray | None, names: Sequence[str], cells: Any, j: int, unit: str) -> Picture:
    """One column, coloured by the one that it interacts with most."""
    few = spread(len(values), PAIRED)
    order = show.strongest_partner(values[few, j], cells[few], j, None if pairs is None else pairs[few]) if len(names) > 1 else np.empty(0, int)
    other = (names[int(order[0])], cells[:, int(order[0])]) if len(order) else None
    reads = (
        f"Each dot is a row: what it holds, and what that adds to the score. {f'Coloured by {other[0]}, which changes this most.' if other else ''}"
    )
    return picture(
        f"How {names[j]} moves the score", reads, f"{names[j]} against its values.",
        lambda: show.dependence(cells[:, j], values[:, j], names[j], interacting=other, unit=unit),
    )  # fmt: skip


def picture(title: str, reads: str, alt: str, draw: Callable[[], Axes]) -> Picture:
    """Drawn for light and for dark paper."""
    from matplotlib import rc_context

    made = []
    for colours in (LIGHT, DARK):
        with rc_context(colours):
            made.append(show.as_data_uri(draw()))
    return Picture(title, reads.strip(), made[0], made[1], f"{title}. {alt}")
