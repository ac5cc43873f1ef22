"""A private Prefect server and its clients use our settings only, wherever the user's are written."""

import json
import multiprocessing
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from flows.services import workers
from flows.services.prefect_process import SERVER_SETTINGS, server_environment
from flows.services.prefect_server import configured_url
from flows.services.prefect_settings import CLIENT_SETTINGS, EMPTY_HOME, is_private, private_environment
from flows.services.workers import WorkerPool
from tests import jobs
from tests.system import shell

ROOT = Path(__file__).parents[2]
URL = "sqlite+aiosqlite:///{folder}/{source}.db"
HOSTILE = {  # each of them would be noticed: a database of the user's, a server that wants a password, a failing start
    "PREFECT_SERVER_API_AUTH_STRING": "admin:secret",
    "PREFECT_API_KEY": "key",
    "PREFECT_CLIENT_CUSTOM_HEADERS": '{"x-mine": "1"}',
    "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
    "PREFECT_TASKS_DEFAULT_RETRIES": "2",
    "PREFECT_FLOWS_DEFAULT_RETRIES": "2",
    "PREFECT_LOGGING_LEVEL": "DEBUG",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "DEBUG",
    "PREFECT_SERVER_API_BASE_PATH": "/elsewhere",
}
SPELLINGS = [
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    "PREFECT_API_DATABASE_CONNECTION_URL",
    "prefect_server_database_connection_url",
    "PREFECT_SERVER_DATABASE_NAME",
    "PREFECT_API_DATABASE_NAME",
    "PREFECT_SERVER_DATABASE_DRIVER",
    "PREFECT_SERVER_DATABASE_HOST",
    "PREFECT_SERVER_DATABASE_PASSWORD",
    "PREFECT_SERVER_DATABASE_MIGRATE_ON_START",
    "PREFECT_PROFILE",
]
TOML = """
[{header}tasks]
default_retries = 3
[{header}logging]
level = "DEBUG"
[{header}server.api]
auth_string = "admin:secret"
[{header}server.database]
connection_url = "{url}"
"""
MILESTONES = EMPTY_HOME / ".sdk_telemetry" / "milestones.json"
PROGRAM = """
    from flows.services.environment import prepare_environment
    prepare_environment()
    import sys
    from pathlib import Path
    from flows.services.prefect_server import prefect_api
    with prefect_api(Path(sys.argv[1])):
        from prefect import flow, task
        from tests.jobs import prefect_settings

        @task
        def step():
            return prefect_settings()

        @flow
        def small():
            return step()

        @flow
        def failing():
            raise ValueError("kept by Prefect in the store")

        failing(return_state=True)
        settings = small()
        secret = settings.pop("auth").get_secret_value()
        print(settings, step.retries, secret.startswith("dashpipe:"))
"""
CLEAN = {"retries": 0, "flow_retries": 0, "level": "INFO", "key": None, "headers": {}}


@pytest.fixture
def hostile(tmp_path, monkeypatch) -> Path:
    """A working folder, environment and profile that name databases, keys, retries and a broker of the user's."""
    folder = tmp_path / "project"
    folder.mkdir()
    urls = {
        source: URL.format(folder=folder, source=source) for source in ("env", "dotenv", "toml", "pyproject", "profile")
    }
    lines = [f'{name} = "{value}"' for name, value in HOSTILE.items() if "{" not in value]
    lines.append(f'PREFECT_SERVER_DATABASE_CONNECTION_URL = "{urls["profile"]}"')
    (folder / "profiles.toml").write_text("\n".join(['active = "mine"', "[profiles.mine]", *lines]))
    dotenv = {**HOSTILE, "PREFECT_API_DATABASE_CONNECTION_URL": urls["dotenv"]}
    (folder / ".env").write_text("\n".join(f"{name}='{value}'" for name, value in dotenv.items()))
    (folder / "prefect.toml").write_text(TOML.format(header="", url=urls["toml"]))
    (folder / "pyproject.toml").write_text(TOML.format(header="tool.prefect.", url=urls["pyproject"]))
    for name, value in {**HOSTILE, **dict.fromkeys(SPELLINGS[:3], urls["env"])}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PREFECT_PROFILES_PATH", str(folder / "profiles.toml"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.chdir(folder)
    return folder


def test_a_private_server_touches_its_own_database_only_and_no_setting_of_the_user_applies(hostile, tmp_path):
    before = sorted(path.name for path in hostile.iterdir())
    program = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path / ".dashpipe")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == (f"{CLEAN} 0 True\n", "")
    assert sorted(path.name for path in hostile.iterdir()) == before
    assert shell.sql(tmp_path, "SELECT state_type FROM task_run") == [("COMPLETED",)]
    written = {path.name for path in EMPTY_HOME.rglob("*") if path.is_file()}
    assert written == {"profiles.toml", MILESTONES.name}  # nothing more: no file is written to the package
    assert len(list((tmp_path / ".dashpipe" / "prefect-errors").iterdir())) == 1


def test_prefect_has_no_first_time_to_note_in_our_package():
    """In a terminal Prefect writes which of its features were used for the first time, also where nothing is sent."""
    from prefect._internal.analytics.milestones import ALL_MILESTONES

    assert json.loads(MILESTONES.read_text()) == dict.fromkeys(ALL_MILESTONES, True)


def test_no_setting_of_the_user_applies_in_the_workers_of_a_private_server(hostile, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_context", lambda: multiprocessing.get_context("spawn"))
    with private_environment(tmp_path), WorkerPool(1, threads=1) as pool:
        assert pool.call(jobs.prefect_settings) == {**CLEAN, "auth": None}


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_of_a_database_is_kept_from_a_private_server(name, tmp_path, monkeypatch):
    monkeypatch.setenv(name, "theirs")
    environment = server_environment(tmp_path)
    assert "theirs" not in environment.values()
    ours = {name for name in environment if name.upper().startswith("PREFECT_")}
    assert ours == {*SERVER_SETTINGS, "PREFECT_SERVER_DATABASE_CONNECTION_URL"}


def test_settings_of_the_user_are_back_after_the_private_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_TASKS_DEFAULT_RETRIES", "2")
    before = dict(os.environ)
    with private_environment(tmp_path):
        assert is_private()
        with private_environment(tmp_path):
            assert {name: os.environ[name] for name in CLIENT_SETTINGS} == CLIENT_SETTINGS
        assert "PREFECT_TASKS_DEFAULT_RETRIES" not in os.environ
    assert dict(os.environ) == before


@pytest.mark.parametrize("name", ["PREFECT_API_URL", "prefect_api_url"])
def test_a_server_that_the_user_names_is_used_however_the_name_is_spelled(name, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv(name, "http://127.0.0.1:9/api")
    assert configured_url() == "http://127.0.0.1:9/api"
