"""Portraits on the command line and as a page."""

from __future__ import annotations

import json
import re

import pytest
from PIL import Image
from typer.testing import CliRunner

import askwhy as aw
from askwhy.cli import app
from askwhy.errors import InputError
from askwhy.report.dreams import render_dreams

MODEL = """
import torch
from torch import nn
import askwhy as aw

def make(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3)).eval()
    import numpy as np
    see = lambda photo: torch.from_numpy(np.asarray(photo.resize((16, 16)), np.float32) / 255).permute(2, 0, 1)
    return aw.wrap(net, labels=["cat", "<dog>", "鱼"], transform=see)

def other():
    return make(1)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "m.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["dream", *words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def test_a_page_of_classes_and_filters(folder):
    code, said, beside = run(
        "m.py:make",
        "--target",
        "cat",
        "--target",
        "<dog>",
        "--layer",
        "0",
        "--channels",
        "1,4",
        "--preset",
        "naive,lucid",
        "--steps",
        "4",
        "--judge",
        "m.py:other",
    )
    assert code == 0, beside
    page = (folder / "dreams.html").read_text("utf-8")
    assert page.count('alt="portrait of') == 8
    assert "&lt;dog&gt;" in page
    assert "<dog>" not in page
    assert "Filters of layer 0, lucid" in page
    assert "judge puts it at rank" in page
    assert not re.search(r"https?://(?!arxiv|doi)", page.replace("http://www.w3.org", "")), "the page asks no network"
    assert said.count("activation maximization") == 4
    assert "written to" in beside


def test_numbers_and_pictures(folder):
    for k in range(20):
        Image.effect_noise((20, 20), 40 + k).convert("RGB").save(folder / f"photo{k}.png")
    code, said, _ = run("m.py:make", "--target", "鱼", "--steps", "3", "--judge", "m.py:other", "--images", ".", "--json")
    assert code == 0
    (told,) = json.loads(said)
    assert told["target"] == ["鱼"]
    assert 1 <= told["judge_rank"][0] <= 3
    assert len(told["natural"]) == len(told["layers"])
    code, _, _ = run("m.py:make", "--target", "2", "--steps", "3", "--out", "fish.npz")
    assert aw.Portrait.load("fish.npz").target == ("鱼",)
    assert run("m.py:make", "--target", "2", "--steps", "3", "--out", "fish.png")[0] == 0
    assert (folder / "fish.png").stat().st_size > 3000


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "nothing is named"),
        (["--target", "bird"], "no class"),
        (["--layer", "17"], "no such layer"),
        (["--layer", "0", "--channels", "x"], "--channels x"),
        (["--layer", "0", "--channels", "99"], "99"),
        (["--target", "cat", "--preset", "lucent"], "lucid"),
        (["--target", "cat", "--out", "a.txt"], "a.txt"),
        (["--target", "cat", "--layer", "0", "--out", "a.png"], "2 are asked for"),
        (["--target", "cat", "--images", "nowhere"], "no such folder"),
        (["--target", "cat", "--steps", "0"], "steps=0"),
    ],
)
def test_mistakes_are_one_sentence(folder, words, why):
    code, _, said = run("m.py:make", *words)
    assert code == 1
    assert why in said
    assert "Traceback" not in said
    assert not (folder / "dreams.html").exists()


def test_an_empty_page_is_refused():
    with pytest.raises(InputError):
        render_dreams([], "m")
