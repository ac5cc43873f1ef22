"""MLflow: an experiment for each comparison, a run for each (method, seed), a step for each chunk.

The only module that imports mlflow, and only when called: the import takes seconds. Every call names its run; the
fluent "active run" belongs to a thread, leaks between tasks and is never used. What is here is a view of the records
on disk: writing a finished chunk again changes nothing.
"""

import json
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tasks import chart_view

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch import Tensor, nn

RUN_KEY = "run_key"  # the tag by which a run is found again
COMPARISON_KEY = "comparison"  # the summary run's key
SUMMARY = "summary_run"  # the tag that names the comparison's own run; as MLflow's parentRunId it would fold all others
KIND = {"mlflow.experimentKind": "custom_model_development"}  # the pages for training, not those for chats
FAILURE = "failure"  # the tag that says why a run failed; gone when the run goes on
NOTE = "mlflow.note.content"  # the tag that MLflow shows as a description
PARAMS_AT_ONCE, LONGEST_PARAM, LONGEST_NOTE = 100, 6000, 5000  # MLflow's limits: for a batch, and in characters


@dataclass(frozen=True)
class Comparison:
    """Where a comparison is tracked: its experiment, and in it the run that holds the tables and figures of all."""

    experiment_id: str
    summary_run_id: str


def tracking_uri(store: Path) -> str:
    """Return the tracking URI the user set, or that of the database in `store`, absolute."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(store).resolve() / 'mlflow.db'}"


def artifact_root(store: Path) -> Path:
    """Return the folder of the artifacts that belong to the database in `store`."""
    return Path(store).resolve() / "mlartifacts"


def open_comparison(
    uri: str, *, comparison: str, params: Mapping[str, object], tags: Mapping[str, str], artifact_root: Path
) -> Comparison:
    """Find or create the experiment and its summary run, which is RUNNING afterwards.

    Call it once, before any worker: it creates or upgrades the database. `artifact_root` holds for a database file;
    a tracking server has a place of its own.
    """
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    client = _client(uri)
    experiment = client.get_experiment_by_name(comparison)
    if experiment is None:
        served = uri.startswith(("http://", "https://", "databricks"))
        place = None if served else (Path(artifact_root).resolve() / comparison).as_uri()
        experiment_id = client.create_experiment(comparison, artifact_location=place, tags=KIND)
    else:
        experiment_id = experiment.experiment_id
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment_id)
    client.set_experiment_tag(experiment_id, chart_view.TAG, chart_view.settings())
    summary = _open(client, experiment_id, COMPARISON_KEY, comparison, params, dict(tags))
    return Comparison(experiment_id, summary)


def open_run(
    uri: str,
    comparison: Comparison,
    *,
    key: str,
    name: str,
    params: Mapping[str, object],
    tags: Mapping[str, str],
) -> str:
    """Find the comparison's run of this key, or create it, and return its id; it is RUNNING afterwards."""
    family = {**tags, SUMMARY: comparison.summary_run_id}
    return _open(_client(uri), comparison.experiment_id, key, name, params, family)


def log_chunk(uri: str, run_id: str, *, chunk: int, metrics: Mapping[str, float | None], timestamp_ms: int) -> None:
    """Log one chunk's metrics at step `chunk`; the same call again changes nothing.

    Take the time from the chunk's record: MLflow knows a point by (value, time, step). None is left out; an infinite
    value becomes NaN, since MLflow would store the largest float and no chart survives that.
    """
    from mlflow.entities import Metric

    numbers = {name: float(value) for name, value in metrics.items() if value is not None}
    finite = {name: math.nan if math.isinf(value) else value for name, value in numbers.items()}
    points = [Metric(name, value, timestamp_ms, chunk) for name, value in finite.items()]
    _client(uri).log_batch(run_id, metrics=points)


def finish_run(
    uri: str, run_id: str, *, status: str, artifacts: Path | None = None, tags: Mapping[str, str] | None = None
) -> None:
    """Close a run as FINISHED, FAILED or KILLED, with the files of a folder as its artifacts."""
    client = _client(uri)
    if artifacts is not None:
        client.log_artifacts(run_id, str(artifacts))
    _log(client, run_id, {}, tags or {})
    client.set_terminated(run_id, status=status)


def describe(uri: str, comparison: Comparison, text: str, view: str) -> None:
    """Show a link to the report and a Markdown text above the charts and in the summary run; set the charts' view."""
    client, link = _client(uri), chart_view.report_link(comparison.experiment_id, comparison.summary_run_id)
    note = f"{link}\n\n{text}"[:LONGEST_NOTE]
    client.set_experiment_tag(comparison.experiment_id, chart_view.TAG, view)
    client.set_experiment_tag(comparison.experiment_id, NOTE, note)
    client.set_tag(comparison.summary_run_id, NOTE, note)


