"""The registry of interventions: the changes that can be made to a learner between chunks; your own by import path."""

import inspect
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
from dash_core.parts import METHODS, PartError, check_no_clash, load_part, part_path

__all__ = ["INTERVENTIONS", "Intervention", "build_intervention", "intervention_class", "is_intervention"]

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
    return parse(intervention_class(name), parameters, where or name)


def is_intervention(name: str) -> bool:
    """Tell whether a name is that of one of our interventions, an import path, or an entry point."""
    return name in INTERVENTIONS or part_path(METHODS, name) is not None


def intervention_class(name: str) -> type[Intervention]:
    """Return the class of an intervention of ours, or of your own; ConfigError if there is none, or yours is broken."""
    if name in INTERVENTIONS:
        check_no_clash(METHODS, name)
        return INTERVENTIONS[name]
    if path := part_path(METHODS, name):
        return _own_class(path)
    raise ConfigError(
        f"unknown intervention {name!r}{nearest(name, list(INTERVENTIONS))}; known: {', '.join(INTERVENTIONS)}"
    )


def _own_class(path: str) -> type[Intervention]:
    """Import your own intervention; PartError unless it is a subclass whose hooks take what they are called with."""
    kind = load_part(METHODS, path)
    if not isinstance(kind, type) or not issubclass(kind, Intervention):
        raise PartError(
            f"{METHODS} {path}: it must be a subclass of dash_core.interventions.Intervention, got {_described(kind)}"
        )
    for name, hook in _HOOKS.items():
        wanted = list(inspect.signature(hook).parameters)
        try:
            inspect.signature(getattr(kind, name)).bind(*wanted)
        except (TypeError, ValueError) as error:
            raise PartError(
                f"{METHODS} {path}: its {name} must be a method that is called with ({', '.join(wanted)}): {error}"
            ) from None
    return kind


_HOOKS = {name: hook for name, hook in vars(Intervention).items() if inspect.isfunction(hook) and name[0] != "_"}


def _described(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
