"""Statistics over paired seeds: differences from the reference with intervals, and the cost of its accuracy.

Two runs with the same seed share test split, chunk order and first weights. So methods are compared seed by seed, and
an effect of the seed on both runs cancels in the difference. The reference is training from scratch ("cold"), against
which the paper measures every warm start.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dash_core.spread import Spread
from dash_core.views.rules import CLEAR_SEEDS, FIXED_SEEDS, LEVEL, PValues, Rule, t_interval
from dash_core.views.summary import COLUMNS, Column, MethodRuns, Records, total_cost

FEW_SEEDS = 5  # below this, do not conclude

_UNITS = {
    "last_accuracy": "points",
    "average_accuracy": "points",
    "last_steps": "steps",
    "average_steps": "steps",
    "teraflops": "TFLOPs",
    "seconds": "s",
}


@dataclass(frozen=True)
class PairedDifference:
    """Mean over common seeds of method − reference in one column, with its interval; both in the printed unit.

    low, high: the interval of `rule`: for a fixed number of seeds Student's t at `level`, see t_interval. None with too
    few common seeds. If all differences are equal, low == high == mean: such an interval has no width and says nothing
    about the spread. values: the differences, in the order of `seeds`.
    """

    label: str
    reference: str
    column: Column
    seeds: tuple[int, ...]
    mean: float
    low: float | None
    high: float | None
    level: float
    rule: Rule = FIXED_SEEDS
    values: tuple[float, ...] = ()

    @classmethod
    def of(
        cls,
        label: str,
        reference: str,
        column: Column,
        differences: Mapping[int, float],
        level: float = LEVEL,
        rule: Rule = FIXED_SEEDS,
    ) -> "PairedDifference":
        """Return the difference over at least one seed; `differences` are by seed, in the column's printed unit.

        Each is rounded to a millionth of the last printed digit, so that rounding errors do not count as a spread.
        """
        values = np.array([round(value, column.digits + 6) for value in differences.values()], dtype=float)
        mean, low, high = float(values[0]), None, None
        if len(values) > 1:
            mean, low, high = (float(end) for end in t_interval(values, level))
        if rule.sequential and low != high:
            low, high = rule.interval(values) or (None, None)
        return cls(label, reference, column, tuple(differences), mean, low, high, level, rule, tuple(values.tolist()))

    def p_values(self, bound: float) -> PValues | None:
        """Return the one-sided p-values against a bound, in the printed unit; None if the rule cannot tell."""
        return self.rule.p_values(np.array(self.values), bound)

    @property
    def tells(self) -> bool:
        """Whether the interval has a width and rests on at least CLEAR_SEEDS seeds.

        Two differences cannot show whether they are normal, and equal ones cannot show how far they scatter.
        """
        return len(self.seeds) >= CLEAR_SEEDS and self.low is not None and self.low != self.high

    @property
    def clear(self) -> bool:
        """Whether 0 is outside an interval that `tells`."""
        return self.tells and not self.low <= 0 <= self.high

    def write(self) -> str:
        """Return the difference in words, without the column's title, which the heading above it shows."""
        text = f"{self.label} − {self.reference} = {self._mean}"
        if self.low is None or self.high is None:
            return f"{text}, {len(self.seeds)} paired seed{'s' if len(self.seeds) > 1 else ''}: no interval"
        if self.low == self.high:
            return f"{text} in each of {len(self.seeds)} paired seeds: without a spread the interval has no width"
        kind = "sequential CI" if self.rule.sequential else "CI"
        return f"{text}, {100 * self.level:g} % {kind} {self._interval}, {len(self.seeds)} paired seeds"

    def write_briefly(self) -> str:
        """Return the mean, and the interval if it has a width, beside a difference that is written in full."""
        return self._mean if self.low is None or self.low == self.high else f"{self._mean} {self._interval}"

    @property
    def _mean(self) -> str:
        return f"{_number(self.mean, '+' + self._digits)} {_UNITS.get(self.column.key, self.column.title)}"

    @property
    def _interval(self) -> str:
        return f"[{_number(self.low, self._digits)}, {_number(self.high, self._digits)}]"

    @property
    def _digits(self) -> str:
        return f"z,.{self.column.digits}f"  # z: no minus sign on a value that rounds to 0


