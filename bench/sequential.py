"""The group-sequential rule of `--until-decided`: its limit, its coverage, its number of seeds.

`uv run python -m bench.sequential` (five minutes on one core) computes the constants of `dash_core.views.rules`, and
measures on synthetic differences how often the interval contains their mean, and how many seeds a verdict takes.

If differences are independent and normal with mean 0, the t statistics of the first n of them, n = 2, 3, …, depend on
the differences only through the angles a_n, with sin a_n the cosine of the first n differences with the vector of ones:
t_n = √(n − 1) tan a_n. The angles are a Markov chain, because a normal vector's direction is independent of its length:
√(n + 1) sin a_{n+1} = √n sin a_n cos θ + sin θ, where θ, between −π/2 and π/2, has a density proportional to cosⁿ⁻¹θ.
So the probability of crossing a limit is an integral for each look, and needs no simulation: Jennison & Turnbull,
"Exact calculations for sequential t, χ² and F tests", Biometrika 78 (1991).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.interpolate import BarycentricInterpolator
from scipy.special import betaln, stdtr, stdtrit

from bench.sections import table, write_section
from dash_core.device import describe_machine
from dash_core.views.rules import FIRST_LOOK, LAST_LOOK, LOOK_P
from tests import toy

NODES = 56  # of each integral, and of each polynomial in the angle
EFFECTS = (0.0, 0.5, 0.8, 1.2, 2.0, 4.0)  # mean of the differences over their standard deviation
STREAMS = 10_000
EXPONENTS = (-7, -6, -5.5, -5, -4.5, -4, -3.5, -3, -2.75, -2.5, -2.25, -2, -1.75, -1.5, -1.25, -1, -0.75, -0.5)


def crossing_probability(nominal: float, first: int, last: int) -> float:
    """Return P(the one-sided p-value of Student's t is ≤ nominal after n differences, for any n in first..last).

    The differences are independent and normal with mean 0. nominal: in (0, 0.5); first: at least 2.
    """
    chebyshev = np.cos(np.pi * (2 * np.arange(NODES) + 1) / (2 * NODES))
    later = None
    for n in range(last - 1, first - 1, -1):
        angles = -np.pi / 2 + (_limit(nominal, n) + np.pi / 2) * (1 + chebyshev) / 2
        later = BarycentricInterpolator(angles, _crosses(angles, n, nominal, later))
    if later is None:
        return nominal
    angles, weights = _nodes(np.array(-np.pi / 2), np.array(_limit(nominal, first)))
    return nominal + float(np.sum(weights * _density(angles, first - 2) * later(angles)))


def _crosses(angles: np.ndarray, n: int, nominal: float, later: BarycentricInterpolator | None) -> np.ndarray:
    """Return P(crossing at a look after n | a_n) for each angle. later: the same after n + 1; None: there is none."""
    along = np.sqrt(n) * np.sin(angles)
    length, tilt = np.hypot(1, along), np.arctan(along)  # √(n + 1) sin a_{n+1} = length · sin(θ + tilt)
    reached = np.arcsin(np.clip(np.sqrt(n + 1) * np.sin(_limit(nominal, n + 1)) / length, -1, 1))
    ends = np.clip([reached - tilt, np.pi - reached - tilt], -np.pi / 2, np.pi / 2)
    crossed = _integral(ends[0], ends[1], lambda turn: _density(turn, n - 1))
    if later is None:
        return crossed

    def density_of_crossing_later(turn: np.ndarray) -> np.ndarray:
        sine = length * np.sin(turn + tilt) / np.sqrt(n + 1)
        return _density(turn, n - 1) * later(np.arcsin(np.clip(sine, -1, 1)))

    below = _integral(np.full_like(angles, -np.pi / 2), ends[0], density_of_crossing_later)
    return crossed + below + _integral(ends[1], np.full_like(angles, np.pi / 2), density_of_crossing_later)


def _limit(nominal: float, n: int) -> float:
    """Return the angle at which the one-sided p-value of n differences is `nominal`."""
    return float(np.arctan(stdtrit(n - 1, 1 - nominal) / np.sqrt(n - 1)))


def _density(angle: np.ndarray, power: int) -> np.ndarray:
    """Return the density proportional to cos^power on (−π/2, π/2)."""
    return np.exp(power * np.log(np.maximum(np.cos(angle), 1e-300)) - betaln((power + 1) / 2, 0.5))


def _nodes(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Gauss-Legendre nodes and weights between low and high, in a new first dimension."""
    points, weights = np.polynomial.legendre.leggauss(NODES)
    half = (high - low) / 2
    return np.multiply.outer(points, half) + (high + low) / 2, np.multiply.outer(weights, half)


def _integral(low: np.ndarray, high: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    points, weights = _nodes(low, high)
    return np.sum(weights * function(points), axis=0)


class Streams(NamedTuple):
    """Of many streams of differences with one effect: shares, and mean numbers of seeds.

    covered: the interval contains the mean after every number of seeds. right, wrong: a verdict that the mean is above
    (below) 0. seeds: until the verdict, at most LAST_LOOK.
    """

    covered: float
    right: float
    wrong: float
    seeds: float


def streams(effect: float, count: int, seed: int) -> Streams:
    """Apply the rule's limits to `count` streams of LAST_LOOK normal differences of mean `effect` and deviation 1."""
    differences = np.random.default_rng(seed).normal(effect, 1, (count, LAST_LOOK))
    numbers = np.arange(1, LAST_LOOK + 1)
    means = differences.cumsum(1) / numbers
    squares = (differences**2).cumsum(1) - numbers * means**2
    looked = slice(FIRST_LOOK - 1, None)
    error = np.sqrt(squares[:, looked] / (numbers[looked] - 1) / numbers[looked])
    half = stdtrit(numbers[looked] - 1, 1 - LOOK_P) * error
    above, below = means[:, looked] - half > 0, means[:, looked] + half < 0
    decided = above | below
    first = np.where(decided.any(1), decided.argmax(1), len(half[0]) - 1)
    rows = np.arange(count)
    return Streams(
        covered=float((np.abs(means[:, looked] - effect) <= half).all(1).mean()),
        right=float(above[rows, first].mean()),
        wrong=float(below[rows, first].mean()),
        seeds=float(first.mean() + FIRST_LOOK),
    )


def power_of_fixed_seeds(effect: float, seeds: int) -> float:
    """Return the probability that Student's t interval of a fixed number of seeds lies above 0, by 100,000 samples."""
    differences = np.random.default_rng(seeds).normal(effect, 1, (100_000, seeds))
    t = differences.mean(1) / (differences.std(1, ddof=1) / np.sqrt(seeds))
    return float((stdtr(seeds - 1, -t) < 0.025).mean())


def fixed_seeds_of_power(effect: float, power: float) -> str:
    """Return the smallest fixed number of seeds whose interval lies above 0 with at least the given probability."""
    enough = (n for n in range(3, 101) if power_of_fixed_seeds(effect, n) >= power)
    return str(next(enough, "more than 100"))


def main() -> None:
    rows = []
    for effect in EFFECTS:
        found = streams(effect, STREAMS, seed=0)
        same = fixed_seeds_of_power(effect, found.right) if effect else "–"
        fixed = f"{power_of_fixed_seeds(effect, 5):.1%}"
        numbers = (found.covered, found.right, found.wrong)
        rows.append([f"{effect:g}", *(f"{share:.2%}" for share in numbers), f"{found.seeds:.1f}", same, fixed])
    headings = [
        "mean / deviation",
        "interval contains the mean at every look",
        "above 0",
        "below 0",
        "seeds until then (mean)",
        "fixed seeds for the same power",
        "above 0 with 5 fixed seeds",
    ]
    lines = [
        f"{STREAMS:,} synthetic streams of normal differences each; looks after {FIRST_LOOK} to {LAST_LOOK} seeds. "
        f"Chance that a one-sided p-value of {LOOK_P:g} is reached at any look: "
        f"{crossing_probability(LOOK_P, FIRST_LOOK, LAST_LOOK):.5f}.",
        "",
        *table(headings, rows),
        "",
        "P(p is reached at any look) / p, by log10 p: "
        + ", ".join(f"{e:g}: {crossing_probability(10**e, FIRST_LOOK, LAST_LOOK) / 10**e:.3f}" for e in EXPONENTS),
    ]
    write_section("Sequential verdicts", "uv run python -m bench.sequential", describe_machine(toy.CPU, 1), lines)


if __name__ == "__main__":
    main()
