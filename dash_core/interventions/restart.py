"""Restarts, whole or partial: cold, warm, warm with a new optimiser, a new head."""

from typing import ClassVar

import torch

from dash_core.interventions.base import Intervention


class Cold(Intervention):
    """Start every experiment from new weights, drawn separately each time, and a new optimiser."""

    name: ClassVar = "cold"
    summary: ClassVar = "train from scratch on all data so far: a new model and a new optimiser"
    source: ClassVar = "Shin et al. 2024, section 2"

    def before_chunk(self, learner, data) -> dict[str, float]:
        """Draw new weights and buffers, restart the optimiser."""
        learner.load_weights(learner.fresh_state("init", data.experiment))
        learner.restart_optimizer()
        return {}


class Warm(Intervention):
    """Continue from the last weights and optimiser state; change nothing."""

    name: ClassVar = "warm"
    summary: ClassVar = "go on from the last weights and optimiser state"
    source: ClassVar = "Ash & Adams 2020"


class WarmNewOptimizer(Intervention):
    """Continue from the last weights with a new optimiser, without its momentum ("Warm ReM")."""

    name: ClassVar = "warm_rm"
    summary: ClassVar = "go on from the last weights with a new optimiser (Warm ReM)"
    source: ClassVar = "Shin et al. 2024, tables 3–6"

    def before_chunk(self, learner, data) -> dict[str, float]:
        """Restart the optimiser."""
        learner.restart_optimizer()
        return {}


class HeadReset(Intervention):
    """Initialise the classifier head anew; keep everything else."""

    name: ClassVar = "head_reset"
    summary: ClassVar = "initialise the classifier head anew, keep the rest (Reset)"
    source: ClassVar = "Shin et al. 2024, table 2"

    @torch.no_grad()
    def before_chunk(self, learner, data) -> dict[str, float]:
        """Draw a new head (VGG: all three classifier layers); keep momentum."""
        fresh = learner.fresh_state("head", data.experiment)
        for name, tensor in learner.changeable():
            if name.startswith(tuple(f"{head}." for head in learner.head)):
                tensor.copy_(fresh[name])
        return {}
