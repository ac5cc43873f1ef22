"""The thread that tracks: it brings MLflow to what the folders say, and never to a run's harm."""

import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from dash_core.errors import ConfigError
from tasks.store.place import Place
from tasks.store.progress import mark_progress
from tasks.tracking import follower as follower_module
from tasks.tracking.failures import Failures
from tasks.tracking.follower import Follower
from tasks.tracking.mirror import Mirror
from tests import toy

ROOT = Path(__file__).parents[2]
PARAMS = toy.params(seeds=[0, 1])
RUNS = [PARAMS.run("warm", seed) for seed in (0, 1)]


class Looked:
    """Stands for a mirror: writes down which runs it is asked to bring, by whom, and whether it may wait."""

    def __init__(self, folders):
        self.folders = folders
        self.leaving = self.opened = False
        self.brought, self.closed, self.said = [], [], []
        self.failures = Failures(self.said.append)
        self.looked = threading.Event()

    def bring(self, run, wait=False):
        self.brought.append((run.seed, wait, threading.current_thread().name))
        self.looked.set()

    def close(self, status):
        self.closed.append((status, threading.current_thread().name))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(follower_module, "POLL_SECONDS", 0.01)
    return Place(store=tmp_path, data_root=tmp_path, device="cpu")


@pytest.fixture
def mirror(place):
    return Looked(place)


def interrupt(mirror, place, state=None):
    """Leave the block by Ctrl-C, a run of it in the given state."""
    with Follower(mirror, RUNS):
        if state:
            mark_progress(place.run_folder(RUNS[0]), state)
        raise KeyboardInterrupt


def test_runs_are_looked_at_while_the_block_works_and_once_more_when_it_ends(mirror):
    with Follower(mirror, RUNS):
        assert mirror.looked.wait(60)
    assert mirror.brought[0] == (0, False, "tracking")
    assert mirror.brought[-2:] == [(0, True, "tracking"), (1, True, "tracking")]
    assert not mirror.leaving


def test_runs_are_looked_at_once_also_where_the_block_is_short(mirror, monkeypatch):
    monkeypatch.setattr(follower_module, "POLL_SECONDS", 60)
    with Follower(mirror, RUNS):
        pass
    assert mirror.brought == [(0, True, "tracking"), (1, True, "tracking")]


def test_a_block_that_is_left_by_an_error_closes_its_runs_and_opens_nothing_for_it(mirror, place, monkeypatch):
    monkeypatch.setattr(follower_module, "POLL_SECONDS", 60)
    with pytest.raises(KeyboardInterrupt):
        interrupt(mirror, place)
    assert mirror.brought == []
    with pytest.raises(KeyboardInterrupt):
        interrupt(mirror, place, "stopped")
    assert [seed for seed, *_ in mirror.brought] == [0, 1]
    assert mirror.leaving


class Terminated(BaseException):
    """Stands for Prefect's TerminationSignal: a SIGTERM within a flow, and no KeyboardInterrupt."""


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "KILLED"), (Terminated, "KILLED"), (OSError, "FAILED")]
)
def test_a_block_that_is_left_by_an_error_closes_the_comparisons_own_run_if_mlflow_shows_it(mirror, error, status):
    for mirror.opened in (False, True):
        with pytest.raises(error), Follower(mirror, RUNS):
            raise error
    assert mirror.closed == [(status, "tracking")]


def test_a_block_that_is_left_by_an_error_waits_no_longer_than_its_patience_and_tells_of_no_later_failure(
    mirror, place, monkeypatch
):
    held, failed = threading.Event(), threading.Event()

    def fail_when_python_ends(run, wait):
        with mirror.failures.apart("models"):
            held.wait(60)
            raise FileNotFoundError("a temporary folder that is gone")
        failed.set()

    monkeypatch.setattr(follower_module, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(mirror, "bring", fail_when_python_ends)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupt(mirror, place, "stopped")
    assert time.monotonic() - began < 30
    held.set()
    assert failed.wait(60)
    assert (mirror.said, list(mirror.failures.reasons)) == ([], ["models"])


def test_an_interrupt_while_a_complete_block_waits_for_mlflow_leaves_as_any_other(mirror, monkeypatch):
    held, sending = threading.Event(), threading.Event()

    def send(run, wait):
        sending.set()
        held.wait(60)

    class Interrupted(threading.Thread):
        """Ctrl-C comes while the thread is waited for without a limit."""

        def join(self, timeout=None):
            if timeout is None:
                assert sending.wait(60)
                raise KeyboardInterrupt
            super().join(timeout)

    mirror.opened = True
    monkeypatch.setattr(follower_module, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(follower_module.threading, "Thread", Interrupted)
    monkeypatch.setattr(mirror, "bring", send)
    with pytest.raises(KeyboardInterrupt), Follower(mirror, RUNS) as follower:
        pass
    assert mirror.leaving
    mirror.failures.note("models", OSError("too late"))
    assert mirror.said == []
    held.set()
    follower._thread.join(60)
    assert mirror.closed == [("KILLED", "tracking")]


def test_a_failure_within_the_patience_is_told(mirror, monkeypatch):
    monkeypatch.setattr(mirror, "bring", lambda run, wait: mirror.failures.note("models", OSError("disk full")))
    mirror.opened = True
    with pytest.raises(KeyboardInterrupt):
        interrupt(mirror, None)
    assert len(mirror.said) == 1


def test_an_address_that_is_none_is_refused_at_once(place, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "htp://h:1")
    with pytest.raises(ConfigError, match="MLflow cannot use htp://h:1"):
        Mirror(PARAMS, place, toy.dataset, Failures())


def test_mlflow_is_imported_only_when_a_run_has_begun(tmp_path):
    program = f"""
        import os, sys, time
        from pathlib import Path
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        from tasks.store.place import Place
        from tasks.store.runs import write_facts
        from tasks.tracking import follower
        from tasks.tracking.failures import Failures
        from tasks.tracking.mirror import Mirror
        from tests import toy
        follower.POLL_SECONDS = 0.05
        place = Place(store={str(tmp_path)!r}, data_root={str(tmp_path)!r}, device="cpu")
        mirror = Mirror(toy.params(), place, toy.dataset, Failures(print))
        (run,) = toy.params(**{{"compare": {{"methods": ["warm"]}}}}).runs()
        with follower.Follower(mirror, [run]):
            time.sleep(0.5)
            print(mirror.opened, "mlflow" in sys.modules)
            write_facts(place.run_folder(run), "split", {{}})
        print(mirror.opened, "mlflow" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.splitlines() == ["False False", "True True"], done.stderr
