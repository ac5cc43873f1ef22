"""Shrinking without direction: Shrink & Perturb, its control without noise, and Ash & Adams' own form.

The authors of DASH shrink Conv2d and Linear weights and biases and leave normalisation layers alone;
`weights_and_biases` lists exactly those tensors, for every method here and for DASH.
"""

from collections.abc import Iterator
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from dash_core.config import Share
from dash_core.interventions.base import Intervention


def weights_and_biases(model: nn.Module) -> Iterator[tuple[str, Tensor, tuple[int, ...]]]:
    """Yield (name, parameter, dims) for each Conv2d and Linear weight and bias that is trained, each once.

    `dims` are the dimensions that make one weight vector: (2, 3) a Conv2d kernel (o, i), (1,) a row of a
    Linear weight, (0,) a whole bias (reference: DASH, section 4 and the authors' code).
    """
    seen: set[int] = set()
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        weight_dims = (2, 3) if isinstance(module, nn.Conv2d) else (1,)
        for kind, dims in (("weight", weight_dims), ("bias", (0,))):
            parameter = getattr(module, kind)
            if parameter is not None and parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{name}.{kind}" if name else kind, parameter, dims


@torch.no_grad()
def shrink_(model: nn.Module, factor: float) -> None:
    """Scale Conv2d and Linear weights and biases in place: θ ← λθ, λ = `factor` in [0, 1]."""
    if not 0 <= factor <= 1:
        raise ValueError(f"factor must be in [0, 1], got {factor}")
    for _, parameter, _ in weights_and_biases(model):
        parameter.mul_(factor)


@torch.no_grad()
def shrink_perturb_(
    model: nn.Module, *, shrink: float = 0.3, sigma: float = 0.01, generator: torch.Generator | None = None
) -> None:
    """Shrink & Perturb in place: θ ← λθ + ε, ε ~ N(0, σ²), on Conv2d and Linear weights and biases.

    λ = `shrink` in [0, 1]; `sigma` ≥ 0 is the standard deviation. `generator` is a CPU generator: the noise
    is drawn on the CPU and moved, the same on every device (Ash & Adams 2020, as in the DASH paper).
    """
    if not sigma >= 0:
        raise ValueError(f"sigma must be >= 0, got {sigma}")
    shrink_(model, shrink)
    for _, parameter, _ in weights_and_biases(model):
        noise = torch.empty(parameter.shape, dtype=parameter.dtype).normal_(0, sigma, generator=generator)
        parameter.add_(noise.to(parameter.device))


class Shrink(Intervention):
    """θ ← λθ: S&P without its noise, DASH without its direction."""

    name: ClassVar = "shrink"
    summary: ClassVar = "shrink all weights by one factor, no noise (the control of S&P and DASH)"
    source: ClassVar = "Shin et al. 2024, figure 13"

    shrink: Share = 0.3  # the paper's lambda

    def before_chunk(self, learner, data) -> dict[str, float]:
        """Shrink; momentum is kept."""
        shrink_(learner.model, self.shrink)
        return {}


class ShrinkPerturb(Intervention):
    """θ ← λθ + ε, ε ~ N(0, σ²)."""

    name: ClassVar = "shrink_perturb"
    summary: ClassVar = "Shrink & Perturb: shrink all weights by one factor, add Gaussian noise"
    source: ClassVar = "Ash & Adams 2020, as used by Shin et al. 2024, section 5"

    shrink: Share = 0.3  # the paper's lambda
    sigma: Annotated[float, Field(ge=0)] = 0.01  # standard deviation of the noise

    def before_chunk(self, learner, data) -> dict[str, float]:
        """Shrink and perturb; momentum is kept."""
        noise = learner.generator("perturb", data.experiment)
        shrink_perturb_(learner.model, shrink=self.shrink, sigma=self.sigma, generator=noise)
        return {}


class ShrinkPerturbAshAdams(Intervention):
    """θ ← λθ + γθ_fresh over all parameters, θ_fresh a new draw from the initialiser."""

    name: ClassVar = "shrink_perturb_ash_adams"
    summary: ClassVar = "Shrink & Perturb in its first form: shrink, then add a scaled fresh initialisation"
    source: ClassVar = "Ash & Adams 2020, section 4 and their code"

    shrink: Share = 0.4  # their lambda
    fresh: Share = 0.1  # their gamma: the share of a new initialisation that is added

    @torch.no_grad()
    def before_chunk(self, learner, data) -> dict[str, float]:
        """Mix with a fresh model over all parameters; buffers and optimiser start anew."""
        fresh = learner.fresh_state("perturb", data.experiment)
        parameters = dict(learner.model.named_parameters())
        for name, tensor in learner.model.state_dict().items():
            if name in parameters:
                tensor.mul_(self.shrink).add_(fresh[name], alpha=self.fresh)
            else:
                tensor.copy_(fresh[name])
        learner.restart_optimizer()
        return {}
