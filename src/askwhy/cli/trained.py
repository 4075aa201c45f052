"""A table from a file as the model was trained on it: its columns in its order, and categories where it knows categories."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from askwhy.cli.said import note
from askwhy.errors import InputError, near

if TYPE_CHECKING:
    import pandas

    from askwhy.models.base import Model


def columns_for(model: Model, sheet: pandas.DataFrame, file: Path) -> list[str]:
    """The columns that the model was trained on, in its order; all of the table where it does not say. Raises InputError."""
    told, found = told_by(model), list(map(str, sheet.columns))
    known = getattr(model, "columns", None) or (told.names if told else None)
    if known is None:
        check_width(told, found, file)
        return found
    chosen = [own_name(name, found) for name in known]
    missing = [name for name, column in zip(known, chosen, strict=True) if column is None]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{file} has no column {missing[0]!r}{more}, which the model was trained on; {near(missing[0], found)}")
    extra = [column for column in found if column not in chosen]
    if extra:
        note(f"askwhy: the model was not trained on {', '.join(extra)}, so {'it is' if len(extra) == 1 else 'they are'} left out.")
    return [column for column in chosen if column is not None]


def told_by(model: Model) -> Any:
    """What a booster says of itself; None of any other model."""
    from askwhy.models import boosters

    source = getattr(model, "source", None)
    return boosters.read(source) if boosters.reader(source) is not None else None


def own_name(name: str, found: list[str]) -> str | None:
    """The table's column of this name. LightGBM writes an underscore for a space."""
    return name if name in found else next((column for column in found if re.sub(r"\s", "_", column) == name), None)


def check_width(told: Any, found: list[str], file: Path) -> None:
    """A booster that keeps no names takes the columns in their order. Raises InputError."""
    if told is None:
        return
    if told.width != len(found):
        raise InputError(
            f"{file} has {len(found)} columns ({', '.join(found[:20])}{', ...' if len(found) > 20 else ''}), and the model, which keeps no names of "
            f"its own, was trained on {told.width}; name those that are not for it, an id or the label, with --drop NAME."
        )
    note("askwhy: the model keeps no names of its columns; the table's are taken in their order.")


# ---- what the columns hold ------------------------------------------------------------------------------------------


def as_trained(model: Model, own: pandas.DataFrame, other: pandas.DataFrame | None, file: Path) -> tuple[pandas.DataFrame, pandas.DataFrame | None]:
    """Both tables with categories where XGBoost and LightGBM know some; they take no other words. Raises InputError."""
    told = told_by(model)
    library = "" if told is None else type(told.native).__module__.partition(".")[0]
    if library not in CATEGORIES:
        return own, other
    trained = CATEGORIES[library](told.native, list(own.columns))
    for column, dtype in own.dtypes.items():
        if column not in trained and is_wordy(dtype):
            row = first_word(own[column])
            raise InputError(f"{file} holds {own[column][row]!r} in row {row}, column {column!r}, and the model was trained on numbers there.")
    for column, known in trained.items():
        if known is not None:
            tell_unknown(own[column], known, library)
    levels = {column: levels_of(own, other, column) for column in trained}  # the same in both, since methods mix their rows
    return own.astype(levels), None if other is None else other.astype(levels)


def is_wordy(dtype: Any) -> bool:
    return dtype.kind == "O" or str(dtype) in ("category", "str", "string")


def levels_of(own: pandas.DataFrame, other: pandas.DataFrame | None, column: str) -> pandas.CategoricalDtype:
    import pandas

    cells = pandas.concat([own[column], *([] if other is None else [other[column]])]).dropna()
    return pandas.CategoricalDtype(pandas.unique(cells.astype(object)))


def first_word(column: pandas.Series) -> Any:
    """The first row that holds no number."""
    import pandas

    return (pandas.to_numeric(column, errors="coerce").isna() & column.notna()).idxmax()


def of_xgboost(booster: Any, columns: list[str]) -> dict[str, Any]:
    """The columns of categories. An older file has lost their names, so that only their numbers would fit. Raises InputError."""
    from askwhy.models.trees.xgboost import trained_categories

    kinds = booster.feature_types or []
    places = [k for k, kind in enumerate(kinds) if kind == "c"]
    if not places:
        return {}
    kept = trained_categories(json.loads(booster.save_raw("json"))["learner"]["gradient_booster"])
    lost = [columns[k] for k in places if k not in kept]
    if lost:
        raise InputError(
            f"the model's file does not name the categories of {lost[0]!r}, as files from before XGBoost 3.1 do not; train it again with a "
            "newer version, or give the model as FILE.py:FUNCTION, with a function that turns the table into what it was trained on."
        )
    return {columns[k]: None for k in places}


def of_lightgbm(booster: Any, columns: list[str]) -> dict[str, Any]:
    """The columns of categories, with these; none where it was trained on their numbers."""
    known = booster.pandas_categorical
    told = re.search(r"^feature_infos=(.*)$", booster.model_to_string(num_iteration=1), re.MULTILINE)
    kinds = told[1].split(" ") if told else []
    places = [k for k, kind in enumerate(kinds) if kind != "none" and not kind.startswith("[")]
    return {columns[k]: one for k, one in zip(places, known, strict=True)} if known and len(known) == len(places) else {}


CATEGORIES = {"lightgbm": of_lightgbm, "xgboost": of_xgboost}


def tell_unknown(column: pandas.Series, known: list[Any], library: str) -> None:
    """LightGBM takes a category that it does not know for a missing value, without a word; XGBoost's are refused when they are read."""
    unknown = column[column.notna() & ~column.isin(known)]
    if len(unknown):
        note(
            f"askwhy: column {column.name!r} holds {unknown.iloc[0]!r} in row {unknown.index[0]}, which the model was not trained on; {library} takes "
            f"it for missing ({len(unknown):,} row{'s' if len(unknown) > 1 else ''})."
        )


def check_finite(frame: pandas.DataFrame, file: Path) -> None:
    """Raises InputError for an infinite number, which models sort in as they like and no picture can show."""
    import numpy as np

    for column, dtype in frame.dtypes.items():
        if dtype.kind != "f":
            continue
        endless = np.isinf(frame[column].to_numpy(np.float64, na_value=np.nan))
        if endless.any():
            place = int(endless.argmax())
            raise InputError(
                f"{file} has {frame[column].iloc[place]} in row {frame.index[place]}, column {column!r}; leave such rows out with --rows, or mend them."
            )
