"""Defaults of the process environment, set before anything heavy is imported; what the user set wins."""

import gc
import os
from collections.abc import Mapping, MutableMapping

DEFAULTS: Mapping[str, str] = {
    # nobody is told that this program ran; "true", not "1": MLflow takes no other word
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # one thread a process: parallel runs must not fight for cores, and bits must not depend on their number
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # the terminal is ours: flow and task logs go to the Prefect server, where each run shows its own
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",  # a lost server: an error for each event
    "PREFECT_CLI_PROMPT": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # a tracking server that is away is given up soon: runs go on without it (MLflow's own patience is minutes)
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
THRESHOLD = gc.get_threshold()[0]  # new containers, net of those that are gone, after which the young are looked at,
IMPORTING = 50_000  # and while modules are imported
LOOPBACK = ("127.0.0.1", "localhost")
PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def prepare_environment(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set the defaults that are not set yet, and keep a configured proxy out of local traffic; imports begin."""
    imports_begin()
    for name, value in DEFAULTS.items():
        environ.setdefault(name, value)
    if any(environ.get(name) for name in PROXIES):
        for name in ("NO_PROXY", "no_proxy"):
            hosts = [host for host in environ.get(name, "").split(",") if host]
            environ[name] = ",".join(hosts + [host for host in LOOPBACK if host not in hosts])


def imports_begin() -> None:
    """Look for garbage less often until `imports_done`.

    Imports make much that stays, and looking at it again and again is a fifth of their time.
    """
    gc.set_threshold(IMPORTING)


def imports_done() -> None:
    """Look for garbage as often as Python does, but no more at what the imports left."""
    gc.freeze()
    gc.set_threshold(THRESHOLD)
