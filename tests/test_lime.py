"""LIME of texts and tables, over several widths, and of a few items that stand for all."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import oracle
import pandas as pd
import pytest
import torch

import askwhy as aw
from askwhy.errors import InputError, ModelError, UnsupportedError
from askwhy.local.lime_hidden import neighbours, shares
from askwhy.local.lime_pick import lime_pick
from askwhy.local.lime_widths import lime_widths
from askwhy.tables import Background

X = np.random.default_rng(0).normal(size=(400, 5)) @ (np.eye(5) + 0.5)
SLOPES = np.array([1.0, -2.0, 0.0, 0.5, 3.0])


def bent(batch):
    """Neither linear nor a sum over columns."""
    b = np.asarray(batch, float)
    return np.tanh(b[:, 0]) + b[:, 1] * b[:, 2] + (b[:, 2] > 0.3)


def bin_of(background, row):
    """1 for a value in the row's quartile."""
    edges = [np.quantile(column, [0.25, 0.5, 0.75]) for column in background.T]
    return lambda j, value: float(np.searchsorted(edges[j], value) == np.searchsorted(edges[j], row[j]))


def kept_inputs(function):
    """The function, and all that it was asked."""
    seen = []

    def asked(batch):
        seen.append(np.array(batch))
        return function(batch)

    return asked, seen


# ---- texts ----------------------------------------------------------------------------------------------------------

TEXT = "not a good film, but never a dull one"
WORTH = {"not": -1.0, "good": 2.0, "never": -0.5, "dull": -3.0}


def counts(texts):
    """Words have a worth, and "never dull" another than its words."""
    return np.array([sum(WORTH.get(w.strip(",."), 0.0) for w in t.split()) + 4.0 * ("never" in t and "dull" in t) for t in texts])


@pytest.mark.parametrize("sampling", ["local", "uniform"])
@pytest.mark.parametrize("width", [0.1, 0.25, 5.0])
def test_lime_of_a_text_converges_to_the_regression_over_all_choices_of_words(sampling, width):
    words = TEXT.split()
    wanted = oracle.lime_of_text(lambda z: counts([" ".join(w for w, kept in zip(words, z, strict=True) if kept)])[0], len(words), width)
    why = aw.lime(counts, TEXT, samples=20_000, width=width, sampling=sampling, ridge=0)
    assert why.components[0] == ("not", "a", "good", "film", "but", "never", "a", "dull", "one")
    np.testing.assert_array_less(np.abs(why.values[0] - wanted), 5 * why.std_error[0] + 0.01)
    assert why.params["baseline"] == "removed"
    assert why.params["width"] == width


def test_lime_of_a_text_agrees_with_lime():
    """The same kernel, ridge and choice of words: the peer lies within both error bars."""
    text = pytest.importorskip("lime.lime_text")
    soft = lambda texts: np.stack([1 - 1 / (1 + np.exp(-counts(texts))), 1 / (1 + np.exp(-counts(texts)))], 1)  # noqa: E731
    said = "a good film never dull and not long"
    peer = text.LimeTextExplainer(random_state=0).explain_instance(said, soft, num_samples=8000, num_features=20)
    why = aw.lime(soft, said, 1, samples=8000, components=aw.words(together=True))
    wanted = np.array([dict(peer.as_list())[name] for name in why.components[0]])
    np.testing.assert_array_less(np.abs(wanted - why.values[0]), 5 * why.std_error[0])
    assert peer.score == pytest.approx(why.details["fidelity"][0], abs=0.03)


def test_texts_in_characters_sentences_and_words_together():
    assert aw.lime(lambda t: np.array([s.count("b") for s in t], float), "ab ba", components="characters", ridge=0).top(2) == [
        ("b", pytest.approx(1)),
        ("b", pytest.approx(1)),
    ]
    parts = aw.lime(counts, "It is good. It is not dull.", components="sentences", ridge=0)
    assert dict(parts.top()) == {"It is good.": pytest.approx(2), "It is not dull.": pytest.approx(-4)}
    both = aw.lime(counts, "good or GOOD or good", components=aw.words(together=True), ridge=0)
    assert dict(both.top()) == {"good": pytest.approx(4), "or": pytest.approx(0, abs=1e-9)}
    assert aw.lime(counts, "good film", baseline="dull", ridge=0).top(1) == [("good", pytest.approx(5))]


