"""A private server's database is a copy of a template, made whole or not at all, and never needed."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from flows.services import prefect_database
from flows.services.prefect_database import create_database, prepare_template
from flows.services.prefect_process import DATABASE_FILE, server_environment
from flows.services.prefect_server import PrivateServer


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dashpipe" / "prefect"


@pytest.fixture
def migrations(monkeypatch) -> list:
    """Stand in for Prefect's migrations, which take seconds; lists the databases they made."""
    made = []

    async def migrated() -> bytes:
        made.append(b"database %d" % len(made))
        return made[-1]

    monkeypatch.setattr(prefect_database, "_migrated", migrated)
    return made


def test_the_first_server_makes_the_template_and_later_ones_copy_it(tmp_path, cache, migrations):
    contents = [prepare_template(tmp_path / DATABASE_FILE) for _ in range(3)]
    assert contents == [b"database 0"] * 3
    assert len(migrations) == 1
    (template,) = cache.iterdir()
    assert template.read_bytes() == b"database 0"
    create_database(tmp_path / DATABASE_FILE, contents[0])
    assert prepare_template(tmp_path / DATABASE_FILE) is None
    create_database(tmp_path / DATABASE_FILE, b"of another process, a moment later")
    assert (tmp_path / DATABASE_FILE).read_bytes() == b"database 0"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", DATABASE_FILE]


def test_where_the_migrations_cannot_be_called_the_server_itself_migrates(tmp_path, monkeypatch, capsys):
    async def moved() -> bytes:
        raise ImportError("temporary_database_config")

    monkeypatch.setattr(prefect_database, "_migrated", moved)
    assert prepare_template(tmp_path / DATABASE_FILE) is None
    assert "migrated in place" in capsys.readouterr().err


def test_a_file_system_without_links_has_the_server_migrate(tmp_path, monkeypatch, capsys):
    def refused(*paths):
        raise PermissionError("no links")

    monkeypatch.setattr(os, "link", refused)
    create_database(tmp_path / DATABASE_FILE, b"contents")
    assert "migrated in place" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


MIGRATE = """
    import asyncio
    from prefect.server.database import provide_database_interface
    asyncio.run(provide_database_interface().create_db())
"""
PREPARE = """
    import sys
    from pathlib import Path
    from flows.services.prefect_database import create_database, prepare_template
    create_database(Path(sys.argv[1]), prepare_template(Path(sys.argv[1])))
"""
DOWNGRADE = """
    import asyncio
    from prefect.server.database import provide_database_interface
    asyncio.run(provide_database_interface().run_migrations_downgrade())
"""


@pytest.mark.slow
def test_a_template_is_what_the_migrations_leave_and_an_older_database_is_migrated(tmp_path):
    migrated, copied = tmp_path / "migrated", tmp_path / "copied"
    for folder, program in ((migrated, MIGRATE), (copied, PREPARE)):
        folder.mkdir()
        _python(program, folder)
    assert _schema(copied) == _schema(migrated)
    _python(DOWNGRADE, copied)
    assert _schema(copied) != _schema(migrated)
    with PrivateServer(copied) as server:
        server.wait_ready()
    assert _schema(copied) == _schema(migrated)


def _python(program: str, store: Path) -> None:
    words = [sys.executable, "-P", "-c", textwrap.dedent(program), str(store / DATABASE_FILE)]
    subprocess.run(words, env=server_environment(store), check=True)


_LAYOUT = str.maketrans("", "", " ,\t")


def _schema(store: Path) -> tuple:
    with contextlib.closing(sqlite3.connect(store / DATABASE_FILE)) as database:
        rows = database.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
        revision = database.execute("SELECT version_num FROM alembic_version").fetchall()
    # the order of a table's constraints differs from one migration to the next
    lines = {(kind, name): sorted(filter(None, (sql or "").translate(_LAYOUT).split("\n"))) for kind, name, sql in rows}
    return lines, revision
