"""Texts in pieces: words, characters or sentences that can be taken out, or replaced."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from askwhy.components import Components, Recipe
from askwhy.errors import InputError
from askwhy.models.base import Items
from askwhy.reading import Reading

Span = tuple[int, int]
BLOCK = 5  # components, of which all texts are written once
HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff"  # Chinese signs and kana, between which no spaces stand
WORD = re.compile(rf"[{HAN}]+|[^\W_{HAN}]+(?:['’\-][^\W_{HAN}]+)*")
SENTENCE = re.compile(r"[^.!?。！？\n]*(?:[.!?](?![\s\"'”’)]|$)[^.!?。！？\n]*)*(?:[.!?。！？]+[\"'”’)」』]*|\n|$)")


def words(together: bool = False, chinese: str = "auto") -> Recipe:
    """The words of a text; signs such as an emoji are words too, and punctuation always stays.

    together: all places of one word (in any case) are one component, as for a model that counts words.
    chinese: how text without spaces is cut: "jieba" (needs the package jieba), "characters", or "auto": jieba where it is
    installed; the result says which. Example: `askwhy.lime(predict, "A fine film", components=askwhy.words())`.
    """
    if chinese not in ("auto", "jieba", "characters"):
        raise InputError(f"chinese={chinese!r}: choose 'auto', 'jieba' or 'characters'.")
    how = ("jieba" if jieba() else "characters") if chinese == "auto" else chinese
    if how == "jieba":
        jieba(must=True)
    return Recipe(f"words({'together=True, ' if together else ''}chinese={how!r})", partial(_pieces, partial(word_spans, how), together, "word"))


def characters() -> Recipe:
    """The characters of a text, without its spaces. Example: `occlusion(model, text, components="characters")`."""
    return Recipe("characters()", partial(_pieces, character_spans, False, "character"))


def sentences() -> Recipe:
    """The sentences of a text, each with its full stop. Example: `occlusion(model, text, components="sentences")`."""
    return Recipe("sentences()", partial(_pieces, sentence_spans, False, "sentence"))


@cache
def jieba(must: bool = False) -> Any:
    """The package that knows Chinese words; None where it is missing and need not be there."""
    import importlib.util

    from askwhy._lazy import load

    if not must and importlib.util.find_spec("jieba") is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about its own code
        found: Any = load("jieba", "chinese")
    found.setLogLevel(60)
    return found


def word_spans(chinese: str, text: str) -> list[Span]:
    found = list(_words(chinese, text))
    covered = np.zeros(len(text), bool)
    for start, end in found:
        covered[start:end] = True
    signs = [(k, k + 1) for k, sign in enumerate(text) if not covered[k] and unicodedata.category(sign) in ("So", "Sk", "Sm", "Sc")]
    return sorted(found + signs)


def _words(chinese: str, text: str) -> Iterator[Span]:
    for match in WORD.finditer(text):
        start, end = match.span()
        if not re.match(f"[{HAN}]", match[0]):
            yield start, end
        elif chinese == "characters":
            yield from ((k, k + 1) for k in range(start, end))
        else:
            yield from ((start + a, start + b) for _, a, b in jieba(must=True).tokenize(match[0]))


def character_spans(text: str) -> list[Span]:
    """A letter with its accents is one."""
    starts = [k for k, sign in enumerate(text) if not unicodedata.combining(sign)] or [0]
    return [(a, b) for a, b in zip(starts, [*starts[1:], len(text)], strict=True) if text[a:b].strip()]


def sentence_spans(text: str) -> list[Span]:
    found = [match.span() for match in SENTENCE.finditer(text)]
    trimmed = ((a + len(text[a:b]) - len(text[a:b].lstrip()), a + len(text[a:b].rstrip())) for a, b in found)
    return [(a, b) for a, b in trimmed if a < b]


def _pieces(cut: Callable[[str], list[Span]], together: bool, kind: str, items: Items, i: int) -> Components:
    if items.texts is None:
        raise InputError(f"{kind}s need a text, but an item has the shape {list(items.batch.shape[1:])}; give the text itself (a str).")
    text = items.texts[i]
    spans = cut(text)
    if not spans:
        raise InputError(f"text {i} ({text[:40]!r}) holds no {kind}, so nothing in it can be explained.")
    found = tuple(text[a:b] for a, b in spans)
    names = tuple(dict.fromkeys(one.casefold() for one in found)) if together else found
    owners = tuple(names.index(one.casefold()) for one in found) if together else tuple(range(len(found)))
    reading = Reading(found, tuple(range(len(found))), text, tuple(spans), owners=owners)
    return Components(names, write=writer(*pieces(text, spans, owners)), reading=reading)


def pieces(text: str, spans: Sequence[Span], owners: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The text in pieces, the component of each (-1 for one that always stays), and what stays where it is replaced.

    The spaces behind a word belong to it, so that a text without it reads as if it had never been there.
    """
    found: list[tuple[str, int, str]] = []
    at = 0
    for (start, end), owner in zip(spans, owners, strict=True):
        after = end + len(text[end:]) - len(text[end:].lstrip(" "))
        found += [(text[at:start], -1, "")] if start > at else []
        found.append((text[start:after], owner, text[end:after]))
        at = after
    found += [(text[at:], -1, "")] if at < len(text) else []
    parts, owner_of, tails = zip(*found, strict=True)
    return np.array(parts, object), np.array(owner_of), np.array(tails, object)


def writer(parts: np.ndarray, owners: np.ndarray, tails: np.ndarray) -> Callable[[np.ndarray, str], list[str]]:
    """(z [m, d], hidden) -> m texts, in which `hidden` stands for what is absent.

    Of every few pieces all texts that their components can make are written once, and looked up.
    """
    cuts = blocks(owners)
    players = [sorted({owner for owner in owners[at].tolist() if owner >= 0}) for at in cuts]
    column = np.array([[*found, *[-1] * (BLOCK - len(found))] for found in players])  # -1 is one that is never there
    worth = (1 << np.arange(BLOCK)).astype(np.uint8)

    @cache
    def tables(hidden: str) -> list[np.ndarray]:
        replaced = hidden + tails if hidden else np.full(len(parts), "", object)
        return [table(parts[at], owners[at], replaced[at], found) for at, found in zip(cuts, players, strict=True)]

    def write(z: np.ndarray, hidden: str) -> list[str]:
        shown = np.concatenate([z, np.zeros((len(z), 1), bool)], 1)
        codes = (shown[:, column] * worth).sum(2, dtype=np.uint8)  # [m, blocks]
        return ["".join(row) for row in zip(*(known[code].tolist() for known, code in zip(tables(hidden), codes.T, strict=True)), strict=True)]

    return write


def blocks(owners: np.ndarray) -> list[slice]:
    """Pieces in a row that at most BLOCK components own."""
    found, start, inside = [], 0, set[int]()
    for k, owner in enumerate(owners.tolist()):
        if owner >= 0 and owner not in inside and len(inside) == BLOCK:
            found.append(slice(start, k))
            start, inside = k, set()
        inside |= {owner} if owner >= 0 else set()
    return [*found, slice(start, len(owners))]


def table(parts: np.ndarray, owners: np.ndarray, replaced: np.ndarray, players: list[int]) -> np.ndarray:
    """The texts [2^players] of these pieces; bit i of the number says whether player i is there."""
    texts = []
    for code in range(2 ** len(players)):
        shown = {-1, *(player for bit, player in enumerate(players) if code >> bit & 1)}
        texts.append("".join(part if owner in shown else other for part, owner, other in zip(parts, owners.tolist(), replaced, strict=True)))
    return np.array([*texts, None], object)[:-1]
