"""Rows of a table as a model takes them, with others that they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from askwhy.cli.given import Item, Wish
from askwhy.cli.sheet import columns_like
from askwhy.cli.trained import as_trained, check_finite, columns_for
from askwhy.errors import InputError

if TYPE_CHECKING:
    import pandas

    from askwhy.models.base import Model

BACKGROUND = 100  # rows
HANDFUL, FIRST = 5, 3  # rows that all get a card of their own; of more, so many do that nobody named


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows to explain. The index of the tables holds the numbers of the rows in the file."""

    table: pandas.DataFrame  # [n, d]
    kept: pandas.DataFrame  # rows to compare with
    file: Path
    background: Path | None  # the file that these come from; None: the same table
    one_by_one: bool  # named each by itself: its own row is not among those that it is compared with
    shown: Sequence[int]  # the numbers of the rows that get a card

    @property
    def said(self) -> str:
        """What the rows are compared with."""
        if self.background is not None:
            return f"{len(self.kept)} rows of {self.background.name}"
        return f"{self.count} other rows of {self.file.name}" if self.one_by_one else f"{len(self.kept)} rows of {self.file.name}"

    @property
    def count(self) -> int:
        return len(self.kept) - 1

    def check_comparable(self) -> None:
        """Raises InputError."""
        if self.background is None and len(self.kept) == 1:
            raise InputError(f"{self.file} has only one row, and methods compare it with others; give --background FILE, a table of usual rows.")

    def item(self, number: int) -> Item:
        """One row, and what it is compared with."""
        row = self.table.loc[[number]]
        cells: list[tuple[str, Any]] = [(str(name), row[name].iloc[0]) for name in row]
        apart = self.one_by_one and self.background is None
        rest = self.kept.drop(index=number, errors="ignore").iloc[: self.count] if apart else self.kept
        return Item(f"row {number} of {self.file.name}", row, {"row": cells, "background": self.said}, {"background": rest}, number)


def rows_for(model: Model, sheet: pandas.DataFrame, other: pandas.DataFrame | None, file: Path, wish: Wish, numbers: Sequence[int]) -> Rows:
    """The rows as this model takes them. Raises InputError."""
    from askwhy.tables import background as drawn

    columns = columns_for(model, sheet, file)
    if other is not None and wish.background is not None:
        other = columns_like(other, columns, wish.background)
    own, other = as_trained(model, sheet[columns], other, file)
    table = own.loc[list(numbers)]
    check_finite(table, file)
    apart = wish.one_by_one and other is None
    kept = drawn(own if other is None else other, BACKGROUND + 1 if apart else BACKGROUND).rows  # one more, should the row be among them
    check_finite(kept, wish.background or file)
    shown = list(dict.fromkeys(wish.row)) or list(numbers)[: None if len(numbers) <= HANDFUL else FIRST]
    return Rows(table, kept, file, wish.background, wish.one_by_one, shown)
