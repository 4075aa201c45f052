"""The trees of scikit-learn as arrays, beside scikit-learn's own predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from scipy.special import expit, softmax
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor
from threadpoolctl import threadpool_limits

from askwhy.errors import InputError, ModelError, UnsupportedError
from askwhy.models.forest import LEAF, check_forest, read_forest


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other on a busy machine take a minute."""
    with threadpool_limits(1, "openmp"):
        yield


RNG = np.random.default_rng(0)
X = np.round(RNG.normal(size=(300, 4)), 1)  # with ties
GAPS = np.where(RNG.random(X.shape) < 0.15, np.nan, X)
ONE = np.zeros(300)
TWO = np.where(X[:, 0] * X[:, 1] > 0, "yes", "no")
THREE = np.digitize(X[:, 0] + X[:, 2] * X[:, 1], [-0.5, 0.5]) * 10
NUMBER = np.exp(X[:, 0]) + X[:, 1] * X[:, 2]
WEIGHT = RNG.random(300) * (RNG.random(300) > 0.1)
CITIES = np.array(["Kyoto", "Lima", "Oslo", "Quito", "Rome"])


def checked(model, rows):
    """The trees, after they gave what the model gives, also on every threshold and right beside it."""
    forest = read_forest(model)
    own = check_forest(forest, rows, forest.prepare(rows))
    assert own.shape == (len(rows), forest.outputs)
    structure(forest)
    return forest, own


def structure(forest):
    inner = forest.left != LEAF
    both = forest.cover[forest.left[inner]] + forest.cover[forest.right[inner]]
    np.testing.assert_allclose(both, forest.cover[inner], rtol=1e-9)
    assert (forest.right[~inner] == LEAF).all()
    assert not forest.value[inner].any()
    reached = np.bincount(np.concatenate([forest.left[inner], forest.right[inner], forest.roots]), minlength=len(inner))
    assert (reached == 1).all()


def on_thresholds(forest, rows, seed=1, single=True):
    """Rows in which each number is a threshold of its column, or the next number below or above it."""
    rng = np.random.default_rng(seed)
    inner = forest.left != LEAF
    found = rows[rng.integers(0, len(rows), 300)].copy()
    for k in range(forest.width):
        cuts = forest.threshold[inner & (forest.feature == k)]
        cuts = cuts[np.isfinite(cuts)]
        if len(cuts):
            at = rng.choice(cuts, 300)
            kind = np.float32 if single else np.float64
            near = np.stack([at, np.nextafter(at.astype(kind), kind(np.inf)), np.nextafter(at.astype(kind), kind(-np.inf))])
            found[:, k] = near[rng.integers(0, 3, 300), np.arange(300)]
    return found


