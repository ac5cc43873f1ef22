"""Every figure and table of the paper as a declared item: its settings, its claims, and the verdict of a run."""

from dash_core.views.reproduction.items import ITEMS, select

__all__ = ["ITEMS", "select"]
