"""The model that a user named on the command line."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from askwhy.errors import AskwhyError, FileError, InputError

if TYPE_CHECKING:
    from askwhy.models.base import Model

USUAL = {"photo": "efficientnet-lite0", "text": "minilm-sentiment"}  # models of the zoo, where none is named


def model_name(named: str | None, kind: str) -> str:
    if named is None and kind not in USUAL:
        raise InputError("--model is missing: name the model that explains rows, as FILE.py:FUNCTION, a saved model, or an address.")
    return named or USUAL[kind]


def load_model(name: str) -> Model:
    """A model of the zoo, a saved one, one behind an address, or what FILE.py:FUNCTION returns."""
    from askwhy import zoo
    from askwhy.models import wrap

    path, colon, function = name.rpartition(":")
    if colon and path.endswith(".py"):
        return wrap(call_function(Path(path), function))
    if name.endswith(".py"):
        raise InputError(f"--model {name}: say which function makes the model, as {name}:FUNCTION.")
    return wrap(name) if name.startswith(("http://", "https://")) or Path(name).suffix else zoo.load(name)


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
