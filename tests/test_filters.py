"""What excites a filter, and which pixels a place sees, beside slow textbook versions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import small_net
from matplotlib import pyplot as plt
from torch import nn

import askwhy as aw
from askwhy import errors
from askwhy.overall.excited import own_patch
from askwhy.overall.filters import Filters, filters
from askwhy.overall.footprint import smallest_box
from askwhy.overall.kernels import Weights, filter_weights
from askwhy.overall.receptive import ReceptiveField, energy, measured, receptive_field


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int = 12, side: int = 16) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=seeded(3))


# ---- the receptive field --------------------------------------------------------------------------------------------


def textbook(steps: list[tuple[int, int, int, int]], length: int) -> np.ndarray:
    """[places, 2] by the recursion over (kernel, stride, padding, dilation), without what falls on padding (Araujo et al. 2019)."""
    spans = np.stack([np.arange(length), np.arange(length) + 1], 1)
    for kernel, stride, padding, dilation in steps:
        places = (len(spans) + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        taps = [[k * stride - padding + t * dilation for t in range(kernel)] for k in range(places)]
        real = [[spans[tap] for tap in own if 0 <= tap < len(spans)] for own in taps]
        spans = np.array([(min(low for low, _ in own), max(high for _, high in own)) for own in real])
    return spans


def brute_force(run: nn.Module, shape: tuple[int, int]) -> np.ndarray:
    """[*grid, 4]: every pixel is changed, one at a time, and every place that answers is noted."""
    x = torch.rand(1, 3, *shape, dtype=torch.float64, generator=seeded(0))
    pixels = torch.eye(shape[0] * shape[1], dtype=torch.float64).reshape(-1, 1, *shape)
    with torch.no_grad():
        hit = ((run(x + pixels) - run(x)).abs() > 1e-9).any(1).reshape(*shape, *run(x).shape[2:]).numpy()
    boxes = np.zeros((*hit.shape[2:], 4), int)
    for place in np.ndindex(*hit.shape[2:]):
        rows, columns = np.nonzero(hit[(..., *place)])
        if len(rows):
            boxes[place] = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
    return boxes


def positive(net: nn.Module) -> nn.Module:
    """With positive weights, so that every rectifier passes everything and a change is always seen."""
    for p in net.parameters():
        p.data.abs_()
    return net.double().eval()


def boxes(net: nn.Module, layer: str, shape: tuple[int, int], channels: int = 3) -> np.ndarray:
    model = aw.wrap(net.eval())
    like = next(net.parameters(), torch.empty(0))
    return measured(model, layer, model.prepare(torch.rand(1, channels, *shape, generator=seeded(1)).to(like.dtype)))[0]


STACKS = [
    [(3, 1, 1, 1)],
    [(3, 2, 0, 1), (3, 2, 1, 1)],
    [(7, 2, 3, 1), (3, 2, 1, 1), (3, 1, 1, 1), (1, 1, 0, 1)],
    [(3, 1, 2, 2), (5, 3, 0, 1)],
    [(3, 2, 1, 1), (3, 2, 1, 1), (3, 2, 1, 1), (3, 1, 1, 1)],
    [(2, 2, 0, 1), (2, 2, 0, 1)],
    [(1, 4, 0, 1)],
]


@pytest.mark.parametrize("steps", STACKS)
@pytest.mark.parametrize("pools", [False, True])
def test_field_is_that_of_the_textbook_recursion(steps: list[tuple[int, int, int, int]], pools: bool) -> None:
    parts: list[nn.Module] = []
    for k, (kernel, stride, padding, dilation) in enumerate(steps):
        if pools and k and padding <= kernel // 2:
            parts += [nn.MaxPool2d(kernel, stride, padding, dilation), nn.ReLU()]
        else:
            parts += [nn.Conv2d(3, 3, kernel, stride, padding, dilation), nn.BatchNorm2d(3), nn.ReLU6()]
    rows, columns = textbook(steps, 33), textbook(steps, 24)
    found = boxes(nn.Sequential(*parts), "", (33, 24))
    assert found.shape == (len(rows), len(columns), 4)
    assert (found[..., 0] == rows[:, None, 0]).all()
    assert (found[..., 2] == rows[:, None, 1]).all()
    assert (found[..., 1] == columns[None, :, 0]).all()
    assert (found[..., 3] == columns[None, :, 1]).all()


class Cross(nn.Module):
    """A field in the form of a plus, beside a path that skips it."""

    def __init__(self) -> None:
        super().__init__()
        self.tall, self.wide = nn.Conv2d(3, 3, (5, 1), padding=(2, 0)), nn.Conv2d(3, 3, (1, 7), padding=(0, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tall(x) + self.wide(x) + x


class Attends(nn.Module):
    """Squeeze and excitation: every place sees the whole picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(x))
        return x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]


