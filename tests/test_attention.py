"""Attention: what is seen equals what the library itself returns, relevance and rollout equal slow versions, the test of rankings can fail."""

from __future__ import annotations

import math
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

import askwhy as aw
from askwhy.errors import Cancelled, InputError, UnsupportedError
from askwhy.inside.attending import attending, shuffled, weights_of
from askwhy.inside.attention import Attention, attention
from askwhy.inside.attention_words import p_value, verdict
from askwhy.inside.deleting import STEPS, area, without

TEXTS = ["The film is not bad, it is a great surprise.", "Dull and far too long."]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Such small products gain nothing from a second, which on a busy machine is waited for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def minilm():
    return aw.zoo.load("minilm-sentiment")


# ---- toys ------------------------------------------------------------------------------------------------------------


class Hand(nn.Module):
    """Self-attention on [n, tokens, dim] in one of the usual spellings, two layers with residuals; reads the first token or the mean."""

    def __init__(self, spelling: str = "matmul", pool: str = "first", heads: int = 2, dim: int = 8, layers: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.spelling, self.pool, self.heads = spelling, pool, heads
        self.qkv = nn.ModuleList([nn.Linear(dim, 3 * dim) for _ in range(layers)])
        self.head = nn.Linear(dim, 3)
        for p in self.parameters():
            p.data *= 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for qkv in self.qkv:
            x = x + self.attend(*qkv(x).chunk(3, -1))
        pooled = {"first": lambda: x[:, 0], "mean": lambda: x.mean(1), "last": lambda: x[:, -1], "max": lambda: x.amax(1)}[self.pool]()
        return self.head(torch.tanh(pooled))

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        n, t, _dim = q.shape
        q, k, v = (one.reshape(n, t, self.heads, -1).transpose(1, 2) for one in (q, k, v))
        scale = 1 / math.sqrt(q.shape[-1])
        if self.spelling == "einsum":
            a = torch.einsum("bhid, bhjd -> bhij", q, k).mul(scale).softmax(dim=-1)
            return torch.einsum("bhij, bhjd -> bihd", a, v).flatten(2)
        if self.spelling == "dots":
            a = torch.softmax(torch.einsum("...id,...jd->...ij", q, k) * scale, -1)
            return torch.einsum("...ij,...jd->...id", a, v).transpose(1, 2).flatten(2)
        if self.spelling == "bmm":  # heads and items on one axis
            q, k, v = (one.flatten(0, 1) for one in (q, k, v))
            a = nn.functional.softmax(torch.bmm(q, k.transpose(1, 2)) * scale, dim=-1)
            return torch.bmm(nn.functional.dropout(a, 0.1, self.training), v).reshape(n, self.heads, t, -1).transpose(1, 2).flatten(2)
        if self.spelling == "transposed":
            a = ((k @ q.transpose(-2, -1)) * scale).transpose(-2, -1).softmax(-1)
            return (v.transpose(-2, -1) @ a.transpose(-2, -1)).transpose(-2, -1).transpose(1, 2).flatten(2)
        if self.spelling == "sdpa":
            return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        if self.spelling == "summed":  # no matmul of weights and values
            a = (q @ k.transpose(-2, -1) * scale).softmax(-1)
            return (a[..., None] * v[:, :, None]).sum(3).transpose(1, 2).flatten(2)
        a = (q @ k.transpose(-2, -1) * scale).softmax(-1)
        return (a @ v).transpose(1, 2).flatten(2)


SPELLINGS = ["matmul", "einsum", "dots", "bmm", "transposed", "sdpa"]


def by_numpy(net: Hand, x: np.ndarray, put: dict[int, np.ndarray] | None = None) -> tuple[np.ndarray, list[np.ndarray]]:
    """The same network on one item [tokens, dim] in float64, with attention matrices put in; the outputs and the matrices."""
    seen = []
    for layer, qkv in enumerate(net.qkv):
        w, b = (p.detach().double().numpy() for p in (qkv.weight, qkv.bias))
        q, k, v = (part.reshape(len(x), net.heads, -1).transpose(1, 0, 2) for part in np.split(x @ w.T + b, 3, -1))
        logits = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        a = np.exp(logits - logits.max(-1, keepdims=True))
        a = (put or {}).get(layer, a / a.sum(-1, keepdims=True))
        seen.append(a)
        x = x + (a @ v).transpose(1, 0, 2).reshape(len(x), -1)
    pooled = {"first": x[0], "mean": x.mean(0), "last": x[-1], "max": x.max(0)}[net.pool]
    w, b = (p.detach().double().numpy() for p in (net.head.weight, net.head.bias))
    return w @ np.tanh(pooled) + b, seen


def slopes_by_differences(net: Hand, x: np.ndarray, target: int, step: float = 1e-5) -> list[np.ndarray]:
    """dS/dA of each matrix, entry by entry."""
    _, seen = by_numpy(net, x)
    found = []
    for layer, a in enumerate(seen):
        slope = np.zeros_like(a)
        for at in np.ndindex(a.shape):
            up, down = a.copy(), a.copy()
            up[at] += step
            down[at] -= step
            slope[at] = (by_numpy(net, x, {layer: up})[0][target] - by_numpy(net, x, {layer: down})[0][target]) / (2 * step)
        found.append(slope)
    return found


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(3))


