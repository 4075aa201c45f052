"""Backward passes with other rules: deconvnet, DeepLIFT, LRP; on models as they are, however they are spelled."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from conftest import quick, small_net
from test_local import SPELLINGS, Spelled
from torch import nn

import askwhy as aw
from askwhy import written
from askwhy.errors import InputError, LayerError, UnsupportedError

EXACT = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture(autouse=True)
def one_thread():
    """Nothing here is large enough for two, which wait for each other where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def item() -> torch.Tensor:
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2)).double()


@pytest.fixture
def chain() -> nn.Sequential:
    return small_net(dtype=torch.float64)


def seeded(make, seed=0):
    torch.manual_seed(seed)
    return make().double().eval()


# ---- deconvnet ----------------------------------------------------------------------------------------------------


def network_c() -> nn.Module:
    """FACTS: all convolution weights 1, biases -50 and -75; rows (1, 1, 1, 1, 1, -1, -1, -1)."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4, bias=False), nn.ReLU()).eval()
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[0].bias.copy_(torch.tensor([-50.0, -75.0]))
        net[3].weight.copy_(torch.tensor([1.0, 1, 1, 1, 1, -1, -1, -1]).expand(4, 8))
    return net


def test_deconvnet_and_guided_backprop_of_network_c():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    np.testing.assert_array_equal(aw.deconvnet(network_c(), x, 0).values[0, 0], [[2, 3, 3, 1], [3, 5, 5, 2], [3, 5, 5, 2], [1, 2, 2, 1]])
    np.testing.assert_array_equal(aw.guided_backprop(network_c(), x, 0).values[0, 0], [[0, 1, 1, 1], [1, 3, 3, 2], [1, 3, 3, 2], [1, 2, 2, 1]])


def test_deconvnet_on_a_chain_is_the_rule_by_hand(chain, item):
    np.testing.assert_allclose(aw.deconvnet(chain, item, 2).values, oracle.deconvnet(list(chain), item, 2), atol=1e-12)


def test_deconvnet_equals_captum(net, x):
    captum = pytest.importorskip("captum.attr")
    with pytest.warns(UserWarning, match="Setting backward hooks"):
        wanted = captum.Deconvolution(net).attribute(x.clone().requires_grad_(), target=2)
    np.testing.assert_allclose(aw.deconvnet(net, x, 2).values, wanted.detach(), atol=1e-6)


# ---- every spelling -----------------------------------------------------------------------------------------------

RELEVANCE = {
    "deconvnet": {},
    "deep_lift": {"baseline": 0.3},
    "lrp": {"rule": "epsilon-plus-flat"},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", RELEVANCE)
def test_one_map_in_every_spelling(name, spelling, item):
    usual = aw.explain(seeded(lambda: Spelled("modules")), item, name, 1, **RELEVANCE[name])
    why = aw.explain(seeded(lambda: Spelled(spelling)), item, name, 1, **RELEVANCE[name])
    np.testing.assert_allclose(why.values, usual.values, **EXACT)
    if why.residual is not None:
        assert abs(why.residual[0]) < 1e-9
    gradient = aw.gradient(seeded(lambda: Spelled("modules")), item, 1).values
    assert np.abs(why.values - gradient).max() > 0.1 * np.abs(gradient).max()  # so the rule did something


@pytest.mark.parametrize("name", RELEVANCE)
def test_a_traced_network_gives_the_same_map(name, item):
    net = seeded(lambda: Spelled("functional"))
    traced = aw.explain(torch.fx.symbolic_trace(net), item, name, 1, **RELEVANCE[name])
    np.testing.assert_allclose(traced.values, aw.explain(net, item, name, 1, **RELEVANCE[name]).values, **EXACT)


class Eight(nn.Module):
    """One network with batch norm, a residual and a linear head in the eight ways in which people write it; the weights are shared."""

    WAYS = ("modules", "functional", "in place", "one ReLU", "clamp", "residual in place", "loops", "nested loops", "traced")

    def __init__(self, way):
        super().__init__()
        torch.manual_seed(4)
        self.one, self.norm, self.two, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 3)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.way, self.acts, self.act = way, nn.ModuleList([nn.ReLU(), nn.ReLU()]), nn.ReLU()
        self.stages = nn.ModuleList([nn.Sequential(self.one, self.norm, nn.ReLU()), nn.Sequential(self.two)])
        self.tail = nn.ModuleList([nn.Sequential(nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)), nn.Sequential(nn.Flatten(), self.head)])

    @classmethod
    def make(cls, way):
        net = cls(way).double().eval()
        return torch.fx.symbolic_trace(net) if way == "traced" else net

    def rectified(self, x, k):
        return {
            "modules": lambda: self.acts[k](x),
            "in place": lambda: F.relu_(x) if k else x.relu_(),
            "one ReLU": lambda: self.act(x),
            "clamp": lambda: x.clamp(min=0),
        }.get(self.way, lambda: F.relu(x))()

    def forward(self, x):
        if self.way == "loops":
            x = self.stages[0](x)
            for stage in self.stages[1:]:
                x = stage(x) + x
            for stage in self.tail:
                x = stage(x)
            return x
        if self.way == "nested loops":
            for k, stage in enumerate(self.stages):
                before = x
                for layer in stage:
                    x = layer(x)
                if k:
                    x = x + before
            return self.head(F.adaptive_avg_pool2d(F.relu(x), 1).flatten(1))
        a = self.rectified(self.norm(self.one(x)), 0)
        b = self.two(a)
        if self.way == "residual in place":
            b += a
        else:
            b = b + a
        return self.head(F.adaptive_avg_pool2d(self.rectified(b, 1), 1).flatten(1))


COMPOSITES = ("epsilon", "epsilon-plus-flat", "epsilon-gamma-box", "alpha2-beta1-flat", "gamma(0.3)")
EVERY = [(m.name, quick(m.name)) for m in aw.methods() if m.name != "anchors" and "image" in m.inputs] + [
    ("lrp", {"rule": rule}) for rule in COMPOSITES
]
EVERY += [("deep_lift", {"baseline": 0.3}), ("deep_lift", {"baseline": 0.3, "rule": "reveal-cancel"})]
WORDS = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(7)).double()
ITEM = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(2)).double()


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_every_method_is_one_map_in_the_eight_spellings(name, options):
    usual, *others = (aw.explain(Eight.make(way), ITEM, name, 2, **options) for way in Eight.WAYS)
    largest = np.abs(usual.values).max()
    assert largest > 0
    for way, why in zip(Eight.WAYS[1:], others, strict=True):
        np.testing.assert_allclose(why.values, usual.values, rtol=0, atol=1e-9 * largest, err_msg=way)
        assert [why.details.get(k) for k in ("rescaled", "without_rule")] == [usual.details.get(k) for k in ("rescaled", "without_rule")]


class Normed(nn.Module):
    """Convolution, batch norm, rectifier in several spellings."""

    def __init__(self, spelling):
        super().__init__()
        torch.manual_seed(5)
        self.spelling, self.conv, self.norm, self.head = spelling, nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5), nn.Linear(5, 3)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.norm.weight.data.uniform_(-1, 1)
        self.norm.bias.data.normal_()

    def forward(self, x):
        n, s = self.norm, self.spelling
        z = self.conv(x)
        if s == "module":
            z = n(z).relu()
        elif s == "functional":
            z = F.relu(F.batch_norm(z, n.running_mean, n.running_var, n.weight, n.bias, eps=n.eps), inplace=True)
        elif s == "torch":
            z = torch.batch_norm(z, n.weight, n.bias, n.running_mean, n.running_var, False, 0.1, n.eps, False).relu_()
        elif s == "folded":
            scale = n.weight * torch.rsqrt(n.running_var + n.eps)
            z = F.conv2d(x, self.conv.weight * scale[:, None, None, None], n.bias - n.running_mean * scale).clamp_min(0)
        return self.head(z.mean((2, 3)))


@pytest.mark.parametrize("rule", ["epsilon(0.1)", "epsilon-plus", "gamma(0.3)", "alpha2-beta1-flat", "epsilon-gamma-box"])
@pytest.mark.parametrize("spelling", ["module", "functional", "torch"])
def test_batch_norm_belongs_to_the_layer_before_it(spelling, rule, item):
    wanted = aw.lrp(Normed("folded").double().eval(), item, 1, rule=rule)
    why = aw.lrp(Normed(spelling).double().eval(), item, 1, rule=rule)
    np.testing.assert_allclose(why.values, wanted.values, **EXACT)
    np.testing.assert_allclose(why.details["bias_share"], wanted.details["bias_share"], **EXACT)


class Attends(nn.Module):
    """One self-attention in several spellings."""

    def __init__(self, spelling):
        super().__init__()
        torch.manual_seed(6)
        self.spelling, self.attention, self.norm, self.head = (
            spelling,
            nn.MultiheadAttention(8, 2, batch_first=True),
            nn.LayerNorm(8),
            nn.Linear(8, 3),
        )
        self.attention.in_proj_bias.data.normal_()
        self.norm.weight.data.normal_()
        self.norm.bias.data.normal_()

    def heads(self, t):
        return t.unflatten(-1, (2, 4)).transpose(1, 2)

    def mixed(self, x):
        a, s = self.attention, self.spelling
        if s == "module":
            return a(x, x, x, need_weights=False)[0]
        if s == "with weights":
            return a(x, x, x)[0]
        if s == "length first":
            t = x.transpose(0, 1)
            return F.multi_head_attention_forward(
                t, t, t, 8, 2, a.in_proj_weight, a.in_proj_bias, None, None, False, 0.0, a.out_proj.weight, a.out_proj.bias, training=False
            )[0].transpose(0, 1)
        q, k, v = map(self.heads, F.linear(x, a.in_proj_weight, a.in_proj_bias).chunk(3, -1))
        if s == "sdpa":
            mixed = F.scaled_dot_product_attention(q, k, v)
        elif s == "written out":
            mixed = torch.softmax(q @ k.transpose(-2, -1) / 2.0, -1) @ v
        elif s == "einsum":
            weights = F.softmax(torch.einsum("bhqd,bhkd->bhqk", q, k).mul_(0.5), dim=-1)
            mixed = torch.einsum("bhqk,bhkd->bhqd", F.dropout(weights, 0.1, self.training), v)
        return a.out_proj(mixed.transpose(1, 2).flatten(2))

    def normed(self, x):
        if self.spelling in ("module", "sdpa"):
            return self.norm(x)
        centred = x - x.mean(-1, keepdim=True)
        if self.spelling == "einsum":
            return centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + self.norm.eps) * self.norm.weight + self.norm.bias
        return self.norm.weight * (centred * (centred.var(-1, keepdim=True, unbiased=False) + self.norm.eps) ** -0.5) + self.norm.bias

    def forward(self, x):
        return self.head(self.normed(x + self.mixed(x)).mean(1))


QUICKLY = {"expected_gradients": {"background": WORDS.flip(0) / 2, "samples": 20}, "integrated_gradients": {"baseline": 0.1}}
OF_WORDS = [(m.name, {}) for m in aw.methods() if m.needs == "gradients" and "other" in m.inputs and m.name not in ("deep_lift", "lrp")]
OF_WORDS = [(name, QUICKLY.get(name, options)) for name, options in OF_WORDS]
OF_WORDS += [("deep_lift", {"baseline": 0.1}), ("deep_lift", {"baseline": 0.1, "rule": "reveal-cancel"})]
OF_WORDS += [("lrp", {"rule": rule}) for rule in COMPOSITES]


def same_in_every_spelling(name, options, *nets):
    """One map, or one refusal."""
    found = []
    for net in nets:
        try:
            found.append(aw.explain(net.double().eval(), WORDS, name, 1, **options))
        except UnsupportedError as error:
            found.append(str(error).split(";")[0].split(" has ")[0])
    if isinstance(found[0], str):
        assert found == [found[0]] * len(nets)
        assert name in ("guided_backprop", "deconvnet")
        assert "this method changes rectifiers" in found[0]
        return
    for why in found[1:]:
        np.testing.assert_allclose(why.values, found[0].values, rtol=0, atol=1e-9 * np.abs(found[0].values).max(), err_msg=f"{name} {options}")
        if name in ("deep_lift", "lrp"):
            assert np.abs(why.residual).max() < 1e-8


@pytest.mark.parametrize(("name", "options"), OF_WORDS)
def test_attention_and_layer_norm_are_one_map_in_every_spelling(name, options):
    same_in_every_spelling(name, options, *map(Attends, ("module", "with weights", "length first", "sdpa", "written out", "einsum")))


class Recurrent(nn.Module):
    def __init__(self, kind, spelling):
        super().__init__()
        torch.manual_seed(8)
        self.kind, self.spelling, self.rnn, self.head = kind, spelling, getattr(nn, kind)(8, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        if self.spelling == "module":
            return self.head(self.rnn(x)[0][:, -1])
        if self.spelling == "length first":
            self.rnn.batch_first = False
            return self.head(self.rnn(x.transpose(0, 1))[0][-1])
        w, u, b, c = (getattr(self.rnn, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        h = cell = x.new_zeros(len(x), 6)
        for step in x.unbind(1):
            if self.spelling == "cell":
                run = {"LSTM": torch.lstm_cell, "GRU": torch.gru_cell}[self.kind]
                h = run(step, (h, cell) if self.kind == "LSTM" else h, w, u, b, c)
                h, cell = h if isinstance(h, tuple) else (h, cell)
            elif self.kind == "LSTM":
                i, f, g, o = (step @ w.T + b + h @ u.T + c).chunk(4, 1)
                cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
                h = o.sigmoid() * cell.tanh()
            else:
                (r, z, n), (r_h, z_h, n_h) = F.linear(step, w, b).chunk(3, 1), F.linear(h, u, c).chunk(3, 1)
                z = torch.sigmoid(z + z_h)
                h = (1 - z) * torch.tanh(n + torch.sigmoid(r + r_h) * n_h) + z * h
        return self.head(h)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize(("name", "options"), OF_WORDS)
def test_recurrent_layers_are_one_map_in_every_spelling(name, options, kind):
    same_in_every_spelling(name, options, *(Recurrent(kind, spelling) for spelling in ("module", "length first", "cell", "written out")))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("name", ["lrp", "deep_lift"])
def test_packed_sequences_are_refused_by_rules_and_fine_for_gradients(name, kind):
    class Packed(Recurrent):
        def forward(self, x):
            packed = nn.utils.rnn.pack_padded_sequence(x, [5] * len(x), batch_first=True)
            return self.head(nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0][:, -1])

    net = Packed(kind, "").double().eval()
    with pytest.raises(UnsupportedError, match="packed sequences have no rule here; give the padded sequence"):
        aw.explain(net, WORDS, name, 1)
    np.testing.assert_allclose(aw.gradient(net, WORDS, 1).values, aw.gradient(Recurrent(kind, "module").double().eval(), WORDS, 1).values, **EXACT)


def attend(a, q, k, v, mask=0.0):
    """nn.MultiheadAttention by hand."""
    by_head = lambda t: t.unflatten(-1, (2, 4)).transpose(1, 2)  # noqa: E731
    weights, biases = a.in_proj_weight.chunk(3), a.in_proj_bias.chunk(3)
    q, k, v = (by_head(F.linear(t, w, b)) for t, w, b in zip((q, k, v), weights, biases, strict=True))
    return a.out_proj((torch.softmax(q @ k.transpose(-2, -1) / 2.0 + mask, -1) @ v).transpose(1, 2).flatten(2))


def norm(n, x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred * centred).mean(-1, keepdim=True) + n.eps) * n.weight + n.bias


def encoder_layer(layer, x, mask=0.0):
    feed = lambda t: layer.linear2(layer.activation(layer.linear1(t)))  # noqa: E731
    if layer.norm_first:
        z = norm(layer.norm1, x)
        x = x + attend(layer.self_attn, z, z, z, mask)
        return x + feed(norm(layer.norm2, x))
    x = norm(layer.norm1, x + attend(layer.self_attn, x, x, x, mask))
    return norm(layer.norm2, feed(x) + x)


def decoder_layer(layer, x, memory):
    feed = lambda t: layer.linear2(layer.activation(layer.linear1(t)))  # noqa: E731
    if layer.norm_first:
        z = norm(layer.norm1, x)
        x = x + attend(layer.self_attn, z, z, z)
        x = x + attend(layer.multihead_attn, norm(layer.norm2, x), memory, memory)
        return x + feed(norm(layer.norm3, x))
    x = norm(layer.norm1, x + attend(layer.self_attn, x, x, x))
    x = norm(layer.norm2, x + attend(layer.multihead_attn, x, memory, memory))
    return norm(layer.norm3, x + feed(x))


class Transformer(nn.Module):
    """torch's layers of transformers, or what they compute written out with the same weights."""

    def __init__(self, kind, activation, norm_first, batch_first, by_hand):
        super().__init__()
        torch.manual_seed(6)
        options = {"dropout": 0.1, "activation": activation, "norm_first": norm_first, "batch_first": batch_first}
        make = nn.TransformerDecoderLayer if "decoder" in kind or kind == "queries" else nn.TransformerEncoderLayer
        inner = make(8, 2, 16, **options)
        if kind == "encoder":
            nested = not norm_first and batch_first  # torch warns where it cannot
            inner = nn.TransformerEncoder(inner, 2, norm=nn.LayerNorm(8), enable_nested_tensor=nested)
        if kind == "decoder":
            inner = nn.TransformerDecoder(inner, 2)
        self.kind, self.by_hand, self.first, self.inner, self.head = kind, by_hand, batch_first, inner, nn.Linear(8, 3)
        self.queries = nn.Parameter(torch.randn(1, 4, 8))
        for p in self.parameters():
            if p.ndim == 1:
                p.data.normal_()

    def inputs(self, x):
        """What the layers are given, words first."""
        if self.kind == "queries":  # as in DETR
            return self.queries.expand(len(x), -1, -1), x
        return (x, 0.7 * x.flip(1).tanh()[:, :4]) if "decoder" in self.kind else (x,)

    def written_out(self, x, *memory):
        step = decoder_layer if memory else encoder_layer
        causal = [torch.full((5, 5), -torch.inf).triu(1)] if self.kind == "causal layer" else []
        for layer in getattr(self.inner, "layers", [self.inner]):
            x = step(layer, x, *memory, *causal)
        return norm(self.inner.norm, x) if getattr(self.inner, "norm", None) is not None else x

    def forward(self, x):
        given = self.inputs(x)
        if self.by_hand:
            return self.head(self.written_out(*given).mean(1))
        given = given if self.first else [t.transpose(0, 1) for t in given]
        options = {"src_mask": torch.full((5, 5), -torch.inf).double().triu(1), "is_causal": True} if self.kind == "causal layer" else {}
        if self.kind == "padded encoder":
            options["src_key_padding_mask"] = torch.zeros(len(x), 5, dtype=torch.bool)
        return self.head(self.inner(*given, **options).mean(1 if self.first else 0))


