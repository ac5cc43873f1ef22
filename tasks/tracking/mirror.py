"""MLflow as the mirror of the run folders: each folder's content is sent to MLflow, and nothing twice.

The live command, `sync`, `report` and a command after a kill all call `Mirror.bring`. A record is read once and sent
once, so the cost is linear in the records.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dash_core.comparison import Params
from dash_core.config import RunConfig, Setting
from dash_core.data import Dataset
from dash_core.errors import StopRequested, public_address
from dash_core.exporting import Tracer
from dash_core.recipes import effective, resolved
from dash_core.records import ChunkRecord
from tasks.store.locks import Busy, locked_run, locked_tracking
from tasks.store.new_records import NewRecords
from tasks.store.place import Place
from tasks.store.progress import Progress, read_progress
from tasks.store.runs import RunFolders, commit, final_model, input_example, is_complete, run_facts
from tasks.tracking import charts, client
from tasks.tracking.address import artifact_root, check_uri, tracking_uri
from tasks.tracking.failures import Failures
from tasks.tracking.metrics import LAST_METRIC, Totals, flatten, metrics_of, tags_of
from tasks.tracking.models import ModelsUnknown, log_model
from tasks.tracking.moved import LocationsUnknown, own_artifacts

if TYPE_CHECKING:
    from mlflow import MlflowClient

DIVERGED_TAG = "diverged"  # of a run: its experiments whose training diverged
METRICS_AT_ONCE = 1000  # MLflow's limit for a batch
STATUS = {"failed": "FAILED", "stopped": "KILLED"}  # of a run that is not complete, by its state; others are RUNNING


@dataclass
class _ShownRun:
    """What MLflow shows of one run, as far as this process knows."""

    records: NewRecords
    run_id: str = ""
    points: set[tuple[int, int]] = field(default_factory=set)  # (experiment, time) that MLflow had at first
    totals: Totals = field(default_factory=Totals)
    newest: ChunkRecord | None = None
    diverged: list[str] = field(default_factory=list)  # numbers of the experiments whose training diverged
    status: tuple[str, str | None] | None = None  # with the reason of a failure
    closed: bool = False  # this command has nothing left to send


class Mirror:
    """One comparison in MLflow.

    Nothing is opened, nor mlflow imported, before there is something to show. What MLflow fails to take is noted in
    `failures`. Only one thread may use a mirror at a time.
    """

    def __init__(
        self,
        params: Params,
        place: Place,
        open_data: Callable[[], Dataset],
        failures: Failures,
        folders: RunFolders | None = None,
    ) -> None:
        """ConfigError if MLflow's address is not valid; no server is asked.

        open_data: called for the first model. folders: of the runs, if they are not those of the place.
        """
        self.uri = tracking_uri(place.databases)
        check_uri(self.uri)
        self.failures = failures
        self.leaving = False  # the command was stopped: runs are closed, but no files and models are sent
        self.folders: RunFolders = folders or place
        self._params, self._place, self._open_data = params, place, open_data
        self._comparison: client.TrackedComparison | None = None
        self._complete_runs: dict[str, str] = {}  # time of the last record of each run that MLflow has completely
        self._forgotten: set[str] = set()
        self._shown: dict[str, _ShownRun] = {}
        self._tracer = Tracer()  # the networks of a comparison differ in their weights alone

    @property
    def address(self) -> str:
        """MLflow's address as it may be printed."""
        return public_address(self.uri)

    @property
    def opened(self) -> bool:
        """Whether the comparison was opened in MLflow."""
        return self._comparison is not None

    def bring(self, run: RunConfig, wait: bool = False) -> bool:
        """Make MLflow show what the run's folder says now; return whether this call completed the run there.

        wait: wait for another command that holds a complete run's lock, instead of leaving its files and model to the
        next call.
        """
        if self.failures.off("metrics"):
            return False
        with self.failures.apart("metrics"):
            if run.id in self._forgotten:
                comparison = self._open()  # before a client is made, which would create the database
                client.delete_run(self._client, comparison.experiment_id, run.id)
                self._forgotten.remove(run.id)
            shown, records = self._read_new(run)
            if shown is None or shown.closed:
                return False
            self._send_metrics(shown, records)
            if is_complete(run, self.folders):
                return not self.leaving and self._complete(run, shown, wait)
            self._show_status(shown, read_progress(self.folders.run_folder(run)))
        return False

    def forget(self, run: RunConfig) -> None:
        """Have the next `bring` delete the run in MLflow, because it is trained again; then send it anew."""
        self._forgotten.add(run.id)

    def describe(self, table: str, accuracies: Sequence[float], folder: Path, status: str) -> None:
        """Show a comparison's table (Markdown) and the files of its folder, and close the comparison."""
        if self.failures.off("metrics"):
            return
        with self.failures.apart("metrics"):
            comparison = self._open()
            client.describe(self._client, comparison, table, charts.settings(accuracies))
            self._send_files(comparison.summary_run_id, folder)
            self.close(status)

    def close(self, status: str) -> None:
        """Close the comparison's own run as FINISHED, FAILED or KILLED."""
        if not self.failures.off("metrics"):
            with self.failures.apart("metrics"):
                comparison = self._open()
                client.set_status(self._client, comparison.summary_run_id, status)

    @contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Close the comparison's own run if the block fails and MLflow shows the run."""
        try:
            yield
        except BaseException as error:
            if self.opened:
                self.close(status_of(type(error)))
            raise

    @property
    def _client(self) -> "MlflowClient":
        return client.client_of(self.uri)

    def _open(self) -> client.TrackedComparison:
        if self._comparison is None:
            params, store = self._params, self._place.store
            with locked_tracking(store):
                client.open_database(self.uri)
            self._adopt_artifacts(store)
            with locked_tracking(store):
                self._comparison = client.open_comparison(
                    self.uri,
                    comparison=params.name,
                    params=flatten(_shared(params)),
                    tags=tags_of(
                        dataset=params.dataset.name, model=params.model.name, commit=commit(), kind="comparison"
                    ),
                    artifact_root=artifact_root(store),
                )
            self._complete_runs = client.complete_runs(self._client, self._comparison.experiment_id)
        return self._comparison

    def _adopt_artifacts(self, store: Path) -> None:
        """Send artifacts to this store alone: a copy of a store never writes into the original."""
        try:
            own_artifacts(self.uri, store, self._place.databases)
        except LocationsUnknown as error:
            self.failures.note("artifacts", error)
            self.failures.note("models", error)

    def _read_new(self, run: RunConfig) -> tuple[_ShownRun | None, list[ChunkRecord]]:
        """Return what MLflow shows of a run (None: the run has not started), and its records since the last call."""
        if shown := self._shown.get(run.id):
            replaced, records = shown.records.read()
            if not replaced:
                return shown, records
        facts = run_facts(self.folders.run_folder(run), run)
        if facts is None:
            self._shown.pop(run.id, None)
            return None, []
        shown = self._shown[run.id] = _ShownRun(NewRecords(self.folders.run_folder(run)))
        return shown, self._compare_with_mlflow(run, facts, shown)

    def _compare_with_mlflow(self, run: RunConfig, facts: dict[str, Any], shown: _ShownRun) -> list[ChunkRecord]:
        """Ask MLflow once what it has of a run, delete what is left of an earlier training, and return the records."""
        comparison = self._open()
        _, records = shown.records.read()
        if records and self._complete_runs.get(run.id) == str(records[-1].finished_at):
            shown.closed = True
            return []
        shown.run_id = self._open_run(run, facts)
        shown.points = client.logged_points(self._client, shown.run_id, LAST_METRIC)
        replaced, later = shown.records.read()  # what another command has sent meanwhile was on disk before
        records = later if replaced else records + later
        if shown.points - {(record.experiment, record.finished_at) for record in records}:
            client.delete_run(self._client, comparison.experiment_id, run.id)
            shown.run_id, shown.points = self._open_run(run, facts), set()
        return records

    def _open_run(self, run: RunConfig, facts: dict[str, Any]) -> str:
        comparison, method = self._open(), run.method.label
        tags = tags_of(kind="run", method=method, dataset=run.dataset.name, model=run.model.name, seed=run.seed)
        tags |= tags_of(run_id=run.id, **facts) | {client.SUMMARY_TAG: comparison.summary_run_id}
        params = flatten(effective(run))
        with locked_tracking(self._place.store):
            return client.open_run(
                self._client, comparison.experiment_id, run.id, f"{method} · seed {run.seed}", params, tags
            )

    def _send_metrics(self, shown: _ShownRun, records: Sequence[ChunkRecord]) -> None:
        """Send the metrics of the records that MLflow does not have, many at once."""
        from mlflow.entities import Metric

        points = []
        if lost := [str(record.experiment) for record in records if record.diverged]:
            shown.diverged += lost
            self._client.set_tag(shown.run_id, DIVERGED_TAG, f"experiments {', '.join(shown.diverged)}")
        for record in records:
            shown.totals.add(record)
            shown.newest = record
            if (record.experiment, record.finished_at) not in shown.points:
                metrics = metrics_of(record, shown.totals)
                points += [Metric(name, value, record.finished_at, record.experiment) for name, value in metrics]
        for start in range(0, len(points), METRICS_AT_ONCE):
            self._client.log_batch(shown.run_id, metrics=points[start : start + METRICS_AT_ONCE])

    def _show_status(self, shown: _ShownRun, progress: Progress) -> None:
        status = STATUS.get(progress.state, "RUNNING"), progress.reason
        if status != shown.status:
            client.set_status(self._client, shown.run_id, *status)
            shown.status = status

    def _complete(self, run: RunConfig, shown: _ShownRun, wait: bool) -> bool:
        """Send the files and the model of a complete run, and close it; no other command trains it meanwhile."""
        try:
            with locked_run(run, self._place, wait=wait):
                replaced, records = shown.records.read()
                if replaced or not is_complete(run, self.folders):
                    del self._shown[run.id]
                    return False
                self._send_metrics(shown, records)
                training = str(shown.newest.finished_at)
                had_all = self._client.get_run(shown.run_id).data.tags.get(client.LAST_RECORD_TAG) == training
                added = not had_all and self._send_files_and_model(run, shown.run_id, training)
                client.set_status(self._client, shown.run_id, "FINISHED")
                shown.closed = True
                return added
        except Busy:
            return False

    def _send_files_and_model(self, run: RunConfig, run_id: str, training: str) -> bool:
        """Send a complete run's files and model; return whether MLflow took all, and record it in a tag."""
        self._send_files(run_id, self.folders.run_folder(run))
        if not self.failures.off("models"):
            with self.failures.apart("models"):
                dataset = self._open_data()
                model = final_model(run, dataset, self.folders)
                example = replace(input_example(run, dataset), tracer=self._tracer)
                try:
                    log_model(self.uri, run_id, model, example=example, name=model_name(run))
                except ModelsUnknown as error:
                    self.failures.lack("models", error)
        took_all = not self.failures.reasons
        if took_all:
            self._client.set_tag(run_id, client.LAST_RECORD_TAG, training)
        return took_all

    def _send_files(self, run_id: str, folder: Path) -> None:
        if not self.failures.off("artifacts"):
            with self.failures.apart("artifacts"):
                self._client.log_artifacts(run_id, str(folder))


def model_name(run: RunConfig) -> str:
    """Return the name of a run's model among those of its comparison: method and seed."""
    return f"{run.method.label}-seed-{run.seed}"


def status_of(kind: type[BaseException]) -> str:
    """Return MLflow's status of a run that ended with an exception of this class: KILLED if the user stopped it.

    Stops that are no errors are no `Exception`: Ctrl-C, and what Prefect makes of a SIGTERM within a flow.
    """
    return "FAILED" if issubclass(kind, Exception) and not issubclass(kind, StopRequested) else "KILLED"


def _shared(params: Params) -> dict[str, Any]:
    """Return the parameters that all runs of a comparison share, and its seeds and methods."""
    shared = params.model_dump(mode="json", include={*Setting.model_fields, "diagnostics"})
    methods = {label: params.method(label).parameters for label in params.compare.methods}
    return {**shared, **resolved(params), "seeds": sorted(params.seeds), "methods": methods}
