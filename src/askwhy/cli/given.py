"""What a user named on the command line: photos, texts, or rows of a table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from askwhy.cli.sheet import TABLES, read_sheet
from askwhy.errors import InputError, near

if TYPE_CHECKING:
    import pandas

    from askwhy.cli.rows import Rows
    from askwhy.models.base import Model
    from askwhy.report import Case

ELSEWHERE = (".feather", ".jsonl", ".xls", ".xlsx")  # tables that pandas reads only with more packages, or in many ways
UNASKED = 20  # texts that are explained without being named
MODELS = (".bst", ".cbm", ".json", ".onnx", ".txt", ".ubj")


@dataclass(frozen=True)
class Wish:
    """The options that say what is to be explained."""

    texts: Sequence[str] = ()
    column: str | None = None
    row: Sequence[int] = ()
    rows: str | None = None
    background: Path | None = None
    drop: Sequence[str] = ()

    @property
    def one_by_one(self) -> bool:
        """Whether rows are named each by itself, and not a part of the table."""
        return bool(self.row) and not self.rows


OPTIONS = {
    "column": "the texts of a table",
    "row": "a table (.csv, .tsv, .parquet)",
    "rows": "a table (.csv, .tsv, .parquet)",
    "background": "the rows of a table",
    "drop": "the rows of a table",
}  # what each of them is for


@dataclass(frozen=True, eq=False)
class Item:
    """One photo, text or row: what the model is asked about, and what a report shows of it."""

    name: str
    x: Any
    shows: dict[str, Any]  # photo=, text= or row= of a Case
    options: dict[str, Any] = field(default_factory=dict)  # background=, for the methods that take it
    number: int | None = None  # of the row, or of the text

    def case(self, top: Sequence[tuple[str, float]], explanations: Sequence[Any], refused: Sequence[tuple[str, str]]) -> Case:
        from askwhy.report import Case

        return Case(self.name, self.shows.get("photo"), top, explanations, refused, **{k: v for k, v in self.shows.items() if k != "photo"})


@dataclass(frozen=True, eq=False)
class Given:
    """Everything that was read before the model is loaded, so that a wrong path costs no waiting."""

    kind: str  # "photo", "text" or "row"
    items: Sequence[Item] = ()
    rows: Callable[[Model], Rows] | None = None  # of a table, as the model takes them


def kind_of(files: Sequence[str], wish: Wish) -> str:
    """ "photo", "text" or "row". Raises InputError for several kinds at once, and for options that belong to another kind."""
    tables = [file for file in files if is_table(file)]
    if wish.texts and files:
        raise InputError(f"--text and {files[0]} cannot be explained together; ask about one of them.")
    if tables and len(files) > 1:
        raise InputError(f"{files[0]} and {files[1]}: name one table, or any number of photos, but not both.")
    odd = next((file for file in files if Path(file).suffix.lower() in ELSEWHERE), None)
    if odd:
        raise InputError(f"{odd}: tables are read from .csv, .tsv and .parquet files; save it as one of them.")
    lone = next((file for file in files if Path(file).suffix.lower() in MODELS), None)
    if lone:
        raise InputError(f"{lone} looks like a model; name the rows that it is to explain with --data FILE, or the photo in its place.")
    fits = ("column", "row", "rows") if wish.column else ("row", "rows", "background", "drop")
    for option, what in OPTIONS.items():
        if getattr(wish, option) and not (tables and option in fits):
            other = "its texts are" if tables else "a text is" if wish.texts else f"{files[0]} is"
            raise InputError(f"--{option} is for {what}, and {other} not; leave it out.")
    return "text" if wish.texts or wish.column else "row" if tables else "photo"


def is_table(file: str) -> bool:
    return Path(file).suffix.lower() in TABLES


def read(files: Sequence[str], wish: Wish, everything: bool) -> Given:
    """`everything`: whether all texts are meant where none are named. Raises InputError, FileError, MissingPackageError."""
    if wish.texts:
        return of_texts(wish.texts)
    if not is_table(files[0]):
        return of_photos(files)
    sheet = read_sheet(Path(files[0]), () if wish.column is None else (wish.column,))
    numbers = named_rows(wish, len(sheet), files[0])
    if wish.column and len(sheet) > UNASKED and not (wish.row or wish.rows or everything):
        raise InputError(f"{files[0]} has {len(sheet):,} rows; name some with --row 3 or --rows 0:{UNASKED}, or explain all with --out result.csv.")
    return of_cells(sheet, files[0], wish.column, numbers) if wish.column else of_rows(sheet, Path(files[0]), wish, numbers)


# ---- photos and texts -----------------------------------------------------------------------------------------------


def of_photos(files: Sequence[str]) -> Given:
    from askwhy.models.pictures import read_picture

    opened = [Item(Path(file).name, photo := read_picture(file), {"photo": photo}) for file in files]
    return Given("photo", opened)


def of_texts(texts: Sequence[str]) -> Given:
    for k, text in enumerate(texts):
        if not text.strip():
            raise InputError(f"--text number {k + 1} is empty; give the text that is to be explained.")
    items = [Item(f"text {k + 1}" if len(texts) > 1 else "the text", [text], {"text": text}, number=k) for k, text in enumerate(texts)]
    return Given("text", items)


# ---- tables ---------------------------------------------------------------------------------------------------------


def of_cells(sheet: pandas.DataFrame, file: str, column: str, numbers: Iterable[int]) -> Given:
    """The texts in one column."""
    items = []
    for k in numbers:
        text = str(sheet[column].iloc[k])
        if not text.strip():
            raise InputError(f"row {k} of {file} has no text in the column {column!r}; leave this row out with --row or --rows.")
        items.append(Item(f"row {k} of {Path(file).name}", [text], {"text": text}, number=k))
    return Given("text", items)


def of_rows(sheet: pandas.DataFrame, file: Path, wish: Wish, numbers: Sequence[int]) -> Given:
    """Rows for the model, which says what it takes of them."""
    from askwhy.cli.rows import rows_for

    own = dropped(sheet, wish.drop, file)
    other = None if wish.background is None else read_sheet(wish.background)
    return Given("row", rows=lambda model: rows_for(model, own, other, file, wish, numbers))


def dropped(sheet: pandas.DataFrame, columns: Sequence[str], file: Path) -> pandas.DataFrame:
    """The table without some columns. Raises InputError."""
    for column in columns:
        if column not in sheet:
            raise InputError(f"--drop {column}: {file} has no such column; {near(column, list(map(str, sheet.columns)))}")
    return sheet.drop(columns=list(columns))


def named_rows(wish: Wish, count: int, file: str) -> list[int]:
    """The numbers of the rows to explain, from 0, each once."""
    odd = next((k for k in wish.row if not 0 <= k < count), None)
    if odd is not None:
        raise InputError(f"--row {odd}: {file} has {count} rows, 0 to {count - 1}.")
    numbers = [*wish.row, *(sliced(wish.rows, count, file) if wish.rows else ())]
    return list(dict.fromkeys(numbers)) if numbers else list(range(count))


def sliced(text: str, count: int, file: str) -> list[int]:
    """START:STOP as in Python: without the row STOP, and either may be missing."""
    found = re.fullmatch(r"(\d*):(\d*)", text.strip())
    if found is None:
        raise InputError(f"--rows {text}: give START:STOP, as 0:20 for the first twenty.")
    numbers = list(range(count))[slice(*(int(end) if end else None for end in found.groups()))]
    if not numbers:
        raise InputError(f"--rows {text} names none of the {count} rows of {file}, which are 0 to {count - 1}.")
    return numbers
