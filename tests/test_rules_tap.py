"""Layers that are read and edited, operations that are intercepted; nothing stays behind."""

from __future__ import annotations

import operator

import pytest
import torch
from conftest import small_net
from torch import nn

from askwhy.errors import LayerError, UnsupportedError
from askwhy.operations import key_of
from askwhy.rules import check_graph, needs_grad, on_gradient, rules
from askwhy.tap import find_layer, once, tap


def hooks(net):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in net.modules())


def test_tap_keeps_outputs_in_the_order_of_the_calls(net, x):
    with tap(net, ["0", net[2]]) as seen:
        net(x)
        net(x * 2)
    assert list(seen) == ["0", "2"]
    assert [t.shape for t in seen["0"]] == [(2, 6, 16, 16)] * 2
    torch.testing.assert_close(seen["0"][1], net[0](x * 2))
    torch.testing.assert_close(seen["2"][0], net[:3](x))
    assert hooks(net) == 0


def test_a_layer_that_is_named_twice_is_kept_once(net, x):
    with tap(net, ["0", net[0]]) as seen:
        net(x)
    once(seen, "0")
    with tap(net, []) as seen:
        net(x)
    assert seen == {}


def test_edit_changes_what_the_model_goes_on_with(net, x):
    plain = net(x)
    with tap(net, ["2"], edit=lambda name, out: out * 0) as seen:
        changed = net(x)
    assert (seen["2"][0] == 0).all()
    torch.testing.assert_close(changed, net[3:](torch.zeros(2, 6, 16, 16)))
    torch.testing.assert_close(net(x), plain)
    with tap(net, ["2"], edit=lambda name, out: None):
        torch.testing.assert_close(net(x), plain)


def test_taps_nest_and_are_undone_in_any_case(net, x):
    with tap(net, ["0"]) as outer:
        with pytest.raises(ZeroDivisionError), tap(net, ["0", "2"], edit=lambda name, out: out + 1) as inner:
            net(x).item(1 // 0)
        assert hooks(net) == 1
        net(x)
    assert (len(outer["0"]), len(inner["0"])) == (2, 1)
    torch.testing.assert_close(inner["0"][0], outer["0"][0] + 1)
    assert hooks(net) == 0
    with pytest.raises(LayerError), tap(net, ["0", "nowhere"]):
        pass
    assert hooks(net) == 0
    with pytest.raises(KeyboardInterrupt), tap(net, ["0"], edit=interrupt):
        net(x)
    assert hooks(net) == 0


def interrupt(name, out):
    raise KeyboardInterrupt


def test_a_later_step_in_place_does_not_change_what_is_kept(x):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)).eval()
    with tap(net, ["0"]) as seen:
        net(x)
    assert seen["0"][0].min() < 0


def test_a_layer_that_gives_no_tensor_or_does_not_run(x):
    net = nn.ModuleDict({"rnn": nn.LSTM(4, 3), "idle": nn.ReLU()}).eval()
    with tap(net, ["rnn"]), pytest.raises(LayerError, match="'rnn' gives a tuple"):
        net["rnn"](torch.zeros(2, 1, 4))
    with tap(net, ["idle"]) as seen:
        pass
    with pytest.raises(LayerError, match="'idle' did not run"):
        once(seen, "idle")


def test_layers_are_found_by_name_and_module():
    net = small_net()
    assert find_layer(net, "4") == ("4", net[4]) == find_layer(net, net[4])
    assert find_layer(net, net) == ("", net)
    for bad in ("44", nn.ReLU(), 4, None):
        with pytest.raises(LayerError):
            find_layer(net, bad)


# ---- rules --------------------------------------------------------------------------------------------------------

SPELLED = {
    "add": ["x + y", "1 + x", "x + 1", "x.add(y)", "torch.add(x, y)", "operator.iadd(x.clone(), y)", "x.clone().add_(y)"],
    "sub": ["x - y", "x - 1", "x.sub(y)", "torch.sub(x, y)", "torch.subtract(x, y)", "x.subtract(y)", "operator.isub(x.clone(), y)", "x.clone().subtract_(y)"],
    "rsub": ["1 - x", "torch.rsub(x, y)"],
    "mul": ["x * y", "2 * x", "x * 2", "torch.mul(x, y)", "torch.multiply(x, y)", "x.multiply(y)", "operator.imul(x.clone(), y)", "x.clone().multiply_(y)"],
    "div": ["x / y", "x / 2", "torch.div(x, y)", "torch.divide(x, y)", "torch.true_divide(x, y)", "x.clone().true_divide_(y)", "operator.itruediv(x.clone(), y)"],
    "rdiv": ["2 / x"],
    "neg": ["-x", "x.neg()", "torch.negative(x)", "x.clone().neg_()"],
    "relu": ["torch.relu(x)", "torch.nn.functional.relu(x)", "x.relu()", "x.clone().relu_()", "torch.nn.functional.relu(x.clone(), inplace=True)", "torch.nn.ReLU()(x)"],
    "matmul": ["x @ y", "torch.matmul(x, y)"],
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLED)
def test_one_name_for_every_spelling(name):
    x, y = torch.rand(3, 3) + 1, torch.rand(3, 3) + 1
    for text in SPELLED[name]:
        with rules(nn.Identity(), {}) as record:
            eval(text, {"x": x, "y": y, "torch": torch, "operator": operator})
        assert record.operations[name] == 1, (text, record.operations)


def test_a_rule_reaches_every_spelling_of_a_product():
    x = torch.full((3,), 2.0, requires_grad=True)
    tenfold = {"mul": on_gradient(lambda out: lambda gradient: gradient * 10)}
    for text in SPELLED["mul"]:
        with rules(nn.Identity(), tenfold) as record:
            out = eval(text, {"x": x, "y": torch.full((3,), 2.0), "torch": torch, "operator": operator})
        (g,) = torch.autograd.grad(out.sum(), x)
        assert g.tolist() == [20.0] * 3, text
        assert record.ruled["mul"] == 1


def test_rules_nest_and_end_with_their_block():
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    double = {"relu": on_gradient(lambda out: lambda g: g * 2)}
    with rules(nn.Identity(), double) as outer:
        with rules(nn.Identity(), {"relu": on_gradient(lambda out: lambda g: g + 1)}) as inner:
            out = x.relu().sum()
        with pytest.raises(ZeroDivisionError), rules(nn.Identity(), {"exp": lambda op, *a: 1 / 0}):
            x.exp()
        after = x.relu().sum()
    assert inner.ruled["relu"] == 1
    assert outer.ruled["relu"] == 2
    assert torch.autograd.grad(out, x)[0].tolist() == [0, 3]
    assert torch.autograd.grad(after, x)[0].tolist() == [0, 2]
    assert torch.autograd.grad(x.relu().sum(), x)[0].tolist() == [0, 1]


def test_counts_and_comparisons():
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    with rules(nn.Identity(), {"relu": lambda op, *args: NotImplemented}) as record:
        y = x.relu() + x.relu()
        (y > 0), (torch.ones(2) > 0)
        check_graph(y.sum(), record)
    assert record.operations["relu"] == 2
    assert record.ruled == {}
    assert record.compared == {"gt": 1}
    with pytest.raises(UnsupportedError, match="a Relu that runs inside another operation"):
        check_graph(x.relu().sum(), record)
    assert needs_grad((x, 1))
    assert not needs_grad((torch.ones(1), 1))


def test_key_of_what_has_no_name():
    assert key_of(object()) == "?"
