"""MLflow: an experiment for each comparison, a run for each (method, seed), a step for each chunk.

Only this module and `tasks.tracking.models` import mlflow, and only when called: the import takes seconds. Every call
names its run; the fluent "active run" belongs to a thread, leaks between tasks and is never used. What is here is a
view of the records on disk: writing a finished chunk again changes nothing.
"""

import json
import logging
import math
import os
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from dash_core.errors import ConfigError
from tasks.tracking import charts as chart_view
from tasks.tracking.outage import explain, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RUN_KEY = "run_key"  # the tag by which a run is found again
COMPARISON_KEY = "comparison"  # the summary run's key
SUMMARY = "summary_run"  # the tag that names the comparison's own run; as MLflow's parentRunId it would fold all others
KIND = {"mlflow.experimentKind": "custom_model_development"}  # the pages for training, not those for chats
FAILURE = "failure"  # the tag that says why a run failed; gone when the run goes on
LAST = "last_record"  # the tag of a finished run that says when its last record was made: of which training it is
NOTE = "mlflow.note.content"  # the tag that MLflow shows as a description
EMBEDDED = "sqlite:///"  # how the address of a database file begins
PARAMS_AT_ONCE, LONGEST_PARAM, LONGEST_NOTE = 100, 6000, 5000  # MLflow's limits: for a batch, and in characters


@dataclass(frozen=True)
class Comparison:
    """Where a comparison is tracked: its experiment, and in it the run that holds the tables and figures of all."""

    experiment_id: str
    summary_run_id: str


def tracking_uri(store: Path) -> str:
    """Return the tracking URI the user set, or that of the database in `store`, absolute."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(store).resolve() / 'mlflow.db'}"


def check_uri(uri: str) -> None:
    """Raise ConfigError unless MLflow can use such an address; no server is asked."""
    try:
        parts = urlsplit(uri)
        if parts.scheme in ("http", "https"):
            if not parts.hostname or parts.port == 0:
                raise ValueError("it names no host")
        elif not uri.startswith(EMBEDDED):  # the default is known to be well
            _check_with_mlflow(uri)
    except ValueError as error:
        raise ConfigError(
            f"MLFLOW_TRACKING_URI: MLflow cannot use {without_password(uri)} ({explain(error)}); give "
            "http://HOST:PORT of a server or sqlite:////FOLDER/FILE.db, or unset it for a database in the store"
        ) from None


def _check_with_mlflow(uri: str) -> None:
    """Raise ValueError unless MLflow and SQLAlchemy, whose imports take seconds, take an address of any other kind."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.db.db_types import DATABASE_ENGINES
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if urlsplit(uri).scheme.split("+")[0] in DATABASE_ENGINES:
            make_url(uri).get_dialect().import_dbapi()
        else:
            client_of(uri)
    except (MlflowException, SQLAlchemyError, ImportError) as error:
        raise ValueError(explain(error)) from None


def artifact_root(store: Path) -> Path:
    """Return the folder of the artifacts that belong to the database in `store`."""
    return Path(store).resolve() / "mlartifacts"


def open_comparison(
    uri: str, *, comparison: str, params: Mapping[str, object], tags: Mapping[str, str], artifact_root: Path
) -> Comparison:
    """Find or create the experiment and its summary run, which is RUNNING afterwards.

    It creates or upgrades the database: one process at a time (`locked_tracking`). `artifact_root` holds for a
    database file; a tracking server has a place of its own.
    """
    if uri.startswith(EMBEDDED):
        _make_database(Path(uri.removeprefix(EMBEDDED)))
    client = client_of(uri)
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
    return _open(client_of(uri), comparison.experiment_id, key, name, params, family)


def log_chunk(
    uri: str, run_id: str, *, experiment: int, metrics: Mapping[str, float | None], timestamp_ms: int
) -> None:
    """Log one chunk's metrics at step `experiment`; the same call again changes nothing.

    Take the time from the chunk's record: MLflow knows a point by (value, time, step). None is left out; an infinite
    value becomes NaN, since MLflow would store the largest float and no chart survives that.
    """
    from mlflow.entities import Metric

    numbers = {name: float(value) for name, value in metrics.items() if value is not None}
    finite = {name: math.nan if math.isinf(value) else value for name, value in numbers.items()}
    points = [Metric(name, value, timestamp_ms, experiment) for name, value in finite.items()]
    client_of(uri).log_batch(run_id, metrics=points)


