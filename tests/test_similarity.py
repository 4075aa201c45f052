"""Similarity of layers beside the textbook's sums, under maps that should and should not matter, and on nets of several seeds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors
from torch import nn
from torch.utils.data import DataLoader

import askwhy as aw
from askwhy.errors import FileError, InputError, LayerError, UnsupportedError
from askwhy.inside import similarity as module
from askwhy.inside import stored
from askwhy.inside.similarity import Similarity, similarity


class Fixed(nn.Module):
    """A layer that gives rows that were chosen: the input is their number."""

    def __init__(self, *tables):
        super().__init__()
        self.rows = nn.ModuleList(nn.Embedding.from_pretrained(torch.tensor(t)) for t in tables)

    def forward(self, x):
        return torch.stack([one(x[:, 0].long()).sum(1) for one in self.rows], 1)


def alike(a, b, **options):
    """The similarity of two tables of rows [n, d]."""
    tables = [np.asarray(one, np.float64) for one in (a, b)]
    x = torch.arange(len(a), dtype=torch.float32)[:, None]
    nets = [Fixed(one).double().eval() for one in tables]
    return similarity(*nets, x.double(), "rows.0", "rows.0", **options)


def tables(n=40, d=7, e=12, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, d))
    return a, np.tanh(a @ rng.normal(size=(d, e))) + 0.5 * rng.normal(size=(n, e))


# ---- slow versions from the papers ----------------------------------------------------------------------------------


def hsic_biased(k, l):  # noqa: E741
    """tr(K H L H) / (n - 1)^2, Gretton et al. 2005."""
    n = len(k)
    h = np.eye(n) - 1 / n
    return np.trace(k @ h @ l @ h) / (n - 1) ** 2


def hsic_unbiased(k, l):  # noqa: E741
    """Song et al. 2012, equation 5."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    one = np.ones(n)
    return (np.trace(k @ l) + one @ k @ one * (one @ l @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))


def hsic_by_quadruples(k, l):  # noqa: E741
    """The U-statistic that it is: the mean over all quadruples of different items."""
    found = []
    for i, j, q, r in itertools.permutations(range(len(k)), 4):
        found.append(k[i, j] * l[i, j] + k[i, j] * l[q, r] - 2 * k[i, j] * l[i, q])
    return np.mean(found)


def slow_cka(k, l, hsic):  # noqa: E741
    return hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))


def slow_rbf(a):
    square = ((a[:, None] - a[None]) ** 2).sum(2)
    return np.exp(-square / (2 * np.median([square[i, j] for i, j in itertools.combinations(range(len(a)), 2)])))


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_cka_and_its_jackknife_are_the_papers_sums(kernel, debiased):
    a, b = tables()
    found = alike(a, b, kernel=kernel, debiased=debiased)
    hsic = hsic_unbiased if debiased else hsic_biased
    k, l = (slow_rbf(one) if kernel == "rbf" else one @ one.T for one in (a, b))  # noqa: E741
    assert found.values[0, 0] == pytest.approx(slow_cka(k, l, hsic), rel=1e-9)
    without = [np.delete(np.arange(40), i) for i in range(40)]
    each = np.array([slow_cka(k[np.ix_(w, w)], l[np.ix_(w, w)], hsic) for w in without])
    assert found.std_error[0, 0] == pytest.approx(np.sqrt(39 / 40 * ((each - each.mean()) ** 2).sum()), rel=1e-8)


def test_the_unbiased_sum_is_the_mean_over_quadruples():
    a, b = tables(n=9)
    assert alike(a, b).values[0, 0] == pytest.approx(slow_cka(a @ a.T, b @ b.T, hsic_by_quadruples), rel=1e-9)


def test_linear_cka_is_the_form_in_features():
    """|B'A|^2 / |A'A| |B'B|, Kornblith et al. 2019, equation 6."""
    a, b = tables()
    p, q = a - a.mean(0), b - b.mean(0)
    wanted = np.linalg.norm(q.T @ p) ** 2 / np.linalg.norm(p.T @ p) / np.linalg.norm(q.T @ q)
    assert alike(a, b, debiased=False).values[0, 0] == pytest.approx(wanted, rel=1e-9)


