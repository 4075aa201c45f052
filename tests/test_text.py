"""Models of the library transformers: tokens are named, special ones stay, padding changes nothing, and numbers equal those by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPT2Model,
    PreTrainedTokenizerFast,
    RobertaForMaskedLM,
)

import askwhy as aw
from askwhy.errors import InputError, UnsupportedError
from askwhy.layers import names_of
from askwhy.reading import Reading, segments

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "great",
    "film",
    "sad",
    "##ly",
    "bad",
    ",",
    ".",
    "not",
    "too",
    "long",
    "好",
    "电",
    "影",
    "很",
]
TEXTS = ["A great film, sadly too long.", "Bad."]
ADDING = ("input_x_gradient", "integrated_gradients", "deep_lift", "lrp")


def word_pieces() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordPiece({word: k for k, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=32, model_input_names=inputs, **names)


def config(attention: str = "eager", **more) -> BertConfig:
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 40}
    return BertConfig(vocab_size=len(WORDS), attn_implementation=attention, **small, **more)


def bert(attention: str = "eager") -> nn.Module:
    torch.manual_seed(0)
    net = BertForSequenceClassification(config(attention, id2label={0: "bad", 1: "good", 2: "neither"}, num_labels=3))
    for p in net.parameters():  # the usual start is so close to linear that little could be told apart
        p.data += 0.2 * torch.randn_like(p)
    return net.eval()


@pytest.fixture
def model():
    return aw.wrap(bert(), tokenizer=word_pieces())


@pytest.mark.parametrize("name", [*ADDING, "saliency", "occlusion", "smooth_grad"])
def test_every_text_has_its_own_tokens_and_padding_changes_nothing(name, model):
    options = {"components": "tokens"} if name == "occlusion" else {}
    why = aw.explain(model, TEXTS, name, target="good", **options)
    assert why.regions is None
    assert why.components[0] == ("[CLS]", "A", "great", "film", ",", "sad", "ly", "too", "long", ".", "[SEP]")
    assert why.components[1] == ("[CLS]", "Bad", ".", "[SEP]")
    assert why.values.shape == (2, 11)
    assert not why.values[1, 4:].any()
    for i, text in enumerate(TEXTS):
        alone = aw.explain(model, text, name, target="good", **options)
        if name != "smooth_grad" or i == 0:  # the noise of a text depends on its place in the batch
            np.testing.assert_allclose(why[i].values, alone.values, rtol=1e-3, atol=1e-5 * np.abs(alone.values).max())


@pytest.mark.parametrize("name", [*ADDING, "saliency", "occlusion"])
def test_attention_written_out_and_in_one_operation_agree(name, model):
    other = aw.wrap(bert("sdpa"), tokenizer=word_pieces())
    one, two = (aw.explain(m, TEXTS, name, target="good") for m in (model, other))
    np.testing.assert_allclose(one.values, two.values, rtol=1e-3, atol=1e-5 * np.abs(one.values).max())


@pytest.mark.parametrize("name", [*ADDING, "saliency"])
def test_values_equal_those_of_the_vectors_by_hand(name, model):
    net, given = model.net, word_pieces()(TEXTS, padding=True, return_tensors="pt")
    vectors = net.bert.embeddings.word_embeddings.weight.detach()[given["input_ids"]]
    options = {"baseline": "zero"} if name in ("integrated_gradients", "deep_lift") else {}
    by_ids = aw.explain(net, {"input_ids": given["input_ids"], "attention_mask": given["attention_mask"]}, name, target=1, **options)
    x = {"inputs_embeds": vectors, "attention_mask": given["attention_mask"]}
    by_vectors = aw.explain(net, x, "gradient" if name == "saliency" else name, target=1, **({"baseline": 0.0} if options else {}))
    wanted = np.linalg.norm(by_vectors.values, axis=-1) if name == "saliency" else by_vectors.values.sum(-1)
    np.testing.assert_allclose(by_ids.values, wanted, rtol=1e-3, atol=1e-5)
    if by_vectors.residual is not None:
        np.testing.assert_allclose(by_ids.residual, by_vectors.residual, atol=1e-4)
        assert np.abs(by_ids.residual).max() < 1e-3


def test_integrated_gradients_equal_captums(model):
    from captum.attr import LayerIntegratedGradients

    net, tokenizer = model.net, word_pieces()
    given = tokenizer(TEXTS[:1], return_tensors="pt")
    ids, mask = given["input_ids"], given["attention_mask"]
    base = torch.where((ids == 2) | (ids == 3), ids, 0)
    peer = LayerIntegratedGradients(lambda ids: net(input_ids=ids, attention_mask=mask).logits, net.bert.embeddings.word_embeddings)
    wanted = peer.attribute(ids, base, target=1, n_steps=300, method="gausslegendre").sum(-1)
    why = aw.integrated_gradients(model, TEXTS[0], "good", steps=300)
    np.testing.assert_allclose(why.values, wanted.detach(), rtol=1e-3, atol=1e-5)
    assert why.params["baseline"] == "pad"


def test_special_tokens_stay_in_the_baseline_so_that_only_words_count(model):
    why = aw.integrated_gradients(model, TEXTS, "good")
    for one in why:
        assert one.values[0, 0] == 0
        assert one.values[0, -1] == 0
        assert (one.values[0, 1:-1] != 0).all()
    base = model.net(**word_pieces()("[PAD]" * 9, return_tensors="pt")).logits[0, 1]
    np.testing.assert_allclose(why.base_value[0], float(base.detach()), rtol=1e-4)
    masked = aw.integrated_gradients(model, TEXTS, "good", baseline="mask")
    base = model.net(**word_pieces()("[MASK]" * 2, return_tensors="pt")).logits[0, 1]
    np.testing.assert_allclose(masked.base_value[1], float(base.detach()), rtol=1e-4)


def test_lrp_and_deep_lift_are_complete_on_a_transformer(model):
    for why in (aw.lrp(model, TEXTS, "good"), aw.lrp(model, TEXTS, "good", rule="epsilon"), aw.deep_lift(model, TEXTS, "good")):
        assert np.abs(why.residual).max() < 1e-4
        assert why.details["without_rule"] == ""


def test_labels_come_from_the_configuration(model):
    assert model.labels == ("bad", "good", "neither")
    assert aw.saliency(model, TEXTS, target="Neither").target == ("neither", "neither")
    assert aw.wrap(model.net, labels=["x", "y", "z"], tokenizer=word_pieces()).labels == ("x", "y", "z")


def test_a_pipeline_is_a_model_with_its_tokenizer(model):
    class Pipeline:
        def __init__(self):
            self.model, self.tokenizer = model.net, word_pieces()

        def __call__(self, text):
            raise AssertionError("the model itself is asked")

    np.testing.assert_array_equal(aw.lrp(Pipeline(), TEXTS, "good").values, aw.lrp(model, TEXTS, "good").values)


def test_a_pair_of_texts_is_one_item(model):
    why = aw.lrp(model, [("Bad film", "not great"), ("A film", "too long.")], "good")
    assert why.components[0] == ("[CLS]", "Bad", "film", "[SEP]", "not", "great", "[SEP]")
    given = word_pieces()([("Bad film", "not great")], return_tensors="pt")
    np.testing.assert_allclose(why.prediction[0], float(model.net(**given).logits[0, 1].detach()), rtol=1e-4)
    assert "".join(s.text for s in segments(why.readings[0], why.values[0][:7]) if s.text.strip("[]") not in ("CLS", "SEP")).split() == [
        "Bad", "film", "not", "great",
    ]  # fmt: skip


def test_a_word_of_a_masked_sentence_is_a_target():
    torch.manual_seed(0)
    net = BertForMaskedLM(config()).eval()
    why = aw.integrated_gradients(aw.wrap(net, tokenizer=word_pieces()), "A [MASK] film.", lambda out: out[:, 2, WORDS.index("great")])
    given = word_pieces()("A [MASK] film.", return_tensors="pt")
    np.testing.assert_allclose(why.prediction, net(**given).logits[:, 2, WORDS.index("great")].detach(), rtol=1e-4)
    assert np.abs(why.residual).max() < 1e-3


def test_a_decoder_that_is_padded_on_the_left():
    made = Tokenizer(models.BPE(byte_fallback=False))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    from tokenizers import trainers

    made.train_from_iterator(
        TEXTS * 3, trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<pad>"])
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", padding_side="left", model_input_names=["input_ids", "attention_mask"]
    )
    torch.manual_seed(0)
    net = GPT2ForSequenceClassification(
        GPT2Config(vocab_size=300, n_embd=16, n_layer=1, n_head=2, n_positions=64, num_labels=2, pad_token_id=0, attn_implementation="eager")
    ).eval()
    model = aw.wrap(net, tokenizer=tokenizer)
    why = aw.lrp(model, ["Bad.", "这 film"], 1)
    assert "".join(why.components[0]) == "Bad."
    assert "".join(s.text for s in segments(why.readings[1], why[1].values[0])) == "这 film"
    assert len(why.components[1]) > len(segments(why.readings[1], why[1].values[0]))  # one Chinese sign is made of three bytes


def padded_left() -> PreTrainedTokenizerFast:
    made = word_pieces()
    made.padding_side, made.model_input_names = "left", ["input_ids", "attention_mask"]
    return made


SIZES = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40}


def gpt2(kind=GPT2ForSequenceClassification, **more) -> nn.Module:
    torch.manual_seed(0)
    net = kind(GPT2Config(vocab_size=len(WORDS), **SIZES, pad_token_id=0, bos_token_id=2, eos_token_id=3, attn_implementation="eager", **more))
    for p in net.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return net.eval()


def masked_words(kind) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 40}
    net = kind(kind.config_class(vocab_size=len(WORDS), **sizes, pad_token_id=0, bos_token_id=2, eos_token_id=3))
    for p in net.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return net.eval()


class LastToken(nn.Module):
    """A head behind a decoder, which hands on what it is given."""

    def __init__(self, *names: str):
        super().__init__()
        self.body, self.head, self.names = gpt2(GPT2Model), nn.Linear(16, 2), names

    def forward(self, input_ids, attention_mask=None, position_ids=None):
        known = {"attention_mask": attention_mask, "position_ids": position_ids}
        return self.head(self.body(input_ids, **{name: known[name] for name in self.names}).last_hidden_state[:, -1])


class OwnPlaces(nn.Module):
    """Counts its places from 2 on, and is a rounding off where texts are filled up."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places, self.head = nn.Embedding(len(WORDS), 8), nn.Embedding(40, 8), nn.Linear(8, 2)

    def forward(self, input_ids, attention_mask, position_ids=None):
        own = position_ids is None
        x = self.words(input_ids) + self.places(attention_mask.cumsum(1) + 1 if own else position_ids)
        return self.head(x)[:, -1] + 1e-6 * own * (attention_mask == 0).any()