TRANSFORMERS = [("layer", a, n, b) for a in ("relu", "gelu") for n in (False, True) for b in (False, True)]
TRANSFORMERS += [("causal layer", "relu", False, True), ("causal layer", "gelu", True, False)]
TRANSFORMERS += [(kind, "relu", *order) for kind in ("encoder", "decoder layer") for order in ((False, True), (True, False))]
TRANSFORMERS += [
    ("decoder", "gelu", True, True),
    ("decoder", "relu", False, False),
    ("queries", "relu", False, True),
    ("queries", "gelu", True, False),
]


@pytest.mark.parametrize(("kind", "activation", "norm_first", "batch_first"), TRANSFORMERS)
def test_the_layers_of_transformers_are_one_map_with_what_they_compute(kind, activation, norm_first, batch_first):
    for name, options in OF_WORDS:
        same_in_every_spelling(name, options, *(Transformer(kind, activation, norm_first, batch_first, by_hand) for by_hand in (True, False)))


def test_a_transformer_layer_predicts_by_its_fast_path_and_is_explained_by_its_steps(monkeypatch):
    calls, fast = [], torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *args: calls.append(1) or fast(*args))
    layer, by_hand = (Transformer("encoder", "relu", False, True, hand).double().eval() for hand in (False, True))
    why, wanted = (aw.integrated_gradients(net, WORDS, 1, baseline=0.1, steps=8) for net in (layer, by_hand))
    assert calls  # so the model has another way where nothing is differentiated
    np.testing.assert_allclose(why.prediction, wanted.prediction, rtol=1e-12)
    np.testing.assert_allclose(why.values, wanted.values, rtol=1e-9, atol=1e-12)


