"""Optimisers and learning-rate schedules."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dash_core.errors import ConfigError
from dash_core.optim.eager import SGD, Adam, AdamW
from dash_core.optim.sam import SAM

if TYPE_CHECKING:  # `SAM` needs torch alone
    from dash_core.config import OptimizerConfig

__all__ = ["SAM", "build_optimizer"]


def build_optimizer(model: nn.Module, config: "OptimizerConfig") -> torch.optim.Optimizer:
    """Return a new optimiser over every parameter of the model that takes a gradient.

    A parameter's learning rate is `config.lr` times the multiplier of the innermost layer in `config.lr_multipliers`
    that it belongs to, and each of these layers is a parameter group. ConfigError for a layer without such a parameter.
    """
    parameters = _groups(model, config) if config.lr_multipliers else [p for p in model.parameters() if p.requires_grad]
    shared = {"lr": config.lr, "weight_decay": config.weight_decay or 0.0, "fused": True}
    if config.name == "sgd":
        return SGD(parameters, momentum=config.momentum, **shared)
    if config.name == "sam":
        return SAM(parameters, rho=config.rho, momentum=config.momentum, **shared)
    kind = {"adam": Adam, "adamw": AdamW}[config.name]
    return kind(parameters, **shared)


def _groups(model: nn.Module, config: "OptimizerConfig") -> list[dict[str, Any]]:
    multipliers = {"": 1.0, **dict(config.lr_multipliers)}
    groups: dict[str, list[nn.Parameter]] = {layer: [] for layer in multipliers}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            layers = [layer for layer in multipliers if not layer or name.startswith(f"{layer}.")]
            groups[max(layers, key=len)].append(parameter)
    for layer, parameters in groups.items():
        if layer and not parameters:
            _refuse(layer, model)
    return [
        {"params": parameters, "lr": config.lr * multipliers[layer]}
        for layer, parameters in groups.items()
        if parameters
    ]


def _refuse(layer: str, model: nn.Module) -> None:
    """Raise ConfigError that says why no parameter takes the learning rate of a layer."""
    from dash_core.mistakes import check_layer  # needs pydantic, and `SAM` torch alone

    check_layer("optimizer.lr_multipliers", layer, model)
    raise ConfigError(f"optimizer.lr_multipliers: {layer} has no parameter of its own that is trained; leave it out")
