"""Models of trees and whole tables on the command line: what it writes is what the library says."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas
import pytest
from typer.testing import CliRunner

import askwhy as aw
from askwhy.cli import app
from askwhy.report import whole

catboost, lightgbm, xgboost = (pytest.importorskip(name) for name in ("catboost", "lightgbm", "xgboost"))
pytest.importorskip("numba")

COLUMNS = ["age", "work place", "gap"]
RNG = np.random.default_rng(0)
PEOPLE = pandas.DataFrame(
    {
        "id": range(60),
        "gap": RNG.normal(size=60),
        "work place": np.array(["office", "field", "home"])[RNG.integers(0, 3, 60)],
        "age": RNG.integers(20, 70, 60),
    }
)
PEOPLE["income"] = np.where(PEOPLE["age"] + 20 * (PEOPLE["work place"] == "office") + 5 * PEOPLE["gap"] > 55, "rich", "poor")
PEOPLE.loc[4, "gap"] = np.nan


def typed(table: pandas.DataFrame = PEOPLE, words: str = "category") -> pandas.DataFrame:
    return table[COLUMNS].astype({"work place": words})


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("desk")
    rich, few = (PEOPLE["income"] == "rich").astype(int), {"n_estimators": 6, "max_depth": 3, "n_jobs": 1, "enable_categorical": True}
    model = xgboost.XGBClassifier(**few).fit(typed(), rich)
    model.save_model(place / "xgb.json")
    model.save_model(place / "xgb.ubj")
    lightgbm.LGBMClassifier(n_estimators=6, n_jobs=1, verbose=-1, min_data_in_leaf=3, min_data_per_group=1).fit(typed(), rich).booster_.save_model(
        place / "lgb.txt"
    )
    cat = catboost.CatBoostClassifier(
        iterations=6, depth=3, cat_features=["work place"], one_hot_max_size=9, thread_count=1, verbose=0, allow_writing_files=False
    )
    cat.fit(typed(words="str"), PEOPLE["income"]).save_model(str(place / "cat.cbm"))
    numbers, thirds = typed()[["age", "gap"]], pandas.qcut(PEOPLE["age"], 3, labels=False)
    xgboost.XGBClassifier(**few).fit(numbers.to_numpy(), rich).save_model(place / "nameless.json")
    xgboost.XGBClassifier(**few).fit(numbers, thirds).save_model(place / "thirds.json")
    xgboost.XGBRegressor(**few).fit(numbers, PEOPLE["age"] * 2.0).save_model(place / "number.json")
    xgboost.XGBRegressor(booster="gblinear", n_estimators=2).fit(numbers.fillna(0), rich).save_model(place / "linear.json")
    told = json.loads((place / "xgb.json").read_text())
    del told["learner"]["gradient_booster"]["model"]["cats"]  # as files from before XGBoost 3.1 are
    (place / "lost.json").write_text(json.dumps(told))
    (place / "cut.json").write_bytes((place / "xgb.json").read_bytes()[:4000])
    PEOPLE.to_csv(place / "rows.csv", index=False)
    for name, column, cell in (("martian", "work place", "mars"), ("endless", "gap", np.inf), ("wordy", "age", "old")):
        PEOPLE.astype({column: object}).assign(**{column: [cell if k == 7 else v for k, v in enumerate(PEOPLE[column])]}).to_csv(
            place / f"{name}.csv", index=False
        )
    PEOPLE[["age"]].assign(gap="").to_csv(place / "short.csv", index=False)
    return place


@pytest.fixture(autouse=True)
def there(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk)


def ask(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(words))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.stderr
    return result.exit_code, result.stdout, result.stderr


def done(*words: str) -> str:
    """What it says on the error channel, after it went well."""
    code, _, err = ask(*words)
    assert code == 0, err
    return err


def read_table(name: str = "r.csv") -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """values [rows, columns], and base value and score of each row"""
    lines = pandas.read_csv(name)
    return lines.pivot(index="item", columns="component", values="value"), lines.groupby("item")[["base_value", "score"]].first()


MODELS = {"xgb.json": "category", "xgb.ubj": "category", "lgb.txt": "category", "cat.cbm": "str"}


# ---- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_a_saved_model_explains_a_whole_table(model: str) -> None:
    err = done("explain", model, "--data", "rows.csv", "--method", "tree_shap", "--out", "r.csv")
    assert "the model was not trained on id, income, so they are left out" in err
    assert "the second of two classes" in err
    values, told = read_table()
    why = aw.tree_shap(model, typed(words=MODELS[model]), 1)
    np.testing.assert_allclose(values[COLUMNS], why.values, rtol=1e-9)
    np.testing.assert_allclose(told["score"], why.prediction, rtol=1e-9)
    np.testing.assert_allclose(values.sum(axis=1) + told["base_value"], told["score"], atol=1e-5)
    assert np.ptp(told["score"]) > 1, "the model has learned something"


def test_both_ways_to_name_model_and_table_say_the_same_and_a_row_does_alone() -> None:
    done("explain", "xgb.json", "--data", "rows.csv", "--method", "tree_shap", "--out", "r.csv", "--target", "1")
    done("explain", "rows.csv", "--model", "xgb.json", "--method", "tree_shap", "--out", "s.csv", "--target", "1")
    assert Path("r.csv").read_bytes() == Path("s.csv").read_bytes()
    _, said, _ = ask("explain", "xgb.json", "--data", "rows.csv", "--method", "tree_shap", "--row", "12", "--target", "1", "--json")
    (one,) = json.loads(said)
    np.testing.assert_allclose(one["explanations"][0]["values"], read_table()[0].loc[12, COLUMNS])
    assert one["explanations"][0]["params"]["value_function"] == "path-dependent", "trees know their training data"
    _, said, _ = ask("explain", "xgb.json", "--data", "rows.csv", "--rows", "12:14", "--target", "1", "--json")
    assert [case["row"] for case in json.loads(said)] == [12, 13]
    assert json.loads(said)[0]["explanations"][0]["values"] == one["explanations"][0]["values"]


def test_the_order_of_the_columns_in_the_file_does_not_matter() -> None:
    PEOPLE[["work place", "income", "age", "gap"]].to_csv("turned.csv", index=False)
    for data in ("rows", "turned"):
        done("explain", "lgb.txt", "--data", f"{data}.csv", "--method", "tree_shap", "--out", f"{data}_out.csv")
    assert read_table("rows_out.csv")[0].equals(read_table("turned_out.csv")[0])


def test_a_background_makes_values_interventional_and_can_have_categories_of_its_own() -> None:
    office, others = PEOPLE[PEOPLE["work place"] == "office"][:4], PEOPLE[PEOPLE["work place"] != "office"]
    office.to_csv("office.csv", index=False)
    others[COLUMNS].to_csv("others.csv", index=False)
    asked = ("explain", "xgb.json", "--data", "office.csv", "--background", "others.csv", "--target", "1")
    shared = pandas.CategoricalDtype(["field", "home", "office"])
    rows, rest = typed(office).astype({"work place": shared}), typed(others).astype({"work place": shared})
    for method in ("tree_shap", "shapley"):
        done(*asked, "--method", method, "--out", "r.csv")
        np.testing.assert_allclose(read_table()[0][COLUMNS], aw.explain("xgb.json", rows, method, 1, background=rest).values, rtol=1e-6, atol=1e-9)
    done(*asked, "--method", "tree_shap", "--output", "probability", "--out", "r.npz")
    why = aw.Explanation.load("r.npz")
    assert (why.unit, why.params["value_function"]) == ("probability", "interventional")
    np.testing.assert_allclose(why.base_value + why.values.sum(1), why.prediction, atol=1e-6)
    assert why.details["item"][1] == f"row 1 of {Path('office.csv')}"


def test_interactions_and_all_outputs_are_written_whole() -> None:
    done("explain", "xgb.json", "--data", "rows.csv", "--interactions", "--out", "r.npz")
    why = aw.Explanation.load("r.npz")
    np.testing.assert_allclose(why.values, aw.tree_shap("xgb.json", typed(), 1, interactions=True).values, rtol=1e-9)
    done("explain", "thirds.json", "--data", "rows.csv", "--target", "all", "--out", "r.csv")
    lines, every = pandas.read_csv("r.csv"), aw.tree_shap("thirds.json", PEOPLE[["age", "gap"]], "all")
    assert list(dict.fromkeys(lines["target"])) == list(every.outputs)
    for name in every.outputs:
        np.testing.assert_allclose(lines[lines["target"] == name]["value"], every[name].values.ravel(), rtol=1e-9)


def test_methods_that_draw_are_asked_row_by_row() -> None:
    done(
        "explain",
        "xgb.json",
        "--data",
        "rows.csv",
        "--rows",
        "5:8",
        "--method",
        "lime,tree_shap",
        "--samples",
        "100",
        "--out",
        "r.csv",
        "--target",
        "1",
    )
    lines = pandas.read_csv("r.csv")
    assert set(lines["method"]) == {"lime", "tree_shap"}
    alone = aw.lime("xgb.json", typed().iloc[[6]], 1, background=typed(), samples=100)
    np.testing.assert_allclose(lines[(lines["item"] == 6) & (lines["method"] == "lime")]["value"], alone.values[0])


def test_parquet_goes_in_and_out() -> None:
    pytest.importorskip("pyarrow")
    PEOPLE.to_parquet("rows.parquet")
    done("explain", "xgb.json", "--data", "rows.csv", "--out", "r.csv")
    done("explain", "xgb.json", "--data", "rows.parquet", "--out", "r.parquet")
    pandas.testing.assert_frame_equal(
        pandas.read_parquet("r.parquet").fillna(np.nan), pandas.read_csv("r.csv").fillna(np.nan), check_dtype=False, check_exact=False, rtol=1e-12
    )
    Path("cut.parquet").write_bytes(Path("rows.parquet").read_bytes()[:100])
    assert "cut.parquet is no Parquet file, or is damaged" in ask("explain", "xgb.json", "--data", "cut.parquet")[2]


def test_without_pyarrow_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pyarrow", "fastparquet"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("askwhy.cli.results.find_spec", lambda name: None)
    Path("some.parquet").write_bytes(b"PAR1")
    for words in (["xgb.json", "--data", "some.parquet"], ["xgb.json", "--data", "rows.csv", "--out", "r.parquet"]):
        code, _, err = ask("explain", *words)
        assert code == 1
        assert "pip install pyarrow" in err


# ---- the report -----------------------------------------------------------------------------------------------------


def sections(page: str) -> list[str]:
    return re.findall(r'<section class="case whole".*?</section>', page, re.DOTALL)


def test_a_table_becomes_pictures_of_all_rows_and_a_few_cards() -> None:
    done("explain", "xgb.json", "--data", "rows.csv", "--classes", "poor,rich", "--out", "r.html")
    page = Path("r.html").read_text("utf-8")
    (section,) = sections(page)
    for words in ("Why rich?", "TreeSHAP, 60 rows of rows.csv", "log odds", "path-dependent", "base value", "Which columns matter", "How much each",
                  "Rows side by side", "Row by row", "row 59", "work place", "askwhy.tree_shap(model, rows, target=&#34;rich&#34;)"):  # fmt: skip
        assert words in section, words
    assert len(re.findall("How [a-z ]+ moves the score", section)) >= 3
    assert "Coloured by" in section
    assert re.findall(r'id="row-\d+"', page) == ['id="row-1"', 'id="row-2"', 'id="row-3"']
    assert len(page) < 4e6


def test_the_rows_that_are_named_beside_a_range_get_the_cards() -> None:
    done("explain", "xgb.json", "--data", "rows.csv", "--rows", ":", "--row", "7", "--out", "r.html")
    page = Path("r.html").read_text("utf-8")
    assert "60 rows of rows.csv" in sections(page)[0]
    assert re.findall(r'class="note">(row \d+) of rows.csv</p>', page) == ["row 7"]
    done("explain", "xgb.json", "--data", "rows.csv", "--row", "7", "--method", "tree_shap", "--out", "r.html")
    assert not sections(Path("r.html").read_text("utf-8")), "one row has no pictures of all rows"


def test_classes_are_never_mixed_in_one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole.show, "as_data_uri", lambda ax: "data:,")  # so many pictures take their time
    done("explain", "thirds.json", "--data", "rows.csv", "--out", "r.html")
    found = sections(Path("r.html").read_text("utf-8"))
    predicted = np.asarray(aw.wrap("thirds.json").function(PEOPLE[["age", "gap"]])).argmax(1)
    said = {re.search(r"(\d+) of the 60 rows of rows.csv: those that are explained for (class \d)", one).groups() for one in found}  # type: ignore[union-attr]
    assert said == {(str(count), f"class {k}") for k, count in enumerate(np.bincount(predicted))}
    done("explain", "thirds.json", "--data", "rows.csv", "--target", "all", "--out", "r.html")
    found = sections(Path("r.html").read_text("utf-8"))
    assert ["60 rows of rows.csv" in one for one in found] == [True] * 3
    page = Path("r.html").read_text("utf-8")
    asked = re.findall(r'<h2 id="title-\d+">Why (class \d)', page)
    assert asked == [f"class {k}" for k in predicted[:3]], "a card is about the class that the row is taken for"
    done("explain", "number.json", "--data", "rows.csv", "--out", "r.html")
    assert "Why the score?" in sections(Path("r.html").read_text("utf-8"))[0]


# ---- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["none.json", "--data", "rows.csv"], "none.json: there is no such file"),
        (["cut.json", "--data", "rows.csv"], "cut.json is no XGBoost model, or is damaged"),
        (["xgb.json", "--data", "short.csv"], "short.csv has no column 'work place', which the model was trained on"),
        (["nameless.json", "--data", "rows.csv"], "was trained on 2; name those that are not for it, an id or the label, with --drop NAME"),
        (["xgb.json", "--data", "martian.csv"], "'work place' holds 'mars', a category that the model was not trained on"),
        (["xgb.json", "--data", "wordy.csv"], "wordy.csv holds 'old' in row 7, column 'age', and the model was trained on numbers there"),
        (["lgb.txt", "--data", "wordy.csv"], "wordy.csv holds 'old' in row 7, column 'age'"),
        (["lgb.txt", "--data", "endless.csv"], "endless.csv has inf in row 7, column 'gap'; leave such rows out"),
        (["lgb.txt", "--data", "rows.csv", "--background", "endless.csv"], "endless.csv has inf in row 7"),
        (["lost.json", "--data", "rows.csv"], "the model's file does not name the categories of 'work place'"),
        (["linear.json", "--data", "rows.csv", "--drop", "work place", "--method", "tree_shap"], "linear type (gblinear) has no trees"),
        (["xgb.json", "--data", "rows.csv", "--output", "probability"], "output='probability' needs rows as background="),
        (["xgb.json", "--data", "rows.csv", "--target", "rich"], "name the classes with --classes"),
        (["xgb.json", "--data", "rows.csv", "--classes", "a,b,c"], "labels= has 3 names for 2 classes"),
        (["xgb.json", "--data", "rows.csv", "--method", "linear_effects"], "linear_effects needs the model's coefficients"),
        (["xgb.json", "--data", "rows.csv", "--method", "linear_effects,decision_path"], "no method could explain row 0, 1, 2, 3, 4 and 55 more"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(words: list[str], expected: str) -> None:
    Path("never.html").unlink(missing_ok=True)
    code, _, err = ask("explain", *words, "--out", "never.html")
    assert expected in err
    assert code == 1
    assert not Path("never.html").exists()
    assert err.count(expected) == 1


def test_what_a_library_would_do_without_a_word_is_said() -> None:
    assert "'work place' holds 'mars' in row 7, which the model was not trained on; lightgbm takes it for missing (1 row)" in done(
        "explain", "lgb.txt", "--data", "martian.csv", "--out", "r.csv"
    )
    err = done("explain", "nameless.json", "--data", "rows.csv", "--drop", "id", "--drop", "income", "--drop", "work place", "--out", "r.csv")
    assert "keeps no names of its columns; the table's are taken in their order" in err


def test_without_numba_or_memory_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "numba", None)
        assert "pip install 'askwhy[trees]'" in ask("explain", "xgb.json", "--data", "rows.csv")[2]

    def full(*words: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr("askwhy.ask.explain", full)
    code, _, err = ask("explain", "xgb.json", "--data", "rows.csv")
    assert code == 1
    assert "not enough memory" in err


def test_one_row_that_fails_leaves_the_others_and_an_interrupt_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    import askwhy.ask
    from askwhy.errors import ModelError

    real, asked = askwhy.ask.explain, []

    def failing(model: object, x: pandas.DataFrame, *words: object, **options: object) -> object:
        asked.extend(x.index)
        if len(asked) == 2:
            raise ModelError("the service is away")
        if len(asked) == 4:
            raise KeyboardInterrupt
        return real(model, x, *words, **options)

    monkeypatch.setattr(askwhy.ask, "explain", failing)
    code, _, err = ask("explain", "xgb.json", "--data", "rows.csv", "--method", "lime", "--samples", "50", "--out", "r.csv")
    assert code == 1
    assert "row 1: lime refuses: the service is away" in err
    assert "2 of 60 rows were explained" in err
    assert set(pandas.read_csv("r.csv")["item"]) == {0, 2}


# ---- questions about the whole model --------------------------------------------------------------------------------


def test_importance_is_the_librarys() -> None:
    code, said, err = ask("importance", "cat.cbm", "--data", "rows.csv", "--label", "income", "--repeats", "3", "--seed", "5", "--out", "i.npz")
    assert code == 0, err
    found = aw.Importance.load("i.npz")
    np.testing.assert_allclose(found.values, aw.importance("cat.cbm", typed(words="str"), PEOPLE["income"], repeats=3, seed=5).values)
    assert "permutation importance, rise in log loss" in said
    assert "not trained on id" in err
    done("importance", "xgb.json", "--how", "model", "--kind", "gain", "--out", "i.svg")
    assert Path("i.svg").read_text().startswith("<?xml")
    _, said, _ = ask("importance", "xgb.json", "--data", "rows.csv", "--label", "income", "--classes", "poor,rich", "--score", "accuracy", "--json")
    assert json.loads(said)["names"] == COLUMNS


def test_effect_is_the_librarys() -> None:
    done("effect", "xgb.json", "--data", "rows.csv", "--feature", "age", "--out", "e.png")
    assert Path("e.png").read_bytes().startswith(b"\x89PNG")
    _, said, _ = ask("effect", "xgb.json", "--data", "rows.csv", "--feature", "age", "--feature", "gap", "--how", "ale", "--json")
    np.testing.assert_allclose(json.loads(said)["values"], aw.effect("xgb.json", typed(), ["age", "gap"], how="ale", target=1).values)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["importance", "xgb.json"], "--data is missing: the error is measured on rows"),
        (["importance", "xgb.json", "--data", "rows.csv"], "--label is missing"),
        (["importance", "xgb.json", "--data", "rows.csv", "--label", "incme"], "--label incme: rows.csv has no such column; did you mean 'income'"),
        (["importance", "xgb.json", "--data", "rows.csv", "--label", "income"], "2 classes without names: name the classes with --classes"),
        (["importance", "xgb.json", "--how", "shap"], "--data is missing"),
        (["importance", "xgb.json", "--how", "model", "--out", "i.html"], "--out i.html: give a name that ends in .pdf, .png, .svg"),
        (["effect", "xgb.json", "--data", "rows.csv", "--feature", "ag"], "there is no column 'ag'"),
        (["effect", "thirds.json", "--data", "rows.csv", "--feature", "age"], "give target="),
        (["effect", "xgb.json", "--data", "rows.csv", "--feature", "age", "--drop", "x"], "--drop x: rows.csv has no such column"),
        (["effect", "xgb.json", "--data", "rows.csv", "--feature", "age", "--out", "nowhere/e.png"], "the folder"),
    ],
)
def test_mistakes_about_the_whole_model(words: list[str], expected: str) -> None:
    code, _, err = ask(*words)
    assert expected in err
    assert code == 1


def test_a_part_of_an_explanation_is_what_the_part_alone_would_be() -> None:
    every = aw.tree_shap("xgb.json", typed(), 1)
    part, which = aw.tree_shap("xgb.json", typed().iloc[[3, 9, 10]], 1), np.array([3, 9, 10])
    cut = whole.of_rows(every, which)
    for name in (f.name for f in fields(cut) if f.name not in ("seconds", "model_calls", "numbers")):
        a, b = getattr(cut, name), getattr(part, name)
        assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b, name