def finish_run(
    uri: str, run_id: str, *, status: str, artifacts: Path | None = None, tags: Mapping[str, str] | None = None
) -> None:
    """Close a run as FINISHED, FAILED or KILLED, with the files of a folder as its artifacts."""
    client = client_of(uri)
    if artifacts is not None:
        client.log_artifacts(run_id, str(artifacts))
    _log(client, run_id, {}, tags or {})
    client.set_terminated(run_id, status=status)


def describe(uri: str, comparison: Comparison, text: str, view: str) -> None:
    """Show a link to the report and a Markdown text above the charts and in the summary run; set the charts' view."""
    client, link = client_of(uri), chart_view.report_link(comparison.experiment_id, comparison.summary_run_id)
    note = f"{link}\n\n{text}"[:LONGEST_NOTE]
    client.set_experiment_tag(comparison.experiment_id, chart_view.TAG, view)
    client.set_experiment_tag(comparison.experiment_id, NOTE, note)
    client.set_tag(comparison.summary_run_id, NOTE, note)


def close_lost_run(uri: str, comparison: Comparison, *, key: str, status: str, reason: str | None = None) -> None:
    """Close the comparison's run of this key where its own process cannot; it may never have been opened."""
    found = client_of(uri).search_runs([comparison.experiment_id], f"tags.{RUN_KEY} = '{key}'", max_results=1)
    for run in found:
        finish_run(uri, run.info.run_id, status=status, tags={FAILURE: reason[:500]} if reason else None)


def comparison_url(base: str, experiment_id: str, run_ids: list[str] | None = None) -> str:
    """Return the address in MLflow's UI of the experiment's charts, or of the page that compares the given runs."""
    root = f"{base.rstrip('/')}/#"
    if not run_ids:
        return f"{root}/experiments/{experiment_id}/runs?{chart_view.QUERY}"
    runs, experiments = (quote(json.dumps(ids, separators=(",", ":"))) for ids in (run_ids, [experiment_id]))
    return f"{root}/compare-runs?runs={runs}&experiments={experiments}"


def find_experiment(uri: str, comparison: str) -> str | None:
    """Return the id of a comparison's experiment, None where it was never tracked."""
    experiment = client_of(uri).get_experiment_by_name(comparison)
    return experiment.experiment_id if experiment else None


def forget_run(uri: str, comparison: Comparison, key: str) -> None:
    """Delete the comparison's run of this key, if there is one; MLflow can restore it."""
    client = client_of(uri)
    for run in client.search_runs([comparison.experiment_id], f"tags.{RUN_KEY} = '{key}'"):
        client.delete_run(run.info.run_id)


def finished_runs(uri: str, comparison: Comparison) -> dict[str, str]:
    """Return when the last record was made, the tag LAST, by key of the comparison's runs that are FINISHED."""
    client, moments, token = client_of(uri), {}, None
    while token != "":
        page = client.search_runs(
            [comparison.experiment_id], "attributes.status = 'FINISHED'", max_results=1000, page_token=token
        )
        moments |= {run.data.tags.get(RUN_KEY, ""): run.data.tags.get(LAST, "") for run in page}
        token = page.token or ""
    return moments


def logged_points(uri: str, run_id: str, metric: str) -> set[tuple[int, int]]:
    """Return (step, time in milliseconds) of all that was logged of a metric."""
    return {(point.step, point.timestamp) for point in client_of(uri).get_metric_history(run_id, metric)}


def client_of(uri: str) -> "MlflowClient":
    """Return this process's client: a fork would share its parent's connection."""
    return _client_of_process(uri, os.getpid())


@lru_cache(maxsize=8)
def _client_of_process(uri: str, pid: int) -> "MlflowClient":
    with silence():
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
    if found := _only_run(client, experiment_id, key):
        client.update_run(found.info.run_id, status="RUNNING")
        if FAILURE in found.data.tags:
            client.delete_tag(found.info.run_id, FAILURE)
    else:
        client.create_run(experiment_id, run_name=name, tags={RUN_KEY: key})
        found = _only_run(client, experiment_id, key)
    _log(client, found.info.run_id, params, tags)
    return found.info.run_id


def _only_run(client: "MlflowClient", experiment_id: str, key: str) -> "Run | None":
    """Return the first run of this key; others go: the client asks a slow server again, which then makes two."""
    found = client.search_runs([experiment_id], f"tags.{RUN_KEY} = '{key}'", order_by=["attributes.start_time ASC"])
    for double in found[1:]:
        client.delete_run(double.info.run_id)
    return found[0] if found else None


def _make_database(path: Path) -> None:
    """Make the folder of a database, and touch the database: MLflow would try a damaged one for minutes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA schema_version")


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


@contextmanager
def silence() -> Iterator[None]:
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