CLASSIFIERS = {
    "tree": lambda: DecisionTreeClassifier(),
    "stump": lambda: DecisionTreeClassifier(max_depth=1, class_weight="balanced"),
    "extra tree": lambda: ExtraTreeClassifier(criterion="entropy"),
    "forest": lambda: RandomForestClassifier(7, max_features=2, class_weight="balanced_subsample"),
    "extra trees": lambda: ExtraTreesClassifier(5, bootstrap=True, max_samples=0.5),
}
REGRESSORS = {
    "tree": lambda: DecisionTreeRegressor(),
    "poisson": lambda: DecisionTreeRegressor(criterion="poisson", max_depth=4),
    "median": lambda: DecisionTreeRegressor(criterion="absolute_error", max_depth=3),
    "pruned": lambda: DecisionTreeRegressor(ccp_alpha=0.05),
    "monotonic": lambda: RandomForestRegressor(4, monotonic_cst=[1, 0, 0, -1]),
    "extra tree": lambda: ExtraTreeRegressor(),
    "forest": lambda: RandomForestRegressor(5),
    "extra trees": lambda: ExtraTreesRegressor(5, max_leaf_nodes=9),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("y", [TWO, THREE], ids=["two", "three"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["", "weighted"])
def test_trees_of_classes(name, y, weight):
    model = CLASSIFIERS[name]().set_params(random_state=0).fit(X, y, sample_weight=weight)
    forest, own = checked(model, X)
    shares = model.predict_proba(X)
    np.testing.assert_array_equal(own, shares if y is THREE else shares[:, 1:])
    assert (forest.unit, forest.whole, forest.link, forest.single) == ("probability", 1.0 if y is TWO else None, "identity", False)
    checked(model, on_thresholds(forest, X))


@pytest.mark.parametrize("name", REGRESSORS)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["", "weighted"])
def test_trees_of_numbers(name, weight):
    y = np.abs(NUMBER)
    model = REGRESSORS[name]().set_params(random_state=0).fit(X, y, sample_weight=weight)
    forest, own = checked(model, X)
    np.testing.assert_array_equal(own[:, 0], model.predict(X))
    assert (forest.unit, forest.whole, forest.outputs) == ("the target's own unit", None, 1)
    checked(model, on_thresholds(forest, X))


@pytest.mark.parametrize("make", [*CLASSIFIERS.values()], ids=[*CLASSIFIERS])
def test_missing_values(make):
    model = make().set_params(random_state=0).fit(GAPS, TWO)
    forest, _ = checked(model, GAPS)
    checked(model, np.vstack([np.full(4, np.nan), on_thresholds(forest, GAPS)]))
    assert len(set(forest.default_left[forest.left != LEAF])) == 2 or "stump" in str(model) or len(forest.left) < 9
    with pytest.raises(ModelError, match="infinity"):
        forest.prepare(np.full((1, 4), np.inf))


def test_a_missing_value_is_refused_where_scikit_learn_refuses_it():
    for model in (ExtraTreeRegressor(splitter="best").fit(X, NUMBER), GradientBoostingRegressor().fit(X, NUMBER)):
        forest = read_forest(model)
        for ask in (forest.prepare, forest.raw):
            with pytest.raises(ModelError, match="contains NaN"):
                ask(GAPS)


def test_a_missing_value_in_a_column_that_had_none_goes_where_it_goes():
    checked(RandomForestClassifier(9, random_state=0).fit(X, THREE), GAPS)
    checked(ExtraTreesRegressor(9, random_state=0).fit(X, NUMBER), GAPS)


def test_numbers_are_rounded_to_float32_as_the_library_does():
    threshold = DecisionTreeRegressor().fit([[0.1], [0.3]], [0, 1])
    forest = read_forest(threshold)
    beside = np.array([[forest.threshold[0] + 1e-12]])
    assert forest.prepare(beside)[0, 0] == np.float32(beside[0, 0])
    check_forest(forest, beside, forest.prepare(beside))
    values = np.linspace(0.19999999, 0.20000002, 400)[:, None]
    check_forest(forest, values, forest.prepare(values))
    wrong = forest.raw(values)[:, 0] != forest.sums(values)[0][:, 0]
    assert wrong.any(), "without rounding some rows go the other way"


def test_a_deep_tree():
    x = np.arange(80.0)[:, None]
    model = DecisionTreeRegressor().fit(x, 4.0 ** np.arange(80))
    assert model.get_depth() > 30
    checked(model, x)
    checked(model, x + 0.5)


def test_one_class_one_row_and_trees_that_never_split():
    forest, own = checked(DecisionTreeClassifier().fit(X, ONE), X)
    assert (own == 1).all()
    assert (forest.whole, len(forest.left)) == (None, 1)
    for model in (
        DecisionTreeRegressor(),
        RandomForestRegressor(3),
        GradientBoostingRegressor(n_estimators=3),
        HistGradientBoostingRegressor(max_iter=3),
    ):
        checked(model.fit(X, ONE + 3), X)
    checked(DecisionTreeRegressor().fit(X[:1], NUMBER[:1]), X)


def test_multiple_targets_sparse_rows_wrong_widths_and_unfitted_models_are_refused():
    with pytest.raises(UnsupportedError, match="2 targets at once; fit one model for each"):
        read_forest(RandomForestRegressor(2).fit(X, np.stack([NUMBER, NUMBER], 1)))
    for model, y in (
        (DecisionTreeClassifier(), TWO),
        (ExtraTreesRegressor(2), NUMBER),
        (GradientBoostingClassifier(n_estimators=2), TWO),
        (HistGradientBoostingRegressor(max_iter=2), NUMBER),
        (IsolationForest(n_estimators=3), None),
    ):
        with pytest.raises(ModelError, match=f"{type(model).__name__} has no trees before it is fitted; call fit"):
            read_forest(model)
        forest = read_forest(model.fit(X, y))
        for ask in (forest.prepare, forest.raw):
            with pytest.raises(InputError, match="sparse csr_matrix; give them as an array"):
                ask(csr_matrix(X))
            with pytest.raises((InputError, ModelError), match=r"3 (features|columns)|\[300, 3\]"):
                ask(X[:, :3])


# ---- gradient boosting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", [None, "zero", "prior"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["", "weighted"])
def test_boosted_classes(init, weight):
    init = DummyClassifier() if init == "prior" else init
    model = GradientBoostingClassifier(n_estimators=9, init=init, learning_rate=0.4, subsample=0.7, random_state=0)
    forest, own = checked(model.fit(X, TWO, sample_weight=weight), X)
    np.testing.assert_array_equal(own[:, 0], model.decision_function(X))
    np.testing.assert_allclose(expit(own[:, 0]), model.predict_proba(X)[:, 1])
    assert (forest.unit, forest.whole, forest.link) == ("log odds", 0.0, "logistic")
    checked(model, on_thresholds(forest, X))
    forest, own = checked(model.fit(X, THREE, sample_weight=weight), X)
    np.testing.assert_allclose(softmax(own, 1), model.predict_proba(X))
    assert (forest.whole, forest.link, forest.outputs) == (None, "softmax", 3)
    checked(model, on_thresholds(forest, X))


def test_the_exponential_loss_has_half_the_log_odds():
    model = GradientBoostingClassifier(loss="exponential", n_estimators=5).fit(X, TWO)
    forest, own = checked(model, X)
    np.testing.assert_allclose(expit(2 * own[:, 0]), model.predict_proba(X)[:, 1])
    assert (forest.unit, forest.link) == ("half the log odds", "another")


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber", "quantile"])
def test_boosted_numbers(loss):
    model = GradientBoostingRegressor(n_estimators=9, loss=loss, n_iter_no_change=3, max_depth=None, min_samples_leaf=4, random_state=0)
    forest, own = checked(model.fit(X, NUMBER), X)
    np.testing.assert_array_equal(own[:, 0], model.predict(X))
    assert (forest.unit, forest.link) == ("the target's own unit", "identity")
    checked(model, on_thresholds(forest, X))


def test_a_first_guess_that_depends_on_the_row_is_refused():
    for init in (LogisticRegression(), DummyClassifier(strategy="stratified")):
        with pytest.raises(UnsupportedError, match=f"starts from a {type(init).__name__} .init=.*aw.shapley"):
            read_forest(GradientBoostingClassifier(n_estimators=2, init=init).fit(X, TWO))


# ---- histograms ---------------------------------------------------------------------------------------------------


def table(n=400, seed=0):
    """Columns of numbers stand between those of categories, so that a wrong order shows."""
    rng = np.random.default_rng(seed)
    x = pd.DataFrame({"a": np.round(rng.normal(size=n), 1), "city": pd.Categorical(rng.choice(CITIES[:4], n), CITIES), "b": rng.normal(size=n)})
    x["size"] = pd.Categorical(rng.choice(["L", "M", "S"], n))
    x.loc[::9, "a"] = np.nan
    x.loc[::11, "city"] = None
    return x


TABLE = table()
EFFECT = TABLE.a.fillna(2) * (TABLE.city.isin(["Lima", "Oslo"]) - 0.5) + TABLE.b * (TABLE["size"] == "M") + 2.0 * TABLE.city.isna()


@pytest.mark.parametrize("early", [False, True])
def test_histograms_of_a_table_with_categories(early):
    options = {"max_iter": 12, "early_stopping": early, "n_iter_no_change": 2, "categorical_features": "from_dtype", "random_state": 0}
    model = HistGradientBoostingClassifier(**options, min_samples_leaf=3).fit(TABLE, EFFECT > 0)
    forest, own = checked(model, TABLE)
    assert (forest.category >= 0).any()
    np.testing.assert_allclose(expit(own[:, 0]), model.predict_proba(TABLE)[:, 1])
    assert (forest.unit, forest.whole, forest.link) == ("log odds", 0.0, "logistic")
    odd = table(seed=1)
    odd["city"] = pd.Categorical(RNG.choice(["Oslo", "Rome", "Berlin"], len(odd)))  # one that no row had, one that is new
    odd["a"] = RNG.choice([np.inf, -np.inf, np.nan, 1e300, 0.0], len(odd))
    checked(model, odd)
    model = HistGradientBoostingClassifier(**options).fit(TABLE, np.digitize(EFFECT, [-0.5, 0.5]))
    forest, own = checked(model, TABLE)
    np.testing.assert_allclose(softmax(own, 1), model.predict_proba(TABLE))
    assert forest.outputs == 3


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "gamma", "poisson", "quantile"])
def test_histograms_of_numbers(loss):
    options = {"loss": loss, "max_iter": 9, "max_depth": None, "min_samples_leaf": 2, "max_leaf_nodes": 60}
    model = HistGradientBoostingRegressor(**options, quantile=0.3 if loss == "quantile" else None)
    model.fit(GAPS, np.exp(NUMBER / 4), sample_weight=WEIGHT + 0.01)
    forest, own = checked(model, GAPS)
    link = {"gamma": np.exp, "poisson": np.exp}.get(loss, np.asarray)
    np.testing.assert_allclose(link(own[:, 0]), model.predict(GAPS))
    assert forest.link == ("exp" if loss in ("gamma", "poisson") else "identity")
    checked(model, on_thresholds(forest, GAPS, single=False))
    checked(model, np.array([[np.inf] * 4, [-np.inf] * 4, [np.nan] * 4]))


