"""The engine of probing: probes on rows of numbers, cross-validated; control tasks; description length."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

Predict = Callable[[np.ndarray], np.ndarray]  # rows [m, d] -> probabilities [m, classes], or numbers [m]
Measure = Callable[[np.ndarray, np.ndarray], float]  # (truth, what a probe predicts) -> larger is better

HELD, FEW = 7, 1000  # one part in so many of the training rows chooses the regularization; of fewer rows than FEW each part in turn
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the linear probe: C = 1 / L2 penalty, strongest penalty first
MAX_ITER = 1000  # of L-BFGS
SURE = -0.01  # bits a row: the likelihood from which on there is nothing to better
ROUNDS, STEPS, BATCH, STOP = 40, 30, 256, 4  # of the MLP: the most rounds, the least steps in one, rows in a step, halvings in a row that end it
PORTIONS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.25, 12.5, 25, 50, 100)  # per cent, as Voita & Titov (2020) cut the data
FEWEST = 10  # rows in the first block


@dataclass(frozen=True, eq=False)
class Rows:
    """What probes are fitted to: a layer's rows X [n, d] and the truth y [n], codes 0..classes-1, or numbers (classes = 0)."""

    X: np.ndarray
    y: np.ndarray
    classes: int
    groups: np.ndarray  # rows of one group are never on both sides of a split

    def at(self, which: np.ndarray) -> Rows:
        return Rows(self.X[which], self.y[which], self.classes, self.groups[which])


@dataclass(frozen=True)
class Fitted:
    predict: Predict
    settled: bool = True  # whether the optimizer came to its end
    model: Any = None


# ---- splits ---------------------------------------------------------------------------------------------------------


def fold_of(y: np.ndarray, groups: np.ndarray, folds: int, seed: Any) -> np.ndarray:
    """The fold of each row [n]: whole groups dealt out at random; single rows so that every fold has its share of each class."""
    rng = np.random.default_rng(seed)
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < len(y):
        return (rng.permutation(len(names)) % folds)[group]
    order = rng.permutation(len(y))
    if y.dtype.kind != "f":
        order = order[np.argsort(y[order], kind="stable")]
    fold = np.empty(len(y), int)
    fold[order] = np.arange(len(y)) % folds
    return fold


def inner_parts(rows: Rows, seed: Any) -> np.ndarray:
    """Training rows in HELD parts, of few rows in as many as there are, to choose the regularization with.

    Where there are too few groups, rows of one group are parted.
    """
    few = len(np.unique(rows.groups)) < HELD
    return fold_of(rows.y, np.arange(len(rows.y)) if few else rows.groups, HELD, seed)


# ---- measures -------------------------------------------------------------------------------------------------------


def accuracy(y: np.ndarray, out: np.ndarray) -> float:
    return float((out.argmax(1) == y).mean())


def balanced_accuracy(y: np.ndarray, out: np.ndarray) -> float:
    """The mean over the classes that are there of the share that is recognized."""
    right, total = np.bincount(y, out.argmax(1) == y), np.bincount(y)
    return float((right[total > 0] / total[total > 0]).mean())


def r2(y: np.ndarray, out: np.ndarray, variance: float) -> float:
    """1 - mean squared error / the variance of all answers, which is one for all folds: the answers of a fold may all be equal."""
    return float(1 - ((y - out) ** 2).mean() / variance)


def likelihood(y: np.ndarray, out: np.ndarray) -> float:
    """The mean log probability of the truth, in bits."""
    return float(np.log2(np.maximum(out[np.arange(len(y)), y], 1e-12)).mean())


MEASURES: dict[str, Callable[..., float]] = {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy, "r2": r2}


def measure_of(score: str, y: np.ndarray) -> Measure:
    """y [n]: all answers."""
    return partial(r2, variance=float(y.var())) if score == "r2" else MEASURES[score]


def chance_of(y: np.ndarray, classes: int, score: str) -> float:
    """What the best constant answer reaches."""
    return float({"accuracy": np.bincount(y).max() / len(y), "balanced_accuracy": 1 / classes}[score]) if classes else 0.0


def corrected_error(scores: np.ndarray) -> np.ndarray:
    """The standard error of a mean over folds [..., folds], corrected for the training rows that they share (Nadeau & Bengio 2003)."""
    k = scores.shape[-1]
    return np.asarray(scores.std(-1, ddof=1) * np.sqrt(1 / k + 1 / (k - 1)))


# ---- probes ---------------------------------------------------------------------------------------------------------


