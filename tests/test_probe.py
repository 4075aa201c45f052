"""Probes: planted information, controls, codes and refits by hand."""

from __future__ import annotations

import subprocess
import sys
import weakref
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, log_loss, r2_score
from sklearn.preprocessing import StandardScaler
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import nn
from torch.nn.utils import prune
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

import askwhy as aw
from askwhy.errors import Cancelled, FileError, InputError, LayerError, ModelError, UnsupportedError
from askwhy.inside import probing
from askwhy.inside.asked import truth_of
from askwhy.inside.probe import Probe, probe
from askwhy.inside.probe_rows import owners_of, untrained, words_of
from askwhy.inside.probing import (
    STRENGTHS,
    Rows,
    blocks_of,
    chance_of,
    corrected_error,
    description_length,
    fold_of,
    inner_parts,
    lookup,
    type_labels,
)


class Planted(nn.Module):
    """Layers that carry x[:, 0] * x[:, 1] openly, hidden in its factors, and not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.turned, self.lost = Opened(), nn.Linear(6, 6), nn.Linear(6, 6)
        nn.init.orthogonal_(self.turned.weight, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            self.lost.weight[:, :2] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.open(x).sum(1, keepdim=True) + self.turned(x).sum(1, keepdim=True) + self.lost(x)


class Opened(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, 2:], x[:, :1] * x[:, 1:2]], 1)


LAYERS = ["open", "turned", "lost"]


def planted(n: int = 600) -> tuple[nn.Module, np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(n, 6)).astype(np.float32)
    return Planted().eval(), x, x[:, 0] * x[:, 1] > 0


@pytest.fixture(scope="module")
def found() -> Probe:
    return probe(*planted(), LAYERS, control=False, hidden=32, folds=3)


def at(found: Probe, layer: str, name: str) -> tuple[float, float]:
    k, p = found.layers.index(layer), found.probes.index(name)
    return found.values[k, p], found.std_error[k, p]


def test_planted_information_is_found_where_it_is(found):
    assert found.layers == ("input", *LAYERS)
    for name in found.probes:
        assert at(found, "open", name)[0] > 0.93
        lost, error = at(found, "lost", name)
        assert abs(lost - 0.5) < 4 * error + 0.03
    assert at(found, "turned", "mlp")[0] > 0.9
    assert abs(at(found, "turned", "linear")[0] - 0.5) < 0.08  # an exclusive or has no linear part
    assert found.best("linear") == "open"
    assert found.compression[1].min() > 2
    assert found.compression[3].max() < 1.05
    assert found.compression[2, 1] > 1.3 > 1.05 > found.compression[2, 0]
    assert found.bits.shape == (4, 2)
    assert found.uniform_bits == pytest.approx(600)


def test_numbers_are_read_with_r2():
    net, x, _ = planted()
    found = probe(net, x, x[:, 0] * x[:, 1], LAYERS, control=False, hidden=32, folds=2)
    assert found.unit == "r2"
    assert found.bits is None
    assert found.chance == 0
    assert at(found, "open", "linear")[0] > 0.999
    assert at(found, "turned", "linear")[0] < 0.05
    assert at(found, "turned", "mlp")[0] > 0.6
    assert at(found, "lost", "mlp")[0] < 0.1


def test_probes_say_when_they_could_have_learned_the_task_by_themselves():
    """Rows are one of eight words, whose tags a probe can learn by heart, however they are dealt out."""
    rng = np.random.default_rng(0)
    word, tags = rng.integers(8, size=300), rng.integers(2, size=8)
    x = np.eye(8, dtype=np.float32)[word] + rng.normal(size=(300, 8)).astype(np.float32) * 0.05
    net = nn.Sequential(nn.Linear(8, 8)).eval()
    learned = probe(net, x, tags[word], types=word, hidden=64, folds=2)
    assert learned.control_kind == "types"
    assert np.abs(learned.selectivity).max() < 0.05
    assert sum("may learn the task by itself" in one for one in learned.cautions) == 2
    assert "may learn the task by itself" in learned.summary()
    other = x.copy()
    other[:, 7] = rng.normal(size=300)  # the answer is no matter of the word
    read = probe(net, other, other[:, 7] > 0, types=rng.integers(7, size=300), probes="linear", folds=3)
    assert read.selectivity[1].min() > 0.1
    assert not any("by itself" in one for one in read.cautions)


def test_types_have_one_random_answer_each_with_the_distribution_of_the_truth():
    rng = np.random.default_rng(0)
    types, y = rng.integers(3000, size=9000), rng.choice(3, 9000, p=[0.7, 0.2, 0.1])
    labels = type_labels(types, y, 0)
    assert all(len(np.unique(labels[types == k])) == 1 for k in range(50) if (types == k).any())
    np.testing.assert_allclose(np.bincount(labels) / 9000, [0.7, 0.2, 0.1], atol=0.03)
    assert abs((labels == y).mean() - 0.54) < 0.03  # no more than chance in common with the truth


def test_the_untrained_copy_is_the_control_of_items():
    net, x, _ = planted(300)
    found = probe(net, x, x[:, 3] > 0, ["turned", "lost"], probes="linear", folds=3)
    assert found.control_kind == "untrained"
    assert np.isnan(found.control[0]).all()  # the input has no weights
    assert found.control[1:].min() > 0.85  # a random linear layer hides nothing
    assert any("untrained copy" in one for one in found.cautions)
    assert any("the input itself gives as much" in one for one in found.cautions)
    assert found.model_calls == 600
    deep = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 1), nn.Linear(1, 1)).eval()
    with torch.no_grad():
        deep[1].weight.copy_(deep[0].weight.inverse()[3:4])  # reads x[:, 3] and nothing else
    trained = probe(deep, x, x[:, 3] > 0, "1", probes="linear", folds=3)
    assert trained.selectivity[1, 0] > 0.1
    assert not any("untrained" in one for one in trained.cautions)


def test_an_untrained_copy_is_random_everywhere_and_the_model_is_not_touched():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line, self.token = nn.Linear(4, 4), nn.Parameter(torch.arange(12.0))

        def forward(self, x):
            return self.line(x) + self.token.sum()

    net = Own().eval()
    before, state = {name: value.clone() for name, value in net.state_dict().items()}, torch.get_rng_state()
    copy = untrained(aw.wrap(net), 0).net
    assert not torch.equal(copy.line.weight, before["line.weight"])
    assert not torch.equal(copy.token, before["token"])
    assert torch.equal(copy.token.sort().values, before["token"])
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(untrained(aw.wrap(net), 0).net.line.weight, copy.line.weight)
    net.handle = (k for k in ())  # cannot be copied
    with pytest.raises(UnsupportedError, match="cannot be copied"):
        untrained(aw.wrap(net), 0)


REWRITTEN = {
    "weight_norm": nn.utils.weight_norm,
    "spectral_norm": nn.utils.spectral_norm,
    "parametrizations.weight_norm": nn.utils.parametrizations.weight_norm,
    "parametrizations.spectral_norm": nn.utils.parametrizations.spectral_norm,
    "prune": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
}


@pytest.mark.parametrize("kind", REWRITTEN)
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_weights_that_are_made_of_others_become_random_too(kind):
    torch.manual_seed(0)
    layers = [REWRITTEN[kind](nn.Linear(24, 24, bias=False)) for _ in range(4)]
    net = nn.Sequential(*layers).eval()
    x = torch.randn(200, 24)
    assert untrained(aw.wrap(net), 0).net[0].weight.shape == (24, 24)  # also before the first pass, when torch copies no weight made of others
    first = next(value for name, value in layers[0].named_parameters() if name.endswith(("_v", "_orig", "original", "original1")))
    with torch.no_grad():
        first[:, 1:] = 0  # training has thrown these numbers away
        for _ in range(30):  # as training would, so that spectral norms are settled
            net.train()(x)
        net.eval()(x)
        own, state = net(x), {name: value.clone() for name, value in net.state_dict().items()}
        copy = untrained(aw.wrap(net), 0).net
        out = copy(x)
    assert abs(np.corrcoef(own.flatten(), out.flatten())[0, 1]) < 0.3
    assert 0.02 < out.std() / own.std() < 50  # and no weight is divided by a norm of others
    weights = [layer.weight.detach() for layer in copy]
    assert all(not torch.allclose(a, b.weight.detach(), atol=1e-3) for a, b in zip(weights, layers, strict=True))
    assert weights[0][:, 1].norm() > 0.2 * weights[0].norm() / 24**0.5
    if "spectral" in kind:
        for weight in weights:
            assert torch.linalg.matrix_norm(weight, 2) == pytest.approx(1, abs=0.1)
    assert not any(part.training for part in copy.modules())
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_a_way_to_begin_that_needs_to_be_told_something_is_replaced_by_a_shuffle():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.arange(24.0).view(6, 4))

        def reset_parameters(self, scale):
            raise AssertionError("not reached")

        def forward(self, x):
            return x @ self.weight

    net = nn.Sequential(Own(), nn.Linear(4, 2)).eval()
    weight = untrained(aw.wrap(net), 0).net[0].weight
    assert not torch.equal(weight, net[0].weight)
    assert torch.equal(weight.flatten().sort().values, torch.arange(24.0))


# ---- by hand ---------------------------------------------------------------------------------------------------------


def test_a_refit_by_hand_gives_the_same_accuracy():
    net, x, _ = planted(300)
    y = np.digitize(x[:, 2] + 0.5 * x[:, 3], [-0.5, 0.5])
    found = probe(net, x, y, "turned", probes="linear", control=False)
    rows = net.turned(torch.from_numpy(x)).detach().numpy()
    fold = fold_of(y, np.arange(300), 5, [0, 0])
    for f in range(5):
        scaler = StandardScaler().fit(rows[fold != f])
        X, truth, unseen = scaler.transform(rows[fold != f]), y[fold != f], scaler.transform(rows[fold == f])
        part = inner_parts(Rows(X, truth, 3, np.arange(len(X))), f)
        tried = []
        for C in STRENGTHS:
            inner = [LogisticRegression(C=C, tol=1e-6, max_iter=5000).fit(X[part != k], truth[part != k]) for k in range(7)]
            right = np.mean([one.score(X[part == k], truth[part == k]) for k, one in enumerate(inner)])
            tried.append((right, -np.mean([log_loss(truth[part == k], one.predict_proba(X[part == k])) for k, one in enumerate(inner)])))
        C = STRENGTHS[tried.index(max(tried))]
        by_hand = LogisticRegression(C=C, tol=1e-6, max_iter=5000).fit(X, truth).score(unseen, y[fold == f])
        assert found.scores[1, 0, f] == pytest.approx(by_hand, abs=1.01 / 60)
    assert np.abs(found.scores[1, 0] - found.scores[0, 0]).max() < 0.05  # a turn of the input


def test_ridge_by_hand():
    net, x, _ = planted(200)
    y = (x[:, 2] + np.random.default_rng(1).normal(size=200)).astype(float)
    found = probe(net, x, y, "turned", probes="linear", control=False, folds=3)
    rows, fold = net.turned(torch.from_numpy(x)).detach().numpy(), fold_of(y, np.arange(200), 3, [0, 0])
    scaler = StandardScaler().fit(rows[fold != 0])
    X, truth = scaler.transform(rows[fold != 0]), y[fold != 0]
    outs = [Ridge(alpha=1 / C).fit(X, truth).predict(scaler.transform(rows[fold == 0])) for C in STRENGTHS]
    possible = [1 - ((y[fold == 0] - out) ** 2).mean() / y.var() for out in outs]
    assert min(abs(found.scores[1, 0, 0] - one) for one in possible) < 1e-5


def test_the_code_is_that_of_a_slow_textbook(monkeypatch):
    """A probe that only counts, so that every label's probability can be worked out row by row."""
    rng = np.random.default_rng(0)
    y, groups = rng.choice(4, 400, p=[0.6, 0.2, 0.1, 0.1]), rng.integers(60, size=400)

    def counting(rows, measure, seed, hidden):
        share = np.bincount(rows.y, minlength=4) / len(rows.y)
        return probing.Fitted(lambda X: np.tile(share, (len(X), 1)))

    monkeypatch.setitem(probing.PROBES, "linear", counting)
    rows = Rows(rng.normal(size=(400, 3)).astype(np.float32), y, 4, groups)
    order, ends = blocks_of(groups, 0)
    assert sorted(order.tolist()) == list(range(400))
    assert ends[-1] == 400
    bits, sent = 0.0, []
    for k, row in enumerate(order):
        begun = [end for end in ends if end <= k]
        if not begun:
            bits += 2
        else:
            n = begun[-1]
            seen = Counter(sent[:n])
            bits -= np.log2((seen[y[row]] + 1 / 4) / (n + 1))
        sent.append(y[row])
    assert description_length(rows, "linear", 0, ()) == pytest.approx(bits, rel=1e-9)
    for end in ends[:-1]:  # no group is cut by the end of a block
        assert not set(groups[order[:end]]) & set(groups[order[end:]])
    wanted = [max(10, p / 100 * 400) for p in (0.1, 6.25, 12.5, 25, 50, 100)]
    assert all(any(w <= end < w + 60 for end in ends) for w in wanted)


