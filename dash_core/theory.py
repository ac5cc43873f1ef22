"""The discrete feature-learning simulation (paper, figures 3 and 9–11): why warm starts generalise worse.

A point of class c has some of the K features of c, and noise of its own. The state is the learned features L and the
memorised points M. Experiment j starts with N, the points of T_1:j that have fewer than tau learned features and are
not memorised. Repeatedly, the unlearned feature that is most frequent in N is learned, if at least gamma points of N
have it, and the points that now have tau learned features leave N. The points left in N at the end are memorised by
their noise. The training time is |N| at the start.

`learn_by_recounting` is written in this way; `learn` gives the same result and removes each point from the counts once.
"""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, NamedTuple, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from dash_core.config import Count, Section, Seed, distinct
from dash_core.spread import Spread

MAX_POINTS = 2**24  # so that counts of points are exact in float32
MAX_TABLE_ENTRIES = 2**28  # points x features, 1 GiB in float32


class TheoryConfig(Section):
    """The settings of the simulation, with the paper's letters; the defaults are those of figure 3."""

    symbols: ClassVar = {
        "C": "classes",
        "K": "features",
        "n": "points",
        "N": "points",
        "J": "experiments",
        "γ": "gamma",
        "τ": "tau",
    }
    classes: Count = 2  # C
    features: Count = 50  # K, of each class
    points: Count = 1000  # n: new points an experiment, equally many of each class
    experiments: Count = 50  # J
    gamma: Count = 50  # γ: a feature is learned if at least so many points of N have it
    tau: Count = 3  # τ: a point with so many learned features is classified correctly and has no gradient
    max_probability: Annotated[float, Field(gt=0, le=1)] = 0.2  # a feature's probability is drawn from U(0, this)
    test_points: Count = 10_000  # equally many of each class
    seeds: list[Seed] = Field(list(range(10)), min_length=1)

    @field_validator("seeds")
    @classmethod
    def _no_repeats(cls, seeds: list[int]) -> list[int]:
        return distinct(seeds, "seeds")

    @model_validator(mode="after")
    def _can_be_simulated(self) -> Self:
        for name in ("points", "test_points"):
            if (count := getattr(self, name)) % self.classes:
                raise ValueError(f"`{name}` must be a multiple of `classes` ({self.classes}), got {count}")
        if self.tau > self.features:
            raise ValueError(f"`tau` must be at most `features` ({self.features}), got {self.tau}")
        if self.gamma > (most := self.class_points * self.experiments):
            raise ValueError(f"`gamma` must be at most the {most} points of a class, got {self.gamma}")
        if (total := self.points * self.experiments) > MAX_POINTS:
            raise ValueError(f"`points` x `experiments` must be at most {MAX_POINTS}, got {total}")
        if (table := max(total, self.test_points) * self.features) > MAX_TABLE_ENTRIES:
            raise ValueError(f"points x `features` must be at most {MAX_TABLE_ENTRIES} (1 GiB of memory), got {table}")
        return self

    @property
    def class_points(self) -> int:
        """New points of one class an experiment."""
        return self.points // self.classes


class Keeps(NamedTuple):
    """What a method keeps of earlier experiments: learned features L, memorised points M."""

    learned: bool
    memorised: bool


KEEPS = {"random": Keeps(False, False), "warm": Keeps(True, True), "ideal": Keeps(True, False)}
METHODS = tuple(KEEPS)


@dataclass(frozen=True, eq=False)
class SimulatedExperiment:
    """One experiment: N at its start, the (class, feature) pairs in the order of learning, and L and M at its end.

    nonzero and memorised are (classes, points of a class so far), learned is (classes, features), all boolean.
    """

    nonzero: np.ndarray
    order: tuple[tuple[int, int], ...]
    learned: np.ndarray
    memorised: np.ndarray


def learn_by_recounting(method: str, holds: np.ndarray, config: TheoryConfig) -> Iterator[SimulatedExperiment]:
    """Yield the method's experiments as the paper computes them; holds: (classes, points of a class, features)."""
    learned = np.zeros((config.classes, config.features), bool)
    memorised = np.zeros(holds.shape[:2], bool)
    for seen in _points_seen(config):
        learned &= KEEPS[method].learned
        memorised &= KEEPS[method].memorised
        here = holds[:, :seen]
        start = nonzero = _lacks(here, learned, config.tau) & ~memorised[:, :seen]
        order = []
        while True:
            counts = (here & nonzero[..., None]).sum(axis=1)
            counts[learned] = -1
            best = divmod(int(counts.argmax()), config.features)  # ties: the lowest class, then the lowest feature
            if counts[best] < config.gamma:
                break
            learned[best] = True
            order.append(best)
            nonzero = nonzero & _lacks(here, learned, config.tau)
        memorised[:, :seen] |= nonzero
        yield SimulatedExperiment(start, tuple(order), learned.copy(), memorised[:, :seen].copy())