def linear(rows: Rows, measure: Measure, seed: int, hidden: tuple[int, ...]) -> Fitted:
    """Logistic or ridge regression. Its L2 is made weaker until rows kept aside are predicted worse; the best is refitted to all rows.

    Of few rows, whose scores move by chance, each is kept aside once, and all strengths are tried.
    """
    part, fit, few = inner_parts(rows, seed), logistic if rows.classes else ridge, len(rows.y) < FEW
    turns = range(min(HELD, len(rows.y)) if few else 1)
    last: list[Fitted | None] = [None for _ in turns]
    best, chosen, start = (-np.inf, -np.inf), STRENGTHS[0], None
    for C in STRENGTHS:
        last = [fit(rows.at(part != k), C, last[k]) for k in turns]
        now = tuple(np.mean([judged(last[k], rows.at(part == k), measure) for k in turns], 0))  # type: ignore[arg-type]
        if not few and now[0] < best[0] and now[1] <= best[1]:
            break
        if now > best:
            best, chosen, start = now, C, last[0]
        if rows.classes and now[1] > SURE:
            break
    return fit(rows, chosen, start)


def judged(fitted: Fitted, rows: Rows, measure: Measure) -> tuple[float, float]:
    """The measure and, for equal ones, the likelihood."""
    out = fitted.predict(rows.X)
    return measure(rows.y, out), likelihood(rows.y, out) if rows.classes else 0.0


def logistic(rows: Rows, C: float, start: Fitted | None) -> Fitted:
    """Multinomial logistic regression, begun where another fit to the same classes ended."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    seen = np.unique(rows.y)
    if len(seen) == 1:
        return Fitted(lambda X: np.eye(rows.classes)[np.full(len(X), seen[0])])
    model = LogisticRegression(C=C, max_iter=MAX_ITER, tol=3e-4, warm_start=True)
    if start is not None and np.array_equal(getattr(start.model, "classes_", seen[:0]), seen):
        model.coef_, model.intercept_ = start.model.coef_.copy(), start.model.intercept_.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the summary says it
        warnings.filterwarnings("ignore", "The number of unique classes")  # in the first blocks of a code nearly every row is another class
        model.fit(rows.X, rows.y)
    return Fitted(softmax(model, rows.classes), bool(model.n_iter_[0] < MAX_ITER), model)


def softmax(model: Any, classes: int) -> Predict:
    """Probabilities [m, classes]; 0 for those that the model has not seen."""

    def predict(X: np.ndarray) -> np.ndarray:
        out = np.zeros((len(X), classes))
        out[:, model.classes_] = model.predict_proba(X)
        return out

    return predict


def ridge(rows: Rows, C: float, start: Fitted | None) -> Fitted:
    """Ridge regression, whose penalty 1 / C counts as that of logistic regression does."""
    from sklearn.linear_model import Ridge

    return Fitted(Ridge(alpha=1 / C).fit(rows.X.astype(np.float64), rows.y).predict)


def mlp(rows: Rows, measure: Measure, seed: int, hidden: tuple[int, ...]) -> Fitted:
    """ReLU layers of `hidden` units, trained much as Hewitt & Liang (2019) do, and not on the rows kept aside.

    Adam at 1e-3, halved after a round that betters neither the measure nor the loss on those, until four in a row do not.
    """
    part = inner_parts(rows, seed)
    inner, outer = rows.at(part != 0), rows.at(part == 0)
    centre, scale = (0.0, 1.0) if rows.classes else (float(inner.y.mean()), float(inner.y.std()) or 1.0)
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch other devices
        net = network(rows.X.shape[1], hidden, rows.classes or 1)
        predict = predictor(net, rows.classes, centre, scale)
        optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)
        truth = torch.from_numpy(inner.y if rows.classes else ((inner.y - centre) / scale).astype(np.float32))
        data = torch.from_numpy(inner.X), truth
        best, kept, misses = (-np.inf, -np.inf), copied(net), 0
        for k in range(ROUNDS + 1):
            if k:
                train(net, optimizer, *data)
            now = judged(Fitted(predict), outer, measure)
            if now[0] > best[0]:
                kept = copied(net)
            misses = 0 if now[0] > best[0] or now[1] > best[1] else misses + 1
            best = max(now[0], best[0]), max(now[1], best[1])
            if misses:
                optimizer.param_groups[0]["lr"] /= 2
            if misses == STOP or (rows.classes and now[1] > SURE):
                break
        net.load_state_dict(kept)
    return Fitted(predict)


def network(inputs: int, hidden: tuple[int, ...], outputs: int) -> torch.nn.Sequential:
    sizes = (inputs, *hidden)
    layers = [part for pair in pairwise(sizes) for part in (torch.nn.Linear(*pair), torch.nn.ReLU())]
    return torch.nn.Sequential(*layers, torch.nn.Linear(sizes[-1], outputs))


def copied(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def train(net: torch.nn.Module, optimizer: torch.optim.Optimizer, X: torch.Tensor, y: torch.Tensor) -> None:
    """One round: every row once, or more often where they are few."""
    size = int(np.clip(len(X) // 16, 8, BATCH))
    times = max(1, -(-STEPS * size // len(X)))
    for which in torch.cat([torch.randperm(len(X)) for _ in range(times)]).split(size):
        optimizer.zero_grad(set_to_none=True)
        out = net(X[which])
        loss = torch.nn.functional.mse_loss(out[:, 0], y[which]) if y.is_floating_point() else torch.nn.functional.cross_entropy(out, y[which])
        loss.backward()
        optimizer.step()


def predictor(net: torch.nn.Module, classes: int, centre: float, scale: float) -> Predict:
    def predict(X: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            out = torch.cat([net(part) for part in torch.from_numpy(X).split(4096)]).double()
        return (out.softmax(1) if classes else out[:, 0] * scale + centre).numpy()

    return predict


PROBES: dict[str, Callable[[Rows, Measure, int, tuple[int, ...]], Fitted]] = {"linear": linear, "mlp": mlp}


# ---- what is measured -----------------------------------------------------------------------------------------------


def scaled(train: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Every column with mean 0 and variance 1 over the training rows; a constant one becomes 0."""
    mean, spread = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    spread = np.where(spread > 1e-6 * np.abs(mean), spread, np.inf)
    return [((part - mean) / spread).astype(np.float32) for part in (train, *others)]


