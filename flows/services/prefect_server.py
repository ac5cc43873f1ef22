"""The Prefect API that a comparison uses: the user's own server, or a private one that lives as long as this process.

This module imports Prefect as late as possible, so that a private server can start while the rest still imports.
"""

import os
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
from dash_core.files import telling_when_full
from flows.services.child import start_child, wait_healthy
from flows.services.prefect_health import POLL_SECONDS, check_health, lost_server_error, quieten
from flows.services.prefect_process import DATABASE_FILE, LOG_FILE, SERVER_MODULE, server_environment
from flows.services.prefect_settings import API_URL, EMPTY_HOME, private_environment, private_settings

START_SECONDS = 120.0  # generous: a loaded machine imports and migrates slowly
UNDRAINED_SECONDS = 2.0  # for Prefect's queues, where they cannot be asked to empty themselves
RESTARTS = 5  # of a private server that ends unasked
RESTARTED_WARNING = "the private Prefect server ended and is started again, the runs continue"
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
        private = url is None
        if private:
            stack.enter_context(private_environment(store))
            server = stack.enter_context(server or PrivateServer(store))
            url = server.wait_ready()
        else:
            check_health(url)
        stack.enter_context(_environment(API_URL, url))
        if private:
            stack.enter_context(private_settings())
        stack.enter_context(client_settings(url, private=private))
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
def client_settings(url: str, *, private: bool = True) -> Iterator[None]:
    """Make Prefect's client use `url`. It sends a private server no heartbeats: they end each flow a second late."""
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    silent = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None} if private else {}
    with temporary_settings({PREFECT_API_URL: url, **silent}):
        yield


def send_everything() -> None:
    """Send the task-run events and logs that this process still holds, and wait until the server has them.

    Every worker process calls it before it ends: the server knows a task run by its events alone. If the server is
    lost, nothing is sent, because Prefect would try for seconds with each event.
    """
    if "prefect" not in sys.modules or lost_server_error():
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

    If it ends unasked after it has answered once, it is started again on the same port and database.
    """

    def __init__(self, store: Path) -> None:
        self.store = Path(store).resolve()
        self.url: str | None = None
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
        """Start the server and return at once, its URL known; it answers some seconds later."""
        if self.url is None:
            self.stand_by()
            self.store.mkdir(parents=True, exist_ok=True)
            (self.store / LOG_FILE).touch()
            if not (port := _order_to_serve(self._process)):
                raise self._failure("did not start")
            self.url = f"http://127.0.0.1:{port}/api"
        return self

    def wait_ready(self, timeout: float = START_SECONDS) -> str:
        """Return the API's URL once it answers; ServerError if it does not within `timeout` seconds."""
        self.start()
        if wait_healthy(self._process, self._is_healthy, timeout):
            self._ready = True
            self._keep_up()
            return self.url
        raise self._failure(f"did not answer within {timeout:.0f} s")

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
        return start_child(
            *("-m", SERVER_MODULE, str(self.store), *map(str, port)),
            stdin=subprocess.PIPE,  # our end closes when we die: the server's sign to stop
            stdout=subprocess.PIPE,
            env=server_environment(self.store),
            cwd=EMPTY_HOME,  # Prefect reads settings from its working folder
        )

    def _is_healthy(self, seconds: float) -> bool:
        with suppress(ConfigError):
            check_health(self.url, timeout=seconds)
            return True
        return False

    def _keep_up(self) -> None:
        """Start the server again if it ends unasked, at most RESTARTS times; events sent meanwhile are lost."""
        port = urlsplit(self.url).port

        def keep() -> None:
            for attempt in range(RESTARTS):
                while self._process.poll() is None:
                    if self._stopping.wait(POLL_SECONDS):
                        return
                self._process.stdin.close()
                self._process = self._launch(port)
                if _order_to_serve(self._process):
                    print(
                        f"warning: {RESTARTED_WARNING}; its log: {self.store / LOG_FILE}", file=sys.stderr, flush=True
                    )
                elif self._stopping.wait(2.0**attempt):  # something else may hold the port for a while
                    return
            if self._process.poll() is not None:
                print(f"warning: {GIVEN_UP_WARNING}; its log: {self.store / LOG_FILE}", file=sys.stderr, flush=True)

        if self._keeper is None:
            self._keeper = threading.Thread(target=keep, name="prefect-keeper", daemon=True)
            self._keeper.start()

    def _failure(self, what: str) -> ServerError:
        """End the process and return an error with the last line of its log."""
        process, self._process = self._process, None
        process.kill()
        process.communicate()
        lines = (self.store / LOG_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
        last = next((line for line in reversed(lines) if line.strip()), "(nothing was logged)")
        return ServerError(
            f"the private Prefect server {what}: {last}\nits log: {self.store / LOG_FILE}; its database: "
            f"{self.store / DATABASE_FILE}. To use a server of your own, set {API_URL}."
        )


def _order_to_serve(process: subprocess.Popen[bytes]) -> int:
    """Tell a waiting process to serve; return its port, 0 if it has ended."""
    with suppress(BrokenPipeError):
        process.stdin.write(b"serve\n")
    with process.stdout as pipe:
        return int(pipe.readline().strip() or 0)


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
