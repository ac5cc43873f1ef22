"""A stream as a deployment of a real Prefect server: events, lost ones, fifty at once, and a server that is killed."""

import contextlib
import shutil
import uuid
from datetime import UTC, datetime

import psutil
import pytest

from tasks.store.locks import Busy
from tests.stream import crashing, small
from tests.system import shell
from tests.system.test_flows import _ask, _runs, _service, serving
from tests.system.test_flows import server as server

pytestmark = pytest.mark.slow
DEPLOYMENT = "arrive-on-schedule/arrive-toy"
WORKER = ["worker", "start", "--pool", "local", "--type", "process"]
TOGETHER = 50  # events


def event() -> dict:
    return {
        "id": str(uuid.uuid4()),
        "event": "dashpipe.arrival.landed",
        "occurred": datetime.now(UTC).isoformat(),
        "resource": {"prefect.resource.id": "dashpipe.stream.toy"},
    }


def deployed(store, url):
    """Create a stream and deploy it on a server; return the stream and the id of its deployment."""
    with small.without_export():
        stream = small.create(store, images=48)
    told = shell.dashpipe(store, "stream", "deploy", "toy", settings=(), PREFECT_API_URL=url, DO_NOT_TRACK="true")
    assert told.code == 0, told.err
    assert DEPLOYMENT in told.out
    return stream, _ask(url, f"/deployments/name/{DEPLOYMENT}")


def is_free(stream) -> bool:
    """Tell whether no pass is under way."""
    try:
        with stream.locked(wait=False):
            return True
    except Busy:
        return False


def arrivals(stream) -> list[str]:
    return [arrival.source for arrival in stream.read()[1].arrivals]


def test_an_event_starts_a_pass_and_what_no_event_told_of_is_taken_by_the_next(server, tmp_path):
    url, environ = server
    stream, deployment = deployed(tmp_path / "store", url)
    assert [schedule["schedule"]["cron"] for schedule in deployment["schedules"]] == ["*/15 * * * *"]
    (step,) = deployment["pull_steps"]  # a pass runs where the deployment was made: nothing is copied
    assert step == {"prefect.deployments.steps.set_working_directory": {"directory": str(shell.ROOT)}}
    with _service(WORKER, environ, tmp_path / "worker.log"):
        small.deliver(tmp_path / "store" / "inbox" / "told", 16, seed=1)
        _ask(url, "/events", [event()])
        assert shell.within(300, lambda: "told" in arrivals(stream)), (tmp_path / "worker.log").read_text()
        small.deliver(tmp_path / "store" / "inbox" / "untold", 16, seed=2)
        _ask(url, f"/deployments/{deployment['id']}/create_flow_run", {})  # as the schedule does
        assert shell.within(300, lambda: "untold" in arrivals(stream)), (tmp_path / "worker.log").read_text()
        assert shell.within(120, lambda: not _runs(url, "RUNNING"))
    again = shell.dashpipe(tmp_path / "store", "stream", "deploy", "toy", settings=(), PREFECT_API_URL=url)
    assert again.code == 0, again.err
    (schedule,) = _ask(url, f"/deployments/name/{DEPLOYMENT}")["schedules"]
    assert (schedule["schedule"]["cron"], schedule["active"]) == ("*/15 * * * *", True)


def test_of_fifty_events_at_once_none_fails_and_every_delivery_is_taken_once(tmp_path):
    (tmp_path / "prefect").mkdir()
    with serving(tmp_path / "prefect") as (url, environ, _):
        stream, deployment = deployed(tmp_path / "store", url)
        names = {f"day-{number}" for number in range(3)}
        for number, name in enumerate(sorted(names)):
            small.deliver(tmp_path / "store" / "inbox" / name, 16, seed=number + 1)
        with _service(WORKER, environ, tmp_path / "worker.log"):
            _ask(url, "/events", [event() for _ in range(TOGETHER)])

            def ended(*states: str) -> int:
                mine = {"deployments": {"id": {"any_": [deployment["id"]]}}}
                asked = mine | {"flow_runs": {"state": {"type": {"any_": states}}}}
                return _ask(url, "/flow_runs/count", asked)

            done = ("COMPLETED", "CANCELLED", "FAILED", "CRASHED")
            assert shell.within(600, lambda: ended(*done) >= TOGETHER), (tmp_path / "worker.log").read_text()
            assert ended("FAILED", "CRASHED") == 0
            assert ended("COMPLETED") >= 1
            assert ended("CANCELLED") >= 1  # a pass takes all that is pending, so no second one waits for it
    assert sorted(arrivals(stream)) == sorted({"first", *names})
    assert len(stream.read()[1].models) == 4


def test_a_server_that_is_killed_in_mid_pass_changes_nothing_of_what_is_released(tmp_path):
    (tmp_path / "prefect").mkdir()
    with serving(tmp_path / "prefect") as (url, environ, process):
        stream, _ = deployed(tmp_path / "store", url)
        for number in range(3):
            small.deliver(tmp_path / "store" / "inbox" / f"day-{number}", 16, seed=number + 1)
        shutil.copytree(tmp_path / "store", tmp_path / "undisturbed")
        with _service(WORKER, environ, tmp_path / "worker.log"):
            _ask(url, "/events", [event()])
            assert shell.within(300, lambda: "day-0" in arrivals(stream)), (tmp_path / "worker.log").read_text()
            for member in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            assert len(arrivals(stream)) < 4
            assert shell.within(300, lambda: is_free(stream)), (
                tmp_path / "worker.log"
            ).read_text()  # it ends by itself
    after = shell.dashpipe(tmp_path / "store", "stream", "arrive", "toy", settings=())
    assert after.code == 0, after.err
    other = tmp_path / "undisturbed" / "streams" / "toy"
    (other / "stream.yaml").write_text(
        (other / "stream.yaml").read_text().replace(str(tmp_path / "store"), str(tmp_path / "undisturbed"))
    )
    undisturbed = shell.dashpipe(tmp_path / "undisturbed", "stream", "arrive", "toy", settings=())
    assert undisturbed.code == 0, undisturbed.err
    assert crashing.history(stream) == crashing.history(type(stream)(other))