ODD = {
    "uneven padding": nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, 2), nn.ZeroPad2d((2, 1, 1, 0)), nn.Conv2d(4, 4, 3, 1)),
    "uneven pooling": nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d((3, 5))),
    "upsampled": nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3, padding=1)),
    "transposed": nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ConvTranspose2d(4, 2, 3, 2)),
    "cross": Cross(),
    "whole": Attends(),
    "one place": nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)),
    "padding only": nn.Sequential(nn.Conv2d(3, 4, 1, padding=2)),
    "circular": nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")),
    "wide steps": nn.Sequential(nn.Conv2d(3, 4, 2, 5), nn.ReLU()),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("shape", [(14, 11), (13, 13)])
def test_field_is_what_changing_every_pixel_shows(name: str, shape: tuple[int, int]) -> None:
    net = positive(ODD[name])
    np.testing.assert_array_equal(boxes(net, "", shape), brute_force(net, shape))


def test_field_counts_what_is_dead_on_this_input() -> None:
    """A gradient sees nothing of dead rectifiers, and one pixel of a maximum."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2)).eval()
    net[0].bias.data.fill_(-1e6)
    model = aw.wrap(net)
    found = receptive_field(model, "2", pictures(1))
    assert found.size == (5, 5)
    assert found.step == (2, 2)
    assert found.gradient.sum() == 0
    assert found.effective.tolist() == [0, 0, 0, 0]


def test_regular_fields_are_found_in_few_passes() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 7, 2, 3), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 4, 3, 1, 1)).eval()
    model = aw.wrap(net)
    items = model.prepare(torch.rand(1, 3, 128, 128))
    found, calls = measured(model, "2", items)
    assert calls < 60 < 128 + 128
    assert measured(model, "2", items) == (found, 0)  # known from now on ...
    net[2] = nn.Conv2d(4, 4, 5, 1, 2).eval()
    assert (measured(model, "2", items)[0] != found).any()  # ... until the network changes


def test_series_and_channels_last() -> None:
    net = nn.Sequential(nn.Conv1d(2, 3, 5, 2, 2), nn.ReLU(), nn.Conv1d(3, 3, 3, 1, 1)).eval()
    found = receptive_field(net, "2", torch.rand(2, 2, 40))
    spans = textbook([(5, 2, 2, 1), (3, 1, 1, 1)], 40)
    np.testing.assert_array_equal(found.boxes[:, 1::2], spans)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x.permute(0, 3, 1, 2))

    rows, columns = textbook([(3, 1, 1, 1)], 12), textbook([(3, 1, 1, 1)], 9)
    found = receptive_field(Last().eval(), "conv", torch.rand(1, 12, 9, 3))
    np.testing.assert_array_equal(found.boxes[:, 0, ::2], rows)
    np.testing.assert_array_equal(found.boxes[0, :, 1::2], columns)


@pytest.mark.parametrize("seed", range(9))
def test_smallest_box_is_the_smallest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    squared = rng.random((7, 9)) ** (1 + seed)
    best = np.inf
    for top, left in np.ndindex(7, 9):
        for bottom, right in np.ndindex(8, 10):
            if squared[top:bottom, left:right].sum() >= 0.95 * squared.sum():
                best = min(best, (bottom - top) * (right - left))
    top, left, bottom, right = smallest_box(squared, 0.95)
    assert squared[top:bottom, left:right].sum() >= 0.95 * squared.sum() * (1 - 1e-9)
    assert (bottom - top) * (right - left) == best


def test_energy_is_the_squared_kernel_and_their_sum_in_expectation() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3)).double().eval()
    model = aw.wrap(net)
    items = model.prepare(torch.rand(400, 3, 9, 9, dtype=torch.float64))
    kernels = net[0].weight.detach().square().sum(1).numpy()  # [4, 3, 3]
    one = energy(model, "0", items, range(2), [(2, 4), (0, 0)], [3, 1])
    np.testing.assert_allclose(one[0, 2:5, 4:7], kernels[3], rtol=1e-12)
    np.testing.assert_allclose(one[1, :3, :3], kernels[1], rtol=1e-12)
    assert one.sum() == pytest.approx(kernels[[1, 3]].sum())
    every = energy(model, "0", items, range(400), [(2, 4)] * 400, None).mean(0)
    np.testing.assert_allclose(every[2:5, 4:7], kernels.sum(0), rtol=0.25)


def test_field_of_a_real_network(lite0: aw.models.Model, cat: object) -> None:
    """Uneven padding of TensorFlow: 3 x 3 with stride 2 on 224 pads below and to the right only."""
    found = receptive_field(lite0, "_blocks.1", cat)
    assert found.size == (11, 11)
    assert found.step == (4, 4)
    assert found.boxes[0, 0].tolist() == [0, 0, 9, 9]
    assert found.boxes[-1, -1].tolist() == [218, 218, 224, 224]
    high, wide = found.effective[2:] - found.effective[:2]
    assert high <= 11
    assert wide <= 11
    assert "11 x 11 pixels of 224 x 224" in found.summary()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_the_same_field(dtype: torch.dtype) -> None:
    """Its kernels on a CPU spread NaN to neighbours that do not see it."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ConvTranspose2d(8, 4, 3, 2)).eval()
    x = torch.rand(1, 3, 14, 14, generator=seeded(0))
    wanted = receptive_field(net, "3", x).boxes
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(receptive_field(net, "3", x).boxes, wanted)
    found = receptive_field(net.to(dtype), "3", x.to(dtype))
    np.testing.assert_array_equal(found.boxes, wanted)
    assert next(net.parameters()).dtype == dtype
    assert torch.backends.nnpack.set_flags(True) == (True,)


