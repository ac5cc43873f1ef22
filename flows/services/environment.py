"""Defaults of the process environment, set before anything heavy is imported. A value of the user's wins."""

import contextlib
import gc
import os
import sys
from collections.abc import Mapping, MutableMapping

from flows.services.prefect_settings import QUIET_SETTINGS

DEFAULTS: Mapping[str, str] = {
    # no program sends usage data; "true" and not "1", because MLflow knows no other word
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    # a Python that we start imports nothing from the folder that the user happens to be in
    "PYTHONSAFEPATH": "1",
    # one thread a process: parallel runs must not compete for cores, and results must not depend on their number
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    **QUIET_SETTINGS,
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # a tracking server that does not answer is given up soon, and runs continue; MLflow would try for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    # Ray counts no users, and does not copy the working folder, with store and data, to each machine under `uv run`
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor",  # by default Ray refuses another patch version
}
# number of new objects, less freed ones, that starts a garbage collection: Python's own, and ours during imports
COLLECTION_THRESHOLD = gc.get_threshold()[0]
IMPORT_COLLECTION_THRESHOLD = 50_000
LOOPBACK = ("127.0.0.1", "localhost")
PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def prepare_environment(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set the defaults that are not set yet, keep a configured proxy out of local traffic, and prepare for imports."""
    imports_begin()
    for name, value in DEFAULTS.items():
        environ.setdefault(name, value)
    _leave_working_folder_out(environ)
    if any(environ.get(name) for name in PROXIES):
        for name in ("NO_PROXY", "no_proxy"):
            hosts = [host for host in environ.get(name, "").split(",") if host]
            environ[name] = ",".join(hosts + [host for host in LOOPBACK if host not in hosts])


def _leave_working_folder_out(environ: MutableMapping[str, str]) -> None:
    """Remove empty entries of PYTHONPATH, as `PYTHONPATH=$PYTHONPATH:folder` leaves them.

    They stand for the working folder, whose modules may be named like others. Worker processes get this process's path.
    """
    folders = environ.get("PYTHONPATH", "").split(os.pathsep)
    if environ.get("PYTHONPATH") and "" in folders:
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
        if environ is os.environ:
            with contextlib.suppress(ValueError, OSError):
                sys.path.remove(os.getcwd())


def imports_begin() -> None:
    """Collect garbage less often until `imports_done`.

    Imported objects stay, and collecting among them again and again takes a fifth of the imports' time.
    """
    gc.set_threshold(IMPORT_COLLECTION_THRESHOLD)


def imports_done() -> None:
    """Collect garbage as often as Python does, but never again among the imported objects."""
    gc.freeze()
    gc.set_threshold(COLLECTION_THRESHOLD)
