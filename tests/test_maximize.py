"""Activation maximization: small models whose best input is known by hand, parameters and regularizers beside textbook versions."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import nn

import askwhy as aw
from askwhy import regularizers as r
from askwhy.errors import InputError, LayerError, ModelError, TargetError
from askwhy.models.base import to_numpy
from askwhy.models.torch_module import TorchModel
from askwhy.overall import parameters
from askwhy.overall.ascent import Search
from askwhy.overall.canvas import canvas_of
from askwhy.overall.judge import shares
from askwhy.overall.objectives import aims_of, named
from askwhy.rules import Record, rules

GREY = {"shape": (1, 6, 6), "bounds": (0, 1), "score": "raw"}


class Linear(nn.Module):
    """S = w . x for each class."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weight.T


def line(seed: int = 0, classes: int = 3, numbers: int = 36) -> Linear:
    return Linear(torch.randn(classes, numbers, generator=torch.Generator().manual_seed(seed))).eval()


# ---- known optima ---------------------------------------------------------------------------------------------------


def test_the_best_picture_of_a_linear_score_is_white_where_its_weight_is_positive():
    net = line()
    found = aw.activation_maximization(net, [0, 2], preset="naive", rate=1.0, **GREY)
    for k, row in enumerate((0, 2)):
        best = (net.weight[row] > 0).float().reshape(1, 6, 6)
        sure = np.abs(net.weight[row].detach().numpy().reshape(1, 6, 6)) > 0.02  # what adds less is lost in float32
        assert np.allclose(found.values[k][sure], best[sure], atol=1e-6)
        assert sure.sum() > 30
        assert found.score[k] == pytest.approx(float(net.weight[row].detach().clamp(min=0).sum()), abs=0.01)
    assert found.target == ("class 0", "class 2")
    assert found.values.shape == (2, 1, 6, 6)
    assert found.pictures.shape == (2, 6, 6, 3)
    assert found.pictures.dtype == np.uint8


def test_l1_leaves_out_what_adds_less_than_its_weight():
    net = line()
    found = aw.activation_maximization(net, 0, preset="naive", regularizer=r.l1(36 * 0.8), steps=600, rate=0.3, **GREY)
    weight = net.weight[0].detach().numpy()
    sure = np.abs(weight - 0.8) > 0.05
    assert np.allclose(found.values.reshape(-1)[sure], (weight > 0.8)[sure], atol=0.1)
    assert 3 < (weight > 0.8).sum() < (weight > 0).sum() - 3, "the weight of the test decides something"


def test_l2_stops_where_the_slope_of_the_penalty_is_that_of_the_score():
    net = line()
    found = aw.activation_maximization(net, 1, preset="naive", regularizer=r.l2(36 * 2.0), steps=600, rate=0.02, **GREY)
    best = (net.weight[1].detach().numpy() / 4).clip(0, 1)  # w = 2 * 2 * u
    assert np.allclose(found.values.reshape(-1), best, atol=0.02)


def test_sums_and_differences_of_aims():
    net = line()
    w = net.weight.detach()
    found = aw.activation_maximization(net, aw.aim(0) - 0.5 * aw.aim(2), preset="naive", rate=1.0, **GREY)
    assert np.allclose(found.values.reshape(-1), (w[0] - 0.5 * w[2] > 0).float(), atol=1e-6)
    assert found.target == ("class 0 - 0.5 class 2",)
    less = aw.activation_maximization(net, 0, versus=2, preset="naive", rate=1.0, **GREY)
    assert np.allclose(less.values.reshape(-1), (w[0] - w[2] > 0).float(), atol=1e-6)
    down = aw.activation_maximization(net, -aw.aim(0), preset="naive", rate=1.0, **GREY)
    assert np.allclose(down.values.reshape(-1), (w[0] < 0).float(), atol=1e-6)
    assert down.target == ("-class 0",)


def inner() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(20, 2)).eval()


def gradient_of(net: nn.Module, read) -> torch.Tensor:  # of a linear network: the same everywhere
    x = torch.zeros(1, 1, 6, 6, requires_grad=True)
    return torch.autograd.grad(read(net, x), x)[0][0]


@pytest.mark.parametrize(
    ("target", "read"),
    [
        (aw.neuron("0", 2), lambda net, x: net[0](x)[0, 2].mean()),
        (aw.neuron("1", (3, 0, 1)), lambda net, x: net[1](net[0](x))[0, 3, 0, 1]),
        (aw.concept("1", [1.0, -2, 0, 0, 1]), lambda net, x: (net[1](net[0](x))[0].mean((1, 2)) * torch.tensor([1.0, -2, 0, 0, 1])).sum()),
        (aw.aim(1) + 3 * aw.aim(aw.neuron("0", 1)), lambda net, x: net(x)[0, 1] + 3 * net[0](x)[0, 1].mean()),
        (lambda out: out[:, 0] * 2, lambda net, x: net(x)[0, 0]),
    ],
    ids=["channel", "neuron", "direction", "sum over places", "function"],
)  # fmt: skip
def test_what_is_raised_inside_the_network(target, read):
    net = inner()
    found = aw.activation_maximization(net, target, preset="naive", rate=1.0, **GREY)
    slope = gradient_of(net, read)
    sure = slope.abs() > 1e-6
    assert np.allclose(found.values[0][sure], (slope > 0).float()[sure], atol=1e-6)


def test_the_energy_of_a_layer_is_the_mean_square_of_it():
    net = inner()
    found = aw.activation_maximization(net, aw.energy("1"), preset="naive", steps=50, **GREY)
    out = net[1](net[0](torch.from_numpy(found.values)))
    assert found.score[0] == pytest.approx(float(out.detach().square().mean()), rel=1e-5)
    assert found.score[0] > 2 * found.start[0]


def test_a_layer_ends_the_pass():
    net = inner()
    ran = []
    net[3].register_forward_hook(lambda *_: ran.append(1))
    aw.activation_maximization(net, aw.neuron("0", 0), preset="naive", steps=10, **GREY)
    assert len(ran) == 1, "once to look at the layer, and never again"


# ---- parameters -----------------------------------------------------------------------------------------------------


def canvas(shape=(3, 16, 20), dtype=torch.float32):
    return canvas_of(TorchModel(nn.Conv2d(shape[0], 2, 3).to(dtype)), shape, (0, 1), None)


def test_a_spectrum_of_zeros_is_grey_and_one_wave_is_a_wave():
    own = parameters.fourier(canvas())
    leaf = torch.zeros(1, 3, 16, 11, 2)
    assert torch.allclose(own.picture(leaf), torch.tensor(0.5))
    leaf[0, 0, 0, 2, 0] = 1.0  # the light axis, two waves across, none down
    light = torch.logit(own.picture(leaf))[0]
    wave = torch.cos(2 * torch.pi * 2 * torch.arange(20) / 20)
    for colour, share in enumerate(parameters.COLOURS[0]):
        assert torch.allclose(light[colour] / light[colour, 0, 0], wave.expand(16, 20), atol=1e-5)
        assert float(light[colour, 0, 0] / light[0, 0, 0]) == pytest.approx(share / parameters.COLOURS[0][0], rel=1e-4)


def test_phases_leave_the_magnitudes_of_photos():
    own = parameters.phases(canvas((1, 16, 16)))
    planes = torch.logit(own.picture(own.start([0, 1])))
    spectrum = torch.fft.rfft2(planes, norm="ortho").abs()[:, 0]
    f = np.maximum(np.hypot(np.fft.fftfreq(16)[:, None], np.fft.rfftfreq(16)[None]), 1 / 16)
    wanted = f**-parameters.FALL
    inside = np.s_[:, 1:8, 1:8]  # where a wave is its own: not those that are their own mirror image
    assert np.allclose((spectrum.numpy() / wanted)[inside], (spectrum[0, 1, 1] / wanted[1, 1]).item(), rtol=1e-3)
    assert not torch.allclose(planes[0], planes[1], atol=0.1)


def test_the_axes_of_colours_are_nearly_at_right_angles():
    axes = np.array(parameters.COLOURS)
    assert np.allclose(axes @ axes.T, np.eye(3), atol=0.03)


