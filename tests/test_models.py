"""What can be wrapped and what can be asked: every kind of model, every kind of item."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import small_net
from PIL import Image
from torch import nn

import askwhy as aw
from askwhy.errors import AskwhyError, FileError, InputError, ModelError, TargetError
from askwhy.models.base import to_numpy
from askwhy.models.pictures import frame_of, from_values, read_picture

Pair = collections.namedtuple("Pair", ["logits", "features"])


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    hidden: torch.Tensor | None = None


class Returns(nn.Module):
    """A small net whose scores [n, 4] are put into something else."""

    def __init__(self, shape):
        super().__init__()
        self.net, self.shape = small_net(), shape
        self.eval()

    def forward(self, x):
        return self.shape(self.net(x))


def scores(model, x):
    model = aw.wrap(model)
    items = model.prepare(x)
    with model.untouched():
        return to_numpy(model.outputs(items, items.batch))


# ---- torch outputs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "output"),
    [
        (lambda s: s, None),
        (lambda s: s, "logits"),
        (lambda s: (s,), None),
        (lambda s: (s, s[:, :, None, None]), None),
        (lambda s: [s, "text"], None),
        (lambda s: {"logits": s, "features": s * 2}, None),
        (lambda s: {"logits": s, "features": s * 2}, "logits"),
        (lambda s: {"out": s, "aux": s * 2}, None),
        (lambda s: {"a": s, "b": s * 2}, "a"),
        (lambda s: {0: s, 1: s * 2}, 0),
        (lambda s: Output(s, s * 2), None),
        (lambda s: Output(s * 2, s), "hidden"),
        (lambda s: Pair(s, s * 2), None),
        (lambda s: Pair(s * 2, s), "features"),
        (lambda s: (s * 2, s), 1),
        (lambda s: (s * 2, s), -1),
        (lambda s: (s * 2, (s,)), lambda out: out[1][0]),
    ],
)
def test_scores_are_found_in_what_a_torch_model_returns(shape, output, net, x):
    with torch.no_grad():
        wanted = net(x).numpy()
    np.testing.assert_allclose(scores(aw.wrap(Returns(shape), output=output), x), wanted, rtol=1e-6)


def test_a_single_score_is_a_column(net, x):
    with torch.no_grad():
        wanted = net(x)[:, :1].numpy()
    for shape in (lambda s: s[:, 0], lambda s: s[:, :1]):
        model = aw.wrap(Returns(shape))
        np.testing.assert_allclose(scores(model, x), wanted, rtol=1e-6)
        assert aw.occlusion(model, x, size=8).target == ("the score", "the score")


def test_probabilities_are_the_softmax_or_the_sigmoid_of_a_single_score(net, x):
    with torch.no_grad():
        out = net(x)
    np.testing.assert_allclose(scores(aw.wrap(net, output="probabilities"), x), out.softmax(1), rtol=1e-5)
    for shape in (lambda s: s[:, 2], lambda s: s[:, 2:3]):
        np.testing.assert_allclose(scores(aw.wrap(Returns(shape), output="probabilities"), x), out[:, 2:3].sigmoid(), rtol=1e-5)
    own = Returns(lambda s: {"logits": s, "probabilities": s.softmax(1)})
    np.testing.assert_allclose(scores(aw.wrap(own, output="probabilities"), x), out.softmax(1), rtol=1e-5)
    alone = Returns(lambda s: {"probabilities": s.softmax(1)})
    np.testing.assert_allclose(scores(aw.wrap(alone, output="probabilities"), x), out.softmax(1), rtol=1e-5)


@pytest.mark.parametrize(
    "shape", [lambda s: (s, s * 2), lambda s: {"a": s, "b": s}, lambda s: Pair(s, s)._replace(logits=None), lambda s: s[:, :, None, None]]
)
def test_probabilities_of_what_is_no_score_are_refused(shape, x):
    if isinstance(shape(torch.zeros(1, 1)), Pair):
        pytest.skip("one tensor is left, which is the score")
    with pytest.raises(InputError, match="probabilities"):
        scores(aw.wrap(Returns(shape), output="probabilities"), x)


@pytest.mark.parametrize(
    ("shape", "said"),
    [(lambda s: (s, s * 2), "tuple"), (lambda s: {"a": s, "b": s}, "dict"), (lambda s: "text", "str"), (lambda s: s[:, :, None], r"\[\d, 4, 1\]")],
)
def test_ambiguous_outputs_give_one_clear_error(shape, said, x):
    for method in (aw.occlusion, aw.gradient):
        with pytest.raises(TargetError, match=r"needs scores \[n, classes\].*" + said + ".*output="):
            method(Returns(shape), x, target=1)


@pytest.mark.parametrize(
    ("shape", "output", "said"),
    [
        (lambda s: (s, s), 2, "a tuple of 2"),
        (lambda s: {"a": s}, "b", r"a dict with the keys \['a'\]"),
        (lambda s: Output(s), "nothing", "a Output"),
        (lambda s: s, 0, "a tensor"),
        (lambda s: s, "shape", "a tensor"),
        (lambda s: (s, s), "a", "a tuple of 2"),
    ],
)
def test_an_output_that_is_not_there_names_what_is(shape, output, said, x):
    with pytest.raises(InputError, match=f"output={output!r}: the model returns {said}"):
        scores(aw.wrap(Returns(shape), output=output), x)


def test_wrapping_twice(net, x):
    model = aw.wrap(net, labels=list("abcd"))
    assert aw.wrap(model) is model
    for again in ({"labels": list("abcd")}, {"transform": len}, {"output": "logits"}):
        with pytest.raises(InputError, match="wrapped already"):
            aw.wrap(model, **again)


def test_labels(net):
    assert aw.wrap(net, labels={1: "b", 0: "a", 2: 5}).labels == ("a", "b", "5")
    assert aw.wrap(net, labels=np.array(["a", "b"])).labels == ("a", "b")
    for bad in ({1: "a", 2: "b"}, {"a": 0, "b": 1}, {0: "a", "x": "b"}):
        with pytest.raises(InputError, match="labels= as a dict needs the keys 0..1"):
            aw.wrap(net, labels=bad)
    with pytest.raises(InputError, match="labels='cat'"):
        aw.wrap(net, labels="cat")


@pytest.mark.parametrize("thing", [3, "net.pt", None, nn.Linear, dict, {"a": 1}])
def test_what_cannot_be_asked(thing):
    with pytest.raises(InputError, match="cannot be asked: give an nn.Module"):
        aw.wrap(thing)


def test_a_compiled_model_is_asked_through_its_own_module(net, x):
    class Compiled(nn.Module):
        def __init__(self):
            super().__init__()
            self._orig_mod = net

        def forward(self, x):
            raise AssertionError("the compiled form must not run")

    np.testing.assert_array_equal(aw.guided_backprop(Compiled(), x, 1).values, aw.guided_backprop(net, x, 1).values)


def test_models_without_parameters_keep_the_dtype_of_the_input(x):
    class Mean(nn.Module):
        def forward(self, x):
            assert x.dtype == self.wanted, x.dtype
            return x.mean((2, 3))

    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        model = Mean().eval()
        model.wanted = dtype
        assert aw.occlusion(model, x.to(dtype), 1, size=8).values.shape == (2, 16, 16)
        assert aw.gradient(model, x.to(dtype), 1).values[0, 1, 0, 0] == pytest.approx(1 / 256, rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_inputs_are_cast_to_the_models_dtype(dtype, x):
    net = small_net(dtype=dtype)
    for given in (x, x.double(), x.numpy(), x.numpy().astype(np.float64)):
        items = aw.wrap(net).prepare(given)
        assert items.batch.dtype == dtype
        np.testing.assert_allclose(scores(net, given), to_numpy(net(x.to(dtype))), rtol=1e-6)


# ---- items of a torch model ---------------------------------------------------------------------------------------


def test_numbers_in_every_packing(net, x):
    read_only = x.numpy().copy()
    read_only.flags.writeable = False
    flipped = x.flip(3).numpy()[:, :, :, ::-1]
    for given in (x, list(x), x.numpy(), read_only, flipped, list(x.numpy()), x.tolist()):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_allclose(scores(net, given), scores(net, x), rtol=1e-6)


def test_a_table_for_a_torch_model():
    net = nn.Linear(3, 2).eval()
    table = pd.DataFrame({"a": [1, 2], "b": [0.5, 0.1], "c": [1, 0]})
    why = aw.occlusion(net, table, 1, baseline=0)
    np.testing.assert_allclose(why.values, net.weight[1].detach().numpy() * table.to_numpy(), atol=1e-6)
    assert why.components[0] == ("a", "b", "c")
    whole = np.array([[1, 0, 255], [3, 4, 5]], dtype=np.uint8)
    with pytest.raises(ModelError, match="the model failed on an input of shape"):  # integers stay integers: some models need them
        aw.occlusion(net, whole, 1, baseline=0)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ([], "first axis counts the items"),
        ((), "first axis counts the items"),
        (None, "NoneType"),
        (3.5, "first axis counts the items"),
        ({"a": 1}, "dict"),
        ([torch.zeros(3, 4, 4), torch.zeros(3, 5, 5)], "different shapes"),
        ([[1, 2], [3]], "cannot be read as numbers"),
        ([[[1, "a"]]], "numbers"),
        (np.array([["a", "b"]]), "numbers"),
        (np.array([[1, None]], dtype=object), "numbers"),
        (torch.zeros(0, 3, 16, 16), "first axis counts the items"),
        (torch.zeros(1, 3, 0, 16), "is empty"),
        ([np.zeros((4, 4, 3), np.uint8), "a.png"], "no transform"),
        (np.full((1, 3, 16, 16), np.inf), "item 0 holds NaN"),
    ],
)
def test_what_is_no_item_gives_one_clear_error(bad, said, net):
    with pytest.raises(InputError, match=said):
        aw.wrap(net).prepare(bad)


def test_an_unbatched_picture_is_refused_in_every_method(x):
    class Lenient(nn.Module):
        """A net that takes [c, h, w] and [n, c, h, w] alike, with as many classes as channels."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(torch.relu(self.conv(x)).mean((-2, -1)))

    for net in (small_net(), Lenient().eval()):
        for method in (aw.gradient, aw.guided_backprop, aw.occlusion):
            options = {"components": "pixels", "baseline": 0} if method is aw.occlusion else {}
            with pytest.raises((ModelError, InputError), match=r"x\[None\]|failed on an input of shape \[\d, 16, 16\]"):
                method(net, x[0], **options)


