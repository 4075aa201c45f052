"""Texts as black boxes see them: what is cut out, and what is asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import askwhy as aw
from askwhy.errors import InputError, UnsupportedError
from askwhy.models import wrap
from askwhy.wording import character_spans, jieba, sentence_spans, word_spans

GOOD = {"fine": 2.0, "moving": 1.0, "dull": -3.0, "好看": 2.0, "not": -1.0}


def mood(texts: list[str]) -> np.ndarray:
    """A model of texts whose answer one can count by hand."""
    assert isinstance(texts, list)
    assert all(isinstance(text, str) for text in texts)
    return np.array([sum(text.lower().count(word) * worth for word, worth in GOOD.items()) for text in texts])


def cut(spans, text):
    return [text[a:b] for a, b in spans(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A fine, moving film.", ["A", "fine", "moving", "film"]),
        ("It isn't well-made; O’Neil 3.5 x_y", ["It", "isn't", "well-made", "O’Neil", "3", "5", "x", "y"]),
        ("so 😀 good, 5€!", ["so", "😀", "good", "5", "€"]),
        ("这部film好看", ["这", "部", "film", "好", "看"]),
        ("Ünïcode café über", ["Ünïcode", "café", "über"]),
        ("映画です ok", ["映", "画", "で", "す", "ok"]),
        ("...", []),
    ],
)
def test_words(text, found):
    assert cut(lambda t: word_spans("characters", t), text) == found


def test_chinese_words_are_cut_by_jieba_where_it_is_installed():
    assert jieba() is not None
    assert cut(lambda t: word_spans("jieba", t), "这部电影非常好看，but long") == ["这部", "电影", "非常", "好看", "but", "long"]
    assert aw.words().text == "words(chinese='jieba')"
    assert aw.words(chinese="characters").text == "words(chinese='characters')"


def test_characters_and_sentences():
    assert cut(character_spans, "ab é c") == ["a", "b", "é", "c"]
    assert cut(character_spans, "e\u0301x") == ["e\u0301", "x"]
    text = 'It cost 3.50! "Really?" he said.\n好看。不好看！行'
    assert cut(sentence_spans, text) == ["It cost 3.50!", '"Really?"', "he said.", "好看。", "不好看！", "行"]


@pytest.mark.parametrize("components", ["words", "characters", "sentences", aw.words(together=True)], ids=str)
def test_everything_present_is_the_text_and_everything_absent_what_stays(components):
    text = "A fine,  fine film.\nNot dull!"
    asked = []

    def f(texts):
        asked.extend(texts)
        return np.array([float(len(t)) for t in texts])

    aw.occlusion(f, text, components=components)
    assert asked[0] == text
    assert all(t != text for t in asked[1:])


def test_a_word_goes_with_the_spaces_behind_it():
    asked = []
    aw.occlusion(lambda texts: asked.extend(texts) or np.zeros(len(texts)), "A fine, moving film")
    assert asked[1:] == ["fine, moving film", "A , moving film", "A fine, film", "A fine, moving "]
    asked.clear()
    aw.occlusion(lambda texts: asked.extend(texts) or np.zeros(len(texts)), "A fine film", baseline="[MASK]")
    assert asked[1:] == ["[MASK] fine film", "A [MASK] film", "A fine [MASK]"]


def test_occlusion_of_words_is_what_the_model_counts():
    why = aw.occlusion(mood, ["A fine, moving film", "dull dull"])
    np.testing.assert_allclose(why[0].values, [[0, 2, 1, 0]])
    np.testing.assert_allclose(why[1].values, [[-3, -3]])
    assert why.components == (("A", "fine", "moving", "film"), ("dull", "dull"))
    assert why.params["baseline"] == "removed"
    assert why.top(1) == [("fine", 2.0)]
    assert why[1].readings[0].text == "dull dull"


def test_a_word_that_stands_twice_can_be_one_component():
    why = aw.occlusion(mood, "Dull, fine, dull film", components=aw.words(together=True))
    assert why.components == (("dull", "fine", "film"),)
    np.testing.assert_allclose(why.values, [[-6, 2, 0]])
    from askwhy.reading import segments

    shown = [(s.text, s.value) for s in segments(why.readings[0], why.values[0])]
    assert [(t, v) for t, v in shown if v is not None] == [("Dull", -6), ("fine", 2), ("dull", -6), ("film", 0)]
    assert "".join(t for t, _ in shown) == "Dull, fine, dull film"


def test_a_saved_text_is_the_same(tmp_path):
    why = aw.occlusion(mood, ["A fine film", "dull"], components=aw.words(together=True))
    assert aw.Explanation.load(why.save(tmp_path / "why.npz")) == why


def test_a_series_and_an_array_of_texts_are_texts():
    import pandas as pd

    texts = ["A fine film", "dull"]
    wanted = aw.occlusion(mood, texts).values
    for given in (pd.Series(texts), np.array(texts), np.array(texts, object)):
        np.testing.assert_array_equal(aw.occlusion(mood, given).values, wanted)


def test_a_pipeline_of_scikit_learn_takes_texts():
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(CountVectorizer(), LogisticRegression()).fit(["fine film", "dull film", "fine", "dull"], ["good", "bad", "good", "bad"])
    why = aw.occlusion(wrap(model, output="logits"), "a fine film", target="good")
    assert why.top(1)[0][0] == "fine"
    weight = dict(zip(model[0].get_feature_names_out(), model[1].coef_[0], strict=True))
    np.testing.assert_allclose(why.values[0], [0, weight["fine"], weight["film"]], atol=1e-9)


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ("  ", {}, "text 0 is empty"),
        (["fine", ""], {}, "text 1 is empty"),
        ("...", {}, "holds no word"),
        ("fine film", {"components": "superpixels"}, "means nothing for a text"),
        ("fine film", {"components": "tokens"}, "shows no tokens; choose 'words'"),
        ("fine film", {"baseline": "blur"}, "means nothing for words"),
        ("fine film", {"baseline": 0.0}, "means nothing for words"),
        ("fine film", {"baseline": "mask"}, "is for components='tokens'"),
    ],
)
def test_bad_texts_are_one_clear_error(given, options, said):
    with pytest.raises(InputError, match=said):
        aw.occlusion(mood, given, **options)


def test_words_of_something_else_are_refused():
    with pytest.raises(InputError, match="words need a text"):
        aw.occlusion(lambda b: b.sum(1), np.ones((1, 3)), components="words", baseline=0)
    with pytest.raises(InputError, match="chinese='pinyin'"):
        aw.words(chinese="pinyin")
    with pytest.raises(UnsupportedError, match="needs the model's gradients"):
        aw.explain(mood, "fine film", "saliency")


class Bag(nn.Module):
    """Counts words by their ids."""

    def __init__(self) -> None:
        super().__init__()
        self.worth = nn.Embedding(50, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.worth(ids).sum(1)


def test_words_of_a_torch_model_are_read_anew_by_its_tokenizer():
    torch.manual_seed(0)
    known = ["[NONE]", "a", "fine", "film"]
    model = wrap(Bag().eval(), tokenizer=lambda text: [known.index(w) for w in text.split()] or [0])
    why = aw.occlusion(model, "a fine film fine", target=1, components="words")
    worth = model.net.worth.weight.detach()[:, 1].numpy()
    np.testing.assert_allclose(why.values[0], worth[[1, 2, 3, 2]], rtol=1e-5)
    assert why.components[0] == ("a", "fine", "film", "fine")
    one = aw.occlusion(model, "fine", target=1, components="words")
    np.testing.assert_allclose(one.values[0], worth[2] - worth[0], rtol=1e-5)


def test_a_tokenizer_that_makes_nothing_of_nothing_is_told_so():
    model = wrap(Bag().eval(), tokenizer=lambda text: [len(w) for w in text.split()])
    with pytest.raises(InputError, match="makes no token of ''; give baseline="):
        aw.occlusion(model, "fine", target=1, components="words")
    assert aw.occlusion(model, "fine", target=1, components="words", baseline="or").values.shape == (1, 1)
