"""The final model of a run in MLflow: logged once, loadable without our code."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dash_core.errors import DashError
from tasks.tracking.client import client_of, silence

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from torch import Tensor, nn


class ModelsUnknown(DashError):
    """The tracking server is older than logged models."""


def log_model(uri: str, run_id: str, model: "nn.Module", *, example: "Tensor", name: str) -> str:
    """Log the model as the run's `name` and return its MLflow id; a model logged before, by any name, is left as it is.

    It is stored as an exported graph (pt2) in eval mode: it loads without our code and without unpickling, by
    `mlflow.pytorch.load_model("runs:/<run_id>/<name>")`, and takes any batch size. The first call in a process costs
    the import of torch's exporter, some seconds. The model is left as it was found. An incomplete model of an earlier
    call is deleted. ModelsUnknown if the server is older than MLflow 3.
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


def _find_or_log(client: "MlflowClient", run_id: str, model: "nn.Module", example: "Tensor", name: str) -> str:
    """Return the id of the run's complete model; log the model if there is none, and delete incomplete ones."""
    run = client.get_run(run_id)
    complete = {output.model_id for output in run.outputs.model_outputs} if run.outputs else set()
    model_id = next((logged for logged in _models_of(client, run) if logged in complete), None)
    if model_id is None:
        model_id = _log(client, run, model, example.detach().cpu()[:1], name)
    for logged in _models_of(client, run):
        if logged != model_id:
            client.delete_logged_model(logged)
    return model_id


def _models_of(client: "MlflowClient", run: "Run") -> list[str]:
    """Return the ids of the run's models, complete or not."""
    condition = f"source_run_id = '{run.info.run_id}'"
    return [model.model_id for model in client.search_logged_models([run.info.experiment_id], condition)]


def _log(client: "MlflowClient", run: "Run", model: "nn.Module", example: "Tensor", name: str) -> str:
    import mlflow.pytorch
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    run_id = run.info.run_id
    example = example.repeat(2, *[1] * (example.dim() - 1))  # torch.export fixes a size of 1
    with silence(), _eval_on_cpu(model), tempfile.TemporaryDirectory() as folder:
        logged = client.create_logged_model(run.info.experiment_id, name=name, source_run_id=run_id)
        mlflow.pytorch.save_model(
            model,
            f"{folder}/model",
            mlflow_model=Model(artifact_path=logged.artifact_location, run_id=run_id, model_id=logged.model_id),
            signature=_signature(model, example),
            input_example=example,
            serialization_format="pt2",
            pip_requirements=_requirements(),
        )
        client.log_model_artifacts(logged.model_id, f"{folder}/model")
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(
            run_id, [LoggedModelOutput(logged.model_id, step=0)]
        )  # last, so that only complete models are among the outputs
    return logged.model_id


def _signature(model: "nn.Module", example: "Tensor") -> Any:
    """Return the model's signature: tensors of any batch size."""
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    with torch.no_grad():
        answer = model(example)
    specs = [TensorSpec(value.numpy().dtype, (-1, *value.shape[1:])) for value in (example, answer)]
    return ModelSignature(Schema(specs[:1]), Schema(specs[1:]))


def _requirements() -> list[str]:
    import torch

    return [f"torch=={torch.__version__.split('+')[0]}"]  # the public version: the build is the machine's


@contextmanager
def _eval_on_cpu(model: "nn.Module") -> Iterator[None]:
    """Put the model on the CPU in eval mode within the block, then restore its device and mode."""
    from dash_core.shrinking import in_mode

    device = next((tensor.device for tensor in model.parameters()), None)
    try:
        with in_mode(model.cpu(), training=False):
            yield
    finally:
        model.to(device)