def test_many_classes_in_few_rows_are_coded_without_a_word():
    rng = np.random.default_rng(0)
    y = np.arange(240) % 40
    rows = Rows((np.eye(40)[y] + rng.normal(size=(240, 40)) * 0.01).astype(np.float32), y, 40, np.arange(240))
    assert description_length(rows, "linear", 0, ()) < 240 * np.log2(40)


def test_standard_errors_are_corrected_for_the_shared_rows():
    scores = np.array([[0.8, 0.9, 0.7, 0.85]])
    variance = sum((s - scores.mean()) ** 2 for s in scores[0]) / 3
    assert corrected_error(scores)[0] == pytest.approx(np.sqrt((1 / 4 + 0.25 / 0.75) * variance))


def test_measures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    y, out = rng.integers(4, size=50) % 3, rng.random((50, 5))
    assert probing.balanced_accuracy(y, out[:, :3]) == pytest.approx(balanced_accuracy_score(y, out[:, :3].argmax(1)))
    assert probing.accuracy(y, out[:, :3]) == pytest.approx((out[:, :3].argmax(1) == y).mean())
    r2 = probing.measure_of("r2", out[:, 0])
    assert r2(out[:, 0], out[:, 1]) == pytest.approx(r2_score(out[:, 0], out[:, 1]))
    halves = [r2(out[half, 0], out[half, 1]) for half in (slice(25), slice(25, 50))]  # the mean over folds is that of all rows together
    assert np.mean(halves) == pytest.approx(r2_score(out[:, 0], out[:, 1]))
    assert chance_of(np.array([0, 0, 0, 1]), 2, "accuracy") == 0.75
    assert chance_of(np.array([0, 0, 0, 1]), 2, "balanced_accuracy") == 0.5


