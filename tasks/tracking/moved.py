"""A store that was moved or copied: its database still names the folder of the original for every artifact.

MLflow writes absolute addresses into its database and has no call that changes them. So the addresses are rewritten
in the database file itself, before anything is logged, in one transaction and under the lock of the database.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from dash_core.errors import DashError
from tasks.store.locks import locked_tracking
from tasks.store.sqlite_files import path_in
from tasks.tracking import charts
from tasks.tracking.address import artifact_root, database_of

LOCATIONS = {  # columns of MLflow's tables that hold the address of an artifact folder
    "experiments": ["artifact_location"],
    "runs": ["artifact_uri"],
    "logged_models": ["artifact_location"],
    "model_versions": ["source", "storage_location"],
}
# where the artifacts of comparisons lie: `open_comparison` gives each of its experiments this tag
OURS = """
    SELECT artifact_location FROM experiments JOIN experiment_tags USING (experiment_id)
    WHERE key = ? AND artifact_location IS NOT NULL
"""


class LocationsUnknown(DashError):
    """The installed MLflow keeps the addresses of artifacts elsewhere in its database."""


def own_artifacts(uri: str, store: Path, databases: Path | None = None) -> None:
    """Make the addresses in the store's own database name the artifacts in this store, and not in the original.

    Nothing changes if `uri` is another database or a server. Only the folders of our own comparisons are replaced;
    addresses of experiments that the user made stay as they are. LocationsUnknown if the database has other tables.
    databases: folder of the store's database; None: the store.
    """
    database = database_of(databases or store)
    if path_in(uri) != database or not database.exists():
        return
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        if not _foreign_roots(connection, database, store):
            return
        with locked_tracking(store), connection:
            for root in _foreign_roots(connection, database, store):
                _rewrite(connection, root, artifact_root(store).as_uri())


def _foreign_roots(connection: sqlite3.Connection, database: Path, store: Path) -> list[str]:
    """Return the addresses of other stores' artifact folders that experiments of the database are kept under."""
    try:
        for table, columns in LOCATIONS.items():
            connection.execute(f"SELECT {', '.join(columns)} FROM {table} LIMIT 0")
        locations = connection.execute(OURS, (charts.VIEW_TAG,)).fetchall()
    except sqlite3.OperationalError as error:
        if not str(error).startswith("no such"):  # the database is locked, or damaged
            raise
        raise LocationsUnknown(
            f"{database} does not say where its artifacts are kept ({error}): if the store was moved, "
            "put it back where it was, or remove mlflow.db and mlartifacts for `dashpipe sync` to make again"
        ) from None
    own = artifact_root(store).as_uri()
    folders = {location.rpartition("/")[0] for (location,) in locations if location.startswith("file://")}
    return sorted(folders - {own})


def _rewrite(connection: sqlite3.Connection, old: str, new: str) -> None:
    for table, columns in LOCATIONS.items():
        for column in columns:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old) + 1, f"{old}/"),
            )
