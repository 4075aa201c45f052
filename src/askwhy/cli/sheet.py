"""Tables from files, with every way in which a file can be no table said in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from askwhy._lazy import load
from askwhy.errors import FileError, InputError, MissingPackageError, near
from askwhy.models.base import first_line

if TYPE_CHECKING:
    import pandas

TABLES = (".csv", ".tsv", ".parquet")


def read_sheet(path: Path, texts: Sequence[str] = ()) -> pandas.DataFrame:
    """A table with names in its first line, rows counted from 0. In the columns `texts` everything is text, "NA" and "3" too."""
    columnar = path.suffix.lower() == ".parquet"
    options = {"dtype": dict.fromkeys(texts, str), "keep_default_na": False} if texts and not columnar else {}
    frame = from_parquet(path) if columnar else parsed(path, options)
    found = list(map(str, frame.columns))
    frame.columns = found  # type: ignore[assignment]
    if all(map(is_number, found)) and not columnar:
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
    return frame.fillna(dict.fromkeys(texts, "")).astype(dict.fromkeys(texts, str)) if texts else frame


def from_parquet(path: Path) -> pandas.DataFrame:
    """Raises FileError, MissingPackageError."""
    try:
        return load("pandas", "table").read_parquet(path).reset_index(drop=True)  # type: ignore[no-any-return]
    except MissingPackageError:
        raise
    except ImportError as error:
        raise MissingPackageError("Parquet files are read and written by pyarrow, which is not here: pip install pyarrow") from error
    except FileNotFoundError as error:
        raise FileError(f"{path}: there is no such file.") from error
    except MemoryError:
        raise
    except Exception as error:  # pyarrow has errors of its own for a damaged file
        raise FileError(f"{path} is no Parquet file, or is damaged ({first_line(error)}).") from error


def parsed(path: Path, options: dict[str, Any]) -> pandas.DataFrame:
    """What pandas reads, or why it does not."""
    pandas = load("pandas", "table")
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


def columns_like(other: pandas.DataFrame, columns: Sequence[str], path: Path) -> pandas.DataFrame:
    """The same columns of another table. Raises InputError."""
    missing = [column for column in columns if column not in other]
    if missing:
        raise InputError(f"--background {path} has no column {missing[0]!r}; {near(str(missing[0]), list(map(str, other.columns)))}")
    return other[list(columns)]
