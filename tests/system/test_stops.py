"""A stop asked for by the user ends a run at once, whatever retries Prefect's settings ask for."""

import contextlib
import signal
import sqlite3
import time

import pytest

from flows.services.prefect_process import DATABASE
from flows.services.prefect_server import PrivateServer
from tasks.store.progress import read_progress
from tests.system import shell

RETRIES = {"PREFECT_TASKS_DEFAULT_RETRIES": "2", "PREFECT_FLOWS_DEFAULT_RETRIES": "2"}
EPOCHS = 40
SETTINGS = ("chunks=2", "dataset.train_size=400", "training.stop_accuracy=null", f"training.max_epochs={EPOCHS}")
RUN = ("run", "--method", "dash")


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_run_stopped_in_mid_chunk_is_not_retried_and_ends_as_if_undisturbed(tmp_path, number):
    undisturbed = shell.start(tmp_path / "undisturbed", *RUN, settings=SETTINGS)
    with PrivateServer(tmp_path / "theirs") as server:
        theirs = {"PREFECT_API_URL": server.wait_ready(), **RETRIES}
        running = shell.start(tmp_path / "stopped", *RUN, settings=SETTINGS, **theirs)
        assert running.until(lambda: in_mid_chunk(running.store)), running.outputs[1].read_text()
        asked = time.monotonic()
        running.process.send_signal(number)
        stopped = running.end(60)
        assert stopped.code == 128 + number
        assert "asked to stop" in stopped.err
        assert time.monotonic() - asked < 30
        assert shell.weights(running.store, SETTINGS) == {}
        again = shell.dashpipe(running.store, *RUN, settings=SETTINGS, **theirs)
        assert again.code == 0, again.err
    with contextlib.closing(sqlite3.connect(tmp_path / "theirs" / DATABASE)) as database:
        for table in ("task_run", "flow_run"):
            assert database.execute(f"SELECT max(run_count) FROM {table}").fetchall() == [(1,)]
    assert undisturbed.end().code == 0
    weights = shell.weights(undisturbed.store, SETTINGS)
    assert len(weights) == 1
    assert shell.weights(running.store, SETTINGS) == weights


def in_mid_chunk(store) -> bool:
    """Tell whether the last of two chunks has trained for some of its epochs."""
    progress = map(read_progress, store.glob("runs/*"))
    return any(run.experiment == 2 and 2 <= run.epoch < EPOCHS / 2 for run in progress)
