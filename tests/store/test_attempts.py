"""One writer a run: an attempt that another has taken over from stops, says so and writes nothing more."""

import os
from dataclasses import replace

import pytest

from dash_core.run_state import Watch
from tasks.store.attempts import ATTEMPT_FILE, Attempt, Superseded, saved_steps, taken_over
from tasks.store.progress import read_progress
from tests import toy


def content(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_attempts_are_numbered_and_the_last_has_the_folder(tmp_path):
    first = Attempt.begin(tmp_path, "a flow run")
    first.check()
    assert Attempt.of(tmp_path) == first
    assert (first.number, first.pid, first.flow_run) == (1, os.getpid(), "a flow run")
    second = Attempt.begin(tmp_path)
    assert second.number == 2
    with pytest.raises(Superseded, match=rf"attempt 2 \(process {os.getpid()} on .*\) has taken over from attempt 1"):
        first.check()
    second.end()
    with pytest.raises(Superseded, match="complete"):
        second.check()


@pytest.mark.parametrize("damage", [b"", b"[1]", b'{"number": 1}', b"[" * 100_000])
def test_a_damaged_file_is_nobodys_and_the_next_attempt_replaces_it(tmp_path, damage):
    attempt = Attempt.begin(tmp_path)
    (tmp_path / ATTEMPT_FILE).write_bytes(damage)
    assert Attempt.of(tmp_path) is None
    with pytest.raises(Superseded):
        attempt.check()
    Attempt.begin(tmp_path).check()


def test_a_disk_that_does_not_say_whose_the_folder_is_is_no_other_attempt(tmp_path):
    attempt = Attempt.begin(tmp_path)
    (tmp_path / ATTEMPT_FILE).unlink()
    (tmp_path / ATTEMPT_FILE).mkdir()  # reading it fails, as on a file server that is away
    with pytest.raises(OSError, match=ATTEMPT_FILE):
        attempt.check()


def test_a_stale_attempt_of_another_process_takes_nothing_over(tmp_path):
    left = replace(Attempt.begin(tmp_path), pid=1, host="elsewhere")
    assert not taken_over(tmp_path, left)  # it was there before
    assert not taken_over(tmp_path, None)  # it is this process's own


@pytest.mark.parametrize("when", ["in an experiment", "between two"])
def test_a_superseded_attempt_writes_neither_state_nor_record_nor_result(tmp_path, when):
    run, data = toy.params().run("warm", 0), toy.dataset()
    folder = tmp_path / "run"
    folder.mkdir()
    attempt = Attempt.begin(folder)
    steps, found = 0, {}

    def stop_after_others_began() -> bool:
        nonlocal steps, found
        steps += 1
        if steps == 10 and when == "in an experiment":
            Attempt.begin(folder)
            found = content(folder)
            return True
        return False

    watch = Watch(stop=stop_after_others_began, seconds=1e9, before_write=attempt.check)
    moving = toy.trajectory(folder, run, data, watch=watch)
    if when == "between two":
        toy.advance(moving, 1)
        Attempt.begin(folder)
        found = content(folder)
    with pytest.raises(Superseded):
        toy.advance(moving)
    assert content(folder) == found


def test_the_steps_of_the_last_saved_state_are_those_the_next_attempt_goes_on_from(tmp_path):
    run, data = toy.params().run("warm", 0), toy.dataset()
    assert saved_steps(tmp_path) == 0
    toy.interrupted(tmp_path / "whole", run, data, [])
    whole = toy.trajectory(tmp_path / "some", run, data)
    toy.advance(whole, 1)
    first = whole.records[0].steps
    assert saved_steps(tmp_path / "some") == first
    left = iter(range(7))
    with pytest.raises(toy.StopRequested):
        toy.advance(toy.trajectory(tmp_path / "some", run, data, watch=Watch(stop=lambda: next(left) == 6)))
    assert saved_steps(tmp_path / "some") == first + 7
    assert read_progress(tmp_path / "some").state == "waiting"  # the trajectory alone writes no progress
