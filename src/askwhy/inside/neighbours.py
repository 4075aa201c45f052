"""The same word in different sentences: how alike its vectors are in each layer, and whether its senses part."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.answer import versions
from askwhy.checks import whole
from askwhy.errors import InputError, LayerError, near
from askwhy.game import Progress, progress_of
from askwhy.inside.alike import baseline_of, cosines, gathered, one_each, read_groups, senses, shifted
from askwhy.inside.asked import place
from askwhy.inside.nearness import nearest
from askwhy.inside.occurrences import occurrences_of, read_sentences, read_vectors
from askwhy.kept import Kept
from askwhy.layers import torch_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AROUND = 22  # signs on either side of a word that are shown


@dataclass(frozen=True, eq=False)
class Neighbours(Kept):
    """m occurrences of a word: cosine similarity [layers, m, m], and the nearest others of each [layers, m, k], the nearest first.

    Where they stand: owners [m] (the sentence), spans [m, 2] (signs), pieces (tokens). baseline [layers]: the mean similarity of other
    tokens of different sentences. Of `groups`, by layer: the mean similarity of pairs of one sense (same), of two (different), the
    difference (gap), their standard errors, and the p-value of the gap.
    """

    similarity: np.ndarray
    layers: tuple[str, ...]
    nearest: np.ndarray
    baseline: np.ndarray
    sentences: tuple[str, ...]
    owners: np.ndarray
    spans: np.ndarray
    pieces: tuple[str, ...]
    centred: bool = False
    groups: tuple[str, ...] | None = None
    same: np.ndarray | None = None
    different: np.ndarray | None = None
    gap: np.ndarray | None = None
    same_error: np.ndarray | None = None
    different_error: np.ndarray | None = None
    gap_error: np.ndarray | None = None
    p_value: np.ndarray | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    model_calls: int = 0
    seconds: float = 0.0
    seed: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, layer: str) -> np.ndarray:
        return self.similarity[self.place(layer)]

    def place(self, layer: str | None) -> int:
        if layer is None:
            return len(self.layers) - 1
        if layer not in self.layers:
            raise LayerError(f"layer {layer!r} is not among those that were read; {near(str(layer), self.layers)}")
        return self.layers.index(layer)

    def snippet(self, k: int) -> str:
        """Occurrence k with a little of its sentence, the word in brackets."""
        (start, stop), text = self.spans[k].tolist(), self.sentences[self.owners[k]]
        before, after = text[:start], text[stop:]
        left = ("…" if len(before) > AROUND else "") + before[-AROUND:]
        return f"{left}[{text[start:stop]}]{after[:AROUND]}{'…' if len(after) > AROUND else ''}"

    def near(self, k: int, layer: str | None = None) -> list[tuple[str, float]]:
        """The nearest others of occurrence k as (snippet, similarity), in a layer or the last one."""
        k, at = place("k", k, len(self)), self.place(layer)
        return [(self.snippet(j), float(self.similarity[at, k, j])) for j in self.nearest[at, k].tolist()]

    def summary(self) -> str:
        """A line for each layer, the nearest of a few occurrences in the last one, then how the numbers are meant, and the cost."""
        head = (
            f"{len(self)} occurrences in {len(self.sentences)} sentences, cosine similarity{' with the mean vector removed' if self.centred else ''}"
        )
        lines = [head, *map(self.line, range(len(self.layers)))]
        for k in range(min(len(self), 4)):
            other, value = self.near(k)[0]
            lines.append(f"nearest to {self.snippet(k)} in {self.layers[-1]}: {other} ({value:.3f})")
        return "\n".join([*lines, *self.trust(), f"{self.model_calls} model calls, {self.seconds:.2f} s"])

    def line(self, k: int) -> str:
        """What is known of one layer."""
        off = self.similarity[k][~np.eye(len(self), dtype=bool)]
        found = f"{self.layers[k]}: {off.mean():.3f} on average, {off.min():.3f} to {off.max():.3f}"
        if np.isfinite(self.baseline[k]):
            found += f"; any two other words {self.baseline[k]:.3f}"
        told = (self.same, self.different, self.gap, self.gap_error, self.p_value)
        if any(one is None for one in told):
            return found
        same, different, gap, error, p = (float(one[k]) for one in told if one is not None)
        return f"{found}; same sense {same:.3f}, different {different:.3f}, gap {gap:.3f} (standard error {error:.3f}, p {p:.3g})"

    def trust(self) -> list[str]:
        """How the numbers are meant, one sentence each."""
        said = ["the vectors of a layer may all point one way (Ethayarajh 2019): compare with any two other words of the same layer"]
        if np.isnan(self.baseline).all():
            said = [
                "there are no other words in different sentences to compare with, and the vectors of a layer may all point one way (Ethayarajh 2019)"
            ]
        if self.centred:
            said = ["the mean vector of other words was removed from each, since all may point one way (Ethayarajh 2019)"]
        if self.groups is not None:
            said.append(
                f"pairs in one sentence are left out; p: senses shuffled over {self.params['shuffled over']}, each layer for itself; errors: jackknife over sentences, rather too large"
            )
        return said

    def plot(self, layer: Any = None, ax: Axes | None = None, how: str = "matrix") -> Axes:
        """how="matrix": who is like whom, in one layer, some, or all; "layers": same and different senses, and other words, over the layers."""
        if how not in ("matrix", "layers"):
            raise InputError(f"how={how!r}: choose 'matrix' or 'layers'.")
        asked = self.layers if layer is None else [layer] if isinstance(layer, str) else layer
        return (self.maps if how == "matrix" else self.curves)([self.place(one) for one in asked], ax)

    def maps(self, which: Sequence[int], ax: Axes | None) -> Axes:
        from askwhy import show

        captions = [
            f"other words {round(self.baseline[k], 2) + 0.0:.2f}{'' if self.gap is None else f', gap of senses {self.gap[k]:.2f}'}" for k in which
        ]
        return show.similarities(
            self.similarity[list(which)], [self.layers[k] for k in which], list(map(self.snippet, range(len(self)))), ax, groups=self.groups,
            captions=captions, title=f"how alike {self.word()} is in {len(self)} places", unit=self.unit(),
        )  # fmt: skip

    def word(self) -> str:
        """The word itself, where it is one."""
        forms = {self.sentences[k][start:stop].lower() for k, (start, stop) in zip(self.owners, self.spans.tolist(), strict=True)}
        return f"“{forms.pop()}”" if len(forms) == 1 else "the word"

    def unit(self) -> str:
        return "cosine similarity, mean removed" if self.centred else "cosine similarity"

    def curves(self, which: Sequence[int], ax: Axes | None) -> Axes:
        from askwhy import show

        some = list(which)
        lines: list[tuple[str, np.ndarray, np.ndarray | None]] = [("any two other words", self.baseline[some], None)]
        if self.same is None or self.different is None or self.same_error is None or self.different_error is None:
            off = ~np.eye(len(self), dtype=bool)
            lines.insert(0, ("the word in two places", np.array([self.similarity[k][off].mean() for k in some]), np.full(len(some), np.nan)))
        else:
            lines.insert(0, ("different senses", self.different[some], self.different_error[some]))
            lines.insert(0, ("the same sense", self.same[some], self.same_error[some]))
        return show.over_layers(lines, [self.layers[k] for k in some], ax, title=f"how alike {self.word()} is in two sentences", unit=self.unit())

    def __repr__(self) -> str:
        return f"<Neighbours of {len(self)} occurrences, {', '.join(self.layers[:3])}{', ...' if len(self.layers) > 3 else ''}>"


def embedding_neighbours(
    model: Any, word: Any, sentences: Any, layers: Any = None, *, groups: Any = None, centred: bool = False, k: int | None = None, seed: int = 0,
    batch_size: int | str = "auto", progress: bool | Progress | None = None,
) -> Neighbours:  # fmt: skip
    """How alike the vectors of a word are where it stands in sentences: its cosine similarities, in each of the layers.

    word: whole words whatever their case (in Chinese: signs), or one for each sentence, itself or its place (start, stop); the tokens
    of a word are averaged. layers: names, modules, or None for the main stages that give a vector for each token. groups: the sense
    in each sentence, or occurrence; then same and different senses are compared. centred: remove the mean vector of other words of
    the sentences first, since contextual vectors all point one way (Ethayarajh 2019). k: nearest others to keep (5).
    Raises InputError for a sentence without the word or a word the tokenizer does not know, LayerError, UnsupportedError.
    Example: `askwhy.embedding_neighbours(model, "apple", sentences, groups=["fruit", "fruit", "firm"]).plot()`.
    """
    began = time.perf_counter()
    sentences, seed = read_sentences(sentences), whole("seed", seed)
    wrapped, found = torch_model(model), occurrences_of(word, sentences)
    owners, most = np.array([one.owner for one in found]), len(found) - 1
    count = whole("k", min(5, most) if k is None else k, 1, most, f", less than the {most + 1} occurrences")
    of_each = read_groups(groups, owners, len(sentences))
    with progress_of(progress, "reading the sentences") as tick:
        vectors, calls, pieces = read_vectors(wrapped, sentences, found, layers, seed, batch_size, tick)
    layered = {name: (*shifted(one, name, centred), one.owners) for name, one in vectors.items()}
    maps = np.stack([cosines(own, name) for name, (own, _, _) in layered.items()])
    told = {} if of_each is None else gathered([senses(one, of_each, owners, seed) for one in maps])
    params = {"k": count} | ({} if of_each is None else {"shuffled over": "sentences" if one_each(of_each, owners) else "occurrences"})
    return Neighbours(
        similarity=maps, layers=tuple(layered), nearest=np.stack([nearest(-one, count) for one in maps]),
        baseline=np.array([baseline_of(others, sentence) for _, others, sentence in layered.values()]), sentences=tuple(sentences), owners=owners,
        spans=np.array([(one.start, one.stop) for one in found]), pieces=pieces, centred=bool(centred), groups=of_each, **told, params=params,
        model_calls=calls, seconds=time.perf_counter() - began, seed=seed, versions=versions(),
    )  # fmt: skip
