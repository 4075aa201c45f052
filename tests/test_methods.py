"""What holds for every method, read from askwhy.methods(), so that a new one is covered the day it is written."""

from __future__ import annotations

import copy
import gc

import numpy as np
import pytest
import torch
from conftest import net_for, quick
from torch import nn

import askwhy as aw
from askwhy.errors import AskwhyError, Cancelled, InputError, ModelError, TargetError, UnsupportedError

EVERY = [m.name for m in aw.methods() if m.needs in ("predictions", "gradients", "layers")]  # what a network offers
every = pytest.mark.parametrize("name", EVERY)
by_batch = [m.name for m in aw.methods() if m.needs == "predictions"]


def state(net: nn.Module) -> dict[str, object]:
    """Everything about a model that a user could find changed."""
    return {
        "weights": {k: v.clone() for k, v in net.state_dict().items()},
        "versions": [p._version for p in net.parameters()],
        "requires_grad": [p.requires_grad for p in net.parameters()],
        "grad": [None if p.grad is None else p.grad.clone() for p in net.parameters()],
        "training": [m.training for m in net.modules()],
        "hooks": [len(d) for m in net.modules() for d in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks, m._backward_pre_hooks)],
        "attributes": [sorted(vars(m)) for m in net.modules()],
        "inplace": [getattr(m, "inplace", None) for m in net.modules()],
        "rng": torch.get_rng_state(),
        "numpy rng": np.random.get_state()[1].copy(),
        "grad mode": torch.is_grad_enabled(),
    }


def assert_same(before: object, after: object) -> None:
    if isinstance(before, dict):
        assert before.keys() == after.keys()
        for key in before:
            assert_same(before[key], after[key])
    elif isinstance(before, list):
        assert len(before) == len(after)
        for a, b in zip(before, after, strict=True):
            assert_same(a, b)
    elif isinstance(before, torch.Tensor):
        assert torch.equal(before, after)
    elif isinstance(before, np.ndarray):
        assert np.array_equal(before, after)
    else:
        assert before == after


@pytest.fixture
def used(net: nn.Module) -> nn.Module:
    """A model with a history: gradients, some frozen weights."""
    net(torch.randn(1, 3, 16, 16)).sum().backward()
    net[0].weight.requires_grad_(False)
    return net


@every
def test_the_model_is_left_as_it_was_found(name, used, x):
    before, kept = state(used), x.clone()
    aw.explain(used, x, name, **quick(name))
    assert_same(before, state(used))
    assert torch.equal(x, kept)
    assert x.grad is None
    assert not x.requires_grad


@every
@pytest.mark.parametrize("call", [1, 2])
def test_the_model_is_left_as_it_was_found_after_an_error_in_the_middle(name, used, x, call):
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.calls = used, 0

        def forward(self, x):
            self.calls += 1
            out = self.net(x)
            if self.calls == call:
                raise ZeroDivisionError("in the middle")
            return out

    whole = Fails().eval()
    before = state(used)
    failed = None
    try:
        aw.explain(whole, x, name, **quick(name))
    except ModelError as error:
        failed = error
    if failed is None:
        assert call > whole.calls  # the method asked the model less often
    else:
        assert isinstance(failed.__cause__, ZeroDivisionError)
        assert_same(before, state(used))


@every
def test_nothing_of_a_question_stays_in_memory(name, net, x):
    def tensors() -> int:
        gc.collect()
        return sum(type(t) is torch.Tensor for t in gc.get_objects())

    counts = []
    for _ in range(3):
        aw.explain(net, x, name, **quick(name))
        counts.append(tensors())
    assert counts[1] == counts[2]


@every
def test_cancelling_leaves_everything_clean(name, used, x):
    before = state(used)
    with pytest.raises(Cancelled):
        aw.explain(used, x, name, progress=lambda done, total: False, **quick(name))
    assert_same(before, state(used))


@every
def test_progress_counts_up_to_the_total(name, net, x):
    seen = []
    aw.explain(net, x, name, progress=lambda done, total: seen.append((done, total)), **quick(name))
    assert seen
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)
    assert seen[-1][0] == seen[-1][1]


