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
    from mlflow.entities import LoggedModel, Run
    from torch import nn


class ModelsUnknown(DashError):
    """The tracking server is older than logged models."""


def log_model(uri: str, run_id: str, model: "nn.Module", *, example: ModelInput, name: str = "model") -> str:
    """Log the model as the run's `name` and return its MLflow id; a model logged before is left as it is,
    whatever its name.

    It is stored as an exported graph (pt2) that takes raw uint8 images (N, H, W, C) of any size and returns
    probabilities. It loads without our code and without unpickling, by `mlflow.pytorch.load_model` and as a
    `python_function`, from "runs:/<run_id>/<name>". The class names are in its metadata. The first call in a process
    costs the import of torch's exporter, some seconds. The model is left as it was found. A logged model that a
    killed call left incomplete is completed. ModelsUnknown if the server is older than MLflow 3.
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
    """Return the id of the run's complete model; complete the one that a killed call began, or log it."""
    run = client.get_run(run_id)
    logged = _models_of(client, run)
    outputs = {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()
    kept = max(logged, key=lambda model: (model.model_id in outputs, _is_ready(model)), default=None)
    if kept is None:
        kept = client.create_logged_model(run.info.experiment_id, name=name, source_run_id=run_id)
    if not _is_ready(kept):
        _upload(client, kept, model, example)
    if kept.model_id not in outputs:
        _name_as_output(client, run_id, kept.model_id)  # last: only complete models are among a run's outputs
    for other in logged:
        if other.model_id != kept.model_id:
            client.delete_logged_model(other.model_id)
    return kept.model_id


def _models_of(client: "MlflowClient", run: "Run") -> "list[LoggedModel]":
    """Return the run's models, complete or not."""
    condition = f"source_run_id = '{run.info.run_id}'"
    return client.search_logged_models([run.info.experiment_id], condition)


def _is_ready(model: "LoggedModel") -> bool:
    """Tell whether all files of a model were sent."""
    from mlflow.entities import LoggedModelStatus

    return model.status == LoggedModelStatus.READY


def _upload(client: "MlflowClient", logged: "LoggedModel", model: "nn.Module", example: ModelInput) -> None:
    """Send the model's files, replacing those that a killed call sent, and mark the logged model as ready."""
    from mlflow.models import Model

    with silence(), tempfile.TemporaryDirectory() as folder:
        export_model(model, example.card, Path(folder) / "export", example.images, example.tracer)
        described = Model(artifact_path=logged.artifact_location, run_id=logged.source_run_id, model_id=logged.model_id)
        write_mlflow_model(Path(folder) / "export", Path(folder) / "model", described)
        files = [file for file in Path(folder, "model").rglob("*") if file.is_file()]
        client.log_model_artifacts(logged.model_id, f"{folder}/model")
        if not all(file.exists() for file in files):  # a command that ends removes them, and MLflow skips what is gone
            raise FileNotFoundError("the model's files were removed while they were sent")
        client.finalize_logged_model(logged.model_id, "READY")


def _name_as_output(client: "MlflowClient", run_id: str, model_id: str) -> None:
    from mlflow.entities import LoggedModelOutput

    client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