def to_chw(picture):
    return torch.from_numpy(np.asarray(picture.resize((16, 16)), dtype=np.float32) / 255).permute(2, 0, 1)


def test_pictures_in_every_packing(net, tmp_path):
    array = (np.random.default_rng(0).random((20, 30, 3)) * 255).astype(np.uint8)
    image = Image.fromarray(array)
    image.save(tmp_path / "a.png")
    model = aw.wrap(net, transform=to_chw)
    wanted = scores(net, to_chw(image)[None])
    for given in (array, array[None], [array], image, [image], tmp_path / "a.png", str(tmp_path / "a.png"), [tmp_path / "a.png"]):
        np.testing.assert_allclose(scores(model, given), wanted, rtol=1e-6)
    two = np.stack([array, array[::-1]])
    for given in (two, [image, Image.fromarray(array[::-1])], (tmp_path / "a.png", array[::-1])):
        assert scores(model, given).shape == (2, 4)
        np.testing.assert_allclose(scores(model, given), scores(model, two), rtol=1e-6)
    grey = aw.wrap(net, transform=to_chw).prepare(array[:, :, 0])
    assert grey.batch.shape == (1, 3, 16, 16)


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (lambda p: p, "returned .*Image"),
        (lambda p: to_chw(p)[None], "without a batch axis"),
        (lambda p: torch.tensor(1.0), "without a batch axis"),
        (lambda p: torch.zeros(3, *p.size), "different shapes"),
        (lambda p: to_chw(p) * torch.nan, "item 0 holds NaN"),
        (lambda p: np.array(["a"]), "numbers"),
    ],
)
def test_transforms_that_give_no_input(transform, said, net):
    two = [Image.new("RGB", (20, 20), "red"), Image.new("RGB", (20, 30), "red")]
    with pytest.raises(InputError, match=said):
        aw.wrap(net, transform=transform).prepare(two)


