"""Neighbours of a picture or a text: some of its components are hidden."""

from __future__ import annotations

import numpy as np

from askwhy.local.surrogate import Samples


def log_kernel(share: np.ndarray, width: float) -> np.ndarray:
    """The logarithm of the weight of a neighbour that shows this share of the components: log sqrt(exp(-D^2 / width^2))."""
    return -((1 - np.sqrt(share)) ** 2) / (2 * width**2)


def shares(d: int, even: bool) -> np.ndarray:
    """[d + 1]: the logarithm of how often 0..d components are shown, before the kernel.

    Of a picture each component is shown with probability 1/2; of a text any number of words, but not all, is equally
    likely, as in the authors' code: without that, a long text would have no neighbour near it.
    """
    from scipy.special import gammaln

    shown = np.arange(d + 1)
    if even:
        return np.where(shown < d, -np.log(d), -np.inf)
    return gammaln(d + 1) - gammaln(shown + 1) - gammaln(d - shown + 1) - d * np.log(2)


def log_mass(base: np.ndarray, width: float) -> float:
    d = len(base) - 1
    return float(np.logaddexp.reduce(base + log_kernel(np.arange(d + 1) / d, width)))


def neighbours(d: int, samples: int, width: float, sampling: str, rng: np.random.Generator, base: np.ndarray | None = None) -> Samples:
    """z bool [samples, d], the first all present.

    Every way has the same expected regression. "uniform": the number shown as in `base`, weighted by the kernel. "local":
    the number follows base times the kernel, taken at evenly spread quantiles, and all weigh the same; where the
    neighbourhood is wide enough, each z comes with its complement, since in a pair the effects of two components
    together cancel. "single": the same without complements.
    """
    from scipy.special import expit

    base = shares(d, even=False) if base is None else base
    if sampling == "uniform":
        z = subsets(d, rng.choice(d + 1, samples, p=normed(base)), rng)
        z[0] = True
        return measured(z, np.exp(log_kernel(z.mean(1), width)), 1)
    near = base + log_kernel(np.arange(d + 1) / d, width)  # of a z that shows 0..d components
    of_pair, both = expit(near - near[::-1]), np.logaddexp(near, near[::-1])
    worth = np.average(1 / (of_pair**2 + (1 - of_pair) ** 2), weights=normed(both))  # how many samples a pair counts for
    paired = sampling == "local" and worth > 1.5
    count = quantiles(normed(both if paired else near), -(-samples // 2) if paired else samples, rng)
    z = subsets(d, count, rng)
    z[0] = True
    if not paired:
        return measured(z, np.ones(samples), 1)
    z = np.stack([z, ~z], 1).reshape(-1, d)[:samples]
    weight = of_pair[z.sum(1)]
    weight[0] = max(weight[0], 0.5)  # the input itself counts, also where no draw shows everything
    return measured(z, weight, 2)


def measured(z: np.ndarray, weight: np.ndarray, together: int) -> Samples:
    return Samples(z, weight, together, far=(1 - np.sqrt(z.mean(1))) ** 2)


def subsets(d: int, count: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """bool [m, d]: `count` of d components each, all choices equally likely."""
    lots = rng.random((len(count), d), dtype=np.float32)
    ranked = np.sort(lots, 1)[np.arange(len(count)), np.minimum(count, d - 1)]
    return lots < np.where(count < d, ranked, 2.0)[:, None]


def normed(log_share: np.ndarray) -> np.ndarray:
    share = np.exp(log_share - log_share.max())
    return share / share.sum()


def quantiles(share: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers 0..d with these shares, evenly spread, so that no draw misses a part of the neighbourhood."""
    spread = (np.arange(count) + rng.random()) / count
    return np.minimum(np.searchsorted(np.cumsum(share), spread), len(share) - 1)
