"""What a generator is made of and how it learns: small convolutional nets, two losses, and a run that can stop and go on."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from askwhy._lazy import lazy
from askwhy.errors import Cancelled, FileError, InputError, ModelError
from askwhy.fetch import read_arrays
from askwhy.files import write_file
from askwhy.game import Progress

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.nn import functional as F
else:
    torch = lazy("torch", "torch")
    nn = lazy("torch.nn", "torch")
    F = lazy("torch.nn.functional", "torch")

HIDDEN, WIDTH = 256, 16
SMALLEST_MAP = 8  # pixels a side, from which the pictures are doubled
PENALTY, LAZY = 1.0, 8  # weight of the discriminator's squared slope, which is asked at every eighth step only (Karras et al. 2020)
AVERAGE = 0.998  # of the weights over the steps: the last step alone is a matter of luck
WRITE_EVERY = 30.0  # seconds
Shape = tuple[int, int, int]  # channels, height, width


# ---- nets -----------------------------------------------------------------------------------------------------------


def doublings(shape: Shape) -> int:
    longest, count = -(-max(shape[1:]) // 2), 1
    while longest > SMALLEST_MAP:
        longest, count = -(-longest // 2), count + 1
    return count


def generator_net(latent: int, shape: Shape) -> nn.Sequential:
    """z [n, latent] -> [n, c, at least h, at least w], of which the sigmoid lies in 0..1."""
    levels = doublings(shape)
    height, width = (-(-side // 2**levels) for side in shape[1:])
    channels = [*(WIDTH * 2**k for k in reversed(range(levels))), shape[0]]
    layers: list[nn.Module] = [nn.Linear(latent, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, channels[0] * height * width)]
    layers.append(nn.Unflatten(1, (channels[0], height, width)))
    for before, after in itertools.pairwise(channels):
        layers += [nn.GroupNorm(4, before), nn.SiLU(), nn.ConvTranspose2d(before, after, 4, 2, 1)]
    return nn.Sequential(*layers)


def teacher_net(outs: int, shape: Shape) -> nn.Sequential:
    """Pictures [n, c, h, w] -> [n, outs]: the encoder of a VAE, the discriminator of a GAN."""
    levels = doublings(shape)
    height, width = (-(-side // 2**levels) for side in shape[1:])
    channels = [shape[0], *(WIDTH * 2**k for k in range(levels))]
    layers: list[nn.Module] = [nn.ZeroPad2d((0, width * 2**levels - shape[2], 0, height * 2**levels - shape[1]))]
    for before, after in itertools.pairwise(channels):
        layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * height * width, HIDDEN), nn.LeakyReLU(0.2), nn.Linear(HIDDEN, outs))


def pictures_of(net: nn.Module, z: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Logits [n, c, h, w]."""
    return net(z)[..., : shape[1], : shape[2]]  # type: ignore[no-any-return]


# ---- losses ---------------------------------------------------------------------------------------------------------