def test_a_model_is_not_told_places_that_it_does_not_use_alone():
    model = aw.wrap(OwnPlaces().eval(), tokenizer=padded_left())
    assert "position_ids" not in model.prepare(["bad", "a great film"]).arguments.values


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "make",
    [gpt2, lambda: gpt2(GPT2LMHeadModel), lambda: masked_words(BertForMaskedLM), lambda: masked_words(RobertaForMaskedLM)],
    ids=["decoder", "language model", "bert", "roberta"],
)
def test_a_text_gets_the_same_alone_and_beside_others_on_either_side(make, side):
    tokenizer = padded_left()
    tokenizer.padding_side = side
    model = aw.wrap(make(), tokenizer=tokenizer)
    texts = ["bad", "a great film , sad too long .", "not a film"]
    names = [name for name in names_of(model) if name.split(".")[-1].isdigit()]
    assert len(names) == 2
    beside = aw.activations(model, texts, names)
    at = {"left": -1, "right": 0}[side]
    target = 1 if isinstance(model.net, GPT2ForSequenceClassification) else lambda out: out[:, at, 5]
    many = aw.input_x_gradient(model, texts, target)
    for k, text in enumerate(texts):
        own = aw.activations(model, [text], names)
        for name in names:
            np.testing.assert_allclose(beside.of(k, name), own.of(0, name), rtol=1e-4, atol=1e-5)
        one = aw.input_x_gradient(model, text, target)
        np.testing.assert_allclose(many.prediction[k], one.prediction[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(many.values[k][: len(one.values[0])], one.values[0], rtol=1e-3, atol=1e-5)
        assert many.components[k] == one.components[0]


def test_places_are_counted_from_the_first_token_only_where_the_model_needs_it():
    for make, needed in (
        (gpt2, True),
        (lambda: masked_words(RobertaForMaskedLM), False),
        (lambda: LastToken("attention_mask", "position_ids").eval(), True),
    ):
        model = aw.wrap(make(), tokenizer=padded_left())
        given = model.prepare(["bad", "a great film"]).arguments.values
        assert ("position_ids" in given) == needed
        if needed:
            assert given["position_ids"].tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 4]]
        assert "position_ids" not in model.prepare(["bad", "great"]).arguments.values  # nothing is filled up


