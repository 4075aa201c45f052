"""Answers that a service has given, kept in a folder, so that nothing is asked twice."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from askwhy.errors import FileError


@dataclass(frozen=True)
class Answers:
    """One row of a table for each answer: the key of the input, which does not tell the input, and the scores."""

    folder: Path

    def get(self, keys: Iterable[bytes]) -> dict[bytes, np.ndarray]:
        """What is known of these."""
        with self._open() as db:
            found = {key: db.execute("SELECT shape, scores FROM answers WHERE key = ?", (key,)).fetchone() for key in keys}
        return {key: np.frombuffer(row[1], np.float64).reshape(json.loads(row[0])) for key, row in found.items() if row}

    def put(self, keys: Sequence[bytes], scores: Sequence[np.ndarray]) -> None:
        rows = [(key, json.dumps(row.shape), row.astype(np.float64).tobytes()) for key, row in zip(keys, scores, strict=True)]
        with self._open() as db, db:
            db.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Anew each time: what is written is safe when the process is killed, and no connection has to be closed, pickled or shared."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.folder / "answers.sqlite", timeout=60)) as db:
                db.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, shape TEXT, scores BLOB)")
                yield db
        except (sqlite3.Error, OSError) as error:
            raise FileError(
                f"cache={os.fspath(self.folder)!r} cannot be used ({error}); give a folder of your own, or delete a damaged one."
            ) from error


def keys_of(rows: Any, whose: str) -> list[bytes]:
    """One key for each row: equal for equal inputs (value, type and shape) of the same service."""
    start = hashlib.blake2b(whose.encode(), digest_size=32)
    return [key_of(start.copy(), part) for part in as_bytes(rows)]


def key_of(start: Any, part: bytes) -> bytes:
    start.update(part)
    return bytes(start.digest())


def as_bytes(rows: Any) -> Iterator[bytes]:
    """Each row of an array or table."""
    columns = [[str(name), str(dtype)] for name, dtype in rows.dtypes.items()] if hasattr(rows, "columns") else None
    values = rows.to_numpy(dtype=object) if columns is not None else rows
    head = json.dumps([columns, values.dtype.str, values.shape[1:]]).encode()
    for row in values:
        cells = json.dumps(row.tolist() if hasattr(row, "tolist") else row, default=typed).encode() if values.dtype == object else row.tobytes()
        yield head + cells


def typed(value: Any) -> list[str]:
    """A cell that is no JSON, such as a date."""
    return [type(value).__name__, str(value)]