@every
def test_same_seed_same_numbers_and_any_batch_size(name, net, x):
    first = aw.explain(net, x, name, **quick(name))
    again = aw.explain(net, x, name, **quick(name))
    assert np.array_equal(first.values, again.values)
    for size in (1, 3):
        other = aw.explain(net, x, name, batch_size=size, **quick(name))
        np.testing.assert_allclose(other.values, first.values, rtol=1e-5, atol=1e-5 * np.abs(first.values).max())


@every
def test_another_seed_changes_only_what_samples(name, net, x):
    if "seed" not in aw.explain(net, x, name, **quick(name)).params:
        pytest.skip("does not sample")
    a, b = (aw.explain(net, x, name, seed=seed, **quick(name)) for seed in (1, 2))
    assert a.seed == 1
    assert np.array_equal(a.values, b.values) == (a.std_error is None)


@every
def test_items_are_independent_of_each_other(name, net, x):
    both = aw.explain(net, x, name, target=1, **quick(name))
    one = aw.explain(net, x[:1], name, target=1, **quick(name))
    assert len(both) == 2
    np.testing.assert_allclose(both.values[:1], one.values, rtol=1e-4, atol=1e-5 * np.abs(one.values).max())


@pytest.mark.parametrize("name", [m.name for m in aw.methods() if m.needs in ("gradients", "layers") and m.name != "score_cam"])
def test_a_batch_of_64_gives_what_each_item_gets_alone(name, net):
    many = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    whole = aw.explain(net, many, name, target=1, **quick(name))
    assert len(whole) == 64
    sampled = whole.std_error is not None  # whose noise depends on the place in the batch
    for i in (0,) if sampled else (0, 31, 63):
        alone = aw.explain(net, many[i : i + 1], name, target=1, **quick(name))
        np.testing.assert_allclose(whole.values[i], alone.values[0], rtol=1e-4, atol=1e-5 * np.abs(alone.values).max())


@every
def test_shapes_and_bookkeeping(name, net, x):
    why = aw.explain(net, x, name, **quick(name))
    assert why.values.shape[0] == 2
    assert why.values.shape[1:] in {(3, 16, 16), (16, 16), (8,), (4, 4)}
    assert why.method == name
    assert why.model_calls >= 2
    assert why.seconds > 0
    assert why.versions["askwhy"] == aw.__version__
    with torch.no_grad():
        wanted = net(x).max(1)
    np.testing.assert_allclose(why.prediction, wanted.values, rtol=1e-5)
    assert why.target == tuple(f"class {k}" for k in wanted.indices.tolist())
    assert np.isfinite(why.values).all()


@every
def test_a_contrast_subtracts_the_second_target(name, net, x):
    why = aw.explain(net, x, name, target=2, versus=0, **quick(name))
    out = net(x).detach()
    np.testing.assert_allclose(why.prediction, out[:, 2] - out[:, 0], rtol=1e-4, atol=1e-6)
    by_hand = aw.explain(net, x, name, target=lambda o: o[:, 2] - o[:, 0], **quick(name))
    np.testing.assert_allclose(why.values, by_hand.values, rtol=1e-4, atol=1e-6)
    assert why.question() == "class 2 rather than class 0"


@every
def test_one_target_per_item(name, net, x):
    why = aw.explain(net, x, name, target=[3, 0], **quick(name))
    for i, target in enumerate((3, 0)):
        alone = aw.explain(net, x, name, target=target, **quick(name))
        np.testing.assert_allclose(why.values[i], alone.values[i], rtol=1e-4, atol=1e-6)