def test_histograms_of_an_array_with_categories():
    codes = np.stack([X[:, 0], RNG.integers(0, 40, 300), X[:, 1], RNG.choice([3, 7, 200], 300)], 1)
    y = X[:, 0] * (codes[:, 1] % 3 - 1) + (codes[:, 3] == 7)
    model = HistGradientBoostingRegressor(categorical_features=[1, 3], max_iter=20, min_samples_leaf=3, interaction_cst="pairwise").fit(codes, y)
    forest, _ = checked(model, codes)
    assert forest.members.shape[1] == 256
    assert (forest.category >= 0).any()
    strange = codes.copy()
    strange[:, 1] = RNG.choice([-1, 2.5, 40, 39, 300, np.nan], 300)
    checked(model, strange)


def test_a_split_between_missing_and_known_values():
    x = np.where(np.arange(200) % 2, np.nan, np.arange(200.0) % 3)[:, None]
    forest, _ = checked(HistGradientBoostingRegressor(max_iter=3).fit(x, np.isnan(x[:, 0]) * 5.0), np.vstack([x, [[np.inf]]]))
    assert np.isinf(forest.threshold).any()


# ---- isolation forests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"max_features": 0.5}, {"max_samples": 20, "bootstrap": True}, {"max_samples": 2}, {"max_samples": 1}])
def test_isolation_forests(options):
    model = IsolationForest(n_estimators=20, random_state=0, **options).fit(X)
    rows = np.vstack([X, [[9, 9, 9, 9]], [[np.inf, -np.inf, np.nan, 1e300]]])
    forest, own = checked(model, rows)
    assert forest.unit == "splits until alone"
    n = model.max_samples_
    usual = {1: 0.0, 2: 1.0}.get(n) if n < 3 else 2 * (np.log(n - 1) + np.euler_gamma) - 2 * (n - 1) / n
    score = 2.0 ** (-own[:, 0] / usual) if usual else np.full(len(own), 0.5)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(score, -model.score_samples(rows))
    if n > 2:
        assert own[300] < np.median(own)
        assert own[300] == own[:301].min()


