"""Targets beyond a class: each kind on a small model of which the right answer is known."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import quick, small_net
from torch import nn

import askwhy as aw
from askwhy.errors import AskwhyError, LayerError, ModelError, TargetError, UnsupportedError

SIDE = 16
RED, GREEN = (slice(2, 7), slice(1, 6)), (slice(9, 14), slice(8, 13))  # rows, columns of the two squares in `scene`
SCENE_REGIONS = np.zeros((SIDE, SIDE), int)  # 0: neither
SCENE_REGIONS[RED], SCENE_REGIONS[GREEN] = 1, 2


def scene() -> torch.Tensor:
    """A red and a green square on black."""
    x = torch.zeros(1, 3, SIDE, SIDE)
    x[0, 0][RED], x[0, 1][GREEN] = 1, 1
    return x


def scenes(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures [n, 3, h, w] with a red and a green square of any size, one in each half, on dark noise; and where they are [n, 2, h, w]."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.zeros(n, 2, SIDE, SIDE)
    for one in mask:
        swapped = int(torch.randint(0, 2, (), generator=g))
        for colour in (0, 1):
            size = int(torch.randint(3, 7, (), generator=g))
            top, left = (int(torch.randint(0, end - size + 1, (), generator=g)) for end in (SIDE, SIDE // 2))
            left += SIDE // 2 * (swapped ^ colour)
            one[colour, top : top + size, left : left + size] = 1
    noise = torch.rand(n, 3, SIDE, SIDE, generator=g) * 0.1
    return torch.cat([noise[:, :2] + 0.9 * mask, noise[:, 2:]], 1), mask


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Two threads that wait for each other on a busy machine take ten times as long as one, for networks as small as these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained(net: nn.Module, inputs: torch.Tensor, wanted: torch.Tensor, loss: nn.Module, steps: int = 80, rate: float = 0.02) -> nn.Module:
    """Fit a network, 32 items at a time."""
    optimizer = torch.optim.Adam(net.parameters(), rate)
    for step in range(steps):
        rows = torch.arange(32 * step, 32 * (step + 1)) % len(inputs)
        optimizer.zero_grad()
        loss(net(inputs[rows]), wanted[rows]).backward()
        optimizer.step()
    return net.eval().requires_grad_(False)


def share(heat: np.ndarray, where: object) -> float:
    """How much of a map lies there."""
    inside = np.zeros(heat.shape, bool)
    inside[where.bool().numpy() if isinstance(where, torch.Tensor) else where] = True
    return float(np.abs(heat[inside]).sum() / np.abs(heat).sum())


def colours(bias: float = 0.0) -> nn.Conv2d:
    """Channel 0 is how red a pixel is, channel 1 how green."""
    conv = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[1.0, -1, -1], [-1, 1, -1]])[:, :, None, None])
        conv.bias.fill_(bias)
    return conv


POINTING = {
    "input_x_gradient": {},
    "integrated_gradients": {"baseline": 0.0},
    "deep_lift": {"baseline": 0.0},
    "lrp": {},
    "grad_cam": {},
    "hires_cam": {},
    "occlusion": {"components": SCENE_REGIONS, "baseline": 0.0},
}  # methods that say where, with the options that make their answers comparable
pointing = pytest.mark.parametrize("name", POINTING)


def exact(name: str) -> dict[str, int]:
    """Fixed steps are exact where the score is a polynomial along the way, and "auto" stops at a thousandth."""
    return {"steps": 8} if name == "integrated_gradients" else {}


# ---- a detection ---------------------------------------------------------------------------------------------------


class Detector(nn.Module):
    """Looks for the red thing and for the green thing: a score of each, and its box in pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.colours, self.relu = colours(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        heat = self.relu(self.colours(x))
        place = torch.arange(1.0, SIDE + 1)
        rows, columns = heat.amax(3), heat.amax(2)  # 1 where the thing is
        first = [SIDE + 1 - (line * place.flip(0)).amax(2) for line in (columns, rows)]
        last = [(line * place).amax(2) for line in (columns, rows)]
        return {"scores": heat.mean((2, 3)), "boxes": torch.stack([*first, *last], 2)}  # [m, 2], [m, 2, 4]


@pytest.fixture
def detector() -> aw.models.Model:
    return aw.wrap(Detector().eval().requires_grad_(False), output=lambda out: out)  # scores and boxes; else only the scores reach the target


def test_the_detector_finds_the_boxes(detector):
    out = detector.net(scene())
    np.testing.assert_array_equal(out["boxes"][0], [[2, 3, 6, 7], [9, 10, 13, 14]])
    np.testing.assert_allclose(out["scores"][0], [25 / 256, 25 / 256])


@pointing
@pytest.mark.parametrize(("which", "where"), [(0, RED), (1, GREEN)])
def test_a_detections_score_comes_from_its_own_object(detector, name, which, where):
    why = aw.explain(detector, scene(), name, target=lambda out: out["scores"][:, which], **POINTING[name])
    assert share(why.map(), where) > 0.999
    assert why.map().sum() > 0
    np.testing.assert_allclose(why.prediction, 25 / 256)
    if why.residual is not None:
        assert np.abs(why.residual).max() < 1e-3


@pytest.mark.parametrize(("side", "column"), [(0, 1), (2, 5)])
def test_a_box_coordinate_comes_from_the_edge_of_the_object(detector, side, column):
    """The right edge is the number of the last red column; so the whole of it is found there. Likewise from the left."""

    def edge(out):
        return out["boxes"][:, 0, side]

    worth = [2 - (SIDE + 1), 0, 6][side]  # the edge, less what it would be in a black picture
    for name in ("integrated_gradients", "deep_lift", "input_x_gradient"):
        why = aw.explain(detector, scene(), name, target=edge, **POINTING[name], **exact(name))
        wanted = np.zeros((3, SIDE, SIDE))
        wanted[0, RED[0], column] = worth / 5  # the five pixels of the column are alike
        np.testing.assert_allclose(why.values[0], wanted, atol=1e-5)
    assert why.prediction == [[2, 0, 6][side]]
    heat = aw.hires_cam(detector, scene(), target=edge).values[0]
    np.testing.assert_allclose(heat[RED[0], column], worth / 5, rtol=1e-6)
    assert np.count_nonzero(heat) == 5


def test_covering_a_side_of_the_object_moves_the_edge_of_its_box(detector):
    columns = np.zeros((SIDE, SIDE), int)
    columns[:, 1], columns[:, 2:5], columns[:, 5] = 1, 2, 3  # of the red square: the first, the middle, the last
    columns[GREEN] = 4
    for which, side, wanted in ((0, 2, [0, 0, 0, 1, 0]), (0, 0, [0, -1, 0, 0, 0]), (1, 2, [0, 0, 0, 0, 13])):
        why = aw.occlusion(
            detector, scene(), target=lambda out, which=which, side=side: out["boxes"][:, which, side], components=columns, baseline=0.0
        )
        np.testing.assert_allclose(why.values[0], wanted, atol=1e-5)


# ---- a segmentation ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def segmenter() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    return trained(net, *scenes(128), nn.BCEWithLogitsLoss())


@pytest.mark.parametrize("name", ["integrated_gradients", "deep_lift", "lrp", "grad_cam", "hires_cam"])
@pytest.mark.parametrize("colour", [0, 1])
def test_a_mask_comes_from_the_object_that_it_covers(segmenter, name, colour):
    x, mask = scenes(3, seed=9)
    options = {"layer": "3"} if "cam" in name else POINTING[name]
    for item, own in zip(x, mask[:, colour], strict=True):
        found = (segmenter(item[None])[0, colour] > 0).float()
        assert (found * own).sum() / (found + own).clamp(max=1).sum() > 0.9  # the network can do it
        why = aw.explain(segmenter, item[None], name, target=lambda out, found=found: (out[:, colour] * found).sum((1, 2)) / found.sum(), **options)
        assert share(why.map(), own) > 0.8
        assert why.map()[own.bool().numpy()].sum() > 0
        if why.residual is not None:
            assert np.abs(why.residual).max() < 1e-3


def test_a_pixels_own_score_sees_no_further_than_the_convolutions_reach(segmenter):
    x, _ = scenes(1, seed=9)
    why = aw.gradient(segmenter, x, target=lambda out: out[:, 0, 7, 8])
    seen = np.abs(why.values[0]).sum(0) > 0
    assert seen[5:10, 6:11].all()
    assert seen.sum() == 25  # 5 x 5, by two convolutions of 3 x 3


# ---- an embedding --------------------------------------------------------------------------------------------------


@pytest.fixture
def encoder() -> nn.Module:
    """The mean colour of a picture, as a vector."""
    conv = nn.Conv2d(3, 3, 1, bias=False)
    nn.init.dirac_(conv.weight)
    return nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def alike(wanted: list[float]):
    """The cosine of the angle to another picture's vector."""
    return lambda vectors: torch.cosine_similarity(vectors, torch.tensor([wanted]))


def test_the_similarity_of_two_pictures_in_closed_form(encoder):
    x = scene() + 0.1
    e = np.array(encoder(x)[0].tolist())
    for wanted in ([1.0, 0, 0], [0.2, 1, 0.5]):
        r = np.array(wanted) / np.linalg.norm(wanted)
        cosine = e @ r / np.linalg.norm(e)
        slope = (r - cosine * e / np.linalg.norm(e)) / np.linalg.norm(e) / SIDE**2
        why = aw.gradient(encoder, x, target=alike(wanted))
        np.testing.assert_allclose(why.values[0], np.broadcast_to(slope[:, None, None], (3, SIDE, SIDE)), rtol=1e-4)
        np.testing.assert_allclose(why.prediction, cosine, rtol=1e-6)
        # a vector twice as long has the same angle, so that what speaks for and against add up to nothing (Euler)
        added = aw.input_x_gradient(encoder, x, target=alike(wanted)).values[0]
        assert abs(added.sum()) < 1e-5 * np.abs(added).sum()


@pytest.mark.parametrize("name", ["input_x_gradient", "hires_cam", "occlusion"])
@pytest.mark.parametrize(("wanted", "same", "other"), [([1.0, 0, 0], RED, GREEN), ([0, 1.0, 0], GREEN, RED)])
def test_what_makes_a_picture_alike_another(encoder, name, wanted, same, other):
    heat = aw.explain(encoder, scene(), name, target=alike(wanted), **POINTING[name]).map()
    assert (heat[same] > 0).all()
    assert (heat[other] < 0).all()
    np.testing.assert_allclose(share(heat, same) + share(heat, other), 1)


def test_alike_to_one_rather_than_to_another(encoder):
    red, green = alike([1.0, 0, 0]), alike([0, 1.0, 0])
    rather = aw.hires_cam(encoder, scene(), target=red, versus=green)
    apart = [aw.hires_cam(encoder, scene(), target=target).values for target in (red, green)]
    np.testing.assert_allclose(rather.values, apart[0] - apart[1], atol=1e-7)
    assert rather.map()[RED].min() > 0 > rather.map()[GREEN].max()


# ---- a regression --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def areas() -> nn.Module:
    """The share of the picture that the red square covers, and the green one; times ten."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x, mask = scenes(256)
    return trained(net, x, mask.mean((2, 3)) * 10, nn.MSELoss(), steps=100, rate=0.05)


@pytest.mark.parametrize("name", ["integrated_gradients", "deep_lift", "lrp", "hires_cam"])
@pytest.mark.parametrize("colour", [0, 1])
def test_a_measured_size_comes_from_the_object_that_is_measured(areas, name, colour):
    x, mask = scenes(3, seed=5)
    assert (areas(x) / 10 - mask.mean((2, 3))).abs().max() < 0.02  # the network can do it
    for item, own in zip(x, mask, strict=True):
        why = aw.explain(areas, item[None], name, target=colour, **POINTING[name])
        assert share(why.map(), own[colour]) > 5 * share(why.map(), own[1 - colour])
        assert why.map()[own[colour].bool().numpy()].sum() > 0
        if why.residual is not None:
            assert np.abs(why.residual).max() < 1e-3


@pytest.mark.parametrize("name", ["integrated_gradients", "deep_lift", "lrp", "hires_cam", "input_x_gradient"])
def test_one_number_an_item_needs_no_target(areas, name):
    x, _ = scenes(3, seed=5)
    one = aw.explain(aw.wrap(areas, output=lambda out: out[:, 1]), x, name)  # [m], as many regressors return it
    assert np.array_equal(one.values, aw.explain(areas, x, name, target=1).values)
    np.testing.assert_allclose(one.prediction, areas(x)[:, 1])


# ---- a word of a caption, an answer about a picture: two inputs ----------------------------------------------------

WORDS = ["how", "much", "red", "green", "is", "there", "a", "and"]


def ids(text: str) -> torch.Tensor:
    return torch.tensor([[WORDS.index(word) for word in text.split()]])


class Answers(nn.Module):
    """Answers "is there any?" from how much of the colour that is asked for is in the picture: [no, yes]."""

    def __init__(self) -> None:
        super().__init__()
        self.colours, self.relu, self.words = colours(), nn.ReLU(), nn.Embedding(len(WORDS), 2)
        with torch.no_grad():
            self.words.weight.zero_()
            self.words.weight[WORDS.index("red"), 0] = self.words.weight[WORDS.index("green"), 1] = 1

    def forward(self, picture: torch.Tensor, question: torch.Tensor) -> torch.Tensor:
        seen = self.relu(self.colours(picture)).mean((2, 3))
        yes = (seen * self.words(question).sum(1)).sum(1)
        return torch.stack([-yes, yes], 1)


@pytest.fixture
def answers() -> nn.Module:
    return Answers().eval().requires_grad_(False)


@pytest.mark.parametrize("name", ["integrated_gradients", "deep_lift"])
@pytest.mark.parametrize("given", [dict, tuple])
@pytest.mark.parametrize(("colour", "where"), [("red", RED), ("green", GREEN)])
def test_an_answer_comes_from_what_was_asked_for_and_from_the_word_that_asked(answers, name, given, colour, where):
    """yes = seen x asked, a product of two straight lines from nothing: half of it comes from the picture, half from the word."""
    question = f"how much {colour} is there"
    x = {"picture": scene(), "question": ids(question)} if given is dict else (scene(), ids(question))
    for answer, sign in ((1, 1), (0, -1)):
        why = aw.explain(answers, x, name, target=answer, baseline={"picture": 0.0, "question": "zero"}, **exact(name))
        total = sign * 25 / SIDE**2
        np.testing.assert_allclose(why.prediction, total, rtol=1e-6)
        picture, words = why["picture"].values[0], why["question"].values[0]
        wanted = np.zeros((3, SIDE, SIDE))
        wanted[("red", "green").index(colour)][where] = total / 2 / 25
        np.testing.assert_allclose(picture, wanted, atol=1e-8)
        np.testing.assert_allclose(words, [0, 0, total / 2, 0, 0], atol=1e-7)
        assert why.values.shape == (1, picture.size + words.size)
        np.testing.assert_allclose(why.values.sum(), total, rtol=1e-5)
        assert np.abs(why.residual).max() < 1e-5


@pytest.mark.parametrize("name", ["grad_cam", "hires_cam"])
def test_a_map_of_the_picture_depends_on_the_question(answers, name):
    for colour, where in (("red", RED), ("green", GREEN)):
        why = aw.explain(answers, {"picture": scene(), "question": ids(f"is there {colour}")}, name, target=1)
        assert share(why.map(), where) > 0.999
        assert why.map().sum() > 0


def test_an_answer_rather_than_the_other(answers):
    x = {"picture": scene(), "question": ids("is there red")}
    rather, yes = (
        aw.integrated_gradients(answers, x, target=1, versus=versus, baseline={"picture": 0.0, "question": "zero"}) for versus in (0, None)
    )
    np.testing.assert_allclose(rather.values, 2 * yes.values, atol=1e-6)  # no is minus yes


@pytest.mark.parametrize("name", ["integrated_gradients", "deep_lift", "lrp", "input_x_gradient"])
def test_a_neuron_of_a_model_of_two_inputs_sees_only_one(answers, name):
    x, options = {"picture": scene(), "question": ids("is there red")}, {}
    if "baseline" in POINTING[name]:
        options["baseline"] = {"picture": 0.0, "question": "zero"}
    for channel, where in ((0, RED), (1, GREEN)):
        why = aw.explain(answers, x, name, target=aw.neuron("relu", channel), **options)
        assert share(why["picture"].values[0].sum(0), where) > 0.999
        assert not why["question"].values.any()
    why = aw.explain(answers, x, name, target=aw.neuron("words", (2, 0)), **options)
    assert not why["picture"].values.any()
    np.testing.assert_allclose(why["question"].values, [[0, 0, 1]], rtol=1e-5)


class Captioner(nn.Module):
    """The scores of the next word after each word of a caption: a colour that is in the picture and was not yet named."""

    def __init__(self) -> None:
        super().__init__()
        self.colours, self.relu, self.said = colours(), nn.ReLU(), nn.Embedding(len(WORDS), 2)
        with torch.no_grad():
            self.said.weight.zero_()
            self.said.weight[WORDS.index("red"), 0] = self.said.weight[WORDS.index("green"), 1] = -0.05

    def forward(self, picture: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        seen = self.relu(self.colours(picture)).mean((2, 3))
        colour = seen[:, None] + self.said(words).cumsum(1)  # [m, words, 2]: what was said later is not known
        rest = colour.new_zeros(*colour.shape[:2], len(WORDS))
        return torch.cat([rest[..., :2], colour, rest[..., 4:]], 2)


@pytest.mark.parametrize("name", ["integrated_gradients", "deep_lift", "input_x_gradient"])
@pytest.mark.parametrize(("word", "where"), [("red", RED), ("green", GREEN)])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_word_of_a_caption_comes_from_its_object_and_the_words_before_it(name, word, where, place):
    net = Captioner().eval().requires_grad_(False)
    said = "a red and green"
    options = {} if name == "input_x_gradient" else {"baseline": {"picture": 0.0, "words": "zero"}, **exact(name)}
    why = aw.explain(net, (scene(), ids(said)), name, target=lambda out: out[:, place, WORDS.index(word)], **options)
    wanted = np.zeros((3, SIDE, SIDE))
    wanted[("red", "green").index(word)][where] = 1 / SIDE**2
    np.testing.assert_allclose(why["picture"].values[0], wanted, atol=1e-6)
    before = [-0.05 * (one == word and k <= place) for k, one in enumerate(said.split())]
    np.testing.assert_allclose(why["words"].values[0], before, atol=1e-6)
    np.testing.assert_allclose(why.prediction, 25 / SIDE**2 + sum(before), rtol=1e-5)
    np.testing.assert_allclose(why.values.sum(), why.prediction, atol=1e-5)  # with nothing seen and said it is 0


# ---- a neuron, a concept: the network as if it were cut there ------------------------------------------------------

EVERY = [m.name for m in aw.methods() if "image" in m.inputs]
CUT = 6  # of small_net: two convolutions and their rectifiers, [m, 8, 8, 8]
DIRECTION = np.random.default_rng(3).normal(size=(8, 8, 8))
KINDS = {
    "a channel": (lambda layer: aw.neuron(layer, 3), lambda out: out[:, 3].mean((1, 2))),
    "a row of a channel": (lambda layer: aw.neuron(layer, (3, 4)), lambda out: out[:, 3, 4].mean(1)),
    "one number": (lambda layer: aw.neuron(layer, (3, 4, 5)), lambda out: out[:, 3, 4, 5]),
    "a direction of channels": (
        lambda layer: aw.concept(layer, DIRECTION[0, 0]),
        lambda out: torch.einsum("nchw,c->n", out, torch.tensor(DIRECTION[0, 0]).to(out)) / 64,
    ),
    "a whole direction": (
        lambda layer: aw.concept(layer, DIRECTION),
        lambda out: torch.einsum("nchw,chw->n", out, torch.tensor(DIRECTION).to(out)),
    ),
}


def asked(model: nn.Module, x: torch.Tensor, name: str, target: object, **options: object) -> aw.Explanation | str:
    """The answer, or the reason why there is none."""
    usual = {"steps": 7} if name == "integrated_gradients" else quick(name)  # so few that the network that was cut has no twin
    try:
        return aw.explain(model, x, name, target=target, **{**usual, **options})
    except AskwhyError as error:
        return f"{type(error).__name__}: {error}"


def shown_words(why: aw.Explanation) -> dict[str, object]:
    """The layer of a CAM, how many rectifiers were found, what has no rule."""
    return {k: v for k, v in why.details.items() if isinstance(v, (str, int)) and k != "note"}  # which names the target


def assert_same_answer(one: aw.Explanation | str, other: aw.Explanation | str) -> None:
    if isinstance(one, str) or isinstance(other, str):
        assert one == other
        return
    scale = np.abs(other.values).max()
    np.testing.assert_allclose(one.values, other.values, rtol=1e-5, atol=1e-5 * scale)
    np.testing.assert_allclose(one.prediction, other.prediction, rtol=1e-5)
    if other.base_value is not None:
        np.testing.assert_allclose(one.base_value, other.base_value, rtol=1e-4, atol=1e-5)
    assert shown_words(one) == shown_words(other)
    assert (one.model_calls, one.unit) == (other.model_calls, other.unit)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("kind", KINDS)
def test_a_target_inside_is_a_target_of_the_network_that_is_cut_there(net, x, name, kind):
    make, read = KINDS[kind]
    cut = nn.Sequential(*net[:CUT]).eval()
    one = asked(net, x, name, make("5"))
    assert_same_answer(one, asked(cut, x, name, read))
    assert not isinstance(one, str) or (name == "cam" and kind not in ("a channel", "a direction of channels"))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("layer", ["0", "1", "4", ""])
def test_wherever_the_cut_is(net, x, name, layer):
    """Before the first rectifier, at the last convolution, at the output: what is behind has no part, and its maps are not chosen."""
    cut = nn.Sequential(*net[: int(layer or 8) + 1]).eval()
    read = (lambda out: out[:, 2].mean((1, 2))) if int(layer or 8) < 7 else (lambda out: out[:, 2])
    assert_same_answer(asked(net, x, name, aw.neuron(layer, 2)), asked(cut, x, name, read))


@pytest.mark.parametrize("name", ["grad_cam", "score_cam"])
def test_what_the_target_computes_is_no_layer_of_the_network(net, x, name):
    """A mask that is multiplied with the output, or one that is summed with it: one target, one answer."""
    mask, cut = torch.rand(8, 8, 8, generator=torch.Generator().manual_seed(0)), nn.Sequential(*net[:CUT]).eval()
    one = asked(cut, x, name, lambda out: (out * mask).sum((1, 2, 3)))
    assert_same_answer(one, asked(cut, x, name, lambda out: torch.einsum("nchw,chw->n", out, mask)))


def test_before_the_first_rectifier_there_is_none_to_guide(net, x):
    with pytest.raises(UnsupportedError, match="has no ReLU"):
        aw.guided_backprop(net, x, target=aw.neuron("0", 2))


@pytest.mark.parametrize("name", ["grad_cam", "score_cam", "hires_cam"])
def test_a_map_behind_the_target_is_neither_chosen_nor_taken(net, x, name):
    model = aw.wrap(net)
    before = aw.explain(model, x, name, target=1)
    inside = aw.explain(model, x, name, target=aw.neuron("1", 2))
    assert inside.details["layer"] == "conv2d > batch_norm"
    assert inside.values.tobytes() == aw.explain(net, x, name, target=aw.neuron("1", 2)).values.tobytes()
    assert aw.explain(model, x, name, target=1).values.tobytes() == before.values.tobytes()
    with pytest.raises(LayerError, match="layer '4' did not run in this forward pass.*name another layer"):
        aw.explain(model, x, name, target=aw.neuron("1", 2), layer="4")


@pytest.mark.parametrize("name", EVERY)
def test_one_neuron_rather_than_another(net, x, name):
    rather = asked(net, x, name, aw.neuron("5", 3), versus=aw.neuron(net[5], 1))
    cut = nn.Sequential(*net[:CUT]).eval()
    assert_same_answer(rather, asked(cut, x, name, lambda out: out[:, 3].mean((1, 2)), versus=lambda out: out[:, 1].mean((1, 2))))
    assert rather.question() == "neuron 3 of layer '5' rather than neuron 1 of layer '5'"


@pytest.mark.parametrize("name", EVERY)
def test_a_neuron_for_each_item(net, x, name):
    both = asked(net, x, name, [aw.neuron("5", 3), aw.neuron("5", 0)])
    for i, k in enumerate((3, 0)):
        alone = asked(net, x, name, aw.neuron("5", k))
        np.testing.assert_allclose(both.values[i], alone.values[i], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["occlusion", "lime", "score_cam", "integrated_gradients", "smooth_grad"])
def test_no_twin_stands_in_for_a_network_that_is_looked_into(net, x, name):
    """Many calls make a faster twin of the network, which gives its outputs only."""
    options = {"occlusion": {"size": 2, "stride": 1}, "lime": {"samples": 200}, "integrated_gradients": {"steps": 64}, "smooth_grad": {"samples": 64}}
    target, read = aw.neuron("5", 3), KINDS["a channel"][1]
    one = asked(net, x, name, target, **options.get(name, {}))
    assert_same_answer(one, asked(nn.Sequential(*net[:CUT]).eval(), x, name, read, **options.get(name, {})))


def test_another_precision_is_refused(net, x):
    with pytest.raises(TargetError, match="leave precision out"):
        aw.occlusion(net, x, target=aw.neuron("5", 3), precision="bfloat16", **quick("occlusion"))


@pytest.mark.parametrize("name", ["gradient", "grad_cam", "occlusion", "lrp", "deep_lift"])
def test_the_model_is_left_as_it_was_found(net, x, name):
    hooks = [len(m._forward_hooks) for m in net.modules()]
    aw.explain(net, x, name, target=aw.neuron("5", 3), **quick(name))
    with pytest.raises(TargetError):
        aw.explain(net, x, name, target=aw.neuron("5", 30), **quick(name))
    assert [len(m._forward_hooks) for m in net.modules()] == hooks
    assert not any(m.training for m in net.modules())


def test_a_neuron_in_the_layer_of_a_colour_finds_its_square(detector):
    for channel, where in ((0, RED), (1, GREEN)):
        for name, options in POINTING.items():
            why = aw.explain(detector, scene(), name, target=aw.neuron("relu", channel), **options)
            assert share(why.map(), where) > 0.999
            if why.residual is not None:
                assert np.abs(why.residual).max() < 1e-3


def test_a_unit_of_tokens_is_averaged_over_them():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Flatten(), nn.Linear(30, 2)).eval()
    x, v = torch.randn(3, 5, 4), torch.randn(6)
    hidden = net[:2](x).detach()
    for target, wanted in (
        (aw.neuron("1", (..., 2)), hidden[:, :, 2].mean(1)),
        (aw.neuron("1", 2), hidden[:, 2].mean(1)),
        (aw.neuron("1", (4, 2)), hidden[:, 4, 2]),
        (aw.concept("1", v), (hidden @ v).mean(1)),
    ):
        np.testing.assert_allclose(aw.gradient(net, x, target=target).prediction, wanted, rtol=1e-5)


def test_the_channels_of_sequences_and_of_maps_with_channels_last():
    v = np.arange(1.0, 4)
    line, last = nn.Conv1d(2, 3, 1).eval(), Last().eval()
    x = torch.randn(2, 2, 7)
    np.testing.assert_allclose(aw.gradient(line, x, target=aw.concept("", v)).prediction, np.einsum("ncl,c->n", line(x).detach(), v) / 7, rtol=1e-5)
    x = torch.randn(2, 3, 4, 5)
    np.testing.assert_allclose(aw.gradient(last, x, target=aw.concept("swap", v)).prediction, np.einsum("nchw,c->n", x, v) / 20, rtol=1e-5)
    with pytest.raises(TargetError, match=r"\[3\] fits both axes of the \[3, 3\]"):
        aw.gradient(nn.Linear(2, 3).eval(), torch.randn(1, 3, 2), target=aw.concept("", v))


class Last(nn.Module):
    """Channels last inside."""

    def __init__(self) -> None:
        super().__init__()
        self.swap = Swap()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.swap(x).mean((1, 2))


class Swap(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 2, 3, 1)


def test_a_direction_fitted_to_examples_finds_its_concept():
    """As in TCAV: a network that tells where the red square is, and the directions of red and of green in what it has learnt."""
    from sklearn.linear_model import LogisticRegression

    torch.manual_seed(0)
    body = [nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU()]
    net = nn.Sequential(*body, nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(), nn.Linear(24, 2))
    x, mask = scenes(256)
    side = mask[:, 0, :, : SIDE // 2].sum((1, 2)).eq(0).long()  # in which half the red square is
    trained(net, x, side, nn.CrossEntropyLoss())
    shown, where = scenes(4, seed=9)
    assert (net(shown).argmax(1) == where[:, 0, :, : SIDE // 2].sum((1, 2)).eq(0)).all()
    for colour in (0, 1):
        without = torch.where(mask[:, colour, None] > 0, 0.05, x)
        examples = nn.Sequential(*net[:4])(torch.cat([x, without])).mean((2, 3)).numpy()
        fit = LogisticRegression(C=100, max_iter=1000).fit(examples, np.repeat([1, 0], len(x)))
        assert fit.score(examples, np.repeat([1, 0], len(x))) > 0.9
        target = aw.concept("3", fit.coef_[0] / np.linalg.norm(fit.coef_), name=("red", "green")[colour])
        for name in ("hires_cam", "integrated_gradients", "deep_lift"):
            why = aw.explain(net, shown, name, target=target, **POINTING[name])
            assert why.target[0] == f"{('red', 'green')[colour]} of layer '3'"
            for i in range(len(shown)):
                own, other = ((where[i, c] > 0).numpy() for c in (colour, 1 - colour))
                assert why.map(i)[own].mean() > 3 * abs(why.map(i)[other].mean())
            assert why.residual is None or np.abs(why.residual).max() < 1e-3


# ---- what cannot be asked ------------------------------------------------------------------------------------------


class Odd(nn.Module):
    """Layers that a target cannot be in, or just so."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.lstm, self.gru = nn.Linear(4, 4), nn.LSTM(4, 6, batch_first=True), nn.GRU(4, 6, batch_first=True)
        self.unused, self.turned, self.halves = nn.Linear(4, 4), Turned(), Halves()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.shared(self.shared(x))
        return self.lstm(x)[0][:, -1] + self.gru(x)[0][:, -1] + self.turned(x).mean() + self.halves(x)["a"].mean()


class Turned(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(0, 1)


class Halves(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"a": x[:1], "b": x[1:]}


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ("shard", "no such layer; did you mean 'shared'"),
        (nn.Linear(4, 4), "a Linear that is no part of this model"),
        (3, "a int that is no part of this model"),
        ("shared", "'shared' runs 2 times in one forward pass.*runs once"),
        ("unused", "'unused' did not run in this forward pass"),
        ("gru", "'gru' gives a tuple of 2 and not one tensor"),
        ("halves", "'halves' gives a dict with the keys .* and not one tensor"),
        ("turned", r"'turned' gives \[5, 4\] for one item; a target needs a layer whose first axis counts the items"),
    ],
)
@pytest.mark.parametrize("name", ["gradient", "lrp", "integrated_gradients"])
def test_a_layer_that_a_target_cannot_be_in(name, layer, said):
    net = Odd().eval()
    for target in (aw.neuron(layer, 0), aw.concept(layer, [1.0])):
        with pytest.raises(LayerError, match=said):
            aw.explain(net, torch.randn(2, 5, 4), name, target=target)
    assert not any(m._forward_hooks for m in net.modules())


