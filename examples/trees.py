"""Draws docs/trees_people.jpg: boosted trees on the census, and two answers to "what if this were not known?"; prints the numbers of docs/trees.md.

python examples/trees.py [--out docs/trees_people.jpg]      # fetches the table (28 MB) the first time; needs askwhy[boosters]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import lightgbm
import matplotlib.pyplot as plt
import numpy as np
from sklearn.tree import DecisionTreeRegressor

import askwhy as aw

RAIN_FIRST, WIND_FIRST = 2, 0  # seeds that decide which of two equally good questions a tree asks first


def two_answers() -> None:
    """A warning that needs both rain and wind, which mostly come together. Two trees say the same of every day, and ask in another order."""
    days = np.repeat([[1, 1], [0, 0], [1, 0], [0, 1]], [45, 45, 5, 5], axis=0)
    warning = days.all(1).astype(float)
    for seed in (RAIN_FIRST, WIND_FIRST):
        tree = DecisionTreeRegressor(random_state=seed).fit(days, warning)
        first = ("rain", "wind")[tree.tree_.feature[0]]
        for background in (None, days):
            why = aw.tree_shap(tree, days[:1], background=background)
            print(f"{first} first, {why.params['value_function']}: rain {why.values[0, 0]:+.3f}, wind {why.values[0, 1]:+.3f}")


def draw(out: Path) -> None:
    X, y, X_test, _ = aw.zoo.adult()
    booster = aw.wrap(lightgbm.LGBMClassifier(n_estimators=300, verbose=-1).fit(X, y))
    people = X_test[:2000]
    shares = aw.tree_shap(booster, people, ">50K")
    print(shares.summary().splitlines()[-1])
    rows = aw.tree_shap(booster, people, ">50K", background=aw.background(X, 100))
    figure, axes = plt.subplots(2, 3, figsize=(23, 14), layout="constrained", facecolor="white")
    shares.plot(axes[0, 0], how="beeswarm")
    shares.plot(axes[0, 1], how="dependence", feature="occupation")
    shares.plot(axes[0, 2], how="dependence", feature="age")
    rows.plot(axes[1, 0], how="importance", cohorts=people["sex"].astype(str))
    aw.tree_shap(booster, people[:60], ">50K").plot(axes[1, 1], how="decision")
    aw.tree_shap(booster, people[:500], ">50K", interactions=True).plot(axes[1, 2], how="interactions")
    figure.savefig(out, dpi=70, pil_kwargs={"quality": 88})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs/trees_people.jpg")
    two_answers()
    draw(parser.parse_args().out)


if __name__ == "__main__":
    main()
