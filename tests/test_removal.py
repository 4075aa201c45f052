"""Ablation and RISE: against slow loops, and on models whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import small_net

import askwhy as aw
from askwhy.errors import InputError, UnsupportedError
from askwhy.local.rise import draw, masks, weights


def curved(b: np.ndarray) -> np.ndarray:
    return b[:, 0] * b[:, 1] + np.sin(b[:, 2]) + np.maximum(b[:, 3], b[:, 0])


# ---- ablation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 6])
def test_removing_one_and_all_but_one_is_the_slow_loop(rows):
    rng = np.random.default_rng(0)
    x, background = rng.normal(size=(2, 4)), rng.normal(size=(rows, 4))
    v = lambda row, z: curved(np.where(z, row, background)).mean()  # noqa: E731
    without, alone = (aw.ablation(curved, x, background=background, keep=keep) for keep in (False, True))
    for i, row in enumerate(x):
        for k in range(4):
            assert without.values[i, k] == pytest.approx(v(row, np.ones(4, bool)) - v(row, np.arange(4) != k))
            assert alone.values[i, k] == pytest.approx(v(row, np.arange(4) == k) - v(row, np.zeros(4, bool)))
        assert without.base_value[i] == pytest.approx(v(row, np.zeros(4, bool)))
    np.testing.assert_allclose(without.values, aw.occlusion(curved, x, background=background).values)
    assert without.params["keep"] is False


def test_weights_of_a_background_count():
    data = np.array([[0.0], [0.0], [0.0], [8.0]])
    means = aw.background(data, 2, "kmeans")
    np.testing.assert_allclose(aw.ablation(lambda b: b[:, 0], [[1.0]], background=means, keep=True).values, [[-1.0]])


def test_what_two_words_both_bring_is_only_seen_alone():
    f = lambda texts: [1.0 * ("fine" in t or "great" in t) for t in texts]  # noqa: E731
    text = "A fine and great film"
    assert not aw.ablation(f, text).values.any()
    assert dict(aw.ablation(f, text, keep=True).top(2)) == {"fine": 1.0, "great": 1.0}


def test_more_components_than_a_block():
    x = np.arange(5000.0)[None]
    np.testing.assert_allclose(aw.ablation(lambda b: b.sum(1), x, baseline=0, keep=True).values, x)


# ---- RISE -----------------------------------------------------------------------------------------------------------


def test_masks_are_the_shifted_bilinear_picture_of_their_cells():
    from PIL import Image

    grid, cells = (20, 27), 4
    drawn = draw(5, cells, 0.5, grid, np.random.default_rng(0))
    found = masks(drawn, range(5), grid)
    for k in range(5):
        image = Image.fromarray(drawn[0][k].astype(np.float32))
        large = np.asarray(image.resize((5 * 7, 5 * 5), Image.Resampling.BILINEAR))  # steps of 5 rows and 7 columns
        top, left = drawn[1][k]
        np.testing.assert_allclose(found[k], large[top : top + 20, left : left + 27], atol=1e-5)
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6


def test_every_pixel_is_shown_equally_often_at_any_size():
    for grid, cells in (((16, 16), 7), ((30, 50), 5), ((3, 40), 2)):
        drawn = draw(3000, cells, 0.4, grid, np.random.default_rng(1))
        level = masks(drawn, range(3000), grid).mean(0)
        np.testing.assert_allclose(level, 0.4, atol=0.05)
        np.testing.assert_allclose(weights(grid[0], 3, 1, 40).sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("kind", ["torch", "numpy", "bytes"])
def test_rise_is_the_slow_loop(kind):
    net = small_net()
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    model = net
    if kind == "numpy":
        x, model = x.numpy(), lambda b: net(torch.as_tensor(b)).detach().numpy()
    if kind == "bytes":
        x, model = (x[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)[None], lambda b: b[:, 5, 5].astype(float)
    why = aw.rise(model, x, 1, samples=150, cells=3, baseline="zero", seed=4)
    drawn = draw(150, 3, 0.5, (16, 16), np.random.default_rng([4, 0]))
    shown = masks(drawn, range(150), (16, 16))
    scores = np.array(
        [float(np.asarray(model(one(x, m)))[0, 1]) if kind != "torch" else float(net(x * torch.as_tensor(m)).detach()[0, 1]) for m in shown]
    )
    wanted = (scores[:, None, None] * shown).mean(0) / shown.mean(0) - scores.mean()
    np.testing.assert_allclose(why.values[0], wanted, atol=1e-5 * np.abs(scores).max())
    assert why.model_calls == 151


def one(x, m):
    if x.dtype == np.uint8:
        return np.rint(x * m[None, :, :, None]).astype(np.uint8)
    return x * m[None, None]


def test_the_pixel_that_counts_is_found():
    """f = the brightness at one place: E[f | it is shown] - E[f] is what the mask adds there, E[M^2] / E[M] - E[M]."""
    f = lambda b: b[:, 0, 4, 11]  # noqa: E731
    x = np.ones((1, 3, 16, 16), np.float32)
    why = aw.rise(f, x, samples=3000, cells=4, baseline=0.0)
    row, column = np.unravel_index(why.values[0].argmax(), (16, 16))
    assert abs(row - 4) <= 1
    assert abs(column - 11) <= 1
    shown = masks(draw(3000, 4, 0.5, (16, 16), np.random.default_rng([0, 0])), range(3000), (16, 16))[:, 4, 11]
    assert why.values[0, 4, 11] == pytest.approx((shown**2).mean() / shown.mean() - shown.mean(), rel=1e-4)


def test_rise_knows_its_error():
    net, x = small_net(), torch.rand(1, 3, 16, 16)
    settled = aw.rise(net, x, 1, samples=8000, cells=3).values
    inside = []
    for seed in range(1, 41):
        why = aw.rise(net, x, 1, samples=60, cells=3, seed=seed)
        inside.append(np.abs(why.values - settled) <= 1.96 * why.std_error)
    assert 0.9 <= np.mean(inside) <= 0.98


@pytest.mark.parametrize(
    ("options", "said"),
    [({"samples": 5}, "samples=5"), ({"cells": 1}, "cells=1"), ({"shown": 1.0}, "shown=1.0"), ({"baseline": np.zeros((2, 3, 16, 16))}, "2 rows")],
)
def test_bad_settings_of_rise_are_one_clear_error(options, said):
    with pytest.raises(InputError, match=said):
        aw.rise(small_net(), torch.rand(1, 3, 16, 16), 1, **options)


def test_rise_of_a_table_is_refused():
    with pytest.raises(UnsupportedError, match="use shapley or ablation"):
        aw.rise(curved, np.ones((1, 4)))
