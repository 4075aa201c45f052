"""Small models and inputs that many tests share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import askwhy as aw
from askwhy.show.pictures import fonts

torch.set_num_threads(1)  # on a busy machine small networks wait for their second thread


def pytest_configure(config: pytest.Config) -> None:
    """A machine without a font for Chinese signs makes matplotlib warn of each; the test of such names is skipped there."""
    if len(fonts()) < 2:
        config.addinivalue_line("filterwarnings", "ignore:Glyph .* missing from font:UserWarning")


def small_net(seed: int = 0, classes: int = 4, dtype: torch.dtype = torch.float32, pool: int = 2) -> nn.Sequential:
    """Two convolutions, batch norm with real statistics, one hidden layer; input [n, 3, 16, 16]."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(pool), nn.Flatten(), nn.Linear(8 * pool**2, classes),
    )  # fmt: skip
    net(torch.randn(64, 3, 16, 16) * 2 + 1)  # fills the running statistics
    return net.to(dtype).eval()


NEEDS: dict[str | None, dict[str, int]] = {"cam": {"pool": 1}}  # what a method asks of a network, to explain it at all


def net_for(name: str | None, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    return small_net(dtype=dtype, **NEEDS.get(name, {}))


@pytest.fixture
def net(request: pytest.FixtureRequest) -> nn.Sequential:
    """The small network, in the form that the method of the test's parameter `name` can explain."""
    return net_for(getattr(request.node, "callspec", None) and request.node.callspec.params.get("name"))


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def lite0() -> aw.models.Model:
    return aw.zoo.load("efficientnet-lite0")


@pytest.fixture(scope="session")
def cat() -> object:
    return aw.zoo.photo("cat")


REGIONS = np.arange(256).reshape(16, 16) // 32
QUICK = {
    "anchors": {"samples": 100, "components": REGIONS, "baseline": -100.0, "threshold": -0.16},
    "ablation": {"components": REGIONS},
    "rise": {"samples": 20, "cells": 3},
    "shapley": {"samples": 60, "components": REGIONS, "estimator": "kernel"},
    "shapley_interactions": {"components": REGIONS // 2},
    "occlusion": {"size": 8, "stride": 4},
    "lime": {"samples": 60, "components": REGIONS},
    "smooth_grad": {"samples": 4},
    "expected_gradients": {"samples": 24, "background": torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(2))},
}  # options that make a method quick on 16 x 16 pictures; a new method needs none, if its defaults are


def quick(name: str) -> dict[str, object]:
    return dict(QUICK.get(name, {}))
