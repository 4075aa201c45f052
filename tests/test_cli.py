"""The command line as a user meets it: every mistake is one sentence, exit code 1, and no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import askwhy as aw
from askwhy.cli import app

MODEL = """
import torch
from torch import nn
import askwhy

torch.manual_seed(0)
NET = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)).eval()
LABELS = ["cat", "dog", "tiger cat"]

def to_tensor(photo):
    return torch.tensor(list(photo.resize((32, 32)).tobytes()), dtype=torch.float32).view(32, 32, 3).permute(2, 0, 1) / 255

def good():
    return askwhy.wrap(NET, labels=LABELS, transform=to_tensor)

def without_relu():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)).eval()
    return askwhy.wrap(net, labels=LABELS, transform=to_tensor)

def training():
    return askwhy.wrap(nn.Sequential(*NET).train(), transform=to_tensor)

def nan():
    return askwhy.wrap(nn.Sequential(NET, nn.Threshold(1e9, float("nan"))).eval(), transform=to_tensor)

def four_channels():
    return askwhy.wrap(nn.Sequential(nn.Conv2d(4, 4, 3), nn.Flatten()).eval(), transform=to_tensor)

def fails():
    return 1 / 0

def black_box():
    return lambda pictures: pictures.mean((1, 2)) / 255

