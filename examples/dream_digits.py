"""Prints the table and draws the picture of docs/dreams.md: what digits look like to a network, from noise to a picture.

python examples/dream_digits.py [--seeds 5] [--out docs/dream_digits.jpg]     # the first time it trains two networks; about 4 minutes

A network reads digits. Its portraits of the ten digits are sought as the lecture does it: up the gradient from noise, with the
lecture's R(x) = - sum |x|, with more regularizers, and through generators that were trained on digits. "to the end" is the
same from noise, but with even steps (Adam) and the score instead of its probability, which never stop. Another network, of
another kind and trained on other digits than any of these, says what it sees.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import askwhy as aw

DIGITS = list(range(10))


def portraits(model: Any, judge: Any, images: np.ndarray, seeds: int, train: int | None) -> dict[str, list[aw.Portrait]]:
    """By name of the way: a Portrait of all ten digits for each seed."""
    ways: dict[str, dict[str, Any]] = {preset: {"preset": preset} for preset in ("naive", "lecture", "yosinski", "robust")}
    ways["naive, to the end"] = {"preset": "lucid", "parameters": "pixels", "regularizer": aw.regularizers.none, "steps": 200}
    for kind in ("vae", "gan"):
        made = aw.train_generator(images, kind=kind, steps=train, seed=0)
        print(made.summary(), "\n", flush=True)
        ways[f"generator ({kind})"] = {"generator": made}
    return {
        name: [aw.activation_maximization(model, DIGITS, judge=judge, seed=seed, **options) for seed in range(seeds)]
        for name, options in ways.items()
    }


def table(found: dict[str, list[aw.Portrait]]) -> str:
    """How often the judge sees the right digit, and how sure the network itself is."""
    lines = ["| way | the judge sees the digit | its probability, median | the network's own score, mean |", "|---|---|---|---|"]
    for name, each in found.items():
        rank, share, score = (np.concatenate([getattr(one, field) for one in each]) for field in ("judge_rank", "judge_probability", "score"))
        lines.append(f"| {name} | {np.sum(rank == 1)} of {len(rank)} | {np.median(share):.2f} | {score.mean():.1f} |")
    return "\n".join(lines)


def draw(found: dict[str, list[aw.Portrait]], out: Path) -> None:
    first = [each[0] for each in found.values()]
    names = [f"judge: {one.judge_top[k][0]}" for one in first for k in DIGITS]
    pictures = [picture for one in first for picture in one.pictures]
    ax = aw.show.tiles(
        pictures,
        names,
        columns=len(DIGITS),
        rows=list(found),
        title="What do the digits 0 to 9 look like to a network? Below each: what another network sees",
    )
    ax.figure.savefig(out.with_suffix(".png"), dpi=80)
    Image.open(out.with_suffix(".png")).convert("RGB").save(out, quality=85)
    out.with_suffix(".png").unlink()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train", type=int, default=None, help="steps for which the generators are trained")
    parser.add_argument("--out", type=Path, default=Path("docs/dream_digits.jpg"))
    given = parser.parse_args()
    images = aw.zoo.digits()[0][np.arange(5000) % 5 < 3]  # those that the judge was not trained on
    found = portraits(aw.zoo.load("digits"), aw.zoo.load("digits-judge"), images, given.seeds, given.train)
    print(table(found))
    draw(found, given.out)


if __name__ == "__main__":
    main()