def test_a_split_needs_its_own_column():
    """With a part of the columns a tree's column 0 is another one of the table."""
    model = IsolationForest(n_estimators=8, max_features=2, random_state=0).fit(X)
    forest = read_forest(model)
    inner = forest.left != LEAF
    for tree, (columns, start) in enumerate(zip(model.estimators_features_, forest.roots, strict=True)):
        stop = forest.roots[tree + 1] if tree < 7 else len(inner)
        assert set(forest.feature[start:stop][inner[start:stop]]) <= set(columns.tolist())


# ---- tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(3, random_state=0),
        DecisionTreeClassifier(),
        GradientBoostingClassifier(n_estimators=3),
        HistGradientBoostingClassifier(max_iter=3),
        IsolationForest(n_estimators=5),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_table_and_an_array_are_the_same_and_no_warning_is_given(model):
    frame = pd.DataFrame(X, columns=["a", "b", "c", "my d"])
    forest = read_forest(model.fit(frame, TWO))
    np.testing.assert_array_equal(forest.prepare(frame), forest.prepare(X))
    np.testing.assert_array_equal(forest.raw(frame), forest.raw(X))
    check_forest(forest, frame, forest.prepare(X))
    assert forest.width == 4
    assert forest.library.startswith("scikit-learn 1.")
