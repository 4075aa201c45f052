"""Each method against its slow textbook version, and against the peers where they are right."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from conftest import small_net
from torch import nn

import askwhy as aw
from askwhy.errors import InputError, LayerError, UnsupportedError
from askwhy.local.lime_hidden import neighbours
from askwhy.local.surrogate import select


def score_of(net: nn.Module, target: int):
    return lambda x: float(net(torch.as_tensor(x)[None])[0, target].detach())


@pytest.fixture
def double() -> nn.Module:
    return small_net(3, dtype=torch.float64)


@pytest.fixture
def item() -> torch.Tensor:
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


# ---- gradients ----------------------------------------------------------------------------------------------------


def test_gradient_and_saliency_are_the_finite_difference(double, item):
    wanted = oracle.finite_difference(score_of(double, 1), item[0].numpy())
    np.testing.assert_allclose(aw.gradient(double, item, 1).values[0], wanted, atol=1e-7)
    np.testing.assert_allclose(aw.saliency(double, item, 1).values[0], np.abs(wanted).max(0), atol=1e-7)


def test_gradient_equals_captum(net, x):
    captum = pytest.importorskip("captum.attr")
    wanted = captum.Saliency(net).attribute(x.clone().requires_grad_(), target=2, abs=False)
    np.testing.assert_allclose(aw.gradient(net, x, 2).values, wanted.detach(), atol=1e-7)


def test_the_columns_of_a_table_name_the_values(tmp_path):
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"age": [1.0, 2.0], "收入": [3.0, -1.0]})
    net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    why = aw.gradient(net, table, 0)
    assert why.components == (("age", "收入"),) * 2
    assert {name for name, _ in why[1].top()} == {"age", "收入"}
    assert aw.Explanation.load(why.save(tmp_path / "t.npz")) == why
    assert [label.get_text() for label in why.plot().get_yticklabels()] == ["收入 = 3", "age = 1"]


def test_smooth_is_the_mean_over_noisy_copies_with_its_standard_error(double, item):
    why = aw.smooth(aw.gradient, samples=20, sigma=0.2, seed=7)(double, item, 1)
    noise = (
        np.stack([np.random.default_rng([7, 0, k]).standard_normal((3, 16, 16), np.float32) for k in range(20)]).astype(np.float64)
        * float(item.max() - item.min())
        * 0.2
    )
    explain = lambda x: aw.gradient(double, torch.as_tensor(x)[None], 1).values[0]  # noqa: E731
    mean, error = oracle.smooth(explain, item[0].numpy(), noise)
    np.testing.assert_allclose(why.values[0], mean, atol=1e-12)
    np.testing.assert_allclose(why.std_error[0], error, atol=1e-10)
    assert why.method == "smooth(gradient)"
    assert why.params == {"samples": 20, "sigma": 0.2, "form": "mean", "seed": 7}


def test_smooth_grad_is_smooth_of_saliency_and_keeps_the_clean_target(net, x):
    why = aw.smooth_grad(net, x, samples=20, sigma=3.0)
    assert np.array_equal(why.values, aw.smooth(aw.saliency, 20, 3.0)(net, x).values)
    assert why.target == aw.saliency(net, x).target


def test_smooth_works_on_any_explainer(net, x):
    why = aw.smooth(aw.grad_cam, samples=3)(net, x, layer="4")
    assert why.values.shape == (2, 16, 16)
    assert why.params["layer"] == "4"
    with pytest.raises(InputError, match="at least 2 samples"):
        aw.smooth(aw.gradient, samples=1)


def test_a_score_without_gradient_is_refused(x):
    class Hidden(nn.Module):
        def forward(self, x):
            with torch.no_grad():
                return x.mean((2, 3))

    with pytest.raises(UnsupportedError, match="does not depend on the input through differentiable"):
        aw.gradient(Hidden().eval(), x)

    class Casts(nn.Module):
        def forward(self, x):
            return x.float()

    with pytest.raises(UnsupportedError, match="needs floating-point"):
        aw.gradient(Casts().eval(), torch.zeros(1, 2, dtype=torch.long))


def test_a_model_that_writes_into_its_input_does_not_change_the_users(net, x):
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x.sub_(0.5).mul_(2))

    for method in (aw.gradient, aw.grad_cam, aw.guided_backprop):
        kept = x.clone()
        why = method(Writes().eval(), x)
        assert torch.equal(x, kept)
        wanted = method(net, (x - 0.5) * 2).values * (1 if method is aw.grad_cam else 2)
        np.testing.assert_allclose(why.values, wanted, atol=1e-5)


# ---- Grad-CAM -----------------------------------------------------------------------------------------------------


def test_grad_cam_is_the_textbook_formula(double, item):
    a = double[:6](item).detach().requires_grad_()
    (g,) = torch.autograd.grad(double[6:](a)[0, 1], a)
    wanted = oracle.grad_cam(a[0].detach().numpy(), g[0].numpy())
    by_module, by_name, chosen = (aw.grad_cam(double, item, 1, layer=layer, resize=False) for layer in (double[5], "5", None))
    for why in (by_module, by_name, chosen):
        np.testing.assert_allclose(why.values[0], wanted, atol=1e-12)
    assert by_module.params["layer"] == ["5"]
    assert chosen.details["layer"] == "conv2d > relu"
    big = aw.grad_cam(double, item, 1)
    assert big.values.shape == (1, 16, 16)
    wide = torch.nn.functional.interpolate(torch.as_tensor(wanted)[None, None], size=(16, 16), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(big.values, wide[0], atol=1e-6)


def test_grad_cam_equals_captum_on_a_named_layer(net, x):
    captum = pytest.importorskip("captum.attr")
    wanted = captum.LayerGradCam(net, net[4]).attribute(x, target=2, relu_attributions=True)
    np.testing.assert_allclose(aw.grad_cam(net, x, 2, layer="4", resize=False).values, wanted[:, 0].detach(), atol=1e-6)


def test_grad_cam_equals_cam_up_to_scale_with_global_average_pooling_and_one_linear_layer():
    torch.manual_seed(2)
    body = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 7, 3, padding=1), nn.ReLU())
    head = nn.Linear(7, 4)
    net = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).double().eval()
    x = torch.rand(1, 3, 12, 12, dtype=torch.float64)
    cam = torch.relu((head.weight[2][:, None, None] * body(x)[0]).sum(0)).detach().numpy()
    why = aw.grad_cam(net, x, 2).values[0]
    assert cam.max() > 0
    np.testing.assert_allclose(why / why.max(), cam / cam.max(), atol=1e-6)


class Spelled(nn.Module):
    """One network in several spellings; the weights are shared."""

    def __init__(self, spelling: str):
        super().__init__()
        torch.manual_seed(4)
        self.one, self.two, self.three = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 3)
        self.acts = nn.ModuleList([nn.ReLU(), nn.ReLU()])
        self.shared = nn.ReLU(inplace=True)
        self.spelling = spelling

    def act(self, x, k):
        s = self.spelling
        if s == "modules":
            return self.acts[k](x)
        if s == "functional":
            return nn.functional.relu(x)
        if s == "method in place":
            return x.relu_()
        if s == "reused in-place module":
            return self.shared(x)
        if s == "torch.relu":
            return torch.relu(x)
        if s == "clamp":
            return x.clamp(min=0)
        if s == "clamp_min_":
            return x.clamp_min_(0)
        if s == "threshold":
            return nn.functional.threshold(x, 0.0, 0.0)
        if s == "maximum":
            return torch.maximum(x, torch.zeros(()))
        if s == "maximum, zero first":
            return torch.maximum(torch.zeros(()), x)
        if s == "torch.max of two":
            return torch.max(x, other=torch.zeros_like(x))
        if s == "by keyword":
            return torch.relu(input=x)
        if s == "in place on a view":
            x[:, :].relu_()
            return x
        raise ValueError(s)

    def forward(self, x):
        a = self.act(self.one(x), 0)
        b = self.two(a)
        b += a  # a residual
        b = self.act(b, 1)
        return self.three(b.mean((2, 3)))


SPELLINGS = [
    "modules",
    "functional",
    "method in place",
    "reused in-place module",
    "torch.relu",
    "clamp",
    "clamp_min_",
    "threshold",
    "maximum",
    "in place on a view",
    "maximum, zero first",
    "torch.max of two",
    "by keyword",
]


@pytest.fixture
def by_hand(item):
    """Guided backprop of Spelled, written out: the chain rule, with both gates at each rectifier."""
    m, x = Spelled("modules").double(), item.clone()
    z1 = m.one(x).detach()
    a = z1.clamp(min=0)
    z2 = (m.two(a) + a).detach()
    g = (m.three.weight[1] / (16 * 16))[None, :, None, None].expand_as(z2)
    g = g * (z2 > 0) * (g > 0)
    g = nn.functional.conv_transpose2d(g, m.two.weight, padding=1) + g
    g = g * (z1 > 0) * (g > 0)
    return nn.functional.conv_transpose2d(g, m.one.weight, padding=1).detach().numpy()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_guided_backprop_is_one_map_in_every_spelling(spelling, item, by_hand):
    net = Spelled(spelling).double().eval()
    why = aw.guided_backprop(net, item, 1)
    np.testing.assert_allclose(why.values, by_hand, atol=1e-12)
    assert why.details["rectifiers"] == 2
    plain = aw.gradient(net, item, 1).values
    assert np.abs(plain - by_hand).max() > 0.1 * np.abs(plain).max()  # so the rule did something


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_gradient_method_is_one_map_in_every_spelling(spelling, item):
    net, usual = Spelled(spelling).double().eval(), Spelled("modules").double().eval()
    for method in ("gradient", "saliency", "grad_cam", "occlusion"):
        np.testing.assert_allclose(aw.explain(net, item, method, 1).values, aw.explain(usual, item, method, 1).values, atol=1e-9, err_msg=method)


def test_traced_by_fx_gives_the_same_map(item, by_hand):
    net = torch.fx.symbolic_trace(Spelled("functional").double().eval())
    np.testing.assert_allclose(aw.guided_backprop(net, item, 1).values, by_hand, atol=1e-12)


def test_guided_backprop_on_a_chain_equals_the_hand_made_chain_rule(double, item):
    wanted = oracle.guided_backprop(list(double), item, 2)
    np.testing.assert_allclose(aw.guided_backprop(double, item, 2).values, wanted, atol=1e-12)


def test_guided_backprop_equals_captum_where_captum_is_right(net, x):
    captum = pytest.importorskip("captum.attr")
    with pytest.warns(UserWarning, match="Setting backward hooks"):
        wanted = captum.GuidedBackprop(net).attribute(x.clone().requires_grad_(), target=2)
    np.testing.assert_allclose(aw.guided_backprop(net, x, 2).values, wanted.detach(), atol=1e-6)


def test_guided_backprop_of_network_c():
    """The numbers of captum's own test for guided backprop, small enough to check by hand."""
    conv, head = nn.Conv2d(1, 2, 3), nn.Linear(8, 4, bias=False)
    with torch.no_grad():
        conv.weight.fill_(1)
        conv.bias.copy_(torch.tensor([-50.0, -75.0]))
        head.weight.copy_(torch.tensor([1.0, 1, 1, 1, 1, -1, -1, -1]).expand(4, 8))
    net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), head, nn.ReLU()).eval()
    why = aw.guided_backprop(net, torch.arange(16.0).view(1, 1, 4, 4), 0)
    assert why.values[0, 0].tolist() == [[0, 1, 1, 1], [1, 3, 3, 2], [1, 3, 3, 2], [1, 2, 2, 1]]


