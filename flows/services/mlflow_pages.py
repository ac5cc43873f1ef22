"""MLflow's pages over the comparisons of a store, served on this machine only."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dash_core.errors import ConfigError, DashError
from tasks.tracking.address import artifact_root, tracking_uri
from tasks.tracking.client import comparison_url, find_experiment
from tasks.tracking.moved import LocationsUnknown, own_artifacts

HOST = "127.0.0.1"
LOG = "mlflow-server.log"
START_SECONDS = 120.0
QUIET = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight more processes, none of them needed
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


def serve_ui(
    store: Path,
    port: int = 5000,
    open_browser: bool = False,
    comparison: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve MLflow's pages over `store` until Ctrl-C or SIGTERM, and say the address of the comparison.

    ConfigError if the port is taken or nothing was tracked yet; port 0 takes any free one.
    """
    uri = tracking_uri(store)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise ConfigError(f"nothing is tracked in {store} yet: run `dashpipe compare` first")
    port = _free_port(port)
    base = f"http://{HOST}:{port}"
    experiment = find_experiment(uri, comparison) if comparison else None
    try:
        own_artifacts(uri, store)
    except LocationsUnknown as error:
        say(f"note: {error}")
    with _until_terminated(), _server(uri, store, port) as server:
        _wait_ready(server, base, Path(store) / LOG)
        address = comparison_url(base, experiment) if experiment else base
        if comparison and not experiment:
            say(f"{comparison} is not tracked yet; the page lists what is")
        say(f"MLflow: {address}   (Ctrl-C ends it)")
        if open_browser:
            webbrowser.open(address)
        try:
            code = server.wait()
        except KeyboardInterrupt:
            return
        raise DashError(f"MLflow's server ended with code {code}; its log: {Path(store) / LOG}")


def _free_port(port: int) -> int:
    """Return `port` if it is free, any free one for 0; ConfigError if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} cannot be used: {error.strerror}; choose another with --port, or --port 0 for a free one"
            ) from None
        return probe.getsockname()[1]


@contextmanager
def _server(uri: str, store: Path, port: int) -> Iterator[subprocess.Popen]:
    """Run `mlflow server` in a process group of its own, and end the whole group."""
    place = ["--host", HOST, "--port", str(port), "--workers", "1"]
    data = ["--backend-store-uri", uri, "--artifacts-destination", str(artifact_root(store))]
    with (Path(store) / LOG).open("ab") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *place, *data],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **QUIET},
            start_new_session=True,  # Ctrl-C reaches us, and we end the group
        )
    try:
        yield server
    finally:
        _end(server)


def _end(server: subprocess.Popen) -> None:
    """End the server and its children: asked first, then forced."""
    for number, patience in ((signal.SIGTERM, 10), (getattr(signal, "SIGKILL", signal.SIGTERM), 10)):
        try:
            os.killpg(server.pid, number) if hasattr(os, "killpg") else server.send_signal(number)
            server.wait(timeout=patience)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    server.wait()


def _wait_ready(server: subprocess.Popen, base: str, log: Path) -> None:
    """Return once the server answers; DashError if it ends or stays silent."""
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with ask.open(f"{base}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise DashError(f"MLflow's server did not answer at {base}; its log: {log}")


@contextmanager
def _until_terminated() -> Iterator[None]:
    """Let SIGTERM end the block like Ctrl-C, also where the shell made background jobs ignore SIGINT."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except KeyboardInterrupt:
        return
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
