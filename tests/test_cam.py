"""The CAM family against slow textbook versions, against captum where it is right, and on networks that are hard to read."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from conftest import quick
from test_local import SPELLINGS, OwnRelu, Spelled, scripted_relu
from torch import nn

import askwhy as aw
from askwhy.errors import InputError, LayerError, ModelError, UnsupportedError

F = nn.functional
BY_GRADIENT = ("grad_cam", "counterfactual_cam", "grad_cam_plus_plus", "hires_cam", "layer_cam")
FAMILY = (*BY_GRADIENT, "cam", "score_cam", "guided_grad_cam")
by_gradient = pytest.mark.parametrize("name", BY_GRADIENT)


@pytest.fixture
def item() -> torch.Tensor:
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


class Squeeze(nn.Module):
    """Squeeze and excite: the channels weigh each other."""

    def __init__(self, k: int):
        super().__init__()
        self.gate = nn.Linear(k, k)

    def forward(self, x):
        return x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]


BODIES = {
    "plain": lambda: [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()],
    "grouped and dilated": lambda: [nn.Conv2d(3, 6, 3), nn.SiLU(), nn.Conv2d(6, 8, 3, groups=2, dilation=2), nn.ReLU()],
    "transposed": lambda: [nn.Conv2d(3, 6, 4, 4), nn.GELU(), nn.ConvTranspose2d(6, 8, 2, 2), nn.ReLU6()],
    "squeeze and excite": lambda: [nn.Conv2d(3, 8, 3, 2), nn.GroupNorm(2, 8), nn.LeakyReLU(), Squeeze(8), nn.ReLU()],
}
HEADS = {
    "hidden layer": lambda: [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 9), nn.ReLU(), nn.Linear(9, 4)],
    "layer norm and softmax": lambda: [nn.AdaptiveMaxPool2d(3), nn.Flatten(), nn.LayerNorm(72), nn.Linear(72, 4), nn.Softmax(1)],
}


def chain(body, head, seed: int = 0) -> nn.Sequential:
    """A random net of two parts, in float64."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Sequential(*body()), nn.Sequential(*head())).double().eval()


def inside(net: nn.Sequential, x: torch.Tensor, target: int) -> tuple[np.ndarray, np.ndarray, float]:
    """A, dS/dA [k, h, w] of the first item after the body, and S."""
    a = net[0](x).detach().requires_grad_()
    s = net[1](a)[0, target]
    (g,) = torch.autograd.grad(s, a)
    return a[0].detach().numpy(), g[0].numpy(), float(s.detach())


def textbook(name: str, a: np.ndarray, g: np.ndarray, s: float) -> np.ndarray:
    return {
        "grad_cam": lambda: oracle.grad_cam(a, g),
        "counterfactual_cam": lambda: oracle.grad_cam(a, -g),
        "grad_cam_plus_plus": lambda: oracle.grad_cam_plus_plus(a, g, s) / np.exp(s),
        "hires_cam": lambda: oracle.hires_cam(a, g),
        "layer_cam": lambda: oracle.layer_cam(a, g),
    }[name]()


# ---- against the formulas ------------------------------------------------------------------------------------------


@by_gradient
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("head", HEADS)
def test_a_map_is_its_textbook_formula(name, body, head, item):
    net = chain(BODIES[body], HEADS[head])
    found = [aw.explain(net, item, name, k, layer="0", resize=False).values[0] for k in range(4)]
    for k, values in enumerate(found):
        wanted = textbook(name, *inside(net, item, k))
        np.testing.assert_allclose(values, wanted, rtol=1e-9, atol=1e-12 * np.abs(wanted).max())
    assert max(np.abs(values).max() for values in found) > 0
    chosen = aw.explain(net, item, name, 1)
    np.testing.assert_allclose(chosen.values[0], oracle.bilinear(found[1], (16, 16)), atol=1e-12)
    assert chosen.details["grid"] == " x ".join(map(str, found[1].shape))


def test_hires_cam_and_grad_cam_equal_captum(item):
    captum = pytest.importorskip("captum.attr")
    net = chain(BODIES["plain"], HEADS["hidden layer"])
    wanted = captum.LayerGradientXActivation(net, net[0]).attribute(item, target=2).sum(1)
    np.testing.assert_allclose(aw.hires_cam(net, item, 2, layer="0", resize=False).values, wanted.detach(), atol=1e-12)
    wanted = -captum.LayerGradCam(net, net[0]).attribute(item, target=2)[:, 0]
    np.testing.assert_allclose(aw.counterfactual_cam(net, item, 2, layer="0", resize=False).values, wanted.detach().clamp(min=0), atol=1e-12)


