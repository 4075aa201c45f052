"""Rows and what speaks for and against in each of them, as an HTML table that one can sort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from askwhy.errors import InputError
from askwhy.show.paper import check_count, checked, counted, strongest
from askwhy.show.pictures import COLOURS, limit
from askwhy.show.text import luminance

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Cell:
    """A value with its colours, and what the feature holds."""

    value: str
    said: str
    held: str
    paper: str
    ink: str


@dataclass(frozen=True)
class Row:
    """One line of the table; no score where the base value is not known."""

    name: str
    score: str
    said: str
    cells: Sequence[Cell]


def table_html(
    values: np.ndarray, names: Sequence[str], *, features: Any = None, base: float | None = None, row_names: Sequence[str] | None = None,
    title: str = "", unit: str = "score units", most: int = 500, columns: int = 12, script: bool = True,
) -> str:  # fmt: skip
    """values [n, d] as an HTML table: a click on a column's name sorts by it; without scripts it is a plain table.

    Under each value stands what the row holds there, features [n, d]; base adds the score, base plus the row's values. Red speaks
    for, blue against, white is zero. The first `most` rows and the `columns` strongest features stand there, the other features summed,
    and a note says what was left out. All text is escaped. script=False leaves `sorter()` to a page that includes it once.
    Raises InputError. Example: `Path("rows.html").write_text(askwhy.show.table_html(why.values, names, features=X), "utf-8")`.
    """
    values = checked(values, names, "[n, d]", features)
    if row_names is not None and len(row_names) != len(values):
        raise InputError(f"row_names= has {len(row_names)} entries for {len(values)} rows; give one for each.")
    check_count("most", most, 1)
    check_count("columns", columns, 1)
    order, count = strongest(values, "mean"), min(most, len(values))
    shown, rest = order[:columns], order[columns:]
    numbers = np.concatenate([values[:count, shown], *([values[:count, rest].sum(1, keepdims=True)] if len(rest) else [])], 1)
    held = np.full(numbers.shape, "", object)
    if features is not None:
        held[:, : len(shown)] = [[cell_text(cell) for cell in row] for row in np.asarray(features, object)[:count, shown]]
    papers = coloured(numbers)
    rows = [
        row("row " + str(k) if row_names is None else str(row_names[k]), None if base is None else base + float(values[k].sum()), *cells)
        for k, cells in enumerate(zip(numbers, held, papers, strict=True))
    ]
    heads = ["row", *(["score"] if base is not None else []), *(names[j] for j in shown), *([f"{len(rest)} others"] if len(rest) else [])]
    note = f"{unit}; red speaks for, blue against. " + said_of(len(values), count)
    return template().render(title=title, heads=heads, rows=rows, note=note, script=trusted(sorter()) if script else "")


def said_of(there: int, count: int) -> str:
    return f"{counted(range(there))}." if count == there else f"The first {count:,} of {there:,} rows; {there - count:,} are left out."


def row(name: str, score: float | None, numbers: np.ndarray, held: np.ndarray, papers: np.ndarray) -> Row:
    cells = [cell(float(value), text, paper) for value, text, paper in zip(numbers, held, papers, strict=True)]
    return Row(name, "" if score is None else f"{score:.6g}", "" if score is None else minus(f"{score:.4g}"), cells)


def cell(value: float, held: str, paper: np.ndarray) -> Cell:
    from matplotlib.colors import to_hex

    return Cell(f"{value:.6g}", minus(f"{value:+.3g}") if value else "0", held, to_hex(tuple(paper)), "#fff" if luminance(paper) < 0.5 else "#14171a")


def coloured(values: np.ndarray) -> np.ndarray:
    """[rows, columns, 4]: white at zero."""
    from matplotlib import colormaps

    found = colormaps[COLOURS](0.5 + 0.5 * values / limit(values))
    found[values == 0] = 1.0
    return np.asarray(found)


def cell_text(cell: Any) -> str:
    """What a feature holds."""
    if isinstance(cell, (float, np.floating)):
        return "missing" if np.isnan(cell) else minus(f"{cell:.6g}")
    return "missing" if cell is None or str(cell) in ("<NA>", "NaT") else str(cell)


def minus(number: str) -> str:
    return number.replace("-", "−")


# ---- the page -------------------------------------------------------------------------------------------------------


def sorter() -> str:
    """The script that makes every such table of a page sortable; running it twice does no harm."""
    return (TEMPLATES / "table.js").read_text("utf-8")


def trusted(text: str) -> Any:
    """Our own text, not escaped."""
    from markupsafe import Markup

    return Markup(text)


@cache
def template() -> Any:
    """Names and cells are anybody's text: everything is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template("table.html")
