"""A record as MLflow's metrics, and a configuration as its parameters."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dash_core.cost import Cost
from dash_core.records import ChunkRecord

LAST_METRIC = "steps"  # sent as the last metric of a record: if MLflow has this point, it has the whole record
MEASURED = ("images", "test_accuracy", "test_loss", "train_accuracy", "train_loss", "epochs", "converged", LAST_METRIC)


@dataclass
class Totals:
    """What a run has spent up to its newest record."""

    steps: int = 0
    cost: Cost = field(default_factory=Cost)

    def add(self, record: ChunkRecord) -> None:
        """Count one more record."""
        self.steps += record.steps
        self.cost += record.total_cost


def metrics_of(record: ChunkRecord, totals: Totals) -> Iterator[tuple[str, float]]:
    """Yield a record's metrics by name, with the totals up to it; LAST_METRIC is the last.

    MLflow's pages show the groups "phases" and "plasticity" in sections of their own. An infinite value becomes NaN:
    MLflow would store the largest float, which spoils every chart.
    """
    metrics: dict[str, float] = {
        "total_steps": totals.steps,
        "total_flops": totals.cost.flops,
        "total_teraflops": totals.cost.flops * 1e-12,
        "balanced_accuracy": record.balanced,
        "total_seconds": totals.cost.seconds,
    }
    if record.validation_accuracy:
        metrics["validation_accuracy"] = record.validation_accuracy[(record.picked_epoch or 0) - 1]
    if record.process_seconds is not None:
        metrics["process_seconds"] = record.process_seconds
    for phase, cost in record.cost.items():
        if cost.seconds:  # a phase that did not run has no point, rather than one at zero
            metrics[f"phases/{phase}_seconds"] = cost.seconds
            metrics[f"phases/{phase}_flops"] = cost.flops
            metrics[f"phases/{phase}_peak_memory_bytes"] = cost.peak_memory
    metrics |= {f"plasticity/{name}": value for name, value in record.diagnostics.items()}
    metrics |= {name: getattr(record, name) for name in MEASURED}
    for name, value in metrics.items():
        yield name, math.nan if math.isinf(value) else float(value)


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as {'section.key': value}."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def tags_of(**values: object) -> dict[str, str]:
    """Return MLflow's tags; a value of None is left out."""
    return {name: str(value) for name, value in values.items() if value is not None}
