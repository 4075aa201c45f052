"""Models behind an address: a black box whose calls cost time and money, and fail now and then."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, fields
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from askwhy.checks import whole
from askwhy.errors import AskwhyError, Cancelled, InputError, ModelError
from askwhy.models.answers import Answers, keys_of
from askwhy.models.base import Items, as_labels, contents
from askwhy.models.function import FunctionModel
from askwhy.models.protocol import OWN, decode, encode, read_metadata
from askwhy.models.transport import Service


def remote(
    url: str, *, request: Callable[[Any], Any] | None = None, response: Callable[[Any], Any] | None = None, output: str | None = None,
    labels: Sequence[str] | dict[int, str] | None = None, transform: Callable[[Any], Any] | None = None, headers: Mapping[str, str] | None = None,
    timeout: float = 30.0, retries: int = 5, concurrency: int = 4, rate: float | None = None, max_calls: int | None = None, batch: int = 32,
    cache: str | os.PathLike[str] | None = None, version: str | None = None,
) -> FunctionModel:  # fmt: skip
    """A model behind an address: of the Open Inference Protocol, ".../v2/models/NAME", or any other by two functions.

    request, response: rows [m, ...] -> what is posted (JSON, text or bytes); JSON of the reply -> scores [m, k] or [m].
    output: which output of the protocol holds the scores. labels, transform: as for `askwhy.wrap`.
    headers: {"Authorization": "Bearer $NAME"}: secrets stand in environment variables, and nowhere else.
    timeout (seconds), retries: 429, 502, 503, 504, silence and cut connections are tried again, later and later.
    rate, concurrency: requests a second, and at the same time; batch: rows in one request.
    max_calls: inputs that may be asked about in all, as `why.model_calls` counts them; more are refused before they start.
    cache: a folder that keeps every answer, so that an interrupted explanation goes on where it stopped; `version` names
        the model (and your functions), whose answers are not those of another version.

    Raises InputError, ModelError. Example: `askwhy.remote("https://host/v2/models/iris", cache="answers")`.
    """
    check_options(url, timeout, retries, concurrency, rate, max_calls, batch)
    if (request is None) != (response is None):
        raise InputError(f"{'response' if request else 'request'}= is missing: give both functions, or none for the Open Inference Protocol.")
    if output is not None and not isinstance(output, str):
        raise InputError(f"output={contents(output)}: give the name of the output that holds the scores, such as 'predict_proba'.")
    if request is not None and output is not None:
        raise InputError(f"output={output!r} is for the Open Inference Protocol; let response= pick the scores.")
    if request is not None and cache is not None and version is None:
        raise InputError("cache= needs version= here: a name, such as '1', that you change when the service, request= or response= does.")
    service = Service(url if request else model_address(url), dict(headers or {}), timeout, retries, concurrency, rate)
    dialect = of_functions(request, response) if request and response else of_protocol(service, output)
    whose = json.dumps([service.url, version, output, dialect.told], sort_keys=True)
    answers = None if cache is None else Answers(Path(cache))
    function = RemoteFunction(service, dialect, whose, min(batch, dialect.largest_batch), max_calls, answers)
    return RemoteModel(function, as_labels(labels), transform, dialect.columns)


@dataclass(frozen=True)
class Dialect:
    """How a service is spoken to."""

    request: Callable[[Any], Any]  # rows -> body
    response: Callable[[Any, int], Any]  # reply, rows -> scores
    path: str = ""  # after the address
    columns: tuple[str, ...] | None = None
    told: Any = None  # what the model tells of itself
    largest_batch: int = 2**31


def of_functions(request: Callable[[Any], Any], response: Callable[[Any], Any]) -> Dialect:
    return Dialect(request, partial(by_function, function=response))


def of_protocol(service: Service, output: str | None) -> Dialect:
    told = describe(service)
    metadata = read_metadata(told, service.address, output)
    ask, read = partial(encode, metadata=metadata, output=output), partial(decode, metadata=metadata, output=output)
    return Dialect(ask, read, "/infer", metadata.columns, told, metadata.largest_batch)


@dataclass(eq=False)
class RemoteModel(FunctionModel):
    """A function model that can be told what is to come."""

    def expect(self, total: int, items: Items | None = None, batches: Iterable[Any] = ()) -> None:
        """Raise InputError where `total` inputs are more than max_calls leaves. `batches` of `items` show which of them are known already."""
        function: Any = self.function
        if total <= function.left:
            return
        known = sum(function.known(self.given(items, batch)) for batch in batches) if items else 0
        function.check_calls(total - known)


@dataclass(eq=False)
class RemoteFunction:
    """A function rows [m, ...] -> scores [m, k] that asks a service: in parts, some at a time, each input once."""

    service: Service
    dialect: Dialect = field(repr=False)
    whose: str = field(repr=False)  # of which service, version and output the answers are
    batch: int = 32
    max_calls: int | None = None
    answers: Answers | None = None

    def __post_init__(self) -> None:
        self.calls = 0  # inputs that the service was asked about
        self._lock = threading.Lock()
        self._shape: dict[str, tuple[int, ...]] = {}  # of one answer, once it is known

    def __reduce__(self) -> Any:
        return type(self), tuple(getattr(self, f.name) for f in fields(self))

    def __call__(self, rows: Any) -> np.ndarray:
        rows = np.array([*rows, None], object)[:-1] if isinstance(rows, list) else rows
        keys = keys_of(rows, self.whose)
        found = self.answers.get(dict.fromkeys(keys)) if self.answers else {}
        for scores in found.values():
            self._check_shape(scores)
        new = {key: at for at, key in enumerate(keys) if key not in found}
        with self._lock:
            self.check_calls(len(new))
            self.calls += len(new)
        if new:
            found |= self._ask(rows, list(new), list(new.values()))
        return np.stack([found[key] for key in keys])

    @property
    def left(self) -> float:
        return float("inf") if self.max_calls is None else self.max_calls - self.calls

    def check_calls(self, wanted: int) -> None:
        if wanted > self.left:
            already = f", of which {self.calls:,} are made" if self.calls else ""
            raise InputError(
                f"this will make {wanted:,} calls, and max_calls={self.max_calls:,}{already}; ask for less (fewer samples), or raise it."
            )

    def known(self, rows: Any) -> int:
        """How many of these inputs the cache holds."""
        return len(self.answers.get(keys_of(rows, self.whose))) if self.answers else 0

    def _ask(self, rows: Any, keys: list[bytes], at: list[int]) -> dict[bytes, np.ndarray]:
        """The answers to rows[at], in requests side by side. After an error no other is begun, and those under way are awaited and kept."""
        parts = [slice(start, start + self.batch) for start in range(0, len(keys), self.batch)]
        stop = threading.Event()
        pool = ThreadPoolExecutor(min(self.service.concurrency, len(parts)))
        futures = [pool.submit(self._ask_part, take(rows, at[part]), keys[part], stop) for part in parts]
        try:
            await_all(futures)
        except BaseException as error:
            stop.set()
            if impatient := not isinstance(error, Exception):  # Ctrl-C
                self.service.cut()
            pool.shutdown(wait=not impatient)
            raise
        pool.shutdown()
        return {key: row for future in futures for key, row in future.result().items()}

    def _ask_part(self, rows: Any, keys: list[bytes], stop: threading.Event) -> dict[bytes, np.ndarray]:
        """One request. What is good in its reply is kept, also where something in it is not."""
        if stop.is_set():
            with self._lock:
                self.calls -= len(keys)
            return {}
        try:
            reply = self.service.ask("POST", self.dialect.path, self.dialect.request(rows), stop)
            scores = as_scores(self.dialect.response(reply, len(rows)), len(rows), self.service.address)
            self._check_shape(scores[0])
            self._keep(keys, scores)
        except Cancelled:
            return {}
        except AskwhyError as error:
            stop.set()
            raise type(error)(self.service.scrub(str(error))) from None  # a service may repeat what it was sent
        except Exception:
            stop.set()
            raise
        return dict(zip(keys, scores, strict=True))

    def _keep(self, keys: list[bytes], scores: np.ndarray) -> None:
        """Raises ModelError for NaN and infinity, once the other rows are kept."""
        fine = np.isfinite(scores).reshape(len(scores), -1).all(1)
        if self.answers:
            self.answers.put([key for key, good in zip(keys, fine, strict=True) if good], list(scores[fine]))
        if not fine.all():
            bad = scores[~fine][0].ravel()
            raise ModelError(
                f"{self.service.address} answered {bad[~np.isfinite(bad)][0]} to an input; an explanation of it would mean nothing. "
                "Check the input's scale and the model."
            )

    def _check_shape(self, scores: np.ndarray) -> None:
        first = self._shape.setdefault("one", scores.shape)
        if scores.shape != first:
            raise ModelError(
                f"{self.service.address} answered one input with {list(first)} scores and another with {list(scores.shape)}; has the model changed? "
                "Then wrap it anew, with another version= or cache=."
            )


def await_all(futures: Sequence[Future[Any]]) -> None:
    """Until all are done, or one has failed, whose error is raised. The short wait lets Ctrl-C through on every system."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, 0.5, FIRST_EXCEPTION)
        for future in done:
            future.result()


