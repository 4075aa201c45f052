"""What activation maximization found: pictures, what the model and others say of them, and how far to trust them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy.errors import InputError
from askwhy.kept import Kept

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 10  # portraits that a summary goes through
RARE = 0.05  # share of real images, below which a portrait lies outside of what they do


@dataclass(frozen=True, eq=False)
class Portrait(Kept):
    """n pictures, each of which raises a target as far as it could be. portrait[k] is one of them.

    values [n, c, h, w]: inputs of the model; pictures uint8 [n, h, w, 3]: as a screen shows them. score, shown_score,
    start [n]: the target for the values, for the pictures, and before the first step; trace [steps, n]: during it, on
    the moved picture. judge: rank and probability of the class by another model, and its first five. natural
    [layers, n]: the share of real images as far from the others as this is, layer by layer.
    """

    values: np.ndarray
    pictures: np.ndarray
    target: tuple[str, ...]
    score: np.ndarray
    shown_score: np.ndarray
    start: np.ndarray
    trace: np.ndarray
    method: str
    judge_rank: np.ndarray | None = None
    judge_probability: np.ndarray | None = None
    judge_top: tuple[tuple[str, ...], ...] = ()
    natural: np.ndarray | None = None
    natural_layers: tuple[str, ...] = ()
    nearest: np.ndarray | None = None  # [n, 3]: which of the real images
    nearest_pictures: np.ndarray | None = None  # uint8 [n, 3, h, w, 3]
    latent: np.ndarray | None = None  # [n, latent], of a generator
    params: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    model_calls: int = 0
    seconds: float = 0.0
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, which: int | slice) -> Portrait:
        rows = slice(which, None if which == -1 else which + 1) if isinstance(which, (int, np.integer)) else which
        if not len(range(len(self))[rows]):
            raise IndexError(f"portrait {which} of {len(self)}.")
        cut = {f.name: of_rows(getattr(self, f.name), f.name, rows) for f in fields(self)}
        return Portrait(**cut)

    def summary(self) -> str:
        """What was sought, how it was judged, the cost and how far to trust it."""
        lines = [f"activation maximization ({self.method}) for {', '.join(self.target[:MOST])}{' ...' if len(self) > MOST else ''}"]
        lines += [self.told(k) for k in range(min(len(self), MOST))]
        return "\n".join([*lines, *self.trust(), f"{self.model_calls} model calls forward and back, {self.seconds:.1f} s"])

    def told(self, k: int) -> str:
        """One portrait in a line."""
        said = f"{self.target[k]}: from {self.start[k]:.3g} to {self.score[k]:.3g}"
        said += "" if np.isnan(self.shown_score[k]) else f", and {self.shown_score[k]:.3g} as an 8-bit picture"
        if self.judge_rank is not None and self.judge_rank[k]:
            assert self.judge_probability is not None
            said += (
                f"; the judge puts it at rank {self.judge_rank[k]} with probability {self.judge_probability[k]:.2g} (first: {self.judge_top[k][0]})"
            )
        if self.natural is not None:
            out = [layer for layer, share in zip(self.natural_layers, self.natural[:, k], strict=True) if share < RARE]
            said += f"; outside of what real images do in {len(out)} of {len(self.natural_layers)} layers" + (f", first {out[0]}" if out else "")
        return said

    def trust(self) -> list[str]:
        """What is known of how far to believe the pictures, one sentence each."""
        said = []
        done = np.isfinite(self.trace).sum(0)
        short = [self.target[k] for k in range(len(self)) if done[k] < self.params.get("steps", 0)]
        if short:
            said.append(f"stopped after {done.min()} of {self.params['steps']} steps: the best pictures so far of {some(short)}")
        if self.details.get("missing"):
            said.append(f"stopped before {some(self.details['missing'])}: of these there is no picture")
        if self.details.get("flat"):
            said.append(f"no gradient wherever the search began, where the neuron is off: {some(self.details['flat'])}")
        if self.details.get("hidden"):
            said.append(f"smooth_pooling() has no effect: torch.jit made {self.details['hidden']}, in which no operation can be changed")
        fallen = [self.target[k] for k in range(len(self)) if self.score[k] < self.start[k]]
        if fallen:
            said.append(f"lower than at the start: {some(fallen)}; the regularizer outweighs the score, give it a smaller weight")
        if self.judge_rank is None:
            said.append("no other model has judged them (judge=): that this model is sure does not mean that they look like anything")
        if self.natural is None:
            said.append("not compared with real images (images=): a portrait may excite the network on paths that no image takes")
        return said

    def plot(self, ax: Axes | None = None, how: str = "pictures", columns: int | None = None) -> Axes:
        """The pictures with what is known of them; "nearest": beside the nearest real images; "trace": the target step by step."""
        from askwhy.overall import drawn_portraits

        if how not in drawn_portraits.HOW:
            raise InputError(f"how={how!r}: choose {', '.join(map(repr, drawn_portraits.HOW))}.")
        return drawn_portraits.HOW[how](self, ax, columns)

    def __repr__(self) -> str:
        return f"<Portrait by {self.method}: {', '.join(self.target[:3])}{' ...' if len(self) > 3 else ''}, {list(self.values.shape)}>"


def some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


SECOND = ("trace", "natural")  # fields whose portraits are counted along the second axis
WHOLE = ("natural_layers", "params", "details", "versions", "method", "model_calls", "seconds", "seed")


def of_rows(value: Any, name: str, rows: slice) -> Any:
    if value is None or name in WHOLE or (isinstance(value, tuple) and not value):
        return value
    return value[:, rows] if name in SECOND else value[rows]


def joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The fields of several searches as those of one."""
    return {name: together([part[name] for part in parts], name) for name in parts[0]}


def together(values: list[Any], name: str) -> Any:
    if name != "trace":
        return np.concatenate(values)
    longest = max(len(one) for one in values)  # a search that was stopped is shorter
    return np.concatenate([np.pad(one, ((0, longest - len(one)), (0, 0)), constant_values=np.nan) for one in values], axis=1)
