"""Models that explain themselves: linear ones and single decision trees."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import SVC, LinearSVC, LinearSVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier

import askwhy as aw
from askwhy.errors import Cancelled, InputError, ModelError, TargetError, UnsupportedError
from askwhy.local.decision_path import decision_path
from askwhy.local.linear import linear_effects

IRIS = load_iris(as_frame=True)
X, CLASS = IRIS.data, IRIS.target_names[IRIS.target]
TWO = np.where(CLASS == "virginica", "virginica", "other")
BODY = load_diabetes(as_frame=True, scaled=False)
FAR = 1e3 * X + 1e5  # far from 0, where rounding shows


def linear_score(model, rows):
    """What the library itself gives: of two classes the second."""
    return np.asarray(model.decision_function(rows) if hasattr(model, "decision_function") else model.predict(rows))


def by_replacing(model, rows, means):
    """[n, d, ...]: how the score falls when one column takes its mean, which of a line is coefficient times distance."""
    whole = linear_score(model, rows)
    found = []
    for k in range(rows.shape[1]):
        changed = rows.copy()
        changed.iloc[:, k] = means[k]
        found.append(whole - linear_score(model, changed))
    return np.stack(found, 1)


SCALED = make_pipeline(StandardScaler(), MinMaxScaler((-1, 3)), MaxAbsScaler(), RobustScaler(), LogisticRegression())
CLASSIFIERS = {
    "logistic": (LogisticRegression(max_iter=5000), "log odds"),
    "descent": (SGDClassifier(loss="log_loss", random_state=0), "log odds"),
    "hinge": (SGDClassifier(random_state=0), "margin"),
    "support vectors": (LinearSVC(), "margin"),
    "linear kernel": (SVC(kernel="linear"), "margin"),
    "ridge": (RidgeClassifier(), "margin"),
    "discriminant": (LinearDiscriminantAnalysis(), "log odds"),
    "scaled": (SCALED, "log odds"),
    "not centred": (make_pipeline("passthrough", StandardScaler(with_mean=False), RobustScaler(with_scaling=False), LinearSVC()), "margin"),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_two_classes(name):
    model, scale = CLASSIFIERS[name]
    model.fit(X, TWO)
    why = linear_effects(model, X[::9], "virginica", background=X)
    np.testing.assert_allclose(why.values, by_replacing(model, X[::9], X.mean().to_numpy()), atol=1e-9)
    np.testing.assert_allclose(why.prediction, model.decision_function(X[::9]))
    np.testing.assert_allclose(why.base_value, model.decision_function(X).mean(), atol=1e-9)
    np.testing.assert_allclose(why.values.sum(1) + why.base_value, why.prediction, atol=1e-10)
    assert np.abs(why.residual).max() < 1e-9
    assert (why.unit, why.params["value_function"]) == (scale, scale)
    assert why.method == "linear_effects"
    other = linear_effects(model, X[::9], "other", background=X)
    np.testing.assert_allclose(other.values, -why.values)
    assert linear_effects(model, X[:1]).target == ("other",)


@pytest.mark.parametrize("model", [LogisticRegression(max_iter=5000), make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss")), LinearSVC()])
def test_three_classes_and_their_differences(model):
    model.fit(X, CLASS)
    wanted = by_replacing(model, X[::9], X.mean().to_numpy())  # [n, d, k]
    for k in range(3):
        why = linear_effects(model, X[::9], k, background=X)
        np.testing.assert_allclose(why.values, wanted[:, :, k], atol=1e-9)
        np.testing.assert_allclose(why.prediction, model.decision_function(X[::9])[:, k])
    why = linear_effects(model, X[::9], "virginica", versus="setosa", background=X)
    np.testing.assert_allclose(why.values, wanted[:, :, 2] - wanted[:, :, 0], atol=1e-9)
    assert np.abs(why.residual).max() < 1e-9
    assert why.question() == "virginica rather than setosa"
    mixed = linear_effects(model, X[::75], [2, 0], background=X)
    np.testing.assert_allclose(mixed.values, [wanted[0, :, 2], by_replacing(model, X[75:76], X.mean().to_numpy())[0, :, 0]], atol=1e-9)


def test_the_scale_of_three_classes_is_named():
    said = {type(m).__name__: linear_effects(m.fit(X, CLASS), X[:1]).unit for m in (LogisticRegression(max_iter=999), LinearSVC())}
    assert said == {"LogisticRegression": "log odds before softmax", "LinearSVC": "margin"}


@pytest.mark.parametrize(
    "model",
    [LinearRegression(), Ridge(), Lasso(), ElasticNet(), SGDRegressor(), LinearSVR(), LinearRegression(fit_intercept=False)],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("scaled", [False, True])
def test_numbers(model, scaled):
    whole = make_pipeline(StandardScaler(), model) if scaled or type(model) in (SGDRegressor, LinearSVR) else model
    whole.fit(BODY.data, BODY.target)
    rows = BODY.data[:7]
    why = linear_effects(whole, rows, background=BODY.data)
    np.testing.assert_allclose(why.values, by_replacing(whole, rows, BODY.data.mean().to_numpy()), atol=1e-7)
    np.testing.assert_allclose(why.prediction, whole.predict(rows))
    assert np.abs(why.residual).max() < 1e-7
    assert why.unit == "the target's own unit"
    without = linear_effects(model.fit(BODY.data, BODY.target), rows) if whole is model else None
    if without is not None:
        np.testing.assert_allclose(without.base_value, np.ravel(model.intercept_)[0] if model.fit_intercept else 0)
        np.testing.assert_allclose(without.values, rows.to_numpy() * model.coef_)
        assert without.params["background"] == "none: a mean of 0"


def test_these_are_the_shapley_values_of_the_same_score():
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, TWO)
    by_game = aw.shapley(aw.wrap(model, output="logits"), X[:3], "virginica", background=X)
    np.testing.assert_allclose(linear_effects(model, X[:3], "virginica", background=X).values, by_game.values, atol=1e-9)


def test_a_background_with_weights_and_several_targets():
    few = aw.background(X, 5, "kmeans")
    model = Ridge().fit(X, np.stack([X.iloc[:, 0] ** 2, -X.iloc[:, 1]], 1))
    why = linear_effects(model, X[:4], 1, background=few)
    np.testing.assert_allclose(why.base_value, few.weights @ model.predict(few.rows)[:, 1])
    np.testing.assert_allclose(why.values, (X[:4].to_numpy() - few.weights @ few.rows.to_numpy()) * model.coef_[1])


@pytest.mark.parametrize("kind", [np.float32, np.float64, "frame", "wrapped"])
def test_arrays_tables_and_wrapped_models(kind):
    if isinstance(kind, str):
        model = LogisticRegression(max_iter=9999).fit(FAR, TWO)
        rows, asked = FAR[:5], model
    else:
        rows = FAR.to_numpy(kind)[:5]
        model = asked = LogisticRegression(max_iter=9999).fit(FAR.to_numpy(kind), TWO)
    if kind == "wrapped":
        asked = aw.wrap(model, labels=["no", "yes"])
    why = linear_effects(asked, rows, 1)
    np.testing.assert_allclose(why.values.sum(1) + why.base_value, model.decision_function(rows), rtol=1e-3 if kind is np.float32 else 1e-8)
    assert why.target[0] == ("yes" if kind == "wrapped" else "virginica")
    assert why.components[0][0] == ("feature 0" if not isinstance(kind, str) else X.columns[0])
    assert why.plot(how="waterfall")
    assert "linear_effects" in why.summary()


def test_what_is_not_linear_is_refused():
    number = BODY.target
    for model, said in (
        (make_pipeline(PCA(2), LinearRegression()).fit(BODY.data, number), "the step PCA of the pipeline does not scale"),
        (make_pipeline(MinMaxScaler(clip=True), Ridge()).fit(BODY.data, number), r"MinMaxScaler\(clip=True\)"),
        (RandomForestClassifier(2).fit(BODY.data, number > 100), "RandomForestClassifier has no coefficients.*aw.shapley"),
        (
            make_pipeline(StandardScaler(), PoissonRegressor()).fit(BODY.data, number),
            "the score of this Pipeline is not its coefficients times the values",
        ),
    ):
        with pytest.raises(UnsupportedError, match=said):
            linear_effects(model, BODY.data[:2])
    with pytest.raises(UnsupportedError, match="3 rows of coefficients for 4 classes|6 rows of coefficients for 4 classes"):
        linear_effects(SVC(kernel="linear").fit(X, np.arange(150) % 4), X[:2])
    with pytest.raises(UnsupportedError, match="function as the target"):
        linear_effects(LogisticRegression(max_iter=999).fit(X, TWO), X[:2], lambda out: out[:, 0] ** 2)
    with pytest.raises(ModelError, match="LinearRegression has no coefficients before it is fitted"):
        linear_effects(LinearRegression(), X[:2])
    with pytest.raises(UnsupportedError, match="function has no coefficients"):
        linear_effects(lambda rows: rows.sum(1), X.to_numpy()[:2])
    with pytest.raises(UnsupportedError, match="FunctionModel has no coefficients"):
        linear_effects(aw.wrap(lambda rows: rows.sum(1)), X.to_numpy()[:2])


def test_wrong_questions():
    model = LogisticRegression(max_iter=999).fit(X, TWO)
    with pytest.raises(TargetError, match="has 2 outputs"):
        linear_effects(model, X[:2], 2)
    with pytest.raises(InputError, match="columns"):
        linear_effects(model, X.iloc[:2, :3])
    with pytest.raises(InputError, match="columns"):
        linear_effects(LogisticRegression(max_iter=999).fit(X.to_numpy(), TWO), X.to_numpy()[:2, :3])
    with pytest.raises(Cancelled, match="stopped after 2 of 2 rows"):
        linear_effects(model, X[:2], progress=lambda done, total: False)


# ---- the path through a tree --------------------------------------------------------------------------------------


def shares(y, mask, classes):
    """Of the training rows in a node."""
    return np.array([(y[mask] == c).mean() for c in classes]) if classes is not None else y[mask].mean(keepdims=True)


def saabas(model, data, y, row, k, weight=None):
    """By the training rows themselves: how their mean changes along the path."""
    tree, node, mask = model.tree_, 0, np.ones(len(data), bool)
    values, before = np.zeros(data.shape[1]), shares(y, mask, getattr(model, "classes_", None))[k]
    base = before
    while tree.children_left[node] >= 0:
        j, cut = tree.feature[node], tree.threshold[node]
        goes_left = np.float32(row[j]) <= cut
        mask &= (data[:, j].astype(np.float32) <= cut) == goes_left
        node = tree.children_left[node] if goes_left else tree.children_right[node]
        now = shares(y, mask, getattr(model, "classes_", None))[k]
        values[j] += now - before
        before = now
    return values, base, mask


TREES = {
    "iris": (DecisionTreeClassifier(random_state=0), X, CLASS),
    "shallow": (DecisionTreeClassifier(max_depth=2, random_state=0), X, CLASS),
    "two": (DecisionTreeClassifier(min_samples_leaf=5, random_state=0), X, TWO),
    "extra": (ExtraTreeClassifier(random_state=0), X, CLASS),
    "numbers": (DecisionTreeRegressor(max_depth=6, random_state=0), BODY.data, BODY.target.to_numpy()),
}


@pytest.mark.parametrize("name", TREES)
def test_a_path_is_told_by_values_and_in_words(name):
    model, data, y = TREES[name]
    model.fit(data, y)
    rows = data[::11]
    why = decision_path(model, rows)
    wanted = model.predict_proba(rows).max(1) if hasattr(model, "classes_") else model.predict(rows)
    np.testing.assert_array_equal(why.prediction, wanted)
    np.testing.assert_allclose(why.values.sum(1) + why.base_value, wanted)
    assert np.abs(why.residual).max() < 1e-9
    for i, sentence in enumerate(why.details["path"]):
        k = list(model.classes_).index(why.target[i]) if hasattr(model, "classes_") else 0
        values, base, mask = saabas(model, data.to_numpy(), y, rows.to_numpy()[i], k)
        np.testing.assert_allclose(why.values[i], values, atol=1e-9)
        assert why.base_value[i] == pytest.approx(base)
        np.testing.assert_array_equal(holds(sentence, data), mask)
        said = f"{why.target[i]} ({(y[mask] == why.target[i]).sum()} of" if hasattr(model, "classes_") else f"{y[mask].mean():.6g} (mean of"
        assert sentence.endswith(f" -> {said} {mask.sum()} training row{'s' * int(mask.sum() > 1)})")
    assert why.components[0] == tuple(data.columns)


def holds(sentence, data):
    """bool [rows]: of a sentence, read by a program."""
    mask = np.ones(len(data), bool)
    for part in sentence.split(" -> ")[0].split(" and "):
        if part == "every row":
            continue
        low, name, high = re.fullmatch(r"(?:(\S+) < )?(.+?)(?: <= (\S+)| > \S+)", part).groups()
        above = re.fullmatch(r".* > (\S+)", part)
        column = data[name]
        mask &= column > float(low or (above and above[1]) or -np.inf)
        mask &= column <= float(high or np.inf)
    return mask


def test_conditions_on_one_column_are_one_interval():
    x = np.arange(64.0)[:, None]
    model = DecisionTreeRegressor().fit(x, np.arange(64) % 7)
    why = decision_path(model, x[[0, 30, 63]])
    assert why.details["path"][1] == "29.5 < feature 0 <= 30.5 -> 2 (mean of 1 training row)"
    assert why.details["path"][0].startswith("feature 0 <= 0.5 -> ")
    assert why.details["path"][2].startswith("feature 0 > 62.5 -> ")
    assert "29.5 < feature 0" in why.summary()


def test_the_sentence_of_iris():
    model = DecisionTreeClassifier(max_depth=2, random_state=0).fit(X[["petal width (cm)"]], CLASS)
    why = decision_path(model, X[["petal width (cm)"]][:1])
    assert why.details["path"] == ("petal width (cm) <= 0.8 -> setosa (50 of 50 training rows)",)
    np.testing.assert_allclose(why.values, [[1 - 1 / 3]])
    other = decision_path(model, X[["petal width (cm)"]][:1], "virginica", versus="setosa")
    assert other.details["path"] == why.details["path"]
    np.testing.assert_allclose(other.values, [[-1]])
    np.testing.assert_allclose(decision_path(model, X[["petal width (cm)"]][:1], lambda out: out[:, 0] ** 2).values, [[1 - 1 / 9]])


def test_missing_values_weights_medians_and_a_tree_without_splits():
    gaps = np.where(np.arange(200) % 4 == 0, np.nan, np.arange(200.0))[:, None]
    y = np.where(np.isnan(gaps[:, 0]), 5.0, gaps[:, 0] > 100)
    model = DecisionTreeRegressor().fit(gaps, y)
    said = decision_path(model, gaps[[0, 1, 199]]).details["path"]
    assert said[0] == "feature 0 is missing -> 5 (mean of 50 training rows)"
    assert said[2].startswith("feature 0 > 1")
    known = DecisionTreeRegressor(max_depth=1).fit(gaps, np.isnan(gaps[:, 0]) * 1.0)
    assert decision_path(known, gaps[1:2]).details["path"] == ("feature 0 is known -> 0 (mean of 150 training rows)",)
    both = DecisionTreeRegressor().fit(gaps, np.where(np.isnan(gaps[:, 0]), 1.0, 9.0 * (gaps[:, 0] > 100)))
    assert np.isinf(both.tree_.threshold[both.tree_.children_left >= 0]).any()
    assert decision_path(both, gaps[1:2]).details["path"] == ("feature 0 <= 100 -> 0 (mean of 75 training rows)",)
    median = DecisionTreeRegressor(criterion="absolute_error", max_depth=1).fit(X, X.iloc[:, 2])
    assert "(median of" in decision_path(median, X[:1]).details["path"][0]
    weighted = DecisionTreeClassifier(max_depth=1, class_weight="balanced").fit(X, TWO)
    assert re.search(r"-> virginica \(9\d\.\d% of 5\d training rows by weight\)", decision_path(weighted, X[-1:]).details["path"][0])
    weighted = DecisionTreeRegressor(max_depth=1).fit(X, X.iloc[:, 2], sample_weight=np.arange(150) + 1.0)
    assert "training rows, weighted)" in decision_path(weighted, X[:1]).details["path"][0]
    flat = decision_path(DecisionTreeClassifier().fit(X, np.ones(150)), X[:1])
    assert flat.details["path"] == ("every row -> 1.0 (150 of 150 training rows)",)
    assert not flat.values.any()


def test_other_models_and_questions_are_refused():
    for model in (RandomForestClassifier(2).fit(X, CLASS), LogisticRegression(max_iter=999).fit(X, CLASS)):
        with pytest.raises(UnsupportedError, match=f"one decision tree of scikit-learn, and this is a {type(model).__name__}"):
            decision_path(model, X[:1])
    tree = DecisionTreeClassifier().fit(X, CLASS)
    with pytest.raises(ModelError, match="no trees before it is fitted"):
        decision_path(DecisionTreeClassifier(), X[:1])
    with pytest.raises(InputError, match="missing.*petal width"):
        decision_path(tree, X.iloc[:1, :3])
    with pytest.raises(TargetError, match="is no class of this model"):
        decision_path(tree, X[:1], "rose")
    with pytest.raises(Cancelled, match="stopped after 1 of 2 rows"):
        decision_path(tree, X[:2], progress=lambda done, total: False)
    seen = []
    decision_path(tree, X[:2], progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_both_are_asked_by_name():
    tree, line = DecisionTreeClassifier(random_state=0).fit(X, CLASS), LogisticRegression(max_iter=999).fit(X, CLASS)
    assert aw.explain(tree, X[:1], "decision_path", "setosa").details["path"][0].endswith("setosa (50 of 50 training rows)")
    np.testing.assert_array_equal(aw.explain(line, X[:1], "linear_effects", "setosa").values, linear_effects(line, X[:1], "setosa").values)
    for model, name in ((tree, "linear_effects"), (line, "decision_path")):
        with pytest.raises(UnsupportedError, match="this model offers only"):
            aw.explain(model, X[:1], name)


def test_results_are_drawn_and_saved(tmp_path):
    model = aw.wrap(DecisionTreeClassifier(max_depth=3).fit(X, CLASS))
    frame = pd.DataFrame(X.to_numpy()[[0, 149]], columns=X.columns)
    for why in (decision_path(model, frame), linear_effects(LogisticRegression(max_iter=999).fit(X, CLASS), frame)):
        assert aw.Explanation.load(why.save(tmp_path / "why.npz")) == why
        assert why.plot(how="waterfall", i=1)
        assert why.plot()
        assert why.method in why.to_html()
