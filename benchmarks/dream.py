"""Activation maximization beside as many raw forward and backward passes, on EfficientNet-Lite0, interleaved in one process.

    python benchmarks/dream.py [--rounds 5] [--steps 20]

"raw" is the network as it is, forward and backward to its input, as often and in batches as large; "floor" is the same
by the faster twin that askwhy finds. "askwhy" is the preset "lucid"; "naive" and "maco" are other ones. A round runs all contestants one after the other; ratios are taken within a
round, and their median is printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from vision import compare

import askwhy as aw
from askwhy._memory import resident

CLASSES = [282, 1, 301, 985, 967, 954, 340, 949, 980, 84]


def raw(run: Callable[[torch.Tensor], Any], classes: list[int], steps: int) -> None:
    """`steps` passes forward and back of a batch with a picture for each class."""
    x = torch.rand(len(classes), 3, 224, 224) * 2 - 1
    with resident():
        for _ in range(steps):
            leaf = x.detach().requires_grad_()
            score = run(leaf)[torch.arange(len(classes)), classes].sum()
            x = x + 1e-3 * torch.autograd.grad(score, leaf)[0]


def one_by_one(model: aw.models.Model, steps: int, **options: Any) -> None:
    for target in CLASSES:
        aw.activation_maximization(model, target, steps=steps, **options)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    model: Any = aw.zoo.load("efficientnet-lite0")
    x = torch.rand(4, 3, 224, 224) * 2 - 1
    with model.untouched():
        twin = model.slope_twin(x, 10**4, "floor", lambda out: out[:, 282])
    ask = partial(aw.activation_maximization, model, steps=given.steps)
    for count in (1, 10):
        own = CLASSES[:count]
        contestants: dict[str, Callable[[], Any]] = {
            "askwhy": partial(ask, own, preset="lucid"),
            "raw": partial(raw, model.net, own, given.steps),
            "floor": partial(raw, twin, own, given.steps),
            "naive": partial(ask, own, preset="naive", regularizer=aw.regularizers.none),
            "maco": partial(ask, own, preset="maco"),
        }
        if count > 1:
            contestants["one by one"] = partial(one_by_one, model, given.steps, preset="lucid")
        compare(f"{count} portrait{'s' if count > 1 else ''} by lucid, {given.steps} steps", contestants, given.rounds)


if __name__ == "__main__":
    main()
