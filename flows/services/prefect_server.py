"""The Prefect API that a comparison uses: the user's own server, or a private one that lives as long as this process.

This module imports Prefect as late as possible, so that a private server can start while the rest still imports.
"""

import os
import re
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from dash_core.errors import ConfigError, DashError
from dash_core.files import check_space, telling_when_full
from flows.services.child import run_in_background, start_child, wait_healthy
from flows.services.prefect_access import new_auth_string
from flows.services.prefect_database import check_database
from flows.services.prefect_health import POLL_SECONDS, check_api, check_health, lost_server_error, quieten
from flows.services.prefect_process import DATABASE_FILE, LOG_FILE, SERVER_MODULE, server_environment
from flows.services.prefect_settings import API_URL, EMPTY_HOME, private_environment, private_settings

START_SECONDS = 120.0  # generous: a loaded machine imports and migrates slowly
ORDER_SECONDS = 60.0  # for a process that stands by to open its port
HEALTH_SECONDS = 10.0  # between two questions to a server that has answered before
SILENT_SECONDS = 60.0  # without an answer, after which a server is ended and started again
SENDING_SECONDS = 30.0  # for the answer of a busy server, before a process gives up what it still has to send
UNDRAINED_SECONDS = 2.0  # for Prefect's queues, where they cannot be asked to empty themselves
RESTARTS = 5  # of a private server that ends unasked
RESTARTED_WARNING = "the private Prefect server ended and is started again, the runs continue"
SILENT_WARNING = "the private Prefect server has not answered for {seconds:.0f} s and is started again"
GIVEN_UP_WARNING = (
    "the private Prefect server ended and cannot be started again; the same command continues from what is saved"
)
STOP_SECONDS = 25.0  # a little more than the server's own process takes at most to record


class ServerError(DashError):
    """A private server does not start or answer; the message names its log."""


@contextmanager
def prefect_api(store: Path, server: "PrivateServer | None" = None) -> Iterator[str]:
    """Yield the URL of a Prefect API that answers, set for this process and its children.

    It is the API that the user configured, or else a private server over `store`: `server`, or a new one. With a
    private server no other setting of the user's applies. At the end this process sends all its events and logs, and a
    private server records them before it stops.
    """
    with telling_when_full(store), ExitStack() as stack:
        url = configured_url() if server is None else None
        private, auth_string = url is None, None
        if private:
            stack.enter_context(private_environment(store))
            server = stack.enter_context(server or PrivateServer(store))
            url, auth_string = server.wait_ready(), server.auth_string
        else:
            check_api(url)
        stack.enter_context(_environment(API_URL, url))
        if private:
            stack.enter_context(private_settings())
        stack.enter_context(client_settings(url, auth_string))
        quieten()
        stack.callback(send_everything)
        yield url


def configured_url() -> str | None:
    """Return the API URL the user configured by environment, profile or file; None if there is none."""
    for name, url in os.environ.items():
        if name.upper() == API_URL and url:
            return url
    if not any(_mentions_an_api(path) for path in _settings_files()):
        return None
    from prefect.settings import get_current_settings

    return get_current_settings().api.url


@contextmanager
def client_settings(url: str, auth_string: str | None = None) -> Iterator[None]:
    """Make Prefect's client use `url`, and for a private server its secret; worker processes get both with their flow.

    A private server gets no heartbeats: they end each flow a second late.
    """
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        temporary_settings,
    )

    private = {PREFECT_API_AUTH_STRING: auth_string, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None} if auth_string else {}
    with temporary_settings({PREFECT_API_URL: url, **private}):
        yield


def send_everything() -> None:
    """Send the task-run events and logs that this process still holds, and wait until the server has them.

    Every worker process calls it before it ends: the server knows a task run by its events alone. If the server is
    lost, nothing is sent, because Prefect would try for seconds with each event.
    """
    if "prefect" not in sys.modules or lost_server_error(SENDING_SECONDS):
        return
    try:
        from prefect._internal.concurrency.services import QueueService

        drain = QueueService.drain_all
    except (ImportError, AttributeError):  # a private part of Prefect has moved: its threads send meanwhile
        time.sleep(UNDRAINED_SECONDS)
        return
    drain(at_exit=False)  # one call sends the queues of all kinds


