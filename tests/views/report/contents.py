"""Contents of reports, made by hand: every accuracy, step and seed is a literal of the test."""

from collections.abc import Mapping, Sequence
from typing import Any

from dash_core.cost import PHASES, Cost
from dash_core.records import ChunkRecord
from dash_core.views.report.content import ReportContent
from dash_core.views.summary import MethodRuns, summarise
from dash_core.views.tables import comparison_table

CLASSES = ("nought", "one")


def record(experiment: int, accuracy: float, steps: int = 100, converged: bool = True) -> ChunkRecord:
    """Return an experiment that costs 1 TFLOP and 0.1 s a step."""
    none = {phase: Cost() for phase in PHASES}
    return ChunkRecord(
        experiment=experiment,
        images=60 * experiment,
        test_accuracy=accuracy,
        test_loss=1 - accuracy,
        class_accuracy=(accuracy, accuracy),
        train_accuracy=1.0 if converged else 0.9,
        train_loss=0.01,
        steps=steps,
        epochs=steps // 10,
        converged=converged,
        cost={**none, "train": Cost(steps / 10, steps * 10**12, 10**6)},
    )


def runs(label: str, *last: float, steps: int = 100, stuck: int = 0, seeds: Sequence[int] | None = None) -> MethodRuns:
    """Return runs of two experiments by their last accuracies; the first `stuck` runs do not converge in the last."""
    histories = [
        [record(1, accuracy - 0.1, steps), record(2, accuracy, steps, converged=number >= stuck)]
        for number, accuracy in enumerate(last)
    ]
    return MethodRuns(label, label, dict(zip(seeds or range(len(last)), histories, strict=True)))


def content(
    *methods: MethodRuns, planned: int = 5, labels: Sequence[str] | None = None, **changes: Any
) -> ReportContent:
    """Return the content of a report on the given methods, on a setting that says which were planned."""
    given: dict[str, Any] = {
        "name": "digits-cnn3_small-0123abcd",
        "title": "digits, cnn3_small, sgd: 2 chunks, standard recipe",
        "settings": settings(labels or [method.label for method in methods], planned),
        "splits": {seed: f"{seed:x}" * 64 for seed in range(planned)},
        "data": {"name": "digits", "digest": "d" * 64, "train_images": 1438, "test_images": 359, "classes": 2},
        "machines": [{"commit": "0123456789ab", "device": "a processor", "cores": 2, "workers": 2, "threads": 1}],
        "table": comparison_table("digits, cnn3_small, sgd", summarise(methods), planned, ["measured on a processor"]),
        "methods": methods,
        "planned_seeds": planned,
        "class_names": CLASSES,
        "command": "dashpipe compare",
    }
    return ReportContent(**{**given, **changes})


def settings(labels: Sequence[str], planned: int) -> Mapping[str, Any]:
    return {
        "dataset": {"name": "digits", "label_noise": 0.0, "train_size": None, "test_size": None},
        "chunks": 2,
        "protocol": {"name": "standard"},
        "experiments": None,
        "model": {"name": "cnn3_small"},
        "optimizer": {"name": "sgd", "lr": 0.01},
        "training": {"recipe": "standard", "batch_size": 64, "stop_accuracy": 0.999, "max_epochs": 500},
        "methods": {"dash": {"alpha": 0.3}, "warm": {}},
        "seeds": list(range(planned)),
        "compare": {"methods": list(labels), "workers": "auto"},
    }
