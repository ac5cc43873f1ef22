"""The registry of diagnostics: plasticity measures by name, taken at fixed times of each experiment.

A new diagnostic is a function from a Subject to values by part, and an entry here. Measures of a forward pass use at
most MOST_IMAGES images, a seeded draw; gradients use all images. Seconds and FLOPs are charged to the phase `diagnose`;
FLOPs of singular values are not counted. Diagnostics never change the result of a run.
"""

import math
from collections.abc import Sequence

from dash_core.config import nearest
from dash_core.diagnostics.accuracy import previous_accuracy, previous_accuracy_batch
from dash_core.diagnostics.base import MOST_IMAGES, Diagnostic, Subject, When
from dash_core.diagnostics.features import feature_rank, norms
from dash_core.diagnostics.gradients import alignment, gradient_norm
from dash_core.diagnostics.units import units
from dash_core.diagnostics.weights import distance
from dash_core.errors import ConfigError, TrainingError

__all__ = ["DIAGNOSTICS", "MOST_IMAGES", "Diagnostic", "Subject", "diagnose", "diagnostics_named"]

_ALL = (
    Diagnostic(
        "previous_accuracy",
        "accuracy on the previous data right after the intervention and after each of the first 5 epochs",
        "Shin et al. 2024, figure 13",
        ("before_training", "after_epoch"),
        previous_accuracy,
    ),
    Diagnostic(
        "previous_accuracy_batch",
        "the same with BatchNorm's statistics of each batch: its running ones are out of date after shrinking",
        "cf. Shin et al. 2024, figure 13",
        ("before_training", "after_epoch"),
        previous_accuracy_batch,
    ),
    Diagnostic(
        "gradient_norm",
        "norm of the summed gradient on previous, new and all data before training",
        "Shin et al. 2024, figure 6",
        ("before_training",),
        gradient_norm,
    ),
    Diagnostic(
        "alignment",
        "cosine of weight vectors and negative gradient before the intervention",
        "Shin et al. 2024, figure 14",
        ("before_intervention",),
        alignment,
    ),
    Diagnostic(
        "units",
        "dead and dormant units of each block after training",
        "Shin et al. 2024, figure 16; Sokar et al. 2023",
        ("after_training",),
        units,
    ),
    Diagnostic(
        "norms",
        "norms of weights and features after training",
        "Lyle et al. 2024",
        ("after_training",),
        norms,
    ),
    Diagnostic(
        "feature_rank",
        "effective rank of the features after training",
        "Roy & Vetterli 2007; Kumar et al. 2021",
        ("after_training",),
        feature_rank,
    ),
    Diagnostic(
        "distance",
        "distance of the parameters from the first initialisation after training",
        "cf. Kumar et al. 2023 (L2 INIT)",
        ("after_training",),
        distance,
    ),
)
DIAGNOSTICS: dict[str, Diagnostic] = {diagnostic.name: diagnostic for diagnostic in _ALL}


def diagnostics_named(names: Sequence[str]) -> tuple[Diagnostic, ...]:
    """Return the diagnostics of these names; ConfigError, with the nearest name, for an unknown one."""
    for name in names:
        if name not in DIAGNOSTICS:
            known = list(DIAGNOSTICS)
            raise ConfigError(f"unknown diagnostic {name!r}{nearest(name, known)}; known: {', '.join(known)}")
    return tuple(DIAGNOSTICS[name] for name in names)


def diagnose(chosen: Sequence[Diagnostic], when: When, subject: Subject) -> dict[str, float]:
    """Return the values of the diagnostics due at this time, by `<name>/<part>`; TrainingError if one is not finite."""
    measured: dict[str, float] = {}
    for diagnostic in chosen:
        if when in diagnostic.when:
            with subject.learner.meter.aside("diagnose"):
                parts = diagnostic.measure(subject)
            measured |= {f"{diagnostic.name}/{part}": value for part, value in parts.items()}
    for name, value in measured.items():
        if not math.isfinite(value):
            raise TrainingError(
                f"the diagnostic {name} is {value} at experiment {subject.data.experiment}: lower optimizer.lr"
            )
    return measured
