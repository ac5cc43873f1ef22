"""The database of a private Prefect server: a copy of a template that Prefect's own migrations made.

The migrations take seconds, the copy milliseconds. The first server under a version of Prefect makes the template and
keeps it in the user's cache folder.
"""

import asyncio
import contextlib
import hashlib
import os
import sqlite3
import sys
from importlib import metadata
from pathlib import Path

from dash_core.errors import RecordError
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
        return _read_template() or _make_template()
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


def template_folder() -> Path:
    """Return the folder of templates, in the user's cache ($XDG_CACHE_HOME, by default ~/.cache)."""
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (configured if configured.is_absolute() else Path.home() / ".cache") / "dashpipe" / "prefect"


def _template_name(digest: str) -> str:
    """Return a template's file name. The digest of its contents at the end shows damage; `*` matches any."""
    return f"prefect-{metadata.version('prefect')}-sqlite-{sqlite3.sqlite_version}-{digest}.db"


def _read_template() -> bytes | None:
    """Return an undamaged template of this version from the cache, or None. A damaged one is removed."""
    with contextlib.suppress(OSError, RuntimeError):  # no cache folder, no home
        for path in template_folder().glob(_template_name("*")):
            contents = path.read_bytes()
            if path.name == _template_name(hashlib.sha256(contents).hexdigest()):
                return contents
            path.unlink()
    return None


def _make_template() -> bytes:
    """Migrate an empty database in memory, keep a copy in the cache where that can be written, and return it."""
    contents = asyncio.run(_migrated())
    with contextlib.suppress(OSError, RuntimeError):
        path = template_folder() / _template_name(hashlib.sha256(contents).hexdigest())
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            _write(draft, contents)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    return contents


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
