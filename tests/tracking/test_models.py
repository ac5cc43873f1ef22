"""A run has one model in MLflow, wherever the command that logs it is killed."""

import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow.pytorch
import pytest

from tasks.tracking.client import client_of
from tests.tracking.training import RUN, mirror_of, shown, train


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


@pytest.fixture
def quick_export(monkeypatch):
    """Save a file in place of torch's export, which takes seconds."""

    def save(model, path, **settings):
        Path(path).mkdir()
        (Path(path) / "MLmodel").write_text("exported")

    monkeypatch.setattr(mlflow.pytorch, "save_model", save)


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


def _rows(store: Path) -> list[tuple]:
    with closing(sqlite3.connect(store / "mlflow.db")) as database:
        return database.execute("SELECT model_id, lifecycle_stage FROM logged_models").fetchall()
