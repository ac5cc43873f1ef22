"""How the private Prefect server answers when another writes to its database, and is started again when it ends."""

import asyncio
import signal
import subprocess
import sys

import pytest

from flows.services import prefect_process, prefect_server
from tests.system.shell import within

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


SERVER = """
import http.server, os, signal, sys

secret, word = sys.stdin.readline(), sys.stdin.readline()
if "{fault}" == "ends":
    sys.exit(3)

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if "{fault}" == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"true")

    def log_message(self, *words):
        pass

http.server.HTTPServer.allow_reuse_address = True
server = http.server.HTTPServer(("127.0.0.1", {port}), Answer)
print(server.server_port, flush=True)
if "{fault}" == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
server.serve_forever()
"""


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A private server whose processes have the faults in `faults`, one after the other; then they have none."""

    def launch(port=0):
        fault = server.faults.pop(0) if server.faults else ""
        if fault == "stopped early":
            words = ["-c", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"]
        else:
            words = ["-c", SERVER.format(fault=fault, port=port)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen([sys.executable, "-S", *words], bufsize=0, **pipes)
        process.stdin.write(b"secret\n")
        server.processes.append(process)
        return process

    monkeypatch.setattr(prefect_server, "POLL_SECONDS", 0.05)
    server = prefect_server.PrivateServer(tmp_path)
    server.faults, server.processes = [], []
    monkeypatch.setattr(server, "_launch", launch)
    yield server
    server._stopping.set()
    for process in server.processes:
        process.kill()
        process.wait()
        process.stdin.close()
    if server._keeper:
        server._keeper.join()


@pytest.mark.parametrize("faults", [[], ["killed"], ["killed", "killed"], ["stopped"], ["stopped early"]])
def test_a_server_that_is_killed_or_stopped_before_its_first_answer_is_started_again(server, faults, monkeypatch):
    monkeypatch.setattr(prefect_server, "ORDER_SECONDS", 1.0)
    server.faults = list(faults)
    url = server.wait_ready(timeout=2.0 if "stopped" in faults else 60.0)
    assert len(server.processes) == len(faults) + 1
    assert server._is_healthy(10.0)
    assert url == server.url


def test_a_server_that_ends_by_itself_or_answers_no_more_after_a_second_start_is_an_error(server, tmp_path):
    server.faults = ["ends", "stopped", "stopped"]
    with pytest.raises(prefect_server.ServerError, match="did not start"):
        server.wait_ready()
    assert len(server.processes) == 1
    with pytest.raises(prefect_server.ServerError, match="did not answer within 1 s"):
        server.wait_ready(timeout=1.0)
    assert len(server.processes) == 3


def test_a_server_that_is_stopped_for_good_is_started_again_on_its_port(server, monkeypatch, capsys):
    monkeypatch.setattr(prefect_server, "HEALTH_SECONDS", 0.2)
    monkeypatch.setattr(prefect_server, "SILENT_SECONDS", 0.5)
    url = server.wait_ready()
    server._process.send_signal(signal.SIGSTOP)
    assert within(60, lambda: len(server.processes) == 2)
    assert within(60, lambda: server._is_healthy(10.0))
    assert server.url == url
    server._stopping.set()
    server._keeper.join()
    assert "and is started again" in capsys.readouterr().err


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