def test_long_texts_and_texts_of_one_word():
    long = " ".join(f"word{k}" for k in range(600))
    why = aw.lime(lambda t: np.array([("word7 " in s) + 0.0 for s in t]), long, samples=1500)
    assert why.top(1)[0][0] == "word7"
    assert np.isfinite(why.std_error).all()
    with pytest.raises(InputError, match="the whole input is one component.*words, characters"):
        aw.lime(counts, "good")
    with pytest.raises(InputError, match=r"'[.][.][.]'.* holds no word"):
        aw.lime(counts, "...")


def test_two_texts_of_different_length_and_their_files(tmp_path):
    why = aw.lime(counts, [TEXT, "good film"], seed=3, samples=200)
    assert why.values.shape == (2, 9)
    assert why[1].values.shape == (1, 2)
    assert aw.Explanation.load(why.save(tmp_path / "t.npz")) == why
    assert why.plot(i=1).texts
    assert aw.lime(counts, [TEXT, "good film"], seed=3, samples=200).values.tolist() == why.values.tolist()


def test_any_number_of_words_is_shown_equally_often():
    s = neighbours(40, 20_000, 9.0, "uniform", np.random.default_rng(0), base=shares(40, even=True))
    often = np.bincount(s.z[1:].sum(1), minlength=41)
    assert often[40] == 0
    assert np.all(np.abs(often[:40] - 500) < 5 * np.sqrt(500))
    np.testing.assert_allclose(s.z.mean(0), 0.4875, atol=0.02)


# ---- tables: right ------------------------------------------------------------------------------------------------------

TINY = np.round(np.random.default_rng(5).normal(size=(10, 3)), 2)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sampling", ["local", "uniform"])
@pytest.mark.parametrize(("bins", "width"), [("quartile", 0.6), ("quartile", None), (None, 0.8), (None, None)])
def test_lime_of_a_table_converges_to_the_regression_over_all_rows_that_can_be_made(bins, width, sampling, weighted):
    weights = np.arange(1, 11) / 55 if weighted else np.full(10, 0.1)
    background = Background(TINY, weights, "ten") if weighted else TINY
    row = TINY[4]
    mean = weights @ TINY
    scale = np.sqrt(weights @ (TINY - mean) ** 2)
    coordinate = bin_of(TINY, row) if bins else lambda j, value: (value - mean[j]) / scale[j]
    wanted = oracle.lime_of_table(lambda made: bent(made[None])[0], row, TINY, weights, coordinate, width or 0.75 * 3**0.5)
    why = aw.lime(bent, row[None], background=background, bins=bins, width=width, samples=20_000, sampling=sampling, ridge=0)
    np.testing.assert_array_less(np.abs(why.values[0] - wanted), 5 * why.std_error[0] + 0.003)
    assert why.std_error.max() < 0.06


@pytest.mark.parametrize(("bins", "sampling"), [("quartile", "local"), ("quartile", "uniform"), ("decile", "local")])
def test_a_model_that_is_linear_in_the_bins_is_recovered(bins, sampling):
    cuts = [np.quantile(column, np.arange(1, n) / n) for column in X.T for n in [4 if bins == "quartile" else 10]]
    alike = lambda b: np.stack([np.searchsorted(c, b[:, j]) == np.searchsorted(c, X[3, j]) for j, c in enumerate(cuts)], 1)  # noqa: E731
    why = aw.lime(lambda b: alike(b) @ SLOPES + 1, X[3:4], background=X, bins=bins, sampling=sampling, ridge=0)
    np.testing.assert_allclose(why.values[0], SLOPES, atol=1e-9)
    np.testing.assert_allclose(why.std_error[0], 0, atol=1e-9)
    assert why.base_value[0] == pytest.approx(1)
    assert why.details["fidelity"][0] == pytest.approx(1)


def test_what_a_number_does_inside_its_bin_is_taken_off():
    """All that is left is the difference of the means inside and outside the bin, and none of the noise of 5,000 draws."""
    inside = np.array([bin_of(X, X[3])(0, value) for value in X[:, 0]]) == 1
    why = aw.lime(lambda b: b[:, 0], X[3:4], background=X, ridge=0)
    assert why.base_value[0] == pytest.approx(X[~inside, 0].mean(), abs=2e-3)
    assert why.values[0, 0] == pytest.approx(X[inside, 0].mean() - X[~inside, 0].mean(), abs=2e-3)


@pytest.mark.parametrize("around", ["data", "point"])
def test_a_linear_model_is_recovered_per_standard_deviation(around):
    why = aw.lime(lambda b: b @ SLOPES, X[:2], background=X, bins=None, around=around, ridge=0)
    np.testing.assert_allclose(why.values, np.tile(SLOPES * X.std(0), (2, 1)), atol=1e-9)
    assert why.components[0][1] == f"feature 1 (per {X[:, 1].std():.4g})"
    assert why.data[0][0] == f"{X[0, 0]:.6g}"
    assert "feature 4" in why.plot().get_yticklabels()[0].get_text()