class PrivateServer:
    """A Prefect server for this process alone: on 127.0.0.1, with the database `store/prefect.db`, ended with us.

    If it is killed, or does not answer any more, it is started again on the same database, and once it has answered on
    the same port. Only clients with `auth_string` may use it.
    """

    def __init__(self, store: Path) -> None:
        self.store = Path(store).resolve()
        self.url: str | None = None
        self.auth_string = new_auth_string()
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None

    def stand_by(self) -> Self:
        """Start the server's process, which imports for seconds; it serves nothing and writes nothing to the store."""
        if self._process is None or (self.url is None and self._process.poll() is not None):
            self._process = self._launch()
        return self

    def start(self) -> Self:
        """Start the server and return at once, its URL known; it answers some seconds later.

        RecordError if its database is damaged; ServerError if its process does not start.
        """
        if self.url is None:
            self.stand_by()
            self.store.mkdir(parents=True, exist_ok=True)
            (self.store / LOG_FILE).touch()
            check_database(self.store / DATABASE_FILE)
            self._open_port()
        return self

    def wait_ready(self, timeout: float = START_SECONDS) -> str:
        """Return the API's URL once it answers.

        A server that is killed meanwhile is started again, one that does not answer within `timeout` seconds once.
        ServerError if that does not help.
        """
        self.start()
        silent = 0
        for _ in range(1 + RESTARTS):
            if wait_healthy(self._process, self._is_healthy, timeout):
                self._ready = True
                self._keep_up()
                return self.url
            code = self._process.poll()
            if code is None:
                silent += 1
                if silent > 1:
                    break
                self._warn(SILENT_WARNING.format(seconds=timeout))
            elif code >= 0:  # it ended by itself, and would again
                raise self._failure("ended while it started")
            self._replace()
            self._open_port()
        raise self._failure(f"did not answer within {timeout:.0f} s" if silent else "was killed again and again")

    def stop(self) -> None:
        """Let the server record everything it received, then end it; a second call does nothing."""
        self._stopping.set()
        if self._keeper is not None:
            self._keeper.join()
        process, self._process, self.url = self._process, None, None
        if process is None:
            return
        if not self._ready:
            process.kill()  # it has nothing to record yet
        try:
            process.communicate(b"stop\n", timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _launch(self, *port: int) -> subprocess.Popen[bytes]:
        """Start a server's process, which waits for the word to serve, on a given port or any free one."""
        process = start_child(
            *("-m", SERVER_MODULE, str(self.store), *map(str, port)),
            stdin=subprocess.PIPE,  # our end closes when we die: the server's sign to stop
            stdout=subprocess.PIPE,
            env=server_environment(self.store),
            cwd=EMPTY_HOME,  # Prefect reads settings from its working folder
        )
        with suppress(BrokenPipeError):
            process.stdin.write(f"{self.auth_string}\n".encode())
        return process

    def _open_port(self) -> None:
        """Order the process to serve, and note its URL; a process that was killed, or does not answer, is replaced."""
        for attempt in range(1 + RESTARTS):
            if port := _order_to_serve(self._process):
                self.url = f"http://127.0.0.1:{port}/api"
                return
            if self._process.wait() >= 0 or attempt == RESTARTS:
                raise self._failure("did not start")
            self._replace()

    def _replace(self, *port: int) -> None:
        """End the process, if it has not ended, and start another in its place."""
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process = self._launch(*port)

    def _is_healthy(self, seconds: float) -> bool:
        with suppress(ConfigError):
            check_health(self.url, timeout=seconds)
            return True
        return False

    def _keep_up(self) -> None:
        """Start the server again if it ends unasked, or does not answer, at most RESTARTS times.

        Events sent meanwhile are lost.
        """
        port = urlsplit(self.url).port

        def keep() -> None:
            for attempt in range(RESTARTS):
                if (warning := self._watch(restarted=attempt > 0)) is None:
                    return
                self._replace(port)
                if _order_to_serve(self._process):
                    self._warn(warning)
                elif self._stopping.wait(2.0**attempt):  # something else may hold the port for a while
                    return
            if self._watch(restarted=True) is not None:
                self._process.kill()
                self._warn(GIVEN_UP_WARNING)

        if self._keeper is None:
            self._keeper = threading.Thread(target=keep, name="prefect-keeper", daemon=True)
            self._keeper.start()

    def _watch(self, restarted: bool) -> str | None:
        """Return what to say of the server once it has ended or fallen silent; None if it is to be stopped.

        restarted: it has not answered yet, so its imports still take their time.
        """
        answered = asked = time.monotonic()
        patience = START_SECONDS if restarted else SILENT_SECONDS
        while self._process.poll() is None:
            if self._stopping.wait(POLL_SECONDS):
                return None
            now = time.monotonic()
            if now - asked > HEALTH_SECONDS:
                asked = now
                if self._is_healthy(HEALTH_SECONDS):
                    answered, patience = now, SILENT_SECONDS
            if now - answered > patience:
                return SILENT_WARNING.format(seconds=patience)
        return RESTARTED_WARNING

    def _warn(self, warning: str) -> None:
        print(f"warning: {warning}; its log: {self.store / LOG_FILE}", file=sys.stderr, flush=True)

    def _failure(self, what: str) -> ServerError:
        """End the process and return an error with the last error of its log; DiskError if the disk is full."""
        process, self._process = self._process, None
        process.kill()
        process.communicate()
        check_space(self.store)
        lines = (self.store / LOG_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
        told = [line for line in lines if line.strip() and "SystemExit" not in line]
        errors = [line for line in told if re.match(r"[\w.]*(Error|Exception)\b", line)]
        last = (errors or told or ["(nothing was logged)"])[-1]
        return ServerError(
            f"the private Prefect server {what}: {last}\nits log: {self.store / LOG_FILE}; its database: "
            f"{self.store / DATABASE_FILE}, which may be moved away: no result is in it. To use a server of your own, "
            f"set {API_URL}."
        )


def _order_to_serve(process: subprocess.Popen[bytes]) -> int:
    """Tell a waiting process to serve; return its port, 0 if it has ended. One that does not answer is ended."""
    answers: list[bytes] = []
    with suppress(BrokenPipeError):
        process.stdin.write(b"serve\n")
    with process.stdout as pipe:
        reader = run_in_background(lambda: answers.append(pipe.readline()))
        reader.join(ORDER_SECONDS)
        if reader.is_alive():
            process.kill()
            reader.join()
    return int(answers[0].strip() or 0)


def _settings_files() -> Iterator[Path]:
    """Yield the files in which Prefect would look for a URL."""
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    yield Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml")).expanduser()
    yield from (Path("prefect.toml"), Path("pyproject.toml"), Path(".env"))


def _mentions_an_api(path: Path) -> bool:
    """Tell whether a settings file may name an API URL; only then Prefect, slow to import, is asked."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    if path.suffix != ".toml" or path.name == "profiles.toml":
        return API_URL in text.upper() or "PREFECT_PROFILES_PATH" in text.upper()
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return True
    section: Mapping = content.get("tool", {}).get("prefect", {}) if path.name == "pyproject.toml" else content
    return "api" in section or "profiles_path" in section


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
