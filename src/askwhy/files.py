"""Files that are written whole or not at all, and read without running anything."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from askwhy.errors import FileError


def read_archive(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays and the JSON of a saved result of this kind. Raises FileError."""
    try:
        with zipfile.ZipFile(path) as archive:
            held = {name.removesuffix(".npy"): _read_array(archive, name) for name in archive.namelist()}
        return held, dict(json.loads(str(held.pop("json"))))
    except FileNotFoundError as error:
        raise FileError(f"{path}: there is no such file.") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged archive makes zipfile, zlib, json and numpy raise a dozen kinds
        raise FileError(f"{path} is no saved {kind} ({error}).") from error


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as file:
        return np.lib.format.read_array(io.BytesIO(file.read()), allow_pickle=False)


def write_file(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write to a temporary name beside it, then rename, so that nothing half written is ever left. Raises FileError."""
    path = Path(path)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
        temporary.chmod(0o666 & ~usual_mask())
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        if temporary is not None:  # also when the user stops the program meanwhile
            temporary.unlink(missing_ok=True)
    return path


def usual_mask() -> int:
    """The rights that the user takes from new files; it can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