@dataclass(frozen=True)
class Reach:
    """The cost of a method until it is as accurate as the reference at its end.

    The target of a seed is the reference's test accuracy at its last experiment. The method reaches it at its first
    experiment j with test accuracy >= target; its cost is that of experiments 1..j, all phases. It may fall below the
    target afterwards. The reference itself has a row too.
    seeds: common to both; reached: those that reach the target. Every spread is over `reached` alone, None if that is
    empty; if it lacks seeds, the costs are those of the lucky seeds. experiment: j, counted from 1.
    reference_*: the reference's whole run, all experiments, on the same seeds.
    """

    label: str
    reference: str
    seeds: tuple[int, ...]
    reached: tuple[int, ...]
    experiment: Spread | None
    steps: Spread | None
    teraflops: Spread | None
    seconds: Spread | None
    reference_steps: Spread | None
    reference_teraflops: Spread | None
    reference_seconds: Spread | None

    def write(self) -> str:
        """Return means in words; × is mean cost / mean cost of the reference's whole run, over the seeds that reached.

        A ratio is left out if the reference's cost is 0.
        """
        whose = "its own" if self.label == self.reference else f"{self.reference}'s"
        target = f"{self.label} to {whose} last accuracy"
        missed = f"not reached by {len(self.seeds) - len(self.reached)} of {_seeds(len(self.seeds))}"
        if self.experiment is None:
            return f"{target}: {missed}"
        whole_run = f" of {self.reference}'s whole run"
        costs = (
            f"experiment {self.experiment.mean:.1f}",
            f"{self.steps.mean:,.0f} steps{_ratio(self.steps, self.reference_steps, whole_run)}",
            f"{self.teraflops.mean:,.3f} TFLOPs{_ratio(self.teraflops, self.reference_teraflops)}",
            f"{self.seconds.mean:,.1f} s{_ratio(self.seconds, self.reference_seconds)}",
        )
        over = f"{'mean of ' if len(self.reached) > 1 else ''}{_seeds(len(self.reached))}"
        return f"{target}: {', '.join(costs)}; {over}" + (f", {missed}" if self.reached != self.seeds else "")


def reference_of(methods: Sequence[MethodRuns]) -> MethodRuns | None:
    """Return the first method whose intervention is "cold", whatever its label; None if there is none."""
    return next((method for method in methods if method.intervention == "cold"), None)


def paired_differences(
    methods: Sequence[MethodRuns], reference: MethodRuns, columns: Sequence[Column] = COLUMNS, level: float = LEVEL
) -> list[PairedDifference]:
    """Return method − reference for each method but the reference, in order, and each column.

    A method without a seed in common with the reference is left out.
    """
    return [
        _difference(method, reference, column, level)
        for method in methods
        if method.label != reference.label and _common(method, reference)
        for column in columns
    ]


def reach(methods: Sequence[MethodRuns], reference: MethodRuns) -> list[Reach]:
    """Return the cost of each method, including the reference, until it reaches the reference's last accuracy.

    A method without a seed in common with the reference is left out.
    """
    return [_reach(method, reference) for method in methods if _common(method, reference)]


def seed_warnings(methods: Sequence[MethodRuns], planned: int) -> list[str]:
    """Return one sentence per reason to doubt the numbers: seeds that are missing, unpaired or too few.

    planned: number of seeds that each method should have.
    """
    reference = reference_of(methods)
    others = [method for method in methods if reference and method.label != reference.label]
    counts = {method.label: len(method.runs) for method in methods}
    paired = {method.label: len(_common(method, reference)) for method in others}
    missing = [f"{label} has {n} of {_seeds(planned)} planned." for label, n in counts.items() if n < planned]
    unpaired = [_unpaired(m, reference) for m in others if m.runs and set(m.runs) != set(reference.runs)]
    return [*missing, *unpaired, *_too_few(counts, paired), *_several(paired, reference)]


