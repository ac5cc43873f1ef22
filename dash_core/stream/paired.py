"""Tests of two models on the same images: who was right is compared image by image.

n images; b: only the new model is right; c: only the old model is right. All tests condition on nothing else.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.optimize import brentq
from scipy.special import bdtr, betainc, betaln

from dash_core.stream.outcomes import Outcomes

_EDGE = 1e-12  # distance from a difference of ±1, at which the variance of the score is 0


@dataclass(frozen=True)
class Pairs:
    """Counts of image pairs: n images, b that only the new model answered rightly, c only the old one."""

    n: int
    b: int
    c: int

    @classmethod
    def of(cls, new: Outcomes, old: Outcomes) -> "Pairs":
        """Return the counts of two models on the same images."""
        wins, losses = new.correct & ~old.correct, old.correct & ~new.correct
        return cls(len(new), int(wins.sum()), int(losses.sum()))

    @property
    def difference(self) -> float:
        """Accuracy of the new model minus that of the old one, as a share."""
        return (self.b - self.c) / self.n

    @property
    def disagreement(self) -> float:
        """Share of the images on which exactly one model is right."""
        return (self.b + self.c) / self.n


def tango_z(n: np.ndarray | int, b: np.ndarray | int, c: np.ndarray | int, difference: float) -> np.ndarray:
    """Return Tango's score statistic of H0: accuracy of new - accuracy of old = `difference`, in (-1, 1).

    z = (b - c - nθ) / sqrt(n(2q + θ(1 - θ))), with q the maximum-likelihood probability of c under H0. It is
    asymptotically standard normal; large values speak for a greater difference. Counts may be arrays.
    T. Tango, Statistics in Medicine 17:891 (1998). At θ = 0 it is McNemar's (b - c) / sqrt(b + c); 0 if b + c = 0.
    """
    n, b, c = (np.asarray(count, dtype=np.float64) for count in (n, b, c))
    linear = -b - c + (2 * n - b + c) * difference
    constant = -c * difference * (1 - difference)
    q = (np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0)) - linear) / (4 * n)
    variance = n * (2 * q + difference * (1 - difference))
    score = b - c - n * difference
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance > 0, score / np.sqrt(variance), np.where(score == 0, 0.0, np.sign(score) * np.inf))


def tango_interval(pairs: Pairs, level: float = 0.95) -> tuple[float, float]:
    """Return the two-sided score interval of the difference of accuracies: every θ that the test does not reject."""
    quantile = NormalDist().inv_cdf(0.5 + level / 2)
    edge = 1 - _EDGE

    def limit(target: float) -> float:
        def excess(difference: float) -> float:
            return float(tango_z(pairs.n, pairs.b, pairs.c, difference)) - target

        if excess(-edge) <= 0:
            return -1.0
        if excess(edge) >= 0:
            return 1.0
        return float(brentq(excess, -edge, edge, xtol=1e-10))

    return limit(quantile), limit(-quantile)


def not_worse_p(pairs: Pairs, margin: float) -> float:
    """Return the one-sided p-value of H0: the new model is worse by `margin` or more (Tango's score test)."""
    return NormalDist().cdf(-float(tango_z(pairs.n, pairs.b, pairs.c, -margin)))


def better_p(b: int, c: int) -> float:
    """Return the exact one-sided p-value of McNemar's test of H0: the new model is not better.

    P(X >= b) for X ~ Binomial(b + c, 1/2).
    """
    return worse_p(c, b)


def worse_p(b: int, c: int) -> float:
    """Return the exact one-sided p-value of McNemar's test of H0: the new model is not worse. P(X <= b)."""
    return float(bdtr(b, b + c, 0.5)) if b + c else 1.0


def holm(p_values: Sequence[float], level: float) -> list[bool]:
    """Return which hypotheses Holm's procedure rejects at a family-wise `level`."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    rejected = [False] * len(p_values)
    for rank, index in enumerate(order):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def evidence_of_harm(b: int, c: int) -> float:
    """Return the evidence that a released model is worse than the one before, from all pairs since its release.

    E = 2^(b+c) ∫ p^c (1-p)^b dp / ∫ dp over p in (1/2, 1), p the probability that a pair is a loss. Under "not worse",
    E is a supermartingale, so P(E ever reaches x) <= 1/x, however often it is looked at (Ville's inequality).
    """
    log = (b + c + 1) * math.log(2) + float(betaln(c + 1, b + 1))
    return math.exp(min(log, 700.0)) * (1 - float(betainc(c + 1, b + 1, 0.5)))
