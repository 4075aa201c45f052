"""TreeSHAP on real tables and in real surroundings: other libraries, all coalitions, threads, forks, interrupts, memory."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import oracle
import pandas as pd
import pytest
import sklearn.datasets
import xgboost
from sklearn import ensemble
from sklearn.tree import DecisionTreeRegressor
from test_tree_shap import brute, random_forest, random_rows, values_of
from threadpoolctl import threadpool_limits

import askwhy as aw
from askwhy.compiled.quadrature import SIZE
from askwhy.errors import Cancelled, InputError
from askwhy.models.forest import Forest, read_forest

MIXED = ["age", "workclass", "occupation", "capital gain", "native country"]  # numbers, and categories with missing values
ROOT = Path(__file__).parent.parent
EXACT = {"rtol": 0, "atol": 1e-10}
QUIET = {"verbose": 0, "allow_writing_files": False, "thread_count": 1}  # CatBoost


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The libraries' own OpenMP threads wait for each other by turning round and round, which takes long on few processors."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def adult() -> tuple[Any, np.ndarray, Any]:
    """2,000 rows to train on, their classes, 60 more."""
    X, y, rest, _ = aw.zoo.adult()
    return X[:2000], (y[:2000] == ">50K").astype(int), rest[:60]


def in_words(table: Any) -> Any:
    """As CatBoost takes categories."""
    sorted_out = table.select_dtypes("category").columns
    return table.astype(dict.fromkeys(sorted_out, object)).fillna(dict.fromkeys(sorted_out, "unknown"))


def close(found: np.ndarray, expected: np.ndarray, allowed: float) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=allowed * np.abs(expected).max())


def with_base(why: aw.Explanation) -> np.ndarray:
    """[n, d + 1] or [n, d + 1, k], as the libraries give it."""
    return np.concatenate([why.values, why.base_value[:, None]], 1)


# ---- a table with categories and missing values, against the libraries themselves -----------------------------------

XGB = {
    "plain": {},
    "one set a split": {"max_cat_to_onehot": 1},
    "dropout": {"booster": "dart", "rate_drop": 0.3, "one_drop": 1},
    "by leaves": {"grow_policy": "lossguide", "max_leaves": 40, "max_depth": 0},
    "a forest": {"num_parallel_tree": 4, "subsample": 0.5, "n_estimators": 4},
}
LGB = {
    "plain": {},
    "one against the rest": {"max_cat_to_onehot": 100},
    "dropout": {"boosting_type": "dart", "drop_rate": 0.4},
    "a forest": {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
    "large": {"num_leaves": 150, "min_child_samples": 1},
}


@pytest.mark.parametrize("kind", XGB)
def test_xgboost_on_a_table_of_people(adult: Any, kind: str) -> None:
    X, y, rows = adult
    model = xgboost.XGBClassifier(**{"n_estimators": 12, "max_depth": 5, "enable_categorical": True, "n_jobs": 1} | XGB[kind]).fit(X, y)
    assert read_forest(model).members.any(), "no split by category"
    data = xgboost.DMatrix(rows, enable_categorical=True)
    close(with_base(aw.tree_shap(model, rows, 1)), model.get_booster().predict(data, pred_contribs=True), 2e-6)
    pairs = model.get_booster().predict(data, pred_interactions=True)[:, :-1, :-1]
    close(aw.tree_shap(model, rows, 1, interactions=True).values, pairs, 5e-6)


@pytest.mark.parametrize("kind", LGB)
def test_lightgbm_on_a_table_of_people(adult: Any, kind: str) -> None:
    """Of its random forests LightGBM gives the sum over the trees; their prediction is the mean."""
    X, y, rows = adult
    model = lightgbm.LGBMClassifier(**{"n_estimators": 12, "n_jobs": 1, "verbose": -1} | LGB[kind]).fit(X, y)
    assert read_forest(model).members.any(), "no split by category"
    own = model.booster_.predict(rows, pred_contrib=True) / (12 if kind == "a forest" else 1)
    why = aw.tree_shap(model, rows, 1)
    close(with_base(why), own, 1e-12)
    np.testing.assert_allclose(1 / (1 + np.exp(-why.prediction)), model.predict_proba(rows)[:, 1], rtol=1e-12)


@pytest.mark.parametrize("policy", ["SymmetricTree", "Depthwise", "Lossguide"])
def test_catboost_on_a_table_of_people(adult: Any, policy: str) -> None:
    """Where a row reaches a leaf without training rows, CatBoost's own values of trees that are not symmetric miss its prediction."""
    X, y, rows = in_words(adult[0]), adult[1], in_words(adult[2])
    sorted_out = adult[0].select_dtypes("category").columns.tolist()
    options = {"iterations": 12, "depth": 5} if policy == "SymmetricTree" else {"iterations": 3, "depth": 3}
    model = catboost.CatBoostClassifier(**options, one_hot_max_size=100, grow_policy=policy, cat_features=sorted_out, **QUIET).fit(X, y)
    assert read_forest(model).members.any(), "no split by category"
    own = model.get_feature_importance(catboost.Pool(rows, cat_features=sorted_out), type="ShapValues")
    why = aw.tree_shap(model, rows, 1)
    right = np.abs(own.sum(1) - why.prediction) < 1e-9
    assert right.mean() > 0.3
    assert right.all() or policy != "SymmetricTree"
    close(with_base(why)[right], own[right], 1e-12)


