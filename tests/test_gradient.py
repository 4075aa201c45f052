"""Gradients, smoothing and paths against slow textbook versions; the twin that is differentiated; random forwards."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import oracle
import pytest
import torch
import torch.nn.functional as F
from conftest import small_net
from test_game import NETS, PICTURE, Net, build
from torch import nn

import askwhy as aw
from askwhy.errors import InputError, ModelError, UnsupportedError
from askwhy.local import path
from askwhy.local.expected import plan
from askwhy.models import torch_module


class Two(nn.Module):
    """relu(relu(x1) - 1 - relu(x2)), of Sundararajan et al. 2017."""

    def forward(self, x):
        return torch.relu(torch.relu(x[:, 0]) - 1 - torch.relu(x[:, 1]))


def mlp(seed: int = 0, act: type[nn.Module] = nn.ReLU, d: int = 4) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(d, 8), act(), nn.Linear(8, 6), act(), nn.Linear(6, 3)).double().eval()


def score_of(net: nn.Module, target: int):
    return lambda x: float(net(torch.as_tensor(x)[None])[0, target].detach())


def rows(n: int, d: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- input x gradient, smoothing ----------------------------------------------------------------------------------


def test_input_x_gradient_is_the_product_and_captums():
    captum = pytest.importorskip("captum.attr")
    net, x = mlp(), rows(3)
    why = aw.input_x_gradient(net, x, 1)
    for i in range(3):
        np.testing.assert_allclose(why.values[i], x[i].numpy() * oracle.finite_difference(score_of(net, 1), x[i].numpy()), atol=1e-7)
    wanted = captum.InputXGradient(net).attribute(x.clone().requires_grad_(), target=1)
    np.testing.assert_allclose(why.values, wanted.detach(), atol=1e-12)
    assert why.unit == "score units"


@pytest.mark.parametrize("form", ["mean", "square", "variance"])
@pytest.mark.parametrize("explain", [aw.gradient, aw.saliency, aw.input_x_gradient])
def test_the_forms_of_smoothing_are_those_of_all_answers_at_once(form, explain):
    net, x = small_net(3, dtype=torch.float64), torch.rand(1, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    why = aw.smooth(explain, 20, 0.2, form, seed=7)(net, x, 1)
    noise = (
        np.stack([np.random.default_rng([7, 0, k]).standard_normal((3, 16, 16), np.float32) for k in range(20)]).astype(np.float64)
        * float(x.max() - x.min())
        * 0.2
    )
    maps = np.array([explain(net, x + torch.as_tensor(e)[None], 1).values[0] for e in noise])
    np.testing.assert_allclose(why.values[0], oracle.smoothed(maps, form), atol=1e-12)
    slow = aw.smooth(lambda *a, **k: explain(*a, **k), 20, 0.2, form, seed=7)(net, x, 1)  # one that is not known to be a gradient
    np.testing.assert_allclose(slow.values, why.values, atol=1e-12)
    np.testing.assert_allclose(slow.std_error, why.std_error, atol=1e-9)
    assert slow.unit == why.unit
    assert ("squared" in why.unit) == (form != "mean")


@pytest.mark.parametrize("form", ["mean", "square", "variance"])
def test_the_standard_error_of_each_form_is_its_spread_over_seeds(form):
    net, x = mlp(1), rows(1)
    found = [aw.smooth(aw.gradient, 60, 0.4, form, seed=seed)(net, x, 0) for seed in range(120)]
    spread = np.std([why.values[0] for why in found], axis=0, ddof=1)
    said = np.sqrt(np.mean([why.std_error[0] ** 2 for why in found], axis=0))
    np.testing.assert_allclose(said, spread, rtol=0.25)


@pytest.mark.parametrize("size", [1, 3, "auto"])
def test_smoothing_does_not_depend_on_the_batch_size(size, net, x):
    wanted = aw.smooth_grad(net, x, samples=21, seed=3)
    why = aw.smooth_grad(net, x, samples=21, seed=3, batch_size=size)
    np.testing.assert_allclose(why.values, wanted.values, rtol=1e-5, atol=1e-7)
    assert why.model_calls == 2 + 42


def test_bad_forms_are_refused():
    with pytest.raises(InputError, match="form='median': choose 'mean', 'square', 'variance'"):
        aw.smooth(aw.gradient, form="median")


# ---- integrated gradients -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", ["auto", 1000])
def test_the_numbers_of_the_paper(steps):
    why = aw.integrated_gradients(Two().eval(), torch.tensor([[3.0, 1.0]]), 0, baseline="zero", steps=steps)
    np.testing.assert_allclose(why.values, [[1.5, -0.5]], atol=2e-3)
    assert why.base_value.tolist() == [0.0]
    assert abs(why.residual[0]) <= 1e-3


@pytest.mark.parametrize("quadrature", ["midpoint", "gauss-legendre"])
@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh])
def test_a_number_of_steps_is_the_textbook_rule(quadrature, act):
    net, x, b = mlp(2, act), rows(3), rows(1, seed=9)[0].numpy()
    nodes, weights = path.rule(quadrature, 7)
    why = aw.integrated_gradients(net, x, [0, 1, 2], baseline=b, steps=7, quadrature=quadrature)
    for i in range(3):
        f = score_of(net, i)
        wanted = oracle.integrated_gradients(f, x[i].numpy(), b, nodes, weights)
        np.testing.assert_allclose(why.values[i], wanted, atol=1e-7)
        change = f(x[i].numpy()) - f(b)
        assert why.base_value[i] == pytest.approx(f(b))
        assert why.residual[i] == pytest.approx((wanted.sum() - change) / abs(change), abs=1e-6)
    assert why.model_calls == 3 + 3 + 21
    assert why.params["quadrature"] == quadrature


@pytest.mark.parametrize(("ours", "theirs"), [("gauss-legendre", "gausslegendre"), ("midpoint", "riemann_middle")])
def test_equals_captum(ours, theirs, net, x):
    captum = pytest.importorskip("captum.attr")
    b = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(8))
    wanted = captum.IntegratedGradients(net).attribute(x, b.expand_as(x), target=2, n_steps=30, method=theirs)
    why = aw.integrated_gradients(net, x, 2, baseline=b[0].numpy(), steps=30, quadrature=ours)
    np.testing.assert_allclose(why.values, wanted.detach(), atol=1e-6)


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh, nn.GELU])
def test_auto_comes_near_the_integral_and_keeps_its_tolerance(act):
    net, x = mlp(4, act), rows(5)
    b = np.zeros(4)
    coarse, fine = (aw.integrated_gradients(net, x, 1, baseline=b, tolerance=t) for t in (1e-2, 1e-5))
    assert (np.abs(coarse.residual) <= 1e-2).all()
    assert (np.abs(fine.residual) <= 1e-5).all() or "note" in fine.details
    assert sum(coarse.details["steps"]) < sum(fine.details["steps"])
    for i in range(2):
        wanted = oracle.path_integral(score_of(net, 1), x[i].numpy(), b, 4096)
        np.testing.assert_allclose(fine.values[i], wanted, atol=2e-4 * np.abs(wanted).max())


def test_auto_on_a_real_network_keeps_the_tolerance_or_says_so(net, x):
    why = aw.integrated_gradients(net, x)
    assert (np.abs(why.residual) <= 1e-3).all()
    assert "completeness gap" in why.summary()
    np.testing.assert_allclose(why.values.sum((1, 2, 3)), why.prediction - why.base_value, rtol=1.1e-3)


def test_a_line_that_stays_rough_is_taken_as_it_is_and_says_so(monkeypatch, net, x):
    monkeypatch.setattr(path, "MOST", 20)
    why = aw.integrated_gradients(net, x, tolerance=1e-9)
    assert max(why.details["steps"]) <= 20
    assert "stopped at 20 gradients" in why.details["note"]
    assert "stopped at 20 gradients" in why.summary()
    gap = why.values.sum((1, 2, 3)) - (why.prediction - why.base_value)
    np.testing.assert_allclose(why.residual, gap / np.abs(why.prediction - why.base_value), rtol=1e-3)


def test_lines_refined_together_or_alone_give_the_same(monkeypatch, net, x):
    many = torch.cat([x, x + 0.1, x * 0.5])
    wanted = aw.integrated_gradients(net, many, baseline=["grey", "zero"])
    monkeypatch.setattr(path, "TOGETHER", 1)
    why = aw.integrated_gradients(net, many, baseline=["grey", "zero"])
    assert why.details["steps"] == wanted.details["steps"]
    np.testing.assert_allclose(why.values, wanted.values, atol=1e-5 * np.abs(wanted.values).max())


def test_several_baselines_are_the_mean_over_them(net, x):
    b = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(8))
    apart = [aw.integrated_gradients(net, x, 1, baseline=one.numpy(), steps=5) for one in b]
    for several in (b, b.numpy(), list(b)):
        why = aw.integrated_gradients(net, x, 1, baseline=several, steps=5)
        np.testing.assert_allclose(why.values, np.mean([one.values for one in apart], 0), atol=1e-6)
        np.testing.assert_allclose(why.base_value, np.mean([one.base_value for one in apart], 0), atol=1e-6)
    named = aw.integrated_gradients(net, x, 1, baseline=["blur", "zero"], steps=5)
    both = [aw.integrated_gradients(net, x, 1, baseline=name, steps=5).values for name in ("blur", "zero")]
    np.testing.assert_allclose(named.values, np.mean(both, 0), atol=1e-6)
    assert named.params["baseline"] == "blur, 0"
    assert (np.abs(aw.integrated_gradients(net, x, 1, baseline=["blur", "zero", "grey"]).residual) <= 1e-3).all()


def test_an_input_that_is_its_baseline_has_no_gap(net, x):
    why = aw.integrated_gradients(net, x[:1], 1, baseline=x[0])
    assert not why.values.any()
    assert why.residual.tolist() == [0.0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "steps=0: give 'auto'"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"steps": True}, "steps=True"),
        ({"steps": 5, "quadrature": "simpson"}, "quadrature='simpson': choose 'gauss-legendre' or 'midpoint'"),
        ({"quadrature": "midpoint"}, "belongs to a number of steps"),
        ({"tolerance": 0}, "tolerance=0"),
        ({"baseline": "black"}, "baseline='black'"),
        ({"baseline": np.zeros(3)[:2]}, "the baseline has the shape"),
    ],
)
def test_settings_are_checked(options, said, net, x):
    with pytest.raises(InputError, match=said):
        aw.integrated_gradients(net, x, **options)


def test_a_table_has_no_natural_baseline():
    with pytest.raises(InputError, match="baseline='auto' means nothing for an input of shape .4.; say what absent is"):
        aw.integrated_gradients(mlp(), rows(2), 0)
    with pytest.raises(UnsupportedError, match="needs floating-point"):
        aw.integrated_gradients(Casts().eval(), torch.zeros(1, 2, dtype=torch.long), baseline=0)


class Casts(nn.Module):
    def forward(self, x):
        return x.float()


# ---- expected gradients -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "samples"), [(1, 2), (1, 50), (5, 4), (5, 5), (5, 7), (5, 11), (5, 200), (100, 200), (100, 230), (7, 350)])
def test_every_row_is_used_equally_often_and_places_are_stratified(k, samples):
    p = plan(k, samples, np.random.default_rng(0))
    assert len(p.row) == len(p.where) == len(p.weight) == len(p.cell) == samples
    count = np.bincount(p.row, minlength=k)
    assert count.max() - count.min() <= 1
    used = np.bincount(p.row, p.weight, k)[count > 0]
    np.testing.assert_allclose(used, 1 / len(used))
    for cell in range(len(p.block)):
        where = np.sort(p.where[p.cell == cell])
        assert (np.floor(where * len(where)) == np.arange(len(where))).all()
    for block in range(p.block[-1] + 1):
        assert (p.block == block).sum() >= 2
        if samples >= 2 * k:
            cells = [np.unique(p.row[p.cell == c]).tolist() for c in np.flatnonzero(p.block == block)]
            assert all(rows == cells[0] for rows in cells)


@pytest.mark.parametrize(("k", "samples"), [(1, 40), (4, 40), (20, 50), (25, 60)])
def test_expected_gradients_and_their_error_over_seeds(k, samples):
    net, x, background = mlp(5), rows(1), rows(k, seed=3)
    wanted = np.mean([oracle.path_integral(score_of(net, 1), x[0].numpy(), b.numpy(), 128) for b in background], 0)
    found = [aw.expected_gradients(net, x, 1, background=background, samples=samples, seed=seed) for seed in range(100)]
    values = np.array([why.values[0] for why in found])
    spread = values.std(0, ddof=1)
    assert (np.abs(values.mean(0) - wanted) <= 4 * spread / 10 + 2e-3 * np.abs(wanted).max()).all()
    said = np.sqrt(np.mean([why.std_error[0] ** 2 for why in found], axis=0))
    assert (said >= 0.75 * spread).all()
    assert (said <= 1.8 * spread).all()
    base = net(background)[:, 1].mean().item()
    assert found[0].base_value[0] == pytest.approx(base)
    change = found[0].prediction[0] - base
    assert found[0].residual[0] == pytest.approx((found[0].values.sum() - change) / abs(change))


def test_expected_gradients_are_captums_gradient_shap_on_average():
    captum = pytest.importorskip("captum.attr")
    net, x, background = mlp(6), rows(2), rows(6, seed=3)
    torch.manual_seed(0)
    np.random.seed(0)  # captum draws with numpy
    wanted = captum.GradientShap(net).attribute(x, background, n_samples=4000, stdevs=0.0, target=[1, 2])
    why = aw.expected_gradients(net, x, [1, 2], background=background, samples=1200)
    np.testing.assert_allclose(why.values, wanted.detach(), atol=0.05 * np.abs(why.values).max())
    np.testing.assert_allclose(why.base_value, [net(background)[:, k].mean().item() for k in (1, 2)])


def test_expected_gradients_need_a_background(net, x):
    for bad, said in ((None, "background=None: give rows"), ("grey", "background='grey'"), (torch.rand(2, 3, 8, 8), "the baseline has the shape")):
        with pytest.raises(InputError, match=said):
            aw.expected_gradients(net, x, background=bad)
    with pytest.raises(InputError, match="samples=1"):
        aw.expected_gradients(net, x, background=x, samples=1)
    with pytest.raises(InputError, match="expected_gradients needs background="):
        aw.explain(net, x, "expected_gradients")


# ---- the twin that is differentiated ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETS)
def test_the_twin_gives_the_models_own_gradients(name, dtype, monkeypatch):
    net = build(1, NETS[name]).to(dtype)
    found = []
    for worth in (10**9, 1):
        monkeypatch.setattr(torch_module, "WORTH_A_SLOPE_TWIN", worth)
        model = aw.wrap(net)
        found.append(
            [
                aw.integrated_gradients(model, PICTURE.to(dtype), 1, baseline="mean", steps=20).values,
                aw.smooth_grad(model, PICTURE.to(dtype), 1).values,
            ]
        )
    for plain, fast in zip(*found, strict=True):
        np.testing.assert_allclose(fast, plain, atol=1e-3 * np.abs(plain).max())


USED = ["conv bn relu", "groups, dilation", "zero pad", "F.pad", "residual", "F.conv2d", "shared modules", "norm used twice", "half the channels"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", USED)
def test_the_twin_is_really_used_and_gives_the_same_gradient_at_a_point(name, dtype):
    net = build(1, NETS[name]).to(dtype)
    model, x = aw.wrap(net), PICTURE.to(dtype).repeat(4, 1, 1, 1) * torch.linspace(0.5, 1, 4).to(dtype).view(-1, 1, 1, 1)
    with model.untouched():
        run = model.slope_twin(x, 100, "q", lambda out: out[:, 1])
    assert run is not None
    slopes = []
    for f in (net, run):
        leaf = x.clone().requires_grad_()
        slopes.append(torch.autograd.grad(f(leaf)[:, 1].sum(), leaf)[0])
    assert (slopes[0] - slopes[1]).abs().max() <= 1e-4 * slopes[0].abs().max()


def test_a_gradient_that_two_branches_share_is_not_written_over():
    net = build(1, lambda: Net(lambda m, x: F.relu(m.a(x)) + F.relu(m.b(x)), a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(3, 8, 3)))
    assert engine_of(net) == "twin backward"


class Reverses(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return -g


def engine_of(net: nn.Module) -> str:
    model = aw.wrap(net)
    with model.untouched():
        found = model.slope_twin(PICTURE.repeat(3, 1, 1, 1), 100, "q", lambda out: out[:, 1])
    return "backward" if found is None else "twin backward"


def test_a_twin_with_other_gradients_is_not_used():
    plain = build(0, NETS["conv bn relu"])

    class Own(nn.Module):
        def __init__(self, how):
            super().__init__()
            self.net, self.how = plain, how

        def forward(self, x):
            return self.how(self.net(x))

    assert engine_of(Own(lambda out: out * 2).eval()) == "twin backward"
    assert engine_of(Own(Reverses.apply).eval()) == "backward"
    why = aw.integrated_gradients(Own(Reverses.apply).eval(), PICTURE, 1, baseline="mean", steps=20)
    np.testing.assert_allclose(why.values, -aw.integrated_gradients(plain, PICTURE, 1, baseline="mean", steps=20).values, atol=1e-4)


def test_hooks_and_changed_switches_are_seen_after_the_twin_was_proved():
    net = build(0, lambda: nets_with_switch())
    model = aw.wrap(net)
    ask = lambda: aw.integrated_gradients(model, PICTURE, 1, baseline="mean", steps=20).values  # noqa: E731
    first = ask()
    net.factor = 3.0
    np.testing.assert_allclose(ask(), 3 * first, rtol=1e-4, atol=1e-6)
    handle = net.a.register_full_backward_hook(lambda m, gi, go: tuple(None if g is None else g * 2 for g in gi))
    np.testing.assert_allclose(ask(), 6 * first, rtol=1e-4, atol=1e-6)
    handle.remove()
    with torch.no_grad():
        net.head.weight.mul_(2)
    np.testing.assert_allclose(ask(), 6 * first, rtol=1e-4, atol=1e-6)


class Switch(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.head, self.factor = nn.Conv2d(3, 8, 3), nn.Linear(800, 3), 1.0

    def forward(self, x):
        return self.head(F.relu(self.a(x)).flatten(1)) * self.factor


def nets_with_switch() -> nn.Module:
    return Switch()


# ---- random forwards ----------------------------------------------------------------------------------------------


class Noisy(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.net, self.how = small_net(), how

    def forward(self, x):
        return self.net(self.how(x))


RANDOM = {
    "dropout": lambda x: F.dropout(x, 0.3, training=True),
    "rand": lambda x: x + torch.rand(()),
    "randn_like": lambda x: x + torch.randn_like(x),
}


@pytest.mark.parametrize("how", RANDOM)
@pytest.mark.parametrize("name", ["gradient", "smooth_grad", "integrated_gradients", "occlusion", "lime", "grad_cam", "guided_backprop"])
def test_a_random_forward_is_refused_unless_seeded(name, how, x):
    net = Noisy(RANDOM[how]).eval()
    options = {"lime": {"samples": 20}, "occlusion": {"size": 8}, "smooth_grad": {"samples": 3}, "integrated_gradients": {"steps": 3}}.get(name, {})
    state = torch.get_rng_state()
    with pytest.raises(ModelError, match=r"draws random numbers.*askwhy.wrap\(net, seed=0\)"):
        aw.explain(net, x, name, **options)
    model = aw.wrap(net, seed=4)
    whys = [aw.explain(model, x, name, batch_size=size, **options) for size in (1, 2, "auto")]
    for why in whys:
        np.testing.assert_allclose(why.values, whys[0].values, rtol=1e-4, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    with torch.no_grad():
        assert whys[0].prediction[1] == pytest.approx(float(net(x[1:]).max()), abs=1e-6)


def test_dropout_that_is_off_draws_nothing(x):
    net = nn.Sequential(nn.Dropout(0.5), small_net()).eval()
    np.testing.assert_allclose(aw.gradient(net, x).values, aw.gradient(net[1], x).values)


def test_a_seeded_model_of_several_outputs_and_bad_seeds(x):
    class Parts(Noisy):
        def forward(self, x):
            return {"logits": super().forward(x), "all": [x, (x * 2,)]}

    why = aw.gradient(aw.wrap(Parts(RANDOM["dropout"]).eval(), seed=1), x)
    np.testing.assert_allclose(why.values, aw.gradient(aw.wrap(Noisy(RANDOM["dropout"]).eval(), seed=1), x).values, atol=1e-6)
    with pytest.raises(InputError, match="seed=1.5: give a whole number"):
        aw.wrap(small_net(), seed=1.5)
    with pytest.raises(InputError, match="seed=0 is for a torch module"):
        aw.wrap(lambda b: b, seed=0)
    with pytest.raises(InputError, match="wrapped already"):
        aw.wrap(aw.wrap(small_net()), seed=0)
    with pytest.raises(InputError, match="leave precision out"):
        aw.occlusion(aw.wrap(Noisy(RANDOM["rand"]).eval(), seed=0), x, size=8, precision="bfloat16")


# ---- memory -------------------------------------------------------------------------------------------------------

PEAK = """
import resource, sys, torch, askwhy as aw
from askwhy.game import BatchSize
torch.set_num_threads(2)
model = aw.zoo.load("efficientnet-lite0")
x = model.prepare(aw.zoo.photo("cat")).batch
x = torch.cat([x * s for s in torch.linspace(0.6, 1, 8)])
model.net.requires_grad_(False)
if sys.argv[1] == "paths":
    aw.integrated_gradients(model, x, steps=500)
else:
    size = int(sys.argv[1])
    leaf = x[:1].expand(size, -1, -1, -1).clone().requires_grad_()
    torch.autograd.grad(model.net(leaf)[:, 282].sum(), leaf)
sizes = [v.size for k, v in model.memory.items() if str(k[-1]).endswith("backward")]
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, *sizes)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kB on Linux")
def test_500_steps_on_8_photos_stay_in_the_memory_of_one_chunk():
    def peak(what: object) -> list[float]:
        run = subprocess.run([sys.executable, "-c", PEAK, str(what)], capture_output=True, text=True, check=True)
        return [float(word) for word in run.stdout.split()]

    paths, size = peak("paths")
    once = peak(int(size))[0]
    assert paths <= 1.5 * once, (paths, once, size)
