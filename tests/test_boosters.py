"""XGBoost, LightGBM and CatBoost: estimators, raw boosters and saved files, beside their own predictions."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from scipy.special import expit, softmax

import askwhy as aw
from askwhy.errors import FileError, InputError, MissingPackageError, ModelError, TargetError
from askwhy.models import boosters

CITIES = ["Kyoto", "Lima", "Oslo"]
ONE = {"n_jobs": 1, "n_estimators": 8}
XGB = {**ONE, "enable_categorical": True}
LGB = {**ONE, "verbose": -1}
CAT = {"iterations": 8, "verbose": 0, "allow_writing_files": False, "thread_count": 1, "cat_features": ["city"]}
QUIET = {"verbose": -1, "num_threads": 1}


def frame(n=150, seed=0):
    rng = np.random.default_rng(seed)
    x = pd.DataFrame({"age": rng.integers(18, 80, n), "my income": rng.normal(3, 1, n), "city": pd.Categorical(rng.choice(CITIES, n), CITIES)})
    x.loc[::7, "my income"] = np.nan
    return x


X = frame()
TWO = ((X["my income"] > 3) ^ (X.city == "Oslo")).astype(int).to_numpy()
THREE = (TWO + (X.age > 50)).to_numpy()
COUNT = THREE * 2.0
NUMBERS = X[["age", "my income"]].to_numpy()


def scores(model, x=X, **options):
    model = aw.wrap(model, **options)
    items = model.prepare(x)
    return model.outputs(items, items.batch)


def same(found, wanted):
    wanted = np.asarray(wanted)
    np.testing.assert_allclose(found, wanted if wanted.ndim == 2 else wanted[:, None], atol=1e-6)


def explained(model, x=X, target=None):
    """Occlusion answers, and as the slow loop does."""
    model, is_table = aw.wrap(model), hasattr(x, "columns")
    background = x[20:25] if is_table else x[22:27]  # of an array the missing values are refused in a background
    why = aw.occlusion(model, x[1:2], target, background=background)
    k = model.labels.index(why.target[0]) if model.labels else int(why.target[0].removeprefix("class ").replace("the score", "0"))
    if is_table:
        changed = pd.concat([x[1:2]] * 5, ignore_index=True)
        changed["my income"] = background["my income"].to_numpy()
    else:
        changed = np.repeat(x[1:2], 5, 0)
        changed[:, 1] = background[:, 1]
    assert why.values[0, 1] == pytest.approx(scores(model, x[1:2])[0, k] - scores(model, changed)[:, k].mean(), abs=1e-6)
    np.testing.assert_array_equal(aw.explain(model, x[1:2], method="occlusion", target=target, background=background).values, why.values)
    return why


# ---- estimators ---------------------------------------------------------------------------------------------------

ESTIMATORS = {
    "xgboost": (xgboost.XGBClassifier, XGB, lambda m, x: m.predict(x, output_margin=True)),
    "lightgbm": (lightgbm.LGBMClassifier, LGB, lambda m, x: m.predict(x, raw_score=True)),
    "catboost": (catboost.CatBoostClassifier, CAT, lambda m, x: m.predict(x, prediction_type="RawFormulaVal")),
}


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("y", [TWO, THREE], ids=["two", "three"])
def test_classifiers_give_what_they_give(name, y):
    make, options, margin = ESTIMATORS[name]
    model = make(**options).fit(X, y)
    same(scores(model), model.predict_proba(X))
    same(scores(model, output="probabilities"), model.predict_proba(X))
    raw = margin(model, X)
    same(scores(model, output="logits"), raw if raw.ndim == 2 else np.stack([-raw, raw], 1))
    wrapped = aw.wrap(model)
    assert wrapped.labels == tuple(map(str, np.unique(y)))
    assert isinstance(wrapped.native, (xgboost.Booster, lightgbm.Booster, catboost.CatBoost))
    assert explained(model, target=1).components[0] == tuple(X.columns)


@pytest.mark.parametrize("name", ["lightgbm", "catboost"])
def test_labels_that_are_words(name):
    make, options, _ = ESTIMATORS[name]
    model = make(**options).fit(X, np.where(TWO, "yes", "no"))
    assert explained(model, target="yes").target == ("yes",)


@pytest.mark.parametrize(
    "make",
    [
        lambda: xgboost.XGBRegressor(**XGB, objective="count:poisson").fit(X, COUNT),
        lambda: xgboost.XGBRegressor(**XGB, base_score=10).fit(X, np.stack([COUNT, -COUNT], 1)),
        lambda: lightgbm.LGBMRegressor(**LGB, objective="poisson").fit(X, COUNT),
        lambda: catboost.CatBoostRegressor(**CAT, loss_function="Poisson").fit(X, COUNT),
        lambda: xgboost.XGBRanker(**XGB).fit(X, THREE, qid=np.arange(150) // 10),
        lambda: lightgbm.LGBMRanker(**LGB).fit(X, THREE, group=[10] * 15),
        lambda: catboost.CatBoostRanker(**CAT, loss_function="YetiRank").fit(X, THREE, group_id=np.arange(150) // 10),
    ],
)
def test_regressors_and_rankers_give_what_they_predict(make):
    model = make()
    same(scores(model), model.predict(X))
    assert aw.wrap(model).labels is None
    explained(model, target=0)
    with pytest.raises(InputError, match="no classifier; leave output out"):
        aw.wrap(model, output="probabilities")


def test_the_margin_of_a_regressor_has_no_link():
    for model in (
        xgboost.XGBRegressor(**XGB, objective="count:poisson").fit(X, COUNT),
        lightgbm.LGBMRegressor(**LGB, objective="poisson").fit(X, COUNT),
        catboost.CatBoostRegressor(**CAT, loss_function="Poisson").fit(X, COUNT),
    ):
        np.testing.assert_allclose(scores(model, output="logits"), np.log(scores(model)), atol=1e-5)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_missing_values_in_arrays(name):
    make, options, _ = ESTIMATORS[name]
    options = {k: v for k, v in options.items() if k != "cat_features"}
    model = make(**options).fit(NUMBERS, TWO)
    assert np.isnan(NUMBERS).any()
    same(scores(model, NUMBERS), model.predict_proba(NUMBERS))
    why = explained(model, NUMBERS, target=1)
    assert why.components[0] == ("feature 0", "feature 1")
    assert np.isfinite(aw.occlusion(model, NUMBERS[:1], 1, background=NUMBERS[1:5]).values).all()
    asked = pd.DataFrame(NUMBERS, columns=["age", "my income"])  # it has no names, so that any fit
    same(scores(model, asked), model.predict_proba(NUMBERS))
    with pytest.raises(InputError, match=r"x has 3 columns, the model was trained on 2\."):
        scores(model, np.zeros((2, 3)))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_arrays_for_a_model_of_a_table(name):
    make, options, _ = ESTIMATORS[name]
    options = {k: v for k, v in options.items() if k != "cat_features"}
    x = X[["age", "my income"]]
    model = make(**options).fit(x, TWO)
    same(scores(model, NUMBERS), model.predict_proba(x))
    same(scores(model, x), model.predict_proba(x))
    same(aw.wrap(model).function(NUMBERS), model.predict_proba(x))  # as it is asked where there is no pandas
    for bad in (np.zeros((2, 3)), np.zeros((2, 1))):
        with pytest.raises(InputError, match="columns, the model was trained on 2"):
            scores(model, bad)


def test_a_value_that_stands_for_missing():
    x = np.nan_to_num(NUMBERS, nan=-1)
    model = xgboost.XGBClassifier(**XGB, missing=-1).fit(x, TWO)
    wanted = model.predict_proba(x)
    same(scores(model, x), wanted)
    assert not np.allclose(xgboost.XGBClassifier(**XGB).fit(NUMBERS, TWO).predict_proba(x), wanted)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_early_stopping(name):
    make, options, _ = ESTIMATORS[name]
    early = {} if name == "lightgbm" else {"early_stopping_rounds": 2}
    late = X[100:], 1 - TWO[100:]
    fit = {
        "xgboost": {"eval_set": [late], "verbose": False},
        "lightgbm": {"eval_X": late[0], "eval_y": late[1], "callbacks": [lightgbm.early_stopping(2, verbose=False)]},
        "catboost": {"eval_set": [late]},
    }
    model = make(**options, **early).fit(X[:100], TWO[:100], **fit[name])
    same(scores(model), model.predict_proba(X))
    if name == "xgboost":
        raw = model.get_booster()
        every = raw.predict(xgboost.DMatrix(X, enable_categorical=True))
        assert np.abs(every - model.predict_proba(X)[:, 1]).max() > 0.01
        same(scores(raw), np.stack([1 - every, every], 1))


@pytest.mark.parametrize("booster", ["gblinear", "dart"])
def test_other_kinds_of_xgboost(booster):
    early = {"early_stopping_rounds": 2}
    model = xgboost.XGBClassifier(**ONE, **early, booster=booster).fit(NUMBERS, TWO, eval_set=[(NUMBERS, 1 - TWO)], verbose=False)
    same(scores(model, NUMBERS), model.predict_proba(NUMBERS))


@pytest.mark.parametrize("make", [xgboost.XGBClassifier, xgboost.Booster, lightgbm.LGBMClassifier, catboost.CatBoostClassifier, catboost.CatBoost])
def test_a_model_that_is_not_fitted_is_refused(make):
    with pytest.raises(ModelError, match=f"the {make.__name__} cannot be asked before it is fitted or loaded") as caught:
        aw.wrap(make())
    assert "NoneType" not in str(caught.value)


# ---- raw boosters -------------------------------------------------------------------------------------------------


def xgb(objective, y, x=X, **options):
    data = xgboost.DMatrix(x, y, enable_categorical=True)
    return xgboost.train({"objective": objective, "nthread": 1, **options}, data, 6), data


def test_xgboost_of_two_classes():
    model, data = xgb("binary:logistic", TWO)
    p, margin = model.predict(data), model.predict(data, output_margin=True)
    same(scores(model), np.stack([1 - p, p], 1))
    same(scores(model, output="logits"), np.stack([-margin, margin], 1))
    named = aw.wrap(model, labels=["no", "yes"])
    assert named.native is model
    assert explained(named, target="yes").target == ("yes",)
    with pytest.raises(InputError, match="labels= has 3 names for 2 classes"):
        aw.wrap(model, labels=["no", "yes", "perhaps"])
    with pytest.raises(InputError, match="for a booster it is 'probabilities' or 'logits'"):
        aw.wrap(model, output=0)


@pytest.mark.parametrize("objective", ["multi:softprob", "multi:softmax"])
def test_xgboost_of_three_classes(objective):
    model, data = xgb(objective, THREE, num_class=3)
    margin = model.predict(data, output_margin=True)
    same(scores(model), softmax(margin, 1))
    same(scores(model, output="logits"), margin)
    explained(model)


def test_xgboost_objectives_whose_prediction_is_no_probability():
    model, data = xgb("binary:logitraw", TWO)
    p = expit(model.predict(data, output_margin=True))
    same(scores(model), np.stack([1 - p, p], 1))
    model, data = xgb("binary:hinge", TWO)
    with pytest.raises(InputError, match="only class labels.*output='logits'"):
        aw.wrap(model)
    same(scores(model, output="logits")[:, 1:], model.predict(data, output_margin=True))
    model, data = xgb("reg:squarederror", COUNT)
    same(scores(model), model.predict(data))
    model, data = xgb("binary:logistic", np.stack([TWO, 1 - TWO, TWO], 1))
    same(scores(model), model.predict(data))
    every = xgboost.XGBClassifier(**XGB).fit(X, np.stack([TWO, 1 - TWO, TWO], 1))  # labels that may come together
    same(scores(every), every.predict_proba(X))
    assert aw.wrap(every).labels is None


def test_lightgbm_boosters():
    for objective, y, k in (("binary", TWO, 1), ("multiclass", THREE, 3), ("multiclassova", THREE, 3), ("regression", COUNT, 0)):
        model = lightgbm.train({"objective": objective, **QUIET, **({"num_class": k} if k > 1 else {})}, lightgbm.Dataset(X, y), 6)
        p, margin = model.predict(X), model.predict(X, raw_score=True)
        same(scores(model), np.stack([1 - p, p], 1) if k == 1 else p)
        same(scores(model, output="logits"), np.stack([-margin, margin], 1) if k == 1 else margin)
        explained(model, target=0)

    def own(predicted, data):
        return predicted - data.get_label(), np.ones_like(predicted)

    model = lightgbm.train({"objective": own, **QUIET}, lightgbm.Dataset(X, COUNT), 6)
    same(scores(model), model.predict(X))
    classifier = lightgbm.LGBMClassifier(**LGB, objective=lambda y, p: (expit(p) - y, np.ones_like(p))).fit(X, TWO)
    same(scores(classifier), classifier.predict(X, raw_score=True))
    assert aw.wrap(classifier).labels is None


def test_raw_catboost():
    model = catboost.CatBoost({**CAT, "loss_function": "Logloss"}).fit(X, TWO)
    same(scores(model), model.predict(X, prediction_type="Probability"))
    margin = model.predict(X)
    same(scores(model, output="logits"), np.stack([-margin, margin], 1))
    explained(model, target=1)
    many = catboost.CatBoost({**CAT, "loss_function": "MultiClass"}).fit(X, THREE)
    same(scores(many), many.predict(X, prediction_type="Probability"))
    same(scores(many, output="logits"), many.predict(X))


def test_categories_in_another_order_are_the_same_categories():
    turned = X.assign(city=pd.Categorical(X.city.astype(str), CITIES[::-1]))
    for model in (xgb("binary:logistic", TWO)[0], lightgbm.train({"objective": "binary", **QUIET}, lightgbm.Dataset(X, TWO), 6)):
        same(scores(model, turned), scores(model))


def test_codes_in_an_array_are_categories_for_the_libraries_that_say_so():
    x = X[["age", "city"]]
    coded = x.assign(city=x.city.cat.codes).to_numpy(float)
    for model in (xgb("binary:logistic", TWO, x)[0], lightgbm.train({"objective": "binary", **QUIET}, lightgbm.Dataset(x, TWO), 6)):
        same(scores(model, coded), scores(model, x))


@pytest.mark.parametrize(
    "change",
    [lambda x: x[["city", "age", "my income"]], lambda x: x.rename(columns={"age": "Age"}), lambda x: x.drop(columns="age"), lambda x: x.assign(b=1)],
)
def test_columns_are_checked(change):
    for make, options, _ in ESTIMATORS.values():
        model = make(**options).fit(X, TWO)
        for one in (model, aw.wrap(model).native):
            with pytest.raises(InputError, match="columns|column 'city' is not where|column 'Age' is not where"):
                scores(one, change(X))


def test_what_a_wrong_table_says():
    model = lightgbm.LGBMClassifier(**LGB).fit(X, TWO)
    with pytest.raises(InputError, match=r"x has 4 columns, the model was trained on 3 \(age, my_income, city\)"):
        scores(model, X.assign(b=1))
    with pytest.raises(InputError, match="column 'Age' is not where the model has it; give it the columns age, my_income, city, in this order"):
        scores(model, X.rename(columns={"age": "Age"}))


# ---- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["json", "ubj", "bst", "JSON"])
@pytest.mark.filterwarnings("ignore:.*UBJSON:UserWarning")  # XGBoost's own about .bst
def test_xgboost_files(ending, tmp_path):
    path = tmp_path / f"model.{ending}"
    model, data = xgb("binary:logistic", TWO)
    model.save_model(path)
    p = model.predict(data)
    for given in (path, str(path)):
        same(scores(given), np.stack([1 - p, p], 1))
    loaded = aw.wrap(path, labels=["no", "yes"])
    assert isinstance(loaded.native, xgboost.Booster)
    assert loaded.columns == tuple(X.columns)
    explained(loaded, target="yes")
    same(scores(path, output="logits")[:, 1:], model.predict(data, output_margin=True))


def test_the_file_of_an_estimator_stops_where_the_estimator_does(tmp_path):
    model = xgboost.XGBClassifier(**XGB, early_stopping_rounds=2).fit(X[:100], TWO[:100], eval_set=[(X[100:], 1 - TWO[100:])], verbose=False)
    model.save_model(tmp_path / "model.json")
    same(scores(tmp_path / "model.json"), model.predict_proba(X))


def test_lightgbm_files(tmp_path):
    for y in (TWO, THREE):
        model = lightgbm.LGBMClassifier(**LGB).fit(X, y)
        model.booster_.save_model(tmp_path / "model.txt")
        same(scores(tmp_path / "model.txt"), model.predict_proba(X))
        assert isinstance(aw.wrap(tmp_path / "model.txt").native, lightgbm.Booster)
        explained(tmp_path / "model.txt")


def test_catboost_files(tmp_path):
    model = catboost.CatBoostClassifier(**CAT).fit(X, np.where(TWO, "yes", "no"))
    model.save_model(tmp_path / "model.cbm")
    same(scores(tmp_path / "model.cbm"), model.predict_proba(X))
    assert explained(tmp_path / "model.cbm", target="yes").target == ("yes",)
    counts = catboost.CatBoostRegressor(**CAT, loss_function="Poisson").fit(X, COUNT)
    counts.save_model(tmp_path / "counts.cbm")
    same(scores(tmp_path / "counts.cbm"), counts.predict(X))


@pytest.mark.parametrize("ending", ["joblib", "pkl", "pickle", "PKL"])
def test_a_pickle_is_never_read(ending, tmp_path):
    path = tmp_path / f"model.{ending}"
    path.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(InputError, match=r"model\.\w+ is a pickle, and reading one runs the code in it: if you trust it, load it yourself and wrap"):
        aw.wrap(path)


@functools.cache
def saved(ending):
    """What a library writes."""
    make = {
        ".cbm": lambda: catboost.CatBoostClassifier(**CAT).fit(X, TWO),
        ".txt": lambda: lightgbm.LGBMClassifier(**LGB).fit(X, TWO).booster_,
    }.get(ending, lambda: xgb("binary:logistic", TWO)[0])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"whole{'.ubj' if ending == '.bst' else ending}"
        make().save_model(path)
        return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "library"), [("a.json", "XGBoost"), ("a.ubj", "XGBoost"), ("a.bst", "XGBoost"), ("a.txt", "LightGBM"), ("a.cbm", "CatBoost")]
)
@pytest.mark.parametrize("part", [0, 0.02, 0.3, 0.6, 0.95, "text", "{}", "tree"])
def test_damaged_files(name, library, part, tmp_path):
    path = tmp_path / name
    if isinstance(part, str):
        path.write_text(part)
    else:
        content = saved(path.suffix)
        path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(FileError, match=rf"{name} is no {library} model, or is damaged; save the model again with {library}"):
        aw.wrap(path)


def test_files_that_cannot_be_wrapped(tmp_path):
    for path in (tmp_path / "a.pt", tmp_path / "a", "resnet50", "a text that was meant as x"):
        with pytest.raises(InputError, match=r"cannot be asked: give an nn.Module.*a file that ends in .bst, .cbm, .json, .onnx, .txt, .ubj"):
            aw.wrap(path)
    for ending in ("json", "txt", "cbm", "onnx"):
        with pytest.raises(FileError, match="none.* there is no such file"):
            aw.wrap(tmp_path / f"none.{ending}")
    (tmp_path / "folder.json").mkdir()
    for path in (tmp_path / "folder.json", "x" * 5000 + ".json", "a\0b.json"):
        with pytest.raises(FileError, match="cannot be read"):
            aw.wrap(path)


def test_a_library_that_is_missing_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "a.onnx").write_text("")
    for name, module, extra in (("a.json", "xgboost", "boosters"), ("a.onnx", "onnxruntime", "onnx")):
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(MissingPackageError, match=rf"{module} is needed for this: pip install 'askwhy\[{extra}\]'"):
            aw.wrap(tmp_path / name)


def test_the_table_of_files_is_sorted():
    for table in (boosters.FILES, boosters.READERS, boosters.LINKS):
        assert list(table) == sorted(table)


def test_a_target_that_is_no_class():
    with pytest.raises(TargetError, match="2 outputs"):
        aw.occlusion(xgb("binary:logistic", TWO)[0], X[:1], 2, background=X)