def _points_seen(config: TheoryConfig) -> range:
    return range(config.class_points, config.class_points * config.experiments + 1, config.class_points)


def _lacks(holds: np.ndarray, learned: np.ndarray, tau: int) -> np.ndarray:
    """Return, for each point, whether it has fewer than tau learned features."""
    return (holds & learned[:, None]).sum(axis=2) < tau


class Points:
    """The features of each point, stored for `learn`: rows to count features, columns to look one up."""

    def __init__(self, holds: np.ndarray):
        self.rows = holds.astype(np.float32)  # (classes, points of a class, features)
        self.columns = np.ascontiguousarray(holds.transpose(0, 2, 1))  # (classes, features, points of a class)


# The sums below are of small whole numbers and exact; some BLAS kernels still say "invalid value", of the part of a
# register that no sum uses.
_EXACT = np.errstate(invalid="ignore")


class _State:
    """The learned features, how many of them each point has, and the count of each unlearned feature in N.

    The count of a learned feature is -inf, so that it is never the most frequent, whatever is added or subtracted.
    """

    def __init__(self, points: Points, config: TheoryConfig):
        classes, features, count = points.columns.shape
        self.points, self.gamma, self.tau = points, config.gamma, config.tau
        self.learned = np.zeros((classes, features), bool)
        self.found = np.zeros((classes, count), np.min_scalar_type(features))
        self.counts = np.zeros((classes, features), np.float32)
        self.totals = np.zeros((classes, features), np.float32)  # counts in all points so far
        self.one = np.ones(count, np.float32)

    @_EXACT
    def begin(self, keeps: Keeps, new: slice) -> None:
        """Forget what is not kept, and count the new points that have fewer than tau learned features."""
        rows = self.points.rows[:, new]
        self.totals += self.one[new] @ rows
        if not keeps.learned:  # every point counts again
            self.learned[:], self.found[:], self.counts = False, 0, self.totals.copy()
            return
        if keeps.memorised:  # no earlier point counts
            self.counts = np.where(self.learned, np.float32(-np.inf), np.float32(0))
        self.found[:, new] = (rows @ self.learned[..., None].astype(np.float32))[..., 0]
        nonzero = (self.found[:, new] < self.tau).astype(np.float32)
        self.counts += (nonzero[:, None] @ rows)[:, 0]

    @_EXACT
    def learn_next(self, window: slice) -> tuple[int, int] | None:
        """Learn the most frequent feature and remove points that leave N from the counts; None if it is too rare."""
        kind, feature = best = divmod(int(self.counts.argmax()), self.counts.shape[1])
        if self.counts[best] < self.gamma:
            return None
        self.learned[best], self.counts[best] = True, -np.inf
        holds, found = self.points.columns[kind, feature, window], self.found[kind, window]
        found += holds.view(np.uint8)  # a byte each, as booleans are: adding those would convert them first
        (settled,) = ((found == self.tau) & holds).nonzero()
        self.counts[kind] -= self.one[: len(settled)] @ self.points.rows[kind, window].take(settled, axis=0)
        return best


def learn(method: str, points: Points, config: TheoryConfig) -> Iterator[SimulatedExperiment]:
    """Yield the experiments of `learn_by_recounting`, but add each point to the counts once and remove it once.

    At the end of an experiment each of its points has left N or is memorised. A method that keeps M never needs them
    again. A method that keeps only L continues with N and its counts as they were, and with the new points.
    """
    keeps = KEEPS[method]
    state = _State(points, config)
    memorised = np.zeros(state.found.shape, bool)
    for seen in _points_seen(config):
        new = slice(seen - config.class_points, seen)
        window = new if keeps.memorised else slice(0, seen)
        state.begin(keeps, new)
        start = np.zeros((config.classes, seen), bool)
        start[:, window] = state.found[:, window] < config.tau
        order = tuple(iter(partial(state.learn_next, window), None))
        memorised[:, window] = state.found[:, window] < config.tau
        yield SimulatedExperiment(start, order, state.learned.copy(), memorised[:, :seen].copy())


