"""Shapley values: against brute force, shap, their axioms, and their own error bars."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import oracle
import pandas as pd
import pytest
import torch
from conftest import small_net

import askwhy as aw
from askwhy.errors import Cancelled, InputError, UnsupportedError
from askwhy.local.coalitions import design, everything, exact, interactions, odd, regress
from askwhy.local.proxy import grow, regress_on_trees, shapley_of_trees
from askwhy.local.shapley import ESTIMATORS, estimate

SAMPLED = tuple(ESTIMATORS)


class Table:
    """A game whose answers are listed: what an estimator sees of a Game."""

    def __init__(self, answers: np.ndarray) -> None:
        self.answers, self.total, self.asked = answers, None, set()

    def __len__(self) -> int:
        return len(self.answers).bit_length() - 1

    def __call__(self, z: np.ndarray) -> np.ndarray:
        rows = z @ (1 << np.arange(len(self)))
        self.asked |= set(rows.tolist())
        return self.answers[rows]


def random_game(d: int, seed: int = 0) -> np.ndarray:
    """Players with effects of their own, in pairs, triples and all together, and noise."""
    rng, z = np.random.default_rng(seed), everything(d)
    answers = z @ rng.normal(size=d) + 0.1 * rng.normal(size=2**d)
    for size, strength in ((2, 0.5), (3, 0.5), (4, 0.3)):
        for _ in range(2 * d):
            answers += strength * rng.normal() * z[:, rng.choice(d, min(size, d), replace=False)].all(1)
    return answers


def of(answers: np.ndarray):
    return lambda z: float(answers[z @ (1 << np.arange(len(z)))])


# ---- exact ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3, 5, 7])
def test_exact_is_the_mean_over_all_orders(d):
    answers = random_game(d)
    np.testing.assert_allclose(exact(answers), oracle.shapley(of(answers), d), atol=1e-12)


@pytest.mark.parametrize("d", [2, 3, 5])
def test_interactions_are_the_mean_over_all_orders_and_rows_sum_to_the_values(d):
    answers = random_game(d)
    found = interactions(answers)
    for i, j in itertools.combinations(range(d), 2):
        assert found[i, j] == found[j, i] == pytest.approx(oracle.shapley_interaction(of(answers), d, i, j) / 2, abs=1e-12)
    np.testing.assert_allclose(found.sum(1), exact(answers), atol=1e-12)


def test_a_product_is_shared_and_is_all_interaction():
    answers = (everything(3)[:, :2].all(1) * 6.0) + everything(3)[:, 2]
    np.testing.assert_allclose(exact(answers), [3, 3, 1], atol=1e-12)
    np.testing.assert_allclose(interactions(answers), [[0, 3, 0], [3, 0, 0], [0, 0, 1]], atol=1e-12)


def test_axioms():
    a, b = random_game(6, 1), random_game(6, 2)
    np.testing.assert_allclose(exact(2 * a - 3 * b), 2 * exact(a) - 3 * exact(b), atol=1e-12)
    assert exact(a).sum() == pytest.approx(a[-1] - a[0])
    z = everything(4)
    twins = z[:, 0] * 1.0 + z[:, 1] + z[:, 0] * z[:, 1] * z[:, 2]  # players 0 and 1 alike, 3 a dummy
    values = exact(twins)
    assert values[0] == pytest.approx(values[1])
    assert values[3] == pytest.approx(0)


# ---- sampled --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("d", [5, 12])
def test_every_estimator_converges_to_brute_force(name, d):
    answers = random_game(d)
    wanted = exact(answers)
    if name == "trees" and d == 5:
        return  # these are all asked, and then the values are exact
    few, many = (ESTIMATORS[name](Table(answers), answers[[0, -1]], n, (0, 0))[0] for n in (4 * d, min(200 * d, 2**d - 2)))
    assert np.abs(many - wanted).max() <= max(0.12 * np.abs(wanted).max(), 1e-9)
    assert ((many - wanted) ** 2).sum() < ((few - wanted) ** 2).sum()
    assert many.sum() == pytest.approx(answers[-1] - answers[0])


def test_all_coalitions_make_the_regression_exact():
    for d in (3, 4, 5, 8):
        answers = random_game(d, d)
        values, error = ESTIMATORS["kernel"](Table(answers), answers[[0, -1]], 2**d, (0, 0))
        np.testing.assert_allclose(values, exact(answers), atol=1e-10)
        np.testing.assert_allclose(error, 0, atol=1e-10)


@pytest.mark.parametrize("name", ["kernel", "permutation"])
def test_sampled_values_are_linear_and_efficient_and_a_constant_game_has_none(name):
    a = random_game(7, 1)
    ask = lambda g: ESTIMATORS[name](Table(g), g[[0, -1]], 60, (3, 0))[0]  # noqa: E731
    np.testing.assert_allclose(ask(2 * a + 5), 2 * ask(a), atol=1e-9)
    values, error = ESTIMATORS[name](Table(np.full(128, 4.0)), np.array([4.0, 4.0]), 60, (0, 0))
    np.testing.assert_allclose(values, 0, atol=1e-12)
    np.testing.assert_allclose(error, 0, atol=1e-12)


def test_pairs_of_effects_are_exact_for_any_pairs_of_coalitions():
    """In a coalition and its complement, effects of two players together cancel."""
    d, rng = 8, np.random.default_rng(0)
    z = everything(d) * 1.0
    answers = z @ rng.normal(size=d) + np.einsum("ki,ij,kj->k", z, rng.normal(size=(d, d)), z)
    for name in ("kernel", "permutation"):
        values, error = ESTIMATORS[name](Table(answers), answers[[0, -1]], 60, (0, 0))
        np.testing.assert_allclose(values, exact(answers), atol=1e-9)
        np.testing.assert_allclose(error, 0, atol=1e-9)


@pytest.mark.parametrize(("d", "samples"), [(5, 12), (8, 60), (9, 300), (12, 500), (40, 400), (200, 1000)])
def test_a_design_holds_what_it_promises(d, samples):
    found = design(d, samples, (1, 2))
    rows = {row.tobytes() for row in found.pairs()}
    assert len(rows) == len(found.pairs()), "no coalition twice, nor its complement"
    assert not any(row.all() or not row.any() for row in found.pairs())
    assert abs(len(rows) - min(samples, 2**d - 2)) <= 2
    longer = {row.tobytes() for row in design(d, 2 * samples, (1, 2)).pairs()}
    assert len(rows - longer) <= 0.05 * len(rows) + 4, "a longer design asks again what is known"
    counts = np.bincount(found.z.sum(1), minlength=d)[1 : (d - 1) // 2 + 1]
    whole = [comb(d, size) for size in range(1, len(counts) + 1)]
    assert all(count == there or abs(count - counts.max()) <= 2 for count, there in zip(counts, whole, strict=True)), "as many of each size"


def test_a_design_weighs_every_coalition_as_the_shapley_kernel_on_average():
    d, total = 6, np.zeros(64)
    for seed in range(3000):
        found = design(d, 24, (seed,))
        for row, weight in zip(found.z, found.weight, strict=True):
            total[row @ (1 << np.arange(d))] += weight / 2 / 3000
            total[~row @ (1 << np.arange(d))] += weight / 2 / 3000
    size = everything(d).sum(1)
    inner = (size > 0) & (size < d)
    kernel = np.array([(d - 1) / (comb(d, s) * s * (d - s)) for s in size[inner]])
    np.testing.assert_allclose(total[inner], kernel, rtol=0.12)


@pytest.mark.parametrize(
    ("name", "d", "samples", "runs"),
    [("kernel", 10, 120, 1000), ("permutation", 10, 120, 1000), ("trees", 8, 96, 40), ("trees", 11, 820, 40)],
)
def test_error_bars_hold_what_they_say(name, d, samples, runs):
    """The 95 % intervals cover the exact value in 92 to 98 % of cases, whether few of the coalitions are asked or most."""
    answers = random_game(d, 4)
    wanted, inside = exact(answers), []
    for seed in range(runs):
        values, error = ESTIMATORS[name](Table(answers), answers[[0, -1]], samples, (seed, 0))
        inside.append(np.abs(values - wanted) <= 1.96 * error)
    assert 0.92 <= np.mean(inside) <= 0.98


def test_trees_that_were_told_every_coalition_are_exact():
    """Each tree leaves something of what it was not told, but all that any of them leaves is known."""
    answers = random_game(6, 8)
    found = design(6, 62, (0,))
    assert len(found.z) == 31
    values, error = regress_on_trees(found, odd(Table(answers)(found.pairs())), answers[-1] - answers[0], 0)
    np.testing.assert_allclose(values, exact(answers), atol=1e-10)
    np.testing.assert_allclose(error, 0, atol=1e-10)


def test_trees_of_a_game_have_exact_shapley_values():
    z = everything(6)
    answers = random_game(6, 3)
    learned = grow(z, answers, 0)
    played = learned.predict(z * 1.0)
    np.testing.assert_allclose(shapley_of_trees(learned, 6), exact(played), atol=1e-10)


def test_the_weight_of_a_regression_pair_counts():
    """The regression by hand: minimize over all kept pairs, with the sum held by elimination."""
    d, answers = 6, random_game(6, 5)
    found = design(d, 30, (0,))
    gains = odd(Table(answers)(found.pairs()))
    total = answers[-1] - answers[0]
    values, _, _ = regress(found, gains, total)
    from scipy.optimize import minimize

    def loss(free):
        phi = np.append(free, total - free.sum())
        return (found.weight * (gains - (found.z * 2 - 1) @ phi / 2) ** 2).sum()

    by_hand = minimize(loss, np.zeros(d - 1), tol=1e-14).x
    np.testing.assert_allclose(values[:-1], by_hand, atol=1e-4)


def test_tolerance_asks_until_it_is_reached_and_no_more_than_it_may():
    answers = random_game(12, 6)
    for name in SAMPLED:
        found = estimate(Table(answers), name, None, 0.05, (0, 0))
        assert found.error.max() <= 0.05
        assert found.samples < 4000
        assert np.abs(found.values - exact(answers)).max() < 0.2
    triple = everything(12)[:, :3].all(1) * 1.0  # only three players have error bars
    assert estimate(Table(triple), "permutation", None, 0.01, (0, 0)).error.max() <= 0.01
    game = Table(answers)
    short = estimate(game, "kernel", 100, 1e-6, (0, 0))
    assert short.error.max() > 1e-6
    assert len(game.asked) <= 103
    assert estimate(Table(answers), "auto", None, 1e-9, (0, 0)).name == "exact"


def test_long_texts_have_enough_samples_by_themselves():
    text = " ".join(f"w{k}" for k in range(1100))
    why = aw.shapley(lambda texts: [float("w7 " in t) + float("w9 " in t) for t in texts], text, estimator="kernel")
    assert why.details["coalitions"] == (4400,)
    np.testing.assert_allclose(why.values[0, [7, 9]], 1, atol=1e-9)
    assert np.abs(np.delete(why.values[0], [7, 9])).max() < 1e-9
    assert aw.shapley(lambda texts: [len(t) ** 0.5 for t in texts], text[:800]).details["estimator"] == ("kernel",)


def test_auto_takes_the_smaller_error_and_says_so():
    answers = random_game(12, 7)
    chosen = estimate(Table(answers), "auto", 300, None, (0, 0))
    errors = {name: (estimate(Table(answers), name, 300, None, (0, 0)).error ** 2).sum() for name in ("kernel", "trees")}
    assert chosen.name == min(errors, key=errors.__getitem__)
    assert (chosen.error**2).sum() == min(errors.values())
    assert estimate(Table(random_game(8)), "auto", 300, None, (0, 0)).name == "exact"


# ---- on models ------------------------------------------------------------------------------------------------------


def network_m(x: np.ndarray) -> np.ndarray:
    """FACTS: 3 inputs, 4 rectified units, 2 outputs; all weights 1."""
    hidden = np.maximum(x.sum(1, keepdims=True) + np.array([-10.0, 1, 1, 1]), 0)
    return hidden.sum(1, keepdims=True) + np.array([-1.0, 1])


@pytest.mark.parametrize("estimator", ["exact", *SAMPLED])
def test_the_network_of_three_inputs(estimator):
    x, zero = np.array([[20.0, 50, 30]]), np.zeros((1, 3))
    np.testing.assert_allclose(aw.occlusion(network_m, x, 0, baseline=zero).values, [[80, 200, 120]])
    why = aw.shapley(network_m, x, 0, baseline=zero, estimator=estimator, samples=200)
    wanted = oracle.shapley(lambda z: float(network_m(np.where(z, x[0], 0.0)[None])[0, 0]), 3)
    np.testing.assert_allclose(why.values[0], wanted, atol=1e-9 if estimator != "permutation" else 4 * why.std_error.max())
    assert why.details["estimator"] == ("permutation" if estimator == "permutation" else "exact",), "200 coalitions are more than there are"
    assert why.base_value[0] == network_m(zero)[0, 0]
    assert why.params["value_function"] == "baseline"


def curved(x: np.ndarray) -> np.ndarray:
    return x[:, 0] * x[:, 1] + np.sin(x[:, 2]) + np.maximum(x[:, 3], x[:, 0]) - x[:, 4] ** 2


@pytest.mark.filterwarnings("ignore")
def test_marginal_values_are_those_of_the_mean_game_and_of_shap():
    import shap

    rng = np.random.default_rng(0)
    background, x = rng.normal(size=(20, 5)), rng.normal(size=(3, 5))
    why = aw.shapley(curved, x, background=background)
    assert why.details["estimator"] == ("exact",) * 3
    assert why.std_error is None
    assert why.params["value_function"] == "marginal"
    for i, row in enumerate(x):
        v = lambda z, row=row: float(curved(np.where(z, row, background)).mean())  # noqa: E731
        np.testing.assert_allclose(why.values[i], oracle.shapley(v, 5), atol=1e-10)
    np.testing.assert_allclose(why.residual, 0, atol=1e-10)
    np.testing.assert_allclose(why.base_value, curved(background).mean())
    peer = shap.KernelExplainer(curved, background).shap_values(x, nsamples=2**5, l1_reg=0, silent=True)
    np.testing.assert_allclose(why.values, peer, atol=1e-7)


def test_weighted_rows_count_by_their_weights():
    data = np.repeat(np.random.default_rng(0).normal(size=(3, 5)), [5, 1, 2], axis=0)
    means = aw.background(data, 3, "kmeans")
    x = np.ones((1, 5))
    np.testing.assert_allclose(aw.shapley(curved, x, background=means).values, aw.shapley(curved, x, background=data).values, atol=1e-10)


def test_groups_are_players():
    x, background = np.ones((1, 5)) * 2, np.zeros((1, 5))
    why = aw.shapley(curved, x, background=background, components=aw.features({"pair": [0, 1], "rest": [2, 3, 4]}))
    assert why.components == (("pair", "rest"),)
    v = lambda z: float(curved(np.where(z[[0, 0, 1, 1, 1]], x[0], 0.0)[None])[0])  # noqa: E731
    np.testing.assert_allclose(why.values[0], oracle.shapley(v, 2))


def test_gaussian_values_of_a_linear_model_are_known():
    """For f = w x and Gaussian columns, E[f | x_S] is linear: v(S) = w_S x_S + w_N (mean + C (x_S - mean_S))."""
    rng = np.random.default_rng(1)
    data = rng.multivariate_normal([1, 2, 3], [[1, 0.8, 0], [0.8, 1, 0.3], [0, 0.3, 1]], 4000)
    w, x = np.array([2.0, -1.0, 0.5]), np.array([2.0, 2.0, 1.0])
    mean, cov = data.mean(0), np.cov(data.T, bias=True)

    def v(z):
        guess = mean.copy()
        guess[z] = x[z]
        if z.any() and not z.all():
            guess[~z] += cov[np.ix_(~z, z)] @ np.linalg.solve(cov[np.ix_(z, z)], (x - mean)[z])
        return float(w @ guess)

    why = aw.shapley(lambda b: b @ w, x[None], background=data, value_function="gaussian")
    np.testing.assert_allclose(why.values[0], oracle.shapley(v, 3), atol=1e-4)
    assert why.params["value_function"] == "gaussian"
    assert "gaussian" in why.plot().get_title()
    marginal = aw.shapley(lambda b: b @ w, x[None], background=data[:200])
    assert np.abs(marginal.values - why.values).max() > 0.1


def test_gaussian_draws_have_the_conditional_spread():
    rng = np.random.default_rng(1)
    data = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 5000)
    why = aw.shapley(lambda b: b[:, 1] ** 2, np.array([[2.0, 0.0]]), background=data, value_function="gaussian")
    # E[x1^2 | x0 = 2] = 1.2^2 + .64; E[x1^2] = 1; v(all) = 0
    conditional = 1.2**2 + 1 - 0.6**2
    v = {(0, 0): 1.0, (1, 0): conditional, (0, 1): 0.0, (1, 1): 0.0}
    np.testing.assert_allclose(why.values[0], oracle.shapley(lambda z: v[tuple(z.astype(int))], 2), atol=0.25)


def test_empirical_values_weigh_near_rows_by_hand():
    rng = np.random.default_rng(2)
    data = rng.normal(size=(30, 3))
    x = data[0]
    spread = np.cov(data.T, bias=True)

    def v(z):
        if z.all():
            return float(curved3(x[None])[0])
        weight = np.ones(30)
        if z.any():
            off = (data - x)[:, z]
            distance = np.array([o @ np.linalg.solve(spread[np.ix_(z, z)], o) for o in off]) / z.sum()
            weight = np.exp(-distance / (2 * 0.3**2))
        return float((curved3(np.where(z, x, data)) * weight).sum() / weight.sum())

    why = aw.shapley(curved3, x[None], background=data, value_function="empirical", bandwidth=0.3)
    np.testing.assert_allclose(why.values[0], oracle.shapley(v, 3), atol=1e-4)


def curved3(b: np.ndarray) -> np.ndarray:
    return b[:, 0] * b[:, 1] + np.sin(b[:, 2])


def test_interactions_on_a_model():
    x, background = np.array([[2.0, 3, 1, 4, 1]]), np.zeros((1, 5))
    why = aw.shapley_interactions(curved, x, background=background)
    values = aw.shapley(curved, x, background=background)
    np.testing.assert_allclose(why.values.sum(2), values.values, atol=1e-12)
    np.testing.assert_allclose(why.base_value, values.base_value)
    assert why.values[0, 0, 1] == pytest.approx(3)  # half of 2 * 3
    assert why.values[0, 2].round(12).tolist() == [0, 0, pytest.approx(np.sin(1)), 0, 0]
    assert why.top(1) == [("feature 0 x feature 1", pytest.approx(6))]
    assert why.plot().get_yticklabels()[0].get_text() == "feature 0 = 2"
    with pytest.raises(InputError, match="25 components have 2\\^25 coalitions"):
        aw.shapley_interactions(lambda b: b.sum(1), np.ones((1, 25)), background=np.zeros((1, 25)))


def test_pictures_and_texts_have_players_too():
    net = small_net()
    x = torch.rand(2, 3, 16, 16)
    labels = np.arange(256).reshape(16, 16) // 43
    why = aw.shapley(net, x, 1, components=labels, baseline="zero")
    assert why.values.shape == (2, 6)
    assert why.params["value_function"] == "baseline"
    score = lambda b: net(b).detach().numpy()[:, 1]  # noqa: E731
    v = lambda z: float(score(x[:1] * torch.as_tensor(z[labels]))[0])  # noqa: E731
    np.testing.assert_allclose(why.values[0], oracle.shapley(v, 6), atol=1e-5)
    words = aw.shapley(lambda texts: [("not" in t) * ("good" in t) * -2.0 + ("good" in t) for t in texts], "not a good film")
    np.testing.assert_allclose(words.values, [[-1, 0, 0, 0]], atol=1e-12)
    assert words.plot().texts


def test_a_frame_keeps_its_names_and_values():
    frame = pd.DataFrame({"age": [30.0, 50.0], "job": ["nurse", "smith"], "年龄": [1, 2]})
    why = aw.shapley(lambda f: f["age"] / 10 + (f["job"] == "nurse"), frame, background=frame)
    assert why.components[0] == ("age", "job", "年龄")
    np.testing.assert_allclose(why.values, [[-1, 0.5, 0], [1, -0.5, 0]], atol=1e-12)
    assert [label.get_text() for label in why.plot(how="waterfall").get_yticklabels()] == ["age = 30", "job = nurse", "年龄 = 1"]
    assert [label.get_text() for label in why.plot(i=1).get_yticklabels()] == ["age = 50", "job = smith", "年龄 = 2"]


@pytest.mark.parametrize("d", [13, 40])
def test_error_bars_and_their_padding(d):
    rng = np.random.default_rng(0)
    x, background = rng.normal(size=(2, d)), rng.normal(size=(4, d))
    f = lambda b: np.tanh(b @ np.linspace(-1, 1, d)) + b[:, 0] * b[:, 1] * b[:, 2]  # noqa: E731
    why = aw.shapley(f, x, background=background, samples=6 * d, seed=3)
    assert why.std_error.shape == why.values.shape
    assert (why.std_error > 0).all()
    assert set(why.details["estimator"]) <= {"kernel", "trees"}
    assert why.model_calls <= 2 + 2 * (6 * d + 4) * 4
    again = aw.shapley(f, x, background=background, samples=6 * d, seed=3)
    assert (again.values == why.values).all()
    assert (aw.shapley(f, x, background=background, samples=6 * d, seed=4).values != why.values).any()
    assert "standard error" in why.summary()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({}, InputError, "give background=rows"),
        ({"background": np.zeros((2, 30)), "estimator": "exact"}, InputError, "2\\^30 coalitions, too many"),
        ({"background": np.zeros((2, 30)), "samples": 50}, InputError, "samples=50: 30 components need at least 120"),
        ({"background": np.zeros((2, 30)), "samples": 0}, InputError, "samples=0"),
        ({"background": np.zeros((2, 30)), "samples": 2.5}, InputError, "samples=2.5"),
        ({"background": np.zeros((2, 30)), "estimator": "lasso"}, InputError, "estimator='lasso'"),
        ({"background": np.zeros((2, 30)), "tolerance": 0}, InputError, "tolerance=0"),
        ({"background": np.zeros((2, 30)), "value_function": "conditional"}, InputError, "value_function='conditional'"),
        ({"background": np.zeros((2, 30)), "value_function": "baseline"}, InputError, "give baseline="),
        ({"baseline": np.zeros((1, 30)), "value_function": "gaussian"}, InputError, "give background=X"),
        ({"background": np.zeros((1, 30)), "value_function": "gaussian"}, InputError, "needs a background of many rows"),
        ({"background": np.eye(30), "value_function": "empirical", "bandwidth": 0}, InputError, "bandwidth=0"),
    ],
)
def test_bad_settings_are_one_clear_error(options, error, said):
    with pytest.raises(error, match=said):
        aw.shapley(lambda b: b.sum(1), np.ones((1, 30)), **options)


def test_conditional_values_of_categories_and_pictures_are_refused():
    frame = pd.DataFrame({"age": [30.0, 50.0], "job": ["nurse", "smith"]})
    with pytest.raises(UnsupportedError, match="'job' holds others"):
        aw.shapley(lambda f: f["age"], frame, background=frame, value_function="gaussian")
    with pytest.raises(UnsupportedError, match="needs a table"):
        aw.shapley(
            small_net(), torch.rand(1, 3, 16, 16), background=torch.rand(3, 3, 16, 16), value_function="empirical", components=np.zeros((16, 16), int)
        )


def test_a_progress_callback_sees_the_forecast_and_can_stop():
    rng = np.random.default_rng(0)
    seen = []
    f = lambda b: b[:, 0] * b[:, 1] * b[:, 2] + b.sum(1)  # noqa: E731
    options = {"background": rng.normal(size=(3, 15)), "estimator": "kernel"}
    aw.shapley(f, rng.normal(size=(1, 15)), tolerance=0.02, progress=lambda done, total: seen.append((done, total)), **options)
    assert all(done <= total for done, total in seen)
    assert len({total for _, total in seen}) > 1
    with pytest.raises(Cancelled):
        aw.shapley(f, rng.normal(size=(1, 15)), progress=lambda done, total: False, **options)


# ---- beside shap ----------------------------------------------------------------------------------------------------


def peer_error(answers: np.ndarray, samples: int, runs: int) -> float:
    """The mean squared error of shap's KernelExplainer on a listed game, without its hidden selection."""
    import shap

    d, wanted = len(answers).bit_length() - 1, exact(answers)
    explainer = shap.KernelExplainer(lambda z: answers[(z > 0.5) @ (1 << np.arange(d))], np.zeros((1, d)))
    found = []
    for seed in range(runs):
        np.random.seed(seed)
        found.append(((explainer.shap_values(np.ones(d), nsamples=samples, l1_reg=0, silent=True) - wanted) ** 2).mean())
    return float(np.mean(found))


