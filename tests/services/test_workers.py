"""Worker processes, for real: what dies takes only its own run with it, and nothing outlives the parent."""

import contextlib
import errno
import inspect
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from dash_core.errors import ConfigError, DashError
from flows.services import workers
from flows.services.executor import Ended, Executor, Stopped, WorkerDied, open_executor
from flows.services.notices import warnings_shown
from flows.services.workers import WorkerPool
from tests import jobs
from tests.system.shell import within

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _workers_without_the_heavy_imports(monkeypatch):
    """Spawned workers: what they share with forked ones is all that is tested, and no fork server stays behind."""
    monkeypatch.setattr(workers, "_context", lambda: multiprocessing.get_context("spawn"))


def gone(pid: int) -> bool:
    """Tell whether a process is gone, or is dead and only not waited for, within some seconds."""

    def dead() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return within(30, dead)


def test_answers_and_errors_travel_and_a_killed_worker_fails_its_own_call_only():
    with WorkerPool(1, threads=3) as pool:
        first = pool.call(jobs.whoami)
        assert first != os.getpid()
        assert pool.call(jobs.whoami) == first
        assert pool.call(jobs.threads) == ("3", True)

        with pytest.raises(ConfigError, match="refused: no"):
            pool.call(jobs.refuse, "no")
        with pytest.raises(ZeroDivisionError):
            pool.call(jobs.divide, 1, 0)
        assert pool.call(jobs.whoami) == first

        with pytest.raises(WorkerDied, match=r"died without a word.*the same command continues"):
            pool.call(jobs.die)
        second = pool.call(jobs.whoami)
        assert second != first
        assert pool.call(jobs.divide, 6, 3) == 2

        os.kill(second, signal.SIGKILL)  # while it is idle: no call is lost
        assert gone(second)
        (worker,) = pool._workers
        assert within(30, lambda: worker._broken)  # it takes a moment until the pool has noticed
        third = pool.call(jobs.whoami)
        assert third not in (first, second)
    assert gone(third)


def test_calls_of_several_threads_run_side_by_side_and_one_death_leaves_the_others():
    with WorkerPool(2, threads=1) as pool, ThreadPoolExecutor(3) as callers:
        pids = set(callers.map(pool.call, [jobs.whoami] * 2))
        slow = callers.submit(pool.call, jobs.sleep, 0.5)
        dying = callers.submit(pool.call, jobs.die)
        waiting = callers.submit(pool.call, jobs.divide, 1, 2)
        assert isinstance(dying.exception(), WorkerDied)
        assert slow.result() == 0.5
        assert waiting.result() == 0.5
    assert all(gone(pid) for pid in pids)


def test_all_warnings_are_printed_in_order_by_the_end_of_the_block_also_those_of_a_worker_that_died(capsys):
    with WorkerPool(1, threads=1) as pool:
        pool.call(jobs.tell, 100)
        with pytest.raises(WorkerDied):
            pool.call(jobs.tell, 3, True)
    printed = [" ".join(line.split()[:4]) for line in capsys.readouterr().err.splitlines()]
    assert printed == [f"warning: {number} of {count}" for count in (100, 3) for number in range(count)]


def test_a_warning_of_a_worker_that_the_command_has_printed_is_not_printed_again(capsys):
    with warnings_shown(), WorkerPool(1, threads=1) as pool:
        logging.getLogger("dash_core.data").warning("0 of 1")
        pool.call(jobs.tell, 1)
        pool.call(jobs.tell, 2)
    assert [line[:15] for line in capsys.readouterr().err.splitlines()] == [
        "warning: 0 of 1",
        "warning: 0 of 2",
        "warning: 1 of 2",
    ]


def test_after_an_error_in_the_block_workers_are_ended_at_once(capsys):
    started = time.monotonic()
    with contextlib.suppress(KeyError), ThreadPoolExecutor(1) as callers, WorkerPool(1, threads=1) as pool:
        pid = pool.call(jobs.whoami)
        call = callers.submit(pool.call, jobs.sleep, 60)
        assert within(30, lambda: pool._running)
        raise KeyError
    assert isinstance(call.exception(), Ended)
    assert gone(pid)
    assert capsys.readouterr().err == "stopping: the runs under way save their state …\n"
    assert time.monotonic() - started < 30


