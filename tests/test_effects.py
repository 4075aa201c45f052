"""Importance and effects beside scikit-learn, textbook loops, and functions whose answer is known."""

from __future__ import annotations

import functools
import itertools
import re
from pathlib import Path

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from matplotlib import pyplot as plt
from scipy.interpolate import RegularGridInterpolator
from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, cross_validate
from sklearn.svm import SVC

import askwhy as aw
from askwhy.errors import Cancelled, FileError, InputError, ModelError, TargetError, UnsupportedError
from askwhy.explanation import Explanation
from askwhy.models import remote as remote_models
from askwhy.overall.effects import Effect, effect
from askwhy.overall.importance import Importance, importance, mean_importance
from askwhy.overall.support import associations
from askwhy.overall.table import table_of

RHO = 0.8
PAGE = Path(__file__).parent.parent / "docs/effects.md"


def pair(n=4000, rho=RHO, seed=0):
    """Two normal columns with a correlation of exactly rho, mean 0 and variance 1, then one of its own."""
    z = np.random.default_rng(seed).normal(size=(n, 3))
    z -= z.mean(0)
    z = z @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T, bias=True))).T
    return np.stack([z[:, 0], rho * z[:, 0] + np.sqrt(1 - rho**2) * z[:, 1], z[:, 2]], 1)


def people(n=300, seed=0):
    rng = np.random.default_rng(seed)
    x = pd.DataFrame({
        "age": rng.integers(18, 80, n),
        "income": rng.normal(40, 9, n),
        "job": rng.choice(["clerk", "nurse", "smith"], n),
        "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), "D"),
        "member": rng.random(n) < 0.5,
        "size": pd.Categorical(rng.choice(["S", "M", "L"], n), ["S", "M", "L"], ordered=True),
    })  # fmt: skip
    x.loc[::10, "income"] = np.nan
    x.loc[::12, "job"] = None
    return x


def worth(frame):
    """Refuses a frame whose columns have lost their types."""
    assert list(map(str, frame.dtypes)) == list(map(str, people(20).dtypes))
    days = (frame["since"] - pd.Timestamp("2020-01-01")).dt.days
    paid = frame["income"].fillna(100) / 10 * (1 + frame["member"])
    return (frame["age"] / 10 + paid + (frame["job"] == "nurse") * 3 + days / 300 + frame["size"].cat.codes * frame["member"]).to_numpy(float)


@functools.cache
def diabetes():
    x, y = load_diabetes(return_X_y=True, as_frame=True)
    return RandomForestRegressor(20, max_depth=5, random_state=0).fit(x[:300], y[:300]), x[300:], y[300:].to_numpy()


# ---- partial dependence and individual curves -----------------------------------------------------------------------


@pytest.mark.parametrize("features", ["bmi", ["bmi", "s5"]])
def test_partial_dependence_is_scikit_learns(features):
    model, x, _ = diabetes()
    found = effect(model, x, features, grid=8)
    names = [features] if isinstance(features, str) else features
    grid = dict(zip(names, found.grid, strict=True))
    asked = partial_dependence(model, x, names, method="brute", kind="average", custom_values=grid)
    np.testing.assert_allclose(found.values, asked["average"][0], rtol=1e-12)
    assert found.names == tuple(names)
    assert found.model_calls == len(x) * found.values.size + 1
    assert found.target == "the score"


def test_the_curves_are_scikit_learns_and_their_mean_is_partial_dependence():
    x = people().dropna()[["age", "income"]].astype(float)
    y = (x["age"] + x["income"] > 90).to_numpy()
    model = RandomForestClassifier(10, random_state=0).fit(x, y)
    found = effect(model, x, "age", how="ice", grid=9)
    asked = partial_dependence(model, x, ["age"], method="brute", kind="both", response_method="predict_proba", custom_values={"age": found.grid[0]})
    np.testing.assert_allclose(found.curves, asked["individual"][0], rtol=1e-12)
    np.testing.assert_allclose(found.values, asked["average"][0], rtol=1e-12)
    np.testing.assert_allclose(found.std_error, found.curves.std(0, ddof=1) / np.sqrt(len(x)), rtol=1e-10)
    assert found.target == "True"
    first = effect(model, x, "age", how="ice", grid=9, centre=True)
    np.testing.assert_allclose(first.curves, found.curves - found.curves[:, :1], atol=1e-15)
    np.testing.assert_allclose(first.values, found.values - found.values[0], atol=1e-15)
    np.testing.assert_allclose(first.std_error, first.curves.std(0, ddof=1) / np.sqrt(len(x)), atol=1e-15)
    assert first.std_error[0] == 0 < first.std_error[-1]
    other = effect(model, x, "age", grid=9, target="False", versus="True")
    np.testing.assert_allclose(other.values, 1 - 2 * found.values, rtol=1e-12)
    assert other.target == "False rather than True"


def slow_pdp(frame, name, value):
    changed = frame.copy()
    changed[name] = pd.Series([value] * len(frame), index=frame.index, dtype=frame[name].dtype)
    return worth(changed).mean()