def test_several_classes_against_the_libraries() -> None:
    X, y = sklearn.datasets.load_iris(return_X_y=True)
    trees = xgboost.XGBClassifier(n_estimators=10, n_jobs=1).fit(X, y)
    own = trees.get_booster().predict(xgboost.DMatrix(X), pred_contribs=True)
    close(with_base(aw.tree_shap(trees, X, "all")), own.transpose(0, 2, 1), 2e-6)
    light = lightgbm.LGBMClassifier(n_estimators=10, n_jobs=1, verbose=-1).fit(X, y)
    own = light.booster_.predict(X, pred_contrib=True).reshape(len(X), 3, 5)
    close(with_base(aw.tree_shap(light, X, "all")), own.transpose(0, 2, 1), 1e-12)
    cat = catboost.CatBoostClassifier(iterations=10, depth=4, **QUIET).fit(X, y)
    own = cat.get_feature_importance(catboost.Pool(X), type="ShapValues")
    close(with_base(aw.tree_shap(cat, X, "all")), own.transpose(0, 2, 1), 1e-12)


# ---- all coalitions of real tables ----------------------------------------------------------------------------------


def halves(forest: Forest) -> Forest:
    """With the rule for splits that no training data reached, which the oracle would divide by zero at."""
    inner, cover = np.flatnonzero(forest.left >= 0), forest.cover.copy()
    sides = np.stack([forest.left[inner], forest.right[inner]])
    cover[sides[:, cover[sides].sum(0) == 0]] = 1.0
    return dataclasses.replace(forest, cover=cover)


def by_all_coalitions(model: Any, given: Any, output: int = 0) -> np.ndarray:
    forest = halves(read_forest(model))
    return np.array([brute(lambda z, row=row: oracle.path_dependent(forest, row, z)[output], forest.width) for row in forest.prepare(given)])


def mixed_models() -> list[Any]:
    return [
        xgboost.XGBClassifier(n_estimators=6, max_depth=5, enable_categorical=True, max_cat_to_onehot=2, n_jobs=1),
        lightgbm.LGBMClassifier(n_estimators=6, n_jobs=1, verbose=-1),
        catboost.CatBoostClassifier(
            iterations=4, depth=4, one_hot_max_size=100, cat_features=[1, 2, 4], grow_policy="Lossguide", **QUIET
        ),
        ensemble.HistGradientBoostingClassifier(categorical_features="from_dtype", max_iter=6),
    ]  # fmt: skip


