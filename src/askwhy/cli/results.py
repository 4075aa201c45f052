"""What comes out: a report, a table of numbers, a saved Explanation, or JSON."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from askwhy.cli.said import note
from askwhy.errors import FileError, InputError, MissingPackageError

if TYPE_CHECKING:
    import numpy as np

    from askwhy.cli.given import Item
    from askwhy.explanation import Explanation
    from askwhy.report import Case, Table

HEAD = ("item", "method", "target", "versus", "score", "base_value", "component", "holds", "value", "std_error")
PAGES, NUMBERS = ("", ".html", ".htm"), (".csv", ".npz", ".parquet")
FIGURES = (".pdf", ".png", ".svg")


def check_writable(out: Path) -> None:
    """Before the work and not after it."""
    check_place(out, "a name that ends in .html (a report), .csv or .parquet (all numbers), or .npz (to load again)", (*PAGES, *NUMBERS))


def check_place(out: Path, wanted: str, suffixes: Sequence[str]) -> None:
    """Whether a file with one of these ends can be written there. Raises FileError, InputError."""
    if out.is_dir():
        raise FileError(f"{out} is a folder; name a file in it, as {out / 'report.html'}.")
    if out.suffix.lower() not in suffixes:
        raise InputError(f"--out {out}: give {wanted}.")
    if not out.resolve().parent.is_dir():
        raise FileError(f"{out} cannot be written: the folder {out.resolve().parent} does not exist.")
    if not os.access(out if out.exists() else out.resolve().parent, os.W_OK):
        raise FileError(f"{out} cannot be written: permission denied.")


def check_holds(out: Path, kind: str, methods: Sequence[str]) -> None:
    """Whether this kind of file can hold these answers."""
    end = out.suffix.lower()
    if end in NUMBERS and kind == "photo":
        raise InputError(f"--out {out}: numbers of texts and rows are written to {end}; photos get a report (.html), or --json.")
    if end == ".npz" and len(methods) > 1:
        raise InputError(f"--out {out} holds the answers of one method, and these are {', '.join(methods)}; name one with --method, or take .csv.")
    if end == ".parquet":
        check_parquet()


def check_parquet() -> None:
    """Before the work. Raises MissingPackageError."""
    if not any(map(find_spec, ("pyarrow", "fastparquet"))):
        raise MissingPackageError("Parquet files are read and written by pyarrow, which is not here: pip install pyarrow")


def write_result(result: Any, out: Path, page: Callable[[], str] | None = None) -> None:
    """Its numbers (.npz), the page (.html), or its picture."""
    from askwhy.files import write_file

    end = out.suffix.lower()
    if end == ".npz":
        result.save(out)
    elif end in PAGES and page is not None:
        write_file(out, page().encode())
    else:
        file = io.BytesIO()
        result.plot().figure.savefig(file, format=end[1:], dpi=150)
        write_file(out, file.getvalue())
    note(f"askwhy: written to {out.resolve()}")


def hand_over(items: Sequence[Item], cases: Sequence[Case], model_name: str, out: Path, as_json: bool) -> None:
    """Print the numbers, or write the file and say what is in it."""
    if as_json:
        print_json(items, cases)
        return
    from askwhy.files import write_file

    found = [why for case in cases for why in case.explanations]
    end = out.suffix.lower()
    if end in (".csv", ".parquet"):
        lines = ((item.number, *line) for item, case in zip(items, cases, strict=False) for why in case.explanations for line in lines_of(why))
        write_lines(out, lines)
    elif end != ".npz":
        from askwhy.report import render

        write_file(out, render(cases, model_name).encode())
        tell(cases)
    elif found:
        answered = [item for item, case in zip(items, cases, strict=False) if case.explanations]
        whole = joined(found)
        replace(whole, details={**whole.details, "item": tuple(item.name for item in answered)}).save(out)
    print(f"{'report' if end in PAGES else f'{len(found)} answers'}: {out.resolve()}")


def hand_over_tables(tables: Sequence[Table], cases: Sequence[Case], model_name: str, out: Path) -> None:
    """The same about whole tables; `cases` are the rows with a card of their own in the report."""
    from askwhy.files import write_file

    end = out.suffix.lower()
    if end in (".csv", ".parquet"):
        write_lines(out, (line for table in tables for line in lines_of_table(table)))
    elif end != ".npz":
        from askwhy.report import render

        write_file(out, render(cases, model_name, tables).encode())
    else:
        (table,) = tables
        names = tuple(f"row {number} of {table.name}" for number in table.numbers)
        replace(table.why, details={**table.why.details, "item": names}).save(out)
    for table in tables:
        print(table.summary())
    print(f"{'report' if end in PAGES else f'{sum(len(table.why) for table in tables):,} answers'}: {out.resolve()}")


def print_json(items: Sequence[Item], cases: Sequence[Case]) -> None:
    print(json.dumps([as_numbers(item, case) for item, case in zip(items, cases, strict=False)], indent=2))


def tell(cases: Sequence[Case]) -> None:
    """What was found, in a few lines."""
    for case in cases:
        best = ", ".join(f"{label} {p:.2f}" for label, p in case.top[:3])
        print(f"{case.name}: {best}" if best else case.name)
        for why in case.explanations:
            print("  " + why.summary().replace("\n", "\n    "))


# ---- JSON -----------------------------------------------------------------------------------------------------------


def as_numbers(item: Item, case: Case) -> dict[str, Any]:
    """One item's answers as plain numbers."""
    named: dict[str, Any] = {"photo": case.name} if case.photo is not None else {"text": case.text} if case.text is not None else {"row": item.number}
    if case.text is not None and case.name.startswith("row "):
        named["row"] = item.number
    return {
        **named,
        "predictions": [{"label": label, "probability": p} for label, p in case.top],
        "explanations": [explanation_numbers(why) for why in case.explanations],
        "refused": [{"method": method, "reason": reason} for method, reason in case.refused],
    }