@pytest.mark.parametrize(
    "transform",
    [
        lambda p: to_chw(p).numpy(),
        lambda p: to_chw(p).numpy().astype(np.float64),
        lambda p: np.flip(to_chw(p.transpose(Image.Transpose.FLIP_LEFT_RIGHT)).numpy(), 2),
        lambda p: to_chw(p).requires_grad_(),
        lambda p: to_chw(p).to(torch.bfloat16),
    ],
)
def test_transforms_may_give_any_numbers(transform, net):
    picture = Image.effect_noise((30, 20), 80)
    items = aw.wrap(net, transform=transform).prepare(picture)
    np.testing.assert_allclose(items.batch[0], to_chw(picture.convert("RGB")), atol=0.005)
    assert items.frames[0] is not None


def test_a_transform_that_gives_height_width_channels_shows_the_right_picture():
    model = aw.wrap(lambda b: b.mean((1, 2)), transform=lambda p: np.asarray(p.resize((12, 16)), dtype=np.float32))
    assert model.prepare(Image.new("RGB", (60, 80))).pictures[0].shape == (16, 12, 3)

    class Mean(nn.Module):
        def forward(self, x):
            return x.mean((1, 2))

    model = aw.wrap(Mean().eval(), transform=lambda p: np.asarray(p.resize((12, 16)), dtype=np.float32))
    items = model.prepare(Image.new("RGB", (60, 80)))
    assert items.pictures[0].shape == (16, 12, 3)
    assert items.frames[0].box == pytest.approx((0, 0, 60, 80), abs=1.5)


def test_a_transform_that_flattens_is_explained_as_a_table():
    model = aw.wrap(nn.Linear(48, 2).eval(), transform=lambda p: np.asarray(p.resize((4, 4)), dtype=np.float32).ravel())
    assert aw.occlusion(model, Image.new("RGB", (20, 20), "red"), baseline=0).values.shape == (1, 48)


# ---- black boxes --------------------------------------------------------------------------------------------------

TABLE = np.random.default_rng(0).normal(size=(5, 3))


@pytest.mark.parametrize(
    "answer",
    [
        lambda s: s,
        lambda s: s[:, None],
        lambda s: s.tolist(),
        lambda s: torch.from_numpy(s),
        lambda s: torch.from_numpy(s).requires_grad_(),
        lambda s: torch.from_numpy(s).to(torch.bfloat16),
        lambda s: pd.Series(s),
        lambda s: pd.DataFrame({"p": s}),
    ],
)
def test_a_function_may_return_any_kind_of_numbers(answer):
    why = aw.occlusion(lambda b: answer(b @ [1.0, 2.0, 3.0]), TABLE, baseline=0)
    np.testing.assert_allclose(why.values, TABLE * [1, 2, 3], atol=0.1)
    assert why.target[0] == "the score"


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda b: {"p": b[:, 0]}, "returned a dict"),
        (lambda b: "cat", "returned"),
        (lambda b: None, "returned"),
        (lambda b: [[1, 2], [3]], "returned a list"),
        (lambda b: np.array(["cat"] * len(b)), "and not numbers"),
        (lambda b: 1.0, "returned a float"),
        (lambda b: b[0], "first axis has to count the inputs"),
        (lambda b: b[:, :, None], r"returns \[1, 3, 1\]"),
        (lambda b: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_function_that_gives_no_scores_gets_one_clear_error(function, said):
    with pytest.raises(AskwhyError, match=said):
        aw.occlusion(function, TABLE, baseline=0)


def test_output_of_a_function_is_its_own_business():
    with pytest.raises(InputError, match="let your function return the scores"):
        aw.wrap(lambda b: b, output=1)


def test_a_byte_table_is_a_table_unless_there_is_a_transform():
    ones = np.array([[1, 0, 1], [0, 1, 1]], dtype=np.uint8)
    why = aw.occlusion(lambda b: b.sum(1), ones, baseline=0)
    np.testing.assert_array_equal(why.values, ones)


def test_a_stack_of_grey_pictures_is_a_list_of_them():
    stack = (np.random.default_rng(0).random((5, 20, 16)) * 255).astype(np.uint8)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(320, 2)).eval()
    model = aw.wrap(net, transform=lambda photo: torch.from_numpy(np.asarray(photo.convert("L"), np.float32)[None] / 255))
    items = model.prepare(stack)
    assert np.array_equal(items.batch, stack[:, None].astype(np.float32) / 255)
    assert len(model.prepare(stack[0])) == 1
    assert np.array_equal(aw.gradient(model, stack, 0).values, aw.gradient(model, list(stack), 0).values)
    assert len(model.prepare(np.zeros((20, 16, 3), np.uint8))) == 1  # one in colour


