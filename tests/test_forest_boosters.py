"""The trees of XGBoost and LightGBM as flat arrays, beside the libraries' own raw scores and their own Shapley values."""

from __future__ import annotations

import itertools
import json
import math

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost

from askwhy.errors import InputError, ModelError, UnsupportedError
from askwhy.models import boosters
from askwhy.models.forest import LEAF, check_forest, read_forest
from askwhy.models.trees import lightgbm as from_lightgbm
from askwhy.models.trees import xgboost as from_xgboost

CITIES = list("qpvuwzyx")
ROUNDS = 6


def table(n=300, seed=0):
    """Numbers with ties and holes, and categories in no order."""
    rng = np.random.default_rng(seed)
    x = pd.DataFrame({"age": rng.integers(-3, 4, n) / 2, "income": rng.normal(size=n), "city": pd.Categorical(rng.choice(CITIES, n), CITIES)})
    x.loc[::6, "income"] = np.nan
    x.loc[::11, "city"] = np.nan
    return x


X = table()
CODES = X.assign(city=X.city.cat.codes.where(X.city.notna())).to_numpy(float)
REAL = X.age * X.income.fillna(2) + np.isin(X.city, ["q", "v", "x"]) * 2 + np.random.default_rng(1).normal(0, 0.1, len(X))
Y = {
    "real": REAL.to_numpy(),
    "two": (REAL > 0.5).to_numpy(float),
    "three": np.digitize(REAL, [0, 1.5]),
    "count": np.round(REAL.abs() + 0.6).to_numpy(),
    "many": np.stack([REAL, -REAL + X.age], 1),
}


def hard(forest, seed=0):
    """Rows on, just below and just above thresholds, with holes, with categories that were never seen and that are no whole numbers."""
    rng = np.random.default_rng(seed)
    x = np.repeat(CODES, 2, 0)
    for k in (0, 1):
        cuts = forest.threshold[(forest.feature == k) & (forest.left != LEAF) & (forest.category < 0)].astype(np.float32)
        cuts = np.concatenate([[0], cuts, np.nextafter(cuts, np.float32(np.inf)), np.nextafter(cuts, np.float32(-np.inf))])
        x[::3, k] = rng.choice(cuts, len(x[::3]))
    x[1::5, 2] = rng.choice([-1, -0.5, 2.7, 7.5, 8, 31, 32, 40, 70, 3e9, np.nan], len(x[1::5]))
    x[rng.random(x.shape) < 0.1] = np.nan
    return x


def sound(forest):
    """The arrays are trees: each node but the roots is one node's child, and the parts of the training data sum to the whole."""
    inner = np.flatnonzero(forest.left != LEAF)
    children = np.concatenate([forest.left[inner], forest.right[inner], forest.roots])
    np.testing.assert_array_equal(np.sort(children), np.arange(len(forest.left)))
    np.testing.assert_allclose(forest.cover[forest.left[inner]] + forest.cover[forest.right[inner]], forest.cover[inner], rtol=1e-5, atol=1e-5)
    assert (forest.cover[inner] > 0).all()
    assert forest.feature.min() >= 0
    assert (forest.feature[forest.left == LEAF] == 0).all()
    assert forest.feature.max() < forest.width
    assert (np.bincount(forest.category[forest.category >= 0], minlength=len(forest.members)) == 1).all()
    assert {forest.left.dtype, forest.right.dtype, forest.feature.dtype, forest.category.dtype, forest.roots.dtype} == {np.dtype(np.int32)}
    assert {forest.threshold.dtype, forest.value.dtype, forest.cover.dtype, forest.base.dtype} == {np.dtype(np.float64)}


def checked(model, *given):
    """The forest, once it gave the library's raw scores for all rows."""
    forest = read_forest(model)
    sound(forest)
    for one in given or (X, CODES, CODES.astype(np.float32), hard(forest)):
        rows = forest.prepare(one)
        assert rows.dtype == np.float64
        own = check_forest(forest, one, rows)
        assert own.shape == (len(one), forest.outputs)
        if len(forest.left) > len(forest.roots):
            assert (own.std(0) > 0).all()
    return forest