@pytest.mark.parametrize("name", people(20).columns)
def test_every_kind_of_column_of_a_data_frame(name):
    x = people()
    found = effect(worth, x, name, grid=5)
    np.testing.assert_allclose(found.values, [slow_pdp(x, name, value) for value in found.grid[0]], rtol=1e-12)
    assert (found.missing is None) == (not x[name].isna().any())
    if found.missing:
        assert found.missing[0] == pytest.approx(slow_pdp(x, name, None))
    levels = {"job": ["clerk", "nurse", "smith"], "member": [False, True], "size": ["S", "M", "L"]}
    if name in levels:
        assert found.grid[0].tolist() == levels[name]
    else:
        held = x[name].dropna()
        assert held.isin(found.grid[0]).sum() >= 5, "values that are there"
        assert pd.Series(found.grid[0]).is_monotonic_increasing
        assert [found.grid[0][0], found.grid[0][-1]] == [held.min(), held.max()]


def test_pairs_of_numbers_and_levels():
    x = people(60)
    found = effect(worth, x, ("size", "age"), grid=(["L", "S"], [20, 30, 40]))
    assert [g.tolist() for g in found.grid] == [["L", "S"], [20, 30, 40]]
    for (i, size), (j, age) in itertools.product(enumerate("LS"), enumerate((20, 30, 40))):
        changed = x.assign(age=age)
        changed["size"] = pd.Categorical([size] * len(x), ["S", "M", "L"], ordered=True)
        assert found.values[i, j] == pytest.approx(worth(changed).mean())


def test_the_weights_of_a_background_count():
    x = np.array([[0.0, 0], [0, 0], [0, 0], [4, 8]])
    means = aw.background(x, 2, "kmeans")
    found = effect(lambda b: b[:, 0] * b[:, 1], means, 0, grid=[0, 1, 2])
    np.testing.assert_allclose(found.values, [0, 2, 4])
    assert found.details["rows"] == "2 rows of 4 (kmeans)"
    half = aw.background(x, 4)
    np.testing.assert_allclose(effect(lambda b: b[:, 0] * b[:, 1], half, 0, how="ale", grid=[0, 4]).values, [-2, 6])


def test_whole_numbers_stay_whole_and_single_precision_single():
    x = np.arange(20).reshape(10, 2)

    def model(b):
        assert b.dtype == x.dtype
        return b.sum(1) * 1.0

    assert effect(model, x, 0).grid[0].tolist() == x[:, 0].tolist()
    with pytest.raises(InputError, match=r"grid= has 2.5, which column 'feature 0' of int64 cannot hold"):
        effect(model, x, 0, grid=[1, 2.5])
    with pytest.raises(InputError, match="grid= has 20.5, which column 'age'"):
        effect(worth, people(), "age", grid=[20.5, 30])
    codes = effect(model, x % 3, 0, categorical=[0])
    assert codes.kinds == ("categorical",)
    assert codes.grid[0].tolist() == [0, 1, 2]
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh(), torch.nn.Linear(2, 1)).eval()
    rows = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    found = effect(net, rows, 1, grid=[-1, 0.1, 1])
    with torch.no_grad():
        slow = [net(torch.stack([rows[:, 0], torch.full((30,), v)], 1)).mean().item() for v in (-1, 0.1, 1)]
    np.testing.assert_allclose(found.values, slow, rtol=1e-5)


def test_columns_of_pandas_own_types():
    rng = np.random.default_rng(0)
    x = pd.DataFrame({
        "whole": pd.array(rng.integers(0, 50, 60), dtype="Int64"), "yes": pd.array(rng.random(60) < 0.5, dtype="boolean"),
        "word": pd.array(rng.choice(list("abc"), 60), dtype="string"), "code": pd.Categorical(rng.integers(0, 3, 60)),
        "when": pd.date_range("2020-01-01", periods=60, tz="Asia/Tokyo"), "long": pd.to_timedelta(rng.integers(0, 9, 60), "D"),
    })  # fmt: skip
    x.loc[3, ["whole", "yes", "word"]] = pd.NA

    def model(frame):
        assert list(frame.dtypes) == list(x.dtypes)
        return frame["whole"].fillna(7).to_numpy(float) + frame["long"].dt.days + (frame["when"].dt.hour == 0) + frame["yes"].fillna(False)

    assert effect(model, x, "whole", grid=[1, 2]).missing[0] - effect(model, x, "whole", grid=[1, 2]).values[0] == pytest.approx(6)
    when = effect(model, x, "when", grid=["2020-01-01T00:00+09:00", "2020-01-02T05:00+09:00"])
    assert when.values[0] - when.values[1] == pytest.approx(1)
    assert np.diff(effect(model, x, "long", grid=[1, 3.5]).values) == pytest.approx([2])
    assert np.diff(effect(model, x, "yes", how="ale").values) == pytest.approx([1])
    for name in x.columns:
        effect(model, x, name, how="ice").plot()
    assert importance(model, x, model(x).astype(float), repeats=1).names == tuple(x.columns)


# ---- accumulated local effects --------------------------------------------------------------------------------------


def test_ale_of_a_sum_is_each_part_less_its_mean():
    x = pair()
    parts = [np.sin, lambda v: v**2, lambda v: 3 * v]

    def model(b):
        return sum(part(b[:, k]) for k, part in enumerate(parts))

    for k, part in enumerate(parts):
        found = effect(model, x, k, how="ale", grid=60)
        exact = part(found.grid[0])
        assert np.interp(x[:, k], found.grid[0], found.values).mean() == pytest.approx(0, abs=1e-12)
        np.testing.assert_allclose(np.diff(found.values), np.diff(exact), atol=1e-12)
        np.testing.assert_allclose(found.values, exact - part(x[:, k]).mean(), atol=0.03)
    together = effect(model, x, (0, 1), how="ale", grid=(8, 6))
    np.testing.assert_allclose(together.values, 0, atol=1e-10)


