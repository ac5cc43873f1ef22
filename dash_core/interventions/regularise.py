"""Penalties on the distance from the first initialisation: L2 INIT, and its form in the DASH authors' code."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from dash_core.interventions.base import Intervention

Strength = Annotated[float, Field(ge=0)]


def l2_init_penalty(model: nn.Module, initial: Mapping[str, Tensor]) -> Tensor:
    """Return ‖θ − θ₀‖² over all parameters; initial: θ₀ by name (Kumar et al. 2023, equation 1, without λ)."""
    return torch.stack([(p - initial[name]).square().sum() for name, p in model.named_parameters()]).sum()


def l2_init_penalty_authors(model: nn.Module, initial: Mapping[str, Tensor]) -> Tensor:
    """Return (Σ over modules ‖W − W₀‖)² over weights, those of normalisation included, without biases."""
    norms = [
        torch.linalg.vector_norm(module.weight - initial[f"{name}.weight" if name else "weight"])
        for name, module in model.named_modules()
        if isinstance(getattr(module, "weight", None), Tensor)
    ]
    return torch.stack(norms).sum().square()


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