class Stays(nn.Module):
    """Computes in half precision, whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.conv(x).float()


def test_half_precision_that_cannot_be_left_is_refused() -> None:
    with pytest.raises(errors.UnsupportedError, match="half precision"):
        receptive_field(Stays().eval(), "", pictures(1))
    assert "the whole pictures are shown" in filters(Stays().eval(), pictures(4), "conv", top=2).summary()


def test_the_field_is_measured_again_in_another_dtype() -> None:
    model = aw.wrap(small_net())
    assert measured(model, "4", model.prepare(pictures(1)))[1] > 0
    model.net.double()
    assert measured(model, "4", model.prepare(pictures(1)))[1] > 0


@pytest.mark.parametrize("seed", [0, np.int64(7)])
def test_the_effective_field_depends_on_the_seed_and_not_on_the_batch_size(seed: int) -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 5, padding=2), nn.ReLU(), nn.Conv2d(6, 6, 5, padding=2)).eval().double()
    model = aw.wrap(net)
    wanted = receptive_field(model, "2", pictures(6).double(), seed=seed, batch_size=1)
    for size in (2, 4, 6):
        found = receptive_field(model, "2", pictures(6).double(), seed=seed, batch_size=size)
        np.testing.assert_allclose(found.gradient, wanted.gradient, atol=1e-12)
        assert found.effective.tolist() == wanted.effective.tolist()
    assert abs(receptive_field(model, "2", pictures(6).double(), seed=1).gradient - wanted.gradient).max() > 1e-3
    same = receptive_field(model, "2", pictures(1).double().repeat(2, 1, 1, 1), batch_size=2).gradient
    assert abs(same - receptive_field(model, "2", pictures(1).double()).gradient).max() > 1e-4  # each item has signs of its own


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(self.conv(x)).mean((2, 3))


class Turned(nn.Module):
    """A transposed picture beside it is regular along the diagonal of the grid, and nowhere else."""

    def __init__(self, how: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.how(x)


class Corner(nn.Module):
    """Regular but for one place beside the diagonal."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x.clone()
        out[:, :, 0, -1] = x[:, :, 0, -1] + x[:, :, 1, -3]
        return out


TURNS = [lambda x: x.mT, lambda x: x.flip(2, 3), lambda x: x.flip(2), lambda x: x.mT.flip(2, 3), lambda x: x.mT.flip(2), lambda x: x.roll(1, 2)]


@pytest.mark.parametrize("net", [*map(Turned, TURNS), Corner()])
def test_regularity_is_proved_beside_the_diagonal_too(net: nn.Module) -> None:
    np.testing.assert_array_equal(boxes(net, "", (12, 12)), brute_force(net, (12, 12)))


def test_fields_under_inference_mode() -> None:
    net, X = aw.wrap(small_net()), pictures(6)
    wanted, own = receptive_field(net, "4", X), filters(net, X, "5", [1, 2], top=2, field="effective")
    with torch.inference_mode():
        found, seen = receptive_field(net, "4", X * 1), filters(net, X * 1, "5", [1, 2], top=2, field="effective")
    np.testing.assert_allclose(found.gradient, wanted.gradient, atol=1e-7)
    assert seen.boxes.tolist() == own.boxes.tolist()


