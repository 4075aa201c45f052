"""Anchors beside alibi's and beside naive rules from LIME: Adult, gradient boosting, people of the test set.

    python benchmarks/anchors.py [--rows 100] [--alibi PYTHON]

alibi needs an older numpy, so PYTHON is the interpreter of an environment of its own:
    python -m venv alibi && alibi/bin/pip install alibi "numpy<2" click scikit-learn==THE_SAME_AS_HERE
It fits the same model to the same data, gets the same rows and the same precision, and runs on one thread as askwhy does.

Every rule is judged on the test set, which no contestant saw, in two ways. "real": test rows that satisfy it, how often
the model answers as for the explained row. "drawn": any test row, whose columns in the rule take values that satisfy
it. The naive use of LIME: as many conditions as the anchor has, those with the largest weights, as a rule; or of these
those that speak for the answer; or the straight line that they are, applied to other rows (the paper's "LIME-n").
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(threads, "1")

import numpy as np  # noqa: E402  reads the number of threads when it is loaded

CONDITION = re.compile(r"^(?:(?P<low>-?[\d.]+) < )?f(?P<column>\d+)(?: (?P<sign><=|>|=) (?P<value>-?[\d.]+))?$")


def subject() -> dict[str, Any]:
    """The model, and tables of numbers: categories are numbered, and a missing one has a number too."""
    from askwhy.zoo_tables import adult

    X, y, X_test, y_test = adult()
    categories = [k for k, dtype in enumerate(X.dtypes) if str(dtype) == "category"]
    levels = {k: len(X.iloc[:, k].cat.categories) + 1 for k in categories}
    train, test = numbered(X, levels), numbered(X_test, levels)
    model = fitted(train, y == ">50K")
    print(f"gradient boosting on Adult: accuracy {model.score(test, y_test == '>50K'):.3f}")
    return {"model": model, "train": train, "labels": y == ">50K", "test": test, "levels": levels}


def fitted(train: np.ndarray, labels: np.ndarray) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(random_state=0).fit(train, labels)


def numbered(table: Any, levels: dict[int, int]) -> np.ndarray:
    columns = [table.iloc[:, k].cat.codes.replace(-1, levels[k] - 1) if k in levels else table.iloc[:, k] for k in range(table.shape[1])]
    return np.stack(columns, 1).astype(float)


class Counted:
    """predict_proba with a clock."""

    def __init__(self, model: Any) -> None:
        self.model, self.calls, self.seconds = model, 0, 0.0

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        began = time.perf_counter()
        out = self.model.predict_proba(rows)
        self.seconds += time.perf_counter() - began
        self.calls += len(rows)
        return out


# ---- the contestants: each gives, for one row, the conditions {column: bool [test rows]} and the coverage's rows ---------


def by_askwhy(given: dict[str, Any], rows: np.ndarray, options: dict[str, Any]) -> list[dict[str, Any]]:
    """All rows in one call, as a user would; the time of each is its share."""
    from askwhy.local.anchor import anchors

    counted = Counted(given["model"])
    began = time.perf_counter()
    why = anchors(counted, rows, background=given["train"], categorical=list(given["levels"]), **options)
    shared = {"seconds": (time.perf_counter() - began) / len(rows), "model": counted.seconds / len(rows), "calls": counted.calls / len(rows)}
    found = []
    for i in range(len(rows)):
        names = [name for name, e in zip(why.components[i], why.std_error[i], strict=True) if np.isfinite(e)]
        names = [re.sub(r"feature (\d+)", r"f\1", name) for name in names]
        found.append({"names": names, **shared, "reached": why.details["reached"][i]})
    return found


def by_alibi(given: dict[str, Any], rows: np.ndarray, options: dict[str, Any]) -> list[dict[str, Any]]:
    from alibi.explainers import AnchorTabular

    counted = Counted(given["model"])
    names = {k: [str(level) for level in range(count)] for k, count in given["levels"].items()}
    explainer = AnchorTabular(counted, [f"f{k}" for k in range(rows.shape[1])], categorical_names=names, seed=0)
    explainer.fit(given["train"], disc_perc=(25, 50, 75))
    found = []
    for row in rows:
        counted.calls, counted.seconds = 0, 0.0
        began = time.perf_counter()
        why = explainer.explain(row, threshold=options["precision"], delta=0.05)
        seconds = time.perf_counter() - began
        told = {"precision": float(why.precision), "reached": bool(why.precision >= options["precision"])}
        found.append({"names": list(why.anchor), "seconds": seconds, "model": counted.seconds, "calls": counted.calls, **told})
    return found


def by_lime(given: dict[str, Any], rows: np.ndarray, lengths: list[int]) -> dict[str, list[dict[str, Any]]]:
    """The `length` largest conditions as a rule, those of them that speak for the answer, and the straight line that they are, applied."""
    from lime.lime_tabular import LimeTabularExplainer

    names = [f"f{k}" for k in range(rows.shape[1])]
    levels = {k: [str(level) for level in range(count)] for k, count in given["levels"].items()}
    explainer = LimeTabularExplainer(given["train"], feature_names=names, categorical_features=list(levels), categorical_names=levels, random_state=0)
    found: dict[str, list[dict[str, Any]]] = {"largest": [], "for the answer": [], "the line": []}
    for row, length in zip(rows, lengths, strict=True):
        k = int(given["model"].predict_proba(row[None]).argmax())
        why = explainer.explain_instance(row, given["model"].predict_proba, labels=(k,), num_features=rows.shape[1])
        weighted = [(re.sub(r"^(f\d+)=(\d+)$", r"\1 = \2", name), weight) for name, weight in why.as_list(k)]
        found["largest"].append({"names": [name for name, _ in weighted[:length]]})
        found["for the answer"].append({"names": [name for name, weight in weighted if weight > 0][:length]})
        found["the line"].append({"line": weighted[:length]})
    return found


def line_precision(given: dict[str, Any], rows: np.ndarray, lines: list[dict[str, Any]]) -> tuple[float, float]:
    """The paper's naive use of a linear explanation: where its weights sum to more than 0, the same answer is expected."""
    test, answers, own, right, covered = given["test"], given["model"].predict(given["test"]), given["model"].predict(rows), [], []
    for line, answer in zip(lines, own, strict=True):
        sums = sum((weight * satisfied(name, test)[1] for name, weight in line["line"]), np.zeros(len(test)))
        right.append((answers[sums > 0] == answer).mean() if (sums > 0).any() else np.nan)
        covered.append((sums > 0).mean())
    return float(np.nanmean(right)), float(np.mean(covered))


