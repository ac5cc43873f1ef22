"""A stream as a deployment of a real Prefect server: an event starts a pass, and a lost event loses nothing."""

import uuid
from datetime import UTC, datetime

import pytest

from tests.stream import small
from tests.system import shell
from tests.system.test_flows import _ask, _runs, _service
from tests.system.test_flows import server as server

pytestmark = pytest.mark.slow
DEPLOYMENT = "arrive-on-schedule/arrive-toy"


def test_an_event_starts_a_pass_and_what_no_event_told_of_is_taken_by_the_next(server, tmp_path):
    url, environ = server
    with small.without_export():
        stream = small.create(tmp_path / "store", images=48)
    deployed = shell.dashpipe(
        tmp_path / "store", "stream", "deploy", "toy", settings=(), PREFECT_API_URL=url, DO_NOT_TRACK="true"
    )
    assert deployed.code == 0, deployed.err
    assert DEPLOYMENT in deployed.out
    deployment = _ask(url, f"/deployments/name/{DEPLOYMENT}")
    assert [schedule["schedule"]["cron"] for schedule in deployment["schedules"]] == ["*/15 * * * *"]

    def arrivals() -> list[str]:
        return [arrival.source for arrival in stream.read()[1].arrivals]

    with _service(["worker", "start", "--pool", "local", "--type", "process"], environ, tmp_path / "worker.log"):
        small.deliver(tmp_path / "store" / "inbox" / "told", 16, seed=1)
        event = {
            "id": str(uuid.uuid4()),
            "event": "dashpipe.arrival.landed",
            "occurred": datetime.now(UTC).isoformat(),
            "resource": {"prefect.resource.id": "dashpipe.stream.toy"},
        }
        _ask(url, "/events", [event])
        assert shell.within(300, lambda: "told" in arrivals()), (tmp_path / "worker.log").read_text()
        small.deliver(tmp_path / "store" / "inbox" / "untold", 16, seed=2)
        _ask(url, f"/deployments/{deployment['id']}/create_flow_run", {})  # as the schedule does
        assert shell.within(300, lambda: "untold" in arrivals()), (tmp_path / "worker.log").read_text()
        assert shell.within(120, lambda: not _runs(url, "RUNNING"))
    again = shell.dashpipe(tmp_path / "store", "stream", "deploy", "toy", settings=(), PREFECT_API_URL=url)
    assert again.code == 0, again.err
    (schedule,) = _ask(url, f"/deployments/name/{DEPLOYMENT}")["schedules"]
    assert (schedule["schedule"]["cron"], schedule["active"]) == ("*/15 * * * *", True)
