"""Draws docs/text.png: four methods on three film reviews; red speaks for "positive", blue against.

python examples/text.py [--out docs/text.png]      # fetches MiniLM (84 MB) and fits its head the first time
python examples/text.py --deletion                 # the table of docs/text.md: which words count? (some minutes)
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch

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
    figure, axes = plt.subplots(len(METHODS), len(REVIEWS), figsize=(16, 5.2), layout="constrained", facecolor="white")
    for row, name in zip(axes, METHODS, strict=True):
        why = aw.explain(model, REVIEWS, name, target="positive")
        for i, place in enumerate(row):
            why.plot(place, i=i)
            place.set_title(f"{name} (score {why.prediction[i]:+.2f})", fontsize=10)
        print(why.summary())
    figure.savefig(out, dpi=75)


WAYS: dict[str, dict[str, Any]] = {
    "occlusion": {"components": "tokens"}, "occlusion mask": {"components": "tokens", "baseline": "mask"}, "lrp": {}, "lrp epsilon": {"rule": "epsilon"}, "deep_lift": {},
    "integrated_gradients": {}, "integrated_gradients mask": {"baseline": "mask"}, "saliency": {}, "input_x_gradient": {},
}  # fmt: skip


def margin(model: Any, ids: list[int], target: int) -> float:
    """How far the class is ahead of the other one."""
    with torch.no_grad():
        scores = model.net(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.int64))[0]
    return float(scores[target] - scores[1 - target])


def fall(model: Any, ids: list[int], order: list[int], target: int) -> float:
    """Of the margin, when the first tenth, two and three tenths of these tokens are taken out; the mean of the three."""
    whole, left = margin(model, ids, target), []
    for share in (0.1, 0.2, 0.3):
        gone = set(order[: max(1, round(share * len(order)))])
        left.append(margin(model, [one for k, one in enumerate(ids) if k not in gone], target))
    return whole - float(np.mean(left))


def deletion(count: int = 120) -> None:
    """Prints the mean fall for each method on reviews that the head was not fitted to."""
    model, (texts, _) = aw.zoo.load("minilm-sentiment"), aw.zoo.reviews()
    chosen = [text for text in texts[::5] if 8 <= len(text.split()) <= 25][:count]
    rng, found = np.random.default_rng(0), {name: [] for name in (*WAYS, "at random")}
    for text in chosen:
        ids = model.tokenizer(text)["input_ids"]
        inner = range(1, len(ids) - 1)
        target = int(margin(model, ids, 1) > 0)
        for name, options in WAYS.items():
            values = aw.explain(model, text, name.split()[0], target=target, **options).values[0]
            found[name].append(fall(model, ids, [k for k in np.argsort(-values) if k in inner], target))
        found["at random"].append(fall(model, ids, rng.permutation(inner).tolist(), target))
    for name, falls in found.items():
        print(f"{name:28} {np.mean(falls):6.2f} ± {np.std(falls) / len(falls) ** 0.5:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/text.png"))
    parser.add_argument("--deletion", action="store_true")
    given = parser.parse_args()
    deletion() if given.deletion else draw(given.out)
