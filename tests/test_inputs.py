"""Several inputs, token ids and texts: each method against the same network fed with the vectors themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import quick
from torch import nn
from torch.nn import functional as F

import askwhy as aw
from askwhy.errors import AskwhyError, InputError, ModelError, UnsupportedError

WORDS, DIM, LENGTH = 20, 6, 5
FULL = ("saliency", "input_x_gradient", "integrated_gradients", "expected_gradients", "deep_lift", "lrp", "smooth_grad")
EXACT = ("input_x_gradient", "integrated_gradients", "deep_lift", "lrp")  # whose values add up


def ids(n: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, WORDS, (n, LENGTH), generator=torch.Generator().manual_seed(seed))


class Reader(nn.Module):
    """Words -> scores by a small network after the embedding; `look` is how it looks words up."""

    def __init__(self, look=None, tables: int = 1):
        super().__init__()
        torch.manual_seed(3)
        self.embed = nn.Embedding(WORDS, DIM)
        self.other = nn.Embedding(WORDS, 3)
        self.body = nn.Sequential(nn.Linear(DIM, 7), nn.ReLU(), nn.Linear(7, 4))
        self.side = nn.Linear(3, 4)
        self.look, self.tables = look, tables

    def forward(self, words):
        vectors = self.embed(words) if self.look is None else self.look(self, words)
        return self.from_vectors(vectors, self.other(words) if self.tables == 2 else None)

    def from_vectors(self, vectors, others=None):
        out = self.body(vectors * torch.arange(1, vectors.shape[1] + 1).view(1, -1, 1)).mean(1)
        return out if others is None else out + torch.tanh(self.side(others)).sum(1)


def rows_of(net: Reader, words: torch.Tensor) -> torch.Tensor:
    return net.embed.weight.detach()[words]


LOOKUPS = {
    "module": None,
    "functional": lambda net, words: F.embedding(words, net.embed.weight),
    "by keyword": lambda net, words: F.embedding(input=words, weight=net.embed.weight),
    "torch.embedding": lambda net, words: torch.embedding(net.embed.weight, words),
    "index": lambda net, words: net.embed.weight[words],
    "index_select": lambda net, words: net.embed.weight.index_select(0, words.flatten()).view(*words.shape, -1),
    "flattened": lambda net, words: net.embed(words.view(-1)).view(*words.shape, -1),
    "time first": lambda net, words: net.embed(words.t()).transpose(0, 1),
    "column by column": lambda net, words: torch.stack([net.embed(words[:, k]) for k in range(LENGTH)], 1),
    "unbound": lambda net, words: torch.stack([net.embed(column) for column in words.unbind(1)], 1),
    "in chunks": lambda net, words: torch.cat([net.embed(part) for part in words.chunk(2, 1)], 1),
    "in another type": lambda net, words: net.embed(words.int().clone().to(torch.int64)),
    "shifted": lambda net, words: F.embedding(words - 1, net.embed.weight[1:]),
    "shifted in place": lambda net, words: F.embedding(words.sub_(1), net.embed.weight[1:]),
    "behind a class token": lambda net, words: net.embed(torch.cat([torch.zeros_like(words[:, :1]), words], 1))[:, 1:],
}


def options(name: str) -> dict[str, object]:
    return {"expected_gradients": {"background": ids(3, seed=1), "samples": 30}, "smooth_grad": {"samples": 5}}.get(name, {})


def by_hand(net: nn.Module, words: torch.Tensor, name: str, read=None, **more):
    """The values of each word, from the method asked about the vectors as they are."""

    class Vectors(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, vectors):
            return net.from_vectors(vectors) if read is None else read(vectors)

    x = rows_of(net, words)
    given = {"background": rows_of(net, ids(3, seed=1))} | more if name == "expected_gradients" else more
    if name == "saliency":
        return np.linalg.norm(aw.gradient(Vectors().eval(), x, **given).values, axis=-1)
    return aw.explain(Vectors().eval(), x, name, **given).values.sum(-1)


@pytest.mark.parametrize("spelling", LOOKUPS)
@pytest.mark.parametrize("name", ["saliency", *EXACT])
def test_tokens_are_explained_through_their_embedding_however_it_is_spelled(name, spelling):
    net, words = Reader(LOOKUPS[spelling]).eval(), ids()
    kept = words.clone()
    given = {"baseline": "zero"} if name in ("integrated_gradients", "deep_lift") else {}
    why = aw.explain(net, words, name, target=1, **given)
    wanted = by_hand(Reader().eval(), words, name, target=1, **({"baseline": 0.0} if given else {}))
    assert why.values.shape == (2, LENGTH)
    np.testing.assert_allclose(why.values, wanted, rtol=1e-4, atol=1e-6)
    assert why.components[1][2] == f"token 2 (id {words[1, 2]})"
    assert torch.equal(words, kept)


@pytest.mark.parametrize("name", FULL)
def test_every_option_works_on_tokens(name):
    net, words = Reader().eval(), ids()
    whole = aw.explain(net, words, name, target=1, **options(name))
    assert whole.values.shape == (2, LENGTH)
    for size in (1, 3):
        np.testing.assert_allclose(
            aw.explain(net, words, name, target=1, batch_size=size, **options(name)).values, whole.values, rtol=1e-4, atol=1e-6
        )
    alone = aw.explain(net, words[:1], name, target=1, **options(name))
    np.testing.assert_allclose(alone.values, whole.values[:1], rtol=1e-4, atol=1e-6)
    versus = aw.explain(net, words, name, target=1, versus=2, **options(name))
    by_function = aw.explain(net, words, name, target=lambda out: out[:, 1] - out[:, 2], **options(name))
    np.testing.assert_allclose(versus.values, by_function.values, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        np.testing.assert_allclose(whole.prediction, net(words)[:, 1], rtol=1e-5)


def test_expected_gradients_of_tokens_equal_those_of_the_vectors_with_their_standard_error():
    net, words = Reader().eval(), ids()
    why = aw.expected_gradients(net, words, 1, background=ids(3, seed=1), samples=30)
    np.testing.assert_allclose(why.values, by_hand(net, words, "expected_gradients", target=1, samples=30), rtol=1e-4, atol=1e-6)
    many = [aw.expected_gradients(net, words, 1, background=ids(3, seed=1), samples=30, seed=seed).values for seed in range(60)]
    spread = np.std(many, axis=0)
    assert 0.5 < np.median(why.std_error / spread) < 2.5


def test_occlusion_takes_away_one_token_at_a_time():
    net, words = Reader().eval(), ids()
    why = aw.occlusion(net, words, 1, baseline=7)
    for k in range(LENGTH):
        other = words.clone()
        other[:, k] = 7
        np.testing.assert_allclose(why.values[:, k], (net(words) - net(other)).detach()[:, 1], rtol=1e-4, atol=1e-6)
    rows = ids(4, seed=9)
    several = aw.occlusion(net, words, 1, background=rows)
    other = words[:1].repeat(4, 1)
    other[:, 2] = rows[:, 2]
    np.testing.assert_allclose(several.values[0, 2], (net(words[:1]) - net(other).mean(0, keepdim=True)).detach()[0, 1], rtol=1e-4, atol=1e-6)
    rough = aw.occlusion(net, words, 1, baseline=7, precision="bfloat16")
    assert 0 < rough.details["bfloat16_deviation"] < 0.1
    np.testing.assert_allclose(rough.values, why.values, atol=0.1)


def test_two_tables_for_the_same_words_are_explained_together():
    net, words = Reader(tables=2).eval(), ids()
    why = aw.integrated_gradients(net, words, 1, baseline="zero", steps=200, quadrature="midpoint")
    first, second = rows_of(net, words), net.other.weight.detach()[words]
    total = np.zeros((2, LENGTH))
    for k in range(200):
        a, b = (((k + 0.5) / 200 * v).requires_grad_() for v in (first, second))
        slopes = torch.autograd.grad(net.from_vectors(a, b)[:, 1].sum(), (a, b))
        total += sum((v * s).sum(-1).numpy() for v, s in zip((first, second), slopes, strict=True)) / 200
    np.testing.assert_allclose(why.values, total, rtol=1e-4, atol=1e-6)
    assert np.abs(why.residual).max() < 1e-2


@pytest.mark.parametrize("mode", ["mean", "sum", "max"])
def test_an_embedding_bag_is_a_lookup_and_a_reduction(mode):
    torch.manual_seed(0)
    net = nn.Sequential(nn.EmbeddingBag(WORDS, DIM, mode=mode), nn.Tanh(), nn.Linear(DIM, 3)).eval()
    why = aw.integrated_gradients(net, ids(), 1, baseline="zero")
    reduce = (lambda v: v.amax(1)) if mode == "max" else (lambda v: getattr(v, mode)(1))
    rest = nn.Sequential(*net[1:])

    class Vectors(nn.Module):
        def forward(self, vectors):
            return rest(reduce(vectors))

    wanted = aw.integrated_gradients(Vectors().eval(), net[0].weight.detach()[ids()], 1, baseline=0.0)
    np.testing.assert_allclose(why.values, wanted.values.sum(-1), rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        np.testing.assert_allclose(why.prediction, net(ids())[:, 1], rtol=1e-5)


def test_baselines_of_tokens():
    net, words = Reader().eval(), ids()
    net.config = type("Config", (), {"pad_token_id": 0})()
    with torch.no_grad():
        base = {name: net(full)[:, 1] for name, full in (("pad", torch.zeros_like(words)), ("7", torch.full_like(words, 7)))}
        zero = net.from_vectors(torch.zeros(2, LENGTH, DIM))[:, 1]
    for given, wanted in (("auto", base["pad"]), ("pad", base["pad"]), (7, base["7"]), (torch.full((LENGTH,), 7), base["7"]), ("zero", zero)):
        why = aw.integrated_gradients(net, words, 1, baseline=given)
        np.testing.assert_allclose(why.base_value, wanted, rtol=1e-4, atol=1e-6)
    both = aw.integrated_gradients(net, words, 1, baseline=["pad", "zero"])
    np.testing.assert_allclose(both.base_value, (base["pad"] + zero) / 2, rtol=1e-4, atol=1e-6)
    assert both.params["baseline"] == "pad, zero"
    for bad, said in (
        ("mask", "no mask token.*or 'zero'"),
        ("blur", "means nothing for words; choose one of 'auto'"),
        (torch.zeros(LENGTH + 1, dtype=torch.int64), r"ids \[5\]"),
        (WORDS + 5, "do not fit the model's embedding"),
    ):
        with pytest.raises(InputError, match=said):
            aw.integrated_gradients(net, words, 1, baseline=bad)
    shifted = Reader(LOOKUPS["shifted"]).eval()
    with pytest.raises(InputError, match="changes words before it looks it up"):
        aw.integrated_gradients(shifted, words, 1, baseline=7)


def test_what_is_no_token_stays_a_number():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    whole = torch.arange(8).view(2, 4)

    class Casts(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x.float())

    model = Casts().eval()
    with pytest.raises(UnsupportedError, match="int64"):
        aw.gradient(model, whole)
    assert aw.occlusion(model, whole, background=whole).values.shape == (2, 4)


def test_ids_that_do_not_fit_are_one_clear_error():
    with pytest.raises(ModelError, match=r"failed on an input of shape words \[1, 5\].*index"):
        aw.integrated_gradients(Reader().eval(), torch.full((1, LENGTH), WORDS + 1))
    with pytest.raises(UnsupportedError, match="the gradient at a token is a vector; use saliency"):
        aw.gradient(Reader().eval(), ids())
    with pytest.raises(UnsupportedError, match="the gradient at a token is a vector"):
        aw.guided_backprop(Reader().eval(), ids())
    for name in ("grad_cam", "cam", "score_cam", "guided_grad_cam"):
        with pytest.raises(AskwhyError, match="needs pictures|a vector"):
            aw.explain(Reader().eval(), ids(), name)
    with pytest.raises(InputError, match="means nothing for a text"):
        aw.occlusion(Reader().eval(), ids(), components="superpixels")


LOST = {
    "sorted": lambda net, words: net.embed(words.sort(1).values),
    "order": lambda net, words: net.embed(words.argsort(1)),
    "sums": lambda net, words: net.embed(words.cumsum(1) % WORDS),
    "and as they are": lambda net, words: net.embed(words) + net.embed(words.sort(1).values),
    "a weight by index": lambda net, words: net.embed.weight[words.argsort(1)],
}


@pytest.mark.parametrize("spelling", LOST)
def test_a_lookup_that_cannot_be_followed_is_refused_and_not_left_out(spelling):
    with pytest.raises(ModelError, match="looks up what it makes of words"):
        aw.integrated_gradients(Reader(LOST[spelling]).eval(), ids(), 1)


def test_a_bag_with_padding_is_refused():
    net = nn.Sequential(nn.EmbeddingBag(WORDS, DIM, padding_idx=0), nn.Linear(DIM, 3)).eval()
    with pytest.raises(ModelError, match="embedding bag with offsets, weights or padding"):
        aw.lrp(net, ids(), 1)


READ_BY = {
    "its largest id": lambda net, words, v: v[torch.arange(len(words)), words.argmax(1)][:, None].expand(v.shape),
    "a row of each": lambda net, words, v: v * v[:, :1].index_select(0, torch.arange(len(words))),
    "counted places": lambda net, words, v: v + net.embed((words != 0).long().cumsum(1)),
}


@pytest.mark.parametrize("how", READ_BY)
def test_ids_may_say_how_to_read_the_vectors(how):
    """As a text encoder that reads the token with the largest id, and one that counts its places."""
    net = Reader(lambda net, words: READ_BY[how](net, words, net.embed(words))).eval()
    words = ids()
    why = aw.integrated_gradients(net, words, 1, baseline="zero")
    by_vectors = by_hand(
        net, words, "integrated_gradients", lambda v: net.from_vectors(READ_BY[how](net, words[:1].expand(len(v), -1), v)), target=1, baseline=0.0
    )
    np.testing.assert_allclose(why.values[:1], by_vectors[:1], rtol=1e-3, atol=1e-5)


def test_looking_for_the_lookups_is_counted():
    net = Reader().eval()
    asked = []
    net.register_forward_hook(lambda *_: asked.append(len(_[2])))
    assert aw.saliency(net, ids(), 1).model_calls == sum(asked)


# ---- several inputs -------------------------------------------------------------------------------------------------


class Asked(nn.Module):
    """A picture and a question -> answers."""

    def __init__(self, take="named"):
        super().__init__()
        torch.manual_seed(5)
        self.conv, self.embed, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Embedding(WORDS, DIM), nn.Linear(8 + DIM, 4)
        self.bilinear = nn.Linear(DIM, 8)
        self.take = take

    def forward(self, picture, question, mask=None):
        return self.from_vectors(picture, self.embed(question), mask)

    def from_vectors(self, picture, vectors, mask=None):
        seen = torch.relu(self.conv(picture)).mean((2, 3))
        shown = vectors if mask is None else vectors * mask.unsqueeze(-1)
        read = torch.tanh(shown).mean(1)
        return self.head(torch.cat([seen * self.bilinear(read), read], 1))


class Flat(nn.Module):
    """The same for both side by side in one row."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, row):
        return self.net.from_vectors(row[:, : 3 * 64].view(-1, 3, 8, 8), row[:, 3 * 64 :].view(-1, LENGTH, DIM))


