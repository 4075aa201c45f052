"""The trees of CatBoost as arrays, beside CatBoost's own predictions and Shapley values."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from math import comb

import catboost
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from scipy.special import expit, softmax

from askwhy.errors import InputError, ModelError, UnsupportedError
from askwhy.models.forest import LEAF, check_forest, read_forest
from askwhy.models.trees import catboost as reader

RNG = np.random.default_rng(0)
QUICK = {"iterations": 8, "depth": 4, "verbose": 0, "allow_writing_files": False, "thread_count": 1, "random_seed": 0, "learning_rate": 0.3}
X = np.round(RNG.normal(size=(300, 4)), 1).astype(np.float64)
X[::7, 1] = np.nan
KNOWN = np.nan_to_num(X, nan=1.5)
NUMBER = np.exp(KNOWN[:, 0]) + KNOWN[:, 1] * KNOWN[:, 2]
TWO = np.where(NUMBER > 1, "yes", "no")
THREE = np.digitize(NUMBER, [0.5, 1.5])
GROWN = ["SymmetricTree", "Depthwise", "Lossguide"]
CITIES = ["Kyoto", "Lima", "Oslo", "Quito"]


def table(n=300, seed=0):
    rng = np.random.default_rng(seed)
    x = pd.DataFrame({"size": rng.integers(0, 5, n), "a": rng.normal(size=n), "my city": rng.choice(CITIES, n), "b": rng.normal(size=n)})
    x.loc[::9, "a"] = np.nan
    return x


TABLE = table()
EFFECT = TABLE.a.fillna(2) * (TABLE["my city"].isin(["Lima", "Oslo"]) - 0.5) + TABLE.b * (TABLE["size"] == 2) + (TABLE["size"] == 4)
CATEGORIES = {"cat_features": ["my city", "size"], "one_hot_max_size": 10}


def checked(model, rows):
    forest = read_forest(model)
    own = check_forest(forest, rows, forest.prepare(rows))
    inner = forest.left != LEAF
    both = forest.cover[forest.left[inner]] + forest.cover[forest.right[inner]]
    np.testing.assert_allclose(both, forest.cover[inner], rtol=1e-9)
    assert (forest.right[~inner] == LEAF).all()
    assert not forest.value[inner].any()
    reached = np.bincount(np.concatenate([forest.left[inner], forest.right[inner], forest.roots]), minlength=len(inner))
    assert (reached == 1).all()
    return forest, own


def on_thresholds(forest, seed=1):
    """Rows in which each number is a border of its column, the next one below or above it, missing or infinite."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(400, forest.width))
    for k in range(forest.width):
        cuts = forest.threshold[(forest.left != LEAF) & (forest.feature == k)].astype(np.float32)
        cuts = cuts[np.abs(cuts) < 1e38]
        if len(cuts):
            near = np.concatenate([cuts, np.nextafter(cuts, np.float32(np.inf)), np.nextafter(cuts, np.float32(-np.inf))])
            near = np.concatenate([near, near.astype(np.float64) + 1e-12, [np.nan, np.inf, -np.inf, 3.4028235e38, -3.4028235e38]])
            found[:, k] = rng.choice(near, 400)
    return found


# ---- numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", GROWN)
@pytest.mark.parametrize("weight", [None, RNG.random(300) + 0.1], ids=["", "weighted"])
def test_classes(policy, weight):
    make = {**QUICK, "grow_policy": policy}
    model = catboost.CatBoostClassifier(**make).fit(X, TWO, sample_weight=weight)
    forest, own = checked(model, X)
    np.testing.assert_allclose(expit(own[:, 0]), model.predict_proba(X)[:, 1])
    assert (forest.unit, forest.whole, forest.link, forest.single, forest.covers) == ("log odds", 0.0, "logistic", False, "training rows")
    assert forest.cover[forest.roots] == pytest.approx(300 if weight is None else weight.sum())
    checked(model, on_thresholds(forest))
    model = catboost.CatBoostClassifier(**make, class_weights=[1, 2, 3]).fit(X, THREE, sample_weight=weight)
    forest, own = checked(model, X)
    np.testing.assert_allclose(softmax(own, 1), model.predict_proba(X))
    assert (forest.whole, forest.link, forest.outputs, forest.value.shape[1]) == (None, "softmax", 3, 3)
    checked(model, on_thresholds(forest))


