"""Measures of the weights: their norms, and their distance from the first initialisation."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dash_core.diagnostics.base import Subject
from dash_core.shrinking import weights_and_biases


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the trainable Conv2d and Linear weights by parameter name, without biases."""
    return {name: parameter for name, parameter, _ in weights_and_biases(model) if parameter.dim() > 1}


@torch.no_grad()
def whole_norm(tensors: Iterable[Tensor]) -> float:
    """Return the Euclidean norm of all tensors together, in float64; 0 if there are none."""
    norms = [torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in tensors]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0


@torch.no_grad()
def weight_norms(model: nn.Module) -> dict[str, float]:
    """Return the norm of each Conv2d and Linear weight, `weights/<parameter>`, and of all together, `weights`."""
    found = weights(model)
    return {
        "weights": whole_norm(found.values()),
        **{f"weights/{name}": whole_norm([weight]) for name, weight in found.items()},
    }


def distance(subject: Subject) -> dict[str, float]:
    """Return ‖θ − θ₀‖₂ over all parameters; θ₀ is the first initialisation, as in L2 INIT."""
    initial = subject.learner.initial
    parameters = subject.learner.model.named_parameters()
    return {"total": whole_norm(parameter.detach() - initial[name] for name, parameter in parameters)}