def test_uint8_pictures_for_a_function():
    array = (np.random.default_rng(0).random((2, 16, 20, 3)) * 255).astype(np.uint8)
    f = lambda b: b.reshape(len(b), -1).mean(1)  # noqa: E731
    for given, n in ((array[0], 1), (array, 2), (list(array), 2)):
        np.testing.assert_allclose(scores(f, given)[:, 0], array[:n].reshape(n, -1).mean(1))
    small = aw.wrap(f, transform=lambda p: np.asarray(p.resize((8, 8))))
    assert small.prepare(array).batch.shape == small.prepare(list(array)).batch.shape == (2, 8, 8, 3)
    items = small.prepare(array)
    assert items.frames[0] is not None
    assert items.frames[0].box == pytest.approx((0, 0, 20, 16), abs=1.5)


def test_memory_that_runs_out_inside_a_function_is_no_failure_of_the_model():
    calls = []

    def f(b):
        calls.append(len(b))
        if len(b) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return b.sum(1)

    why = aw.occlusion(f, np.ones((1, 40)), baseline=0, batch_size=40)
    np.testing.assert_allclose(why.values, 1)
    assert max(calls) == 40


# ---- scikit-learn -------------------------------------------------------------------------------------------------


def frame(n=60, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "income": rng.normal(3, 1, n),
            "city": pd.Categorical(rng.choice(["Kyoto", "Oslo", "Lima"], n), categories=["Kyoto", "Lima", "Oslo"]),
            "job": rng.choice(["cook", "judge"], n),
            "member": rng.random(n) > 0.5,
        }
    )


@pytest.fixture(scope="module")
def pipeline():
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    x = frame(200, 1)
    y = np.where(x.income + (x.city == "Oslo") * 2 + x.member > 4, "yes", "no")
    turn = ColumnTransformer([("n", StandardScaler(), ["age", "income"]), ("c", OneHotEncoder(), ["city", "job"]), ("b", "passthrough", ["member"])])
    return make_pipeline(turn, LogisticRegression()).fit(x, y)


def test_occlusion_of_a_mixed_table_is_the_slow_loop_over_background_rows(pipeline):
    x, background = frame(2, 5), frame(7, 6)
    why = aw.occlusion(pipeline, x, "yes", background=background)
    for i in range(2):
        for k, column in enumerate(x.columns):
            changed = pd.concat([x.iloc[[i]]] * len(background), ignore_index=True)
            changed[column] = background[column].to_numpy()
            changed = changed.astype(x.dtypes)
            wanted = pipeline.predict_proba(x.iloc[[i]])[0, 1] - pipeline.predict_proba(changed)[:, 1].mean()
            assert why.values[i, k] == pytest.approx(wanted, abs=1e-12)
    assert why.components[0] == tuple(x.columns)
    assert why.target == ("yes", "yes")


def test_the_model_sees_the_tables_own_dtypes():
    seen = []

    class Looks:
        def predict_proba(self, x):
            seen.append(x)
            return np.ones((len(x), 2)) * x[["age"]].to_numpy()

    x = frame(3)
    x["n"] = pd.array([1, None, 3], dtype="Int64")
    x["day"] = pd.to_datetime(["2020-01-01", "2021-02-03", "2022-03-04"])
    aw.occlusion(Looks(), x, 0, background=x.iloc[::-1])
    for got in seen:
        pd.testing.assert_series_equal(got.dtypes, x.dtypes)
        assert list(got.city.cat.categories) == ["Kyoto", "Lima", "Oslo"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b: b[["income", "age", "city", "job", "member"]], "columns of the background are not those of x.*order"),
        (lambda b: b.rename(columns={"age": "Age"}), "Age"),
        (lambda b: b.drop(columns="age"), "age"),
        (lambda b: b.assign(city="Rome"), "Rome.*city"),
        (lambda b: b.assign(age=30.5), "30.5.*age"),
    ],
)
def test_background_rows_that_do_not_fit_are_refused(pipeline, change, said):
    with pytest.raises(InputError, match=said):
        aw.occlusion(pipeline, frame(1), background=change(frame(4)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x[x.columns[::-1]], "order differs"),
        (lambda x: x.drop(columns=["age"]), r"missing \['age'\]"),
        (lambda x: x.assign(b=1), r"unknown \['b'\]"),
        (lambda x: x.iloc[:0], "no rows"),
    ],
)
def test_columns_are_checked(pipeline, change, said):
    with pytest.raises(InputError, match=said):
        aw.wrap(pipeline).prepare(change(frame(3)))


