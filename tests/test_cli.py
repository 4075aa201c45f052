"""The command line as a user meets it: every mistake is one sentence, exit code 1, and no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image
from typer.testing import CliRunner

import askwhy as aw
from askwhy.cli import app, asking
from askwhy.cli.named import load_model

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
    real, calls = asking.top_classes, []

    def interrupted(model, photo, k=5):
        calls.append(photo)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(model, photo, k)

    monkeypatch.setattr(asking, "top_classes", interrupted)
    code, _, err = ask("explain", "photo.png", "photo.png", "--model", "own.py:good", "--method", "saliency", "--out", "r.html")
    assert code == 1
    assert "1 of 2 photos were explained" in err
    assert (place / "r.html").exists()


def test_methods_and_help_and_version():
    code, said, _ = ask("methods")
    assert code == 0
    assert all(m.name in said and m.asks in said for m in aw.methods())
    assert {m["name"] for m in json.loads(ask("methods", "--json")[1])} == {m.name for m in aw.methods()}
    for verb in ("explain", "importance", "effect", "methods", "demo"):
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
    monkeypatch.setattr(asking, "DEMO_METHODS", "saliency,grad_cam,guided_backprop")  # the others take their time
    out = tmp_path / "demo.html"
    code, said, _ = ask("demo", "--out", str(out))
    assert code == 0
    assert "tiger cat 0.39" in said
    assert "Guided backpropagation" in out.read_text()


# ---- texts and rows -------------------------------------------------------------------------------------------------

OTHERS = """
import numpy as np
import pandas

COLUMNS = ["age", "hours", "work"]

def decide(table):
    assert list(table.columns) == COLUMNS
    rich = 1 / (1 + np.exp(-(table["age"] - 40) / 10 - 2 * (table["work"] == "office")))
    return np.stack([1 - rich, rich], 1)

def income():
    import askwhy
    return askwhy.wrap(decide, labels=["poor", "rich"])

def forest():
    from sklearn.linear_model import LogisticRegression
    table = pandas.read_csv("people.csv")
    return LogisticRegression().fit(table[["hours", "age"]], table["income"])

def numbers():
    return lambda table: table["age"] / 100

def read(texts):
    good = np.array([text.lower().count("good") + text.count("好") - text.lower().count("bad") for text in texts])
    return np.stack([-good, good], 1)

def review():
    import askwhy
    return askwhy.wrap(read, labels=["negative", "positive"])

def fails_on_texts():
    return lambda texts: 1 / 0