def test_ale_of_a_product_knows_what_goes_together():
    """Of x1 x2, normal with correlation rho: rho (x1^2 - 1) / 2 alone, and x1 x2 - rho (x1^2 + x2^2) / 2 together."""

    def model(b):
        return b[:, 0] * b[:, 1]

    for rho in (0.0, RHO):
        x = pair(rho=rho)
        inner = np.linspace(-2, 2, 21)
        found = effect(model, x, 0, how="ale", grid=np.concatenate([[x[:, 0].min()], inner, [x[:, 0].max()]]))
        assert abs(found.values[1:-1] - rho * (inner**2 - 1) / 2).max() < 0.1 + 2 * found.std_error.max()
        flat = effect(model, x, 0, grid=inner)
        np.testing.assert_allclose(flat.values, inner * x[:, 1].mean(), atol=1e-12)
        two = effect(model, x, (0, 1), how="ale", grid=25)
        a, b = np.meshgrid(*two.grid, indexing="ij")
        middle = (abs(a) < 1.2) & (abs(b) < 1.2) & (two.off_data < 0.5)
        assert middle.sum() > 100
        assert abs(two.values - (a * b - rho * (a**2 + b**2) / 2))[middle].max() < 0.15
        assert (two.details["empty_cells"] > 0.05) == (rho > 0)


def slow_ale(model, x, k, edges):
    """The textbook loop."""
    steps = []
    for low, high in itertools.pairwise(edges):
        rows = x[(x[:, k] > low) & (x[:, k] <= high) | ((low == edges[0]) & (x[:, k] == low))]
        up, down = rows.copy(), rows.copy()
        up[:, k], down[:, k] = high, low
        steps.append((model(up) - model(down)).mean())
    whole = np.concatenate([[0], np.cumsum(steps)])
    return whole - np.interp(x[:, k], edges, whole).mean()


def test_ale_is_the_textbook_loop():
    x = diabetes()[1].to_numpy()
    ask = RandomForestRegressor(10, random_state=0).fit(x, x @ np.arange(10) + x[:, 2] * x[:, 8] * 50)
    found = effect(ask, x, 2, how="ale", grid=7)
    np.testing.assert_allclose(found.values, slow_ale(ask.predict, x, 2, found.grid[0]), atol=1e-12)
    assert found.model_calls == 2 * len(x) + 1


def slow_surface(model, x, edges, codes):
    """Second-order ALE cell by cell (no cell is empty here)."""
    k = [len(e) - 1 for e in edges]
    steps = np.zeros(k)
    for i, j in np.ndindex(*k):
        rows = x[(codes[0] == i) & (codes[1] == j)]
        f = {}
        for a, b in itertools.product((0, 1), repeat=2):
            moved = rows.copy()
            moved[:, 0], moved[:, 1] = edges[0][i + a], edges[1][j + b]
            f[a, b] = model(moved)
        steps[i, j] = (f[1, 1] - f[0, 1] - f[1, 0] + f[0, 0]).mean()
    whole = np.zeros([len(e) for e in edges])
    whole[1:, 1:] = steps.cumsum(0).cumsum(1)
    first, second = np.zeros(len(edges[0])), np.zeros(len(edges[1]))
    for i in range(k[0]):
        first[i + 1] = first[i] + np.interp(x[codes[0] == i, 1], edges[1], whole[i + 1] - whole[i]).mean()
    for j in range(k[1]):
        second[j + 1] = second[j] + np.interp(x[codes[1] == j, 0], edges[0], whole[:, j + 1] - whole[:, j]).mean()
    pure = whole - first[:, None] - second
    return pure - RegularGridInterpolator(edges, pure)(x[:, :2]).mean()


def test_ale_of_a_pair_is_the_textbook_loop():
    x = pair(800, rho=0.3)

    def model(b):
        return np.tanh(b[:, 0] * b[:, 1] + b[:, 2]) + b[:, 0] ** 2

    found = effect(model, x, (0, 1), how="ale", grid=5)
    codes = [(np.searchsorted(g, x[:, k]) - 1).clip(0) for k, g in enumerate(found.grid)]
    np.testing.assert_allclose(found.values, slow_surface(model, x, found.grid, codes), atol=1e-12)
    swapped = effect(model, x, (1, 0), how="ale", grid=5)
    np.testing.assert_allclose(swapped.values.T, found.values, atol=1e-12)
    np.testing.assert_allclose(swapped.std_error.T, found.std_error, atol=1e-12)


def test_ale_of_levels():
    """Steps between neighbours are the mean over the rows of both; the mean over rows is 0."""
    x = people(200).dropna().reset_index(drop=True)
    x["size"] = x["size"].astype("category")
    found = effect(worth, x, "size", how="ale")
    assert found.grid[0].tolist() == ["S", "M", "L"]
    shares = [(x["size"] == level).to_numpy() for level in "SML"]
    member = x["member"].to_numpy()
    assert found.values[1] - found.values[0] == pytest.approx(member[shares[0] | shares[1]].mean())
    assert found.values[2] - found.values[1] == pytest.approx(member[shares[1] | shares[2]].mean())
    assert sum(v * s.mean() for v, s in zip(found.values, shares, strict=True)) == pytest.approx(0, abs=1e-12)
    two = effect(worth, x, ("size", "member"), how="ale")
    whole = np.array([[0, 0], [0, 1], [0, 2.0]])  # codes * member is all that they do together
    assert np.ptp(np.diff(two.values, axis=1) - np.diff(whole, axis=1)) == pytest.approx(0, abs=1e-10)
    assert np.ptp(np.diff(np.diff(two.values, axis=0), axis=1) - 1) == pytest.approx(0, abs=1e-10)