def test_guided_grad_cam_is_the_product_and_equals_captum(item):
    captum = pytest.importorskip("captum.attr")
    net = chain(BODIES["plain"], HEADS["hidden layer"])
    why = aw.guided_grad_cam(net, item, 2)
    fine, coarse = aw.guided_backprop(net, item, 2), aw.grad_cam(net, item, 2)
    assert np.abs(why.values).max() > 0
    np.testing.assert_array_equal(why.values, fine.values * coarse.values[:, None])
    assert why.model_calls == 2
    assert why.details["rectifiers"] == 3
    assert why.details["layer"] == coarse.details["layer"]
    assert why.method == "guided_grad_cam"
    with pytest.warns(UserWarning, match="Setting backward hooks"):
        wanted = captum.GuidedGradCam(net, net[0]).attribute(item.clone().requires_grad_(), target=2, interpolate_mode="bilinear")
    np.testing.assert_allclose(why.values, wanted.detach(), atol=1e-12)
    last = nn.Sequential(Permute(0, 3, 1, 2), net).eval()
    np.testing.assert_allclose(aw.guided_grad_cam(last, item.permute(0, 2, 3, 1), 2).values, why.values.transpose(0, 2, 3, 1), atol=1e-15)


def test_grad_cam_plus_plus_refuses_weights_that_mean_nothing(item):
    net = chain(lambda: [nn.Conv2d(3, 4, 3)], lambda: [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)])
    with torch.no_grad():
        net[0][0].bias.sub_(9)
        net[1][2].weight.abs_()
    with pytest.raises(UnsupportedError, match=r"divides by 2 \+ g sum\(A\), which is -.*after a ReLU"):
        aw.grad_cam_plus_plus(net, item, 0)
    with torch.no_grad():
        net[1][2].weight.neg_()  # nothing rises, so there is nothing to divide
    assert not aw.grad_cam_plus_plus(net, item, 0).values.any()


# ---- CAM -----------------------------------------------------------------------------------------------------------


class Permute(nn.Module):
    def __init__(self, *order: int):
        super().__init__()
        self.order = order

    def forward(self, x):
        return x.permute(*self.order)


