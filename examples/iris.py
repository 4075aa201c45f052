"""Why did the trees decide so? A walk through iris: draws docs/trees.jpg and prints what it finds.

python examples/iris.py [--out docs/trees.jpg]      # 10 seconds, half of which numba compiles, the first time
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import askwhy as aw


def draw(out: Path) -> None:
    data = load_iris(as_frame=True)
    names = data.target_names[data.target]
    X, X_test, y, y_test = train_test_split(data.data, names, random_state=0, stratify=names)
    model = aw.wrap(RandomForestClassifier(200, random_state=0).fit(X, y))
    figure, axes = plt.subplots(3, 3, figsize=(21, 17), layout="constrained", facecolor="white")
    ax = iter(axes.flat)

    # Which features matter at all? What the error does when a feature is shuffled, and how large the Shapley values are
    aw.importance(model, X_test, y_test, repeats=20).plot(next(ax))
    every = aw.tree_shap(model, X_test, "all")
    every.plot(next(ax), how="importance")

    # Why this flower? It is the one the forest is least sure of. What it expects of any flower, plus what each feature adds, is its answer
    flower = X_test.iloc[[model.function(X_test).max(1).argmin()]]
    why = aw.tree_shap(model, flower, "versicolor")
    print(why.summary(), "\n")
    print(f"{why.base_value[0]:.4f} {' '.join(f'{value:+.4f}' for value in why.values[0])} = {why.prediction[0]:.4f}")
    assert np.isclose(why.base_value + why.values.sum(1), model.function(flower)[:, 1]).all()
    why.plot(next(ax), how="waterfall")
    why.plot(next(ax), how="force")

    # And over all flowers?
    all_rows = every["versicolor"]
    all_rows.plot(next(ax), how="beeswarm")
    all_rows.plot(next(ax), how="dependence", feature="petal length (cm)")
    aw.tree_shap(model, X_test, "versicolor", interactions=True).plot(next(ax), how="interactions")

    # Models that explain themselves: one tree by its path, a line by its coefficients
    tree = DecisionTreeClassifier(max_depth=3, random_state=0).fit(X, y)
    path = aw.decision_path(tree, flower)
    print(path.details["path"][0], "\n")
    path.plot(next(ax), how="waterfall")
    line = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    linear = aw.linear_effects(line, flower, "versicolor", versus="virginica", background=X)
    print(linear.summary())
    linear.plot(next(ax), how="waterfall")
    figure.savefig(out, dpi=70, pil_kwargs={"quality": 88})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs/trees.jpg")
    draw(parser.parse_args().out)


if __name__ == "__main__":
    main()
