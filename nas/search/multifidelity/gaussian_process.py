"""A Gaussian process over layouts, averaged over draws of its hyper-parameters by their marginal
likelihood instead of optimised: with ten observations there is no optimum to be trusted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from nas.search.multifidelity.features import Features

Array = NDArray[np.float64]
DRAWS, FEWER_DRAWS, MANY = 16, 4, 150  # fewer from so many observations on
SHAPE = RATE = 3.0  # of the inverse gamma prior of the scale
TREND = 0.5  # deviation of the slope in the logarithm of the multiply-adds
SLOPE, SLOPE_DEVIATION = 0.7, 0.5  # in what earlier studies predict, of all of them together
OFFSET = 0.3  # variance of the mean
JITTER = 1e-9


class Posterior(NamedTuple):
    """What is believed of layouts: mean and deviation of each, [N], in units of the scores."""

    mean: Array
    deviation: Array

    def expected_improvement(self, best: float) -> Array:
        """Expected improvement of each over a score."""
        excess = (self.mean - best) / self.deviation
        improved: Array = self.deviation * (excess * norm.cdf(excess) + norm.pdf(excess))
        return improved

    def probability_above(self, row: int, other: int) -> float:
        """Probability that one layout is better than another, taken as independent."""
        apart = self.mean[row] - self.mean[other]
        return float(norm.cdf(apart / np.hypot(self.deviation[row], self.deviation[other])))


def posterior(
    features: Features, observed: NDArray[np.int64], scores: Array, left: Array
) -> Posterior:
    """Condition on observations.

    Args:
        features: of all layouts that are asked about, N. Of `prior` only differences count: each
            column has a slope of its own, which the observations may take to 0 and beyond.
        observed: [M], the row of the layout of each observation.
        scores: [M], of mean 0 and deviation 1 or so.
        left: [M], the share of the training that was still to come; it adds noise.
    """
    rng = np.random.default_rng(0)  # the same draws whenever it is asked
    count = DRAWS if len(observed) < MANY else FEWER_DRAWS
    predicted = features.prior
    features = features._replace(prior=predicted - predicted[observed].mean(axis=0))
    found = [_one_draw(rng, features, observed, scores, left) for _ in range(count)]
    evidence = np.array([each[0] for each in found])
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    means, variances = (np.array([each[part] for each in found]) for part in (1, 2))
    mean = weights @ means
    variance = weights @ (variances + means**2) - mean**2
    return Posterior(mean, np.sqrt(np.maximum(variance, JITTER)))


def _one_draw(
    rng: np.random.Generator,
    features: Features,
    observed: NDArray[np.int64],
    scores: Array,
    left: Array,
) -> tuple[float, Array, Array]:
    """Logarithm of the marginal likelihood, and mean and variance of every layout."""
    kernel = _Kernel(rng, features)
    noise, unfinished = _between(rng, 0.02, 1.5), _between(rng, 0.5, 6.0)
    across = kernel.between(features.rows(observed), features)
    covariance = across[:, observed].copy()
    covariance[np.diag_indices(len(observed))] += noise * (1 + unfinished * left)
    lower = np.linalg.cholesky(covariance)
    expected = SLOPE * features.prior.sum(axis=1) / max(1, features.prior.shape[1])
    halved = np.linalg.solve(lower, np.column_stack([scores - expected[observed], across]))
    half, rest = halved[:, 0], halved[:, 1:]
    quadratic = half @ half
    scale = (RATE + quadratic / 2) / (SHAPE + len(scores) / 2)
    evidence = -np.log(np.diag(lower)).sum()
    evidence -= (SHAPE + len(scores) / 2) * np.log(RATE + quadratic / 2)
    variance = np.maximum(kernel.diagonal(features) - (rest**2).sum(axis=0), JITTER) * scale
    return float(evidence), expected + half @ rest, variance


class _Kernel:
    """A covariance: one part for all kinds together, one for each size, and one for all together;
    beside them a mean and slopes in the cost and in what earlier studies predict.
    """

    def __init__(self, rng: np.random.Generator, features: Features) -> None:
        kinds, sizes = features.kinds.shape[1], features.sizes.shape[1]
        self.of_kinds = _between(rng, 0.3, 3, kinds)
        self.of_sizes = _between(rng, 0.5, 4, sizes)
        parts = np.concatenate([_between(rng, 0.1, 3, 1), _between(rng, 0.1, 3, sizes) / 2])
        self.parts = parts / parts.sum()
        self.together = _between(rng, 0.01, 0.3)

    def between(self, some: Features, others: Features) -> Array:
        """Covariance of layouts with others: [M, N]."""
        differ = some.kinds[:, None] != others.kinds[None]
        alike = np.exp(-(differ / (2 * self.of_kinds)).sum(axis=2))
        total, product = self.parts[0] * alike, alike
        for column, length in enumerate(self.of_sizes):
            apart = some.sizes[:, None, column] - others.sizes[None, :, column]
            near = np.exp(-0.5 * (apart / length) ** 2)
            total, product = total + self.parts[1 + column] * near, product * near
        mixed: Array = (total + self.together * product) / (1 + self.together)
        predicted = some.prior @ others.prior.T / max(1, some.prior.shape[1])
        trends = TREND**2 * np.outer(some.cost, others.cost) + SLOPE_DEVIATION**2 * predicted
        covariance: Array = mixed + OFFSET + trends
        return covariance

    def diagonal(self, features: Features) -> Array:
        """Variance of each layout: [N]."""
        predicted = (features.prior**2).sum(axis=1) / max(1, features.prior.shape[1])
        variance: Array = 1 + OFFSET + TREND**2 * features.cost**2 + SLOPE_DEVIATION**2 * predicted
        return variance


def _between(
    rng: np.random.Generator, low: float, high: float, size: int | None = None
) -> NDArray[np.float64]:
    """Draw uniformly in the logarithm."""
    return np.exp(rng.uniform(np.log(low), np.log(high), size))