def test_levels_without_an_order_are_put_beside_those_whose_rows_are_alike():
    rng = np.random.default_rng(0)
    heat = {"sauna": 90, "ice": 0, "bath": 38, "pool": 25}
    place = rng.choice(list(heat), 800)
    x = pd.DataFrame({"place": place, "degrees": [heat[p] + rng.normal(0, 12) for p in place], "noise": rng.normal(size=800)})
    found = effect(lambda f: f["degrees"].to_numpy(), x, "place", how="ale")
    order = found.grid[0].tolist()
    assert order in (["ice", "pool", "bath", "sauna"], ["sauna", "bath", "pool", "ice"])
    np.testing.assert_allclose(found.values, 0, atol=1e-12)
    asked = effect(lambda f: f["degrees"].to_numpy(), x, "place", how="ale", grid=["sauna", "ice", "pool"])
    assert asked.grid[0].tolist() == ["sauna", "ice", "pool"]
    assert asked.details["left_out"] == (place == "bath").sum()
    assert "rows are left out" in asked.summary()
    with pytest.raises(InputError, match="no other column tells which are alike"):
        effect(lambda f: f["place"].str.len().to_numpy(), x[["place"]], "place", how="ale")


def test_rows_with_a_missing_value_are_left_out_of_ale_and_counted():
    x = people(200)
    found = effect(worth, x, "income", how="ale", grid=5)
    assert found.details["left_out"] == 20
    assert found.missing is None
    np.testing.assert_allclose(found.values, effect(worth, x.dropna(subset=["income"]), "income", how="ale", grid=found.grid[0]).values)


# ---- error bars -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ask",
    [
        lambda f, x: effect(f, x, 0, grid=np.linspace(-1.5, 1.5, 6)),
        lambda f, x: effect(f, x, 0, how="ale", grid=np.linspace(-1.5, 1.5, 6)),
        lambda f, x: effect(f, np.c_[np.digitize(x[:, 0], [-1, 0, 1]), x[:, 1:]], 0, how="ale", categorical=[0], grid=[0, 1, 2, 3]),
        lambda f, x: effect(f, x, (0, 1), how="ale", grid=[np.linspace(-1, 1, 4)] * 2),
        lambda f, x: importance(f, x, f(x) + np.random.default_rng(abs(int(x[0, 0] * 1e6))).normal(size=len(x)), repeats=5),
    ],
    ids=["pdp", "ale", "ale of levels", "ale of a pair", "permutation"],
)
def test_standard_errors_are_the_spread_over_samples(ask):
    def model(b):
        return np.sin(b[:, 0] * b[:, 1]) + b[:, 0] * b[:, 2] + 0.5 * b[:, 0] ** 2

    rng = np.random.default_rng(0)
    mix = np.array([[1, 0, 0], [0.5, 0.8, 0], [0.3, 0, 1]])
    found = [ask(model, rng.normal(size=(300, 3)) @ mix.T) for _ in range(120)]
    spread = np.std([one.values for one in found], 0)
    claimed = np.sqrt(np.mean([one.std_error**2 for one in found], 0))
    ratio = (claimed / spread).ravel()
    assert 0.85 < np.median(ratio) < 1.25, ratio
    assert ratio.min() > 0.7, ratio


def test_a_row_counts_as_the_one_that_gives_its_value_too():
    """The error of permutation importance beside that of the mean over all pairs of rows; and of a sum that no order changes, whose error is 0."""
    x = np.random.default_rng(0).exponential(size=(60, 2))
    y = x[:, 0] * 0.5
    pairs = (x[None, :, 0] - y[:, None]) ** 2 - ((x[:, 0] - y) ** 2)[:, None]  # row i with the value of row j
    found = importance(lambda b: b[:, 0], x, y, repeats=400)
    assert found.std_error[0] == pytest.approx((pairs.mean(1) + pairs.mean(0)).std(ddof=1) / np.sqrt(60), rel=0.04)
    assert found.values[0] == pytest.approx(pairs.mean(), abs=3 * found.samples[:, 0].std() / np.sqrt(400))
    found = importance(lambda b: np.exp(b[:, 0]) / 5 + b[:, 1], x, x[:, 1], repeats=400)
    assert found.values[0] == pytest.approx(0, abs=1e-12)
    alone = np.std((np.exp(x[:, 0]) / 5) ** 2) / np.sqrt(60)
    assert found.std_error[0] < 0.15 * alone


# ---- what is known of the data --------------------------------------------------------------------------------------


