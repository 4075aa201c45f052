"""askwhy's LIME of tables and texts beside lime and the floor, interleaved in one process.

    python benchmarks/surrogates.py [--rounds 15] [--only table,text]

The floor is the model's own time for the very inputs of one explanation: for a table in one batch of 5,000 rows, for a
text the best of several batch sizes. Every round runs all contestants one after the other; ratios are taken within a
round, and their median is printed. What either library prepares once (askwhy: the background, on the wrapped model;
lime: its explainer) is prepared before, and printed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from lime.lime_tabular import LimeTabularExplainer
from lime.lime_text import LimeTextExplainer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

import askwhy as aw

SAMPLES = 5000
Task = dict[str, Callable[[], Any]]


def seconds(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def compare(title: str, task: Task, rounds: int) -> None:
    """Run all contestants once a round, each first in turn; print medians and the median ratio of each to askwhy."""
    for run in task.values():
        run(), run(), run()  # warm up: caches, batch sizes
    times: dict[str, list[float]] = {name: [] for name in task}
    names = list(task)
    for turn in range(rounds):
        at = turn % len(names)
        for name in [*names[at:], *names[:at]]:
            times[name].append(seconds(task[name]))
    print(f"\n{title} (median of {rounds})")
    ours = np.array(times["askwhy"])
    for name, found in times.items():
        ratio = float(np.median(np.array(found) / ours))
        says = "" if name == "askwhy" else f"   {name} / askwhy = {ratio:.2f}   askwhy / {name} = {1 / ratio:.2f}"
        print(f"  {name:24s} {1000 * np.median(found):8.2f} ms{says}", flush=True)


def table(rounds: int) -> None:
    """30 features, two models."""
    X, y = load_breast_cancer(return_X_y=True)
    rng = np.random.default_rng(0)
    rows = np.stack([rng.choice(column, SAMPLES) for column in X.T], 1)
    models = {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(X, y),
        "boosted trees (scikit-learn)": HistGradientBoostingClassifier().fit(X, y),
        "boosted trees (XGBoost)": XGBClassifier(n_jobs=1).fit(X, y),
    }
    peer = LimeTabularExplainer(X, random_state=0)
    print(f"lime prepares its explainer in {1000 * seconds(lambda: LimeTabularExplainer(X, random_state=0)):.0f} ms")
    for name, estimator in models.items():
        model = aw.wrap(estimator)
        first = 1000 * seconds(lambda: aw.lime(model, X[:1], background=X, samples=SAMPLES))  # noqa: B023
        task: Task = {
            "askwhy": partial(aw.lime, model, X[:1], background=X, samples=SAMPLES),
            "floor": partial(estimator.predict_proba, rows),
            "lime": partial(peer.explain_instance, X[0], estimator.predict_proba, num_samples=SAMPLES, num_features=30),
            "askwhy, classic sampling": partial(aw.lime, model, X[:1], background=X, samples=SAMPLES, sampling="uniform"),
        }
        compare(f"table of 30 features, {SAMPLES} samples, {name}; askwhy's first call {first:.0f} ms", task, rounds)


def text(rounds: int) -> None:
    """200 words, TF-IDF and logistic regression."""
    texts, scores = aw.zoo.reviews()
    model = make_pipeline(TfidfVectorizer(), LogisticRegression(C=10, max_iter=1000)).fit(texts, [score > 0 for score in scores])
    words = [word for word in dict.fromkeys(" ".join(texts).split()) if word.isalpha()]
    said, inputs = " ".join(words[:200]), []

    def noted(batch: list[str]) -> np.ndarray:
        inputs.extend(batch)
        return model.predict_proba(batch)

    aw.lime(noted, said, samples=SAMPLES)
    wrapped = aw.wrap(model.predict_proba)

    def floor(size: int) -> None:
        for start in range(0, SAMPLES, size):
            model.predict_proba(inputs[start : start + size])

    best = min((64, 128, 256, 1024, SAMPLES), key=lambda size: min(seconds(partial(floor, size)) for _ in range(3)))
    task: Task = {
        "askwhy": partial(aw.lime, wrapped, said, samples=SAMPLES),
        f"floor, batches of {best}": partial(floor, best),
        "floor, one batch": partial(floor, SAMPLES),
        "lime": partial(LimeTextExplainer(random_state=0).explain_instance, said, model.predict_proba, num_samples=SAMPLES, num_features=200),
        f"askwhy, batches of {best}": partial(aw.lime, wrapped, said, samples=SAMPLES, batch_size=best),
    }
    compare(f"text of 200 words, {SAMPLES} samples, TF-IDF and logistic regression", task, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="table,text")
    options = parser.parse_args()
    for name in options.only.split(","):
        {"table": table, "text": text}[name](options.rounds)


if __name__ == "__main__":
    main()
