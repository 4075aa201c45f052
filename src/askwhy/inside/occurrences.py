"""A word in sentences: where it stands, which tokens it is made of, and the vectors that layers give it there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from unicodedata import category, normalize

import numpy as np

from askwhy.checks import is_whole
from askwhy.errors import InputError, LayerError, ModelError, UnsupportedError
from askwhy.game import Progress
from askwhy.inside.rows import real_parts
from askwhy.layers import in_places, read_layers, real_places
from askwhy.models.base import Items, to_numpy

if TYPE_CHECKING:
    import torch

    from askwhy.models.torch_module import TorchModel
    from askwhy.reading import Reading

OTHERS = 600  # other tokens, about, that stand for any words
LETTER = r"[^\W_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]"  # of scripts that put spaces between words


@dataclass(frozen=True)
class Occurrence:
    """A word in sentence `owner`, at its signs from `start` to `stop`."""

    owner: int
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Vectors:
    """What one layer gives: for the occurrences [m, d], and for other tokens [r, d] of their sentences [r]."""

    own: np.ndarray
    others: np.ndarray
    owners: np.ndarray


# ---- where the word stands ------------------------------------------------------------------------------------------


def read_sentences(given: Any) -> list[str]:
    """Raises InputError."""
    found = list(given) if hasattr(given, "__iter__") and not isinstance(given, str) else []
    if not found or not all(isinstance(one, str) for one in found):
        raise InputError("sentences= has to be a list of texts in which the word stands.")
    return list(map(str, found))


def occurrences_of(word: Any, sentences: Sequence[str]) -> list[Occurrence]:
    """word: for all sentences, or one for each: itself, or where it stands, (start, stop). Raises InputError."""
    if not isinstance(word, str) and not hasattr(word, "__iter__"):
        raise InputError(f"word={word!r}: give a word, or a list with one for each sentence, itself or where it stands, (start, stop).")
    each = [word] * len(sentences) if isinstance(word, str) else list(word)
    if len(each) != len(sentences):
        raise InputError(f"word= names {len(each)} words for {len(sentences)} sentences; give one for all, or one for each.")
    found = [Occurrence(k, *span) for k, (one, text) in enumerate(zip(each, sentences, strict=True)) for span in spans_of(one, text, k)]
    if len(found) < 2:
        raise InputError(f"there is {len(found)} occurrence, and nothing to compare it with; give more sentences.")
    return found


def spans_of(word: Any, text: str, k: int) -> list[tuple[int, int]]:
    """Whole words, whatever their case; in Chinese, where no space parts words, wherever its signs stand. Raises InputError.

    A sign with a mark behind it (an accent, a vowel of Hindi) is another sign, whether Unicode writes the two as one or apart.
    """
    if isinstance(word, (tuple, list)):
        return [given_span(word, text, k)]
    if not isinstance(word, str) or not word.strip():
        raise InputError(f"word={word!r}: give a word, or where it stands in its sentence, (start, stop).")
    signs, starts = composed(text)
    marks = "".join(sorted({re.escape(sign) for sign in signs if is_mark(sign)}))
    inside = f"(?:{LETTER}|[{marks}])" if marks else LETTER
    written = normalize("NFC", word.strip())
    base = [sign for sign in written if not is_mark(sign)] or [""]
    before = f"(?<!{inside})" if re.match(LETTER, base[0]) else ""
    after = f"(?!{inside})" if re.match(LETTER, base[-1]) else f"(?![{marks}])" if marks else ""
    found = [(starts[match.start()], starts[match.end()]) for match in re.finditer(before + re.escape(written) + after, signs, re.IGNORECASE)]
    if not found:
        raise InputError(
            f"sentence {k} ({text[:60]!r}) has no {word!r} as a word of its own; leave it out, or let word= be a list with "
            "the form in each sentence, or its place (start, stop)."
        )
    return found


def composed(text: str) -> tuple[str, list[int]]:
    """The text with each sign and its marks as one where Unicode has that (NFC), and where each sign of it, and the end, stands in the text."""
    begins = [k for k, sign in enumerate(text) if not k or not (is_mark(sign) or "\u1160" <= sign <= "\u11ff")]  # or ends of Korean syllables
    whole = [normalize("NFC", text[start:stop]) for start, stop in pairwise([*begins, len(text)])]
    return "".join(whole), [*(start for start, one in zip(begins, whole, strict=True) for _ in one), len(text)]


def is_mark(sign: str) -> bool:
    return category(sign).startswith("M")


def given_span(word: Sequence[Any], text: str, k: int) -> tuple[int, int]:
    whole = len(word) == 2 and all(map(is_whole, word))
    if not whole or not 0 <= word[0] < word[1] <= len(text) or not text[word[0] : word[1]].strip():
        raise InputError(f"word[{k}]={tuple(word)!r} is no place in sentence {k}, which has {len(text)} signs; give (start, stop).")
    return int(word[0]), int(word[1])


def tokens_of(one: Occurrence, reading: Reading, word: str) -> list[int]:
    """The model's places of the tokens that the word is made of. Raises InputError, UnsupportedError."""
    if reading.spans is None:
        raise UnsupportedError("this tokenizer does not say where its tokens stand in the text; give the model one of transformers' fast tokenizers.")
    places = [place for place, (start, stop) in zip(reading.places, reading.spans, strict=True) if start < one.stop and stop > one.start]
    if not places:
        raise InputError(f"the tokenizer makes no token of {word!r} in sentence {one.owner}; leave that sentence out.")
    return places