def both(n: int = 2):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(2)), ids(n)


def in_one_row(net, picture, words):
    return torch.cat([picture.flatten(1), net.embed.weight.detach()[words].flatten(1)], 1)


@pytest.mark.parametrize("name", [*EXACT, "saliency"])
def test_two_inputs_equal_one_row_of_both(name):
    net = Asked().eval()
    picture, words = both()
    given = {"baseline": {"picture": 0.25, "question": "zero"}} if name in ("integrated_gradients", "deep_lift") else {}
    why = aw.explain(net, (picture, words), name, target=2, **given)
    row = in_one_row(net, picture, words)
    base = torch.cat([torch.full((192,), 0.25), torch.zeros(LENGTH * DIM)])
    method = "gradient" if name == "saliency" else name
    wanted = aw.explain(Flat(net).eval(), row, method, target=2, **({"baseline": base} if given else {})).values
    first, second = wanted[:, :192].reshape(2, 3, 8, 8), wanted[:, 192:].reshape(2, LENGTH, DIM)
    first, second = (np.abs(first), np.linalg.norm(second, axis=-1)) if name == "saliency" else (first, second.sum(-1))
    np.testing.assert_allclose(why["picture"].values, first, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(why["question"].values, second, rtol=1e-3, atol=1e-6)
    assert why.values.shape == (2, 192 + LENGTH)


def test_expected_gradients_of_two_inputs_take_rows_of_each():
    net = Asked().eval()
    picture, words = both()
    rows = {"picture": torch.rand(4, 3, 8, 8), "question": ids(4, seed=8)}
    why = aw.expected_gradients(net, (picture, words), 2, background=rows, samples=40)
    wanted = aw.expected_gradients(Flat(net).eval(), in_one_row(net, picture, words), 2, background=in_one_row(net, *rows.values()), samples=40)
    np.testing.assert_allclose(why["picture"].values.reshape(2, -1), wanted.values[:, :192], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(why.residual, wanted.residual, rtol=1e-3, atol=1e-5)
    with pytest.raises(InputError, match="as many, or one"):
        aw.expected_gradients(net, (picture, words), 2, background={**rows, "question": ids(3)})


def test_every_way_to_give_the_inputs_is_the_same():
    net = Asked().eval()
    picture, words = both()

    class OneDict(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, inputs):
            return self.net(**inputs) if isinstance(inputs, dict) else self.net(*inputs)

    class Open(OneDict):
        def forward(self, *given, **named):
            return self.net(*given, **named)

    wanted = aw.lrp(net, (picture, words), 2).values
    for model in (net, OneDict().eval(), Open().eval()):
        for x in ((picture, words), {"picture": picture, "question": words}, (picture.numpy(), words.numpy())):
            np.testing.assert_allclose(aw.lrp(model, x, 2).values, wanted, rtol=1e-5, atol=1e-7)


def test_a_mask_says_how_to_read_and_is_not_explained():
    net = Asked().eval()
    picture, words = both()
    mask = torch.tensor([[1.0, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    why = aw.integrated_gradients(net, {"picture": picture, "question": words, "mask": mask}, 2, baseline={"picture": 0.0, "question": "zero"})
    assert [one.name for one in why.inputs] == ["picture", "question"]
    assert not why["question"].values[0, 3:].any()
    assert why["question"].values[1, 3:].all()
    np.testing.assert_allclose(why.prediction, net(picture, words, mask).detach()[:, 2], rtol=1e-5)
    assert why.details["held_fixed"] == "mask"
    assert np.abs(why.residual).max() < 1e-3


@pytest.mark.parametrize("name", ["grad_cam", "hires_cam", "layer_cam", "counterfactual_cam", "grad_cam_plus_plus"])
def test_class_activation_maps_explain_the_picture_given_the_question(name):
    net = Asked().eval()
    picture, words = both()

    class Given(nn.Module):
        def __init__(self, question):
            super().__init__()
            self.net, self.question = net, question

        def forward(self, picture):
            return self.net(picture, self.question)

    why = aw.explain(net, (picture, words), name, target=2)
    for i in range(2):
        wanted = aw.explain(Given(words[i : i + 1]).eval(), picture[i : i + 1], name, target=2)
        np.testing.assert_allclose(why.values[i : i + 1], wanted.values, rtol=1e-4, atol=1e-7)
    assert why.pictures[0].shape == (8, 8, 3)


def test_one_picture_with_something_fixed_beside_it_is_a_picture_for_every_method():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.conv, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 4)

        def forward(self, picture, mask):
            return self.head(torch.relu(self.conv(picture * mask[:, None])).mean((2, 3)))

    net = Masked().eval()
    picture, mask = torch.rand(2, 3, 16, 16), (torch.rand(2, 16, 16) > 0.3).float()
    for method in aw.methods():
        if "image" not in method.inputs or method.name == "cam":
            continue
        given = quick(method.name)
        why = aw.explain(net, {"picture": picture, "mask": mask}, method.name, target=1, **given)
        for i in range(2):
            one = aw.explain(net, {"picture": picture[i : i + 1], "mask": mask[i : i + 1]}, method.name, target=1, **given)
            if i == 0 or "seed" not in why.params:
                np.testing.assert_allclose(why[i].values, one.values, rtol=1e-4, atol=1e-5 * np.abs(one.values).max())


def test_what_several_inputs_cannot_do_is_said():
    net = Asked().eval()
    picture, words = both()
    for name in ("lime", "occlusion", "score_cam", "guided_grad_cam", "gradient", "guided_backprop", "deconvnet"):
        with pytest.raises(UnsupportedError, match="several|vector"):
            aw.explain(net, (picture, words), name)
    for x, said in (
        ((picture, words[:1]), r"picture \[2, 3, 8, 8\], question \[1, 5\].*counts the items"),
        ({"picture": picture, "questoin": words}, "key 'questoin'.*picture, question, mask"),
        ((picture, words, words, words), "tuple of 4 inputs.*takes 3"),
        ({"picture": picture, "question": np.array([["a"] * LENGTH] * 2)}, "array of <U1"),
    ):
        with pytest.raises(InputError, match=said):
            aw.saliency(net, x)
    for baseline, said in (
        ({"pictur": 0.0}, "did you mean 'picture'"),
        ((0.0,), "1 entries for the inputs picture, question"),
        (0.0, "give each its own baseline"),
    ):
        with pytest.raises(InputError, match=said):
            aw.integrated_gradients(net, (picture, words), baseline=baseline)
    with pytest.raises(AskwhyError, match="a batch of items is a list"):
        aw.saliency(nn.Conv2d(3, 2, 3).eval(), tuple(picture))


def test_the_result_of_several_inputs_is_cut_named_saved_and_drawn(tmp_path):
    net = Asked().eval()
    picture, words = both()
    why = aw.integrated_gradients(net, (picture, words), 2, baseline=(0.0, "zero"))
    assert aw.Explanation.load(why.save(tmp_path / "why.npz")) == why
    one = why[1]["question"]
    np.testing.assert_array_equal(one.values, why["question"].values[1:])
    np.testing.assert_array_equal(why["picture"][1].values, why[1]["picture"].values)
    assert one.top(1)[0][0].startswith("token ")
    names, totals = zip(*why.top(2), strict=True)
    assert set(names) == {"picture", "question"}
    np.testing.assert_allclose(sum(totals), why.values[0].sum())
    assert why["picture"].map().shape == (8, 8)
    assert why["picture"].pictures[0].shape == (8, 8, 3)
    assert "class 2" in why.plot().get_title()
    assert why.to_html().count("<img") == 4
    with pytest.raises(InputError, match="did you mean 'question'"):
        why["questio"]
    with pytest.raises(InputError, match="indexed by item"):
        one["question"]


def test_smoothing_spreads_the_noise_of_each_input_by_its_own_range():
    net = Asked().eval()
    picture, words = both()
    with torch.no_grad():
        net.embed.weight.mul_(1000)
    noise_of_picture = aw.smooth(aw.saliency, 4, 1e-3)(net, (picture, words), 2)["picture"].std_error
    with torch.no_grad():
        net.embed.weight.mul_(1e-3)
    alone = aw.smooth(aw.saliency, 4, 1e-3)(net, (picture, words), 2)["picture"].std_error
    assert noise_of_picture.max() < 100 * alone.max()
    with pytest.raises(UnsupportedError, match="several inputs is not possible"):
        aw.smooth(aw.lrp, 4)(net, (picture, words), 2)


def test_the_model_is_left_as_it_was_with_several_inputs():
    from test_methods import assert_same, state

    net = Asked().eval()
    before = state(net)
    picture, words = both()
    for name in FULL:
        given = {"background": {"picture": picture, "question": words}, "samples": 20} if name == "expected_gradients" else {}
        aw.explain(net, (picture, words), name, **given)
        assert_same(before, state(net))
    net.train()
    with pytest.raises(ModelError, match="training mode"):
        aw.saliency(net, (picture, words))


def test_a_seeded_model_of_several_inputs_runs_each_alone():
    class Draws(Asked):
        def forward(self, picture, question, mask=None):
            return super().forward(picture, question) + torch.rand(len(picture), 1)

    net = Draws().eval()
    with pytest.raises(ModelError, match="draws random numbers"):
        aw.saliency(net, both(), 2)
    plain = aw.saliency(Asked().eval(), both(), 2)
    np.testing.assert_allclose(aw.saliency(aw.wrap(net, seed=0), both(), 2).values, plain.values, rtol=1e-5, atol=1e-8)