@pytest.mark.parametrize(("bins", "width"), [("quartile", 0.7), (None, 0.7), (None, None)])
def test_both_ways_to_sample_around_the_point_agree(bins, width):
    a, b = (
        aw.lime(bent, X[:1], background=X, bins=bins, around="point", width=width, samples=40_000, sampling=s, ridge=0) for s in ("local", "uniform")
    )
    np.testing.assert_array_less(np.abs(a.values - b.values), 5 * np.hypot(a.std_error, b.std_error))
    assert a.details["effective_samples"][0] > b.details["effective_samples"][0]


@pytest.mark.parametrize("continuous", [False, True])
def test_lime_of_a_table_agrees_with_lime(continuous):
    """Its numbers are normal, ours the background's: that is made of normal quantiles. Inside a bin the model is constant, since lime's bell is cut there."""
    peer = pytest.importorskip("lime.lime_tabular")
    from scipy.special import ndtri

    even = ndtri((np.arange(600) + 0.5) / 600)
    rows = np.stack([even[np.random.default_rng(11).permutation(600)] * s + m for s, m in ((1, 0), (2, 5), (0.5, -1))], 1)
    edges = [np.quantile(column, [0.25, 0.5, 0.75]) for column in rows.T]
    step = lambda b: b if continuous else np.stack([np.searchsorted(e, c) - 1.5 for e, c in zip(edges, b.T, strict=True)], 1)  # noqa: E731
    odds = lambda b: 1 / (1 + np.exp(-(step(b) @ np.array([1.0, 0.4, -1.5])) + step(b)[:, 0] * step(b)[:, 2]))  # noqa: E731
    both = lambda b: np.stack([1 - odds(b), odds(b)], 1)  # noqa: E731
    explainer = peer.LimeTabularExplainer(rows, discretize_continuous=not continuous, random_state=0)
    said = explainer.explain_instance(rows[0], both, num_samples=20_000, num_features=3)
    why = aw.lime(both, rows[:1], 1, background=rows, bins=None if continuous else "quartile", samples=20_000)
    wanted = np.array([dict(said.local_exp[1])[j] for j in range(3)])
    np.testing.assert_array_less(np.abs(why.values[0] - wanted), 7 * why.std_error[0])  # two samples, and no exact quantiles
    assert said.score == pytest.approx(why.details["fidelity"][0], abs=0.03)


def test_every_sample_is_a_possible_value_and_the_first_is_the_row():
    frame = np.round(X, 3)
    asked, seen = kept_inputs(lambda b: b[:, 0])
    aw.lime(asked, frame[:1], background=frame, samples=3000, sampling="uniform")
    rows = np.concatenate(seen[1:])
    assert len(rows) == 3000
    np.testing.assert_array_equal(rows[0], frame[0])
    for j in range(5):
        assert np.isin(rows[:, j], frame[:, j]).all()
        assert np.abs(np.sort(rows[1:, j])[[750, 1500, 2250]] - np.quantile(frame[:, j], [0.25, 0.5, 0.75])).max() < 0.2
    assert np.abs(np.corrcoef(rows.T) - np.eye(5)).max() < 0.1  # columns are drawn one by one


def test_around_the_point_whole_numbers_fall_into_their_bins_as_often_as_they_should():
    whole = np.repeat(np.arange(8.0), 50)[np.random.default_rng(12).permutation(400), None] * np.ones((1, 2))
    asked, seen = kept_inputs(lambda b: (b[:, 0] == 3) + 0.0)
    why = aw.lime(asked, whole[:1] * 0 + 3, background=whole, around="point", samples=4000, sampling="uniform", ridge=0)
    rows = np.concatenate(seen[1:])
    assert why.components[0][0] == "1.75 < feature 0 <= 3.5"
    alike = (rows[:, 0] > 1.75) & (rows[:, 0] <= 3.5)  # 2 or 3
    assert why.base_value[0] + why.values[0][0] == pytest.approx((rows[alike, 0] == 3).mean(), abs=0.05)
    assert why.base_value[0] == pytest.approx(0, abs=0.05)


