"""Integrated gradients and SmoothGrad beside captum and the floor on EfficientNet-Lite0 and the cat, interleaved in one process.

    python benchmarks/gradients.py [--rounds 5] [--only integrated_gradients,smooth_grad,auto]

"floor" is as many raw forward and backward passes with the same engine at its best batch size, its weights frozen, in
memory that stays; "ordinary floor" is that with the model as it is. captum runs with its defaults (all steps in one
batch) and at the best of several batch sizes. Every round runs all contestants one after the other; ratios are taken
within a round, and their median is printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import captum.attr
import torch
from vision import best_batch, compare, subject

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


def best_of(run: Callable[[int], Any]) -> Callable[[], Any]:
    """captum at its best batch size."""
    from vision import seconds

    times = {size: min(seconds(partial(run, size)) for _ in range(2)) for size in (1, 2, 4, 8, 16)}
    return partial(run, min(times, key=lambda size: times[size]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="integrated_gradients,smooth_grad,auto")
    options = parser.parse_args()
    wanted = options.only.split(",")
    model, photo = subject()
    x = model.prepare(photo).batch
    net, baseline = model.net, torch.zeros_like(x)
    print(f"torch {torch.__version__}, captum {captum.__version__}, {torch.get_num_threads()} threads, askwhy {aw.__version__}")

    frozen = aw.zoo.load("efficientnet-lite0").net.requires_grad_(False)
    floors = {"floor": floor(engine_of(model, x), x), "ordinary floor": floor(frozen, x)}
    if "integrated_gradients" in wanted:
        peer = captum.attr.IntegratedGradients(net)
        ask = partial(peer.attribute, x, baseline, target=TARGET, n_steps=STEPS)
        task = {"askwhy": lambda: aw.integrated_gradients(model, x, TARGET, baseline="zero", steps=STEPS), **floors}
        peers = {"captum": ask, "captum, best batch": best_of(lambda size: ask(internal_batch_size=size))}
        compare(f"integrated gradients, {STEPS} steps", {**task, **peers}, options.rounds)
    if "smooth_grad" in wanted:
        noisy = captum.attr.NoiseTunnel(captum.attr.Saliency(net))
        leaf, spread = x.clone().requires_grad_(), SIGMA * float(x.max() - x.min())
        smooth = partial(noisy.attribute, leaf, nt_type="smoothgrad", nt_samples=STEPS, stdevs=spread, target=TARGET)
        task = {"askwhy": lambda: aw.smooth_grad(model, x, TARGET, samples=STEPS, sigma=SIGMA), **floors}
        peers = {"captum": smooth, "captum, best batch": best_of(lambda size: smooth(nt_samples_batch_size=size))}
        compare(f"SmoothGrad, {STEPS} samples", {**task, **peers}, options.rounds)
    if "auto" in wanted:
        for name in ("grey", "blur"):
            why = aw.integrated_gradients(model, photo, TARGET, baseline=name)
            again = aw.integrated_gradients(model, photo, TARGET, baseline=name, steps=why.details["steps"][0])
            print(
                f"\nauto, {name}: {why.details['steps'][0]} gradients, residual {why.residual[0]:.1e}; as many Gauss-Legendre steps: {again.residual[0]:.1e}"
            )


if __name__ == "__main__":
    main()
