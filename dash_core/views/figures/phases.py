"""Cost by phase: seconds and TFLOPs of a whole run."""

import plotly.graph_objects as go

from dash_core.cost import PHASES, Cost
from dash_core.spread import Spread
from dash_core.views.figures.look import PHASE_COLORS
from dash_core.views.figures.panels import Panel, arrange, on
from dash_core.views.figures.traces import ComparedMethods, seeds_text
from dash_core.views.summary import MethodRuns

_UNITS = {"seconds": lambda cost: cost.seconds, "TFLOPs": lambda cost: 1e-12 * cost.flops}
_ROW = 34  # px of height per method


def cost_by_phase(compared: ComparedMethods) -> go.Figure:
    """Draw one bar per method: the mean over seeds of a whole run's cost, stacked by phase, in seconds and in TFLOPs.

    A phase without any cost is left out.
    """
    spent = {phase: [_spent(method, phase) for method in compared.methods] for phase in PHASES}
    phases = [phase for phase in PHASES if any(cost.seconds or cost.flops for runs in spent[phase] for cost in runs)]
    traces = [
        _bars(compared.methods, phase, spent[phase], panel)
        for panel in range(1, len(_UNITS) + 1)
        for phase in phases or PHASES
    ]
    rows = {"autorange": "reversed", "type": "category", "ticklabelstandoff": 2}
    panels = [Panel({"title": {"text": unit}}, rows) for unit in _UNITS]
    height = 130 + _ROW * len(compared.methods)
    figure = arrange(traces, panels, barmode="stack", bargap=0.35, height=height)
    once = {"yaxis2.showticklabels": False}  # side by side, one panel shows the names
    figure.layout.meta["wide"].update(once)
    figure.layout.meta["narrow"].update({"yaxis2.showticklabels": True})
    return figure.update_layout(once)


def _spent(method: MethodRuns, phase: str) -> list[Cost]:
    """Return the cost of the phase in each seed's run."""
    return [sum((record.cost.get(phase, Cost()) for record in run), Cost()) for run in method.runs.values()]


def _bars(methods: tuple[MethodRuns, ...], phase: str, spent: list[list[Cost]], panel: int) -> go.Bar:
    unit, measure = list(_UNITS.items())[panel - 1]
    spreads = [Spread.of([measure(cost) for cost in runs]) for runs in spent]
    return go.Bar(
        x=[spread.mean for spread in spreads],
        y=[row_label(method.label) for method in methods],
        orientation="h",
        name=phase,
        legendgroup=phase,
        showlegend=panel == 1,
        marker={"color": PHASE_COLORS[phase], "line": {"width": 0}},
        customdata=[
            [method.label, spread.std, seeds_text(len(runs))]
            for method, spread, runs in zip(methods, spreads, spent, strict=True)
        ],
        hovertemplate=f"<b>%{{customdata[0]}}</b>, {phase}<br>%{{x:,.4~r}} ± %{{customdata[1]:,.4~r}} {unit}<br>"
        "%{customdata[2]}<extra></extra>",
        **on(panel),
    )


def row_label(label: str) -> str:
    """Return a label for the left of a row; a long one is broken into two lines at an underscore."""
    if len(label) <= 15 or "_" not in label:
        return label
    breaks = [index + 1 for index, character in enumerate(label) if character == "_"]
    middle = min(breaks, key=lambda index: abs(index - len(label) / 2))
    return f"{label[:middle]}<br>{label[middle:]}"