# ---- layers in steps of their own ---------------------------------------------------------------------------------


class Dense(nn.Module):
    """Dense layers before rectifiers, in many ways to write x W + b."""

    BY_RULE = (
        "functional",
        "matmul",
        "torch.add",
        "bias first",
        "less its negative",
        "in place",
        "addmm",
        "half of it scaled",
        "einsum",
        "einsum of a list",
    )
    MOVED = ("a view", "turned and back in place", "transposed in place", "weight first", "weight and bias first")

    def __init__(self, way, normed=False):
        super().__init__()
        torch.manual_seed(2)
        self.way, self.one, self.two, self.norm, self.head = way, nn.Linear(8, 6), nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.normed = normed

    def dense(self, layer, x):
        w, b = layer.weight, layer.bias
        return {
            "module": lambda: layer(x),
            "functional": lambda: F.linear(x, w, b),
            "matmul": lambda: x @ w.T + b,
            "torch.add": lambda: torch.add(torch.matmul(x, w.t()), b),
            "bias first": lambda: b + x @ w.T,
            "less its negative": lambda: torch.mm(x, w.T) - (-b),
            "in place": lambda: (x @ w.T).add_(b),
            "addmm": lambda: torch.addmm(b, x, w.T),
            "half of it scaled": lambda: torch.addmm(b, x, w.T, beta=0.5, alpha=1) + 0.5 * b,
            "einsum": lambda: torch.einsum("bi,oi->bo", x, w) + b,
            "einsum of a list": lambda: torch.einsum("oi,bi->bo", [w, x]) + b,
            "a view": lambda: layer(x).view(-1, 3, 2).flatten(1),
            "transposed in place": lambda: layer(x).t().contiguous().t(),
            "turned and back in place": lambda: layer(x).t_().contiguous().t_(),
            "weight first": lambda: (w @ x.T).T + b,
            "weight and bias first": lambda: (w @ x.T + b[:, None]).T,
        }[self.way]()

    def forward(self, x):
        h = self.dense(self.two, self.dense(self.one, x).relu())
        h = self.norm(h) if self.normed else h
        return self.head(h.relu_() if "in place" in self.way or "view" in self.way else h.relu())


BY_LAYER = [("lrp", {"rule": rule}) for rule in COMPOSITES] + [("deep_lift", {"baseline": 0.1, "rule": "reveal-cancel"})]


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(("name", "options"), BY_LAYER)
def test_a_dense_layer_is_one_layer_in_one_step_or_in_two(name, options, normed):
    usual = aw.explain(Dense("module", normed).double().eval(), WORDS[:, 0], name, 1, **options)
    for way in Dense.BY_RULE:
        if normed and "einsum" in way:  # whose axes are not known, so the norm behind it stays a step of its own
            continue
        why = aw.explain(Dense(way, normed).double().eval(), WORDS[:, 0], name, 1, **options)
        np.testing.assert_allclose(why.values, usual.values, rtol=0, atol=1e-9 * np.abs(usual.values).max(), err_msg=way)
        for share in ("bias_share", "rescaled", "without_rule"):
            assert why.details.get(share) == pytest.approx(usual.details.get(share)), (way, share)


@pytest.mark.parametrize("way", Dense.MOVED)
def test_reveal_cancel_follows_numbers_to_another_place(way):
    usual, why = (aw.deep_lift(Dense(w).double().eval(), WORDS[:, 0], 1, baseline=0.1, rule="reveal-cancel") for w in ("module", way))
    np.testing.assert_allclose(why.values, usual.values, **EXACT)
    assert why.details["rescaled"] == usual.details["rescaled"] == 0


PARTED = {
    "bias apart": lambda c, x: (F.conv2d(x, c.weight) + c.bias[:, None, None]).relu(),
    "bias apart, in place": lambda c, x: F.conv2d(x, c.weight).add_(c.bias[None, :, None, None]).relu_(),
    "in pieces": lambda c, x: torch.cat([t.relu() for t in c(x).chunk(2, 1)], 1),
    "by index": lambda c, x: torch.cat([c(x)[:, :3].relu(), c(x)[:, 3:].relu()], 1),
    "flat, in place": lambda c, x: c(x).flatten(1).relu_().unflatten(1, (4, 14, 14)),
    "a view, in place": lambda c, x: F.relu_(c(x).view(len(x), 4, -1))[..., None],
}


class Parted(nn.Module):
    """A convolution and a rectifier, which sees the channels apart, elsewhere or through a view."""

    def __init__(self, way):
        super().__init__()
        torch.manual_seed(2)
        self.way, self.conv, self.head = PARTED.get(way, lambda c, x: c(x).relu()), nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.way(self.conv, x).mean((2, 3)))


@pytest.mark.parametrize("way", PARTED)
@pytest.mark.parametrize(("name", "options"), BY_LAYER)
def test_a_convolution_in_steps_is_one_layer(name, options, way):
    usual, why = (aw.explain(Parted(w).double().eval(), ITEM, name, 1, **options) for w in ("whole", way))
    np.testing.assert_allclose(why.values, usual.values, rtol=0, atol=1e-9 * np.abs(usual.values).max())
    for share in ("bias_share", "rescaled", "without_rule"):
        assert why.details.get(share) == pytest.approx(usual.details.get(share)), share


def test_reveal_cancel_of_a_part_that_is_rectified_in_place():
    """What is written into a view; the other channels stay as they are."""

    def half(c, x):
        y = c(x)
        F.relu_(y[:, :3])
        return y

    usual, why = Parted("whole").double().eval(), Parted("whole").double().eval()
    usual.way, why.way = (lambda c, x: torch.cat([c(x)[:, :3].relu(), c(x)[:, 3:]], 1)), half
    usual, why = (aw.deep_lift(net, ITEM, 1, baseline=0.3, rule="reveal-cancel") for net in (usual, why))
    np.testing.assert_allclose(why.values, usual.values, **EXACT)
    assert why.details["rescaled"] == 0


def apart(x):
    """x, in two steps that hand all relevance on, so that nothing that follows belongs to the layer before."""
    return x.sinh().asinh()