def test_it_says_when_rows_are_moved_off_the_data():
    x = pair(rho=0.95)

    def model(b):
        return b.sum(1)

    near, far = effect(model, x, 2), effect(model, x, 0)
    assert near.details["off_data_share"] < 0.03
    assert near.details["association"] < 0.1
    assert "off the data" not in near.summary()
    assert far.details["off_data_share"] > 0.2
    assert far.details["associated"] == ["feature 0", "feature 1"]
    assert far.details["association"] == pytest.approx(0.95, abs=0.02)
    assert "hold values that, given their feature 1, no row has" in far.summary()
    tenth = np.searchsorted(np.quantile(x[:, 1], np.arange(1, 10) / 10), x[:, 1])
    for k in (0, 20, 39):
        value = far.grid[0][k]
        ends = [(own.min(), own.max(), np.ptp(own) / 10) for own in (x[tenth == t, 0] for t in tenth)]
        assert far.off_data[k] == pytest.approx(np.mean([not low - room <= value <= high + room for low, high, room in ends]))
    two = effect(model, x, (0, 1), grid=9)
    assert two.off_data[0, -1] == two.off_data[-1, 0] == 1
    assert two.off_data[4, 4] == two.off_data[0, 0] == 0


def test_associations_of_numbers_and_levels():
    rng = np.random.default_rng(0)
    n = 2000
    a, level = rng.normal(size=n), rng.integers(0, 4, n)
    x = pd.DataFrame({
        "a": a, "cube": a**3, "level": np.array(list("wxyz"))[level], "twin": np.array(list("WXYZ"))[level], "by level": level + rng.normal(size=n),
        "free": rng.normal(size=n), "other": rng.choice(list("pqrstu"), n), "constant": 1.0,
    })  # fmt: skip
    found = pd.DataFrame(associations(table_of(lambda f: f["a"].to_numpy(), x)), x.columns, x.columns)
    assert found.loc["a", "cube"] == pytest.approx(1)
    assert found.loc["level", "twin"] == pytest.approx(1)
    assert found.loc["level", "by level"] == pytest.approx(np.sqrt(1.25 / 2.25), abs=0.03)
    assert found.loc[["a", "level", "by level", "twin"], ["free", "other"]].to_numpy().max() < 0.08
    assert found["constant"].max() == 0


# ---- importance -----------------------------------------------------------------------------------------------------


def test_permutation_importance_is_the_textbook_loop():
    model, x, y = diabetes()
    found = importance(model, x, y, repeats=4, seed=3)
    usual = (model.predict(x) - y) ** 2
    for k in range(3):
        for r in range(4):
            order = np.random.default_rng([3, k, r]).permutation(len(x))
            changed = x.copy()
            changed[x.columns[k]] = x.iloc[order, k].to_numpy()
            assert found.samples[r, k] == pytest.approx(((model.predict(changed) - y) ** 2 - usual).mean())
    np.testing.assert_allclose(found.values, found.samples.mean(0))
    assert found.names == tuple(x.columns)
    assert found.details["with_all"] == pytest.approx(usual.mean())
    assert found.unit == "rise in squared error (squared units of y)"
    assert found.model_calls == len(x) * 41
    assert dict(found.top(2)).keys() == {"bmi", "s5"}


@pytest.mark.parametrize("scoring", ["neg_mean_squared_error", "neg_log_loss", "accuracy"])
def test_permutation_importance_is_scikit_learns_within_its_errors(scoring):
    if scoring == "neg_mean_squared_error":
        model, x, y = diabetes()
        name = None
    else:
        x = people().dropna()[["age", "income"]]
        y = np.where(x["age"] + x["income"] > 90, "rich", "poor")
        model, name = LogisticRegression(max_iter=1000).fit(x, y), {"neg_log_loss": None, "accuracy": "accuracy"}[scoring]
    found = importance(model, x, y, score=name, repeats=20)
    asked = permutation_importance(model, x, y, scoring=scoring, n_repeats=20, random_state=0)
    error = np.sqrt(found.samples.var(0, ddof=1) / 20 + asked.importances_std**2 / 19)
    assert (abs(found.values - asked.importances_mean) < 4 * error + 1e-9).all()
    assert found.values.max() > 5 * error[found.values.argmax()]


def test_a_measure_of_ones_own_and_columns_that_go_together():
    x = pair(400)
    y = (x[:, 0] + x[:, 1] > 0).astype(int)
    model = LogisticRegression().fit(x, y)

    def own(truth, predicted):
        return -log_loss(truth, predicted)

    usual, mine = (importance(model, x, y, repeats=3, score=score) for score in (None, own))
    np.testing.assert_allclose(mine.values, usual.values)
    assert usual.unit == "rise in log loss (nats)"
    assert mine.unit == "drop in own"
    assert "not the rows" in mine.summary()
    np.testing.assert_allclose(mine.std_error, mine.samples.std(0, ddof=1) / np.sqrt(3))
    assert "goes with" in usual.summary()
    grouped = importance(model, x, y, repeats=3, groups={"both": [0, 1]})
    assert set(grouped.names) == {"both", "feature 2"}
    assert "goes with" not in grouped.summary()
    order = np.random.default_rng([0, 0, 0]).permutation(400)
    changed = np.c_[x[order, :2], x[:, 2]]
    assert grouped.samples[0, 0] == pytest.approx(log_loss(y, model.predict_proba(changed)) - log_loss(y, model.predict_proba(x)))
    assert grouped.values[0] > usual.values[:2].max()