def shapley(forest, row):
    """phi [d + 1] by all subsets; absent: the mean over a split's children, by their cover. The last is the value of no features."""

    def value(node, known):
        if forest.left[node] == LEAF:
            return forest.value[node, 0]
        left, right = forest.left[node], forest.right[node]
        if forest.feature[node] in known:
            return value(left if forest.goes_left(np.array([node]), row[[forest.feature[node]]])[0] else right, known)
        return (forest.cover[left] * value(left, known) + forest.cover[right] * value(right, known)) / forest.cover[node]

    d = forest.width
    v = {s: forest.base[0] + sum(value(root, s) for root in forest.roots) for k in range(d + 1) for s in itertools.combinations(range(d), k)}
    phi = np.zeros(d + 1)
    phi[d] = v[()]
    for s, i in itertools.product(v, range(d)):
        if i not in s:
            phi[i] += math.factorial(len(s)) * math.factorial(d - len(s) - 1) / math.factorial(d) * (v[tuple(sorted((*s, i)))] - v[s])
    return phi


def is_mixed(forest):
    """Some splits are by category and some by threshold."""
    return (forest.category >= 0).any() and (forest.category < 0).any()


# ---- XGBoost ------------------------------------------------------------------------------------------------------


def xgb(y="real", x=X, rounds=ROUNDS, **options):
    data = xgboost.DMatrix(x, Y[y][: len(x)], enable_categorical=True)
    if options.get("objective") == "survival:aft":
        data.set_float_info("label_lower_bound", Y[y] + 1)
        data.set_float_info("label_upper_bound", Y[y] + 2)
    if options.get("objective", "").startswith("rank"):
        data.set_group([30] * 10)
    return xgboost.train({"nthread": 1, "max_depth": 4, "max_cat_to_onehot": 1, **options}, data, rounds)


XGB_OBJECTIVES = {
    "binary:hinge": ("two", "margin", "another"),
    "binary:logistic": ("two", "log odds", "logistic"),
    "binary:logitraw": ("two", "log odds", "logistic"),
    "count:poisson": ("count", "log of the expected count", "exp"),
    "multi:softmax": ("three", "log odds before softmax", "softmax"),
    "multi:softprob": ("three", "log odds before softmax", "softmax"),
    "rank:map": ("two", "ranking score", "identity"),
    "rank:ndcg": ("three", "ranking score", "identity"),
    "rank:pairwise": ("three", "ranking score", "identity"),
    "reg:absoluteerror": ("real", "the target's own unit", "identity"),
    "reg:gamma": ("count", "log of the expected value", "exp"),
    "reg:logistic": ("two", "log odds", "logistic"),
    "reg:pseudohubererror": ("real", "the target's own unit", "identity"),
    "reg:quantileerror": ("real", "the target's own unit", "identity"),
    "reg:squarederror": ("real", "the target's own unit", "identity"),
    "reg:squaredlogerror": ("count", "the target's own unit", "identity"),
    "reg:tweedie": ("count", "log of the expected value", "exp"),
    "survival:aft": ("count", "log of the survival time", "exp"),
    "survival:cox": ("count", "log of the hazard ratio", "exp"),
}
LINKS = {
    "exp": np.exp,
    "identity": lambda s: s,
    "logistic": lambda s: 1 / (1 + np.exp(-s)),
    "softmax": lambda s: np.exp(s) / np.exp(s).sum(1, keepdims=True),
}


@pytest.mark.parametrize("base", [{}, {"base_score": 0.3}], ids=["learned", "given"])
@pytest.mark.parametrize("objective", XGB_OBJECTIVES)
def test_xgboost_objectives(objective, base):
    y, unit, link = XGB_OBJECTIVES[objective]
    more = {"num_class": 3} if objective.startswith("multi") else {"quantile_alpha": [0.2, 0.8]} if "quantile" in objective else {}
    model = xgb(y, objective=objective, **base, **more)
    forest = checked(model)
    assert (forest.unit, forest.link) == (unit, link)
    assert forest.whole == (0.0 if objective.startswith("binary:") else None)
    assert forest.outputs == (3 if "multi" in objective else 2 if "quantile" in objective else 1)
    if link in LINKS and objective not in ("multi:softmax", "binary:logitraw"):  # those predict no probability
        own = model.predict(xgboost.DMatrix(X, enable_categorical=True))
        np.testing.assert_allclose(LINKS[link](forest.sums(forest.prepare(X))[0]), own.reshape(len(X), -1), rtol=1e-4, atol=1e-5)


def test_all_objectives_of_xgboost_are_tested():
    assert {*XGB_OBJECTIVES, "reg:linear"} == set(from_xgboost.OBJECTIVES)
    assert list(from_xgboost.OBJECTIVES) == sorted(from_xgboost.OBJECTIVES)


