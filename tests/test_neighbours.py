"""A word in sentences: found where it stands, its vectors those of a forward pass, similarities and senses as in the textbook."""

from __future__ import annotations

import itertools
from dataclasses import replace
from unicodedata import normalize

import numpy as np
import pytest
import torch
from test_text import bert, word_pieces
from torch import nn
from transformers import PreTrainedTokenizerFast

import askwhy as aw
from askwhy import show
from askwhy.errors import Cancelled, InputError, LayerError, UnsupportedError
from askwhy.inside import alike
from askwhy.inside.neighbours import Neighbours, embedding_neighbours
from askwhy.inside.occurrences import Vectors, occurrences_of, read_sentences

SENTENCES = ["a great film, not long.", "not sad, not bad.", "Film too long", "bad bad film, sadly", "a long, great, great film"]
LAYERS = ["bert.embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1"]
GROUPS = ["good", "good", "bad", "bad", "good"]


@pytest.fixture(scope="module")
def model() -> aw.models.Model:
    return aw.wrap(bert(), tokenizer=word_pieces())


@pytest.fixture(scope="module")
def found(model) -> Neighbours:
    return embedding_neighbours(model, ["film", "not", "film", "bad", "great"], SENTENCES, LAYERS, groups=GROUPS)


def vectors(model, text: str, layer: str) -> torch.Tensor:
    """[tokens, d], one sentence at a time."""
    given, kept = model.tokenizer([text], return_tensors="pt"), []
    handle = model.net.get_submodule(layer).register_forward_hook(lambda module, args, out: kept.append(out))
    with torch.no_grad():
        model.net(**given)
    handle.remove()
    return kept[0][0]


# ---- where the word stands ------------------------------------------------------------------------------------------


def spans(word, *texts) -> list[tuple[int, int, int]]:
    return [(one.owner, one.start, one.stop) for one in occurrences_of(word, list(texts))]


def test_a_word_is_found_whole_and_whatever_its_case():
    assert spans("apple", "Apple pie, an apple.", "the APPLE") == [(0, 0, 5), (0, 14, 19), (1, 4, 9)]
    assert spans("apple", "apples and an apple", "(apple)") == [(0, 14, 19), (1, 1, 6)]
    assert spans("c++", "c++ is c++, not c", "C++") == [(0, 0, 3), (0, 7, 10), (1, 0, 3)]
    assert spans("New York", "new york, New York") == [(0, 0, 8), (0, 10, 18)]


def test_a_chinese_word_needs_no_spaces_around_it():
    assert spans("果", "我吃苹果。", "结果很好,苹果") == [(0, 3, 4), (1, 1, 2), (1, 6, 7)]
    assert spans("apple", "我有apple手机", "一个apple") == [(0, 2, 7), (1, 2, 7)]


def test_a_sign_with_a_mark_is_another_sign():
    assert spans("कम", "यह कमी है, कम", "कम") == [(0, 11, 13), (1, 0, 2)]
    assert spans("मी", "कमी, मी", "मी") == [(0, 5, 7), (1, 0, 2)]
    assert spans("म", "की म, कीम", "म") == [(0, 3, 4), (1, 0, 1)]  # behind a mark as well
    assert spans("कमी", "कमीज, कमी", "कमी") == [(0, 6, 9), (1, 0, 3)]
    assert spans("か", "か\u309aとか", "か") == [(0, 3, 4), (1, 0, 1)]  # a sign that Unicode has no one number for
    cafes = "le café, a cafe"
    apart = normalize("NFD", cafes)
    assert spans("cafe", cafes, apart) == [(0, 11, 15), (1, 12, 16)]
    for word in ("café", normalize("NFD", "café"), "CAFÉ"):
        assert spans(word, cafes, apart) == [(0, 3, 7), (1, 3, 8)]
    assert spans("사과", "사과 하나", normalize("NFD", "큰 사과")) == [(0, 0, 2), (1, 4, 8)]
    assert normalize("NFD", "큰 사과")[4:8] == normalize("NFD", "사과")


