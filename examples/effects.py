"""Draws docs/effects.jpg: what a model of the census goes by, and how; prints the summaries.

python examples/effects.py [--out docs/effects.jpg]      # fetches the table (28 MB) the first time; half a minute
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from sklearn.ensemble import HistGradientBoostingClassifier

from askwhy.overall.effects import effect
from askwhy.overall.importance import importance
from askwhy.zoo_tables import adult


def draw(out: Path) -> None:
    """Importance, then effects of numbers and levels, alone and together."""
    X, y, X_test, y_test = adult()
    model = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0).fit(X, y)
    some, truth = X_test[:3000], y_test[:3000]
    figure, axes = plt.subplots(2, 3, figsize=(19, 11), layout="constrained", facecolor="white")
    family = {"family": ["marital status", "relationship"], "education": ["education", "years of education"]}
    found = [
        importance(model, some, truth, repeats=5),
        importance(model, some, truth, repeats=5, groups=family),
        effect(model, some[:500], "age", how="ice"),
        effect(model, some, "age", how="ale"),
        effect(model, some, "occupation"),
        effect(model, some, ("age", "hours per week"), how="ale"),
    ]
    for ax, one in zip(axes.flat, found, strict=True):
        one.plot(ax)
        print(one.summary(), "\n")
    figure.savefig(out, dpi=70, pil_kwargs={"quality": 88})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs/effects.jpg")
    draw(parser.parse_args().out)


if __name__ == "__main__":
    main()
