"""The parts of an item, and what stands where one is taken away, each against a slow loop."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

import askwhy as aw
from askwhy.components import absent, features, from_labels, grid_of, patches, pixels, superpixels
from askwhy.errors import InputError
from askwhy.models import wrap
from askwhy.recipes import recipe


def items_of(x, **options):
    return wrap(lambda batch: batch, **options).prepare(x)


def make(chosen, x, i=0):
    items = items_of(x)
    return recipe(chosen, items).make(items, i)


def picture(h=11, w=13, seed=0):
    return np.random.default_rng(seed).random((2, 3, h, w))


RECIPES = [
    pixels(),
    patches(4),
    patches(5, 2),
    patches((3, 7), (2, 3)),
    patches((11, 13)),
    patches((2, 13), 1),
    patches(1),
    patches(1, 1),
    superpixels(n=6),
    superpixels("quickshift"),
    superpixels("felzenszwalb", min_size=10),
    "pixels",
    "superpixels",
    np.arange(143).reshape(11, 13) // 20 * 7 - 3,
]


def windows_by_hand(h, w, size, stride):
    """[(rows, columns)] of each window, until the last position is covered."""
    found, top = [], 0
    while True:
        left = 0
        while True:
            found.append((range(top, min(top + size[0], h)), range(left, min(left + size[1], w))))
            if left + size[1] >= w:
                break
            left += stride[1]
        if top + size[0] >= h:
            break
        top += stride[0]
    return found


def cover_by_hand(found, h, w):
    """bool [d, h, w]: which positions belong to which component, read from public facts only."""
    if found.labels is not None:
        return np.stack([found.labels == k for k in range(len(found))])
    cover = np.zeros((len(found), h, w), bool)
    for k, name in enumerate(found.names):
        rows, columns = (list(map(int, part.split()[1].split("-"))) for part in name.split(", "))
        cover[k, rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = True
    return cover


@pytest.mark.parametrize("chosen", RECIPES, ids=str)
def test_present_and_paint_are_the_slow_loops(chosen):
    x = picture()
    found = make(chosen, x)
    h, w = 11, 13
    cover = cover_by_hand(found, h, w)
    assert cover.any(0).all()
    assert cover.any((1, 2)).all()
    if found.labels is not None:
        assert (cover.sum(0) == 1).all()
        assert sorted(np.unique(found.labels)) == list(range(len(found)))
    rng = np.random.default_rng(1)
    z = rng.random((7, len(found))) < 0.7
    z[0], z[1] = True, False
    shown = found.present(z)
    assert shown.shape == (7, 1, h, w)
    values = rng.normal(size=len(found))
    painted = found.paint(values)
    for r in range(h):
        for c in range(w):
            mine = [k for k in range(len(found)) if cover[k, r, c]]
            for m in range(7):
                assert shown[m, 0, r, c] == all(z[m, k] for k in mine)
            assert painted[r, c] == pytest.approx(np.mean([values[k] for k in mine]))


@pytest.mark.parametrize(("size", "stride"), [((4, 4), (4, 4)), ((5, 3), (2, 3)), ((3, 7), (1, 5)), ((11, 13), (11, 13)), ((10, 2), (10, 1))])
def test_windows_are_those_of_the_textbook(size, stride):
    found = make(patches(size, stride), picture())
    wanted = windows_by_hand(11, 13, size, stride)
    assert len(found) == len(wanted)
    for mask, (rows, columns) in zip(cover_by_hand(found, 11, 13), wanted, strict=True):
        by_hand = np.zeros((11, 13), bool)
        by_hand[np.ix_(rows, columns)] = True
        assert np.array_equal(mask, by_hand)


def test_where_the_channels_are():
    for shape, grid, axis in (
        ((3, 8, 9), (8, 9), 0), ((1, 8, 9), (8, 9), 0), ((8, 9, 3), (8, 9), 2), ((8, 9, 1), (8, 9), 2), ((16, 8, 9), (8, 9), 0), ((8, 9), (8, 9), None), ((5,), (5,), None),
    ):  # fmt: skip
        assert grid_of(items_of(np.zeros((2, *shape)))) == (grid, axis)
    last = items_of(np.zeros((2, 8, 9, 3)))
    assert patches(4).make(last, 0).present(np.ones((5, 6), bool)).shape == (5, 8, 9, 1)


def test_a_table_has_columns_and_groups():
    table = pd.DataFrame(np.zeros((2, 4)), columns=["age", "b 1", "b 2", "c"])
    assert make(None, table).names == ("age", "b 1", "b 2", "c")
    for groups in ({"b": ["b 1", "b 2"]}, {"b": [1, 2]}, {"b": [np.int64(1), "b 2"]}):
        found = make(features(groups), table)
        assert found.names == ("b", "age", "c")
        assert found.labels.tolist() == [1, 0, 0, 2]
        assert found.present(np.array([[False, True, True]])).tolist() == [[True, False, False, True]]
        assert found.paint(np.array([5.0, 6, 7])).tolist() == [6, 5, 5, 7]
    assert make(features([["age", "c"], [1]]), table).names == ("age + c", "b 1", "b 2")
    for groups, said in (
        ({"b": ["d"]}, "no column 'd' in the table"),
        ({"b": [4]}, "no column 4: the table has 4"),
        ({"b": [-1]}, "column -1"),
        ({"a": [0], "b": ["age"]}, "'age' twice"),
        ({"a": []}, "'a' is empty"),
        ({"age": ["c"]}, "'age' names two components"),
        ({"a": "age"}, "list"),
        ([3], "list"),
        ({"a": [1.5]}, "1.5"),
    ):
        with pytest.raises(InputError, match=said):
            make(features(groups), table)
    with pytest.raises(InputError, match="features need a table"):
        make("features", picture())


def test_what_cannot_be_made():
    for chosen, said in (
        ("segments", "choose one of 'pixels'"),
        (np.zeros((11, 13)), r"components= is float64 \[11, 13\]"),
        (np.zeros((13, 11), int), r"\[13, 11\], the input's grid is \[11, 13\]"),
        (patches(14), "do not fit"),
    ):
        with pytest.raises(InputError, match=said):
            make(chosen, picture())
    for call in (lambda: patches(0), lambda: patches(3, 0), lambda: patches((3, -1)), lambda: superpixels("slick")):
        with pytest.raises(InputError):
            call()
    for bad in ("a", 2.5, (1, 2, 3), None, True):
        with pytest.raises(InputError, match="size="):
            patches(bad)
    with pytest.raises(InputError, match="patches need a picture"):
        make(patches(2), np.zeros((1, 5)))
    with pytest.raises(InputError, match="superpixels need a picture"):
        make("superpixels", np.zeros((1, 5, 5)))
    with pytest.raises(InputError, match="n_segmentz"):
        make(superpixels(n_segmentz=5), picture())


def test_regions_are_named_by_their_place():
    labels = np.arange(9).reshape(3, 3).repeat(4, 0).repeat(4, 1)
    names = from_labels(labels, items_of(np.zeros((1, 3, 12, 12)))).names
    assert [n.split("(")[1][:-1] for n in names] == [
        "upper left",
        "upper",
        "upper right",
        "left",
        "middle",
        "right",
        "lower left",
        "lower",
        "lower right",
    ]


# ---- absent -------------------------------------------------------------------------------------------------------


def layouts():
    x = picture(12, 9)
    return {
        "nchw": x,
        "nhwc": x.transpose(0, 2, 3, 1),
        "bytes": (x.transpose(0, 2, 3, 1) * 255).astype(np.uint8),
        "torch": torch.from_numpy(x).float(),
    }


def item_absent(baseline, x, i=0, components=None, seed=0):
    items = aw.wrap(torch.nn.Identity().eval()).prepare(x) if isinstance(x, torch.Tensor) else items_of(x)
    found = recipe(patches(3) if components is None else components, items).make(items, i)
    return absent(baseline, items, i, found, seed)


@pytest.mark.parametrize("layout", layouts())
@pytest.mark.parametrize("name", ["grey", "mean", "component_mean", "blur", "noise", "auto"])
def test_named_baselines_in_every_layout(layout, name):
    x = layouts()[layout]
    labels = np.arange(108).reshape(12, 9) // 11
    rows, said = item_absent(name, x, 1, labels)
    item = np.asarray(x[1])
    assert rows.shape == (1, *item.shape)
    assert rows.dtype == item.dtype
    last = (lambda a: a) if layout in ("nhwc", "bytes") else (lambda a: np.moveaxis(a, 0, -1))
    got, own = last(rows[0]).astype(float), last(item).astype(float)  # [h, w, c]
    rounding = 0.51 if layout == "bytes" else 1e-6
    if name in ("grey", "auto"):
        assert said == "grey"
        assert (got == (127 if layout == "bytes" else 0.5)).all()
    for c in range(3):
        if name == "mean":
            np.testing.assert_allclose(got[..., c], own[..., c].mean(), atol=rounding)
        if name == "component_mean":
            for k in range(10):
                np.testing.assert_allclose(got[..., c][labels == k], own[..., c][labels == k].mean(), atol=rounding)
        if name == "blur":
            np.testing.assert_allclose(got[..., c], gaussian_filter(own[..., c], 1.0), atol=rounding)
        if name == "noise":
            wide = np.random.default_rng([0, 1]).standard_normal(item.shape)
            wanted = own[..., c].mean() + own[..., c].std() * last(wide)[..., c]
            np.testing.assert_allclose(got[..., c], wanted.clip(0, 255) if layout == "bytes" else wanted, atol=rounding)


def test_noise_follows_the_seed_and_the_item():
    x = picture()
    first = item_absent("noise", x, 0, seed=3)[0]
    assert np.array_equal(first, item_absent("noise", x, 0, seed=3)[0])
    assert not np.array_equal(first, item_absent("noise", x, 0, seed=4)[0])
    assert not np.array_equal(first, item_absent("noise", np.stack([x[0], x[0]]), 1, seed=3)[0])


def test_numbers_arrays_and_background_rows():
    x = picture(12, 9)
    for given, said, wanted in (
        (0, "0", np.zeros((1, 3, 12, 9))),
        (-1.5, "-1.5", np.full((1, 3, 12, 9), -1.5)),
        (np.float32(2), "2.0", np.full((1, 3, 12, 9), 2.0)),
        (torch.tensor(3), "3", np.full((1, 3, 12, 9), 3.0)),
        (x[1], "given [3, 12, 9]", x[1:]),
        (torch.from_numpy(x[1]), "given [3, 12, 9]", x[1:]),
        (x, "2 background rows", x),
        (x[:1], "1 background rows", x[:1]),
        ([1.0, 2.0, 3.0], "given [3, 12, 9]", np.array([1.0, 2, 3])[None, :, None, None] * np.ones((1, 1, 12, 9))),
    ):
        rows, name = item_absent(given, x)
        assert name == said
        np.testing.assert_array_equal(rows, wanted)
    last, _ = item_absent([1.0, 2.0, 3.0], x.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(last[0, 0, 0], [1, 2, 3])
    for bad in (
        np.zeros((2, 2)),
        np.zeros(4),
        np.zeros((0, 3, 12, 9)),
        np.zeros((3, 9, 12)),
        "gray",
        "dark",
        ["a", "b", "c"],
        np.full((3, 12, 9), np.nan),
        np.inf,
    ):
        with pytest.raises(InputError, match="baseline"):
            item_absent(bad, x)


def test_tables_need_rows_or_values():
    table = np.arange(6.0).reshape(2, 3)
    for name in ("auto", "mean", "noise", "grey"):
        with pytest.raises(InputError, match="means nothing for a table; give background="):
            item_absent(name, table, components="features")
    assert item_absent(table, table, components="features")[1] == "2 background rows"
    assert item_absent([1, 2, 3], table, components="features")[0].tolist() == [[1, 2, 3]]
    with pytest.raises(InputError, match="the baseline has the shape"):
        item_absent([1, 2], table, components="features")


def test_grey_is_known_only_where_the_scale_is():
    x = picture()
    assert item_absent("auto", x * 255)[0].max() == 127
    assert item_absent("auto", x * 4 - 2)[1] == "mean"
    assert item_absent("auto", x * 400)[1] == "mean"
    with pytest.raises(InputError, match="unknown for an input from"):
        item_absent("grey", x - 0.5)
    turned = items_of(Image.new("RGB", (20, 20), "red"), transform=lambda p: np.asarray(p, dtype=np.float32) / 100 - 1)
    assert absent("auto", turned, 0, patches(4).make(turned, 0))[0].max() == pytest.approx(0.27)


def test_a_component_mean_of_windows_is_refused():
    with pytest.raises(InputError, match="components that do not overlap"):
        item_absent("component_mean", picture())
