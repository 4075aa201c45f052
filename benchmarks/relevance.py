"""Relevance and class activation maps beside captum and a raw gradient on EfficientNet-Lite0 and the cat, in one process.

    python benchmarks/relevance.py [--rounds 11]

"floor" is one forward and one backward pass of the model as it is. captum explains this network wrongly where it uses
one ReLU6 several times (guided backpropagation, deconvnet and DeepLIFT are a plain gradient there, or refuse); its times
stand here all the same. Every round runs all contestants in turns; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import captum.attr
import torch
from vision import compare, subject

import askwhy as aw

TARGET = 282
METHODS: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "gradient": ("gradient", {}, "Saliency"),
    "guided backpropagation": ("guided_backprop", {}, "GuidedBackprop"),
    "deconvnet": ("deconvnet", {}, "Deconvolution"),
    "DeepLIFT": ("deep_lift", {"baseline": "zero"}, "DeepLift"),
    "LRP epsilon": ("lrp", {"rule": "epsilon"}, "LRP"),
    "LRP epsilon-plus": ("lrp", {"rule": "epsilon-plus"}, None),
    "LRP alpha2-beta1-flat": ("lrp", {"rule": "alpha2-beta1-flat"}, None),
    "Grad-CAM": ("grad_cam", {}, None),
    "HiResCAM": ("hires_cam", {}, None),
    "LayerCAM": ("layer_cam", {}, None),
    "Grad-CAM++": ("grad_cam_plus_plus", {}, None),
    "CAM, with its checks": ("cam", {}, None),
}


def raw_gradient(net: torch.nn.Module, x: torch.Tensor) -> None:
    leaf = x.detach().clone().requires_grad_()
    torch.autograd.grad(net(leaf)[:, TARGET].sum(), leaf)


def peer(net: torch.nn.Module, x: torch.Tensor, name: str | None) -> dict[str, Callable[[], Any]]:
    """captum's method, where it has one that runs on this network."""
    if name is None:
        return {}
    run = partial(getattr(captum.attr, name)(net).attribute, x.clone().requires_grad_(), target=TARGET)
    try:
        run()
    except Exception as error:  # noqa: BLE001  whatever it refuses with
        print(f"  captum's {name} refuses: {str(error).splitlines()[0][:100]}")
        return {}
    return {"captum": run}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    warnings.simplefilter("ignore")  # captum says that it sets hooks
    model, photo = subject()
    x, net = model.prepare(photo).batch, model.net
    print(f"torch {torch.__version__}, captum {captum.__version__}, {torch.get_num_threads()} threads, askwhy {aw.__version__}")
    for title, (name, options, other) in METHODS.items():
        contestants = {"askwhy": partial(aw.explain, model, x, name, target=TARGET, **options), "floor": partial(raw_gradient, net, x)}
        compare(title, {**contestants, **peer(net, x, other)}, rounds)


if __name__ == "__main__":
    main()
