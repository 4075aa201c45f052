"""Layers read over many inputs, beside hooks and passes written by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from transformers import BertConfig, BertModel

import askwhy as aw
from askwhy.errors import Cancelled, InputError, LayerError, UnsupportedError
from askwhy.layers import count, names_of, read_layers
from askwhy.models.base import said_clearly
from askwhy.places import channels_of, pooled, real_places


def gathered(model, X, layers=None, **options):
    """Everything that the layers give, and the sizes of the pieces."""
    outs, sizes = {}, []
    for read in read_layers(model, X, layers, **options):
        sizes.append(len(read.which))
        for name, out in read.outs.items():
            outs.setdefault(name, []).append(out)
    return {name: torch.cat(parts) for name, parts in outs.items()}, sizes


def by_hand(net, x, name):
    seen = []
    handle = net.get_submodule(name).register_forward_hook(lambda module, args, out: seen.append(out.clone()))
    with torch.no_grad():
        net(x)
    handle.remove()
    return seen[0]


def pictures(n, seed=3):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


PHOTOS = pictures(70)


class Squeezed(nn.Module):
    def forward(self, x):
        return x.squeeze()


class Parameter(nn.Module):
    def forward(self):
        return torch.tensor(2.0)


class Photos(Dataset):
    """(input, label), one by one."""

    def __len__(self):
        return 70

    def __getitem__(self, k):
        return PHOTOS[k], k % 4


@pytest.mark.parametrize(
    "given",
    [
        pictures(70),
        pictures(70).numpy(),
        list(pictures(70)),
        Photos(),
        DataLoader(Photos(), batch_size=9),
        DataLoader(TensorDataset(pictures(70)), batch_size=70),
        (pictures(70)[k : k + 30] for k in (0, 30, 60)),
    ],
    ids=["tensor", "array", "list", "dataset", "loader", "loader without labels", "generator"],
)
def test_every_way_to_give_many_inputs(net, given):
    found, sizes = gathered(net, given, ["0", "8"], batch_size=8)
    assert sizes[0] == 1
    assert max(sizes) <= 8
    assert sum(sizes) == 70
    for name in ("0", "8"):
        torch.testing.assert_close(found[name], by_hand(net, pictures(70), name), rtol=1e-5, atol=1e-6)


class Named(Dataset):
    """Inputs by name, one by one; other lengths from `odd` on."""

    def __init__(self, kind=dict, odd=99):
        self.kind, self.odd = kind, odd

    def __len__(self):
        return 70

    def __getitem__(self, k):
        ids = [k % 20, 1, 2, 3, *([4] if k >= self.odd else [])]
        item = {"ids": torch.tensor(ids) if k % 2 else ids, "weight": k / 70}
        return item if self.kind is dict else (item, k % 4)


class Weighed(nn.Module):
    def __init__(self):
        super().__init__()
        self.look, self.head = nn.Embedding(20, 4), nn.Linear(4, 2)

    def forward(self, ids, weight):
        return self.head(self.look(ids).mean(1) * weight[:, None])


@pytest.mark.parametrize("given", [Named(), Named(tuple), [Named()[k] for k in range(70)]], ids=["dataset", "with labels", "list"])
def test_items_that_are_dicts_are_inputs_by_name(given):
    net = Weighed().eval()
    found, _ = gathered(net, given, ["head"])
    ids, weight = torch.tensor([[k % 20, 1, 2, 3] for k in range(70)]), torch.arange(70) / 70
    torch.testing.assert_close(found["head"], net(ids, weight).detach())


def test_items_that_are_dicts_and_fit_no_batch_are_refused():
    net = Weighed().eval()
    with pytest.raises(InputError, match=r"'ids' is \[4\] in item 64 and \[5\] in item 66; fill them up to one length"):
        list(read_layers(net, Named(odd=66)))
    with pytest.raises(InputError, match="'text' is not an array of numbers in each of them"):
        list(read_layers(net, [{"text": "a"}, {"text": "b"}]))
    with pytest.raises(InputError, match="'weight' is not an array of numbers in each"):
        list(read_layers(net, [Named()[0], {"ids": [1, 2, 3, 4]}]))


def test_a_loader_of_texts_and_of_photos():
    def ids(text):
        return [len(text), ord(text[0]) % 50]

    net = nn.Sequential(nn.Embedding(60, 4), nn.Flatten(), nn.Linear(8, 2)).eval()
    model = aw.wrap(net, tokenizer=ids)
    texts = ["one", "three", "fifteen", "a"]
    wanted = net[0](torch.tensor([ids(text) for text in texts]))
    loader = DataLoader(list(zip(texts, range(4), strict=True)), batch_size=2)  # gives [("one", "three"), labels]
    torch.testing.assert_close(gathered(model, loader, ["0"])[0]["0"], wanted)
    torch.testing.assert_close(gathered(model, texts, ["0"])[0]["0"], wanted)
    photos = [Image.fromarray(np.full((8, 8, 3), k, np.uint8)) for k in (0, 90, 250)]
    seeing = aw.wrap(
        nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval(), transform=lambda photo: np.asarray(photo, np.float32).transpose(2, 0, 1) / 255
    )
    for given in (photos, [tuple(photos[:2]), photos[2:]].__iter__()):
        assert gathered(seeing, given, ["0"])[0]["0"][:, 0].mul(255).round().tolist() == [0, 90, 250]


@pytest.mark.parametrize("batch", [[torch.ones(4, 6), torch.ones(4, 6)], (torch.ones(4, 2), torch.ones(4, 3), torch.ones(4))])
def test_a_batch_of_which_parts_could_be_dropped_in_silence_is_refused(batch):
    with pytest.raises(InputError, match="it is not plain which are inputs"):
        list(read_layers(nn.Sequential(nn.Linear(6, 2)).eval(), iter([batch])))


def test_nothing_to_read(net):
    for given in (torch.zeros(0, 3, 16, 16), [], iter([])):
        with pytest.raises(InputError, match="X holds no items"):
            list(read_layers(net, given))
    with pytest.raises(InputError, match="X is a int"):
        count(3)


# ---- one output of each layer ---------------------------------------------------------------------------------------


def test_a_later_operation_in_place_changes_nothing_that_was_kept():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 14 * 14, 3), nn.ReLU(inplace=True)).eval()
    x = pictures(5)
    found, _ = gathered(net, x, ["0", "2", "3"])
    assert (found["0"] < 0).any()
    torch.testing.assert_close(found["0"], net[0](x).detach())
    torch.testing.assert_close(found["3"], nn.Sequential(*net[:4])(x).detach())
    for pool in ("flat", "mean", "max", "first", "last"):  # whose rows would share the memory of the output

        def keep(name, out, items, own, pool=pool):
            return pooled(aw.wrap(net), name, out, items, own, pool)

        torch.testing.assert_close(gathered(net, x, ["3", "4"], keep=keep)[0]["3"], nn.Sequential(*net[:4])(x).detach())
        rows = gathered(net, x, ["0"], keep=keep)[0]["0"]
        maps = net[0](x).detach()
        wanted = {"flat": maps.flatten(1), "mean": maps.mean((2, 3)), "max": maps.amax((2, 3)), "first": maps[:, :, 0, 0], "last": maps[:, :, -1, -1]}
        torch.testing.assert_close(rows, wanted[pool])


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.act, self.head, self.unused = nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2), nn.Linear(1, 1)

    def forward(self, x):
        return self.head(self.act(self.body(self.act(x))))


def test_layers_that_run_several_times_or_never_or_are_unknown():
    net, x = Twice().eval(), torch.rand(4, 6)
    with pytest.raises(LayerError, match=r"layer 'act' runs 2 times .* the one around it"):
        list(read_layers(net, x, ["head", "act"]))
    with pytest.raises(LayerError, match="layer 'unused' did not run"):
        list(read_layers(net, x, "unused"))
    with pytest.raises(LayerError, match="did you mean 'body'"):
        list(read_layers(net, x, "boddy"))
    with pytest.raises(LayerError, match="layers=\\[\\] names no layer"):
        list(read_layers(net, x, []))
    with pytest.raises(LayerError, match="no part of this model"):
        list(read_layers(net, x, nn.ReLU()))
    assert names_of(aw.wrap(net)) == ("body", "act", "head", "unused")
    assert list(gathered(net, x)[0]) == ["body", "head"]  # of the stages, those with one output
    named = gathered(net, x, [net.body, "head", "body"])[0]
    assert list(named) == ["body", "head"]
    with pytest.raises(LayerError, match="runs 2 times"):  # given by name, they are all meant, although they are all the stages
        list(read_layers(net, x, ["body", "act", "head", "unused"]))


def test_models_without_layers_say_what_to_give():
    model = LogisticRegression().fit(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(UnsupportedError, match="give the torch module itself"):
        list(read_layers(model, np.eye(4)))


class Sequences(nn.Module):
    """A sequence [m, t, 3] goes through parts that put the steps first, and the items second."""

    def __init__(self, steps=4):
        super().__init__()
        self.gru, self.block, self.lstm = nn.GRU(3, 4), nn.TransformerEncoderLayer(4, 2, 8), nn.LSTM(4, 5, batch_first=True, bidirectional=True)
        self.head, self.place = nn.Linear(10, 2), nn.Embedding(steps, 3)

    def forward(self, x):
        h, _ = self.gru((x + self.place(torch.arange(x.shape[1]))).transpose(0, 1))
        return self.head(self.lstm(self.block(h).transpose(0, 1))[0][:, -1])


@pytest.mark.parametrize("n", [1, 3, 4, 9])  # also as many items as steps
def test_sequences_that_put_the_steps_first(n):
    torch.manual_seed(0)
    net, x = Sequences().eval(), torch.randn(n, 4, 3)
    found, _ = gathered(net, x, ["gru", "block", "block.norm1", "lstm"], batch_size=4)
    with torch.no_grad():
        h = net.gru((x + net.place.weight).transpose(0, 1))[0]
        wanted = {"gru": h.transpose(0, 1), "block": net.block(h).transpose(0, 1), "lstm": net.lstm(net.block(h).transpose(0, 1))[0]}
    for name, one in wanted.items():
        torch.testing.assert_close(found[name], one, rtol=1e-4, atol=1e-5)
    assert found["block.norm1"].shape == (n, 4, 4)


def test_what_is_the_same_for_all_items_is_no_output_of_the_items():
    net = Sequences().eval()
    for n in (1, 3, 4, 5):  # 4: as many items as positions, [4, 3], which is not to be mistaken
        with pytest.raises(LayerError, match=r"layer 'place' gives \[4, 3\] for 1 items"):
            list(read_layers(net, torch.randn(n, 4, 3), "place", batch_size=4))
        assert "place" not in gathered(net, torch.randn(n, 4, 3))[0]


def test_several_tensors_are_refused():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x * 2

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair = Pair()

        def forward(self, x):
            return self.pair(x)[0]

    with pytest.raises(LayerError, match="layer 'pair' gives a tuple of 2"):
        list(read_layers(Net().eval(), torch.rand(3, 2), "pair"))


# ---- one number an item, one row whatever the batch, a depth of its own -----------------------------------------------


@pytest.mark.parametrize("last", [nn.Flatten(0), Squeezed()], ids=["flatten", "squeeze"])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_one_number_an_item_is_a_column(last, n):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1), last).eval(), torch.randn(n, 5)
    wanted = net[:3](x).detach()
    for layers in (None, "3", ""):
        found, _ = gathered(net, x, layers)
        torch.testing.assert_close(found["" if layers == "" else "3"], wanted)
    rows, _ = gathered(net, x, keep=lambda *given: pooled(aw.wrap(net), *given))
    assert {name: out.shape for name, out in rows.items()} == {"0": (n, 4), "1": (n, 4), "2": (n, 1), "3": (n, 1)}


def test_a_number_for_the_whole_batch_is_none_of_an_item():
    class Tempered(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.scale = nn.Linear(5, 2), Parameter()

        def forward(self, x):
            return self.fc(x) * self.scale()

    net, x = Tempered().eval(), torch.randn(6, 5)
    assert list(gathered(net, x)[0]) == ["fc"]
    with pytest.raises(LayerError, match=r"layer 'scale' gives \[\] for 5 items"):
        gathered(net, x, "scale")


class Positions(nn.Module):
    """Positions of the tokens as [1, t, d], as GPT-2 has them."""

    def __init__(self):
        super().__init__()
        self.wte, self.wpe, self.head = nn.Embedding(20, 8), nn.Embedding(30, 8), nn.Linear(8, 3)

    def forward(self, ids):
        return self.head((self.wte(ids) + self.wpe(torch.arange(ids.shape[1])[None])).mean(1))


@pytest.mark.parametrize("n", [2, 3, 12])
def test_a_stage_without_a_row_for_each_item_is_left_out(n):
    net, ids = Positions().eval(), torch.randint(0, 20, (n, 6))
    found, _ = gathered(net, ids)
    assert {name: len(out) for name, out in found.items()} == {"wte": n, "head": n}
    torch.testing.assert_close(found["head"], net(ids).detach())
    if n > 2:
        with pytest.raises(LayerError, match=rf"layer 'wpe' gives \[1, 6, 8\] for {n - 1} items"):
            gathered(net, ids, ["wte", "wpe"])


class Adaptive(nn.Module):
    """As many steps of one layer as the batch needs."""

    def __init__(self):
        super().__init__()
        self.step, self.out = nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x):
        for _ in range(1 + int(x[:, 0].max() > 1)):
            x = torch.tanh(self.step(x))
        return self.out(x)


@pytest.mark.parametrize("deep", [0, 1, 2, 3, 40])
def test_a_layer_that_runs_again_for_some_items_is_refused(deep):
    net, x = Adaptive().eval(), torch.randn(64, 5).clamp(max=0.9)
    assert gathered(net, x, "step")[0]["step"].shape == (64, 5)
    x[deep, 0] = 3
    with pytest.raises(LayerError, match="layer 'step' runs 2 times"):
        gathered(net, x, "step")


def test_a_stage_that_runs_again_for_the_second_item_is_left_out():
    net, x = Adaptive().eval(), torch.zeros(4, 5)
    x[1, 0] = 3
    found, _ = gathered(net, x)
    assert {name: len(out) for name, out in found.items()} == {"out": 4}
    torch.testing.assert_close(found["out"][:3], torch.cat([net(x[:1]), net(x[1:3])]).detach())


def test_whole_passes_become_rare(net):
    passes = []
    handle = net[8].register_forward_hook(lambda module, args, out: passes.append(len(out)))
    gathered(net, pictures(43), ["0", "3"], batch_size=4)
    handle.remove()
    assert passes == [1, 4, 4, 4, 4]  # the first three of 12, then the 5th and the 9th


def test_what_fails_in_keeping_is_not_blamed_on_the_model(net):
    def keep(name, out, items, own):
        raise ValueError("of our own")

    with pytest.raises(ValueError, match="^of our own$") as raised:
        gathered(net, pictures(3), keep=keep)
    assert not isinstance(raised.value, aw.errors.AskwhyError)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AssertionError("give 5 columns"), "AssertionError: give 5 columns"),
        (AssertionError(), "AssertionError"),
        (KeyError("mask"), "KeyError: 'mask'"),
        (AttributeError("no fc"), "AttributeError: no fc"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
        (RuntimeError("shapes"), "shapes"),
    ],
)
def test_whatever_the_model_raises_is_its_error(error, said):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 2)

        def forward(self, x):
            raise error

    with pytest.raises(aw.errors.ModelError, match=rf"the model failed on an input of shape \[1, 6\]: {said}$") as raised:
        gathered(Broken().eval(), torch.rand(4, 6))
    assert raised.value.__cause__ is error


def test_a_fault_of_our_own_is_no_error_of_the_model(net, monkeypatch):
    monkeypatch.setattr("askwhy.layers.items_first", None)  # not callable: a TypeError in askwhy's own hook
    with pytest.raises(TypeError, match="NoneType"):
        gathered(net, pictures(3))
    with pytest.raises(KeyError, match="lost"), said_clearly("[1]"):
        exec("raise KeyError('lost')", {"__name__": "askwhy.layers"})


# ---- nothing changes, memory, progress ------------------------------------------------------------------------------


def state_of(net):
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()]
    return [m.training for m in net.modules()], hooks, [(p.requires_grad, p.grad, p.clone()) for p in net.parameters()], torch.get_rng_state()


def same_state(a, b):
    return (
        a[0] == b[0]
        and a[1] == b[1]
        and torch.equal(a[3], b[3])
        and all(x[:2] == y[:2] and torch.equal(x[2], y[2]) for x, y in zip(a[2], b[2], strict=True))
    )


def test_the_model_is_left_as_it_was_also_after_an_error(net):
    net[0].weight.requires_grad_(False)
    before = state_of(net)
    gathered(net, pictures(5))
    assert same_state(before, state_of(net))

    def keep(name, out, items, own):
        raise KeyError(name)

    with pytest.raises(KeyError):
        list(read_layers(net, pictures(5), keep=keep))
    assert same_state(before, state_of(net))
    reading = read_layers(net, pictures(5), batch_size=1)
    next(reading)
    assert same_state(before, state_of(net))  # also in the midst of it
    reading.close()
    net.train()
    with pytest.raises(aw.errors.ModelError, match="training mode"):
        list(read_layers(net, pictures(5)))
    assert all(m.training for m in net.modules())


def test_pieces_are_halved_until_they_fit(net):
    passes = []

    def short_of_memory(module, args):
        passes.append(len(args[0]))
        if len(args[0]) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    handle = net[4].register_forward_pre_hook(short_of_memory)
    found, sizes = gathered(net, pictures(12), ["0", "8"], batch_size=8)
    handle.remove()
    assert passes == [1, 8, 4, 2, 2, 2, 2, 2, 1]
    assert sizes == [1, 2, 2, 2, 2, 2, 1]
    torch.testing.assert_close(found["8"], by_hand(net, pictures(12), "8"), rtol=1e-5, atol=1e-6)
    handle = net[4].register_forward_pre_hook(lambda module, args: (_ for _ in ()).throw(RuntimeError("out of memory")))
    with pytest.raises(aw.errors.ModelError, match="memory"):
        list(read_layers(net, pictures(2)))
    handle.remove()


def test_a_pass_ends_behind_the_last_layer(net):
    passes = []
    handle = net[8].register_forward_hook(lambda module, args, out: passes.append(len(out)))
    gathered(net, pictures(13), ["0", "3"], batch_size=4)
    handle.remove()
    assert passes == [1, 4, 4]  # the first ones are whole, so that they show what runs several times


def test_progress_is_told_and_stops(net):
    told = []
    gathered(net, pictures(9), tick=lambda done, total: told.append((done, total)), batch_size=4)
    assert told == [(1, 9), (5, 9), (9, 9)]
    with pytest.raises(Cancelled, match="stopped after 5 of 9"):
        gathered(net, pictures(9), tick=lambda done, total: done < 5, batch_size=4)


def test_a_model_that_draws_random_numbers_runs_item_by_item_from_its_seed():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(x + torch.randn_like(x))

    net, x = Noisy().eval(), torch.rand(1, 4).repeat(5, 1)
    found, sizes = gathered(aw.wrap(net, seed=3), x, "fc")
    assert sizes == [1] * 5
    assert (found["fc"] == found["fc"][0]).all()
    with pytest.raises(aw.errors.ModelError, match="draws random numbers"):
        gathered(net, x, "fc")


# ---- channels and places --------------------------------------------------------------------------------------------


class Turned(nn.Module):
    """Channels last inside, as ConvNeXt's and Swin's blocks have them."""

    def __init__(self, back):
        super().__init__()
        self.conv, self.norm, self.fc, self.back = nn.Conv2d(3, 8, 3, padding=1), nn.LayerNorm(8), nn.Linear(8, 8), back

    def forward(self, x):
        h = self.fc(self.norm(self.conv(x).permute(0, 2, 3, 1)))
        return h.permute(0, 3, 1, 2) if self.back else h


@pytest.mark.parametrize(
    ("part", "x", "axis"),
    [
        (nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU()), torch.rand(1, 3, 16, 20), 1),  # as many channels as rows
        (Turned(True), torch.rand(1, 3, 16, 16), 1),
        (Turned(False), torch.rand(1, 3, 16, 16), 3),
        (nn.Sequential(nn.Conv1d(3, 5, 3), nn.GELU()), torch.rand(1, 3, 9), 1),
        (nn.Sequential(nn.Linear(3, 7), nn.GELU()), torch.rand(1, 9, 3), 2),
        (nn.Sequential(nn.Conv3d(3, 5, 3), nn.BatchNorm3d(5)), torch.rand(1, 3, 4, 4, 4), 1),
        (nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.Flatten(2)), torch.rand(1, 3, 16, 12), 1),
    ],
)
def test_the_axis_of_the_channels(part, x, axis):
    net = nn.Sequential(nn.Identity(), part).eval()
    out = part.eval()(x)
    model = aw.wrap(net)
    assert channels_of(model, "1", out) == axis
    last = f"1.{len(list(part.children())) - 1}" if isinstance(part, nn.Sequential) else "1"
    assert channels_of(model, last, out) == axis  # of a rectifier, by what comes before it


class Gate(nn.Module):
    """Squeeze and excitation (Hu et al. 2018), with linear layers."""

    def __init__(self, c):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(c, 4), nn.Linear(4, c)

    def forward(self, x):
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(x.flatten(2).mean(2))))).reshape(*x.shape[:2], *[1] * (x.ndim - 2))


class Conditioned(nn.Module):
    """FiLM (Perez et al. 2018): a scale and a shift for each channel."""

    def __init__(self, c):
        super().__init__()
        self.conv, self.film = nn.Conv2d(3, c, 3, padding=1), nn.Linear(3, 2 * c)

    def forward(self, x):
        scale, shift = self.film(x.mean((2, 3)))[..., None, None].chunk(2, 1)
        return self.conv(x) * scale + shift


class Gated(nn.Module):
    """A convolution whose half opens the other half."""

    def __init__(self, c):
        super().__init__()
        self.conv, self.gate = nn.Conv2d(3, c, 3, padding=1), nn.Linear(3, c)

    def forward(self, x):
        return self.conv(x) * torch.sigmoid(self.gate(x.movedim(1, -1))).movedim(-1, 1)


class Next(nn.Module):
    """A block of ConvNeXt: channels last inside, and in front again at its end; of pictures or of series."""

    def __init__(self, c, conv=nn.Conv2d):
        super().__init__()
        self.conv, self.norm, self.wide, self.back = conv(c, c, 7, padding=3, groups=c), nn.LayerNorm(c), nn.Linear(c, 4 * c), nn.Linear(4 * c, c)

    def forward(self, x):
        return x + self.back(nn.functional.gelu(self.wide(self.norm(self.conv(x).movedim(1, -1))))).movedim(-1, 1)


class Window(nn.Module):
    """A block of Swin: channels last [n, h, w, c]."""

    def __init__(self, c):
        super().__init__()
        self.norm, self.wide, self.back = nn.LayerNorm(c), nn.Linear(c, 4 * c), nn.Linear(4 * c, c)

    def forward(self, x):
        return x + self.back(torch.relu(self.wide(self.norm(x))))


class Conformer(nn.Module):
    """Convolutions inside a block of steps [n, t, d]."""

    def __init__(self, d):
        super().__init__()
        self.norm, self.conv, self.last = nn.LayerNorm(d), nn.Conv1d(d, d, 3, padding=1), nn.LayerNorm(d)

    def forward(self, x):
        return self.last(x + self.conv(self.norm(x).transpose(1, 2)).transpose(1, 2))


class Merged(nn.Module):
    """The norm is written behind what follows it, and as wide as there are tokens."""

    def __init__(self):
        super().__init__()
        self.reduction, self.norm = nn.Linear(16, 8), nn.LayerNorm(16)

    def forward(self, x):
        return self.reduction(self.norm(x))


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class To(nn.Module):
    """Moves the channels."""

    def __init__(self, source, goal):
        super().__init__()
        self.source, self.goal = source, goal

    def forward(self, x):
        return x.movedim(self.source, self.goal)


def patches(d):
    """A picture as tokens [n, t, d]."""
    return nn.Sequential(nn.Conv2d(3, d, 4, 4), nn.Flatten(2), To(1, -1))


MAP, WIDE, SERIES = (3, 16, 16), (3, 16, 20), (3, 16)
LAYOUTS = {
    "layer norm over the whole map": ([nn.Conv2d(3, 8, 1), nn.LayerNorm([8, 16, 16]), nn.ReLU()], MAP, [1, 1, 1]),
    "layer norm over a map as wide as deep": ([nn.Conv2d(3, 16, 1), nn.LayerNorm([16, 16, 16]), nn.ReLU()], MAP, [1, 1, 1]),
    "layer norm over channels and steps": ([nn.Conv1d(3, 8, 1), nn.LayerNorm([8, 16]), nn.ReLU()], SERIES, [1, 1, 1]),
    "layer norm over a map with channels last": ([To(1, -1), nn.Linear(3, 8), nn.LayerNorm([16, 16, 8])], MAP, [1, 3, 3]),
    "layer norm of channels in front": ([nn.Conv2d(3, 16, 1), LayerNorm2d(16), nn.ReLU()], MAP, [1, 1, 1]),
    "squeeze and excitation": ([nn.Conv2d(3, 8, 1), Gate(8), nn.ReLU()], MAP, [1, 1, 1]),
    "squeeze and excitation, as wide as deep": ([nn.Conv2d(3, 16, 1), Gate(16), nn.ReLU()], MAP, [1, 1, 1]),
    "a block of it": ([nn.Sequential(nn.Conv2d(3, 16, 1), Gate(16)), nn.ReLU()], MAP, [1, 1]),
    "of a series, as long as deep": ([nn.Conv1d(3, 16, 1), Gate(16), nn.ReLU()], SERIES, [1, 1, 1]),
    "FiLM, twice as many as the map is wide": ([Conditioned(8), nn.ReLU()], MAP, [1, 1]),
    "FiLM": ([Conditioned(6), nn.ReLU()], WIDE, [1, 1]),
    "a gate for each pixel": ([Gated(8), nn.ReLU()], MAP, [1, 1]),
    "a gate for each pixel, as wide as deep": ([Gated(16), nn.ReLU()], MAP, [1, 1]),
    "ConvNeXt": ([nn.Conv2d(3, 8, 1), Next(8), nn.ReLU()], MAP, [1, 1, 1]),
    "ConvNeXt, as wide as deep": ([nn.Conv2d(3, 16, 1), Next(16), nn.ReLU()], MAP, [1, 1, 1]),
    "ConvNeXt, inside as wide as the map": ([nn.Conv2d(3, 4, 1), Next(4), nn.ReLU()], MAP, [1, 1, 1]),
    "ConvNeXt of a series, as long as deep": ([nn.Conv1d(3, 16, 1), Next(16, nn.Conv1d), nn.ReLU()], SERIES, [1, 1, 1]),
    "Swin": ([nn.Conv2d(3, 8, 1), To(1, -1), Window(8), nn.ReLU()], MAP, [1, 3, 3, 3]),
    "Swin, as wide as deep": ([nn.Sequential(nn.Conv2d(3, 16, 1), To(1, -1), nn.LayerNorm(16)), Window(16), Window(16)], MAP, [None, 3, 3]),
    "ViT": ([patches(8), Conformer(8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.GELU()], MAP, [2, 2, 2, 2]),
    "ViT, as many tokens as deep": ([patches(16), Window(16), nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)], MAP, [2, 2, 2]),
    "merged patches of Swin": ([patches(16), Merged(), nn.ReLU()], MAP, [2, 2, 2]),
    "Conformer, as long as deep": ([To(1, -1), nn.Linear(3, 16), Conformer(16), nn.ReLU()], SERIES, [None, 2, 2, 2]),
    "convolutions of a series": ([nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.GELU(), nn.MaxPool1d(2)], SERIES, [1, 1, 1, 1]),
    "gated linear units": ([nn.Conv1d(3, 12, 1), nn.GLU(1), nn.ReLU()], SERIES, [1, 1, 1]),
    "from a vector to a map": ([nn.Flatten(), nn.Linear(48, 8 * 16), nn.Unflatten(1, (8, 4, 4)), nn.ReLU()], SERIES, [1, 1, 1, 1]),
    "shuffled pixels": ([nn.Conv2d(3, 12, 1), nn.PixelShuffle(2), nn.ReLU()], MAP, [1, 1, 1]),
}


@pytest.mark.parametrize("what", LAYOUTS)
def test_where_the_channels_of_each_kind_of_block_are(what):
    torch.manual_seed(0)
    parts, shape, axes = LAYOUTS[what]
    net, x = nn.Sequential(*parts).eval(), torch.randn(5, *shape)
    model = aw.wrap(net)
    seen = {}

    def keep(name, out, items, own):
        seen[name] = channels_of(model, name, out)
        return pooled(model, name, out, items, own, "mean")

    names = [str(k) for k, axis in enumerate(axes) if axis is not None]
    rows, _ = gathered(model, x, names, keep=keep)
    for name in names:
        wanted = axes[int(name)]
        out = by_hand(net, x, name)
        assert out.ndim == 2 or seen[name] == wanted, name
        torch.testing.assert_close(rows[name], out.movedim(wanted, -1).flatten(1, -2).mean(1) if out.ndim > 2 else out, rtol=1e-4, atol=1e-5)


def test_what_runs_later_says_nothing_of_a_layer():
    class Late(nn.Module):
        """The gate is written before the rectifier, and runs after it."""

        def __init__(self):
            super().__init__()
            self.gate, self.act = nn.Linear(8, 16), nn.ReLU()

        def forward(self, x):
            return self.gate(self.act(x).mean((2, 3)))

    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Conv2d(3, 8, 1), Late()).eval(), torch.randn(9, 3, 16, 16)
    model = aw.wrap(net)
    axes = []
    gathered(model, x, "1.act", keep=lambda name, out, items, own: axes.append(channels_of(model, name, out)) or out, batch_size=2)
    assert axes == [1] * 5
    gathered(model, x)
    assert channels_of(model, "1.act", torch.zeros(1, 8, 16, 16)) == channels_of(model, "1.act", torch.zeros(1, 8, 12, 16)) == 1


def test_the_width_of_one_branch_does_not_turn_a_map():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 16, 1)

        def forward(self, x):
            return torch.cat([self.one(x), self.two(x)], 1)  # 20 channels, and a map as wide as the last branch

    net = nn.Sequential(Branches()).eval()
    assert channels_of(aw.wrap(net), "0", net(torch.rand(1, 3, 12, 16))) == 1


def test_convolutions_before_a_transformer_do_not_turn_its_tokens():
    class Speech(nn.Module):
        def __init__(self):
            super().__init__()
            self.ears = nn.Sequential(nn.Conv1d(1, 6, 3), nn.GELU())
            self.block = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)

        def forward(self, x):
            return self.block(self.ears(x).transpose(1, 2)).mean(1)

    net = Speech().eval()
    found, _ = gathered(net, torch.rand(3, 1, 12))
    assert {name: channels_of(aw.wrap(net), name, out) for name, out in found.items()} == {"ears.0": 1, "ears.1": 1, "block": 2}
    rows, _ = gathered(net, torch.rand(3, 1, 12), keep=lambda *given: pooled(aw.wrap(net), *given))
    assert {name: out.shape for name, out in rows.items()} == dict.fromkeys(found, (3, 6))


def bert():
    torch.manual_seed(0)
    return BertModel(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=16, vocab_size=40)).eval()


@pytest.mark.parametrize("pool", ["mean", "max", "first", "last"])
def test_padding_does_not_count(pool):
    net = bert()
    ids, mask = torch.randint(5, 40, (3, 7)), torch.ones(3, 7, dtype=torch.long)
    mask[1, 4:], mask[2, :2] = 0, 0  # on the right, and on the left
    model = aw.wrap(net)
    rows, _ = gathered(model, {"input_ids": ids, "attention_mask": mask}, ["encoder.layer.1"], keep=lambda *given: pooled(model, *given, pool))
    with torch.no_grad():
        whole = net(ids, attention_mask=mask).last_hidden_state
    how = {"mean": lambda t: t.mean(0), "max": lambda t: t.amax(0), "first": lambda t: t[0], "last": lambda t: t[-1]}[pool]
    wanted = torch.stack([how(own[real.bool()]) for own, real in zip(whole, mask, strict=True)])
    torch.testing.assert_close(rows["encoder.layer.1"], wanted, rtol=1e-4, atol=1e-5)


def test_padding_that_cannot_be_left_out_is_refused():
    net, mask = bert(), torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    items = aw.wrap(net).prepare({"input_ids": torch.randint(5, 40, (2, 7)), "attention_mask": mask})
    assert real_places(items, range(2), 7) == [list(range(7)), list(range(4))]
    assert real_places(items, range(2), 1) is None
    with pytest.raises(LayerError, match="3 places for 7 tokens, some of which are padding"):
        real_places(items, range(2), 3)
    with pytest.raises(InputError, match="pool='flat' with texts of different lengths"):
        pooled(aw.wrap(net), "encoder.layer.1", torch.rand(2, 7, 12), items, range(2), "flat")
    with pytest.raises(InputError, match="pool='median': choose"):
        pooled(aw.wrap(net), "encoder.layer.1", torch.rand(2, 7, 12), items, range(2), "median")


def test_an_item_that_cannot_be_read_is_named_where_X_comes_in_pieces(net):
    X = pictures(70)
    X[66, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="item 2 .*begins with item 64"):
        list(read_layers(net, X, ["0"]))
