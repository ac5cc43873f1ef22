"""A stop asked for by the user ends a run at once, whatever retries Prefect's settings ask for."""

import contextlib
import os
import select
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dash_core.result import WEIGHTS_FILE
from flows.services.prefect_process import DATABASE_FILE
from flows.services.prefect_server import PrivateServer
from tasks.store.progress import read_progress
from tests import crashing
from tests.system import shell

RETRIES = {"PREFECT_TASKS_DEFAULT_RETRIES": "2", "PREFECT_FLOWS_DEFAULT_RETRIES": "2"}
EPOCHS = 40
SETTINGS = (
    shell.MODEL,
    "chunks=2",
    "seeds=[0]",
    "dataset.train_size=400",
    "training.stop_accuracy=null",
    f"training.max_epochs={EPOCHS}",
)
RUN = ("run", "--method", "dash")
SLOWER = signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1


@pytest.mark.parametrize(
    "number", [signal.SIGINT, *(pytest.param(number, marks=pytest.mark.slow) for number in SLOWER)]
)
def test_a_run_stopped_in_mid_chunk_is_not_retried_and_ends_as_if_undisturbed(tmp_path, number):
    with PrivateServer(tmp_path / "theirs") as server:
        theirs = {"PREFECT_API_URL": server.wait_ready(), "PREFECT_API_AUTH_STRING": server.auth_string, **RETRIES}
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
    with contextlib.closing(sqlite3.connect(tmp_path / "theirs" / DATABASE_FILE)) as database:
        for table in ("task_run", "flow_run"):
            assert database.execute(f"SELECT max(run_count) FROM {table}").fetchall() == [(1,)]
    (run,) = (run for run in shell.params(SETTINGS).runs() if run.method.label == "dash")
    crashing.train_run(run, tmp_path / "undisturbed")
    undisturbed = load_file(tmp_path / "undisturbed" / WEIGHTS_FILE)
    stopped = load_file(folder_of(running.store) / WEIGHTS_FILE)
    assert undisturbed.keys() == stopped.keys()
    assert all(torch.equal(undisturbed[name], stopped[name]) for name in undisturbed)


def folder_of(store: Path) -> Path:
    (folder,) = store.glob("runs/*")
    return folder


def in_mid_chunk(store: Path) -> bool:
    """Tell whether the last of two chunks has trained for some of its epochs."""
    progress = map(read_progress, store.glob("runs/*"))
    return any(run.experiment == 2 and 2 <= run.epoch < EPOCHS / 2 for run in progress)


@pytest.mark.slow
def test_a_comparison_whose_terminal_is_closed_saves_and_closes_its_runs_in_mlflow_and_goes_on(tmp_path):
    store, settings = tmp_path / "store", (*SETTINGS[:-1], "training.max_epochs=4000", "compare.methods=[dash]")
    store.mkdir()
    master, slave = os.openpty()
    overrides = [word for setting in settings for word in ("--set", setting)]
    words = [str(shell.PROGRAM), "compare", "--store", str(store), *overrides]
    on_terminal = ["sh", "-c", 'exec "$@" <>"$0" >&0 2>&0', os.ttyname(slave), *words]
    environ = {name: value for name, value in os.environ.items() if name not in shell.FOREIGN}
    process = subprocess.Popen(on_terminal, cwd=shell.ROOT, env=environ, start_new_session=True)

    def shown() -> bool:
        while select.select([master], [], [], 0)[0]:
            os.read(master, 65536)  # the display writes on
        return process.poll() is not None or (trains(store) and tracked(store) == ["RUNNING", "RUNNING"])

    assert shell.within(shell.PATIENCE, shown)
    os.close(master)
    os.close(slave)
    assert process.wait(shell.PATIENCE) == 128 + signal.SIGHUP
    assert shell.within(30, lambda: not shell.processes_of(store))
    assert tracked(store) == ["KILLED", "KILLED"]
    (run,) = shell.params(settings).runs()
    before = read_progress(store / "runs" / run.id)
    assert before.state == "stopped"
    again = shell.start(store, "compare", settings=settings)
    assert again.until(lambda: read_progress(store / "runs" / run.id).epoch > before.epoch)
    assert again.until(lambda: tracked(store) == ["RUNNING", "RUNNING"])
    again.process.send_signal(signal.SIGTERM)
    assert again.end().code == 128 + signal.SIGTERM
    assert tracked(store) == ["KILLED", "KILLED"]


def trains(store: Path) -> bool:
    return any(run.state == "training" and run.epoch >= 2 for run in map(read_progress, store.glob("runs/*")))


def tracked(store: Path) -> list[str]:
    """Return the states of MLflow's runs, without MLflow, whose import takes seconds."""
    if not (store / "mlflow.db").exists():
        return []
    with contextlib.closing(sqlite3.connect(store / "mlflow.db")) as database:
        return [status for (status,) in database.execute("SELECT status FROM runs")]
