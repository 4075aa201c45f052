import importlib
import pkgutil
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest

import askwhy
from askwhy.errors import FileError
from askwhy.kept import Kept


def every_kind() -> set[type[Kept]]:
    for package in ("overall", "inside"):
        for module in pkgutil.iter_modules([str(Path(askwhy.__file__).parent / package)]):
            importlib.import_module(f"askwhy.{package}.{module.name}")
    return {kind for kind in Kept.__subclasses__() if kind.__module__.startswith("askwhy.")}


def test_no_field_takes_the_place_of_what_the_file_says_of_itself():
    kinds = every_kind()
    assert len(kinds) == 13
    for kind in kinds:
        names = {f.name for f in fields(kind)}
        assert not names & {"askwhy", "kind"}
        assert kind.several <= names


@dataclass(frozen=True, eq=False)
class One(Kept):
    several = frozenset({"parts"})
    values: np.ndarray
    parts: tuple[np.ndarray, ...]
    name: str = "a <b>"


def one(**changed) -> One:
    return One(**{"values": np.array([1.0, np.nan]), "parts": (np.arange(3), np.array(["x", None], object)), **changed})


def test_a_result_equals_what_was_saved_and_nothing_else(tmp_path):
    assert One.load(one().save(tmp_path / "one.npz")) == one()
    for other in (one(name="c"), one(values=np.array([1.0, 2.0])), one(parts=(np.arange(3),)), one(values=np.float32([1, np.nan])), 3):
        assert one() != other
    with pytest.raises(TypeError, match="unhashable"):
        hash(one())


def test_a_file_of_another_kind_is_refused(tmp_path):
    @dataclass(frozen=True, eq=False)
    class Other(Kept):
        values: np.ndarray

    with pytest.raises(FileError, match="no saved One, but Other"):
        One.load(Other(np.ones(2)).save(tmp_path / "other.npz"))


def test_a_card_in_a_notebook_escapes_what_the_user_named():
    import matplotlib.pyplot as plt

    class Drawn(One):
        def plot(self):
            return plt.figure().gca()

        def summary(self):
            return self.name

    card = Drawn(np.ones(1), ())._repr_html_()
    assert "a &lt;b&gt;</pre>" in card
    assert "Drawn(values=" in card.split("src=")[0]
    assert "data:image/png" in card