@pytest.mark.parametrize(
    "make",
    [bert, *(lambda names=names: LastToken(*names).eval() for names in ((), ("attention_mask",), ("position_ids",)))],
    ids=["which reads the first place", "without its mask", "without positions", "without a mask"],
)
def test_a_model_that_answers_otherwise_where_it_is_padded_on_the_left_is_refused(make):
    model = aw.wrap(make(), tokenizer=padded_left())
    with pytest.raises(InputError, match="filled up on the left.*ask about one text at a time"):
        aw.input_x_gradient(model, ["bad", "a great film"], 1)
    aw.input_x_gradient(model, ["bad", "great"], 1)
    state = torch.get_rng_state()
    aw.input_x_gradient(model, "a great film", 1)
    assert torch.equal(state, torch.get_rng_state())


class Mean(nn.Module):
    """The mean over all places, those that only fill a text up too where `masked` is False."""

    def __init__(self, masked: bool, fill: bool = True):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head, self.masked = nn.Embedding(len(WORDS), 8), nn.Linear(8, 2), masked
        if not fill:
            self.table.weight.data[0] = 0

    def forward(self, input_ids, attention_mask):
        mask = attention_mask[:, :, None] if self.masked else torch.ones_like(input_ids)[:, :, None]
        return self.head((self.table(input_ids) * mask).sum(1) / mask.sum(1))


