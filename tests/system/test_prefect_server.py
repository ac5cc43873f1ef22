import asyncio
import contextlib
import http.server
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import psutil
import pytest

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
    store = tmp_path / "made if absent"
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
def test_server_that_cannot_start_names_its_log(tmp_path):
    (tmp_path / prefect_process.DATABASE_FILE).write_text("this is no database")
    server = PrivateServer(tmp_path).start()
    with pytest.raises(ServerError, match=r"prefect-server\.log"):
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
    with _answering(b"true") as url:
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


def test_configured_url_of_something_else_is_an_error(monkeypatch, tmp_path):
    with _answering(b"<html>") as url, pytest.raises(ConfigError, match="no Prefect API"):
        prefect_server.check_health(url)


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


@contextlib.contextmanager
def _answering(body):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/api"
    finally:
        server.shutdown()
        server.server_close()