XGB_KINDS = {
    "a stump": {"max_depth": 1},
    "deep": {"max_depth": 21, "min_child_weight": 0, "lambda": 0},
    "by loss": {"max_depth": 0, "grow_policy": "lossguide", "max_leaves": 9},
    "one against the rest": {"max_cat_to_onehot": 100},
    "approximate": {"tree_method": "approx"},
    "dropout": {"booster": "dart", "rate_drop": 0.5, "seed": 1},
    "dropout by forests": {"booster": "dart", "rate_drop": 0.5, "normalize_type": "forest", "num_parallel_tree": 2, "seed": 1},
    "a forest": {"num_parallel_tree": 3, "subsample": 0.6, "colsample_bynode": 0.7},
    "pruned": {"gamma": 0.5},
    "one tree for two targets": {"y": "many", "multi_strategy": "multi_output_tree", "x": X[["age", "income"]]},
    "two targets": {"y": "many"},
    "labels together": {"y": "many", "objective": "binary:logistic"},
    "dropout of classes": {"y": "three", "objective": "multi:softprob", "num_class": 3, "booster": "dart", "rate_drop": 0.5, "num_parallel_tree": 2},
}


@pytest.mark.parametrize("kind", XGB_KINDS)
def test_kinds_of_xgboost_trees(kind, monkeypatch):
    monkeypatch.setitem(Y, "many", (Y["many"] > 0).astype(float) if kind == "labels together" else Y["many"])
    model = xgb(**XGB_KINDS[kind])
    forest = checked(model, *([X[["age", "income"]], CODES[:, :2]] if "x" in XGB_KINDS[kind] else []))
    assert forest.covers == "hessian weight"
    assert forest.whole is None
    assert forest.library == f"xgboost {xgboost.__version__}"
    if kind in ("deep", "by loss", "approximate", "dropout", "two targets"):
        assert is_mixed(forest)
        assert forest.default_left[forest.left != LEAF].any()
        assert not forest.default_left[forest.left != LEAF].all()
    if kind == "deep":
        assert depth(forest) > 15
    if "two" in kind:
        assert forest.value.shape[1] == (2 if "one tree" in kind else 1)


def depth(forest):
    at, deep = forest.roots, 0
    while len(at := at[forest.left[at] != LEAF]):
        at, deep = np.concatenate([forest.left[at], forest.right[at]]), deep + 1
    return deep


def test_xgboost_dropout_changes_the_weights():
    """Beside the test above: its trees do have weights other than 1."""
    kept = json.loads(xgb(**XGB_KINDS["dropout"]).save_raw("json"))["learner"]["gradient_booster"]["weight_drop"]
    assert min(kept) < 0.5 < max(kept)


