"""Optimisers and learning-rate schedules."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dash_core.optim.eager import SGD, Adam, AdamW
from dash_core.optim.sam import SAM

if TYPE_CHECKING:  # `SAM` needs torch alone
    from dash_core.config import OptimizerConfig

__all__ = ["SAM", "build_optimizer"]


def build_optimizer(model: nn.Module, config: "OptimizerConfig") -> torch.optim.Optimizer:
    """Return a new optimiser over every parameter of the model that takes a gradient.

    Layers of `config.layer_rates` have a parameter group each, with their own learning rate; the innermost that is
    named counts.
    """
    parameters = _groups(model, config) if config.layer_rates else [p for p in model.parameters() if p.requires_grad]
    shared = {"lr": config.lr, "weight_decay": config.weight_decay or 0.0, "fused": True}
    if config.name == "sgd":
        return SGD(parameters, momentum=config.momentum, **shared)
    if config.name == "sam":
        return SAM(parameters, rho=config.rho, momentum=config.momentum, **shared)
    kind = {"adam": Adam, "adamw": AdamW}[config.name]
    return kind(parameters, **shared)


def _groups(model: nn.Module, config: "OptimizerConfig") -> list[dict[str, Any]]:
    rates = {"": 1.0, **dict(config.layer_rates)}
    groups: dict[str, list[nn.Parameter]] = {layer: [] for layer in rates}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            within = [layer for layer in rates if not layer or name.startswith(f"{layer}.")]
            groups[max(within, key=len)].append(parameter)
    return [
        {"params": parameters, "lr": config.lr * rates[layer]} for layer, parameters in groups.items() if parameters
    ]
