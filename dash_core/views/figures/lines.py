"""Figures by experiment: test accuracy beside steps, as in the paper's figure 1, and seconds."""

from typing import Any

import plotly.graph_objects as go

from dash_core.views.figures.panels import Panel, arrange
from dash_core.views.figures.traces import ComparedMethods, Line, line_with_band, method_entries, points_of

EACH_TICKED = 12  # experiments; up to here each has a tick, beyond it plotly chooses


def experiment_axis(experiments: int) -> dict[str, Any]:
    """Return the axis of experiments 1 to `experiments`, with whole numbers only."""
    axis = {"title": {"text": "experiment"}, "tickformat": "d"}
    return {**axis, "dtick": 1} if experiments <= EACH_TICKED else axis


def accuracy_and_steps(compared: ComparedMethods) -> go.Figure:
    """Draw test accuracy (%) and steps of each experiment: mean over seeds, band of ± population std."""
    traces = method_entries(compared.styles, compared.converged)
    for method in compared.methods:
        style = compared.styles[method.label]
        accuracy = points_of(method, lambda record: 100 * record.test_accuracy)
        steps = points_of(method, lambda record: record.steps)
        traces += line_with_band(Line(method.label, style, accuracy, "%", ".2f"), panel=1)
        traces += line_with_band(Line(method.label, style, steps, "steps", ",.0f"), panel=2)
    axis = experiment_axis(experiments_of(compared))
    panels = [
        Panel(axis, {"title": {"text": "test accuracy (%)"}}),
        Panel(axis, {"title": {"text": "steps"}, "rangemode": "tozero"}),
    ]
    return arrange(traces, panels)


def seconds(compared: ComparedMethods) -> go.Figure:
    """Draw the seconds of each experiment, all phases: mean over seeds, band of ± population std."""
    traces = method_entries(compared.styles, compared.converged)
    for method in compared.methods:
        spent = points_of(method, lambda record: record.total_cost.seconds)
        traces += line_with_band(Line(method.label, compared.styles[method.label], spent, "s", ",.3~r"), panel=1)
    axis = experiment_axis(experiments_of(compared))
    return arrange(traces, [Panel(axis, {"title": {"text": "seconds"}, "rangemode": "tozero"})])


def experiments_of(compared: ComparedMethods) -> int:
    """Return the number of experiments of the longest run."""
    return max(len(records) for method in compared.methods for records in method.runs.values())