# ---- the judge --------------------------------------------------------------------------------------------------------


def satisfied(name: str, table: np.ndarray) -> tuple[int, np.ndarray]:
    """A condition such as "28 < f0 <= 37", "f3 = 9", "f0 > 48": its column, and which rows satisfy it."""
    match = CONDITION.match(name)
    assert match, name
    column = int(match["column"])
    values, ok = table[:, column], np.ones(len(table), bool)
    if match["low"]:
        ok &= values > float(match["low"])
    if match["sign"]:
        value = float(match["value"])
        ok &= {"<=": values <= value, ">": values > value, "=": values == value}[match["sign"]]
    return column, ok


def judge(given: dict[str, Any], rows: np.ndarray, rules: list[dict[str, Any]], cases: int = 4000) -> dict[str, np.ndarray]:
    """Per rule: precision on real and on drawn test rows, coverage of the test set, and how many conditions it has."""
    test, model = given["test"], given["model"]
    answers, own, rng = model.predict(test), model.predict(rows), np.random.default_rng(1)
    found: dict[str, list[float]] = {"real": [], "drawn": [], "coverage": [], "length": []}
    for rule, answer in zip(rules, own, strict=True):
        conditions: dict[int, np.ndarray] = {}
        for name in rule["names"]:
            column, ok = satisfied(name, test)
            conditions[column] = conditions.get(column, True) & ok
        inside = np.logical_and.reduce([np.ones(len(test), bool), *conditions.values()])
        drawn = test[rng.integers(len(test), size=cases)]
        for column, ok in conditions.items():
            givers = test[ok, column]
            outside = ~np.isin(drawn[:, column], givers)
            drawn[outside, column] = givers[rng.integers(len(givers), size=outside.sum())]
        found["real"].append((answers[inside] == answer).mean() if inside.any() else np.nan)
        found["drawn"].append((model.predict(drawn) == answer).mean())
        found["coverage"].append(inside.mean())
        found["length"].append(len(conditions))
    return {name: np.array(values) for name, values in found.items()}