@pytest.mark.parametrize("model", mixed_models(), ids=lambda one: type(one).__name__)
def test_categories_and_missing_values_against_all_coalitions(adult: Any, model: Any) -> None:
    X, rows = (in_words(part) if isinstance(model, catboost.CatBoost) else part for part in (adult[0][MIXED], adult[2][MIXED][:6]))
    model.fit(X, adult[1])
    assert adult[2][MIXED][:6].isna().any().any()
    close(aw.tree_shap(model, rows, 1).values, by_all_coalitions(model, rows), 1e-10)
    raw, background = read_forest(model).raw, X[:30]

    def score(given: np.ndarray) -> np.ndarray:
        return raw(pd.DataFrame(given, columns=MIXED).astype(X.dtypes))

    outside = aw.shapley(score, rows[:2].to_numpy(object), 0, background=background.to_numpy(object), estimator="exact")
    close(aw.tree_shap(model, rows[:2], 1, background=background).values, outside.values, 1e-6)


@pytest.mark.parametrize("kind", ["RandomForest", "ExtraTrees"])
def test_forests_of_unlimited_depth(kind: str) -> None:
    """Powers of two are split off one after the other, the largest first, so that trees are about as deep as there are rows."""
    rng = np.random.default_rng(0)
    powers = 2.0 ** np.arange(90)
    X = np.stack([powers, *(rng.permutation(powers) for _ in range(4))], 1)
    target, options = (powers, {}) if kind == "RandomForest" else (np.arange(90.0) ** 2, {"max_features": 1})
    model = getattr(ensemble, f"{kind}Regressor")(2, random_state=0, **options).fit(X, target)
    assert max(tree.get_depth() for tree in model.estimators_) >= 36
    why = aw.tree_shap(model, X)
    close(why.values[:3], by_all_coalitions(model, X[:3]), 1e-11)
    close(why.values.sum(1) + why.base_value, model.predict(X), 1e-11)
    against = aw.tree_shap(model, X[:4], background=X)
    close(against.values, aw.shapley(model, X[:4], background=X, estimator="exact").values, 1e-11)


def test_isolation_forests_against_all_coalitions() -> None:
    X = sklearn.datasets.load_iris(return_X_y=True)[0]
    model = ensemble.IsolationForest(n_estimators=20, random_state=0).fit(X)
    why = aw.tree_shap(model, X[:10])
    close(why.values, by_all_coalitions(model, X[:10]), 1e-11)
    assert why.unit == "splits until alone"
    forest = read_forest(model)
    outside = aw.shapley(forest.raw, X[:4], 0, background=X[:50], estimator="exact")
    close(aw.tree_shap(model, X[:4], background=X[:50]).values, outside.values, 1e-10)


