"""MLflow away, slow or failing: runs go on, one warning says so, and `dashpipe sync` completes it from the records."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest

from dash_core.errors import ConfigError
from dash_core.result import read_result
from dash_core.views.summary import MethodRuns
from flows.services.prefect_server import LOST
from tasks.store.evidence import Evidence
from tasks.store.place import Place
from tasks.tracking import client as tracking
from tasks.tracking import run_tracker
from tasks.tracking.outage import LONGEST, Breaker, TrackerAway, explain
from tests import toy
from tests.faults import faulty_server
from tests.system import shell
from tests.system.shell import TINY, dashpipe, start

DATA = toy.dataset()
PARAMS = toy.params()
RUN = PARAMS.run("warm", 0)


@pytest.fixture
def impatient(monkeypatch):
    """MLflow's client asks once and waits a second; connections it leaves open are its own affair."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")


@pytest.fixture
def place(tmp_path):
    return Place(store=tmp_path, data_root=tmp_path, device="cpu")


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """An MLflow database that knows nothing yet: making one takes seconds."""
    store = tmp_path_factory.mktemp("database")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        tracking.find_experiment(tracking.tracking_uri(store), "none")
    return store / "mlflow.db"


@pytest.fixture
def embedded(database, place, monkeypatch):
    """The place with a database in its store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(database, place.store)
    return place


@pytest.fixture
def no_model(monkeypatch):
    """Log no model: torch's exporter takes seconds."""
    monkeypatch.setattr(run_tracker, "log_model", lambda uri, run_id, model, example: "none")


@pytest.fixture
def done(place):
    """What a complete run leaves."""
    return _complete(place)


def test_a_breaker_tells_the_first_reason_and_calls_no_more():
    told, calls = [], []
    breaker = Breaker(told.append)

    def fail(word):
        calls.append(word)
        raise OSError(f"no {word}")

    assert breaker.attempt(len, "abc") == 3
    assert [breaker.attempt(fail, word) for word in ("first", "second")] == [None, None]
    breaker.trip(OSError("later"))
    assert (calls, breaker.reason, told) == (["first"], "no first", ["no first"])
    with pytest.raises(TrackerAway, match="no first; nothing is lost"):
        breaker.check()
    assert breaker.attempt(len, "abc") == 3


def test_an_error_of_ours_is_not_taken_for_a_failure_of_mlflow():
    def refuse():
        raise ConfigError("no such address")

    with pytest.raises(ConfigError):
        Breaker().attempt(refuse)


def test_a_reason_is_short_names_the_cause_and_no_password():
    refused = (
        "API request to http://me:secret@h:1/api failed with exception HTTPConnectionPool(host='h', port=1): Max "
        "retries exceeded with url: /api (Caused by NewConnectionError(\"HTTPConnection(host='h', port=1): Failed to "
        'establish a new connection: [Errno 111] Connection refused"))'
    )
    assert explain(OSError(refused)) == "Failed to establish a new connection: [Errno 111] Connection refused"
    assert explain(OSError("(Caused by ResponseError('too many 500 errors'))")) == "too many 500 errors"
    assert explain(OSError("ask http://me:secret@h:1/\nagain")) == "ask http://h:1/ again"
    for secret in ("pa/ss", "p@ss", "p@/s@"):
        assert explain(OSError(f"no postgresql://me:{secret}@host/db there")) == "no postgresql://host/db there"
    assert len(explain(OSError("x" * 5000))) == LONGEST + 2
    assert explain(KeyError()) == "KeyError"


@pytest.mark.parametrize(
    "uri", ["htp://h:1", "http://[::1", "127.0.0.1:5000", "http://", "http:/h", "http://h:port", "odd+sql://h"]
)
def test_an_address_that_is_none_is_refused_before_anything_is_asked(uri, place, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI: MLflow cannot use"):
        run_tracker.track_comparison(PARAMS, place, None)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"status": 500}, "too many 500|500"),
        ({"status": 403}, "403|out of order"),
        ({"status": 200, "page": b"<html>not MLflow</html>"}, "JSON|json|Expecting"),
        ({"status": 200, "page": b'{"experiment": 7}'}, "experiment"),
        ({"status": 200, "delay": 2.0}, "timed out"),
    ],
    ids=["500", "403", "another page", "another API", "silent"],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_failing_server_is_asked_once_and_the_run_goes_on(fault, reason, impatient, place, monkeypatch, done):
    with faulty_server() as server:
        vars(server).update(fault)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        tracked = run_tracker.track_comparison(PARAMS, place, None)
        asked = server.asked
        assert re.search(reason, tracked.breaker.reason)
        _track(tracked, place, done)
        assert run_tracker.tracked_ids(done.runs, place, tracked) == {RUN.id}  # what is on disk counts
        assert server.asked == asked <= 2