"""
PEOPLE = "age,hours,work,income\n" + "".join(
    f"{20 + 2 * k},{10 + 7 * k % 50},{'office' if k % 3 else 'field'},{'rich' if k > 12 else 'poor'}\n" for k in range(25)
)
REVIEWS = 'text,stars\nA good film with a good end,5\n"这部电影很好, 好看",4\nNA,1\n,2\n'
ROW = ("explain", "people.csv", "--model", "others.py:income", "--drop", "income")


@pytest.fixture
def desk(place: Path) -> Path:
    (place / "others.py").write_text(OTHERS, encoding="utf-8")
    (place / "people.csv").write_text(PEOPLE)
    (place / "reviews.csv").write_text(REVIEWS, encoding="utf-8")
    return place


def people() -> tuple[object, object]:
    """The table without its labels, and the rows that row 3 is compared with."""
    table = pandas.read_csv("people.csv").drop(columns="income")
    return table, table.drop(index=3)


def test_rows_become_a_report(desk):
    code, said, err = ask(*ROW, "--row", "3", "--row", "20", "--row", "3", "--samples", "200", "--out", "r.html")
    assert code == 0
    page = (desk / "r.html").read_text("utf-8")
    for words in ("row 3 of people.csv", "row 20 of people.csv", "age = 26", "Shapley values", "LIME", "What the model answers", "pandas.DataFrame("):
        assert words in page, words
    assert said.count("lime:") == 2
    assert "compared with 24 other rows of people.csv; --background FILE" in err
    assert "photo" not in page


def test_a_row_has_the_numbers_of_the_library(desk):
    code, said, _ = ask(*ROW, "--row", "3", "--method", "lime,shapley", "--samples", "300", "--seed", "2", "--target", "rich", "--json")
    assert code == 0
    (case,) = json.loads(said)
    table, rest = people()
    model = load_model("others.py:income")
    for found, method in zip(case["explanations"], (aw.lime, aw.shapley), strict=True):
        why = method(model, table.iloc[[3]], "rich", background=rest, samples=300, seed=2)
        np.testing.assert_allclose(found["values"], why.values[0], rtol=1e-6)
    assert (case["row"], found["seed"], found["holds"]) == (3, 2, ["26", "31", "field"])
    assert "photo" not in case


def test_the_background_is_the_one_that_is_named_or_a_hundred_other_rows(desk):
    (desk / "train.csv").write_text("work,age,hours,income\n" + "office,50,40,rich\nfield,20,10,poor\n" * 8)
    _, said, err = ask(*ROW, "--row", "3", "--method", "shapley", "--background", "train.csv", "--json")
    table, _ = people()
    train = pandas.read_csv("train.csv")[list(table.columns)]
    why = aw.shapley(load_model("others.py:income"), table.iloc[[3]], background=train)
    np.testing.assert_allclose(json.loads(said)[0]["explanations"][0]["values"], why.values[0], rtol=1e-6)
    assert "compared with 16 rows of train.csv" in err
    head, *lines = PEOPLE.splitlines()
    (desk / "people.csv").write_text("\n".join([head, *lines * 8]) + "\n")
    _, said, err = ask(*ROW, "--row", "3", "--method", "shapley", "--json")
    assert "100 other rows" in err
    assert json.loads(said)[0]["explanations"][0]["params"]["background"] == "table [100, 3]"


def test_columns_that_the_model_knows_are_taken_in_its_order_and_others_left_out(desk):
    code, said, err = ask("explain", "people.csv", "--model", "others.py:forest", "--row", "3", "--method", "shapley", "--json")
    assert code == 0
    assert json.loads(said)[0]["explanations"][0]["components"] == ["hours", "age"]
    assert "not trained on work, income, so they are left out" in err


def test_a_whole_table_becomes_a_table_of_numbers(desk):
    code, said, _ = ask(*ROW, "--method", "shapley,lime", "--samples", "200", "--out", "r.csv")
    assert code == 0
    found = pandas.read_csv("r.csv")
    assert list(found.columns) == ["item", "method", "target", "versus", "score", "base_value", "component", "holds", "value", "std_error"]
    assert len(found) == 25 * 2 * 3
    assert f"50 answers: {desk / 'r.csv'}" in said
    one = found[(found["item"] == 3) & (found["method"] == "shapley")]
    table, _ = people()
    why = aw.shapley(load_model("others.py:income"), table.iloc[[3]], "rich", background=table, samples=200)
    assert set(found["target"]) == {"rich"}, "one class for all rows, whatever they are taken for"
    np.testing.assert_allclose(one["value"], why.values[0])
    assert list(one["component"]) == ["age", "hours", "work"]
    assert list(one["holds"]) == ["26", "31", "field"]
    np.testing.assert_allclose(one["value"].sum() + one["base_value"].iloc[0], one["score"].iloc[0])
    assert found[found["method"] == "lime"]["std_error"].notna().all()


def test_a_whole_table_becomes_one_explanation(desk):
    code, _, _ = ask(*ROW, "--rows", "2:5", "--method", "lime", "--samples", "200", "--out", "r.npz")
    assert code == 0
    why = aw.Explanation.load("r.npz")
    table, _ = people()
    one = aw.lime(load_model("others.py:income"), table.iloc[[3]], "rich", background=table, samples=200)
    assert len(why) == 3
    assert why.details["item"] == tuple(f"row {k} of people.csv" for k in (2, 3, 4))
    np.testing.assert_allclose(why[1].values, one.values)
    np.testing.assert_allclose(why[1].std_error, one.std_error)
    assert why[1].details["fidelity"] == one.details["fidelity"]
    assert why[1].components == one.components
    assert why.model_calls == 3 * one.model_calls


def test_what_only_some_items_know_stays_when_they_are_joined():
    from dataclasses import replace

    from askwhy.cli.results import joined

    why = aw.shapley(lambda x: x.sum(1), np.ones((1, 2)), background=np.zeros((1, 2)))
    found = joined([replace(why, details={}), replace(why, details={"note": "rough"}), replace(why, details={"note": "rough"})])
    assert found.details["note"] == "rough"
    assert "rough" in found.summary()


def test_texts_of_different_length_become_one_explanation(desk):
    code, _, _ = ask(
        "explain", "--text", "good", "--text", "a bad film, good end", "--model", "others.py:review", "--method", "shapley", "--out", "r.npz"
    )
    assert code == 0
    why = aw.Explanation.load("r.npz")
    assert why.values.shape == (2, 5)
    assert why[0].values.shape == (1, 1)
    np.testing.assert_allclose(why[1].values, aw.shapley(load_model("others.py:review"), "a bad film, good end").values)
    assert why[1].readings[0].text == "a bad film, good end"


def test_texts_of_a_column_become_a_report(desk):
    code, said, _ = ask(
        "explain", "reviews.csv", "--column", "text", "--rows", ":3", "--model", "others.py:review", "--samples", "100", "--out", "r.html"
    )
    assert code == 0
    page = (desk / "r.html").read_text("utf-8")
    assert "这部电影很好, 好看" in page
    assert "row 2 of reviews.csv: NA" in page, "NA is a text, and no missing value"
    assert page.count("What the methods found") == 3
    assert "row 0 of reviews.csv: positive" in said


def test_texts_on_the_command_line(desk):
    code, said, _ = ask("explain", "--text", "A good film", "--text", "[b]ad", "--model", "others.py:review", "--method", "occlusion", "--json")
    assert code == 0
    first, second = json.loads(said)
    assert (first["text"], second["text"]) == ("A good film", "[b]ad")
    assert first["explanations"][0]["components"] == ["A", "good", "film"]
    assert first["explanations"][0]["values"] == [0, 1, 0]
    assert "row" not in first


def test_a_single_number_has_no_classes(desk):
    code, said, _ = ask("explain", "people.csv", "--model", "others.py:numbers", "--row", "0", "--method", "shapley", "--out", "r.html")
    assert code == 0
    assert said.startswith("row 0 of people.csv\n")
    assert "for a lower one" in (desk / "r.html").read_text("utf-8")


def test_a_saved_model_explains_rows(desk):
    xgboost = pytest.importorskip("xgboost")
    table = pandas.read_csv("people.csv")
    xgboost.XGBClassifier(n_estimators=3).fit(table[["age", "hours"]], table["income"] == "rich").save_model("model.json")
    code, said, err = ask("explain", "people.csv", "--model", "model.json", "--row", "1", "--method", "shapley", "--json")
    assert code == 0
    assert "work, income" in err
    assert json.loads(said)[0]["explanations"][0]["components"] == ["age", "hours"]


def test_one_row_that_fails_does_not_stop_the_others(desk):
    code, said, err = ask("explain", "--text", "!!!", "--text", "good", "--model", "others.py:review", "--method", "shapley", "--json")
    assert code == 1
    assert "text 1: shapley refuses: text 0 ('!!!') holds no word" in err
    assert "no method could explain text 1; see" in err
    assert [len(case["explanations"]) for case in json.loads(said)] == [0, 1]


def test_an_interrupt_keeps_the_rows_that_are_done(desk, monkeypatch):
    import askwhy.ask

    real, calls = askwhy.ask.explain, []

    def interrupted(*words, **options):
        calls.append(words)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*words, **options)

    monkeypatch.setattr(askwhy.ask, "explain", interrupted)
    code, _, err = ask(*ROW, "--method", "shapley", "--out", "r.csv")
    assert code == 1
    assert "2 of 25 rows were explained" in err
    assert set(pandas.read_csv("r.csv")["item"]) == {0, 1}


TABLE = ("--model", "others.py:income", "--method", "shapley")
TEXT = ("--column", "text", "--model", "others.py:review")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["people.csv", "--row", "3"], "--model is missing: name the model that explains rows"),
        (["many.csv", *TEXT], "many.csv has 21 rows; name some with --row 3 or --rows 0:20, or explain all with --out result.csv"),
        (["people.csv", *TABLE, "--row", "25"], "--row 25: people.csv has 25 rows, 0 to 24"),
        (["people.csv", *TABLE, "--row", "-1"], "--row -1: people.csv has 25 rows"),
        (["people.csv", *TABLE, "--rows", "30:40"], "--rows 30:40 names none of the 25 rows"),
        (["people.csv", *TABLE, "--rows", "3"], "--rows 3: give START:STOP"),
        (["people.csv", *TABLE, "--row", "1", "--drop", "incom"], "--drop incom: people.csv has no such column; did you mean 'income'"),
        (["people.csv", *TABLE, "--row", "1"], "the model failed on an input of shape"),
        (["people.csv", *TEXT], "people.csv has no column 'text'; known are 'age'"),
        (["people.csv", *TABLE, "--row", "1", "--background", "none.csv"], "none.csv: there is no such file"),
        (["people.csv", *TABLE, "--row", "1", "--background", "reviews.csv"], "--background reviews.csv has no column 'age'"),
        (["people.csv", *TABLE, "--row", "1", "--out", "r.xlsx"], "--out r.xlsx: give a name that ends in .html"),
        (
            ["people.csv", "--row", "1", "--model", "others.py:income", "--out", "r.npz"],
            "r.npz holds the answers of one method, and these are auto, lime",
        ),
        (["people.csv", "--method", "occlusion", "--samples", "9"], "--samples: occlusion has no such option"),
        (["people.csv", "--method", "shaply"], "did you mean 'shapley'"),
        (["people.csv", "photo.png"], "people.csv and photo.png: name one table, or any number of photos"),
        (["people.csv", "--text", "good"], "--text and people.csv cannot be explained together"),
        (["photo.png", "--column", "text"], "--column is for the texts of a table, and photo.png is not"),
        (["photo.png", "--row", "1"], "--row is for a table (.csv, .tsv, .parquet), and photo.png is not"),
        (["--text", "good", "--drop", "x"], "--drop is for the rows of a table, and a text is not"),
        (["reviews.csv", *TEXT, "--drop", "stars"], "--drop is for the rows of a table, and its texts are not"),
        (["photo.png", "--model", "own.py:good", "--out", "r.csv"], "photos get a report (.html), or --json"),
        (["people.xlsx"], "tables are read from .csv, .tsv and .parquet files"),
        (["model.json"], "model.json looks like a model; name the rows that it is to explain with --data FILE"),
        (["model.json", "--data", "people.xlsx"], "--data people.xlsx: tables are read from .csv, .tsv and .parquet files"),
        (["a.json", "b.json", "--data", "people.csv"], "--data people.csv goes with one model, as askwhy explain model.json --data people.csv"),
        (["a.json", "--model", "b.json", "--data", "people.csv"], "and a.json and b.json are 2"),
        (["none.json", "--data", "people.csv"], "none.json: there is no such file"),
        (["others.py:income", "--data", "people.csv", "--output", "log_loss"], "--output log_loss: choose one of raw, probability"),
        (["others.py:income", "--data", "people.csv", "--method", "lime", "--interactions"], "--interactions: lime has no such option"),
        (["others.py:income", "--data", "people.csv", "--interactions"], "--interactions: shapley has no such option"),
        (
            ["others.py:numbers", "--data", "people.csv", "--target", "rich"],
            "this model has no labels; give an index, or name the classes with --classes",
        ),
        (["reviews.csv", *TEXT], "row 3 of reviews.csv has no text in the column 'text'"),
        (["reviews.csv", "--column", "txt", "--model", "others.py:review"], "reviews.csv has no column 'txt'; did you mean 'text'"),
        (["--text", " ", "--model", "others.py:review"], "--text number 1 is empty"),
        (["--text", "good", "--model", "others.py:fails_on_texts"], "ZeroDivisionError: division by zero"),
        (["--text", "good", "--model", "others.py:review", "--target", "positiv"], "did you mean 'positive'"),
        (["none.csv", *TABLE], "none.csv: there is no such file"),
        (["empty.csv", *TABLE], "empty.csv is empty"),
        (["header.csv", *TABLE], "header.csv has the names of 2 columns, but no rows"),
        (["headless.csv", *TABLE], "headless.csv begins with numbers (1, 2.5)"),
        (["latin.csv", *TABLE], "latin.csv is not written in UTF-8"),
        (["semicolon.csv", *TABLE], "semicolon.csv has its columns apart by ';'"),
        (["single.csv", *TABLE], "single.csv has one column, 'text'; if that holds the texts to explain, add --column 'text'"),
        (["ragged.csv", *TABLE], "ragged.csv cannot be read as a table"),
        (["wide.csv", *TABLE], "wide.csv has more cells in its rows than names"),
        (["alone.csv", *TABLE], "alone.csv has only one row"),
        (["alone.csv", "--model", "others.py:forest"], "alone.csv has no column 'hours', which the model was trained on"),
        (["folder.csv", *TABLE], "folder.csv cannot be read"),
        (["people.csv", "--row", "1", "--model", "model.pkl"], "model.pkl is a pickle"),
        (["people.csv", "--row", "1", "--model", "model.onnx"], "model.onnx: there is no such file"),
    ],
)
def test_a_mistake_about_texts_and_tables_is_one_sentence(desk, words, expected):
    (desk / "empty.csv").write_text("")
    (desk / "many.csv").write_text("text,stars\n" + "good,1\n" * 21)
    (desk / "header.csv").write_text("a,b\n")
    (desk / "headless.csv").write_text("1,2.5\n3,4\n")
    (desk / "latin.csv").write_bytes("a,b\ncafé,1\n".encode("latin-1"))
    (desk / "semicolon.csv").write_text("a;b\n1;2\n")
    (desk / "single.csv").write_text("text\ngood\nbad\n")
    (desk / "ragged.csv").write_text("a,b\n1,2\n1,2,3,4\n")
    (desk / "wide.csv").write_text("a,b\n1,2,3\n1,2,3\n")
    (desk / "alone.csv").write_text("age,work\n30,office\n")
    (desk / "folder.csv").mkdir()
    code, _, err = ask("explain", *words)
    assert expected in err
    assert code == 1
    assert not (desk / "report.html").exists() or "failed" in expected or "division" in expected


def test_what_excel_and_unix_write_is_read(desk):
    (desk / "excel.tsv").write_bytes(b"\xef\xbb\xbfage\thours\twork\r\n" + b"30\t40\toffice\r\n" * 12)
    code, said, _ = ask("explain", "excel.tsv", "--model", "others.py:income", "--row", "0", "--method", "shapley", "--json")
    assert code == 0
    assert json.loads(said)[0]["explanations"][0]["components"] == ["age", "hours", "work"]


def test_a_file_name_is_no_markup_of_the_progress_bar(desk):
    (desk / "[b].csv").write_text(PEOPLE)
    code, _, err = ask("explain", "[b].csv", "--model", "others.py:forest", "--row", "0", "--method", "shapley", "--json")
    assert code == 0
    assert "row 0 of [b].csv: shapley" in " ".join(err.split())


def test_without_pandas_it_is_named(desk, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    code, _, err = ask("explain", "people.csv", *TABLE, "--row", "0")
    assert code == 1
    assert "pip install 'askwhy[table]'" in err
