"""The database of a private Prefect server: a copy of the template that Prefect's own migrations made."""

import asyncio
import contextlib
import os
import sqlite3
import sys
from pathlib import Path

from dash_core.errors import RecordError
from tasks.store.database_templates import template_of
from tasks.store.sqlite_files import damage_of

IN_MEMORY = "file::memory:?cache=shared"  # one database for all connections of this process


def check_database(database: Path) -> None:
    """Raise RecordError if the database is damaged; a missing one is in order."""
    if damage := damage_of(database):
        raise RecordError(
            f"{database} is damaged ({damage}): move it away or remove it. It lists the flows of earlier commands in "
            "Prefect; no result is in it"
        )


def prepare_template(database: Path) -> bytes | None:
    """Return the contents of a new `database`, migrated; None if it exists already, or if the migration fails.

    Without contents Prefect migrates the database when the server starts: slower, same result. Only the cache folder
    is written.
    """
    if database.exists():
        return None
    try:
        return template_of("prefect", lambda: asyncio.run(_migrated()))
    except Exception as error:  # if Prefect has changed inside, its server can still migrate
        print(f"no template of the database, it is migrated in place: {error!r}", file=sys.stderr)
        return None


def create_database(database: Path, contents: bytes) -> None:
    """Write a new database completely or not at all; keep one that another process wrote meanwhile."""
    draft = database.with_name(f".{database.name}.{os.getpid()}")
    try:
        _write(draft, contents)
        with contextlib.suppress(FileExistsError):
            os.link(draft, database)
    except OSError as error:  # a file system without links
        print(f"the database is migrated in place, since its template cannot be copied: {error}", file=sys.stderr)
    finally:
        draft.unlink(missing_ok=True)


async def _migrated() -> bytes:
    """Return the bytes of a database that Prefect's migrations made in memory."""
    from prefect.server.database import provide_database_interface
    from prefect.server.database.configurations import AioSqliteConfiguration
    from prefect.server.database.dependencies import temporary_database_config

    url = f"sqlite+aiosqlite:///{IN_MEMORY}&uri=true&check_same_thread=false"
    with (
        temporary_database_config(AioSqliteConfiguration(connection_url=url)),
        contextlib.closing(sqlite3.connect(IN_MEMORY, uri=True)) as database,  # keeps it in memory until it is read
    ):
        await provide_database_interface().create_db()
        return database.serialize()


def _write(path: Path, contents: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("xb") as file:
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())
