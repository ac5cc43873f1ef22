"""Where MLflow is: the address that the user set, or the database file and the artifacts in the store."""

import contextlib
import os
import threading
from pathlib import Path
from urllib.parse import urlsplit

from dash_core.errors import ConfigError, DashError, public_address
from tasks.store.sqlite_files import path_in, sqlite_url
from tasks.tracking.reasons import explain

ANSWER_SECONDS, LONGEST_ANSWER = 30.0, 2**20  # for a server's answer to the question whether it is well; and its bytes
SERVED = ("http://", "https://", "databricks")  # how the address of a server begins


def tracking_uri(databases: Path) -> str:
    """Return the tracking address the user set, or that of the database in a folder (`Place.databases`), absolute."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_url(database_of(databases))


def database_of(databases: Path) -> Path:
    """Return the file of a store's own database in the folder of its databases."""
    return Path(databases).resolve() / "mlflow.db"


def artifact_root(store: Path) -> Path:
    """Return the folder of the artifacts that belong to the store's own database."""
    return Path(store).resolve() / "mlartifacts"


def check_uri(uri: str) -> None:
    """Raise ConfigError unless MLflow can use the address; no server is asked."""
    try:
        parts = urlsplit(uri)
        if parts.scheme in ("http", "https"):
            if not parts.hostname or parts.port == 0:
                raise ValueError("it names no host")
        elif path_in(uri) is None:  # the default needs no check
            _check_with_mlflow(uri)
    except ValueError as error:
        raise ConfigError(
            f"MLFLOW_TRACKING_URI: MLflow cannot use {public_address(uri)} ({explain(error)}); give "
            "http://HOST:PORT of a server or sqlite:////FOLDER/FILE.db, or unset it for a database in the store"
        ) from None


def check_answer(uri: str) -> None:
    """Raise DashError if what answers at a server's address does so without end: MLflow would read on.

    Any other failure is left to MLflow, which says it better.
    """
    import requests  # as MLflow does: with the same proxies and certificates

    ended = []

    def ask() -> None:
        with (
            contextlib.suppress(requests.RequestException, OSError, ValueError),
            requests.get(f"{uri.rstrip('/')}/health", timeout=ANSWER_SECONDS / 3, stream=True) as answer,
        ):
            size = 0
            for part in answer.iter_content(2**16):
                size += len(part)
                if size > LONGEST_ANSWER:
                    return
        ended.append(True)

    asking = threading.Thread(target=ask, name="asking-mlflow", daemon=True)
    asking.start()
    asking.join(ANSWER_SECONDS)
    if not ended:
        raise DashError(
            f"what answers at {public_address(uri)} (MLFLOW_TRACKING_URI) sends without end: it is no MLflow server"
        )


def _check_with_mlflow(uri: str) -> None:
    """Raise ValueError unless MLflow and SQLAlchemy accept an address of another kind; their imports take seconds."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.db.db_types import DATABASE_ENGINES
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    from tasks.tracking.client import client_of

    try:
        if urlsplit(uri).scheme.split("+")[0] in DATABASE_ENGINES:
            make_url(uri).get_dialect().import_dbapi()
        else:
            client_of(uri)
    except (MlflowException, SQLAlchemyError, ImportError) as error:
        raise ValueError(explain(error)) from None
