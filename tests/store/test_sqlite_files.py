"""Addresses of database files, whatever their path contains, and databases that are damaged."""

import contextlib
import os
import sqlite3

import pytest
from sqlalchemy import create_engine, text

from tasks.store.sqlite_files import LONGEST_STORE, damage_of, path_in, sqlite_url

FOLDERS = ["plain", "a?b", "a#b", "a%41", "a:memory:", "mode=memory", "ä;x&y=[z] ?uri=true"]


def fill(path, rows=2000):
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE runs (name TEXT)")
        database.executemany("INSERT INTO runs VALUES (?)", [(f"run {number}" * 10,) for number in range(rows)])
        database.commit()


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_address_names_exactly_the_file_whatever_its_folder_is_called(tmp_path, folder):
    path = tmp_path / folder / "mlflow.db"
    path.parent.mkdir()
    url = sqlite_url(path)
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE runs (name TEXT)"))
    engine.dispose()
    assert [file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()] == [
        path.relative_to(tmp_path)
    ]
    assert path_in(url) == path
    assert sqlite_url(path, "aiosqlite").startswith("sqlite+aiosqlite:///")
    assert ":memory:" not in sqlite_url(path, "aiosqlite")


@pytest.mark.parametrize("url", ["http://host/a", "postgresql://host/a", "sqlite+other:///a", "here", ""])
def test_other_addresses_name_no_file(url):
    assert path_in(url) is None


def test_a_path_of_an_ordinary_name_stands_in_the_address_as_it_is(tmp_path):
    assert sqlite_url(tmp_path / "mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"


def test_a_database_in_order_is_empty_or_missing_or_locked_or_whole(tmp_path):
    path = tmp_path / "a?b.db"
    assert damage_of(path) is None
    path.touch()
    assert damage_of(path) is None
    fill(path)
    assert damage_of(path) is None
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("BEGIN EXCLUSIVE")
        assert damage_of(path) is None


@pytest.mark.parametrize("damage", ["no database", "cut", "overwritten"])
def test_damage_is_found_and_nothing_is_changed(tmp_path, damage):
    path = tmp_path / "mlflow.db"
    fill(path)
    content = path.read_bytes()
    damaged = {
        "no database": b"this is no database",
        "cut": content[: len(content) // 2],
        "overwritten": content[:8192] + b"x" * 20480 + content[28672:],
    }[damage]
    path.write_bytes(damaged)
    assert damage_of(path)
    assert path.read_bytes() == damaged


def test_sqlite_opens_the_databases_of_the_longest_store(tmp_path):
    store = os.fsencode(tmp_path)
    while len(store) < LONGEST_STORE - 200:
        store += b"/" + b"x" * 100
    store += b"/" + b"x" * (LONGEST_STORE - len(store) - 1)
    folder = os.path.join(os.fsdecode(store), ".mlflow-abcdefgh")
    os.makedirs(folder)
    with contextlib.closing(sqlite3.connect(os.path.join(folder, "mlflow.db"))) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE runs (name TEXT)")