def test_relu6_is_a_rectifier_and_a_clamp_between_other_bounds_is_none(item):
    def guided(act):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), act, nn.Flatten(), nn.Linear(4 * 14 * 14, 3)).double().eval()
        return aw.guided_backprop(net, item * 40, 0)

    class Clamp(nn.Module):
        def __init__(self, *bounds):
            super().__init__()
            self.bounds = bounds

        def forward(self, x):
            return x.clamp(*self.bounds)

    wanted = guided(nn.ReLU6()).values
    for act in (nn.Hardtanh(0, 6), nn.ReLU6(inplace=True), Clamp(0, 6)):
        np.testing.assert_allclose(guided(act).values, wanted, atol=1e-12)
    for act in (nn.Hardtanh(), Clamp(-1, 1), nn.Identity()):
        with pytest.raises(UnsupportedError, match="this model has no ReLU"):
            guided(act)


def test_other_activations_keep_their_derivative_and_are_listed(item):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(4 * 144, 3)]
    net = nn.Sequential(*layers).double().eval()
    why = aw.guided_backprop(net, item, 0)
    np.testing.assert_allclose(why.values, oracle.guided_backprop(layers, item, 0), atol=1e-12)
    assert why.details["untouched"] == "1 x gelu"
    with pytest.raises(UnsupportedError, match="has 1 x gelu but no ReLU"):
        aw.guided_backprop(net[2:].eval(), torch.rand(1, 4, 14, 14, dtype=torch.float64))


