"""A run has one model in MLflow, wherever the command that logs it is killed."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tasks.tracking import client as client_module
from tasks.tracking import models
from tasks.tracking.client import client_of
from tests.tracking.training import RUN, mirror_of, shown, train


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


@pytest.fixture
def quick_export(monkeypatch):
    """Save a file in place of torch's export, which takes seconds."""

    def write(export, path, described):
        path.mkdir()
        (path / "MLmodel").write_text("exported")

    monkeypatch.setattr(models, "export_model", lambda *given: None)
    monkeypatch.setattr(models, "write_mlflow_model", write)


@pytest.mark.parametrize(
    ("call", "ends"),
    [
        ("create_logged_model", "after"),
        ("log_model_artifacts", "before"),
        ("finalize_logged_model", "before"),
        ("log_outputs", "before"),
    ],
)
def test_a_command_killed_while_it_logs_a_model_leaves_none_twice(place, quick_export, monkeypatch, call, ends):
    train(place)
    mirror = mirror_of(place)
    client = client_of(mirror.uri)
    with monkeypatch.context() as patch:
        whole = getattr(client, call)

        def killed(*arguments, **settings):
            if ends == "after":
                whole(*arguments, **settings)
            raise Killed

        patch.setattr(client, call, killed)
        with pytest.raises(Killed):
            mirror.bring(RUN, wait=True)
    again = mirror_of(place)
    again.bring(RUN, wait=True)
    assert again.failures.reasons == {}
    run = shown(again)
    (output,) = run.outputs.model_outputs
    assert _rows(place.store) == [(output.model_id, "active")]
    assert [file.path for file in client.list_logged_model_artifacts(output.model_id)] == ["MLmodel"]
    assert client.get_logged_model(output.model_id).status == "READY"
    assert run.info.status == "FINISHED"


def test_what_a_kill_left_of_a_database_that_was_being_made_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(client_module, "template_of", lambda package, migrated: b"whole")
    (tmp_path / ".mlflow-killed").mkdir()
    (tmp_path / ".mlflow-killed" / "mlflow.db").write_bytes(b"half")
    client_module._create_database(tmp_path / "mlflow.db")
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
    assert (tmp_path / "mlflow.db").read_bytes() == b"whole"


@pytest.mark.slow
def test_a_database_from_the_template_is_what_mlflows_migrations_leave_and_names_no_folder(tmp_path, monkeypatch):
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("first", "second"):
        client_module._create_database(tmp_path / name / "mlflow.db")
    SqlAlchemyStore(f"sqlite:///{tmp_path}/migrated.db", "./mlruns").engine.dispose()
    first, second, migrated = (tmp_path / name for name in ("first/mlflow.db", "second/mlflow.db", "migrated.db"))
    assert first.read_bytes() == second.read_bytes()
    assert _schema(first) == _schema(migrated)
    assert str(tmp_path.parent).encode() not in first.read_bytes()
    assert str(Path.cwd()).encode() not in first.read_bytes()


def _schema(path: Path) -> list[tuple]:
    with closing(sqlite3.connect(path)) as database:
        tables = database.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
        return tables + database.execute("SELECT version_num FROM alembic_version").fetchall()


def _rows(store: Path) -> list[tuple]:
    with closing(sqlite3.connect(store / "mlflow.db")) as database:
        return database.execute("SELECT model_id, lifecycle_stage FROM logged_models").fetchall()
