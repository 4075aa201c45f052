"""Projections: the picture equals scikit-learn's, the numbers equal textbook ones, and the errors are as large as they say."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter, OrderedDict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness
from sklearn.metrics import silhouette_samples, silhouette_score
from threadpoolctl import threadpool_limits
from torch import nn

import askwhy as aw
from askwhy import show
from askwhy.errors import Cancelled, InputError, LayerError, MissingPackageError, ModelError
from askwhy.inside import nearness, placing
from askwhy.inside.projection import Projection, projection, read_labels

DIGITS = load_digits()
X = torch.tensor(DIGITS.data[:150] + np.random.default_rng(0).normal(0, 0.1, (150, 64))).float()  # no distance twice
Y = DIGITS.target[:150]


def dense(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 20), nn.ReLU(inplace=True), nn.Linear(20, 10)).eval()


@pytest.fixture(scope="module")
def found() -> Projection:
    return projection(dense(), X, ["input", "0", "2"], labels=Y, neighbours=5)


def distances(a: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a[:, None] - a[None], axis=-1)


def textbook_kept(rows: np.ndarray, points: np.ndarray, k: int) -> tuple[float, float, float]:
    """Venna & Kaski's sums, item by item."""
    n = len(rows)
    order = [[[j for j in np.argsort(row, kind="stable") if j != i] for i, row in enumerate(distances(a))] for a in (rows, points)]
    norm = 2 / (n * k * (2 * n - 3 * k - 1))
    lost = 0.0
    sums = [0.0, 0.0]
    for i in range(n):
        inside, shown = order[0][i], order[1][i]
        sums[0] += sum(inside.index(j) + 1 - k for j in shown[:k] if j not in inside[:k])
        sums[1] += sum(shown.index(j) + 1 - k for j in inside[:k] if j not in shown[:k])
        lost += len(set(inside[:k]) - set(shown[:k])) / (n * k)
    return 1 - norm * sums[0], 1 - norm * sums[1], lost


# ---- the picture ----------------------------------------------------------------------------------------------------


def test_principal_axes_are_those_of_scikit_learn(found):
    wanted = PCA(2).fit(X.numpy())
    points = wanted.transform(X.numpy())
    assert np.allclose(np.abs(found["input"]), np.abs(points), atol=1e-3)
    assert np.allclose(found.explained[0], wanted.explained_variance_ratio_, atol=1e-6)


@pytest.mark.parametrize("shape", [(30, 7), (12, 200)])
def test_coordinates_keep_every_distance_of_narrow_and_of_wide_rows(shape):
    rows = np.random.default_rng(0).normal(3, 2, shape)
    kept = nearness.coordinates(rows)
    assert kept.shape == (shape[0], min(shape))
    assert np.allclose(distances(kept), distances(rows), atol=1e-6)
    assert (np.diff(kept.var(0)) <= 1e-9).all()


def test_what_a_layer_gives_is_what_a_forward_pass_gives_before_an_operation_in_place(found):
    with torch.no_grad():
        rows = dense()[0](X).numpy()
    assert (rows < 0).any()
    wanted = PCA(2).fit_transform(rows)
    assert np.allclose(distances(found["0"]), distances(wanted), atol=1e-3)


def test_layers_are_turned_onto_one_another_and_never_stretched(found):
    alone = projection(dense(), X, "2")
    assert np.allclose(distances(alone.points[0]), distances(found["2"]), atol=1e-6)

    def cost(points: np.ndarray) -> float:
        return float(((points - found["0"]) ** 2).sum())

    turns = [
        np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) @ np.diag([1, flip]) for a in np.linspace(0, 2 * np.pi, 90) for flip in (1, -1)
    ]
    assert cost(found["2"]) <= min(cost(found["2"] @ turn) for turn in turns) + 1e-6
    assert cost(found["2"]) < cost(-found["2"])