ROW, ROWS = torch.linspace(-1, 1, 6).double(), torch.linspace(-1, 1, 12).reshape(2, 6).double()
UNKNOWN = {
    "its input was written to": lambda s, x: [h := x * 1.0, s.one(h), h.add_(1.0)][1],
    "it was padded": lambda s, x: F.pad(s.one(x), (1, 0), value=0.5)[:, :6],
    "it was masked": lambda s, x: s.one(x).masked_fill(torch.eye(1, 6).bool(), 0.5),
    "it was subtracted": lambda s, x: ROW - s.one(x),
    "it was spread": lambda s, x: (s.one(x) + ROWS[:, None])[0],
    "its weight is what depends on the input": lambda s, x: F.linear(ROW[None], s.one(x).expand(6, 6)),
    "it was moved and normalized": lambda s, x: s.norm(s.one(x).flip(1)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_reveal_cancel_says_where_it_does_not_know_what_feeds_a_neuron(name):
    class Net(Dense):
        def forward(self, x):
            return self.head(UNKNOWN[name](self, x).relu())

    why = aw.deep_lift(Net("module").double().eval(), WORDS[:1, 0], 1, baseline=0.1, rule="reveal-cancel")
    assert why.details["rescaled"] == 1
    assert np.abs(why.residual).max() < 1e-9
    np.testing.assert_allclose(why.values, aw.deep_lift(Net("module").double().eval(), WORDS[:1, 0], 1, baseline=0.1).values, **EXACT)


@pytest.mark.parametrize("act", ["tanh", "sigmoid", "abs"])
def test_reveal_cancel_of_an_activation_in_place(act):
    class Net(Dense):
        def forward(self, x):
            return self.head(getattr(self.one(x), self.way)())

    usual, why = (aw.deep_lift(Net(name).double().eval(), WORDS[:, 0], 1, baseline=0.1, rule="reveal-cancel") for name in (act, f"{act}_"))
    np.testing.assert_allclose(why.values, usual.values, **EXACT)
    assert usual.details["rescaled"] == why.details["rescaled"] == 0


def test_reveal_cancel_takes_the_derivative_where_a_neuron_has_not_changed():
    """x1 + x2 is 1 in both, and what raised it and what lowered it are handed on through the next rectifier."""
    net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False)).double().eval()
    for layer, weight in ((0, [[1.0, 1.0]]), (2, [[2.0]]), (4, [[3.0]])):
        net[layer].weight.data = torch.tensor(weight).double()
    why = aw.deep_lift(net, torch.tensor([[1.0, 0.0]]).double(), 0, baseline=np.array([0.0, 1.0]), rule="reveal-cancel")
    np.testing.assert_allclose(why.values, [[6, -6]], **EXACT)


NOT_A_BIAS = {
    "of a size of its own": (lambda s, x: s.one(x) + ROWS, lambda s, x: apart(s.one(x)) + ROWS),
    "less the layer": (lambda s, x: ROW - s.one(x), lambda s, x: ROW + apart(-s.one(x))),
    "of more axes": (lambda s, x: (s.one(x) + ROW[None, None])[0], lambda s, x: apart(s.one(x)) + ROW),
    "of one for all": (lambda s, x: s.one(x)[:, :1] + ROW, lambda s, x: apart(s.one(x))[:, :1] + ROW),
    "padding": (lambda s, x: F.pad(s.one(x)[:, :5], (1, 0), "constant", 0.5), lambda s, x: F.pad(apart(s.one(x))[:, :5], (1, 0), value=0.5)),
    "padding of the layer": (
        lambda s, x: F.pad(s.one(x), (1, 0), "constant", 0.5)[:, :6],
        lambda s, x: F.pad(apart(s.one(x)), (1, 0), value=0.5)[:, :6],
    ),
    "after another step": (lambda s, x: s.one(x).mul_(2.0) + ROW, lambda s, x: apart(s.one(x) * 2.0) + ROW),
    "after another step in place": (lambda s, x: s.one(x).abs_() + ROW, lambda s, x: apart(s.one(x).abs()) + ROW),
    "a sum in place": (
        lambda s, x: [h := s.one(-x).tanh() + s.one(x), h.add_(ROW)][0],
        lambda s, x: apart(s.one(-x).tanh() + s.one(x)) + ROW,
    ),
    "after a sum that was written to": (
        lambda s, x: (s.one(-x).tanh() + s.one(x)).mul_(2.0) + ROW,
        lambda s, x: apart((s.one(-x).tanh() + s.one(x)) * 2.0) + ROW,
    ),
    "after a sum of which a part was written to": (
        lambda s, x: [t := s.one(-x).tanh(), h := t + s.one(x), t.add_(1.0), h + ROW + 0 * t][3],
        lambda s, x: apart(s.one(-x).tanh() + s.one(x)) + ROW,
    ),
    "after its input was written to": (
        lambda s, x: [h := x * 1.0, y := s.one(h), h.add_(1.0), y + ROW + 0 * h.sum()][3],
        lambda s, x: apart(s.one(x)) + ROW,
    ),
    "after a wider sum": (
        lambda s, x: (s.one(-x).tanh()[:, None] + s.one(x) + ROW).mean(1),
        lambda s, x: (apart(s.one(-x).tanh()[:, None] + s.one(x)) + ROW).mean(1),
    ),
}


@pytest.mark.parametrize("name", NOT_A_BIAS)
def test_what_is_no_bias_of_the_layer_is_a_step_of_its_own(name):
    """The constant takes its part of the sum; the layer divides the rest by its rule."""

    class Net(Dense):
        def __init__(self, step):
            super().__init__("module")
            self.step = step

        def forward(self, x):
            return self.head(self.step(self, x))

    why, wanted = (aw.lrp(Net(step).double().eval(), 0.3 * WORDS[:, 0], 1, rule="gamma(0.3)") for step in NOT_A_BIAS[name])
    np.testing.assert_allclose(why.values, wanted.values, rtol=0, atol=1e-9 * np.abs(wanted.values).max())
    assert np.abs(why.residual).max() < 1e-9


FIRST = {
    "residual": (lambda s, x: s.conv(x + s.conv(x).tanh()), lambda s, x: s.conv(s.conv(x).tanh() + x)),
    "transposed": (lambda s, x: s.conv(x), lambda s, x: s.conv(x.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1))),
    "mirrored": (lambda s, x: F.conv2d(x, s.conv.weight.flip(3), s.conv.bias, padding=1).flip(3), lambda s, x: s.conv(x.flip(3))),
    "padded": (lambda s, x: s.conv(x), lambda s, x: F.conv2d(F.pad(x, (1, 1, 1, 1)), s.conv.weight, s.conv.bias)),
    "padded by a token": (
        lambda s, x: s.conv(x),
        lambda s, x: F.conv2d(F.pad(torch.cat([x.new_zeros(len(x), 3, 1, 16), x], 2), (1, 1, 0, 1)), s.conv.weight, s.conv.bias),
    ),
    "in pieces": (lambda s, x: s.conv(x), lambda s, x: torch.cat([s.conv(t) for t in x.unsqueeze(1).unbind(1)])),
    "in place": (lambda s, x: s.conv(x * 2.0), lambda s, x: s.conv(x.mul_(2.0))),
}


class First(nn.Module):
    def __init__(self, first):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.conv, self.dense, self.head = first, nn.Conv2d(3, 3, 3, padding=1), nn.Linear(768, 6), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.first(self, x).relu().unflatten(1, (3, -1)).flatten(2).mean(2))


FIRST_RULES = pytest.mark.parametrize("rule", ["epsilon-plus-flat", "epsilon-gamma-box"])


@FIRST_RULES
@pytest.mark.parametrize("name", FIRST)
def test_the_rule_of_the_first_layer_does_not_depend_on_how_it_is_given_the_input(name, rule):
    wanted, why = (aw.lrp(First(way).double().eval(), ITEM - 0.4, 1, rule=rule, box=(-0.5, 0.7)) for way in FIRST[name])
    np.testing.assert_allclose(why.values, wanted.values, rtol=0, atol=1e-9 * np.abs(wanted.values).max())
    assert np.abs(why.residual).max() < 1e-9
    plain = aw.lrp(First(FIRST[name][0]).double().eval(), ITEM - 0.4, 1, rule="epsilon-plus")
    assert np.abs(plain.values - why.values).max() > 1e-4 * np.abs(plain.values).max()  # so the first layer has its own rule


@FIRST_RULES
def test_a_picture_that_is_flattened_first_is_explained_as_the_row_of_its_numbers(rule):
    inside, outside = First(lambda s, x: s.dense(x.flatten(1))).double().eval(), First(lambda s, x: s.dense(x)).double().eval()
    why, wanted = aw.lrp(inside, ITEM, 1, rule=rule, box=(0, 1)), aw.lrp(outside, ITEM.flatten(1), 1, rule=rule, box=(0, 1))
    np.testing.assert_allclose(why.values, wanted.values.reshape(ITEM.shape), **EXACT)


@FIRST_RULES
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_box_is_that_of_the_input_also_where_the_model_normalizes(sign, rule):
    mean, std = torch.tensor([0.1, 0.2, 0.3]).double()[:, None, None], sign * torch.tensor([0.5, 0.2, 0.4]).double()[:, None, None]
    inside, outside = First(lambda s, x: s.conv((x - mean) / std)).double().eval(), First(lambda s, x: s.conv(x)).double().eval()
    ends = torch.stack([((end - mean) / std).flatten() for end in (0.0, 1.0)]).sort(0)[0]
    why, wanted = aw.lrp(inside, ITEM, 1, rule=rule, box=(0.0, 1.0)), aw.lrp(outside, (ITEM - mean) / std, 1, rule=rule, box=tuple(ends))
    np.testing.assert_allclose(why.values, wanted.values, rtol=0, atol=1e-9 * np.abs(wanted.values).max())


def grey(net, x):
    return net.conv(x.mean(1, keepdim=True).expand(-1, 3, -1, -1))


def written_to(net, x):
    x = x * 1.0
    x[:, 0] = 0.5
    return net.conv(x)