def fail_lost_run(uri: str, comparison: Comparison, *, key: str, reason: str) -> None:
    """Close the comparison's run of this key as failed, where its own process cannot; it may never have been opened."""
    found = _client(uri).search_runs([comparison.experiment_id], f"tags.{RUN_KEY} = '{key}'", max_results=1)
    for run in found:
        finish_run(uri, run.info.run_id, status="FAILED", tags={FAILURE: reason[:500]})


def log_model(uri: str, run_id: str, model: "nn.Module", *, example: "Tensor", name: str = "model") -> str:
    """Log the model as the run's `name` and return its MLflow id; a model logged before is left as it is.

    It is stored as an exported graph (pt2) in eval mode: it loads without our code and without unpickling, by
    `mlflow.pytorch.load_model("runs:/<run_id>/<name>")`, and takes any batch size. The first call in a process costs
    the import of torch's exporter, some seconds. The model is left as it was found.
    """
    import mlflow.pytorch
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    client = _client(uri)
    run = client.get_run(run_id)
    for output in run.outputs.model_outputs if run.outputs else []:
        if client.get_logged_model(output.model_id).name == name:
            return output.model_id
    example = example.detach().cpu()[:1].repeat(2, *[1] * (example.dim() - 1))  # torch.export fixes a size of 1
    with _silence(), _eval_on_cpu(model), tempfile.TemporaryDirectory() as folder:
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
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])  # last: only a whole model is found
    return logged.model_id


def comparison_url(base: str, experiment_id: str, run_ids: list[str] | None = None) -> str:
    """Return the address in MLflow's UI of the experiment's charts, or of the page that compares the given runs."""
    root = f"{base.rstrip('/')}/#"
    if not run_ids:
        return f"{root}/experiments/{experiment_id}/runs?{chart_view.QUERY}"
    runs, experiments = (quote(json.dumps(ids, separators=(",", ":"))) for ids in (run_ids, [experiment_id]))
    return f"{root}/compare-runs?runs={runs}&experiments={experiments}"


def find_experiment(uri: str, comparison: str) -> str | None:
    """Return the id of a comparison's experiment, None where it was never tracked."""
    experiment = _client(uri).get_experiment_by_name(comparison)
    return experiment.experiment_id if experiment else None


def forget_run(uri: str, comparison: Comparison, key: str) -> None:
    """Delete the comparison's run of this key, if there is one; MLflow can restore it."""
    client = _client(uri)
    for run in client.search_runs([comparison.experiment_id], f"tags.{RUN_KEY} = '{key}'"):
        client.delete_run(run.info.run_id)


def finished_keys(uri: str, comparison: Comparison) -> set[str]:
    """Return the keys of the comparison's runs that are FINISHED in MLflow."""
    client, keys, token = _client(uri), set(), None
    while token != "":
        page = client.search_runs(
            [comparison.experiment_id], "attributes.status = 'FINISHED'", max_results=1000, page_token=token
        )
        keys |= {run.data.tags.get(RUN_KEY, "") for run in page}
        token = page.token or ""
    return keys


def import_mlflow() -> None:
    """Import mlflow now: for whoever has the seconds before the first call."""
    with _silence():
        import mlflow  # noqa: F401


def _client(uri: str) -> "MlflowClient":
    """Return this process's client; a fork must not share its parent's connection."""
    return _client_of(uri, os.getpid())


@lru_cache(maxsize=8)
def _client_of(uri: str, pid: int) -> "MlflowClient":
    with _silence():
        from mlflow import MlflowClient

        return MlflowClient(uri)


def _open(
    client: "MlflowClient",
    experiment_id: str,
    key: str,
    name: str,
    params: Mapping[str, object],
    tags: Mapping[str, str],
) -> str:
    """Return the id of the experiment's run with this key, created where there is none, set RUNNING."""
    found = client.search_runs([experiment_id], f"tags.{RUN_KEY} = '{key}'", max_results=1)
    if found:
        run_id = found[0].info.run_id
        client.update_run(run_id, status="RUNNING")
        if FAILURE in found[0].data.tags:
            client.delete_tag(run_id, FAILURE)
    else:
        run_id = client.create_run(experiment_id, run_name=name, tags={RUN_KEY: key}).info.run_id
    _log(client, run_id, params, tags)
    return run_id


def _log(client: "MlflowClient", run_id: str, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
    """Log parameters and tags in as few calls as MLflow takes."""
    from mlflow.entities import Param, RunTag

    settings = [Param(name, str(value)[:LONGEST_PARAM]) for name, value in params.items()]
    labels = [RunTag(name, str(value)) for name, value in tags.items()]
    for start in range(0, max(len(settings), 1), PARAMS_AT_ONCE):
        some = settings[start : start + PARAMS_AT_ONCE]
        if some or labels:
            client.log_batch(run_id, params=some, tags=labels)
        labels = []


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
    """Put the model on the CPU in eval mode, and back where and as it was."""
    from dash_core.modes import in_mode

    device = next((tensor.device for tensor in model.parameters()), None)
    try:
        with in_mode(model.cpu(), training=False):
            yield
    finally:
        model.to(device)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the notices of mlflow and torch's exporter off the terminal; errors still show."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "torch")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
