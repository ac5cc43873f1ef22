"""Publish the complete runs of a comparison: write its folder, and show it in MLflow."""

from dataclasses import dataclass
from pathlib import Path

from dash_core.views.tables import Table, to_markdown
from tasks.store.comparison_folder import write_comparison
from tasks.store.evidence import Evidence
from tasks.store.place import Place
from tasks.tracking.mirror import Mirror


@dataclass(frozen=True)
class Published:
    """A comparison's table and the folder it was written to."""

    name: str
    folder: Path
    table: Table


def publish_comparison(evidence: Evidence, place: Place, mirror: Mirror, command: str, failed: bool) -> Published:
    """Write tables and report to the comparison's folder; in MLflow the comparison is closed as finished, or failed."""
    folder = place.comparison_folder(evidence.params)
    table = write_comparison(evidence, folder, command)
    records = [record for method in evidence.methods for run in method.runs.values() for record in run]
    accuracies = [record.test_accuracy for record in records]
    mirror.describe(to_markdown(table), accuracies, folder, "FAILED" if failed else "FINISHED")
    return Published(evidence.params.name, folder, table)
