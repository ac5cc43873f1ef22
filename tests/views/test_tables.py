"""A comparison's table: marks, notes, and the same cells in every form."""

import csv
import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from dash_core.cost import Cost
from dash_core.records import ChunkRecord
from dash_core.spread import Spread
from dash_core.views.summary import BALANCED, COLUMNS, MethodRuns, MethodSummary, summarise
from dash_core.views.tables import (
    Cell,
    Table,
    comparison_table,
    experiments_csv,
    metrics,
    to_csv,
    to_latex,
    to_markdown,
)
from flows.command_line.live import print_table

UNROUNDED = 0.1 + 0.2  # 0.30000000000000004


def summary(label="dash", intervention=None, seeds=(0, 1), not_converged=0, accuracy=0.5, steps=20.0) -> MethodSummary:
    spreads = {column.key: Spread(1.5, 0.25) for column in COLUMNS}
    spreads[BALANCED.key] = Spread(accuracy, 0.0125)
    spreads["last_accuracy"] = Spread(accuracy, 0.0125)
    spreads["last_steps"] = Spread(steps, 2.0)
    return MethodSummary(label, intervention or label, seeds, spreads, 2 * len(seeds), not_converged)


def table(*summaries: MethodSummary, seeds: int = 2, title: str = "digits, cnn3_small") -> Table:
    return comparison_table(title, summaries, seeds, ["seconds on A_1 & co"])


THREE = (
    summary("warm", accuracy=0.6, steps=5),
    summary("cold", accuracy=0.7, steps=20),
    summary("dash_low", "dash", accuracy=0.7, steps=1234, not_converged=3, seeds=(0,)),
)


def test_the_best_is_bold_ties_alike_and_warm_has_no_bold_steps():
    warm, cold, dash = table(*THREE).rows
    assert [row[1] for row in (warm, cold, dash)] == [
        Cell("60.00 (1.25)"),
        Cell("70.00 (1.25)", bold=True),
        Cell("70.00", bold=True),
    ]
    assert [row[3] for row in (warm, cold, dash)] == [Cell("5 (2)"), Cell("20 (2)", bold=True), Cell("1,234")]


def test_what_did_not_converge_has_a_dagger_and_a_note():
    made = table(summary("cold"), summary("dash", not_converged=3))
    assert [row[0].text for row in made.rows] == ["cold", "dash†"]
    assert "† experiments that ended at max_epochs before they converged: dash 3 of 4" in made.notes


def test_what_diverged_has_a_mark_in_every_form_and_a_note():
    made = table(summary("cold"), replace(summary("dash", not_converged=1), diverged=2))
    assert [row[0].text for row in made.rows] == ["cold", "dash†§"]
    assert "§ experiments whose training diverged, so that their numbers mean nothing: dash 2 of 4" in made.notes
    assert r"$^\S$" in to_latex(made)
    (_, row) = csv.DictReader(io.StringIO(to_csv([summary("cold"), replace(summary("dash"), diverged=2)])))
    assert row["diverged"] == "2"


@pytest.mark.parametrize(("balanced", "shown"), [(0.5049, False), (0.4951, False), (0.494, True), (0.8, True)])
def test_balanced_accuracy_has_a_column_where_it_is_another_number(balanced, shown):
    one = summary("dash")
    made = table(replace(one, spreads={**one.spreads, BALANCED.key: Spread(balanced, 0.0)}))
    assert (made.headings[2] == "Last bal. acc. %") == shown
    assert len(made.headings) == len(made.rows[0]) == (9 if shown else 8)


def test_a_missing_seed_has_a_mark_and_a_note():
    made = table(summary("cold"), summary("dash", seeds=(4,)))
    assert [row[-1].text for row in made.rows] == ["2", "1‡"]
    assert "‡ runs missing; seeds complete: dash 1 of 2" in made.notes


def test_a_single_seed_has_no_spread():
    made = table(summary("cold", seeds=(3,)), summary("dash"), seeds=2)
    assert [row[1].text for row in made.rows] == ["50.00", "50.00 (1.25)"]


def test_a_table_without_flaws_has_no_marks():
    made = table(summary("cold"), summary("dash"))
    assert len(made.notes) == 2
    assert not any(mark in text for mark in "†‡" for text in (*made.notes, *(c.text for r in made.rows for c in r)))


def test_every_table_says_which_deviation_it_shows_and_what_the_caller_adds():
    made = table(summary())
    assert "population std" in made.notes[0]
    assert made.notes[-1] == "seconds on A_1 & co"


def test_csv_holds_the_numbers_unrounded_with_the_methods_they_belong_to():
    rows = list(csv.DictReader(io.StringIO(to_csv([summary("low", "dash", accuracy=UNROUNDED, not_converged=1)]))))
    (row,) = rows
    assert float(row["last_accuracy_mean"]) == UNROUNDED * 100
    assert float(row["last_accuracy_std"]) == 1.25
    assert (row["method"], row["intervention"], row["n_seeds"]) == ("low", "dash", "2")
    assert (row["experiments"], row["not_converged"]) == ("4", "1")


