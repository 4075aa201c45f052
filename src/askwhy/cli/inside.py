"""What happens inside the model? Feature maps, attention, classes from layer to layer, the likeness of two networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from askwhy.cli.dream import MODEL, PHOTOS
from askwhy.cli.results import FIGURES, write_result
from askwhy.cli.said import errors_in_one_sentence, note, progress_bar
from askwhy.errors import AskwhyError, Cancelled, FileError, InputError, near

if TYPE_CHECKING:
    import numpy as np

    from askwhy.kept import Kept
    from askwhy.models.base import Model

FILES = "Photos; a folder of them, or of a folder for each class; or a table of texts (.csv, .tsv, .parquet)."
FEW = 6  # items that are looked at one by one
WHOLE = 1000  # numbers of an array that --json prints; of a larger one, its shape

Ask = Callable[[Any], "Kept"]  # progress -> an answer


@dataclass(frozen=True, eq=False)
class Given:
    """What the model is shown, and the classes, where they are known."""

    X: list[Any]
    kind: str  # "photo" or "text"
    labels: Sequence[str] | np.ndarray | None = None


def inside(
    model: Annotated[str, typer.Argument(help=MODEL)],
    files: Annotated[list[str] | None, typer.Argument(help=FILES)] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text; may be given several times.")] = None,
    column: Annotated[str | None, typer.Option(help="The column of the table that holds the texts.")] = None,
    label: Annotated[str | None, typer.Option(help="The column of the table that holds their classes.")] = None,
    layer: Annotated[list[str] | None, typer.Option(help="A layer; may be given several times. Default: the model's main stages.")] = None,
    beside: Annotated[str | None, typer.Option(help="Another model, whose layers are compared with this one's on the same items.")] = None,
    method: Annotated[str, typer.Option(help="Of the picture of many items: pca, tsne or umap.")] = "tsne",
    seed: Annotated[int, typer.Option(help="Seed of what is drawn at random.")] = 0,
    out: Annotated[Path, typer.Option(help="The report to write (.html), or of one answer a picture (.png, .svg, .pdf) or all numbers (.npz).")] = Path("inside.html"),
    as_json: Annotated[bool, typer.Option("--json", help="Print numbers for other programs, and write no file.")] = False,
) -> None:  # fmt: skip
    """What happens inside? askwhy inside efficientnet-lite0 cat.jpg, or a folder with a folder of photos for each class."""
    with errors_in_one_sentence():
        from askwhy.cli.named import load_model

        check_out(out, as_json)
        given = read(files or (), text or (), column, label)
        wrapped, other = load_model(model), None if beside is None else load_model(beside)
        found, refused = answers(questions(wrapped, other, given, layer, method, seed))
        for title, why in refused:
            note(f"askwhy: {title}: not answered: {why}")
        hand_over(found, refused, model if beside is None else f"{model} and {beside}", out, as_json)


# ---- what is shown to the model -------------------------------------------------------------------------------------


def read(files: Sequence[str], texts: Sequence[str], column: str | None, label: str | None) -> Given:
    """Before the model is loaded. Raises InputError, FileError."""
    from askwhy.cli.given import is_table

    tables = [file for file in files if is_table(file)]
    if bool(files) == bool(texts):
        raise InputError("name photos, a folder, a table of texts, or --text: " + ("one of them." if files else "nothing is named."))
    if texts:
        return Given(list(texts), "text")
    if tables and len(files) > 1:
        raise InputError(f"{files[0]} and {files[1]}: name one table, or any number of photos.")
    if not tables and (column or label):
        raise InputError(f"--{'column' if column else 'label'} is for a table of texts, and {files[0]} is none; leave it out.")
    return of_table(Path(files[0]), column, label) if tables else of_photos(files)


def of_table(file: Path, column: str | None, label: str | None) -> Given:
    from askwhy.cli.sheet import read_sheet

    if column is None:
        raise InputError(f"{file} is a table: say with --column which of its columns holds the texts.")
    sheet = read_sheet(file, (column,))
    if label is not None and label not in sheet:
        raise InputError(f"--label {label}: {file} has no such column; {near(label, list(map(str, sheet.columns)))}")
    return Given(sheet[column].astype(str).tolist(), "text", None if label is None else sheet[label].to_numpy())


def of_photos(files: Sequence[str]) -> Given:
    """Paths; of folders, the photos in them, which a folder for each class names."""
    paths: list[Path] = []
    labels: list[str] = []
    for name in map(Path, files):
        if not name.exists():
            raise FileError(f"{name}: there is no such file.")
        classes = sorted(one for one in name.iterdir() if one.is_dir()) if name.is_dir() else []
        for folder in classes or [name]:
            found = sorted(one for one in folder.iterdir() if one.suffix.lower() in PHOTOS) if folder.is_dir() else [folder]
            if not found:
                raise FileError(f"{folder}: the folder holds no photos ({', '.join(PHOTOS)}).")
            paths += found
            labels += [folder.name] * len(found) if classes else []
    if labels and len(labels) < len(paths):
        raise InputError("some of these photos lie in a folder for each class and others do not; name one folder that holds a folder for each class.")
    return Given([str(path) for path in paths], "photo", labels or None)


# ---- what is asked --------------------------------------------------------------------------------------------------


def questions(model: Model, other: Model | None, given: Given, layers: list[str] | None, method: str, seed: int) -> list[tuple[str, Ask]]:
    """What these items can tell: a few are looked at one by one; of many, how they lie, and what can be read from each layer."""
    from askwhy.inside.activations import activations
    from askwhy.inside.attention import attention
    from askwhy.inside.placing import METHODS
    from askwhy.inside.probe import probe
    from askwhy.inside.projection import projection
    from askwhy.inside.similarity import similarity

    if method not in METHODS:
        raise InputError(f"--method {method}: choose {', '.join(METHODS)}.")
    X, labels = given.X, given.labels
    if other is not None:
        return [("the layers of both models", lambda tick: similarity(model, other, X, layers, seed=seed, progress=tick))]
    if labels is None and len(X) <= FEW:
        return [
            ("what the layers give", lambda tick: activations(model, X, layers, progress=tick)),
            ("where it looks", lambda tick: attention(model, X, seed=seed, progress=tick)),
        ]
    asked: list[tuple[str, Ask]] = [
        ("the items in each layer", lambda tick: projection(model, X, layers, method=method, labels=labels, seed=seed, progress=tick)),
        ("what can be read from each layer", lambda tick: probe(model, X, labels, layers, seed=seed, progress=tick)),
    ]
    return asked[: 1 if labels is None else 2]


def answers(asked: Sequence[tuple[str, Ask]]) -> tuple[list[tuple[str, Kept]], list[tuple[str, str]]]:
    """What was found, and why the rest was refused. Raises the first error where nothing was found, and Cancelled."""
    found: list[tuple[str, Kept]] = []
    errors: list[tuple[str, AskwhyError]] = []
    with progress_bar(len(asked)) as begin:
        for title, ask in asked:
            try:
                found.append((title, ask(begin(title))))
            except Cancelled:
                raise
            except AskwhyError as error:
                errors.append((title, error))
    if not found:
        raise errors[0][1]
    return found, [(title, str(error)) for title, error in errors]


# ---- what is handed over --------------------------------------------------------------------------------------------


def check_out(out: Path, as_json: bool) -> None:
    """Before the work. Raises InputError, FileError."""
    from askwhy.cli.results import check_place

    if not as_json:
        check_place(
            out, f"a name that ends in .html (a report), {', '.join(FIGURES)} (a picture) or .npz (to load again)", (".html", ".npz", *FIGURES)
        )


def hand_over(found: Sequence[tuple[str, Kept]], refused: Sequence[tuple[str, str]], model: str, out: Path, as_json: bool) -> None:
    """Print, and write the page, the first answer's picture, or its numbers."""
    if as_json:
        print(json.dumps([{"title": title, **numbers(result)} for title, result in found], indent=2))
        return
    from askwhy.report.inside import render_inside

    for _, result in found:
        print(result.summary())
    title, first = found[0]
    if out.suffix.lower() != ".html" and len(found) > 1:
        note(f"askwhy: {out} holds the first answer, {title}; a report holds all, --out {out.with_suffix('.html')}.")
    write_result(first, out, lambda: render_inside(found, model, refused))


def numbers(result: Kept) -> dict[str, Any]:
    """What JSON can hold; of a large array, its shape."""
    return {"kind": type(result).__name__, **{f.name: listed(getattr(result, f.name)) for f in fields(result)}}  # type: ignore[arg-type]


def listed(value: Any) -> Any:
    import numpy as np

    if isinstance(value, np.ndarray):
        return listed(value.tolist()) if value.size <= WHOLE else {"shape": list(value.shape)}
    if isinstance(value, (list, tuple)):
        return [listed(one) for one in value]
    if isinstance(value, Mapping):
        return {str(key): listed(one) for key, one in value.items()}
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