@pytest.mark.parametrize(
    "y",
    [
        np.array([0, 1, 1, 0]),
        np.array([False, True, True, False]),
        np.array([0.0, 1, 1, 0]),
        np.array(["no", "yes", "yes", "no"]),
        np.array(["no", "yes", "yes", "no"], object),
    ],
    ids=str,
)
def test_the_truth_is_found_among_the_labels(y):
    x = np.array([[0.0, 1], [1, 0], [2, 5], [-1, 3]])
    model = LogisticRegression().fit(x, y)
    found = importance(model, x, y, repeats=2)
    assert found.details["with_all"] == pytest.approx(log_loss(y, model.predict_proba(x)))
    named = aw.wrap(model, labels=["bad", "good"])
    if y.dtype.kind in "ib":
        np.testing.assert_array_equal(importance(named, x, y, repeats=2).values, found.values)
    else:
        with pytest.raises(InputError, match="y holds .*the classes bad, good"):
            importance(named, x, y)


def test_drop_column_refits_and_its_error_bars_are_corrected():
    x, y = load_diabetes(return_X_y=True, as_frame=True)
    x = x[["bmi", "s5", "age"]]
    found = importance(Ridge(0.01), x, y, how="drop-column", folds=KFold(4))
    score = {"cv": KFold(4), "scoring": "neg_mean_squared_error"}
    whole = -cross_validate(Ridge(0.01), x, y, **score)["test_score"]
    for k, name in enumerate(x.columns):
        without = -cross_validate(Ridge(0.01), x.drop(columns=name), y, **score)["test_score"]
        np.testing.assert_allclose(found.samples[:, k], without - whole, rtol=1e-9)
    np.testing.assert_allclose(found.std_error, found.samples.std(0, ddof=1) * np.sqrt(1 / 4 + 1 / 3), rtol=1e-2)
    assert found.details["fits"] == 16
    cat = catboost.CatBoostRegressor(iterations=3, verbose=0, allow_writing_files=False, thread_count=1, cat_features=["sex"])
    with pytest.raises(ModelError, match="CatBoostRegressor cannot be fitted without 'sex'"):
        importance(cat, x.assign(sex="f"), y, how="drop-column", folds=2)
    many = importance(LogisticRegression(), x, y > 150, how="drop-column", folds=3, repeats=2, groups=[["bmi", "s5"]], score="accuracy")
    assert many.samples.shape == (6, 2)
    assert many.names == ("bmi + s5", "age")
    with pytest.raises(UnsupportedError, match="a function cannot be; give the estimator"):
        importance(lambda b: b.sum(1), x, y, how="drop-column")
    with pytest.raises(ModelError, match="Ridge cannot be fitted"):
        importance(Ridge(alpha="much"), x, y, how="drop-column")
    with pytest.raises(InputError, match="one column, or one group of all"):
        importance(Ridge(), x, y, how="drop-column", groups=[["bmi", "s5", "age"]])


def test_the_models_own_importance():
    model, x, _ = diabetes()
    found = importance(model, how="model")
    np.testing.assert_array_equal(found.values, model.feature_importances_)
    assert found.names == tuple(x.columns)
    assert found.unit.startswith("mean decrease in impurity")
    assert found == importance(aw.wrap(model), how="model") or found.seconds
    np.testing.assert_array_equal(importance(aw.wrap(model), how="model").values, found.values)
    numbers = people().dropna()[["age", "income"]].assign(constant=1.0)
    y = (numbers["age"] > 40).astype(int)
    boosted = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(numbers, y)
    for kind in ("gain", "weight", "cover", "total_gain", "total_cover"):
        native = boosted.get_booster().get_score(importance_type=kind)
        np.testing.assert_allclose(importance(boosted, how="model", kind=kind).values, [native.get(name, 0) for name in numbers.columns])
    assert importance(boosted, how="model").params["kind"] == "gain"
    light = lightgbm.LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1).fit(numbers, y)
    for kind in ("gain", "split"):
        np.testing.assert_array_equal(importance(light, how="model", kind=kind).values, light.booster_.feature_importance(kind))
    cat = catboost.CatBoostClassifier(iterations=5, verbose=0, allow_writing_files=False, thread_count=1).fit(numbers, y)
    np.testing.assert_array_equal(importance(cat, how="model").values, cat.feature_importances_)
    for ask, error, said in (
        (lambda: importance(SVC().fit(numbers, y), how="model"), UnsupportedError, "a SVC has no importance of its own"),
        (lambda: importance(RandomForestClassifier(), how="model"), InputError, "cannot be asked before it is fitted"),
        (lambda: importance(boosted, how="model", kind="split"), InputError, "kind='split': this model has 'gain'"),
        (lambda: importance(boosted, numbers, how="model"), InputError, "X= means nothing for how='model'"),
    ):
        with pytest.raises(error, match=said):
            ask()


def test_mean_importance_of_an_explanation():
    x = pair(60)
    why = aw.shapley(lambda b: b @ [3.0, -1, 0], x[:20], background=x)
    found = mean_importance(why)
    np.testing.assert_allclose(found.values, abs(why.values).mean(0))
    np.testing.assert_allclose(found.std_error, abs(why.values).std(0, ddof=1) / np.sqrt(20))
    assert found.names == ("feature 0", "feature 1", "feature 2")
    assert found.params["values"] == "shapley"
    assert found.target == "the score"
    assert found.details["noise"] == 0
    noisy = mean_importance(Explanation(np.zeros((3, 2)), std_error=np.full((3, 2), 0.5), target=("cat",) * 3))
    assert noisy.details["noise"] == pytest.approx(abs(np.random.default_rng(0).normal(0, 0.5, 200000)).mean(), rel=0.01)
    assert "a column without any effect would show about 0.4" in noisy.summary()
    for bad, said in (
        (Explanation(np.zeros((2, 3, 3))), r"values have the shape \[2, 3, 3\]"),
        (Explanation(np.zeros((2, 3)), target=("cat", "dog")), r"different targets \(cat, dog\)"),
        (Explanation(np.zeros((2, 1)), components=(("a",), ("b",))), "components of the rows differ"),
        (np.zeros((2, 3)), "this is a ndarray"),
    ):
        with pytest.raises(InputError, match=said):
            mean_importance(bad)