def test_around_the_point_numbers_lie_around_it():
    asked, seen = kept_inputs(lambda b: b[:, 0])
    whole = np.column_stack([X[:, 0], np.rint(10 * X[:, 1])])
    aw.lime(asked, whole[:1], background=whole, around="point", samples=4000, sampling="uniform")
    rows = np.concatenate(seen[1:])
    np.testing.assert_allclose(rows.mean(0), whole[0], atol=0.1 * whole.std(0).max())
    np.testing.assert_allclose(rows.std(0), whole.std(0), rtol=0.06)
    assert np.array_equal(rows[:, 1], np.rint(rows[:, 1]))


# ---- tables: all kinds of columns ---------------------------------------------------------------------------------------


def people(n=500):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({
        "age": rng.integers(18, 80, n), "income": rng.lognormal(10, 1, n), "job": pd.Categorical(rng.choice(["cook", "judge", "nurse"], n)),
        "home": rng.random(n) < 0.5, "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), "D"), "planet": "earth",
    })  # fmt: skip
    frame.loc[rng.random(n) < 0.2, "income"] = np.nan
    return frame


def credit(t):
    assert list(t.dtypes) == list(PEOPLE.dtypes)
    return (0.5 * (t.job == "judge") + 0.2 * t.home + 0.3 * (t.since < pd.Timestamp("2021-01-01")) - 0.4 * t.income.isna()).to_numpy(float)


PEOPLE = people()
JUDGE = PEOPLE[(PEOPLE.job == "judge") & PEOPLE.income.isna() & (PEOPLE.since < pd.Timestamp("2020-06-01"))][:1]


@pytest.mark.parametrize("around", ["data", "point"])
@pytest.mark.parametrize("bins", ["quartile", "decile", "entropy", None])
def test_a_table_of_all_kinds_of_columns(bins, around, tmp_path):
    why = aw.lime(credit, JUDGE, background=PEOPLE, bins=bins, around=around, samples=2000)
    found = dict(why.top(6))
    assert found["job = judge"] == pytest.approx(0.5, abs=0.02)
    assert found["income is missing"] == pytest.approx(-0.4, abs=0.02)
    assert any(name.startswith("since <= 2020-") or " < since <= 2020-" in name for name in found)
    assert np.isnan(why.std_error[0][5])
    assert why.values[0][5] == 0
    assert "planet = earth" in why.summary()
    assert aw.Explanation.load(why.save(tmp_path / "t.npz")) == why
    assert why.params["bins"] == bins


def test_categories_may_be_codes_and_unseen():
    codes = np.column_stack([np.random.default_rng(13).integers(0, 3, 300), np.random.default_rng(14).normal(size=300)])
    f = lambda b: 2.0 * (b[:, 0] == 1) + b[:, 1]  # noqa: E731
    assert aw.lime(f, np.array([[1.0, 0.0]]), background=codes, categorical=[0], ridge=0).components[0][0] == "feature 0 = 1.0"
    unseen = aw.lime(f, np.array([[7.0, 0.0]]), background=codes, categorical=["feature 0"])
    assert unseen.values[0][0] == 0
    assert "feature 0 is new or missing" in unseen.details["note"]


def test_missing_numbers_of_an_array_are_a_bin_of_their_own():
    gaps = X.copy()
    gaps[::4, 0] = np.nan
    f = lambda b: np.isnan(b[:, 0]) * 1.0  # noqa: E731
    assert aw.lime(f, gaps[:1], background=gaps, ridge=0).top(1) == [("feature 0 is missing", pytest.approx(1))]
    assert aw.lime(f, gaps[1:2], background=gaps, bins=None).values[0][0] == pytest.approx(0, abs=1e-12)  # a number stays a number
    with pytest.raises(InputError, match="background= holds NaN, and x is made of whole numbers"):
        aw.lime(f, np.ones((1, 5), int), background=gaps)


def test_bins_by_entropy_are_the_models_own():
    why = aw.lime(lambda b: (b[:, 1] > 0.4) + 0.0, X[:1], background=X, bins="entropy", samples=500, ridge=0)
    (name, value), *_ = why.top(1)
    cut = float(name.split()[-1])
    assert X[:, 1][X[:, 1] <= 0.4].max() <= cut <= X[:, 1][X[:, 1] > 0.4].min()
    assert abs(value) == pytest.approx(1)
    assert why.model_calls == 500 + 1 + 400
    np.testing.assert_allclose(np.delete(why.values[0], 1), 0, atol=1e-9)


def test_a_torch_model_of_a_table():
    net = torch.nn.Linear(5, 2).double().eval()
    why = aw.lime(net, torch.as_tensor(X[:2]), 0, background=X, bins=None, ridge=0)
    np.testing.assert_allclose(why.values[0], net.weight[0].detach().numpy() * X.std(0), atol=1e-8)


