"""What is shown while runs train: a live table in a terminal, a line a chunk elsewhere."""

import io
import re
import time
from dataclasses import replace

import pytest
from rich.console import Console

from flows.command_line import live as display
from flows.command_line.live import watched
from tasks.store.place import Place
from tasks.store.progress import Progress, read_progress, write_progress
from tests import toy
from tests.system import shell

RUNS = [toy.params(chunks=50, compare={"methods": ["warm", "dash"]}).run(label, 0) for label in ("warm", "dash")]
WARM, DASH = RUNS
TRAINING = Progress("training", 12, 13, 4, 12345, 0.9876, 0.5, 43210.4, 3725.0)
READ = []  # (folder, progress) of every look that the display has taken


@pytest.fixture
def place(tmp_path, monkeypatch):
    def read(folder):
        READ.append((folder, read_progress(folder)))
        return READ[-1][1]

    READ.clear()
    monkeypatch.setattr(display, "REFRESH_SECONDS", 0.01)
    monkeypatch.setattr(display, "read_progress", read)
    return Place(store=tmp_path, data_root=tmp_path)


def console(terminal: bool, height: int = 40) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, height=height, color_system=None)


def show(place: Place, run, progress: Progress) -> None:
    """Write a run's progress and wait until the display has read it."""
    write_progress(place.run_folder(run), progress)
    assert shell.within(60, lambda: (place.run_folder(run), progress) in READ)


def last_picture(out: Console) -> list[list[str]]:
    """Return the words of each line of the table as it stood at the end."""
    text = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", out.file.getvalue())  # without the terminal's control codes
    return [line.split() for line in text[text.rindex("run ") :].splitlines() if line.strip()]


def test_a_run_that_trains_is_a_row_of_the_live_table(place):
    out = console(terminal=True)
    with watched(RUNS, place, out):
        show(place, DASH, TRAINING)
    heading, warm, dash, caption = last_picture(out)
    assert " ".join(heading) == "run experiment epoch train acc. test acc. steps images/s time left"
    assert warm == ["warm", "·", "seed", "0", "0/50", "–", "–", "–", "–", "–", "waiting"]
    assert dash == ["dash", "·", "seed", "0", "13/50", "4", "98.8%", "50.0%", "12,345", "43,210", "1h02m"]
    assert caption[:5] == ["1", "waiting", "·", "1", "training"]


@pytest.mark.parametrize("state", ["done", "failed"])
def test_a_run_that_is_over_shows_how_and_no_speed(place, state):
    out = console(terminal=True)
    with watched(RUNS, place, out):
        show(place, DASH, replace(TRAINING, state=state))
    assert last_picture(out)[2] == f"dash · seed 0 13/50 4 98.8% 50.0% 12,345 – {state}".split()


def test_where_the_table_would_not_fit_only_what_trains_or_failed_has_a_row(place):
    out = console(terminal=True, height=5)
    with watched(RUNS, place, out):
        show(place, DASH, TRAINING)
    rows = last_picture(out)
    assert [row[0] for row in rows[1:]] == ["dash", "1"]
    assert rows[2][:5] == ["1", "waiting", "·", "1", "training"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, "–"), (0.4, "0s"), (59.4, "59s"), (59.6, "1m00s"), (3599, "59m59s"), (3600, "1h00m")]
)
def test_time_left_is_written_in_two_units(place, seconds, words):
    out = console(terminal=True)
    with watched(RUNS, place, out):
        show(place, DASH, replace(TRAINING, seconds_left=seconds))
    assert last_picture(out)[2][-1] == words


def lines(out: Console) -> list[str]:
    return out.file.getvalue().splitlines()


def test_elsewhere_a_line_is_printed_when_a_chunk_is_finished(place):
    out = console(terminal=False)
    with watched(RUNS, place, out):
        show(place, DASH, replace(TRAINING, finished=0, epoch=1))
        show(place, DASH, TRAINING)
        show(place, DASH, replace(TRAINING, epoch=9))
        show(place, WARM, replace(TRAINING, state="failed", finished=0))
        show(place, DASH, replace(TRAINING, state="done", finished=50, seconds_left=None))
    assert lines(out) == [
        "dash · seed 0: 12 of 50 experiments, test 50.0%, 12,345 steps, 1h02m left",
        "warm · seed 0: failed",
        "dash · seed 0: 50 of 50 experiments, test 50.0%, 12,345 steps, complete",
    ]


def test_what_happens_just_before_the_end_is_still_printed(place, monkeypatch):
    monkeypatch.setattr(display, "REFRESH_SECONDS", 60)
    out = console(terminal=False)
    with watched(RUNS, place, out):
        time.sleep(0.05)
        write_progress(place.run_folder(DASH), replace(TRAINING, state="done"))
    assert lines(out) == ["dash · seed 0: 12 of 50 experiments, test 50.0%, 12,345 steps, complete"]


def test_what_an_earlier_attempt_left_is_waiting_until_it_changes(place):
    write_progress(place.run_folder(DASH), replace(TRAINING, state="failed"))
    plain, live = console(terminal=False), console(terminal=True)
    with watched(RUNS, place, plain), watched(RUNS, place, live):
        time.sleep(0.05)
    assert lines(plain) == []
    assert last_picture(live)[2][-1] == "waiting"


def test_the_display_ends_with_its_block_also_after_an_error(place):
    out = console(terminal=True)
    with pytest.raises(KeyError), watched(RUNS, place, out):
        raise KeyError
    length = len(out.file.getvalue())
    time.sleep(0.05)
    assert len(out.file.getvalue()) == length