def test_a_word_alone_has_its_most_common_tag():
    rng = np.random.default_rng(0)
    types, y, test = rng.integers(40, size=120), rng.integers(3, size=120), rng.random(120) < 0.5
    common = Counter(y[~test].tolist()).most_common(1)[0][0]
    right = 0
    for row in np.flatnonzero(test):
        counts = Counter(y[(types == types[row]) & ~test].tolist())
        right += (min(k for k in counts if counts[k] == max(counts.values())) if counts else common) == y[row]
    assert lookup(types, y, 3, test, probing.accuracy) == pytest.approx(right / test.sum())
    numbers = y.astype(float)
    slow = [
        numbers[(types == types[row]) & ~test].mean() if ((types == types[row]) & ~test).any() else numbers[~test].mean()
        for row in np.flatnonzero(test)
    ]
    r2 = probing.measure_of("r2", numbers[test])
    assert lookup(types, numbers, 0, test, r2) == pytest.approx(r2_score(numbers[test], slow))


def test_a_fold_whose_answers_are_all_equal_has_a_score():
    net, x, _ = planted(60)
    speaker = np.repeat(np.arange(12), 5)
    y = np.repeat([1.5, 2.5] * 3 + [1.5] * 6, 5)
    fold = fold_of(y, speaker, 3, [0, 0])
    assert any(np.ptp(y[fold == f]) == 0 for f in range(3))
    found = probe(net, x, y, "turned", folds=3, groups=speaker, hidden=4, types=np.arange(60) % 5)
    assert np.isfinite(found.scores).all()
    assert np.isfinite(found.std_error).all()
    assert np.isfinite(found.control).all()


