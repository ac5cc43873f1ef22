"""MLflow's pages over the comparisons of a store, served on this machine only."""

import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dash_core.errors import ConfigError, DashError
from flows.services.child import end_group, start_child, wait_healthy
from tasks.tracking.address import artifact_root, tracking_uri
from tasks.tracking.client import comparison_url, find_experiment
from tasks.tracking.moved import LocationsUnknown, own_artifacts

HOST = "127.0.0.1"
LOG_FILE = "mlflow-server.log"
START_SECONDS = 120.0
SERVER_ENVIRONMENT = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # it starts eight processes, and nothing here needs them
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
    """Serve MLflow's pages over `store` on `port` until Ctrl-C or SIGTERM, and print the comparison's address.

    ConfigError if the port is taken or nothing is tracked yet; port 0 takes any free one.
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
    with _until_terminated(), _running_server(uri, store, port) as server:
        if not wait_healthy(server, lambda seconds: _answers(base, seconds), START_SECONDS):
            raise DashError(f"MLflow's server did not answer at {base}; its log: {Path(store) / LOG_FILE}")
        address = comparison_url(base, experiment) if experiment else base
        if comparison and not experiment:
            say(f"{comparison} is not tracked yet; the page lists the comparisons that are")
        say(f"MLflow: {address}   (Ctrl-C ends it)")
        if open_browser:
            webbrowser.open(address)
        try:
            code = server.wait()
        except KeyboardInterrupt:
            return
        raise DashError(f"MLflow's server ended with code {code}; its log: {Path(store) / LOG_FILE}")


def _free_port(port: int) -> int:
    """Return `port` if it is free, or any free port for 0; ConfigError if it is taken."""
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
def _running_server(uri: str, store: Path, port: int) -> Iterator[subprocess.Popen]:
    """Run `mlflow server` in a process group of its own, which ends with the block, or with this process."""
    place = ["--host", HOST, "--port", str(port), "--workers", "1"]
    data = ["--backend-store-uri", uri, "--artifacts-destination", str(artifact_root(store))]
    with (Path(store) / LOG_FILE).open("ab") as log:
        server = start_child(
            *("-m", "flows.services.child", "-m", "mlflow", "server", *place, *data),
            stdout=log,
            stderr=log,
            env={**os.environ, **SERVER_ENVIRONMENT},
        )
    try:
        yield server
    finally:
        end_group(server)


def _answers(base: str, seconds: float) -> bool:
    """Tell whether the server at `base` answers in time; no proxy is asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{base}/health", timeout=min(seconds, 5.0)):
            return True
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def _until_terminated() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, also in a background job, which a shell starts with SIGINT ignored."""

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