@pytest.mark.parametrize("way", ["pixels", "fourier", "phase"])
@pytest.mark.parametrize("shape", [(3, 15, 17), (1, 8, 8)])
def test_every_way_starts_in_range_and_by_its_seed(way, shape):
    own = parameters.WAYS[way](canvas(shape))
    one, other = own.picture(own.start([4, 5])), own.picture(own.start([5]))
    assert one.shape == (2, *shape)
    assert torch.equal(one[1], other[0])
    assert bool(((one >= 0) & (one <= 1)).all())


@pytest.mark.parametrize("preset", ["naive", "lecture", "yosinski", "lucid", "maco", "robust"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_preset_raises_the_score(net, preset, dtype):
    model = aw.wrap(net.to(dtype), labels=list("abcd"))
    found = aw.activation_maximization(model, 300 * aw.aim("c"), preset=preset, steps=25, shape=(3, 16, 16), bounds=(-1, 1))
    assert found.score[0] > found.start[0]
    assert found.target == ("300 c",)
    assert found.trace.shape == (25, 1)
    assert found.model_calls == 25 * (2 if preset == "robust" else 1)
    assert np.abs(found.values.astype(np.float64)).max() <= 1


# ---- regularizers ---------------------------------------------------------------------------------------------------


def part(one: r.Regularizer):
    return one.parts[0]


U = torch.randn(2, 3, 9, 11, generator=torch.Generator().manual_seed(0))


def test_penalties_are_what_they_say():
    u = U.numpy()
    assert np.allclose(part(r.l1(3)).penalty(U), 3 * np.abs(u).mean((1, 2, 3)), rtol=1e-5)
    assert np.allclose(part(r.l2(3)).penalty(U), 3 * (u**2).mean((1, 2, 3)), rtol=1e-5)
    slow = np.abs(u[:, :, 1:] - u[:, :, :-1]).mean((1, 2, 3)) + np.abs(u[..., 1:] - u[..., :-1]).mean((1, 2, 3))
    assert np.allclose(part(r.total_variation(2)).penalty(U), 2 * slow, rtol=1e-5)


def test_blur_is_a_gaussian_every_few_steps():
    after = part(r.blur(1.0, every=3)).after
    assert torch.equal(after(U, None, 0), U)
    slow = ndimage.gaussian_filter(U.numpy(), (0, 0, 1, 1), mode="nearest", radius=3)
    assert np.allclose(after(U, None, 2), slow, atol=1e-5)


def test_small_pixels_and_small_contributions_are_set_to_0():
    gradient = torch.randn(U.shape, generator=torch.Generator().manual_seed(1))
    for after, size in (
        (part(r.clip_small_pixels(0.25)).after, (U**2).sum(1)),
        (part(r.clip_small_contributions(0.25)).after, (U * gradient).sum(1).abs()),
    ):
        kept = after(U, gradient, 0)
        for k in range(2):
            gone = (kept[k] == 0).all(0)
            assert gone.sum() == round(0.25 * 99)
            assert size[k][gone].max() < size[k][~gone].min()
            assert torch.equal(kept[k][:, ~gone], U[k][:, ~gone])


def shown(motion: r.Regularizer, p: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    from askwhy.overall.ascent import Search

    search = Search(None, [], None, motion, [seed], np.zeros(1))  # type: ignore[arg-type]
    where = part(motion).motion(torch.Generator().manual_seed(seed), p.shape[2:])
    return search.moved(p, [torch.Generator().manual_seed(seed)]), where.numpy()


@pytest.mark.parametrize("motion", [r.jitter(3), r.rotate(20), r.scale(0.8, 1.2), r.crops(0.4, 0.8)])
@pytest.mark.parametrize(("height", "width"), [(24, 24), (16, 36)])
def test_motion_is_the_affine_map_that_scipy_makes_of_it(motion, height, width):
    p = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(1))
    got, where = shown(motion, p, seed=5)
    from_middle = np.array([[0, 1, (1 - width) / 2], [1, 0, (1 - height) / 2], [0, 0, 1]])  # of [row, column]: [x, y]
    pixels = np.linalg.inv(from_middle) @ where @ from_middle
    slow = ndimage.affine_transform(p[0, 0].numpy(), pixels[:2, :2], pixels[:2, 2], order=1, mode="constant", cval=np.nan)
    known = np.isfinite(slow)
    assert known.mean() > 0.5
    assert np.allclose(got[0, 0].numpy()[known], slow[known], atol=1e-4)
    assert not torch.allclose(got, p, atol=0.05)


def test_motion_keeps_the_form_of_a_wide_picture():
    chance, sides = torch.Generator().manual_seed(0), (16, 36)
    for _ in range(20):
        turn = part(r.rotate(90)).motion(chance, sides)[:2, :2]
        assert torch.allclose(turn @ turn.T, torch.eye(2), atol=1e-6)
        assert part(r.jitter(3)).motion(chance, sides)[:2, 2].abs().max() <= 3
        cut = part(r.crops(0.5, 0.5)).motion(chance, sides)
        corners = (cut @ torch.tensor([[-18.0, 18, -18, 18], [-8, -8, 8, 8], [1, 1, 1, 1]]))[:2]
        assert (corners.abs() <= torch.tensor([[18.0], [8.0]]) + 1e-4).all()
        assert torch.allclose(cut[:2, :2], torch.eye(2) / 2)


# ---- the way back ---------------------------------------------------------------------------------------------------

POOLS = [(3, 2, 0, False), (3, 2, 0, True), (2, 2, 1, False), (3, 1, 1, False), (2, 3, 0, True)]


@pytest.mark.parametrize(("size", "stride", "padding", "ceil"), POOLS)
@pytest.mark.parametrize("call", ["module", "functional", "torch", "keywords"])
@pytest.mark.parametrize(("dtype", "off"), [(torch.float16, 1e-2), (torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_smooth_pooling_deals_a_windows_gradient_out(size, stride, padding, ceil, call, dtype, off):
    pool = {
        "module": nn.MaxPool2d(size, stride, padding, ceil_mode=ceil),
        "functional": lambda x: nn.functional.max_pool2d(x, size, stride, padding, 1, ceil),
        "torch": lambda x: torch.max_pool2d(x, (size, size), (stride, stride), padding, 1, ceil),
        "keywords": lambda x: nn.functional.max_pool2d(input=x, kernel_size=size, stride=stride, padding=padding, ceil_mode=ceil),
    }[call]
    chance = torch.Generator().manual_seed(size)
    x = torch.randn(2, 3, 8, 11, generator=chance, dtype=dtype)
    x[0, 0] = -1  # in windows where all is off the gradient is spread evenly
    x.requires_grad_()
    record = Record()
    with rules(nn.Identity(), r.smooth_pooling().parts[0].back(record), record=record, strict=False):
        out = pool(x)
    assert torch.equal(out, nn.MaxPool2d(size, stride, padding, ceil_mode=ceil)(x)), "the scores are the model's own"
    g = torch.randn(out.shape, generator=chance, dtype=dtype)
    (found,) = torch.autograd.grad(out, x, g)
    slow = [
        [oracle.mean_square_pooling(x[n, c].detach().double().numpy(), g[n, c].double().numpy(), size, stride, padding) for c in range(3)]
        for n in range(2)
    ]
    assert found.dtype == dtype
    assert np.allclose(found, slow, atol=off)


def test_windows_with_gaps_or_places_keep_their_gradient():
    x = torch.rand(1, 2, 9, 9, requires_grad=True)
    for pool in (lambda x: nn.functional.max_pool2d(x, 3, dilation=2), lambda x: nn.functional.max_pool2d(x, 3, return_indices=True)[0]):
        record = Record()
        with rules(nn.Identity(), r.smooth_pooling().parts[0].back(record), record=record, strict=False):
            out = pool(x)
        assert torch.equal(*(torch.autograd.grad(one.sum(), x)[0] for one in (out, pool(x))))


class Pooled(nn.Module):
    """A score behind max pooling that is called as a function, and a part that can be asked about."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.max_pool2d(self.conv(x).relu(), 2).mean((2, 3)))


@pytest.mark.parametrize("target", [1, aw.neuron("head", 1)])
@pytest.mark.parametrize("balance", [False, True])
def test_a_smooth_way_back_is_climbed(target, balance):
    """One step of plain ascent beside the gradient through a pooling that is the root of the mean square."""
    made = Pooled().eval()
    options = {"preset": "naive", "score": "raw", "shape": (3, 8, 8), "bounds": (0, 1), "rate": 0.01, "balance": balance}
    first, second = (aw.activation_maximization(made, target, regularizer=r.smooth_pooling(), steps=steps, **options) for steps in (1, 2))
    x = torch.from_numpy(first.values).requires_grad_()
    on = made.conv(x).relu() + 1e-6
    score = made.head(nn.functional.avg_pool2d(on.square(), 2).sqrt().mean((2, 3)))[0, 1]
    (slope,) = torch.autograd.grad(score, x)
    step = (x + 0.01 * slope / slope.abs().mean()).clamp(0, 1).detach()
    expected = step if not balance else (x.detach() + 2 * step) / 3
    assert np.allclose(second.values, expected, atol=1e-5)
    plain = aw.activation_maximization(made, target, steps=2, **options).values
    assert np.abs(second.values - plain).max() > 1e-3, "the way back does something"


def test_where_no_way_back_can_be_changed_it_is_told():
    options = {"regularizer": r.smooth_pooling(), "shape": (3, 8, 8), "bounds": (0, 1), "steps": 3}
    scripted = torch.jit.trace(Pooled().eval(), torch.rand(1, 3, 8, 8))
    found = aw.activation_maximization(scripted, 1, **options)
    assert "smooth_pooling() has no effect" in found.summary()
    assert "torch.jit" in found.summary()
    assert "no effect" not in aw.activation_maximization(Pooled().eval(), 1, **options).summary()


def test_regularizers_add_up_and_say_what_they_are():
    both = r.l1(2) + r.jitter(4) + r.none
    assert repr(both) == "l1(2) + jitter(4)"
    assert repr(r.none) == "none"
    assert len(both.parts) == 2
    with pytest.raises(TypeError):
        both + 3
    for wrong in (lambda: r.l1(-1), lambda: r.crops(0.5, 2), lambda: r.rotate(True), lambda: r.scale(2, 1), lambda: r.blur(0)):
        with pytest.raises(InputError, match="give a number"):
            wrong()


def test_a_regularizer_that_outweighs_the_score_is_told():
    found = aw.activation_maximization(line(), 0, preset="naive", regularizer=r.l1(1e4), **GREY)
    assert found.score[0] < found.start[0] + 1
    if found.score[0] < found.start[0]:
        assert "outweighs" in found.summary()
    assert "outweighs" not in aw.activation_maximization(line(), 0, preset="naive", rate=1.0, **GREY).summary()


def test_balanced_penalties_suit_scores_of_any_scale(net):
    def sought(times: float, balance: bool) -> np.ndarray:
        options = {"preset": "naive", "regularizer": r.total_variation(0.2), "shape": (3, 16, 16), "bounds": (-1, 1), "steps": 40}
        return aw.activation_maximization(net, times * aw.aim(lambda out: out[:, 1]), balance=balance, **options).values

    assert np.allclose(sought(100.0, True), sought(1.0, True), atol=1e-3)
    assert np.abs(sought(100.0, False) - sought(1.0, False)).max() > 0.1


def test_alike_is_the_cosine_of_gram_matrices_within_a_group():
    out = torch.randn(5, 4, 3, 2, generator=torch.Generator().manual_seed(0))
    groups = np.array([0, 0, 0, 1, 2])
    planes = out.flatten(2).numpy()
    gram = np.einsum("ncp,ndp->ncd", planes, planes).reshape(5, -1)
    cosine = gram @ gram.T / np.outer(np.linalg.norm(gram, axis=1), np.linalg.norm(gram, axis=1))
    slow = [np.mean([cosine[k, j] for j in range(3) if j != k]) if k < 3 else 0.0 for k in range(5)]
    assert np.allclose(r.alike(out, groups), slow, atol=1e-5)


def test_batch_norm_measures_how_far_means_and_spreads_are(net):
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    within = part(r.batch_norm(3.0)).within(TorchModel(net), x)
    norm = net[1]
    out = norm(net[0](x)).detach().numpy()
    beta, gamma = norm.bias.detach().numpy(), norm.weight.detach().numpy()
    slow = [3 * np.mean((one.mean((1, 2)) - beta) ** 2 + (one.std((1, 2)) - np.abs(gamma)) ** 2) / np.mean(gamma**2) for one in out]
    assert within.layers == ("1",)
    assert np.allclose(within.penalty({"1": torch.from_numpy(out)}, None).detach(), slow, rtol=1e-4)
    options = {"preset": "lucid", "parameters": "pixels", "shape": (3, 16, 16), "bounds": (-3, 3), "steps": 100, "rate": 0.02}
    free, held = (aw.activation_maximization(net, 1, regularizer=one, **options) for one in (r.none, r.batch_norm(30.0)))
    off = [within.penalty({"1": norm(net[0](torch.from_numpy(found.values)))}, None).item() for found in (free, held)]
    assert off[1] < 0.5 * off[0]
    assert held.score[0] == pytest.approx(net(torch.from_numpy(held.values))[0, 1].item(), abs=1e-4), "the score has no penalty in it"
    with pytest.raises(LayerError, match="no batch norm"):
        aw.activation_maximization(line(), 0, regularizer=r.batch_norm(1), **GREY)


def test_the_log_probability_is_climbed_and_the_score_is_the_models_own(net):
    options = {"preset": "naive", "shape": (3, 16, 16), "bounds": (-1, 1), "steps": 30}
    found = aw.activation_maximization(net, 2, score="log_probability", **options)
    x = torch.from_numpy(found.values)
    assert found.trace.max() == pytest.approx(net(x).log_softmax(1)[0, 2].item(), abs=1e-4)
    assert found.score[0] == pytest.approx(net(x)[0, 2].item(), abs=1e-4)
    sure = aw.activation_maximization(aw.wrap(net, output="probabilities"), 2, score="log_probability", **options)
    assert np.allclose(sure.trace, found.trace, atol=1e-4)


def test_what_comes_later_does_not_write_into_a_layer():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 2)).eval()
    found = aw.activation_maximization(net, aw.aim(aw.neuron("0", 1)) + 0.0 * aw.aim(0), versus=None, preset="naive", rate=1.0, **GREY)
    down = aw.activation_maximization(net, -1.0 * aw.aim(aw.neuron("0", 1)) + 0.0 * aw.aim(0), preset="naive", rate=1.0, **GREY)
    for one, sign in ((found, 1), (down, -1)):
        mean = net[0](torch.from_numpy(one.values))[0, 1].mean().item()
        assert one.score[0] == pytest.approx(sign * mean, abs=1e-5)
    assert down.score[0] > -net[0].bias[1].item(), "below zero, too, where the rectifier lets nothing pass"


def test_diversity_drives_copies_apart(net):
    def apart(weight: float) -> float:
        regularizer = r.diversity(weight, "4") if weight else r.none
        found = aw.activation_maximization(net, 1, preset="naive", regularizer=regularizer, copies=3, steps=60, shape=(3, 16, 16), bounds=(-1, 1))
        planes = net[:5](torch.from_numpy(found.values)).flatten(2)
        gram = nn.functional.normalize((planes @ planes.transpose(1, 2)).flatten(1), dim=1)
        return float((gram @ gram.T).detach()[~torch.eye(3, dtype=bool)].mean())

    assert apart(20.0) < apart(0.0) - 0.02
    with pytest.raises(InputError, match="copies=4"):
        aw.activation_maximization(net, 1, regularizer=r.diversity(1), shape=(3, 16, 16), bounds=(0, 1))


# ---- what a picture is to a model -----------------------------------------------------------------------------------


def bgr(photo: Image.Image) -> torch.Tensor:
    pixels = np.asarray(photo.resize((12, 10)), np.float32)[:, :, ::-1]
    return torch.from_numpy(pixels - np.float32([104, 117, 124])).permute(2, 0, 1)


def test_the_way_from_pictures_to_inputs_is_the_transforms():
    model = aw.wrap(nn.Conv2d(3, 2, 3).eval(), transform=bgr)
    own = canvas_of(model, None, None, None)
    assert own.shape == (3, 10, 12)
    assert own.order == (2, 1, 0)
    seen = np.random.default_rng(0).integers(0, 256, (2, 10, 12, 3), np.uint8)
    x = own.inputs(own.pictures(seen))
    for k in range(2):
        assert torch.allclose(x[k], bgr(Image.fromarray(seen[k])), atol=1e-3)
    assert np.array_equal(own.seen(own.pictures(seen)), seen)
    assert torch.allclose(own.inputs(own.zero[None]), torch.zeros(1), atol=1e-4)


def test_channels_last_and_grey():
    def last(photo: Image.Image) -> np.ndarray:
        return np.asarray(photo.resize((12, 10)), np.float32) / 127.5 - 1

    def grey(photo: Image.Image) -> np.ndarray:
        return np.asarray(photo.convert("L").resize((8, 8)), np.float32)[None] / 255

    own = canvas_of(aw.wrap(nn.Flatten(), transform=last), None, None, None)
    assert own.last
    seen = np.random.default_rng(0).integers(0, 256, (1, 10, 12, 3), np.uint8)
    assert np.allclose(own.inputs(own.pictures(seen))[0], last(Image.fromarray(seen[0])), atol=1e-4)
    assert canvas_of(aw.wrap(nn.Flatten(), transform=grey), None, None, None).shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("transform", "why"),
    [
        (lambda photo: np.asarray(photo.resize((8, 8)), np.float32).transpose(2, 0, 1) ** 2, "more to a photo"),
        (lambda photo: np.asarray(photo.resize((8, 8)).convert("HSV"), np.float32).transpose(2, 0, 1), "give shape="),
        (lambda photo: np.zeros(5), "no picture"),
    ],
)
def test_a_transform_without_a_way_back_is_refused(transform, why):
    with pytest.raises(InputError, match=why):
        aw.activation_maximization(aw.wrap(nn.Flatten(), transform=transform), 0)


def test_real_images_tell_shape_and_bounds(net):
    images = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 3 - 1
    found = aw.activation_maximization(net, 0, preset="naive", steps=30, images=images)
    low, high = images.amin((0, 2, 3)).numpy(), images.amax((0, 2, 3)).numpy()
    assert (found.values.min((0, 2, 3)) >= low - 1e-5).all()
    assert (found.values.max((0, 2, 3)) <= high + 1e-5).all()
    assert found.natural.shape[1] == 1
    assert found.details["images"] == 24
    found.plot(how="nearest")
    assert found.nearest_pictures.shape == (1, 3, 16, 16, 3)


# ---- generators -----------------------------------------------------------------------------------------------------


def test_a_generator_is_searched_in_its_own_space():
    net = line()
    mix = torch.randn(36, 4, generator=torch.Generator().manual_seed(1))
    found = aw.activation_maximization(
        net, [0, 1], generator=lambda z: (z @ mix.T).reshape(-1, 1, 6, 6), size=4, prior=2.0, steps=800, rate=0.05, score="raw"
    )
    best = (net.weight.detach() @ mix)[:2] / 2  # argmax of w . M z - |z|^2
    assert np.allclose(found.latent, best, atol=0.02)
    assert np.allclose(found.values.reshape(2, -1), best @ mix.T, atol=0.1)
    assert found.method == "generator"
    assert np.isnan(found.shown_score).all()


def test_a_generator_of_pictures_goes_through_the_models_scaling(net):
    class Grey:
        latent, of_pictures = 2, True

        def __call__(self, z: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(z).mean(1)[:, None, None, None].expand(-1, 3, 10, 12)

    model = aw.wrap(nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval(), transform=bgr)
    found = aw.activation_maximization(model, 1, generator=Grey(), steps=5)
    grey = torch.sigmoid(torch.from_numpy(found.latent)).mean().item()
    assert np.allclose(found.values[0][:, 0, 0], 255 * grey - np.float32([104, 117, 124]), atol=1e-3)
    assert abs(int(found.pictures[0, 0, 0, 0]) - round(255 * grey)) <= 1
    assert found.shown_score[0] == pytest.approx(found.score[0], abs=1.0)


def test_what_is_no_generator_is_refused():
    for given, why in (({"generator": 3}, "function z"), ({"generator": lambda z: z}, "size="), ({"size": 3}, "leave it out")):
        with pytest.raises(InputError, match=why):
            aw.activation_maximization(line(), 0, **GREY, **given)
    with pytest.raises(InputError, match="prior=-1"):
        aw.activation_maximization(line(), 0, generator=lambda z: z, size=3, prior=-1)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"preset": "robust"}, "preset='robust'"), ({"shape": (1, 6, 6)}, "shape="), ({"bounds": (0, 1)}, "bounds="),
        ({"generator": None, "size": None, "prior": 0.1, **GREY}, "prior=0.1"), ({"layers": ["0"]}, "give images="),
    ],
)  # fmt: skip
def test_what_would_have_no_effect_is_refused(given, why):
    with pytest.raises(InputError, match=why):
        aw.activation_maximization(line(), 0, **{"generator": lambda z: z.reshape(-1, 1, 6, 6), "size": 36, **given})


def test_a_generator_of_pictures_needs_bounds_alone():
    class Grey:
        latent, of_pictures, shape = 36, True, (1, 6, 6)

        def __call__(self, z: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(z).reshape(-1, 1, 6, 6)

    found = aw.activation_maximization(line(), 0, generator=Grey(), bounds=(-2, 4), steps=3)
    assert np.allclose(found.values, 6 / (1 + np.exp(-found.latent.reshape(-1, 1, 6, 6))) - 2, atol=1e-5)
    assert "8-bit" in found.summary()


def test_a_picture_of_unknown_scale_is_not_said_to_have_an_8_bit_score():
    found = aw.activation_maximization(line(), 0, generator=lambda z: z.reshape(-1, 1, 6, 6), size=36, steps=3)
    assert "nan" not in found.summary()


def test_a_target_without_a_gradient_is_refused():
    with pytest.raises(ModelError, match="no gradient with respect"):
        aw.activation_maximization(line(), lambda out: out.detach()[:, 0], **GREY)


# ---- judges and real images ------------------------------------------------------------------------------------------


def test_the_judge_is_asked_by_label_about_the_picture():
    net, other = line(), line(1)
    model, judge = aw.wrap(net, labels=["a", "b", "c"]), aw.wrap(Linear(other.weight[[2, 0, 1]]).eval(), labels=["c", "a", "b"])
    found = aw.activation_maximization(model, ["b", "c"], preset="naive", judge=judge, **GREY)
    share = torch.softmax(judge.net(torch.from_numpy(found.values)), 1).detach().numpy()
    for k, own in enumerate((2, 0)):
        assert found.judge_probability[k] == pytest.approx(share[k, own], abs=1e-5)
        assert found.judge_rank[k] == 1 + (share[k] > share[k, own]).sum()
        assert found.judge_top[k][0] == judge.labels[share[k].argmax()]
    with pytest.raises(TargetError, match="no class 'b'"):
        aw.activation_maximization(model, "b", preset="naive", steps=1, judge=aw.wrap(other, labels=["x", "y", "z"]), **GREY)


def test_real_images_are_natural_and_noise_is_not():
    rng = np.random.default_rng(0)
    reals = rng.normal(size=(99, 4)) @ rng.normal(size=(4, 12))
    many = rng.normal(size=(500, 4)) @ rng.normal(size=(4, 12))
    same_kind = shares(many[:250], many[250:])
    assert 0.45 < same_kind.mean() < 0.55, "shares of images of the same kind are spread evenly"
    assert (shares(reals, 5 + 10 * rng.normal(size=(6, 12))) == 1 / 100).all()


def test_too_few_images_are_refused(net):
    with pytest.raises(InputError, match="holds 5 images"):
        aw.activation_maximization(net, 0, steps=1, images=torch.rand(5, 3, 16, 16))


# ---- the search ------------------------------------------------------------------------------------------------------


def test_a_portrait_in_a_batch_is_the_portrait_alone(net):
    options = {"preset": "lucid", "steps": 20, "shape": (3, 16, 16), "bounds": (-1, 1), "seed": 3}
    batch = aw.activation_maximization(net, [0, 3, 1], **options)
    assert np.allclose(aw.activation_maximization(net, 3, **options).values, batch[1].values, atol=1e-3)
    assert np.allclose(aw.activation_maximization(net, [0, 3, 1], batch_size=2, **options).values, batch.values, atol=1e-3)
    again = aw.activation_maximization(net, [0, 3, 1], **options)
    assert np.array_equal(again.values, batch.values)
    assert not np.allclose(aw.activation_maximization(net, 3, **options | {"seed": 4}).values, batch[1].values, atol=0.1)


def test_an_interrupt_keeps_the_best_so_far(net):
    options = {"preset": "naive", "score": "raw", "shape": (3, 16, 16), "bounds": (-1, 1)}

    def interrupt(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    for stop in (interrupt, lambda done, total: done < 7):
        found = aw.activation_maximization(net, 2, steps=50, progress=stop, **options)
        assert found.trace.shape == (7, 1)
        assert found.details["stopped"]
        assert "stopped after 7 of 50" in found.summary()
        assert found.score[0] == pytest.approx(found.trace.max(), abs=1e-4)
        assert np.allclose(found.trace, aw.activation_maximization(net, 2, steps=7, **options).trace, atol=1e-4)


def test_the_best_step_is_kept_where_a_rate_is_too_large(net):
    found = aw.activation_maximization(net, 2, preset="naive", score="raw", steps=40, rate=3.0, shape=(3, 16, 16), bounds=(-1, 1))
    assert found.score[0] == pytest.approx(found.trace.max(), abs=1e-3)


def test_memory_that_runs_out_halves_the_batch(net):
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 2:
                raise MemoryError
            return self.net(x)

    options = {"preset": "naive", "steps": 12, "shape": (3, 16, 16), "bounds": (-1, 1)}
    found = aw.activation_maximization(Small().eval(), [0, 1, 2, 3, 0], **options)
    assert len(found) == 5
    assert np.allclose(found.values, aw.activation_maximization(net, [0, 1, 2, 3, 0], **options).values, atol=1e-3)


def test_the_model_is_left_as_it_was(net):
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.random.get_rng_state()
    aw.activation_maximization(net, [0, aw.neuron("4", 1)], steps=5, shape=(3, 16, 16), bounds=(-1, 1))
    with pytest.raises(ModelError):
        aw.activation_maximization(net, lambda out: out[:, 0] * float("nan"), steps=5, shape=(3, 16, 16), bounds=(-1, 1))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.requires_grad and bool((p.grad == 1).all()) for p in net.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(m._forward_hooks for m in net.modules())


def test_a_portrait_is_saved_cut_and_shown(net, tmp_path):
    model = aw.wrap(net, labels=["a", "b", "猫", "d"])
    images = torch.rand(30, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = aw.activation_maximization(model, ["猫", "a"], steps=5, judge=model, images=images)
    assert aw.Portrait.load(found.save(tmp_path / "p.npz")) == found
    assert found[1].target == ("a",)
    assert found[1].natural.shape == (len(found.natural_layers), 1)
    assert found[:2] == found
    assert list(found)[1] == found[1]
    for how in ("pictures", "nearest", "trace"):
        found.plot(how=how).figure.savefig(tmp_path / "p.png")
    said = found.summary()
    assert "猫: from" in said
    assert "rank" in said
    assert "real images" in said
    assert "no other model" in aw.activation_maximization(net, 0, steps=1, shape=(3, 16, 16), bounds=(0, 1)).summary()


@pytest.mark.parametrize(
    ("change", "error", "why"),
    [
        ({"target": "lynx"}, TargetError, "no labels"),
        ({"target": None}, TargetError, "target= is missing"),
        ({"target": []}, TargetError, "target= is missing"),
        ({"target": aw.neuron("nowhere", 1)}, LayerError, "no such layer"),
        ({"target": aw.neuron("4", 99)}, TargetError, "99"),
        ({"target": 99}, TargetError, "99"),
        ({"preset": "lucent"}, InputError, "lucid"),
        ({"parameters": "wavelets"}, InputError, "'fourier'"),
        ({"regularizer": "l1"}, InputError, "askwhy.regularizers"),
        ({"preset": "lucid", "regularizer": r.blur(1)}, InputError, "parameters='pixels'"),
        ({"steps": 0}, InputError, "steps=0"),
        ({"rate": -1}, InputError, "rate=-1"),
        ({"copies": 1.5}, InputError, "copies=1.5"),
        ({"seed": -1}, InputError, "seed=-1"),
        ({"shape": None}, InputError, "shape= is missing"),
        ({"bounds": None}, InputError, "bounds= is missing"),
        ({"bounds": (1, 1)}, InputError, "differ"),
        ({"shape": (4, 5)}, InputError, r"shape=\(4, 5\)"),
        ({"batch_size": 0}, InputError, "batch_size=0"),
        ({"shape": (1, 16, 16)}, ModelError, "the model failed"),
    ],
)
def test_what_cannot_be_asked_is_refused(net, change, error, why):
    given = {"target": 0, "steps": 3, "shape": (3, 16, 16), "bounds": (0, 1), **change}
    with pytest.raises(error, match=why):
        aw.activation_maximization(net, given.pop("target"), **given)


def test_a_zero_gradient_is_refused():
    dead = nn.Sequential(nn.Flatten(), nn.Linear(36, 2), nn.ReLU()).eval()
    nn.init.constant_(dead[1].bias, -1e4)
    with pytest.raises(ModelError, match="no gradient with respect"):
        aw.activation_maximization(dead, 0, **GREY)


def test_one_dead_unit_among_others_is_told():
    half = nn.Sequential(nn.Flatten(), nn.Linear(36, 2), nn.ReLU()).eval()
    with torch.no_grad():
        half[1].bias.copy_(torch.tensor([-1e4, 10.0]))
    found = aw.activation_maximization(half, [0, 1], preset="naive", steps=5, **GREY)
    assert found.details["flat"] == ["class 0"]
    assert "no gradient wherever" in found.summary()
    assert found.score[1] > found.start[1]


def test_a_neuron_that_is_off_for_grey_is_begun_with_louder_noise():
    edge = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with torch.no_grad():
        edge[0].bias.copy_(torch.tensor([-1.0, 1.0]))  # class 0 wants contrast
        edge[0].weight[0] = torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(0))
        edge[0].weight[0] -= edge[0].weight[0].mean()
    options = {"shape": (3, 24, 24), "bounds": (0, 1), "preset": "lucid", "steps": 20}
    found = aw.activation_maximization(edge, [0, 1], **options)
    assert found.details["flat"] == []
    assert found.score[0] > found.start[0] > 0
    assert np.allclose(found[1].values, aw.activation_maximization(edge, 1, **options).values, atol=1e-3), "the other one begins as it does alone"


def test_a_model_without_layers_is_refused():
    with pytest.raises(aw.errors.UnsupportedError, match="torch module"):
        aw.activation_maximization(lambda x: x.mean((1, 2, 3)), 0)


def test_names_of_aims(net):
    model = aw.wrap(net, labels=list("abcd"))
    (found,) = aims_of(model, [2 * aw.aim("a") + aw.neuron("4", 1) - aw.aim("b")], None)
    assert named(model, found) == "2 a + neuron 1 of layer '4' - b"


# ---- penalties on what layers give ------------------------------------------------------------------------------------


def trained_norm(times: float = 1.0) -> nn.Sequential:
    """A network whose batch norm has seen grey pictures; its scores may be so many times as large."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).train()
    with torch.no_grad():
        for _ in range(20):
            made(0.5 + 0.1 * torch.randn(16, 3, 16, 16))
        made[5].weight *= times
        made[5].bias *= times
    return made.eval()


def test_the_best_step_is_that_of_the_score_less_the_penalties_within():
    made, held = trained_norm(), r.batch_norm(100.0)
    options = {"preset": "yosinski", "score": "raw", "shape": (3, 16, 16), "bounds": (0, 1), "steps": 60, "rate": 0.02}
    penalty = part(held).within(TorchModel(made), torch.rand(1, 3, 16, 16)).penalty

    def worth(found: aw.Portrait) -> float:
        return float(found.score[0] - penalty({"1": made[:2](torch.from_numpy(found.values))}, None).detach())

    for k in range(2):
        best, last = (aw.activation_maximization(made, -aw.aim(k), regularizer=held + more, **options) for more in (r.none, r.noise(1e-9)))
        assert worth(best) >= worth(last) - 1e-3, "noise in a regularizer means that the last step is kept"


@pytest.mark.parametrize("change", [{"regularizer": r.noise(1e-3)}, {"regularizer": r.jitter(1)}, {"balance": True}])
@pytest.mark.parametrize("steps", [1, 20, 90])
def test_steps_that_cannot_be_compared_are_averaged_and_the_last_count_most(monkeypatch, change, steps):
    seen: list[np.ndarray] = []
    penalty = Search.penalty
    monkeypatch.setattr(Search, "penalty", lambda self, p: seen.append(to_numpy(p).copy()) or penalty(self, p))
    options = {"preset": "naive", "score": "raw", "shape": (3, 16, 16), "bounds": (0, 1)}
    found = aw.activation_maximization(trained_norm(), 0, steps=steps, **options, **change)
    weights = np.zeros(steps)
    for k in range(steps):  # each picture takes its share of the mean, and those before it share the rest
        share = max(2 / (k + 2), 0.03)
        weights *= 1 - share
        weights[k] = share
    assert weights.sum() == pytest.approx(1)
    assert np.allclose(found.values, np.tensordot(weights, np.array(seen), 1), atol=1e-5)


@pytest.mark.parametrize("balance", [False, True])
@pytest.mark.parametrize("held", [r.none, r.batch_norm(0.5)])
def test_the_mean_slope_of_several_views_is_climbed(balance, held):
    """One step of plain ascent on a linear picture, beside slopes that are taken by hand under the same noise."""
    made, views = trained_norm(), 5
    options = {"preset": "naive", "score": "raw", "shape": (3, 16, 16), "bounds": (0, 1), "rate": 0.05, "balance": balance}
    runs = [aw.activation_maximization(made, 0, regularizer=held + r.noise(0.3), views=views, steps=steps, **options) for steps in (1, 2)]
    first = torch.from_numpy(runs[0].values).requires_grad_()
    chance = torch.Generator().manual_seed(2**32)
    gains, penalties = [], []
    for _ in range(views):
        x = first + 0.3 * torch.randn(3, 16, 16, generator=chance)
        gains.append(made(x)[:, 0])
        if held.parts:
            penalties.append(part(held).within(TorchModel(made), x).penalty({"1": made[:2](x)}, None))
    (up,) = torch.autograd.grad(sum(gains).sum() / views, first)
    if penalties:
        (down,) = torch.autograd.grad(sum(penalties).sum() / views, first)
        up = up - down * (up.abs().sum() if balance else 1)
    second = (first + 0.05 * up / up.abs().mean()).clamp(0, 1).detach()
    share = 2 / 3  # of the second step in the mean of both
    assert np.allclose(runs[1].values, (1 - share) * runs[0].values + share * second.numpy(), atol=1e-5)
    assert runs[1].trace[0] == pytest.approx(sum(gains).item() / views, rel=1e-4)
    assert runs[1].model_calls == 2 * views
    assert runs[1].params["views"] == views


def test_views_are_for_what_looks_different_each_time():
    options = {"shape": (3, 16, 16), "bounds": (0, 1), "steps": 2}
    with pytest.raises(InputError, match="views=3: without noise or motion all are alike"):
        aw.activation_maximization(trained_norm(), 0, preset="yosinski", views=3, **options)
    with pytest.raises(InputError, match="views=0: give a whole number from 1 on"):
        aw.activation_maximization(trained_norm(), 0, views=0, **options)
    assert aw.activation_maximization(trained_norm(), 0, regularizer=r.l2(1.0), **options).model_calls == 2, "the preset's views have nothing to do"


@pytest.mark.parametrize("held", [r.batch_norm(1.0), r.diversity(1.0)])
def test_balance_is_for_penalties_within_too(held):
    options = {"preset": "naive", "score": "raw", "regularizer": held, "copies": 2, "shape": (3, 16, 16), "bounds": (0, 1), "steps": 40}
    one, other = (aw.activation_maximization(trained_norm(times), 0, balance=True, **options).values for times in (1.0, 1024.0))
    assert np.allclose(one, other, atol=1e-3)
    free = aw.activation_maximization(trained_norm(), 0, **options | {"regularizer": r.none}).values
    assert np.abs(one - free).max() > 0.01, "the penalty does something"


class Auxiliary(nn.Module):
    """One norm runs once, one twice, and one never."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.once, self.twice, self.never = nn.Conv2d(3, 4, 3), *(nn.BatchNorm2d(4) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.twice(self.twice(self.once(self.conv(x)))).mean((2, 3))


def test_norms_that_do_not_run_once_are_left_out():
    two = Auxiliary().eval()
    x = torch.rand(1, 3, 8, 8)
    assert part(r.batch_norm(1.0)).within(TorchModel(two), x).layers == ("once",)
    assert aw.activation_maximization(two, 0, regularizer=r.batch_norm(1.0), shape=(3, 8, 8), bounds=(0, 1), steps=3).score.shape == (1,)
    two.once = nn.Identity().eval()
    with pytest.raises(LayerError, match="no batch norm"):
        aw.activation_maximization(two, 0, regularizer=r.batch_norm(1.0), shape=(3, 8, 8), bounds=(0, 1), steps=3)


# ---- what is told before the search, and what an interrupt leaves -------------------------------------------------------


def flat_judge(numbers: int, classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(numbers, classes)).eval()


@pytest.mark.parametrize(
    ("given", "error", "why"),
    [
        ({"judge": aw.wrap(flat_judge(768, 2), labels=["lynx", "wolf"])}, TargetError, "no class 'a'"),
        ({"judge": flat_judge(768, 1)}, InputError, "several classes"),
        ({"judge": flat_judge(100, 4)}, ModelError, "failed"),
        ({"judge": "squeezenet"}, aw.errors.AskwhyError, "squeezenet"),
        ({"images": torch.rand(3, 3, 16, 16)}, InputError, "holds 3 images"),
        ({"images": torch.rand(30, 1, 16, 16)}, aw.errors.AskwhyError, "failed"),
        ({"images": torch.rand(30, 3, 16, 16), "layers": ["nowhere"]}, LayerError, "no such layer"),
    ],
    ids=["label", "one number", "size", "name", "few images", "channels", "layer"],
)  # fmt: skip
def test_mistakes_are_told_before_the_search(net, given, error, why):
    steps: list[int] = []
    options = {"steps": 5, "shape": (3, 16, 16), "bounds": (0, 1), "progress": lambda done, total: steps.append(done)}
    with pytest.raises(error, match=why):
        aw.activation_maximization(aw.wrap(net, labels=list("abcd")), "a", **options, **given)
    assert not steps


class Widths(nn.Module):
    """Takes pictures of any size; one layer is as wide as the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.flat, self.head = nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv(x)
        return self.head(out.mean((2, 3))) + 0 * self.flat(out).sum(1, keepdim=True)


def test_images_that_are_wider_in_a_layer_are_refused():
    with pytest.raises(InputError, match="400 numbers in layer 'flat', and a portrait 784"):
        aw.activation_maximization(
            Widths().eval(), 0, steps=5, shape=(3, 16, 16), bounds=(0, 1), images=torch.rand(30, 3, 12, 12), layers=["conv", "flat"]
        )


def test_a_judge_without_memory_is_asked_about_fewer():
    class Small(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 1:
                raise MemoryError
            return x.flatten(1)[:, :3]

    found = aw.activation_maximization(line(), [0, 1, 2], preset="naive", steps=3, judge=Small().eval(), **GREY)
    share = torch.softmax(torch.from_numpy(found.values).flatten(1)[:, :3], 1).numpy()
    assert np.allclose(found.judge_probability, np.diag(share), atol=1e-6)


def dead_third() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    with torch.no_grad():
        made[0].weight[2], made[0].bias[2] = 0, -1
    return made


def test_a_dead_unit_alone_in_its_group_is_told_as_one_among_others():
    targets, options = [aw.neuron("1", k) for k in range(4)], {"shape": (3, 8, 8), "bounds": (0, 1), "steps": 4}
    whole = aw.activation_maximization(dead_third(), targets, **options)
    assert whole.details["flat"] == ["neuron 2 of layer '1'"]
    for size in (1, 2, 3):
        found = aw.activation_maximization(dead_third(), targets, batch_size=size, **options)
        assert found.details["flat"] == whole.details["flat"]
        assert np.allclose(found.score, whole.score, atol=1e-4)
    for size in (1, 2):
        with pytest.raises(ModelError, match="gradient"):
            aw.activation_maximization(dead_third(), [targets[2], targets[2]], batch_size=size, **options)
    part_of = aw.activation_maximization(line(), [0, lambda out: out.detach()[:, 1]], batch_size=1, steps=3, **GREY)
    assert len(part_of.details["flat"]) == 1


class Interrupted(nn.Module):
    """Ctrl-C in pass number `when`."""

    def __init__(self, when: int | None) -> None:
        super().__init__()
        self.conv, self.when, self.calls = nn.Conv2d(3, 4, 3), when, [0]
        nn.init.constant_(self.conv.weight, 0.1)
        self.register_forward_hook(lambda *_: None)  # no twin, so that passes can be counted

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls[0] += 1
        if self.calls[0] == self.when:
            raise KeyboardInterrupt
        return self.conv(x).relu().mean((2, 3))


@pytest.mark.parametrize(
    ("after", "targets", "steps", "said"),
    [
        (1, ("class 0",), [20], "stopped before class 1, class 2"),  # the second group begins
        (8, ("class 0", "class 1"), [20, 6], "stopped after 6 of 20 steps: the best pictures so far of class 1"),
        (-1, ("class 0",), [20], "stopped before class 1, class 2"),  # while the first one is rated
    ],
)
def test_an_interrupt_in_a_later_group_keeps_what_is_there(after, targets, steps, said):
    options = {"shape": (3, 8, 8), "bounds": (0, 1), "steps": 20, "views": 1, "batch_size": 1}
    whole = Interrupted(None).eval()
    aw.activation_maximization(whole, [0], **options)
    found = aw.activation_maximization(Interrupted(whole.calls[0] + after).eval(), [0, 1, 2], **options)
    assert found.target == targets
    assert np.isfinite(found.trace).sum(0).tolist() == steps
    assert found.details["stopped"]
    assert any(said in one for one in found.trust()), found.trust()
    assert not any("steps" in one for one in found[0].trust() if "stopped" in one)
    with pytest.raises(KeyboardInterrupt):
        aw.activation_maximization(Interrupted(1).eval(), 0, **options)


def test_an_interrupt_while_the_judge_looks_hands_over_the_portraits():
    asked = []

    def judge(x: np.ndarray) -> np.ndarray:
        asked.append(len(x))
        if len(asked) == 2:  # the first time it is tried on a start
            raise KeyboardInterrupt
        return x.mean((1, 2)) @ np.eye(3, 2)

    found = aw.activation_maximization(Interrupted(None).eval(), [0, 1], shape=(3, 8, 8), bounds=(0, 1), steps=3, judge=judge)
    assert len(asked) == 2
    assert found.judge_rank is None
    assert found.trace.shape == (3, 2)


# ---- sizes, types and raw errors ---------------------------------------------------------------------------------------


def to_tensor(photo: Image.Image) -> torch.Tensor:
    """A transform that keeps the size of the photo."""
    return (torch.from_numpy(np.asarray(photo, np.float32).transpose(2, 0, 1)) / 255 - 0.5) / 0.25


def test_a_transform_that_keeps_the_size_does_not_tell_it(net):
    model = aw.wrap(net, transform=to_tensor)
    with pytest.raises(InputError, match="keeps the size"):
        aw.activation_maximization(model, 0, steps=2)
    found = aw.activation_maximization(model, 0, steps=2, shape=(3, 14, 18))
    assert found.values.shape == (1, 3, 14, 18)
    assert np.allclose(to_tensor(Image.fromarray(found.pictures[0])), found.values[0], atol=0.02), "black and white are the transform's own"
    with pytest.raises(InputError, match="3 channels"):
        aw.activation_maximization(model, 0, steps=2, shape=(1, 14, 18))


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        with torch.no_grad():
            self.conv.weight.copy_(torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(self.norm(self.conv(x)), 0.1, training=True).mean((2, 3))


def test_a_seeded_model_gives_each_portrait_its_own_rows():
    model = aw.wrap(Noisy().eval(), seed=0)
    options = {"shape": (3, 8, 8), "bounds": (0, 1), "steps": 4}
    for targets, more in (
        ([aw.neuron("conv", 0), aw.neuron("conv", 2)], {}), ([0, aw.neuron("conv", 1)], {}), ([0, 1], {"regularizer": r.batch_norm(1.0)}),
    ):  # fmt: skip
        together = aw.activation_maximization(model, targets, **options, **more)
        assert np.allclose(together.score, [aw.activation_maximization(model, one, **options, **more).score[0] for one in targets], atol=1e-5)
    with pytest.raises(InputError, match=r"wrap\(seed="):
        aw.activation_maximization(model, 0, copies=2, regularizer=r.diversity(1, "conv"), **options)


@pytest.mark.parametrize("preset", ["naive", "lecture", "yosinski", "lucid", "maco", "robust"])
def test_half_precision_finds_what_single_does(net, preset):
    options = {"preset": preset, "steps": 12, "shape": (3, 16, 16), "bounds": (-1, 1)}
    single = aw.activation_maximization(net, 1, **options)
    half = aw.activation_maximization(net.half(), 1, **options)
    assert half.values.dtype == np.float32
    assert half.score[0] > half.start[0]
    assert np.corrcoef(half.values.ravel(), single.values.ravel())[0, 1] > 0.9


def test_the_default_dtype_does_not_change_the_search(net):
    options = {"preset": "robust", "steps": 5, "shape": (3, 16, 16), "bounds": (-1, 1), "seed": 2}
    one = aw.activation_maximization(net, 0, **options)
    torch.set_default_dtype(torch.float64)
    try:
        other = aw.activation_maximization(net, 0, **options)
    finally:
        torch.set_default_dtype(torch.float32)
    assert np.array_equal(one.values, other.values)


@pytest.mark.parametrize("target", [np.int64(2), torch.tensor(2), np.array(2), [np.int64(2)], np.array([2]), torch.tensor([2])])
def test_numbers_of_other_libraries_are_classes(target):
    assert aw.activation_maximization(line(), target, steps=1, **GREY).target == ("class 2",)


def test_numbers_of_other_libraries_are_options(tmp_path):
    given = {"seed": np.int64(1), "steps": np.int64(2), "copies": np.int64(2), "rate": np.float64(0.1)}
    found = aw.activation_maximization(line(), 1, **given, **GREY)
    assert aw.Portrait.load(found.save(tmp_path / "p.npz")) == found
    assert np.array_equal(found.values, aw.activation_maximization(line(), 1, seed=1, steps=2, copies=2, rate=0.1, **GREY).values)
    ends = aw.activation_maximization(line(), 1, steps=2, bounds=np.array([0.0, 1.0]), images=torch.rand(30, 1, 6, 6))
    assert ends.values.min() >= 0
    for seed in (2**63, 2**64, -1):
        with pytest.raises(InputError, match="seed="):
            aw.activation_maximization(line(), 1, seed=seed, **GREY)
    for wrong in (lambda: aw.aim(None), lambda: aw.aim(0) + None):
        with pytest.raises(TargetError, match="name the class"):
            wrong()


def test_the_parameters_that_were_used_are_told():
    one, other = (aw.activation_maximization(line(), 0, steps=2, balance=balance, **GREY) for balance in (True, False))
    assert (one.params["balance"], other.params["balance"]) == (True, False)


class InPlace(nn.Module):
    """Writes into its input, as x.sub_(mean).div_(std) does."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.sub_(0.5).div_(0.25))


def test_a_network_that_writes_into_its_input_leaves_the_portrait(net):
    options = {"shape": (3, 16, 16), "bounds": (0, 1), "steps": 5}
    for preset in ("robust", "naive"):
        found = aw.activation_maximization(InPlace(net).eval(), 0, preset=preset, **options)
        x = torch.from_numpy(found.values)
        assert x.min() >= 0
        assert x.max() <= 1
        assert found.score[0] == pytest.approx(net((x - 0.5) / 0.25)[0, 0].item(), abs=1e-4)
        assert np.abs(found.pictures[0].transpose(2, 0, 1) / 255 - found.values[0]).max() < 0.0021
    plain = aw.activation_maximization(net, 0, **options)
    images = torch.rand(30, 3, 16, 16)
    judged, other = (aw.activation_maximization(net, 0, judge=one.eval(), images=images, **options) for one in (InPlace(net), net))
    assert np.array_equal(plain.values, judged.values)
    assert np.array_equal(judged.natural, other.natural)


def test_a_generators_pictures_are_not_written_into(net):
    def make(z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(z).reshape(-1, 3, 4, 4)

    held = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).eval()
    options = {"generator": make, "size": 48, "steps": 6, "score": "raw"}
    found = aw.activation_maximization(InPlace(held).eval(), 0, **options)
    slow = aw.activation_maximization(held, lambda out: 4 * out[:, 0], **options)  # (x - 0.5) / 0.25 has four times the slope
    assert np.allclose(found.latent, slow.latent, atol=1e-4)


# ---- generators and judges that cannot be used ---------------------------------------------------------------------------


class Painter:
    of_pictures = True

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.latent, self.shape = int(np.prod(shape)), shape

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(z).reshape(-1, *self.shape)


def test_a_generator_has_to_make_what_the_model_takes(net):
    model = aw.wrap(net, transform=lambda photo: to_tensor(photo.resize((12, 12))))
    found = aw.activation_maximization(model, 0, generator=Painter((1, 12, 12)), steps=3)
    assert found.values.shape == (1, 3, 12, 12)
    grey = 1 / (1 + np.exp(-found.latent.reshape(1, 1, 12, 12)))
    assert np.allclose(found.values, np.repeat((grey - 0.5) / 0.25, 3, 1), atol=1e-5)
    for shape in ((3, 8, 8), (1, 12, 8)):
        with pytest.raises(InputError, match=rf"\[{shape[0]}, {shape[1]}, {shape[2]}\].*\[3, 12, 12\]"):
            aw.activation_maximization(model, 0, generator=Painter(shape), steps=3)
    series = nn.Sequential(nn.Conv1d(3, 4, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten()).eval()
    for model, made, why in (
        (series, lambda z: z.view(-1, 3, 6), "pictures"), (net, lambda z: z.view(-1, 7, 6), "failed"),
        (net, lambda z: z[:1].view(-1, 2, 3, 3), "pictures"), (net, lambda z: [0], "pictures"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=why):
            aw.activation_maximization(model, 0, generator=made, size=18, steps=2)


def test_a_generator_in_training_mode_is_refused():
    made = nn.Sequential(nn.Linear(6, 36), nn.BatchNorm1d(36), nn.Unflatten(1, (1, 6, 6)))
    with pytest.raises(ModelError, match="generator.eval()"):
        aw.activation_maximization(line(), 0, generator=made, size=6, steps=2)
    made.eval()
    assert aw.activation_maximization(line(), 0, generator=made, size=6, steps=2).latent.shape == (1, 6)
    made[1].train()
    with pytest.raises(ModelError, match="training mode"):
        aw.activation_maximization(line(), 0, generator=made, size=6, steps=2)


def test_a_judge_with_two_classes_of_one_name():
    labels = ["crane", "cat", "crane"]
    found = aw.activation_maximization(aw.wrap(line(), labels=labels), 2, preset="naive", steps=3, judge=aw.wrap(line(1), labels=labels), **GREY)
    share = torch.softmax(line(1)(torch.from_numpy(found.values)), 1)[0, 2].item()
    assert found.judge_probability[0] == pytest.approx(share, abs=1e-6)
    with pytest.raises(TargetError, match="2 classes 'crane'"):
        aw.activation_maximization(
            aw.wrap(line(), labels=["crane", "cat", "dog"]), "crane", steps=3, judge=aw.wrap(line(1), labels=labels), **GREY
        )  # fmt: skip


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_judge_that_answers_no_number_is_refused(number):
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full((len(x), 3), number)

    with pytest.raises(ModelError, match="judge= answers"):
        aw.activation_maximization(line(), 0, steps=3, judge=Broken().eval(), **GREY)


# ---- many images, and names ----------------------------------------------------------------------------------------------


def test_shares_and_nearest_are_those_of_all_distances(monkeypatch, net):
    from scipy.spatial.distance import cdist

    from askwhy.overall import judge

    rng = np.random.default_rng(0)
    reals, mine = rng.normal(size=(90, 6)), 2 * rng.normal(size=(7, 6))
    spread = reals.std(0)
    own, other = cdist(reals / spread, reals / spread), cdist(mine / spread, reals / spread)
    np.fill_diagonal(own, np.inf)
    usual, found = (np.sort(one, 1)[:, :5].mean(1) for one in (own, other))
    slow = (1 + (usual >= found[:, None]).sum(1)) / 91
    options = {"steps": 3, "shape": (3, 16, 16), "bounds": (0, 1)}
    images = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    whole = aw.activation_maximization(net, [0, 1], images=images, **options)
    for block in (1, 8 * 90 * 7, 10**9):
        monkeypatch.setattr(judge, "BLOCK", block)
        assert np.array_equal(shares(reals, mine), slow)
        cut = aw.activation_maximization(net, [0, 1], images=images, **options)
        assert np.array_equal(cut.natural, whole.natural)
        assert np.array_equal(cut.nearest, whole.nearest)


def test_images_that_come_once_are_held_up_to_a_limit(monkeypatch, net):
    from askwhy.overall import judge

    options = {"steps": 3, "shape": (3, 16, 16), "bounds": (0, 1)}
    images = torch.rand(60, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    whole = aw.activation_maximization(net, [0, 1], images=images, **options)
    once = aw.activation_maximization(net, [0, 1], images=iter(images.split(10)), **options)
    assert np.array_equal(whole.nearest, once.nearest)
    assert np.array_equal(whole.nearest_pictures, once.nearest_pictures)
    assert np.array_equal(whole.nearest_pictures[1, 2], TorchModel(net).prepare(images).pictures[whole.nearest[1, 2]])
    monkeypatch.setattr(judge, "HELD", 1)
    short = aw.activation_maximization(net, [0, 1], images=iter(images.split(10)), **options)
    assert np.array_equal(whole.nearest, short.nearest)
    assert short.nearest_pictures is None
    with pytest.raises(InputError, match="nearest real images are not known"):
        short.plot(how="nearest")


def test_names_of_any_kind_are_in_the_legend(tmp_path):
    labels = ["US$ {a^ $", "_hidden", "plain"]
    found = aw.activation_maximization(aw.wrap(line(), labels=labels), [0, 1, 2], steps=2, **GREY)
    axes = found.plot(how="trace")
    axes.figure.savefig(tmp_path / "p.png")
    legend = axes.get_legend().get_texts()
    assert [one.get_text() for one in legend] == labels
    assert not any(one.get_parse_math() for one in legend)