class Chance(Mean):
    def forward(self, input_ids, attention_mask):
        return super().forward(input_ids, attention_mask) + torch.rand(len(input_ids), 2)


class Last(Mean):
    def forward(self, input_ids, attention_mask):
        return self.head(self.table(input_ids)[:, -1])


class Total(Mean):
    """A sum, to which the filling adds nothing: it needs no mask."""

    def forward(self, input_ids):
        return self.head(self.table(input_ids).sum(1))


def filled_right() -> PreTrainedTokenizerFast:
    made = word_pieces()
    made.model_input_names = ["input_ids", "attention_mask"]
    return made


@pytest.mark.parametrize(
    "net", [Mean(False), Last(True), Mean(False, fill=False)], ids=["a mean of the filling too", "the last place", "a mean that counts it"]
)
def test_a_model_that_reads_what_fills_a_text_up_is_refused(net):
    model = aw.wrap(net.eval(), tokenizer=filled_right())
    with pytest.raises(InputError, match="filled up on the right.*ask about one text at a time.*padding_side = 'left'"):
        aw.input_x_gradient(model, ["bad", "a great film"], 1)
    with pytest.raises(InputError, match="filled up on the right"):
        aw.activations(model, ["bad", "a great film"], "table")
    aw.input_x_gradient(model, ["bad", "great"], 1)
    aw.input_x_gradient(model, "a great film", 1)


def test_a_model_to_which_the_filling_is_nothing_reads_texts_together():
    for net in (Mean(True), Chance(True), Total(True, fill=False)):
        tokenizer = filled_right()
        if isinstance(net, Total):
            tokenizer.model_input_names = ["input_ids"]
        model = aw.wrap(net.eval(), tokenizer=tokenizer, seed=0 if isinstance(net, Chance) else None)
        found = aw.input_x_gradient(model, ["bad", "a great film"], 1)
        one = aw.input_x_gradient(model, "bad", 1)
        np.testing.assert_allclose(found.prediction[0], one.prediction[0], rtol=1e-5)
        np.testing.assert_allclose(found.values[0][: len(one.values[0])], one.values[0], rtol=1e-5)