def test_a_damaged_database_does_not_stop_a_run(place, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (place.store / "mlflow.db").write_bytes(b"no database" * 1000)
    began = time.monotonic()
    tracked = run_tracker.track_comparison(PARAMS, place, None)
    assert tracked.breaker.reason == "file is not a database"
    assert time.monotonic() - began < 60


def test_records_complete_a_run_that_mlflow_half_knows_without_doubles(embedded, no_model, done):
    tracked = run_tracker.track_comparison(PARAMS, embedded, None)
    (records,) = done.methods[0].runs.values()
    run_tracker.RunTracker(tracked, RUN, "split", {}).log_chunks(records[:2])  # here MLflow went away
    added = [run_tracker.track_complete(done, embedded, embedded, tracked, lambda: DATA) for _ in range(2)]
    assert (added, tracked.breaker.reason) == ([[RUN.id], []], None)
    assert _points(tracked) == [(record.experiment, record.finished_at) for record in records]


def test_a_late_report_deletes_nothing_of_a_command_that_went_on_with_the_run(embedded, no_model, done):
    tracked = run_tracker.track_comparison(PARAMS, embedded, None)
    (records,) = done.methods[0].runs.values()
    run_tracker.track_complete(done, embedded, embedded, tracked, lambda: DATA)
    early = run_tracker.RunTracker(tracked, RUN, "split", {}, since=records[0].finished_at)
    early.log_chunks([])  # it had none when it began
    early.finish(embedded, RUN, None, None)
    assert _points(tracked) == [(record.experiment, record.finished_at) for record in records]


def test_a_run_trained_again_while_mlflow_was_away_replaces_the_one_it_knows(embedded, no_model, done):
    tracked = run_tracker.track_comparison(PARAMS, embedded, None)
    run_tracker.track_complete(done, embedded, embedded, tracked, lambda: DATA)
    tracked.breaker.attempt(len, None)  # off
    run_tracker.forget(RUN, embedded, tracked)
    time.sleep(0.01)
    again = _complete(embedded)
    tracked.breaker.reset()
    assert run_tracker.track_complete(again, embedded, embedded, tracked, lambda: DATA) == [RUN.id]
    (records,) = again.methods[0].runs.values()
    assert _points(tracked) == [(record.experiment, record.finished_at) for record in records]


@pytest.mark.slow
def test_comparison_without_a_server_is_whole_and_is_completed_once_it_answers(mlflow_server, tmp_path):
    port, store = _free_port(), tmp_path / "store"
    address = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    compared = dashpipe(store, "compare", **address)
    assert compared.code == 0
    assert _only_warning(compared).startswith("warning: MLflow failed: ")
    assert "Connection refused" in compared.err
    assert "Last acc. %" in compared.out
    assert len(shell.weights(store)) == 2
    early = dashpipe(store, "sync", **address)
    assert early.code == 1
    assert early.err.startswith("error: MLflow failed: ")
    assert early.err.count("\n") == 1
    with faulty_server(port) as server:
        server.upstream = mlflow_server
        first, second = (dashpipe(store, "sync", **address) for _ in range(2))
        _assert_complete(server.uri, store)
    assert (first.code, first.err, second.code, second.err) == (0, "", 0, "")
    assert first.out.splitlines()[-1].endswith("2 runs added, 0 were there, 0 not complete")
    assert second.out == f"MLflow   {server.uri}: 0 runs added, 2 were there, 0 not complete\n"


@pytest.mark.slow
def test_server_that_fails_in_mid_run_is_completed_by_the_same_command(mlflow_server, tmp_path):
    store, settings = tmp_path / "store", (*TINY, "seeds=[1]")
    with faulty_server() as server:
        server.upstream, server.healthy_for = mlflow_server, 6
        compared = dashpipe(store, "compare", settings=settings, MLFLOW_TRACKING_URI=server.uri)
        assert (compared.code, server.status) == (0, 500)
        assert "500 error responses" in _only_warning(compared)
        made = {path: path.stat().st_mtime_ns for path in store.glob("runs/*/result.json")}
        assert len(made) == 2
        server.status = server.healthy_for = None
        again = dashpipe(store, "compare", settings=settings, MLFLOW_TRACKING_URI=server.uri)
        assert (again.code, again.err) == (0, "")
        assert {path: path.stat().st_mtime_ns for path in store.glob("runs/*/result.json")} == made
        _assert_complete(server.uri, store, settings)


@pytest.mark.slow
def test_malformed_address_is_one_message_before_training(tmp_path):
    ended = dashpipe(tmp_path / "store", "compare", MLFLOW_TRACKING_URI="htp://127.0.0.1:5000")
    assert ended.code == 2
    assert ended.err.startswith("error: MLFLOW_TRACKING_URI: MLflow cannot use htp://127.0.0.1:5000 (")
    assert not list((tmp_path / "store").glob("runs/*/chunks.jsonl"))


@pytest.mark.slow
def test_comparison_whose_prefect_server_is_killed_goes_on_with_a_new_one_to_the_same_results(tmp_path):
    settings = (*TINY, "compare.workers=1")
    hurt = start(tmp_path / "store", "compare", settings=settings)
    assert hurt.until(lambda: shell.begun(hurt.store))
    hurt.look()
    (server,) = [child for child in hurt.family.values() if _is_prefect_server(child)]
    server.kill()
    ended = hurt.end()
    assert ended.code == 0
    log = hurt.store / ".dashpipe" / "prefect-server.log"
    assert ended.err == f"warning: {LOST}; its log: {log}\n"
    assert shell.within(10, lambda: hurt.survivors() == [])
    assert dict(shell.sql(hurt.store, "SELECT name, state_type FROM flow_run"))[shell.params().name] == "COMPLETED"
    whole = dashpipe(tmp_path / "whole", "compare", settings=settings)
    assert shell.results(hurt.store) == shell.results(whole.store)
    assert shell.weights(hurt.store) == shell.weights(whole.store)


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory):
    """Serve MLflow for real over a store of its own; the port."""
    folder = tmp_path_factory.mktemp("mlflow")
    port = _free_port()
    with _serving(folder, port):
        yield port


