"""Backward passes with other rules: deconvnet, DeepLIFT, LRP; on models as they are, however they are spelled."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from conftest import small_net
from test_local import SPELLINGS, Spelled
from torch import nn

import askwhy as aw
from askwhy import written
from askwhy.errors import InputError, LayerError, UnsupportedError

EXACT = {"rtol": 1e-9, "atol": 1e-12}


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


WORDS = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(7)).double()


@pytest.mark.parametrize("spelling", ["with weights", "length first", "sdpa", "written out", "einsum"])
@pytest.mark.parametrize(("name", "options"), [("deep_lift", {"baseline": 0.1}), ("lrp", {"rule": "epsilon"})])
def test_attention_and_layer_norm_are_one_map_in_every_spelling(name, options, spelling):
    usual = aw.explain(Attends("module").double().eval(), WORDS, name, 1, **options)
    why = aw.explain(Attends(spelling).double().eval(), WORDS, name, 1, **options)
    np.testing.assert_allclose(why.values, usual.values, rtol=1e-7, atol=1e-10)
    assert np.abs(why.residual).max() < 1e-9


class Recurrent(nn.Module):
    def __init__(self, kind, spelling):
        super().__init__()
        torch.manual_seed(8)
        self.kind, self.spelling, self.rnn, self.head = kind, spelling, getattr(nn, kind)(8, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        if self.spelling == "module":
            return self.head(self.rnn(x)[0][:, -1])
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
@pytest.mark.parametrize("spelling", ["cell", "written out"])
@pytest.mark.parametrize(("name", "options"), [("deep_lift", {"baseline": 0.1}), ("lrp", {"rule": "epsilon(1e-12)"})])
def test_recurrent_layers_are_one_map_in_every_spelling(name, options, spelling, kind):
    usual = aw.explain(Recurrent(kind, "module").double().eval(), WORDS, name, 1, **options)
    why = aw.explain(Recurrent(kind, spelling).double().eval(), WORDS, name, 1, **options)
    np.testing.assert_allclose(why.values, usual.values, rtol=1e-7, atol=1e-10)
    assert np.abs(why.residual).max() < 1e-9


# ---- textbook versions and peers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["epsilon(0.01)", "z-plus", "gamma(0.25)", "gamma(1.0)", "alpha2-beta1", "alpha-beta(1.5)"])
def test_lrp_on_a_chain_is_the_textbook_formula(rule, chain, item):
    why = aw.lrp(chain, item - 0.4, 2, rule=rule)
    wanted, bias = oracle.lrp(list(chain), item - 0.4, 2, rule)
    np.testing.assert_allclose(why.values, wanted, rtol=1e-6, atol=1e-6 * np.abs(wanted).max())
    np.testing.assert_allclose(why.details["bias_share"], [bias], rtol=1e-5)


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
    assert usual.details["rescaled"] == 1  # the one behind the residual
    if spelling == "in place on a view":  # what fed the view is not known, and the result says so
        assert why.details["rescaled"] == 2
        return
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
    ("group_norm", F.group_norm, (rand(2, 6, 4, 4), 3, rand(6), rand(6)), {"eps": 1e-2}),
    ("instance_norm", F.instance_norm, (rand(2, 6, 4, 4), None, None, rand(6), rand(6)), {}),
    ("instance_norm", F.instance_norm, (rand(2, 6, 4, 4), rand(6), rand(6).abs(), rand(6), rand(6), False), {}),
    ("scaled_dot_product_attention", F.scaled_dot_product_attention, (rand(2, 3, 5, 4), rand(2, 3, 6, 4), rand(2, 3, 6, 7)), {"scale": 0.3}),
    ("scaled_dot_product_attention", F.scaled_dot_product_attention, (rand(2, 4, 5, 4), rand(2, 2, 5, 4), rand(2, 2, 5, 4)), {"enable_gqa": True}),
    ("scaled_dot_product_attention", F.scaled_dot_product_attention, (rand(2, 5, 4), rand(2, 6, 4), rand(2, 6, 4)), {"attn_mask": rand(5, 6)}),
    ("scaled_dot_product_attention", F.scaled_dot_product_attention, (rand(2, 5, 4), rand(2, 6, 4), rand(2, 6, 4)), {"is_causal": True}),
    ("glu", F.glu, (rand(2, 6, 4), 1), {}),
    ("normalize", F.normalize, (rand(2, 6, 4),), {"dim": 2}),
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