def test_words_that_are_left_out_are_not_made_up_for_by_the_filling():
    """Of a model that reads the filling, each length is asked about by itself."""
    net = Mean(False).eval()
    model, tokenizer = aw.wrap(net, tokenizer=filled_right()), filled_right()
    texts = ["bad", "a great film , sad too long .", "not a film"]
    with torch.no_grad():
        own = torch.cat([net(**tokenizer(text, return_tensors="pt")) for text in texts])
    np.testing.assert_allclose(model.outputs(model.prepare("a great film"), texts), own, rtol=1e-5)
    masked = aw.wrap(Mean(True).eval(), tokenizer=filled_right())
    sizes = []
    hook = masked.net.head.register_forward_hook(lambda module, given, out: sizes.append(len(out)))
    for _ in range(2):
        masked.outputs(masked.prepare("a great film"), texts)
    hook.remove()
    assert sizes[-1] == 3  # together
    assert sizes.count(1) == 3 + 2  # what proves it runs once; and the two texts are prepared


def test_words_that_are_left_out_change_the_length_and_nothing_else():
    net = gpt2()
    left, right = aw.wrap(net, tokenizer=padded_left()), aw.wrap(net, tokenizer=word_pieces())
    items = left.prepare("a great film")
    texts = ["bad", "a great film , sad too long .", "not a film", "bad film"]
    alone = torch.cat([left.outputs(items, [text]) for text in texts])
    torch.testing.assert_close(left.outputs(items, texts), alone, rtol=1e-4, atol=1e-5)
    right.tokenizer.model_input_names = ["input_ids", "attention_mask"]
    torch.testing.assert_close(right.outputs(items, texts), alone, rtol=1e-4, atol=1e-5)
    words = aw.wrap(gpt2(GPT2LMHeadModel), tokenizer=padded_left())
    many = words.outputs(items, texts)
    assert many.shape == (4, 10, len(WORDS))
    torch.testing.assert_close(many[:, -1], torch.cat([words.outputs(items, [text])[:, -1] for text in texts]), rtol=1e-4, atol=1e-5)
    assert many[0, :7].isnan().all()  # where the first text has no tokens


def test_a_function_can_be_the_tokenizer():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(128, 6), nn.Flatten(), nn.Linear(24, 2)).eval()
    plain = aw.integrated_gradients(aw.wrap(net, tokenizer=lambda text: [ord(sign) for sign in text]), ["abcd", "xyz!"], 1)
    named = aw.integrated_gradients(aw.wrap(net, tokenizer=lambda text: ([ord(sign) for sign in text], list(text))), ["abcd", "xyz!"], 1)
    np.testing.assert_array_equal(plain.values, named.values)
    assert plain.components[0][1] == f"token 1 (id {ord('b')})"
    assert named.components == (("a", "b", "c", "d"), ("x", "y", "z", "!"))
    with pytest.raises(InputError, match="have 2, 4 tokens; ask about one at a time"):
        aw.lrp(aw.wrap(net, tokenizer=lambda text: [ord(sign) for sign in text]), ["abcd", "ab"])
    with pytest.raises(InputError, match="whole numbers"):
        aw.lrp(aw.wrap(net, tokenizer=lambda text: text.split()), "a b c d")


def test_texts_that_cannot_be_asked_about(model):
    for bad, said in ((["good", " "], "text 1 is empty"), ("bad " * 40, "text 0 has 42 tokens, and the model takes 32")):
        with pytest.raises(InputError, match=said):
            aw.lrp(model, bad)
    with pytest.raises(InputError, match="no transform|no tensor"):
        aw.lrp(model.net, "bad film")
    with pytest.raises(InputError, match="tokenizer= is a int"):
        aw.wrap(model.net, tokenizer=3)
    with pytest.raises(InputError, match="tokenizer= is for a torch module"):
        aw.wrap(lambda texts: texts, tokenizer=word_pieces())
    with pytest.raises(UnsupportedError, match="the gradient at a token is a vector"):
        aw.gradient(model, "bad film")


