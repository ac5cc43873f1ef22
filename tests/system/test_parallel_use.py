"""Two commands on one store at once: no run is trained twice, nothing is damaged, and who waits says for whom."""

import re
import signal
import time
from pathlib import Path

import pytest

from tasks.store.progress import read_progress
from tests.system import shell
from tests.system.shell import TINY, dashpipe, start

RUNS, CHUNKS = 2, 3
OWNER = r"(process \d+ on \S+ has held since \d\d:\d\d \(.*\)|another process holds)"
WAITING = rf"waiting for (run \S+-s0-\w+|MLflow's database), which {OWNER}"
ONE = (*TINY, "compare.methods=[warm]")
ALONE = ("run", "--method", "warm", "--seed", "0")
TRAINED = "SELECT count(*) FROM task_run WHERE name LIKE 'experiment % · train' AND state_type = 'COMPLETED'"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The comparison as one command makes it."""
    return dashpipe(tmp_path_factory.mktemp("alone") / "store", "compare")


def beside(first: shell.Running, name: str, *command: str, settings=TINY) -> shell.Running:
    """Start a second command on the same store, its outputs in files of its own."""
    link = first.store.parent / name
    link.symlink_to(first.store, target_is_directory=True)
    return start(link, *command, settings=settings)


def said(command: shell.Running) -> str:
    return command.outputs[1].read_text(encoding="utf-8")


def frozen(store: Path) -> shell.Running:
    """Start a run and halt it in its first chunk: it holds the run, and will not let go."""
    running = start(store, *ALONE)
    folder = store / "runs" / shell.params().run("warm", 0).id
    assert running.until(lambda: read_progress(folder).state == "training")
    running.process.send_signal(signal.SIGSTOP)
    return running


def assert_tracked_once(store, settings=TINY) -> None:
    client = shell.mlflow_client(store)
    for name, run in shell.mlflow_runs(store, settings).items():
        assert run.info.status == "FINISHED", name
        if name != "summary":
            points = client.get_metric_history(run.info.run_id, "test_accuracy")
            assert sorted(point.step for point in points) == list(range(1, CHUNKS + 1))


def test_the_same_comparison_twice_at_once_trains_each_run_once(alone, tmp_path):
    first = start(tmp_path / "store", "compare")
    second = beside(first, "second", "compare")
    both = first.end(), second.end()
    assert [ended.code for ended in both] == [0, 0], [ended.err for ended in both]
    lines = [line for ended in both for line in ended.err.splitlines()]
    assert all(re.fullmatch(WAITING, line) for line in lines), lines
    assert shell.results(first.store) == shell.results(alone.store)
    assert shell.weights(first.store) == shell.weights(alone.store)
    assert shell.sql(first.store, TRAINED) == [(RUNS * CHUNKS,)]
    assert_tracked_once(first.store)
    assert shell.within(10, lambda: not shell.processes_of(first.store))


def test_different_comparisons_share_a_store_and_wait_for_nothing(tmp_path):
    other = (*TINY, "seeds=[1]", "training.max_epochs=19")
    first = start(tmp_path / "store", "compare", settings=ONE)
    second = beside(first, "second", "compare", settings=other)
    both = first.end(), second.end()
    assert [ended.code for ended in both] == [0, 0], [ended.err for ended in both]
    assert not any("waiting for run" in ended.err or "Traceback" in ended.err for ended in both)
    for settings in (ONE, other):
        assert_tracked_once(first.store, settings)


def test_who_waits_takes_over_from_a_killed_command(alone, tmp_path):
    first = frozen(tmp_path / "store")
    second = beside(first, "second", "compare")
    try:
        assert second.until(lambda: "waiting for run" in said(second))
        assert second.until(lambda: "dash 0" in shell.records(first.store))  # meanwhile the other run is done
        assert re.fullmatch(WAITING, said(second).strip())
        assert f"process {first.process.pid} on" in said(second)
    finally:
        first.kill()
    ended = second.end()
    assert (ended.code, len(ended.err.splitlines())) == (0, 1), ended.err
    assert shell.results(first.store) == shell.results(alone.store)
    assert shell.weights(first.store) == shell.weights(alone.store)
    assert_tracked_once(first.store)


@pytest.mark.parametrize("command", [("compare",), ALONE], ids=["compare", "run"])
def test_ctrl_c_while_waiting_stops_at_once_and_leaves_the_other_alone(tmp_path, command):
    first = frozen(tmp_path / "store")
    try:
        second = beside(first, "second", *command, settings=ONE)
        assert second.until(lambda: "waiting for run" in said(second))
        asked = time.monotonic()
        second.process.send_signal(signal.SIGINT)
        ended = second.end()
        assert ended.code == 130, ended.err
        assert time.monotonic() - asked < 20  # the private server records what has reached it
        assert "Traceback" not in ended.err
        assert first.process.poll() is None
    finally:
        first.kill()