@pytest.mark.filterwarnings("ignore:.*updater:UserWarning")
def test_splits_of_xgboost_that_saw_no_data_count_half_on_either_side() -> None:
    """XGBoost's own pred_contribs ends in an error here."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3)).astype(np.float32)
    data = xgboost.DMatrix(X, X[:, 0] + X[:, 1] * X[:, 2] > 0)
    options = {"objective": "binary:logistic", "max_depth": 5, "min_child_weight": 0, "nthread": 1}
    whole = xgboost.train(options, data, 5)
    refreshed = {"process_type": "update", "updater": "refresh", "refresh_leaf": False}
    model = xgboost.train(options | refreshed, data.slice(range(9)), 5, xgb_model=whole)
    forest = read_forest(model)
    empty = (forest.left >= 0) & (forest.cover == 0)
    assert 20 < empty.sum() < (forest.left >= 0).sum() - 20
    why = aw.tree_shap(model, X[:20], 1)
    close(why.values, by_all_coalitions(model, X[:20]), 1e-12)
    assert "splits saw no training data" in why.details["note"]
    close(aw.tree_shap(model, X[:20], 1, interactions=True).values.sum(2), why.values, 1e-12)


@pytest.mark.parametrize("base", [1e-9, 1e-6, 1.1e-6, 1 - 1e-6, 1 - 1e-7])
def test_a_base_score_next_to_0_or_1_is_what_xgboost_makes_of_it(base: float) -> None:
    X, y = sklearn.datasets.load_breast_cancer(return_X_y=True)
    model = xgboost.XGBClassifier(n_estimators=2, base_score=base, min_child_weight=0, n_jobs=1).fit(X, y)
    why = aw.tree_shap(model, X[:5], 1)
    np.testing.assert_allclose(why.prediction, model.predict(X[:5], output_margin=True), rtol=1e-6)


def test_trees_that_never_split_have_values_of_zero() -> None:
    X, y = sklearn.datasets.load_iris(return_X_y=True)[0], np.full(150, 7.1)
    models = [DecisionTreeRegressor(), lightgbm.LGBMRegressor(n_estimators=3, n_jobs=1, verbose=-1), ensemble.RandomForestRegressor(3)]
    for model in models:
        for options in ({}, {"background": X}, {"interactions": True}):
            why = aw.tree_shap(model.fit(X, y), X[:3], **options)
            assert not why.values.any()
            np.testing.assert_allclose(why.base_value, 7.1)


def test_a_class_that_never_happened() -> None:
    X = sklearn.datasets.load_iris(return_X_y=True)[0]
    model = xgboost.train({"objective": "binary:logistic", "min_child_weight": 0}, xgboost.DMatrix(X, np.zeros(len(X))), 3)
    assert not aw.tree_shap(model, X[:3], 1).values.any()


def test_the_difference_of_two_probabilities_of_a_forest() -> None:
    X, y = sklearn.datasets.load_breast_cancer(return_X_y=True)
    forest = ensemble.RandomForestClassifier(5, random_state=0).fit(X, y)
    one, both = aw.tree_shap(forest, X[:9], 1), aw.tree_shap(forest, X[:9], 1, versus=0)
    np.testing.assert_allclose(both.values, 2 * one.values)
    np.testing.assert_allclose(both.base_value, 2 * one.base_value - 1)
    np.testing.assert_allclose(both.prediction, 2 * one.prediction - 1, atol=1e-12)


def test_the_scale_between_rows_of_one_score_is_its_slope() -> None:
    """Two columns that count the same: a row with the one and a row with the other have the same score, and a difference of 0 says no scale."""
    X = np.repeat([[0, 0], [0, 1], [1, 0], [1, 1]], 50, axis=0).astype(float)
    y = np.concatenate([np.arange(50) < chance for chance in (5, 20, 20, 35)])
    model = ensemble.GradientBoostingClassifier(max_depth=1, n_estimators=1000, random_state=0).fit(X, y)
    row, other = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    raw = aw.tree_shap(model, row, "True", background=other)
    assert abs(raw.prediction[0] - raw.base_value[0]) < 1e-6 < 0.5 < raw.values[0, 0]
    chance = model.predict_proba(row)[0, 1]
    scaled = aw.tree_shap(model, row, "True", background=other, output="probability")
    np.testing.assert_allclose(scaled.values, raw.values * chance * (1 - chance), rtol=1e-6)


# ---- sums, and any number of rows -----------------------------------------------------------------------------------


def test_sums_are_exact_where_the_library_adds_in_double_precision() -> None:
    X, y = sklearn.datasets.load_diabetes(return_X_y=True)
    models = [
        lightgbm.LGBMRegressor(n_estimators=100, n_jobs=1, verbose=-1),
        catboost.CatBoostRegressor(iterations=60, depth=6, **QUIET),
        ensemble.RandomForestRegressor(30, random_state=0),
        ensemble.ExtraTreesRegressor(30, random_state=0),
        ensemble.GradientBoostingRegressor(random_state=0),
        ensemble.HistGradientBoostingRegressor(),
        DecisionTreeRegressor(random_state=0),
    ]
    for model in models:
        own = model.fit(X, y).predict(X)
        for options in ({}, {"background": X[:20]}):
            why = aw.tree_shap(model, X, **options)
            np.testing.assert_allclose(why.values.sum(1) + why.base_value, own, rtol=1e-11, err_msg=type(model).__name__)


@pytest.fixture(scope="module")
def boosted() -> tuple[Any, np.ndarray]:
    X, y = sklearn.datasets.load_breast_cancer(return_X_y=True)
    return lightgbm.LGBMClassifier(n_estimators=30, n_jobs=1, verbose=-1).fit(X, y), X


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 129, 1000])
def test_any_number_of_rows(boosted: Any, n: int) -> None:
    """Rows are worked through in blocks of 64 and portions; each has to be what it is alone."""
    model, X = aw.wrap(boosted[0]), np.resize(boosted[1], (n, 30))
    last, few = X[-1:], X[: min(n, 70)]
    for options in ({}, {"background": boosted[1][:65]}):
        whole, alone = aw.tree_shap(model, X, 1, **options), aw.tree_shap(model, last, 1, **options)
        np.testing.assert_allclose(whole.values[-1:], alone.values, **EXACT)
        np.testing.assert_allclose(whole.values.sum(1) + whole.base_value, boosted[0].predict(X, raw_score=True), **EXACT)
    pairs = aw.tree_shap(model, few, 1, interactions=True)
    np.testing.assert_allclose(pairs.values.sum(2), aw.tree_shap(model, few, 1).values, **EXACT)


# ---- as tables and arrays come --------------------------------------------------------------------------------------


def locked(X: np.ndarray) -> np.ndarray:
    X = X.copy()
    X.flags.writeable = False
    return X


ARRAYS = {
    "read-only": locked,
    "column by column": np.asfortranarray,
    "every second row": lambda X: np.repeat(X, 2, 0)[::2],
    "backwards": lambda X: X[::-1].copy()[::-1],
    "part of a wider table": lambda X: np.hstack([X, X])[:, :30],
    "lists": np.ndarray.tolist,
    "single precision": lambda X: X.astype(np.float32),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_of_all_kinds(boosted: Any, kind: str) -> None:
    model, X = aw.wrap(boosted[0]), boosted[1][:70].astype(np.float32).astype(np.float64)
    given = ARRAYS[kind](X)
    before = np.array(given)
    np.testing.assert_array_equal(aw.tree_shap(model, given, 1).values, aw.tree_shap(model, X, 1).values)
    np.testing.assert_array_equal(aw.tree_shap(model, X[:5], 1, background=given).values, aw.tree_shap(model, X[:5], 1, background=X).values)
    np.testing.assert_array_equal(given, before)


def test_bytes_in_another_order() -> None:
    """As files of HDF5 and FITS have them; XGBoost takes them for other numbers."""
    X, y = sklearn.datasets.load_breast_cancer(return_X_y=True)
    model = aw.wrap(xgboost.XGBClassifier(n_estimators=4, n_jobs=1).fit(X, y))
    for kind in (">f8", ">f4"):
        given = X[:40].astype(kind)
        np.testing.assert_array_equal(aw.tree_shap(model, given, 1).values, aw.tree_shap(model, given.astype(kind[1:]), 1).values)


TABLES = {
    "another index": lambda table: table.set_index(np.arange(len(table))[::-1] * 3),
    "one index for all": lambda table: table.set_index(np.zeros(len(table))),
    "two indexes": lambda table: table.set_index(pd.MultiIndex.from_arrays([range(len(table))] * 2)),
    "missing as NA": lambda table: table.convert_dtypes(),
    "Float64": lambda table: table.astype("Float64"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_of_all_kinds(kind: str) -> None:
    X, y = sklearn.datasets.load_breast_cancer(return_X_y=True, as_frame=True)
    X = X[:200].mask(np.random.default_rng(0).random((200, 30)) < 0.05)
    models = [
        xgboost.XGBClassifier(n_estimators=4, n_jobs=1),
        lightgbm.LGBMClassifier(n_estimators=4, n_jobs=1, verbose=-1),
        catboost.CatBoostClassifier(iterations=4, **QUIET),
        ensemble.RandomForestClassifier(4, random_state=0),
        ensemble.HistGradientBoostingClassifier(max_iter=4),
    ]
    for model in models:
        model.fit(X, y[:200])
        found, expected = aw.tree_shap(model, TABLES[kind](X[:9]), 1), aw.tree_shap(model, X[:9], 1)
        np.testing.assert_array_equal(found.values, expected.values, err_msg=type(model).__name__)
        assert found.components == expected.components


def test_a_word_where_a_number_should_be() -> None:
    X, y = sklearn.datasets.load_iris(return_X_y=True)
    for model in (xgboost.XGBClassifier(n_estimators=2, n_jobs=1), lightgbm.LGBMClassifier(n_estimators=2, n_jobs=1, verbose=-1)):
        wrapped = aw.wrap(model.fit(X, y))
        with pytest.raises(InputError, match="could not convert string to float: 'tall'"):
            aw.tree_shap(wrapped, np.array([[5.1, 3.5, "tall", 0.2]], object))
    with pytest.raises(InputError, match="could not convert string to float: 'tall'"):
        aw.tree_shap(wrapped, pd.DataFrame([[5.1, 3.5, "tall", 0.2]]))


def test_a_model_that_was_fitted_again_is_read_again() -> None:
    """A forest that is sure of a row before and after gives the same sum for other values."""
    X, y = sklearn.datasets.load_breast_cancer(return_X_y=True)
    models = [
        ensemble.RandomForestClassifier(5, random_state=0),
        ensemble.HistGradientBoostingClassifier(max_iter=5),
        ensemble.GradientBoostingClassifier(n_estimators=5),
        catboost.CatBoostClassifier(iterations=5, **QUIET),
        lightgbm.LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1),
        xgboost.XGBClassifier(n_estimators=5, n_jobs=1),
    ]
    for model in models:
        wrapped = aw.wrap(model.fit(X, y))
        before = aw.tree_shap(wrapped, X[:30], 1)
        fresh = aw.tree_shap(model.fit(X[100:], y[100:]), X[:30], 1)
        again = [aw.tree_shap(wrapped, row[None], 1).values[0] for row in X[:30]]
        np.testing.assert_array_equal(again, fresh.values, err_msg=type(model).__name__)
        assert not np.allclose(before.values, fresh.values)


def test_a_booster_that_was_trained_further_is_read_again() -> None:
    X, y = sklearn.datasets.load_breast_cancer(return_X_y=True)
    one = xgboost.train({"max_depth": 3, "nthread": 1}, xgboost.DMatrix(X, y), 3)
    other = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(X, y), 3, keep_training_booster=True)
    for booster, more in ((one, lambda: one.update(xgboost.DMatrix(X, y), 3)), (other, other.update)):
        wrapped = aw.wrap(booster)
        aw.tree_shap(wrapped, X[:5])
        more()
        np.testing.assert_array_equal(aw.tree_shap(wrapped, X[:5]).values, aw.tree_shap(booster, X[:5]).values)


def test_a_callback_can_stop_it(boosted: Any) -> None:
    for options in ({}, {"interactions": True}, {"background": boosted[1]}):
        with pytest.raises(Cancelled):
            aw.tree_shap(boosted[0], boosted[1], 1, progress=lambda done, total: False, **options)


# ---- a service ------------------------------------------------------------------------------------------------------


def test_a_service_of_eight_threads(boosted: Any) -> None:
    """The trees are read by whoever comes first; the others wait for nothing and get the same."""
    X = boosted[1][:40]
    expected = [aw.tree_shap(boosted[0], X, 1, **options).values for options in ({}, {"background": X})]
    model = aw.wrap(boosted[0])

    def one(i: int) -> float:
        found = [aw.tree_shap(model, X[i : i + 1], 1, **options).values[0] for options in ({}, {"background": X})]
        return max(np.abs(mine - whole[i]).max() for mine, whole in zip(found, expected, strict=True))

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(one, range(40))) < 1e-12


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_after_a_fork() -> None:
    """A model of scikit-learn, since LightGBM's own threads do not always survive a fork: its predict then waits forever."""
    X, y = sklearn.datasets.load_diabetes(return_X_y=True)
    model, X = aw.wrap(ensemble.GradientBoostingRegressor(n_estimators=20).fit(X, y)), np.resize(X, (600, 10))
    before = aw.tree_shap(model, X).values
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        same = np.array_equal(aw.tree_shap(model, X).values, before)
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.1, 0.3])
def test_an_interrupt_leaves_nothing_half_done(delay: float, request: pytest.FixtureRequest) -> None:
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins without it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, earlier))
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 12))
    model = ensemble.ExtraTreesRegressor(10, random_state=0, max_depth=14).fit(X, X[:, 0] * X[:, 1])
    wrapped, threads = aw.wrap(model), threading.active_count()
    timer = threading.Timer(delay, lambda: os.kill(os.getpid(), signal.SIGINT))

    def ask_until_then() -> None:
        timer.start()
        for _ in range(100):
            aw.tree_shap(wrapped, X)

    with pytest.raises(KeyboardInterrupt):
        ask_until_then()
    timer.join()
    until = time.monotonic() + 10  # a thread that was just being started when it happened still ends its portion
    while threading.active_count() > threads and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == threads, threading.enumerate()
    np.testing.assert_array_equal(aw.tree_shap(wrapped, X[:50]).values, aw.tree_shap(model, X[:50]).values)


