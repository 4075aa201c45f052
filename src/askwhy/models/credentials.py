"""Addresses and headers without a secret in them: the values come from environment variables, and are kept nowhere."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import SplitResult, parse_qsl, urlsplit

from askwhy.errors import InputError

HARMLESS = ("accept", "accept-language", "content-type", "user-agent")  # headers that are no credentials
VARIABLE = re.compile(r"([A-Za-z][\w-]* )?\$(\w+)")  # "$NAME", or a scheme before it as in "Bearer $NAME"
CREDENTIAL = re.compile(r"key|token|secret|pass|auth|sig|code|cred", re.IGNORECASE)


def checked_address(url: str) -> SplitResult:
    """The parts of an address. Raises InputError, without showing what may be a password."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        parts, known = urlsplit(""), False
    if "@" in parts.netloc:
        raise InputError(
            "the address holds a user name or password; leave it out, put what the service wants to see in an environment variable, say MY_LOGIN, "
            "and give headers={'Authorization': 'Basic $MY_LOGIN'}."
        )
    if not known:
        raise InputError(f"the address {shortened(url.split('@')[-1])!r} is none of a service; give http://host/path or https://host/path.")
    for name, value in parse_qsl(parts.query):
        if CREDENTIAL.search(name) and value:
            raise InputError(
                f"the address holds a credential, {name}=; send it as a header, from an environment variable: headers={{'X-Key': '$MY_KEY'}}."
            )
    return parts._replace(fragment="")


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse a header that holds a secret itself, without showing it."""
    for name, value in headers.items():
        if name.lower() not in HARMLESS and not VARIABLE.fullmatch(str(value)):
            raise InputError(
                f"headers={{{name!r}: ...}} holds its value itself (not shown here); put it in an environment variable, say MY_KEY, "
                f"and give headers={{{name!r}: '$MY_KEY'}} or 'Bearer $MY_KEY'."
            )
    filled(headers)


def variables(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that come from the environment, with the variable's value. Raises InputError."""
    found = {}
    for name, value in headers.items():
        match = VARIABLE.fullmatch(str(value))
        if match and name.lower() not in HARMLESS:
            found[name] = os.environ.get(match[2], "").strip()
            if not found[name] or not (found[name].isascii() and found[name].isprintable()):
                raise InputError(f"the environment variable that headers={{{name!r}: '$...'}} names is not set, empty, or not plain text; set it.")
    return found


def secrets(headers: Mapping[str, str]) -> list[str]:
    """The values that no message may show; those of three letters would only spoil it."""
    return sorted((value for value in variables(headers).values() if len(value) > 3), key=len, reverse=True)


def filled(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers with the values of the environment variables that they name."""
    known = variables(headers)
    return {name.title(): value[: value.index("$")] + known[name] if name in known else value for name, value in headers.items()}


def shortened(text: str, longest: int = 300) -> str:
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= longest else plain[:longest] + " ..."