def show(title: str, rules: list[dict[str, Any]], judged: dict[str, np.ndarray], which: np.ndarray) -> None:
    line = f"{title:34}" + "".join(f"  {name} {np.nanmean(values[which]):.3f}" for name, values in judged.items())
    if "seconds" in rules[0]:
        seconds, model, calls = (np.array([rule[k] for rule in rules])[which] for k in ("seconds", "model", "calls"))
        line += f"  s a row {seconds.mean():.3f} (median {np.median(seconds):.3f}, model {model.mean():.3f})  calls {calls.mean():,.0f}"
        line += f"  said to reach it {np.mean([rule['reached'] for rule in rules]):.0%}"
    print(line)


def worker(folder: Path, python: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    subprocess.run([python, __file__, "--worker", str(folder), json.dumps(options)], check=True)
    return json.loads((folder / "out.json").read_text())  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--precision", type=float, default=0.95)
    parser.add_argument("--options", type=json.loads, default={}, help="more options of askwhy.anchors, as JSON")
    parser.add_argument("--alibi", metavar="PYTHON")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        folder = Path(given.worker[0])
        held = pickle.loads((folder / "in.pkl").read_bytes())
        held["model"] = fitted(held["train"], held["labels"])
        (folder / "out.json").write_text(json.dumps(by_alibi(held, held["rows"], json.loads(given.worker[1]))))
        return
    held = subject()
    rows = held["test"][np.random.default_rng(0).choice(len(held["test"]), given.rows, replace=False)]
    everyone, kept = np.ones(len(rows), bool), {}
    for cases in ("real", "mixed"):
        kept[cases] = by_askwhy(held, rows, {"precision": given.precision, "cases": cases, **given.options})
        judged = judge(held, rows, kept[cases])
        show(f"askwhy, {cases} rows", kept[cases], judged, everyone)
        show("  the rows whose rule reaches it", kept[cases], judged, np.array([rule["reached"] for rule in kept[cases]]))
    mine = kept["real"]
    if given.alibi:
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "in.pkl").write_bytes(pickle.dumps({**held, "model": None, "rows": rows}))
            theirs = worker(Path(name), given.alibi, {"precision": given.precision})
        judged = judge(held, rows, theirs)
        show("alibi", theirs, judged, everyone)
        for cases, own in kept.items():
            seconds, calls = (sum(rule[k] for rule in theirs) / sum(rule[k] for rule in own) for k in ("seconds", "calls"))
            print(f"  alibi / askwhy, {cases} rows: {seconds:.1f} times the seconds, {calls:.2f} times the calls")
        print(f"  alibi's rules that no test row satisfies: {np.mean(judged['coverage'] == 0):.0%}")
    reached = np.array([rule["reached"] and bool(rule["names"]) for rule in mine])
    naive = by_lime(held, rows[reached], [len(rule["names"]) for rule, is_ in zip(mine, reached, strict=True) if is_])
    for how in ("largest", "for the answer"):
        show(f"LIME, same rows, {how}", naive[how], judge(held, rows[reached], naive[how]), everyone[reached])
    right, covered = line_precision(held, rows[reached], naive["the line"])
    print(f"LIME, same rows, the line applied: real {right:.3f}  coverage {covered:.3f}")


if __name__ == "__main__":
    sys.exit(main())
