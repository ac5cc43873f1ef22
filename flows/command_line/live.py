"""The display of runs while they train: a live table in a terminal, plain lines elsewhere."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from rich.box import HEAVY_HEAD, Box
from rich.console import Console
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from dash_core.config import RunConfig
from dash_core.views.tables import Table
from tasks.store.place import Place
from tasks.store.progress import Progress, read_progress
from tasks.store.runs import is_complete

REFRESH_SECONDS = 0.5  # between two reads of the runs' progress files
WIDE_COLUMNS = 90  # from this width on, the live table has wide gaps
HEADINGS = {  # of the live table: each column, and the width that its longest value needs
    "run": 0,
    "experiment": 5,
    "epoch": 5,
    "train acc.": 6,
    "test acc.": 6,
    "steps": 7,
    "images/s": 8,
    "time left": 7,
}
STYLES = {
    "waiting": "dim",
    "training": "cyan",
    "saving": "cyan",
    "done": "green",
    "failed": "bold red",
    "stopped": "yellow",
}


@contextmanager
def watched(runs: Sequence[RunConfig], place: Place, console: Console) -> Iterator[None]:
    """Show the progress of the runs within the block."""
    stop = threading.Event()
    follow = _follow_live if console.is_terminal else _follow_plainly
    reader = _ProgressReader(runs, place)

    def show() -> None:
        with suppress(OSError):  # the output cannot be written any more: the runs go on, and the command says so
            follow(runs, reader, console, stop)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def progress_bar(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a progress callback (what, done, total) that draws bars in a terminal and nothing elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total or None)
            bars.update(tasks[what], completed=done, total=total or None)

        yield show


def print_table(table: Table, console: Console) -> None:
    """Print a comparison's table with its notes."""
    rich_table = _rich_table(table, HEAVY_HEAD, " ")
    for box in (HEAVY_HEAD, None):  # too wide: mean and deviation on two lines, no digit is cut
        if Measurement.get(console, console.options.update_width(1000), rich_table).maximum > console.width:
            rich_table = _rich_table(table, box, "\n")
    console.print()
    console.print(rich_table)
    for note in table.notes:
        console.print(note, style="dim", markup=False, highlight=False)


def _rich_table(table: Table, box: Box | None, space: str) -> RichTable:
    """Return the table for a terminal, in a box or without (None). space: between a mean and its deviation."""
    rich_table = RichTable(title=Text(table.title, style="bold"), title_justify="left", header_style="bold", box=box)
    for number, heading in enumerate(table.headings):
        rich_table.add_column(heading.replace(" ", space, 1), justify="left" if number == 0 else "right", no_wrap=True)
    for row in table.rows:
        rich_table.add_row(*(Text(cell.text.replace(" ", space), "bold green" if cell.bold else "") for cell in row))
    return rich_table


class _ProgressReader:
    """Reads the runs' progress files; a file of an earlier attempt counts as waiting until it changes.

    The file of a run that was completed meanwhile is not read again: a display may follow hundreds of runs.
    """

    def __init__(self, runs: Sequence[RunConfig], place: Place) -> None:
        self._place = place
        self._first = {run.id: read_progress(place.run_folder(run)) for run in runs}
        self._complete = {run.id for run in runs if is_complete(run, place)}
        self._done: dict[str, Progress] = {}

    def before(self, run: RunConfig) -> Progress:
        """Return the run's progress at the start of the command."""
        return replace(self._first[run.id], state="done" if run.id in self._complete else "waiting")

    def __call__(self, run: RunConfig) -> Progress:
        """Return the run's progress now."""
        if run.id in self._done:
            return self._done[run.id]
        now = read_progress(self._place.run_folder(run))
        if now == self._first[run.id]:
            return self.before(run)
        if now.state == "done":
            self._done[run.id] = now
        return now


def _follow_live(runs: Sequence[RunConfig], read: "_ProgressReader", console: Console, stop: threading.Event) -> None:
    started = time.monotonic()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            ended = stop.is_set()
            live.update(
                _live_table([(run, read(run)) for run in runs], console, time.monotonic() - started), refresh=True
            )
            if ended:
                return
            stop.wait(REFRESH_SECONDS)


def _live_table(rows: Sequence[tuple[RunConfig, Progress]], console: Console, elapsed: float) -> RichTable:
    """Return the live table; if it does not fit the screen, runs that wait or are done are only counted."""
    counts = {state: sum(progress.state == state for _, progress in rows) for state in STYLES}
    caption = " · ".join(f"{count} {state}" for state, count in counts.items() if count)
    caption = f"{caption} · {_duration(elapsed)}"
    gap = (0, 2, 0, 0) if console.width >= WIDE_COLUMNS else (0, 1, 0, 0)
    table = RichTable(box=None, padding=gap, header_style="dim", caption=caption, caption_justify="left")
    for heading, width in HEADINGS.items():
        table.add_column(heading, justify="left" if heading == "run" else "right", min_width=width, no_wrap=not width)
    if len(rows) > console.height - 4:
        rows = [row for row in rows if row[1].state in ("training", "failed")]
    for run, progress in rows:
        table.add_row(*_cells(run, progress), style=STYLES[progress.state])
    return table


def _cells(run: RunConfig, progress: Progress) -> tuple[str, ...]:
    training = progress.state == "training"
    left = _duration(progress.seconds_left) if training else progress.state
    rate = progress.images_per_second if training else None
    return (
        f"{run.method.label} · seed {run.seed}",
        f"{progress.experiment or progress.finished}/{run.experiment_count}",
        _number(progress.epoch or None, "d"),
        _number(progress.train_accuracy, ".1%"),
        _number(progress.test_accuracy, ".1%"),
        _number(progress.steps or None, ",d"),
        _number(rate, ",.0f"),
        left,
    )


def _follow_plainly(
    runs: Sequence[RunConfig], read: "_ProgressReader", console: Console, stop: threading.Event
) -> None:
    """Print a line whenever a run has finished an experiment, or has failed."""
    printed = {run.id: read.before(run) for run in runs}
    ended = False
    while not ended:
        ended = stop.wait(REFRESH_SECONDS)  # after the end, read once more
        for run in runs:
            now, last = read(run), printed[run.id]
            if now.state == "failed" and last.state != "failed":
                console.print(f"{run.method.label} · seed {run.seed}: failed", highlight=False)
            elif now.finished > last.finished or (now.state == "done" and last.state != "done"):
                console.print(_line(run, now), highlight=False)
            printed[run.id] = now


def _line(run: RunConfig, now: Progress) -> str:
    accuracy, left = _number(now.test_accuracy, ".1%"), _duration(now.seconds_left)
    rest = {"done": "complete", "saving": "saving"}.get(now.state, f"{left} left")
    done = f"{now.finished} of {run.experiment_count} experiments"
    return f"{run.method.label} · seed {run.seed}: {done}, test {accuracy}, {now.steps:,} steps, {rest}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
