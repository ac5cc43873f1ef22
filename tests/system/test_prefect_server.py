import asyncio
import base64
import contextlib
import http.client
import http.server
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from dash_core.errors import ConfigError
from flows.services import prefect_process, prefect_server
from flows.services.environment import DEFAULTS, prepare_environment
from flows.services.prefect_server import PrivateServer, ServerError
from tests.system.shell import within

ROOT = Path(__file__).parents[2]
PROGRAM = """
    from flows.services.environment import prepare_environment
    prepare_environment()
    import signal, sys, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job would ignore it
    from pathlib import Path
    from flows.services.prefect_server import PrivateServer, prefect_api
    server = PrivateServer(Path(sys.argv[1])).start()
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE

    @task(cache_policy=NO_CACHE)
    def step(number):
        return number

    @flow
    def small(count):
        for number in range(count):
            step(number)
"""
RUN = """
    with prefect_api(Path(sys.argv[1]), server) as url:
        small(int(sys.argv[2]))
"""
STAND_BY = """
    import sys, time
    from pathlib import Path
    from flows.services.prefect_server import PrivateServer
    server = PrivateServer(Path(sys.argv[1])).stand_by()
    print("standing by", flush=True)
    time.sleep(60)
"""
HANG = """
    with prefect_api(Path(sys.argv[1]), server) as url:
        small(1)
        print("running", flush=True)
        time.sleep(120)
"""


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch, tmp_path):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect-home"))


def test_every_task_run_is_recorded_nothing_is_printed_and_no_process_stays(tmp_path):
    store = tmp_path / "made if absent?#%41:memory:"
    ran = _python(PROGRAM + RUN, store, 150)
    assert ran.communicate() == ("", "")
    assert ran.returncode == 0
    assert _counts(store, "task_run") == {"COMPLETED": 150}
    assert _counts(store, "flow_run") == {"COMPLETED": 1}
    assert _rows(store, "SELECT count(*) FROM log")[0][0] >= 150
    assert (store / prefect_process.LOG_FILE).read_text() == ""
    assert within(30, lambda: _servers_of(store) == [])


def test_a_batch_under_way_is_recorded_before_the_server_stops():
    done = []

    async def record(events):
        await asyncio.sleep(0.05)
        done.append(events)

    async def periodic():
        await prefect_process.finish_when_cancelled(record)(["event"])
        await asyncio.sleep(60)

    async def stopped_in_mid_batch():
        task = asyncio.create_task(periodic())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task], timeout=5)
        return task.cancelled()

    assert asyncio.run(stopped_in_mid_batch())
    assert done == [["event"]]


def test_a_batch_that_fails_or_is_cancelled_by_itself_says_so():
    async def broken(events):
        raise ValueError("no disk")

    async def cancelled(events):
        raise asyncio.CancelledError

    with pytest.raises(ValueError, match="no disk"):
        asyncio.run(prefect_process.finish_when_cancelled(broken)([]))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(prefect_process.finish_when_cancelled(cancelled)([]))


@pytest.mark.slow
def test_two_private_servers_share_a_store(tmp_path):
    both = [_python(PROGRAM + RUN, tmp_path, 40) for _ in range(2)]
    assert [ran.communicate() for ran in both] == [("", "")] * 2
    assert [ran.returncode for ran in both] == [0, 0]
    assert _counts(tmp_path, "task_run") == {"COMPLETED": 80}
    assert within(30, lambda: _servers_of(tmp_path) == [])


def test_a_server_that_stands_by_writes_nothing_and_ends_unused_or_with_its_parent(tmp_path):
    store = tmp_path / "store"
    server = PrivateServer(store).stand_by()
    assert within(30, lambda: len(_servers_of(store)) == 1)  # a process is found once it runs its program
    server.stop()
    assert within(30, lambda: _servers_of(store) == [])
    parent = _python(STAND_BY, store)
    assert parent.stdout.readline() == "standing by\n"
    assert within(30, lambda: len(_servers_of(store)) == 1)
    parent.kill()
    parent.communicate()
    assert within(30, lambda: _servers_of(store) == [])
    assert not store.exists()


def test_server_ends_with_a_killed_parent(tmp_path):
    parent = _python(PROGRAM + HANG, tmp_path)
    assert parent.stdout.readline() == "running\n"
    assert within(30, lambda: len(_servers_of(tmp_path)) == 1)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()  # returns: no orphan holds our pipes
    assert within(30, lambda: _servers_of(tmp_path) == [])


