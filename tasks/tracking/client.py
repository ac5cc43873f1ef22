"""MLflow's client: an experiment for each comparison, a run for each (method, seed), found again by its key.

Only this package imports mlflow, and only when it is called: the import takes seconds. Every call names its run; the
fluent "active run" belongs to a thread, leaks between tasks and is never used.
"""

import json
import logging
import os
import shutil
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import quote

from dash_core.errors import RecordError
from dash_core.files import sync
from tasks.store.database_templates import template_of
from tasks.store.sqlite_files import damage_of, path_in, sqlite_url
from tasks.tracking import charts as chart_view
from tasks.tracking.address import SERVED, check_answer

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

RUN_KEY = "run_key"  # the tag by which a run is found again
COMPARISON_KEY = "comparison"  # the summary run's key
SUMMARY_TAG = (
    "summary_run"  # the tag that names the comparison's own run; as MLflow's parentRunId it would fold all others
)
KIND_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # the pages for training, not those for chats
FAILURE_TAG = "failure"  # the tag that says why a run failed; removed when the run continues
LAST_RECORD_TAG = "last_record"  # the tag of a run that MLflow has completely: the time of its last record
NOTE_TAG = "mlflow.note.content"  # the tag that MLflow shows as a description
PARAMS_AT_ONCE, LONGEST_PARAM, LONGEST_NOTE = 100, 6000, 5000  # MLflow's limits: for a batch, and in characters
LONGEST_REASON = 500  # characters of a failure's tag
LOCAL_ARTIFACTS = "./mlruns"  # where MLflow keeps artifacts if it is not told
UNFINISHED = ".mlflow-"  # how the folders of databases that are being created begin
RUNS_PER_PAGE = 1000  # runs that MLflow returns at once


@dataclass(frozen=True)
class TrackedComparison:
    """Where a comparison is tracked: its experiment, and in it the run with the tables and figures of all runs."""

    experiment_id: str
    summary_run_id: str


def open_comparison(
    uri: str, *, comparison: str, params: Mapping[str, object], tags: Mapping[str, str], artifact_root: Path
) -> TrackedComparison:
    """Find or create the experiment and its summary run, which is RUNNING afterwards.

    This creates or upgrades the database: one process at a time (`locked_tracking`). `artifact_root` is used for a
    database file; a tracking server has a folder of its own.
    """
    client = open_database(uri)
    experiment = client.get_experiment_by_name(comparison)
    if experiment is None:
        place = None if uri.startswith(SERVED) else (Path(artifact_root).resolve() / comparison).as_uri()
        experiment_id = client.create_experiment(comparison, artifact_location=place, tags=KIND_TAGS)
    else:
        experiment_id = experiment.experiment_id
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment_id)
    if experiment is None or chart_view.VIEW_TAG not in experiment.tags:  # `describe` fits it to the accuracies
        client.set_experiment_tag(experiment_id, chart_view.VIEW_TAG, chart_view.settings())
    summary = open_run(client, experiment_id, COMPARISON_KEY, comparison, params, tags)
    set_status(client, summary, "RUNNING")
    return TrackedComparison(experiment_id, summary)


def open_run(
    client: "MlflowClient",
    experiment_id: str,
    key: str,
    name: str,
    params: Mapping[str, object],
    tags: Mapping[str, str],
) -> str:
    """Find the experiment's run with this key, or create it, and return its id.

    One process at a time (`locked_tracking`): two at once would each create a run and delete the other's.
    """
    run = find_run(client, experiment_id, key)
    if run is None:
        client.create_run(experiment_id, run_name=name, tags={RUN_KEY: key})
        run = find_run(client, experiment_id, key)
    missing = {name: value for name, value in params.items() if name not in run.data.params}
    log_params(client, run.info.run_id, missing, tags)  # MLflow refuses another value, which newer code may have
    return run.info.run_id


def find_run(client: "MlflowClient", experiment_id: str, key: str) -> "Run | None":
    """Return the first run with this key. Delete others: a request repeated to a slow server creates two."""
    runs = client.search_runs([experiment_id], f"tags.{RUN_KEY} = '{key}'", order_by=["attributes.start_time ASC"])
    for duplicate in runs[1:]:
        client.delete_run(duplicate.info.run_id)
    return runs[0] if runs else None


def delete_run(client: "MlflowClient", experiment_id: str, key: str) -> None:
    """Delete the experiment's run with this key, if it exists; MLflow can restore it."""
    for run in client.search_runs([experiment_id], f"tags.{RUN_KEY} = '{key}'"):
        client.delete_run(run.info.run_id)


def set_status(client: "MlflowClient", run_id: str, status: str, reason: str | None = None) -> None:
    """Set a run RUNNING, FINISHED, FAILED or KILLED, and show why it failed; nothing is sent if MLflow shows both."""
    run = client.get_run(run_id)
    reason = reason and reason[:LONGEST_REASON]
    if run.data.tags.get(FAILURE_TAG) != reason:
        client.set_tag(run_id, FAILURE_TAG, reason) if reason else client.delete_tag(run_id, FAILURE_TAG)
    if run.info.status == status:
        return
    if status == "RUNNING":
        client.update_run(run_id, status=status)
    else:
        client.set_terminated(run_id, status=status)