class Swaps(nn.Module):
    """A model that replaces NaN: in all it computes, or beside a path that lets it through."""

    def __init__(self, all_of_it: bool) -> None:
        super().__init__()
        self.conv, self.all_of_it = nn.Conv2d(3, 3, 3, padding=1), all_of_it

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = torch.nan_to_num(self.conv(x))
        return wide if self.all_of_it else wide + x


@pytest.mark.parametrize(("all_of_it", "said"), [(True, "stays finite"), (False, "NaN does not reach")])
def test_a_model_that_replaces_nan_is_refused(all_of_it: bool, said: str) -> None:
    with pytest.raises(errors.UnsupportedError, match=said):
        receptive_field(Swaps(all_of_it).eval(), "", pictures(1))
    shown = filters(Swaps(all_of_it).eval(), pictures(4), "", top=2)
    assert "the whole pictures are shown" in shown.summary()
    assert shown.patches[0].shape == (16, 16, 3)
    with pytest.raises(errors.UnsupportedError, match="leave field out"):
        filters(Swaps(all_of_it).eval(), pictures(4), "", top=2, field="effective")


def test_what_has_no_field_is_refused() -> None:
    net = small_net()
    with pytest.raises(errors.LayerError, match="'4'"):
        receptive_field(net, "44", pictures(1))
    with pytest.raises(errors.InputError, match="7 x 7|8 x 8"):
        receptive_field(net, "4", pictures(1), place=(9, 0))
    with pytest.raises(errors.InputError, match="name one layer"):
        receptive_field(net, ["4", "5"], pictures(1))
    with pytest.raises(errors.InputError, match="seed=-1"):
        receptive_field(net, "4", pictures(1), seed=-1)
    with pytest.raises(errors.LayerError, match="runs 2 times"):
        receptive_field(Twice().eval(), "conv", pictures(1))
    for made in (torch.jit.script(net), torch.jit.trace(net, pictures(1))):
        with pytest.raises(errors.UnsupportedError, match="ScriptModule"):
            receptive_field(made, "4", pictures(1))
        with pytest.raises(errors.UnsupportedError, match="ScriptModule"):
            receptive_field(nn.Sequential(nn.Conv2d(3, 3, 1), made).eval(), "1", pictures(1))
        assert receptive_field(nn.Sequential(nn.Conv2d(3, 3, 1), made).eval(), "0", pictures(1)).size == (1, 1)
        with pytest.raises(errors.UnsupportedError, match="ScriptModule"):
            filters(made, pictures(4), "4")
    with pytest.raises(errors.InputError, match="pictures"):
        receptive_field(nn.Sequential(nn.Linear(4, 3)).eval(), "0", torch.rand(2, 4))

    class NoGradient(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x.detach())

    with pytest.raises(errors.UnsupportedError, match="no gradient"):
        receptive_field(NoGradient().eval(), "conv", pictures(1))


def test_field_is_kept_and_drawn(tmp_path: Path) -> None:
    found = receptive_field(small_net(), "4", pictures(3))
    assert ReceptiveField.load(found.save(tmp_path / "field.npz")) == found
    assert found.plot().get_title()
    assert "data:image/png" in found._repr_html_()
    assert repr(found) == "<ReceptiveField of layer '4', 8 x 8 pixels>"


# ---- what excites a filter ------------------------------------------------------------------------------------------


def by_hand(net: nn.Module, X: torch.Tensor, layer: int, channel: int, by: str, top: int) -> list[tuple[float, int, tuple[int, int]]]:
    """Run everything, sort everything."""
    with torch.no_grad():
        maps = net[: layer + 1](X)[:, channel]
    rows = []
    for k, one in enumerate(maps):
        place = divmod(int(one.flatten().argmax()), one.shape[1])
        rows.append((float(one.max() if by == "max" else one.mean()), k, place))
    return sorted(rows, key=lambda row: (-row[0], row[1]))[:top]


def test_filters_behind_a_layer_norm_over_the_whole_map_are_its_channels() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.LayerNorm([8, 16, 16]), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 256, 2)).eval()
    X = torch.rand(20, 3, 18, 18)
    for layer in (1, 2):
        found = filters(net, X, str(layer), [0, 7], top=3)
        for k, channel in enumerate((0, 7)):
            wanted = by_hand(net, X, layer, channel, "max", 3)
            assert found.items[k].tolist() == [item for _, item, _ in wanted]
            assert [tuple(p) for p in found.places[k]] == [place for *_, place in wanted]