def test_procrustes_is_scipys():
    a, b = tables(d=12)
    p, q = (one - one.mean(0) for one in (a, b))
    p, q = p / np.linalg.norm(p), q / np.linalg.norm(q)
    turn, scale = orthogonal_procrustes(p, q)
    found = alike(a, b, measure="procrustes")
    assert found.values[0, 0] == pytest.approx(scale, rel=1e-9)
    assert found.values[0, 0] == pytest.approx(1 - np.linalg.norm(p @ turn - q) ** 2 / 2, rel=1e-9)
    assert found.std_error is None
    assert "no standard error" in found.summary()


def test_shared_neighbours_are_scikit_learns():
    a, b = tables()
    near = [NearestNeighbors(n_neighbors=5).fit(one).kneighbors(return_distance=False) for one in (a, b)]
    each = np.array([len(set(x) & set(y)) / 5 for x, y in zip(*near, strict=True)])
    found = alike(a, b, measure="knn", neighbours=5)
    assert found.values[0, 0] == pytest.approx(each.mean())
    assert found.std_error[0, 0] == pytest.approx(each.std(ddof=1) / np.sqrt(40))


# ---- what matters and what does not ---------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["cka", "procrustes", "knn"])
def test_rotation_scale_and_shift_do_not_matter_and_other_maps_do(measure):
    rng = np.random.default_rng(3)
    a, b = tables()
    turn, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    plain = alike(a, b, measure=measure).values[0, 0]
    assert alike(a, 3.7 * b @ turn + 5, measure=measure).values[0, 0] == pytest.approx(plain, rel=1e-9)
    assert alike(b, 3.7 * b @ turn + 5, measure=measure).values[0, 0] == pytest.approx(1, rel=1e-9)
    stretched = b @ np.diag(np.logspace(0, 2, 12))
    assert abs(alike(a, stretched, measure=measure).values[0, 0] - plain) > 0.03
    assert alike(b, stretched, measure=measure).values[0, 0] < 0.9


def test_few_items_with_many_features_are_not_alike_by_chance():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(20, 5000)), rng.normal(size=(20, 5000))
    assert alike(a, b, debiased=False).values[0, 0] > 0.9  # what is often reported
    found = alike(a, b)
    assert abs(found.values[0, 0]) < 0.15
    assert abs(found.null.mean()) < 0.1
    assert alike(a, b, debiased=False).null.min() > 0.9  # and the shuffled items tell


def test_the_jackknife_covers():
    """The value in many items lies within 2 standard errors of that in few in most of 40 draws."""
    a, b = tables(n=1500)
    truth = slow_cka(a @ a.T, b @ b.T, hsic_unbiased)
    hits = []
    for seed in range(40):
        which = np.random.default_rng(seed).choice(1500, 60, replace=False)
        found = alike(a[which], b[which])
        hits.append(abs(found.values[0, 0] - truth) < 2 * found.std_error[0, 0])
    assert 0.85 <= np.mean(hits) <= 1
    assert found.std_error[0, 0] < 0.1


# ---- networks -------------------------------------------------------------------------------------------------------


def digits():
    x, y = load_digits(return_X_y=True)
    x = nn.functional.interpolate(torch.tensor(x / 16, dtype=torch.float32).view(-1, 1, 8, 8), size=(12, 12), mode="bilinear")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order[:1300]], torch.tensor(y)[order[:1300]], x[order[1300:]], torch.tensor(y)[order[1300:]]


def trained(seed, widths, epochs):
    """A plain network of convolutions, trained from this seed; its accuracy on the test set."""
    x, y, x_test, y_test = digits()
    torch.manual_seed(seed)
    parts, before = [], 1
    for width, stride in widths:
        parts.append(nn.Sequential(nn.Conv2d(before, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()))
        before = width
    net = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, epochs * 21)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
    net.eval().requires_grad_(False)
    return net, float((net(x_test).argmax(1) == y_test).float().mean())


