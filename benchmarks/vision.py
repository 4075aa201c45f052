"""askwhy beside its peers and the floor on EfficientNet-Lite0 and the cat, interleaved in one process.

    python benchmarks/vision.py [--rounds 5] [--only lime,occlusion,grad_cam,guided_backprop,bfloat16]

The floor is the raw model work at its best batch size, in memory that stays: "ordinary floor" with the model as it is, "twin floor" with the
faster twin that askwhy prepares (same scores to 1e-4). Every round runs all contestants one after the other, so that a
change in the machine's speed meets them all; ratios are taken within a round, and their median is printed. A peer is run
in this process and in one of its own: here it profits from the space that askwhy has made in the heap.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from subprocess import DEVNULL, PIPE
from typing import Any

import captum.attr
import numpy as np
import torch
from lime.lime_image import LimeImageExplainer

import askwhy as aw
from askwhy._memory import resident
from askwhy.models.torch_module import TorchModel

Task = dict[str, Callable[[], Any]]


def seconds(run: Callable[[], Any]) -> float:
    """Of one run; a contestant in another process says them itself."""
    began = time.perf_counter()
    said = run()
    return said if isinstance(run, Apart) else time.perf_counter() - began


def best_batch(forward: Callable[[torch.Tensor], Any], x: torch.Tensor) -> int:
    """The batch size with the least time per input."""
    times = {}
    for size in (1, 2, 4, 8, 16, 32):
        batch = x.expand(size, -1, -1, -1).contiguous()
        forward(batch)
        times[size] = statistics.median(seconds(lambda: forward(batch)) for _ in range(5)) / size  # noqa: B023
    return min(times, key=lambda size: times[size])


def floor(forward: Callable[[torch.Tensor], Any], x: torch.Tensor, count: int) -> Callable[[], None]:
    """`count` inputs through the model and nothing else."""
    with resident():
        size = best_batch(forward, x)
    batch = x.expand(size, -1, -1, -1).contiguous()

    def run() -> None:
        with resident():
            for start in range(0, count, size):
                forward(batch[: min(size, count - start)])

    return run


def compare(title: str, task: Task, rounds: int) -> dict[str, float]:
    """Run all contestants once a round; print medians and the median ratio of each to askwhy."""
    for run in task.values():
        run()  # warm up: caches, batch sizes, the twin
    times: dict[str, list[float]] = {name: [] for name in task}
    names = list(task)
    for turn in range(rounds):
        order = names[turn % len(names) :] + names[: turn % len(names)]  # nobody always comes after the same one
        for name in order[:: 1 if turn // len(names) % 2 else -1]:
            times[name].append(seconds(task[name]))
    ratios = {name: statistics.median(t / a for t, a in zip(found, times["askwhy"], strict=True)) for name, found in times.items()}
    print(f"\n{title} (median of {rounds})")
    for name, found in times.items():
        says = "" if name == "askwhy" else f"   {name} / askwhy = {ratios[name]:.2f}   askwhy / {name} = {1 / ratios[name]:.2f}"
        print(f"  {name:20s} {statistics.median(found):8.3f} s{says}", flush=True)
    return ratios


def engine_of(model: TorchModel, x: torch.Tensor, precision: str) -> Callable[[torch.Tensor], Any]:
    run, _ = model.engine(model.prepare(x), 0, x, 1000, precision)  # the picture itself: in full, not in boxes
    assert run is not None
    return run


def run_lime(model: TorchModel, photo: Any) -> Callable[[], Any]:
    """What a user of lime writes: uint8 pictures -> probabilities."""
    items = model.prepare(photo)
    labels = aw.superpixels().make(items, 0).labels

    def on_pictures(batch: Any) -> np.ndarray:
        return ordinary(model)(torch.from_numpy((np.asarray(batch, np.float32) - 127) / 128).permute(0, 3, 1, 2)).softmax(1).numpy()

    def run() -> Any:
        explainer = LimeImageExplainer(random_state=0)
        return explainer.explain_instance(items.pictures[0], on_pictures, top_labels=1, num_samples=1000, segmentation_fn=lambda _: labels)

    return run


def run_occlusion(model: TorchModel, photo: Any) -> Callable[[], Any]:
    """captum in batches of 8; all 625 at once take 5 GB."""
    windows = {"sliding_window_shapes": (3, 32, 32), "strides": (3, 8, 8), "perturbations_per_eval": 8}
    return partial(captum.attr.Occlusion(ordinary(model)).attribute, model.prepare(photo).batch, target=282, **windows)


def run_path(model: TorchModel, photo: Any, best: bool = False) -> Callable[[], Any]:
    """captum's integrated gradients with 50 steps, all in one batch or in the best one."""
    x = model.prepare(photo).batch
    ask = partial(captum.attr.IntegratedGradients(model.net).attribute, x, torch.zeros_like(x), target=282, n_steps=50)
    return best_of(lambda size: ask(internal_batch_size=size)) if best else ask


