"""Draws docs/gallery.md: every method that looks inside a network, on real photos; and one photo with two answers.

python examples/gallery.py [--out docs]      # about three minutes on two cores
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

import askwhy as aw

METHODS: list[tuple[str, dict[str, Any], str]] = [
    ("gradient", {}, "noise: each pixel's own slope says little"),
    ("smooth_grad", {"samples": 25}, "the same averaged over noisy copies: the object appears"),
    ("input_x_gradient", {}, "slope times brightness: sharper, still noisy"),
    ("integrated_gradients", {"steps": 50}, "sums to the score; edges of the object"),
    ("deconvnet", {}, "every positive path back: texture of the whole picture"),
    ("guided_backprop", {}, "crisp edges, almost whatever the question"),
    ("deep_lift", {}, "compared with grey: sums to the score"),
    ("lrp", {"rule": "epsilon-gamma-box"}, "relevance, mostly positive, on the parts that count"),
    ("grad_cam", {}, "coarse: where the evidence lies"),
    ("hires_cam", {}, "the same without averaging the gradient; signed"),
    ("layer_cam", {}, "only places whose own slope is positive"),
    ("guided_grad_cam", {}, "the crisp edges, only where the evidence lies"),
]
PICTURES = [
    ("efficientnet-lite0", "cat"), ("efficientnet-lite0", "coffee"), ("efficientnet-lite0", "motorcycle"), ("efficientnet-lite0", "china"),
    ("squeezenet", "cat"), ("squeezenet", "coffee"),
]  # fmt: skip


def sheet(model: Any, photo: Any) -> tuple[Any, str]:
    """One figure: the photo and a map for each method; and the class that was explained."""
    figure, axes = plt.subplots(3, 5, figsize=(15, 9.6), layout="constrained", facecolor="white")
    places = axes.ravel()
    answers = []
    for place, (name, options, _) in zip(places[1:], METHODS, strict=False):
        why = aw.explain(model, photo, name, **options)
        why.plot(place)
        place.set_title(name, fontsize=11)
        answers.append(why)
    places[0].imshow(answers[0].pictures[0])
    places[0].set_title(f"{answers[0].target[0]}, score {answers[0].prediction[0]:.2f}", fontsize=11)
    for place in places:
        place.set_xticks([]), place.set_yticks([])
        place.set_visible(bool(place.images))
    return figure, answers[0].target[0]


def two_answers(model: Any) -> tuple[Any, dict[str, float]]:
    """A cat and a coffee side by side, asked about both; and how alike the two maps of a method are (correlation)."""
    parts = [aw.zoo.photo(name).convert("RGB").resize((256, 256)) for name in ("cat", "coffee")]
    photo = Image.new("RGB", (512, 256))
    photo.paste(parts[0], (0, 0)), photo.paste(parts[1], (256, 0))
    whole = photo.resize((256, 256))  # the network sees a square: both halves, narrowed
    figure, axes = plt.subplots(2, 3, figsize=(9, 6), layout="constrained", facecolor="white")
    alike = {}
    for row, name in enumerate(("guided_backprop", "grad_cam")):
        maps = []
        for column, target in enumerate(("tiger cat", "espresso")):
            why = aw.explain(model, whole, name, target)
            why.plot(axes[row, column + 1])
            axes[row, column + 1].set_title(f"{name}: {target}", fontsize=10)
            maps.append(why.map().ravel())
        axes[row, 0].imshow(why.pictures[0])
        axes[row, 0].set_title("both in one photo", fontsize=10)
        axes[row, 0].set_xticks([]), axes[row, 0].set_yticks([])
        alike[name] = float(np.corrcoef(*maps)[0, 1])
    return figure, alike


class Compares(torch.nn.Module):
    """How much brighter the left half is than the right: bright places, weighed one by one, and not averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.bright, self.weigh = torch.nn.Conv2d(3, 1, 3, padding=1, bias=False), torch.nn.Linear(32 * 32, 1, bias=False)
        side = torch.ones(32, 32)
        side[:, 16:] = -1
        with torch.no_grad():
            self.bright.weight.fill_(1 / 27)
            self.weigh.weight.copy_(side.reshape(1, -1) / 100)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weigh(torch.relu(self.bright(x)).flatten(1))  # type: ignore[no-any-return]


def parted() -> tuple[Any, dict[str, float]]:
    """Two bright squares, the larger one on the left: a network without global average pooling, where two methods part."""
    photo = torch.zeros(1, 3, 32, 32)
    photo[:, :, 6:16, 3:13], photo[:, :, 18:25, 21:28] = 1.0, 1.0
    figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained", facecolor="white")
    axes[0].imshow(photo[0].permute(1, 2, 0).numpy())
    axes[0].set_title("left minus right, what is bright?", fontsize=10)
    sums = {}
    for place, name in zip(axes[1:], ("grad_cam", "hires_cam"), strict=True):
        why = aw.explain(Compares().eval(), photo, name, target=0)
        why.plot(place)
        place.set_title(f"{name}: sum {why.values.sum():.2f} of score {why.prediction[0]:.2f}", fontsize=10)
        sums[name] = float(why.values.sum())
    for place in axes:
        place.set_xticks([]), place.set_yticks([])
    return figure, sums


def save(figure: Any, path: Path) -> str:
    figure.savefig(path, dpi=70, pil_kwargs={"quality": 80})
    plt.close(figure)
    return path.name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    folder = parser.parse_args().out / "gallery"
    folder.mkdir(parents=True, exist_ok=True)
    text = ["# Gallery", "", "Drawn by `python examples/gallery.py`. Red speaks for the class, blue against it, what is pale does not matter.", ""]
    text += ["| method | what to see |", "|---|---|", *[f"| `{name}` | {see} |" for name, _, see in METHODS], ""]
    for model_name, photo in PICTURES:
        figure, target = sheet(aw.zoo.load(model_name), aw.zoo.photo(photo))
        text += [f"## {model_name}: {photo}, “{target}”", "", f"![{photo}](gallery/{save(figure, folder / f'{model_name}-{photo}.jpg')})", ""]
        print(f"{model_name}, {photo}: {target}", flush=True)
    figure, alike = two_answers(aw.zoo.load("efficientnet-lite0"))
    said = ", ".join(f"{value:.2f} for `{name}`" for name, value in alike.items())
    text += ["## One photo, two answers", "", f"![two answers](gallery/{save(figure, folder / 'two-answers.jpg')})", ""]
    text += [
        f"Guided backpropagation is sharp and hardly depends on the class, Grad-CAM is coarse and does. Correlation of the two maps: {said}.",
        "",
    ]
    figure, sums = parted()
    text += ["## Where Grad-CAM and HiResCAM part", "", f"![two squares](gallery/{save(figure, folder / 'parted.jpg')})", ""]
    text += [
        "On a network that ends in global average pooling and one linear layer (EfficientNet-Lite0 and SqueezeNet do), CAM, Grad-CAM and HiResCAM are one map up to scale. "
        "This one has no such pooling: it weighs bright places on the left with +, on the right with -. Grad-CAM averages those weights to zero before it looks, "
        f"and shows nothing (sum {sums['grad_cam']:.2f}); HiResCAM keeps them, and sums to the score ({sums['hires_cam']:.2f}). `cam` refuses such a network.",
        "",
    ]
    (folder.parent / "gallery.md").write_text("\n".join(text))


if __name__ == "__main__":
    main()