# ---- models behind an address, progress, results --------------------------------------------------------------------


def test_a_limit_on_calls_is_told_before_the_first(monkeypatch):
    x = pair(30)
    model = aw.remote("http://127.0.0.1:9", request=lambda rows: rows.tolist(), response=lambda reply: reply, max_calls=100)
    monkeypatch.setattr(remote_models.Service, "ask", lambda self, verb, path="", body=None, stop=None: [sum(row) for row in body])
    with pytest.raises(InputError, match=r"this will make 930 calls, and max_calls=100"):
        importance(model, x, x.sum(1))
    assert effect(model, x, 0, grid=[0, 1, 2]).model_calls == 91
    with pytest.raises(InputError, match="this will make 90 calls, and max_calls=100, of which 91 are made"):
        effect(model, x, 0, target=0, grid=[0, 1, 2])


def test_progress_counts_to_the_end_and_can_stop():
    x = pair(30)
    for ask in (lambda tick: effect(np.sum, x, 0, progress=tick), lambda tick: importance(summed, x, x[:, 0], repeats=2, progress=tick)):
        seen = []
        if ask.__code__.co_names[0] == "effect":
            effect(summed, x, 0, progress=lambda *a, seen=seen: seen.append(a))
        else:
            ask(lambda *a, seen=seen: seen.append(a))
        assert seen[-1][0] == seen[-1][1]
        assert len({total for _, total in seen}) == 1
    with pytest.raises(Cancelled):
        importance(summed, x, x[:, 0], progress=lambda done, total: False)
    with pytest.raises(Cancelled):
        importance(Ridge(), x, x[:, 0], how="drop-column", progress=lambda done, total: False)


def summed(b):
    return b.sum(1)


@pytest.mark.parametrize(("features", "how"), [("income", "ice"), ("since", "pdp"), ("job", "pdp"), ("size", "ale"), (("age", "size"), "ale")])
def test_an_effect_is_saved_and_loaded(tmp_path, features, how):
    found = effect(worth, people(80), features, how=how, grid=None if how == "ale" else 6)
    assert Effect.load(found.save(tmp_path / "effect.npz")) == found
    assert found != effect(worth, people(81), features, how=how)
    assert "model calls" in found.summary()
    assert found._repr_html_().startswith('<div><img alt="')
    with pytest.raises(FileError, match="holds no saved Importance, but Effect"):
        Importance.load(tmp_path / "effect.npz")


def test_an_importance_is_saved_and_loaded(tmp_path):
    x = pair(40)
    found = importance(summed, x, x[:, 0], repeats=2)
    assert Importance.load(found.save(tmp_path / "importance.npz")) == found
    assert found == importance(summed, x, x[:, 0], repeats=2) or found.seconds
    own = importance(RandomForestRegressor(3).fit(x, x[:, 0]), how="model")
    assert Importance.load(own.save(tmp_path / "own.npz")) == own
    assert "no error bars" in own.summary()
    aw.Explanation(np.zeros((1, 2))).save(tmp_path / "why.npz")
    with pytest.raises(FileError, match="holds no saved Effect, but Explanation"):
        Effect.load(tmp_path / "why.npz")


# ---- pictures -------------------------------------------------------------------------------------------------------


def test_pictures_say_what_they_show():
    x = people().rename(columns={"income": "收入（千元）"})

    def model(frame):
        return worth(frame.rename(columns={"收入（千元）": "income"}))

    figure, axes = plt.subplots(1, 4)
    curve = effect(model, x, "收入（千元）", how="ice", grid=20).plot(axes[0])
    assert curve is axes[0]
    assert curve.get_xlabel().startswith("收入（千元）")
    assert "grey: where the rows are" in curve.get_xlabel().replace("\n", " ")
    assert "the score" in curve.get_ylabel()
    assert [text.get_text() for text in curve.texts] == ["missing"]
    levels = effect(model, x, "job").plot(axes[1])
    assert [label.get_text().split()[0] for label in levels.get_yticklabels()] == ["clerk", "nurse", "smith", "(missing)"]
    shares = [float(label.get_text().split()[1].rstrip("%")) for label in levels.get_yticklabels()]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    pairs = effect(model, x, ("age", "since"), how="ale").plot(axes[2])
    assert pairs.get_xlabel().startswith("age")
    assert pairs.get_ylabel() == "since"
    assert len(pairs.collections) >= 2
    bars = importance(model, x, model(x), repeats=2).plot(axes[3])
    assert bars.get_xlabel().startswith("rise in squared error")
    plt.close(figure)


def test_a_curve_is_dashed_where_most_rows_are_off_the_data():
    ax = effect(summed, pair(rho=0.95), 0).plot()
    dashed, sure = ax.lines[:2]
    assert np.isfinite(dashed.get_ydata()).all()
    hidden = np.isnan(sure.get_ydata())
    assert hidden[0]
    assert hidden[-1]
    assert not hidden[20]
    assert "dashed: mostly off the data" in ax.get_xlabel().replace("\n", " ")
    assert "dashed" not in effect(summed, pair(rho=0.95), 2).plot().get_xlabel()