@pytest.mark.parametrize("loss", ["RMSE", "MAE", "Quantile:alpha=0.3", "Poisson", "Tweedie:variance_power=1.5", "MultiRMSE"])
@pytest.mark.parametrize("policy", GROWN[:2])
def test_numbers(loss, policy):
    y = np.stack([NUMBER, -NUMBER], 1) if loss == "MultiRMSE" else np.abs(NUMBER)
    model = catboost.CatBoostRegressor(**QUICK, loss_function=loss, grow_policy=policy).fit(X, y)
    forest, own = checked(model, X)
    link = np.exp if forest.link == "exp" else np.asarray
    np.testing.assert_allclose(link(own).reshape(model.predict(X).shape), model.predict(X))
    assert forest.link == ("exp" if loss[:2] in ("Po", "Tw") else "identity")
    checked(model, on_thresholds(forest))


@pytest.mark.parametrize("mode", ["Min", "Max"])
def test_missing_values_are_below_or_above_all(mode):
    model = catboost.CatBoostRegressor(**QUICK, nan_mode=mode).fit(X, NUMBER + 9 * np.isnan(X[:, 1]))
    forest, _ = checked(model, on_thresholds(read_forest(model)))
    assert forest.prepare(X)[0, 1] == (-np.inf if mode == "Min" else np.inf)
    assert (np.abs(forest.threshold) > 1e38).any(), "a border between missing and known values"
    checked(model, np.full((1, 4), np.nan))  # also in columns that had none


