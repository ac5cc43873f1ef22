"""The flows inside Prefect: one run under Prefect's own test harness, and the deployment on a real server."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from dash_core.records import read_records
from tests.system import shell
from tests.system.shell import ROOT, TINY

PREFECT = Path(sys.executable).with_name("prefect")
DEPLOYMENT = "compare-methods/nightly"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The deployment of prefect.yaml on a server of its own: (URL of the API, environment of its clients)."""
    with serving(tmp_path_factory.mktemp("prefect")) as (url, environ, _):
        _prefect(environ, "--no-prompt", "deploy", "--all")
        yield url, environ


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Prefect's own, of its server's start
def test_flow_of_one_run_trains_every_chunk_and_completes(tmp_path):
    from prefect.states import StateType
    from prefect.testing.utilities import prefect_test_harness

    from flows.experiment import run_experiment
    from tasks.store.datasets import open_dataset
    from tasks.store.place import place_of
    from tasks.tracking.failures import Failures
    from tasks.tracking.follower import Follower
    from tasks.tracking.mirror import Mirror

    settings = shell.params()
    place, run = place_of(settings, tmp_path, None), settings.runs()[0]
    mirror = Mirror(settings, place, lambda: open_dataset(settings.dataset, place), Failures())
    with prefect_test_harness(server_startup_timeout=120), Follower(mirror, [run]):
        state = run_experiment(run, place, return_state=True)
    assert state.type == StateType.COMPLETED
    assert [record.experiment for record in read_records(place.run_folder(run))] == [1, 2, 3]
    assert shell.mlflow_runs(tmp_path)["warm 0"].info.status == "FINISHED"


@pytest.mark.slow
def test_nightly_deployment_is_off_until_its_schedule_is_activated_then_runs_are_scheduled(server):
    url, _ = server
    deployment = _ask(url, f"/deployments/name/{DEPLOYMENT}")
    assert deployment["entrypoint"] == "flows/deployed.py:compare_methods"
    assert deployment["work_pool_name"] == "local"
    assert [schedule["active"] for schedule in deployment["schedules"]] == [False]
    assert _runs(url, "SCHEDULED") == []
    soon = (datetime.now(UTC) + timedelta(minutes=30)).isoformat()  # nothing is due while the tests last
    every_hour = {"schedule": {"interval": 3600, "anchor_date": soon}, "active": True}
    _ask(url, f"/deployments/{deployment['id']}/schedules", [every_hour])
    assert shell.within(90, lambda: len(_runs(url, "SCHEDULED")) >= 3)


@pytest.mark.slow
def test_process_worker_carries_a_run_of_the_deployment_out(server, tmp_path):
    url, environ = server
    deployment = _ask(url, f"/deployments/name/{DEPLOYMENT}")
    parameters = {"store": str(tmp_path), "overrides": list(TINY)}
    run = _ask(url, f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})
    with _service(["worker", "start", "--pool", "local", "--type", "process"], environ, tmp_path / "worker.log"):
        ended = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        assert shell.within(240, lambda: _ask(url, f"/flow_runs/{run['id']}")["state_type"] in ended)
    state = _ask(url, f"/flow_runs/{run['id']}")["state"]
    assert state["type"] == "COMPLETED", (state["message"], (tmp_path / "worker.log").read_text())
    assert set(shell.weights(tmp_path)) == {run.id for run in shell.params().runs()}
    assert not (tmp_path / ".dashpipe" / "prefect.db").exists()  # no private server beside the user's
    names = {flow_run["name"] for flow_run in _runs(url, "COMPLETED")}
    assert {"digits · cnn3_small · warm · seed 0", "digits · cnn3_small · dash · seed 0"} <= names


@contextlib.contextmanager
def serving(home):
    """Run a Prefect server with a work pool; yield (URL of its API, environment of its clients, the server)."""
    port = shell.free_port()
    url = f"http://127.0.0.1:{port}/api"
    environ = {name: value for name, value in os.environ.items() if name not in shell.FOREIGN}
    environ |= {"PREFECT_HOME": str(home), "PREFECT_API_URL": url, "DO_NOT_TRACK": "true"}
    environ |= {"PREFECT_SERVER_UI_ENABLED": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    words = ["server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with _service(words, environ, home / "server.log") as process:
        assert shell.within(180, lambda: _answers(url)), (home / "server.log").read_text()
        _prefect(environ, "work-pool", "create", "local", "--type", "process")
        yield url, environ, process


def _prefect(environ, *words):
    done = subprocess.run([PREFECT, *words], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def _service(words, environ, log):
    """Run a `prefect` command that does not end by itself; end it with every process it started."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [PREFECT, *words],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        family = [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.kill()
        process.wait()


def _ask(url, path, content=None):
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(5):
        try:
            with opener.open(request, timeout=30) as answer:
                return json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            if error.code != 503:  # the database is locked for a moment
                raise AssertionError(error.read().decode()) from None
            time.sleep(1)
    raise AssertionError(f"{path}: 503 again and again")


def _runs(url, state):
    return _ask(url, "/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": [state]}}}})


def _answers(url):
    try:
        return _ask(url, "/health") is True
    except OSError:
        return False
