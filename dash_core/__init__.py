"""DASH and its baselines in plain PyTorch, usable from any training loop.

dash_: shrink an `nn.Module`'s weights in place by their alignment with the negative loss gradient.
averaged_gradient, shrink_along_: its two halves. shrink_perturb_, shrink_: the baselines without direction.
SAM: sharpness-aware SGD.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dash_core.interventions import averaged_gradient, dash_, shrink_, shrink_along_, shrink_perturb_
    from dash_core.optim import SAM

_HOMES = {
    "averaged_gradient": "dash_core.interventions",
    "dash_": "dash_core.interventions",
    "shrink_": "dash_core.interventions",
    "shrink_along_": "dash_core.interventions",
    "shrink_perturb_": "dash_core.interventions",
    "SAM": "dash_core.optim",
}
__all__ = ["SAM", "averaged_gradient", "dash_", "shrink_", "shrink_along_", "shrink_perturb_"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for: the command line's --help need not wait for torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'dash_core' has no attribute {name!r}")