def test_auto_compare_and_the_columns_of_a_table(model):
    import pandas as pd

    why = aw.explain(model, TEXTS)
    assert why.method in ("lrp", "integrated_gradients")
    many = aw.compare(model, TEXTS[0], target="good")
    inside = {"saliency", "input_x_gradient", "integrated_gradients", "deep_lift", "lrp"}
    assert {one.method for one in many} == inside | {"occlusion", "ablation", "lime", "shapley", "shapley_interactions", "anchors"}
    frame = pd.DataFrame({"review": TEXTS, "stars": [5, 1]})
    np.testing.assert_array_equal(aw.lrp(model, frame["review"], "good").values, aw.lrp(model, TEXTS, "good").values)
    np.testing.assert_array_equal(aw.lrp(model, np.array(TEXTS), "good").values, aw.lrp(model, TEXTS, "good").values)


def test_a_text_is_saved_and_drawn_as_text(model, tmp_path):
    why = aw.integrated_gradients(model, ["电影很好。\nA great film, not too long $5", "bad"], "good")
    assert aw.Explanation.load(why.save(tmp_path / "why.npz")) == why
    ax = why.plot()
    shown = [t.get_text() for t in ax.texts]
    assert "great" in shown
    assert "电" in shown
    assert any("\\$" in t for t in shown)
    assert len({t.get_position()[1] for t in ax.texts}) == 2  # the line break of the text
    values = why[0].values[0]
    assert len(ax.patches) == np.count_nonzero(np.abs(values) > 0)
    strongest = ax.patches[int(np.abs(values[np.abs(values) > 0]).argmax())].get_facecolor()
    assert (strongest[0] > strongest[2]) == (values[np.abs(values).argmax()] > 0)  # red for, blue against
    assert ax.get_title() == "integrated_gradients: good"
    assert "data:image/png" in why.to_html()
    assert why.top(1)[0][0] in why.components[0]


def test_segments_give_the_text_back():
    reading = Reading(
        ("[CLS]", "Bad", "!", "x", "y"), (0, 1, 2, 3, 4), " Bad ! z漢", ((0, 0), (1, 4), (5, 6), (9, 10), (9, 10)), (True, *(False,) * 4)
    )
    found = segments(reading, np.array([0.0, 1.0, -2.0, 3.0, 4.0]))
    assert "".join(s.text for s in found) == " Bad ! z漢"
    assert [s.value for s in found if s.value is not None] == [1.0, -2.0, 7.0]
    shown = segments(reading, np.array([0.5, 1.0, -2.0, 3.0, 4.0]))
    assert shown[0].text == "[CLS]"
    assert shown[0].value == 0.5


def test_a_tokenizer_without_places_in_the_text_names_its_tokens(model):
    class Slow:
        is_fast, model_max_length, model_input_names = False, 32, ["input_ids", "attention_mask"]
        pad_token_id = mask_token_id = None

        def __init__(self):
            self.fast = word_pieces()

        def __call__(self, texts, **settings):
            settings.pop("return_offsets_mapping")
            return self.fast(texts, **settings)

        def convert_ids_to_tokens(self, ids):
            return self.fast.convert_ids_to_tokens(ids)

    why = aw.lrp(aw.wrap(model.net, tokenizer=Slow()), TEXTS, "good")
    assert why.components[0][5:7] == ("sad", "##ly")
    assert why.plot().get_xlabel()


@pytest.mark.slow
def test_the_zoo_model_of_text_reads_reviews_and_is_explained():
    model = aw.zoo.load("minilm-sentiment")
    texts, scores = aw.zoo.reviews()
    assert len(texts) == 10605
    from askwhy.zoo_text import vectors_of

    held = [k for k in range(0, len(texts), 5) if scores[k]]
    with torch.no_grad():
        found = model.net.head(torch.from_numpy(vectors_of([texts[k] for k in held], model.net.encoder, model.tokenizer))).argmax(1)
    right = (found.numpy() == (np.array([scores[k] for k in held]) > 0)).mean()
    assert 0.75 < right < 0.79  # .77 is known for a linear head on these vectors
    why = aw.lrp(model, "A great film.", "positive")
    assert why.top(1)[0][0] == "great"
    assert np.abs(why.residual).max() < 1e-4