def one_fold(rows: Rows, test: np.ndarray, probe: str, measure: Measure, seed: int, hidden: tuple[int, ...]) -> tuple[float, bool]:
    """The score on the rows `test` of a probe fitted to the others, and whether its optimizer came to its end."""
    own, rest = rows.at(~test), rows.at(test)
    X, unseen = scaled(own.X, rest.X)
    fitted = PROBES[probe](Rows(X, own.y, own.classes, own.groups), measure, seed, hidden)
    return measure(rest.y, fitted.predict(unseen)), fitted.settled


def lookup(types: np.ndarray, y: np.ndarray, classes: int, test: np.ndarray, measure: Measure) -> float:
    """The score of the answer that a type has most often in training; for a type that was not seen, the most common of all."""
    if not classes:
        sums, times = (np.bincount(types[~test], weights, minlength=types.max() + 1) for weights in (y[~test], None))
        return measure(y[test], np.where(times > 0, sums / np.maximum(times, 1), y[~test].mean())[types[test]])
    counts = np.zeros((types.max() + 1, classes))
    np.add.at(counts, (types[~test], y[~test]), 1)
    counts[counts.sum(1) == 0] = np.bincount(y[~test], minlength=classes)
    return measure(y[test], counts[types[test]])


def type_labels(types: np.ndarray, y: np.ndarray, seed: Any) -> np.ndarray:
    """The control task of Hewitt & Liang (2019): every type has one random answer, drawn as the true answers are distributed."""
    return y[np.random.default_rng(seed).integers(len(y), size=types.max() + 1)][types]


def description_length(rows: Rows, probe: str, seed: int, hidden: tuple[int, ...]) -> float:
    """Bits that the labels take when they are sent block by block, each coded by a probe fitted to the blocks before (Voita & Titov 2020).

    The first block is sent with log2(classes) a label. A probe fitted to n rows gives the class c the probability
    (n p(c) + 1 / classes) / (n + 1), so that a class it never saw can be sent.
    """
    order, ends = blocks_of(rows.groups, seed)
    bits = ends[0] * np.log2(rows.classes)
    for n, stop in pairwise(ends):
        own, coming = rows.at(order[:n]), rows.at(order[n:stop])
        X, unseen = scaled(own.X, coming.X)
        fitted = PROBES[probe](Rows(X, own.y, own.classes, own.groups), likelihood, seed, hidden)
        given = (n * fitted.predict(unseen) + 1 / rows.classes) / (n + 1)
        bits -= likelihood(coming.y, given) * (stop - n)
    return float(bits)


def blocks_of(groups: np.ndarray, seed: int) -> tuple[np.ndarray, list[int]]:
    """The rows in a random order of their groups, and where blocks end, at the end of a group."""
    _, group = np.unique(groups, return_inverse=True)
    place = np.random.default_rng(seed).permutation(group.max() + 1)[group]
    order = np.argsort(place, kind="stable")
    last = np.flatnonzero(np.r_[np.diff(place[order]) > 0, True]) + 1  # ends of groups
    wanted = [max(FEWEST, portion / 100 * len(groups)) for portion in PORTIONS]
    ends = last[np.minimum(np.searchsorted(last, np.array(wanted) - 1e-9), len(last) - 1)]
    return order, np.unique(ends).tolist()
