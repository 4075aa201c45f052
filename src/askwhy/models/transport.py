"""Requests over HTTP that outlast trouble: tried again, at a pace, few at a time, and with no secret in any message."""

from __future__ import annotations

import http.client
import json
import random
import selectors
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from askwhy.errors import Cancelled, InputError, ModelError
from askwhy.models.credentials import check_headers, checked_address, filled, secrets, shortened

AGAIN = (429, 502, 503, 504)  # busy, or restarting
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before the next try, doubled each time
PATIENCE = 600.0  # seconds: who is told to come back later than this is told so
LARGEST_REPLY = 2**28  # bytes
CHANCE = random.Random()  # of its own, so that the user's random numbers stay as they are


class Pace:
    """Whose turn it is: requests `every` so many seconds, and none while the service asked for rest."""

    def __init__(self, every: float) -> None:
        self.every, self._next, self._lock = every, 0.0, threading.Lock()

    def turn(self) -> float:
        """Take the next place; the seconds until it."""
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + self.every
            return at - now

    def rest(self, seconds: float) -> None:
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


@dataclass(frozen=True)
class Reply:
    status: int
    retry_after: str | None
    location: str | None
    content: bytes


@dataclass(eq=False)
class Service:
    """An address and how to ask there. Headers hold the names of environment variables; their values are read for each request and kept nowhere."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 30.0
    retries: int = 5
    concurrency: int = 4
    rate: float | None = None

    def __post_init__(self) -> None:
        self.parts = checked_address(self.url)
        self.address = self.parts._replace(query="").geturl()  # for messages
        check_headers(self.headers)
        self._pace = Pace(0.0 if self.rate is None else 1 / self.rate)
        self._room = threading.BoundedSemaphore(self.concurrency)
        self._idle: list[http.client.HTTPConnection] = []
        self._busy: dict[http.client.HTTPConnection, Any] = {}  # with their sockets
        weakref.finalize(self, close_all, self._idle)

    def __reduce__(self) -> Any:
        return type(self), tuple(getattr(self, f.name) for f in fields(self))  # no lock and no connection in a pickle

    def ask(self, method: str, path: str = "", body: Any = None, stop: threading.Event | None = None) -> Any:
        """The JSON that the service answers to `body`. Raises ModelError; Cancelled once `stop` is set."""
        stop = stop or threading.Event()
        content = None if body is None else as_content(body)
        problem = ""
        for attempt in range(self.retries + 1):
            self._wait(stop)
            try:
                reply = self._exchange(method, path, content)
            except (OSError, http.client.HTTPException) as error:
                if hopeless(error):
                    raise ModelError(f"{self.address} cannot be reached: {self.clean(str(error))}. Check the address.") from None
                problem, asked = self.clean(f"{type(error).__name__}: {error}"), None
            else:
                if reply.status not in AGAIN:
                    return self._read(reply)
                problem, asked = f"status {reply.status}, {self.clean(message(reply.content))}", seconds_of(reply.retry_after)
            self._rest(attempt, asked, stop)
        raise ModelError(
            f"{self.address} failed {self.retries + 1} times, at last with {problem}. See that the service is up, raise timeout= ({self.timeout} s) "
            "or retries=, and ask again; with cache= what it has answered is kept."
        )

    def cut(self) -> None:
        """End what is under way, at once."""
        for connection in list(self._busy):
            with suppress(OSError, KeyError, AttributeError):
                self._busy[connection].shutdown(socket.SHUT_RDWR)

    def clean(self, text: str) -> str:
        """What came from elsewhere, fit for a message: printable, short, and without a secret."""
        return shortened(self.scrub(text))

    def scrub(self, text: str) -> str:
        for secret in secrets(self.headers):
            for spelled in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1]):
                text = text.replace(spelled, "***")
        return text

    def _wait(self, stop: threading.Event) -> None:
        if stop.wait(self._pace.turn()) or stop.is_set():
            raise Cancelled("stopped, since another request failed or the user asked for it.")

    def _rest(self, attempt: int, asked: float | None, stop: threading.Event) -> None:
        """Before the next try: as long as the service asked for, which holds for every request; else longer each time, by chance."""
        if attempt == self.retries:
            return
        if asked is None:
            stop.wait(min(LONGEST_WAIT, FIRST_WAIT * 2**attempt) * CHANCE.uniform(0.5, 1))
        elif asked > PATIENCE:
            raise ModelError(f"{self.address} asks to wait {asked:,.0f} s (Retry-After); ask again then. With cache= what it has answered is kept.")
        else:
            self._pace.rest(asked)

    def _read(self, reply: Reply) -> Any:
        if reply.status in (301, 302, 303, 307, 308):
            raise ModelError(f"{self.address} has moved to {self.clean(reply.location or 'an unknown place')}; give that address, if you trust it.")
        if not 200 <= reply.status < 300:
            raise ModelError(f"{self.address} refused with status {reply.status}: {self.clean(message(reply.content))}")
        try:
            return json.loads(reply.content)
        except (ValueError, RecursionError):
            said = self.clean(reply.content.decode("utf-8", "replace"))
            raise ModelError(f"the reply of {self.address} is no JSON: {said!r}. Check the address; see what the service says there.") from None

    def _exchange(self, method: str, path: str, content: bytes | None) -> Reply:
        headers = {"Content-Type": "application/json", "Accept": "application/json"} | filled(self.headers)
        target = quote(self.parts.path + path, safe="/%:@!$&'()*+,;=~") + (f"?{self.parts.query}" if self.parts.query else "")
        with self._room:
            connection = self._connection()
            try:
                if connection.sock is None:
                    connection.connect()
                self._busy[connection] = connection.sock
                connection.request(method, target or "/", content, headers)
                response = connection.getresponse()
                reply = Reply(response.status, response.headers["Retry-After"], response.headers["Location"], read_all(response, self.timeout))
            except BaseException:
                connection.close()
                raise
            finally:
                self._busy.pop(connection, None)
            self._idle.append(connection)
            return reply

    def _connection(self) -> http.client.HTTPConnection:
        """One that is open, or a new one."""
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if connection.sock is not None and not was_closed(connection.sock):
                    return connection
                connection.close()
        kind = http.client.HTTPSConnection if self.parts.scheme == "https" else http.client.HTTPConnection
        return kind(str(self.parts.hostname), self.parts.port, timeout=self.timeout)


def close_all(connections: list[http.client.HTTPConnection]) -> None:
    while connections:
        connections.pop().close()


def was_closed(sock: Any) -> bool:
    """A connection at rest has nothing to read, unless the other side has closed it."""
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        return bool(selector.select(0))


def read_all(response: http.client.HTTPResponse, timeout: float) -> bytes:
    """The whole body, in time: a socket's own limit starts anew with each byte."""
    until, length, content = time.monotonic() + timeout, response.length, bytearray()
    while (length is None or len(content) < length) and (part := response.read1(2**16)):
        content += part
        if len(content) > LARGEST_REPLY:
            raise ModelError(f"the reply is larger than {LARGEST_REPLY:,} bytes; ask with a smaller batch=.")
        if time.monotonic() > until:
            raise TimeoutError(f"the reply was not complete after {timeout} s")
    response.close()
    if length is not None and len(content) < length:
        raise http.client.IncompleteRead(bytes(content), length - len(content))
    return bytes(content)


