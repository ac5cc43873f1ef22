"""Publish a comparison: its table in every form and its report, on disk, in MLflow and as a Prefect artifact."""

import re

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from tasks.store.evidence import Evidence
from tasks.store.place import Place
from tasks.tracking.mirror import Mirror
from tasks.tracking.publication import Published, publish_comparison


@task(task_run_name="publish {evidence.params.name}", cache_policy=NO_CACHE, persist_result=False, retries=0)
def publish(evidence: Evidence, place: Place, mirror: Mirror, command: str, failed: bool) -> Published:
    """Publish the complete runs on disk and in MLflow, and show their table in Prefect."""
    published = publish_comparison(evidence, place, mirror, command, failed)
    table = published.table
    create_table_artifact(
        key=artifact_key(published.name),
        table=[dict(zip(table.headings, (cell.text for cell in row), strict=True)) for row in table.rows],
        description="\n\n".join((f"**{table.title}**", *table.notes)),
    )
    return published


def artifact_key(name: str) -> str:
    """Return a name as Prefect takes artifact keys: lowercase letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