class Tricks(nn.Module):
    """Ways to hide a rectifier from whoever intercepts operations."""

    def __init__(self, trick: str):
        super().__init__()
        self.conv, self.head, self.trick = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), trick
        self.scripted = torch.jit.script(nn.ReLU()) if trick == "script module" else None

    def forward(self, x):
        z = self.conv(x)
        if self.trick == "no_grad":
            with torch.no_grad():
                step = torch.relu(z) - z
            z = z + step
        elif self.trick == "script module":
            z = self.scripted(z)
        elif self.trick == "script function":
            z = scripted_relu(z)
        elif self.trick == "reentrant checkpoint":
            z = torch.utils.checkpoint.checkpoint(torch.relu, z, use_reentrant=True)
        elif self.trick == "autograd.Function":
            z = OwnRelu.apply(z)
        elif self.trick == "autograd.Function without clamp":
            z = OwnGate.apply(z)
        elif self.trick == "comparison":
            z = z * (z > 0)
        return self.head(torch.relu(z).mean((2, 3)))


@torch.jit.script
def scripted_relu(z: torch.Tensor) -> torch.Tensor:
    return torch.relu(z)


class OwnRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z.clamp(min=0)

    @staticmethod
    def backward(ctx, g):
        (z,) = ctx.saved_tensors
        return g * (z > 0)