class Pooled(nn.Module):
    """One network with global average pooling and a linear head, in several spellings; the weights are shared."""

    def __init__(self, spelling: str):
        super().__init__()
        torch.manual_seed(4)
        self.body = nn.Sequential(*BODIES["plain"]())
        self.head, self.norm, self.pool, self.spelling = nn.Linear(8, 4), nn.BatchNorm1d(8), nn.AdaptiveAvgPool2d(1), spelling

    def forward(self, x):
        a, s = self.body(x), self.spelling
        n, k, h, w = a.shape
        if s == "module":
            return self.head(torch.flatten(self.pool(a), 1))
        if s == "mean":
            return self.head(a.mean((2, 3)))
        if s == "mean twice":
            return self.head(a.mean(3).mean(2))
        if s == "sum":
            return self.head(a.sum((-1, -2)) / (h * w))
        if s == "functional":
            return F.linear(F.adaptive_avg_pool2d(a, 1).reshape(n, k), self.head.weight, self.head.bias)
        if s == "average pool of the whole":
            return self.head(F.avg_pool2d(a, (h, w)).squeeze(3).squeeze(2))
        if s == "pooled in two steps":
            return self.head(F.avg_pool2d(F.avg_pool2d(a, 2), h // 2).view(n, -1))
        if s == "flatten and mean":
            return self.head(a.flatten(2).mean(2))
        if s == "tokens":
            return self.head(a.flatten(2).transpose(1, 2).mean(1))
        if s == "1 x 1 convolution":
            return F.conv2d(self.pool(a), self.head.weight[:, :, None, None], self.head.bias).flatten(1)
        if s == "classes before the pooling":
            return torch.einsum("nkhw,ck->nchw", a, self.head.weight).mean((2, 3)) + self.head.bias
        if s == "matmul":
            return a.mean((2, 3)) @ self.head.weight.T + self.head.bias
        if s == "einsum":
            return torch.einsum("nkhw,ck->nc", a, self.head.weight) / (h * w) + self.head.bias
        if s == "dropout":
            return F.dropout(self.head(F.dropout(a.mean((2, 3)), 0.5, self.training)), 0.5, self.training)
        if s == "channels last":
            return self.head(a.to(memory_format=torch.channels_last).mean((2, 3)))
        raise ValueError(s)


POOLED = [
    "module", "mean", "mean twice", "sum", "functional", "average pool of the whole", "pooled in two steps", "flatten and mean", "tokens",
    "1 x 1 convolution", "classes before the pooling", "matmul", "einsum", "dropout", "channels last",
]  # fmt: skip


@pytest.mark.parametrize("spelling", POOLED)
@pytest.mark.parametrize("layer", [None, "body", "body.5"])
def test_cam_is_the_textbook_formula_in_every_spelling(spelling, layer, item):
    net = Pooled(spelling).double().eval()
    a = net.body(item)[0].detach().numpy()
    for target in range(4):
        why = aw.cam(net, item, target, layer=layer, resize=False)
        np.testing.assert_allclose(why.values[0], oracle.cam(a, net.head.weight[target].detach().numpy()), atol=1e-12)
        assert why.base_value[0] == pytest.approx(float(net.head.bias[target].detach()), abs=1e-12)
        assert why.values.mean() + why.base_value[0] == pytest.approx(why.prediction[0], abs=1e-12)
        assert abs(why.residual[0]) < 1e-9
        assert why.model_calls == 2


def test_cam_of_a_contrast_and_of_a_scaled_score_is_linear_in_the_targets(item):
    net = Pooled("mean").double().eval()
    each = [aw.cam(net, item, k).values for k in range(4)]
    np.testing.assert_allclose(aw.cam(net, item, 2, versus=0).values, each[2] - each[0], atol=1e-12)
    why = aw.cam(net, item, lambda out: 3 * out[:, 1] - out[:, 3] + 5)
    np.testing.assert_allclose(why.values, 3 * each[1] - each[3], atol=1e-12)
    small = aw.cam(net, item, lambda out: 3 * out[:, 1] - out[:, 3] + 5, resize=False)
    assert small.values.mean() + small.base_value[0] == pytest.approx(why.prediction[0])
    both = aw.cam(net, torch.cat([item, item.flip(2)]), [1, 3], batch_size=1)
    np.testing.assert_allclose(both.values[0], each[1][0], atol=1e-12)
    assert both.base_value == pytest.approx(net.head.bias[[1, 3]].detach().numpy())


def test_a_network_whose_last_convolution_gives_the_classes_has_cam_without_a_head(item):
    net = chain(BODIES["plain"], lambda: [nn.Conv2d(8, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()])
    why = aw.cam(net, item, 1, resize=False)
    np.testing.assert_allclose(why.values[0], net[1][:2](net[0](item))[0, 1].detach(), atol=1e-12)
    assert why.base_value[0] == pytest.approx(0, abs=1e-12)


class Gated(Pooled):
    """Networks that look like global average pooling and a linear layer from the outside, and are not."""

    def forward(self, x):
        a, s = self.body(x), self.spelling
        mean = a.mean((2, 3))
        if s == "hidden layer":
            return self.head(torch.relu(mean))
        if s == "layer norm":
            return self.head(F.layer_norm(mean, (8,)))
        if s == "softmax":
            return self.head(mean).softmax(1)
        if s == "max pooling":
            return self.head(a.amax((2, 3)))
        if s == "square":
            return self.head(mean * mean)
        if s == "a number over the mean":
            return self.head(torch.div(1.0, mean + 1))
        if s == "weighed by place":
            return self.head((a * torch.linspace(0, 1, a.shape[3], dtype=a.dtype)).mean((2, 3)))
        if s == "quarters":
            return self.head(F.adaptive_avg_pool2d(a, 2)[:, :, 0, 1])
        if s == "detached gate":
            return self.head(mean * torch.sigmoid(mean.detach()))
        if s == "another path":
            return self.head(mean + x.mean((2, 3)).repeat(1, 3)[:, :8])
        if s == "linear by hand, with a function of its own":
            return Own.apply(self.head(mean))
        raise ValueError(s)


class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g


@pytest.mark.parametrize(
    ("spelling", "said"),
    [
        ("hidden layer", "the model computes Relu, which is not linear"),
        ("layer norm", "the model computes NativeLayerNorm"),
        ("softmax", "the model computes Softmax"),
        ("max pooling", "the model computes Amax"),
        ("square", "the model computes Mul"),
        ("a number over the mean", "changes by|computes Div|computes Reciprocal"),
        ("weighed by place", "weighs the places of layer 'body' differently"),
        ("quarters", "weighs the places of layer 'body' differently"),
        ("detached gate", "a part of the score does not come from layer .* changes by"),
        ("another path", "a part of the score does not come from layer .* changes by"),
        ("linear by hand, with a function of its own", "the model computes Own"),
    ],
)
def test_cam_refuses_what_is_not_pooling_and_a_linear_layer(spelling, said, item):
    net = Gated(spelling).double().eval()
    with pytest.raises(UnsupportedError, match=f"(?s){said}.*use grad_cam"):
        aw.cam(net, item, 1, layer="body")
    aw.grad_cam(net, item, 1, layer="body")


def test_cam_refuses_layers_that_are_not_the_pooled_one(item):
    net = Pooled("mean").double().eval()
    with pytest.raises(UnsupportedError, match=r"between layer 'body.0' and the score the model computes (Relu|MaxPool)"):
        aw.cam(net, item, layer="body.0")
    with pytest.raises(LayerError, match="cam explains one layer.* and not body.5, body.0"):
        aw.cam(net, item, layer=["body.5", "body.0"])

    class Residual(Pooled):
        def forward(self, x):
            early = self.body[:4](x)
            return self.head((self.body[4](early) + early.repeat(1, 2, 1, 1)[:, :8]).mean((2, 3)))

    net = Residual("").double().eval()
    with pytest.raises(UnsupportedError, match="a part of the score does not come from layer 'body.4'"):
        aw.cam(net, item, layer="body.4")
    assert aw.cam(net, item).details["layer"] == "conv2d > add"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_cam_in_other_precisions(dtype, item):
    exact = aw.cam(Pooled("module").double().eval(), item, 1)
    why = aw.cam(Pooled("module").to(dtype).eval(), item, 1)
    close = 1e-5 if dtype == torch.float32 else 3e-2
    np.testing.assert_allclose(why.values, exact.values, atol=close * np.abs(exact.values).max())
    assert exact.values.dtype == np.float64


@pytest.mark.parametrize("name", FAMILY)
def test_under_autocast(name, item):
    net, x = Pooled("module").eval(), item.float()
    exact = aw.explain(net, x, name, 1)

    class Cast(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return self.net(x).float()

    for layer in (None, "net.body"):
        why = aw.explain(Cast().eval(), x, name, 1, layer=layer)
        assert np.corrcoef(why.values.ravel(), exact.values.ravel())[0, 1] > 0.99
        assert why.values.max() == pytest.approx(exact.values.max(), rel=0.1)


# ---- how they agree ------------------------------------------------------------------------------------------------


def scaled(values: np.ndarray) -> np.ndarray:
    """What supports the class, with the largest value 1."""
    shown = np.maximum(values, 0)
    assert shown.max() > 0
    return shown / shown.max()


def test_cam_grad_cam_and_hires_cam_agree_with_global_average_pooling_and_part_without(item):
    net = Pooled("module").double().eval()
    for k in range(4):
        maps = [aw.explain(net, item, name, k, resize=False).values for name in ("cam", "grad_cam", "hires_cam")]
        if maps[0].max() > 0:
            for other in maps[1:]:
                np.testing.assert_allclose(scaled(other), scaled(maps[0]), atol=1e-6)
        against = aw.counterfactual_cam(net, item, k, resize=False).values
        np.testing.assert_allclose(against * maps[0][0].size, np.maximum(-maps[0], 0), atol=1e-12)
    other = chain(BODIES["plain"], HEADS["hidden layer"])
    grad, hires = (aw.explain(other, item, name, 2, resize=False).values for name in ("grad_cam", "hires_cam"))
    assert np.abs(scaled(grad) - scaled(hires)).max() > 0.1
    with pytest.raises(UnsupportedError, match="use grad_cam or hires_cam"):
        aw.cam(other, item, 2)


def test_cam_grad_cam_and_hires_cam_agree_on_efficientnet(lite0, cat):
    maps = [aw.explain(lite0, cat, name, "tiger cat").values for name in ("cam", "grad_cam", "hires_cam")]
    for other in maps[1:]:
        np.testing.assert_allclose(scaled(other), scaled(maps[0]), atol=1e-6)
    small = aw.cam(lite0, cat, "tiger cat", resize=False)
    assert small.values.shape == (1, 7, 7)
    assert small.values.mean() + small.base_value[0] == pytest.approx(small.prediction[0], abs=1e-4)


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", FAMILY)
def test_every_method_is_one_map_in_every_spelling(name, spelling, item):
    net, usual = Spelled(spelling).double().eval(), Spelled("modules").double().eval()
    wanted = aw.explain(usual, item, name, 1)
    np.testing.assert_allclose(aw.explain(net, item, name, 1).values, wanted.values, atol=1e-9 * max(np.abs(wanted.values).max(), 1e-9))


@pytest.mark.parametrize("name", FAMILY)
def test_traced_by_fx_gives_the_same_map(name, item):
    net = Spelled("functional").double().eval()
    np.testing.assert_allclose(aw.explain(torch.fx.symbolic_trace(net), item, name, 1).values, aw.explain(net, item, name, 1).values, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in FAMILY if name != "cam"])
def test_several_layers_give_the_mean_of_their_maps(name, item):
    net = chain(BODIES["plain"], HEADS["hidden layer"])
    both = aw.explain(net, item, name, 2, layer=["0.2", net[0]])
    apart = [aw.explain(net, item, name, 2, layer=layer).values for layer in ("0.2", "0")]
    np.testing.assert_allclose(both.values, np.mean(apart, 0), atol=1e-12)
    assert both.details["layer"] == "0.2, 0"
    assert both.details["grid"] == "16 x 16, 8 x 8"
    if name != "guided_grad_cam":
        with pytest.raises(LayerError, match="layers of one grid"):
            aw.explain(net, item, name, 2, layer=["0.2", "0"], resize=False)


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("layer", [None, "0"])
def test_a_model_with_a_seed(name, layer, item):
    net = chain(BODIES["plain"], lambda: [nn.AdaptiveAvgPool2d(1), nn.Flatten(), AlwaysDropout(), nn.Linear(8, 4)])
    model = aw.wrap(net, seed=3)
    both = aw.explain(model, torch.cat([item, item.flip(2)]), name, 2, layer=layer)
    assert np.abs(both.values).max() > 0
    for i, x in enumerate((item, item.flip(2))):
        np.testing.assert_allclose(both.values[i], aw.explain(model, x, name, 2, layer=layer).values[0], atol=1e-12)
    with pytest.raises(ModelError, match="draws random numbers"):
        aw.explain(net, item, name, 2, layer=layer)


class AlwaysDropout(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.3, training=True)


class Branches(Pooled):
    """The last map is made of several, or by something that cannot be seen."""

    def forward(self, x):
        early = self.body[:4](x)
        late, s = self.body[4](early), self.spelling
        if s == "one after the other":
            a = torch.cat([early, late], 1)
        elif s == "side by side":
            a = torch.cat([early, late[:, :4], self.side(early)], dim=1)
        elif s == "added":
            a = late + self.wide(early)
        elif s == "autograd.Function":
            a = OwnRelu.apply(late)
        elif s == "torch.jit":
            a = scripted_relu(late)
        return self.out((torch.relu(a) if a.shape[1] > 8 else a).mean((2, 3)))

    def __init__(self, spelling):
        super().__init__(spelling)
        self.side, self.wide = nn.Conv2d(6, 4, 3, padding=1), nn.Conv2d(6, 8, 1)
        self.out = nn.Linear({"one after the other": 14, "side by side": 14}.get(spelling, 8), 4)


@pytest.mark.parametrize("spelling", ["one after the other", "side by side", "added"])
def test_the_last_map_holds_every_branch(spelling, item):
    net = Branches(spelling).double().eval()
    for _ in range(2):  # the second time the last convolution is known
        why = aw.cam(net, item, 1)
        assert why.details["layer"] == ("conv2d > add" if spelling == "added" else "conv2d > cat > relu")
        small = aw.cam(net, item, 1, resize=False)
        assert small.values.mean() + small.base_value[0] == pytest.approx(why.prediction[0])
        assert small.base_value[0] == pytest.approx(float(net.out.bias[1].detach()))
        np.testing.assert_allclose(aw.hires_cam(net, item, 1, resize=False).values * small.values.size, small.values, atol=1e-12)


@pytest.mark.parametrize(
    "head",
    [
        lambda: [nn.MaxPool2d(3, 1, 1), nn.Flatten(), nn.Linear(512, 4)],  # a pooling that keeps the shape
        lambda: [nn.Conv2d(8, 4, 8), nn.Flatten()],  # a convolution in place of a linear layer
        lambda: [nn.Conv2d(8, 5, 8), nn.ReLU(), nn.Conv2d(5, 4, 1), nn.Flatten()],
    ],
)
@by_gradient
def test_the_last_map_ends_where_places_are_mixed(name, head, item):
    net = chain(BODIES["plain"], head)
    why = aw.explain(net, item, name, 2, resize=False)
    assert why.details["layer"] == "conv2d > relu"
    np.testing.assert_allclose(why.values, aw.explain(net, item, name, 2, layer="0", resize=False).values, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in FAMILY if name != "guided_grad_cam"])
@pytest.mark.parametrize("spelling", ["autograd.Function", "torch.jit"])
def test_what_hides_the_last_map_is_refused(name, spelling, item):
    net = Branches(spelling).double().eval()
    for _ in range(3):  # torch.jit runs differently when it is warm
        with pytest.raises(LayerError, match="what the model does after 'conv2d' cannot be followed"):
            aw.explain(net, item, name, 1)
    if name != "cam":
        assert np.isfinite(aw.explain(net, item, name, 1, layer="body.4").values).all()


# ---- Score-CAM -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", BODIES)
def test_score_cam_is_the_textbook_loop(body, item):
    net = chain(BODIES[body], HEADS["hidden layer"])
    x = torch.cat([item, item.flip(1) * 3 - 1])
    f = lambda picture: float(net(torch.as_tensor(picture)[None])[0, 2].detach())  # noqa: E731
    why = aw.score_cam(net, x, 2, layer="0", resize=False)
    for i in range(2):
        wanted = oracle.score_cam(f, x[i].numpy(), net[0](x)[i].detach().numpy())
        assert wanted.max() > 0
        np.testing.assert_allclose(why.values[i], wanted, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(aw.score_cam(net, x, 2).values[1], oracle.bilinear(wanted, (16, 16)), atol=1e-9)


def test_score_cam_leaves_out_channels_that_show_no_part_and_counts_its_calls(item):
    net = chain(lambda: [nn.Conv2d(3, 70, 3), nn.ReLU()], lambda: [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(70, 3)])
    with torch.no_grad():
        net[0][0].bias[:10] = -99
    live = int((net[0](item)[0].flatten(1).std(1) > 0).sum())
    assert live <= 60
    seen = []
    why = aw.score_cam(net, item, 1, progress=lambda done, total: seen.append((done, total)))
    assert why.model_calls == live + 1
    assert seen[-1] == (70, 70)
    with torch.no_grad():
        net[0][0].bias[:] = -99
    assert not aw.score_cam(net, item, 1).values.any()


def test_score_cam_takes_pictures_with_channels_last(item):
    net = chain(BODIES["plain"], HEADS["hidden layer"])
    last = nn.Sequential(Permute(0, 3, 1, 2), net).eval()
    np.testing.assert_allclose(aw.score_cam(last, item.permute(0, 2, 3, 1), 2).values, aw.score_cam(net, item, 2).values, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in FAMILY if name != "cam"])
def test_pictures_without_a_channel_axis_and_what_is_no_picture(name, item):
    net = chain(lambda: [nn.Conv2d(1, 5, 3), nn.ReLU()], lambda: [nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(20, 3)])
    flat = nn.Sequential(nn.Unflatten(1, (1, 16)), net).eval()
    wanted = aw.explain(net, item[:, :1], name, 1).values
    assert np.abs(wanted).max() > 0
    np.testing.assert_allclose(aw.explain(flat, item[:, 0], name, 1).values, wanted.reshape(1, 16, 16), atol=1e-15)
    row = nn.Sequential(nn.Unflatten(1, (1, 16, 16)), net).eval()
    with pytest.raises(InputError, match=r"needs pictures \[n, c, h, w\], but x is \[1, 256\]; use gradient or occlusion"):
        aw.explain(row, item[:, 0].flatten(1), name, 1)


# ---- transformers --------------------------------------------------------------------------------------------------


class Vit(nn.Module):
    """A small vision transformer; `reads` is what the head looks at: "class", "mean", or the number of a patch."""

    def __init__(self, prefix=1, reads="mean", patch=4, size=(16, 16), embed="convolution", attention="layer"):
        super().__init__()
        torch.manual_seed(7)
        grid = size[0] // patch, size[1] // patch
        self.prefix, self.reads, self.patch, self.how, self.attention = prefix, reads, patch, embed, attention
        self.embed, self.flat = nn.Conv2d(3, 8, patch, patch), nn.Linear(3 * patch**2, 8)
        self.extra, self.place = nn.Parameter(torch.randn(1, prefix, 8)), nn.Parameter(torch.randn(1, grid[0] * grid[1], 8))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, norm_first=True) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def tokens(self, x):
        if self.how == "convolution":
            return self.embed(x).flatten(2).transpose(1, 2)
        return self.flat(F.unfold(x, self.patch, stride=self.patch).transpose(1, 2))

    def block(self, block, t):
        if self.attention == "layer":
            return block(t)
        z = block.norm1(t)
        q, k, v = F.linear(z, block.self_attn.in_proj_weight, block.self_attn.in_proj_bias).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        if self.attention == "sdpa":
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.transpose(-2, -1) / 2).softmax(-1) @ v
        t = t + block.self_attn.out_proj(mixed.transpose(1, 2).flatten(2))
        return t + block.linear2(F.relu(block.linear1(block.norm2(t))))

    def forward(self, x):
        t = torch.cat([self.extra.expand(len(x), -1, -1), self.tokens(x) + self.place], 1)
        for block in self.blocks:
            t = self.block(block, t)
        return self.answer(t)

    def answer(self, t):
        t = self.norm(t)
        read = {"class": lambda: t[:, 0], "mean": lambda: t[:, self.prefix :].mean(1)}.get(self.reads, lambda: t[:, self.prefix + self.reads])
        return self.head(read())


