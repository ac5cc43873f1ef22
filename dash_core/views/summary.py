"""Statistics over seeds, and the paper-style table: one source for console, markdown, CSV and LaTeX.

As in the paper's tables 3–6: test accuracy and steps, each at the last experiment and averaged over all, as mean and
population standard deviation over seeds; and the cost of the whole run, all phases and experiments together.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dash_core.cost import Cost
from dash_core.records import ChunkRecord
from dash_core.spread import Spread

Records = Sequence[ChunkRecord]


@dataclass(frozen=True)
class Column:
    """A measured quantity: how to compute it from a run's records, how to write it, which end is best.

    not_ranked: interventions that cannot be the best (the paper does not print warm's steps in bold).
    """

    key: str
    title: str
    measure: Callable[[Records], float]
    digits: int
    scale: float = 1.0
    lower_is_better: bool = False
    not_ranked: tuple[str, ...] = ()

    def write(self, spread: Spread) -> str:
        """Return 'mean (std)' with the column's digits."""
        mean, std = spread.mean * self.scale, spread.std * self.scale
        return f"{mean:,.{self.digits}f} ({std:,.{self.digits}f})"


def total_cost(records: Records) -> Cost:
    """Return the cost of a run, all experiments and phases together."""
    return sum((record.total_cost for record in records), Cost())


COLUMNS = (
    Column("last_accuracy", "Last acc. %", lambda r: r[-1].test_accuracy, 2, 100),
    Column("average_accuracy", "Avg acc. %", lambda r: statistics.fmean(c.test_accuracy for c in r), 2, 100),
    Column("last_steps", "Last steps", lambda r: r[-1].steps, 0, 1, True, ("warm",)),
    Column("average_steps", "Avg steps", lambda r: statistics.fmean(c.steps for c in r), 0, 1, True, ("warm",)),
    Column("teraflops", "TFLOPs", lambda r: total_cost(r).flops, 3, 1e-12, True, ("warm",)),
    Column("seconds", "Seconds", lambda r: total_cost(r).seconds, 1, 1, True, ("warm",)),
)
BY_KEY = {column.key: column for column in COLUMNS}
BALANCED = Column("last_balanced_accuracy", "Last bal. acc. %", lambda r: r[-1].balanced, 2, 100)
UNBALANCED = 0.005  # a difference between accuracy and balanced accuracy from which tables show both


@dataclass(frozen=True)
class MethodSummary:
    """One method over its seeds: a spread for each column, and numbers of experiments.

    spreads: by key of COLUMNS and BALANCED. not_converged, diverged: of the experiments, see `ChunkRecord`.
    """

    label: str
    intervention: str
    seeds: tuple[int, ...]
    spreads: Mapping[str, Spread]
    experiments: int
    not_converged: int
    diverged: int = 0


@dataclass(frozen=True)
class MethodRuns:
    """The complete runs of one method: records by seed."""

    label: str
    intervention: str
    runs: Mapping[int, Records]


def summarise(methods: Sequence[MethodRuns]) -> list[MethodSummary]:
    """Return one summary for each method with at least one complete run, in the given order."""
    return [_summarise(method) for method in methods if method.runs]


def columns_of(summaries: Sequence[MethodSummary]) -> tuple[Column, ...]:
    """Return the columns of a table: with the balanced accuracy if it is another number than the accuracy."""
    accuracy = COLUMNS[0]
    pairs = [(summary.spreads[accuracy.key], summary.spreads.get(BALANCED.key)) for summary in summaries]
    if any(balanced and abs(plain.mean - balanced.mean) >= UNBALANCED for plain, balanced in pairs):
        return accuracy, BALANCED, *COLUMNS[1:]
    return COLUMNS


def indistinct(methods: Sequence[MethodRuns]) -> list[list[str]]:
    """Return the groups of methods whose results are equal in every experiment of every seed, by label."""
    groups: dict[object, list[str]] = {}
    for method in methods:
        results = tuple(
            (seed, tuple((r.test_accuracy, r.test_loss, r.train_loss, r.steps) for r in records))
            for seed, records in method.runs.items()
        )
        if results:
            groups.setdefault(results, []).append(method.label)
    return [labels for labels in groups.values() if len(labels) > 1]


def sameness(methods: Sequence[MethodRuns]) -> list[str]:
    """Return a sentence for each group of methods that cannot be told apart."""
    return [
        f"{listed(labels)} have the same results in every experiment: nothing that sets them apart had an effect"
        for labels in indistinct(methods)
    ]


def listed(words: Sequence[str]) -> str:
    """Return 'a', 'a and b' or 'a, b and c'."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _summarise(method: MethodRuns) -> MethodSummary:
    runs = list(method.runs.values())
    records = [record for run in runs for record in run]
    return MethodSummary(
        label=method.label,
        intervention=method.intervention,
        seeds=tuple(method.runs),
        spreads={column.key: Spread.of([column.measure(run) for run in runs]) for column in (*COLUMNS, BALANCED)},
        experiments=len(records),
        not_converged=sum(not record.converged for record in records),
        diverged=sum(record.diverged for record in records),
    )


def best(summaries: Sequence[MethodSummary], column: Column) -> set[str]:
    """Return the labels whose mean, as written, is the best of the column; ties are all best."""
    ranked = [s for s in summaries if s.intervention not in column.not_ranked]
    if not ranked:
        return set()
    means = {s.label: round(s.spreads[column.key].mean * column.scale, column.digits) for s in ranked}
    top = (min if column.lower_is_better else max)(means.values())
    return {label for label, mean in means.items() if mean == top}
