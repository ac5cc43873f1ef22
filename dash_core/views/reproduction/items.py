"""The registry of items in the paper's order, and their names."""

import re

from dash_core.config import nearest
from dash_core.errors import ConfigError
from dash_core.views.reproduction import (
    items_arrival,
    items_controls,
    items_cost,
    items_dynamics,
    items_features,
    items_grids,
    items_pretraining,
    items_standard,
    items_theory,
)
from dash_core.views.reproduction.item import Item

ALL = "all"
_FAMILIES = (
    items_standard.ITEMS,
    items_theory.ITEMS,
    items_pretraining.ITEMS,
    items_dynamics.ITEMS,
    items_features.ITEMS,
    items_grids.ITEMS,
    items_arrival.ITEMS,
    items_cost.ITEMS,
    items_controls.ITEMS,
)


def _order(item: Item) -> tuple[int, int, str]:
    """Sort figures by number, then tables by number, then items that are not in the paper."""
    kind, _, number = item.name.partition("-")
    place = {"figure": 0, "table": 1}.get(kind, 2)
    return place, int(number) if number.isdigit() else 0, item.name


ITEMS: dict[str, Item] = {item.name: item for item in sorted((i for f in _FAMILIES for i in f), key=_order)}


def select(name: str) -> list[Item]:
    """Return the items of a name: a single one, also as fig2 or table3, a range such as tables-3-6, or all.

    ConfigError with what is near.
    """
    if short := re.fullmatch(r"(fig|table)(?:ure)?-?(\d{1,2})", name):
        name = f"{'figure' if short[1] == 'fig' else 'table'}-{int(short[2])}"
    if name == ALL:
        return list(ITEMS.values())
    if name in ITEMS:
        return [ITEMS[name]]
    if span := re.fullmatch(r"(figure|table)s-(\d{1,2})-(\d{1,2})", name):
        kind, first, last = span[1], int(span[2]), int(span[3])
        if found := [ITEMS[n] for j in range(first, last + 1) if (n := f"{kind}-{j}") in ITEMS]:
            return found
    known = [*ITEMS, ALL]
    raise ConfigError(f"unknown item {name!r}{nearest(name, known)}; known: {', '.join(known)}; or a range: tables-3-6")