def test_deleted_nodes_of_xgboost_are_left_out():
    model = xgboost.train({"tree_method": "exact", "gamma": 3, "max_depth": 5, "nthread": 1}, xgboost.DMatrix(CODES[:, :2], Y["real"]), 3)
    trees = json.loads(model.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
    assert any(tree["tree_param"]["num_deleted"] != "0" for tree in trees)
    forest = checked(model, CODES[:, :2])
    assert len(forest.left) == sum(int(tree["tree_param"]["num_nodes"]) - int(tree["tree_param"]["num_deleted"]) for tree in trees)


@pytest.mark.parametrize("cats", [1, 100])
def test_xgboost_covers_give_its_own_shapley_values(cats):
    model = xgb("two", objective="binary:logistic", max_cat_to_onehot=cats, booster="dart", rate_drop=0.3)
    forest, data = checked(model), xgboost.DMatrix(X[:12], enable_categorical=True)
    wanted = model.predict(data, pred_contribs=True)
    np.testing.assert_allclose([shapley(forest, row) for row in forest.prepare(X[:12])], wanted, atol=2e-5)


@pytest.mark.parametrize("missing", [-1.0, 0, 0.5, np.inf, None])
def test_what_xgboost_takes_for_missing(missing):
    x = np.nan_to_num(CODES[:, :2], nan=np.inf if missing == np.inf else -1)
    model = xgboost.XGBRegressor(n_estimators=ROUNDS, max_depth=4, missing=missing, n_jobs=1).fit(x, Y["real"])
    forest = checked(model, x, x.astype(np.float32), pd.DataFrame(x, columns=["f0", "f1"]))
    lost = np.isnan(forest.prepare(x))
    np.testing.assert_array_equal(lost, x == (np.nan if missing is None else missing))
    assert lost.any() == (missing is not None)
    np.testing.assert_array_equal(forest.prepare(pd.DataFrame(x)), forest.prepare(x))
    if missing == 0:  # and in a table the category with the code 0, for XGBoost
        model = xgboost.XGBRegressor(n_estimators=ROUNDS, missing=missing, enable_categorical=True, n_jobs=1).fit(X, Y["real"])
        turned = X.assign(city=X.city.cat.set_categories(CITIES[::-1]))
        forest = checked(model, X, turned)
        assert np.isnan(forest.prepare(X)[:, 2][X.city == "q"]).all()
        assert np.isnan(forest.prepare(turned)[:, 2][X.city == "x"]).all()


@pytest.mark.parametrize(
    ("make", "y"),
    [
        (lambda **o: xgboost.XGBClassifier(**o), "two"),
        (lambda **o: xgboost.XGBClassifier(**o), "three"),
        (lambda **o: xgboost.XGBClassifier(**o, booster="dart", rate_drop=0.4), "three"),
        (lambda **o: xgboost.XGBRegressor(**o), "many"),
        (lambda **o: xgboost.XGBRegressor(**o, num_parallel_tree=2), "real"),
    ],
)
def test_xgboost_estimators_stop_at_the_best_round(make, y, tmp_path):
    model = make(n_estimators=40, learning_rate=1.0, early_stopping_rounds=3, enable_categorical=True, n_jobs=1)
    model.fit(X[:200], Y[y][:200], eval_set=[(X[200:], Y[y][200:])], verbose=False)
    forest = checked(model, X, CODES)
    every = checked(model.get_booster(), X)
    assert len(forest.roots) < len(every.roots)
    assert len(forest.roots) % (model.best_iteration + 1) == 0
    model.save_model(tmp_path / "model.ubj")
    loaded = boosters.loaded(tmp_path / "model.ubj", *boosters.FILES[".ubj"])
    np.testing.assert_array_equal(checked(loaded, X).value, forest.value)


def test_other_xgboost_estimators():
    options = {"n_estimators": ROUNDS, "n_jobs": 1, "enable_categorical": True}
    for model in (xgboost.XGBRFClassifier(**options).fit(X, Y["two"]), xgboost.XGBRFRegressor(**options).fit(X, Y["real"])):
        assert len(checked(model).roots) == ROUNDS
    ranker = xgboost.XGBRanker(**options).fit(X, Y["three"], qid=np.arange(len(X)) // 30)
    assert checked(ranker).unit == "ranking score"
    own = xgboost.XGBRegressor(**options, objective=lambda y, p: (p - y, np.ones_like(p))).fit(X, Y["real"])
    assert checked(own).unit == "margin"


@pytest.mark.parametrize("ending", [".json", ".ubj"])
def test_xgboost_files(ending, tmp_path):
    model = xgb("three", objective="multi:softprob", num_class=3)
    model.save_model(tmp_path / f"model{ending}")
    loaded, forest = read_forest(boosters.loaded(tmp_path / f"model{ending}", *boosters.FILES[ending])), read_forest(model)
    for name in ("left", "right", "feature", "threshold", "default_left", "category", "members", "value", "cover", "roots", "output", "base"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(forest, name))
    np.testing.assert_array_equal(check_forest(loaded, X, loaded.prepare(X)), check_forest(forest, X, forest.prepare(X)))


@pytest.mark.parametrize("names", [CITIES, ["Rio", "Den Haag", "Oslo", "Osl", "", "O", "Rio ", "os"], [40, 3, -7, 22, 5, 6, 70, 11]])
def test_categories_of_a_table_keep_their_codes_in_xgboost(names):
    x = X.assign(city=X.city.cat.rename_categories(names))
    model = xgb(x=x)
    turned = x.assign(city=x.city.cat.set_categories(names[::-1]))
    few = x[x.city.isin(names[2:5])]
    few = few.assign(city=few.city.cat.remove_unused_categories())
    forest = checked(model, x, turned, few, CODES)
    assert not np.array_equal(turned.city.cat.codes, x.city.cat.codes)
    np.testing.assert_array_equal(forest.prepare(turned), forest.prepare(x))
    np.testing.assert_array_equal(forest.prepare(x)[:, 2], CODES[:, 2])


def test_categories_that_xgboost_mixes_up_are_refused():
    """XGBoost 3.1 and 3.2 count characters where they mean bytes, and then predict for other categories than those of the row."""
    x = X.assign(city=X.city.cat.rename_categories(["東京", "é", "z", "京都", "ß", "aé", "", "a b"]))
    forest = checked(xgb(x=x), x, CODES)
    np.testing.assert_array_equal(forest.prepare(x)[:, 2], CODES[:, 2])
    turned = x.assign(city=x.city.cat.set_categories(x.city.cat.categories[::-1]))
    alike = X.assign(city=X.city.cat.rename_categories(list("日月曜旦旧旨早旬")))
    model = xgb(x=alike)
    if xgboost.__version__ < "3.3":
        with pytest.raises(
            UnsupportedError, match="column 'city' has categories with letters beyond ASCII, which XGBoost 3.1 and 3.2 take for one another"
        ):
            forest.prepare(turned)
        with pytest.raises(UnsupportedError, match="letters beyond ASCII"):
            read_forest(model).prepare(alike)
        assert np.abs(read_forest(model).raw(alike) - read_forest(model).raw(CODES)).max() > 1  # XGBoost's own mistake
    else:
        checked(model, alike, CODES)
        checked(xgb(x=x), turned)


def test_codes_that_xgboost_was_told_are_categories():
    data = xgboost.DMatrix(CODES, Y["real"], feature_types=["q", "q", "c"], enable_categorical=True)
    assert is_mixed(checked(xgboost.train({"max_cat_to_onehot": 1, "nthread": 1}, data, 5), CODES, X))


def test_a_category_that_xgboost_would_take_for_another_is_refused():
    forest = read_forest(xgb())
    x = X.assign(city=X.city.cat.rename_categories({"u": "m"}))
    with pytest.raises(InputError, match="column 'city' holds 'm', a category that the model was not trained on"):
        forest.prepare(x)
    assert forest.prepare(x[x.city != "m"]).shape == ((x.city != "m").sum(), 3)  # it may be declared


def test_tables_of_other_kinds_of_numbers():
    whole = pd.DataFrame({"a": pd.array([1, None, 3] * 50, "Int64"), "b": pd.array([0.5, 0.25, None] * 50, "Float64"), "c": [True, False, True] * 50})
    y = np.tile([1.0, 2.0, 4.0], 50)
    for model in (
        xgboost.XGBRegressor(n_estimators=2, n_jobs=1).fit(whole, y),
        lightgbm.LGBMRegressor(n_estimators=2, n_jobs=1, verbose=-1).fit(whole, y),
    ):
        forest = checked(model, whole)
        np.testing.assert_array_equal(forest.prepare(whole)[:2], [[1, 0.5, 1], [np.nan, 0.25, 0]])


def test_numbers_beyond_float32_are_refused_as_xgboost_does():
    forest = read_forest(xgb(x=X[["age", "income"]]))
    for bad in (np.inf, -np.inf, 1e300):
        rows = np.array([[0, 1], [bad, 2]])
        with pytest.raises(InputError, match=r"row 1 has (inf|-inf|1e\+300) in column 0, and XGBoost takes no numbers"):
            forest.prepare(rows)
        table = pd.DataFrame(rows, columns=["age", "income"])
        with pytest.raises(InputError, match=r"row 1 has (inf|-inf|1e\+300) in column 0"):
            forest.prepare(table)
        with pytest.raises(InputError, match="XGBoost does not take this table"):
            forest.prepare(table.astype("Float64"))
        with pytest.raises(xgboost.core.XGBoostError, match="inf"):
            forest.raw(rows)


def test_whole_numbers_are_rounded_as_the_libraries_do():
    rows = np.array([[2**24, 1], [2**24 + 1, 1], [2**24 + 2, 1], [2**24 + 3, 1]] * 20)
    y = np.tile([0.0, 5, 1, 9], 20)
    for model in (
        xgboost.XGBRegressor(n_estimators=3, n_jobs=1).fit(rows, y),
        lightgbm.LGBMRegressor(n_estimators=3, n_jobs=1, verbose=-1, min_child_samples=1, min_data_in_bin=1).fit(rows, y),
    ):
        forest = checked(model, rows, rows.astype(float))
        assert forest.prepare(rows)[1, 0] == 2**24


# ---- LightGBM -----------------------------------------------------------------------------------------------------


def lgb(y="real", x=X, rounds=ROUNDS, **options):
    data = lightgbm.Dataset(x, Y[y], group=[30] * 10 if "rank" in str(options.get("objective")) else None, free_raw_data=False)
    quick = {"verbose": -1, "num_threads": 1, "num_leaves": 12, "min_data_in_leaf": 3, "min_data_per_group": 1, "cat_smooth": 1, "cat_l2": 1}
    return lightgbm.train({**quick, **options}, data, rounds)


LGB_OBJECTIVES = {
    "binary": ("two", "log odds", "logistic"),
    "cross_entropy": ("two", "log odds", "logistic"),
    "cross_entropy_lambda": ("two", "margin", "another"),
    "fair": ("real", "the target's own unit", "identity"),
    "gamma": ("count", "log of the expected value", "exp"),
    "huber": ("real", "the target's own unit", "identity"),
    "lambdarank": ("three", "ranking score", "identity"),
    "mape": ("real", "the target's own unit", "identity"),
    "multiclass": ("three", "log odds before softmax", "softmax"),
    "multiclassova": ("three", "log odds", "logistic"),
    "poisson": ("count", "log of the expected count", "exp"),
    "quantile": ("real", "the target's own unit", "identity"),
    "rank_xendcg": ("three", "ranking score", "identity"),
    "regression": ("real", "the target's own unit", "identity"),
    "regression_l1": ("real", "the target's own unit", "identity"),
    "tweedie": ("count", "log of the expected value", "exp"),
}


@pytest.mark.parametrize(
    "more", [{}, {"sigmoid": 2.5}, {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}], ids=["", "steep", "a forest"]
)
@pytest.mark.parametrize("objective", LGB_OBJECTIVES)
def test_lightgbm_objectives(objective, more):
    y, unit, link = LGB_OBJECTIVES[objective]
    classes = 3 if objective.startswith("multiclass") else 1
    model = lgb(y, objective=objective, num_class=classes, **more)
    forest = checked(model)
    assert (forest.unit, forest.link) == (unit, link)
    assert forest.outputs == classes
    assert forest.whole == (0.0 if objective == "binary" else None)
    if link in LINKS:
        np.testing.assert_allclose(LINKS[link](forest.sums(forest.prepare(X))[0]), model.predict(X).reshape(len(X), -1), rtol=1e-10)


def test_all_objectives_of_lightgbm_are_tested():
    assert {*LGB_OBJECTIVES, ""} == set(from_lightgbm.OBJECTIVES)
    assert list(from_lightgbm.OBJECTIVES) == sorted(from_lightgbm.OBJECTIVES)


def own_objective(predicted, data):
    return predicted - data.get_label(), np.ones_like(predicted)


LGB_KINDS = {
    "a stump": {"num_leaves": 2},
    "deep": {"num_leaves": 120, "min_data_in_leaf": 1, "max_depth": 21, "max_cat_threshold": 1, "learning_rate": 1},
    "one against the rest": {"max_cat_to_onehot": 100},
    "dropout": {"boosting": "dart", "drop_rate": 0.5},
    "sampled": {"data_sample_strategy": "goss", "learning_rate": 0.9},
    "zero is missing": {"zero_as_missing": True},
    "no missing values": {"use_missing": False},
    "square root": {"y": "count", "reg_sqrt": True},
    "own objective": {"objective": own_objective},
    "extremely random": {"extra_trees": True, "path_smooth": 2.0},
}


@pytest.mark.parametrize("kind", LGB_KINDS)
def test_kinds_of_lightgbm_trees(kind):
    forest = checked(lgb(**LGB_KINDS[kind]))
    checked(
        lgb(
            "three",
            **({} if kind == "own objective" else {"objective": "multiclass", "num_class": 3}),
            **{k: v for k, v in LGB_KINDS[kind].items() if k != "y"},
        )
    )
    endless = hard(forest)
    endless[::4, 1], endless[1::4, 0], endless[2::9, 2] = np.inf, -np.inf, np.inf
    checked_rows(forest, endless)
    tiny = hard(forest, 1)
    tiny[::3, :2] = np.random.default_rng(2).choice(
        [0, -0.0, 1e-36, -1e-36, from_lightgbm.ZERO, -from_lightgbm.ZERO, 2e-35, -2e-35], tiny[::3, :2].shape
    )
    checked_rows(forest, tiny)
    assert not forest.single
    assert forest.covers == "training rows"
    assert is_mixed(forest) or kind == "a stump"
    assert (forest.unit, forest.link) == {"square root": ("margin", "another"), "own objective": ("margin", "identity")}.get(
        kind, ("the target's own unit", "identity")
    )
    if kind == "deep":
        assert depth(forest) > 10
    zero = np.isnan(forest.prepare(np.zeros((1, 3))))[0]
    np.testing.assert_array_equal(zero, [kind == "zero is missing"] * 2 + [False])


def checked_rows(forest, rows):
    check_forest(forest, rows, forest.prepare(rows))


def test_lightgbm_covers_give_its_own_shapley_values():
    model = lgb("two", objective="binary", boosting="dart", drop_rate=0.5)
    forest = checked(model)
    np.testing.assert_allclose([shapley(forest, row) for row in forest.prepare(X[:12])], model.predict(X[:12], pred_contrib=True), atol=1e-12)
    assert forest.cover[forest.roots[0]] == len(X)


def test_lightgbm_estimators_stop_at_the_best_round(tmp_path):
    for make, y in ((lightgbm.LGBMClassifier, "two"), (lightgbm.LGBMClassifier, "three"), (lightgbm.LGBMRegressor, "real")):
        model = make(n_estimators=60, learning_rate=0.4, n_jobs=1, verbose=-1, min_child_samples=3)
        model.fit(X[:200], Y[y][:200], eval_X=(X[200:],), eval_y=(Y[y][200:],), callbacks=[lightgbm.early_stopping(3, verbose=False)])
        forest = checked(model, X, CODES)
        assert len(forest.roots) == model.best_iteration_ * forest.outputs < 60
        model.booster_.save_model(tmp_path / "model.txt")
        loaded = checked(boosters.loaded(tmp_path / "model.txt", *boosters.FILES[".txt"]), X, CODES)
        for name in ("left", "right", "feature", "threshold", "default_left", "category", "members", "value", "cover", "roots", "output"):
            np.testing.assert_array_equal(getattr(loaded, name), getattr(forest, name))
    seen, later = lightgbm.Dataset(X[:200], Y["real"][:200]), lightgbm.Dataset(X[200:], Y["real"][200:])
    stopped = lightgbm.train(
        {"verbose": -1, "num_threads": 1, "learning_rate": 0.7},
        seen,
        60,
        [later],
        keep_training_booster=True,
        callbacks=[lightgbm.early_stopping(3, verbose=False)],
    )
    assert len(checked(stopped).roots) == stopped.best_iteration < stopped.num_trees()
    ranker = lightgbm.LGBMRanker(n_estimators=5, n_jobs=1, verbose=-1).fit(X, Y["three"], group=[30] * 10)
    assert checked(ranker).unit == "ranking score"


def test_categories_of_a_table_keep_their_codes_in_lightgbm():
    model = lgb()
    turned = X.assign(city=X.city.cat.set_categories([*CITIES[::-1], "unknown"]))
    turned.loc[5, "city"] = "unknown"
    forest = checked(model, X, turned)
    wanted = forest.prepare(X)
    np.testing.assert_array_equal(wanted[:, 2], CODES[:, 2])
    wanted[5, 2] = np.nan
    np.testing.assert_array_equal(forest.prepare(turned), wanted)
    with pytest.raises(InputError, match="the table has 0 columns of categories, the model was trained on 1"):
        forest.prepare(X.assign(city=CODES[:, 2]))
    columns = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(np.nan_to_num(CODES), Y["real"], categorical_feature=[2]), 5)
    assert is_mixed(checked(columns, np.nan_to_num(CODES), CODES, X))


def test_training_in_parts():
    """A column whose splits treat missing values in several ways."""
    dense = X.assign(age=X.age + 5, income=X.income.fillna(1), city=X.city.fillna("q"))
    first = lgb(x=dense, rounds=3)
    options = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 3}
    for more in ({}, {"zero_as_missing": True}):
        model = lightgbm.train({**options, **more}, lightgbm.Dataset(X, Y["real"]), 3, init_model=first)
        forest = checked(model)
        assert len(set(forest.default_left[(forest.feature == 1) & (forest.left != LEAF)])) == 2
    with pytest.raises(UnsupportedError, match="treat column [01] in two ways, since it was trained on in parts"):
        read_forest(lightgbm.train({**options, "zero_as_missing": True}, lightgbm.Dataset(X, Y["real"]), 3, init_model=lgb()))
    with pytest.raises(UnsupportedError, match="treat column 2 in two ways"):
        read_forest(lightgbm.train(options, lightgbm.Dataset(CODES, Y["real"]), 3, init_model=lgb()))


