"""How to get the same numbers again: a Python script from the recorded parameters."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from askwhy.explanation import Explanation
from askwhy.models.base import is_missing
from askwhy.report.cards import registered
from askwhy.report.case import Case, Table

RECIPE = re.compile(r"(pixels|patches|superpixels|features|words|characters|sentences|tokens)\(.*\)$", re.DOTALL)
OWN = re.compile(r"(given \[|array \[|table \[|\d+ background rows|\d+ rows of \d+|\d+ rows$|\d+ given regions)")
ONLY = "the score"  # what the target of a model with one output is called
INSTEAD = re.compile(r"replaced by (['\"].*['\"])$", re.DOTALL)
COLUMNS = re.compile(r"features\(\)$|\d+ columns( in \w+ bins)?$")


def script(case: Case, model_name: str) -> str:
    """The calls that made this case's explanations."""
    lines = [model_line(model_name), *given(case)]
    return "\n".join([*imports(case), "", *lines, *(line for why in case.explanations for line in call(why, case.kind))])


def of_table(table: Table, model_name: str) -> str:
    """The call that explained all rows."""
    why, names = table.why, table.why.components[0] if table.why.components else ()
    columns = f"{', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"
    rows = f"{len(why)} rows of {quoted(table.name)} as the model takes them, with the columns {columns}"
    lines = ["import askwhy", "", model_line(model_name), f"rows = ...  {comment(rows)}", *compared([why], table.background)]
    *before, last = call(why, "rows")
    return "\n".join([*lines, *before, f"why = {last}", 'why.plot(how="importance" if why.values.ndim == 3 else "beeswarm")'])


def model_line(name: str) -> str:
    return f"model = ...  # {quoted(name)}, wrapped as it was for this report"


def compared(whys: Sequence[Explanation], said: str) -> list[str]:
    """Where rows were compared with others: which ones."""
    used = any(OWN.match(str(why.params.get("background"))) for why in whys)
    return [f"background = ...  {comment(said or 'rows of the data')}"] if used else []


def imports(case: Case) -> list[str]:
    return ["import askwhy"] if case.row is None else ["import pandas", "", "import askwhy"]


def given(case: Case) -> list[str]:
    """What was asked about, under the name that the calls give it."""
    if case.text is not None:
        return [f"text = {quoted(case.text)}"]
    if case.row is None:
        return [f"photo = {quoted(case.name)}"]
    cells = ", ".join(f"{quoted(column)}: [{cell(value)}]" for column, value in case.row)
    return [f"row = pandas.DataFrame({{{cells}}})", *compared(case.explanations, case.background)]


def cell(value: Any) -> str:
    """A value of a table as Python."""
    if is_missing(value):
        return 'float("nan")'
    return quoted(value) if isinstance(value, str) else repr(value.item() if hasattr(value, "item") else value)


def call(why: Explanation, kind: str) -> Iterator[str]:
    """One call; what was an array of the user's own, or no method of askwhy, becomes a comment."""
    method = registered(why.method)
    if method is None:
        yield comment(
            f"{why.method} is no method of askwhy by itself; its parameters: {json.dumps(dict(why.params), ensure_ascii=False, default=str)}"
        )
        return
    chosen = telling(why, method.function, kind)
    own = {k: v for k, v in chosen.items() if isinstance(v, str) and OWN.match(v)}
    named = ["background"] if kind in ("row", "rows") and "background" in own else []
    if own.keys() - named:
        yield comment("add your own " + ", ".join(f"{k}= ({v})" for k, v in own.items() if k not in named))
    said = [f"target={quoted('all') if why.outputs else target(why.target[0])}"] if why.outputs or (why.target and why.target[0] != ONLY) else []
    said += [f"versus={target(why.versus[0])}"] if why.versus else []
    said += [f"{k}={k}" for k in named]
    said += [f"{k}={spoken(k, v)}" for k, v in chosen.items() if k not in own]
    yield f"askwhy.{why.method}({', '.join(['model', kind, *said])})"


def telling(why: Explanation, function: Any, kind: str) -> Mapping[str, Any]:
    """The parameters that are not the default, and the seed. Boxes are told by size and stride, or by components, not by both."""
    known = inspect.signature(function).parameters
    boxed = {"components"} if why.params.get("size") or why.params.get("stride") else set()
    unsaid = boxed | {k for k, v in why.params.items() if kind != "photo" and implied(k, v, why.params)}
    return {k: v for k, v in why.params.items() if k in known and k not in unsaid and (k == "seed" or v != known[k].default)}


def implied(key: str, value: Any, params: Mapping[str, Any]) -> bool:
    """Whether this only says in words how the usual settings, or the background, were understood."""
    if key == "components":
        return isinstance(value, str) and COLUMNS.match(value) is not None
    if key == "background" and (params.get("value_function") == "path-dependent" or not OWN.match(str(value))):
        return True  # what the method takes where none is given
    return key == "baseline" and (value == "removed" or params.get("background") is not None)


def target(name: str) -> str:
    """A label, or the index of a class without one."""
    found = re.fullmatch(r"class (\d+)", name)
    return found[1] if found else quoted(name)


def spoken(key: str, value: Any) -> str:
    """A recorded parameter as Python."""
    if key == "components" and isinstance(value, str) and RECIPE.match(value):
        return f"askwhy.{value}"
    if key == "baseline" and isinstance(value, str) and (instead := INSTEAD.match(value)):
        return instead[1]
    return quoted(value) if isinstance(value, str) else repr(value)


def quoted(text: str) -> str:
    """A string of Python; JSON's escapes are also Python's, and no line break survives."""
    return json.dumps(text, ensure_ascii=False)


def comment(text: str) -> str:
    """On one line, whatever line breaks a name holds."""
    return "# " + " ".join(text.split())


def versions(whys: Sequence[Explanation]) -> list[tuple[str, str]]:
    """Library and version; several versions where the explanations were not made together."""
    found: dict[str, set[str]] = {}
    for why in whys:
        for name, version in why.versions.items():
            found.setdefault(name, set()).add(version)
    return [(name, ", ".join(sorted(each))) for name, each in found.items()]


def seeds(whys: Sequence[Explanation]) -> str:
    """The seeds in use."""
    found = sorted({why.seed for why in whys if why.seed is not None})
    return ", ".join(map(str, found)) or "none: no method here draws at random"
