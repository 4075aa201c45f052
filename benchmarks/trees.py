"""TreeSHAP beside shap's C extension, XGBoost's and LightGBM's own, in one process.

    python benchmarks/trees.py [--rounds 3] [--only xgboost,forest,...] [--trees 1000]

20,000 rows of 30 columns. Every contestant's time is divided by its rows and trees, since the others would take
hours for 10,000 rows: they get fewer. shap runs on one thread, as it always does, XGBoost and LightGBM on all. A call is a
whole call, from the table to the result; what is compiled is compiled before, and that is reported. Rounds run in turns.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import shap
import xgboost
from sklearn.ensemble import RandomForestRegressor

import askwhy as aw

Run = tuple[int, Callable[[], Any]]  # rows, and the call


def data(rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, 30))
    y = X[:, 0] * X[:, 1] + np.sin(2 * X[:, 2]) + 0.3 * X[:, 3:10].sum(1) + (X[:, 10] > 0) * (X[:, 11] > 0.5) * X[:, 12]
    return X, y + 0.5 * rng.normal(size=rows)


def models(trees: int, X: np.ndarray, y: np.ndarray) -> dict[str, Callable[[], Any]]:
    few = slice(0, 10_000)
    return {
        "xgboost, depth 6": lambda: xgboost.train({"max_depth": 6, "eta": 0.05}, xgboost.DMatrix(X, y), trees),
        "xgboost, depth 8": lambda: xgboost.train({"max_depth": 8, "eta": 0.05}, xgboost.DMatrix(X, y), trees),
        "lightgbm, 31 leaves": lambda: lightgbm.LGBMRegressor(n_estimators=trees, verbose=-1).fit(X, y),
        "forest, depth 8": lambda: RandomForestRegressor(trees // 5, max_depth=8, n_jobs=-1, random_state=0).fit(X[few], y[few]),
        "forest, unlimited": lambda: RandomForestRegressor(trees // 5, n_jobs=-1, random_state=0).fit(X[few], y[few]),
    }


def contestants(name: str, model: Any, X: np.ndarray) -> dict[str, dict[str, Run]]:
    wrapped, peer, deep = aw.wrap(model), shap.TreeExplainer(model), "unlimited" in name
    slow = 4 if deep else 100
    quick = 1000 if deep else 10_000
    own: dict[str, Run] = {f"askwhy, {n:,} rows": (n, lambda n=n: aw.tree_shap(wrapped, X[:n])) for n in (quick, 300)}
    values = own | {"shap": (slow, lambda: peer.shap_values(X[:slow], check_additivity=False))}
    found = {"values": values, "one row": {"askwhy": (1, lambda: aw.tree_shap(wrapped, X[:1])), "shap": (1, lambda: peer.shap_values(X[:1]))}}
    if "xgboost" in name:
        rows = xgboost.DMatrix(X[:200])
        values["xgboost"] = 200, lambda: model.predict(rows, pred_contribs=True)
        pairs = xgboost.DMatrix(X[:2])
        found["interactions"] = {
            "askwhy, 1,000 rows": (1000, lambda: aw.tree_shap(wrapped, X[:1000], interactions=True)),
            "xgboost": (2, lambda: model.predict(pairs, pred_interactions=True)),
        }
    if "lightgbm" in name:
        values["lightgbm"] = 200, lambda: model.predict(X[:200], pred_contrib=True)
    if not deep:
        against = shap.TreeExplainer(model, X[-100:], feature_perturbation="interventional")
        found["100 background rows"] = {
            f"askwhy, {n:,} rows": (n, lambda n=n: aw.tree_shap(wrapped, X[:n], background=X[-100:])) for n in (quick, 300)
        } | {"shap": (20, lambda: against.shap_values(X[:20], check_additivity=False))}
    return found


def compare(title: str, runs: dict[str, Run], trees: int, rounds: int) -> None:
    names, seconds = list(runs), {name: [] for name in runs}
    for name in names:
        if name.startswith("askwhy"):
            runs[name][1]()
    for k in range(rounds):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            start = time.perf_counter()
            runs[name][1]()
            seconds[name].append((time.perf_counter() - start) / runs[name][0])
    own = [name for name in names if name.startswith("askwhy")]
    for name in names:
        middle = float(np.median(seconds[name]))
        ratios = [f"{np.median(np.divide(seconds[name], seconds[mine])):8.1f} x" for mine in own] if name not in own else []
        print(
            f"  {title:<22} {name:<20} {middle / trees * 1e9:12,.0f} ns a row and tree, {middle * 1e3:10.3f} ms a row {' '.join(ratios)}", flush=True
        )


def memory() -> None:
    """The most that the call for 10,000 rows and 1,000 trees adds to the process."""
    X, y = data()
    model = aw.wrap(xgboost.train({"max_depth": 6, "eta": 0.05}, xgboost.DMatrix(X, y), 1000))
    aw.tree_shap(model, X[:10])
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of the training
    before = resident("VmRSS")
    why = aw.tree_shap(model, X[:10_000])
    print(f"  peak memory: {resident('VmHWM') - before:.0f} MB more for an output of {why.values.nbytes / 1e6:.1f} MB")


def resident(which: str) -> float:
    """MB, as Linux tells."""
    return int(Path("/proc/self/status").read_text().split(f"{which}:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trees", type=int, default=1000)
    parser.add_argument("--only", default="")
    parser.add_argument("--memory", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.memory:
        return memory()
    X, y = data()
    print(f"shap {shap.__version__}, xgboost {xgboost.__version__}, lightgbm {lightgbm.__version__}, askwhy {aw.__version__}")
    start = time.perf_counter()
    aw.tree_shap(RandomForestRegressor(2, max_depth=2).fit(X[:50], y[:50]), X[:2])
    print(f"import and compilation (or its cache): {time.perf_counter() - start:.1f} s")
    for name, make in models(given.trees, X, y).items():
        if not any(part in name for part in given.only.split(",")):
            continue
        model = make()
        trees = given.trees if "forest" not in name else given.trees // 5
        start = time.perf_counter()
        aw.tree_shap(model, X[:1])
        print(f"{name}, {trees} trees: read and checked in {time.perf_counter() - start:.2f} s")
        for title, runs in contestants(name, model, X).items():
            compare(title, runs, trees, given.rounds)
    subprocess.run([sys.executable, __file__, "--memory"], check=True)


if __name__ == "__main__":
    main()