def take(rows: Any, at: list[int]) -> Any:
    return rows.iloc[at] if hasattr(rows, "iloc") else rows[at]


def as_scores(found: Any, rows: int, address: str) -> np.ndarray:
    """float64 [m, ...]. Raises ModelError."""
    try:
        scores = np.asarray(found, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise ModelError(f"what {address} answered is no array of numbers ({error}); a class name is no score, give probabilities.") from error
    if scores.ndim == 0 or len(scores) != rows:
        raise ModelError(f"{address} answered {rows} inputs with scores of shape {list(scores.shape)}; the first axis has to count the inputs.")
    return scores


def by_function(reply: Any, rows: int, function: Callable[[Any], Any]) -> Any:
    """The scores that the user's own function finds in a reply."""
    try:
        return function(reply)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(f"response= failed on the reply, {contents(reply)}: {type(error).__name__}: {error}") from error


def model_address(url: str) -> str:
    return url.rstrip("/").removesuffix("/infer")


def describe(service: Service) -> Any:
    """The metadata of a model of the Open Inference Protocol."""
    try:
        return service.ask("GET")
    except ModelError as error:
        raise ModelError(f"{error} (Asked for the metadata of a model, .../v2/models/NAME. {OWN}.)") from None


def check_options(url: Any, timeout: Any, retries: Any, concurrency: Any, rate: Any, max_calls: Any, batch: Any) -> None:
    """Raises InputError for what is no number in its range."""
    if not isinstance(url, str):
        raise InputError(f"the address is a {type(url).__name__}; give a text such as 'https://host/v2/models/NAME'.")
    for name, value, least in (("retries", retries, 0), ("concurrency", concurrency, 1), ("batch", batch, 1), ("max_calls", max_calls, 1)):
        if not (value is None and name == "max_calls"):
            whole(name, value, least)
    for name, value in (("timeout", timeout), ("rate", rate)):
        if not (value is None and name == "rate") and (isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < 1e9):
            raise InputError(f"{name}={value!r}: give a number above 0.")
