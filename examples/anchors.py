"""Draws docs/anchors.jpg: rules for two people of the census, a film review and a photo.

python examples/anchors.py [--out docs/anchors.jpg]     # fetches Adult (28 MB) and MiniLM (84 MB) the first time; about a minute
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from sklearn.ensemble import HistGradientBoostingClassifier

import askwhy as aw
from askwhy.local.anchor import anchors
from askwhy.show.rule import card_of
from askwhy.zoo_tables import adult

REVIEW = "Not a bad film at all: clever, warm, and never dull."


def draw(out: Path) -> None:
    """People on top, then words, then regions."""
    X, y, X_test, _ = adult()
    forest = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=0).fit(X, y)
    people = anchors(forest, X_test[3:5], background=X)
    review = anchors(aw.zoo.load("minilm-sentiment"), REVIEW)
    photo = anchors(aw.zoo.load("efficientnet-lite0"), aw.zoo.photo("coffee"), components=aw.superpixels(n=20), precision=0.9, samples=200, beam=2)
    figure, axes = plt.subplots(3, 2, figsize=(12, 10), layout="constrained", facecolor="white", height_ratios=[1, 1, 1.3])
    for i, place in enumerate(axes[0]):
        card_of(people, place, i)
    for why, row in ((review, axes[1]), (photo, axes[2])):
        why.plot(row[0])
        card_of(why, row[1])
    for why in (people, review, photo):
        print(why.summary(), "\n")
    figure.savefig(out, dpi=90, pil_kwargs={"quality": 88})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/anchors.jpg"))
    draw(parser.parse_args().out)


if __name__ == "__main__":
    main()
