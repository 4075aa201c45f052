"""Texts through a tokenizer: ids for the model, words for the reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from askwhy.errors import InputError
from askwhy.models.arguments import Padded
from askwhy.reading import Reading

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
Text = str | tuple[str, str]


@dataclass(frozen=True)
class Encoded:
    """What the model takes: inputs by name, or one array of ids; what each text's tokens are called; the tokens that say nothing."""

    inputs: Any
    readings: tuple[Reading, ...]
    absent_ids: Mapping[str, int] = field(default_factory=dict)


def as_texts(x: Any) -> list[Text] | None:
    """A batch of texts, or of pairs of texts; None for anything else."""
    if isinstance(x, str):
        return [x]
    if hasattr(x, "tolist") and getattr(x, "ndim", 0) == 1:  # an array, or a column of a table
        x = x.tolist()
    return list(x) if isinstance(x, list) and x and all(map(is_text, x)) else None


def is_text(one: Any) -> bool:
    return isinstance(one, str) or (isinstance(one, tuple) and len(one) == 2 and all(isinstance(part, str) for part in one))


def encode(tokenizer: Any, texts: list[Text]) -> Encoded:
    """Ids and readings of texts. Raises InputError for an empty or an over-long text."""
    for k, text in enumerate(texts):
        if not "".join(text).strip():
            raise InputError(f"text {k} is empty; there is no word in it that could be explained.")
    return by_transformers(tokenizer, texts) if hasattr(tokenizer, "convert_ids_to_tokens") else by_function(tokenizer, texts)


def by_transformers(tokenizer: Any, texts: list[Text]) -> Encoded:
    """By a tokenizer of the library transformers."""
    fast = bool(getattr(tokenizer, "is_fast", False))
    settings = {"return_special_tokens_mask": True, "return_attention_mask": True, "return_offsets_mapping": fast}
    try:
        made = tokenizer(texts, padding=len(texts) > 1, **settings)
    except ValueError as error:
        raise InputError(f"the tokenizer cannot put these {len(texts)} texts together ({error}); ask about one text at a time.") from error
    check_lengths(made["attention_mask"], getattr(tokenizer, "model_max_length", None))
    readings = tuple(reading(tokenizer, made, k, text, fast) for k, text in enumerate(texts))
    return Encoded(
        taken(tokenizer, made), readings, {kind: one for kind in ("pad", "mask") if (one := getattr(tokenizer, f"{kind}_token_id", None)) is not None}
    )


def taken(tokenizer: Any, made: Any) -> dict[str, np.ndarray]:
    """What the model takes of what a tokenizer made."""
    found = {name: np.asarray(made[name]) for name in INPUTS if name in made and name in tokenizer.model_input_names}
    masks = np.asarray(made["attention_mask"])
    return found if masks.all() else Padded(found, masks)


def in_groups(texts: Sequence[str], tokenizer: Any, run: Callable[[Any], Any], together: Callable[[Padded], bool]) -> Any:
    """The scores [m, k] of texts in which words may be missing, by run(inputs); together: whether the model reads filled texts as it reads each."""
    if hasattr(tokenizer, "convert_ids_to_tokens"):
        made = tokenizer(list(texts), padding=len(texts) > 1)
        check_lengths(made["attention_mask"], getattr(tokenizer, "model_max_length", None))
        given = taken(tokenizer, made)
        if not isinstance(given, Padded):
            return run(given)
        return run(dict(given)) if together(given) else of_each_length(given.lengths, lambda which, length: run(given.alone(which, length)))
    rows = [ids_of(tokenizer, text)[0] for text in texts]  # a function does not fill up
    if not all(map(len, rows)):
        empty = next(text for text, row in zip(texts, rows, strict=True) if not len(row))
        raise InputError(f"tokenizer= makes no token of {empty!r}; give baseline= a word that stands for the absent ones.")
    return of_each_length([len(row) for row in rows], lambda which, length: run(np.stack([rows[k] for k in which]).astype(np.int64)))


