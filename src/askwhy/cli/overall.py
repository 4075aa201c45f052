"""The questions about a whole model: which columns matter, and how the score moves with one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from askwhy.cli.results import FIGURES, write_result
from askwhy.cli.said import errors_in_one_sentence, progress_bar
from askwhy.errors import InputError, near

if TYPE_CHECKING:
    import numpy as np
    import pandas

    from askwhy.models.base import Model

MODEL = "FILE.py:FUNCTION, a saved model (.json, .ubj, .txt, .cbm, .onnx), or an address (https://...)."
CLASSES = "Names of the classes in the model's order, with commas between, where its file has none."
OUT = "The picture to write (.png, .svg, .pdf), or all numbers, to load again (.npz)."
Classes = Annotated[str | None, typer.Option(help=CLASSES)]
Drop = Annotated[list[str] | None, typer.Option(help="A column that is not for the model; may be given several times.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print numbers for other programs, and write no file.")]


def importance(
    model: Annotated[str, typer.Argument(help=MODEL)],
    data: Annotated[Path | None, typer.Option(help="A table that the model was not trained on.")] = None,
    label: Annotated[str | None, typer.Option(help="The column of the table that holds the truth.")] = None,
    how: Annotated[
        str, typer.Option(help="'permutation', 'drop-column' (fits again: for scikit-learn's own), or 'model' (what the library says).")
    ] = "permutation",
    score: Annotated[str | None, typer.Option(help="'log_loss', 'accuracy', 'squared_error' or 'absolute_error'.")] = None,
    kind: Annotated[str | None, typer.Option(help="Of 'model': which of the library's own, as 'gain'.")] = None,
    repeats: Annotated[int | None, typer.Option(help="How often each column is shuffled.")] = None,
    classes: Classes = None,
    drop: Drop = None,
    seed: Annotated[int, typer.Option(help="Seed of the shuffles.")] = 0,
    out: Annotated[Path, typer.Option(help=OUT)] = Path("importance.png"),
    as_json: AsJson = False,
) -> None:
    """Which columns matter over all rows: askwhy importance model.json --data test.csv --label income."""
    with errors_in_one_sentence():
        from askwhy.cli.named import load_model
        from askwhy.overall.importance import importance as ask

        check_out(out, as_json)
        X, y, wrapped = None, None, None
        if how != "model" or data is not None:
            sheet, truth = table_and_truth(data, label)
            wrapped = load_model(model, classes)
            X, y = for_model(wrapped, sheet, data, drop), truth
        with progress_bar(1) as begin:
            told = begin(how)
            found = ask(wrapped or load_model(model, classes), X, y, how=how, score=score, kind=kind, repeats=repeats, seed=seed, progress=told)
        hand_over(found, out, as_json)


def effect(
    model: Annotated[str, typer.Argument(help=MODEL)],
    data: Annotated[Path, typer.Option(help="A table of usual rows.")],
    feature: Annotated[list[str], typer.Option(help="The column; two of them for what they do together.")],
    how: Annotated[str, typer.Option(help="'pdp' (partial dependence), 'ice' (a curve of each row too), or 'ale' (stays with the data).")] = "pdp",
    target: Annotated[str | None, typer.Option(help="The class, by label or number; of two classes the second where none is named.")] = None,
    versus: Annotated[str | None, typer.Option(help="Less the score of this class.")] = None,
    classes: Classes = None,
    drop: Drop = None,
    out: Annotated[Path, typer.Option(help=OUT)] = Path("effect.png"),
    as_json: AsJson = False,
) -> None:
    """How the score moves with a column, or with two: askwhy effect model.json --data rows.csv --feature age."""
    with errors_in_one_sentence():
        from askwhy.cli.asking import as_class
        from askwhy.cli.named import load_model
        from askwhy.cli.sheet import read_sheet
        from askwhy.cli.whole import has_two_classes
        from askwhy.overall.effects import effect as ask

        check_out(out, as_json)
        sheet, wrapped = read_sheet(data), load_model(model, classes)
        rows = for_model(wrapped, sheet, data, drop)
        asked = 1 if target is None and has_two_classes(wrapped, rows) else as_class(target)
        with progress_bar(1) as begin:
            told = begin(how)
            found = ask(wrapped, rows, feature, how=how, target=asked, versus=as_class(versus), progress=told)
        hand_over(found, out, as_json)


def check_out(out: Path, as_json: bool) -> None:
    """Before the work. Raises FileError, InputError."""
    if as_json:
        return
    from askwhy.cli.results import check_place

    check_place(out, f"a name that ends in {', '.join(FIGURES)} (a picture) or .npz (to load again)", (*FIGURES, ".npz"))


def table_and_truth(data: Path | None, label: str | None) -> tuple[pandas.DataFrame, np.ndarray]:
    """Raises InputError."""
    from askwhy.cli.sheet import read_sheet

    if data is None or label is None:
        missing = "--data" if data is None else "--label"
        raise InputError(f"{missing} is missing: the error is measured on rows, --data FILE, and on their truth, the column --label NAME.")
    sheet = read_sheet(data)
    if label not in sheet:
        raise InputError(f"--label {label}: {data} has no such column; {near(label, list(map(str, sheet.columns)))}")
    return sheet.drop(columns=label), sheet[label].to_numpy()


def for_model(model: Model, sheet: pandas.DataFrame, data: Path | None, drop: list[str] | None) -> pandas.DataFrame:
    """The table as the model takes it. Raises InputError."""
    from askwhy.cli.given import dropped
    from askwhy.cli.trained import as_trained, check_finite, columns_for

    file = data or Path()
    own = dropped(sheet, drop or (), file)
    own, _ = as_trained(model, own[columns_for(model, own, file)], None, file)
    check_finite(own, file)
    return own


def hand_over(found: Any, out: Path, as_json: bool) -> None:
    """Print, and write the picture or the numbers."""
    if as_json:
        print(json.dumps(numbers(found), indent=2))
        return
    print(found.summary())
    write_result(found, out)


def numbers(found: Any) -> dict[str, Any]:
    """What JSON can hold: names, values and their errors; NaN is nothing."""
    errors = None if found.std_error is None else [None if error != error else error for error in found.std_error.ravel().tolist()]
    grid = {"grid": [list(map(plain, axis.tolist())) for axis in found.grid]} if hasattr(found, "grid") else {}
    return {
        "method": found.method, "target": found.target, "names": list(found.names), "unit": found.unit, **grid, "values": found.values.tolist(),
        "std_error": errors, "details": dict(found.details), "model_calls": found.model_calls, "versions": dict(found.versions),
    }  # fmt: skip


def plain(cell: Any) -> Any:
    return cell if isinstance(cell, (int, float, str)) else str(cell)