def test_tsne_is_scikit_learns_and_the_seed_decides():
    rows = nearness.coordinates(X.numpy())
    ours = placing.by_tsne(rows, 2, 5, 20.0, 3)
    scaled = (rows / rows[:, 0].std()).astype(np.float32)  # the same to the last bit, since rounding grows
    with threadpool_limits(1):
        theirs = TSNE(2, perplexity=20, init=1e-4 * scaled[:, :2], random_state=3).fit_transform(scaled[:, :50])
    assert np.allclose(ours, theirs, atol=1e-4)
    a, b = (projection(dense(), X[:60], "0", method="tsne", seed=1) for _ in range(2))
    assert np.array_equal(a.points, b.points)
    assert a.params["perplexity"] == pytest.approx(59 / 3)
    assert "mean nothing" in a.summary()
    wide = projection(dense(), X[:60], "input", method="tsne")
    assert "first 50 principal axes" in wide.summary()
    assert "first 50" not in a.summary()


def test_umap_is_asked_as_it_should_be_and_its_absence_is_told(monkeypatch):
    asked = {}

    class UMAP:
        def __init__(self, *args, **options):
            asked.update(options, args=args)

        def fit_transform(self, rows):
            asked["rows"] = rows
            return rows[:, :2] * 3

    fake = ModuleType("umap")
    fake.UMAP = UMAP
    monkeypatch.setitem(sys.modules, "umap", fake)
    found = projection(dense(), X, "0", method="umap", neighbours=7, seed=4)
    assert asked["args"] == (7, 2)
    assert (asked["random_state"], asked["n_jobs"], asked["init"].shape) == (4, 1, (150, 2))
    assert np.allclose(np.abs(found.points[0]), np.abs(asked["rows"][:, :2] * 3), atol=1e-4)
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingPackageError, match="pip install umap-learn"):
        projection(dense(), X, method="umap")


# ---- the numbers ----------------------------------------------------------------------------------------------------


def test_what_the_picture_keeps_equals_the_textbook(found):
    rows = X.numpy().astype(np.float64)
    wanted = textbook_kept(rows, found["input"], 5)
    assert (found.trustworthiness[0], found.continuity[0], found.lost[0]) == pytest.approx(wanted, abs=1e-9)
    assert found.trustworthiness[0] == pytest.approx(trustworthiness(rows, found["input"], n_neighbors=5))
    whole = projection(nn.Sequential(nn.Linear(2, 2)).eval(), X[:, 20:22], "0")
    assert (whole.trustworthiness[0], whole.lost[0], whole.explained[0].sum()) == pytest.approx((1, 0, 1))


def test_neighbours_tell_what_the_textbook_tells(found):
    rows, numbers = X.numpy().astype(np.float64), X.numpy().mean(1)
    order = [[j for j in np.argsort(row) if j != i][:5] for i, row in enumerate(distances(rows))]
    votes = [min(Counter(Y[near]).items(), key=lambda one: (-one[1], one[0]))[0] for near in order]
    assert found.told[0] == pytest.approx(np.mean(votes == Y))
    assert found.told[0] < 1
    assert found.silhouette[0] == pytest.approx(silhouette_score(rows, Y))
    told = np.array([numbers[near].mean() for near in order])
    usual = (numbers.sum() - numbers) / 149
    wanted = 1 - ((numbers - told) ** 2).sum() / ((numbers - usual) ** 2).sum()
    of_numbers = projection(dense(), X, "input", labels=numbers, neighbours=5)
    assert of_numbers.told[0] == pytest.approx(wanted)
    assert of_numbers.silhouette is None
    assert of_numbers.chance[0] == pytest.approx(-1 / 5, abs=0.05)


def test_silhouettes_of_single_items_and_missing_classes():
    rows, labels = np.random.default_rng(0).normal(size=(9, 3)), np.array([0, 0, 0, 2, 2, 2, 2, 5, 2])
    codes = np.unique(labels, return_inverse=True)[1]
    assert np.allclose(nearness.silhouettes(distances(rows), labels), silhouette_samples(rows, codes))