def test_the_python_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for name in ("effect", "importance"):  # until they are exported
        block = block.replace(f"aw.{name}", name)
    exec(compile(block, "effects.md", "exec"), {"effect": effect, "importance": importance})
    assert (tmp_path / "pair.png").stat().st_size > 5000


# ---- refusals -------------------------------------------------------------------------------------------------------

THREE = LogisticRegression().fit(pair(60), np.arange(60) % 3)


@pytest.mark.parametrize(
    ("ask", "error", "said"),
    [
        (lambda: effect(summed, pair(9), 0, how="mplot"), InputError, "how='mplot': choose 'pdp', 'ice', 'ale'"),
        (lambda: effect(summed, pair(9), 3), InputError, "no column 3: the table has 3"),
        (lambda: effect(summed, pair(9), "age"), InputError, "no column 'age'"),
        (lambda: effect(summed, pair(9), (0, 0)), InputError, "one column, or two different ones"),
        (lambda: effect(summed, pair(9), (0, 1), how="ice"), UnsupportedError, "would make surfaces"),
        (lambda: effect(summed, pair(9), 0, how="ale", centre=True), InputError, "mean of 0 already"),
        (lambda: effect(summed, pair(9), 0, grid=1), InputError, "grid=1: give the number of points, 2 or more"),
        (lambda: effect(summed, pair(9), 0, grid=[1.0]), InputError, "takes a single value on its grid"),
        (lambda: effect(summed, np.ones((9, 2)), 0), InputError, "column 'feature 0' takes a single value"),
        (lambda: effect(summed, pair(9), 0, grid=[0, np.inf]), InputError, "missing or infinite"),
        (lambda: effect(summed, pair(9), 0, how="ale", grid=[-9, -8, 9]), InputError, "no row of 'feature 0' between -9.0 and -8.0"),
        (lambda: effect(summed, np.array([[1.0, np.inf], [2, 3]]), 1), InputError, "'feature 1' holds infinite numbers, first in row 0"),
        (lambda: effect(summed, np.array([[1.0, np.nan], [2, np.nan]]), 1), InputError, "'feature 1' holds missing values only"),
        (lambda: effect(lambda b: np.where(b[:, 0] > 0, b[:, 0], -np.inf), np.array([[1.0], [2]]), 0, grid=[0, 1]), ModelError, "some of its columns changed, is -inf"),
        (lambda: effect(THREE, pair(9), 0), TargetError, "3 outputs \\(0, 1, 2\\), and this question is about one"),
        (lambda: effect(THREE, pair(9), 0, target=[0] * 9), TargetError, "target= has 9 entries"),
        (lambda: effect(lambda b: b[:, 0, 0], np.zeros((2, 3, 3)), 0), UnsupportedError, "item of x has the shape \\[3, 3\\]"),
        (lambda: effect(worth, people(), "job", grid=["nurse", "baker"]), InputError, "'baker', which no row holds"),
        (lambda: effect(lambda f: f["id"].str.len().to_numpy(), pd.DataFrame({"id": list(map(str, range(300)))}), "id"), InputError, "300 levels"),
        (lambda: effect(summed, pd.DataFrame(pair(9), columns=["a", "a", "b"]), "b"), InputError, "two columns called 'a'"),
        (lambda: importance(summed, pair(9), pair(9)[:, 0], how="gini"), InputError, "how='gini'"),
        (lambda: importance(summed, pair(9), pair(9)[:, 0], how="shapley"), InputError, "askwhy.mean_importance"),
        (lambda: importance(summed, pair(9)), InputError, "y= is missing"),
        (lambda: importance(summed, pair(9), np.zeros(8)), InputError, "y has 8 entries for 9 rows"),
        (lambda: importance(summed, pair(9), np.full(9, np.nan)), InputError, "missing value, first in row 0"),
        (lambda: importance(summed, pair(9), ["a"] * 9), InputError, "y holds 'a', which is no number"),
        (lambda: importance(THREE, pair(9), np.full(9, 3)), InputError, "y holds .*3.*, and the model has the classes 0, 1, 2"),
        (lambda: importance(lambda b: b[:, :2], pair(9), np.arange(9) % 2), InputError, "needs probabilities"),
        (lambda: importance(summed, pair(9), np.zeros(9), score="r2"), InputError, "score='r2': choose 'log_loss'"),
        (lambda: importance(summed, pair(9), np.zeros(9), score=lambda y, p: p), InputError, "one finite number"),
        (lambda: importance(summed, pair(9), np.zeros(9), repeats=0), InputError, "repeats=0"),
        (lambda: importance(summed, pair(9), np.zeros(9), kind="gain"), InputError, "kind= means nothing"),
        (lambda: importance(summed, aw.background(pair(9)), np.zeros(9)), InputError, "X is a background"),
        (lambda: importance(summed, pair(9)[:1], np.zeros(1)), InputError, "single row"),
        (lambda: importance(LinearRegression(), pair(9), pair(9)[:, 0], how="drop-column", folds=1), InputError, "folds=1"),
        (lambda: importance(LinearRegression(), pair(9), pair(9)[:, 0], how="drop-column", folds=20), InputError, "cannot split"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_clear_error(ask, error, said):
    with pytest.raises(error, match=said):
        ask()
