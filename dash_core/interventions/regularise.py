"""L2 INIT, which penalises the distance from the first initialisation, and its form in the DASH authors' code."""

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from dash_core.interventions.base import Intervention
from dash_core.penalties import l2_init_penalty, l2_init_penalty_authors

Strength = Annotated[float, Field(ge=0)]


class L2Init(Intervention):
    """Loss + λ‖θ − θ₀‖²; θ₀ is the first initialisation of the run."""

    name: ClassVar = "l2_init"
    summary: ClassVar = "penalise the squared distance of all parameters from the first initialisation"
    source: ClassVar = "Kumar et al. 2023; Shin et al. 2024, table 2"
    symbols: ClassVar = {"lambda": "strength", "λ": "strength"}

    strength: Strength = 0.001  # lambda; ours: the paper does not give the value of its table 2

    def penalty(self, learner) -> Tensor:
        """Return λ‖θ − θ₀‖²."""
        return self.strength * l2_init_penalty(learner.model, learner.initial)


class L2InitAuthors(Intervention):
    """Loss + λ(Σ over modules ‖W − W₀‖)², as in the DASH authors' code."""

    name: ClassVar = "l2_init_authors"
    summary: ClassVar = "L2 INIT as in the DASH authors' code: the square of summed weight distances"
    source: ClassVar = "Shin et al. 2024, released code"
    symbols: ClassVar = {"lambda": "strength", "λ": "strength"}

    strength: Strength = 0.0001  # lambda; ours, see l2_init

    def penalty(self, learner) -> Tensor:
        """Return λ(Σ‖W − W₀‖)²."""
        return self.strength * l2_init_penalty_authors(learner.model, learner.initial)
