"""The evidence for tables, figures and report: a comparison's complete runs, read back from disk."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dash_core.comparison import Params
from dash_core.config import RunConfig
from dash_core.errors import RecordError
from dash_core.records import ChunkRecord, read_records
from dash_core.result import read_result
from dash_core.views.summary import MethodRuns
from tasks.store.runs import RunFolders, is_complete

REQUIRED_FACTS = ("device", "cores", "workers", "threads", "torch", "commit")
CONDITIONS = (
    "measured on {device}, {cores} cores, {workers} run(s) at once of {threads} thread(s), "
    "torch {torch}, commit {commit}"
)


@dataclass(frozen=True)
class Evidence:
    """A comparison's complete runs, and the data they were trained on.

    methods: records by method and seed. results: each run's result.json. splits: hash of the chunk plan by seed.
    data: the dataset's description (`tasks.store.results.describe`).
    """

    params: Params
    runs: Sequence[RunConfig]
    methods: Sequence[MethodRuns]
    results: Sequence[Mapping[str, Any]]
    splits: Mapping[int, str]
    data: Mapping[str, Any]

    @property
    def conditions(self) -> list[str]:
        """The distinct conditions under which the runs were trained, a line each."""
        return sorted({CONDITIONS.format_map(defaultdict(lambda: "unknown", result)) for result in self.results})

    @property
    def gaps(self) -> list[str]:
        """A sentence that names the methods of which no run is complete; nothing if there is none."""
        present = {method.label for method in self.methods}
        missing = [label for label in self.params.compare.methods if label not in present]
        return [f"no run is complete, and so there is no row, of: {', '.join(missing)}"] if missing else []

    @property
    def shared(self) -> list[str]:
        """A sentence on experiments that were trained once for several runs; nothing if there are none."""
        records = [record for method in self.methods for run in method.runs.values() for record in run]
        taken = sum(record.taken_from is not None for record in records)
        sentence = f"{taken} of {len(records)} experiments were trained by another run of the same bits, costs included"
        return [sentence] if taken else []

    @property
    def split_note(self) -> str:
        """The chunk plans, each by the first digits of its hash."""
        return "data splits by seed: " + ", ".join(f"{seed} {digest[:8]}" for seed, digest in self.splits.items())


def gather(params: Params, folders: RunFolders, splits: Mapping[int, str], data: Mapping[str, Any]) -> Evidence:
    """Read the comparison's complete runs. splits: hash, by seed, of the chunk plan a run must be trained on."""
    runs = [run for run in params.runs() if is_complete(run, folders, splits[run.seed])]
    results = [_result(run, folders) for run in runs]
    return Evidence(params, runs, _by_method(runs, folders), results, splits, data)


def _result(run: RunConfig, folders: RunFolders) -> Mapping[str, Any]:
    """Return a complete run's result; RecordError if it lacks facts of its measurement."""
    folder = folders.run_folder(run)
    result = read_result(folder, run)
    if missing := [name for name in REQUIRED_FACTS if name not in result]:
        lacks = ", ".join(missing)
        raise RecordError(f"{folder / 'result.json'} lacks {lacks}; remove the run's folder to train it again")
    return result


def _by_method(runs: Sequence[RunConfig], folders: RunFolders) -> list[MethodRuns]:
    """Return the runs' records, method by method in the order of their first run."""
    records: dict[str, dict[int, list[ChunkRecord]]] = {}
    interventions = {}
    for run in runs:
        records.setdefault(run.method.label, {})[run.seed] = read_records(folders.run_folder(run))
        interventions[run.method.label] = run.method.intervention
    return [MethodRuns(label, interventions[label], by_seed) for label, by_seed in records.items()]