@pytest.mark.parametrize("name", [name for name in FAMILY if name != "cam"])
@pytest.mark.parametrize("embed", ["convolution", "unfold"])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_the_tokens_of_a_transformer_are_put_back_on_their_grid(name, embed, prefix):
    size = (16, 24)
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    reads = "mean" if name == "grad_cam_plus_plus" else 8  # patch 8 is row 1, column 2 of 4 x 6
    net = Vit(prefix, reads, size=size, embed=embed).double().eval()
    why = aw.explain(net, x, name, 1, layer="blocks.1", **({} if name == "guided_grad_cam" else {"resize": False}))
    assert why.details["grid"] == f"4 x 6 tokens after {prefix} others"
    if name == "guided_grad_cam":
        return
    with torch.no_grad():
        t = torch.cat([net.extra.expand(2, -1, -1), net.tokens(x) + net.place], 1)
        t = net.blocks[1](net.blocks[0](t))
    a = t[:, prefix:].transpose(1, 2).unflatten(2, (4, 6)).numpy()
    if name in BY_GRADIENT:
        leaf = t.clone().requires_grad_()
        (g,) = torch.autograd.grad(net.answer(leaf)[:, 1].sum(), leaf)
        g = g[:, prefix:].transpose(1, 2).unflatten(2, (4, 6)).numpy()
        scores = net(x)[:, 1].tolist()
        for i in range(2):
            np.testing.assert_allclose(why.values[i], textbook(name, a[i], g[i], scores[i]), atol=1e-9)
    if name == "hires_cam":
        assert np.argwhere(why.values[0]).tolist() == [[1, 2]]
    if name == "score_cam" and prefix == 1:
        f = lambda picture: float(net(torch.as_tensor(picture)[None])[0, 1].detach())  # noqa: E731
        np.testing.assert_allclose(why.values[0], oracle.score_cam(f, x[0].numpy(), a[0]), atol=1e-9)