@pytest.mark.slow
def test_ctrl_c_ends_the_parent_and_its_server(tmp_path):
    parent = _python(PROGRAM + HANG, tmp_path)
    assert parent.stdout.readline() == "running\n"
    os.killpg(parent.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in parent.communicate()[1]
    assert _counts(tmp_path, "task_run") == {"COMPLETED": 1}
    assert within(30, lambda: _servers_of(tmp_path) == [])


@pytest.mark.slow
def test_server_that_cannot_start_names_its_log_and_its_database(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / prefect_process.DATABASE_FILE)) as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('of a newer Prefect')")
        database.commit()
    server = PrivateServer(tmp_path).start()
    with pytest.raises(
        ServerError, match=r"ended while it started: .*newer Prefect.*\n.*prefect-server\.log.*prefect\.db"
    ):
        server.wait_ready(60)
    server.stop()
    assert within(30, lambda: _servers_of(tmp_path) == [])


def test_stopping_twice_or_before_the_start_does_nothing(tmp_path):
    server = PrivateServer(tmp_path)
    server.stop()
    server.start()
    server.stop()
    server.stop()
    assert within(30, lambda: _servers_of(tmp_path) == [])


def test_configured_url_is_used_as_it_is(monkeypatch, tmp_path):
    with _answering(b"true", b'"3.8.8"') as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        with prefect_server.prefect_api(tmp_path / "store") as used:
            assert used == url
    assert os.environ["PREFECT_API_URL"] == url
    assert not (tmp_path / "store").exists()


def test_configured_url_of_the_profile_is_found(monkeypatch, tmp_path):
    profiles = 'active = "mine"\n[profiles.mine]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\n'
    (tmp_path / "prefect-home").mkdir()
    (tmp_path / "prefect-home" / "profiles.toml").write_text(profiles)
    program = "from flows.services.prefect_server import configured_url; print(configured_url())"
    assert _python(program).communicate() == ("http://127.0.0.1:9/api\n", "")


def test_configured_url_that_does_not_answer_is_an_error_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with (
        pytest.raises(ConfigError, match=r"http://127.0.0.1:9/api .*prefect server start.*unset"),
        prefect_server.prefect_api(tmp_path),
    ):
        pass


@pytest.mark.parametrize("answers", [(b"<html>",), (b"true",), (b"true", b"<html>"), (b"true", b'"true"')])
def test_configured_url_of_something_else_is_an_error(answers):
    with _answering(*answers) as url, pytest.raises(ConfigError, match="no Prefect API"):
        prefect_server.check_api(url)


def test_an_answer_without_end_is_no_prefect_api_and_is_not_waited_for():
    """One that comes fast would fill the memory, one that comes byte by byte would take for ever."""
    with _answering(*[b"true"] * 2, endless=b"x" * 100_000) as url, pytest.raises(ConfigError, match="no Prefect API"):
        prefect_server.check_health(url, timeout=5)
    with (
        _answering(b"true", endless=b"x", pause=0.05) as url,
        pytest.raises(ConfigError, match="does not end within 0 s"),
    ):
        prefect_server.check_health(url, timeout=0.3)


def test_a_password_in_the_url_is_sent_and_never_printed(monkeypatch):
    with _answering(b"true", b'"3.8.8"') as url:
        prefect_server.check_api(url.replace("//", "//me:pass%2Fw@"))
        assert url.seen[-1]["Authorization"] == "Basic " + base64.b64encode(b"me:pass/w").decode()
    for address in ("http://me:passw@127.0.0.1:9/api", "http://me:pa:ss@w@[::1/api", "http://passw@127.0.0.1:9x/api"):
        with pytest.raises(ConfigError) as raised:
            prefect_server.check_health(address, timeout=5)
        monkeypatch.setenv("PREFECT_API_URL", address)
        for message in (raised.value, prefect_server.lost_server_error()):
            assert "pa" not in str(message).replace("PREFECT_API_URL", "").replace("/api", "")


