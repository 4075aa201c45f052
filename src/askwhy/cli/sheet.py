"""Tables from files, with every way in which a file can be no table said in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from askwhy.errors import FileError, InputError, MissingPackageError, near

if TYPE_CHECKING:
    import pandas


def read_sheet(path: Path, texts: Sequence[str] = ()) -> pandas.DataFrame:
    """A .csv or .tsv file with names in its first line. In the columns `texts` everything is text, "NA" and "3" too."""
    frame = parsed(path, {"dtype": dict.fromkeys(texts, str), "keep_default_na": False} if texts else {})
    found = list(map(str, frame.columns))
    frame.columns = found  # type: ignore[assignment]
    if all(map(is_number, found)):
        raise InputError(f"{path} begins with numbers ({', '.join(found[:3])}) and not with the names of its columns; write these into a first line.")
    if len(found) == 1 and ";" in found[0]:
        raise InputError(f"{path} has its columns apart by ';'; save it with commas, or with tabs as .tsv.")
    for column in texts:
        if column not in found:
            raise InputError(f"{path} has no column {column!r}; {near(column, found)}")
    if len(frame) == 0:
        raise InputError(f"{path} has the names of {len(found)} columns, but no rows.")
    if len(found) == 1 and not texts and frame[found[0]].dtype.kind not in "biuf":
        raise InputError(f"{path} has one column, {found[0]!r}; if that holds the texts to explain, add --column {found[0]!r}.")
    return frame.fillna(dict.fromkeys(texts, "")) if texts else frame


def parsed(path: Path, options: dict[str, Any]) -> pandas.DataFrame:
    """What pandas reads, or why it does not."""
    try:
        import pandas
    except ImportError as error:
        raise MissingPackageError("tables are read by pandas, which is not here: pip install pandas") from error
    try:
        frame = pandas.read_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else ",", low_memory=False, **options)
    except FileNotFoundError as error:
        raise FileError(f"{path}: there is no such file.") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not written in UTF-8 (byte {error.start}); save it as CSV UTF-8.") from error
    except pandas.errors.EmptyDataError as error:
        raise FileError(f"{path} is empty; a table begins with a line that names its columns.") from error
    except pandas.errors.ParserError as error:
        raise FileError(f"{path} cannot be read as a table: {str(error).strip()}.") from error
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not isinstance(frame.index, pandas.RangeIndex):
        raise FileError(f"{path} has more cells in its rows than names in its first line; name every column.")
    return frame


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def sheet_like(own: pandas.DataFrame, path: Path) -> pandas.DataFrame:
    """Another table with the columns of this one. Raises InputError."""
    other = read_sheet(path)
    missing = [column for column in own if column not in other]
    if missing:
        raise InputError(f"--background {path} has no column {missing[0]!r}; {near(str(missing[0]), list(map(str, other.columns)))}")
    return other[list(own)]