def drawn(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and labels of a population."""
    rng = np.random.default_rng(seed)
    if kind == "numbers":
        numbers = rng.normal(size=120)
        rows = rng.normal(size=(120, 4))
        rows[:, 0] += 2 * numbers
        return rows, numbers
    labels = rng.integers(0, 3, 120)
    centres = np.random.default_rng(99).normal(size=(3, 5)) * (0 if kind == "nothing" else 1)
    return rng.normal(size=(120, 5)) + centres[labels], labels


@pytest.mark.parametrize("kind", ["groups", "nothing", "numbers"])
def test_standard_errors_are_the_deviation_between_samples(kind):
    found = [nearness.apart(nearness.distances_of(rows), labels, 8, 0) for rows, labels in (drawn(kind, seed) for seed in range(60))]
    deviation = np.std([one.score for one in found])
    assert 0.7 < np.mean([one.score_error for one in found]) / deviation < 1.7
    if kind == "groups":
        assert 0.7 < np.mean([one.silhouette_error for one in found]) / np.std([one.silhouette for one in found]) < 1.5
    if kind == "nothing":  # chance is what shuffled labels give, and labels that mean nothing are at it
        told = np.mean([one.score for one in found])
        assert told == pytest.approx(np.mean([one.chance for one in found]), abs=4 * deviation / np.sqrt(60))


def test_items_go_together_by_the_neighbours_they_share():
    rows, labels = drawn("groups", 0)
    near = nearness.nearest(nearness.distances_of(rows), 8)
    _, each = nearness.told(near, labels)
    around = [{i, *near[i].tolist()} for i in range(120)]
    total = sum(each[i] * each[j] * len(around[i] & around[j]) / 9 for i in range(120) for j in range(120))
    assert nearness.error_of(each, near) == pytest.approx(np.sqrt(total) / 120)
    assert each.sum() == pytest.approx(0)
    assert nearness.apart(nearness.distances_of(rows), labels, 8, 0).score_error == nearness.error_of(each, near)


def test_chance_follows_the_classes_that_there_are():
    labels = np.array([0] * 90 + [1] * 10)
    rows = np.random.default_rng(0).normal(size=(100, 3))
    assert nearness.apart(nearness.distances_of(rows), labels, 9, 0).chance == pytest.approx(0.9, abs=0.03)


def test_where_all_are_told_right_the_error_is_not_nothing():
    rows, labels = np.repeat([[0.0], [10.0]], 20, 0) + np.random.default_rng(0).normal(size=(40, 1)) * 0.1, np.repeat([0, 1], 20)
    apart = nearness.apart(nearness.distances_of(rows), labels, 5, 0)
    assert (apart.score, apart.score_error) == (1, 1 / 40)
    few = nearness.apart(nearness.distances_of(rows[15:25]), labels[15:25], 2, 0)
    assert few.score == 1
    assert np.isnan([few.score_error, few.silhouette_error]).all()


def test_of_many_items_some_are_compared_and_it_is_said(monkeypatch):
    monkeypatch.setattr("askwhy.inside.projection.MEASURED", 60)
    found = projection(dense(), X, "input", labels=Y)
    assert found.params["measured"] == 60
    assert found.points.shape == (1, 150, 2)
    assert "compare 60 of the 150 items" in found.summary()


# ---- what can be given ----------------------------------------------------------------------------------------------


def test_none_is_the_input_and_the_main_stages():
    assert projection(dense(), X).layers == ("input", "0", "1", "2")
    assert projection(dense(), X, "input").layers == ("input",)

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input, self.head = nn.Linear(64, 5), nn.Linear(5, 3)

        def forward(self, x):
            return self.head(self.input(x))

    net = Named().eval()
    own = projection(net, X, "input")  # a layer of that name is meant
    assert own.widths.tolist() == [5]


def test_pictures_pooled_or_flat(net):
    pictures = torch.rand(12, 3, 16, 16)
    mean, flat = (projection(net, pictures, ["input", "0"], pool=pool) for pool in ("mean", "flat"))
    assert mean.widths.tolist() == [768, 6]
    assert flat.widths.tolist() == [768, 6 * 256]
    assert "0: pool='mean' over the places" in mean.summary()
    assert "pool=" not in flat.summary()
    with torch.no_grad():
        assert np.allclose(distances(mean["0"]), distances(PCA(2).fit_transform(net[0](pictures).mean((2, 3)).numpy())), atol=1e-4)


def test_a_loader_gives_what_the_whole_gives():
    data = torch.utils.data.TensorDataset(X, torch.tensor(Y))
    loader = torch.utils.data.DataLoader(data, batch_size=40)
    assert np.allclose(projection(dense(), loader, "0", labels=Y).points, projection(dense(), X, "0", labels=Y).points, atol=1e-4)


def test_texts_are_the_mean_of_their_words_without_padding():
    from test_text import bert, word_pieces

    texts = ["great film", "a bad film, too long.", "not sad", "great", "very bad", "a great film."]
    model = aw.wrap(bert(), tokenizer=word_pieces())
    found = projection(model, texts, ["input", "bert.encoder.layer.1"])
    rows, words = [], []
    for text in texts:
        given = model.tokenizer([text], return_tensors="pt")
        with torch.no_grad():
            rows.append(model.net.bert.encoder.layer[1](model.net.bert.encoder.layer[0](model.net.bert.embeddings(given["input_ids"])))[0].mean(0))
            words.append(model.net.bert.embeddings.word_embeddings(given["input_ids"])[0].mean(0))
    assert np.allclose(distances(found["input"]), distances(PCA(2).fit_transform(torch.stack(words).numpy())), atol=1e-4)
    assert np.allclose(distances(found["bert.encoder.layer.1"]), distances(PCA(2).fit_transform(torch.stack(rows).numpy())), atol=1e-4)


def test_a_layer_of_one_unit_lies_on_a_line():
    found = projection(nn.Sequential(nn.Linear(64, 1)).eval(), X[:20], "0")
    assert found.points.shape == (1, 20, 2)
    assert not found.points[0, :, 1].any()


class Half(nn.Module):
    def forward(self, x):
        return torch.where(x[:, :1] > 0, x / 0, x)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "mds"}, "method='mds': choose"),
        ({"method": "tsne", "perplexity": 150}, "perplexity=150: t-SNE needs more than 0 and less than the 150 items"),
        ({"perplexity": 5}, "perplexity= means nothing for method='pca'"),
        ({"labels": Y[:9]}, "labels= holds 9 answers for 150 items"),
        ({"labels": np.where(np.arange(150) == 7, np.nan, 1.5)}, r"labels\[7\] is nan"),
        ({"labels": ["a"] * 150}, "labels is 'a' everywhere"),
        ({"labels": ["cat", "dog", float("nan")] * 50}, r"labels\[2\] is nan"),
        ({"labels": np.array(["cat", "dog", None] * 50, object)}, r"labels\[2\] is None"),
        ({"labels": ["cat", 1] * 75}, "labels mixes number and str"),
        ({"labels": [["a"]] * 150}, r"labels\[0\] is a list"),
        ({"labels": [str(k) for k in range(150)]}, "labels= has 150 different values for 150 items"),
        ({"labels": [2.5] * 150}, "labels is 2.5 everywhere"),
        ({"dims": 4}, "dims=4: give 2"),
        ({"seed": -1}, "seed=-1"),
        ({"neighbours": 75}, "neighbours=75: give a whole number from 1 to 74, less than half of the 150 items"),
        ({"pool": "sum"}, "pool='sum': choose"),
    ],
)
def test_what_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        projection(dense(), X, **given)


def test_labels_are_read_whatever_holds_them():
    names = [f"digit {k}" for k in Y]
    for same in (names, np.array(names), np.array(names, object), tuple(names)):
        codes, classes = read_labels(same, 150)
        assert [classes[k] for k in codes] == names
    for same in (Y, list(Y), Y.tolist(), torch.tensor(Y), list(torch.tensor(Y)), np.array(Y, object)):
        codes, classes = read_labels(same, 150)
        assert [int(classes[k]) for k in codes] == Y.tolist()
        assert codes.dtype == np.int64
    for same in (Y / 2, list(np.float32(Y / 2)), list(torch.tensor(Y / 2))):
        codes, classes = read_labels(same, 150)
        assert classes == ()
        np.testing.assert_array_equal(codes, Y / 2)


def test_complex_numbers_are_their_real_and_imaginary_parts():
    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            self.wave, self.out = Wave(), nn.Linear(64, 2)

        def forward(self, x):
            return self.out(self.wave(x).imag)

    class Wave(nn.Module):
        def forward(self, x):
            return x + 1j * x.roll(1, 1)

    found = projection(Complex().eval(), X, "wave")
    both = np.concatenate([X.numpy(), X.roll(1, 1).numpy()], 1)
    np.testing.assert_allclose(distances(found.points[0]), distances(PCA(2).fit_transform(both)), atol=1e-4)
    assert found.widths.tolist() == [128]


def test_what_has_no_picture_is_refused():
    with pytest.raises(InputError, match="X holds 2 items"):
        projection(dense(), X[:2])
    with pytest.raises(LayerError, match="did you mean"):
        projection(nn.Sequential(OrderedDict(first=nn.Linear(64, 3))).eval(), X, "firts")
    with pytest.raises(LayerError, match="gives the same for all 150 items"):
        projection(nn.Sequential(nn.Linear(64, 3), nn.ReLU()).eval(), X * 0 + 1, "0")
    with pytest.raises(LayerError, match="NaN or infinite numbers for item 3"):
        projection(nn.Sequential(Half(), nn.Linear(64, 2)).eval(), torch.where(torch.arange(20)[:, None] == 3, 1.0, -torch.rand(20, 64)), "0")
    with pytest.raises(LayerError, match="layer 'x' is not among"):
        projection(dense(), X, "0")["x"]


def test_progress_is_counted_to_the_end_and_can_stop():
    steps = []
    projection(dense(), X, ["input", "0"], progress=lambda done, total: steps.append((done, total)))
    assert steps[-1][0] == steps[-1][1] == 150 * 3
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    with pytest.raises(Cancelled):
        projection(dense(), X, progress=lambda done, total: done <= 150)


# ---- the result -----------------------------------------------------------------------------------------------------


def test_it_is_kept_as_it_is(found, tmp_path):
    again = Projection.load(found.save(tmp_path / "seen"))
    assert again == found
    numbers = projection(dense(), X, "0", labels=X.numpy().mean(1))
    assert Projection.load(numbers.save(tmp_path / "numbers")) == numbers
    assert numbers != found
    counted = projection(dense(), X, "0", seed=np.int64(3), neighbours=np.int64(4), batch_size=np.int64(50))
    assert Projection.load(counted.save(tmp_path / "counted")) == counted
    assert repr(found) == "<Projection by PCA, 150 items, input, 0, 2>"
    assert "data:image/png" in found._repr_html_()
    assert found.model_calls == 150


def test_the_summary_says_how_sure_it_is(found):
    said = found.summary()
    assert f"{found.told[1]:.3f} (standard error {found.told_error[1]:.3f}, chance {found.chance[1]:.3f})" in said
    assert "not in the picture" in said
    assert "150 model calls" in said


def test_panels_show_every_item_and_its_class(found):
    ax = found.plot()
    shown = [held for held in ax.collections if len(held.get_offsets())]
    assert sum(len(held.get_offsets()) for held in shown) == 3 * 150
    assert len(shown) == 3 * 10
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [str(k) for k in range(10)]
    words = " ".join(text.get_text() for text in ax.texts)
    assert f"trustworthiness {found.trustworthiness[2]:.2f}" in words
    assert f"{found.lost[2]:.0%} of neighbours lost" in words
    assert f"right {found.told[2]:.2f} ± {1.96 * found.told_error[2]:.2f}" in words
    curve = found.plot(["0", "2"], how="layers")
    assert [tick.get_text() for tick in curve.get_xticklabels()] == ["0", "2"]
    with pytest.raises(InputError, match="without labels"):
        projection(dense(), X, "0").plot(how="layers")
    with pytest.raises(InputError, match="three coordinates"):
        projection(dense(), X, "0", dims=3).plot()
    with pytest.raises(InputError, match="how='x'"):
        found.plot(how="x")


def test_a_panel_keeps_the_shape_of_its_points():
    points = np.random.default_rng(0).normal(size=(40, 2)) * [5, 1]
    ax = show.scatter_groups([points], ["one"], labels=np.arange(40) % 20, classes=[f"类 {k}" for k in range(20)])
    shown = np.concatenate([held.get_offsets() for held in ax.collections])
    order = np.argsort(np.arange(40) % 20, kind="stable")
    ratio = distances(np.asarray(shown))[0, 1:] / distances(points[order])[0, 1:]
    assert np.ptp(ratio) < 1e-9
    paths = {held.get_paths()[0].vertices.tobytes() for held in ax.collections}
    looks = {(held.get_paths()[0].vertices.tobytes(), tuple(held.get_facecolor()[0])) for held in ax.collections}
    assert (len(paths), len(looks)) == (3, 20)
    with pytest.raises(InputError, match="65 groups, and 64 can be told apart"):
        show.scatter_groups([points], ["one"], labels=np.zeros(40, int), classes=[str(k) for k in range(65)])
    with pytest.raises(InputError, match="39 labels for the 40 points"):
        show.scatter_groups([points], ["one"], labels=np.zeros(39))
    with pytest.raises(InputError, match="2 names for 1 panels"):
        show.scatter_groups([points], ["one", "two"])
    with pytest.raises(InputError, match="a number for each"):
        show.over_layers([("a", np.zeros(3), None)], ["x", "y"])


def test_the_model_is_as_it_was(found):
    net = dense()
    net.requires_grad_(True)
    before = [p.clone() for p in net.parameters()], torch.random.get_rng_state()
    projection(net, X, ["input", "0"], method="pca")
    assert all(torch.equal(a, b) and b.requires_grad for a, b in zip(before[0], net.parameters(), strict=True))
    assert torch.equal(before[1], torch.random.get_rng_state())
    assert not any(module._forward_hooks for module in net.modules())
    with pytest.raises(ModelError, match="training mode"):
        projection(dense().train(), X)


@pytest.mark.slow
def test_the_example_shows_how_the_speaker_is_lost(tmp_path):
    script = Path(__file__).parent.parent / "examples/speakers.py"
    said = subprocess.run([sys.executable, script, "--out", tmp_path / "speakers.jpg"], capture_output=True, text=True, check=True).stdout
    rows = {line.split()[0]: [float(one) for one in re.findall(r"(\d\.\d+) ±", line)] for line in said.splitlines() if "±" in line}
    assert list(rows) == ["input", "conv1", "conv2", "dense1", "dense2", "sound"]
    table = np.array(list(rows.values()))  # sound by neighbours, by a probe; speaker by neighbours, by a probe
    assert (table[:, :2] > 0.95).all()
    assert (table[:2, 2:] > 0.9).all()
    assert (np.diff(table[1:, 2:], axis=0) < 0.05).all()
    assert table[-1, 2] < 0.5
    assert table[-1, 3] < 0.25  # chance is 1/8
    assert (tmp_path / "speakers.jpg").stat().st_size > 50_000
