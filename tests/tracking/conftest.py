import shutil

import pytest

from tasks.store.place import Place
from tasks.tracking import mirror as mirror_module
from tasks.tracking.address import tracking_uri
from tasks.tracking.client import open_database


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """An MLflow database that knows nothing yet: making one takes seconds."""
    store = tmp_path_factory.mktemp("database")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        open_database(tracking_uri(store))
    return store / "mlflow.db"


@pytest.fixture
def place(empty_database, tmp_path, monkeypatch):
    """A place with a database in its store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = tmp_path / "store"
    store.mkdir()
    shutil.copy(empty_database, store)
    return Place(store=store, data_root=store, device="cpu")


@pytest.fixture
def no_model(monkeypatch):
    """Log no model: torch's exporter takes seconds."""
    monkeypatch.setattr(mirror_module, "log_model", lambda uri, run_id, model, **named: "none")
