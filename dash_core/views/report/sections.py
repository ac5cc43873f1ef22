"""The report's tables beside the comparison's own: statistics, numbers of each experiment, and the set-up."""

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from dash_core.spread import Spread
from dash_core.views.report.content import ReportContent
from dash_core.views.statistics import (
    CLEAR_SEEDS,
    LEVEL,
    PairedDifference,
    Reach,
    paired_differences,
    reach,
    reference_of,
)
from dash_core.views.summary import BY_KEY, COLUMNS, Column, MethodRuns
from dash_core.views.tables import Cell, Table

NOTHING = "–"
MOST_ROWS = 100  # experiments in a table, about
BOUND = "\N{NO-BREAK SPACE}"  # keeps a cell from being broken here


def statistics_tables(content: ReportContent) -> list[Table]:
    """Return the differences from the reference and the cost of its accuracy; none without a reference."""
    complete = [method for method in content.methods if method.runs]
    reference = reference_of(complete)
    if reference is None:
        return []
    differences = paired_differences(complete, reference)
    tables = [_differences(differences, reference.label)] if differences else []
    return [*tables, _reaches(reach(complete, reference), reference.label)]


def experiment_tables(content: ReportContent) -> list[Table]:
    """Return test accuracy and steps by experiment and method."""
    complete = [method for method in content.methods if method.runs]
    if not complete:
        return []
    return [
        _by_experiment("Test accuracy in % by experiment", BY_KEY["last_accuracy"], complete),
        _by_experiment("Steps by experiment", BY_KEY["last_steps"], complete),
    ]


def fact_tables(content: ReportContent) -> list[Table]:
    """Return the settings, the data, the chunk plans and the machines, one row per fact."""
    names = list(dict.fromkeys(name for machine in content.machines for name in machine))
    machines = [(name, *(machine.get(name, NOTHING) for machine in content.machines)) for name in names]
    several = len(content.machines) > 1
    headings = ("", *(f"set-up {number}" for number in range(1, len(content.machines) + 1))) if several else ()
    tables = [
        _facts("Settings", list(flat(content.settings))),
        _facts("Data", list(content.data.items())),
        _facts("Chunk plans", list(content.splits.items()), ("seed", "digest")),
        _facts("Machines, versions and commit", machines, headings),
    ]
    return [table for table in tables if table.rows]


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of nested settings, in their own order; an empty mapping is a value."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _differences(differences: Sequence[PairedDifference], reference: str) -> Table:
    rows: dict[str, list[PairedDifference]] = {}
    for difference in differences:
        rows.setdefault(difference.label, []).append(difference)
    return Table(
        f"Differences from {reference}",
        ("Method", *(column.title for column in COLUMNS), "Pairs"),
        tuple(
            (
                Cell(label),
                *(Cell(_interval(one), one.clear) for one in row),
                Cell(str(len(row[0].seeds))),
            )
            for label, row in rows.items()
        ),
        (
            f"mean over paired seeds of method − {reference} [{100 * LEVEL:g} % Student’s t interval]; "
            "accuracies in percentage points",
            f"bold: the interval leaves out 0 and rests on at least {CLEAR_SEEDS} pairs; "
            "no interval: a single pair, or the same difference in each",
        ),
    )


def _interval(difference: PairedDifference) -> str:
    digits = f"z,.{difference.column.digits}f"
    text = format(difference.mean, f"+{digits}")
    if difference.low is not None and difference.low != difference.high:
        text += f"\n[{difference.low:{digits}},{BOUND}{difference.high:{digits}}]"
    return text.replace("-", "−")


def _reaches(reaches: Sequence[Reach], reference: str) -> Table:
    return Table(
        f"Cost of reaching {reference}’s last accuracy",
        ("Method", "Reached by", "Experiment", "Steps", "TFLOPs", "Seconds"),
        tuple(
            (
                Cell(one.label),
                Cell(f"{len(one.reached)} of {len(one.seeds)} seeds"),
                Cell(f"{one.experiment.mean:.1f} ({one.experiment.std:.1f})" if one.experiment else NOTHING),
                Cell(_spent(BY_KEY["last_steps"], one.steps, one.reference_steps)),
                Cell(_spent(BY_KEY["teraflops"], one.teraflops, one.reference_teraflops)),
                Cell(_spent(BY_KEY["seconds"], one.seconds, one.reference_seconds)),
            )
            for one in reaches
        ),
        (
            f"what a method has spent when it is first as accurate as {reference} is at its last experiment on the "
            "same seed: mean (population std) over the seeds that reach it; it may fall below afterwards",
            f"×: share of what {reference}’s whole run spent on these seeds",
        ),
    )


def _spent(column: Column, spread: Spread | None, whole: Spread | None) -> str:
    """Return mean (std), already in the printed unit, and its share of the reference's whole run."""
    if spread is None:
        return NOTHING
    text = f"{spread.mean:,.{column.digits}f}{BOUND}({spread.std:,.{column.digits}f})"
    return f"{text}\n{spread.mean / whole.mean:.2f}×" if whole and whole.mean else text


def _by_experiment(title: str, column: Column, methods: Sequence[MethodRuns]) -> Table:
    runs = [records for method in methods for records in method.runs.values()]
    experiments = min(map(len, runs))
    stride = math.ceil(experiments / MOST_ROWS)
    shown = sorted({*range(0, experiments, stride), experiments - 1})
    left_out = (f"one experiment in {stride}, and the last; experiments.csv holds all",) if stride > 1 else ()
    return Table(
        title,
        ("Experiment", "Images", *(method.label for method in methods)),
        tuple(
            (
                Cell(str(runs[0][j].experiment)),
                Cell(_images({records[j].images for records in runs})),
                *(
                    Cell(column.write(Spread.of([column.measure(r[: j + 1]) for r in method.runs.values()])))
                    for method in methods
                ),
            )
            for j in shown
        ),
        ("mean (population std) over the complete seeds of each method", *left_out),
    )


def _images(counts: Collection[int]) -> str:
    """Return the number of images of an experiment, from the fewest to the most if runs differ."""
    least, most = min(counts), max(counts)
    return f"{least:,}" if least == most else f"{least:,}–{most:,}"


def _facts(title: str, rows: Sequence[Sequence[Any]], headings: tuple[str, ...] = ()) -> Table:
    return Table(title, headings, tuple(tuple(Cell(_plain(value)) for value in row) for row in rows), ())


def _plain(value: Any) -> str:
    """Return a value as params.yaml writes it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