def test_sentences_and_words_may_come_one_by_one(model):
    texts = ["a film", "great film"]
    once = embedding_neighbours(model, "film", (one for one in texts), LAYERS)
    assert replace(once, seconds=0) == replace(embedding_neighbours(model, "film", texts, LAYERS), seconds=0)
    assert spans((one for one in ["film", (6, 10)]), *texts) == [(0, 2, 6), (1, 6, 10)]


def test_each_sentence_may_have_its_own_form_or_place():
    assert spans(["mice", (4, 9)], "mice and mice", "the mouse") == [(0, 0, 4), (0, 9, 13), (1, 4, 9)]


@pytest.mark.parametrize(
    ("word", "sentences", "said"),
    [
        ("pear", ["a pear", "two pears"], r"sentence 1 \('two pears'\) has no 'pear' as a word of its own; .* list"),
        ("pear", ["a pear"], "there is 1 occurrence"),
        ("pear", "a pear", "sentences= has to be a list of texts"),
        (["pear"], ["a pear", "a pear"], "word= names 1 words for 2 sentences"),
        ([(2, 9), "pear"], ["a pear", "a pear"], r"word\[0\]=\(2, 9\) is no place in sentence 0, which has 6 signs"),
        ([(1, 2), "pear"], ["a pear", "a pear"], "is no place in sentence 0"),
        (" ", ["a b", "a"], "word=' ': give a word"),
        (["a", 3], ["a b", "a"], "word=3: give a word"),
        (None, ["a b", "a"], "word=None: give a word"),
        (3, ["a b", "a"], "word=3: give a word"),
        ("a", None, "sentences= has to be a list of texts"),
        ("a", [], "sentences= has to be a list of texts"),
    ],
)
def test_a_word_that_is_not_there_is_refused(word, sentences, said):
    with pytest.raises(InputError, match=said):
        occurrences_of(word, read_sentences(sentences))


# ---- what the layers give -------------------------------------------------------------------------------------------


def test_vectors_are_the_mean_of_the_words_pieces_in_a_forward_pass(model):
    found = embedding_neighbours(model, "sadly", ["a film, sadly long.", "sadly, bad", "bad, sadly too long"], LAYERS)
    assert found.pieces == ("sad ly",) * 3
    for layer in LAYERS:
        places = [(4, 5), (1, 2), (3, 4)]  # behind [CLS]
        own = torch.stack([vectors(model, text, layer)[list(at)].mean(0) for text, at in zip(found.sentences, places, strict=True)]).numpy()
        wanted = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in own] for a in own]
        assert np.allclose(found[layer], wanted, atol=1e-5)
    assert np.array_equal(found.similarity, found.similarity.transpose(0, 2, 1))


def test_every_occurrence_is_listed_in_its_order(found):
    assert found.owners.tolist() == [0, 1, 1, 2, 3, 3, 4, 4]
    assert [found.snippet(k) for k in (0, 2, 3)] == ["a great [film], not long.", "not sad, [not] bad.", "[Film] too long"]
    assert found.groups == ("good", "good", "good", "bad", "bad", "bad", "good", "good")
    assert len(found) == 8


def test_the_nearest_are_the_most_alike_others(found):
    for k, layer in itertools.product(range(8), LAYERS):
        others = sorted((j for j in range(8) if j != k), key=lambda j: -found[layer][k, j])
        assert [name for name, _ in found.near(k, layer)] == [found.snippet(j) for j in others[:5]]
        assert found.near(k, layer)[0][1] == found[layer][k, others[0]]
    assert found.near(3) == found.near(3, LAYERS[-1])


