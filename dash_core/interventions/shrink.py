"""Shrinking without direction: Shrink & Perturb, its control without noise, and the original form of Ash & Adams."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field

from dash_core.interventions.base import Intervention, weights_to_shrink
from dash_core.section import Share
from dash_core.shrinking import scale_


class Shrink(Intervention):
    """θ ← λθ: S&P without its noise, DASH without its direction."""

    name: ClassVar = "shrink"
    summary: ClassVar = "shrink all weights by one factor, no noise (the control of S&P and DASH)"
    source: ClassVar = "Shin et al. 2024, figure 13"
    symbols: ClassVar = {"lambda": "shrink", "λ": "shrink"}

    shrink: Share = 0.3  # the paper's lambda

    def before_chunk(self, learner, data) -> dict[str, float]:
        """Shrink; keep momentum."""
        scale_(weights_to_shrink(learner.model), self.shrink)
        return {}


class ShrinkPerturb(Intervention):
    """θ ← λθ + ε, ε ~ N(0, σ²)."""

    name: ClassVar = "shrink_perturb"
    summary: ClassVar = "Shrink & Perturb: shrink all weights by one factor, add Gaussian noise"
    source: ClassVar = "Ash & Adams 2020, as used by Shin et al. 2024, section 5"
    symbols: ClassVar = {"lambda": "shrink", "λ": "shrink", "σ": "sigma"}

    shrink: Share = 0.3  # the paper's lambda
    sigma: Annotated[float, Field(ge=0)] = 0.01  # standard deviation of the noise

    def before_chunk(self, learner, data) -> dict[str, float]:
        """Shrink and perturb; keep momentum."""
        noise = learner.generator("perturb", data.experiment)
        scale_(weights_to_shrink(learner.model), self.shrink, self.sigma, noise)
        return {}


class ShrinkPerturbAshAdams(Intervention):
    """θ ← λθ + γθ_fresh over all parameters; θ_fresh is a newly drawn initialisation."""

    name: ClassVar = "shrink_perturb_ash_adams"
    summary: ClassVar = "Shrink & Perturb in its first form: shrink, then add a scaled fresh initialisation"
    source: ClassVar = "Ash & Adams 2020, section 4 and their code"
    symbols: ClassVar = {"lambda": "shrink", "λ": "shrink", "gamma": "fresh", "γ": "fresh"}

    shrink: Share = 0.4  # their lambda
    fresh: Share = 0.1  # their gamma: the factor of the new initialisation

    @torch.no_grad()
    def before_chunk(self, learner, data) -> dict[str, float]:
        """Mix all parameters with those of a new model; restart buffers and optimiser."""
        fresh = learner.fresh_state("perturb", data.experiment)
        parameters = dict(learner.model.named_parameters())
        for name, tensor in learner.changeable():
            if name in parameters:
                tensor.mul_(self.shrink).add_(fresh[name], alpha=self.fresh)
            else:
                tensor.copy_(fresh[name])
        learner.restart_optimizer()
        return {}
