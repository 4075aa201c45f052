"""TreeSHAP on real tables and in real surroundings: other libraries, all coalitions, threads, forks, interrupts, memory."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
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
from test_tree_shap import brute

import askwhy as aw
from askwhy.errors import AskwhyError
from askwhy.models.forest import Forest, read_forest

MIXED = ["age", "workclass", "occupation", "capital gain", "native country"]  # numbers, and categories with missing values
EXACT = {"rtol": 0, "atol": 1e-10}


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
    model = catboost.CatBoostClassifier(
        iterations=12,
        depth=5,
        one_hot_max_size=100,
        grow_policy=policy,
        verbose=0,
        allow_writing_files=False,
        cat_features=sorted_out,
        thread_count=1,
    ).fit(X, y)
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
    cat = catboost.CatBoostClassifier(iterations=10, depth=4, verbose=0, allow_writing_files=False, thread_count=1).fit(X, y)
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
            iterations=4, depth=4, one_hot_max_size=100, cat_features=[1, 2, 4], grow_policy="Lossguide", verbose=0, allow_writing_files=False,
            thread_count=1,
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
    """Powers of two are split one after the other, so that the trees are as deep as there are rows."""
    rng = np.random.default_rng(0)
    X = np.stack([rng.permutation(2.0 ** np.arange(50)) for _ in range(5)], 1)
    model = getattr(ensemble, f"{kind}Regressor")(2, max_features=1, random_state=0).fit(X, np.arange(50.0) ** 2)
    assert max(tree.get_depth() for tree in model.estimators_) > (36 if kind == "ExtraTrees" else 10)
    why = aw.tree_shap(model, X)
    close(why.values[:3], by_all_coalitions(model, X[:3]), 1e-11)
    np.testing.assert_allclose(why.values.sum(1) + why.base_value, model.predict(X), rtol=1e-11)
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


def test_a_class_that_never_happened() -> None:
    X = sklearn.datasets.load_iris(return_X_y=True)[0]
    model = xgboost.train({"objective": "binary:logistic", "min_child_weight": 0}, xgboost.DMatrix(X, np.zeros(len(X))), 3)
    assert not aw.tree_shap(model, X[:3], 1).values.any()


# ---- sums, and any number of rows -----------------------------------------------------------------------------------


def test_sums_are_exact_where_the_library_adds_in_double_precision() -> None:
    X, y = sklearn.datasets.load_diabetes(return_X_y=True)
    models = [
        lightgbm.LGBMRegressor(n_estimators=100, n_jobs=1, verbose=-1),
        catboost.CatBoostRegressor(iterations=60, depth=6, verbose=0, allow_writing_files=False, thread_count=1),
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
        catboost.CatBoostClassifier(iterations=4, verbose=0, allow_writing_files=False, thread_count=1),
        ensemble.RandomForestClassifier(4, random_state=0),
        ensemble.HistGradientBoostingClassifier(max_iter=4),
    ]
    for model in models:
        model.fit(X, y[:200])
        found, expected = aw.tree_shap(model, TABLES[kind](X[:9]), 1), aw.tree_shap(model, X[:9], 1)
        np.testing.assert_array_equal(found.values, expected.values, err_msg=type(model).__name__)
        assert found.components == expected.components


def test_a_model_that_was_fitted_again_is_not_explained_as_it_was() -> None:
    """Either its new trees are read, or askwhy says so; a booster is what it was when it was wrapped, for its predictions too."""
    X, y = sklearn.datasets.load_breast_cancer(return_X_y=True)
    models = [
        ensemble.RandomForestClassifier(5, random_state=0),
        ensemble.HistGradientBoostingClassifier(max_iter=5),
        ensemble.GradientBoostingClassifier(n_estimators=5),
        catboost.CatBoostClassifier(iterations=5, verbose=0, allow_writing_files=False, thread_count=1),
    ]
    for model in models:
        wrapped = aw.wrap(model.fit(X, y))
        aw.tree_shap(wrapped, X[:30], 1)
        fresh = aw.tree_shap(model.fit(X[200:], 1 - y[200:]), X[:30], 1)
        try:
            again = aw.tree_shap(wrapped, X[:30], 1)
        except AskwhyError:
            continue
        np.testing.assert_array_equal(again.values, fresh.values)


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
def test_after_a_fork(boosted: Any) -> None:
    model, X = aw.wrap(boosted[0]), np.resize(boosted[1], (600, 30))
    before = aw.tree_shap(model, X, 1).values
    child = os.fork()
    if child == 0:
        same = np.array_equal(aw.tree_shap(model, X, 1).values, before)
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.1, 0.3])
def test_an_interrupt_leaves_nothing_half_done(delay: float) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 12))
    model = ensemble.ExtraTreesRegressor(10, random_state=0, max_depth=14).fit(X, X[:, 0] * X[:, 1])
    wrapped, threads = aw.wrap(model), threading.active_count()
    timer = threading.Timer(delay, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        while True:
            aw.tree_shap(wrapped, X)
    assert threading.active_count() == threads
    np.testing.assert_array_equal(aw.tree_shap(wrapped, X[:50]).values, aw.tree_shap(model, X[:50]).values)


MEMORY = """
import json, resource, sys
import numpy as np
import lightgbm
import askwhy as aw

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

X = np.random.default_rng(0).normal(size=(10_000, 30))
raw = lightgbm.Booster(model_file=sys.argv[1])
raw.predict(X)
model, found = aw.wrap(raw), {}
for name, rows, options in (
    ("path-dependent", len(X), {}), ("interventional", len(X), {"background": X[:100]}), ("interactions", len(X), {"interactions": True}),
):
    aw.tree_shap(model, X[:70], **options)
    before = peak()
    size = aw.tree_shap(model, X, **options).values.nbytes / 2**20
    found[name] = peak() - before, size
print(json.dumps(found))
"""


@pytest.mark.slow
def test_memory_is_the_answer_twice_and_200_megabytes(tmp_path: Path) -> None:
    """1,000 trees, 10,000 rows of 30 columns; a process's peak never falls, so that each is what it adds to those before."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(10_000, 30))
    model = lightgbm.LGBMRegressor(n_estimators=1000, num_leaves=64, n_jobs=2, verbose=-1).fit(X, X[:, 0] * X[:, 1] + rng.normal(size=10_000))
    model.booster_.save_model(tmp_path / "model.txt")
    done = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path / "model.txt")], capture_output=True, text=True, check=True)
    for name, (added, size) in json.loads(done.stdout).items():
        print(f"{name}: {added:.0f} MB more for values of {size:.0f} MB")
        assert added < 2 * size + 200, name