@pytest.mark.parametrize("name", [name for name in FAMILY if name != "cam"])
def test_every_spelling_of_attention_gives_one_map(name, item):
    """`nn.TransformerEncoderLayer`, `F.scaled_dot_product_attention`, and softmax(q k) v."""
    for layer in ("blocks.1.norm1", "norm"):
        first, *others = (aw.explain(Vit(attention=a).double().eval(), item, name, 1, layer=layer).values for a in ("layer", "sdpa", "written out"))
        assert np.abs(first).max() > 0
        for values in others:
            np.testing.assert_allclose(values, first, atol=1e-9)


@pytest.mark.parametrize("name", [m.name for m in aw.methods() if m.name not in FAMILY and "image" in m.inputs])
def test_every_other_method_gives_one_map_too(name, item):
    first, *others = (aw.explain(Vit(attention=a).double().eval(), item, name, 1, **quick(name)).values for a in ("layer", "sdpa", "written out"))
    assert np.abs(first).max() > 0
    for values in others:
        np.testing.assert_allclose(values, first, rtol=0, atol=1e-9 * np.abs(first).max())


def test_a_class_token_reads_the_patches_before_its_last_attention(item):
    net = Vit(reads="class").double().eval()
    assert aw.hires_cam(net, item, 1, layer="blocks.0").values.any()
    for name in ("hires_cam", "grad_cam", "layer_cam"):
        with pytest.raises(LayerError, match="after layer 'blocks.1' the score reads only the tokens before the patches"):
            aw.explain(net, item, name, 1, layer="blocks.1")
    assert aw.score_cam(net, item, 1, layer="blocks.1").values.any()  # needs no gradient