@pytest.mark.parametrize(("rule", "rest"), [("epsilon-plus-flat", "epsilon-plus"), ("epsilon-gamma-box", {"": "epsilon", "conv": "gamma"})])
@pytest.mark.parametrize("first", [grey, written_to])
def test_what_is_made_of_the_input_is_not_the_input(first, rule, rest):
    net = First(first).double().eval()
    np.testing.assert_array_equal(aw.lrp(net, ITEM, 1, rule=rule).values, aw.lrp(net, ITEM, 1, rule=rest).values)


GATES = {
    "scaled in place": (lambda x, z: x * (z.sigmoid() * 2), lambda x, z: x * z.sigmoid().mul_(2.0)),
    "masked in place": (
        lambda x, z: x * z.sigmoid().masked_fill(torch.eye(5, 8).bool(), 0.0),
        lambda x, z: x * z.sigmoid().masked_fill_(torch.eye(5, 8).bool(), 0.0),
    ),
    "moved by keyword": (lambda x, z: x * z.sigmoid().flip(1), lambda x, z: x * torch.flip(input=z.sigmoid(), dims=(1,))),
    "product of gates": (lambda x, z: x * (z.sigmoid() * z.flip(1).sigmoid()), lambda x, z: x * z.sigmoid().mul_(z.flip(1).sigmoid())),
}


@pytest.mark.parametrize("name", GATES)
def test_a_gate_stays_one_when_it_is_changed_in_place(name):
    class Gated(nn.Module):
        def __init__(self, gate):
            super().__init__()
            torch.manual_seed(4)
            self.one, self.two, self.head, self.gate = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3), gate

        def forward(self, x):
            return self.head(self.gate(self.one(x), self.two(x)).mean(1))

    constant = lambda x, z: x * GATES[name][0](torch.ones_like(x), z).detach()  # noqa: E731
    wanted, *others = (aw.lrp(Gated(gate).double().eval(), WORDS, 1, rule="epsilon") for gate in (constant, *GATES[name]))
    for why in others:
        np.testing.assert_allclose(why.values, wanted.values, **EXACT)


def test_three_signals_share_the_relevance_of_their_product_equally():
    why = aw.lrp(seeded(lambda: Around(lambda x: torch.einsum("bij,bkj,bkl->bil", x, x, x))), WORDS, 1, rule="epsilon")
    assert np.abs(why.residual).max() < 1e-9
    assert why.details["without_rule"] == ""


def test_a_product_of_which_no_rule_knows_the_parts_is_named():
    fixed = torch.randn(8, 8, generator=torch.Generator().manual_seed(1)).double()
    why = aw.lrp(seeded(lambda: Around(lambda x: torch.einsum("bij,jk,kl->bil", x, fixed, fixed))), WORDS, 1, rule="gamma(0.3)")
    assert why.details["without_rule"] == "einsum"
    assert np.abs(why.residual).max() < 1e-9  # the derivative is right for what is linear


# ---- textbook versions and peers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["epsilon(0.01)", "z-plus", "gamma(0.25)", "gamma(1.0)", "alpha2-beta1", "alpha-beta(1.5)"])
def test_lrp_on_a_chain_is_the_textbook_formula(rule, chain, item):
    why = aw.lrp(chain, item - 0.4, 2, rule=rule)
    wanted, bias = oracle.lrp(list(chain), item - 0.4, 2, rule)
    np.testing.assert_allclose(why.values, wanted, rtol=1e-6, atol=1e-6 * np.abs(wanted).max())
    np.testing.assert_allclose(why.details["bias_share"], [bias], rtol=1e-5)


@pytest.mark.parametrize("rule", ["epsilon(0.01)", "z-plus", "gamma(0.25)", "alpha2-beta1", "alpha-beta(1.5)"])
def test_lrp_of_one_layer_is_the_textbook_formula_whatever_the_signs(rule):
    net = seeded(lambda: nn.Sequential(nn.Linear(5, 8)))
    x = torch.randn(1, 5, generator=torch.Generator().manual_seed(3)).double()
    assert {(bool(z > 0), bool(b > 0)) for z, b in zip(net(x)[0], net[0].bias, strict=True)} == {(s, t) for s in (False, True) for t in (False, True)}
    for k in range(8):
        why = aw.lrp(net, x, k, rule=rule)
        wanted, bias = oracle.lrp(list(net), x, k, rule)
        np.testing.assert_allclose(why.values, wanted, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(why.details["bias_share"], [bias], rtol=1e-9, atol=1e-12)


def test_the_inner_name_decides_and_what_has_no_name_gets_epsilon(item):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)), nn.Flatten(), nn.Linear(576, 3)).double().eval()
    found = {
        name: aw.lrp(net, item - 0.4, 1, rule=rule).values
        for name, rule in {
            "outer and inner": {"0": "gamma(0.5)", "0.0": "alpha2-beta1"},
            "by layer": {"0.0": "alpha2-beta1", "0.2": "gamma(0.5)", "2": "epsilon"},
            "outer": {"0": "gamma(0.5)"},
        }.items()
    }
    np.testing.assert_array_equal(found["outer and inner"], found["by layer"])
    assert np.abs(found["outer"] - found["by layer"]).max() > 1e-3 * np.abs(found["outer"]).max()


@pytest.mark.parametrize(
    ("rule", "by_layer"),
    [
        ("epsilon-plus", ("z-plus", "z-plus", "epsilon")),
        ("epsilon-plus-flat", ("flat", "z-plus", "epsilon")),
        ("epsilon-gamma-box", ("box", "gamma(0.25)", "epsilon")),
        ("alpha2-beta1-flat", ("flat", "alpha2-beta1", "epsilon")),
        ({"0": "gamma(0.5)", "8": "z-plus", "": "epsilon"}, ("gamma(0.5)", "epsilon", "z-plus")),
    ],
)
def test_lrp_composites_give_each_layer_its_rule(rule, by_layer, chain, item):
    why = aw.lrp(chain, item - 0.4, 1, rule=rule, box=([-0.4] * 3, [0.6] * 3))
    wanted, _ = oracle.lrp(list(chain), item - 0.4, 1, by_layer, box=(-0.4, 0.6))
    np.testing.assert_allclose(why.values, wanted, rtol=1e-6, atol=1e-6 * np.abs(wanted).max())


@pytest.mark.parametrize("rule", ["epsilon-plus-flat", "epsilon-gamma-box"])
def test_padding_and_scaling_before_the_first_layer_change_nothing(rule, item):
    class Net(nn.Module):
        def __init__(self, apart):
            super().__init__()
            torch.manual_seed(2)
            self.apart, self.conv, self.head = apart, nn.Conv2d(3, 4, 3, padding=0 if apart else (1, 2)), nn.Linear(4, 2)

        def forward(self, x):
            z = self.conv(F.pad((x - 0) / 1, (2, 2, 1, 1)) if self.apart else x)
            return self.head(z.relu().mean((2, 3)))

    whole, apart = (aw.lrp(Net(a).double().eval(), item, 1, rule=rule, box=(-1, 2)) for a in (False, True))
    np.testing.assert_allclose(apart.values, whole.values, **EXACT)
    assert abs(apart.residual[0]) < 1e-9
    scaled = aw.lrp(Net(True).double().eval(), item, 1, rule="epsilon-plus")
    assert np.abs(scaled.values - apart.values).max() > 1e-4  # so the first layer has its own rule


def test_lrp_equals_captum_where_captum_has_rules(x):
    captum = pytest.importorskip("captum.attr")

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act, self.pool, self.dense, self.tanh, self.head = (
                nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Linear(294, 5), nn.Tanh(), nn.Linear(5, 4),
            )  # fmt: skip

        def forward(self, x):
            return self.head(self.tanh(self.dense(self.pool(self.act(self.conv(x))).flatten(1))))

    net = seeded(Net).float()
    wanted = captum.LRP(net).attribute(x.clone().requires_grad_(), target=1).detach().numpy()
    why = aw.lrp(net, x, 1, rule="epsilon(1e-9)")
    np.testing.assert_allclose(why.values, wanted, atol=1e-6 * np.abs(wanted).max())


def test_deep_lift_of_facts():
    class Net(nn.Module):
        def forward(self, x):
            return (2 * torch.relu(x[:, 0]) + 2 * torch.relu(x[:, 1] - 1.5))[:, None]

    why = aw.deep_lift(Net().eval(), torch.tensor([[1.0, 2.0]]), 0, baseline=0.0)
    np.testing.assert_allclose(why.values, [[2, 1]], atol=1e-6)
    assert abs(why.residual[0]) < 1e-6
    assert why.base_value[0] == 0


def test_deep_lift_on_a_chain_is_the_textbook_formula(chain, item):
    reference = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(9)).double()
    why = aw.deep_lift(chain, item, 2, baseline=reference[0])
    np.testing.assert_allclose(why.values, oracle.deep_lift(list(chain), item, reference, 2), rtol=1e-6, atol=1e-10)