# ---- both ---------------------------------------------------------------------------------------------------------


def test_trees_that_never_split():
    flat = np.zeros((len(X), 3))
    for model in (
        xgb(x=X, gamma=1e9),
        xgb("three", objective="multi:softprob", num_class=3, gamma=1e9),
        lgb(min_gain_to_split=1e9),
        lgb("three", objective="multiclass", num_class=3, min_gain_to_split=1e9),
        lightgbm.LGBMRegressor(n_estimators=3, n_jobs=1, verbose=-1).fit(flat, Y["real"]),
        xgboost.XGBRegressor(n_estimators=3, n_jobs=1).fit(flat, Y["real"]),
    ):
        forest = checked(model, CODES)
        assert len(forest.left) == len(forest.roots)
        assert (forest.left == LEAF).all()


@pytest.mark.parametrize(
    "model",
    [xgboost.XGBClassifier(), xgboost.XGBRegressor(), xgboost.Booster(), lightgbm.LGBMClassifier(), lightgbm.LGBMRegressor()],
    ids=lambda model: type(model).__name__,
)
def test_a_model_before_it_is_fitted(model):
    with pytest.raises(ModelError, match=f"the {type(model).__name__} cannot be asked before it is fitted or loaded|has no trees"):
        read_forest(model)


def test_boosters_without_trees():
    for model in (xgb(rounds=0), lightgbm.Booster({"verbose": -1}, lightgbm.Dataset(CODES, Y["real"]).construct())):
        with pytest.raises(ModelError, match="has no trees; train it for a round at least"):
            read_forest(model)