def test_cam_of_a_transformer_needs_a_linear_end(item):
    net = Vit(prefix=0).double().eval()
    with pytest.raises(UnsupportedError, match="computes NativeLayerNorm"):
        aw.cam(net, item, 1, layer="blocks.1")
    why = aw.cam(net, item, 1, layer="norm", resize=False)
    assert why.values.shape == (1, 4, 4)
    assert why.values.mean() + why.base_value[0] == pytest.approx(why.prediction[0])


class Odd(nn.Module):
    """Tokens that do not say how they lie on the picture, and other layers of three and four axes."""

    def __init__(self, kind: str):
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.tap, self.conv, self.head = kind, nn.Identity(), nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 3)

    def forward(self, x):
        a = self.conv(x)
        t = a.flatten(2).transpose(1, 2)
        if self.kind == "rows":
            return self.head(self.tap(t[:, :11]).mean(1))
        if self.kind == "many others":
            return self.head(self.tap(torch.cat([t.new_ones(len(t), 12, 8), t], 1)).mean(1))
        if self.kind == "items second":
            return self.head(self.tap(t.transpose(0, 1)).mean(0))
        if self.kind == "channels last":
            return self.head(self.tap(a.permute(0, 2, 3, 1)).mean((1, 2)))
        if self.kind == "windows":
            return self.head(self.tap(t.reshape(-1, 4, 8)).reshape(len(x), -1, 8).mean(1))
        return self.head(self.tap(a[:, :, None]).mean((2, 3, 4)))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("rows", r"layer 'tap' gives 11 tokens for an input of 16 x 16.*\(none fits\)"),
        ("many others", r"gives 28 tokens for an input of 16 x 16.*none fits.*use occlusion or lime"),
        ("items second", r"gives \[16, \d, 8\] for \d items; name a layer whose first axis counts"),
        ("windows", r"gives \[\d, 4, 8\] for \d items"),
        ("five axes", r"gives \[\d, 8, 1, 4, 4\]; a class activation map needs"),
    ],
)
@pytest.mark.parametrize("name", ["grad_cam", "score_cam"])
def test_layers_whose_places_are_not_known_are_refused(kind, said, name):
    with pytest.raises(LayerError, match=said):
        aw.explain(Odd(kind).eval(), torch.rand(2, 3, 16, 16), name, 1, layer="tap")