def refuse_unknown(model: TorchModel, items: Items, row: int, places: Sequence[int], word: str, owner: int) -> None:
    """A token that stands for every unknown word has one vector for all of them."""
    unknown = getattr(model.tokenizer, "unk_token_id", None)
    part = items.arguments.parts[0]
    ids = items.arguments.values[part.name][row].reshape(-1)[list(places)].tolist()
    if unknown is not None and unknown in ids:
        raise InputError(
            f"the tokenizer does not know {word!r} in sentence {owner}: it reads {getattr(model.tokenizer, 'unk_token', unknown)}, "
            "which stands for any unknown word; take another word, or a model of that language."
        )


# ---- its vectors ----------------------------------------------------------------------------------------------------


def read_vectors(
    model: TorchModel, sentences: Sequence[str], found: Sequence[Occurrence], layers: Any, seed: int, batch_size: Any, tick: Progress | None
) -> tuple[dict[str, Vectors], int, tuple[str, ...]]:  # fmt: skip
    """By layer; the number of model calls; and the tokens of each occurrence."""
    if model.tokenizer is None:
        raise InputError("this model reads no words: askwhy.wrap(net, tokenizer=...) says how texts become its inputs.")
    by_sentence: dict[int, list[Occurrence]] = {}
    for one in found:
        by_sentence.setdefault(one.owner, []).append(one)
    own: dict[str, list[np.ndarray]] = {}
    others: dict[str, list[np.ndarray]] = {}
    owners: list[int] = []
    pieces: list[str] = []
    calls = 0
    for read in read_layers(model, list(sentences), layers, partial(by_token, model), batch_size=batch_size, tick=tick):
        calls += len(read.own) + (0 if read.own.start else read.items.calls)
        for row, (k, item) in enumerate(zip(read.which, read.own, strict=True)):
            reading = read.items.arguments.parts[0].readings[item]
            places = [tokens_of(one, reading, sentences[k][one.start : one.stop]) for one in by_sentence[k]]
            for one, at in zip(by_sentence[k], places, strict=True):
                refuse_unknown(model, read.items, item, at, sentences[k][one.start : one.stop], k)
                pieces.append(" ".join(reading.tokens[reading.places.index(place)] for place in at))
            rest = some_others(reading, set().union(*places), max(2, OTHERS // len(sentences)), np.random.default_rng([seed, k]))
            owners += [k] * len(rest)
            for name, out in read.outs.items():
                rows = to_numpy(out[row]).astype(np.float64)  # [places, d]
                own.setdefault(name, []).extend(rows[at].mean(0) for at in places)
                others.setdefault(name, []).extend(rows[rest])
    every = {name: Vectors(finite(name, rows), finite(name, others[name]), np.array(owners, int)) for name, rows in own.items()}
    return every, calls, tuple(pieces)


def by_token(model: TorchModel, name: str, out: torch.Tensor, items: Items, own: range) -> torch.Tensor:
    """[m, tokens, d]. Raises LayerError, for which a main stage without tokens is left out."""
    rows = in_places(model, name, out)
    if out.ndim != 3 or real_places(items, own, rows.shape[1]) is None:
        raise LayerError(f"layer {name!r} gives {list(out.shape)} for {len(own)} texts, and no vector for each token; name another layer.")
    return real_parts(rows.detach()).clone()


def some_others(reading: Reading, taken: set[int], most: int, rng: np.random.Generator) -> list[int]:
    """The places of some other tokens that say something."""
    marks = reading.special or (False,) * len(reading.places)
    free = [place for place, mark in zip(reading.places, marks, strict=True) if not mark and place not in taken]
    return sorted(rng.permutation(free)[:most].tolist())


def finite(name: str, rows: Sequence[np.ndarray]) -> np.ndarray:
    found = np.array(rows)
    if not np.isfinite(found).all():
        raise ModelError(f"layer {name!r} gives NaN or infinite numbers for these sentences; name another layer, or look into the model.")
    return found