@contextmanager
def _serving(folder, port):
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    environ = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *words],
            env={name: value for name, value in environ.items() if name not in shell.FOREIGN},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        assert shell.within(180, lambda: _listens(port)), (folder / "log").read_text()
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # nothing of it is kept
        server.wait()


def _complete(place):
    """Train the toy run to its end in the store, and return it as evidence."""
    folder = place.run_folder(RUN)
    trained = toy.advance(toy.trajectory(folder, RUN, DATA))
    (folder / "config.yaml").write_text("chunks: 3\n")
    runs = [MethodRuns("warm", "warm", {0: trained.records})]
    return Evidence(PARAMS, [RUN], runs, [read_result(folder, RUN)], {0: "split"}, {})


def _track(tracked, place, done):
    tracker = run_tracker.RunTracker(tracked, RUN, "split", {})
    tracker.log_chunks(done.methods[0].runs[0])
    tracker.finish(place, RUN, None, None)
    tracked.close("FINISHED")


def _points(tracked):
    """Return (step, time) of every point of the one run that MLflow shows, beside the comparison's own."""
    client = tracking.client_of(tracked.uri)
    runs = client.search_runs([tracked.comparison.experiment_id], "tags.kind = 'run'")
    assert [run.info.status for run in runs] == ["FINISHED"]
    return sorted((point.step, point.timestamp) for point in client.get_metric_history(runs[0].info.run_id, "steps"))


def _only_warning(ended):
    (line,) = ended.err.splitlines()
    assert "`uv run dashpipe sync`" in line
    return line


def _assert_complete(uri, store, settings=TINY):
    """Assert that MLflow shows each run once, finished, with a point a chunk, its files and one model."""
    client = tracking.client_of(uri)
    experiment = client.get_experiment_by_name(shell.params(settings).name).experiment_id
    runs = client.search_runs([experiment])
    assert sorted(run.data.tags["kind"] for run in runs) == ["comparison", "run", "run"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(client.search_logged_models([experiment])) == 2
    for run in runs:
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        if run.data.tags["kind"] == "comparison":
            assert {"report.html", "table.md"} <= files
            continue
        records = shell.records(store, settings)[f"{run.data.tags['method']} {run.data.tags['seed']}"]
        points = client.get_metric_history(run.info.run_id, "test_accuracy")
        assert sorted((p.step, p.value) for p in points) == [(r.experiment, r.test_accuracy) for r in records]
        assert {"chunks.jsonl", "weights.safetensors", "result.json"} <= files


def _is_prefect_server(process):
    try:
        return "flows.services.prefect_process" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]
