"""The model that a user named on the command line."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from askwhy.cli.given import is_table
from askwhy.errors import AskwhyError, FileError, InputError

if TYPE_CHECKING:
    from askwhy.models.base import Model

USUAL = {"photo": "efficientnet-lite0", "text": "minilm-sentiment"}  # models of the zoo, where none is named


def model_name(named: str | None, kind: str) -> str:
    if named is None and kind not in USUAL:
        raise InputError("--model is missing: name the model that explains rows, as FILE.py:FUNCTION, a saved model, or an address.")
    return named or USUAL[kind]


def model_and_table(files: Sequence[str], model: str | None, data: Path) -> tuple[list[str], str]:
    """From `MODEL --data TABLE` to the table and its model. Raises InputError."""
    names = [*files, *([] if model is None else [model])]
    if len(names) != 1:
        found = f"{' and '.join(names)} are {len(names)}" if names else "none is named"
        raise InputError(f"--data {data} goes with one model, as askwhy explain model.json --data {data}, and {found}.")
    if not is_table(str(data)):
        raise InputError(f"--data {data}: tables are read from .csv, .tsv and .parquet files; save it as one of them.")
    return [str(data)], names[0]


def load_model(name: str, classes: str | None = None) -> Model:
    """A model of the zoo, a saved one, one behind an address, or what FILE.py:FUNCTION returns."""
    from askwhy import zoo

    path, colon, function = name.rpartition(":")
    if colon and path.endswith(".py"):
        return with_classes(call_function(Path(path), function), classes)
    if name.endswith(".py"):
        raise InputError(f"--model {name}: say which function makes the model, as {name}:FUNCTION.")
    if name.startswith(("http://", "https://")) or Path(name).suffix:
        return with_classes(name, classes)
    if classes is not None:
        raise InputError(f"--classes {classes}: {name} has names of its own; leave it out.")
    return zoo.load(name)


def with_classes(model: Any, classes: str | None) -> Model:
    from askwhy.models import wrap

    return wrap(model) if classes is None else wrap(model, labels=[name.strip() for name in classes.split(",")])


def call_function(path: Path, function: str) -> Any:
    """Run a user's file and call the function that makes the model."""
    if not path.is_file():
        raise FileError(f"{path}: there is no such file.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
        if not callable(getattr(module, function, None)):
            found = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
            raise InputError(f"{path} has no function {function!r}; it has {', '.join(found) or 'none'}.")
        return getattr(module, function)()
    except AskwhyError:
        raise
    except Exception as error:  # the user's own code may raise anything; say where
        raise InputError(f"{path}:{function} failed: {type(error).__name__}: {error} ({where(error, path)})") from error
    finally:
        sys.path.remove(str(path.resolve().parent))


def where(error: Exception, path: Path) -> str:
    """The last line of the user's file that an error passed through."""
    import traceback

    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).resolve() == path.resolve()]
    return f"line {lines[-1]}" if lines else f"line {getattr(error, 'lineno', '?')}"