def test_two_grids_that_fit_are_refused():
    class Two(Odd):
        def forward(self, x):
            F.conv2d(x[:, :, :12, :12], self.conv.weight, stride=4)  # 3 x 3: 16 tokens may also be 3 x 3 after 7
            return self.head(self.tap(self.conv(x).flatten(2).transpose(1, 2)).mean(1))

    with pytest.raises(LayerError, match=r"\(4 x 4 after 0 others and 3 x 3 after 7 others\)"):
        aw.grad_cam(Two("").eval(), torch.rand(2, 3, 16, 16), 1, layer="tap")


def test_a_layer_with_channels_last_is_read_as_such(item):
    net = Odd("channels last").double().eval()
    why = aw.cam(net, item, 1, layer="tap", resize=False)
    assert why.details["grid"] == "4 x 4, channels last"
    np.testing.assert_allclose(why.values, aw.cam(net, item, 1, layer="conv", resize=False).values, atol=1e-12)


@by_gradient
def test_a_layer_that_the_score_does_not_depend_on_is_refused(name, item):
    class Aside(Odd):
        def forward(self, x):
            self.tap(self.conv(x))
            return self.head(x.mean((1, 2, 3))[:, None].repeat(1, 8))

    with pytest.raises(LayerError, match="no gradient of the score reaches layer 'conv'"):
        aw.explain(Aside("").double().eval(), item, name, 1, layer="conv")