def test_other_words_are_those_of_other_sentences(model, found):
    """All of them here, since there are few."""
    for k, layer in enumerate(LAYERS):
        rows, owners = [], []
        for s, text in enumerate(SENTENCES):
            taken = {place for one, owner in zip(found.spans, found.owners, strict=True) if owner == s for place in tokens_in(model, text, one)}
            special = {0, len(model.tokenizer([text])["input_ids"][0]) - 1}
            held = [vector for place, vector in enumerate(vectors(model, text, layer).numpy()) if place not in taken | special]
            rows += held
            owners += [s] * len(held)
        pairs = [
            a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            for (a, i), (b, j) in itertools.combinations(zip(rows, owners, strict=True), 2) if i != j
        ]  # fmt: skip
        assert found.baseline[k] == pytest.approx(np.mean(pairs), abs=1e-5)
    centred = embedding_neighbours(model, ["film", "not", "film", "bad", "great"], SENTENCES, LAYERS, groups=GROUPS, centred=True)
    own = [vectors(model, SENTENCES[0], layer)[3].numpy() - np.mean(rows, 0), vectors(model, SENTENCES[2], layer)[1].numpy() - np.mean(rows, 0)]
    assert centred[layer][0, 3] == pytest.approx(own[0] @ own[1] / np.linalg.norm(own[0]) / np.linalg.norm(own[1]), abs=1e-5)
    left = np.array(rows) - np.mean(rows, 0)
    left, owners = left / np.linalg.norm(left, axis=1)[:, None], np.array(owners)
    assert centred.baseline[-1] == pytest.approx((left @ left.T)[owners[:, None] != owners].mean(), abs=1e-5)
    assert "mean vector of other words was removed" in centred.summary()


def tokens_in(model, text: str, span: np.ndarray) -> list[int]:
    offsets = model.tokenizer([text], return_offsets_mapping=True)["offset_mapping"][0]
    return [place for place, (start, stop) in enumerate(offsets) if start < span[1] and stop > span[0] and stop > start]


def test_sentences_are_read_in_pieces_as_one_by_one(model):
    texts = [f"{'too ' * (k % 5)}long film{', sad' * (k % 3)}" for k in range(70)]  # more than one load
    whole, single = (embedding_neighbours(model, "film", texts, LAYERS[1:], batch_size=size) for size in (16, 5))
    assert np.allclose(whole.similarity, single.similarity, atol=1e-5)
    assert np.allclose(whole.baseline, single.baseline, atol=1e-5)


def test_none_is_the_main_stages_that_have_tokens(model):
    found = embedding_neighbours(model, "film", SENTENCES[:1] + SENTENCES[2:])
    assert found.layers == tuple(LAYERS)
    with pytest.raises(LayerError, match="no vector for each token"):
        embedding_neighbours(model, "film", SENTENCES[:1] + SENTENCES[2:], "bert.pooler")


# ---- senses ---------------------------------------------------------------------------------------------------------


def test_senses_equal_the_textbook(found):
    pairs = [(i, j) for i, j in itertools.combinations(range(8), 2) if found.owners[i] != found.owners[j]]
    for k, layer in enumerate(LAYERS):

        def mean(same: bool, without: int = -1, layer=layer) -> float:
            held = [p for p in pairs if without not in found.owners[list(p)] and (found.groups[p[0]] == found.groups[p[1]]) == same]
            return float(np.mean([found[layer][p] for p in held]))

        gaps = [mean(True, s) - mean(False, s) for s in range(5)]
        assert (found.same[k], found.different[k]) == pytest.approx((mean(True), mean(False)))
        assert found.gap[k] == pytest.approx(mean(True) - mean(False))
        assert found.gap_error[k] == pytest.approx(np.sqrt(4 / 5 * ((np.array(gaps) - np.mean(gaps)) ** 2).sum()))