def test_an_array_for_an_estimator_that_was_trained_on_a_table():
    from sklearn.linear_model import LogisticRegression

    x = frame(50)[["age", "income"]]
    fitted = LogisticRegression().fit(x, x.income > 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scikit-learn warns when the names are missing
        by_array = aw.occlusion(fitted, x.to_numpy()[:2], 1, background=x.to_numpy())
    np.testing.assert_allclose(by_array.values, aw.occlusion(fitted, x.iloc[:2].astype(float), 1, background=x).values, atol=1e-12)
    assert by_array.components[0] == ("age", "income")
    with pytest.raises(InputError, match="x has 3 columns, the model was trained on 2"):
        aw.wrap(fitted).prepare(np.zeros((1, 3)))


def test_whole_numbers_are_not_cut_silently():
    f = lambda b: b.sum(1)  # noqa: E731
    whole = np.array([[3, 4, 5]])
    for given in ({"baseline": 0.5}, {"background": np.full((2, 3), 0.5)}, {"baseline": np.array([0.5, 0, 0])}):
        with pytest.raises(InputError, match="whole numbers"):
            aw.occlusion(f, whole, **given)
    np.testing.assert_array_equal(aw.occlusion(f, whole, baseline=1.0).values, [[2, 3, 4]])
    with pytest.raises(InputError, match="uint8"):
        aw.occlusion(lambda b: b.mean((1, 2)), np.zeros((1, 16, 16, 3), np.uint8), baseline=300)
    text = np.array([["a", "b"]])
    why = aw.occlusion(lambda b: [sum(map(len, row)) for row in b], text, background=np.array([["long", "longer"]]))
    assert why.values.tolist() == [[-3, -5]]


def test_scores_of_estimators():
    from sklearn.ensemble import RandomForestClassifier, VotingClassifier
    from sklearn.linear_model import LinearRegression, RidgeClassifier
    from sklearn.svm import SVC, LinearSVC, OneClassSVM

    rng = np.random.default_rng(0)
    x, two, three = rng.normal(size=(60, 3)), rng.integers(0, 2, 60), np.array(["a", "b", "c"])[rng.integers(0, 3, 60)]
    forest = RandomForestClassifier(5, random_state=0).fit(x, three)
    np.testing.assert_array_equal(scores(forest, x), forest.predict_proba(x))
    assert aw.wrap(forest).labels == ("a", "b", "c")
    margin = LinearSVC().fit(x, two)
    np.testing.assert_array_equal(scores(margin, x)[:, 1], margin.decision_function(x))
    np.testing.assert_array_equal(scores(margin, x)[:, 0], -margin.decision_function(x))
    many = RidgeClassifier().fit(x, three)
    np.testing.assert_array_equal(scores(aw.wrap(many, output="logits"), x), many.decision_function(x))
    line = LinearRegression().fit(x, x @ [1, 2, 3])
    assert scores(line, x).shape == (60, 1)
    assert aw.wrap(line).labels is None
    assert scores(LinearRegression().fit(x, x[:, :2]), x).shape == (60, 2)
    assert scores(OneClassSVM().fit(x), x).shape == (60, 1)
    with pytest.raises(InputError, match="needs predict_proba, which LinearSVC has not"):
        aw.wrap(margin, output="probabilities")
    with pytest.raises(InputError, match="for an estimator it is 'probabilities' or 'logits'"):
        aw.wrap(margin, output=0)
    pairs = SVC(decision_function_shape="ovo").fit(x, np.arange(60) % 4)
    with pytest.raises(ModelError, match="6 scores.*4 classes"):
        scores(pairs, x)
    votes = VotingClassifier([("a", RandomForestClassifier(2))], voting="hard").fit(x, three)
    with pytest.raises(InputError, match="only class labels"):
        aw.wrap(votes)
    with pytest.raises(ModelError, match="NotFittedError"):
        scores(RandomForestClassifier(), x)


def test_black_boxes_work_where_torch_cannot_be_imported(tmp_path):
    script = tmp_path / "no_torch.py"
    script.write_text(
        """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
sys.meta_path.insert(0, Block())
import numpy as np
import askwhy as aw
f = lambda b: b.reshape(len(b), -1) @ np.arange(256.0)
x = np.random.default_rng(0).random((1, 1, 16, 16))
labels = np.arange(256).reshape(16, 16) // 64
print(aw.occlusion(f, x, size=8).values.shape, aw.lime(f, x, samples=50, components=labels).values.shape)
table = np.random.default_rng(0).random((3, 4))
print(aw.occlusion(lambda b: b.sum(1), table, background=table).values.shape)
assert "torch" not in sys.modules
for call in (lambda: aw.gradient(f, x), lambda: aw.zoo.load("efficientnet-lite0")):
    try:
        call()
    except aw.errors.AskwhyError as error:
        print(type(error).__name__, error)
try:
    from askwhy.models import torch_module
    torch_module.torch.empty(0)
except aw.errors.MissingPackageError as error:
    print(type(error).__name__, error)
"""
    )
    done = subprocess.run([sys.executable, "-W", "error", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["(1, 16, 16) (1, 4)", "(3, 4)"]
    assert lines[2].startswith("UnsupportedError")
    assert lines[-1] == "MissingPackageError torch is needed for this: pip install 'askwhy[torch]'"


# ---- pictures -----------------------------------------------------------------------------------------------------


def drawing(mode="RGB", size=(20, 12)):
    ramp = np.linspace(0, 255, size[0]).astype(np.uint8)[None].repeat(size[1], 0)
    return Image.fromarray(np.stack([ramp, ramp[:, ::-1], ramp // 2], 2)).convert(mode)


@pytest.mark.parametrize(
    ("mode", "ending", "off"),
    [("RGB", "png", 0), ("RGB", "bmp", 0), ("RGB", "tiff", 0), ("L", "png", 0), ("P", "png", 0), ("P", "gif", 0), ("CMYK", "jpg", 40), ("RGB", "webp", 40), ("1", "png", 0)],
)  # fmt: skip
def test_pictures_of_every_kind_are_read(mode, ending, off, tmp_path):
    picture = drawing(mode)
    picture.save(tmp_path / f"a.{ending}")
    got = read_picture(tmp_path / f"a.{ending}")
    assert (got.mode, got.size) == ("RGB", (20, 12))
    wanted = np.asarray(drawing(mode).convert("RGB"), dtype=int)
    assert np.abs(np.asarray(got, dtype=int) - wanted).max() <= off
    with Image.open(tmp_path / f"a.{ending}") as opened:
        assert np.array_equal(np.asarray(read_picture(opened)), np.asarray(got))


def test_transparency_is_put_on_white(tmp_path):
    for mode, colour in (("RGBA", (255, 0, 0, 0)), ("LA", (0, 0))):
        Image.new(mode, (9, 9), colour).save(tmp_path / "a.png")
        assert np.asarray(read_picture(tmp_path / "a.png")).min() == 255
    palette = drawing("P")
    palette.save(tmp_path / "p.png", transparency=palette.getpixel((0, 0)))
    assert read_picture(tmp_path / "p.png").getpixel((0, 0)) == (255, 255, 255)
    assert read_picture(np.zeros((9, 9, 4), np.uint8)).getpixel((0, 0)) == (255, 255, 255)


def test_photos_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    drawing().save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    got = read_picture(tmp_path / "a.jpg")
    assert got.size == (12, 20)
    assert np.abs(np.asarray(got, int) - np.rot90(np.asarray(drawing(), int), -1)).max() < 12


def test_an_animation_is_its_first_picture(tmp_path):
    Image.new("RGB", (20, 12), "blue").save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (20, 12), "red")])
    assert read_picture(tmp_path / "a.gif").getpixel((3, 3)) == (0, 0, 255)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda p: p.write_text("hello"), FileError, "no picture that can be read"),
        (lambda p: p.write_bytes(b""), FileError, "no picture that can be read"),
        (lambda p: p.mkdir(), FileError, "is a folder"),
        (lambda p: None, FileError, "there is no such file"),
        (lambda p: p.write_bytes(encoded("JPEG")[:400]), FileError, "is damaged|no picture"),
        (lambda p: p.write_bytes(encoded("PNG")[:80]), FileError, "is damaged|no picture"),
        (lambda p: Image.new("RGB", (1, 1)).save(p), InputError, "1 x 1 pixels; at least 8 x 8"),
        (lambda p: Image.new("RGB", (7, 100)).save(p), InputError, "7 x 100"),
        (lambda p: Image.new("1", (12_000, 9_000)).save(p), InputError, "108,000,000 pixels; shrink it"),
        (lambda p: Image.new("1", (20_000, 10_000)).save(p), InputError, "too large"),
        (lambda p: Image.fromarray(np.full((9, 9), 3000, np.uint16)).save(p), InputError, "more than 8 bits"),
        (lambda p: Image.new("F", (9, 9)).save(p, format="TIFF"), InputError, "more than 8 bits"),
    ],
)
def test_what_is_no_picture_gives_one_clear_error(make, error, said, tmp_path):
    path = tmp_path / "a.png"
    make(path)
    with pytest.raises(error, match=said) as caught:
        read_picture(path)
    assert "a.png" in str(caught.value)


