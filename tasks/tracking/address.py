"""Where MLflow is: the address that the user set, or the database file and the artifacts in the store."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from dash_core.errors import ConfigError
from tasks.tracking.reasons import explain, without_password

EMBEDDED = "sqlite:///"  # how the address of a database file begins
SERVED = ("http://", "https://", "databricks")  # how the address of a server begins


def tracking_uri(store: Path) -> str:
    """Return the tracking address the user set, or that of the database in `store`, absolute."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{EMBEDDED}{database_of(store)}"


def database_of(store: Path) -> Path:
    """Return the file of the store's own database."""
    return Path(store).resolve() / "mlflow.db"


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
        elif not uri.startswith(EMBEDDED):  # the default needs no check
            _check_with_mlflow(uri)
    except ValueError as error:
        raise ConfigError(
            f"MLFLOW_TRACKING_URI: MLflow cannot use {without_password(uri)} ({explain(error)}); give "
            "http://HOST:PORT of a server or sqlite:////FOLDER/FILE.db, or unset it for a database in the store"
        ) from None


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