class Checked(Pooled):
    def forward(self, x):
        a = torch.utils.checkpoint.checkpoint(self.body, x, use_reentrant=self.spelling == "reentrant")
        return self.head(a.mean((2, 3)))


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("layer", [None, "body"])
def test_a_checkpoint_is_explained_and_a_reentrant_one_refused(name, layer, item):
    wanted = aw.explain(Pooled("mean").double().eval(), item, name, 1, layer=layer).values
    np.testing.assert_allclose(aw.explain(Checked("").double().eval(), item, name, 1, layer=layer).values, wanted, atol=1e-12)
    reentrant = Checked("reentrant").double().eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "None of the inputs have requires_grad")  # of torch, about checkpoints like this
        if name == "score_cam" and layer:  # which needs no gradient
            np.testing.assert_allclose(aw.explain(reentrant, item, name, 1, layer=layer).values, wanted, atol=1e-12)
        else:
            with pytest.raises((LayerError, UnsupportedError), match="reentrant checkpoint"):
                aw.explain(reentrant, item, name, 1, layer=layer)


# ---- the answer ----------------------------------------------------------------------------------------------------


def test_the_largest_region_alone_can_be_asked_for():
    values = np.zeros((1, 10, 20))
    values[0, 1:3, 1:3], values[0, 6:9, 5:15] = 9.0, 1.0
    heat = aw.Explanation(values, frames=((100.0, 50.0, 300.0, 150.0, 400.0, 200.0),))
    both = heat.boxes(0.1)
    assert both == [([110, 60, 130, 80], 9.0), ([150, 110, 250, 140], 1.0)]
    assert heat.boxes(0.1, largest=True) == both[1:]
    assert heat.boxes(0.5, largest=True) == both[:1]
    assert aw.Explanation(np.zeros((1, 3, 3))).boxes(largest=True) == []


def test_the_cat_is_found_by_its_box(lite0, cat):
    (box, strength), *none = aw.grad_cam(lite0, cat, "tiger cat").boxes(0.3, largest=True)
    assert none == []
    assert strength > 0
    assert box[0] >= 0
    assert box[2] <= cat.width
    assert box[3] <= cat.height
    assert (box[2] - box[0]) * (box[3] - box[1]) < cat.width * cat.height


def test_the_gallerys_network_without_pooling_parts_grad_cam_from_hires_cam(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "examples"))
    from gallery import Compares, parted

    _, sums = parted()
    assert sums["grad_cam"] == 0
    net, photo = Compares().eval(), torch.rand(1, 3, 32, 32)
    why = aw.hires_cam(net, photo, target=0, resize=False)
    np.testing.assert_allclose(why.values.sum(), why.prediction[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(UnsupportedError, match="averages its last feature map"):
        aw.cam(net, photo, target=0)
