"""Panels: side by side on a wide page, stacked on a narrow one."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from dash_core.views.figures.look import TEMPLATE

NARROW = 640  # px: below this width panels are stacked
_WIDE_HEIGHT = 420  # px
_PANEL_HEIGHT = 290  # px of one stacked panel
_PANEL_GAP = 75  # px between stacked panels, for ticks and title of an axis
_LEGEND_ROW = 20  # px
_LEGEND_WIDTH = 320  # px of the legend on a narrow page


Trace = go.Scatter | go.Bar | go.Heatmap


class Panel(NamedTuple):
    """The axes of one panel, as plotly layout attributes."""

    x: dict[str, Any]
    y: dict[str, Any]


def arrange(traces: Sequence[Trace], panels: Sequence[Panel], **layout: Any) -> go.Figure:
    """Return a figure of the panels, side by side.

    `layout.meta` contains the two forms, "wide" and "narrow", as plotly relayout updates. The script from `fragment`
    applies one of them by the figure's width. A trace belongs to the panel of its axes: x and y, x2 and y2, ...
    """
    axes = {}
    for number, panel in enumerate(panels, start=1):
        suffix = axis_suffix(number)
        axes[f"xaxis{suffix}"] = {**panel.x, "anchor": f"y{suffix}"}
        axes[f"yaxis{suffix}"] = {**panel.y, "anchor": f"x{suffix}"}
    figure = go.Figure(list(traces), {**axes, **layout, "template": TEMPLATE})
    one = layout.get("height", _PANEL_HEIGHT)  # a figure with rows sets its own height
    wide = {"height": layout.get("height", _WIDE_HEIGHT), **_side_by_side(len(panels))}
    narrow = {"height": one * len(panels) + _legend_height(traces), **_stacked(len(panels), one)}
    figure.update_layout({**wide, "meta": {"wide": wide, "narrow": narrow, "narrow_below": NARROW}})
    return figure


def axis_suffix(number: int) -> str:
    """Return the suffix of plotly's axis names for panel `number`, counted from 1: "", "2", "3", ..."""
    return "" if number == 1 else str(number)


def on(panel: int) -> dict[str, str]:
    """Return the attributes that put a trace on a panel, counted from 1."""
    suffix = axis_suffix(panel)
    return {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}


def _side_by_side(count: int) -> dict[str, Any]:
    gap = 0.1 if count > 1 else 0.0
    width = (1 - gap * (count - 1)) / count
    update: dict[str, Any] = {"dragmode": "zoom"}
    for number in range(1, count + 1):
        start = (number - 1) * (width + gap)
        update[f"xaxis{axis_suffix(number)}.domain"] = [round(start, 6), round(start + width, 6)]
        update[f"yaxis{axis_suffix(number)}.domain"] = [0, 1]
    return update


def _legend_height(traces: Sequence[Trace]) -> int:
    """Return the legend's height in px on a narrow page; its columns are as wide as its longest entry."""
    names = [trace.name for trace in traces if trace.showlegend is not False]
    columns = max(_LEGEND_WIDTH // (50 + 8 * max(map(len, names), default=0)), 1)
    return _LEGEND_ROW * math.ceil(len(names) / columns)


def _stacked(count: int, height: int) -> dict[str, Any]:
    """Stack the panels, the first on top; no drag mode, so that a finger scrolls the page. height: px of one panel."""
    gap = _PANEL_GAP / (height * count)
    part = (1 - gap * (count - 1)) / count
    update: dict[str, Any] = {"dragmode": False}
    for number in range(1, count + 1):
        top = 1 - (number - 1) * (part + gap)
        update[f"xaxis{axis_suffix(number)}.domain"] = [0, 1]
        update[f"yaxis{axis_suffix(number)}.domain"] = [round(max(top - part, 0), 6), round(top, 6)]
    return update
