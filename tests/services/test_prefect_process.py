"""How the private Prefect server answers when another writes to its database, and is started again when it ends."""

import asyncio
import subprocess
import sys

import pytest

from flows.services import prefect_process, prefect_server

PATIENT, SOON = (b"prefect-maintenance", b"true"), (b"retry-after", b"0.1")


def headers(statuses: list[int], method: str = "POST") -> list[set]:
    """Return the headers that an app's answers of these statuses get, one after the other."""
    answers, sent = iter(statuses), []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": next(answers), "headers": []})

    async def keep(message):
        sent.append(set(message["headers"]))

    served = prefect_process.retry_soon(app)
    for _ in statuses:
        asyncio.run(served({"method": method}, None, keep))
    return sent


def test_a_busy_database_is_tried_again_soon_and_the_tries_are_not_counted():
    assert headers([503, 201, 503]) == [{SOON, PATIENT}, set(), {SOON, PATIENT}]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_database_that_stays_busy_is_given_up_however_well_the_server_answers_else(monkeypatch, method):
    monkeypatch.setattr(prefect_process, "BUSY_SECONDS", 0.0)
    assert headers([200, 503], method) == [set(), {SOON}]


def test_a_server_that_cannot_be_started_again_is_tried_some_times_and_that_is_said_once(tmp_path, monkeypatch, capsys):
    def ended(*port):
        process = subprocess.Popen([sys.executable, "-c", ""], bufsize=0, **pipes)
        process.wait()
        tries.append(port)
        return process

    tries, pipes = [], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    monkeypatch.setattr(prefect_server, "RESTARTS", 2)
    server = prefect_server.PrivateServer(tmp_path)
    monkeypatch.setattr(server, "_launch", ended)
    server._process = ended()
    server._process.stdout.close()
    server.url = "http://127.0.0.1:4200/api"
    server._keep_up()
    server._keeper.join(30)
    assert tries == [(), (4200,), (4200,)]
    assert capsys.readouterr().err.splitlines() == [
        f"warning: {prefect_server.GIVEN_UP_WARNING}; its log: {server.store / prefect_server.LOG_FILE}"
    ]
    server._process.stdin.close()