# ---- the weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_weights_equal_those_that_transformers_returns(minilm, implementation):
    encoder = minilm.net.encoder
    before = encoder.config._attn_implementation
    encoder.set_attn_implementation(implementation)
    try:
        why = attention(minilm, TEXTS, deletion=False)
        encoder.set_attn_implementation("eager")
        for i, text in enumerate(TEXTS):
            given = minilm.tokenizer(text, return_tensors="pt")
            with torch.no_grad():
                own = torch.stack(encoder(**given, output_attentions=True).attentions, 1)[0].numpy()
            d = own.shape[-1]
            np.testing.assert_allclose(why.matrices[i, :, :, :d, :d], own, atol=2e-6)
            assert why.tokens[i] == tuple(minilm.prepare(text).arguments.parts[0].readings[0].tokens)
            np.testing.assert_allclose(why.matrices[i, :, :, :d].sum(-1), 1, atol=1e-5)
    finally:
        encoder.set_attn_implementation(before)


IDS = torch.randint(5, 50, (2, 7), generator=torch.Generator().manual_seed(0))
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def gpt(attention: str) -> tuple[nn.Module, torch.Tensor, list[int]]:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    config = GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2, pad_token_id=0, bos_token_id=1, eos_token_id=2, attn_implementation=attention)
    return GPT2ForSequenceClassification(config), IDS, [6]


