"""What does a network forget? Trained to tell sounds, it loses the speaker layer by layer: draws docs/speakers.jpg and prints a table.

python examples/speakers.py [--out docs/speakers.jpg]      # half a minute on one core; the voices are made here
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import nn

import askwhy as aw
from askwhy.inside.probe import Probe, probe
from askwhy.inside.projection import Projection, projection

BANDS = 96  # of a spectrum, from 100 to 4,000 Hz
SOUNDS = {"a": (800, 1250), "e": (450, 2150), "i": (290, 2500), "o": (450, 800), "u": (320, 1000), "y": (290, 1950)}  # the first two formants, Hz
SPEAKERS, TAKES = 8, 8  # that are looked at; the network was trained on others


# ---- voices: a speaker is pitch, length of throat, tilt and loudness; a sound is where the formants are -------------


def speakers(n: int, rng: np.random.Generator) -> np.ndarray:
    """[n, 4]: pitch in Hz, what the formants are multiplied by, dB per octave, loudness in dB."""
    return np.stack([rng.uniform(90, 260, n), rng.uniform(0.88, 1.14, n), rng.uniform(-9, -1, n), rng.uniform(-6, 6, n)], 1)


def recordings(voices: np.ndarray, sounds: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Spectra [n, 1, bands] in tens of dB, of one voice [n, 4] and one sound [n] each; no two takes are the same."""
    pitch, scale, tilt, loudness = (voices * (1 + rng.normal(0, [0.02, 0.01, 0.03, 0.05], voices.shape))).T[..., None]
    hertz = np.linspace(100, 4000, BANDS)
    formants = np.array(list(SOUNDS.values()))[sounds] * scale
    peaks = sum(20 / (1 + ((hertz - formants[:, [k]]) / (90 + 60 * k)) ** 2) for k in (0, 1))
    harmonics = 4 * np.cos(2 * np.pi * hertz / pitch)
    decibel = peaks + harmonics + tilt * np.log2(hertz / 1000) + loudness + rng.normal(0, 2.5, (len(voices), BANDS))
    return torch.tensor(decibel[:, None] / 10).float()


# ---- a network that is asked for the sound only ---------------------------------------------------------------------


class Listener(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv1d(1, 16, 9, padding=4), nn.ReLU(), nn.MaxPool1d(2))
        self.conv2 = nn.Sequential(nn.Conv1d(16, 24, 7, padding=3), nn.ReLU(), nn.MaxPool1d(4))
        self.dense1 = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(24 * BANDS // 8, 48), nn.ReLU())
        self.dense2 = nn.Sequential(nn.Dropout(0.3), nn.Linear(48, 16), nn.ReLU())
        self.sound = nn.Linear(16, len(SOUNDS))

    def forward(self, spectrum: torch.Tensor) -> torch.Tensor:
        return self.sound(self.dense2(self.dense1(self.conv2(self.conv1(spectrum)))))


LAYERS = ["input", "conv1", "conv2", "dense1", "dense2", "sound"]


def trained(steps: int = 1500) -> Listener:
    """On 300 speakers, none of whom is heard again."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    net, crowd = Listener(), speakers(300, rng)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for _ in range(steps):
        sounds = rng.integers(0, len(SOUNDS), 64)
        optimizer.zero_grad()
        heard = net(recordings(crowd[rng.integers(0, len(crowd), 64)], sounds, rng))
        nn.functional.cross_entropy(heard, torch.tensor(sounds)).backward()
        optimizer.step()
        schedule.step()
    return net.eval()


# ---- what each layer carries ----------------------------------------------------------------------------------------


def table(seen: dict[str, Projection], read: dict[str, Probe]) -> str:
    """How well sound and speaker are told by the nearest neighbours and by a linear probe, with 95 % intervals."""
    lines = [f"{'layer':8}" + "".join(f"{f'{what}, {how}':>24}" for what in seen for how in ("neighbours", "linear probe"))]
    for k, layer in enumerate(LAYERS):
        cells = []
        for what in seen:
            at = read[what].layers.index(layer)
            cells.append((seen[what].told[k], seen[what].told_error[k]))
            cells.append((read[what].values[at, 0], read[what].std_error[at, 0]))
        lines.append(f"{layer:8}" + "".join(f"{f'{value:.3f} ± {1.96 * error:.3f}':>24}" for value, error in cells))
    chances = [chance for what in seen for chance in (seen[what].chance.mean(), read[what].chance)]
    return "\n".join([*lines, f"{'chance':8}" + "".join(f"{chance:24.3f}" for chance in chances)])


def curves(seen: Projection, read: Probe, ax: Axes, title: str) -> None:
    at = [read.layers.index(layer) for layer in LAYERS]
    lines = [
        ("10 nearest neighbours", seen.told, seen.told_error),
        ("a linear probe", read.values[at, 0], read.std_error[at, 0]),
        ("chance", seen.chance, None),
    ]
    aw.show.over_layers(lines, LAYERS, ax, title=title, unit="share right").set_ylim(0, 1.05)


def draw(out: Path) -> None:
    net, rng = trained(), np.random.default_rng(1)
    who = np.repeat(np.arange(SPEAKERS), len(SOUNDS) * TAKES)
    said = np.tile(np.repeat(np.arange(len(SOUNDS)), TAKES), SPEAKERS)
    heard = recordings(speakers(SPEAKERS, rng)[who], said, rng)
    model = aw.wrap(net, labels=list(SOUNDS))
    print(f"{len(heard)} recordings of {SPEAKERS} new speakers; right: {(net(heard).argmax(1).numpy() == said).mean():.1%}\n")

    labels = {"sound": np.array(list(SOUNDS))[said], "speaker": np.array([f"speaker {k + 1}" for k in who])}
    seen = {what: projection(model, heard, LAYERS, method="tsne", labels=own, pool="flat") for what, own in labels.items()}
    read = {what: probe(model, heard, own, LAYERS[1:], probes=("linear",), pool="flat", control=False) for what, own in labels.items()}
    print(table(seen, read))
    print("\n" + seen["speaker"].summary())

    figure = plt.figure(figsize=(19, 12), layout="constrained", facecolor="white")
    grid = figure.add_gridspec(3, 2, height_ratios=[1, 1, 0.9])
    for k, (what, own) in enumerate(seen.items()):
        own.plot(ax=figure.add_subplot(grid[k, :]), columns=len(LAYERS)).set_title(f"the same recordings in each layer, coloured by {what}")
        curves(own, read[what], figure.add_subplot(grid[2, k]), f"how well the {what} is told from a layer")
    figure.savefig(out, dpi=66, pil_kwargs={"quality": 85})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "docs/speakers.jpg")
    draw(parser.parse_args().out)


if __name__ == "__main__":
    main()
