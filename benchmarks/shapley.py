"""Shapley values beside shap and the raw model calls on a table of 30 columns, in one process.

    python benchmarks/shapley.py [--rounds 5]

Breast cancer, boosted trees and logistic regression, 100 background rows, 2,048 coalitions of one row. "floor" asks the
model about as many ready rows, in batches of 100,000. shap's kernel runs without its hidden selection of columns; its
permutations get the same number of model calls. Every round runs all contestants in turns; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import shap
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from vision import compare

import askwhy as aw

COALITIONS, ROWS = 2048, 100


def floor(ask: Callable[[np.ndarray], Any], rows: np.ndarray) -> None:
    for start in range(0, len(rows), 100_000):
        ask(rows[start : start + 100_000])


def contestants(ask: Callable[[np.ndarray], Any], x: np.ndarray, background: np.ndarray) -> dict[str, dict[str, Callable[[], Any]]]:
    rows = np.where(np.random.default_rng(0).random((COALITIONS * ROWS, x.shape[1])) < 0.5, x, background.mean(0))
    kernel = shap.KernelExplainer(lambda b: ask(b)[:, 1], background)
    walk = shap.PermutationExplainer(lambda b: ask(b)[:, 1], shap.maskers.Independent(background, ROWS), seed=0)
    rounds = COALITIONS // (2 * x.shape[1])
    own = lambda name: lambda: aw.shapley(ask, x, 1, background=background, estimator=name, samples=COALITIONS)  # noqa: E731
    return {
        "kernel": {
            "askwhy": own("kernel"), "floor": lambda: floor(ask, rows),
            "shap": lambda: kernel.shap_values(x, nsamples=COALITIONS, l1_reg=0, silent=True),
        },
        "permutation": {
            "askwhy": own("permutation"), "floor": lambda: floor(ask, rows),
            "shap": lambda: walk(x, max_evals=rounds * (2 * x.shape[1] + 1) + 1, silent=True),
        },
        "on trees": {"askwhy": own("trees"), "floor": lambda: floor(ask, rows)},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")
    X, y = load_breast_cancer(return_X_y=True)
    background = np.random.default_rng(0).permutation(X)[:ROWS]
    models = {
        "boosted trees": HistGradientBoostingClassifier(max_iter=100).fit(X, y),
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y),
    }
    print(f"shap {shap.__version__}, askwhy {aw.__version__}, {COALITIONS} coalitions x {ROWS} rows")
    for name, model in models.items():
        for title, runs in contestants(model.predict_proba, X[:1], background).items():
            compare(f"{title}, {name}", runs, rounds)


if __name__ == "__main__":
    main()