def test_latex_escapes_what_it_would_read_as_a_command():
    made = to_latex(Table(r"a_b & 100% #1 $x {y} ~ ^ \z", ("Method",), ((Cell("d_l†", bold=True),),), ()))
    caption = r"a\_b \& 100\% \#1 \$x \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}z"
    assert rf"\caption{{{caption}. .}}" in made
    assert r"\textbf{d\_l$^\dagger$} \\" in made


def test_markdown_escapes_the_bar_between_cells():
    made = to_markdown(Table("t", ("a|b", "c"), ((Cell("1|2", bold=True), Cell("3")),), ()))
    assert made.splitlines()[2:5] == ["| a\\|b | c |", "|:--|--:|", "| **1\\|2** | 3 |"]


def cells_of_markdown(text: str) -> list[tuple[str, bool]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    cells = [cell for line in lines for cell in line.strip("| ").split(" | ")]
    return [(cell.strip("*"), cell.startswith("**")) for cell in cells]


def cells_of_latex(text: str) -> list[tuple[str, bool]]:
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    cells = [cell for line in body.split(r"\\") if line.strip() for cell in line.strip().split(" & ")]
    plain = [cell.replace(r"$^\dagger$", "†").replace(r"$^\ddagger$", "‡").replace(r"\_", "_") for cell in cells]
    return [(re.sub(r"\\textbf\{(.*)\}", r"\1", cell), cell.startswith(r"\textbf")) for cell in plain]


def test_every_form_shows_the_same_cells():
    made = table(*THREE)
    expected = [(cell.text, cell.bold) for row in made.rows for cell in row]
    assert cells_of_markdown(to_markdown(made)) == expected
    assert cells_of_latex(to_latex(made)) == expected
    console = Console(width=200, file=io.StringIO())
    print_table(made, console)
    shown = [line.split("│")[1:-1] for line in console.file.getvalue().splitlines() if line.startswith("│")]
    assert [cell.strip() for row in shown for cell in row] == [text for text, _ in expected]
    rows = csv.DictReader(io.StringIO(to_csv(THREE)))
    rounded = [_rounded(row, column) for row in rows for column in COLUMNS]
    shown = [cell.text for row in made.rows for cell in row[1:-1]]  # a single seed without its spread
    assert all(whole in (text, f"{text} {whole.partition(' ')[2]}") for whole, text in zip(rounded, shown, strict=True))


def _rounded(row: dict[str, str], column) -> str:
    mean, std = (float(row[f"{column.key}_{part}"]) for part in ("mean", "std"))
    return f"{mean:,.{column.digits}f} ({std:,.{column.digits}f})"


@pytest.mark.parametrize("form", [to_markdown, to_latex])
def test_title_headings_and_notes_are_in_every_text(form):
    made = table(*THREE, title="digits")
    text = form(made).replace("\\", "").replace("$^dagger$", "†").replace("$^ddagger$", "‡")
    for words in (made.title, *made.headings, *made.notes):
        assert words in text


def test_a_console_shows_the_notes_as_well():
    console = Console(width=200, file=io.StringIO())
    print_table(table(*THREE), console)
    assert all(note in console.file.getvalue() for note in table(*THREE).notes)


def record(experiment: int, accuracy: float, steps: int) -> ChunkRecord:
    cost = {"train": Cost(2.0, 3 * 10**12), "evaluate": Cost(0.5, 10**12)}
    return ChunkRecord(experiment, 10 * experiment, accuracy, 0.1, (accuracy,), 1.0, 0.0, steps, 1, True, cost)


def test_experiments_are_rows_with_mean_and_spread_of_each_quantity():
    runs = {0: [record(1, 0.5, 10), record(2, 0.75, 30)], 1: [record(1, 0.25, 20), record(2, 0.75, 30)]}
    rows = list(csv.DictReader(io.StringIO(experiments_csv([MethodRuns("dash_low", "dash", runs)]))))
    assert [(row["method"], row["experiment"], row["n_seeds"]) for row in rows] == [("dash_low", n, "2") for n in "12"]
    assert [(float(row["test_accuracy"]), float(row["test_accuracy_std"])) for row in rows] == [(37.5, 12.5), (75, 0)]
    assert [(float(row["steps"]), float(row["steps_std"])) for row in rows] == [(15, 5), (30, 0)]
    assert [(float(row["seconds"]), float(row["teraflops"])) for row in rows] == [(2.5, 4), (2.5, 4)]


def test_metrics_are_the_means_by_method_without_seconds_which_no_two_runs_share():
    runs = {0: [record(1, 0.5, 10), record(2, 0.75, 30)], 1: [record(1, 0.25, 20), record(2, 0.75, 30)]}
    assert metrics(summarise([MethodRuns("cold", "cold", runs)])) == {
        "cold": {"last_accuracy": 75.0, "average_accuracy": 56.25, "average_steps": 22.5, "teraflops": 8.0}
    }