def test_a_layer_that_gives_one_tensor_and_its_state():
    net, x = Odd().eval(), torch.randn(2, 5, 4)
    why = aw.gradient(net, x, target=aw.neuron("lstm", (4, 3)))
    np.testing.assert_allclose(why.prediction, net.lstm(net.shared(net.shared(x)))[0][:, 4, 3].detach(), rtol=1e-5)


@pytest.mark.parametrize("index", [(), (...,), -1, 1.5, True, "3", (1, -2), (1, None), slice(2), (..., 1, ...), [0, True]])
def test_an_index_that_is_none(index):
    with pytest.raises(TargetError, match="give the number of a unit from 0 on"):
        aw.neuron("5", index)


@pytest.mark.parametrize("index", [8, (3, 8), (0, 0, 0, 0)])
def test_an_index_beyond_the_layer(net, x, index):
    with pytest.raises(TargetError, match=r"gives \[8, 8, 8\] for an item, counted from 0"):
        aw.saliency(net, x, target=aw.neuron("5", index))


@pytest.mark.parametrize("direction", [[], [1, np.nan], [np.inf], "stripes", None, [0.0, 0.0], [[1, 2], [3]]])
def test_a_direction_that_is_none(direction):
    with pytest.raises(TargetError, match="concept: the direction"):
        aw.concept("5", direction)