def hits_of(nets, layers, items):
    """How often the most similar layer of another network is the one at the same place, over all ordered pairs."""
    found = []
    for a, b in itertools.combinations(nets, 2):
        values = similarity(a, b, digits()[2][:items], layers, layers).values
        found += [values.argmax(1) == np.arange(len(layers)), values.argmax(0) == np.arange(len(layers))]
    return np.array(found)


def test_cka_finds_the_layer_of_a_net_with_another_seed():
    nets, accuracies = zip(*(trained(seed, [(32, 1), (64, 2), (64, 1), (128, 2)], 4) for seed in range(4)), strict=True)
    assert min(accuracies) > 0.97
    assert hits_of(nets, ["0", "1", "2", "3"], 200).mean() >= 0.95  # of 48


@pytest.mark.slow
def test_cka_finds_the_layer_among_six_in_ten_nets():
    """Kornblith et al. 2019, section 6.1, on digits: without the logits, over all pairs of nets."""
    widths = [(32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (128, 1)]
    nets, accuracies = zip(*(trained(seed, widths, 8) for seed in range(10)), strict=True)
    assert min(accuracies) > 0.97
    hits = hits_of(nets, [str(k) for k in range(6)], 300)
    print(f"{hits.mean():.1%} of {hits.size}, by layer {hits.mean(0).round(3)}, accuracies {min(accuracies):.3f} to {max(accuracies):.3f}")
    assert hits.mean() >= 0.95


def net_of(seed=0, inputs=6):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, 20), nn.ReLU(), nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 3)).eval()


def rows(n=60, seed=0):
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))


def slow(outs_a, outs_b):
    return np.array([[slow_cka(a @ a.T, b @ b.T, hsic_unbiased) for b in outs_b] for a in outs_a])


def outs_of(net, x):
    return [net[: k + 1](x).detach().double().numpy() for k in range(len(net))]


def test_all_layers_of_two_networks():
    x, a, b = rows(), net_of(0), net_of(1)
    found = similarity(a, b, x)
    np.testing.assert_allclose(found.values, slow(outs_of(a, x), outs_of(b, x)), rtol=1e-4)
    assert (found.layers_a, found.layers_b, found.items, found.itself) == (("0", "1", "2", "3", "4"),) * 2 + (60, False)
    assert found.model_calls == 2 * 63  # and three more each to see which the layers are, and how large
    best = found.values.argmax(1)
    assert found.match() == [(str(k), str(best[k]), found.values[k, best[k]]) for k in range(5)]
    np.testing.assert_allclose(similarity(b, a, x).values, found.values.T, rtol=1e-9)
    assert found.null.shape == (10, 5, 5)
    assert np.array_equal(similarity(a, b, x).null, found.null)
    assert not np.array_equal(similarity(a, b, x, seed=1).null, found.null)


def test_one_network_with_itself():
    x, net = rows(), net_of()
    found = similarity(net, None, x)
    np.testing.assert_allclose(np.diag(found.values), 1, rtol=1e-12)
    np.testing.assert_allclose(found.values, found.values.T, rtol=1e-12)
    assert found.model_calls == 63
    assert all(a != b for a, b, _ in found.match())
    some = similarity(net, None, x, ["0", "2"], "3")
    np.testing.assert_allclose(some.values, found.values[[0, 2]][:, [3]], rtol=1e-9)