def planted(gap: float, seed: int, m: int = 12) -> tuple[np.ndarray, list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    senses, owners = np.arange(m) % 2, np.arange(m)
    rows = rng.normal(size=(m, 20)) + gap * np.random.default_rng(9).normal(size=(2, 20))[senses] + 1
    return alike.cosines(rows, "x"), [f"sense {k}" for k in senses], owners


def test_senses_that_are_apart_are_found_and_others_are_not():
    assert alike.senses(*planted(1.0, 0), seed=0).p_value < 0.01
    values = [alike.senses(*planted(0, seed), seed=0).p_value for seed in range(80)]
    assert np.mean(np.array(values) < 0.1) < 0.2
    assert 0.35 < np.mean(values) < 0.65


def test_the_error_of_the_gap_is_its_deviation_between_samples():
    found = [alike.senses(*planted(0.7, seed), seed=0) for seed in range(60)]
    for name in ("same", "different", "gap"):
        told = np.mean([getattr(one, f"{name}_error") for one in found]) / np.std([getattr(one, name) for one in found])
        assert 0.75 < told < 1.9, name  # twice the variance where chance alone decides (Efron & Stein 1981)


def test_the_p_value_counts_every_way_to_share_out_the_senses():
    """Of four sentences, two of each sense, there are three ways, so that no p-value is below a third."""
    similarity, groups, owners = planted(3.0, 0, m=4)
    assert alike.senses(similarity, groups, owners, 0).p_value == pytest.approx(1 / 3, abs=0.05)


def test_shuffles_without_a_pair_of_one_sense_say_nothing():
    """Two occurrences in one sentence and one in another: of the three ways to share out the senses, two have a pair of one sense."""
    rows = np.array([[1, 0], [0, 1], [1, 0.1]])
    similarity, groups, owners = alike.cosines(rows, "x"), ["a", "b", "a"], np.array([0, 0, 1])
    every = [alike.means(similarity, np.array(one), owners)[2] for one in sorted(set(itertools.permutations(groups)))]
    real = [gap for gap in every if not np.isnan(gap)]
    assert len(real) == 2 < len(every)
    wanted = np.mean([gap >= alike.means(similarity, np.array(groups), owners)[2] for gap in real])
    assert alike.senses(similarity, groups, owners, 0).p_value == pytest.approx(wanted, abs=0.06)


def test_two_places_in_one_sentence_are_no_evidence():
    similarity, groups, owners = planted(0, 0)
    owners = owners // 2 * 2
    groups = [groups[k] for k in owners]
    alike_there = np.where(owners[:, None] == owners, 1.0, similarity)
    assert alike.senses(alike_there, groups[:6] + ["other"] * 6, owners, 0) == alike.senses(similarity, groups[:6] + ["other"] * 6, owners, 0)


def test_a_sense_for_each_occurrence(model):
    texts = ["film, film", "a film", "great film"]
    each = embedding_neighbours(model, "film", texts, LAYERS[1], groups=["a", "b", "a", "b"])
    assert each.groups == ("a", "b", "a", "b")
    assert each.params["shuffled over"] == "occurrences"
    assert embedding_neighbours(model, "film", texts, LAYERS[1], groups=["a", "a", "b"]).params["shuffled over"] == "sentences"


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"groups": ["a", "b"]}, "groups= names 2 senses for 3 sentences"),
        ({"groups": ["a", None, "b"]}, r"groups\[1\] is None"),
        ({"groups": ["a", "b", "c"]}, "no two sentences share a sense"),
        ({"groups": ["a"] * 3}, "all sentences have one sense"),
        ({"k": 3}, "k=3: give a whole number from 1 to 2, less than the 3"),
        ({"seed": -1}, "seed=-1"),
        ({"layers": "bert.encoder.layr.1"}, "did you mean"),
    ],
)
def test_what_is_refused(model, given, said):
    with pytest.raises((InputError, LayerError), match=said):
        embedding_neighbours(model, "film", ["a film", "great film", "bad film"], **given)


def test_a_word_that_the_tokenizer_does_not_know_is_refused(model):
    with pytest.raises(InputError, match=r"does not know '果' in sentence 0: it reads \[UNK\]"):
        embedding_neighbours(model, "果", ["苹果很好", "电影, 果"])
    assert embedding_neighbours(model, "好", ["苹果很好", "好电影"], LAYERS).pieces == ("好", "好")


def test_models_without_words_are_refused(model):
    with pytest.raises(InputError, match="this model reads no words"):
        embedding_neighbours(nn.Linear(3, 2).eval(), "film", SENTENCES[:1] * 2)

    class Slow(PreTrainedTokenizerFast):
        is_fast = False

    slow = word_pieces()
    slow.__class__ = Slow
    with pytest.raises(UnsupportedError, match="does not say where its tokens stand"):
        embedding_neighbours(aw.wrap(model.net, tokenizer=slow), "film", ["a film", "great film"])
    with pytest.raises(InputError, match="centred=True removes the mean vector of other words, and the sentences hold 0"):
        embedding_neighbours(model, "film", ["film", "film"], centred=True)
    assert "there are no other words" in embedding_neighbours(model, "film", ["film", "film"], LAYERS).summary()
    with pytest.raises(LayerError, match="only zeros for occurrence 1"):
        alike.cosines(np.array([[1.0, 2.0], [0, 0]]), "x")