@pytest.mark.parametrize("by", ["max", "mean"])
@pytest.mark.parametrize("batch_size", [1, 5, "auto"])
def test_filters_are_those_of_a_full_sort(by: str, batch_size: int | str) -> None:
    net, X = small_net(dtype=torch.float64), pictures(30).double()
    found = filters(net, X, "5", [0, 6, 3], top=4, by=by, batch_size=batch_size)
    shown = aw.wrap(net).prepare(X).pictures
    field = textbook([(3, 1, 1, 1), (2, 2, 0, 1), (3, 1, 1, 1)], 16)
    for k, channel in enumerate((0, 6, 3)):
        wanted = by_hand(net, X, 5, channel, by, 4)
        assert found.items[k].tolist() == [item for _, item, _ in wanted]
        assert [tuple(p) for p in found.places[k]] == [place for *_, place in wanted]
        np.testing.assert_allclose(found.values[k], [value for value, *_ in wanted], rtol=1e-5)
        for t, (_, item, (i, j)) in enumerate(wanted):
            (top, bottom), (left, right) = field[i], field[j]
            assert found.boxes[k, t].tolist() == [top, left, bottom, right]
            np.testing.assert_array_equal(found.patches[k * 4 + t], shown[item][top:bottom, left:right])  # type: ignore[index]
    assert found.field_size == (8, 8)
    assert found.cut.tolist() == [[bool((box[2:] - box[:2] < 8).any()) for box in row] for row in found.boxes]


def test_a_patch_is_all_that_the_place_sees() -> None:
    """Noise everywhere else does not change the activation."""
    net, X = small_net(), pictures(10)
    found = filters(net, X, "5", [2], top=3)
    for t in range(3):
        top, left, bottom, right = found.boxes[0, t]
        noise = torch.randn(1, 3, 16, 16, generator=seeded(t)) * 50
        noise[:, :, top:bottom, left:right] = X[found.items[0, t], :, top:bottom, left:right]
        with torch.no_grad():
            assert net[:6](noise)[0, 2][tuple(found.places[0, t])].item() == pytest.approx(found.values[0, t], abs=1e-4)


def test_only_the_border_cuts_a_field_off() -> None:
    """Bins of three and of four pixels are fields of two sizes inside of the picture."""
    X = pictures(20, 12) * 0.1
    X[:, :, 2:5, 2:5] = 1
    found = filters(nn.Sequential(nn.AdaptiveAvgPool2d((5, 5))).eval(), X, "0", [0], top=2)
    assert found.field_size == (4, 4)
    assert found.boxes[0].tolist() == [[2, 2, 5, 5]] * 2
    assert not found.cut.any()
    assert "cut off" not in found.summary()


def test_a_patch_is_padded_where_the_border_cuts_it_and_nowhere_else() -> None:
    clear = np.full((4, 3, 3), 7, np.uint8)
    found = replace(filters(small_net(), pictures(4), "5", [0], top=1), field_size=(5, 5))
    low = found.whole(clear, np.array([0, 6, 4, 9]), True)  # narrower than the field, too, yet inside from left to right
    assert low.shape == (5, 3, 4)
    assert (low[0, :, 3] < 255).all()
    assert (low[1:, :, :3] == 7).all()
    high = found.whole(clear, np.array([12, 0, 16, 3]), True)
    assert high.shape == (5, 5, 4)
    assert (high[:4, 2:, :3] == 7).all()


def test_equal_items_come_in_their_order() -> None:
    X = pictures(3).repeat(7, 1, 1, 1)
    found = filters(small_net(), X, "5", [1], top=9, batch_size=4)
    assert (np.diff(found.values[0]) <= 0).all()
    for first in range(3):
        assert (np.diff(found.items[0][found.items[0] % 3 == first]) == 3).all()
    assert filters(small_net(), X, "5", [1], top=9, batch_size=21).items.tolist() == found.items.tolist()


def test_streams_are_what_a_tensor_is() -> None:
    net, X = small_net(), pictures(20)
    whole = filters(net, X, "4", [1, 5], top=3, batch_size=4)
    data = torch.utils.data.TensorDataset(X, torch.zeros(20))
    for stream in (data, torch.utils.data.DataLoader(data, batch_size=6), list(X)):
        other = filters(net, stream, "4", [1, 5], top=3, batch_size=4)
        assert other.items.tolist() == whole.items.tolist()
        np.testing.assert_allclose(other.scores, whole.scores, atol=1e-6)
        assert all(map(np.array_equal, other.patches, whole.patches))


def test_photos_are_cut_from_what_the_model_saw(cat: object) -> None:
    squeezed = aw.wrap(small_net(), transform=lambda p: torch.from_numpy(np.asarray(p.resize((16, 16)), np.float32).transpose(2, 0, 1) / 255))
    found = filters(squeezed, [cat, aw.zoo.photo("coffee")], "0", [0], top=2)
    seen = squeezed.prepare(cat).pictures[0]
    top, left, bottom, right = found.boxes[0, list(found.items[0]).index(0)]
    np.testing.assert_array_equal(found.patches[list(found.items[0]).index(0)], seen[top:bottom, left:right])