def test_maps_are_compared_whole_or_by_channel(net):
    x = torch.rand(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    maps = net[0](x).detach().double()
    for pool, wanted in (("flat", maps.flatten(1)), ("mean", maps.mean((2, 3)))):
        other = net[:5](x).detach().double()
        other = (other.flatten(1) if pool == "flat" else other.mean((2, 3))).numpy()
        found = similarity(net, None, x, "0", "4", pool=pool).values[0, 0]
        assert found == pytest.approx(slow_cka(wanted.numpy() @ wanted.numpy().T, other @ other.T, hsic_unbiased), rel=1e-4)
    with pytest.raises(InputError, match="pool='middle'"):
        similarity(net, None, x, "0", pool="middle")


def test_a_loader_that_shuffles_gives_both_models_the_same_items():
    x, a = rows(), net_of()
    torch.manual_seed(5)
    loader = DataLoader(list(x), batch_size=16, shuffle=True)
    found = similarity(a, a, loader)
    np.testing.assert_allclose(np.diag(found.values), 1, rtol=1e-9)
    twin = net_of()
    np.testing.assert_allclose(np.diag(similarity(a, twin, loader).values), 1, rtol=1e-9)
    np.testing.assert_allclose(np.diag(similarity(a, twin, (x[k : k + 20] for k in (0, 20, 40))).values), 1, rtol=1e-9)


def test_layers_are_read_some_at_a_time_where_memory_is_short(monkeypatch):
    x, a, b = rows(), net_of(0), net_of(1)
    wanted = similarity(a, b, x)
    monkeypatch.setattr(module, "free_memory", lambda: 60 * 4 * 4 * 51.0)  # 51 numbers an item, of 20, 20, 30, 30 and 3
    found = similarity(a, b, x)
    assert np.array_equal(found.values, wanted.values)
    assert found.model_calls == 2 * (3 + 3 * 60)
    told = []
    similarity(a, b, x, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (6 * 60, 6 * 60)
    assert told == sorted(told)
    monkeypatch.setattr(stored, "free_memory", lambda: 1e5)
    with pytest.raises(InputError, match=r"10 layers on 60 items, each a matrix of 60 x 60 would take about 576 kB, .*give fewer items or layers"):
        similarity(a, b, x)


def test_a_layer_that_gives_the_same_for_every_item_has_no_value():
    net = net_of()
    with torch.no_grad():
        net[0].bias[:] = -100
    found = similarity(net, net_of(1), rows())
    assert np.isnan(found.values[1:]).all()
    assert not np.isnan(found.values[0]).any()
    assert [a for a, _, _ in found.match()] == ["0"]
    assert (
        "no value, since they give the same for every item, or have all items equally far apart, but for single ones: 1, 2, 3, 4" in found.summary()
    )
    found.plot()


class OneAlone(nn.Module):
    """A layer that is on for the first `alone` items only, one for which all items are equally far apart, and an ordinary one."""

    def __init__(self, n, alone):
        super().__init__()
        rng = np.random.default_rng(0)
        simplex = np.linalg.qr(rng.normal(size=(n, n)))[0]
        tables = (np.eye(n)[:, :alone].sum(1, keepdims=True) * 3.7, simplex, rng.normal(size=(n, 5)))
        self.rows = nn.ModuleList(nn.Embedding.from_pretrained(torch.tensor(t, dtype=torch.float32)) for t in tables)

    def forward(self, x):
        return torch.stack([one(x[:, 0].long()).sum(1) for one in self.rows], 1)


def test_debiased_cka_has_no_value_where_it_is_nothing_by_nothing():
    n = 12
    for table in (np.eye(n)[:, :1], np.eye(n)):  # the textbook's sum is 0
        assert hsic_unbiased(table @ table.T, table @ table.T) == pytest.approx(0, abs=1e-12)
    x, names = torch.arange(n, dtype=torch.float32)[:, None], [f"rows.{k}" for k in range(3)]
    found = similarity(OneAlone(n, 1).eval(), None, x, names)
    assert np.isnan(found.values[:2]).all()
    assert np.isnan(found.values[:, :2]).all()
    assert found.values[2, 2] == pytest.approx(1)
    assert "all items equally far apart, but for single ones: rows.0, rows.1" in found.summary()
    assert "most similar: none" in similarity(OneAlone(n, 1).eval(), None, x, names[:2]).summary()
    curved = similarity(OneAlone(n, 1).eval(), None, x, names[1:], kernel="rbf")
    assert np.isnan(curved.values[0]).all()
    biased = similarity(OneAlone(n, 1).eval(), None, x, names, debiased=False)
    assert np.isfinite(biased.values).all()
    assert np.isnan(biased.std_error[0]).all()  # without that item there is no value


def test_where_a_value_hangs_on_one_item_there_is_no_standard_error():
    x = torch.arange(12, dtype=torch.float32)[:, None]
    found = similarity(OneAlone(12, 2).eval(), None, x, ["rows.0", "rows.2"])
    assert np.isfinite(found.values).all()
    assert np.isnan(found.std_error[0]).all()
    assert np.isfinite(found.std_error[1, 1])
    assert "no standard error where a value hangs on a single item" in found.summary()


class Turned(nn.Module):
    """A layer of complex numbers: x and i x are the same up to a rotation."""

    def __init__(self):
        super().__init__()
        self.line, self.turn, self.out = nn.Linear(6, 4), Times(), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.turn(self.line(x)).imag)


class Times(nn.Module):
    def forward(self, x):
        return 1j * x


def test_complex_numbers_are_their_real_and_imaginary_parts():
    torch.manual_seed(0)
    found = similarity(Turned().eval(), None, rows(), ["line", "turn"])
    np.testing.assert_allclose(found.values, 1, atol=1e-6)


# ---- refusals, results ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "cca"}, "measure='cca': choose 'cka', 'procrustes', 'knn'"),
        ({"kernel": "poly"}, "kernel='poly'"),
        ({"measure": "knn", "kernel": "rbf"}, "kernel= means nothing for measure='knn'"),
        ({"neighbours": 3}, "neighbours= means nothing for measure='cka'"),
        ({"measure": "procrustes", "debiased": True}, "debiased= means nothing"),
        ({"measure": "knn", "neighbours": 59}, "neighbours=59: give a whole number from 1 to 58"),
        ({"seed": -1}, "seed=-1: give a whole number from 0 on"),
    ],
)
def test_options_that_mean_nothing(options, message):
    with pytest.raises(InputError, match=message):
        similarity(net_of(), None, rows(), **options)