def test_with_a_baseline_row_columns_are_hidden_as_before():
    why = aw.lime(lambda b: b @ SLOPES, X[:1], baseline=X[1], ridge=0, components=aw.features([[0, 1]]))
    np.testing.assert_allclose(why.values[0][0], ((X[0] - X[1]) * SLOPES)[:2].sum(), atol=1e-9)


def test_pictures_may_be_hidden_behind_several_others():
    pictures = np.random.default_rng(15).random((3, 3, 8, 8))
    regions = np.arange(64).reshape(8, 8) // 16
    f = lambda b: (b.reshape(len(b), -1) @ np.arange(192.0)) / 192  # noqa: E731
    both = aw.lime(f, pictures[:1], components=regions, background=pictures[1:], ridge=0, samples=64)
    each = [aw.lime(f, pictures[:1], components=regions, baseline=pictures[k], ridge=0, samples=64).values for k in (1, 2)]
    np.testing.assert_allclose(both.values, np.mean(each, axis=0), atol=1e-9)
    few = Background(pictures[1:], np.array([0.25, 0.75]), "two")
    np.testing.assert_allclose(
        aw.lime(f, pictures[:1], components=regions, background=few, ridge=0, samples=64).values, np.average(each, axis=0, weights=[1, 3]), atol=1e-9
    )


# ---- the background is prepared once ------------------------------------------------------------------------------------


def test_a_changed_background_is_noticed():
    model, rows = aw.wrap(bent), X.copy()
    before = aw.lime(model, X[:1], background=rows, samples=500)
    assert aw.lime(model, X[:1], background=rows, samples=500).values.tolist() == before.values.tolist()
    kept = model.memory["lime background"]
    aw.lime(model, X[:1], background=rows.copy(), samples=500)
    assert model.memory["lime background"] is kept
    rows[:, 2] += 1
    after = aw.lime(model, X[:1], background=rows, samples=500)
    assert after.values.tolist() == aw.lime(bent, X[:1], background=rows, samples=500).values.tolist() != before.values.tolist()
    weighted = Background(rows, np.arange(400) / np.arange(400).sum(), "w")
    assert aw.lime(model, X[:1], background=weighted, samples=500).values.tolist() != after.values.tolist()
    assert aw.lime(model, X[:1], background=rows, samples=500, bins="decile").components != after.components
    assert aw.lime(model, X[:1], background=rows, samples=500, categorical=[0]).components != after.components


def test_a_frame_that_changed_is_noticed():
    model, frame = aw.wrap(lambda t: t.a + t.b), pd.DataFrame(X[:, :2], columns=["a", "b"])
    first = aw.lime(model, frame[:1], background=frame, samples=200)
    frame["a"] *= 2
    assert aw.lime(model, frame[:1], background=frame, samples=200).components != first.components


def test_rows_with_weights_count_by_them():
    alike = aw.lime(bent, X[:1], background=Background(X, np.full(400, 1 / 400), "even"), samples=500)
    assert alike.values.tolist() == aw.lime(bent, X[:1], background=X, samples=500).values.tolist()
    assert alike.params["background"] == "even"
    twice = aw.lime(bent, X[:1], background=np.repeat(X[:100], np.arange(100) % 3 + 1, axis=0), samples=30_000, ridge=0, bins=None)
    weights = (np.arange(100) % 3 + 1.0) / (np.arange(100) % 3 + 1.0).sum()
    once = aw.lime(bent, X[:1], background=Background(X[:100], weights, "w"), samples=30_000, ridge=0, bins=None)
    np.testing.assert_array_less(np.abs(twice.values - once.values), 5 * np.hypot(twice.std_error, once.std_error))


# ---- how far to trust it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"bins": None}, {"width": 0.8}, {"sampling": "uniform"}])
def test_the_error_bars_of_tables_cover_what_many_samples_say(options):
    model = aw.wrap(bent)
    wanted = aw.lime(model, X[:1], background=X, samples=300_000, ridge=0, seed=999, **options).values[0]
    runs = [aw.lime(model, X[:1], background=X, samples=400, ridge=0, seed=k, **options) for k in range(120)]
    covered = np.mean([np.abs(r.values[0] - wanted) < 1.96 * r.std_error[0] for r in runs])
    assert 0.92 < covered < 0.98, covered