def encoded(kind, picture=None):
    buffer = io.BytesIO()
    (picture or drawing(size=(64, 64))).save(buffer, format=kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_damaged_files_are_read_or_refused_and_nothing_else(kind, tmp_path):
    whole = np.frombuffer(encoded(kind), np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(60):
        bad = whole.copy()
        bad[rng.integers(0, len(bad), 6)] = rng.integers(0, 256, 6)
        (tmp_path / "a").write_bytes(bad[: rng.integers(1, len(bad) + 1)].tobytes())
        with warnings.catch_warnings(), contextlib.suppress(FileError, InputError):
            warnings.simplefilter("ignore")  # Pillow's own, about the damage
            assert read_picture(tmp_path / "a").mode == "RGB"


@pytest.mark.parametrize("item", ["", "a\0b.png", "x" * 5000, "a.png/b.png", np.zeros((0, 9, 3), np.uint8)])
def test_odd_names_and_modes_are_refused(item, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawing().save("a.png")
    with pytest.raises(AskwhyError) as caught:
        read_picture(item)
    assert len(str(caught.value)) < 500


def test_a_text_is_no_picture():
    with pytest.raises(FileError, match="The film was bad: there is no such file"):
        aw.wrap(nn.Flatten().eval(), transform=to_chw).prepare("The film was bad")
    with pytest.raises(FileError, match="the film.jpg: there is no such file"):
        aw.wrap(lambda b: b).prepare("the film.jpg")
    assert aw.wrap(lambda b: b).prepare("The film was bad").kind == "text"


# ---- frames -------------------------------------------------------------------------------------------------------


def crop(size, box, out, resample=2):
    """A transform of PIL's own, and so the truth about its frame."""
    return lambda p: to_float(p.resize(out, resample, box=box)) if p.size == size else to_float(p.resize(out))


def to_float(p):
    return np.asarray(p, dtype=np.float32).transpose(2, 0, 1) / 255


def centred(p, short, size):
    scale = short / min(p.size)
    p = p.resize((round(p.width * scale), round(p.height * scale)), 3)
    left, top = (p.width - size) // 2, (p.height - size) // 2
    return p.crop((left, top, left + size, top + size))


def centred_box(w, h, short, size):
    s = short / min(w, h)
    left, top = (round(w * s) - size) // 2, (round(h * s) - size) // 2
    return (left * w / round(w * s), top * h / round(h * s), (left + size) * w / round(w * s), (top + size) * h / round(h * s))


FRAMED = {
    "resize": ((300, 200), lambda p: to_float(p.resize((64, 64))), (0, 0, 300, 200)),
    "enlarge": ((30, 20), lambda p: to_float(p.resize((64, 64))), (0, 0, 30, 20)),
    "crop": ((300, 200), lambda p: to_float(p.crop((40, 30, 240, 180))), (40, 30, 240, 180)),
    "crop and resize": ((300, 200), lambda p: to_float(p.resize((50, 70), 2, box=(13, 17, 211, 190))), (13, 17, 211, 190)),
    "nearest": ((300, 200), lambda p: to_float(p.resize((50, 50), 0)), (0, 0, 300, 200)),
    "centre": ((451, 300), lambda p: to_float(centred(p, 64, 56)), centred_box(451, 300, 64, 56)),
    "centre, tall": ((300, 451), lambda p: to_float(centred(p, 256, 224)), centred_box(300, 451, 256, 224)),
    "large": ((2000, 1500), lambda p: to_float(centred(p, 256, 224)), centred_box(2000, 1500, 256, 224)),
    "grey": ((300, 200), lambda p: np.asarray(centred(p, 64, 56).convert("L"), np.float32)[None], centred_box(300, 200, 64, 56)),
    "bgr": ((300, 200), lambda p: to_float(centred(p, 64, 56))[::-1] * 255 - 110, centred_box(300, 200, 64, 56)),
    "normalized": ((300, 200), lambda p: (to_float(centred(p, 64, 56)) - [[[0.4]], [[0.5]], [[0.6]]]) / [[[0.2]], [[0.3]], [[-0.1]]], centred_box(300, 200, 64, 56)),
    "height width channels": ((300, 200), lambda p: np.asarray(centred(p, 64, 56)), centred_box(300, 200, 64, 56)),
    "not square": ((300, 200), lambda p: to_float(p.resize((96, 32))), (0, 0, 300, 200)),
    "tensor in bfloat16": ((200, 100), lambda p: torch.from_numpy(to_float(p.resize((64, 64)))).to(torch.bfloat16), (0, 0, 200, 100)),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAMED)
def test_the_frame_is_found_to_a_pixel_and_a_half(name):
    size, transform, wanted = FRAMED[name]
    found = frame_of(transform, size)
    assert found is not None
    assert found.size == size
    slack = 1.5 if max(size) <= 500 else 1.5 * max(size) / 500
    np.testing.assert_allclose(found.box, wanted, atol=slack)


def standardized(p):
    v = to_float(p.resize((32, 32)))
    return (v - v.mean()) / v.std()


class Random:
    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __call__(self, p):
        left, top = self.rng.integers(0, 40, 2)
        return to_float(p.crop((left, top, left + 60, top + 60)))


NO_FRAME = {
    "flip": lambda p: to_float(p.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "upside down": lambda p: to_float(p.transpose(Image.Transpose.FLIP_TOP_BOTTOM)),
    "rotation": lambda p: to_float(p.rotate(90, expand=True)),
    "small rotation": lambda p: to_float(p.rotate(5)),
    "transposed": lambda p: to_float(p).transpose(0, 2, 1),
    "standardized": standardized,
    "divided by its maximum": lambda p: to_float(p.crop((20, 10, 80, 70))) / to_float(p.crop((20, 10, 80, 70))).max(),
    "stretched to its range": lambda p: (to_float(p) - to_float(p).min()) / np.ptp(to_float(p)),
    "gamma": lambda p: to_float(p) ** 2.2,
    "flat": lambda p: to_float(p).ravel(),
    "grey without channel": lambda p: to_float(p)[0],
    "constant": lambda p: np.zeros((3, 9, 9)),
    "tiny": lambda p: to_float(p.resize((4, 4))),
    "random crop": Random(),
    "different shapes": lambda p: np.zeros((3, 9, 9 + np.asarray(p).max() // 100)),
    "nan": lambda p: to_float(p) * np.nan,
}


@pytest.mark.parametrize("name", NO_FRAME)
def test_there_is_no_frame_where_the_transform_is_no_resize_and_crop(name):
    assert frame_of(NO_FRAME[name], (100, 80)) is None


@pytest.mark.parametrize("error", [ZeroDivisionError, ValueError, RuntimeError, IndexError, KeyError])
def test_a_transform_that_refuses_the_probing_pictures_is_still_explained(error, x):
    def picky(p):
        if len(np.unique(np.asarray(p))) < 2 or np.asarray(p).std(0).max() < 1:
            raise error("no contrast")
        return to_chw(p)

    photo = Image.fromarray((np.random.default_rng(0).random((30, 30, 3)) * 255).astype(np.uint8))
    model = aw.wrap(small_net(), transform=picky)
    items = model.prepare(photo)
    assert items.frames == (None,)
    assert items.grey is None
    assert aw.occlusion(model, photo, 1, size=8).params["baseline"] == "grey"  # 0.5, since the input is in 0..1
    with pytest.raises(error):
        model.prepare(Image.new("RGB", (30, 30)))  # the user's own picture: the transform's own error


def test_per_picture_statistics_give_no_frame_and_no_grey(x):
    photo = Image.fromarray((np.random.default_rng(0).random((40, 40, 3)) * 255).astype(np.uint8))
    for turn in (standardized, lambda p: torch.from_numpy(to_float(p.resize((32, 32)))).sub(0.5) / torch.from_numpy(to_float(p)).std()):
        for model in (aw.wrap(small_net(), transform=turn), aw.wrap(lambda b: b.mean((1, 2, 3)), transform=turn)):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                items = model.prepare(photo)
            assert items.frames == (None,)
            assert items.grey is None
            why = aw.occlusion(model, photo, 0, size=8)
            assert why.params["baseline"] == "mean"
            assert np.isfinite(why.values).all()


def test_probing_does_not_hide_a_wish_to_stop(x):
    calls = []

    def stops(p):
        calls.append(p)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return to_chw(p)

    with pytest.raises(KeyboardInterrupt):
        aw.wrap(small_net(), transform=stops).prepare(Image.new("RGB", (30, 30), "red"))


@pytest.mark.parametrize("constant", [-1.7, 0.0, 0.3, 1.0, 3.3, 255.0, 1e6, -123.456])
def test_viewable_pictures(constant):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for shape in ((3, 9, 9), (1, 9, 9), (9, 9, 3)):
            assert from_values(np.full(shape, constant, np.float32)).shape == (9, 9, 3)
    assert from_values(np.zeros((5, 9, 9))) is None
    ramp = np.linspace(0, 1, 81, dtype=np.float32).reshape(1, 9, 9)
    assert from_values(ramp)[-1, -1].tolist() == [255] * 3
    assert from_values(ramp * 7 - 3)[-1, -1].tolist() == [255] * 3
    assert from_values((ramp * 200).astype(np.uint8))[-1, -1].tolist() == [200] * 3


@pytest.mark.parametrize("draw", [lambda: float(np.random.rand()), lambda: __import__("random").random(), lambda: float(torch.rand(()))])
def test_chance_is_seen_wherever_it_comes_from_and_put_back(draw):
    class Draws(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] * draw()

    net, x = Draws().eval(), torch.rand(2, 3, 16, 16)
    before = np.random.get_state()[1].copy(), __import__("random").getstate(), torch.get_rng_state()
    with pytest.raises(ModelError, match=r"draws random numbers.*wrap\(net, seed=0\)"):
        aw.gradient(net, x, 1)
    first, again = (aw.gradient(aw.wrap(net, seed=3), x, 1) for _ in range(2))
    np.testing.assert_array_equal(first.values, again.values)
    assert first.values[0].max() == first.values[1].max()
    after = np.random.get_state()[1], __import__("random").getstate(), torch.get_rng_state()
    assert np.array_equal(before[0], after[0])
    assert before[1] == after[1]
    assert torch.equal(before[2], after[2])


class Centred(nn.Module):
    """Writes into what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.sub_(0.5).mul_(2))


@pytest.mark.parametrize(
    ("method", "options"), [("occlusion", {"baseline": 0.0}), ("gradient", {}), ("integrated_gradients", {"baseline": "zero"}), ("lrp", {})]
)
def test_a_model_that_writes_into_its_input_leaves_the_users_data(method, options):
    torch.manual_seed(0)
    writes, x = Centred().eval(), torch.rand(3, 4)
    plain = nn.Sequential(nn.Linear(4, 2)).eval()
    with torch.no_grad():
        plain[0].weight.copy_(2 * writes.net.weight)
        plain[0].bias.copy_(writes.net.bias - writes.net.weight.sum(1))
    model, own = aw.wrap(writes), x.clone()
    for _ in range(2):
        why = getattr(aw, method)(model, x, target=1, **options)
        assert torch.equal(x, own)
        if method != "lrp":  # whose rules see the shift
            assert np.allclose(why.values, getattr(aw, method)(plain, own, target=1, **options).values, atol=1e-5)


def test_a_function_that_writes_into_its_input_leaves_the_users_data():
    def function(X: np.ndarray) -> np.ndarray:
        X -= 0.5
        return X @ np.array([[1.0], [2.0], [3.0]])

    x = np.random.default_rng(0).random((5, 3))
    own, model = x.copy(), aw.wrap(function)
    for _ in range(2):
        why = aw.occlusion(model, x, baseline=0.0)
        assert np.array_equal(x, own)
        assert np.allclose(why.values, own * [1, 2, 3])


class Tempered(nn.Module):
    """Its first parameter is a number, as the temperature of a contrastive model is."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.net = nn.Parameter(torch.tensor(2.0, dtype=torch.float64)), nn.Linear(4, 2).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x) * self.scale


def test_a_first_parameter_that_is_a_number():
    model, x = Tempered().eval(), torch.rand(2, 4)
    weights = (2 * model.net.weight[0]).detach().numpy()
    assert np.allclose(aw.gradient(model, x, target=0).values, weights)
    why = aw.occlusion(model, x, target=0, baseline=0.0)
    assert np.allclose(why.values, weights * x.numpy())
    assert why.values.dtype == np.float64


class Held(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.table, self.sizes = nn.Conv2d(1, 4, 3, padding=2), torch.relu, torch.ones(4), {"pool": [1, 1]}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(self.act(self.conv(x)), self.sizes["pool"]).flatten(1)[:, :4] * self.table


@pytest.mark.parametrize(
    "change",
    [
        lambda net: setattr(net.conv, "dilation", (2, 2)), lambda net: setattr(net.conv, "stride", (2, 2)), lambda net: setattr(net, "act", torch.tanh),
        lambda net: setattr(net, "table", torch.arange(2.0, 6.0)), lambda net: net.table.mul_(3), lambda net: net.sizes["pool"].__setitem__(0, 2),
    ],
)  # fmt: skip
def test_a_faster_twin_is_made_anew_when_anything_that_a_module_holds_changes(change):
    torch.manual_seed(0)
    net, x = Held().eval(), torch.rand(1, 1, 12, 12)
    model = aw.wrap(net)
    before = aw.integrated_gradients(model, x, target=1, steps=32).values
    change(net)
    after = aw.integrated_gradients(model, x, target=1, steps=32).values
    assert np.allclose(after, aw.integrated_gradients(aw.wrap(net), x, target=1, steps=32).values, atol=1e-7)
    assert not np.allclose(after, before, atol=1e-4)
