"""Slow textbook versions of every method, written for reading: one item, plain loops, float64 numpy where possible."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

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


def through_rectifiers(
    layers: list[torch.nn.Module], x: torch.Tensor, target: int, rule: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """For a plain chain of layers: the chain rule by hand, one vector-Jacobian product a layer; rule(g, z) at each ReLU."""
    inputs = []
    for layer in layers:
        inputs.append(x)
        x = layer(x).detach()
    g = torch.zeros_like(x)
    g[:, target] = 1
    for layer, z in zip(reversed(layers), reversed(inputs), strict=True):
        g = rule(g, z) if isinstance(layer, torch.nn.ReLU) else torch.autograd.functional.vjp(layer, z, g)[1]
    return g


def guided_backprop(layers: list[torch.nn.Module], x: torch.Tensor, target: int) -> torch.Tensor:
    """Gated twice at each ReLU."""
    return through_rectifiers(layers, x, target, lambda g, z: g * (z > 0) * (g > 0))


def deconvnet(layers: list[torch.nn.Module], x: torch.Tensor, target: int) -> torch.Tensor:
    """Each ReLU passes on what is positive."""
    return through_rectifiers(layers, x, target, lambda g, z: g * (g > 0))


def smooth(explain: Callable[[np.ndarray], np.ndarray], x: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over noisy copies, and the standard error of that mean."""
    maps = np.array([explain(x + e) for e in noise])
    return maps.mean(0), maps.std(0, ddof=1) / math.sqrt(len(maps))


