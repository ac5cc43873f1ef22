import importlib
import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from dash_core.exporting import ModelCard, ModelInput, RawImageClassifier
from tasks.tracking import address
from tasks.tracking import client as tracking
from tasks.tracking.models import log_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def uri(store):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return address.tracking_uri(store)


@pytest.fixture(scope="module")
def comparison(uri, store):
    return _open(uri, store, "digits-cnn3-0123abcd")


@pytest.fixture
def client(uri):
    from mlflow import MlflowClient

    return MlflowClient(uri)


def test_store_is_a_database_file_with_artifacts_beside_it(uri, store, comparison, client):
    assert uri == f"sqlite:///{store}/mlflow.db"
    assert (store / "mlflow.db").exists()
    place = client.get_experiment(comparison.experiment_id).artifact_location
    assert place == (store / "mlartifacts" / "digits-cnn3-0123abcd").as_uri()


def test_a_database_whose_creation_is_interrupted_is_not_there(tmp_path, monkeypatch):
    from mlflow.store.db import utils

    def interrupt(engine):
        raise KeyboardInterrupt

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # no template of it was made yet
    monkeypatch.setattr(utils, "_initialize_tables", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tracking.open_database(f"sqlite:///{tmp_path}/mlflow.db")
    assert list(tmp_path.iterdir()) == []


def test_tracking_uri_of_the_user_wins(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert address.tracking_uri(tmp_path) == "http://127.0.0.1:5000"


def test_comparison_opened_twice_is_one_experiment_with_one_summary(uri, store, comparison, client):
    assert _open(uri, store, "digits-cnn3-0123abcd") == comparison
    assert client.get_run(comparison.summary_run_id).data.params == {"chunks": "10"}
    assert tracking.find_experiment(uri, "digits-cnn3-0123abcd") == comparison.experiment_id
    assert tracking.find_experiment(uri, "never seen") is None


def test_run_has_its_parameters_tags_and_status(uri, comparison, client):
    many = {f"p{index}": index for index in range(150)}  # more than MLflow takes at once
    run = _run(uri, comparison, "whole", params={"optimizer.lr": 0.01, "augmentation": None, **many})
    tracking.set_status(client, run, "FINISHED")
    found = client.get_run(run)
    assert found.data.params == {name: str(value) for name, value in many.items()} | {
        "optimizer.lr": "0.01",
        "augmentation": "None",
    }
    assert found.data.tags["method"] == "dash"
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "digits/cnn3/dash/whole"


def test_status_shows_why_a_run_failed_until_it_goes_on(uri, comparison, client):
    run = _run(uri, comparison, "status")
    tracking.set_status(client, run, "FAILED", "x" * 600)
    failed = client.get_run(run)
    assert (failed.info.status, failed.data.tags["failure"]) == ("FAILED", "x" * 500)
    tracking.set_status(client, run, "RUNNING")
    going = client.get_run(run)
    assert going.info.status == "RUNNING"
    assert "failure" not in going.data.tags


def test_run_made_twice_by_a_request_that_was_repeated_is_one_again(uri, comparison, client):
    twins = [client.create_run(comparison.experiment_id, tags={"run_key": "twins"}, start_time=time) for time in (2, 1)]
    assert _run(uri, comparison, "twins") == twins[1].info.run_id
    found = client.search_runs([comparison.experiment_id], "tags.run_key = 'twins'")
    assert [run.info.run_id for run in found] == [twins[1].info.run_id]


def test_whole_runs_are_told_with_the_time_of_their_last_record(uri, comparison, client):
    run = _run(uri, comparison, "told")
    client.set_tag(run, tracking.LAST_RECORD_TAG, "17")
    tracking.set_status(client, run, "FINISHED")
    _run(uri, comparison, "under way")
    found = tracking.complete_runs(client, comparison.experiment_id)
    assert found["told"] == "17"
    assert "under way" not in found


@pytest.mark.slow
def test_processes_write_side_by_side_and_lose_nothing(uri, comparison, client):
    body = """
        from mlflow.entities import Metric
        client = client_of(uri)
        for number in range(5):
            run = open_run(client, comparison.experiment_id, f"{me}-{number}", "n", {"number": number}, {})
            for chunk in range(10):
                client.log_batch(run, [Metric(name, 1.0, chunk, chunk) for name in "ab"])
            set_status(client, run, "FINISHED")
            print(run, flush=True)
    """
    writers = [_python(uri, comparison, body, me=name) for name in "xy"]
    outputs = [writer.communicate()[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    runs = [run for output in outputs for run in output.split()]
    assert len(set(runs)) == 10
    assert {len(client.get_metric_history(run, name)) for run in runs for name in "ab"} == {10}


@pytest.mark.slow
def test_model_loads_in_a_fresh_process_without_our_code_and_takes_any_batch(uri, comparison, client, tmp_path, capfd):
    run = _run(uri, comparison, "model")
    model = _small_model().train()
    images = torch.randint(0, 256, (7, 12, 9, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    card = ModelCard("small", tuple("0123456789"), (1, 8, 8), (0.3,), (0.2,))
    example = ModelInput(card, images[:2])
    importlib.import_module("rich.style")  # draws a number when it is imported first
    before = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    identity = log_model(uri, run, model, example=example)
    client.create_logged_model(comparison.experiment_id, name="model", source_run_id=run)  # a logging that broke off
    assert log_model(uri, run, model, example=example) == identity
    models = client.search_logged_models([comparison.experiment_id], f"source_run_id = '{run}'")
    assert [found.model_id for found in models] == [identity]
    assert torch.equal(before[0], torch.get_rng_state())
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
    classifier = RawImageClassifier(model, card.image_shape, card.mean, card.std).eval()
    torch.save({"images": images, "answers": classifier(images)}, tmp_path / "expected.pt")
    _check_in_a_fresh_process(uri, run, tmp_path)


def test_no_fluent_run_is_left_open(uri, comparison):
    import mlflow

    _run(uri, comparison, "fluent")
    assert mlflow.active_run() is None


def test_comparison_url_names_the_charts_or_the_compared_runs():
    charts = "http://h:1/#/experiments/7/runs?compareRunsMode=CHART&viewStateShareKey=dashpipe"
    assert tracking.comparison_url("http://h:1/", "7") == f"{charts}&workflowType=machine_learning"
    assert (
        tracking.comparison_url("http://h:1", "7", ["a", "b"])
        == "http://h:1/#/compare-runs?runs=%5B%22a%22%2C%22b%22%5D&experiments=%5B%227%22%5D"
    )


def _open(uri, store, name):
    return tracking.open_comparison(
        uri,
        comparison=name,
        params={"chunks": 10},
        tags={"dataset": "digits"},
        artifact_root=address.artifact_root(store),
    )


def _run(uri, comparison, key, params=None):
    client, name = tracking.client_of(uri), f"digits/cnn3/dash/{key}"
    return tracking.open_run(client, comparison.experiment_id, key, name, params or {"seed": 0}, {"method": "dash"})


def _python(uri, comparison, body, **variables):
    lines = [
        "from flows.services.environment import prepare_environment",
        "prepare_environment()",
        "from tasks.tracking.client import *",
        f"uri, comparison = {uri!r}, {comparison!r}",
        *(f"{name} = {value!r}" for name, value in variables.items()),
        textwrap.dedent(body),
    ]
    return subprocess.Popen([sys.executable, "-c", "\n".join(lines)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _small_model():
    convolution = torch.nn.Conv2d(1, 4, 3, padding=1)
    return torch.nn.Sequential(
        convolution,
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.5),
        torch.nn.Flatten(),
        torch.nn.Linear(256, 10),
    )


def _check_in_a_fresh_process(uri, run, folder):
    program = f"""
        import mlflow, sys, torch
        mlflow.set_tracking_uri({uri!r})
        model = mlflow.pytorch.load_model("runs:/{run}/model")
        expected = torch.load("expected.pt", weights_only=True)
        assert torch.allclose(model(expected["images"]), expected["answers"], atol=1e-6)
        assert model(expected["images"][:1]).shape == (1, 10)
        scorer = mlflow.pyfunc.load_model("runs:/{run}/model")
        answers = torch.from_numpy(scorer.predict(expected["images"].numpy()))
        assert torch.allclose(answers, expected["answers"], atol=1e-6)
        assert scorer.metadata.metadata["class_names"] == list("0123456789")
        assert not any(name.split(".")[0] in ("tasks", "flows", "dash_core") for name in sys.modules)
    """
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=folder, env=environment, check=True)
