"""The value that comes out: what it keeps, how it is cut, saved and drawn."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import zipfile

import numpy as np
import pytest
from matplotlib.figure import Figure

import askwhy as aw
from askwhy.answer import pad
from askwhy.errors import AskwhyError, FileError, InputError, UnsupportedError
from askwhy.explanation import Explanation
from askwhy.show import as_data_uri, bars, heatmap, overlay
from askwhy.show.pictures import fonts

rng = np.random.default_rng(0)
REGIONS = np.stack([np.arange(64).reshape(8, 8) // 16, np.arange(64).reshape(8, 8) // 32])


def padded(**changes):
    """Two pictures with 4 and 2 regions."""
    why = Explanation(
        values=np.array([[1.0, -3.0, 2.0, 0.5], [5.0, -1.0, 0.0, 0.0]]), method="lime", target=("虎猫", "dog"), versus=("猞猁", "cat"),
        params={"samples": 5, "size": [3, 3], "é": None, "flag": True}, prediction=np.array([0.25, 0.5]), base_value=np.array([0.1, np.nan]),
        std_error=np.array([[0.1, np.nan, 0.2, 0.3], [0.4, 0.5, 0.0, 0.0]]), components=(("a", "b", "c", "d"), ("上", "$x_1$")), regions=REGIONS,
        details={"fidelity": (0.5, 0.75), "layer": "conv", "k": 3}, pictures=(None, (rng.random((8, 8, 3)) * 255).astype(np.uint8)),
        frames=((0.0, 0.0, 80.0, 40.0, 80.0, 40.0), None), model_calls=7, seconds=0.5, seed=3, versions={"askwhy": "0"},
    )  # fmt: skip
    return dataclasses.replace(why, **changes)


def heat(values, **options):
    values = np.asarray(values, dtype=float)
    return Explanation(values=values, method="occlusion", target=("cat",) * len(values), prediction=np.ones(len(values)), **options)


# ---- items --------------------------------------------------------------------------------------------------------


def test_items_are_cut_with_everything_that_belongs_to_them():
    why = padded()
    assert len(why) == 2
    one, two = why
    assert one == why[0] == why[-2] == why[np.int64(0)]
    assert two.values.tolist() == [[5.0, -1.0]]
    assert two.std_error.tolist() == [[0.4, 0.5]]
    assert two.components == (("上", "$x_1$"),)
    assert (two.target, two.versus, two.details["fidelity"], two.details["layer"]) == (("dog",), ("cat",), (0.75,), "conv")
    assert two.pictures[0] is why.pictures[1]
    assert two[0] == two
    assert np.array_equal(two.map(), two.values[0][REGIONS[1]])
    assert np.array_equal(why.map(1), two.map())
    for index in (2, -3, 10**9):
        with pytest.raises(IndexError):
            why[index]
    for index in ("0", 0.0, None, (0, 1)):
        with pytest.raises(InputError, match="indexed by item, 0 to 1"):
            why[index]


def test_equality_looks_at_everything():
    why = padded()
    assert why == dataclasses.replace(why)
    for change in ({"seed": 4}, {"values": why.values + 1e-12}, {"values": why.values.astype(np.float32)}, {"params": {}}, {"frames": ()}, {"pictures": (None, None)}, {"std_error": None}, {"target": ("a", "dog")}, {"details": {}}):  # fmt: skip
        assert why != dataclasses.replace(why, **change), change
    assert why != 3
    with pytest.raises(TypeError):
        hash(why)
    with pytest.raises(dataclasses.FrozenInstanceError):
        why.seed = 5


def test_top_and_maps():
    why = padded()
    assert why.top(2) == [("b", -3.0), ("c", 2.0)]
    assert why[1].top(9) == [("上", 5.0), ("$x_1$", -1.0)]
    assert why.top(0) == []
    with pytest.raises(InputError, match="k=-1"):
        why.top(-1)
    grid = heat(np.arange(100.0).reshape(1, 10, 10))
    assert len(grid.top(100)) == 49
    assert grid.top(1)[0] == ("rows 9-9, columns 9-9", 99.0)
    assert len(heat(np.ones((1, 3, 2))).top(100)) == 6
    assert heat(np.ones((1, 3, 4, 5))).map().tolist() == np.full((4, 5), 3.0).tolist()
    assert heat(np.ones((1, 5, 6, 3))).map().shape == (5, 6)
    assert heat(rng.random((1, 3))).top(1)[0][0].startswith("feature ")
    with pytest.raises(UnsupportedError, match="are no map"):
        heat(np.ones((1, 5))).map()


def test_a_bare_explanation_can_be_looked_at():
    bare = Explanation(np.arange(4.0).reshape(1, 2, 2))
    assert "values [1, 2, 2]" in repr(bare)
    assert "strongest" in bare.summary()
    assert bare.plot().get_title()
    assert bare[0].boxes() == bare.boxes()


def test_what_is_known_about_the_error_leaves_out_the_padding():
    why = padded(std_error=np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]]), details={})
    assert "standard error 1 (median)" in why.summary()
    many = padded(values=np.ones((3, 9)), components=(tuple("abcdefghi"), ("a",), ("a",)), std_error=np.vstack([np.ones(9)] + [np.eye(1, 9)[0]] * 2), details={}, target=("a",) * 3, versus=None, prediction=np.ones(3), base_value=None, regions=None, pictures=(), frames=())  # fmt: skip
    assert "standard error 1 (median)" in many.summary()
    assert "no error bars" in heat(np.ones((1, 2, 2))).summary()
    assert "completeness gap 0.2" in heat(np.ones((1, 2, 2)), residual=np.array([-0.2])).summary()
    assert pad([np.ones(1), np.ones(3)]).tolist() == [[1, 0, 0], [1, 1, 1]]


# ---- boxes --------------------------------------------------------------------------------------------------------


def test_boxes_are_found_in_the_photos_own_pixels():
    values = np.zeros((2, 10, 20))
    values[:, 1:4, 2:6] = 1.0
    values[:, 7:9, 10:18] = 0.5
    values[:, 0, 19] = 0.1
    plain = heat(values).boxes()
    assert plain == [([2, 1, 6, 4], 1.0), ([10, 7, 18, 9], 0.5)]
    frame = (100.0, 50.0, 300.0, 150.0, 400.0, 200.0)
    framed = heat(values, frames=(None, frame))
    assert framed.boxes(i=0) == plain
    assert framed.boxes(i=1) == [([120, 60, 160, 90], 1.0), ([200, 120, 280, 140], 0.5)]
    assert framed[1].boxes() == framed.boxes(i=1) == framed.boxes(i=-1)
    assert [b for b, _ in heat(values).boxes(0.05)] == [[2, 1, 6, 4], [10, 7, 18, 9], [19, 0, 20, 1]]
    assert heat(values).boxes(1.0) == plain[:1]
    assert heat(values).boxes(0.5) == plain
    coarse = heat(values, pictures=(np.zeros((100, 100, 3), np.uint8),) * 2)
    assert coarse.boxes()[0][0] == [10, 10, 30, 40]


def test_boxes_at_the_edges():
    assert heat(-np.ones((1, 4, 4))).boxes() == []
    assert heat(np.zeros((1, 4, 4))).boxes() == []
    assert heat(np.ones((1, 4, 4))).boxes(1) == [([0, 0, 4, 4], 1.0)]
    diagonal = np.eye(4)[None]
    assert heat(diagonal).boxes() == [([0, 0, 4, 4], 1.0)]
    for bad in (0, -0.1, 1.01, np.nan, "a", None):
        with pytest.raises(InputError, match="threshold="):
            heat(np.ones((1, 4, 4))).boxes(bad)
    with pytest.raises(UnsupportedError):
        heat(np.ones((1, 4))).boxes()
    single = padded().boxes(i=0)
    assert single == [([0.0, 20.0, 80.0, 40.0], 1.25), ([0.0, 0.0, 80.0, 10.0], 1.0)]


# ---- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"pictures": ()}, {"pictures": (None, None)}, {"std_error": None, "versus": None, "regions": None, "components": None, "seed": None},
        {"frames": ()}, {"residual": np.array([np.inf, np.nan])}, {"details": {}}, {"params": {"n": np.int64(3), "a": 0.1}}, {"values": np.ones((2, 4), np.float32)},
        {"base_value": None, "prediction": np.empty(0)},
    ],
)  # fmt: skip
def test_what_is_saved_comes_back_equal(changes, tmp_path):
    why = padded(**changes)
    for name in ("why.npz", "ohne Endung", "解释.npz"):
        assert why.save(tmp_path / name) == tmp_path / name
        back = Explanation.load(str(tmp_path / name))
        assert back == why
        assert back.summary() == why.summary() or changes.get("prediction") is not None
        assert all(isinstance(v, tuple) for v in (back.target, back.pictures, back.frames))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["why.npz", "ohne Endung", "解释.npz"])


def good():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, value in (("json", np.array(json.dumps(TEXT))), ("values", np.ones((1, 2)))):
            with file.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, value, allow_pickle=False)
    return buffer.getvalue()


TEXT = {"askwhy": 1, "pictures": 0, "details": {}}


def archive(allow_pickle=False, **arrays):
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=allow_pickle, **arrays)
    return buffer.getvalue()


def array_file():
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no saved Explanation"),
        (b"hello", "no saved Explanation"),
        (b"PK\x03\x04 hello", "no saved Explanation"),
        (array_file(), "no saved Explanation"),
        (archive(values=np.ones(3)), "no saved Explanation"),
        (archive(json=np.array("[]"), values=np.ones(3)), "no saved Explanation"),
        (archive(json=np.array("{"), values=np.ones(3)), "no saved Explanation"),
        (archive(json=np.array("{}"), values=np.ones(3)), "names no format"),
        (archive(json=np.array(json.dumps(TEXT | {"askwhy": "1"})), values=np.ones(3)), "names no format"),
        (archive(json=np.array(json.dumps(TEXT | {"askwhy": 99}))), "newer askwhy .format 99.; update askwhy"),
        (archive(json=np.array(json.dumps({"askwhy": 99, "new": 1})), other=np.ones(3)), "newer askwhy"),
        (archive(json=np.array(json.dumps(TEXT))), "no saved Explanation"),
        (archive(json=np.array(json.dumps(TEXT | {"odd": 1})), values=np.ones(3)), "no saved Explanation"),
        (archive(json=np.array(json.dumps(TEXT)), values=np.ones(3), more=np.ones(2)), "no saved Explanation"),
        (archive(json=np.array(json.dumps(TEXT | {"details": 3})), values=np.ones(3)), "no saved Explanation"),
        (archive(json=np.array(json.dumps(TEXT)), values=np.array([{"a": 1}], dtype=object), allow_pickle=True), "no saved Explanation"),
    ],
)
def test_other_files_are_refused(content, said, tmp_path):
    path = tmp_path / "why.npz"
    path.write_bytes(content)
    with pytest.raises(FileError, match=said) as caught:
        Explanation.load(path)
    assert "why.npz" in str(caught.value)


def test_a_file_without_errors_is_read(tmp_path):
    (tmp_path / "a").write_bytes(good())
    assert Explanation.load(tmp_path / "a") == Explanation(np.ones((1, 2)))


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(FileError, match="there is no such file"):
        Explanation.load(tmp_path / "nothing")
    with pytest.raises(FileError, match="no saved Explanation"):
        Explanation.load(tmp_path)
    for path in (tmp_path, tmp_path / "no" / "folder.npz", tmp_path / ("x" * 400)):
        with pytest.raises(FileError, match="cannot be written"):
            padded().save(path)
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_refused_or_read(tmp_path):
    whole = np.frombuffer(padded().save(tmp_path / "a").read_bytes(), np.uint8)
    damage, refused = np.random.default_rng(1), 150
    for _ in range(150):
        bad = whole.copy()
        bad[damage.integers(0, len(bad), 3)] ^= damage.integers(1, 256, 3).astype(np.uint8)
        (tmp_path / "b").write_bytes(bad[: damage.integers(1, len(bad) + 1) if damage.random() < 0.3 else len(bad)].tobytes())
        with contextlib.suppress(FileError):
            assert isinstance(Explanation.load(tmp_path / "b"), Explanation)
            refused -= 1
    assert refused > 100


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = padded().save(tmp_path / "a")
    old = path.read_bytes()
    monkeypatch.setattr(aw.explanation.Path, "replace", lambda self, other: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(FileError, match="cannot be written: No space left"):
        padded(seed=9).save(path)
    monkeypatch.undo()
    assert path.read_bytes() == old
    monkeypatch.setattr(aw.explanation.Path, "replace", lambda self, other: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        padded(seed=9).save(path)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert path.read_bytes() == old


def test_a_new_file_has_the_rights_that_the_user_gives_to_new_files(tmp_path):
    before = os.umask(0o077)
    try:
        assert padded().save(tmp_path / "a").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_what_cannot_be_saved_says_so(tmp_path):
    with pytest.raises(AskwhyError, match="cannot be saved"):
        padded(params={"f": len}).save(tmp_path / "a")


# ---- plots --------------------------------------------------------------------------------------------------------


def drawn(ax):
    buffer = io.BytesIO()
    ax.figure.savefig(buffer, format="png")
    return buffer.getvalue()


def test_chinese_names_are_drawn_where_there_is_a_font():
    if len(fonts()) < 2:
        pytest.skip("no font with Chinese signs on this machine")
    why = padded(regions=None)
    assert len(drawn(why.plot(i=1))) > 5000  # a sign without a shape would be a warning, and so an error
    assert len(drawn(padded().plot(i=1))) > 5000


@pytest.mark.parametrize("name", ["$x_1$", "a$b", "$$", "\\frac", "a_b^c", "$\\frac{", "%", "<b>&", "", " ", "x" * 300, "a\nb", "\\$5"])
def test_names_are_text_and_no_formula(name):
    ax = bars(np.array([1.0, -2.0]), [name, "b"], title=name, unit=name)
    assert drawn(ax)
    assert drawn(heatmap(np.ones((3, 3)), title=name, unit=name))


def test_html_escapes_what_others_wrote():
    html = padded(method="<script>", target=("<img>", "&"), versus=None).to_html()
    assert "<script>" not in html
    assert "<img>" not in html


def test_bars_of_many_components_and_unknown_errors():
    many = bars(rng.normal(size=300), [f"c{k}" for k in range(300)], np.full(300, np.nan))
    assert "285 smaller ones not shown" in many.get_xlabel()
    assert drawn(many)
    assert drawn(bars(np.zeros(3), list("abc"), np.array([0.1, np.nan, 0.0])))
    values = np.array([0.1, -5.0, 3.0])
    ax = bars(values, list("abc"))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["b", "c", "a"]
    assert [round(p.get_width(), 3) for p in ax.patches] == [-5.0, 3.0, 0.1]


@pytest.mark.parametrize(
    "values", [np.zeros((4, 6)), -np.ones((4, 6)), np.ones((4, 6)), np.full((4, 6), 1e-30), np.full((4, 6), 1e30), np.full((1, 1), 2.0)]
)
@pytest.mark.parametrize("with_picture", [False, True])
def test_maps_of_every_kind_are_drawn(values, with_picture):
    picture = np.full((40, 60, 3), 200, np.uint8) if with_picture else None
    ax = Figure().add_subplot()
    assert heatmap(values, picture, ax) is ax
    assert drawn(ax)
    laid = overlay(values)
    assert laid.shape == (*values.shape, 4)
    assert laid.dtype == np.uint8
    assert (laid[..., 3] > 0).all() == bool((values != 0).all())
    assert as_data_uri(laid).startswith("data:image/png;base64,")


def test_red_is_for_and_blue_against():
    laid = overlay(np.array([[1.0, -1.0, 0.0]]))[0].astype(int)
    assert laid[0, 0] > laid[0, 2] + 50
    assert laid[1, 2] > laid[1, 0] + 50
    assert laid[2, 3] == 0


def test_some_items_by_a_slice_numbers_or_a_mask():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 4))
    why = aw.shapley(lambda rows: rows @ [1.0, 2.0, 3.0, 4.0], X, background=X[:5])
    for chosen, items in ((slice(3, 9, 2), [3, 5, 7]), ([4, -1], [4, 29]), (np.arange(30) > 27, [28, 29])):
        some = why[chosen]
        assert len(some) == len(items)
        for one, i in zip(some, items, strict=True):
            assert one == why[i]
    with pytest.raises(InputError, match="none of its 30"):
        why[:0]
    with pytest.raises(InputError, match="none of its 30"):
        why[[]]
    with pytest.raises(IndexError):
        why[[30]]


def test_many_rows_of_numbers_are_read_when_they_are_asked_for():
    X = np.random.default_rng(0).normal(size=(1200, 3))
    X[7, 1] = np.nan
    why = aw.occlusion(lambda rows: np.nan_to_num(rows).sum(1), X, baseline=0.0)
    few = aw.occlusion(lambda rows: np.nan_to_num(rows).sum(1), X[:8], baseline=0.0)
    assert [why.held(i) for i in range(8)] == [few.held(i) for i in range(8)]
    assert few.held(7)[1] == "missing"
