"""Draws docs/blackbox.jpg: the methods that need nothing but predictions, on a photo, two reviews and a row of a table.

python examples/blackbox.py [--out docs/blackbox.jpg]      # fetches the reviews and the table the first time
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from reviews import chinese, cut, english
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import askwhy as aw

COLUMNS = ["age", "years of education", "marital status", "occupation", "sex", "capital gain", "hours per week"]


def mood(texts: list[str], good: list[bool], **options: object) -> aw.models.Model:
    """A model of reviews that answers only "how good?"."""
    model = make_pipeline(TfidfVectorizer(**options), LogisticRegression(C=10, max_iter=1000)).fit(texts, good)
    return aw.wrap(model, labels=["bad", "good"], output="logits")


def draw(out: Path) -> None:
    figure, axes = plt.subplots(2, 3, figsize=(19, 10), layout="constrained", facecolor="white")
    photo, lite0 = aw.zoo.photo("cat"), aw.zoo.load("efficientnet-lite0")
    table, income, test, _ = aw.zoo.adult()
    boosted = HistGradientBoostingClassifier(categorical_features="from_dtype").fit(table[COLUMNS], income)
    row, background = test[COLUMNS].iloc[[7]], aw.background(table[COLUMNS], 100)
    review = "Too bad Kramer couldn't make a guest appearance to liven things up."
    hotel = "房间打扫的很干净，很赞，不过退房那天早餐没有了，有点可惜。"
    shown = [
        (aw.lime(lite0, photo, target="tiger cat", samples=1000), "regions"),
        (aw.lime(mood(*english(), ngram_range=(1, 2)), review, target="good"), "text"),
        (aw.shapley(boosted, row, ">50K", background=background), "waterfall"),
        (aw.rise(lite0, photo, target="tiger cat", samples=2000), "map"),
        (aw.shapley(mood(*chinese(), tokenizer=cut, token_pattern=None), hotel, target="good"), "text"),
        (aw.shapley_interactions(boosted, row, ">50K", background=background), "matrix"),
    ]
    for ax, (why, how) in zip(axes.flat, shown, strict=True):
        why.plot(ax, how=how)
        print(why.summary())
    figure.savefig(out, dpi=75)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs/blackbox.jpg")
    draw(parser.parse_args().out)


if __name__ == "__main__":
    main()
