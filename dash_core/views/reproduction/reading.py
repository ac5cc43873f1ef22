"""Readings: one number per seed, computed from the runs of an item; claims compare them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dash_core.records import ChunkRecord
from dash_core.views.reproduction.outcome import Outcome
from dash_core.views.summary import BY_KEY, Column, Records

LAST_ACCURACY = BY_KEY["last_accuracy"]
AVERAGE_ACCURACY = BY_KEY["average_accuracy"]
LAST_STEPS = BY_KEY["last_steps"]
AVERAGE_STEPS = BY_KEY["average_steps"]
TERAFLOPS = BY_KEY["teraflops"]


Quantity = Callable[[ChunkRecord], float | None]  # of one experiment; None if it was not measured


@dataclass(frozen=True)
class Reading:
    """One number per seed. name: as a claim writes it. column: the quantity, with the scale of its unit and its digits.

    values: outcome → number by seed, in the column's printed unit.
    """

    name: str
    column: Column
    values: Callable[[Outcome], Mapping[int, float]]


def measured(label: str, column: Column, key: str, name: str | None = None) -> Reading:
    """Return a column of one method in the comparison of the given key."""

    def values(outcome: Outcome) -> Mapping[int, float]:
        runs = outcome[key].method(label).runs
        return {seed: column.measure(records) * column.scale for seed, records in runs.items()}

    return Reading(name or label, column, values)


def diagnosed_last(label: str, column: Column, key: str) -> Reading:
    """Return one diagnostic, the column's key, over the seeds whose last experiment measured it."""

    def values(outcome: Outcome) -> Mapping[int, float]:
        runs = outcome[key].method(label).runs
        having = {seed: records for seed, records in runs.items() if column.key in records[-1].diagnostics}
        return {seed: column.measure(records) * column.scale for seed, records in having.items()}

    return Reading(label, column, values)


def gap(left: Reading, right: Reading, name: str) -> Reading:
    """Return left − right over the seeds that both have."""

    def values(outcome: Outcome) -> Mapping[int, float]:
        ours, theirs = left.values(outcome), right.values(outcome)
        return {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}

    return Reading(name, left.column, values)


def correlation(key: str, labels: Sequence[str], x: Quantity, y: Quantity, name: str) -> Reading:
    """Return Pearson's r by seed, over all experiments of the methods that measured both x and y.

    A seed with fewer than three points, or with constant x or y, is left out.
    """

    def values(outcome: Outcome) -> Mapping[int, float]:
        methods = [outcome[key].method(label) for label in labels]
        seeds = set.intersection(*(set(method.runs) for method in methods))
        found = {seed: _pearson([record for m in methods for record in m.runs[seed]], x, y) for seed in sorted(seeds)}
        return {seed: r for seed, r in found.items() if r is not None}

    return Reading(name, Column("correlation", "(Pearson's r)", lambda records: 0.0, 2), values)


def _pearson(records: Records, x: Quantity, y: Quantity) -> float | None:
    measured = [(x(record), y(record)) for record in records]
    pairs = np.array([pair for pair in measured if None not in pair], dtype=float)
    if len(pairs) < 3 or np.any(np.ptp(pairs, axis=0) == 0):
        return None
    return float(np.corrcoef(pairs.T)[0, 1])


def diagnosed(records: Records, name: str) -> list[float]:
    """Return a diagnostic's values in the order of the experiments that measured it."""
    return [record.diagnostics[name] for record in records if name in record.diagnostics]
