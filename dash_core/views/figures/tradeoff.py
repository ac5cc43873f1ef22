"""Accuracy at the end against its cost: one point per method, against the steps or the FLOPs of the whole run."""

from collections.abc import Callable

import plotly.graph_objects as go

from dash_core.spread import Spread
from dash_core.views.figures.look import Style
from dash_core.views.figures.panels import Panel, arrange
from dash_core.views.figures.traces import ComparedMethods, converged, method_entries, seeds_text, symbol
from dash_core.views.summary import MethodRuns, Records, total_cost


def accuracy_by_steps(compared: ComparedMethods) -> go.Figure:
    """Draw the last experiment's test accuracy (%) against the steps of all experiments."""
    return _trade_off(compared, lambda run: sum(record.steps for record in run), ("steps of the whole run", "steps"))


def accuracy_by_flops(compared: ComparedMethods) -> go.Figure:
    """Draw the last experiment's test accuracy (%) against the TFLOPs of all experiments and phases."""
    return _trade_off(compared, lambda run: 1e-12 * total_cost(run).flops, ("TFLOPs of the whole run", "TFLOPs"))


def _trade_off(compared: ComparedMethods, spent: Callable[[Records], float], axis: tuple[str, str]) -> go.Figure:
    """Draw last accuracy against a cost. axis: its title, and the unit of the hover text."""
    title, unit = axis
    traces = method_entries(compared.styles, compared.converged, mode="markers")
    for method in compared.methods:
        traces += _points(method, compared.styles[method.label], spent, unit)
    x = {"title": {"text": title}, "rangemode": "tozero"}
    return arrange(traces, [Panel(x, {"title": {"text": "last test accuracy (%)"}})])


def _points(method: MethodRuns, style: Style, spent: Callable[[Records], float], unit: str) -> list[go.Scatter]:
    """Return one small point per seed, and the mean with ± population std in both directions."""
    x = [spent(run) for run in method.runs.values()]
    y = [100 * run[-1].test_accuracy for run in method.runs.values()]
    across, up = Spread.of(x), Spread.of(y)
    shared = {"mode": "markers", "name": method.label, "legendgroup": method.label, "showlegend": False}
    bar = {"type": "data", "color": style.color, "thickness": 1.5, "width": 4}
    whole = [converged(run) for run in method.runs.values()]
    seeds = go.Scatter(
        x=x,
        y=y,
        marker={"color": style.color, "size": 6, "opacity": 0.55, "symbol": [symbol(style, good) for good in whole]},
        customdata=list(method.runs),
        hovertemplate=f"<b>{method.label}</b>, seed %{{customdata}}<br>%{{y:.2f}} %<br>"
        f"%{{x:,.4~r}} {unit}<extra></extra>",
        **shared,
    )
    mean = go.Scatter(
        x=[across.mean],
        y=[up.mean],
        error_x={**bar, "array": [across.std]},
        error_y={**bar, "array": [up.std]},
        marker={
            "color": style.color,
            "size": 13,
            "symbol": [symbol(style, all(whole))],
            "line": {"width": 1.5, "color": style.color},
        },
        customdata=[[across.std, up.std]],
        hovertemplate=f"<b>{method.label}</b>, last experiment<br>%{{y:.2f}} ± %{{customdata[1]:.2f}} %<br>"
        f"%{{x:,.4~r}} ± %{{customdata[0]:,.4~r}} {unit}<br>{seeds_text(len(x))}<extra></extra>",
        **shared,
    )
    return [seeds, mean]
