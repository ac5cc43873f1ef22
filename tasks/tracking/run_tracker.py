"""One run as MLflow shows it: its parameters, tags and per-chunk metrics, made from the records on disk."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dash_core.comparison import Params
from dash_core.config import RunConfig, Setting
from dash_core.data import Dataset
from dash_core.records import ChunkRecord, milliseconds, read_records
from dash_core.views.summary import total_cost
from tasks.store.evidence import Evidence
from tasks.store.locks import locked_run, locked_tracking
from tasks.store.place import Place
from tasks.store.runs import RunFolders, final_model, input_example, recorded_facts
from tasks.tracking import client as tracking
from tasks.tracking.models import log_model
from tasks.tracking.outage import Breaker, without_password

MEASURED = (
    "images",
    "test_accuracy",
    "test_loss",
    "train_accuracy",
    "train_loss",
    "steps",
    "epochs",
    "converged",
)


@dataclass(frozen=True)
class Tracked:
    """Where runs are tracked: the store's address and the comparison they belong to, None if MLflow failed."""

    uri: str
    comparison: tracking.Comparison | None
    breaker: Breaker

    @property
    def shown(self) -> str:
        """The address as it may be printed."""
        return without_password(self.uri)

    def tell(self, call: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
        """Return what a function of `tasks.tracking.client` does with this address; None once MLflow has failed."""
        return self.breaker.attempt(call, self.uri, *arguments, **settings)

    def close(self, status: str, artifacts: Path | None = None) -> None:
        """Close the comparison's own run, with the files of a folder as its artifacts."""
        if self.comparison:
            self.tell(tracking.finish_run, self.comparison.summary_run_id, status=status, artifacts=artifacts)


def track_comparison(params: Params, place: Place, commit: str | None, breaker: Breaker | None = None) -> Tracked:
    """Open the comparison in MLflow: an experiment and its parent run; ConfigError if the address is none."""
    uri, breaker = tracking.tracking_uri(place.store), breaker or Breaker()
    tracking.check_uri(uri)
    with locked_tracking(place):
        comparison = breaker.attempt(
            tracking.open_comparison,
            uri,
            comparison=params.name,
            params=flatten(_shared(params)),
            tags=_tags(dataset=params.dataset.name, model=params.model.name, commit=commit, kind="comparison"),
            artifact_root=tracking.artifact_root(place.store),
        )
    return Tracked(uri, comparison, breaker)


class RunTracker:
    """Tells MLflow of one run; telling it the same again changes nothing. Once MLflow has failed it is silent.

    since: when that began which it tells of, in milliseconds of Unix time; None: now.
    """

    def __init__(
        self, tracked: Tracked, run: RunConfig, split: str, facts: Mapping[str, Any], since: int | None = None
    ) -> None:
        self._tracked = tracked
        self._since = since or milliseconds()
        self._key = run.id
        self._open = partial(
            tracked.tell,
            tracking.open_run,
            tracked.comparison,
            key=run.id,
            name=f"{run.method.label} · seed {run.seed}",
            params=flatten(run.model_dump(mode="json")),
            tags=_tags(
                kind="run",
                method=run.method.label,
                dataset=run.dataset.name,
                model=run.model.name,
                seed=run.seed,
                split=split,
                run_id=run.id,
                **facts,
            ),
        )
        self._id = self._open()

    def log_chunk(self, records: Sequence[ChunkRecord]) -> None:
        """Log the metrics of the last of the run's records at its step, with totals over all of them."""
        last, spent = records[-1], total_cost(records)
        totals = {
            "total_steps": sum(record.steps for record in records),
            "total_flops": spent.flops,
            "total_seconds": spent.seconds,
        }
        metrics = {**_metrics(last), **totals}
        self._tell(tracking.log_chunk, experiment=last.experiment, metrics=metrics, timestamp_ms=last.finished_at)

    def log_chunks(self, records: Sequence[ChunkRecord]) -> None:
        """Log every one of the run's records; what MLflow shows of an earlier training of the run is deleted.

        Points of a later time are another command's, which went on with the run meanwhile: they stay.
        """
        known = self._tell(tracking.logged_points, "steps") or set()
        own = {(record.experiment, record.finished_at) for record in records}
        if any(moment < self._since for _, moment in known - own):
            self._tracked.tell(tracking.forget_run, self._tracked.comparison, self._key)
            self._id = self._open()
        for count in range(1, len(records) + 1):
            self.log_chunk(records[:count])

    def finish(self, place: RunFolders, run: RunConfig, model: nn.Module, example: Tensor) -> None:
        """Log the final model and the run's files, and close the run."""
        folder = place.run_folder(run)
        tags = {tracking.LAST: str(read_records(folder)[-1].finished_at)}
        self._tell(log_model, model, example=example)
        self._tell(tracking.finish_run, status="FINISHED", artifacts=folder, tags=tags)

    def stop(self) -> None:
        """Close the run as stopped on request; it goes on when it is started again."""
        self._tell(tracking.finish_run, status="KILLED")

    def fail(self, reason: str) -> None:
        """Close the run as failed, with the reason as a tag."""
        self._tell(tracking.finish_run, status="FAILED", tags={tracking.FAILURE: reason[:500]})

    def _tell(self, call: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
        return self._tracked.tell(call, self._id, *arguments, **settings)


def tracked_ids(runs: Iterable[RunConfig], folders: RunFolders, tracked: Tracked) -> set[str]:
    """Return the ids of those complete runs that need no tracking: MLflow shows them whole, or it has failed."""
    finished = tracked.tell(tracking.finished_runs, tracked.comparison)
    if finished is None:
        return {run.id for run in runs}
    last = {run.id: read_records(folders.run_folder(run))[-1].finished_at for run in runs}
    return {run_id for run_id, moment in last.items() if finished.get(run_id) == str(moment)}


def track_complete(
    evidence: Evidence, folders: RunFolders, place: Place, tracked: Tracked, open_data: Callable[[], Dataset]
) -> list[str]:
    """Track those complete runs that MLflow does not show whole, from their records alone; return their ids.

    A run is held meanwhile: another command may be logging its model in this moment.
    """
    known = tracked_ids(evidence.runs, folders, tracked)
    todo = [pair for pair in zip(evidence.runs, evidence.results, strict=True) if pair[0].id not in known]
    dataset, added = open_data() if todo else None, []
    for run, result in todo:
        with locked_run(run, place):
            if tracked_ids([run], folders, tracked):
                continue
            tracker = RunTracker(tracked, run, evidence.splits[run.seed], recorded_facts(result))
            tracker.log_chunks(read_records(folders.run_folder(run)))
            tracker.finish(folders, run, final_model(run, dataset, folders), input_example(run, dataset))
            added.append(run.id)
    return added


def forget(run: RunConfig, place: Place, tracked: Tracked) -> None:
    """Remove a run's folder and its run in MLflow, so that it is trained again from the beginning."""
    with locked_run(run, place):
        shutil.rmtree(place.run_folder(run), ignore_errors=True)
        tracked.tell(tracking.forget_run, tracked.comparison, run.id)


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as {'section.key': value}."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _shared(params: Params) -> dict[str, Any]:
    """Return what all of a comparison's runs have in common, and its methods: no more than its name stands for."""
    shared = params.model_dump(mode="json", include={*Setting.model_fields, "diagnostics"})
    methods = {label: params.method(label).parameters for label in params.compare.methods}
    return {**shared, "seeds": sorted(params.seeds), "methods": methods}


def _metrics(record: ChunkRecord) -> dict[str, float]:
    """Return a record as metrics; MLflow's pages keep the groups "phases" and "plasticity" in sections of their own."""
    measured = {name: float(getattr(record, name)) for name in MEASURED}
    for phase, cost in record.cost.items():
        if cost.seconds:  # a phase that did not run is no point at zero
            measured[f"phases/{phase}_seconds"] = cost.seconds
            measured[f"phases/{phase}_flops"] = cost.flops
            measured[f"phases/{phase}_peak_memory_bytes"] = cost.peak_memory
    return measured | {f"plasticity/{name}": value for name, value in record.diagnostics.items()}


def _tags(**values: object) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}