class OwnGate(OwnRelu):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * (z > 0)


@pytest.mark.parametrize(
    ("trick", "said"),
    [
        ("no_grad", "or a no_grad block"),
        ("script module", "scripted is a torch.jit module"),
        ("script function", "cannot be intercepted"),
        ("reentrant checkpoint", "a reentrant checkpoint"),
        ("autograd.Function", "without gradients .an autograd.Function"),
        ("autograd.Function without clamp", "the autograd.Function OwnGate"),
        ("comparison", r"compares activations by hand \(gt\)"),
    ],
)
def test_what_cannot_be_intercepted_is_refused(trick, said, x):
    net = Tricks(trick).eval()
    with pytest.raises(UnsupportedError, match=said):
        aw.guided_backprop(net, x, 0)
    if trick == "reentrant checkpoint":
        with pytest.raises(UnsupportedError, match="use_reentrant=False"):
            aw.gradient(net, x, 0)
    else:
        aw.gradient(net, x, 0)  # the plain gradient needs no rule


def test_a_whole_scripted_model_and_a_relu_rnn_are_refused(net, x):
    scripted = torch.jit.script(net)
    with pytest.raises(UnsupportedError, match="the model itself is a torch.jit module"):
        aw.guided_backprop(scripted, x)

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.RNN(4, 5, nonlinearity="relu", batch_first=True), nn.Linear(5, 2)

        def forward(self, x):
            return torch.relu(self.head(self.rnn(x)[0][:, -1]))

    with pytest.raises(UnsupportedError, match="ReLU|Relu"):
        aw.guided_backprop(Reads().eval(), torch.rand(2, 3, 4))