def cam(a: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A [k, h, w], the class's weights in the linear layer [k] -> [h, w]."""
    heat = np.zeros(a.shape[1:])
    for channel, weight in zip(a, weights, strict=True):
        heat += weight * channel
    return heat


def grad_cam_plus_plus(a: np.ndarray, gradient: np.ndarray, score: float) -> np.ndarray:
    """A [k, h, w], dS/dA -> [h, w], with the derivatives of Y = exp(S) as in the paper."""
    heat = np.zeros(a.shape[1:])
    for channel, g in zip(a, gradient, strict=True):
        weight = 0.0
        for i, j in np.ndindex(channel.shape):
            first, second, third = (math.exp(score) * g[i, j] ** power for power in (1, 2, 3))
            below = 2 * second + channel.sum() * third
            weight += (second / below if below else 0.0) * max(first, 0.0)
        heat += weight * channel
    return np.maximum(heat, 0)


def hires_cam(a: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """A [k, h, w], dS/dA -> [h, w]."""
    heat = np.zeros(a.shape[1:])
    for k, i, j in np.ndindex(a.shape):
        heat[i, j] += a[k, i, j] * gradient[k, i, j]
    return heat


def layer_cam(a: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """A [k, h, w], dS/dA -> [h, w]."""
    return np.maximum(hires_cam(a, np.maximum(gradient, 0)), 0)


def score_cam(f: Score, x: np.ndarray, a: np.ndarray) -> np.ndarray:
    """x [c, h, w], A [k, ...] -> [...]: the score behind each mask, over that of an empty picture, through a softmax."""
    gains = {}
    for k, channel in enumerate(a):
        wide = bilinear(channel, x.shape[1:])
        if wide.max() > wide.min():
            gains[k] = f(x * (wide - wide.min()) / (wide.max() - wide.min())) - f(x * 0)
    total = sum(math.exp(gain) for gain in gains.values())
    heat = np.zeros(a.shape[1:])
    for k, gain in gains.items():
        heat += math.exp(gain) / total * a[k]
    return np.maximum(heat, 0)


def bilinear(heat: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """[h, w] -> a larger grid: each new place is read between the four nearest centres, and beyond the last centre as there."""
    out = np.zeros(size)
    for i, j in np.ndindex(*size):
        places = []
        for at, new, old in ((i, size[0], heat.shape[0]), (j, size[1], heat.shape[1])):
            position = min(max((at + 0.5) * old / new - 0.5, 0), old - 1)
            low = min(int(position), max(old - 2, 0))
            places.append([(low, 1 - (position - low)), (min(low + 1, old - 1), position - low)])
        out[i, j] = sum(heat[r, c] * u * v for r, u in places[0] for c, v in places[1])
    return out


def matrix_of(layer: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """W [out, in] and b [out] of an affine layer on one item."""
    jacobian = torch.autograd.functional.jacobian(layer, x).reshape(layer(x).numel(), x.numel())
    return jacobian.detach().numpy(), layer(torch.zeros_like(x)).detach().numpy().ravel()


def steps_of(layers: list[torch.nn.Module]) -> list[tuple[str, Callable[[torch.Tensor], torch.Tensor]]]:
    """A chain as named steps; a batch norm belongs to the layer before it."""
    steps: list[tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = []
    for layer in layers:
        if isinstance(layer, torch.nn.BatchNorm2d):
            before = steps.pop()[1]
            steps.append(("linear", lambda t, f=before, g=layer: g(f(t))))
        else:
            kind = "linear" if hasattr(layer, "weight") else "activation" if isinstance(layer, torch.nn.ReLU) else "other"
            steps.append((kind, layer))
    return steps


def lrp(
    layers: list[torch.nn.Module], x: torch.Tensor, target: int, rule: str | tuple[str, ...], box: tuple[float, float] = (0.0, 1.0)
) -> tuple[np.ndarray, float]:
    """The relevance of one item and what the biases took; every linear layer as a matrix, every rule written out in loops."""
    steps, inputs = steps_of(layers), []
    for _, step in steps:
        inputs.append(x)
        x = step(x).detach()
    relevance = np.zeros(x.numel())
    relevance[target] = x.numpy().ravel()[target]
    count, taken = sum(kind == "linear" for kind, _ in steps), 0.0
    for (kind, step), z in zip(reversed(steps), reversed(inputs), strict=True):
        if kind == "linear":
            count -= 1
            w, b = matrix_of(step, z)
            relevance, bias = hand_down(z.numpy().ravel(), w, b, relevance, rule if isinstance(rule, str) else rule[count], box)
            taken += bias
        elif kind == "other":  # pooling: in proportion to the contributions; reshaping
            w, _ = matrix_of(step, z)
            total = w @ z.numpy().ravel()
            share = np.divide(relevance, total, out=np.zeros_like(total), where=total != 0)
            relevance = z.numpy().ravel() * (w.T @ share)
    return relevance.reshape(inputs[0].shape), taken


def hand_down(x: np.ndarray, w: np.ndarray, b: np.ndarray, relevance: np.ndarray, rule: str, box: tuple[float, float]) -> tuple[np.ndarray, float]:
    """One linear layer, one output after the other."""
    name, _, number = rule.rstrip(")").partition("(")
    found, taken = np.zeros_like(x), 0.0
    for k in range(len(b)):
        c, z = x * w[k], x @ w[k] + b[k]
        up, down = np.maximum(c, 0), np.minimum(c, 0)
        if name == "epsilon":
            parts = [(1.0, c, b[k])]
        elif name in ("z-plus", "alpha2-beta1", "alpha-beta"):
            alpha = {"z-plus": 1.0, "alpha2-beta1": 2.0}.get(name) or float(number)
            parts = [(alpha, up, max(b[k], 0)), (1 - alpha, down, min(b[k], 0))]
        elif name == "gamma":
            g = float(number)
            parts = [(1.0, c + g * up, b[k] + g * max(b[k], 0)) if z > 0 else (1.0, c + g * down, b[k] + g * min(b[k], 0))]
        elif name == "flat":
            parts = [(1.0, (w[k] != 0).astype(float), 0.0)]
        else:
            parts = [(1.0, c - box[0] * np.maximum(w[k], 0) - box[1] * np.minimum(w[k], 0), b[k])]
        for weight, contributions, bias in parts:
            if weight == 0:
                continue
            total = contributions.sum() + bias
            total += (float(number) if name == "epsilon" and number else 1e-6) * (1 if total >= 0 else -1)
            found += weight * relevance[k] * contributions / total
            taken += weight * relevance[k] * bias / total
    return found, taken


def deep_lift(layers: list[torch.nn.Module], x: torch.Tensor, reference: torch.Tensor, target: int, *, reveal: bool = False) -> np.ndarray:
    """Rescale (or reveal-cancel) rule of one item, every step as the matrix of its multipliers."""
    start, multipliers, before = (x - reference).numpy().ravel(), [], start_of(x, reference)
    for layer in layers:
        y, y0 = layer(x).detach(), layer(reference).detach()
        if isinstance(layer, torch.nn.ReLU) and reveal:
            whole = multipliers.pop()
            if isinstance(layers[layers.index(layer) - 1], torch.nn.BatchNorm2d):
                whole = whole @ multipliers.pop()
            multipliers.append(revealed(whole, before, reference.numpy().ravel(), x.numpy().ravel()))
        elif isinstance(layer, torch.nn.ReLU):
            change = (x - reference).numpy().ravel()
            still = np.abs(change) < 1e-7
            slope = (y - y0).numpy().ravel() / np.where(still, 1, change)
            multipliers.append(np.diag(np.where(still, x.numpy().ravel() > 0, slope)))
        elif isinstance(layer, torch.nn.MaxPool2d):
            multipliers.append(pooled_multipliers(layer, x, reference))
        else:
            multipliers.append(matrix_of(layer, x)[0])
            before = before if isinstance(layer, torch.nn.BatchNorm2d) else start_of(x, reference)
        x, reference = y, y0
    whole = multipliers[-1]
    for m in reversed(multipliers[:-1]):
        whole = whole @ m
    return (whole[target] * start).reshape(1, *layers_input_shape(layers, start))


def start_of(x: torch.Tensor, reference: torch.Tensor) -> np.ndarray:
    return (x - reference).numpy().ravel()


def revealed(w: np.ndarray, change: np.ndarray, z0: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Multipliers from the input of a linear layer with matrix w through ReLU, one neuron after the other."""
    found = np.zeros_like(w)
    for k in range(len(w)):
        parts = w[k] * change
        plus, minus = parts[parts > 0].sum(), parts[parts < 0].sum()
        f = lambda t: max(t, 0.0)  # noqa: E731
        of_plus = (f(z0[k] + plus) - f(z0[k]) + f(z0[k] + plus + minus) - f(z0[k] + minus)) / 2
        of_minus = (f(z0[k] + minus) - f(z0[k]) + f(z0[k] + plus + minus) - f(z0[k] + plus)) / 2
        at = float(z[k] > 0)
        m_plus, m_minus = of_plus / plus if plus > 1e-7 else at, of_minus / minus if minus < -1e-7 else at
        for i in range(w.shape[1]):
            up, down = max(w[k, i], 0.0), min(w[k, i], 0.0)
            rising, falling = up * m_plus + down * m_minus, up * m_minus + down * m_plus
            found[k, i] = rising if change[i] > 0 else falling if change[i] < 0 else (rising + falling) / 2
    return found


def layers_input_shape(layers: list[torch.nn.Module], start: np.ndarray) -> tuple[int, int, int]:
    channels = layers[0].in_channels
    side = round(math.sqrt(len(start) / channels))
    return channels, side, side


def pooled_multipliers(pool: torch.nn.MaxPool2d, x: torch.Tensor, reference: torch.Tensor) -> np.ndarray:
    """[out, in]: the rise to the larger maximum belongs to the input's place, the rest to the reference's."""

    def places(t: torch.Tensor) -> np.ndarray:
        _, at = torch.nn.functional.max_pool2d(t, pool.kernel_size, return_indices=True)
        c, h, w = t.shape[1:]
        return (at + torch.arange(c)[None, :, None, None] * h * w).numpy().ravel()

    a, b = x.numpy().ravel(), reference.numpy().ravel()
    found = np.zeros((len(places(x)), len(a)))
    for k, (p, q) in enumerate(zip(places(x), places(reference), strict=True)):
        top = max(a[p], b[q])
        found[k, p] += (top - b[q]) / (a[p] - b[p]) if a[p] != b[p] else 0  # the derivative, where nothing changed
        found[k, q] += (a[p] - top) / (a[q] - b[q]) if a[q] != b[q] else 0
        found[k, p] = 1.0 if a[p] == b[p] else found[k, p]
    return found


def mean_square_pooling(x: np.ndarray, gradient: np.ndarray, size: int, stride: int, padding: int) -> np.ndarray:
    """The gradient [h', w'] of windows over x [h, w] as if each gave the root of its mean square; padding counts as numbers that are 0."""
    found = np.zeros_like(x)
    padded = [side + padding for side in x.shape]
    for (row, column), g in np.ndenumerate(gradient):
        starts = [at * stride - padding for at in (row, column)]
        n = np.prod([min(start + size, end) - start for start, end in zip(starts, padded, strict=True)])
        window = tuple(slice(max(start, 0), start + size) for start in starts)
        on = np.maximum(x[window], 0) + 1e-6
        found[window] += g * on / (n * np.sqrt((on**2).sum() / n))
    return found


def integrated_gradients(f: Score, x: np.ndarray, baseline: np.ndarray, nodes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(x - b) times the weighted mean of finite differences at points of the line."""
    mean = np.zeros(x.shape)
    for node, weight in zip(nodes, weights, strict=True):
        mean += weight * finite_difference(f, baseline + node * (x - baseline))
    return (x - baseline) * mean


def path_integral(f: Score, x: np.ndarray, baseline: np.ndarray, pieces: int = 4096) -> np.ndarray:
    """Integrated gradients of few numbers, by very many midpoints."""
    return integrated_gradients(f, x, baseline, (np.arange(pieces) + 0.5) / pieces, np.full(pieces, 1 / pieces))


def smoothed(maps: np.ndarray, form: str) -> np.ndarray:
    """A form of smoothing from all answers [m, ...] at once."""
    if form == "variance":
        return maps.var(0, ddof=1)
    return (maps**2).mean(0) if form == "square" else maps.mean(0)


# ---- LIME of texts and tables -------------------------------------------------------------------------------------


def shapley(v: Callable[[np.ndarray], float], d: int) -> np.ndarray:
    """The mean of what each player adds, over all d! orders."""
    total, orders = np.zeros(d), list(itertools.permutations(range(d)))
    for order in orders:
        present = np.zeros(d, dtype=bool)
        for player in order:
            before = v(present)
            present[player] = True
            total[player] += v(present) - before
    return total / len(orders)


def shapley_interaction(v: Callable[[np.ndarray], float], d: int, i: int, j: int) -> float:
    """The mean, over all orders in which i and j come as one, of what the two add together beyond what each adds alone."""
    total, others = 0.0, [k for k in range(d) if k not in (i, j)]
    orders = list(itertools.permutations([*others, i]))
    for order in orders:
        before = list(order[: order.index(i)])

        def at(*more: int, before: list[int] = before) -> float:
            z = np.zeros(d, dtype=bool)
            z[[*before, *more]] = True
            return v(z)

        total += at(i, j) - at(i) - at(j) + at()
    return total / len(orders)


def lime_of_text(v: Callable[[np.ndarray], float], d: int, width: float) -> np.ndarray:
    """What LIME of a text converges to: any number of words but all is equally likely, then any choice of so many."""
    z = np.array([row for row in itertools.product([0.0, 1.0], repeat=d) if sum(row) < d])
    y = np.array([v(row.astype(bool)) for row in z])
    weight = np.array([math.exp(-((1 - math.sqrt(row.mean())) ** 2) / (2 * width**2)) / math.comb(d, int(row.sum())) for row in z])
    return ridge(z, y, weight, 0.0)[0]


def lime_of_table(
    f: Score, row: np.ndarray, background: np.ndarray, weights: np.ndarray, coordinate: Callable[[int, float], float], width: float
) -> np.ndarray:
    """What LIME of a table converges to: every row that can be made of the background's values, by their frequencies and the kernel."""
    k, d = background.shape
    own = [coordinate(j, row[j]) for j in range(d)]
    z, y, weight = [], [], []
    for which in itertools.product(range(k), repeat=d):
        made = np.array([background[at, j] for j, at in enumerate(which)])
        z.append([coordinate(j, value) for j, value in enumerate(made)])
        y.append(f(made))
        far = sum((a - b) ** 2 for a, b in zip(z[-1], own, strict=True))
        weight.append(math.prod(weights[at] for at in which) * math.exp(-far / (2 * width**2)))
    return ridge(np.array(z), np.array(y), np.array(weight), 0.0)[0]


def submodular_pick(matrix: np.ndarray, k: int) -> list[int]:
    """The greedy choice of LIME's paper: the row that adds most of sqrt(sum |W|) over the columns that are shown."""
    importance = [math.sqrt(sum(abs(value) for value in column)) for column in matrix.T]
    chosen: list[int] = []
    for _ in range(k):
        shown = {j for i in chosen for j in range(len(importance)) if matrix[i, j] != 0}
        gains = [sum(importance[j] for j in range(len(importance)) if row[j] != 0 and j not in shown) for row in matrix]
        if max(gains) <= 0:
            break
        chosen.append(gains.index(max(gains)))
    return chosen


def anchor_of_parts(stays: Callable[[np.ndarray], bool], d: int, rule: tuple[int, ...]) -> tuple[float, float]:
    """Precision and coverage of a rule on an item of d parts, by all its 2^d versions."""
    kept = [z for z in itertools.product([False, True], repeat=d) if all(z[k] for k in rule)]
    return sum(stays(np.array(z)) for z in kept) / len(kept), len(kept) / 2**d


def anchor_of_mixed_rows(
    stays: Callable[[np.ndarray], bool], rows: np.ndarray, bins: np.ndarray, own: np.ndarray, weights: np.ndarray, rule: tuple[int, ...]
) -> tuple[float, float]:
    """The same for a table: every background row, with every way to fill its columns of the rule from rows of the item's bins [d]."""
    precision = coverage = 0.0
    for row, codes, weight in zip(rows, bins, weights, strict=True):
        coverage += weight * all(codes[k] == own[k] for k in rule)
        replaced = [k for k in rule if codes[k] != own[k]]
        givers = []
        for k in replaced:
            heap: dict[float, float] = {}  # value -> its weight in the bin
            for value, code, heavy in zip(rows[:, k], bins[:, k], weights, strict=True):
                heap[value] = heap.get(value, 0.0) + heavy * (code == own[k])
            givers.append([(value, heavy / sum(heap.values())) for value, heavy in heap.items() if heavy])
        for chosen in itertools.product(*givers):
            filled, chance = row.copy(), weight
            for k, (value, share) in zip(replaced, chosen, strict=True):
                filled[k] = value
                chance *= share
            precision += chance * stays(filled)
    return precision, coverage


def anchor_of_rows(
    stays: Callable[[np.ndarray], bool], rows: np.ndarray, bins: np.ndarray, own: np.ndarray, rule: tuple[int, ...]
) -> tuple[float, float]:
    """The same by the rows that satisfy the rule."""
    inside = [row for row, codes in zip(rows, bins, strict=True) if all(codes[k] == own[k] for k in rule)]
    return sum(map(stays, inside)) / len(inside), len(inside) / len(rows)


def best_anchor(judge: Callable[[tuple[int, ...]], tuple[float, float]], d: int, precision: float) -> tuple[tuple[int, ...], float]:
    """The shortest rule with that precision, of these the one with the largest coverage; and that."""
    for size in range(d + 1):
        good = [(judge(rule)[1], rule) for rule in itertools.combinations(range(d), size) if judge(rule)[0] >= precision]
        if good:
            return max(good)[1], max(good)[0]
    return (), 0.0


def bernoulli_upper(heads: int, tosses: int, beta: float) -> float:
    """The largest q with tosses * KL(heads / tosses, q) <= beta, on a fine grid."""
    p, last = heads / tosses, heads / tosses
    for q in np.arange(p, 1, 1e-5):
        kl = (p * math.log(p / q) if p else 0.0) + ((1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0)
        if tosses * kl > beta:
            break
        last = q
    return float(last) if p < 1 else 1.0


# ---- trees ----------------------------------------------------------------------------------------------------------


def goes_left(forest: Any, node: int, x: float) -> bool:
    if np.isnan(x):
        return bool(forest.default_left[node])
    if forest.category[node] >= 0:
        members = forest.members[forest.category[node]]
        return 0 <= x < len(members) and bool(members[int(x)])
    return bool(x <= forest.threshold[node])


def path_dependent(forest: Any, row: np.ndarray, present: np.ndarray) -> np.ndarray:
    """[k]: the raw score expected with some features of a row known; at splits on the others each side has its share of the cover."""

    def below(node: int) -> np.ndarray:
        if forest.left[node] < 0:
            return np.asarray(forest.value[node])
        left, right = forest.left[node], forest.right[node]
        if present[forest.feature[node]]:
            return below(left if goes_left(forest, node, row[forest.feature[node]]) else right)
        both = forest.cover[left] + forest.cover[right]
        return (forest.cover[left] * below(left) + forest.cover[right] * below(right)) / both

    return sum_of_trees(forest, below)


def interventional(forest: Any, row: np.ndarray, background: np.ndarray, weights: np.ndarray, present: np.ndarray) -> np.ndarray:
    """[k]: the mean raw score of background rows whose present features are those of the row."""

    def reached(one: np.ndarray) -> np.ndarray:
        def below(node: int) -> np.ndarray:
            if forest.left[node] < 0:
                return np.asarray(forest.value[node])
            left = goes_left(forest, node, one[forest.feature[node]])
            return below(forest.left[node] if left else forest.right[node])

        return sum_of_trees(forest, below)

    return np.sum([w * reached(np.where(present, row, z)) for w, z in zip(weights, background, strict=True)], axis=0)


def sum_of_trees(forest: Any, below: Callable[[int], np.ndarray]) -> np.ndarray:
    total = np.array(forest.base, float)
    for root, output in zip(forest.roots, forest.output, strict=True):
        value = below(root)
        if len(value) > 1:
            total += value
        else:
            total[output] += value[0]
    return total