def of_each_length(lengths: Sequence[int], run: Callable[[list[int], int], Any]) -> Any:
    """The scores of texts, those of one length together, by run(which, length)."""
    import torch

    found: dict[int, torch.Tensor] = {}
    for length in sorted(set(lengths)):
        which = [k for k, one in enumerate(lengths) if one == length]
        scores = run(which, length)
        if not isinstance(scores, torch.Tensor):
            raise InputError(
                "texts of several lengths are asked about one length after the other, so the model has to give one tensor; wrap(net, output=...) chooses it."
            )
        found.update(zip(which, scores, strict=True))
    rows = [found[k] for k in range(len(lengths))]
    longest = max((len(row) for row in rows if row.ndim), default=0)  # scores for each token end together, as the texts do
    return torch.stack(
        [
            row if not row.ndim or len(row) == longest else torch.cat([row.new_full((longest - len(row), *row.shape[1:]), torch.nan), row])
            for row in rows
        ]
    )


def ids_of(tokenizer: Any, text: Any) -> tuple[np.ndarray, Any]:
    """ids [length] and tokens (or None) by a function text -> ids, or text -> (ids, tokens)."""
    made = tokenizer(text)
    ids, tokens = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    row = np.asarray(ids.detach().cpu() if hasattr(ids, "detach") else ids)
    if row.ndim != 1 or (len(row) and row.dtype.kind not in "iu"):
        raise InputError("tokenizer= has to turn one text into its ids, whole numbers [length], or into (ids, tokens).")
    return row, tokens


def check_lengths(masks: Any, limit: int | None) -> None:
    """Refuse what the model would cut off, or fail on."""
    for k, mask in enumerate(masks):
        if limit is not None and sum(mask) > limit:
            raise InputError(f"text {k} has {sum(mask)} tokens, and the model takes {limit}; shorten it, or ask about its parts.")


def reading(tokenizer: Any, made: Any, k: int, text: Text, fast: bool) -> Reading:
    """The tokens of text k without the padding, as they stand in the text where the tokenizer says so."""
    places = tuple(np.flatnonzero(made["attention_mask"][k]).tolist())
    ids, special = (np.asarray(made[name][k])[list(places)].tolist() for name in ("input_ids", "special_tokens_mask"))
    raw, whole = tokenizer.convert_ids_to_tokens(ids), text if isinstance(text, str) else "\n".join(text)
    if not fast:
        return Reading(tuple(raw), places, special=tuple(map(bool, special)))
    second = len(text[0]) + 1 if isinstance(text, tuple) else 0  # where the second text of a pair begins
    which = made.sequence_ids(k)
    shift = [second if which[at] == 1 else 0 for at in places]
    spans: list[tuple[int, int]] = [tuple(int(end) + by for end in made["offset_mapping"][k][at]) for at, by in zip(places, shift, strict=True)]  # type: ignore[misc]
    known = [(0, 0) if mark else span for span, mark in zip(spans, special, strict=True)]
    words = tuple(whole[start:end] or token for (start, end), token in zip(known, raw, strict=True))
    return Reading(words, places, whole, tuple(known), tuple(map(bool, special)))


def by_function(tokenizer: Any, texts: list[Text]) -> Encoded:
    """By a function text -> ids, or text -> (ids, tokens)."""
    pairs = [ids_of(tokenizer, text) for text in texts]
    rows = [row for row, _ in pairs]
    if any(len(row) == 0 for row in rows):
        raise InputError("tokenizer= has to turn one text into its ids, whole numbers [length], or into (ids, tokens).")
    if len({len(row) for row in rows}) > 1:
        raise InputError(
            f"the texts have {', '.join(sorted({str(len(row)) for row in rows}))} tokens; ask about one at a time, or let tokenizer= fill them up."
        )
    named = [
        tokens if tokens is not None else [f"token {k} (id {one})" for k, one in enumerate(row)] for row, (_, tokens) in zip(rows, pairs, strict=True)
    ]
    return Encoded(np.stack(rows).astype(np.int64), tuple(Reading(tuple(map(str, names)), tuple(range(len(names)))) for names in named))