def test_boosters_of_other_kinds_are_refused():
    linear = xgboost.train({"booster": "gblinear", "nthread": 1}, xgboost.DMatrix(np.nan_to_num(CODES), Y["real"]), 2)
    with pytest.raises(UnsupportedError, match=r"of linear type \(gblinear\) has no trees; aw.shapley\(model, x, background=rows\) explains"):
        read_forest(linear)
    with pytest.raises(UnsupportedError, match="linear models in its leaves; train it with linear_tree=False, or aw.shapley"):
        read_forest(lgb(x=CODES[:, :2], linear_tree=True))


def test_files_that_are_not_known_are_refused():
    learner = json.loads(xgb().save_raw("json"))["learner"]
    with pytest.raises(UnsupportedError, match="the XGBoost objective 'reg:magic' is not known"):
        from_xgboost.meaning_and_base(learner | {"objective": {"name": "reg:magic"}})
    with pytest.raises(UnsupportedError, match="the XGBoost booster 'gbforest' is not known"):
        from_xgboost.chosen(learner["gradient_booster"] | {"name": "gbforest"}, 0)
    trees, _, weights = from_xgboost.chosen(learner["gradient_booster"], 0)
    odd = trees[0] | {"split_type": [2] * len(trees[0]["split_type"])}
    with pytest.raises(UnsupportedError, match="XGBoost's file holds a kind of split that askwhy does not know"):
        from_xgboost.flat([odd, *trees[1:]], weights)
    head, trees = from_lightgbm.parted(lgb().model_to_string())
    with pytest.raises(UnsupportedError, match="the LightGBM objective 'magic' is not known"):
        from_lightgbm.meaning(head | {"objective": "magic tau:3"}, 1)
    odd = trees[0] | {"decision_type": trees[0]["decision_type"].replace("2", "14").replace("8", "14").replace("10", "14")}
    with pytest.raises(UnsupportedError, match="LightGBM's file holds a kind of split that askwhy does not know"):
        from_lightgbm.flat([odd, *trees[1:]])
    with pytest.raises(ValueError, match="1 numbers of leaf_count for 12 nodes"):
        from_lightgbm.flat([trees[0] | {"leaf_count": "5"}])


