"""Penalties on the distance from the first initialisation: L2 INIT, and its form in the DASH authors' code."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


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