def explanation_numbers(why: Explanation) -> dict[str, Any]:
    numbers = {
        key: None if getattr(why, key) is None else getattr(why, key)[0].tolist() for key in ("prediction", "base_value", "residual", "values")
    }
    error = None if why.std_error is None else [None if v != v else v for v in why.std_error[0].ravel().tolist()]
    return {
        "method": why.method, "target": why.target[0], "versus": why.versus[0] if why.versus else None, **numbers, "std_error": error,
        "components": why.components[0] if why.components else None, "holds": why.held(), "top": why.top(5),
        "details": dict(why.details), "params": dict(why.params), "model_calls": why.model_calls, "seconds": why.seconds, "seed": why.seed,
        "versions": dict(why.versions),
    }  # fmt: skip


# ---- a table of numbers ---------------------------------------------------------------------------------------------


def write_lines(out: Path, lines: Iterator[tuple[Any, ...]]) -> None:
    """One line for each item, method and component."""
    from askwhy.files import write_file

    if out.suffix.lower() == ".parquet":
        import pandas

        file = io.BytesIO()
        pandas.DataFrame(list(lines), columns=list(HEAD)).to_parquet(file, index=False)
        write_file(out, file.getvalue())
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEAD)
    writer.writerows(lines)
    write_file(out, text.getvalue().encode())


def lines_of_table(table: Table) -> Iterator[tuple[Any, ...]]:
    for why in [table.why[name] for name in table.why.outputs] or [table.why]:
        for number, one in zip(table.numbers, why, strict=True):
            yield from ((number, *line) for line in lines_of(one))


def lines_of(why: Explanation) -> list[tuple[Any, ...]]:
    """Of one item. Nothing stands where nothing is known."""
    names, values = why._parts()
    plain = why.values.ndim == 2 and len(names) == why.values.shape[1]
    held = (why.held() if plain else None) or [""] * len(names)
    errors = (
        [None if error != error else error for error in why.std_error[0].tolist()] if plain and why.std_error is not None else [None] * len(names)
    )
    versus, base = why.versus[0] if why.versus else None, None if why.base_value is None else float(why.base_value[0])
    start = (why.method, why.target[0], versus, float(why.prediction[0]), base)
    return [(*start, *line) for line in zip(names, held, values.tolist(), errors, strict=True)]


# ---- one Explanation of many items ----------------------------------------------------------------------------------


def joined(whys: Sequence[Explanation]) -> Explanation:
    """Explanations by one method, each of one item, as one."""
    import numpy as np

    from askwhy.explanation import PER_ITEM

    shape = np.max([why.values.shape[1:] for why in whys], axis=0)
    found: dict[str, Any] = {}
    for name in (f.name for f in fields(whys[0]) if f.name in PER_ITEM):
        each = [getattr(why, name) for why in whys]
        if name in ("values", "std_error") and any(one is not None for one in each):
            found[name] = np.concatenate([filled(one, shape) for one in each])
        else:
            found[name] = together(each)
    found |= {"model_calls": sum(why.model_calls for why in whys), "seconds": sum(why.seconds for why in whys)}
    return replace(whys[0], **found, details=details_of(whys))


def filled(values: np.ndarray | None, shape: np.ndarray) -> np.ndarray:
    """[1, *shape]; what was computed exactly has no error."""
    import numpy as np

    out = np.zeros((1, *shape))
    if values is not None:
        out[tuple(slice(size) for size in values.shape)] = values
    return out


def together(each: Sequence[Any]) -> Any:
    import numpy as np

    if each[0] is None or isinstance(each[0], np.ndarray):
        return None if each[0] is None else np.concatenate(each)
    return tuple(one for part in each for one in part)


def details_of(whys: Sequence[Explanation]) -> dict[str, Any]:
    """One entry for each item, or one for all where they agree."""
    found = {}
    for name in {name: None for why in whys for name in why.details}:
        each = [why.details.get(name) for why in whys]
        if all(isinstance(one, tuple) and len(one) == 1 for one in each):
            found[name] = together(each)
        else:
            texts = list(dict.fromkeys(str(one) for one in each if one is not None))
            found[name] = (
                next(one for one in each if one is not None)
                if len(texts) == 1
                else "; ".join(texts[:3]) + (f"; and {len(texts) - 3} more" if len(texts) > 3 else "")
            )
    return found
