"""The engine: v(z) against a slow loop, memory, batch sizes, cancelling; the score; and the faster twin."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import small_net
from torch import nn

import askwhy as aw
from askwhy.components import absent, patches
from askwhy.errors import Cancelled, InputError, ModelError, TargetError, UnsupportedError
from askwhy.game import BatchSize, Game, batch_size_for, in_chunks, over_items, progress_of
from askwhy.models import torch_module
from askwhy.recipes import recipe
from askwhy.score import ask


class Counts:
    """A black box that notes how many rows it was given."""

    def __init__(self, f, most=None, error=None):
        self.f, self.rows, self.most, self.error = f, [], most, error

    def __call__(self, batch):
        self.rows.append(len(batch))
        if self.most is not None and len(batch) > self.most:
            raise self.error
        return self.f(batch)


def table_game(f, background=None, **options):
    x = np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]])
    score = ask(f, x, 0)
    score.predict()
    found = recipe(None, score.items).make(score.items, 1)
    rows, _ = absent(np.zeros((1, 4)) if background is None else background, score.items, 1, found)
    return Game(score, 1, found, rows, **options), x[1]


def curved(batch):
    return (batch**2).sum(1) * batch[:, 0] + batch[:, 1]


# ---- v(z) ---------------------------------------------------------------------------------------------------------


def test_v_is_the_slow_loop_on_a_table():
    background = np.random.default_rng(0).normal(size=(5, 4))
    v, x = table_game(curved, background)
    z = np.random.default_rng(1).random((20, 4)) < 0.5
    for row, got in zip(z, v(z), strict=True):
        wanted = np.mean([curved(np.where(row, x, b)[None])[0] for b in background])
        assert got == pytest.approx(wanted, abs=1e-12)


def test_v_is_the_slow_loop_on_a_picture(net, x):
    score = ask(net, x, 2)
    found = patches(5, 3).make(score.items, 1)
    rows, _ = absent("noise", score.items, 1, found, 7)
    z = np.random.default_rng(1).random((9, len(found))) < 0.8
    values = Game(score, 1, found, rows)(z)
    for m in range(9):
        shown = x[1].clone()
        for k, name in enumerate(found.names):
            (top, bottom), (left, right) = (tuple(map(int, part.split()[1].split("-"))) for part in name.split(", "))
            if not z[m, k]:
                shown[:, top : bottom + 1, left : right + 1] = torch.from_numpy(rows[0])[:, top : bottom + 1, left : right + 1]
        with torch.no_grad():
            assert values[m] == pytest.approx(float(net(shown[None])[0, 2]), abs=1e-5)


def test_equal_questions_are_asked_once():
    f = Counts(curved)
    v, _ = table_game(f)
    f.rows.clear()
    z = np.array([[1, 0, 1, 0], [1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], dtype=bool)
    first = v(z)
    assert sum(f.rows) == 3
    assert first[0] == first[2]
    again = v(z[::-1].astype(int))
    assert sum(f.rows) == 3
    np.testing.assert_array_equal(again, first[::-1])
    v(np.array([[0, 1, 0, 0]]))
    assert sum(f.rows) == 4
    assert v(np.zeros((0, 4), bool)).shape == (0,)
    assert v.score.calls == 2 + 4


def test_many_components_are_told_apart():
    """Packed bits: 9 components need two bytes, and the last one counts."""
    f = Counts(lambda b: b.sum(1))
    score = ask(f, np.arange(1.0, 10)[None], 0)
    found = recipe(None, score.items).make(score.items, 0)
    v = Game(score, 0, found, absent(0, score.items, 0, found)[0])
    np.testing.assert_allclose(v(~np.eye(9, dtype=bool)), 45 - np.arange(1, 10))


@pytest.mark.parametrize("size", [1, 2, 7, 1000, "auto", np.int64(3)])
def test_any_batch_size_gives_the_same_and_keeps_its_promise(size):
    f = Counts(curved)
    v, _ = table_game(f, np.random.default_rng(0).normal(size=(3, 4)), batch_size=size)
    f.rows.clear()
    z = np.array([[b >> k & 1 for k in range(4)] for b in range(16)], dtype=bool)
    got = v(z)
    assert sum(f.rows) == 48
    if size != "auto":
        assert max(f.rows) <= size
    np.testing.assert_allclose(got, table_game(curved, np.random.default_rng(0).normal(size=(3, 4)))[0](z), atol=1e-12)


@pytest.mark.parametrize("size", [0, -1, 1.5, "big", True, None])
def test_a_batch_size_is_a_whole_number(size):
    with pytest.raises(InputError, match="batch_size="):
        table_game(curved, batch_size=size)[0](np.zeros((1, 4), bool))


# ---- memory -------------------------------------------------------------------------------------------------------

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("kind", ["function", "module"])
def test_the_batch_is_halved_when_memory_runs_out(error, kind):
    f = Counts(lambda b: b.sum(1), most=5, error=error)
    x = np.ones((1, 64), np.float32)
    model = aw.wrap(f if kind == "function" else Module(f))
    why = aw.occlusion(model, x, 0, baseline=0)
    np.testing.assert_allclose(why.values, 1)
    big = [rows for rows in f.rows if rows > 5]
    assert big
    assert big == sorted(set(big), reverse=True)  # each size fails once
    f.rows.clear()
    aw.occlusion(model, x, 0, baseline=0)
    assert max(f.rows) <= 5  # learnt for the next time
    f.most = 0
    with pytest.raises(ModelError, match="memory ran out on a single input") as caught:
        table_game(model)[0](np.eye(4, dtype=bool)) if kind == "function" else aw.gradient(model, x)
    assert caught.value.__cause__ is error


class Module(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f
        self.eval()

    def forward(self, x):
        return self.f(x)


def test_another_error_is_not_taken_for_a_lack_of_memory():
    for model in (Counts(curved, 0, RuntimeError("shape mismatch")), Module(Counts(curved, 0, RuntimeError("shape mismatch")))):
        with pytest.raises(ModelError, match="shape mismatch"):
            aw.occlusion(model, np.ones((1, 4), np.float32), 0, baseline=0)
    with pytest.raises(ValueError, match="own"):
        in_chunks(3, lambda a, b: (_ for _ in ()).throw(ValueError("own")), BatchSize(2, 2), None)


def test_nan_in_the_middle_is_refused_with_its_item(net, x):
    f = lambda b: np.where(b[:, 2] == 0, np.nan, b.sum(1))  # noqa: E731
    with pytest.raises(ModelError, match="score is nan on a perturbed input of item 1"):
        table_game(f)[0](~np.eye(4, dtype=bool))


def test_the_batch_size_settles_within_its_limit():
    for best in (4, 16, 64, 10_000):
        size = BatchSize(4, 100)
        asked = []
        for _ in range(50):
            asked.append(size.size)
            size.learn(size.size, size.size * (1 + abs(np.log2(size.size / best))))
        assert size.settled
        assert max(asked) <= 100
        assert size.size == min(best, 64)
    small = BatchSize(8, 64)
    small.learn(3, 100.0)  # the last, shorter chunk teaches nothing
    assert small.size == 8
    small.halve(8)
    for _ in range(5):
        small.learn(4, 0.001)
    assert (small.size, small.limit) == (4, 4)
    small.halve(1)
    assert small.size == 1


def test_a_measured_batch_size_lives_on_the_wrapped_model(net, x):
    model = aw.wrap(net)
    score = ask(model, x)
    first = batch_size_for(score, "auto")
    assert batch_size_for(ask(model, x), "auto") is first
    assert batch_size_for(ask(model, x), "auto", "twin float32") is not first
    assert batch_size_for(ask(model, x[:, :, :8]), "auto") is not first
    huge = ask(lambda b: b.sum((1, 2, 3)), np.zeros((1, 3, 2000, 2000)))
    assert 1 <= batch_size_for(huge, "auto").size <= batch_size_for(huge, "auto").limit


# ---- progress, cancelling -----------------------------------------------------------------------------------------


def test_progress_counts_model_calls_to_the_end():
    seen = []
    v, _ = table_game(curved, np.zeros((3, 4)), batch_size=4, tick=lambda done, total: seen.append((done, total)), total=5)
    v(np.eye(4, dtype=bool)), v(np.ones((1, 4), bool))
    assert seen == [(4, 15), (8, 15), (12, 15), (15, 15)]
    seen.clear()
    ticks = over_items(lambda done, total: seen.append((done, total)), 3)
    ticks[0](2, 10), ticks[2](10, 10)
    assert seen == [(2, 30), (30, 30)]
    assert over_items(None, 2) == [None, None]
    for progress in (None, False):
        with progress_of(progress, "x") as tick:
            assert tick is None
    with progress_of(True, "x") as tick:
        tick(1, 2)


def test_cancelling_and_interrupting_leave_the_model_clean(net, x):
    before = [p.requires_grad for p in net.parameters()]
    rng = torch.get_rng_state()
    for stop, error in ((lambda done, total: False, Cancelled), (interrupt, KeyboardInterrupt)):
        with pytest.raises(error):
            aw.occlusion(net, x, size=2, batch_size=4, progress=stop)
        assert [p.requires_grad for p in net.parameters()] == before
        assert torch.equal(torch.get_rng_state(), rng)
    with pytest.raises(Cancelled, match="stopped after 4 of 16"):
        aw.occlusion(lambda b: b.sum(1), np.ones((1, 16)), baseline=0, batch_size=4, progress=lambda done, total: False)
    assert aw.occlusion(net, x, size=8, progress=lambda done, total: None).values.any()  # only False stops


def interrupt(done, total):
    raise KeyboardInterrupt


# ---- the question -------------------------------------------------------------------------------------------------


def test_targets_of_every_kind(net, x):
    model = aw.wrap(net, labels=["lynx", "Tabby", "tabby", "dog"])
    out = net(x).detach().double().numpy()
    for target, wanted in (
        (2, [2, 2]), (np.int64(2), [2, 2]), (torch.tensor(2), [2, 2]), (np.array(2), [2, 2]), ("tabby", [2, 2]), ("Tabby", [1, 1]), ("DOG", [3, 3]),
        ([0, "dog"], [0, 3]), ((1, None), [1, out[1].argmax()]), (np.array([3, 1]), [3, 1]), (torch.tensor([3, 1]), [3, 1]), (lambda o: o[:, 1], [1, 1]), ([lambda o: o[:, 1], 3], [1, 3]),
        (None, out.argmax(1)),
    ):  # fmt: skip
        score = ask(model, x, target)
        score.predict()
        np.testing.assert_allclose(score.prediction, out[[0, 1], wanted], rtol=1e-5)
    with pytest.raises(TargetError, match=r"names the classes \[1, 2\]"):
        ask(model, x, "TABBY")
    for bad in (True, 1.0, np.float64(1), torch.tensor(1.0), [[0], [1]], [True, False], b"cat", {}):
        with pytest.raises(TargetError):
            ask(model, x, bad)
    with pytest.raises(TargetError, match="versus=9: the model has|target=9"):
        ask(model, x, 0, versus=9).predict()
    assert ask(model, x, 0, versus=["dog", 1]).versus == [3, 1]


def test_a_target_reads_structured_outputs(x):
    class Detects(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small_net()

        def forward(self, x):
            return {"boxes": self.net(x)[:, :, None] * torch.ones(4), "words": ["a"] * len(x)}

    model = Detects().eval()
    why = aw.occlusion(model, x, lambda out: out["boxes"][:, 1, 0], size=8)
    np.testing.assert_allclose(why.values, aw.occlusion(model.net, x, 1, size=8).values, atol=1e-6)
    for bad in (lambda out: out["boxes"][:1, 1, 0].mean(0, keepdim=True), lambda out: torch.cat([out["boxes"][:, 0, 0]] * 2)):
        for method in (aw.occlusion, aw.gradient):
            with pytest.raises(TargetError, match="one number per input"):
                method(model, x, bad, **({"size": 4} if method is aw.occlusion else {}))
    with pytest.raises(TargetError, match="cannot be split by item"):
        aw.gradient(model, x, [lambda out: out["boxes"][:, 0, 0], lambda out: out["boxes"][:, 1, 0]])


@pytest.mark.parametrize("wrong", [lambda s: s[:1], lambda s: s.mean(), lambda s: torch.cat([s, s]), lambda s: s[0]])
def test_an_answer_with_another_number_of_rows_is_refused(wrong, x):
    net = small_net()
    for method in (aw.gradient, aw.occlusion):
        with pytest.raises(ModelError, match="first axis has to count the inputs"):
            method(
                Module(lambda b: wrong(net(b))),
                x,
                0,
                **({"size": 4} if method is aw.occlusion else {}),
            )


# ---- the faster twin ----------------------------------------------------------------------------------------------


def build(seed, make):
    """A net in eval mode with random batch norm statistics."""
    torch.manual_seed(seed)
    net = make()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d) and m.running_mean is not None:
            m.running_mean.normal_(), m.running_var.uniform_(0.3, 3)
            if m.affine:
                nn.init.normal_(m.weight), nn.init.normal_(m.bias)
    return net.eval()


class Net(nn.Module):
    """A forward as a function of the module itself."""

    def __init__(self, forward, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.how, self.head = forward, nn.LazyLinear(3)
        self(torch.zeros(2, 3, 12, 12))

    def forward(self, x):
        return self.head(self.how(self, x).flatten(1))


conv, bn = nn.Conv2d, nn.BatchNorm2d


def seq(*layers):
    return lambda: Net(lambda m, x: m.body(x), body=nn.Sequential(*[layer() for layer in layers]))


def L(kind, *args, **options):
    return lambda: kind(*args, **options)


NETS = {
    "conv bn relu": seq(L(conv, 3, 8, 3), L(bn, 8), nn.ReLU, L(conv, 8, 8, 3, bias=False), L(bn, 8), nn.ReLU6),
    "no bias, stride": seq(L(conv, 3, 8, 3, 2, bias=False), nn.ReLU, L(conv, 8, 4, 3, (1, 2), (1, 0))),
    "groups, dilation": seq(L(conv, 3, 9, 3, groups=3, padding=1), L(bn, 9), nn.ReLU, L(conv, 9, 9, 3, groups=9, dilation=2), L(bn, 9), nn.ReLU6),
    "padding same": seq(L(conv, 3, 8, 3, padding="same"), L(bn, 8), nn.ReLU, L(conv, 8, 4, 4, padding="valid"), nn.ReLU),
    "reflect": seq(L(conv, 3, 8, 3, padding=1, padding_mode="reflect"), L(bn, 8), nn.ReLU, L(conv, 8, 4, 3, padding=2, padding_mode="circular"), nn.ReLU),
    "zero pad": seq(L(nn.ZeroPad2d, 2), L(conv, 3, 8, 3), L(bn, 8), nn.ReLU, L(nn.ZeroPad2d, (1, 2, 0, 1)), L(conv, 8, 8, 3, 2, padding=1), nn.ReLU),
    "zero pad, dilated": seq(L(nn.ZeroPad2d, (1, 2, 0, 1)), L(conv, 3, 8, 3, dilation=2), nn.ReLU, L(nn.ZeroPad2d, (2, 2, 1, 1)), L(conv, 8, 8, 3, dilation=2)),
    "negative pad": seq(L(nn.ZeroPad2d, (-1, 2, 0, 1)), L(conv, 3, 8, 3), nn.ReLU),
    "other pads": seq(L(nn.ConstantPad2d, 1, 0.5), L(conv, 3, 8, 3), nn.ReLU, L(nn.ReflectionPad2d, 1), L(conv, 8, 8, 3)),
    "plain norms": seq(L(conv, 3, 8, 3), L(bn, 8, affine=False), nn.ReLU, L(conv, 8, 8, 3), L(nn.GroupNorm, 2, 8), nn.ReLU, L(nn.InstanceNorm2d, 8)),
    "transposed": seq(L(nn.ConvTranspose2d, 3, 8, 3, 2), L(bn, 8), nn.ReLU, L(conv, 8, 8, 3), nn.ReLU),
    "even kernels": seq(L(conv, 3, 8, (2, 5), padding=(1, 2)), L(bn, 8), nn.ReLU6, L(conv, 8, 1, 1), nn.ReLU),
    "other activations": seq(L(conv, 3, 8, 3), nn.GELU, L(conv, 8, 8, 3), nn.SiLU, L(conv, 8, 8, 3), L(nn.LeakyReLU, 0.1), L(conv, 8, 4, 3), L(nn.ReLU, inplace=True)),
    "F.pad": lambda: Net(lambda m, x: F.relu(m.b(F.pad(F.relu(m.a(F.pad(x, (1, 2, 3, 0)))), [1, 1, 1, 1]))), a=conv(3, 8, 3), b=conv(8, 4, 3)),
    "F.pad with a value": lambda: Net(lambda m, x: m.b(F.pad(m.a(F.pad(x, (1, 1, 1, 1), value=0.7)), (1, 1, 1, 1), "constant", 0.3)), a=conv(3, 8, 3), b=conv(8, 4, 3)),
    "F.pad of three axes": lambda: Net(lambda m, x: m.a(F.pad(x, (1, 0, 0, 1, 1, 0))), a=conv(4, 8, 3)),
    "pad used twice": lambda: Net(lambda m, x: (lambda p: m.a(p) + p[:, :, 1:-1, 1:-1].sum(1, keepdim=True))(F.pad(x, (1, 1, 1, 1))), a=conv(3, 8, 3)),
    "pad, then changed": lambda: Net(lambda m, x: (lambda y, p: (y.mul_(3), m.a(p))[1] + y.mean())(*(lambda y: (y, F.pad(y, (1, 1, 1, 1))))(x * 1)), a=conv(3, 8, 3)),
    "conv used twice": lambda: Net(lambda m, x: F.relu(m.n(m.b(F.relu(m.n(m.b(m.a(x))))))), a=conv(3, 8, 1), b=conv(8, 8, 3), n=bn(8)),
    "output used twice": lambda: Net(lambda m, x: (lambda y: F.relu(y) + m.n(y) - y)(m.a(x)), a=conv(3, 8, 3), n=bn(8)),
    "norm used twice": lambda: Net(lambda m, x: (lambda y: F.relu6(m.n(y)) + m.n(y))(m.a(x)), a=conv(3, 8, 3), n=bn(8)),
    "relu_ on a shared tensor": lambda: Net(lambda m, x: (lambda y: y.relu_() + y)(m.a(x)), a=conv(3, 8, 3)),
    "relu_ and its view": lambda: Net(lambda m, x: (lambda y: (lambda v: y.relu_() * v)(y.view(y.shape)))(m.a(x)), a=conv(3, 8, 3)),
    "forgotten relu_": lambda: Net(lambda m, x: (lambda y: (F.relu(y, inplace=True), y * 2)[1])(m.a(x)), a=conv(3, 8, 3)),
    "add_ then relu": lambda: Net(lambda m, x: (lambda y: torch.relu_(y.add_(0.3)))(m.a(x)), a=conv(3, 8, 3)),
    "residual": lambda: Net(lambda m, x: F.relu(m.n(m.b(F.relu(m.a(x)))) + m.a(x)), a=conv(3, 8, 3, padding=1), b=conv(8, 8, 3, padding=1), n=bn(8)),
    "residual in place": lambda: Net(lambda m, x: (lambda y: F.relu((lambda z: z.__iadd__(y))(m.b(y)), inplace=True))(m.a(x)), a=conv(3, 8, 3), b=conv(8, 8, 1)),
    "F.conv2d": lambda: Net(lambda m, x: F.conv2d(F.relu(F.conv2d(x, m.a.weight, None, 2)), m.b.weight, m.b.bias, padding=1), a=conv(3, 8, 3), b=conv(8, 4, 3)),
    "F.conv2d by name": lambda: Net(lambda m, x: F.relu(F.conv2d(input=x, weight=m.a.weight, bias=m.a.bias, stride=(2,))), a=conv(3, 8, 3)),
    "F.conv2d with lists": lambda: Net(lambda m, x: F.relu(F.conv2d(x, m.a.weight, m.a.bias, [2], [1])), a=conv(3, 8, 3)),
    "F.conv2d with computed weights": lambda: Net(lambda m, x: F.relu(F.conv2d(x, m.a.weight * 2 + x.mean(), m.a.bias)), a=conv(3, 8, 3)),
    "F.conv2d, same": lambda: Net(lambda m, x: F.relu(F.conv2d(x, m.a.weight, m.a.bias, 1, "same")), a=conv(3, 8, 3)),
    "a module called by name": lambda: Net(lambda m, x: F.relu(m.a(input=x)), a=conv(3, 8, 3)),
    "conv 1d": lambda: Net(lambda m, x: F.relu(m.a(x.flatten(2))), a=nn.Conv1d(3, 8, 5)),
    "view": lambda: Net(lambda m, x: (lambda y: y.view(len_of(y), -1))(F.relu(m.a(x))), a=conv(3, 8, 3)),
    "reads its own shape": lambda: Net(lambda m, x: F.relu(m.a(x)).reshape(x.shape[0], -1) * x.shape[-1], a=conv(3, 8, 3)),
    "shared modules": lambda: (lambda c: Net(lambda m, x: m.body(x), body=nn.Sequential(conv(3, 8, 3), c, nn.ReLU(), c, c)))(conv(8, 8, 3, padding=1)),
    "branches on data": lambda: Net(lambda m, x: F.relu(m.a(x)) if x.sum() > 100 else m.a(x), a=conv(3, 8, 3)),
    "asks for its type": lambda: Net(lambda m, x: F.relu(m.a(x)) if isinstance(x, torch.Tensor) else m.a(x) * 9, a=conv(3, 8, 3)),
    "batch of one is special": lambda: Net(lambda m, x: F.relu(m.a(x)) * (1 if len(x) > 0 else 2), a=conv(3, 8, 3)),
    "a scale of the picture": lambda: Net(lambda m, x: m.a(x) / m.a(x).abs().amax((1, 2, 3), keepdim=True), a=conv(3, 8, 3)),
    "weight_norm": lambda: Net(lambda m, x: F.relu(m.a(x)), a=nn.utils.parametrizations.weight_norm(conv(3, 8, 3))),
    "spectral_norm": lambda: Net(lambda m, x: F.relu(m.a(x)), a=nn.utils.parametrizations.spectral_norm(conv(3, 8, 3))),
    "dropout": seq(L(conv, 3, 8, 3), L(bn, 8), nn.Dropout, nn.ReLU, nn.Dropout2d),
    "half the channels": lambda: Net(lambda m, x: torch.cat([F.relu(m.a(x)[:, :4]), m.a(x).chunk(2, 1)[1]], 1), a=conv(3, 8, 3)),
}  # fmt: skip


def len_of(y):
    return y.size(0)


def both_ways(monkeypatch, net, x, precision="float32"):
    """Occlusion and LIME without and with the twin; the weights are compared too."""
    before = copy.deepcopy(net.state_dict())
    versions = [t._version for t in (*net.parameters(), *net.buffers())]
    attributes = [sorted(vars(m)) for m in net.modules()]
    found = []
    for worth in (10**9, 1):
        monkeypatch.setattr(torch_module, "WORTH_A_TWIN", worth)
        model = aw.wrap(net)
        found.append(
            [aw.occlusion(model, x, 1, size=4, stride=2).values, aw.lime(model, x, 1, samples=30, components=REGIONS, precision=precision).values]
        )
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert versions == [t._version for t in (*net.parameters(), *net.buffers())]
    assert attributes == [sorted(vars(m)) for m in net.modules()]
    assert all(m._forward_hooks == {} or "hooked" in vars(net) for m in net.modules())
    return found


REGIONS = np.arange(144).reshape(12, 12) // 24
PICTURE = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(3)) * 3 - 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NETS)
def test_the_twin_gives_the_models_own_answers(name, dtype, monkeypatch):
    net = build(1, NETS[name]).to(dtype)
    plain, fast = both_ways(monkeypatch, net, PICTURE.to(dtype))
    for a, b in zip(plain, fast, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-4 * max(1, np.abs(a).max()))


@pytest.mark.parametrize(
    "name", ["conv bn relu", "groups, dilation", "zero pad", "F.pad", "residual", "F.conv2d", "shared modules", "norm used twice"]
)
def test_the_twin_is_really_used(name, monkeypatch):
    monkeypatch.setattr(torch_module, "WORTH_A_TWIN", 1)
    model = aw.wrap(build(1, NETS[name]))
    samples = PICTURE.repeat(2, 1, 1, 1)
    assert model.engine(model.prepare(samples), 0, samples, 100, "float32")[1] == "twin float32"


@pytest.mark.parametrize("change", ["optimizer", "load_state_dict", "data", "data negated", "new data", "parameter", "buffer", "permuted"])
def test_changed_weights_never_give_stale_answers(change, monkeypatch):
    monkeypatch.setattr(torch_module, "WORTH_A_TWIN", 1)
    net = build(1, NETS["conv bn relu"])
    model = aw.wrap(net)
    aw.occlusion(model, PICTURE, 1, size=4), aw.lime(model, PICTURE, 1, samples=30, components=REGIONS, precision="bfloat16")
    p = net.body[0].weight
    if change == "optimizer":
        net(PICTURE).sum().backward()
        torch.optim.SGD(net.parameters(), 0.5).step()
    elif change == "load_state_dict":
        net.load_state_dict(build(2, NETS["conv bn relu"]).state_dict())
    elif change == "data":
        p.data.mul_(1.5)
    elif change == "data negated":
        p.data.neg_()
    elif change == "new data":
        p.data = torch.randn_like(p)
    elif change == "parameter":
        net.body[0].weight = nn.Parameter(torch.randn_like(p))
    elif change == "permuted":
        p.data.copy_(p.data.flip(0).clone())
    else:
        net.body[1].running_var.data.mul_(4)
    fresh = aw.wrap(copy.deepcopy(net))
    for precision in ("float32", "bfloat16"):
        options = {"samples": 30, "components": REGIONS, "precision": precision}
        np.testing.assert_allclose(aw.lime(model, PICTURE, 1, **options).values, aw.lime(fresh, PICTURE, 1, **options).values, atol=1e-4)


def test_a_net_that_notes_things_on_itself_keeps_no_trace_of_the_tracing(monkeypatch):
    def forward(m, x):
        m.last, m.calls = m.a(x), m.calls + 1
        return F.relu(m.last)

    net = build(0, lambda: Net(forward, a=conv(3, 8, 3), calls=0))
    net(PICTURE)
    plain, fast = both_ways(monkeypatch, net, PICTURE)
    np.testing.assert_allclose(fast[0], plain[0], atol=1e-4)
    assert type(net.last) is torch.Tensor


def test_randomness_and_hooks_are_not_folded_away(monkeypatch):
    noisy = build(0, lambda: Net(lambda m, x: m.a(x) + torch.randn(1) * 0.5, a=conv(3, 8, 3)))
    monkeypatch.setattr(torch_module, "WORTH_A_TWIN", 1)
    model = aw.wrap(noisy)
    with pytest.raises(ModelError, match="draws random numbers"), model.untouched():
        model.engine(model.prepare(PICTURE), 0, PICTURE, 100, "float32")
    seeded = aw.wrap(noisy, seed=0)
    assert seeded.engine(seeded.prepare(PICTURE), 0, PICTURE, 100, "float32")[1] == "forward"
    hooked = build(0, NETS["conv bn relu"])
    hooked.hooked = True
    hooked.body[0].register_forward_hook(lambda m, args, out: out * 3)
    plain, fast = both_ways(monkeypatch, hooked, PICTURE)
    np.testing.assert_allclose(fast[0], plain[0], atol=1e-5)
    assert len(hooked.body[0]._forward_hooks) == 1


def test_nan_is_not_hidden_by_the_twin(monkeypatch):
    monkeypatch.setattr(torch_module, "WORTH_A_TWIN", 1)
    net = build(0, lambda: Net(lambda m, x: F.relu(m.a(torch.log(x))), a=conv(3, 8, 3)))
    with pytest.raises(ModelError, match="nan|inf"):
        aw.occlusion(net, PICTURE.abs() + 0.1, 1, size=4, baseline=-1.0)


def test_the_old_weight_norm_and_ordinary_control_flow_survive_a_copy(monkeypatch):
    with pytest.warns(FutureWarning, match="weight_norm"):
        net = build(0, lambda: Net(lambda m, x: F.relu(m.a(x)), a=nn.utils.weight_norm(conv(3, 8, 3))))
    net.hooked = True
    monkeypatch.setattr(torch_module, "WORTH_A_TWIN", 1)
    why = aw.occlusion(net, PICTURE, 1, size=4)
    monkeypatch.setattr(torch_module, "WORTH_A_TWIN", 10**9)
    np.testing.assert_allclose(why.values, aw.occlusion(net, PICTURE, 1, size=4).values, atol=1e-5)


def test_bfloat16_says_how_far_it_is_off(monkeypatch):
    for name in ("conv bn relu", "branches on data", "residual"):
        net = build(1, NETS[name])
        exact = aw.occlusion(net, PICTURE, 1, size=4)
        rough = aw.occlusion(net, PICTURE, 1, size=4, precision="bfloat16")
        off = rough.details["bfloat16_deviation"]
        assert 0 < off < 0.2
        assert np.abs(rough.values - exact.values).max() < 0.3
        assert "bfloat16: scores deviate" in rough.summary()
    own = build(1, NETS["conv bn relu"]).bfloat16()
    assert aw.occlusion(own, PICTURE, 1, size=4, precision="bfloat16").details["bfloat16_deviation"] < 0.1


def test_a_model_that_cannot_compute_in_bfloat16_says_so():
    net = build(0, lambda: Net(lambda m, x: torch.linalg.svdvals(m.a(x)), a=conv(3, 8, 3)))
    with pytest.raises(UnsupportedError, match="cannot compute in torch.bfloat16.*leave precision out"):
        aw.occlusion(net, PICTURE, 1, size=4, precision="bfloat16")
    tokens = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)).eval()
    why = aw.occlusion(tokens, torch.tensor([[1, 2, 3]]), 0, baseline=0, precision="bfloat16")
    np.testing.assert_allclose(why.values, aw.occlusion(tokens, torch.tensor([[1, 2, 3]]), 0, baseline=0).values, atol=0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_large_results_inside_resident_reuse_their_pages():
    code = """
import resource, numpy as np
from askwhy._memory import resident
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    for _ in range(4):
        parts = [np.ones(2**24, np.uint8) for _ in range(6)]  # 96 MB, given back each time
def cost():
    work(); before = faults(); work(); return faults() - before
np.ones(2**25 - 2**16, np.uint8)
outside = cost()
with resident():
    inside = cost()
print(outside, inside)
"""
    outside, inside = map(int, subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert inside < outside / 10, (outside, inside)
