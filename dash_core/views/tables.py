"""A comparison's table: cells for any form of output, and the table as markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dash_core.records import ChunkRecord
from dash_core.spread import Spread
from dash_core.views.summary import BALANCED, COLUMNS, Column, MethodRuns, MethodSummary, best, columns_of

METRICS = ("last_accuracy", "average_accuracy", "average_steps", "teraflops")
EXPERIMENT: Mapping[str, Callable[[ChunkRecord], float]] = {
    "test_accuracy": lambda record: 100 * record.test_accuracy,
    "train_accuracy": lambda record: 100 * record.train_accuracy,
    "steps": lambda record: float(record.steps),
    "seconds": lambda record: record.total_cost.seconds,
    "teraflops": lambda record: record.total_cost.flops * 1e-12,
    "balanced_accuracy": lambda record: 100 * record.balanced,
}


@dataclass(frozen=True)
class Cell:
    """Text, and whether it is bold."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Table:
    """A title, headings, rows of cells and notes."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...]


def comparison_table(title: str, summaries: Sequence[MethodSummary], seeds: int, notes: Sequence[str] = ()) -> Table:
    """Return the paper-style table of a comparison; `seeds` is the planned number of seeds per method."""
    columns = columns_of(summaries)
    winners = {column.key: best(summaries, column) for column in columns}
    rows = tuple(
        (
            Cell(summary.label + ("†" if summary.not_converged else "") + ("§" if summary.diverged else "")),
            *(Cell(_written(summary, c), summary.label in winners[c.key]) for c in columns),
            Cell(str(len(summary.seeds)) + ("‡" if len(summary.seeds) < seeds else "")),
        )
        for summary in summaries
    )
    headings = ("Method", *(column.title for column in columns), "Seeds")
    explained = (
        "mean (population std) over seeds; cost is the whole run; best in bold (steps and cost: among all but warm)"
    )
    return Table(title, headings, rows, (explained, *_warnings(summaries, seeds), *notes))


def _written(summary: MethodSummary, column: Column) -> str:
    """Return 'mean (std)', or the value alone of a single seed, which has no spread."""
    written = column.write(summary.spreads[column.key])
    return written if len(summary.seeds) > 1 else written.partition(" ")[0]


def _warnings(summaries: Sequence[MethodSummary], seeds: int) -> list[str]:
    stuck = [f"{s.label} {s.not_converged} of {s.experiments}" for s in summaries if s.not_converged]
    lost = [f"{s.label} {s.diverged} of {s.experiments}" for s in summaries if s.diverged]
    short = [f"{s.label} {len(s.seeds)} of {seeds}" for s in summaries if len(s.seeds) < seeds]
    return [
        *([f"† experiments that ended at max_epochs before they converged: {', '.join(stuck)}"] if stuck else []),
        *(
            [f"§ experiments whose training diverged, so that their numbers mean nothing: {', '.join(lost)}"]
            if lost
            else []
        ),
        *([f"‡ runs missing; seeds complete: {', '.join(short)}"] if short else []),
    ]


def to_markdown(table: Table) -> str:
    """Return the table as GitHub markdown."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"

    body = [line([f"**{cell.text}**" if cell.bold else cell.text for cell in row]) for row in table.rows]
    rule = "|:--|" + "--:|" * (len(table.headings) - 1)
    return "\n".join([f"## {table.title}", "", line(table.headings), rule, *body, "", *_lines(table.notes)])


def to_csv(summaries: Sequence[MethodSummary]) -> str:
    """Return the numbers unrounded: one row per method, mean and std of each column, in the columns' printed units."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{column.key}_{part}" for column in COLUMNS for part in ("mean", "std")]
    later = [f"{BALANCED.key}_mean", f"{BALANCED.key}_std", "diverged"]
    writer.writerow(["method", "intervention", "n_seeds", *names, "experiments", "not_converged", *later])
    for s in summaries:
        values = [
            repr(value * column.scale)
            for column in (*COLUMNS, BALANCED)
            for value in (s.spreads[column.key].mean, s.spreads[column.key].std)
        ]
        counts = [s.experiments, s.not_converged]
        writer.writerow([s.label, s.intervention, len(s.seeds), *values[:-2], *counts, *values[-2:], s.diverged])
    return text.getvalue()


def experiments_csv(methods: Sequence[MethodRuns]) -> str:
    """Return one row for each experiment of each method: accuracy and cost, as mean and std over seeds.

    Accuracies in percent; steps, seconds and TFLOPs (10^12 floating-point operations) of this experiment alone.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{name}{part}" for name in EXPERIMENT for part in ("", "_std")]
    writer.writerow(["method", "experiment", "n_seeds", *names])
    for method in methods:
        for records in zip(*method.runs.values(), strict=True):
            spreads = [Spread.of([measure(record) for record in records]) for measure in EXPERIMENT.values()]
            values = [repr(value) for spread in spreads for value in (spread.mean, spread.std)]
            writer.writerow([method.label, records[0].experiment, len(records), *values])
    return text.getvalue()


def metrics(summaries: Sequence[MethodSummary]) -> dict[str, dict[str, float]]:
    """Return the means of METRICS by method, in the columns' printed units; no seconds, since they always vary."""
    columns = [column for column in COLUMNS if column.key in METRICS]
    return {s.label: {c.key: s.spreads[c.key].mean * c.scale for c in columns} for s in summaries}


_LATEX = {
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "§": r"$^\S$",
    "·": r"$\cdot$",
}


def to_latex(table: Table) -> str:
    """Return the table as a LaTeX float; it needs the package booktabs."""

    def plain(text: str) -> str:
        return "".join(_LATEX.get(character, character) for character in text)

    def line(cells: Sequence[str]) -> str:
        return " & ".join(cells) + r" \\"

    body = [line([rf"\textbf{{{plain(c.text)}}}" if c.bold else plain(c.text) for c in row]) for row in table.rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{plain(table.title)}. {plain('; '.join(table.notes))}.}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.headings) - 1)}}}",
            r"\toprule",
            line([plain(heading) for heading in table.headings]),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _lines(notes: Sequence[str]) -> list[str]:
    return [line for note in notes for line in (note, "")]