def llama(attention: str) -> tuple[nn.Module, torch.Tensor, list[int]]:
    """Rotary places, and keys that heads share."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    return LlamaForSequenceClassification(
        LlamaConfig(vocab_size=60, num_key_value_heads=1, pad_token_id=0, attn_implementation=attention, **SMALL)
    ), IDS, [6]  # fmt: skip


def vision(attention: str) -> tuple[nn.Module, torch.Tensor, list[int]]:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, attn_implementation=attention, **SMALL)), torch.rand(2, 3, 32, 32), [0]


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("make", [gpt, llama, vision])
def test_other_networks_of_transformers(make, implementation):
    torch.manual_seed(0)
    net, x, read = make(implementation)
    why = attention(net.eval(), x, 0, deletion=False)
    net.set_attn_implementation("eager")
    with torch.no_grad():
        own = net(x, output_attentions=True).attentions
    np.testing.assert_allclose(why.matrices, torch.stack(own, 1), atol=1e-6)
    assert np.flatnonzero(why.rows[0] > 1e-7).tolist() == read
    assert why.grid == ((1, 4, 4) if make is vision else ())


def test_an_encoder_and_decoder_of_one_length_have_no_rollout():
    from transformers import BartConfig, BartForSequenceClassification

    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = BartConfig(vocab_size=60, d_model=16, encoder_ffn_dim=24, decoder_ffn_dim=24, eos_token_id=59, attn_implementation="sdpa", **layers)
    net = BartForSequenceClassification(config).eval()
    x = torch.cat([IDS, torch.full((2, 1), 59)], 1)
    why = attention(net, x, 0)
    with torch.no_grad():
        net.set_attn_implementation("eager")
        own = net(x, output_attentions=True)
    assert why.rolled == ()
    assert "encoder_attn" in why.details["note"]
    for seen, name in zip(why.weights, ("encoder_attentions", "decoder_attentions", "cross_attentions"), strict=True):
        np.testing.assert_allclose(seen, getattr(own, name)[0], atol=1e-6)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_gives_the_weights_of_the_slow_version(tokens, spelling):
    net = Hand(spelling).eval()
    why = attention(net, tokens, 1, deletion=False)
    slow = np.stack([np.stack(by_numpy(net, one.double().numpy())[1]) for one in tokens])
    np.testing.assert_allclose(why.matrices, slow, atol=1e-6)
    assert why.layers == ("", "")
    assert why.rolled == (0, 1)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_multihead_attention_gives_what_it_returns_with_need_weights(batch_first, norm_first):
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first, norm_first=norm_first)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head((self.body(x) if batch_first else self.body(x.transpose(0, 1)).transpose(0, 1)).mean(1))

    net, x = Net().eval(), torch.randn(3, 6, 8)
    why = attention(net, x, 0, deletion=False)
    assert why.layers == ("body.layers.0.self_attn", "body.layers.1.self_attn")
    given = {}
    handles = [
        one.self_attn.register_forward_pre_hook(lambda m, args, k=k: given.__setitem__(k, args[0]), with_kwargs=False)
        for k, one in enumerate(net.body.layers)
    ]
    net(x.requires_grad_())  # gradients keep torch off its fast path, which runs no hook
    for handle in handles:
        handle.remove()
    for k, one in enumerate(net.body.layers):
        _, own = one.self_attn(given[k], given[k], given[k], need_weights=True, average_attn_weights=False)
        np.testing.assert_allclose(why.weights[k], own.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("case", ["plain", "causal", "bool", "float", "gqa", "scale", "nowhere"])
def test_fused_attention_is_recomputed_as_torch_defines_it(case):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6)
    options: dict[str, object] = {}
    if case == "gqa":
        k, v, options = k[:, :2], v[:, :2], {"enable_gqa": True}
    elif case == "scale":
        options = {"scale": 0.7}
    elif case == "causal":
        options = {"is_causal": True}
    elif case != "plain":
        mask = torch.rand(2, 1, 5, 5) > 0.3
        mask[0, 0, 1] = case != "nowhere"
        mask[..., 0] |= case != "nowhere"
        options = {"attn_mask": mask if case != "float" else torch.randn(2, 1, 5, 5)}

    class Net(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, k, v, **options).flatten(1)

    net = Net()
    with attending(net, 2) as found:
        net(q.clone().requires_grad_())
    whole = v.repeat_interleave(2, 1) if case == "gqa" else v
    np.testing.assert_allclose(torch.from_numpy(found.seen[0].weights) @ whole, net(q).reshape(2, 4, 5, 6), atol=1e-5)
    sums = found.seen[0].weights.sum(-1)
    assert np.all(np.isclose(sums, 1, atol=1e-5) | ((sums == 0) & (case == "nowhere")))


def test_dropout_in_the_fused_kernel_is_refused(tokens):
    class Net(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5).mean(1)

    with pytest.raises(UnsupportedError, match="drops 50%"), attending(Net(), 3):
        Net()(tokens)


def test_weights_of_half_precision_are_computed_in_float32():
    q = torch.randn(1, 1, 4, 8).bfloat16()
    found = weights_of(q, q, None, False, None)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.softmax(q.float() @ q.float().mT / math.sqrt(8), -1))


# ---- relevance, rollout, rows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["matmul", "sdpa", "bmm", "transposed"])
@pytest.mark.parametrize("pool", ["first", "mean"])
def test_relevance_and_rollout_equal_a_slow_version_with_differences(tokens, spelling, pool):
    net = Hand(spelling, pool).eval()
    why = attention(net, tokens, 2, deletion=False)
    for i, x in enumerate(tokens.double().numpy()):
        _, seen = by_numpy(net, x)
        slopes = slopes_by_differences(net, x, 2)
        t = len(x)
        R, joint = np.eye(t), np.eye(t)
        for a, slope in zip(seen, slopes, strict=True):
            step = np.zeros((t, t))
            for h in range(len(a)):
                step += np.maximum(a[h] * slope[h], 0) / len(a)
            R = R + step @ R
            joint = (0.5 * a.mean(0) + 0.5 * np.eye(t)) @ joint
        lengths = np.array([math.sqrt((slopes[-1][:, row] ** 2).sum()) for row in range(t)])
        rows = lengths / lengths.sum()
        np.testing.assert_allclose(why.rows[i], rows, atol=1e-4)
        np.testing.assert_allclose(why.values[i], rows @ (R - np.eye(t)), atol=1e-4 * np.abs(R).max())
        np.testing.assert_allclose(why.rollout[i], rows @ joint, atol=1e-5)
        np.testing.assert_allclose(why.last_layer[i], rows @ seen[-1].mean(0), atol=1e-5)
        np.testing.assert_allclose(joint.sum(1), 1)


def test_the_rows_are_those_that_the_score_reads(tokens):
    for pool, expected in (("first", [1, 0, 0, 0, 0]), ("last", [0, 0, 0, 0, 1])):
        np.testing.assert_allclose(attention(Hand(pool=pool).eval(), tokens, 0, deletion=False).rows[1], expected, atol=1e-7)
    spread = attention(Hand(pool="mean").eval(), tokens, 0, deletion=False).rows
    assert (spread > 0.1).all()
    assert np.allclose(spread.sum(1), 1)


def test_mean_pooling_reads_every_real_token_and_no_padding(minilm):
    why = attention(minilm, TEXTS, deletion=False)
    d = len(why.tokens[1])
    assert d < why.values.shape[1] == len(why.tokens[0])
    assert (why.rows[1, :d] > 0.2 / d).all()
    assert not why.rows[1, d:].any()
    assert not why.values[1, d:].any()
    assert not why.weights[0][1, :, d:].any()
    assert not why.weights[0][1, :, :, d:].any()


def test_versus_subtracts(tokens):
    net = Hand(pool="mean").eval()
    why = attention(net, tokens, 0, versus=1, deletion=False)
    scores = net(tokens)
    np.testing.assert_allclose(why.prediction, (scores[:, 0] - scores[:, 1]).detach(), atol=1e-6)
    assert why.question() == "class 0 rather than class 1"
    assert not np.allclose(why.values, attention(net, tokens, 0, deletion=False).values)


def test_a_batch_of_texts_of_different_lengths_equals_one_by_one(minilm):
    both = attention(minilm, TEXTS, "positive", samples=3)
    for i, text in enumerate(TEXTS):
        one = attention(minilm, text, "positive", samples=3)
        d = len(one.tokens[0])
        assert both.tokens[i] == one.tokens[0]
        np.testing.assert_allclose(both.values[i, :d], one.values[0], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(both.rollout[i, :d], one.rollout[0], atol=1e-6)
        np.testing.assert_allclose(both.heads(3, 2, i), one.heads(3, 2), atol=1e-5)
        np.testing.assert_allclose(both.drops[i, :d], one.drops[0], atol=1e-4)


# ---- what is no self-attention, and what cannot be seen ---------------------------------------------------------------


def test_a_class_softmax_is_no_attention_and_a_network_without_is_refused(net, x):
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hand, self.vectors = Hand(), nn.Parameter(torch.randn(3, 2))

        def forward(self, x):
            return torch.softmax(self.hand(x), -1) @ self.vectors

    assert len(attention(Head().eval(), torch.randn(4, 5, 8), 0, deletion=False).layers) == 2
    with pytest.raises(UnsupportedError, match="no attention that was seen"):
        attention(net, x)


def test_attention_that_is_not_seen_is_refused_and_the_model_left_as_it_was(tokens):
    summed = Hand("summed").eval()
    with pytest.raises(UnsupportedError, match="looks like attention"):
        attention(summed, tokens)
    for net in (summed, Hand().eval()):
        if net.spelling == "matmul":
            with pytest.raises(ValueError, match="stop"):
                attention(net, tokens, lambda out: (_ for _ in ()).throw(ValueError("stop")))
        assert all(p.requires_grad and p.grad is None for p in net.parameters())
        assert not net.training
        assert all(not m._forward_hooks and not m._forward_pre_hooks for m in net.modules())
    summed.qkv[1] = torch.jit.script(summed.qkv[1])
    with pytest.raises(UnsupportedError, match=r"qkv\.1 is a torch\.jit module"):
        attention(summed, tokens)


def test_a_compiled_module_is_refused(tokens):
    net = Hand().eval()
    net.qkv[0].compile()
    with pytest.raises(UnsupportedError, match=r"qkv\.0 is a torch\.compile module"):
        attention(net, tokens)


def test_windows_are_refused():
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.head = nn.Linear(8, 24), nn.Linear(8, 2)

        def forward(self, x):
            q, k, v = (one.reshape(-1, 2, 4, 4).transpose(1, 2) for one in self.qkv(x.reshape(-1, 4, 8)).chunk(3, -1))
            q, k, v = (one.transpose(1, 2).reshape(-1, 2, 4, 2) for one in (q, k, v))
            return self.head(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).reshape(len(x), -1, 8).mean(1))

    with pytest.raises(UnsupportedError, match="windows"):
        attention(Windows().eval(), torch.randn(2, 16, 8))


def test_cross_attention_of_equal_length_has_weights_and_no_rollout():
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.embed, self.head = nn.Transformer(8, 2, 1, 1, 16, batch_first=True), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.body(x, self.embed(x)).mean(1))

    why = attention(Net().eval(), torch.randn(2, 5, 8), 0)
    assert why.rolled == ()
    assert why.values.shape == (2, 0)
    assert why.curves is None
    assert why.matrices.shape == (2, 3, 2, 5, 5)
    assert "multihead_attn" in why.details["note"]
    assert "no rollout" in why.summary()
    with pytest.raises(InputError, match="from one set of tokens to another"):
        why.plot(how="words")
    assert len(why.plot().figure.axes) == len(why.plot(how="heads").figure.axes)
    why.plot(how="matrix", layer=2, head=1)


def test_a_pooling_query_behind_the_layers_does_no_harm(tokens):
    class Pooled(Hand):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.keys = nn.Parameter(torch.randn(1, 1, 8)), nn.Linear(8, 8)

        def forward(self, x):
            for qkv in self.qkv:
                x = x + self.attend(*qkv(x).chunk(3, -1))
            return self.head(((self.query @ self.keys(x).mT).softmax(-1) @ x)[:, 0])

    why = attention(Pooled().eval(), tokens, 0, deletion=False)
    assert why.rolled == (0, 1)
    assert why.weights[2].shape == (3, 1, 1, 5)
    with pytest.raises(InputError, match="different shapes"):
        _ = why.matrices


# ---- the deletion test, shuffling ------------------------------------------------------------------------------------


def test_the_curves_equal_deleting_by_hand(minilm):
    why = attention(minilm, TEXTS[1], "negative", samples=4, seed=5)
    items = minilm.prepare(TEXTS[1])
    (part,) = items.arguments.parts
    pad = minilm.net.encoder.embeddings.word_embeddings.weight[0].detach()
    real = [k for k, mark in enumerate(part.readings[0].special) if not mark]

    @cache
    def score(gone: frozenset[int]) -> float:
        batch = items.batch.clone()
        batch[0, sorted(gone)] = pad
        with torch.no_grad():
            return float(minilm.forward(batch, items.beside([0]))[0, 0])

    alone = np.array([why.prediction[0] - score(frozenset([k])) for k in real])
    np.testing.assert_allclose(why.drops[0, real], alone, atol=1e-5)
    assert not why.drops[0, [0, -1]].any()  # special tokens stay
    for k, ranking in enumerate((why.values[0], why.rollout[0], why.last_layer[0], why.drops[0])):
        order = sorted(real, key=lambda place, ranking=ranking: -ranking[place])
        slow = [score(frozenset(order[: round(len(order) * step / STEPS)])) for step in range(STEPS + 1)]
        np.testing.assert_allclose(why.curves[0, k], slow, atol=1e-5)
    assert why.params["baseline"] == "pad"
    assert why.random.shape == (1, 4, STEPS + 1)
    np.testing.assert_allclose(why.random[0, :, [0, -1]], why.curves[0, 0, [0, -1]][:, None].repeat(4, 1), atol=1e-6)


def test_the_verdict_can_go_each_way():
    chance = np.linspace(0, 1, 30)
    assert [verdict(one, chance) for one in (-0.1, 0.5, 1.1)] == ["better than random", "could be chance", "worse than random"]
    assert p_value(-0.1, chance) == pytest.approx(1 / 31)
    assert p_value(0.5, chance) == pytest.approx(16 / 31)
    assert area(np.array([1.0, 0.0, 0.0])) == 0.25
    z = without(np.array([2, 0]), 4)
    assert z[0].all()
    assert z[-1].tolist() == [False, True, False, True]
    assert z.shape == (STEPS + 1, 4)


def test_shuffling_permutes_each_row_among_what_it_looks_at():
    weights = torch.rand(3, 2, 6, 6).tril()
    found = shuffled(weights, [torch.Generator().manual_seed(k) for k in range(3)])
    torch.testing.assert_close(found.sort(-1).values, weights.sort(-1).values)
    assert ((found == 0) == (weights == 0)).all()
    assert not torch.equal(found, weights)
    again = shuffled(weights[1:2], [torch.Generator().manual_seed(1)])
    torch.testing.assert_close(again[0], found[1])


@pytest.mark.parametrize("spelling", ["matmul", "bmm", "sdpa", "einsum"])
def test_shuffled_weights_enter_the_model_whatever_the_spelling_and_the_batch_size(tokens, spelling):
    net = Hand(spelling, pool="mean").eval()
    why = attention(net, tokens[:1], 1, samples=6, seed=2)
    np.testing.assert_allclose(why.shuffled, attention(net, tokens[:1], 1, samples=6, seed=2, batch_size=2).shuffled, atol=1e-5)
    generator = [torch.Generator().manual_seed(int(np.random.SeedSequence([2, 0, 4]).generate_state(1)[0]))]
    put: dict[int, np.ndarray] = {}
    for layer in range(2):  # the second sees what the first changed
        seen = torch.from_numpy(by_numpy(net, tokens[0].double().numpy(), put)[1][layer]).float()
        put[layer] = shuffled(seen if spelling == "bmm" else seen[None], generator).reshape(seen.shape).double().numpy()
    np.testing.assert_allclose(why.shuffled[0, 4], by_numpy(net, tokens[0].double().numpy(), put)[0][1], atol=1e-4)


# ---- a vision transformer --------------------------------------------------------------------------------------------


class TinyViT(nn.Module):
    """4 x 4 patches of an 8 x 8-patched picture [n, 3, 32, 32], a class token, two layers of torch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        self.cls, self.where = nn.Parameter(torch.zeros(1, 1, 16)), nn.Parameter(0.1 * torch.randn(1, 17, 16))
        self.body = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True), 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), self.patches(x).flatten(2).transpose(1, 2)], 1)
        return self.head(self.body(tokens + self.where)[:, 0])