def own_error(name: str, answers: np.ndarray, samples: int, runs: int) -> float:
    wanted = exact(answers)
    return float(
        np.mean([((ESTIMATORS[name](Table(answers), answers[[0, -1]], samples, (seed, 0))[0] - wanted) ** 2).mean() for seed in range(runs)])
    )


def boosted_games(most: int = 4) -> list[np.ndarray]:
    """All coalitions of rows of diabetes (10 columns), wine (13), breast cancer (14) and correlated data (16), in boosted trees."""
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    rng = np.random.default_rng(0)
    tied = rng.multivariate_normal(np.zeros(16), 0.5 + 0.5 * np.eye(16), 1000)
    y = tied[:, 0] * tied[:, 1] + np.sin(2 * tied[:, 2]) + tied[:, 3] + tied[:, 4] * (tied[:, 5] > 0) + tied[:, 6:].sum(1) / 2
    wine, cancer = load_wine(), load_breast_cancer()
    games = []
    for X, wanted, maker in (
        (*load_diabetes(return_X_y=True), GradientBoostingRegressor),
        (wine.data, wine.target == 1, GradientBoostingClassifier),
        (cancer.data[:, :14], cancer.target, GradientBoostingClassifier),
        (tied, y, GradientBoostingRegressor),
    )[:most]:
        model = maker(random_state=0).fit(X, wanted)
        ask = model.predict if maker is GradientBoostingRegressor else lambda b, m=model: m.predict_proba(b)[:, 1]
        background = X[rng.choice(len(X), 20, replace=False)]
        for i in rng.choice(len(X), 2, replace=False):
            z = everything(X.shape[1])
            blocks = (ask(np.where(part[:, None], X[i], background).reshape(-1, X.shape[1])) for part in np.array_split(z, max(len(z) // 4096, 1)))
            games.append(np.concatenate([block.reshape(-1, 20).mean(1) for block in blocks]))
    return games


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "calls", "limit"), [("kernel", 10, 0.55), ("kernel", 20, 0.45), ("trees", 20, 0.15)])
def test_more_accurate_than_shap_for_the_same_calls(name, calls, limit):
    ratios = []
    for answers in boosted_games():
        samples = calls * (len(answers).bit_length() - 1)
        ratios.append(own_error(name, answers, samples, 40 if name == "kernel" else 10) / peer_error(answers, samples, 40))
    print(name, calls, np.round(ratios, 3), "geometric mean", round(float(np.exp(np.log(ratios).mean())), 3))
    assert np.exp(np.log(ratios).mean()) <= limit
    assert max(ratios) <= 1.2


@pytest.mark.filterwarnings("ignore")
def test_more_accurate_than_shap_on_one_table():
    for answers in boosted_games(most=1):
        peer = peer_error(answers, 100, 30)
        assert own_error("kernel", answers, 100, 30) < 0.7 * peer
        assert own_error("trees", answers, 100, 5) < 0.6 * peer
