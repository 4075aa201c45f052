"""Integrated gradients and SmoothGrad beside captum and the floor on EfficientNet-Lite0 and the cat, interleaved in one process.

    python benchmarks/gradients.py [--rounds 5] [--only integrated_gradients,smooth_grad,auto]

"floor" is as many raw forward and backward passes with the same engine at its best batch size, its weights frozen, in
memory that stays; "ordinary floor" is that with the model as it is. captum runs with its defaults (all steps in one
batch) and at the best of several batch sizes, in this process and in one of its own, where it finds the memory as its users
do. Every round runs all contestants one after the other; ratios are taken
within a round, and their median is printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import captum
import torch
from vision import PEERS, Apart, best_batch, compare, subject

import askwhy as aw
from askwhy._memory import resident
from askwhy.models.torch_module import TorchModel

TARGET, STEPS, SIGMA = 282, 50, 0.15


def back_and_forth(run: Callable[[torch.Tensor], Any], batch: torch.Tensor) -> None:
    leaf = batch.detach().requires_grad_()
    torch.autograd.grad(run(leaf)[:, TARGET].sum(), leaf)


def floor(run: Callable[[torch.Tensor], Any], x: torch.Tensor) -> Callable[[], None]:
    """STEPS inputs forward and backward, and nothing else."""
    with resident():
        size = best_batch(partial(back_and_forth, run), x)
    batch = x.expand(size, -1, -1, -1).contiguous()

    def work() -> None:
        with resident():
            for start in range(0, STEPS, size):
                back_and_forth(run, batch[: min(size, STEPS - start)])

    return work


def engine_of(model: TorchModel, x: torch.Tensor) -> Callable[[torch.Tensor], Any]:
    with model.untouched():
        run = model.slope_twin(x.expand(3, -1, -1, -1), STEPS, (TARGET, None, tuple(x.shape[1:])), lambda out: out[:, TARGET])
    assert run is not None, "no twin"
    return run


def peers(name: str, model: TorchModel, photo: Any) -> dict[str, Callable[[], Any]]:
    """captum in this process, and in one of its own, as its users run it."""
    found: dict[str, Callable[[], Any]] = {}
    for title, kind in (("captum", name), ("captum, best batch", f"{name}, best batch")):
        apart = Apart(kind)
        apart()  # ready, so that the two do not look for their best batch at the same time
        found |= {f"{title}, own process": apart, f"{title}, this process": PEERS[kind](model, photo)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="integrated_gradients,smooth_grad,auto")
    options = parser.parse_args()
    wanted = options.only.split(",")
    model, photo = subject()
    x = model.prepare(photo).batch
    print(f"torch {torch.__version__}, captum {captum.__version__}, {torch.get_num_threads()} threads, askwhy {aw.__version__}")

    frozen = aw.zoo.load("efficientnet-lite0").net.requires_grad_(False)
    floors = {"floor": floor(engine_of(model, x), x), "ordinary floor": floor(frozen, x)}
    tasks = {
        "integrated_gradients": ("path", lambda: aw.integrated_gradients(model, x, TARGET, baseline="zero", steps=STEPS)),
        "smooth_grad": ("smooth", lambda: aw.smooth_grad(model, x, TARGET, samples=STEPS, sigma=SIGMA)),
    }
    for name, (kind, ours) in tasks.items():
        if name in wanted:
            others = peers(kind, model, photo)
            compare(f"{name}, {STEPS} gradients", {"askwhy": ours, **floors, **others}, options.rounds)
            for other in others.values():
                if isinstance(other, Apart):
                    other.process.kill()
    if "auto" in wanted:
        for name in ("grey", "blur"):
            why = aw.integrated_gradients(model, photo, TARGET, baseline=name)
            again = aw.integrated_gradients(model, photo, TARGET, baseline=name, steps=why.details["steps"][0])
            print(
                f"\nauto, {name}: {why.details['steps'][0]} gradients, residual {why.residual[0]:.1e}; as many Gauss-Legendre steps: {again.residual[0]:.1e}"
            )


if __name__ == "__main__":
    main()