def test_a_checkpoint_that_is_not_reentrant_is_explained(item, by_hand):
    class Checked(Spelled):
        def act(self, x, k):
            return torch.utils.checkpoint.checkpoint(torch.relu, x, use_reentrant=False)

    np.testing.assert_allclose(aw.guided_backprop(Checked("modules").double().eval(), item, 1).values, by_hand, atol=1e-12)


def test_grad_cam_layers(net, x):
    both = aw.grad_cam(net, x, 2, layer=["0", net[4]])
    apart = [aw.grad_cam(net, x, 2, layer=layer).values for layer in ("0", "4")]
    np.testing.assert_allclose(both.values, np.mean(apart, 0), atol=1e-6)
    assert both.details["layer"] == "0, 4"
    for layer, said in (
        ("fc", "no such layer; known are '0', '1'"),
        (nn.ReLU(), "no part of this model"),
        ("8", r"gives \[2, 4\]; a class activation map needs a feature map"),
    ):
        with pytest.raises(LayerError, match=said):
            aw.grad_cam(net, x, layer=layer)
    with pytest.raises(LayerError, match="runs 2 times"):
        aw.grad_cam(Spelled("reused in-place module").eval(), x, layer="shared")
    with pytest.raises(LayerError, match="no convolution with a feature map"):
        aw.grad_cam(nn.Sequential(nn.Flatten(), nn.Linear(768, 3)).eval(), x)


def test_the_last_map_is_followed_by_keyword_and_past_what_is_made_in_its_shape(item):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(6)
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, x):
            z = torch.relu(nn.functional.conv2d(input=x, weight=self.conv.weight, bias=self.conv.bias))
            torch.zeros_like(z), z > 0  # made, and not used
            return self.head(z.mean((2, 3)))

    odd = Odd().double().eval()
    odd.head.weight.data.abs_()  # so that there is evidence for the class, and the map is not zero
    usual = nn.Sequential(odd.conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), odd.head).eval()
    why = aw.grad_cam(odd, item, 1)
    assert why.details["layer"] == "conv2d > relu"
    assert why.values.max() > 0
    np.testing.assert_allclose(why.values, aw.grad_cam(usual, item, 1).values, atol=1e-9)


def test_a_later_in_place_step_does_not_change_the_tapped_layer(item):
    kept, changed = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=inplace), nn.Flatten(), nn.Linear(4 * 14 * 14, 3)) for inplace in (False, True)
    )
    changed.load_state_dict(kept.state_dict())
    maps = [aw.grad_cam(net.double().eval(), item, 1, layer="0", resize=False).values for net in (kept, changed)]
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-12)


