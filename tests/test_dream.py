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

def lynx():
    return aw.wrap(make(1).net, labels=["lynx", "b", "c"], transform=make().transform)

class Tokens(nn.Module):
    # 16 tokens of 4 numbers, the channels last

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.block, self.tokens = nn.Conv2d(3, 4, 4, 4), nn.Linear(4, 4), nn.LSTM(4, 5, batch_first=True)
        self.rnn, self.head = nn.RNN(5, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        tokens, _ = self.rnn(self.tokens(self.block(self.patch(x).flatten(2).transpose(1, 2)))[0])
        return self.head(tokens.mean(1))

def tokens():
    return aw.wrap(Tokens().eval(), labels=["a", "b"], transform=make().transform)
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
    code, said, _ = run("m.py:make", "--target", "鱼", "--steps", "3", "--views", "4", "--judge", "m.py:other", "--images", ".", "--json")
    assert code == 0
    (told,) = json.loads(said)
    assert told["model_calls"] == 3 * 4
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
        (["--layer", "0", "--channels", "0:7"], "--channels 0:7: layer '0' has 6 channels, counted from 0 to 5"),
        (["--target", "cat", "--preset", "lucent"], "lucid"),
        (["--target", "cat", "--out", "a.txt"], "a.txt"),
        (["--target", "cat", "--layer", "0", "--out", "a.png"], "2 are asked for"),
        (["--target", "cat", "--images", "nowhere"], "no such folder"),
        (["--target", "cat", "--steps", "0"], "steps=0"),
        (["--target", "cat", "--views", "0"], "views=0"),
        (["--target", "cat", "--preset", "naive", "--views", "2"], "views=2: without noise or motion"),
    ],
)
def test_mistakes_are_one_sentence(folder, words, why):
    code, _, said = run("m.py:make", *words)
    assert code == 1
    assert why in said
    assert "Traceback" not in said
    assert not (folder / "dreams.html").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--target", "cat", "--preset", "naive,lucent"], "lucid"),
        (["--target", "cat", "--layer", "0", "--channels", "0:7"], "has 6 channels"),
        (["--target", "cat", "--layer", "3", "--layer", "nothing"], "no such layer"),
        (["--target", "cat", "--judge", "m.py:lynx"], "judge= knows no class 'cat'"),
        (["--target", "cat", "--seed", str(2**64)], "--seed"),
    ],
)
def test_what_can_be_known_before_the_search_is_told_before_it(folder, monkeypatch, words, why):
    from askwhy.overall.ascent import Search

    monkeypatch.setattr(Search, "climb", lambda *_: pytest.fail("the search began"))
    code, _, said = run("m.py:make", *words, "--steps", "2")
    assert code in (1, 2)
    assert why in said
    assert "Traceback" not in said


def test_a_layer_that_gives_no_one_tensor_is_told_before_the_search(folder):
    code, _, said = run("m.py:tokens", "--target", "a", "--layer", "rnn", "--steps", "2")
    assert code == 1
    assert "not one tensor" in said
    assert not (folder / "dreams.html").exists()


def test_by_default_there_are_as_many_filters_as_the_layer_has(folder):
    code, said, _ = run("m.py:make", "--layer", "0", "--layer", "4", "--steps", "2", "--json")
    assert code == 0
    assert [len(one["target"]) for one in json.loads(said)] == [6, 3]


def test_filters_are_channels_wherever_the_channels_lie(folder):
    code, said, beside = run(
        "m.py:tokens", "--layer", "patch", "--layer", "block", "--layer", "tokens", "--layer", "head", "--channels", "1", "--steps", "2", "--json"
    )
    assert code == 0, beside
    assert [one["target"] for one in json.loads(said)] == [
        ["neuron 1 of layer 'patch'"], ["neuron ..., 1 of layer 'block'"], ["neuron ..., 1 of layer 'tokens'"], ["neuron 1 of layer 'head'"],
    ]  # fmt: skip


def test_what_was_found_is_written_though_a_later_search_fails(folder, monkeypatch):
    from askwhy.overall import maximize
    from askwhy.overall.maximize import activation_maximization

    def failing(model, target, **options):
        if options["preset"] == "lucid":
            raise InputError("not this one")
        return activation_maximization(model, target, **options)

    monkeypatch.setattr(maximize, "activation_maximization", failing)
    code, _, said = run("m.py:make", "--target", "cat", "--preset", "naive,lucid", "--steps", "2")
    assert code == 1
    assert "not this one" in said
    assert (folder / "dreams.html").read_text("utf-8").count('alt="portrait of') == 1


def test_an_empty_page_is_refused():
    with pytest.raises(InputError):
        render_dreams([], "m")