def squares(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise with one patch that is red (class 0) or green (class 1)."""
    g = torch.Generator().manual_seed(seed)
    x, y, at = torch.rand(n, 3, 32, 32, generator=g) * 0.5, torch.randint(2, (n,), generator=g), torch.randint(16, (n,), generator=g)
    for k in range(n):
        row, column = divmod(int(at[k]), 4)
        x[k, int(y[k]), 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += 0.5
    return x, y, at


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    torch.manual_seed(0)
    net, (x, y, _) = TinyViT(), squares(4000, 1)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(250):
        at = (torch.arange(64) + 64 * step) % 4000
        loss = nn.functional.cross_entropy(net(x[at]), y[at])
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    return net.eval()


def test_a_vision_transformer_finds_the_patch_that_decides(vit):
    x, y, at = squares(8, 10_000)
    with torch.no_grad():
        assert (vit(x).argmax(1) == y).float().mean() >= 0.85
    why = attention(vit, x, samples=24)
    assert why.grid == (1, 4, 4)
    assert why.tokens[0][:2] == ("class token", "row 0, column 0")
    assert why.special[:, 0].all()
    assert not why.special[:, 1:].any()
    np.testing.assert_allclose(why.rows[:, 0], 1, atol=1e-6)
    assert (why.values[:, 1:].argmax(1) == at.numpy()).mean() >= 0.85
    assert (why.drops[:, 1:].argmax(1) == at.numpy()).mean() >= 0.85
    gains = area(why.random).mean(1) - area(why.curves[:, 0])
    assert (gains > 0).mean() >= 0.85
    said = why.summary()
    assert "better than random" in said
    assert "over all 8 items" in said
    assert "Jain & Wallace 2019" in said
    assert why.model_calls > 8 * 16


def test_pictures_are_drawn_saved_and_loaded(vit, tmp_path):
    x, _, _ = squares(2, 5)
    why = attention(vit, x, samples=3)
    assert Attention.load(why.save(tmp_path / "attention.npz")) == why
    assert why != attention(vit, x, samples=3, seed=1)
    with plt.style.context("dark_background"):
        for how in ("words", "heads", "matrix", "layers", "deletion"):
            ax = why.plot(how=how, i=1)
            ax.figure.savefig(tmp_path / "drawn.png", dpi=40)
    assert why.pictures.shape == (2, 32, 32, 3)
    assert "<img" in why._repr_html_()
    assert repr(why) == f"<Attention of 2 layers, 2 items, {why.question()}>"


def test_texts_are_drawn_saved_and_loaded(minilm, tmp_path):
    why = attention(minilm, TEXTS, samples=3)
    assert Attention.load(why.save(tmp_path / "attention.npz")) == why
    for values in ("gradient", "rollout", "last layer", "leave-one-out"):
        why.plot(values=values).figure.savefig(tmp_path / "drawn.png", dpi=40)
    assert "[CLS], [SEP]" in why.summary()
    assert [name for name, _ in why.top(2)] == [why.tokens[0][k] for k in np.argsort(-why.values[0])[:2]]
    share = np.mean([one[0][:, :, why.special[0]].sum(-1).mean() for one in why.weights])
    assert f"{share:.0%} of the attention" in why.summary()


def test_numbers_of_numpy_come_back_equal(tokens, tmp_path):
    why = attention(Hand().eval(), tokens, 0, samples=np.int64(3), seed=np.int64(1))
    assert Attention.load(why.save(tmp_path / "numbers.npz")) == why
    assert np.array_equal(why.random, attention(Hand().eval(), tokens, 0, samples=3, seed=1).random)


def test_progress_can_stop_it_and_a_target_inside_ends_the_pass(tokens):
    net = Hand(pool="mean").eval()
    with pytest.raises(Cancelled):
        attention(net, tokens, 0, progress=lambda done, total: False)
    inside = attention(net, tokens, aw.neuron("qkv.1", (..., 3)), deletion=False)
    assert len(inside.layers) == 1


def test_a_model_that_looks_at_its_padding_shows_it():
    class Unmasked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.hand = nn.Embedding(20, 8), Hand(pool="mean")

        def forward(self, input_ids, attention_mask=None):
            return self.hand(self.embed(input_ids))

    ids, mask = torch.tensor([[3, 4, 5, 0], [6, 7, 8, 9]]), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    why = attention(Unmasked().eval(), {"input_ids": ids, "attention_mask": mask}, 0, samples=3)
    assert len(why.tokens[0]) == 4
    assert why.drops[0].all()
    np.testing.assert_allclose(why.weights[0].sum(-1), 1, atol=1e-5)


def test_wrong_arguments_are_named(tokens):
    net = Hand().eval()
    why = attention(net, tokens, 0, deletion=False)
    for wrong, said in (
        ({"how": "word"}, "did you mean 'words'"), ({"values": "raw"}, "'rollout'"), ({"i": 3}, "i=3: there are 3"), ({"how": "matrix", "layer": 2}, "layer=2"),
        ({"how": "heads", "layer": 1}, "how='matrix'"), ({"how": "deletion"}, "deletion=True"), ({"values": "leave-one-out"}, "choose"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            why.plot(**wrong)
    with pytest.raises(InputError, match="samples=1"):
        attention(net, tokens, samples=1)
    for seed in (-1, True, 0.5):
        with pytest.raises(InputError, match=f"seed={seed}: give a whole number"):
            attention(net, tokens, seed=seed)
    for ask in (why.summary, why.question, lambda i: why.top(3, i), lambda i: why.ranking("rollout", i), lambda i: why.heads(0, 0, i)):
        for i in (9, -1, True):
            with pytest.raises(InputError, match=f"i={i}: there are 3, counted from 0"):
                ask(i)
    with pytest.raises(InputError, match="k=0: give a whole number from 1 on"):
        why.top(0)
    with pytest.raises(UnsupportedError, match="offers predictions only"):
        attention(lambda x: x, tokens)
    assert "no test was made" in why.summary()
    with pytest.raises(UnsupportedError, match="saturated"):
        attention(net, tokens, lambda out: out.sum(1) * 0 + 1)


def test_tokens_without_a_place_in_the_input_are_not_deleted_and_that_is_said():
    class Columns(nn.Module):
        """Each column of a table becomes a token, behind one of its own."""

        def __init__(self) -> None:
            super().__init__()
            self.weight, self.hand = nn.Parameter(torch.randn(4, 8)), Hand()

        def forward(self, x):
            tokens = x[..., None] * self.weight
            return self.hand(torch.cat([tokens[:, :1] * 0 + 1, tokens], 1))

    why = attention(Columns().eval(), torch.rand(2, 4), 0)
    assert why.curves is None
    assert "no known place in its input" in why.summary()
    with pytest.raises(InputError, match="no known place"):
        why.plot(how="deletion")
    why.plot(), why.plot(how="layers")
