"""Views that items share: lines by experiment, tables of methods, and the paper's tables by model and optimiser."""

from collections.abc import Callable, Sequence

from dash_core.views.figures.lines import accuracy_and_steps
from dash_core.views.figures.traces import ComparedMethods
from dash_core.views.reproduction.item import PageFigure, View
from dash_core.views.reproduction.outcome import Measured, Outcome
from dash_core.views.summary import BY_KEY, Column, MethodSummary, best, summarise
from dash_core.views.tables import Cell, Table, comparison_table

NOTHING = Cell("–")
BEST = "mean (population std) over seeds; best in bold, for steps among all but warm"
SPREAD = "Mean over seeds with ± population std"


def setting(measured: Measured) -> str:
    """Return data, model and optimiser in one line."""
    params = measured.params
    size = f" ({params.dataset.train_size:,} images)" if params.dataset.train_size else ""
    return f"{params.dataset.name}{size}, {params.model.title}, {params.optimizer.name}"


def lines_view(outcome: Outcome) -> View:
    """Show test accuracy and steps by experiment, and the table, of each comparison."""
    return View([lines(key, measured) for key, measured in outcome.items()], tables(outcome))


def tables_view(outcome: Outcome) -> View:
    """Show the table of each comparison."""
    return View(tables=tables(outcome))


def lines(key: str, measured: Measured) -> PageFigure:
    """Return test accuracy and steps by experiment, as in the paper's figure 1."""
    return PageFigure(
        f"lines-{key}",
        f"Test accuracy and steps by experiment: {key}",
        f"{setting(measured)}. Mean over seeds with a band of ± population std.",
        accuracy_and_steps(ComparedMethods.of(measured.methods, ())),
    )


def tables(outcome: Outcome) -> list[Table]:
    """Return the paper-style table of each comparison."""
    return [
        comparison_table(f"{key}: {setting(m)}", summarise(m.methods), len(m.params.seeds))
        for key, m in outcome.items()
    ]


def by_optimiser(title: str) -> Callable[[Outcome], View]:
    """Return a view of comparisons with keys 'row/optimiser': one row per method, the optimisers side by side."""
    return lambda outcome: View(tables=[_by_optimiser(title, outcome)])


def _by_optimiser(title: str, outcome: Outcome) -> Table:
    """Return the paper's columns: last accuracy, last steps, average accuracy, average steps, for each optimiser."""
    columns = [BY_KEY[key] for key in ("last_accuracy", "last_steps", "average_accuracy", "average_steps")]
    optimisers = list(dict.fromkeys(key.rpartition("/")[2] for key in outcome))
    found = {key: {s.label: s for s in summarise(measured.methods)} for key, measured in outcome.items()}
    rows = []
    for group in dict.fromkeys(key.rpartition("/")[0] for key in outcome):
        of_group = [found.get(f"{group}/{optimiser}", {}) for optimiser in optimisers]
        for label in dict.fromkeys(label for summaries in of_group for label in summaries):
            cells = [_cell(summaries, label, column) for column in columns for summaries in of_group]
            rows.append((Cell(group), Cell(label), *cells))
    headings = ("Setting", "Method", *(f"{c.title} {o.upper()}" for c in columns for o in optimisers))
    return Table(title, headings, tuple(rows), (BEST, *(f"{key}: {setting(m)}" for key, m in outcome.items())))


def _cell(summaries: dict[str, MethodSummary], label: str, column: Column) -> Cell:
    if label not in summaries:
        return NOTHING
    return Cell(column.write(summaries[label].spreads[column.key]), label in best(list(summaries.values()), column))


def rows_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], *notes: str) -> Table:
    """Return a table of plain text cells."""
    return Table(title, tuple(headings), tuple(tuple(Cell(text) for text in row) for row in rows), notes)
