"""MLflow away, slow or failing: runs continue, one warning says so, and `dashpipe sync` completes it from records."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import psutil
import pytest

from dash_core.errors import ConfigError
from flows.services.prefect_server import RESTARTED_WARNING
from tasks.store.place import Place
from tasks.tracking import client as tracking
from tasks.tracking import mirror as mirror_module
from tasks.tracking.failures import Failures, TrackerAway
from tasks.tracking.mirror import Mirror
from tasks.tracking.reasons import MAX_CHARACTERS, explain
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


@pytest.fixture
def done(place):
    """A complete run in the store."""
    folder = place.run_folder(RUN)
    records = toy.advance(toy.trajectory(folder, RUN, DATA)).records
    (folder / "config.yaml").write_text("chunks: 3\n")
    return records


def test_a_failure_is_told_once_a_kind_and_kinds_fail_apart():
    told = []
    failures = Failures(told.append)
    for word in ("first", "second"):
        with failures.apart("artifacts"):
            raise OSError(f"no {word}")
    assert (failures.off("artifacts"), failures.off("models"), failures.off("metrics")) == (True, False, False)
    with failures.apart("metrics"):
        raise ConfigError("no answer")
    assert failures.off("models")  # nothing else is tried where MLflow itself failed
    failures.note("models", OSError("later"))
    assert told == ["MLflow took no artifacts: no first", "MLflow failed: no answer"]
    with pytest.raises(TrackerAway, match=r"no artifacts: no first; MLflow failed: no answer; nothing is lost"):
        failures.check()
    Failures().check()


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
    assert len(explain(OSError("x" * 5000))) == MAX_CHARACTERS + 2
    assert explain(KeyError()) == "KeyError"


@pytest.mark.parametrize(
    "uri", ["htp://h:1", "http://[::1", "127.0.0.1:5000", "http://", "http:/h", "http://h:port", "odd+sql://h"]
)
def test_an_address_that_is_none_is_refused_before_anything_is_asked(uri, place, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI: MLflow cannot use"):
        _mirror(place)


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
        told = []
        mirror = _mirror(place, told.append)
        mirror.bring(RUN)
        asked = server.asked
        assert re.search(reason, mirror.failures.reasons["metrics"])
        mirror.bring(RUN)
        mirror.close("FINISHED")
        assert server.asked == asked <= 3  # whether it is there at all, its version, and one call
        assert len(told) == 1


def test_a_damaged_database_does_not_stop_a_run(place, monkeypatch, done):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (place.store / "mlflow.db").write_bytes(b"no database" * 1000)
    began = time.monotonic()
    mirror = _mirror(place)
    mirror.bring(RUN)
    assert mirror.failures.reasons == {
        "metrics": f"{place.store / 'mlflow.db'} is damaged (file is not a database): move it away, and "
        "`dashpipe sync` makes it again from the records"
    }
    assert time.monotonic() - began < 60


def test_a_server_older_than_logged_models_gets_everything_else(mlflow_server, place, monkeypatch, done):
    with faulty_server() as server:
        server.upstream, server.unknown = mlflow_server, "logged-models"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        told = []
        mirror = _mirror(place, told.append)
        assert not mirror.bring(RUN)
        mirror.close("FINISHED")
        mirror.failures.check()  # `sync` succeeds: this server takes all that it has a place for
        assert told == ["MLflow took no models: the server is older than MLflow 3 and keeps no models"]
        client = tracking.client_of(server.uri)
        assert _points(mirror) == [(record.experiment, record.finished_at) for record in done]
        (run,) = client.search_runs([mirror._open().experiment_id], "tags.kind = 'run'")
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert {"chunks.jsonl", "config.yaml", "result.json", "weights.safetensors"} <= files
        monkeypatch.setattr(mirror_module, "log_model", lambda uri, run_id, model, **named: "none")  # a newer server
        assert [_mirror(place).bring(RUN) for _ in range(2)] == [True, False]


@pytest.mark.slow
def test_comparison_without_a_server_is_whole_and_is_completed_once_it_answers(mlflow_server, tmp_path):
    port, store = shell.free_port(), tmp_path / "store"
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
        server.upstream, server.healthy_for = mlflow_server, 3
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
def test_a_copied_store_goes_on_in_itself_and_its_pages_show_its_artifacts(tmp_path):
    assert dashpipe(tmp_path / "store", "compare").code == 0
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    before = _content(tmp_path / "store")
    more = (*TINY[:-1], "seeds=[0, 1]")
    for words, settings in ((("run", "--method", "dash", "--seed", "1"), TINY), (("compare",), more)):
        ended = dashpipe(tmp_path / "copy", *words, settings=settings)
        assert (ended.code, ended.err) == (0, "")
    assert _content(tmp_path / "store") == before
    shutil.rmtree(tmp_path / "copy")
    (tmp_path / "store").rename(tmp_path / "moved")
    pages = start(tmp_path / "moved", "ui", "--no-browser", "--port", "0")
    assert pages.until(lambda: "http" in pages.outputs[0].read_text(), 120), pages.outputs[1].read_text()
    base = re.search(r"http://127\.0\.0\.1:\d+", pages.outputs[0].read_text())[0]
    summary = shell.mlflow_runs(tmp_path / "moved")["summary"]
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with ask.open(f"{base}/get-artifact?path=table.csv&run_uuid={summary.info.run_id}", timeout=60) as answer:
        assert answer.read() == next((tmp_path / "moved").glob("comparisons/*/table.csv")).read_bytes()
    pages.process.send_signal(signal.SIGTERM)
    assert pages.end(60).code == 0
    assert not (tmp_path / "store").exists()


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
    assert ended.err == f"warning: {RESTARTED_WARNING}; its log: {log}\n"
    assert shell.within(10, lambda: hurt.survivors() == [])
    assert dict(shell.sql(hurt.store, "SELECT name, state_type FROM flow_run"))[shell.params().name] == "COMPLETED"
    whole = dashpipe(tmp_path / "whole", "compare", settings=settings)
    assert shell.results(hurt.store) == shell.results(whole.store)
    assert shell.weights(hurt.store) == shell.weights(whole.store)


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory):
    """Serve MLflow for real over a store of its own; the port."""
    folder = tmp_path_factory.mktemp("mlflow")
    port = shell.free_port()
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


def _mirror(place, say=lambda message: None):
    return Mirror(PARAMS, place, lambda: DATA, Failures(say))


def _points(mirror):
    """Return (step, time) of every point of the one run that MLflow shows, beside the comparison's own."""
    client = tracking.client_of(mirror.uri)
    runs = client.search_runs([mirror._open().experiment_id], "tags.kind = 'run'")
    assert [run.info.status for run in runs] == ["FINISHED"]
    return sorted((point.step, point.timestamp) for point in client.get_metric_history(runs[0].info.run_id, "steps"))


def _content(store):
    return {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}


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