def as_content(body: Any) -> bytes:
    """Bytes and texts as they are, anything else as JSON. Raises InputError."""
    if isinstance(body, bytes | str):
        return body if isinstance(body, bytes) else body.encode()
    try:
        return json.dumps(body, allow_nan=False, default=lambda value: value.tolist()).encode()
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"what is to be sent is no JSON ({error}); replace NaN and infinite numbers, and send lists, numbers and texts.") from error


def hopeless(error: Exception) -> bool:
    """No such host, or no trust in it: this will not pass."""
    cut = isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)
    return (isinstance(error, ssl.SSLError) and not cut) or (isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME)


def seconds_of(retry_after: str | None) -> float | None:
    """Seconds from the header Retry-After, which holds seconds or a date; None where it holds neither."""
    with suppress(TypeError, ValueError):
        seconds = float(str(retry_after))
        return seconds if 0 <= seconds < float("inf") else None
    with suppress(TypeError, ValueError):
        date = parsedate_to_datetime(str(retry_after))
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return max(0.0, (date - datetime.now(UTC)).total_seconds())
    return None


def message(content: bytes) -> str:
    """What the service says went wrong."""
    text = content.decode("utf-8", "replace")
    with suppress(ValueError, RecursionError):
        told = json.loads(text)
        for name in ("error", "message", "detail"):
            if isinstance(told, dict) and told.get(name):
                return told[name] if isinstance(told[name], str) else json.dumps(told[name])
    return text or "without a word"
