"""Runs as jobs of submitit, whose local executor stands for Slurm: requeued on its signal, resubmitted after a kill."""

import json
import os
import signal

import pytest

from tests.executors.conftest import SETTINGS, attempts, mid_run, needs
from tests.system import shell

pytestmark = [needs("submitit", "slurm"), pytest.mark.slow]
SLURM = (*SETTINGS, "compare.executor=slurm", "compare.cluster.address=local", "compare.workers=2")


def assert_equals_local(ended, local):
    assert ended.code == 0, ended.err
    assert shell.weights(ended.store, SLURM) == shell.weights(local.store, SETTINGS)
    assert shell.results(ended.store, SLURM) == shell.results(local.store, SETTINGS)


def test_jobs_have_the_bits_of_the_local_pool_and_are_queued_again_on_the_signal_and_submitted_again_after_a_kill(
    local, tmp_path
):
    store = tmp_path / "store"
    running = shell.start(store, "compare", settings=SLURM)
    assert running.until(lambda: mid_run(store))
    preempted = mid_run(store)[0]
    number = attempts(store)[preempted]["number"]
    os.kill(attempts(store)[preempted]["pid"], signal.SIGUSR2)
    assert running.until(lambda: attempts(store).get(preempted, {}).get("number", 0) > number)
    assert preempted not in "".join(path.read_text() for path in running.outputs)  # submitit's affair, not ours

    assert running.until(lambda: [run for run in mid_run(store) if run != preempted])
    killed = next(run for run in mid_run(store) if run != preempted)
    os.kill(attempts(store)[killed]["pid"], signal.SIGKILL)
    ended = running.end()
    assert_equals_local(ended, local)
    (line,) = [line for line in ended.err.splitlines() if "lost process" in line]
    assert line.startswith(killed)
    assert "it goes on from step" in line
    assert not list((store / ".dashpipe" / "slurm" / "jobs").iterdir())


def test_jobs_outlive_the_command_and_the_next_one_has_their_bits(local, tmp_path):
    store = tmp_path / "store"
    running = shell.start(store, "compare", settings=SLURM)
    assert running.until(lambda: mid_run(store))
    running.process.kill()
    running.process.wait()
    assert_equals_local(shell.dashpipe(store, "compare", settings=SLURM), local)


def test_ctrl_c_has_the_jobs_save_their_states(local, tmp_path):
    store = tmp_path / "store"
    running = shell.start(store, "compare", settings=SLURM)
    assert running.until(lambda: mid_run(store))
    under_way = attempts(store)
    os.kill(running.process.pid, signal.SIGINT)
    ended = running.end()
    assert ended.code == 130, ended.err
    for run in under_way:
        folder = store / "runs" / run
        if not (folder / "result.json").exists():
            assert json.loads((folder / "progress.json").read_text())["state"] == "stopped"
    assert_equals_local(shell.dashpipe(store, "compare", settings=SLURM), local)