def test_only_the_best_pictures_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    from askwhy.overall import excited

    held: list[int] = []
    keep = excited.Best.keep
    monkeypatch.setattr(excited.Best, "keep", lambda self, read: (keep(self, read), held.append(len(self.kept)))[0])
    filters(small_net(), pictures(200), "4", [1, 5], top=3, batch_size=10)
    assert max(held) <= 6


def test_statistics_are_those_of_all_items() -> None:
    net, X = small_net(), pictures(40)
    net[4].weight.data[2] = 0
    net[4].bias.data[2] = -1  # dead behind the rectifier
    net[4].bias.data[3] -= net[:5](X)[:, 3].amax((1, 2)).median().item()
    found = filters(net, X, "5", [2, 3, 4], top=5)
    with torch.no_grad():
        highest = net[:6](X).amax((2, 3))[:, [2, 3, 4]].numpy()
    np.testing.assert_allclose(found.scores, highest, atol=1e-6)
    np.testing.assert_allclose(found.active, (highest > 0).mean(0))
    assert 0.3 < found.active[1] < 0.7
    np.testing.assert_allclose(found.quantiles, np.quantile(highest, (0.5, 0.9, 0.99), axis=0), atol=1e-6)
    assert found.stands_out[0] == 0
    assert found.stands_out[2] == pytest.approx((found.values[2].mean() - highest[:, 2].mean()) / highest[:, 2].std(), rel=1e-4)
    assert found.dead == (2,)
    assert "1 of 8 channels (2)" in found.summary()
    assert filters(net, X, "5", [0], top=5).dead == (2,)  # of the whole layer
    net[4].bias.data[2] = 1
    net[4].weight.data[2, 0, 1, 1] = 1e-3  # hardly anything, but something
    assert filters(net, X, "5", [0], top=5).dead == ()


def test_a_channel_that_wakes_up_late_is_not_dead() -> None:
    class Late(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x - 0.5)

    X = torch.zeros(30, 3, 4, 4)
    X[29, 1] = 1
    found = filters(nn.Sequential(Late()).eval(), X, "0", top=2, batch_size=3)
    assert found.dead == (0, 2)
    assert found.items[1, 0] == 29


def test_units_see_the_whole_picture() -> None:
    net, X = small_net(), pictures(9)
    found = filters(net, X, "8", top=2)
    with torch.no_grad():
        wanted = net(X)
    assert found.channels == (0, 1, 2, 3)
    assert found.items.T.tolist() == wanted.topk(2, 0).indices.tolist()
    assert found.patches[0].shape == (16, 16, 3)
    assert "one number for each channel" in found.summary()


