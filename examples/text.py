"""Draws docs/text.png: four methods on three film reviews; red speaks for "positive", blue against.

python examples/text.py [--out docs/text.png]      # fetches MiniLM (84 MB) and fits its head the first time
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import askwhy as aw

REVIEWS = [
    "A great film, sadly far too long, but the ending left me in tears.",
    "Effective but too tepid biopic.",
    "Not a bad film at all: clever, warm, and never dull.",
]
METHODS = ["integrated_gradients", "lrp", "deep_lift", "occlusion"]


def draw(out: Path) -> None:
    """A column a review, a row a method."""
    model = aw.zoo.load("minilm-sentiment")
    figure, axes = plt.subplots(len(METHODS), len(REVIEWS), figsize=(16, 7), layout="constrained", facecolor="white")
    for row, name in zip(axes, METHODS, strict=True):
        why = aw.explain(model, REVIEWS, name, target="positive")
        for i, place in enumerate(row):
            why.plot(place, i=i)
            place.set_title(f"{name} (score {why.prediction[i]:+.2f})", fontsize=10)
        print(why.summary())
    figure.savefig(out, dpi=70)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/text.png"))
    draw(parser.parse_args().out)