def bernoulli(stream: np.random.RandomState, probability: np.ndarray, count: int) -> np.ndarray:
    """Return (count, len(probability)) booleans, equal to `count` calls of scipy.stats.bernoulli.rvs(probability).

    Each comes from one uniform number u and is true if u > 1 - p, or u <= p if p > 1/2, as numpy inverts the binomial
    distribution. numpy rounds 1 - p differently, which changes one draw in about 10^16.
    """
    common = probability > 0.5
    uniform = stream.random_sample((count, len(probability)))
    return (uniform > np.where(common, probability, 1 - probability)) ^ common


def training_points(config: TheoryConfig, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities (classes, features), sorted descending, and the training points of a seed.

    The points are (classes, points of a class in all experiments, features); experiment j adds the j-th part.
    """
    stream = np.random.RandomState(seed)
    count = config.class_points * config.experiments
    probabilities, holds = [], []
    for _ in range(config.classes):
        probabilities.append(np.sort(config.max_probability * stream.random_sample(config.features))[::-1])
        holds.append(bernoulli(stream, probabilities[-1], count))
    return np.stack(probabilities), np.stack(holds)


@_EXACT
def accuracies_on_test(learned: np.ndarray, probabilities: np.ndarray, config: TheoryConfig) -> np.ndarray:
    """Return the test accuracy in percent for each (classes, features) of `learned`, in order; shape (len(learned),).

    A point with tau learned features is classified correctly, and any other by a uniform guess. Points, then guesses,
    come from one random stream, which is the same for every seed.
    """
    stream = np.random.RandomState(100 * config.classes + 100)
    known = np.zeros(len(learned), int)
    for kind, probability in enumerate(probabilities):
        holds = bernoulli(stream, probability, config.test_points // config.classes)
        found = holds.astype(np.float32) @ learned[:, kind].T.astype(np.float32)
        known += (found >= config.tau).sum(axis=0)
    chance = np.array([1 / config.classes])
    guessed = [bernoulli(stream, chance, config.test_points - count).sum() for count in known]
    return 100 * (known + guessed) / config.test_points


@dataclass(frozen=True)
class TheoryPoint:
    """One experiment of one method over the seeds: accuracy in percent; features and points as counts.

    nonzero_gradient is |N| at the start (the training time); memorised is |M| at the end.
    """

    experiment: int
    method: str
    seeds: int
    test_accuracy: Spread
    learned_features: Spread
    nonzero_gradient: Spread
    memorised: Spread


def simulate(config: TheoryConfig, on_seed: Callable[[int], None] | None = None) -> list[TheoryPoint]:
    """Return the results by experiment, and within an experiment by method in the order of METHODS.

    on_seed: called with each seed when it is done.
    """
    measured = []
    for seed in config.seeds:
        measured.append(_measure(config, seed))
        if on_seed is not None:
            on_seed(seed)
    over_seeds = np.stack(measured, axis=-1)  # (methods, experiments, quantities, seeds)
    return [
        TheoryPoint(number + 1, method, len(config.seeds), *map(Spread.of, over_seeds[place, number].tolist()))
        for number in range(config.experiments)
        for place, method in enumerate(METHODS)
    ]


def _measure(config: TheoryConfig, seed: int) -> np.ndarray:
    """Return one seed's quantities, in the order of TheoryPoint: (methods, experiments, 4)."""
    probabilities, holds = training_points(config, seed)
    points = Points(holds)
    learned, counted = [], []
    for method in METHODS:
        for done in learn(method, points, config):
            learned.append(done.learned)
            counted.append([np.count_nonzero(mask) for mask in (done.learned, done.nonzero, done.memorised)])
    accuracies = accuracies_on_test(np.stack(learned), probabilities, config)
    return np.column_stack([accuracies, counted]).reshape(len(METHODS), config.experiments, 4)


def to_csv(points: list[TheoryPoint]) -> str:
    """Return the points as CSV (RFC 4180: lines end in CRLF), one row each, numbers with four decimals."""
    text = io.StringIO()
    writer = csv.writer(text)
    quantities = ("test_acc", "learned_features", "nonzero_grad", "memorized")
    units = ("_pct", "", "", "")
    heads = [f"{name}_{part}{unit}" for name, unit in zip(quantities, units, strict=True) for part in ("mean", "std")]
    writer.writerow(["experiment", "method", "n_seeds", *heads])
    for point in points:
        spreads = (point.test_accuracy, point.learned_features, point.nonzero_gradient, point.memorised)
        numbers = [f"{value:.4f}" for spread in spreads for value in (spread.mean, spread.std)]
        writer.writerow([point.experiment, point.method, point.seeds, *numbers])
    return text.getvalue()