def vae_losses(run: Run, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The negative evidence bound: cross-entropy of the pixels + KL(q(z | x), N(0, 1)), one loss for both nets (Kingma & Welling 2014)."""
    mean, log_var = run.teacher(x).chunk(2, 1)
    shown = pictures_of(run.maker, mean + noise * (log_var / 2).exp(), run.shape)
    missed = F.binary_cross_entropy_with_logits(shown, x, reduction="sum")
    loss = (missed + 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum()) / len(x)
    return loss, loss


def gan_losses(run: Run, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Goodfellow et al. 2014, the form that does not saturate, with a penalty on the slope at real pictures (Mescheder et al. 2018)."""
    penalized = run.step % LAZY == 0
    x = x.requires_grad_(penalized)
    real, fake = run.teacher(x), run.teacher(pictures_of(run.maker, noise, run.shape).sigmoid())
    loss = F.softplus(-real).mean() + F.softplus(fake).mean()
    if penalized:
        (slope,) = torch.autograd.grad(real.sum(), x, create_graph=True)
        loss = loss + LAZY * PENALTY / 2 * slope.square().flatten(1).sum(1).mean()
    return F.softplus(-fake).mean(), loss


class Kind(NamedTuple):
    name: str
    steps: int
    rate: float
    betas: tuple[float, float]
    outs: int  # of the teacher, for each number of z; 0 for a single one
    losses: Callable[[Run, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


KINDS = {
    "vae": Kind("variational autoencoder", 3000, 2e-3, (0.9, 0.999), 2, vae_losses),
    "gan": Kind("generative adversarial network", 3000, 1e-3, (0.0, 0.99), 0, gan_losses),
}


# ---- the run --------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Run:
    """Everything that changes while a generator learns."""

    kind: Kind
    shape: Shape
    maker: nn.Sequential
    teacher: nn.Sequential
    optimizer: torch.optim.Adam
    average: list[torch.Tensor]
    step: int = 0
    seconds: float = 0.0
    whole: bool = True  # not in the middle of a step

    @property
    def weights(self) -> list[torch.Tensor]:
        return [*self.maker.parameters(), *self.teacher.parameters()]


def new_run(kind: str, latent: int, shape: Shape, seed: int, device: torch.device) -> Run:
    """The nets as they begin; the random state of the caller stays as it is."""
    made = KINDS[kind]
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        maker, teacher = (net.to(device, torch.float32) for net in (generator_net(latent, shape), teacher_net(made.outs * latent or 1, shape)))
    weights = [*maker.parameters(), *teacher.parameters()]
    optimizer = torch.optim.Adam(weights, made.rate, betas=made.betas, fused=True)
    return Run(made, shape, maker, teacher, optimizer, [w.detach().clone() for w in weights])


def advance(run: Run, x: torch.Tensor, noise: torch.Tensor) -> None:
    """One step of both nets, with the gradients of one moment. Raises ModelError where the loss is no number any more."""
    made, taught = run.kind.losses(run, x, noise)
    if not torch.isfinite(made + taught):
        raise ModelError(f"the loss is {float(made):.3g} and {float(taught):.3g} at step {run.step}; try another seed, or kind=.")
    for weight, slope in zip(run.weights, slopes(run, made, taught), strict=True):
        weight.grad = slope
    run.whole = False
    run.optimizer.step()
    kept = min(AVERAGE, (1 + run.step) / (10 + run.step))
    torch._foreach_lerp_(run.average, [w.detach() for w in run.weights], 1 - kept)
    run.step += 1
    run.whole = True


def slopes(run: Run, made: torch.Tensor, taught: torch.Tensor) -> Sequence[torch.Tensor]:
    if made is taught:
        return torch.autograd.grad(made, run.weights)
    first = torch.autograd.grad(made, list(run.maker.parameters()), retain_graph=True)
    return [*first, *torch.autograd.grad(taught, list(run.teacher.parameters()))]


def learn(run: Run, batch: Callable[[int], tuple[torch.Tensor, torch.Tensor]], steps: int, tick: Progress | None, keep: Keeper | None) -> None:
    """Up to step `steps`; batch(step) -> pictures in 0..1 and noise. Raises Cancelled."""
    before, began = run.seconds, time.perf_counter()
    with torch.inference_mode(False), torch.enable_grad(), stopped(run, keep):
        while run.step < steps:
            advance(run, *batch(run.step))
            run.seconds = before + time.perf_counter() - began
            if keep is not None:
                keep.sometimes(run)
            if tick is not None and tick(run.step, steps) is False:
                go_on = f"; the same call goes on from {keep.path}" if keep else "; give checkpoint= to be able to go on"
                raise Cancelled(f"stopped after {run.step} of {steps} steps{go_on}.")


@contextmanager
def stopped(run: Run, keep: Keeper | None) -> Iterator[None]:
    """Whoever stops the run finds its last whole step on disk; a step cut in two is not kept."""
    try:
        yield
    except (KeyboardInterrupt, Cancelled):
        if keep is not None and run.whole:
            keep.write(run)
        raise
    if keep is not None:
        keep.write(run)


def take_average(run: Run) -> None:
    """The nets with the average weights, to be used and no longer trained."""
    with torch.no_grad():
        for weight, average in zip(run.weights, run.average, strict=True):
            weight.copy_(average)
    for net in (run.maker, run.teacher):
        net.requires_grad_(False)


# ---- checkpoints ----------------------------------------------------------------------------------------------------


@dataclass
class Keeper:
    """A checkpoint: one file that is always whole; it belongs to certain images and settings."""

    path: Path
    settings: dict[str, Any]
    written: float = 0.0

    def sometimes(self, run: Run) -> None:
        if time.perf_counter() - self.written > WRITE_EVERY:
            self.write(run)

    def write(self, run: Run) -> None:
        """Raises FileError."""
        state = [run.optimizer.state[w] for w in run.weights]
        moments = {name: flat([one[name] for one in state]) for name in ("exp_avg", "exp_avg_sq")} if run.step else {}
        told = json.dumps({"settings": self.settings, "step": run.step, "seconds": run.seconds})
        buffer = io.BytesIO()
        np.savez(buffer, json=np.array(told), weights=flat(run.weights), average=flat(run.average), **moments)  # type: ignore[arg-type]
        write_file(self.path, buffer.getvalue())
        self.written = time.perf_counter()

    def resume(self, run: Run) -> None:
        """Bring a new run to where the file left it. Raises FileError; InputError where the file is of another run."""
        held = read_arrays(self.path)
        try:
            told = json.loads(str(held.pop("json")))
            self.compare(told["settings"])
            parts = {name: parted(vector, run.weights) for name, vector in held.items()}
            fill(run.weights, parts["weights"])
            fill(run.average, parts["average"])
            for k, weight in enumerate(run.weights if told["step"] else ()):
                moments = {name: parts[name][k].to(weight.device) for name in ("exp_avg", "exp_avg_sq")}
                run.optimizer.state[weight] = {"step": torch.tensor(float(told["step"]), device=weight.device), **moments}
            run.step, run.seconds = told["step"], told["seconds"]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            raise FileError(f"{self.path} is no checkpoint of this version of askwhy ({error}); give another file, or delete it.") from error

    def compare(self, found: dict[str, Any]) -> None:
        for name, value in self.settings.items():
            if found[name] != value:
                said = "other images" if name == "images" else f"{name}={found[name]!r}, and this run has {value!r}"
                raise InputError(f"checkpoint={str(self.path)!r} was written with {said}; give another file, or delete it.")


def keeper(checkpoint: str | os.PathLike[str] | None, run: Run, settings: dict[str, Any], steps: int) -> Keeper | None:
    """Resumes the run if the file is there; else writes it at once, so that a bad path fails before the work. Raises InputError, FileError."""
    if checkpoint is None:
        return None
    keep = Keeper(Path(checkpoint), settings)
    if not keep.path.exists():
        keep.write(run)
        return keep
    keep.resume(run)
    if run.step > steps:
        raise InputError(f"steps={steps}: {checkpoint} has done {run.step} already; ask for as many or more, or give another file.")
    keep.written = time.perf_counter()
    return keep


def fingerprint(pixels: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).hexdigest()


def flat(tensors: Sequence[torch.Tensor]) -> np.ndarray:
    return torch.cat([t.detach().flatten().cpu() for t in tensors]).numpy()


def parted(vector: np.ndarray, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """A flat vector as tensors of their own, shaped like these. Raises RuntimeError where it has another length."""
    pieces = torch.from_numpy(vector).split([t.numel() for t in like])
    return [piece.reshape(t.shape).clone() for piece, t in zip(pieces, like, strict=True)]


def fill(into: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    with torch.no_grad():
        for old, new in zip(into, values, strict=True):
            old.copy_(new)
