"""What an Attention says in plain sentences."""

from __future__ import annotations

from typing import Any

import numpy as np

from askwhy.inside.deleting import area

WARNING = "attention is no explanation"
LEVEL = 0.05  # of the test against random orders


def summary(found: Any, i: int) -> str:
    heads = sorted({one.shape[1] for one in found.weights})
    size = f"{len(found.layers)} layer{'s' * (len(found.layers) > 1)} of {' or '.join(map(str, heads))} heads"
    if not found.rolled:
        lines = [f"attention: {size}; no rollout and no relevance: {found.details['note']}", f"{WARNING}: it says where a layer looks"]
    else:
        parts = ", ".join(f"{name!r} {value:.2g}" for name, value in found.top(5, i))
        lines = [f"attention for {found.question(i)} (score {found.prediction[i]:.4g}): {size} over {len(found.tokens[i])} tokens"]
        lines += [f"most relevant by gradient-weighted attention: {parts}", *special(found, i), *tested(found, i), *over_items(found)]
    return "\n".join([*lines, f"{found.model_calls} model calls, {found.seconds:.2f} s"])


def special(found: Any, i: int) -> list[str]:
    """How much of the attention sinks into tokens that mark a beginning or an end."""
    d = len(found.tokens[i])
    marks = found.special[i, :d]
    if not marks.any():
        return []
    share = special_share(found, i)
    names = ", ".join(dict.fromkeys(name for name, mark in zip(found.tokens[i], marks, strict=True) if mark))
    told = f"{share:.0%} of the attention goes to {names}, and {marks.mean():.0%} of the tokens are that"
    return [told + (": heads park there what they do not use" if share > 2 * marks.mean() else "")]


def special_share(found: Any, i: int) -> float:
    """The mean over layers, heads and rows."""
    d = len(found.tokens[i])
    return float(np.mean([found.weights[k][i][:, :d, :d][..., found.special[i, :d]].sum(-1).mean() for k in found.rolled]))


def tested(found: Any, i: int) -> list[str]:
    if found.curves is None:
        why = found.details.get("untested", "deletion=False")
        return [f"{WARNING} (Jain & Wallace 2019; Wiegreffe & Pinter 2019), and no test was made here: {why}"]
    areas, chance = area(found.curves[i]), area(found.random[i])
    spread = chance.std(ddof=1)
    error = spread / np.sqrt(len(chance))
    lines = [
        f"{WARNING} (Jain & Wallace 2019; Wiegreffe & Pinter 2019), so tokens were deleted one after the other (replaced by {found.params['baseline']}); "
        f"the lower the mean score, the better the order. Random orders: {chance.mean():.4g} (standard error {error:.2g})"
    ]
    lines += [f"  {name}: {said(one, chance, error)}" for name, one in zip(names(), areas, strict=True)]
    return [*lines, shuffling(found, i)]


def names() -> tuple[str, ...]:
    return ("gradient-weighted relevance", "rollout", "last layer's attention", "leave-one-out, the reference")


def said(one: float, chance: np.ndarray, error: float) -> str:
    """Whether an order does better than chance, by a permutation test."""
    better = int((one < chance).sum())
    side = "below" if one < chance.mean() else "above"
    far = f", {abs(chance.mean() - one) / error:.1f} standard errors {side} their mean" if error > 0 else ""
    return f"{one:.4g}{far}, lower than {better} of {len(chance)} orders: {verdict(one, chance)}"


def verdict(one: float, chance: np.ndarray) -> str:
    if p_value(one, chance) <= LEVEL:
        return "better than random"
    return "worse than random" if p_value(-one, -chance) <= LEVEL else "could be chance"


def over_items(found: Any) -> list[str]:
    """The mean gain over random orders with its standard error, where several items were tested."""
    if found.curves is None or len(found) < 2:
        return []
    gains = area(found.random).mean(1)[:, None] - area(found.curves)  # [n, rankings]
    errors = gains.std(0, ddof=1) / np.sqrt(len(gains))
    parts = ", ".join(f"{name} {gain:.3g} (standard error {error:.2g})" for name, gain, error in zip(names(), gains.mean(0), errors, strict=True))
    return [f"over all {len(found)} items the mean score is lower than with random orders by: {parts}"]


def p_value(one: float, chance: np.ndarray) -> float:
    """The share of random orders, this one counted among them, that do as well."""
    return float((1 + (chance <= one).sum()) / (1 + len(chance)))


def shuffling(found: Any, i: int) -> str:
    moved = np.abs(found.shuffled[i] - found.prediction[i])
    whole = abs(found.prediction[i] - found.curves[i, 0, -1])
    share = f", {moved.mean() / whole:.0%} of what deleting every token changes" if whole > 0 else ""
    return f"shuffling where every head looks moves the score by {moved.mean():.3g} on average (standard error {moved.std(ddof=1) / np.sqrt(len(moved)):.2g}){share}"


def caption(found: Any, values: str, i: int) -> str:
    """The warning below a picture, with what the test says of what it shows."""
    if found.curves is None:
        return f"{WARNING}: it says where the model looks" + ("; no deletion test was made" if found.rolled else "")
    place = {"gradient": 0, "rollout": 1, "last layer": 2, "leave-one-out": 3}[values]
    chance, one = area(found.random[i]), area(found.curves[i, place])
    return f"{WARNING}. Deleting in this order: {verdict(float(one), chance)} (lower score than {int((one < chance).sum())} of {len(chance)} random orders)"
