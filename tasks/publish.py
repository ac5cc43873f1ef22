"""Publish a comparison: its table in every form, on disk, in MLflow and as a Prefect artifact."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from dash_core.comparison import Params
from dash_core.config import RunConfig
from dash_core.files import write_atomically
from dash_core.summary import MethodSummary, summarise
from dash_core.tables import Table, comparison_table, to_csv, to_latex, to_markdown
from tasks import tracking
from tasks.place import Place
from tasks.run_tracker import Tracked
from tasks.runs import conditions, records_by_method, to_yaml


@dataclass(frozen=True)
class Published:
    """A comparison's table and the folder it was written to."""

    name: str
    folder: Path
    table: Table


@task(task_run_name="publish {params.name}", cache_policy=NO_CACHE, persist_result=False)
def publish(params: Params, runs: Sequence[RunConfig], place: Place, tracked: Tracked, failed: bool) -> Published:
    """Write the table of the complete runs; the comparison in MLflow is closed as finished, or as failed."""
    folder = place.comparison_folder(params)
    summaries = summarise(records_by_method(runs, place))
    table = table_of(params, summaries, conditions(runs, place))
    files = {"table.md": to_markdown(table), "table.csv": to_csv(summaries), "table.tex": to_latex(table)}
    for name, text in files.items():
        write_atomically(folder / name, text.encode())
    write_atomically(folder / "params.yaml", to_yaml(params.model_dump(mode="json")))
    status = "FAILED" if failed else "FINISHED"
    tracking.finish_run(tracked.uri, tracked.comparison.summary_run_id, status=status, artifacts=folder)
    create_table_artifact(
        key=artifact_key(params.name),
        table=[dict(zip(table.headings, (cell.text for cell in row), strict=True)) for row in table.rows],
        description="\n\n".join((f"**{table.title}**", *table.notes)),
    )
    return Published(params.name, folder, table)


def table_of(params: Params, summaries: Sequence[MethodSummary], notes: Sequence[str]) -> Table:
    """Return the comparison's table, its title naming data, model and protocol."""
    setting = f"{params.dataset.name}, {params.model.name}, {params.optimizer.name}"
    title = f"{setting}: {params.chunks} chunks, {params.training.recipe} recipe"
    return comparison_table(title, summaries, len(params.seeds), notes)


def artifact_key(name: str) -> str:
    """Return a name as Prefect takes artifact keys: lowercase letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