def test_a_private_server_answers_its_own_clients_only(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_CLIENT_CUSTOM_HEADERS", '{"x-mine": "theirs"}')
    with PrivateServer(tmp_path) as server:
        url = urlsplit(server.wait_ready())
        secret = {"Authorization": "Basic " + base64.b64encode(server.auth_string.encode()).decode()}

        def status(path="/api/flows/count", method="POST", **headers):
            connection = http.client.HTTPConnection(url.netloc, timeout=60)
            connection.request(method, path, "{}" if method == "POST" else None, headers)
            answer = connection.getresponse()
            assert "access-control-allow-origin" not in answer.headers
            answers.append(answer.read())
            connection.close()
            return answer.status

        answers = []
        assert status(**secret) == 200
        assert status() == status(Authorization="Basic ZGFzaHBpcGU6") == status("/api/admin/settings", "GET") == 401
        assert status(**secret, Origin="http://evil.example") == status(**secret, Origin="null") == 403
        assert status(**secret, Host=f"evil.example:{url.port}") == status(**secret, Host="localhost") == 403
        assert status(method="OPTIONS", Origin=f"http://{url.netloc}") == 403
        assert status("/api/admin/settings", "GET", **secret) == 200
        assert not any(word in answers[-1] for word in (b"theirs", server.auth_string.encode()))
        events = f"ws://{url.netloc}/api/events/in"
        with pytest.raises(InvalidStatus), connect(events, origin="http://evil.example", subprotocols=["prefect"]):
            pass  # refused before
        with connect(events, subprotocols=["prefect"]) as socket:
            socket.send('{"type": "auth", "token": "guessed"}')
            with pytest.raises(ConnectionClosed):
                socket.recv(60)
        (pid,) = _servers_of(tmp_path)
        process = psutil.Process(pid)
        for signal_of_a_job in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT):
            process.send_signal(signal_of_a_job)
        assert status(**secret) == 200
        told = [*process.cmdline(), *process.environ().values(), *os.environ.values()]
        assert not any(server.auth_string.partition(":")[2] in word for word in told)
    assert not any(server.auth_string.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_server_killed_before_its_first_answer_or_stopped_for_good_is_started_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prefect_server, "HEALTH_SECONDS", 1.0)
    monkeypatch.setattr(prefect_server, "SILENT_SECONDS", 5.0)
    with PrivateServer(tmp_path) as server:
        first = server._process
        first.kill()
        url = server.wait_ready()
        second = server._process
        assert second.pid != first.pid
        second.send_signal(signal.SIGSTOP)
        assert within(60, lambda: server._process.pid != second.pid)
        assert within(60, lambda: server._is_healthy(1.0))
        assert server.url == url
    assert within(30, lambda: _servers_of(tmp_path) == [])
    assert "has not answered for 5 s and is started again" in capsys.readouterr().err


def test_settings_of_the_project_reach_prefect():
    program = """
        from prefect.settings import get_current_settings
        server = get_current_settings().server
        print(server.services.task_run_recorder.batch_size, server.services.event_persister.batch_size,
              server.ephemeral.startup_timeout_seconds, server.analytics_enabled)
    """
    assert _python(program).communicate() == ("100 200 120 False\n", "")


def test_environment_keeps_what_the_user_set():
    environ = {"OMP_NUM_THREADS": "4", "http_proxy": "http://proxy", "no_proxy": "example.org"}
    prepare_environment(environ)
    assert environ["OMP_NUM_THREADS"] == "4"
    assert environ["no_proxy"] == "example.org,127.0.0.1,localhost"
    assert set(DEFAULTS) <= set(environ)


def _python(program, *arguments):
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes)


def _servers_of(store):
    mine = str(Path(store).resolve())
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        alive = process.info["status"] != psutil.STATUS_ZOMBIE
        if alive and (process.info["cmdline"] or [])[-2:] == [prefect_process.SERVER_MODULE, mine]:
            found.append(process.pid)
    return found


def _rows(store, query):
    with contextlib.closing(sqlite3.connect(store / prefect_process.DATABASE_FILE)) as database:
        return database.execute(query).fetchall()


def _counts(store, table):
    return dict(_rows(store, f"SELECT state_type, count(*) FROM {table} GROUP BY state_type"))


class _Url(str):
    """An address, with the headers of the requests that arrived there."""

    seen: list


@contextlib.contextmanager
def _answering(*bodies, endless=b"", pause=0.0):
    """Yield the URL of a server that answers with each body in turn, and with the last one from then on.

    endless: is sent again and again after the body. pause: seconds before each.
    """

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            url.seen.append(self.headers)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(bodies[min(len(url.seen), len(bodies)) - 1])
            with contextlib.suppress(OSError):  # who asked has gone
                while endless and not ended.wait(pause):
                    self.wfile.write(endless)

        def log_message(self, *_):
            pass

    ended = threading.Event()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    url = _Url(f"http://127.0.0.1:{server.server_port}/api")
    url.seen = []
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield url
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
