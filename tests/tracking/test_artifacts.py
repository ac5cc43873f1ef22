"""Artifacts and models fail apart from metrics, and a store that was moved keeps them in itself."""

import contextlib
import shutil
import sqlite3
import sys

import pytest
import torch

from tasks.tracking import mirror as mirror_module
from tasks.tracking.address import artifact_root, database_of, tracking_uri
from tasks.tracking.client import client_of
from tasks.tracking.moved import LocationsUnknown, own_artifacts
from tests.tracking.training import DATA, OTHER, PARAMS, RUN, expected, files, mirror_of, points, shown, train

WHOLE = {"chunks.jsonl", "progress.json", "result.json", "weights.safetensors"}


@pytest.fixture
def copied(place, tmp_path):
    """A store with one tracked run, and a copy of it with a run more; the original says how it was."""
    train(place)
    mirror_of(place).bring(RUN)
    copy = place.model_copy(update={"store": tmp_path / "copy", "data_root": tmp_path / "copy"})
    shutil.copytree(place.store, copy.store)
    train(copy, OTHER)
    return copy


def content(store):
    return {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}


def test_without_a_client_for_its_object_store_a_comparison_has_its_metrics_and_says_so_once(place, no_model):
    assert "boto3" not in sys.modules
    told = []
    client = client_of(tracking_uri(place.store))
    client.create_experiment(PARAMS.name, artifact_location="s3://bucket/dashpipe")
    records = train(place), train(place, OTHER)
    mirror = mirror_of(place, told.append)
    assert not any(mirror.bring(run) for run in (RUN, OTHER))
    mirror.describe("| table |", [], place.store / "runs", "FINISHED")
    assert [points(mirror, run) for run in (RUN, OTHER)] == [expected(some) for some in records]
    assert {shown(mirror, run).info.status for run in (RUN, OTHER)} == {"FINISHED"}
    assert told == ["MLflow took no artifacts: No module named 'boto3'"]


def test_artifacts_that_were_refused_are_completed_later(place, no_model):
    told = []
    artifact_root(place.store).write_text("no folder")
    records = train(place)
    mirror = mirror_of(place, told.append)
    assert not mirror.bring(RUN)
    assert (len(told), told[0].startswith("MLflow took no artifacts: ")) == (1, True)
    assert points(mirror) == expected(records)
    artifact_root(place.store).unlink()
    later = mirror_of(place)
    assert [later.bring(RUN), mirror_of(place).bring(RUN)] == [True, False]
    assert files(later) == WHOLE
    assert later.failures.reasons == {}


def test_a_model_that_cannot_be_logged_costs_no_artifact_and_is_completed_later(place, no_model, monkeypatch):
    def refuse(*given, **named):
        raise RuntimeError("no exporter")

    told = []
    with monkeypatch.context() as patch:
        patch.setattr(mirror_module, "log_model", refuse)
        train(place), train(place, OTHER)
        mirror = mirror_of(place, told.append)
        assert not any(mirror.bring(run) for run in (RUN, OTHER))
        assert (files(mirror), files(mirror, OTHER)) == (WHOLE, WHOLE)
        assert told == ["MLflow took no models: no exporter"]
    assert [mirror_of(place).bring(run) for run in (RUN, OTHER)] == [True, True]


def test_a_copied_store_writes_into_itself_and_never_into_the_original(place, copied):
    before = content(place.store)
    mirror = mirror_of(copied)
    assert not mirror.bring(RUN)  # whole already
    assert mirror.bring(OTHER)
    mirror.describe("| table |", [], copied.store / "runs", "FINISHED")
    assert content(place.store) == before
    shutil.rmtree(place.store)  # moved, from here on
    assert (files(mirror), files(mirror, OTHER)) == (WHOLE, WHOLE)
    import mlflow

    mlflow.set_tracking_uri(mirror.uri)
    for run in (RUN, OTHER):
        model = mlflow.pytorch.load_model(f"runs:/{shown(mirror, run).info.run_id}/{mirror_module.model_name(run)}")
        raw = torch.zeros((1, 20, 30, 1), dtype=torch.uint8)
        assert model(raw).shape == (1, DATA.train.classes)
    assert not place.store.exists()


def test_addresses_of_the_users_own_are_left_as_they_are(place, tmp_path):
    uri = tracking_uri(place.store)
    client = client_of(uri)
    elsewhere = {"s3://bucket/a", "s3://team/mlartifacts/a", "file:///srv/artifacts/b", "file:///srv/mlartifacts/b"}
    elsewhere.add((artifact_root(place.store) / "c").as_uri())
    for number, location in enumerate(sorted(elsewhere)):
        client.create_experiment(f"e{number}", artifact_location=location)
    own_artifacts(uri, place.store)
    own_artifacts("http://127.0.0.1:1", place.store)
    own_artifacts(tracking_uri(tmp_path), tmp_path)  # no database yet
    found = {experiment.artifact_location for experiment in client.search_experiments()}
    assert elsewhere <= found


def test_a_database_with_other_columns_takes_metrics_but_no_artifacts(place, no_model, monkeypatch):
    with contextlib.closing(sqlite3.connect(database_of(place.store))) as database, database:
        database.execute("ALTER TABLE model_versions RENAME COLUMN storage_location TO place")
    with pytest.raises(LocationsUnknown, match=r"mlflow\.db does not say where its artifacts are kept"):
        own_artifacts(tracking_uri(place.store), place.store)
    told, records = [], train(place)
    mirror = mirror_of(place, told.append)
    mirror.bring(RUN)
    assert points(mirror) == expected(records)
    assert [line.split(":")[0] for line in told] == ["MLflow took no artifacts", "MLflow took no models"]