@pytest.mark.parametrize(
    "options", [{}, {"interactions": True}, {"Z": random_rows(1, 70), "weights": np.full(70, 1 / 70)}], ids=["values", "interactions", "background"]
)
def test_what_the_memory_held_before_does_not_matter(options: dict[str, Any]) -> None:
    """The kernels' own memory is given to them as somebody else left it, here full of NaN."""
    np.full(4_000_000, np.nan)  # from here on such sizes are taken from what was freed
    for seed in range(6):
        forest, row = random_forest(seed, 4), random_rows(seed, 1)
        expected = values_of(forest, row, **options)
        for _ in range(15):
            junk = [np.full(int(size), np.nan) for size in np.linspace(3, 10, 8) * SIZE]
            del junk
            np.testing.assert_array_equal(values_of(forest, row, **options), expected)


# ---- the documents --------------------------------------------------------------------------------------------------


def test_the_python_of_the_document_runs() -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/trees.md").read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, "trees.md", "exec"), names)
    assert names["why"].values.shape == (150, 4)


def test_the_walk_through_iris_says_what_the_document_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples/iris.py"))["draw"](tmp_path / "trees.jpg")
    assert (tmp_path / "trees.jpg").stat().st_size > 50_000
    said, document = capsys.readouterr().out, (ROOT / "docs/trees.md").read_text(encoding="utf-8")
    total = next(line for line in said.splitlines() if line.endswith("= 0.5350"))
    assert re.sub(r"([+-])(?=\d)", r"\1 ", total) in document
    assert next(line for line in said.splitlines() if "training rows)" in line).strip() in document


