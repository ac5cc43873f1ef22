"""DASH and its baselines in plain PyTorch, usable from any training loop.

The methods: `dash_` shrinks a model's weights in place by their alignment with the negative loss gradient;
`averaged_gradient` and `shrink_along_` are its two halves, and `dash_batches_` does it for any loaders and loss.
`shrink_` and `shrink_perturb_` shrink without direction; the penalties `l2_init_penalty` and
`l2_init_penalty_authors` keep weights near their initialisation. `find_weights` says which weights are shrunk. `SAM`
is sharpness-aware SGD.

The loop: a `Trajectory` trains one run, which a `RunConfig` describes, on a `Dataset` that a `ChunkPlan` splits. Its
`advance` does the next experiment; `Steps` wraps the four steps of an experiment, `Watch` follows a run. A subclass of
`Intervention` is a new method: it may change the `Learner`. The loop needs the extra `training`, and the methods
need torch alone.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dash_core.extras import MissingExtras

if TYPE_CHECKING:
    from dash_core.config import MethodConfig, RunConfig
    from dash_core.data import ChunkPlan, Dataset, ImageSet
    from dash_core.interventions import Intervention
    from dash_core.learner import Learner
    from dash_core.optim import SAM
    from dash_core.penalties import l2_init_penalty, l2_init_penalty_authors
    from dash_core.run_state import Watch
    from dash_core.shrinking import (
        LeftAloneWarning,
        ShrinkReport,
        ShrinkReports,
        averaged_gradient,
        dash_,
        dash_batches_,
        find_weights,
        shrink_,
        shrink_along_,
        shrink_perturb_,
    )
    from dash_core.trajectory import Steps, Trajectory

__all__ = [
    "SAM",
    "ChunkPlan",
    "Dataset",
    "ImageSet",
    "Intervention",
    "Learner",
    "LeftAloneWarning",
    "MethodConfig",
    "RunConfig",
    "ShrinkReport",
    "ShrinkReports",
    "Steps",
    "Trajectory",
    "Watch",
    "averaged_gradient",
    "dash_",
    "dash_batches_",
    "find_weights",
    "l2_init_penalty",
    "l2_init_penalty_authors",
    "shrink_",
    "shrink_along_",
    "shrink_perturb_",
]
_NAMES_BY_MODULE = {
    "config": ("MethodConfig", "RunConfig"),
    "data": ("ChunkPlan", "Dataset", "ImageSet"),
    "interventions": ("Intervention",),
    "learner": ("Learner",),
    "optim": ("SAM",),
    "penalties": ("l2_init_penalty", "l2_init_penalty_authors"),
    "run_state": ("Watch",),
    "shrinking": (
        *("LeftAloneWarning", "ShrinkReport", "ShrinkReports"),
        *("averaged_gradient", "dash_", "dash_batches_", "find_weights", "shrink_", "shrink_along_", "shrink_perturb_"),
    ),
    "trajectory": ("Steps", "Trajectory"),
}
sys.meta_path.insert(0, MissingExtras())  # before the finder of files
_MODULES = {name: f"dash_core.{module}" for module, names in _NAMES_BY_MODULE.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562), so that `dashpipe --help` does not wait for torch."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'dash_core' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
