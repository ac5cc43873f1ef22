"""A larger head for new classes: what was learned of the old classes stays, the new rows are freshly initialised."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def grown_state(state: Mapping[str, Any], fresh: Mapping[str, Tensor], parameters: list[str]) -> dict[str, Any]:
    """Return a learner's state for a model with more classes.

    state: of the model with fewer classes, as `Learner.state_dict` returns it. fresh: state of a new model with more.
    parameters: names of the model's parameters, in the optimiser's order. The first rows of each tensor that grew are
    the old ones; the optimiser has no momentum for the new rows yet.
    """
    model = {name: _grown(tensor, fresh[name]) for name, tensor in state["model"].items()}
    kept = state["optimizer"]["state"]
    optimizer = {
        index: {key: _grown(value, torch.zeros_like(fresh[parameters[index]])) for key, value in values.items()}
        for index, values in kept.items()
    }
    return {**state, "model": model, "optimizer": {**state["optimizer"], "state": optimizer}}


def _grown(value: Any, larger: Tensor) -> Any:
    """Return `larger` with the first rows of `value`; the value itself if it has no fewer rows, or none."""
    if not isinstance(value, Tensor) or value.ndim != larger.ndim or value.shape == larger.shape:
        return value
    if value.shape[1:] != larger.shape[1:] or len(value) > len(larger):
        raise ValueError(f"a tensor of {tuple(value.shape)} cannot grow to {tuple(larger.shape)}")
    grown = larger.clone()
    grown[: len(value)] = value
    return grown
