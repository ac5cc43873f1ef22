"""The final model of a run in MLflow: logged once, loadable without our code."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dash_core.errors import DashError
from dash_core.exporting import ModelInput, export_model
from tasks.tracking.client import client_of, silence
from tasks.tracking.model_files import write_mlflow_model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from torch import nn


class ModelsUnknown(DashError):
    """The tracking server is older than logged models."""


def log_model(uri: str, run_id: str, model: "nn.Module", *, example: ModelInput, name: str = "model") -> str:
    """Log the model as the run's `name` and return its MLflow id; a model logged before is left as it is.

    It is stored as an exported graph (pt2) that takes raw uint8 images (N, H, W, C) of any size and returns
    probabilities. It loads without our code and without unpickling, by `mlflow.pytorch.load_model` and as a
    `python_function`, from "runs:/<run_id>/<name>". The class names are in its metadata. The first call in a process
    costs the import of torch's exporter, some seconds. The model is left as it was found. An incomplete model of an
    earlier call is deleted. ModelsUnknown if the server is older than MLflow 3.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND, ErrorCode

    client = client_of(uri)
    try:
        return _find_or_log(client, run_id, model, example, name)
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(ENDPOINT_NOT_FOUND):
            raise ModelsUnknown("the server is older than MLflow 3 and keeps no models") from None
        raise


def _find_or_log(client: "MlflowClient", run_id: str, model: "nn.Module", example: ModelInput, name: str) -> str:
    """Return the id of the run's complete model; log the model if there is none, and delete incomplete ones."""
    run = client.get_run(run_id)
    complete = {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()
    model_id = next((logged for logged in _models_of(client, run, name) if logged in complete), None)
    if model_id is None:
        model_id = _log(client, run, model, example, name)
    for logged in _models_of(client, run, name):
        if logged != model_id:
            client.delete_logged_model(logged)
    return model_id


def _models_of(client: "MlflowClient", run: "Run", name: str) -> list[str]:
    """Return the ids of the run's models of this name, complete or not."""
    condition = f"name = '{name}' AND source_run_id = '{run.info.run_id}'"
    return [model.model_id for model in client.search_logged_models([run.info.experiment_id], condition)]


def _log(client: "MlflowClient", run: "Run", model: "nn.Module", example: ModelInput, name: str) -> str:
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    run_id = run.info.run_id
    with silence(), tempfile.TemporaryDirectory() as folder:
        logged = client.create_logged_model(run.info.experiment_id, name=name, source_run_id=run_id)
        export_model(model, example.card, Path(folder) / "export", example.images)
        described = Model(artifact_path=logged.artifact_location, run_id=run_id, model_id=logged.model_id)
        write_mlflow_model(Path(folder) / "export", Path(folder) / "model", described)
        client.log_model_artifacts(logged.model_id, f"{folder}/model")
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(
            run_id, [LoggedModelOutput(logged.model_id, step=0)]
        )  # last, so that only complete models are among the outputs
    return logged.model_id