def log_params(client: "MlflowClient", run_id: str, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
    """Log parameters and tags in as few calls as MLflow takes."""
    from mlflow.entities import Param, RunTag

    settings = [Param(name, str(value)[:LONGEST_PARAM]) for name, value in params.items()]
    labels = [RunTag(name, str(value)) for name, value in tags.items()]
    for start in range(0, max(len(settings), 1), PARAMS_AT_ONCE):
        batch = settings[start : start + PARAMS_AT_ONCE]
        if batch or labels:
            client.log_batch(run_id, params=batch, tags=labels)
        labels = []


def complete_runs(client: "MlflowClient", experiment_id: str) -> dict[str, str]:
    """Return the tag `last_record` of the experiment's FINISHED runs, by run key."""
    last_records, token = {}, None
    while token != "":
        page = client.search_runs(
            [experiment_id], "attributes.status = 'FINISHED'", max_results=RUNS_PER_PAGE, page_token=token
        )
        last_records |= {run.data.tags.get(RUN_KEY, ""): run.data.tags.get(LAST_RECORD_TAG, "") for run in page}
        token = page.token or ""
    return last_records


def logged_points(client: "MlflowClient", run_id: str, metric: str) -> set[tuple[int, int]]:
    """Return (step, time in milliseconds) of every point of a metric."""
    return {(point.step, point.timestamp) for point in client.get_metric_history(run_id, metric)}


def describe(client: "MlflowClient", comparison: TrackedComparison, text: str, view: str) -> None:
    """Show a link to the report and a Markdown text above the charts and in the summary run; set the charts' view."""
    link = chart_view.report_link(comparison.experiment_id, comparison.summary_run_id)
    note = f"{link}\n\n{text}"[:LONGEST_NOTE]
    client.set_experiment_tag(comparison.experiment_id, chart_view.VIEW_TAG, view)
    client.set_experiment_tag(comparison.experiment_id, NOTE_TAG, note)
    client.set_tag(comparison.summary_run_id, NOTE_TAG, note)


def find_experiment(uri: str, comparison: str) -> str | None:
    """Return the id of a comparison's experiment, None if it was never tracked."""
    experiment = client_of(uri).get_experiment_by_name(comparison)
    return experiment.experiment_id if experiment else None


def comparison_url(base: str, experiment_id: str, run_ids: list[str] | None = None) -> str:
    """Return the address in MLflow's pages of the experiment's charts, or of the page that compares the given runs."""
    root = f"{base.rstrip('/')}/#"
    if not run_ids:
        return f"{root}/experiments/{experiment_id}/runs?{chart_view.VIEW_QUERY}"
    runs, experiments = (quote(json.dumps(ids, separators=(",", ":"))) for ids in (run_ids, [experiment_id]))
    return f"{root}/compare-runs?runs={runs}&experiments={experiments}"


def open_database(uri: str) -> "MlflowClient":
    """Return the client, after creating a missing database file; RecordError at once if the file is damaged.

    Without this MLflow would try a damaged database for minutes, and read on where an answer has no end.
    One process at a time (`locked_tracking`).
    """
    if path := path_in(uri):
        if not path.exists():
            _create_database(path)
        check_database(path)
    elif uri.startswith("http"):
        check_answer(uri)
    return client_of(uri)


def check_database(path: Path) -> None:
    """Raise RecordError if the database file is damaged; a missing file is in order."""
    if damage := damage_of(path):
        raise RecordError(
            f"{path} is damaged ({damage}): move it away, and `dashpipe sync` makes it again from the records"
        )


def _create_database(path: Path) -> None:
    """Create a database file completely or not at all.

    MLflow could never open a database that a kill left half made. What such a kill left is removed: one process at a
    time creates the database.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for unfinished in path.parent.glob(f"{UNFINISHED}*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    with TemporaryDirectory(prefix=UNFINISHED, dir=path.parent) as folder:
        new = Path(folder) / path.name
        new.write_bytes(template_of("mlflow", lambda: _migrated(Path(folder) / "migrated.db")))
        sync(new)
        new.replace(path)


def _migrated(path: Path) -> bytes:
    """Return the contents of a database that MLflow's migrations make at `path`, in seconds.

    MLflow names a folder below this process's working directory for the artifacts of its own experiment, `Default`,
    which we do not use. In a database for any store that address is relative.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with silence():
        SqlAlchemyStore(sqlite_url(path), default_artifact_root=LOCAL_ARTIFACTS).engine.dispose()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE experiments SET artifact_location = ? || '/' || experiment_id", (LOCAL_ARTIFACTS,))
    return path.read_bytes()


def client_of(uri: str) -> "MlflowClient":
    """Return this process's client: a fork would share its parent's connection."""
    return _client_of_process(uri, os.getpid())


@lru_cache(maxsize=8)
def _client_of_process(uri: str, pid: int) -> "MlflowClient":
    with silence():
        from mlflow import MlflowClient

        return MlflowClient(uri)


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