def test_a_direction_of_another_length(net, x):
    for wrong in (np.ones(7), np.ones((8, 8)), np.ones((1, 8))):
        with pytest.raises(TargetError, match=r"and the layer gives \[8, 8, 8\] for an item; give one number a channel"):
            aw.saliency(net, x, target=aw.concept("5", wrong))
    with pytest.raises(TargetError, match=r"is \[3\], and the layer gives \[4\]"):
        aw.saliency(net, x, target=aw.concept("8", np.ones(3)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_direction_in_any_dtype(x, dtype):
    net = small_net(dtype=dtype)
    why = aw.hires_cam(net, x, target=aw.concept("5", torch.ones(8, dtype=dtype)))
    wanted = sum(aw.hires_cam(net, x, target=aw.neuron("5", k)).values for k in range(8))
    np.testing.assert_allclose(why.values, wanted, rtol=0.05, atol=0.02 * np.abs(wanted).max())


def test_targets_in_two_places(net, x):
    for target, versus in ((aw.neuron("5", 1), aw.neuron("2", 1)), (aw.neuron("5", 1), 3), (None, aw.neuron("5", 1))):
        with pytest.raises(TargetError, match="in different places .* ask about one layer at a time"):
            aw.saliency(net, x, target=target, versus=versus)


def test_a_black_box_and_a_model_of_chance_have_no_inside(net, x):
    def black_box(batch: np.ndarray) -> np.ndarray:
        return net(torch.as_tensor(batch)).detach().numpy()

    with pytest.raises(TargetError, match="offers predictions only; give the torch module itself"):
        aw.occlusion(black_box, x.numpy(), target=aw.neuron("5", 1))
    with pytest.raises(TargetError, match="draws no random numbers"):
        aw.occlusion(aw.wrap(net, seed=0), x, target=aw.neuron("5", 1))


def test_training_mode_and_wrong_inputs_are_refused_as_ever(net, x):
    with pytest.raises(ModelError, match="failed on an input of shape"):
        aw.saliency(net, x[:, :2], target=aw.neuron("5", 1))
    net.train()
    with pytest.raises(ModelError, match="training mode"):
        aw.saliency(net, x, target=aw.neuron("5", 1))


def test_the_result_says_which_neuron_and_is_saved_with_it(net, x, tmp_path):
    for target, text in (
        (aw.neuron(net[5], 3), "neuron 3 of layer '5'"),
        (aw.neuron("5", (3, 0, 1)), "neuron 3, 0, 1 of layer '5'"),
        (aw.neuron("5", (..., 2)), "neuron ..., 2 of layer '5'"),
        (aw.neuron("", 2), "neuron 2 of the output"),
        (aw.concept("5", np.ones(8)), "direction [8] of layer '5'"),
        (aw.concept("5", np.ones(8), name="stripes"), "stripes of layer '5'"),
    ):
        why = aw.grad_cam(net, x, target=target)
        assert why.target == (text, text)
        assert aw.Explanation.load(why.save(tmp_path / "why.npz")) == why
        assert text in why.summary()
        assert why.plot().get_title()


def test_it_stops_where_the_target_is(net, x):
    """What comes behind is not run, but for the one look whether the layer runs once."""
    runs = []
    net[8].register_forward_hook(lambda *_: runs.append(1))
    model = aw.wrap(net)
    aw.occlusion(model, x, target=aw.neuron("5", 1), **quick("occlusion"))
    aw.saliency(model, x, target=aw.neuron("5", 2))
    assert len(runs) == 1


def test_a_handler_in_the_model_does_not_swallow_the_stop(x):
    """It would run the network again."""

    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            try:
                return self.net(x)
            except Exception:  # noqa: BLE001
                return self.net(x)

    whole = Careful().eval()
    assert np.array_equal(aw.gradient(whole, x, target=aw.neuron("net.5", 3)).values, aw.gradient(whole.net, x, target=aw.neuron("5", 3)).values)


def test_a_neuron_in_a_checkpointed_part(x):
    from torch.utils.checkpoint import checkpoint

    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.net, x, use_reentrant=False)

    whole = Kept().eval()
    wanted = aw.gradient(whole.net, x, target=aw.neuron("5", 3)).values
    np.testing.assert_allclose(aw.gradient(whole, x, target=aw.neuron("net.5", 3)).values, wanted, atol=1e-7)


def test_the_python_of_the_document_runs(capsys):
    text = (Path(__file__).parent.parent / "docs/targets.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "docs/targets.md", "exec"), names)
    assert "neuron 5 of layer '3' rather than neuron 2 of layer '3'" in capsys.readouterr().out
    assert names["why"]["caption"].values.shape == (1, 3)
