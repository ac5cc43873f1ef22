"""The templates of new databases: made once for each version of a package, found again, and made again if damaged."""

from pathlib import Path

import pytest

from tasks.store import database_templates
from tasks.store.database_templates import template_folder, template_of


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dashpipe" / "mlflow"


class Migrations:
    """Stand in for a package's migrations, which take seconds; counts the databases they made."""

    made = 0

    def __call__(self) -> bytes:
        self.made += 1
        return b"database %d" % self.made


def test_the_first_database_makes_the_template_of_later_ones(cache):
    migrations = Migrations()
    assert [template_of("mlflow", migrations) for _ in range(3)] == [b"database 1"] * 3
    (template,) = cache.iterdir()
    assert template.read_bytes() == b"database 1"
    assert template_of("prefect", migrations) == b"database 2"


def test_a_template_is_found_by_its_versions_only(monkeypatch):
    migrations = Migrations()
    template_of("mlflow", migrations)
    monkeypatch.setattr(database_templates.metadata, "version", lambda name: "4.0.0")
    assert template_of("mlflow", migrations) == b"database 2"


@pytest.mark.parametrize("damage", [b"", b"database", b"databasf 1"])
def test_a_damaged_template_is_made_again(cache, damage):
    migrations = Migrations()
    template_of("mlflow", migrations)
    (template,) = cache.iterdir()
    template.write_bytes(damage)
    assert template_of("mlflow", migrations) == b"database 2"
    (template,) = cache.iterdir()
    assert template.read_bytes() == b"database 2"


def test_a_damaged_template_that_cannot_be_removed_hides_no_other(cache):
    migrations = Migrations()
    template_of("mlflow", migrations)
    (template,) = cache.iterdir()
    (cache / template.name.replace("-sqlite-", "-sqlite-").replace(template.stem[-64:], "0" * 64)).mkdir()
    assert template_of("mlflow", migrations) == b"database 1"


def test_without_a_cache_each_new_database_is_migrated(tmp_path):
    migrations = Migrations()
    (tmp_path / "cache").write_text("no folder")
    assert [template_of("mlflow", migrations) for _ in range(2)] == [b"database 1", b"database 2"]


def test_migrations_that_fail_leave_nothing(cache):
    def failing() -> bytes:
        raise ImportError("moved")

    with pytest.raises(ImportError):
        template_of("mlflow", failing)
    assert not cache.exists()


@pytest.mark.parametrize("configured", [None, "", "relative/folder"])
def test_the_cache_is_the_home_s_unless_an_absolute_folder_is_named(monkeypatch, configured):
    monkeypatch.delenv("XDG_CACHE_HOME")
    if configured is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", configured)
    assert template_folder("prefect") == Path.home() / ".cache" / "dashpipe" / "prefect"