def test_progress_can_stop(model):
    steps = []
    embedding_neighbours(model, "film", ["a film", "bad film"], progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (2, 2)
    with pytest.raises(Cancelled):
        embedding_neighbours(model, "film", ["a film", "bad film"], progress=lambda done, total: False)
    assert not any(module._forward_hooks for module in model.net.modules())


# ---- the result -----------------------------------------------------------------------------------------------------


def test_it_is_kept_as_it_is(found, model, tmp_path):
    assert Neighbours.load(found.save(tmp_path / "near")) == found
    plain = embedding_neighbours(model, "film", ["a film", "bad film"], LAYERS)
    assert Neighbours.load(plain.save(tmp_path / "plain")) == plain != found
    counted = embedding_neighbours(model, "film", ["a film", "bad film"], LAYERS, seed=np.int64(3), batch_size=np.int64(1))
    assert Neighbours.load(counted.save(tmp_path / "counted")) == counted
    assert repr(found) == "<Neighbours of 8 occurrences, bert.embeddings, bert.encoder.layer.0, bert.encoder.layer.1>"
    assert "data:image/png" in found._repr_html_()
    assert found.model_calls == 10  # five sentences, once to find where their tokens are looked up
    with pytest.raises(LayerError, match="did you mean 'bert.embeddings'"):
        found["embeddings"]
    with pytest.raises(InputError, match="k=8: there are 8"):
        found.near(8)


def test_the_summary_says_how_sure_it_is(found):
    said = found.summary()
    assert f"gap {found.gap[1]:.3f} (standard error {found.gap_error[1]:.3f}, p {found.p_value[1]:.3g})" in said
    assert f"any two other words {found.baseline[2]:.3f}" in said
    assert "senses shuffled over sentences" in said
    assert "Ethayarajh" in said


def test_the_map_shows_the_senses_together(found):
    ax = found.plot(LAYERS[1])
    shown = np.ma.getdata(ax.images[0].get_array())
    order = [0, 1, 2, 6, 7, 3, 4, 5]
    wanted = found[LAYERS[1]][np.ix_(order, order)]
    off = ~np.eye(8, dtype=bool)
    assert np.allclose(shown[off], wanted[off])
    assert np.isnan(np.diag(shown)).all()
    assert ax.images[0].norm.vmin == -ax.images[0].norm.vmax
    names = [text.get_text() for text in ax.texts if text.get_text().endswith("]")]
    assert names[0] == "a great [film], not long.  [good]"
    assert names[5] == "[Film] too long  [bad]"
    assert len(found.plot().images) == 3
    curve = found.plot(how="layers")
    assert [line.get_text() for line in curve.get_legend().get_texts()] == ["any two other words", "the same sense", "different senses"]
    with pytest.raises(InputError, match="how='x'"):
        found.plot(how="x")
    with pytest.raises(InputError, match="2 names for 1 maps"):
        show.similarities([np.eye(2)], ["a", "b"], ["x", "y"])
    with pytest.raises(InputError, match=r"map 0 has the shape \[2, 2\] for 3 names"):
        show.similarities([np.eye(2)], ["a"], ["x", "y", "z"])


def test_many_words_stand_for_all_others():
    """The tokens that are compared are drawn by the seed, at most a few hundred."""
    vectors = Vectors(np.ones((2, 3)), np.random.default_rng(0).normal(size=(50, 3)), np.arange(50) % 5)
    rows = vectors.others / np.linalg.norm(vectors.others, axis=1)[:, None]
    pairs = [rows[i] @ rows[j] for i, j in itertools.combinations(range(50), 2) if i % 5 != j % 5]
    assert alike.baseline_of(vectors.others, vectors.owners) == pytest.approx(np.mean(pairs))
    assert np.isnan(alike.baseline_of(vectors.others[:5], np.zeros(5)))
