"""askwhy inside: photos, folders, texts and tables, from the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import askwhy as aw
from askwhy.cli import app
from askwhy.inside.activations import Activations
from askwhy.report.inside import render_inside

NET = """
import torch
import askwhy as aw

def make(channels=4):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, channels, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(4 * channels, 2)
    )
    return aw.wrap(net.eval(), transform=lambda photo: torch.tensor(__import__("numpy").asarray(photo.convert("RGB").resize((12, 12)))).permute(2, 0, 1) / 255.0)

def wide():
    return make(6)

def black_box():
    return aw.wrap(lambda X: X.mean((1, 2)))
"""


def ask(*words: object):
    return CliRunner().invoke(app, ["inside", *map(str, words)])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(NET)
    rng = np.random.default_rng(0)
    for k, name in enumerate(("dark", "light")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for j in range(10):
            pixels = (rng.random((12, 12, 3)) * 100 + 120 * k).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{j}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_photo_shows_what_its_layers_give(folder):
    photo = folder / "photos/light/3.png"
    done = ask("net.py:make", photo, "--layer", "0", "--layer", "1", "--out", "one.npz")
    assert done.exit_code == 0, done.output
    assert "where it looks: not answered: the model has no attention" in " ".join(done.stderr.split())
    found = Activations.load(folder / "one.npz")
    assert found.layers == ("0", "1")
    assert np.array_equal(found["1"], np.maximum(found["0"], 0))
    assert "0 [1, 4, 10, 10]: mean" in done.output


def test_a_page_of_photos_says_what_was_not_answered(folder):
    done = ask("net.py:make", folder / "photos/light/3.png", folder / "photos/dark/1.png", "--out", "page.html")
    assert done.exit_code == 0, done.output
    page = (folder / "page.html").read_text("utf-8")
    assert page.count('<img src="data:image/png') == 2
    assert "What happens inside net.py:make?" in page
    assert "Not answered: the model has no attention" in page
    assert "Traceback" not in done.output


def test_a_folder_for_each_class_is_placed_and_probed(folder):
    done = ask("net.py:make", "photos", "--layer", "0", "--layer", "4", "--method", "pca", "--json")
    assert done.exit_code == 0, done.output
    placed, read = json.loads(done.stdout)
    assert (placed["kind"], read["kind"]) == ("Projection", "Probe")
    assert placed["classes"] == ["dark", "light"]
    assert min(placed["told"]) > 0.9
    at = [read["layers"].index(layer) for layer in ("0", "4")]
    assert np.mean([read["scores"][k] for k in at]) > 0.9
    assert placed["points"] is not None


def test_the_page_of_a_folder_and_a_folder_without_classes(folder):
    done = ask("net.py:make", "photos", "--layer", "0", "--out", "page.html")
    assert done.exit_code == 0, done.output
    assert (folder / "page.html").read_text("utf-8").count('<img src="data:image/png') == 3
    done = ask("net.py:make", "photos/dark", "--layer", "0", "--out", "points.png")
    assert done.exit_code == 0, done.output
    with Image.open(folder / "points.png") as shown:
        assert shown.width > 200


def test_two_models_are_compared(folder):
    done = ask("net.py:make", "photos", "--beside", "net.py:wide", "--out", "both.html")
    assert done.exit_code == 0, done.output
    page = (folder / "both.html").read_text("utf-8")
    assert "net.py:make and net.py:wide" in page
    assert "centred kernel alignment" in page


def test_texts_and_a_table_of_texts(folder):
    done = ask("minilm-sentiment", "--text", "A fine film", "--json")
    assert done.exit_code == 0, done.output
    layers, looks = json.loads(done.stdout)
    assert (layers["kind"], looks["kind"]) == ("Activations", "Attention")
    assert looks["tokens"] == [["[CLS]", "A", "fine", "film", "[SEP]"]]
    words = {"good": ("fine", "great", "lovely", "superb", "charming"), "bad": ("dull", "awful", "boring", "weak", "terrible")}
    with (folder / "reviews.csv").open("w", newline="") as file:
        rows = [(f"a {word} {thing}", kind) for kind, all_words in words.items() for word in all_words for thing in ("film", "book")]
        csv.writer(file).writerows([("said", "kind"), *rows])
    layer = "encoder.encoder.layer.5"
    done = ask("minilm-sentiment", "reviews.csv", "--column", "said", "--label", "kind", "--layer", layer, "--json")
    assert done.exit_code == 0, done.output
    placed, read = json.loads(done.stdout)
    assert placed["classes"] == ["bad", "good"]
    assert read["layers"][-1] == layer


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["net.py:make"], "nothing is named"), (["net.py:make", "photos", "--text", "a"], "one of them"),
        (["net.py:make", "nowhere"], "no such file"), (["net.py:make", "photos", "--column", "a"], "is for a table of texts"),
        (["net.py:make", "empty"], "holds no photos"), (["net.py:make", "photos", "photos/dark/1.png"], "some of these photos"),
        (["net.py:make", "photos", "--method", "sne"], "choose pca, tsne, umap"), (["net.py:make", "photos", "--out", "a.gif"], "give a name that ends in"),
        (["net.py:make", "a.csv"], "--column"), (["net.py:make", "a.csv", "--column", "x", "--label", "why"], "no such column"),
        (["net.py:make", "photos", "--layer", "7"], "no such layer"), (["net.py:black_box", "photos"], "this model offers predictions only"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(folder, words, why):
    (folder / "empty").mkdir()
    (folder / "a.csv").write_text("x,y\na,1\nb,2\n")
    done = ask(*words)
    assert done.exit_code == 1
    assert why in " ".join(done.output.split())
    assert "Traceback" not in done.output
    assert not (folder / "inside.html").exists()


def test_a_page_escapes_names_and_needs_an_answer(net):
    with pytest.raises(aw.errors.InputError, match="at least one"):
        render_inside([], "m")
    why = aw.activations(net, np.zeros((1, 3, 16, 16), np.float32), ["0"])
    page = render_inside([("<b>", why)], "<script>", [("x", "<i>")])
    assert "<script>" not in page
    assert "<b>&lt;" not in page
    assert "&lt;b&gt;" in page


def test_the_pages_share_one_frame():
    templates = Path(aw.__file__).parent / "report/templates"
    for name in ("dreams.html", "inside.html"):
        assert (templates / name).read_text("utf-8").startswith('{% extends "plain.html" %}')
