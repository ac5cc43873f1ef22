"""MLflow's pages over the comparisons of a store, served on this machine only."""

import os
import socket
import subprocess
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dash_core.errors import ConfigError, DashError, public_address
from flows.services.child import absolute_python_path, end_group, start_child, wait_healthy
from flows.services.prefect_settings import EMPTY_HOME
from tasks.store.sqlite_files import path_in, sqlite_url
from tasks.store.stopping import STOPPING_SIGNALS, ended_by
from tasks.tracking.address import SERVED, artifact_root, check_answer, check_uri, tracking_uri
from tasks.tracking.client import check_database, comparison_url, find_experiment
from tasks.tracking.moved import LocationsUnknown, own_artifacts
from tasks.tracking.reasons import explain

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
    databases: Path | None = None,
) -> None:
    """Serve MLflow's pages over `store` on `port` until Ctrl-C or SIGTERM, and print the comparison's address.

    databases: folder of the store's database; None: the store.

    If the user's tracking address is a server, the address of its own pages is printed, and nothing is started.
    ConfigError if the port is taken or nothing is tracked yet; port 0 takes any free one.
    """
    uri = tracking_uri(databases or store)
    check_uri(uri)
    if uri.startswith(SERVED):
        with _explained(uri):
            base = _pages_of(uri)
            _show(base, find_experiment(uri, comparison) if comparison else None, comparison, open_browser, say)
        return
    if (database := path_in(uri)) and not database.exists():
        raise ConfigError(f"nothing is tracked in {store} yet: run `dashpipe compare` first")
    port = _free_port(port)
    base = f"http://{HOST}:{port}"
    with _explained(uri):
        if database:
            check_database(database)
        experiment = find_experiment(uri, comparison) if comparison else None
        try:
            own_artifacts(uri, store, databases)
        except LocationsUnknown as error:
            say(f"note: {error}")
    with ended_by(*STOPPING_SIGNALS), _running_server(uri, store, port) as server:
        if not wait_healthy(server, lambda seconds: _answers(base, seconds), START_SECONDS):
            raise DashError(f"MLflow's server did not answer at {base}; its log: {Path(store) / LOG_FILE}")
        _show(base, experiment, comparison, open_browser, say, "   (Ctrl-C ends it)")
        try:
            code = server.wait()
        except KeyboardInterrupt:
            return
        raise DashError(f"MLflow's server ended with code {code}; its log: {Path(store) / LOG_FILE}")


def _pages_of(uri: str) -> str:
    """Return the address of a tracking server's own pages; an error if it is no server that can be asked."""
    if not uri.startswith("http"):
        raise ConfigError(f"MLFLOW_TRACKING_URI is {public_address(uri)}: open its pages in the Databricks workspace")
    check_answer(uri)
    return public_address(uri)


def _show(
    base: str,
    experiment: str | None,
    comparison: str | None,
    open_browser: bool,
    say: Callable[[str], None],
    hint: str = "",
) -> None:
    """Print the address of a comparison's page, and open it in the browser if that is wanted."""
    address = comparison_url(base, experiment) if experiment else base
    if comparison and not experiment:
        say(f"{comparison} is not tracked yet; the page lists the comparisons that are")
    say(f"MLflow: {address}{hint}")
    if open_browser:
        webbrowser.open(address)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Raise errors of MLflow in the block as one message, which names the address without its password."""
    try:
        yield
    except DashError:
        raise
    except Exception as error:
        raise DashError(
            f"MLflow cannot be asked at {public_address(uri)} (MLFLOW_TRACKING_URI, or the store's database): "
            f"{explain(error)}"
        ) from None


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
    data = {  # not as options: an address may hold a password, and every user can read a command line
        "MLFLOW_BACKEND_STORE_URI": _absolute(uri),
        "MLFLOW_ARTIFACTS_DESTINATION": str(artifact_root(store)),
    }
    with (Path(store) / LOG_FILE).open("ab") as log:
        server = start_child(
            *("-m", "flows.services.child", "-m", "mlflow", "server", *place),
            stdout=log,
            stderr=log,
            env={**os.environ, **SERVER_ENVIRONMENT, **data, "PYTHONPATH": absolute_python_path()},
            cwd=EMPTY_HOME,  # uvicorn imports from its working folder
        )
    try:
        yield server
    finally:
        end_group(server)


def _absolute(uri: str) -> str:
    """Return an address that names the same database from any working folder."""
    path = path_in(uri)
    return uri if path is None or path.is_absolute() or "?" in uri else sqlite_url(path.resolve())


def _answers(base: str, seconds: float) -> bool:
    """Tell whether the server at `base` answers in time; no proxy is asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{base}/health", timeout=min(seconds, 5.0)):
            return True
    except (urllib.error.URLError, OSError):
        return False
