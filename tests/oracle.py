"""Slow textbook versions of every method, written for reading: one item, plain loops, float64 numpy where possible."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch

Score = Callable[[np.ndarray], float]  # one input -> its score


def finite_difference(f: Score, x: np.ndarray, h: float = 1e-6) -> np.ndarray:
    """df/dx, one coordinate at a time, central differences."""
    out = np.zeros(x.shape)
    for at in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[at] += h
        down[at] -= h
        out[at] = (f(up) - f(down)) / (2 * h)
    return out


def occlusion(f: Score, x: np.ndarray, size: tuple[int, int], stride: tuple[int, int], fill: np.ndarray) -> np.ndarray:
    """x [c, h, w]: slide a box, write the drop on every pixel it covers, divide by how often the pixel was covered."""
    _, h, w = x.shape
    total, count = np.zeros((h, w)), np.zeros((h, w))
    top = 0
    while True:
        left = 0
        while True:
            rows, columns = slice(top, min(top + size[0], h)), slice(left, min(left + size[1], w))
            covered = x.copy()
            covered[:, rows, columns] = fill[:, rows, columns]
            total[rows, columns] += f(x) - f(covered)
            count[rows, columns] += 1
            if left + size[1] >= w:
                break
            left += stride[1]
        if top + size[0] >= h:
            break
        top += stride[0]
    return total / count


def leave_one_out(f: Score, x: np.ndarray, labels: np.ndarray, background: np.ndarray) -> np.ndarray:
    """f(x) minus the mean of f with one group of positions taken from each background row."""
    drops = []
    for k in range(labels.max() + 1):
        changed = [f(np.where(labels == k, row, x)) for row in background]
        drops.append(f(x) - sum(changed) / len(changed))
    return np.array(drops)


def ridge(z: np.ndarray, y: np.ndarray, weight: np.ndarray, alpha: float) -> tuple[np.ndarray, float]:
    """Weighted ridge with a free intercept, by the normal equations."""
    n, d = z.shape
    design = np.column_stack([z, np.ones(n)])
    penalty = alpha * np.eye(d + 1)
    penalty[d, d] = 0
    solved = np.linalg.solve(design.T @ (weight[:, None] * design) + penalty, design.T @ (weight * y))
    return solved[:d], solved[d]


def lime_limit(v: Callable[[np.ndarray], float], d: int, width: float) -> np.ndarray:
    """What LIME converges to: weighted least squares over all 2^d subsets, each weighted by the kernel."""
    z = np.array(list(itertools.product([0.0, 1.0], repeat=d)))
    y = np.array([v(row.astype(bool)) for row in z])
    weight = np.array([math.sqrt(math.exp(-((1 - math.sqrt(row.mean())) ** 2) / width**2)) for row in z])
    return ridge(z, y, weight, 0.0)[0]


def forward_selection(z: np.ndarray, y: np.ndarray, weight: np.ndarray, k: int) -> list[int]:
    """Greedy: the column that leaves the least weighted squared error, k times."""
    kept: list[int] = []
    for _ in range(k):
        errors = {}
        for j in set(range(z.shape[1])) - set(kept):
            columns = z[:, [*kept, j]]
            slope, constant = ridge(columns, y, weight, 0.0)
            errors[j] = (weight * (y - columns @ slope - constant) ** 2).sum()
        kept.append(min(errors, key=lambda j: errors[j]))
    return sorted(kept)


def grad_cam(a: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """A [k, h, w], dS/dA -> [h, w]."""
    heat = np.zeros(a.shape[1:])
    for channel, g in zip(a, gradient, strict=True):
        heat += g.mean() * channel
    return np.maximum(heat, 0)


def guided_backprop(layers: list[torch.nn.Module], x: torch.Tensor, target: int) -> torch.Tensor:
    """For a plain chain of layers: the chain rule by hand, one vector-Jacobian product a layer, gated twice at each ReLU."""
    inputs = []
    for layer in layers:
        inputs.append(x)
        x = layer(x).detach()
    g = torch.zeros_like(x)
    g[:, target] = 1
    for layer, z in zip(reversed(layers), reversed(inputs), strict=True):
        if isinstance(layer, torch.nn.ReLU):
            g = g * (z > 0) * (g > 0)
        else:
            _, g = torch.autograd.functional.vjp(layer, z, g)
    return g


def smooth(explain: Callable[[np.ndarray], np.ndarray], x: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over noisy copies, and the standard error of that mean."""
    maps = np.array([explain(x + e) for e in noise])
    return maps.mean(0), maps.std(0, ddof=1) / math.sqrt(len(maps))