def test_the_error_bars_of_texts_cover_what_many_samples_say():
    model = aw.wrap(lambda t: np.tanh(counts(t)))
    wanted = aw.lime(model, TEXT, samples=100_000, ridge=0, seed=999).values[0]
    runs = [aw.lime(model, TEXT, samples=200, ridge=0, seed=k) for k in range(150)]
    covered = np.mean([np.abs(r.values[0] - wanted) < 1.96 * r.std_error[0] for r in runs])
    assert 0.92 < covered < 0.98, covered


@pytest.mark.parametrize("options", [{}, {"width": 0.5}])
def test_seeds_agree_better_than_with_the_classic_sampling(options):
    """The width of usual: what a value does inside its bin is taken off. A narrow one: neighbours are drawn near the row."""
    smooth = aw.wrap(lambda b: 1 / (1 + np.exp(-b @ SLOPES)))

    def disagreement(sampling):
        return np.std(
            [aw.lime(smooth, X[:1], background=X, samples=600, sampling=sampling, seed=k, **options).values[0] for k in range(15)], axis=0
        ).mean()

    assert disagreement("local") < 0.6 * disagreement("uniform")


# ---- surrogates -----------------------------------------------------------------------------------------------------------


def test_a_tree_stands_in_and_is_told_in_words():
    f = lambda b: np.where(b[:, 0] > 0.5, 1.0, np.where(b[:, 3] > 0, 0.25, 0.5))  # noqa: E731
    asked, seen = kept_inputs(f)
    row = np.array([[0.0, 0.1, 0.2, 1.0, 0.3]])
    why = aw.lime(asked, row, background=X, bins=None, surrogate="tree")
    assert why.base_value[0] == pytest.approx(f(np.concatenate(seen[1:])).mean(), abs=1e-9)
    assert why.base_value[0] + why.values[0].sum() == pytest.approx(0.25)
    assert set(np.flatnonzero(why.values[0])) == {0, 3}
    assert why.std_error is None
    assert why.details["fidelity"][0] > 0.98
    said = why.details["tree"][0].splitlines()
    assert said[0].startswith("if feature 0 > 0.")
    assert said[1].strip() == "1"
    assert any(line.startswith("  if feature 3 > ") for line in said)
    assert said[-1].strip() == "0.5"
    assert "standard error" not in why.summary()


def test_a_tree_over_rules_and_words():
    said = aw.lime(credit, JUDGE, background=PEOPLE, surrogate="tree").details["tree"][0]
    assert said.splitlines()[0] == "if job = judge:"
    assert "if dull is shown:" in aw.lime(counts, TEXT, surrogate="tree").details["tree"][0]


def test_the_lasso_leaves_out_what_does_not_count():
    f = lambda b: np.tanh(b @ np.array([1.0, 0, 0, 0, -1.0]))  # noqa: E731
    why = aw.lime(f, X[:1], background=X, bins=None, surrogate="lasso")
    assert np.flatnonzero(why.values[0]).tolist() == [0, 4]
    assert np.isnan(why.std_error[0]).tolist() == [False, True, True, True, False]
    line = aw.lime(f, X[:1], background=X, bins=None)
    np.testing.assert_allclose(why.values[0][[0, 4]], line.values[0][[0, 4]], rtol=0.1)
    np.testing.assert_allclose(why.std_error[0][[0, 4]], line.std_error[0][[0, 4]], rtol=0.5)


def test_the_best_columns_are_kept():
    why = aw.lime(lambda b: b @ SLOPES, X[:1], background=X, bins=None, num_features=2)
    assert np.flatnonzero(why.values[0]).tolist() == [1, 4]
    assert why.details["selected"] == (2,)
    assert aw.lime(lambda b: b @ SLOPES, X[:1], background=X, bins=None, num_features=2, surrogate="tree").values[0][[0, 2, 3]].tolist() == [0, 0, 0]