def run_smooth(model: TorchModel, photo: Any, best: bool = False) -> Callable[[], Any]:
    """captum's SmoothGrad with 50 samples, all in one batch or in the best one."""
    noisy = captum.attr.NoiseTunnel(captum.attr.Saliency(model.net))
    x = model.prepare(photo).batch.clone().requires_grad_()
    spread = 0.15 * float(x.detach().max() - x.detach().min())
    ask = partial(noisy.attribute, x, nt_type="smoothgrad", nt_samples=50, stdevs=spread, target=282)
    return best_of(lambda size: ask(nt_samples_batch_size=size)) if best else ask


def best_of(run: Callable[[int], Any]) -> Callable[[], Any]:
    """A peer at its best batch size."""
    times = {size: min(seconds(partial(run, size)) for _ in range(2)) for size in (1, 2, 4, 8, 16)}
    return partial(run, min(times, key=lambda size: times[size]))


PEERS: dict[str, Callable[..., Callable[[], Any]]] = {
    "lime": run_lime,
    "occlusion": run_occlusion,
    "path": run_path,
    "path, best batch": partial(run_path, best=True),
    "smooth": run_smooth,
    "smooth, best batch": partial(run_smooth, best=True),
}


def ordinary(model: TorchModel) -> Callable[[torch.Tensor], torch.Tensor]:
    return torch.no_grad()(model.net.forward)


class Apart:
    """A peer in a process of its own, where it finds the memory as its users do; a call runs it once, for its seconds."""

    def __init__(self, peer: str) -> None:
        self.process = subprocess.Popen([sys.executable, __file__, "--peer", peer], stdin=PIPE, stdout=PIPE, stderr=DEVNULL, text=True)

    def __call__(self) -> float:
        assert self.process.stdin
        assert self.process.stdout
        print("once", file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def serve(peer: str) -> None:
    """Run the peer once for each line that comes in; answer with the seconds."""
    run = PEERS[peer](*subject())
    for _ in sys.stdin:
        print(seconds(run), flush=True)


def subject() -> tuple[TorchModel, Any]:
    model = aw.zoo.load("efficientnet-lite0")
    assert isinstance(model, TorchModel)
    return model, aw.zoo.photo("cat")


def perturbing(model: TorchModel, photo: Any, wanted: list[str], rounds: int) -> None:
    """LIME and occlusion, in both precisions."""
    items = model.prepare(photo)
    x, labels = items.batch, aw.superpixels().make(items, 0).labels
    tasks: dict[str, tuple[str, int, str, Callable[..., Any]]] = {
        "lime": ("LIME, 1,000 samples", 1001, "lime", lambda **p: aw.lime(model, photo, samples=1000, components=labels, **p)),
        "occlusion": ("occlusion, 625 windows of 32 x 32", 626, "captum", lambda **p: aw.occlusion(model, photo, size=32, stride=8, **p)),
    }
    for precision in ("float32", "bfloat16") if "bfloat16" in wanted else ("float32",):
        twin = engine_of(model, x, precision)
        for name, (title, calls, peer, ours) in tasks.items():
            if name not in wanted:
                continue
            floors = {"twin floor": floor(twin, x, calls), "ordinary floor": floor(ordinary(model), x, calls)}
            peers = {f"{peer}, own process": Apart(name), f"{peer}, this process": PEERS[name](model, photo)}
            compare(f"{title}, {precision}", {"askwhy": partial(ours, precision=precision), **floors, **peers}, rounds)
            peers[f"{peer}, own process"].process.kill()  # type: ignore[attr-defined]
            if precision == "bfloat16":
                a, b = (ours(precision=p).values.ravel() for p in ("float32", "bfloat16"))
                print(f"  against float32: largest difference {np.abs(a - b).max():.3g}, correlation {np.corrcoef(a, b)[0, 1]:.4f}")


def backward(model: TorchModel, x: torch.Tensor, wanted: list[str], rounds: int) -> None:
    """Grad-CAM and guided backprop; a run takes a few hundredths of a second."""
    net = model.net

    def to_input() -> None:
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(net(leaf)[0, 282], leaf)

    def to_layer() -> None:
        with torch.no_grad():
            features = net.extract_features(x)
        features.requires_grad_()
        torch.autograd.grad(net._fc(net._avg_pooling(features).flatten(1))[0, 282], features)

    if "grad_cam" in wanted:
        peer = captum.attr.LayerGradCam(net, net._conv_head)
        task: Task = {"askwhy": lambda: aw.grad_cam(model, x), "floor": to_layer, "captum": lambda: peer.attribute(x, target=282)}
        compare("Grad-CAM; floor: one forward, one backward to the layer", task, rounds)
    if "guided_backprop" in wanted:
        plain = captum.attr.Saliency(net)
        gradient = partial(plain.attribute, x.clone().requires_grad_(), target=282)
        compare(
            "guided backprop; floor: one plain gradient",
            {"askwhy": lambda: aw.guided_backprop(model, x), "floor": to_input, "captum gradient": gradient},
            rounds,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="lime,occlusion,grad_cam,guided_backprop,bfloat16")
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        return serve(options.peer)
    wanted = options.only.split(",")
    model, photo = subject()
    print(f"torch {torch.__version__}, captum {captum.__version__}, {torch.get_num_threads()} threads, askwhy {aw.__version__}")
    perturbing(model, photo, wanted, options.rounds)
    backward(model, model.prepare(photo).batch, wanted, options.rounds * 8)


if __name__ == "__main__":
    main()