def test_other_objectives_and_what_is_known_of_them():
    make = catboost.CatBoostClassifier(**QUICK, loss_function="MultiClassOneVsAll").fit(X, THREE)
    forest, own = checked(make, X)
    np.testing.assert_allclose(expit(own), make.predict_proba(X))
    assert (forest.unit, forest.link, forest.whole) == ("log odds", "logistic", None)
    forest, _ = checked(catboost.CatBoostRanker(**QUICK, loss_function="YetiRank").fit(X, THREE, group_id=np.arange(300) // 10), X)
    assert (forest.unit, forest.link) == ("ranking score", "identity")
    forest, _ = checked(catboost.CatBoostRegressor(**QUICK, loss_function="LogLinQuantile").fit(X, np.abs(NUMBER)), X)
    assert (forest.unit, forest.link) == ("margin", "another")
    with pytest.raises(UnsupportedError, match="RMSEWithUncertainty predicts a mean and a spread.*aw.shapley"):
        read_forest(catboost.CatBoostRegressor(**QUICK, loss_function="RMSEWithUncertainty").fit(X, NUMBER))


def test_scale_and_bias_sums_of_models_and_fewer_trees():
    model = catboost.CatBoostRegressor(**QUICK).fit(X, NUMBER)
    model.set_scale_and_bias(-2.5, [7.0])
    forest, own = checked(model, X)
    assert forest.base == pytest.approx(7)
    both = catboost.sum_models([model, model], weights=[0.25, 0.5])
    np.testing.assert_allclose(checked(both, X)[1], 0.75 * own)
    model.shrink(3)
    assert len(checked(model, X)[0].roots) == 3


def test_trees_that_never_split():
    model = catboost.CatBoostRegressor(**{**QUICK, "depth": 1}).fit(np.stack([np.ones(300), KNOWN[:, 0]], 1), NUMBER)
    forest, _ = checked(model, np.stack([np.ones(300), KNOWN[:, 0]], 1))
    assert set(forest.feature[forest.left != LEAF]) == {1}
    model = catboost.CatBoostRegressor(**QUICK).fit(np.ones((300, 2)) * np.arange(300)[:, None] % 2, np.random.default_rng(1).normal(size=300))
    checked(model, KNOWN[:, :2])


def test_the_borders_are_compared_in_float32():
    x = np.linspace(0, 1, 300)[:, None]
    model = catboost.CatBoostRegressor(**QUICK).fit(x, np.sin(9 * x[:, 0]))
    forest = read_forest(model)
    cut = forest.threshold[forest.left != LEAF]
    beside = np.concatenate([cut + 1e-10, cut - 1e-10, cut])[:, None]
    check_forest(forest, beside, forest.prepare(beside))
    with pytest.raises(ModelError, match="itself gives"):
        check_forest(forest, beside, beside)  # as they are
    checked(model, np.array([[1e300], [-1e300]]))


# ---- categories ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", GROWN)
@pytest.mark.parametrize("k", [2, 3])
def test_categories_that_are_asked_one_by_one(policy, k):
    y = np.digitize(EFFECT, [0] if k == 2 else [-0.5, 0.8])
    model = catboost.CatBoostClassifier(**QUICK, **CATEGORIES, grow_policy=policy, loss_function="MultiClass" if k == 3 else "Logloss").fit(TABLE, y)
    forest, _ = checked(model, TABLE)
    assert set(forest.feature[forest.category >= 0]) == {0, 2}
    strange = table(seed=1)
    strange["my city"] = RNG.choice(["Oslo", "Lima", "Berlin", "", "nan"], 300)
    strange["size"] = RNG.choice([2, 4, 99, -1], 300)
    checked(model, strange)
    prepared = forest.prepare(strange)
    assert (prepared[strange["my city"] == "Berlin", 2] == 0).all()
    assert len(set(prepared[strange["my city"] == "Oslo", 2])) == 1
    assert len(set(prepared[strange["size"] == 2, 0])) == 1


def test_categories_of_pandas_and_of_an_array_of_objects():
    frame = TABLE.assign(**{"my city": pd.Categorical(TABLE["my city"], CITIES[::-1]), "size": TABLE["size"].astype(str)})
    model = catboost.CatBoostRegressor(**QUICK, **CATEGORIES).fit(frame, EFFECT)
    forest, own = checked(model, frame)
    rows = TABLE.astype(object).to_numpy()
    np.testing.assert_array_equal(forest.prepare(rows), forest.prepare(frame))
    np.testing.assert_array_equal(check_forest(forest, rows, forest.prepare(rows)), own)
    frame["my city"] = 1.5  # CatBoost takes no fractions as categories
    with pytest.raises(ModelError, match="failed on an input of shape"):
        forest.prepare(frame)


def test_categories_alone():
    model = catboost.CatBoostRegressor(**QUICK, **CATEGORIES).fit(TABLE[["my city", "size"]], EFFECT)
    checked(model, TABLE[["my city", "size"]])


def test_categories_made_into_statistics_of_the_target_are_refused_by_name():
    model = catboost.CatBoostClassifier(**QUICK, cat_features=["my city"]).fit(TABLE.drop(columns="size"), EFFECT > 0)
    with pytest.raises(UnsupportedError, match="categories of 'my city' into statistics.*one_hot_max_size=.*aw.shapley"):
        read_forest(model)
    for one, other in (("my city", "size"), ("size", "my city")):
        model = catboost.CatBoostRegressor(**{**QUICK, "iterations": 30}, cat_features=[other, one], max_ctr_complexity=1, one_hot_max_size=2)
        model.fit(TABLE[["a", "my city", "size"]], 9 * pd.factorize(TABLE[one])[0] + 2 * pd.factorize(TABLE[other])[0])
        used = {part["cat_feature_index"] for ctr in reader.as_json(model)["features_info"]["ctrs"] for part in ctr["elements"]}
        assert len(used) == 2
        with pytest.raises(UnsupportedError, match=f"categories of '{one}' into"):
            read_forest(model)


def test_texts_and_embeddings_are_refused_by_name():
    frame = pd.DataFrame({"a": KNOWN[:, 0], "note": RNG.choice(["good day", "bad day", "no day at all"], 300)})
    model = catboost.CatBoostClassifier(**QUICK, text_features=["note"]).fit(frame, TWO)
    with pytest.raises(UnsupportedError, match="'note' is a text.*aw.shapley"):
        read_forest(model)
    frame = pd.DataFrame({"a": KNOWN[:, 0], "vector": list(RNG.normal(size=(300, 3)))})
    model = catboost.CatBoostClassifier(**QUICK, embedding_features=["vector"]).fit(frame, TWO)
    with pytest.raises(UnsupportedError, match="'vector' is a embedding|'vector' is an embedding"):
        read_forest(model)


# ---- what is refused, files, covers -------------------------------------------------------------------------------


def test_unfitted_models_and_odd_rows_are_refused():
    with pytest.raises(ModelError, match="CatBoostRegressor has no trees before it is fitted; call fit"):
        read_forest(catboost.CatBoostRegressor())
    forest = read_forest(catboost.CatBoostRegressor(**QUICK).fit(pd.DataFrame(X, columns=list("abcd")), NUMBER))
    np.testing.assert_array_equal(forest.prepare(pd.DataFrame(X, columns=list("abcd"))), forest.prepare(X))
    for ask in (forest.prepare, forest.raw):
        with pytest.raises(InputError, match="sparse csr_matrix; give them as an array"):
            ask(csr_matrix(KNOWN))
    with pytest.raises(InputError, match=r"shape \[300, 3\]; the model was trained on rows of 4 columns"):
        forest.prepare(X[:, :3])
    with pytest.raises(InputError, match="column of numbers holds something else"):
        forest.prepare(np.array([["a", 1, 2, 3]], object))
    missing = pd.DataFrame({"a": pd.array([1.5, None], "Float64"), "b": [None, 2.0], "c": pd.array([1, None], "Int64"), "d": [True, False]})
    check_forest(forest, missing, forest.prepare(missing))


@pytest.mark.parametrize("policy", GROWN[:2])
def test_a_saved_model_and_one_without_weights(policy, tmp_path):
    model = catboost.CatBoostClassifier(**QUICK, grow_policy=policy).fit(X, TWO)
    forest, own = checked(model, X)
    model.save_model(str(tmp_path / "model.cbm"))
    again, same = checked(catboost.CatBoost().load_model(str(tmp_path / "model.cbm")), X)
    np.testing.assert_array_equal(same, own)
    np.testing.assert_array_equal(again.cover, forest.cover)
    told = reader.as_json(model)
    text = json.dumps(told)
    bare = json.loads(text, object_hook=lambda one: {k: v for k, v in one.items() if k not in ("leaf_weights", "weight")})
    with pytest.raises(UnsupportedError, match="CatBoost has lost the weights of its leaves.*save it as .cbm"):
        read_forest(reader.from_json(bare))


# ---- Shapley values by hand, as CatBoost has them -----------------------------------------------------------------


def expected(forest, node, row, present):
    """What a tree gives on average where only some columns are known, by the covers of the ways (Lundberg et al. 2020)."""
    if forest.left[node] == LEAF:
        return forest.value[node]
    at, left, right = forest.feature[node], forest.left[node], forest.right[node]
    if at in present:
        return expected(forest, left if forest.goes_left(np.array([node]), row[[at]])[0] else right, row, present)
    both = [forest.cover[side] * expected(forest, side, row, present) for side in (left, right) if forest.cover[side]]
    return sum(both) / forest.cover[node] if both else np.zeros(forest.value.shape[1])  # where no row was, CatBoost's leaves are 0


def by_hand(forest, row):
    d = forest.width
    game = {s: sum(expected(forest, root, row, s) for root in forest.roots) for size in range(d + 1) for s in combinations(range(d), size)}
    values = np.zeros((d, forest.value.shape[1]))
    for i in range(d):
        for s in game:
            if i not in s:
                values[i] += (game[tuple(sorted((*s, i)))] - game[s]) / (d * comb(d - 1, len(s)))
    return values, forest.base + game[()]


@pytest.mark.parametrize("policy", GROWN)
@pytest.mark.parametrize("y", [TWO, THREE], ids=["two", "three"])
def test_path_dependent_shapley_values_are_those_of_catboost(policy, y):
    model = catboost.CatBoostClassifier(
        **{**QUICK, "iterations": 3, "depth": 2}, grow_policy=policy, loss_function="MultiClass" if y is THREE else "Logloss"
    )
    model.fit(X, y)
    forest, _ = checked(model, X)
    own = model.get_feature_importance(catboost.Pool(X[:4]), type="ShapValues")
    own = own[:, None] if own.ndim == 2 else own  # [n, k, d + 1]
    for row, wanted in zip(forest.prepare(X[:4]), own, strict=True):
        values, base = by_hand(forest, row)
        np.testing.assert_allclose(values.T, wanted[:, :-1], atol=1e-9)
        np.testing.assert_allclose(base, wanted[:, -1], atol=1e-9)
    upside_down = replace(forest, cover=np.where(forest.left == LEAF, forest.cover[::-1], forest.cover))
    assert not np.allclose(by_hand(upside_down, forest.prepare(X[:1])[0])[0].T, own[0, :, :-1], atol=1e-3)
