"""The rules of examples/pointing_game.py, on pictures made here; the cut-outs themselves are not needed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import askwhy as aw
from askwhy.zoo import PHOTOS, imagenet_labels, lite0_input, squeezenet_input

SCRIPT = Path(__file__).parent.parent / "examples" / "pointing_game.py"


@pytest.fixture(scope="module")
def game():
    spec = importlib.util.spec_from_file_location("pointing_game", SCRIPT)
    sys.modules["pointing_game"] = module = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["pointing_game"]


MASK = np.array([[True, True], [False, False]])


def model(transform, labels=("red", "green")):
    """Its scores are the mean red and the mean green."""
    head = torch.nn.Conv2d(3, 2, 1, bias=False)
    head.weight.data = torch.eye(3)[:2, :, None, None].clone()
    return aw.wrap(torch.nn.Sequential(head, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval(), labels=labels, transform=transform)


# ---- a hit -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heat", "expected"),
    [
        ([[0, 2], [1, 0]], 1),
        ([[0, 1], [2, 0]], 0),
        ([[2, 0], [2, 0]], 1 / 2),
        ([[2, 0], [2, 2]], 1 / 3),
        ([[2 + 1e-12, 0], [2, 0]], 1 / 2),  # rounding is no difference
        ([[0, 0], [0, 0]], 1 / 2),  # an empty map points nowhere: chance
    ],
)
def test_a_hit_is_the_share_of_the_maxima_in_the_mask(game, heat, expected):
    assert game.hit(np.array(heat, dtype=float), MASK) == pytest.approx(expected)


@pytest.mark.parametrize(("heat", "expected"), [([[3, 0], [1, 0]], 3 / 4), ([[0, 0], [1, 0]], 0), ([[0, 0], [0, 0]], 1 / 2)])
def test_the_share_of_the_map_inside_the_mask(game, heat, expected):
    assert game.inside(np.array(heat, dtype=float), MASK) == pytest.approx(expected)


def test_what_speaks_against_the_class_does_not_point(game):
    against = np.array([[-9.0, 0], [1, 0]])
    assert game.marks(against, MASK)[0] == 0
    assert game.marks(-np.ones((2, 2)), MASK)[0] == pytest.approx(1 / 2)


def test_blurring_finds_the_many_weak_pixels_and_signs_cancel_in_it(game):
    heat, mask = np.zeros((100, 100)), np.zeros((100, 100), dtype=bool)
    mask[:50] = True
    heat[20:30, 20:30] = 1  # in the mask: many weak ones
    heat[80, 80] = 5  # outside: one strong one
    heat[70:80, 20:30] = np.indices((10, 10)).sum(0) % 2 * 6 - 3  # outside: strong, but of both signs
    assert [game.hit(part, mask) for part in (heat, game.blurred(np.where(mask, heat, 0)))] == [0, 1]
    sharp, blurred, with_signs, _ = game.marks(heat, mask)
    assert (sharp, blurred, with_signs) == (0, 0, 1)


# ---- the pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("transform", "side"), [(lite0_input, 224), (squeezenet_input, 227)])
@pytest.mark.parametrize("size", [(512, 256), (300, 451)])
def test_the_mask_goes_through_the_models_own_transform(game, transform, side, size):
    scale = 256 / min(size)
    left, top = ((round(length * scale) - side) // 2 for length in size)  # what the crop takes away
    box = [round(v / scale) for v in (left + 50, top + 20, left + 120, top + 200)]
    mask = Image.new("L", size)
    mask.paste(255, box)
    found = game.seen(model(transform), mask)
    assert found.shape == (side, side)
    rows, columns = (np.flatnonzero(found.any(axis)) for axis in (1, 0))
    assert np.abs(np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) - (50, 20, 120, 200)).max() <= 1
    assert found.sum() == len(rows) * len(columns)


def test_what_the_crop_takes_away_is_not_in_the_mask(game):
    mask = Image.new("L", (512, 256))
    mask.paste(255, (0, 0, 100, 256))
    assert not game.seen(model(lite0_input), mask).any()


@pytest.mark.parametrize("shape", [(40, 80), (300, 90)])
def test_a_cut_out_lies_in_the_part_that_the_networks_see(game, shape):
    stamp, scene = Image.new("RGBA", shape, "red"), Image.new("RGB", (400, 240), "white")
    stamp.paste((0, 0, 0, 0), (10, 10, 30, 30))  # a hole: the mask follows the alpha, and is no box
    places = set()
    for seed in range(20):
        photo, mask = game.paste(stamp, scene, np.random.default_rng(seed))
        left, top, right, bottom = box = mask.getbbox()
        assert max(right - left, bottom - top) == pytest.approx(game.SIZE * game.VISIBLE * 240, abs=1)
        assert left >= 94
        assert right <= 306
        assert top >= 14
        assert bottom <= 226
        assert np.array_equal(np.asarray(photo)[:, :, 1] < 128, np.asarray(mask) > 127)  # red where the mask is
        assert 0 < (np.asarray(mask.crop(box)) < 128).mean() < 0.5
        places.add(box)
    assert len(places) > 10
    assert scene.getcolors() == [(400 * 240, (255, 255, 255))]  # the next one needs it as it was


def test_the_tables_of_the_script_name_what_there_is(game):
    assert set(game.SUBJECTS.values()) <= set(imagenet_labels())
    assert set(game.SCENES) <= set(PHOTOS)
    assert {name for held in game.SCENES.values() for name in held} <= set(game.SUBJECTS.values())


def test_a_row_holds_means_and_binomial_errors(game):
    found = np.array([[1, 0, 1, 0.5], [0, 0, 1, 0.1]])
    assert game.row("it", found, [1, 0, 0, 0], 1.234) == "| it | 0.50 ± 0.35 | 0.00 ± 0.00 | 1.00 ± 0.00 | 0.30 | 0.25 ± 0.22 | 2 | 1.23 |"
    assert game.row("it", found, [], 1.234).endswith("| 0.30 |  | 2 | 1.23 |")


# ---- a whole game ----------------------------------------------------------------------------------------------------


def shrink(photo):
    return torch.from_numpy(np.asarray(photo.resize((32, 32)), dtype=np.float32) / 255).permute(2, 0, 1)


def test_a_whole_game(game, monkeypatch, tmp_path):
    """A red disk for a model that sees red, and a blue one, which no class is and no picture is kept of."""
    for colour in ("red", "blue"):
        stamp = Image.new("RGBA", (50, 50), colour)
        stamp.putalpha(Image.fromarray(((np.indices((50, 50)) - 24.5) ** 2).sum(0) < 600).convert("L"))
        stamp.save(tmp_path / f"{colour}.png")
    seeing = model(shrink)
    monkeypatch.setattr(game, "SUBJECTS", {"red": "red", "blue": "green"})
    monkeypatch.setattr(game, "SCENES", {"moon": (), "page": ()})
    monkeypatch.setattr(game, "RANK", 1)
    monkeypatch.setattr(aw.zoo, "photo", lambda name: Image.new("RGB", (64, 64), "black"))
    monkeypatch.setattr(aw.zoo, "load", lambda name: seeing)
    asked = [game.ask(seeing, "input_x_gradient"), game.ask(seeing, "occlusion", slow=True, size=4), game.ask(seeing, "guided_backprop")]
    monkeypatch.setattr(game, "players", lambda model: asked)
    text = "\n".join(game.table("red", tmp_path, 9))
    assert f"{game.OFTEN} pictures of 1 classes" in text
    pixels, boxes, refused = text.strip().splitlines()[-3:]
    assert pixels.startswith("| `input_x_gradient` | 1.00 ± 0.00 | 1.00 ± 0.00 | 1.00 ± 0.00 | 0.95 | ")  # the mask ends where the alpha is half
    assert pixels.split(" | ")[-2] == str(game.OFTEN)
    assert boxes.startswith("| `occlusion`, size=4 | 1.00 ± 0.00 |")
    assert boxes.split(" | ")[-2] == "1"  # every third picture
    assert refused.startswith("| `guided_backprop` | refused: ")
    assert {line.count("|") for line in (pixels, boxes, refused)} == {9}
