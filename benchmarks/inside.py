"""What is asked of a network's inside beside the raw passes that it needs, on EfficientNet-Lite0, interleaved in one process.

    python benchmarks/inside.py [--rounds 5] [--images 200] [--only one,stages,folder]

"floor" is the forward passes of as many images in batches of the best size, in memory that stays, without hooks, and nothing
is kept; "stored" is the floor and one copy of as many bytes into new memory, which is what it takes to keep anything (a virtual
machine may have to ask its host for that memory: seconds for each GB); "hooked" is what one writes by hand: a hook that copies
the outputs of the same layers, in such batches. All read the last feature map, so that every pass is a whole one. Every round
runs all contestants one after the other; ratios are taken within a round, and their median is printed.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from vision import best_batch, compare

import askwhy as aw
from askwhy._memory import resident
from askwhy.inside.activations import activations

LAYERS = {"one": ["_bn1"], "stages": [*(f"_blocks.{k}" for k in (0, 2, 4, 7, 10, 14)), "_bn1"], "folder": ["_blocks.2", "_bn1"]}


def floor(net: torch.nn.Module, x: torch.Tensor, size: int) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad(), resident():
            for start in range(0, len(x), size):
                net(x[start : start + size])

    return run


def stored(net: torch.nn.Module, x: torch.Tensor, size: int, each: int) -> Callable[[], None]:
    piece = np.ones((size, each), np.uint8)

    def run() -> None:
        kept = np.empty((len(x), each), np.uint8)
        floor(net, x, size)()
        for start in range(0, len(x), size):
            kept[start : start + size] = piece[: len(x) - start]

    return run


def hooked(net: torch.nn.Module, x: torch.Tensor, size: int, layers: list[str]) -> Callable[[], dict[str, torch.Tensor]]:
    def run() -> dict[str, torch.Tensor]:
        seen: dict[str, list[torch.Tensor]] = {name: [] for name in layers}
        handles = [
            net.get_submodule(name).register_forward_hook(lambda module, args, out, name=name: seen[name].append(out.clone()))  # type: ignore[misc]
            for name in layers
        ]
        floor(net, x, size)()
        for handle in handles:
            handle.remove()
        return {name: torch.cat(outs) for name, outs in seen.items()}

    return run


def same(why: Any, by_hand: dict[str, torch.Tensor]) -> float:
    """The largest difference, as a share of the largest number of the layer."""
    return max(float(np.abs(why[name] - out.numpy()).max() / out.abs().max()) for name, out in by_hand.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--only", default=",".join(LAYERS))
    options = parser.parse_args()
    model: Any = aw.zoo.load("efficientnet-lite0")
    cat = model.prepare(aw.zoo.photo("cat")).batch
    x = cat + 0.1 * torch.randn(options.images, *cat.shape[1:], generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), resident():
        size = best_batch(model.net, cat)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, askwhy {aw.__version__}, {options.images} images, batches of {size}")
    for name in options.only.split(","):
        layers = LAYERS[name]
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made) / "activations"

            def ours(name: str = name, layers: list[str] = layers, folder: Path = folder) -> Any:
                shutil.rmtree(folder, ignore_errors=True)
                return activations(model, x, layers, to=folder if name == "folder" else None)

            found = ours()
            each = sum(one.nbytes for one in found.values) // len(x)
            differs = same(found, hooked(model.net, x, size, layers)())
            print(f"\n{name}: {', '.join(layers)}, {each * len(x) / 1e9:.2f} GB; differs by {differs:.1e} of the largest number")
            del found
            compare(
                f"activations, {name}",
                {
                    "askwhy": ours,
                    "floor": floor(model.net, x, size),
                    "stored": stored(model.net, x, size, each),
                    "hooked": hooked(model.net, x, size, layers),
                },
                options.rounds,
            )


if __name__ == "__main__":
    main()