@every
def test_save_and_load_return_an_equal_explanation_without_pickle(name, net, x, tmp_path):
    why = aw.explain(net, x, name, **quick(name))
    path = why.save(tmp_path / "why.npz")
    assert aw.Explanation.load(path) == why
    assert [p.name for p in tmp_path.iterdir()] == ["why.npz"]
    import zipfile

    with zipfile.ZipFile(path) as file:
        for member in file.namelist():
            header = file.read(member)[:128]
            assert b"'descr': '|O'" not in header


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_model_keeps_its_own_dtype(name, x, dtype):
    net = net_for(name, dtype)
    before = state(net)
    why = aw.explain(net, x, name, target=1, **quick(name))
    assert_same(before, state(net))
    exact = aw.explain(net_for(name), x, name, target=1, **quick(name))
    if dtype is torch.float64:
        np.testing.assert_allclose(why.values, exact.values, rtol=1e-3, atol=1e-4 * np.abs(exact.values).max())
    else:
        assert np.corrcoef(why.values.ravel(), exact.values.ravel())[0, 1] > 0.5


@pytest.mark.parametrize("name", [m.name for m in aw.methods() if m.needs == "predictions" and m.name != "anchors"])
def test_another_precision_says_how_far_it_is_off(name, net, x):
    why = aw.explain(net, x, name, target=1, precision="bfloat16", **quick(name))
    assert 0 < why.details["bfloat16_deviation"] < 0.1
    assert "bfloat16" in why.summary()
    assert "bfloat16_deviation" not in aw.explain(net, x, name, target=1, **quick(name)).details


@every
def test_works_inside_no_grad_and_inference_mode(name, net, x):
    wanted = aw.explain(net, x, name, **quick(name)).values
    with torch.no_grad():
        np.testing.assert_array_equal(aw.explain(net, x, name, **quick(name)).values, wanted)
    with torch.inference_mode():
        np.testing.assert_array_equal(aw.explain(net, x.clone(), name, **quick(name)).values, wanted)


@every
def test_training_mode_is_refused(name, net, x):
    net.train()
    with pytest.raises(ModelError, match="training mode.*eval"):
        aw.explain(net, x, name, **quick(name))
    net.eval()
    net[1].train()
    with pytest.raises(ModelError, match=r"training mode \(1\)"):
        aw.explain(net, x, name, **quick(name))


@every
def test_a_score_that_is_nan_is_refused(name, net, x):
    with torch.no_grad():
        net[-1].bias[1] = torch.nan
    with pytest.raises(ModelError, match="score is nan"):
        aw.explain(net, x, name, target=1, **quick(name))


@every
def test_bad_inputs_have_one_clear_error(name, net, x):
    for bad, said in (
        (x[:, :2], r"model failed on an input of shape \[\d, 2, 16, 16\].*channels"),
        (x[0, 0, 0], "first axis counts the items"),
        (x * torch.nan, "item 0 holds NaN"),
        (x[:0], "first axis counts the items"),
        ("nowhere.png", "no transform"),
    ):
        with pytest.raises(AskwhyError, match=said):
            aw.explain(net, bad, name, **(quick(name) if name != "lime" else {"samples": 20}))


@every
def test_bad_targets_have_one_clear_error(name, net, x):
    model = aw.wrap(net, labels=["lynx", "tabby cat", "tiger cat", "dog"])
    for target, said in (
        ("tigr cat", "did you mean 'tiger cat'"),
        ("cat", "did you mean 'tabby cat', 'tiger cat'"),
        (4, "has 4 outputs, 0 to 3"),
        (-1, "counted from 0"),
        (1.5, "is a float"),
        ([0, 1, 2], "3 entries for 2 items"),
        (lambda out: out, r"has to return one number per input"),
    ):
        with pytest.raises(TargetError, match=said):
            aw.explain(model, x, name, target=target, **quick(name))
    with pytest.raises(TargetError, match="has no labels"):
        aw.explain(net, x, name, target="cat", **quick(name))
    assert aw.explain(model, x, name, target="Tiger Cat", **quick(name)).target == ("tiger cat", "tiger cat")


@every
def test_options_are_checked_by_name(name, net, x):
    with pytest.raises(InputError, match=f"{name} has no option 'progres'; did you mean 'progress'"):
        aw.explain(net, x, name, progres=True)
    with pytest.raises(InputError, match="batch_size=0"):
        aw.explain(net, x, name, batch_size=0, **quick(name))


