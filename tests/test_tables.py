"""Tables: kinds of columns, their bins, missing values, backgrounds that stand for many rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import askwhy as aw
from askwhy.errors import InputError, ModelError
from askwhy.models import wrap
from askwhy.tables import Background, Column, columns_of, one_hot_groups


def people(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame({
        "age": rng.integers(18, 80, n),
        "income": rng.normal(40, 9, n),
        "job": rng.choice(["clerk", "nurse", "smith"], n),
        "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), "D"),
        "member": rng.random(n) < 0.5,
        "code": pd.Categorical(rng.integers(0, 3, n)),
    })  # fmt: skip


def worth(frame: pd.DataFrame) -> np.ndarray:
    assert list(frame.dtypes) == list(people().dtypes)
    days = (frame["since"] - pd.Timestamp("2020-01-01")).dt.days
    return (frame["age"] / 10 + (frame["job"] == "nurse") * 3 + days / 300 + frame["member"] + frame["code"].astype(int)).to_numpy()


def test_kinds_of_a_data_frame_are_found_and_the_frame_comes_back_as_it_was():
    items = wrap(worth).prepare(people())
    assert items.kinds == ("numeric", "numeric", "categorical", "date", "categorical", "categorical")
    why = aw.occlusion(worth, people()[:2], background=people())
    assert why.components[0] == tuple(people().columns)
    frame = people()
    np.testing.assert_allclose(why.values[:, 0], (frame["age"][:2] - frame["age"].mean()) / 10)
    np.testing.assert_allclose(why.values[:, 2], ((frame["job"][:2] == "nurse") - (frame["job"] == "nurse").mean()) * 3)
    assert why.data[0][:3] == (str(frame["age"][0]), f"{frame['income'][0]:.6g}", frame["job"][0])


def test_bins_say_what_they_hold():
    items = wrap(worth).prepare(people())
    age, _, job, since, member, code = columns_of(items, people().to_numpy())
    numbers = people()["age"].to_numpy()
    codes = age.codes(people()["age"].to_numpy())
    for k in range(4):
        inside = numbers[codes == k]
        low, high = (-np.inf, *age.edges)[k], (*age.edges, np.inf)[k]
        assert ((inside > low) & (inside <= high)).all()
        assert 0.15 < (codes == k).mean() < 0.35
    assert age.says(0) == f"age <= {age.edges[0]:.6g}"
    assert age.says(1) == f"{age.edges[0]:.6g} < age <= {age.edges[1]:.6g}"
    assert age.says(3) == f"age > {age.edges[2]:.6g}"
    assert age.says(4) == "age is missing"
    assert job.says(1) == "job = nurse"
    assert job.says(3) == "job is new or missing"
    assert since.says(0).startswith("since <= 2020-")
    assert member.levels == (False, True)
    assert code.levels == (0, 1, 2)
    assert code.says(2) == "code = 2"


def test_missing_and_unknown_values_have_a_code_of_their_own():
    age = Column("age", "numeric", np.array([1.0, 2.0]))
    assert age.codes(np.array([0.5, 1.0, 1.5, 2.0, 9.0, np.nan])).tolist() == [0, 0, 1, 1, 2, 3]
    job = Column("job", "categorical", np.empty(0), ("a", "b"))
    assert job.codes(np.array(["b", "c", None, "a"], object)).tolist() == [1, 2, 2, 0]
    since = Column("since", "date", np.array([np.datetime64("2020-01-02", "ns").astype(np.int64)]))
    assert since.codes(np.array([pd.Timestamp("2020-01-01"), pd.Timestamp("2020-01-03"), pd.NaT], object)).tolist() == [0, 1, 2]


def test_repeated_and_constant_values_make_no_empty_bins():
    items = wrap(lambda b: b.sum(1)).prepare(np.zeros((1, 3)))
    rows = np.stack([np.zeros(50), np.r_[np.zeros(40), np.ones(10)], np.arange(50)], 1)
    constant, mostly, even = columns_of(items, rows)
    assert len(constant.edges) == 0
    assert constant.says(0) == "feature 0 has any value"
    assert mostly.edges.tolist() == [0.0]
    assert len(even.edges) == 3
    assert len(columns_of(items, rows, bins="decile")[2].edges) == 9
    assert columns_of(items, rows, categorical=[1])[1].levels == (0.0, 1.0)
    with pytest.raises(InputError, match="bins='fifths'"):
        columns_of(items, rows, bins="fifths")
    with pytest.raises(InputError, match="no column 7: the table has 3"):
        columns_of(items, rows, categorical=[7])


def test_a_missing_value_is_a_value_that_the_model_takes_or_not():
    def filled(b):
        return np.where(np.isnan(b), 10.0, b).sum(1)

    x = np.array([[1.0, np.nan]])
    np.testing.assert_allclose(aw.occlusion(filled, x, baseline=[[0.0, 0.0]]).values, [[1, 10]])
    with pytest.raises(ModelError, match="score is nan"):
        aw.occlusion(lambda b: b.sum(1), x, baseline=[[0.0, 0.0]])
    from sklearn.linear_model import LinearRegression

    with pytest.raises(ModelError, match="the model failed.*NaN"):
        aw.occlusion(LinearRegression().fit(np.eye(2), [0, 1]), x, baseline=[[0.0, 0.0]])


# ---- backgrounds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["sample", "kmeans", "quantiles"])
@pytest.mark.parametrize("data", [people(), people()[["age", "income"]].to_numpy()], ids=["frame", "array"])
def test_a_background_is_like_the_data(how, data):
    found = aw.background(data, 12, how)
    assert isinstance(found, Background)
    assert type(found.rows) is type(data)
    assert len(found) == len(found.rows) == 12
    assert found.weights.sum() == pytest.approx(1)
    assert found.text == f"12 rows of 60 ({how})"
    if isinstance(data, pd.DataFrame):
        assert list(found.rows.dtypes) == list(data.dtypes)
        assert set(found.rows["job"]) <= set(data["job"])


def test_a_background_keeps_what_it_promises():
    data = np.random.default_rng(1).normal(size=(400, 3)) * [1, 10, 100]
    quantiles = aw.background(data, 40, "quantiles")
    np.testing.assert_allclose(quantiles.rows.mean(0), data.mean(0), atol=0.06 * data.std(0).max())
    np.testing.assert_allclose(np.sort(quantiles.rows[:, 0]), np.sort(data[:, 0])[((np.arange(40) + 0.5) * 10).astype(int)])
    assert abs(np.corrcoef(quantiles.rows[:, 0], quantiles.rows[:, 1])[0, 1]) < 0.5
    clusters = np.repeat([[0.0, 0], [9, 9], [9, 0]], [10, 30, 60], axis=0) + np.random.default_rng(2).normal(size=(100, 2)) / 10
    means = aw.background(clusters, 3, "kmeans")
    assert sorted(means.weights.round(2)) == [0.1, 0.3, 0.6]
    assert all((means.rows[k] == clusters).all(1).any() for k in range(3)), "a row that is really there"
    sample = aw.background(data, 40)
    assert len(np.unique(sample.rows, axis=0)) == 40
    assert (aw.background(data, 40, seed=1).rows != sample.rows).any()


def test_weights_count():
    data = np.array([[0.0], [0.0], [0.0], [8.0]])
    means = aw.background(data, 2, "kmeans")
    why = aw.occlusion(lambda b: b[:, 0], [[1.0]], background=means)
    np.testing.assert_allclose(why.values, [[1 - 2.0]])
    assert why.params["baseline"] == "2 rows of 4 (kmeans)"


def test_a_method_that_does_not_weigh_refuses_weights():
    import torch
    from torch import nn

    means = aw.background(np.array([[0.0], [0.0], [0.0], [8.0]]), 2, "kmeans")
    net = nn.Sequential(nn.Linear(1, 2)).eval()
    with pytest.raises(InputError, match="counts every background row alike"):
        aw.deep_lift(net, torch.ones(1, 1), background=means, target=0)
    aw.deep_lift(net, torch.ones(1, 1), background=aw.background(np.array([[0.0], [8.0]]), 2), target=0)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: aw.background(people(), how="median"), "how='median'"),
        (lambda: aw.background([1, 2]), "shape \\[2\\]"),
        (lambda: aw.background(people(), 0), "rows=0"),
        (lambda: aw.background(people(), True), "rows=True"),
        (lambda: aw.background(people()[:0]), "shape \\[0, 6\\]"),
    ],
)
def test_a_bad_background_is_one_clear_error(call, said):
    with pytest.raises(InputError, match=said):
        call()


# ---- one-hot --------------------------------------------------------------------------------------------------------


def test_one_hot_groups_are_found_and_others_left_alone():
    names = ("age", "colour_red", "colour_blue", "has_dog", "has_cat", "job=a", "job=b")
    batch = np.array([[3, 1, 0, 1, 1, 0, 1], [4, 0, 1, 1, 0, 1, 0]])
    assert one_hot_groups(batch, names) == {"colour": ["colour_red", "colour_blue"], "job": ["job=a", "job=b"]}
    frame = pd.DataFrame(batch, columns=list(names))
    why = aw.occlusion(lambda b: b.to_numpy().sum(1) * 1.0, frame, baseline=frame.iloc[:1], components=aw.features("one-hot"))
    assert set(why.components[0]) == {"colour", "job", "age", "has_dog", "has_cat"}
    with pytest.raises(InputError, match="groups='onehot'"):
        aw.occlusion(lambda b: b.to_numpy().sum(1) * 1.0, frame, baseline=frame.iloc[:1], components=aw.features("onehot"))