def test_two_trees_that_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """By hand: v() = .45, v(first) = .9, v(second) = .5; with background rows v(rain) = v(wind) = .5."""
    runpy.run_path(str(ROOT / "examples/trees.py"))["two_answers"]()
    assert capsys.readouterr().out.splitlines() == [
        "rain first, path-dependent: rain +0.475, wind +0.075",
        "rain first, interventional: rain +0.275, wind +0.275",
        "wind first, path-dependent: rain +0.075, wind +0.475",
        "wind first, interventional: rain +0.275, wind +0.275",
    ]


MEMORY = """
import json, re, sys
from pathlib import Path
import numpy as np
import askwhy as aw

def memory(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

X = np.random.default_rng(0).normal(size=(10_000, 30))
model, found = aw.wrap(sys.argv[1]), {}
model.outputs(model.prepare(X), X)
for name, rows, options in (
    ("the first row", 1, {}), ("path-dependent", len(X), {}), ("interventional", len(X), {"background": X[:100]}), ("interactions", 500, {"interactions": True}),
):
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
    before = memory("VmRSS")
    why = aw.tree_shap(model, X[:rows], **options)
    found[name] = memory("VmHWM") - before, why.values.nbytes / 2**20
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of a part of a process's life")
def test_memory_is_the_answer_twice_and_200_megabytes(tmp_path: Path) -> None:
    """1,000 trees of 64 leaves, 10,000 rows of 30 columns. The first row's share is reading the trees and the compiled kernels."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(10_000, 30))
    model = lightgbm.LGBMRegressor(n_estimators=1000, num_leaves=64, n_jobs=2, verbose=-1).fit(X, X[:, 0] * X[:, 1] + rng.normal(size=10_000))
    model.booster_.save_model(tmp_path / "model.txt")
    done = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path / "model.txt")], capture_output=True, text=True, check=True)
    for name, (added, size) in json.loads(done.stdout).items():
        print(f"{name}: {added:.0f} MB more for values of {size:.0f} MB")
        assert added < 2 * size + 200, name