def _common(method: MethodRuns, reference: MethodRuns) -> tuple[int, ...]:
    return tuple(sorted(set(method.runs) & set(reference.runs)))


def _difference(method: MethodRuns, reference: MethodRuns, column: Column, level: float) -> PairedDifference:
    differences = {
        seed: column.measure(method.runs[seed]) * column.scale - column.measure(reference.runs[seed]) * column.scale
        for seed in _common(method, reference)
    }
    return PairedDifference.of(method.label, reference.label, column, differences, level)


def _reach(method: MethodRuns, reference: MethodRuns) -> Reach:
    seeds = _common(method, reference)
    first = {seed: _first(method.runs[seed], reference.runs[seed][-1].test_accuracy) for seed in seeds}
    reached = {seed: j for seed, j in first.items() if j is not None}
    return Reach(
        method.label,
        reference.label,
        seeds,
        tuple(reached),
        Spread.of(list(reached.values())) if reached else None,
        *_spent([method.runs[seed][:j] for seed, j in reached.items()]),
        *_spent([reference.runs[seed] for seed in reached]),
    )


def _first(records: Records, target: float) -> int | None:
    return next((record.experiment for record in records if record.test_accuracy >= target), None)


def _spent(runs: Sequence[Records]) -> tuple[Spread | None, Spread | None, Spread | None]:
    """Return the spreads of the summed steps, TFLOPs and seconds."""
    if not runs:
        return None, None, None
    costs = [total_cost(records) for records in runs]
    return (
        Spread.of([sum(record.steps for record in records) for records in runs]),
        Spread.of([cost.flops * 1e-12 for cost in costs]),
        Spread.of([cost.seconds for cost in costs]),
    )


def _unpaired(method: MethodRuns, reference: MethodRuns) -> str:
    both = _common(method, reference)
    if not both:
        return f"{method.label} and {reference.label} have no seed in common: they are not compared."
    left_out = sorted(set(method.runs) ^ set(reference.runs))
    return (
        f"{method.label} and {reference.label} are compared on the seeds that both have, "
        f"{', '.join(map(str, both))}; left out: {', '.join(map(str, left_out))}."
    )


def _too_few(counts: Mapping[str, int], paired: Mapping[str, int]) -> list[str]:
    """Name the methods with a single seed, a single pair, or fewer than FEW_SEEDS pairs (seeds, if none is paired)."""
    lone = {label: n for label, n in paired.items() if counts[label] > 1}
    several = (
        "paired seeds the intervals are wide and lean on the assumption of normal differences"
        if paired
        else "seeds a spread is itself uncertain"
    )
    claims = [
        (counts, 1, "With 1 seed no spread can be given"),
        (lone, 1, "With 1 paired seed no interval can be given"),
        *((paired or counts, n, f"With {n} {several}") for n in range(2, FEW_SEEDS)),
    ]
    named = [(claim, [label for label, n in numbers.items() if n == few]) for numbers, few, claim in claims]
    remedy = f"run at least {FEW_SEEDS} before you conclude"
    return [f"{claim} ({', '.join(labels)}): {remedy}." for claim, labels in named if labels]


def _several(paired: Mapping[str, int], reference: MethodRuns | None) -> list[str]:
    compared = sum(n > 1 for n in paired.values())
    if compared < 2:
        return []
    return [
        f"Each interval is for one comparison by itself: {compared} methods are compared with {reference.label}, "
        "and nothing is corrected for several comparisons."
    ]


def _ratio(spent: Spread, whole: Spread, words: str = "") -> str:
    return f" ({spent.mean / whole.mean:.2f}×{words})" if whole.mean else ""


def _number(value: float, form: str) -> str:
    return format(value, form).replace("-", "−")


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count != 1 else ''}"