def test_inputs_that_cannot_be_compared():
    net = net_of()
    with pytest.raises(InputError, match="X holds 7 items; a similarity needs 8"):
        similarity(net, None, rows(7))
    with pytest.raises(LayerError, match="layer='9'"):
        similarity(net, None, rows(), "9")
    with pytest.raises(UnsupportedError, match="give the torch module itself"):
        similarity(net, lambda x: x, rows())
    with torch.no_grad():
        net[2].weight[0, 0] = float("nan")
    with pytest.raises(LayerError, match="layer '2' gives NaN or infinite numbers for item 0"):
        similarity(net, None, rows())
    same = torch.cat([torch.zeros(50, 6), rows(10)])
    with pytest.raises(InputError, match="most of the items are the same"):
        similarity(net_of(), None, same, "0", kernel="rbf")


def test_results_are_saved_loaded_compared_and_shown(tmp_path):
    found = similarity(net_of(0), net_of(1), rows(), ["0", "2"])
    found.save(tmp_path / "s.npz")
    assert Similarity.load(tmp_path / "s.npz") == found
    assert found != similarity(net_of(0), net_of(2), rows(), ["0", "2"])
    assert repr(found) == "<Similarity by cka, 2 x 5 layers, 60 items>"
    assert "data:image/png" in found._repr_html_()
    lines = found.summary().splitlines()
    assert lines[0].startswith("centred kernel alignment (linear, debiased), 60 items; most similar: 0 - ")
    assert "standard errors are over the items (jackknife)" in lines
    assert "with the items of one side shuffled it is" in found.summary()
    ax = found.plot()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("layer of the second model", "layer of the first model")
    assert [text.get_text() for text in ax.texts] == [f"{value:.2f}" for value in found.values.ravel()]
    knn = similarity(net_of(0), None, rows(), measure="knn")
    knn.save(tmp_path / "k.npz")
    assert Similarity.load(tmp_path / "k.npz") == knn
    counted = similarity(net_of(0), None, rows(), measure="knn", neighbours=np.int64(3), seed=np.int64(2), batch_size=np.int64(7))
    assert Similarity.load(counted.save(tmp_path / "n.npz")) == counted
    other = aw.gradient(net_of(), rows(1)).save(tmp_path / "e.npz")
    with pytest.raises(FileError, match="holds no saved Similarity, but Explanation"):
        Similarity.load(other)