class Tokens(nn.Module):
    """Patches of 4 x 4 pixels behind a class token, and attention."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cut = nn.Conv2d(3, 6, 4, 4)
        self.block = nn.TransformerEncoderLayer(6, 2, 12, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.cut(x).flatten(2).transpose(1, 2)
        return self.block(torch.cat([torch.zeros(len(x), 1, 6), patches], 1))


def test_tokens_show_the_patch_they_stand_for() -> None:
    X = pictures(12)
    X[5, :, 4:8, 8:12] = 4  # patch 6 of 16
    found = filters(Tokens().eval(), X, "block", top=12)
    assert found.field_size == (16, 16)
    assert "the patch that it stands for" in found.summary()
    for place, box in zip(found.places.reshape(-1), found.boxes.reshape(-1, 4), strict=True):
        row, column = divmod(int(place) - 1, 4)
        assert box.tolist() == ([0, 0, 16, 16] if place == 0 else [4 * row, 4 * column, 4 * row + 4, 4 * column + 4])
    assert own_patch(7, 17, (16, 16)) == (4, 8, 8, 12)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.look = nn.Embedding(20, 4).requires_grad_(False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return (self.look(input_ids) * attention_mask[..., None]).sum(1)


def test_padding_excites_nothing() -> None:
    net = Words().eval()
    net.look.weight.data[0] = 99  # the padding
    net.look.weight.data[7, 1] = 50
    ids = torch.tensor([[3, 4, 5, 6], [3, 7, 0, 0], [8, 9, 10, 0]])
    for by, wanted in (("max", 50), ("mean", float((net.look.weight[3, 1] + 50) / 2))):
        found = filters(net, {"input_ids": ids, "attention_mask": (ids > 0).long()}, "look", [1], top=3, by=by)
        assert found.items[0, 0] == 1
        assert found.places[0, 0].tolist() == [1]
        assert found.values[0, 0] == pytest.approx(wanted, rel=1e-5)
        assert "«token 1 (id 7)»" in found.words[0][0]
        assert "over the tokens" in found.summary()
        assert found.plot().texts


def test_effective_patches_hold_most_of_the_gradient() -> None:
    net, X = small_net().double(), pictures(8).double()
    full, found = (filters(net, X, "5", [1, 2], top=2, field=field) for field in ("full", "effective"))
    assert found.items.tolist() == full.items.tolist()
    for k, t in np.ndindex(2, 2):
        leaf = X[found.items[k, t]][None].clone().requires_grad_()
        net[:6](leaf)[0, (1, 2)[k]][tuple(found.places[k, t])].backward()
        top, left, bottom, right = found.boxes[k, t]
        squared = leaf.grad.square().sum((0, 1))
        assert squared[top:bottom, left:right].sum() >= 0.95 * squared.sum() * (1 - 1e-9)
        assert (found.boxes[k, t, :2] >= full.boxes[k, t, :2]).all()
        assert (found.boxes[k, t, 2:] <= full.boxes[k, t, 2:]).all()


def test_filters_of_real_photos(lite0: aw.models.Model, cat: object) -> None:
    """The early orange-blue or light-dark filters answer to photos; by default to eight of the last convolution."""
    found = filters(lite0, [cat, aw.zoo.photo("coffee"), aw.zoo.photo("flower")], top=2, batch_size=3)
    assert found.layer == "_conv_head"
    assert len(found) == 8
    assert found.width == 1280
    assert found.channels[-1] == 1279
    assert found.values.shape == (8, 2)


def test_the_default_needs_a_convolution() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).eval()
    with pytest.raises(errors.UnsupportedError, match="layer="):
        filters(net, torch.rand(4, 3, 4, 4))
    assert filters(small_net(), pictures(4), top=1).layer == "4"
    with pytest.raises(errors.UnsupportedError, match="no convolution"):
        filter_weights(net)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"channels": 8}, errors.InputError, "8 channels, counted from 0 to 7"),
        ({"channels": [0, -1]}, errors.InputError, "has -1"),
        ({"channels": []}, errors.InputError, "names none"),
        ({"channels": True}, errors.InputError, "has True"),
        ({"top": 0}, errors.InputError, "top=0"),
        ({"by": "median"}, errors.InputError, "'max' or 'mean'"),
        ({"field": "all"}, errors.InputError, "'full' or 'effective'"),
        ({"layer": "44"}, errors.LayerError, "'4'"),
        ({"layer": ["4", "5"]}, errors.InputError, "name one layer"),
        ({"batch_size": 0}, errors.InputError, "batch_size=0"),
        ({"X": torch.zeros(0, 3, 16, 16)}, errors.InputError, "no items"),
        ({"X": 3}, errors.InputError, "int"),
    ],
)
def test_what_cannot_be_asked_is_refused(options: dict, kind: type[Exception], said: str) -> None:
    given = {"X": pictures(4), "layer": "4", **options}
    with pytest.raises(kind, match=said):
        filters(small_net(), given.pop("X"), given.pop("layer"), **given)


def test_numbers_that_are_none_are_refused() -> None:
    class Roots(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sqrt(x)

    X = pictures(6)
    X[4] -= 2
    with pytest.raises(errors.ModelError, match="item 4"):
        filters(nn.Sequential(Roots()).eval(), X, "0")
    loader = torch.utils.data.DataLoader([torch.rand(3, 16, 16), torch.rand(3, 12, 12)], batch_size=1)
    with pytest.raises(errors.InputError, match="one size"):
        filters(small_net(), loader, "4")


def test_progress_stops_it() -> None:
    told: list[tuple[int, int]] = []
    filters(small_net(), pictures(10), "4", batch_size=5, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (10, 10)
    with pytest.raises(errors.Cancelled):
        filters(small_net(), pictures(10), "4", batch_size=5, progress=lambda done, total: False)


def test_the_model_is_left_as_it_was() -> None:
    net = small_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    filters(net, pictures(5), "4", field="effective", top=2)
    receptive_field(net, "4", pictures(2))
    filter_weights(net).values[:] = 0
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks for m in net.modules())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_filters_are_kept_and_drawn(tmp_path: Path) -> None:
    found = filters(small_net(), pictures(9), "5", [1, 4], top=3)
    again = Filters.load(found.save(tmp_path / "filters.npz"))
    assert again == found
    assert filters(small_net(), pictures(9), "5", [1, 4], top=2) != found
    assert again.summary() == found.summary()
    numbers = filters(small_net(), pictures(9), "5", [np.int64(1)], top=np.int64(3))
    assert Filters.load(numbers.save(tmp_path / "numbers.npz")) == numbers
    words = filters(nn.Sequential(nn.Linear(4, 3)).eval(), torch.rand(6, 4), "0", top=2)
    assert Filters.load(words.save(tmp_path / "words.npz")) == words
    assert words.plot().texts
    ax = found.plot(portraits={4: np.zeros((8, 8, 3), np.uint8)})
    assert len(ax.images) == 7
    assert {"channel 1", "channel 4", "portrait"} <= {text.get_text() for text in ax.texts}
    assert any(text.get_text().startswith(f"{found.values[0, 0]:.3g}") for text in ax.texts)
    given = plt.figure().add_subplot()
    assert found.plot(given) is given
    plt.close("all")
    assert "data:image/png" in found._repr_html_()
    assert repr(found) == "<Filters of layer '5', 2 channels, 9 items>"
    with pytest.raises(errors.InputError, match="channel 7"):
        found.plot(portraits={7: np.zeros((8, 8, 3), np.uint8)})


# ---- the weights ----------------------------------------------------------------------------------------------------


def test_weights_are_the_layers_own() -> None:
    net = small_net()
    found = filter_weights(net)
    assert found.layer == "0"
    np.testing.assert_array_equal(found.values, net[0].weight.detach().numpy())
    assert found.colours == "RGB"
    assert "taken for red, green, blue" in found.summary()
    own = found.pictures().astype(float)
    np.testing.assert_allclose((own - 127.5) / 127.5 * found.scale, found.values.transpose(0, 2, 3, 1), atol=found.scale / 127)
    assert found.scale == np.abs(found.values).max()
    assert len(found.plot().images) == 6
    assert len(found.plot(most=2).images) == 2


@pytest.mark.parametrize(("order", "found"), [((0, 1, 2), "RGB"), ((2, 1, 0), "BGR"), ((1, 2, 0), "GBR")])
def test_colours_are_those_of_the_photo(order: tuple[int, ...], found: str) -> None:
    """The layer answers to red alone, wherever the transform puts it: its picture has to be red."""
    net = nn.Sequential(nn.Conv2d(3, 1, 3)).eval()
    net[0].weight.data.zero_()
    net[0].weight.data[0, order.index(0)] = 1
    model = aw.wrap(net, transform=lambda p: torch.from_numpy(np.asarray(p.resize((8, 8)), np.float32)[..., list(order)].transpose(2, 0, 1) - 100.0))
    weights = filter_weights(model)
    assert weights.colours == found
    assert (weights.pictures()[0] == [255, 128, 128]).all()


def test_mixed_colours_are_drawn_one_by_one() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3)).eval()
    grey = aw.wrap(net, transform=lambda p: torch.from_numpy(np.asarray(p.convert("L").resize((8, 8)), np.float32)).expand(3, 8, 8))
    found = filter_weights(grey)
    assert found.colours == ""
    assert "one by one" in found.summary()
    with pytest.raises(errors.UnsupportedError, match="no colours"):
        found.pictures()


def test_deeper_kernels_are_signed_maps(tmp_path: Path) -> None:
    net = small_net()
    found = filter_weights(net, "4")
    ax = found.plot()
    assert len(ax.images) == 8 * 6
    low, high = ax.images[0].get_clim()
    assert -low == high
    assert Weights.load(found.save(tmp_path / "weights.npz")) == found
    assert "data:image/png" in found._repr_html_()
    assert repr(found) == "<Weights of layer '4', 8 x 6 x 3 x 3>"
    series = filter_weights(nn.Sequential(nn.Conv1d(4, 3, 5)).eval())
    assert series.values.shape == (3, 4, 1, 5)
    assert len(series.plot().images) == 3
    assert filter_weights(nn.Sequential(nn.Conv1d(3, 4, 5)).eval()).colours == ""  # three sensors
    with pytest.raises(errors.LayerError, match="is a ReLU and no convolution; name one, such as '0'"):
        filter_weights(net, "2")
    with pytest.raises(errors.InputError, match="most=0"):
        found.plot(most=0)


def test_weights_of_a_network_that_reads_blue_first() -> None:
    found = filter_weights(aw.zoo.load("squeezenet"))
    assert found.colours == "BGR"
    assert found.values.shape == (64, 3, 3, 3)
    assert (found.pictures()[6, 1, 1] > [0, 200, 0]).all()  # kernel 6 answers to green