@pytest.mark.parametrize("numbers", [False, True])
def test_a_handful_of_items_is_enough_to_fit(numbers):
    net, x, _ = planted(14)
    for n, folds in ((4, 2), (8, 2), (12, 2), (14, 2), (6, 3), (10, 5)):
        y = np.arange(n) % 2 + 0.25 * (x[:n, 0] if numbers else 0)
        found = probe(net, x[:n], y if numbers else y.astype(int), "turned", probes="linear" if n > 6 else ("linear", "mlp"), folds=folds, hidden=4)
        assert np.isfinite(found.scores).all()


def test_of_few_numbers_the_strength_is_chosen_as_by_hand():
    """Parts of a single row, whose own variance is 0."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6, 2)).astype(np.float32)
    y = X[:, 0] * 3 + rng.normal(size=6) * 0.1
    rows = Rows(X, y, 0, np.arange(6))
    wrong = [
        sum(float((Ridge(alpha=1 / C).fit(np.delete(X, k, 0), np.delete(y, k)).predict(X[k : k + 1])[0] - y[k]) ** 2) for k in range(6))
        for C in STRENGTHS
    ]
    best = Ridge(alpha=1 / STRENGTHS[int(np.argmin(wrong))]).fit(X.astype(np.float64), y)
    assert int(np.argmin(wrong)) > 0
    np.testing.assert_allclose(probing.linear(rows, probing.measure_of("r2", y), 0, ()).predict(X), best.predict(X), atol=1e-4)


# ---- folds -----------------------------------------------------------------------------------------------------------


def test_groups_are_never_on_both_sides():
    """Each group has its own random answer and its own place: who sees a part of it knows the rest."""
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(60), 6))
    x = (rng.normal(size=(60, 40))[group] + rng.normal(size=(360, 40)) * 0.01).astype(np.float32)
    y = rng.integers(2, size=60)[group]
    net = nn.Sequential(nn.Linear(40, 40)).eval()
    options = {"probes": "linear", "control": False, "folds": 4}
    leaky = probe(net, x, y, **options)
    kept = probe(net, x, y, **options, groups=[f"speaker {k}" for k in group])
    assert leaky.values.min() > 0.9
    assert kept.values.max() < 0.7
    for seed in range(5):
        fold = fold_of(y, group, 5, seed)
        assert all(len(np.unique(fold[group == k])) == 1 for k in range(60))
        held = inner_parts(Rows(x, y, 2, group), seed) == 0
        assert all(len(np.unique(held[group == k])) == 1 for k in range(60))
        assert 0.05 < held.mean() < 0.25


def test_single_rows_are_dealt_out_so_that_each_fold_has_its_share():
    y = np.repeat([0, 1, 2], [70, 25, 5])
    fold = fold_of(y, np.arange(100), 5, 0)
    assert all(np.bincount(y[fold == f]).tolist() == [14, 5, 1] for f in range(5))
    assert not np.array_equal(fold, fold_of(y, np.arange(100), 5, 1))


def test_constant_columns_become_zero_and_others_have_mean_0_and_variance_1():
    x = np.c_[np.full(50, 0.1), np.random.default_rng(0).normal(3, 2, 50)].astype(np.float32)
    train, unseen = probing.scaled(x, x + 1)
    assert np.abs(train[:, 0]).max() == 0
    assert np.abs(unseen[:, 0]).max() == 0
    assert train[:, 1].mean() == pytest.approx(0, abs=1e-6)
    assert train[:, 1].std() == pytest.approx(1, abs=1e-6)


def test_seeds_say_everything_and_nothing_changes():
    net, x, y = planted(60)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    first, again, other = (probe(net, x, y, "turned", probes="mlp", hidden=8, folds=2, seed=seed, control=False) for seed in (1, 1, 2))
    assert replace(first, seconds=0) == replace(again, seconds=0)
    assert not np.array_equal(first.scores, other.scores)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    with torch.inference_mode():
        assert np.array_equal(probe(net, x, y, "turned", probes="mlp", hidden=8, folds=2, seed=1, control=False).scores, first.scores)


# ---- words -----------------------------------------------------------------------------------------------------------

STEMS = [a + b for a in "bdgklmnprst" for b in "aeiou"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *STEMS, *(f"##{one}" for one in STEMS), "the", "to"]


def tiny_bert() -> aw.models.Model:
    made = Tokenizer(models.WordPiece({word: k for k, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=64, model_input_names=["input_ids", "attention_mask"], **names)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 64}
    return aw.wrap(BertModel(BertConfig(vocab_size=len(VOCABULARY), **sizes)).eval(), tokenizer=tokenizer)


def sentences(n: int = 60) -> tuple[list[list[str]], list[list[str]]]:
    """After "to" any stem is a verb, after "the" a noun, so that the word alone tells nothing."""
    rng = np.random.default_rng(0)
    X, y = [], []
    for _ in range(n):
        before = rng.choice(["the", "to"], rng.integers(1, 5))
        X.append([word for one in before for word in (str(one), "".join(rng.choice(STEMS[:12], rng.integers(1, 4))))])
        y.append([tag for one in before for tag in ("DET" if one == "the" else "PART", "NOUN" if one == "the" else "VERB")])
    return X, y


def test_a_word_is_the_mean_of_its_pieces():
    model, (X, y) = tiny_bert(), sentences(12)
    words = words_of(X, y)
    from askwhy.inside.probe_rows import read_words

    for pieces, of in (("mean", lambda v: v.mean(0)), ("first", lambda v: v[0]), ("last", lambda v: v[-1])):
        found = read_words(model, words, "embeddings", pieces, "auto", None)
        row = 0
        for own in X:
            ids = model.tokenizer(" ".join(own), return_tensors="pt")
            out = model.net.embeddings(ids["input_ids"]).detach().numpy()[0, 1:-1]
            for word in own:
                count = len(word) // 2 if word not in ("the", "to") else 1
                np.testing.assert_allclose(found.layers["embeddings"][row], of(out[:count]), rtol=1e-4, atol=1e-6)
                out, row = out[count:], row + 1
        assert row == len(found.types) == found.rows
    flat = [word for own in X for word in own]
    pairs = {(word, int(kind)) for word, kind in zip(flat, found.types, strict=True)}
    assert len(pairs) == len(set(flat)) == len(set(found.types.tolist()))


def test_tags_of_words_are_probed_with_their_control():
    found = probe(tiny_bert(), *sentences(), probes="linear", folds=2)
    assert found.layers == ("input", "embeddings", "encoder.layer.0", "encoder.layer.1")  # the pooler has no row for each word
    assert found.control_kind == "types"
    assert found.details["of"] == "words"
    assert np.isnan(found.bits[0]).all()
    assert found.values[0, 0] < 0.85  # a word alone does not tell
    assert "words in 4 classes" in found.summary()
    assert found.model_calls == 122  # 60 sentences, once to find where tokens are looked up, and two to see which layers count the items
    lines = found.table()
    assert len(lines) == 4
    assert lines[1]["layer"] == "embeddings"
    assert lines[1]["selectivity"] == pytest.approx(lines[1]["score"] - lines[1]["control"])


def test_equal_sentences_stay_together_and_so_do_groups():
    words = words_of([["a", "b"], ["c"], ["a", "b"], ["d"]], [["x", "y"], ["x"], ["x", "y"], ["y"]])
    plain = words.groups_in(None)
    assert plain[0] == plain[1] == plain[3] == plain[4]
    assert len(set(plain.tolist())) == 3
    both = words.groups_in(["one", "one", "two", "two"])  # the equal sentences tie the groups
    assert len(set(both.tolist())) == 1
    assert len(set(words.groups_in(["one", "one", "one", "two"]).tolist())) == 2


def test_strings_are_cut_at_spaces_and_words_with_spaces_stay_whole():
    model = tiny_bert()
    words = words_of(["the ba", ["da go", "to"]], [["x", "y"], ["x", "y"]])
    items = model.prepare(words.texts)
    assert owners_of(words, 0, items, 0)[:4].tolist() == [-1, 0, 1, -1]
    assert owners_of(words, 1, items, 1).tolist() == [-1, 0, 0, 1, -1]


@pytest.mark.parametrize(
    ("X", "y", "said"),
    [
        ([["a", "b"], ["a"]], [["x", "y"], ["x", "y"]], "sentence 1 has 1 words and 2 tags"),
        (["a b"], [["x", "y"], ["x"]], "tags for 2 sentences, and X is 1 sentences"),
        ([["a", " "]], [["x", "y"]], "word 1 of sentence 0 is empty"),
    ],
)
def test_sentences_that_do_not_fit_are_refused(X, y, said):
    with pytest.raises(InputError, match=said):
        probe(tiny_bert(), X, y)


def test_what_words_need():
    X, y = sentences(12)
    with pytest.raises(InputError, match=r"reads no words; give askwhy.wrap\(net, tokenizer="):
        probe(planted()[0], X, y)
    with pytest.raises(InputError, match="no token of word 1 of sentence 0"):
        probe(tiny_bert(), [["to", "\u200b"], *X], [["x", "y"], *y])
    with pytest.raises(LayerError, match="no row for each word"):
        probe(tiny_bert(), X, y, "pooler")
    with pytest.raises(InputError, match="pieces='sum'"):
        probe(tiny_bert(), X, y, pieces="sum")
    with pytest.raises(InputError, match="12 sentences are too few for folds=7"):
        probe(tiny_bert(), X, y, folds=7)
    with pytest.raises(InputError, match="groups= has 3 entries for 12 sentences"):
        probe(tiny_bert(), X, y, groups=[1, 2, 3])


# ---- items of other kinds ---------------------------------------------------------------------------------------------


def test_texts_and_pictures_as_items(net):
    X, _ = sentences(40)
    found = probe(tiny_bert(), [" ".join(one) for one in X], ["to" in one for one in X], "encoder.layer.0", probes="linear", folds=2)
    assert found.layers == ("input", "encoder.layer.0")
    assert found.values[0, 0] > 0.7  # counts of word pieces
    pictures = torch.rand(40, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    pictures[::2, 0] += 0.5
    seen = probe(net, pictures, [k % 2 for k in range(40)], ["0", "4"], probes="linear", folds=4, control=False)
    assert seen.values.min() > 0.9


class Epochs(torch.utils.data.Sampler):
    """Another order each time it is gone through."""

    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return 120

    def __iter__(self):
        self.epoch += 1
        return iter(np.random.default_rng(self.epoch).permutation(120).tolist())


def test_items_are_gone_through_once_whatever_the_control():
    net, x, y = planted(120)
    net = net.double()
    asked = {"layer": ["open", "lost"], "probes": "linear", "folds": 3}
    whole = probe(net, x.astype(np.float64), y, **asked)
    assert whole.control_kind == "untrained"
    once = probe(net, (torch.from_numpy(x[k : k + 50]) for k in range(0, 120, 50)), y, **asked)
    assert np.array_equal(once.scores, whole.scores)
    assert np.array_equal(once.control[1:], whole.control[1:])
    order = np.random.default_rng(1).permutation(120)
    told = []
    turned = probe(
        net, torch.utils.data.DataLoader(list(zip(x, y, strict=True)), batch_size=50, sampler=Epochs()), y[order], **asked,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    straight = probe(net, x[order], y[order], **asked)
    assert np.array_equal(turned.scores, straight.scores)
    assert np.array_equal(turned.control[1:], straight.control[1:])
    assert turned.model_calls == 240
    assert told == sorted(told, key=lambda one: one[0])
    assert told[-1][0] == told[-1][1]


def test_only_a_piece_of_the_items_is_held_at_a_time():
    net, rng, held, most = nn.Sequential(nn.Linear(5000, 3)).eval(), np.random.default_rng(0), weakref.WeakSet(), []

    def batches():
        for _ in range(12):
            most.append(len(held))
            held.add(batch := torch.from_numpy(rng.normal(size=(10, 5000)).astype(np.float32)))
            yield batch
            del batch

    probe(net, batches(), np.arange(120) % 2, "0", probes="linear", folds=2)
    assert max(most) <= 3


def test_complex_numbers_are_their_real_and_imaginary_parts():
    class Wave(nn.Module):
        def forward(self, x):
            return x[:, :1] + 1j * x[:, 1:2]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wave, self.line = Wave(), nn.Linear(1, 1)

        def forward(self, x):
            return self.line(self.wave(x).imag)

    x = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    found = probe(Net().eval(), x, x[:, 1] > 0, "wave", probes="linear", folds=3, control=False)
    assert found.values[1, 0] > 0.9


def test_batches_without_a_length_and_the_wrong_number_of_answers():
    net, x, y = planted(120)
    batches = torch.utils.data.DataLoader(list(zip(x, y, strict=True)), batch_size=50)
    found = probe(net, batches, y, "open", probes="linear", control=False)
    assert np.array_equal(found.scores, probe(net, x, y, "open", probes="linear", control=False).scores)
    with pytest.raises(InputError, match="y holds 119 answers for 120 items"):
        probe(net, batches, y[:-1], "open")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"y": [1.5] * 120}, "y is 1.5 everywhere"),
        ({"y": [0, 1] * 59 + [2, 2]}, "class '2' has 2 items, and folds=5"),
        ({"y": [0, 1] * 50}, "y holds 100 answers for 120 items"),
        ({"y": [0.5, float("nan")] * 60}, r"y\[1\] is nan"),
        ({"y": [0.0, 1.0] * 60}, "say task='classes' or task='numbers'"),
        ({"y": ["a", 1] * 60}, "y mixes number and str"),
        ({"y": ["a", "b"] * 60, "task": "numbers"}, r"y\[0\] is 'a', which is no number"),
        ({"task": "ranks"}, "task='ranks'"),
        ({"y": [["a"], "b"] * 60}, "X is a ndarray"),
        ({"probes": ("linear", "tree")}, "'tree'"),
        ({"probes": ()}, "choose of 'linear', 'mlp'"),
        ({"folds": 1}, "folds=1"),
        ({"hidden": 0}, "hidden=0"),
        ({"hidden": ()}, "without one it is the linear probe"),
        ({"seed": -1}, "seed=-1"),
        ({"score": "r2"}, "score='r2': y holds classes"),
        ({"control": "labels"}, "control='labels'"),
        ({"control": 1}, "control=1: choose"),
        ({"control": 0}, "control=0: choose"),
        ({"y": list(torch.arange(240).view(120, 2))}, r"y\[0\] is a Tensor"),
        ({"control": "types"}, "needs the type of each item"),
        ({"types": range(120)}, "120 types for 120 rows"),
        ({"types": range(3)}, r"types= has the shape \[3\] for 120 rows"),
        ({"groups": [1, 2, 3]}, "groups= has 3 entries for 120 items"),
        ({"groups": [1, 2] * 60}, "2 items or groups are too few for folds=5"),
        ({"pool": "sum"}, "pool='sum'"),
        ({"layer": "opne"}, "did you mean"),
    ],
)
def test_what_makes_no_sense_is_refused(change, said):
    net, x, y = planted(120)
    given = {"y": y, **change}
    with pytest.raises((InputError, LayerError), match=said):
        probe(net, x, given.pop("y"), **given)


def test_layers_that_give_no_numbers_and_models_without_layers_are_refused():
    net, x, y = planted(40)
    with torch.no_grad():
        net.lost.bias[0] = torch.nan
    with pytest.raises(LayerError, match="layer 'lost' gives NaN"):
        probe(net, x, y, "lost", folds=2)
    with pytest.raises(ModelError, match="training mode"):
        probe(net.train(), x, y)
    with pytest.raises(UnsupportedError, match="layers"):
        probe(lambda rows: rows, x, y)


def test_truth():
    codes, names = truth_of(np.array(["b", "a", "b"]), None)
    assert (codes.tolist(), names) == ([1, 0, 1], ("a", "b"))
    assert truth_of(torch.tensor([3, 1, 3]), None)[1] == ("1", "3")
    assert truth_of([0.0, 1.0], "classes")[1] == ("0.0", "1.0")
    assert truth_of([1, 2, 2], "numbers")[0].dtype == np.float64
    assert truth_of(list(torch.tensor([3, 1, 3])), None)[1] == ("1", "3")
    assert truth_of([np.bool_(True), False], None)[1] == ("False", "True")
    for halves in ([np.float32(0.5), np.float32(1.5)], list(torch.tensor([0.5, 1.5])), [np.array(0.5), np.array(1.5)]):
        found, names = truth_of(halves, None)
        assert (found.tolist(), names) == ([0.5, 1.5], ())


def test_one_answer_for_most_rows_is_said():
    net, x, _ = planted(200)
    found = probe(net, x, x[:, 2] > 1, "turned", probes="linear", control=False, folds=3)
    assert any("score='balanced_accuracy'" in one for one in found.cautions)
    fair = probe(net, x, x[:, 2] > 1, "turned", probes="linear", control=False, folds=3, score="balanced_accuracy")
    assert fair.chance == 0.5
    assert not any("balanced" in one for one in fair.cautions)


def test_progress_counts_to_its_end_and_can_stop():
    net, x, y = planted(80)
    seen = []
    probe(net, x, y, "open", probes="linear", folds=2, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    assert all(a[0] <= b[0] for a, b in pairwise(seen))
    with pytest.raises(Cancelled):
        probe(net, x, y, "open", folds=2, progress=lambda done, total: done < 8)
    assert not any(module._forward_hooks for module in net.modules())


def test_what_is_saved_comes_back(found, tmp_path):
    assert Probe.load(found.save(tmp_path / "probe.npz")) == found
    for one in (
        probe(*planted(60), "open", folds=2, hidden=4),
        probe(planted(60)[0], planted(60)[1], planted(60)[1][:, 0], "open", folds=2, hidden=4),
        probe(*planted(60), "open", folds=np.int64(2), hidden=np.int64(4), seed=np.int64(1), batch_size=np.int64(9)),
    ):
        assert Probe.load(one.save(tmp_path / "other.npz")) == one
    with pytest.raises(FileError):
        Probe.load(tmp_path / "nothing.npz")


def test_pictures_and_words_about_it(found):
    ax = found.plot()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["linear probe", "MLP probe", "chance (the most common answer)"]
    line = next(line for line in ax.lines if line.get_label() == "linear probe")
    np.testing.assert_allclose(line.get_ydata(), found.values[1:, 0])
    assert [text.get_text() for text in ax.get_xticklabels()] == list(found.layers)
    assert ax.get_ylabel() == "accuracy on unseen rows"
    assert "chance 0." in found.summary()
    assert "<img" in found._repr_html_()
    assert repr(found).startswith("<Probe of 4 layers by linear, mlp")
    with pytest.raises(InputError, match="probe='tree'"):
        found.best("tree")


@pytest.mark.slow
def test_linear_probes_of_parts_of_speech_are_more_selective_by_ten_points():
    from askwhy.zoo_tags import read_tags

    X, y = read_tags()
    assert (len(X), sum(map(len, X)), len({tag for tags in y for tag in tags})) == (1001, 25026, 44)
    found = probe(aw.zoo.load("minilm-sentiment"), X, y, "encoder.encoder.layer.2", hidden=1000, folds=2)
    linear, mlp = found.selectivity[1]
    assert linear > mlp + 0.1
    assert found.values[1].min() > 0.9


@pytest.mark.slow
def test_the_example_prints_its_table_and_draws_the_curve(tmp_path):
    script = Path(__file__).parent.parent / "examples/probe_tags.py"
    said = subprocess.run([sys.executable, script, "--quick", "--out", tmp_path / "tags.jpg"], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in said.splitlines() if "±" in line]
    assert [row[:2] for row in rows] == [
        [layer, name] for layer in ("input", "encoder.embeddings", "encoder.encoder.layer.2") for name in ("linear", "mlp")
    ]
    assert all(0.5 < float(row[2]) < 1 for row in rows)
    assert (tmp_path / "tags.jpg").stat().st_size > 20_000


@pytest.mark.parametrize("seed", [4, 5, 7])
def test_of_few_rows_every_strength_is_tried(seed):
    """What lies along small axes is not seen under a strong penalty, where scores fall and rise by chance."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(8), 16))
    X = np.float32(rng.normal(size=(128, 1)) + 0.03 * rng.normal(size=(128, 8)) + 0.03 * np.eye(8)[y])
    found = probing.linear(Rows(X, y, 8, np.arange(128)), probing.accuracy, 0, ())
    assert STRENGTHS[-1] == found.model.C
    assert (found.predict(X).argmax(1) == y).mean() > 0.3