# ---- what is refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"background": None}, "give background=rows"),
        ({"background": "mean"}, r"background= has the shape \[\]; give at least 10 rows"),
        ({"background": X[:5]}, r"has the shape \[5, 5\]"),
        ({"background": X[:, :3]}, "shape"),
        ({"bins": "thirds"}, "bins='thirds': choose one of 'quartile', 'decile', 'entropy', or None"),
        ({"around": "mean"}, "around='mean': choose 'data' or 'point'"),
        ({"surrogate": "forest"}, "surrogate='forest': choose one of 'ridge', 'lasso', 'tree'"),
        ({"width": 0}, "width=0: the neighbourhood's width has to be positive"),
        ({"width": -1.0}, "width=-1.0"),
        ({"width": 1e-3}, "no neighbour that counts differs in .*widen the neighbourhood"),
        ({"samples": 5}, "samples=5: a regression needs at least 10"),
        ({"samples": 50.5}, "samples=50.5"),
        (
            {"samples": 12, "surrogate": "lasso", "bins": None, "x": np.ones((1, 12)), "background": np.random.default_rng(6).normal(size=(50, 12))},
            "too few for the lasso over",
        ),
        ({"sampling": "glime"}, "sampling='glime'"),
        ({"ridge": -1}, "ridge=-1"),
        ({"categorical": ["colour"]}, "there is no column 'colour'"),
        ({"components": "features"}, "components= of a table goes with baseline="),
        ({"baseline": X[0]}, "baseline= and background= both say what stands"),
        ({"baseline": X[0], "background": None, "bins": None}, "are for tables with background= rows"),
        ({"background": np.where(np.arange(5) == 2, np.inf, X)}, "infinite"),
    ],
)
def test_settings_of_tables_are_checked(options, said):
    with pytest.raises(InputError, match=said):
        aw.lime(**{"model": bent, "x": X[:1], "background": X, **options})


def test_bad_inputs_are_refused():
    with pytest.raises(InputError, match="column 'feature 1' is inf"):
        aw.lime(lambda b: b[:, 0], np.array([[0, np.inf, 0, 0, 0]]), background=X)
    with pytest.raises(ModelError, match="answered 1024 inputs with an output of shape"):
        aw.lime(lambda b: b[:1, 0], X[:1], background=X)
    with pytest.raises(ModelError, match="not numbers; for a classifier use predict_proba"):
        aw.lime(lambda b: np.array(["yes"] * len(b)), X[:1], background=X)
    with pytest.raises(UnsupportedError, match="precision='bfloat16' is for pictures"):
        aw.lime(bent, X[:1], background=X, precision="bfloat16")
    for given in ({"bins": None}, {"around": "point"}, {"categorical": [0]}):
        with pytest.raises(InputError, match="are for tables"):
            aw.lime(counts, TEXT, **given)


def test_a_model_of_one_class_has_nothing_to_explain():
    why = aw.lime(lambda b: np.ones((len(b), 1)), X[:1], background=X, samples=200)
    assert not why.values.any()
    assert why.details["fidelity"] == (1.0,)


def test_progress_of_a_table_counts_every_call():
    said = []
    aw.lime(bent, X[:2], background=X, samples=300, batch_size=100, progress=lambda done, total: said.append((done, total)))
    assert said == [(100, 600), (200, 600), (300, 600), (400, 600), (500, 600), (600, 600)]


# ---- several widths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "options"), [(X[:1], {"background": X}), (X[:1], {"background": X, "bins": None}), (TEXT, {})])
def test_every_width_is_what_lime_says_of_it(x, options):
    f = counts if isinstance(x, str) else bent
    found = lime_widths(f, x, samples=20_000, ridge=0, **options)
    assert found.model_calls <= 20_001 + 1
    assert len(found.widths) == 7
    for k in (0, 3, 6):
        alone = aw.lime(f, x, width=float(found.widths[k]), samples=20_000, ridge=0, **options)
        np.testing.assert_array_less(np.abs(alone.values[0] - found.values[k]), 5 * np.hypot(alone.std_error[0], found.std_error[k]) + 1e-9)
        assert found.fidelity[k] == pytest.approx(alone.details["fidelity"][0], abs=0.05)
    assert found.effective_samples.min() > 20_000 / 7
    assert f"{found.widths[3]:.3g}" == f"{alone.params['width'] / 4:.3g}" == f"{found.usual:.3g}"


def test_what_turns_its_sign_is_said_and_drawn():
    """Near 0 the slope is positive, over all the data it is negative."""
    wide = np.sort(np.random.default_rng(0).normal(size=(500, 1)) * np.ones((1, 2)), 0) * 3
    found = lime_widths(lambda b: np.sin(b[:, 0]) * 2 - b[:, 0], np.zeros((1, 2)), background=wide, bins=None, widths=[3, 0.1, 0.3])
    assert found.widths.tolist() == [0.1, 0.3, 3]
    assert found.turned() == [f"feature 0 (per {wide[:, 0].std():.4g})"]
    assert "the sign depends on the width for feature 0" in found.summary()
    steady = lime_widths(lambda b: b[:, 0], np.zeros((1, 2)), background=wide, bins=None, samples=500)
    assert steady.turned() == []
    assert "no sign that is sure at one width is the other at another" in steady.summary()
    ax = found.plot(most=1)
    assert ax.get_xscale() == "log"
    assert len(ax.lines) == 3
    assert any("feature 0" in text.get_text() for text in ax.texts)
    own = found.plot().figure.add_subplot()
    assert found.plot(own) is own


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"widths": [1]}, r"widths=\[1\]: give two or more positive numbers; 1.68 is usual"),
        ({"widths": [-1, 1]}, "two or more positive"),
        ({"widths": [1e-4, 1]}, "width=0.0001.*leave out this width"),
        ({"samples": 60}, "samples=60 are too few for 7 widths"),
        ({"x": X[:2]}, "looks at one input, and x holds 2"),
    ],
)
def test_settings_of_widths_are_checked(options, said):
    with pytest.raises(InputError, match=said):
        lime_widths(**{"model": bent, "x": X[:1], "background": X, **options})