def test_grad_cam_does_not_take_the_patch_embedding_of_a_transformer():
    class Vit(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.mix, self.head = nn.Conv2d(3, 8, 4, 4), nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

        def forward(self, x):
            t = self.embed(x).flatten(2).transpose(1, 2)
            return self.head(self.mix(t, t, t)[0].mean(1))

    with pytest.raises(UnsupportedError, match="attends after its last convolution"):
        aw.grad_cam(Vit().eval(), torch.rand(1, 3, 16, 16))


# ---- occlusion ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "stride"), [((4, 4), (4, 4)), ((5, 3), (2, 3)), ((16, 16), (1, 1)), ((1, 1), (1, 1)), ((7, 7), (3, 5))])
def test_occlusion_is_the_textbook_loop(double, item, size, stride):
    fill = np.full((3, 16, 16), 0.25)
    wanted = oracle.occlusion(score_of(double, 1), item[0].numpy(), size, stride, fill)
    why = aw.occlusion(double, item, 1, size=size, stride=stride, baseline=0.25)
    np.testing.assert_allclose(why.values[0], wanted, atol=1e-9)


def test_occlusion_equals_captum(net, x):
    captum = pytest.importorskip("captum.attr")
    wanted = captum.Occlusion(net).attribute(x, sliding_window_shapes=(3, 6, 6), strides=(3, 2, 2), target=2, baselines=0.5)
    why = aw.occlusion(net, x, 2, size=6, stride=2, baseline=0.5)
    np.testing.assert_allclose(why.values, wanted[:, 0].detach(), atol=1e-5)


def test_occlusion_of_network_m():
    """3 inputs -> 4 units with biases -> ReLU -> 2 outputs: (80, 200, 120), small enough to check by hand."""
    hidden, out = nn.Linear(3, 4), nn.Linear(4, 2)
    with torch.no_grad():
        hidden.weight.fill_(1), out.weight.fill_(1)
        hidden.bias.copy_(torch.tensor([-10.0, 1, 1, 1])), out.bias.copy_(torch.tensor([-1.0, 1]))
    why = aw.occlusion(nn.Sequential(hidden, nn.ReLU(), out).eval(), torch.tensor([[20.0, 50, 30]]), 0, baseline=0)
    assert why.values.tolist() == [[80, 200, 120]]


def test_ablation_of_superpixels_and_of_features_is_the_same_call(double, item):
    labels = np.arange(256).reshape(16, 16) // 64
    why = aw.occlusion(double, item, 1, components=labels, baseline="noise", seed=3)
    assert why.values.shape == (1, 4)
    noise = aw.components.absent("noise", aw.wrap(double).prepare(item), 0, aw.components.from_labels(labels, aw.wrap(double).prepare(item)), 3)[0]
    wanted = oracle.leave_one_out(score_of(double, 1), item[0].numpy(), labels, noise)
    np.testing.assert_allclose(why.values[0], wanted, atol=1e-9)
    assert why.components[0][0] == "region 0 (upper)"

    rng = np.random.default_rng(0)
    rows, table = rng.normal(size=(7, 5)), rng.normal(size=(2, 5))
    f = lambda batch: (batch**2).sum(1) * batch[:, 0]  # noqa: E731
    why = aw.occlusion(f, table, background=rows, components=aw.features({"pair": [1, 3]}))
    wanted = oracle.leave_one_out(lambda r: f(r[None])[0], table[1], np.array([1, 0, 2, 0, 3]), rows)
    np.testing.assert_allclose(why.values[1], wanted, atol=1e-12)
    assert why.components[1] == ("pair", "feature 0", "feature 2", "feature 4")


def test_occlusion_settings_are_checked(net, x):
    table = np.zeros((1, 3))
    f = lambda batch: batch.sum(1)  # noqa: E731
    for call, said in (
        (lambda: aw.occlusion(net, x, size=40), r"patches of 40 x 40 do not fit into an input of 16 x 16"),
        (lambda: aw.occlusion(net, x, size=2, stride=3), "part of the picture would never be covered"),
        (lambda: aw.occlusion(net, x, size=0), "at least 1 pixel"),
        (lambda: aw.occlusion(net, x, baseline="gray"), "baseline='gray': choose one of 'auto', 'grey'"),
        (lambda: aw.occlusion(net, x * 9 - 4, baseline="grey"), "unknown for an input from"),
        (lambda: aw.occlusion(net, x, baseline=np.zeros((2, 2))), r"the baseline has the shape \[2, 2\]"),
        (lambda: aw.occlusion(net, x, components="pachtes"), "choose one of 'pixels'"),
        (lambda: aw.occlusion(net, x, components=np.zeros((3, 3), int)), r"regions have the shape \[3, 3\], the input's grid is \[16, 16\]"),
        (lambda: aw.occlusion(net, x, components="superpixels", size=3), "size= and stride= belong to boxes"),
        (lambda: aw.occlusion(f, table), "means nothing for a table; give background="),
        (lambda: aw.occlusion(f, table, baseline=0, components=aw.features([["a"]])), "there is no column 'a'"),
        (lambda: aw.occlusion(f, table, baseline=0, components=aw.features([[0, 1], [1]])), "twice"),
        (lambda: aw.occlusion(f, table, baseline=0, precision="bfloat16"), "is for torch models"),
        (lambda: aw.occlusion(net, x, precision="half"), "choose 'float32'"),
    ):
        with pytest.raises(InputError if "torch models" not in said else UnsupportedError, match=said):
            call()


# ---- LIME ---------------------------------------------------------------------------------------------------------


def tiny_game(d: int = 6):
    """A black box on pictures [1, d, 1]: products and sums of the shown pixels, neither linear nor symmetric."""
    rng = np.random.default_rng(0)
    w, pairs = rng.normal(size=d), rng.normal(size=(d, d)) * 0.5

    def f(batch: np.ndarray) -> np.ndarray:
        z = batch.reshape(len(batch), -1)
        return z @ w + np.einsum("mi,ij,mj->m", z, pairs, z)

    return f, np.ones((1, 1, d, 1)), np.arange(d).reshape(d, 1)


@pytest.mark.parametrize("sampling", ["local", "uniform"])
@pytest.mark.parametrize("width", [0.1, 0.25, 5.0])
def test_lime_converges_to_the_weighted_regression_over_all_subsets(sampling, width):
    f, x, labels = tiny_game()
    wanted = oracle.lime_limit(lambda z: f(z.astype(float).reshape(1, -1))[0], 6, width)
    why = aw.lime(f, x, samples=40_000, width=width, components=labels, baseline=0, sampling=sampling, ridge=0)
    np.testing.assert_allclose(why.values[0], wanted, atol=5 * why.std_error.max() + 0.01)
    assert np.abs(why.values[0] - wanted).max() < 0.05


def test_lime_is_exact_on_a_linear_model_and_says_that_it_fits():
    w = np.array([3.0, -2.0, 0.0, 1.0])
    why = aw.lime(lambda b: b.reshape(len(b), 4) @ w, np.ones((1, 1, 4, 1)), samples=200, components=np.arange(4)[:, None], baseline=0, ridge=0)
    np.testing.assert_allclose(why.values[0], w, atol=1e-10)
    np.testing.assert_allclose(why.std_error, 0, atol=1e-10)
    assert why.details["fidelity"][0] == pytest.approx(1)
    assert why.base_value[0] == pytest.approx(0, abs=1e-10)


def test_lime_is_the_ridge_regression_of_its_own_samples():
    f, x, labels = tiny_game()
    s = neighbours(6, 300, 0.25, "uniform", np.random.default_rng([4, 0]))
    wanted, constant = oracle.ridge(s.z.astype(float), f(s.z.astype(float)), s.weight, 1.0)
    why = aw.lime(f, x, samples=300, components=labels, baseline=0, sampling="uniform", seed=4)
    np.testing.assert_allclose(why.values[0], wanted, atol=1e-9)
    assert why.base_value[0] == pytest.approx(constant)


def test_the_standard_errors_of_lime_are_those_of_repeated_seeds():
    f, x, labels = tiny_game()
    runs = [aw.lime(f, x, samples=150, components=labels, baseline=0, sampling=s, seed=k) for s in ("local", "uniform") for k in range(150)]
    for group in (runs[:150], runs[150:]):
        spread = np.std([r.values[0] for r in group], axis=0, ddof=1)
        said = np.sqrt(np.mean([r.std_error[0] ** 2 for r in group], axis=0))
        assert np.all((said > 0.75 * spread) & (said < 1.4 * spread)), (said / spread).tolist()


@pytest.mark.parametrize("width", [0.08, 0.25])
def test_seeds_agree_better_than_with_the_classic_sampling(width):
    """Narrow: the classic weights leave almost no sample. Wide: complements cancel what two components do together."""
    f, x, labels = tiny_game(12)

    def disagreement(sampling):
        maps = [aw.lime(f, x, samples=400, width=width, components=labels, baseline=0, sampling=sampling, seed=k).values[0] for k in range(12)]
        return np.std(maps, axis=0).mean()

    assert disagreement("local") < 0.8 * disagreement("uniform")


def test_feature_selection():
    f, x, labels = tiny_game(9)
    settings = {"samples": 400, "components": labels, "baseline": 0, "sampling": "uniform", "seed": 2}
    s = neighbours(9, 400, 0.25, "uniform", np.random.default_rng([2, 0]))
    z, weight = s.z, s.weight
    y = f(z.astype(float))
    forward = oracle.forward_selection(z.astype(float), y, weight, 4)
    highest = np.sort(np.argsort(-np.abs(oracle.ridge(z.astype(float), y, weight, 0.01)[0]))[:7]).tolist()
    kept = lambda **options: np.flatnonzero(~np.isnan(aw.lime(f, x, **settings, **options).std_error[0])).tolist()  # noqa: E731
    assert kept(num_features=4) == kept(num_features=4, selection="forward") == forward
    assert kept(num_features=7) == kept(num_features=7, selection="highest_weights") == highest
    assert len(kept(num_features=4, selection="lasso")) == 4
    assert kept(num_features=4, selection="none") == kept() == list(range(9))
    selected = aw.lime(f, x, **settings, num_features=4)
    assert selected.details["selected"] == (4,)
    assert np.array_equal(selected.values[0] == 0, np.isnan(selected.std_error[0]))


def test_feature_selection_equals_limes(monkeypatch):
    base = pytest.importorskip("lime.lime_base")
    f, _, _ = tiny_game(9)
    s = neighbours(9, 300, 0.25, "uniform", np.random.default_rng(1))
    z, weight = s.z, s.weight
    y = f(z.astype(float))
    peer = base.LimeBase(None)
    for name, k in (("forward_selection", 4), ("highest_weights", 5)):
        wanted = peer.feature_selection(z.astype(float), y, weight, k, name)
        assert sorted(wanted) == select(z.astype(float), y, weight, k, name.removesuffix("_selection")).tolist()


def test_lime_agrees_with_lime():
    """The same segments, the same width: the peer's coefficients lie within the error bars of ours and its own noise."""
    images = pytest.importorskip("lime.lime_image")
    net = small_net(0)
    picture = (np.random.default_rng(0).random((16, 16, 3)) * 255).astype(np.uint8)
    labels = np.arange(16)[:, None] // 4 * 4 + np.arange(16)[None] // 4

    def f(batch):
        return net(torch.as_tensor(np.asarray(batch, np.float32) / 255).permute(0, 3, 1, 2)).softmax(1).detach().numpy()

    peer = images.LimeImageExplainer(random_state=0).explain_instance(
        picture, f, labels=(1,), top_labels=None, num_samples=4000, segmentation_fn=lambda _: labels
    )
    wanted = np.array([dict(peer.local_exp[1])[k] for k in range(16)])
    why = aw.lime(f, picture[None], 1, samples=4000, components=labels)
    assert np.corrcoef(wanted, why.values[0])[0, 1] > 0.95
    assert np.all(np.abs(wanted - why.values[0]) < 6 * why.std_error[0] + 0.02 * np.abs(wanted).max())
    assert peer.score == pytest.approx(why.details["fidelity"][0], abs=0.1)


def test_lime_settings_are_checked(net, x):
    for options, said in (
        ({"samples": 3}, "samples=3: a regression needs at least 10"),
        ({"width": 0}, "width=0"),
        ({"selection": "best"}, "selection='best': choose 'auto', 'none'"),
        ({"sampling": "gauss"}, "sampling='gauss'"),
        ({"num_features": 0}, "num_features=0"),
        ({"components": np.zeros((16, 16), int)}, "the whole input is one component"),
        ({"width": 0.001}, "no neighbour that counts hides region 0"),
        ({"components": aw.patches(4, 2), "baseline": "component_mean"}, "components that do not overlap"),
    ):
        with pytest.raises(InputError, match=said):
            aw.lime(net, x, **options)


@pytest.mark.parametrize(
    ("method", "options"), [("slic", {}), ("quickshift", {"max_dist": 6, "kernel_size": 1}), ("felzenszwalb", {"min_size": 4, "scale": 10})]
)
def test_superpixels_of_scikit_image(method, options, net):
    blocks = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    x = torch.nn.functional.interpolate(blocks, size=(16, 16))
    why = aw.lime(net, x, components=aw.superpixels(method, n=9, **options), samples=30)
    assert why.regions.shape == (2, 16, 16)
    assert method in why.params["components"]
    one = why[1]
    d = len(one.components[0])
    assert one.values.shape == (1, d)
    assert set(np.unique(one.regions)) == set(range(d))
    np.testing.assert_array_equal(one.map(), one.values[0][one.regions[0]])
