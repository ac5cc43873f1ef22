"""Rules that turn paired differences into an interval and p-values: for a fixed number of seeds, or seed after seed.

Both assume that the differences are independent and normal, with unknown mean and variance.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import stdtr, stdtrit

CLEAR_SEEDS = 3  # below this, no difference is called clear
LEVEL = 0.95
FIRST_LOOK, LAST_LOOK = 3, 30  # seeds after which the group-sequential rule looks: each number from first to last
SAFETY = 1.1  # factor on chances, so that coverage is above 95 % and not equal to it
LOOK_P = 0.0028  # one-sided p-value at a single look, reached by chance at any look with probability 0.025 / SAFETY
# P(the one-sided p-value of a look is ≤ p, at any look) / p, by log10 p: computed by `bench.sequential`
_CHANCE_BY_P = np.array(
    [
        (-7.0, 17.33),
        (-6.0, 15.93),
        (-5.5, 14.31),
        (-5.0, 13.79),
        (-4.5, 12.75),
        (-4.0, 11.52),
        (-3.5, 10.57),
        (-3.0, 9.305),
        (-2.75, 8.669),
        (-2.5, 7.953),
        (-2.25, 7.231),
        (-2.0, 6.503),
        (-1.75, 5.773),
        (-1.5, 5.015),
        (-1.25, 4.276),
        (-1.0, 3.556),
        (-0.75, 2.860),
        (-0.5, 2.203),
    ]
)


@dataclass(frozen=True)
class PValues:
    """One-sided p-values against a bound. above: of "the mean is ≤ the bound"; below: of "the mean is ≥ the bound"."""

    above: float
    below: float


class Rule(Protocol):
    """How differences are judged. name: in words. sequential: whether it stays valid if seeds are added on looking.

    few: below this number of seeds it says nothing.
    """

    name: str
    sequential: bool
    few: int

    def interval(self, differences: np.ndarray) -> tuple[float, float] | None:
        """Return low and high of the 95 % interval of the mean, (n,) differences in the order of seeds."""
        ...

    def p_values(self, differences: np.ndarray, bound: float) -> PValues | None:
        """Return the p-values against a bound; the interval leaves the bound out where one of them is < 0.025."""
        ...


class FixedSeeds:
    """Student's t for a number of seeds that was chosen before the first result was seen."""

    name = "Student's t interval, fixed number of seeds"
    sequential = False
    few = CLEAR_SEEDS

    def interval(self, differences: np.ndarray) -> tuple[float, float] | None:
        """Return low and high; None for a single difference."""
        if len(differences) < 2:
            return None
        _, low, high = t_interval(differences)
        return float(low), float(high)

    def p_values(self, differences: np.ndarray, bound: float) -> PValues | None:
        """Return Student's one-sided p-values; None below `few` differences, or if all are equal."""
        if len(differences) < self.few or np.ptp(differences) == 0:
            return None
        above = float(_one_sided(differences, bound))
        return PValues(above, 1 - above if above < 0.5 else float(_one_sided(-differences, -bound)))


class GroupSequential:
    """Repeated t intervals after each seed from FIRST_LOOK to LAST_LOOK, with the same level at each look.

    All intervals together contain the mean with probability 95 % or more, whatever is done after each look, so seeds
    may be added while a claim is open. The interval is the intersection of those of all looks. The p-value is the
    probability, under the null hypothesis, that some look is as extreme as the most extreme look so far.
    Sources: Pocock 1977 (the same level at each look); Jennison & Turnbull 1989 (repeated intervals) and 1991 (exact
    for the t statistic; `bench.sequential`).
    """

    name = f"group-sequential t interval (Pocock limits, looks at {FIRST_LOOK} to {LAST_LOOK} seeds)"
    sequential = True
    few = FIRST_LOOK

    def interval(self, differences: np.ndarray) -> tuple[float, float] | None:
        """Return low and high; None below FIRST_LOOK differences. Seeds after LAST_LOOK are not used.

        If the intervals of two looks do not overlap, the later ones are left out.
        """
        low, high = -np.inf, np.inf
        for seeds in _looks(differences):
            _, ours_low, ours_high = t_interval(seeds, 1 - 2 * LOOK_P)
            if max(low, ours_low) > min(high, ours_high):
                break
            low, high = max(low, float(ours_low)), min(high, float(ours_high))
        return (low, high) if np.isfinite(low) else None

    def p_values(self, differences: np.ndarray, bound: float) -> PValues | None:
        """Return the sequential p-values; None if there was no look yet."""
        looks = _looks(differences)
        if not looks:
            return None
        above = min(float(_one_sided(seeds, bound)) for seeds in looks)
        below = min(float(_one_sided(-seeds, -bound)) for seeds in looks)
        return PValues(chance_of_any_look(above), chance_of_any_look(below))


FIXED_SEEDS, GROUP_SEQUENTIAL = FixedSeeds(), GroupSequential()


def chance_of_any_look(p: float) -> float:
    """Return P(the one-sided p-value of any look is ≤ p) for differences with mean at the bound.

    It is interpolated between exact values and raised by the factor SAFETY; below the table it is an upper limit.
    """
    if p <= 0:
        return 0.0
    exponent = np.log10(p)
    if exponent < _CHANCE_BY_P[0, 0]:
        return float(p * SAFETY * (LAST_LOOK - FIRST_LOOK + 1))
    ratio = float(np.interp(exponent, *_CHANCE_BY_P.T))
    return min(1.0, p * SAFETY * ratio)


def t_interval(differences: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, low and high over the last axis of (..., n) differences: mean ± t(n − 1, (1 + level)/2) · s/√n.

    It uses Student's t (the quantile of scipy.stats.t) and not the normal distribution, because n is small and the
    variance unknown: s, with the denominator n − 1, is estimated from the same differences. The interval covers the
    true mean with probability `level` if the differences are independent and normal. Shapes (...), in their unit.
    ValueError for n < 2 or a level outside (0, 1).
    """
    count = differences.shape[-1]
    if count < 2:
        raise ValueError(f"an interval needs at least 2 differences, got {count}: run more seeds")
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}: 0.95 is usual")
    first = differences[..., :1]
    from_first = differences - first  # exactly 0 if all are equal, so that the width is exactly 0 too
    mean = first[..., 0] + from_first.mean(axis=-1)
    half = stdtrit(count - 1, (1 + level) / 2) * from_first.std(axis=-1, ddof=1) / np.sqrt(count)
    return mean, mean - half, mean + half


def _looks(differences: np.ndarray) -> list[np.ndarray]:
    """Return the differences at each look; a look at which all are equal shows no spread, and is left out."""
    numbers = range(FIRST_LOOK, min(len(differences), LAST_LOOK) + 1)
    return [differences[:n] for n in numbers if np.ptp(differences[:n]) > 0]


def _one_sided(differences: np.ndarray, bound: float) -> float:
    """Return Student's p-value of "the mean is ≤ the bound"."""
    count = len(differences)
    t = (differences.mean() - bound) / (differences.std(ddof=1) / np.sqrt(count))
    return stdtr(count - 1, -t)
