"""One run as MLflow shows it: its parameters, tags and per-chunk metrics, made from the records on disk."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dash_core.comparison import Params
from dash_core.config import RunConfig
from dash_core.data import Dataset
from dash_core.records import ChunkRecord, read_records
from dash_core.summary import total_cost
from tasks import tracking
from tasks.evidence import Evidence
from tasks.place import Place
from tasks.runs import RunFolders, final_model, input_example, recorded_facts

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
    """Where runs are tracked: the store's address and the comparison they belong to."""

    uri: str
    comparison: tracking.Comparison


def track_comparison(params: Params, place: Place, commit: str | None) -> Tracked:
    """Open the comparison in MLflow: an experiment and its parent run."""
    uri = tracking.tracking_uri(place.store)
    comparison = tracking.open_comparison(
        uri,
        comparison=params.name,
        params=flatten(_shared(params)),
        tags=_tags(dataset=params.dataset.name, model=params.model.name, commit=commit, kind="comparison"),
        artifact_root=tracking.artifact_root(place.store),
    )
    return Tracked(uri, comparison)


class RunTracker:
    """Tells MLflow of one run; telling it the same again changes nothing."""

    def __init__(self, tracked: Tracked, run: RunConfig, split: str, facts: Mapping[str, Any]) -> None:
        self._uri = tracked.uri
        self._id = tracking.open_run(
            tracked.uri,
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

    def log_chunk(self, records: Sequence[ChunkRecord]) -> None:
        """Log the metrics of the last of the run's records at its step, with totals over all of them."""
        last, spent = records[-1], total_cost(records)
        totals = {
            "total_steps": sum(record.steps for record in records),
            "total_flops": spent.flops,
            "total_seconds": spent.seconds,
        }
        metrics = {**_metrics(last), **totals}
        tracking.log_chunk(self._uri, self._id, chunk=last.chunk, metrics=metrics, timestamp_ms=last.finished_at)

    def log_chunks(self, records: Sequence[ChunkRecord]) -> None:
        """Log every one of the run's records."""
        for count in range(1, len(records) + 1):
            self.log_chunk(records[:count])

    def finish(self, place: RunFolders, run: RunConfig, model: nn.Module, example: Tensor) -> None:
        """Log the final model and the run's files, and close the run."""
        tracking.log_model(self._uri, self._id, model, example=example)
        tracking.finish_run(self._uri, self._id, status="FINISHED", artifacts=place.run_folder(run))

    def stop(self) -> None:
        """Close the run as stopped on request; it goes on when it is started again."""
        tracking.finish_run(self._uri, self._id, status="KILLED")

    def fail(self, reason: str) -> None:
        """Close the run as failed, with the reason as a tag."""
        tracking.finish_run(self._uri, self._id, status="FAILED", tags={tracking.FAILURE: reason[:500]})


def track_complete(evidence: Evidence, folders: RunFolders, tracked: Tracked, open_data: Callable[[], Dataset]) -> None:
    """Track those complete runs that MLflow does not know as finished, from their records alone."""
    finished = tracking.finished_keys(tracked.uri, tracked.comparison)
    todo = [pair for pair in zip(evidence.runs, evidence.results, strict=True) if pair[0].id not in finished]
    dataset = open_data() if todo else None
    for run, result in todo:
        tracker = RunTracker(tracked, run, evidence.splits[run.seed], recorded_facts(result))
        tracker.log_chunks(read_records(folders.run_folder(run)))
        tracker.finish(folders, run, final_model(run, dataset, folders), input_example(run, dataset))


def forget(run: RunConfig, place: Place, tracked: Tracked) -> None:
    """Remove a run's folder and its run in MLflow, so that it is trained again from the beginning."""
    shutil.rmtree(place.run_folder(run), ignore_errors=True)
    tracking.forget_run(tracked.uri, tracked.comparison, run.id)


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
    shared = params.model_dump(mode="json", include={"dataset", "chunks", "model", "optimizer", "training"})
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
