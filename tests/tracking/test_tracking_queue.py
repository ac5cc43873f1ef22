"""The thread that tracks: in order, after the imports that are more urgent, and never to a run's harm."""

import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from dash_core.errors import ConfigError, RecordError
from dash_core.files import DiskError
from dash_core.records import milliseconds
from tasks.store.place import Place
from tasks.tracking import tracking_queue
from tasks.tracking.outage import Breaker
from tasks.tracking.run_tracker import Tracked
from tasks.tracking.tracking_queue import RunReporter, TrackingQueue
from tests import toy

ROOT = Path(__file__).parents[2]
PARAMS = toy.params(seeds=[0, 1])
FIRST, SECOND = (PARAMS.run("warm", seed) for seed in (0, 1))


class Tracker:
    """Stands for MLflow: writes down what it is told; 13 is more than it can take, 14 more than we can."""

    def __init__(self, tracked, run, split, facts, since):
        assert since <= milliseconds()
        self.seed = run.seed
        self.write("begin", split, facts)

    def write(self, *words):
        Tracker.told.append((self.seed, *words))

    def log_chunk(self, records):
        if records == [13]:
            raise OSError("no answer")
        if records == [14]:
            raise RecordError("a damaged record")
        self.write("log_chunk", records)

    def stop(self):
        self.write("stop")


@pytest.fixture
def told(monkeypatch):
    """What was told, in order."""
    Tracker.told = []
    monkeypatch.setattr(tracking_queue, "RunTracker", Tracker)
    monkeypatch.setattr(
        tracking_queue.tracking, "close_lost_run", lambda uri, comparison, **of: Tracker.told.append(of)
    )
    monkeypatch.setattr(tracking_queue, "track_comparison", lambda params, place, commit, breaker: _opened(breaker))
    return Tracker.told


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Place(store=tmp_path, data_root=tmp_path, device="cpu")


def _opened(breaker):
    Tracker.told.append(("open", threading.current_thread().name))
    return Tracked("sqlite:///nowhere", None, breaker)


def queue(place):
    return TrackingQueue(PARAMS, place, Breaker())


def test_all_that_was_reported_is_told_in_order_when_the_block_ends(told, place):
    with queue(place) as tracking:
        one, two = RunReporter(FIRST, tracking.put), RunReporter(SECOND, tracking.put)
        one.begin("split", {"device": "cpu"})
        two.begin("split", {})
        one.log_chunk([1])
        two.stop()
        one.log_chunk([1, 2])
    assert told == [
        ("open", "tracking"),
        (0, "begin", "split", {"device": "cpu"}),
        (1, "begin", "split", {}),
        (0, "log_chunk", [1]),
        (1, "stop"),
        (0, "log_chunk", [1, 2]),
    ]


def test_the_comparison_is_opened_also_where_no_run_reports(told, place):
    with queue(place):
        pass
    assert told == [("open", "tracking")]


@pytest.mark.parametrize(("loss", "reason"), [(13, "no answer"), (14, "a damaged record")], ids=["MLflow's", "ours"])
def test_a_failure_turns_tracking_off_and_is_no_failure_of_the_block(told, place, loss, reason):
    with queue(place) as tracking:
        one = RunReporter(FIRST, tracking.put)
        one.begin("split", {})
        one.log_chunk([loss])
        one.log_chunk([1])
    assert told[-1] == (0, "begin", "split", {})
    assert tracking.tracked.breaker.reason == reason


def test_a_comparison_that_cannot_be_opened_is_not_tracked(told, place, monkeypatch):
    def refuse(*given):
        raise DiskError("no space left")

    monkeypatch.setattr(tracking_queue, "track_comparison", refuse)
    with queue(place) as tracking:
        RunReporter(FIRST, tracking.put).begin("split", {})
    assert (tracking.tracked.comparison, tracking.tracked.breaker.reason, told) == (None, "no space left", [])


def test_a_run_that_is_no_longer_complete_is_not_finished(told, place):
    with queue(place) as tracking:
        one = RunReporter(FIRST, tracking.put)
        one.begin("split", {})
        one.finish()  # another command removed it in between
        one.begin("split", {})
    assert [words[1] for words in told[1:]] == ["begin", "begin"]
    assert tracking.tracked.breaker.reason is None


def stopped(place):
    """A run is reported as stopped, and the command ends by Ctrl-C."""
    with queue(place) as tracking:
        one = RunReporter(FIRST, tracking.put)
        one.begin("split", {})
        one.stop()
        raise KeyboardInterrupt


def test_a_block_that_is_left_by_an_error_closes_its_runs_and_opens_nothing_for_it(told, place):
    with pytest.raises(KeyboardInterrupt), queue(place):
        raise KeyboardInterrupt
    assert told == []
    with pytest.raises(KeyboardInterrupt):
        stopped(place)
    assert told[-1] == (0, "stop")


def test_a_block_that_is_left_by_an_error_waits_no_longer_than_its_patience(told, place, monkeypatch):
    held = threading.Event()
    monkeypatch.setattr(tracking_queue, "PATIENCE", 0.1)
    monkeypatch.setattr(Tracker, "stop", lambda self: held.wait(60))
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        stopped(place)
    assert time.monotonic() - began < 30
    held.set()


def test_an_address_that_is_none_is_refused_at_once(place, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "htp://h:1")
    with pytest.raises(ConfigError, match="MLflow cannot use htp://h:1"):
        queue(place)


def test_what_a_lost_run_had_sent_and_comes_late_is_not_heeded(told, place):
    with queue(place) as tracking:
        one = RunReporter(FIRST, tracking.put)
        one.lose("FAILED", "killed")
        one.begin("split", {})
        one.log_chunk([1])
        RunReporter(SECOND, tracking.put).begin("split", {})
    assert told[1:] == [{"key": FIRST.id, "status": "FAILED", "reason": "killed"}, (1, "begin", "split", {})]


def test_mlflow_is_imported_only_when_there_is_something_to_tell(tmp_path):
    program = f"""
        import sys, time
        from pathlib import Path
        from tasks.tracking.outage import Breaker
        from tasks.store.place import Place
        from tasks.tracking.tracking_queue import TrackingQueue
        from tests import toy
        place = Place(store={str(tmp_path)!r}, data_root={str(tmp_path)!r}, device="cpu")
        with TrackingQueue(toy.params(), place, Breaker()) as tracking:
            time.sleep(0.5)
            print("mlflow" in sys.modules)
            print(tracking.tracked.comparison is not None, "mlflow" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.splitlines() == ["False", "True True"], done.stderr