NOT_CALLABLE = 3
"""


FAILS_AT = MODEL.splitlines().index("    return 1 / 0") + 1


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own.py").write_text(MODEL)
    blocks = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((64, 48), Image.Resampling.NEAREST).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ask(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.stderr
    return result.exit_code, result.stdout, result.stderr


def test_photos_become_a_report(place):
    code, said, _ = ask(
        "explain", "photo.png", "photo.png", "--model", "own.py:good", "--method", "saliency,grad_cam", "--target", "tiger cat", "--out", "r.html"
    )
    assert code == 0
    page = (place / "r.html").read_text()
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert "tiger cat" in page
    assert "Grad-CAM" in page
    assert f"report: {place / 'r.html'}" in said
    assert sorted(p.name for p in place.iterdir() if p.suffix != ".py" and not p.name.startswith("__")) == ["photo.png", "r.html"]


def test_json_prints_the_numbers_of_the_library_and_writes_nothing(place):
    code, said, _ = ask(
        "explain", "photo.png", "--model", "own.py:good", "--method", "occlusion,lime", "--versus", "dog", "--target", "0", "--seed", "3", "--json"
    )
    assert code == 0
    (case,) = json.loads(said)
    assert not (place / "report.html").exists()
    from askwhy.cli.named import load_model

    why = aw.lime(load_model("own.py:good"), "photo.png", "cat", versus="dog", seed=3)
    found = case["explanations"][1]
    assert found["method"] == "lime"
    assert (found["target"], found["versus"], found["seed"]) == ("cat", "dog", 3)
    np.testing.assert_allclose(found["values"], why.values[0], rtol=1e-6)
    assert sum(p["probability"] for p in case["predictions"]) == pytest.approx(1)


def test_auto_and_a_black_box(place):
    code, said, _ = ask("explain", "photo.png", "--model", "own.py:black_box", "--method", "auto", "--json")
    assert code == 0
    assert json.loads(said)[0]["explanations"][0]["method"] == "lime"


def test_a_method_that_refuses_does_not_stop_the_others(place):
    code, said, err = ask("explain", "photo.png", "--model", "own.py:without_relu", "--method", "guided_backprop,saliency", "--out", "r.html")
    assert code == 0
    assert "guided_backprop refuses" in err
    assert "saliency" in said
    assert "no ReLU" in (place / "r.html").read_text()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["missing.png"], "missing.png: there is no such file"),
        (["own.py"], "own.py is no picture that can be read"),
        (["cut.jpg"], "cut.jpg is damaged or cut short"),
        (["dot.png"], "dot.png is 1 x 1 pixels; at least"),
        (["huge.png"], "huge.png is 12000 x 9000, 108,000,000 pixels; shrink it"),
        (["."], "is a folder"),
        (["photo.png", "--target", "tigr cat"], "did you mean 'tiger cat'"),
        (["photo.png", "--target", "7"], "the model has 3 outputs, 0 to 2"),
        (["photo.png", "--versus", "bird"], "versus='bird' is no class of this model"),
        (["photo.png", "--method", "grad_cm"], "did you mean 'grad_cam'"),
        (["photo.png", "--method", ","], "names no method"),
        (["photo.png", "--out", "nowhere/r.html"], "nowhere/r.html cannot be written: the folder"),
        (["photo.png", "--out", "."], ". is a folder; name a file in it"),
        (["photo.png", "--model", "own.py:training"], "the model is in training mode"),
        (["photo.png", "--model", "own.py:nan"], "score is nan"),
        (["photo.png", "--model", "own.py:four_channels"], "model failed on an input of shape [1, 3, 32, 32]"),
        (["photo.png", "--model", "own.py:fails"], f"own.py:fails failed: ZeroDivisionError: division by zero (line {FAILS_AT})"),
        (["photo.png", "--model", "own.py:other"], "own.py has no function 'other'; it has"),
        (["photo.png", "--model", "own.py:NOT_CALLABLE"], "own.py has no function 'NOT_CALLABLE'"),
        (["photo.png", "--model", "own.py"], "say which function makes the model, as own.py:FUNCTION"),
        (["photo.png", "--model", "none.py:good"], "none.py: there is no such file"),
        (["photo.png", "--model", "eficientnet"], "did you mean 'efficientnet-lite0'"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_1(place, words, expected):
    Image.new("RGB", (1, 1)).save("dot.png")
    if "huge.png" in words:
        Image.new("1", (12000, 9000)).save("huge.png")
    Image.effect_noise((200, 200), 50).convert("RGB").save("whole.jpg")
    (place / "cut.jpg").write_bytes((place / "whole.jpg").read_bytes()[:3000])
    words = words if "--model" in words else [*words, "--model", "own.py:good"]
    words = words if "--method" in words else [*words, "--method", "saliency"]
    code, _, err = ask("explain", *words)
    assert expected in err
    assert code == 1
    assert not list(place.glob(".*")), "nothing half written"


def test_wrong_usage_is_exit_code_2(place):
    assert ask("explain")[0] == 2
    assert ask("explain", "photo.png", "--sed", "1")[0] == 2
    assert ask("explane", "photo.png")[0] == 2


def test_an_interrupt_keeps_what_is_done(place, monkeypatch):
    from askwhy.cli import asking as cli

    real, calls = cli.top_classes, []

    def interrupted(model, photo, k=5):
        calls.append(photo)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(model, photo, k)

    monkeypatch.setattr(cli, "top_classes", interrupted)
    code, _, err = ask("explain", "photo.png", "photo.png", "--model", "own.py:good", "--method", "saliency", "--out", "r.html")
    assert code == 1
    assert "1 of 2 photos were explained" in err
    assert (place / "r.html").exists()


def test_methods_and_help_and_version():
    code, said, _ = ask("methods")
    assert code == 0
    assert all(m.name in said and m.asks in said for m in aw.methods())
    assert {m["name"] for m in json.loads(ask("methods", "--json")[1])} == {m.name for m in aw.methods()}
    for verb in ("explain", "methods", "demo"):
        code, said, _ = ask(verb, "--help")
        assert code == 0
        assert len(said) > 100
    assert ask("--version")[1].strip() == aw.__version__


def test_the_command_runs_as_a_program_and_loads_nothing_heavy_for_its_help():
    script = "import sys; from askwhy.cli import app; app(['--help'], standalone_mode=False); heavy = {'torch', 'numpy', 'sklearn', 'matplotlib', 'rich.progress'} & set(sys.modules); print(heavy)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("set()")
    done = subprocess.run(
        [sys.executable, "-c", "import sys, askwhy; print({'torch', 'numpy', 'sklearn', 'matplotlib'} & set(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"


def test_the_demo_writes_a_report_about_the_cat(tmp_path, monkeypatch):
    from askwhy.cli import asking as cli

    monkeypatch.setattr(cli, "DEMO_METHODS", "saliency,grad_cam,guided_backprop")  # the others take their time
    out = tmp_path / "demo.html"
    code, said, _ = ask("demo", "--out", str(out))
    assert code == 0
    assert "tiger cat 0.39" in said
    assert "Guided backpropagation" in out.read_text()