@every
def test_a_black_box_is_refused_only_where_more_is_needed(name, net, x):
    def black_box(batch: np.ndarray) -> np.ndarray:
        return net(torch.as_tensor(batch)).detach().numpy()

    if aw.registry.find(name).needs == "predictions":
        wanted = aw.explain(net, x, name, **quick(name)).values
        np.testing.assert_allclose(aw.explain(black_box, x.numpy(), name, **quick(name)).values, wanted, rtol=1e-4, atol=1e-6)
    else:
        with pytest.raises(UnsupportedError, match="this model offers only predictions"):
            aw.explain(black_box, x.numpy(), name)


@every
def test_every_plot_takes_and_returns_axes(name, net, x):
    from matplotlib.figure import Figure

    why = aw.explain(net, x, name, **quick(name))
    ax = Figure().add_subplot()
    assert why.plot(ax) is ax
    assert why.plot(i=1).get_title()
    assert "data:image/png;base64," in why.to_html()
    assert name in why.summary()
    assert len(why.top(3)) == 3


def test_the_table_of_methods_names_the_fields_classification():
    found = {m.name: m for m in aw.methods()}
    assert (found["lime"].scope, found["lime"].when, found["lime"].access, found["lime"].needs) == (
        "local",
        "post hoc",
        "model-agnostic",
        "predictions",
    )
    assert found["grad_cam"].access == "model-specific"
    assert "model-agnostic" in repr(aw.methods())


@every
def test_a_method_is_documented_and_public(name):
    method = aw.registry.find(name)
    assert name in aw.__all__
    assert getattr(aw, name) is method.function
    assert "Example: `askwhy." in method.function.__doc__
    assert method.asks.endswith("?")
    assert "http" in method.paper


def test_compare_asks_several_methods_the_same_question(net, x):
    many = aw.compare(net, x, ["saliency", "occlusion"], target=2, size=8, stride=4)
    assert [why.method for why in many] == ["saliency", "occlusion"]
    assert {why.target for why in many} == {("class 2", "class 2")}
    assert many[1].params["size"] == [8, 8]
    with pytest.raises(InputError, match="none of saliency has an option 'size'"):
        aw.compare(net, x, ["saliency"], size=8)
    with pytest.raises(InputError, match="did you mean 'saliency'"):
        aw.compare(net, x, ["salency"])


def test_compare_of_all_methods_leaves_out_what_refuses_and_says_so(net, x):
    rows = torch.rand(2, 3, 16, 16)
    with pytest.warns(UserWarning, match="compare left out (cam|anchors): ") as said:
        many = aw.compare(net, x[:1], target=1, samples=100, components=np.arange(256).reshape(16, 16) // 32, background=rows, steps=8)
    assert len(said) == 2
    assert {why.method for why in many} == set(EVERY) - {"cam", "anchors"}
    with pytest.raises(UnsupportedError):
        aw.compare(net, x[:1], ["cam"])


def test_auto_chooses_by_model_and_input_and_says_so(net, x):
    assert aw.explain(net, x).method == "grad_cam"
    assert aw.explain(lambda batch: batch.mean((2, 3)), x.numpy(), samples=50).method == "lime"
    table = np.random.default_rng(0).normal(size=(3, 4))
    assert aw.explain(lambda batch: batch.sum(1), table, background=table).method == "shapley"
    linear = nn.Sequential(nn.Linear(4, 3)).eval()
    rows = torch.as_tensor(table, dtype=torch.float32)
    assert aw.explain(linear, rows, background=rows).method == "shapley"
    assert aw.registry.find(aw.explain(linear, rows).method).needs == "gradients"
    with pytest.raises(UnsupportedError, match="no method explains"):
        aw.explain(lambda batch: batch.sum((1, 2)), table[:, :, None])


def test_a_deep_copy_of_the_model_gives_the_same_answer_so_nothing_is_kept_on_the_net(net, x):
    first = aw.grad_cam(net, x)
    assert first.values.tobytes() == aw.grad_cam(copy.deepcopy(net), x).values.tobytes()
