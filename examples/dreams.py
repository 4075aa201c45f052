"""Draws docs/dreams.jpg and prints its table: ten classes as EfficientNet-Lite0 and SqueezeNet see them, each judged by the other.

python examples/dreams.py [--steps 300] [--presets naive,lucid,maco,robust] [--out docs/dreams.jpg]     # half an hour, or one on an old processor
python examples/dreams.py --presets robust --views 4 --out four.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import askwhy as aw

CLASSES = ["tiger cat", "goldfish", "ladybug", "daisy", "espresso", "banana", "zebra", "strawberry", "volcano", "peacock"]
OTHERS = ["jellyfish", "flamingo", "monarch", "pineapple", "lemon", "castle", "school bus", "acoustic guitar", "pizza", "golden retriever"]
UNTOUCHED = [
    "king penguin",
    "bald eagle",
    "orange",
    "broccoli",
    "beacon",
    "umbrella",
    "mushroom",
    "corn",
    "starfish",
    "giant panda",
]  # nothing was tuned on these
NETWORKS = ("efficientnet-lite0", "squeezenet")


def seek(presets: list[str], how: dict[str, int | None], classes: list[str]) -> dict[str, aw.Portrait]:
    """ "network, preset" -> portraits of the ten classes."""
    models = {name: aw.zoo.load(name) for name in NETWORKS}
    found: dict[str, Any] = {}
    for name, other in (NETWORKS, NETWORKS[::-1]):
        for preset in presets:
            found[f"{name}, {preset}"] = one = aw.activation_maximization(models[name], classes, preset=preset, judge=models[other], **how)
            print(row(f"{name}, {preset}", one), flush=True)
    return found


def row(name: str, one: aw.Portrait) -> str:
    rank, share = np.asarray(one.judge_rank), np.asarray(one.judge_probability)
    return f"| {name} | {np.sum(rank == 1)} | {np.sum(rank <= 5)} | {np.median(share):.2f} | {one.seconds:.0f} s |"


def draw(found: dict[str, aw.Portrait], out: Path) -> None:
    names = [f"{target}, rank {rank}" for one in found.values() for target, rank in zip(one.target, one.judge_rank, strict=True)]
    pictures = [picture for one in found.values() for picture in one.pictures]
    ax = aw.show.tiles(
        pictures,
        names,
        columns=len(CLASSES),
        rows=list(found),
        title="Ten classes as two networks see them. Below each: its rank for the other network",
    )
    ax.figure.savefig(out.with_suffix(".png"), dpi=80)
    Image.open(out.with_suffix(".png")).convert("RGB").save(out, quality=72)
    out.with_suffix(".png").unlink()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--views", type=int, default=None, help="of presets with noise or motion; naive has none")
    parser.add_argument("--presets", default="naive,lucid,maco,robust")
    parser.add_argument("--out", type=Path, default=Path("docs/dreams.jpg"))
    given = parser.parse_args()
    how = {"steps": given.steps, "views": given.views}
    print("| network, preset | judge: first | judge: among five | probability, median | time |\n|---|---|---|---|---|")
    draw(seek(given.presets.split(","), how, CLASSES), given.out)
    for title, classes in (("Ten other classes", OTHERS), ("Ten classes that nothing was tuned on", UNTOUCHED)):
        print(f"\n{title}")
        seek(["robust"], how, classes)


if __name__ == "__main__":
    main()