# ---- a few items that stand for all ---------------------------------------------------------------------------------------------


def test_the_pick_is_greedy_and_its_numbers_are_right():
    pick = lime_pick(aw.wrap(bent), X, 4, background=X, items=30, samples=500, num_features=3, seed=2)
    assert pick.matrix.shape == (30, len(pick.names))
    assert [pick.explained.index(at) for at in pick.chosen] == oracle.submodular_pick(pick.matrix, 4)
    strength = dict(zip(pick.names, np.sqrt(np.abs(pick.matrix).sum(0)), strict=True))
    assert dict(pick.importance) == pytest.approx(strength)
    rows = [pick.explained.index(at) for at in pick.chosen]
    shown = np.abs(pick.matrix[rows]).sum(0) > 0
    assert pick.coverage[-1] == pytest.approx(sum(strength[n] for n, s in zip(pick.names, shown, strict=True) if s) / sum(strength.values()))
    why = aw.lime(bent, X[list(pick.explained)], background=X, samples=500, num_features=3, seed=2)
    for at, one in zip(pick.chosen, pick.explanations, strict=True):
        assert one.values.tolist() == why[pick.explained.index(at)].values.tolist()
    assert "4 of 30 explained items show" in pick.summary()
    assert len(pick.plot(most=5).get_xticklabels()) == 5


def test_by_column_one_item_may_show_all():
    pick = lime_pick(lambda b: b @ SLOPES, X, background=X, items=20, samples=300, by="column")
    assert pick.names == tuple(f"feature {k}" for k in range(5))
    assert pick.coverage[-1] == 1
    assert max(pick.importance, key=pick.importance.get) == "feature 4"
    assert len(pick) < 5


def test_texts_share_their_words_in_any_case():
    pick = lime_pick(counts, ["Good film", "a dull film", "good good fun", "not dull", "a film"], 2, ridge=0)
    assert set(pick.chosen) <= {0, 1, 2, 3}
    assert set(pick.importance) >= {"good", "dull", "not"}
    assert pick.names.count("good") == 1
    assert "Good" not in pick.names
    frame = pd.DataFrame(X, columns=list("abcde"))
    assert lime_pick(lambda t: t.to_numpy() @ SLOPES, frame, 1, background=frame, items=8, samples=300).explanations[0].model_calls == 8 * 301


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k": 0}, "k=0: give a whole number"),
        ({"items": 2.5}, "items=2.5"),
        ({"by": "row"}, "by='row': choose 'rule' or 'column'"),
        ({"model": lambda b: np.zeros(len(b)), "samples": 100}, "surely different from zero"),
        ({"X": np.random.default_rng(16).random((2, 3, 8, 8)), "background": None}, "give components= as one array that numbers the regions"),
    ],
)
def test_settings_of_the_pick_are_checked(options, said):
    with pytest.raises((InputError, UnsupportedError), match=said):
        lime_pick(**{"model": bent, "X": X[:20], "background": X, **options})


# ---- it finds what matters ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example():
    path = Path(__file__).parent.parent / "examples" / "lime_recall.py"
    spec = importlib.util.spec_from_file_location("lime_recall", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_words_that_a_model_goes_by_are_found(example):
    """Section 5.2 of the paper, small: 12 documents."""
    lime_only = {"lime": example.by_lime, "random": example.by_chance}
    for make, least in ((example.sparse_logistic, 0.95), (example.tree, 0.85)):
        found = example.recall(make, 12, lime_only)
        assert found["lime"][0] >= least > found["random"][0] + 0.3


def test_two_seeds_name_the_same_words(example):
    assert example.agreement(8, samples=5000, peer=False)["askwhy, those that are sure"] >= 0.9