def test_reveal_cancel_of_the_minimum_of_two():
    """The paper's example: o = i1 - relu(i1 - i2) is min(i1, i2), and both inputs are to have their half."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.act, self.outer = nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False)
            self.inner.weight.data = torch.tensor([[1.0, -1.0], [1.0, 0.0]])
            self.outer.weight.data = torch.tensor([[-1.0, 1.0]])

        def forward(self, x):
            return self.outer(self.act(self.inner(x)))

    for x in ((5.0, 3.0), (2.0, 9.0)):
        why = aw.deep_lift(Net().eval(), torch.tensor([x]), 0, baseline=0.0, rule="reveal-cancel")
        np.testing.assert_allclose(why.values, [[min(x) / 2] * 2], rtol=1e-6)
    rescaled = aw.deep_lift(Net().eval(), torch.tensor([[5.0, 3.0]]), 0, baseline=0.0)
    np.testing.assert_allclose(rescaled.values, [[0, 3]], atol=1e-6)
    with pytest.raises(InputError, match="choose 'rescale'"):
        aw.deep_lift(Net().eval(), torch.ones(1, 2), 0, rule="reveal")


def test_reveal_cancel_on_a_chain_is_the_textbook_formula(chain, item):
    reference = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(9)).double()
    why = aw.deep_lift(chain, item, 2, baseline=reference[0], rule="reveal-cancel")
    np.testing.assert_allclose(why.values, oracle.deep_lift(list(chain), item, reference, 2, reveal=True), rtol=1e-6, atol=1e-10)
    assert abs(why.residual[0]) < 1e-9


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_reveal_cancel_is_one_map_in_every_spelling(spelling, item):
    options = {"baseline": 0.3, "rule": "reveal-cancel"}
    usual = aw.deep_lift(seeded(lambda: Spelled("modules")), item, 1, **options)
    why = aw.deep_lift(seeded(lambda: Spelled(spelling)), item, 1, **options)
    assert usual.details["rescaled"] == why.details["rescaled"] == 1  # the one behind the residual
    np.testing.assert_allclose(why.values, usual.values, **EXACT)
    assert np.abs(why.values - aw.deep_lift(seeded(lambda: Spelled("modules")), item, 1, baseline=0.3).values).max() > 1e-6


def test_deep_lift_equals_captum_and_shap(net, x):
    captum, shap = pytest.importorskip("captum.attr"), pytest.importorskip("shap")
    smooth = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.AvgPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(294, 4)).eval()
    with pytest.warns(UserWarning, match="hooks"):
        wanted = captum.DeepLift(smooth).attribute(x.clone().requires_grad_(), torch.zeros_like(x), target=1).detach()
    np.testing.assert_allclose(aw.deep_lift(smooth, x, 1, baseline=0.0).values, wanted, atol=1e-6)
    background = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    wanted = shap.DeepExplainer(net, background).shap_values(x, check_additivity=False)[..., 1]
    why = aw.deep_lift(net, x, 1, background=background)
    np.testing.assert_allclose(why.values, wanted, atol=1e-6)
    np.testing.assert_allclose(why.base_value, net(background)[:, 1].mean().item(), rtol=1e-4)
    assert why.params["baseline"] == "5 background rows"


def test_a_background_is_the_mean_of_its_rows(chain, item):
    rows = torch.rand(3, 3, 16, 16).double()
    single = [aw.deep_lift(chain, item, 1, baseline=row).values for row in rows]
    np.testing.assert_allclose(aw.deep_lift(chain, item, 1, background=rows).values, np.mean(single, 0), **EXACT)
    np.testing.assert_allclose(aw.deep_lift(chain, item, 1, background=rows, batch_size=2).values, np.mean(single, 0), **EXACT)


# ---- what is conserved --------------------------------------------------------------------------------------------


class Around(nn.Module):
    """A function of activations [n, 5, 8] between two dense layers."""

    def __init__(self, inner):
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(8, 8), inner, nn.Linear(8, 3)

    def forward(self, x):
        h = self.inner(self.first(x))
        h = h[0] if isinstance(h, tuple) else h
        return self.last(h[:, -1] + h.mean(1))


def gated(x):
    return x * torch.sigmoid(x.mean(1, keepdim=True))  # squeeze and excite


CONSERVED = {
    "layer norm": lambda: nn.LayerNorm(8),
    "group norm": lambda: nn.GroupNorm(1, 5),
    "group norm with its weights": lambda: nn.Sequential(nn.Unflatten(1, (5,)), nn.GroupNorm(5, 5)),
    "rms norm": lambda: nn.RMSNorm(8),
    "instance norm": lambda: nn.InstanceNorm1d(5, affine=True),
    "instance norm of training": lambda: nn.InstanceNorm1d(5, affine=True, track_running_stats=True),
    "batch norm": lambda: nn.BatchNorm1d(5),
    "causal attention": lambda: lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    "masked attention": lambda: lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.ones(5, 5).tril(1).bool()),
    "encoder": lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
    "encoder, norm first, GELU": lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True, activation="gelu"),
    "two LSTMs, both ways": lambda: nn.Sequential(nn.LSTM(8, 4, 2, batch_first=True, bidirectional=True)),
    "RNN": lambda: nn.RNN(8, 8, batch_first=True),
    "RNN with ReLU": lambda: nn.RNN(8, 8, nonlinearity="relu", batch_first=True),
    **{
        name: lambda name=name: getattr(F, name)
        for name in ("gelu", "silu", "mish", "elu", "selu", "leaky_relu", "relu6", "hardswish", "softplus", "softsign")
    },
    "PReLU": lambda: nn.PReLU(),
    "GLU": lambda: lambda x: F.glu(torch.cat([x, x * 2], -1)),
    "squeeze and excite": lambda: gated,
    "squeeze and excite in place": lambda: lambda x: x.mul_(torch.sigmoid(x.mean(1, keepdim=True))),
    "normalize": lambda: lambda x: F.normalize(x, dim=-1),
    "a norm by hand": lambda: lambda x: x / x.norm(dim=-1, keepdim=True),
    "standardized by hand": lambda: lambda x: (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True),
    "maximum over an axis": lambda: lambda x: x.amax(1, keepdim=True).expand(-1, 5, -1),
    "maximum of what is not masked": lambda: lambda x: x.masked_fill(torch.eye(5, 8).bool(), -torch.inf).amax(1, keepdim=True).expand(-1, 5, -1),
    "maximum with its place": lambda: lambda x: x.max(1, keepdim=True)[0].expand(-1, 5, -1),
    "max pooling": lambda: lambda x: F.max_pool1d(x, 3, 1, 1),
    "max pooling with places": lambda: lambda x: F.max_pool1d(x, 3, 1, 1, return_indices=True)[0],
    "adaptive max pooling": lambda: lambda x: F.adaptive_max_pool1d(x, 4).repeat(1, 1, 2),
    "adaptive average pooling": lambda: lambda x: F.adaptive_avg_pool1d(x, 4).repeat(1, 1, 2),
    "larger of two": lambda: lambda x: torch.maximum(x, x.flip(1)),
    "smaller of two": lambda: lambda x: torch.minimum(x, 0.3 * x.flip(1)),
    "square": lambda: lambda x: x**2,
    "absolute": lambda: torch.abs,
    "product of signals": lambda: lambda x: x[..., :4].repeat(1, 1, 2) * x,
    "from a constant": lambda: lambda x: 1 - x,
    "sum of three": lambda: lambda x: torch.stack([x, 2 * x, torch.ones_like(x)]).sum(0),
    "concatenated with a token": lambda: lambda x: torch.cat([torch.full((len(x), 1, 8), 0.3).double(), x], 1),
    "matrix first": lambda: lambda x: torch.ones(5, 5).double() @ x,
    "a matrix for each": lambda: lambda x: x @ torch.linspace(-1, 1, 64).reshape(1, 8, 8).expand(len(x), 8, 8).double(),
    "a matrix for all but one axis": lambda: lambda x: (x @ torch.linspace(-1, 1, 8).double())[..., None].expand(-1, -1, 8),
    "addmm": lambda: lambda x: torch.baddbmm(x, torch.ones(len(x), 5, 5).double(), x, beta=0.5, alpha=2),
    "three matrices": lambda: lambda x: torch.einsum("bij,bkj->bik", x, x) @ x,
    "convolution, grouped and dilated": lambda: nn.Conv1d(5, 5, 3, padding=2, groups=5, dilation=2, padding_mode="circular"),
    "transposed convolution": lambda: nn.Sequential(nn.ConvTranspose1d(5, 5, 3, padding=1), nn.BatchNorm1d(5)),
    "residual in place": lambda: lambda x: x.add_(x.tanh()),
}


@pytest.mark.parametrize("name", CONSERVED)
@pytest.mark.parametrize("method", ["deep_lift", "lrp"])
def test_what_promises_completeness_is_complete(method, name):
    inner = CONSERVED[name]()
    net = seeded(lambda: Around(inner))
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.InstanceNorm1d)) and module.track_running_stats:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    why = aw.explain(net, WORDS, method, 1, **({"baseline": WORDS[1] + 0.5} if method == "deep_lift" else {"rule": "epsilon"}))
    assert np.abs(why.residual).max() < 1e-9
    assert why.details["without_rule"] == ""
    total = why.base_value + 0 if method == "deep_lift" else np.add(why.details["bias_share"], why.details["stabilizer_share"])
    np.testing.assert_allclose(why.values.sum((1, 2)) + total, why.prediction, rtol=1e-8)


LEAKING = [
    ("lrp", lambda x: x.softmax(-1), "softmax"),
    ("lrp", lambda x: x.log_softmax(-1), "log_softmax"),
    ("lrp", lambda x: torch.log(1 + x.abs()), "log"),
    ("lrp", lambda x: x.cumprod(-1), "cumprod"),
    ("deep_lift", lambda x: torch.where(x > 0, x, 0.1 * x), "gt"),
    ("deep_lift", lambda x: x.sort(-1)[0], "sort"),
    ("deep_lift", lambda x: x.cumprod(-1), "cumprod"),
]


MIRRORED = [
    (lambda x: x.amin(1, keepdim=True).expand(-1, 5, -1), lambda x: -(-x).amax(1, keepdim=True).expand(-1, 5, -1)),
    (lambda x: x.min(1, keepdim=True)[0].expand(-1, 5, -1), lambda x: -(-x).amax(1, keepdim=True).expand(-1, 5, -1)),
    (lambda x: torch.min(x, x.flip(1)), lambda x: -torch.maximum(-x, -x.flip(1))),
    (lambda x: torch.max(x, x.flip(1)), lambda x: torch.maximum(x, x.flip(1))),
]


@pytest.mark.parametrize(("inner", "mirrored"), MIRRORED)
def test_a_minimum_is_the_mirrored_maximum(inner, mirrored):
    why, wanted = (aw.deep_lift(seeded(lambda f=f: Around(f)), WORDS, 1, baseline=WORDS[0].flip(0) + 0.1) for f in (inner, mirrored))
    np.testing.assert_allclose(why.values, wanted.values, **EXACT)
    assert np.abs(why.residual).max() < 1e-9


@pytest.mark.parametrize(("method", "inner", "named"), LEAKING)
def test_what_leaks_is_said_and_named(method, inner, named):
    net = seeded(lambda: Around(inner))
    why = aw.explain(net, WORDS, method, 1, **({"baseline": 0.2} if method == "deep_lift" else {"rule": "epsilon"}))
    assert np.abs(why.residual).max() > 1e-3
    assert why.details["without_rule"] == named
    assert f"no rule is known for {named}" in why.summary()


def test_the_layers_of_softmax_are_complete_in_deep_lift():
    for inner in (
        lambda x: x.softmax(-1),
        lambda x: x.log_softmax(1),
        lambda x: x + torch.logsumexp(x, -1, keepdim=True),
        lambda x: 80 * x.softmax(1),
    ):
        why = aw.deep_lift(seeded(lambda inner=inner: Around(inner)), 50 * WORDS, 1, baseline=-30 * WORDS[1])
        assert np.abs(why.residual).max() < 1e-9
        assert np.isfinite(why.values).all()


def test_an_axis_that_does_not_count_the_items_is_no_obstacle():
    class LengthFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.TransformerEncoderLayer(8, 2, 16), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.inner(x.transpose(0, 1)).mean(0))

    net = seeded(LengthFirst)
    both = aw.lrp(net, WORDS, 1, rule="epsilon")
    for i in range(2):
        one = aw.lrp(net, WORDS[i : i + 1], 1, rule="epsilon")
        np.testing.assert_allclose(both[i].values, one.values, **EXACT)
        np.testing.assert_allclose(both.details["bias_share"][i], one.details["bias_share"][0], rtol=1e-9)
    assert np.abs(both.residual).max() < 1e-9
    as_many_as_words = torch.cat([WORDS, 2 * WORDS, WORDS[:1].flip(1)])  # 5 items of length 5
    assert np.abs(aw.lrp(net, as_many_as_words, 1, rule="epsilon").residual).max() < 1e-9


# ---- in place -----------------------------------------------------------------------------------------------------


def in_place_after(x, conv):
    y = conv(x)
    x += 1  # after the convolution has seen it
    return y + 0 * x.sum()


def residual_into_its_own_input(x, conv):
    x = x * 1
    x += conv(x)
    return x


def written_through_a_view(x, conv):
    y = conv(x)
    y[:, :2].relu_()
    return y


def set_items(x, conv):
    y = conv(x)
    y[:, 0] = 0.5
    return y


@pytest.mark.parametrize(
    ("in_place", "by_value"),
    [
        (in_place_after, lambda x, conv: conv(x) + 0 * (x + 1).sum()),
        (residual_into_its_own_input, lambda x, conv: x + conv(x)),
        (written_through_a_view, lambda x, conv: torch.cat([conv(x)[:, :2].relu(), conv(x)[:, 2:]], 1)),
        (set_items, lambda x, conv: torch.cat([torch.full_like(conv(x)[:, :1], 0.5), conv(x)[:, 1:]], 1)),
    ],
)
@pytest.mark.parametrize(("name", "options"), [("lrp", {"rule": "gamma(0.3)"}), ("deep_lift", {"baseline": 0.1})])
def test_in_place_steps_change_nothing(name, options, in_place, by_value, item):
    class Net(nn.Module):
        def __init__(self, middle):
            super().__init__()
            torch.manual_seed(3)
            self.conv, self.head, self.middle = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2), middle

        def forward(self, x):
            return self.head(torch.tanh(self.middle(x, self.conv)).mean((2, 3)))

    nets = [Net(middle).double().eval() for middle in (in_place, by_value)]
    if name == "deep_lift" and in_place in (in_place_after, residual_into_its_own_input):  # autograd itself cannot follow these
        with pytest.raises(UnsupportedError, match="modified by an inplace operation"):
            aw.explain(nets[0], item, name, 1, **options)
        return
    why, wanted = (aw.explain(net, item, name, 1, **options) for net in nets)
    np.testing.assert_allclose(why.values, wanted.values, rtol=1e-8, atol=1e-11)


# ---- refusals -----------------------------------------------------------------------------------------------------


def test_rules_are_checked_by_name(chain, item):
    for rule, said in (
        ("epsilonn", "choose epsilon, gamma"),
        ("gamma(x)", "choose epsilon"),
        ("flat(1)", "choose epsilon"),
        ({"0": "zplus"}, "rule='zplus'"),
        (3, "give a name, or a dict"),
    ):
        with pytest.raises(InputError, match=said):
            aw.lrp(chain, item, 1, rule=rule)
    with pytest.raises(LayerError, match="no such layer"):
        aw.lrp(chain, item, 1, rule={"nowhere": "epsilon"})
    with pytest.raises(UnsupportedError, match="sees the input itself"):
        aw.lrp(chain, item, 1, rule={"4": "flat"})


def test_the_box_of_the_items_is_the_usual_one(chain, item):
    given = aw.lrp(chain, item, 1, rule="epsilon-gamma-box", box=(item.amin((0, 2, 3)), item.amax((0, 2, 3))))
    np.testing.assert_allclose(aw.lrp(chain, item, 1, rule="epsilon-gamma-box").values, given.values, **EXACT)
    for wrong in ((0.0,), (1.0, 0.0), ([0.0] * 2, [1.0] * 2)):
        with pytest.raises(InputError, match="box="):
            aw.lrp(chain, item, 1, rule="epsilon-gamma-box", box=wrong)


def test_a_model_that_takes_another_way_for_the_baseline_is_refused():
    class Branches(nn.Module):
        def forward(self, x):
            return torch.tanh(x).sum((1, 2))[:, None] if float(x.detach().sum()) > 0 else torch.relu(x).sum((1, 2))[:, None]

    with pytest.raises(UnsupportedError, match=r"another way for the baseline.*\(at "):
        aw.deep_lift(Branches().eval(), WORDS.abs(), 0, baseline=-1.0)


@pytest.mark.parametrize("name", ["lrp", "deep_lift", "deconvnet"])
def test_what_cannot_be_intercepted_is_refused(name, x):
    class Scripted(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.inner, self.head = nn.Conv2d(3, 3, 3), torch.jit.trace(nn.Tanh(), torch.rand(1, 3, 14, 14)), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.inner(self.conv(x)).relu().mean((2, 3)))

    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 3, 3), nn.Linear(3, 2)

        def forward(self, x):
            with torch.no_grad():
                constant = self.conv(x).relu()
            return self.head((x[:, :, 1:-1, 1:-1].relu() + constant).mean((2, 3)))

    with pytest.raises(UnsupportedError, match=r"torch\.jit"):
        aw.explain(Scripted().eval(), x, name, 1)
    if name == "deep_lift":  # the rest of the model can be followed, and the gap says what is missing
        why = aw.deep_lift(Hidden().eval(), x, 1)
        assert why.details["without_rule"] == "conv2d without gradient"
        assert np.abs(why.residual).max() > 1e-3
        return
    with pytest.raises(UnsupportedError, match="without gradients"):
        aw.explain(Hidden().eval(), x, name, 1)


@pytest.mark.parametrize(
    ("attention", "said"),
    [
        (lambda: nn.MultiheadAttention(8, 2, add_bias_kv=True, batch_first=True), "bias_k"),
        (lambda: nn.MultiheadAttention(8, 2, add_zero_attn=True, batch_first=True), "add_zero_attn"),
    ],
)
def test_attention_with_extras_is_refused(attention, said):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.head = attention(), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.attention(x, x, x)[0].mean(1))

    with pytest.raises(UnsupportedError, match=said):
        aw.lrp(seeded(Net), WORDS, 1, rule="epsilon")


# ---- operations written out ---------------------------------------------------------------------------------------

R = torch.Generator().manual_seed(11)


def rand(*shape):
    return torch.randn(*shape, generator=R).double()


CALLS = [
    ("layer_norm", F.layer_norm, (rand(2, 5, 8), (5, 8), rand(5, 8), rand(5, 8), 1e-3), {}),
    ("layer_norm", torch.layer_norm, (rand(2, 5, 8), (8,)), {}),
    ("rms_norm", F.rms_norm, (rand(2, 5, 8), (8,), rand(8)), {}),
    ("rms_norm", F.rms_norm, (1e-8 * rand(2, 5, 8), (8,)), {}),
    ("group_norm", F.group_norm, (rand(2, 6, 4, 4), 3, rand(6), rand(6)), {"eps": 1e-2}),
    ("instance_norm", F.instance_norm, (rand(2, 6, 4, 4), None, None, rand(6), rand(6)), {}),
    ("instance_norm", F.instance_norm, (rand(2, 6, 4, 4), rand(6), rand(6).abs(), rand(6), rand(6), False), {}),
    ("scaled_dot_product_attention", F.scaled_dot_product_attention, (rand(2, 3, 5, 4), rand(2, 3, 6, 4), rand(2, 3, 6, 7)), {"scale": 0.3}),
    ("scaled_dot_product_attention", F.scaled_dot_product_attention, (rand(2, 4, 5, 4), rand(2, 2, 5, 4), rand(2, 2, 5, 4)), {"enable_gqa": True}),
    ("scaled_dot_product_attention", F.scaled_dot_product_attention, (rand(2, 5, 4), rand(2, 6, 4), rand(2, 6, 4)), {"attn_mask": rand(5, 6)}),
    ("scaled_dot_product_attention", F.scaled_dot_product_attention, (rand(2, 5, 4), rand(2, 6, 4), rand(2, 6, 4)), {"is_causal": True}),
    ("glu", F.glu, (rand(2, 6, 4), 1), {}),
    ("normalize", F.normalize, (rand(2, 6, 4),), {"dim": 2}),
    ("normalize", F.normalize, (torch.zeros(2, 6).double(),), {}),
    ("addmm", torch.addmm, (rand(5), rand(3, 4), rand(4, 5)), {"beta": 0.3, "alpha": 2}),
    ("baddbmm", torch.baddbmm, (rand(2, 3, 5), rand(2, 3, 4), rand(2, 4, 5)), {"beta": 0.3, "alpha": 2}),
    ("maximum", torch.maximum, (rand(3, 4), rand(4)), {}),
    ("minimum", torch.minimum, (rand(3, 4), rand(4)), {}),
    ("var", torch.var, (rand(3, 4), 1), {"keepdim": True}),
    ("std", torch.std, (rand(3, 4, 5), (0, 2)), {"unbiased": False}),
    ("norm", torch.norm, (rand(3, 4),), {"dim": 1}),
    ("vector_norm", torch.linalg.vector_norm, (rand(3, 4), 2, 1), {"keepdim": True}),
    ("lstm_cell", torch.lstm_cell, (rand(3, 4), (rand(3, 5), rand(3, 5)), rand(20, 4), rand(20, 5), rand(20), rand(20)), {}),
    ("gru_cell", torch.gru_cell, (rand(3, 4), rand(3, 5), rand(15, 4), rand(15, 5), rand(15), rand(15)), {}),
    ("rnn_tanh_cell", torch.rnn_tanh_cell, (rand(3, 4), rand(3, 5), rand(5, 4), rand(5, 5), rand(5), rand(5)), {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "op", "args", "kwargs"), CALLS)
def test_an_operation_written_out_gives_the_same_numbers(name, op, args, kwargs):
    torch.testing.assert_close(written.WRITTEN_IN_FULL[name](*args, **kwargs), op(*args, **kwargs), rtol=1e-10, atol=1e-10)


LEFT_ALONE = [
    ("var", (rand(3, 4), True), {}),
    ("std", (rand(3, 4), 1, True), {}),
    ("norm", (rand(3, 4), 1), {}),
    ("vector_norm", (rand(3, 4), 3), {}),
    ("vector_norm", (rand(3, 4),), {"dtype": torch.float64}),
    ("max", (rand(3, 4), 1), {}),
    ("max", (rand(3, 4),), {}),
    ("min", (rand(3, 4), 1), {"keepdim": True}),
    ("div", (rand(3, 4), 2.0), {}),
    ("div", (rand(3, 4), rand(3, 4)), {}),
    ("normalize", (rand(3, 4),), {"out": rand(3, 4)}),
]


@pytest.mark.parametrize(("name", "args", "kwargs"), LEFT_ALONE)
def test_a_call_that_means_something_else_is_left_alone(name, args, kwargs):
    assert written.WRITTEN_IN_FULL[name](*args, **kwargs) is NotImplemented


def test_larger_of_two_is_a_rectifier_where_the_other_is_zero():
    """What a rectifier is for reveal-cancel is also one when it is written as a maximum."""

    class Net(Dense):
        def forward(self, x):
            z = self.one(x)
            return self.head(torch.maximum(z, torch.zeros(())) if self.way == "maximum" else z.relu())

    usual, why = (aw.deep_lift(Net(way).double().eval(), WORDS[:, 0], 1, baseline=0.1, rule="reveal-cancel") for way in ("relu", "maximum"))
    np.testing.assert_allclose(why.values, usual.values, **EXACT)
    assert why.details["rescaled"] == 0


DROPS = [
    ("scaled_dot_product_attention", (rand(2, 3, 4),) * 3, {"dropout_p": 0.5}, "drops 50% of its weights at random"),
    ("multi_head_attention_forward", (rand(3, 2, 8),) * 3 + (8, 2, rand(24, 8), None, None, None, False, 0.5, rand(8, 8), None), {}, "with dropout"),
    ("lstm", (rand(3, 2, 4), [rand(2, 2, 5)] * 2, [rand(20, 4), rand(20, 5)] * 2, False, 2, 0.5, True, False, False), {}, "drops units at random"),
    (
        "lstm",
        (rand(3, 2, 4), [rand(1, 2, 3), rand(1, 2, 5)], [rand(20, 4), rand(20, 3), rand(3, 5)], False, 1, 0.0, False, False, False),
        {},
        "proj_size",
    ),
]


@pytest.mark.parametrize(("name", "args", "kwargs", "said"), DROPS)
def test_what_cannot_be_written_out_is_refused(name, args, kwargs, said):
    with pytest.raises(UnsupportedError, match=said):
        written.WRITTEN[name](*args, **kwargs)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False, "batch_first": True}])
def test_recurrent_layers_written_out_give_the_same_numbers(kind, options):
    layer = seeded(lambda: getattr(nn, kind)(4, 3, **options))
    seen = {}

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, op, types, args=(), kwargs=None):
            if op.__name__ in written.WRITTEN:
                seen["mine"] = written.WRITTEN[op.__name__](*args, **(kwargs or {}))
                seen["theirs"] = op(*args, **(kwargs or {}))
                return seen["theirs"]
            return op(*args, **(kwargs or {}))

    with Watch():
        layer(rand(5, 2, 4))
    torch.testing.assert_close(seen["mine"], seen["theirs"], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("masked", [None, "bool", "float", "by head"])
def test_multi_head_attention_written_out_gives_the_same_numbers(masked, padded):
    layer = seeded(lambda: nn.MultiheadAttention(8, 2, kdim=6, vdim=7))
    layer.in_proj_bias.data.normal_()
    q, k, v = rand(4, 3, 8), rand(5, 3, 6), rand(5, 3, 7)
    mask = {
        None: None,
        "bool": torch.ones(4, 5).triu(2).bool(),
        "float": rand(4, 5),
        "by head": rand(6, 4, 5),
    }[masked]
    padding = torch.tensor([[False] * 5, [False, False, True, True, True], [False, True, False, False, False]]) if padded else None
    seen = {}

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, op, types, args=(), kwargs=None):
            if op.__name__ == "multi_head_attention_forward":
                seen["mine"] = written.multi_head_attention_forward(*args, **kwargs)
            return op(*args, **(kwargs or {}))

    with Watch():
        wanted = layer(
            q, k, v, attn_mask=mask, key_padding_mask=None if padding is None else padding if masked in (None, "bool") else padding.double() * -1e9
        )
    torch.testing.assert_close(seen["mine"], wanted, rtol=1e-9, atol=1e-9)
    assert torch.isfinite(wanted[0]).all()


@pytest.mark.parametrize("options", [{}, {"need_weights": False}, {"average_attn_weights": False}])
@pytest.mark.parametrize("single", [False, True])
def test_multi_head_attention_written_out_gives_what_is_asked_for(single, options):
    layer = seeded(lambda: nn.MultiheadAttention(8, 2))
    x = rand(4, 8) if single else rand(4, 3, 8)
    seen = {}

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, op, types, args=(), kwargs=None):
            if op.__name__ == "multi_head_attention_forward":
                seen["mine"] = written.multi_head_attention_forward(*args, **kwargs)
            return op(*args, **(kwargs or {}))

    with Watch():
        wanted = layer(x, x, x, **options)
    assert (seen["mine"][1] is None) == (wanted[1] is None) == (options.get("need_weights") is False)
    torch.testing.assert_close(seen["mine"], wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["lrp", "deep_lift", "deconvnet"])
def test_a_model_under_autocast_is_explained(name, x):
    net = small_net()

    class Auto(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return self.net(x)

    why, exact = (aw.explain(model, x, name, 1) for model in (Auto().eval(), net))
    assert np.corrcoef(why.values.ravel(), exact.values.ravel())[0, 1] > 0.9
