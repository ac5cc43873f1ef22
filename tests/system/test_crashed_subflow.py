"""A worker that is killed leaves no run in Prefect that seems to go on for ever."""

import contextlib
import json
import os
import signal

import pytest

from tests.system import shell

SETTINGS = (*shell.TINY, "compare.checkpoint_seconds=0.2", "training.max_epochs=60")


@pytest.mark.slow
def test_the_subflow_of_a_killed_worker_is_shown_as_crashed_and_so_are_its_tasks(tmp_path):
    store = tmp_path / "store"
    running = shell.start(store, "compare", settings=SETTINGS)

    def attempt() -> dict | None:
        for folder in shell.begun(store):
            with contextlib.suppress(OSError, ValueError):
                return json.loads((folder / "attempt.json").read_text())
        return None

    assert running.until(attempt)
    lost = attempt()
    os.kill(lost["pid"], signal.SIGKILL)
    ended = running.end()
    assert ended.code == 1
    assert "died without a word" in ended.err
    states = dict(shell.sql(store, "select id, state_type from flow_run"))
    assert states[lost["flow_run"]] == "CRASHED"
    assert "RUNNING" not in states.values()
    assert shell.sql(store, "select name from task_run where state_type = 'RUNNING'") == []