@pytest.mark.parametrize("field", ["sum_hessian", "categories_sizes", "base_score", "iteration_indptr"])
def test_a_file_of_xgboost_that_lacks_something(field, monkeypatch):
    model = xgb()
    content = bytes(model.save_raw("json")).replace(field.encode(), b"another_name")
    monkeypatch.setattr(xgboost.Booster, "save_raw", lambda self, raw_format: content)
    model.set_attr(best_iteration="2", scikit_learn="{}")
    with pytest.raises(
        UnsupportedError, match=rf"xgboost {xgboost.__version__} writes its trees in a way that askwhy does not know \(KeyError: '{field}'\)"
    ):
        read_forest(model)


@pytest.mark.parametrize("field", ["leaf_count", "threshold", "cat_threshold", "num_leaves", "leaf_value"])
def test_a_file_of_lightgbm_that_lacks_something(field, monkeypatch):
    model = lgb()
    text = model.model_to_string().replace(f"\n{field}=", "\nanother_name=")
    monkeypatch.setattr(lightgbm.Booster, "model_to_string", lambda self, **_: text)
    with pytest.raises(UnsupportedError, match=rf"lightgbm {lightgbm.__version__} writes its trees in a way that askwhy does not know"):
        read_forest(model)


def test_other_columns_are_refused():
    for model in (xgb(), lgb()):
        forest = read_forest(model)
        with pytest.raises(InputError, match="x has 2 columns, the model was trained on 3"):
            forest.prepare(CODES[:, :2])
        with pytest.raises(InputError, match="the table's column 'city' is not where the model has it"):
            forest.prepare(X[["city", "age", "income"]])
