"""A small network that makes pictures like the user's own: a prior for what an input may look like."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.answer import versions
from askwhy.checks import whole
from askwhy.errors import InputError
from askwhy.game import Progress, progress_of
from askwhy.kept import Kept
from askwhy.models.base import show_shape
from askwhy.overall.generator_data import measured, read_images
from askwhy.overall.generator_nets import (
    KINDS,
    Shape,
    fill,
    fingerprint,
    flat,
    generator_net,
    keeper,
    learn,
    new_run,
    parted,
    pictures_of,
    take_average,
)  # fmt: skip

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
else:
    torch = lazy("torch", "torch")

LARGEST = 2**64 - 1  # of a seed


@dataclass(frozen=True, eq=False)
class Generator(Kept):
    """z [n, latent] -> pictures [n, c, h, w] in the range of the pictures it was trained on; torch can differentiate it.

    weights: of the network, one after another. low, high [c]: the range of each channel. details: what was measured on
    pictures held out of the training. `typical` says how long z should be.
    """

    weights: np.ndarray
    latent: int
    shape: Shape
    low: np.ndarray
    high: np.ndarray
    params: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    seconds: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        """The pictures of z, on its device. Raises InputError for another shape."""
        if not isinstance(z, torch.Tensor) or z.ndim != 2 or z.shape[1] != self.latent or not z.is_floating_point():
            raise InputError(f"z is a {type(z).__name__} of shape {show_shape(z)}; give a float tensor [n, {self.latent}].")
        with torch.inference_mode(False):  # what is kept has to serve gradients later
            net = self._net.to(z.device)
        low, high = (torch.from_numpy(end)[:, None, None].to(z.device) for end in (self.low, self.high))
        shown = pictures_of(net, z.float(), self.shape).sigmoid()
        return torch.lerp(low, high, shown).to(z.dtype)

    @property
    def kind(self) -> str:
        """ "vae" or "gan"."""
        return str(self.params["kind"])

    @property
    def of_pictures(self) -> bool:
        """Whether it makes pictures from black (0) to white (1), and no inputs in a range of their own."""
        return bool((self.low == 0).all() and (self.high == 1).all())

    @cached_property
    def _net(self) -> torch.nn.Module:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            net = generator_net(self.latent, self.shape).float().requires_grad_(False)
        own = list(net.parameters())
        fill(own, parted(self.weights, own))
        return net

    @property
    def typical(self) -> tuple[float, float]:
        """The length |z| of 95 % of the z that it was trained on, which are drawn from N(0, 1): it knows little of z far outside."""
        from scipy.special import gammaincinv

        low, high = np.sqrt(2 * gammaincinv(self.latent / 2, [0.025, 0.975]))  # quantiles of the chi distribution
        return float(low), float(high)

    def sample(self, n: int, seed: int = 0) -> torch.Tensor:
        """n pictures [n, c, h, w] of random z."""
        n, seed = whole("n", n, 1), whole("seed", seed, 0, LARGEST)
        with torch.no_grad():
            return self(torch.from_numpy(np.random.default_rng(seed).standard_normal((n, self.latent), dtype=np.float32)))

    def summary(self) -> str:
        """A few lines: what it is, what it learned from, how good it is, where it can be trusted, and the cost."""
        c, h, w = self.shape
        name = KINDS[self.kind].name
        lines = [f"{name}, z of {self.latent} numbers, trained for {self.params['steps']} steps on {self.details['trained_on']:,} pictures, {h} x {w}, "
                 f"{'grey' if c == 1 else f'{c} channels'}"]  # fmt: skip
        low, high = self.typical
        lines += [
            *told(self.details),
            f"z of a length between {low:.1f} and {high:.1f} is typical (95 % of N(0, 1)); much longer ones may make anything",
        ]
        return "\n".join([*lines, f"{self.seconds:.1f} s"])

    def plot(self, ax: Axes | None = None, n: int = 24, seed: int = 0) -> Axes:
        """Random samples, none chosen. Returns the axes and never shows them."""
        from askwhy import show

        return show.tiles(self._shown(self.sample(n, seed)), ax=ax, title=f"{n} samples of the {KINDS[self.kind].name}, none chosen")

    def _shown(self, pictures: torch.Tensor) -> list[np.ndarray]:
        """uint8 [h, w, 3] each."""
        span = np.where(self.high > self.low, self.high - self.low, 1)[:, None, None]
        levels = (255 * (pictures.cpu().numpy() - self.low[:, None, None]) / span).round().clip(0, 255).astype(np.uint8)
        return [np.broadcast_to(one.transpose(1, 2, 0), (*one.shape[1:], 3)) for one in levels]

    def __repr__(self) -> str:
        return f"<Generator {self.kind}, z [n, {self.latent}] -> [n, {', '.join(map(str, self.shape))}]>"


def told(details: Mapping[str, Any]) -> list[str]:
    """What was measured, one sentence each."""
    held, said = f"{details['held_out']} pictures that were held out", []
    if "error" in details:
        said.append(
            f"reconstruction of {held}: mean squared error {details['error']:.3g} (pixels in 0..1), {details['relative_error']:.2f} of that of the mean picture"
        )
    if "told_apart" in details:
        said.append(
            f"its discriminator ranks a real picture above a generated one in {details['told_apart']:.2f} of the pairs, over {held} "
            "(1: it always can tell; 0.5: it cannot, which says little if it is a weak one, so look at the samples)"
        )
    return [*said, f"diversity: two samples are {details['spread']:.2f} times as far apart as two real pictures (0: all alike), and {details['coverage']:.0%} "
            f"of the real ones have a sample near them (training pictures: {details['coverage_of_real']:.0%})"]  # fmt: skip


# ---- training -------------------------------------------------------------------------------------------------------


def train_generator(
    images: Any, *, kind: str = "vae", latent: int = 32, steps: int | None = None, seed: int = 0, batch_size: int = 64,
    checkpoint: str | os.PathLike[str] | None = None, progress: bool | Progress | None = None,
) -> Generator:  # fmt: skip
    """Train a small network that makes pictures like `images` from z ~ N(0, 1) [n, latent].

    images: bytes [n, h, w] or [n, h, w, 3], or a list of paths or PIL images of one size (they come out in 0..1; grey
    ones have one channel); floats [n, c, h, w] (in their own range, on their device). 4 to 64 pixels a side; a tenth is held out to measure.
    kind: "vae", a variational autoencoder (Kingma & Welling 2014), or "gan" (Goodfellow et al. 2014; sharper, less sure).
    steps: 3,000 by default, about a minute for 28 x 28 on one core. checkpoint: a file that the run keeps and goes on
    from, after Ctrl-C too; the result is that of one run. Raises InputError, FileError; Cancelled where progress= says so.
    Example: `askwhy.train_generator(askwhy.zoo.digits()[0], progress=True).plot()`.
    """
    if kind not in KINDS:
        raise InputError(f"kind={kind!r}: choose {' or '.join(map(repr, KINDS))}.")
    steps = KINDS[kind].steps if steps is None else steps
    latent, steps = whole("latent", latent, 1), whole("steps", steps, 1)
    seed, batch_size = whole("seed", seed, 0, LARGEST), whole("batch_size", batch_size, 2)
    pictures = read_images(images)
    device = images.device if isinstance(images, torch.Tensor) else torch.device("cpu")
    of_run = {"kind": kind, "latent": latent, "seed": seed, "batch_size": batch_size, "shape": list(pictures.shape)}
    with torch.inference_mode(False):  # these tensors have to learn
        run = new_run(kind, latent, pictures.shape, seed, device)
        keep = keeper(checkpoint, run, {**of_run, "images": fingerprint(pictures.pixels)}, steps)
    order = np.random.default_rng(seed).permutation(len(pictures))
    held, own = map(np.sort, np.split(order, [len(order) // 10]))

    def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([seed, step])  # a run that goes on draws what it would have drawn
        drawn = pictures.unit(own[rng.integers(len(own), size=batch_size)]), rng.standard_normal((batch_size, latent), dtype=np.float32)
        return torch.from_numpy(drawn[0]).to(device), torch.from_numpy(drawn[1]).to(device)

    with progress_of(progress, f"training a {KINDS[kind].name}") as tick:
        learn(run, batch, steps, tick, keep)
    take_average(run)
    details = {"trained_on": len(own), **measured(run, pictures, held, own, latent)}
    return Generator(
        flat(list(run.maker.parameters())), latent, run.shape, pictures.low, pictures.high,
        {"kind": kind, "steps": steps, "batch_size": batch_size}, details, seed, run.seconds, versions(),
    )  # fmt: skip
