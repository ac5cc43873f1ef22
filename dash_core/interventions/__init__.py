"""The registry of interventions: the changes that can be made to a learner between chunks."""

from collections.abc import Mapping
from typing import Any

from dash_core.config import nearest, parse
from dash_core.errors import ConfigError
from dash_core.interventions.base import Intervention
from dash_core.interventions.controls import CONTROLS
from dash_core.interventions.dash import Dash
from dash_core.interventions.regularise import L2Init, L2InitAuthors
from dash_core.interventions.restart import Cold, HeadReset, Warm, WarmNewOptimizer
from dash_core.interventions.shrink import Shrink, ShrinkPerturb, ShrinkPerturbAshAdams

__all__ = ["INTERVENTIONS", "Intervention", "build_intervention"]

INTERVENTIONS: dict[str, type[Intervention]] = {
    kind.name: kind
    for kind in (
        Cold,
        Warm,
        WarmNewOptimizer,
        ShrinkPerturb,
        ShrinkPerturbAshAdams,
        Shrink,
        HeadReset,
        L2Init,
        L2InitAuthors,
        Dash,
        *CONTROLS,
    )
}


def build_intervention(name: str, parameters: Mapping[str, Any], where: str = "") -> Intervention:
    """Return the named intervention with checked parameters; ConfigError names the wrong one and what is allowed."""
    if name not in INTERVENTIONS:
        raise ConfigError(
            f"unknown intervention {name!r}{nearest(name, list(INTERVENTIONS))}; known: {', '.join(INTERVENTIONS)}"
        )
    return parse(INTERVENTIONS[name], parameters, where or name)