def test_what_does_not_stop_in_time_is_ended_and_that_is_said(monkeypatch, capsys):
    monkeypatch.setattr(workers, "SAVING_SECONDS", 0.2)
    printed = []

    def said(words: str) -> bool:
        printed.append(capsys.readouterr().err)
        return words in "".join(printed)

    with contextlib.suppress(KeyError), ThreadPoolExecutor(1) as callers, WorkerPool(1, threads=1) as pool:
        call = callers.submit(pool.call, jobs.never_mind)
        assert within(30, lambda: said("takes no notice"))
        raise KeyError
    assert isinstance(call.exception(), Ended)
    assert said("1 of the runs did not finish a step")


def test_a_pool_that_was_stopped_begins_no_run():
    with WorkerPool(1, threads=1) as pool:
        pool.terminate()
        with pytest.raises(Stopped, match="before this run began"):
            pool.call(jobs.whoami)


def test_a_system_that_gives_no_locks_is_a_message_that_says_where_they_are(monkeypatch):
    def refuse(*settings, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(workers, "ProcessPoolExecutor", refuse)
    with pytest.raises(DashError, match=r"no locks from the system \(No space left on device\); .*/dev/shm"):
        WorkerPool(1, threads=1)


PARENT = """
import multiprocessing, sys, time
from flows.services import workers
from tests import jobs

if __name__ == "__main__":
    multiprocessing.set_forkserver_preload([])
    workers._context = lambda: multiprocessing.get_context(sys.argv[1])
    pool = workers.WorkerPool(1, 1)
    print(pool.call(jobs.whoami), flush=True)
    pool.call(jobs.sleep, 60)
"""


@pytest.mark.parametrize("kind", ["spawn", "forkserver"])
def test_a_worker_at_work_ends_when_its_parent_is_killed(tmp_path, kind):
    if kind not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {kind} here")
    program = tmp_path / "parent.py"
    program.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, program, kind], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as parent:
        worker = int(parent.stdout.readline())
        assert psutil.pid_exists(worker)
        time.sleep(0.2)
        parent.kill()
    assert gone(worker)


REFUSED = """
import pathlib, sys, time
from flows.services.workers import start_early

start_early(["late"])
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.1)
print("bad data")
"""


@pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="no fork server here")
@pytest.mark.parametrize("slow", ["torch", "late"])  # what all workers import, and what this command's do besides
def test_a_fork_server_that_still_imports_ends_with_its_parent_and_keeps_no_output_open(tmp_path, slow):
    begun = tmp_path / "begun"
    (tmp_path / f"{slow}.py").write_text(f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep(60)")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    program = [sys.executable, "-c", REFUSED, str(begun)]
    done = subprocess.run(program, capture_output=True, text=True, env=environment, timeout=300)
    assert done.stdout == "bad data\n"


FORKED = """
from flows.services.workers import WorkerPool, start_early
from tests import jobs

if __name__ == "__main__":
    start_early(["wave"])
    with WorkerPool(1, threads=1) as pool:
        print(pool.call(jobs.has_imported, "wave"), pool.call(jobs.has_imported, "chunk"))
"""


@pytest.mark.skipif("forkserver" not in multiprocessing.get_all_start_methods(), reason="no fork server here")
def test_workers_are_forked_with_the_modules_that_their_work_will_import(tmp_path):
    program = tmp_path / "parent.py"
    program.write_text(FORKED)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, env=environment, timeout=300)
    assert done.stdout == "True False\n", done.stderr


def test_workers_take_the_gpus_in_turn_and_their_successors_too():
    with WorkerPool(3, threads=1, gpus=["0", "5"]) as pool, ThreadPoolExecutor(3) as threads:
        together = multiprocessing.get_context("spawn").Manager().Barrier(3)
        seen = sorted(threads.map(lambda _: pool.call(jobs.gpu, together), range(3)))
        assert seen == ["0", "0", "5"]
        for _ in range(3):
            with pytest.raises(WorkerDied):
                pool.call(jobs.die)
        assert sorted(threads.map(lambda _: pool.call(jobs.gpu, together), range(3))) == seen


def test_a_comparison_s_executor_is_a_pool_of_local_workers_with_the_interface_s_methods():
    for name in ("call", "terminate", "__enter__", "__exit__"):
        assert inspect.signature(getattr(WorkerPool, name)) == inspect.signature(getattr(Executor, name))
    with open_executor(1, 3, "cpu") as executor:
        assert isinstance(executor, WorkerPool)
        assert executor.call(jobs.threads) == ("3", True)


def test_without_gpus_what_is_visible_stays_as_it_is(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with WorkerPool(1, threads=1) as pool:
        assert pool.call(jobs.gpu) == "7"
