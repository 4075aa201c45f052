"""Activations beside forward passes written by hand, in memory and on disk."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from sklearn.linear_model import LogisticRegression
from torch import nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2Model

import askwhy as aw
from askwhy.errors import Cancelled, FileError, InputError, LayerError, UnsupportedError
from askwhy.inside import stored
from askwhy.inside.activations import Activations, activations


def pictures(n, seed=3, size=16):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def step_by_step(net, x):
    """What each part of a chain gives, without hooks."""
    outs = {}
    with torch.no_grad():
        for name, part in net.named_children():
            x = part(x)
            outs[name] = x.numpy().copy()
    return outs


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.rnn, self.head = kind(5, 6, batch_first=True), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Both(nn.Module):
    """A picture and a row of a table."""

    def __init__(self):
        super().__init__()
        self.conv, self.table, self.head = nn.Conv2d(3, 4, 3), nn.Linear(2, 4), nn.Linear(8, 3)

    def forward(self, picture, row):
        return self.head(torch.cat([self.conv(picture).mean((2, 3)), self.table(row)], 1))


def bert():
    torch.manual_seed(0)
    net = BertModel(BertConfig(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=16, vocab_size=40)).eval()
    ids = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 0, 0, 0]])
    return net, {"input_ids": ids, "attention_mask": (ids > 0).long()}


# ---- the numbers ----------------------------------------------------------------------------------------------------


def test_a_chain_of_layers_is_a_forward_pass_by_hand(net):
    x = pictures(11)
    why = activations(net, x, [str(k) for k in range(9)], batch_size=4)
    by_hand = step_by_step(net, x)
    assert list(why) == list(why.layers) == list(by_hand)
    for name, out in by_hand.items():
        np.testing.assert_allclose(why[name], out, rtol=1e-5, atol=1e-6)
    assert why.shapes["4"] == (11, 8, 8, 8)
    assert (len(why), why.model_calls, why.seed) == (11, 11, None)
    alone = activations(net, x[3:4])
    one = step_by_step(net, x[3:4])
    assert all(np.array_equal(alone[name], one[name]) for name in alone)  # the same batch: bit for bit
    assert np.array_equal(why.of(-1, "8"), why["8"][10])


def test_efficientnet_and_its_photo(lite0, cat):
    why = activations(lite0, [cat, cat.rotate(90)])
    x = lite0.prepare([cat, cat.rotate(90)]).batch
    with torch.no_grad():
        out = lite0.net._bn0(lite0.net._conv_stem(x))
        np.testing.assert_allclose(why["_bn0"], out.numpy(), rtol=1e-4, atol=1e-4)
        out = lite0.net._swish(out)
        for k, block in enumerate(lite0.net._blocks):
            out = block(out)
            np.testing.assert_allclose(why[f"_blocks.{k}"], out.numpy(), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(why["_fc"], lite0.net(x).numpy(), rtol=1e-3, atol=1e-3)
    assert "_swish" not in why.layers  # one module for many places
    assert why.pictures[0].shape == (224, 224, 3)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers(kind):
    torch.manual_seed(0)
    net, x = Recurrent(kind).eval(), torch.randn(7, 4, 5)
    why = activations(net, x, "rnn", batch_size=3)
    np.testing.assert_allclose(why["rnn"], net.rnn(x)[0].detach(), rtol=1e-5, atol=1e-6)
    assert why.tokens == ()


def test_several_inputs():
    net, picture, row = Both().eval(), pictures(5), torch.rand(5, 2)
    for given in ({"picture": picture, "row": row}, (picture, row)):
        why = activations(net, given, batch_size=2)
        np.testing.assert_allclose(why["conv"], net.conv(picture).detach(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(why["table"], net.table(row).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype):
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).to(dtype).eval()
    x = torch.rand(6, 4, dtype=dtype)
    found = activations(net, x)["0"]
    assert found.dtype == (np.float64 if dtype is torch.float64 else np.float32)
    np.testing.assert_allclose(found, net[0](x).detach().double(), rtol=1e-2 if dtype is torch.bfloat16 else 1e-12)


# ---- texts ----------------------------------------------------------------------------------------------------------


def test_the_padding_of_texts_is_left_out():
    net, given = bert()
    why = activations(net, given, ["encoder.layer.0", "encoder.layer.1", "pooler"])
    for k, length in enumerate((6, 3)):
        with torch.no_grad():
            alone = net(given["input_ids"][k : k + 1, :length], output_hidden_states=True)
        for layer in (0, 1):
            np.testing.assert_allclose(why.of(k, f"encoder.layer.{layer}"), alone.hidden_states[layer + 1][0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(why.of(k, "pooler"), alone.pooler_output[0], rtol=1e-4, atol=1e-5)
        assert len(why.tokens[k]) == length
    assert np.isnan(why["encoder.layer.0"][1, 3:]).all()  # so that no mean takes them for numbers
    assert not np.isnan(why["encoder.layer.0"][0]).any()
    assert "nan" not in why.summary()


@pytest.mark.parametrize("to", [None, "kept"])
def test_texts_of_different_lengths_in_different_pieces(to, tmp_path):
    net, given = bert()
    ids = given["input_ids"]
    batches = [{"input_ids": ids[1:, :3], "attention_mask": torch.ones(1, 3, dtype=torch.long)}, given]
    why = activations(net, iter(batches), "encoder.layer.1", to=to and tmp_path / to)
    assert why["encoder.layer.1"].shape == (3, 6, 12)
    np.testing.assert_allclose(why.of(0, "encoder.layer.1"), why.of(2, "encoder.layer.1"), rtol=1e-4, atol=1e-5)
    assert why.of(0, "encoder.layer.1").shape == (3, 12)
    assert [len(one) for one in why.tokens] == [3, 6, 3]
    assert np.isnan(why["encoder.layer.1"][0, 3:]).all()  # which this piece did not have


def test_attention_is_cut_on_both_of_its_axes():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.look, self.soft, self.head = nn.Embedding(20, 4), nn.Softmax(-1), nn.Linear(4, 2)

        def forward(self, input_ids, attention_mask):
            h = self.look(input_ids)
            scores = (h @ h.transpose(1, 2)).masked_fill(attention_mask[:, None] == 0, -1e9)
            weights = self.soft(torch.stack([scores, 2 * scores], 1))
            return self.head((weights.mean(1) @ h)[:, 0])

    given = {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}
    why = activations(Attends().eval(), given, "soft")
    assert why["soft"].shape == (2, 2, 3, 3)
    assert why.of(1, "soft").shape == (2, 2, 2)
    np.testing.assert_allclose(why.of(1, "soft").sum(-1), 1, rtol=1e-6)


# ---- on disk --------------------------------------------------------------------------------------------------------


def test_a_folder_holds_the_same_mapped_from_disk(net, tmp_path):
    x = pictures(9)
    kept = activations(net, x, ["0", "8"], batch_size=4)
    written = activations(net, x, ["0", "8"], batch_size=4, to=tmp_path / "folder")
    assert all(isinstance(one, np.memmap) and not one.flags.writeable for one in written.values)
    assert sorted(os.listdir(tmp_path)) == ["folder"]
    assert sorted(os.listdir(tmp_path / "folder")) == ["000-0.npy", "001-8.npy", "index.json", "pictures.npz"]
    for name in kept:
        assert np.array_equal(kept[name], written[name])
        assert np.array_equal(kept[name], np.load(tmp_path / "folder" / f"00{kept.at(name)}-{name}.npy"))  # for any program that reads NumPy's files
    assert Activations.load(tmp_path / "folder") == written
    assert written.summary().splitlines()[:2] == kept.summary().splitlines()[:2]


@pytest.mark.parametrize("reason", ["cancelled", "interrupted", "failed", "no such layer"])
def test_an_interrupted_run_leaves_nothing(net, tmp_path, reason):
    def stop(done, total):
        if reason == "interrupted":
            raise KeyboardInterrupt
        return reason != "cancelled"

    layers = {"failed": ["0", "nothing"], "no such layer": "convolution"}.get(reason, "0")
    if reason == "failed":
        net.add_module("nothing", nn.Identity().eval())
        net.forward = lambda x: nn.Sequential(*list(net.children())[:9])(x)
    kind = {"cancelled": Cancelled, "interrupted": KeyboardInterrupt}.get(reason, LayerError)
    with pytest.raises(kind):
        activations(net, pictures(5), layers, to=tmp_path / "folder", progress=stop)
    assert os.listdir(tmp_path) == []


def test_folders_that_cannot_be_used(net, tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileError, match="mine' is there already"):
        activations(net, pictures(2), "0", to=tmp_path / "mine")
    with pytest.raises(FileError, match="cannot be written"):
        activations(net, pictures(2), "0", to=tmp_path / "no" / "folder")
    with pytest.raises(FileError, match="holds no saved Activations"):
        Activations.load(tmp_path / "mine")
    activations(net, pictures(2), "0", to=tmp_path / "new")
    index = tmp_path / "new" / "index.json"
    index.write_text(index.read_text().replace('"askwhy": 1', '"askwhy": 99'))
    with pytest.raises(FileError, match="newer askwhy"):
        Activations.load(tmp_path / "new")


def test_more_than_half_of_the_memory_is_refused(net, monkeypatch):
    x = pictures(200)
    needed = 200 * 6 * 16 * 16 * 4
    monkeypatch.setattr(stored, "free_memory", lambda: 2.0 * needed)
    passes = []
    net[0].register_forward_hook(lambda *given: passes.append(1))
    assert activations(net, x, "0").values[0].nbytes == needed
    passes.clear()
    monkeypatch.setattr(stored, "free_memory", lambda: 2.0 * needed - 8)
    with pytest.raises(InputError, match=r"1 layers of 200 items would take about 1.23 MB, and 2.46 MB .* to='activations'"):
        activations(net, x, "0")
    assert passes == [1]  # known after one item
    monkeypatch.setattr(stored, "free_memory", lambda: None)
    activations(net, x, "0")


def test_free_memory_and_sizes_in_words():
    free = stored.free_memory()
    assert free is None or 1e6 < free < 1e15
    assert list(map(stored.in_bytes, (0, 999, 1500, 2.5e9, 4e15))) == ["0 bytes", "999 bytes", "1.5 kB", "2.5 GB", "4e+03 TB"]


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_one_number_an_item_is_a_column(tmp_path):
    torch.manual_seed(0)
    chain, x = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1), nn.Flatten(0)).eval(), torch.randn(9, 5)
    why = activations(chain, x)
    assert why.shapes == {"0": (9, 4), "1": (9, 4), "2": (9, 1), "3": (9, 1)}
    np.testing.assert_allclose(why["3"][:, 0], chain(x).detach(), rtol=1e-6)
    np.testing.assert_array_equal(activations(chain, x, "")[""], why["3"])
    assert activations(chain, x, to=tmp_path / "kept")["3"].shape == (9, 1)
    assert "3 [9, 1]: mean" in why.summary()
    assert why.plot("3").get_xlabel() == "activation"


def test_positions_that_all_items_share_are_no_stage():
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    net, ids = GPT2Model(GPT2Config(**sizes)).eval(), torch.randint(3, 20, (12, 6))
    why = activations(net, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert why.layers == ("wte", "h.0", "h.1", "ln_f")
    np.testing.assert_allclose(why["ln_f"], net(ids).last_hidden_state.detach(), rtol=1e-4, atol=1e-5)
    assert why.model_calls == 12 + 12 + 2  # and the vectors of the words, and two that show which stages there are


def test_yes_and_no_are_drawn_as_1_and_0():
    class Sign(nn.Module):
        def forward(self, x):
            return x > 0

    why = activations(nn.Sequential(nn.Linear(3, 4), Sign()).eval(), torch.randn(4, 3), "1")
    assert why["1"].dtype == bool
    assert [bar.get_width() in (0, 1) for bar in why.plot().patches] == [True] * 4
    maps = activations(nn.Sequential(nn.Conv2d(3, 4, 1), Sign()).eval(), pictures(2), "1")
    assert maps.plot().figure is not None


def test_what_cannot_be_read_is_refused(net):
    with pytest.raises(LayerError, match="known are '0', '1'"):
        activations(net, pictures(2), "conv1")
    with pytest.raises(UnsupportedError, match="give the torch module itself"):
        activations(LogisticRegression().fit(np.eye(4), [0, 1, 0, 1]), np.eye(4))
    flat = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)).eval()
    with pytest.raises(InputError, match=r"layer '0' gives \[2, 14, 14\] for item 0 and \[2, 10, 10\] for item 2"):
        activations(flat, iter([pictures(2), pictures(2, size=12)]), "0")
    with pytest.raises(InputError, match="batch_size=0"):
        activations(net, pictures(2), batch_size=0)


def test_asking_for_what_was_not_read(net):
    why = activations(net, pictures(2), ["0", "8"])
    with pytest.raises(LayerError, match="layer='4' is none of those that were read; known are '0', '8'"):
        why["4"]
    with pytest.raises(InputError, match="item=2: there are 2 items"):
        why.of(2, "0")
    with pytest.raises(InputError, match="item=5"):
        why.plot("0", item=5)
    for channels in ("weakest", [6], [-1], [], [0.5]):
        with pytest.raises(InputError, match="channels="):
            why.plot("0", channels=channels)


# ---- what is told ---------------------------------------------------------------------------------------------------


def test_the_summary_tells_mean_zeros_silent_channels_and_the_largest():
    net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Flatten()).eval()
    with torch.no_grad():
        net[0].weight[:] = torch.tensor([1.0, -1.0, -2.0]).view(3, 1, 1, 1)
        net[0].bias[:] = torch.tensor([0.0, 0.0, 1.0])
    x = torch.tensor([[[[0.0, 3.0], [1.0, 0.0]]], [[[0.0, 0.0], [5.0, 0.0]]]])
    lines = activations(net, x).summary().splitlines()
    assert lines[0] == "0 [2, 3, 2, 2]: mean -0.417, 42% zeros, largest 5 (item 1, channel 0 at [1, 0])"
    assert lines[1] == "1 [2, 3, 2, 2]: mean 0.583, 67% zeros, largest 5 (item 1, channel 0 at [1, 0]), 1 of 3 channels are zero for every item (1)"
    assert re.search(r"2 items, 288 bytes; 4 model calls, \d\.\d\d s", lines[-1])


def test_a_plot_of_every_kind(net, tmp_path):
    why = activations(net, pictures(2))
    whole, own = why.plot(), why.plot("4", channels=[7, 2])
    assert "6 of 7 layers" in whole.get_title()
    assert [text.get_text() for text in own.texts] == ["input", "channel 7", "channel 2"]
    np.testing.assert_array_equal(own.images[1].get_array(), why["4"][0, 7])
    strength = np.abs(why["4"][1]).mean((1, 2))
    shown = [text.get_text() for text in why.plot("4", item=1, channels="strongest").texts][1:]
    assert shown == [f"channel {c}" for c in np.argsort(-strength, kind="stable")]
    bars = why.plot("8", item=1)
    assert sorted(round(patch.get_width(), 5) for patch in bars.patches) == sorted(np.round(why["8"][1].astype(float), 5))
    figure, ax = plt.subplots()
    assert why.plot("8", ax=ax) is ax
    plt.close(figure)
    steps = activations(Recurrent().eval(), torch.randn(2, 9, 5)).plot("rnn", item=1)
    assert (steps.get_xlabel(), steps.get_ylabel()) == ("step or place", "unit")
    assert steps.images[0].get_array().shape == (6, 9)
    text, given = bert()
    words = activations(text, given).plot(item=1)
    assert words.images[0].get_array().shape == (3, 12)  # the last layer of tokens, without padding
    assert words.get_ylabel() == "token"
    with pytest.raises(InputError, match="of which there is no picture"):
        activations(nn.Sequential(nn.Conv3d(1, 2, 2), nn.Flatten()).eval(), torch.rand(1, 1, 4, 4, 4)).plot("0")


def test_results_are_saved_loaded_compared_and_shown(net, tmp_path):
    why = activations(net, pictures(3), ["0", "8"])
    why.save(tmp_path / "a.npz")
    assert Activations.load(tmp_path / "a.npz") == why
    assert why != activations(net, pictures(3, seed=5), ["0", "8"])
    assert repr(why) == "<Activations of 3 items: 0 [3, 6, 16, 16], 8 [3, 4]>"
    assert "data:image/png" in why._repr_html_()
    text, given = bert()
    words = activations(text, given)
    words.save(tmp_path / "w.npz")
    assert Activations.load(tmp_path / "w.npz") == words
    saved = aw.saliency(net, pictures(1)).save(tmp_path / "e.npz")
    with pytest.raises(FileError, match="holds no saved Activations, but Explanation"):
        Activations.load(saved)
    whole = (tmp_path / "a.npz").read_bytes()
    for name, content in (("cut.npz", whole[: len(whole) // 2]), ("empty.npz", b""), ("text.npz", b"hello")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FileError, match=f"{name} is no saved Activations"):
            Activations.load(tmp_path / name)


def test_complex_layers_are_told_by_their_size_and_not_drawn():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.spectrum = Spectrum()

        def forward(self, x):
            return self.spectrum(x).abs().sum(1, keepdim=True)

    class Spectrum(nn.Module):
        def forward(self, x):
            return torch.fft.fft(x, dim=1)

    x = torch.zeros(2, 8)
    x[:, 1] = 1.0
    why = activations(Turned().eval(), x, ["spectrum"])
    assert np.allclose(why["spectrum"], np.fft.fft(x.numpy(), axis=1))
    assert "|value| of complex numbers: mean 1," in why.summary()
    with pytest.raises(InputError, match="complex"):
        why.plot("spectrum")
