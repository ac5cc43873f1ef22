"""Figures of single items of the paper, in the common look."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from dash_core.records import ChunkRecord
from dash_core.spread import Spread
from dash_core.views.figures.look import GRID, INK, STYLES, Style, styles_of
from dash_core.views.figures.panels import Panel, arrange, on
from dash_core.views.figures.traces import legend_entry, method_entries, seeds_text
from dash_core.views.summary import MethodRuns

RIGHT = Style(INK, "dot", "circle-open")  # of a curve on a right axis
ABOVE = {"orientation": "h"}  # of the mode bar, if a right axis takes its place

# of bars, by the dash pattern of the method's lines
HATCHES = {"solid": "", "dash": "/", "longdash": "\\", "dashdot": "x", "longdashdot": "+", "dot": "."}


@dataclass(frozen=True)
class Curve:
    """A line over numbers: x, the spread at each x, and the number of seeds."""

    label: str
    style: Style
    x: Sequence[float]
    spreads: Sequence[Spread]
    seeds: int


def method_styles(methods: Sequence[MethodRuns]) -> dict[str, Style]:
    """Return the style of each method by label, in their order."""
    chosen = styles_of((method.label, method.intervention) for method in methods)
    return {method.label: chosen[method.label] for method in methods}


def curves(lines: Sequence[Curve], x: str, y: str, **axis: object) -> go.Figure:
    """Draw lines with error bars of ± population std. axis: further attributes of the x axis."""
    traces = [legend_entry(line.label, line.style, "lines+markers") for line in lines]
    traces += [_trace(line, "") for line in lines]
    return arrange(traces, [Panel({"title": {"text": x}, **axis}, {"title": {"text": y}})])


def curves_with_right_axis(lines: Sequence[Curve], right: Sequence[Curve], axes: tuple[str, str, str]) -> go.Figure:
    """Draw lines on a left axis and on a right axis. axes: the titles of x, left and right."""
    x, left, right_title = axes
    traces = [legend_entry(line.label, line.style, "lines+markers") for line in (*lines, *right)]
    traces += [_trace(line, "") for line in lines] + [_trace(line, "2") for line in right]
    second = _right_axis(right_title)
    panel = Panel({"title": {"text": x}}, {"title": {"text": left}})
    return arrange(traces, [panel], yaxis2=second, modebar=ABOVE)


def _right_axis(title: str) -> dict[str, object]:
    own = {"overlaying": "y", "side": "right", "anchor": "x", "showgrid": False}
    return {"title": {"text": title}, "tickmode": "auto", **own}


def _trace(line: Curve, axis: str) -> go.Scatter:
    return go.Scatter(
        x=list(line.x),
        y=[spread.mean for spread in line.spreads],
        error_y={"type": "data", "array": [spread.std for spread in line.spreads], "thickness": 1.2, "width": 3},
        mode="lines+markers",
        name=line.label,
        legendgroup=line.label,
        showlegend=False,
        line={"color": line.style.color, "dash": line.style.dash, "width": 2},
        marker={"color": line.style.color, "symbol": line.style.symbol, "size": 8},
        yaxis=f"y{axis}",
        hovertemplate=f"<b>{line.label}</b><br>%{{x}}: %{{y:.4~g}}<br>{seeds_text(line.seeds)}<extra></extra>",
    )


def scatter(
    methods: Sequence[MethodRuns],
    x: tuple[str, Callable[[ChunkRecord], float]],
    y: tuple[str, Callable[[ChunkRecord], float]],
) -> go.Figure:
    """Draw a point for each record of each seed. x, y: the axis's title, and the function of a record to its value."""
    styles = method_styles(methods)
    traces = method_entries(styles, all_converged=True, mode="markers")
    for method in methods:
        records = [(seed, record) for seed, run in method.runs.items() for record in run]
        style = styles[method.label]
        traces.append(
            go.Scatter(
                x=[x[1](record) for _, record in records],
                y=[y[1](record) for _, record in records],
                mode="markers",
                name=method.label,
                legendgroup=method.label,
                showlegend=False,
                marker={"color": style.color, "symbol": style.symbol, "size": 8, "opacity": 0.75},
                customdata=[[seed, record.experiment] for seed, record in records],
                hovertemplate=f"<b>{method.label}</b>, seed %{{customdata[0]}}, experiment %{{customdata[1]}}<br>"
                "%{x:.4~g}, %{y:,}<extra></extra>",
            )
        )
    return arrange(traces, [Panel({"title": {"text": x[0]}}, {"title": {"text": y[0]}, "rangemode": "tozero"})])


@dataclass(frozen=True)
class Box:
    """A box of a box plot: five numbers of a distribution."""

    x: float
    low: float
    q25: float
    median: float
    q75: float
    high: float


def boxes_with_line(boxes: Sequence[Box], line: Curve, axes: tuple[str, str, str]) -> go.Figure:
    """Draw boxes on the left axis and a line on the right one; axes: the titles of x, left and right."""
    x, left, right = axes
    style = STYLES["dash"]
    trace = go.Box(
        x=[str(f"{box.x:,.0f}") for box in boxes],
        lowerfence=[box.low for box in boxes],
        q1=[box.q25 for box in boxes],
        median=[box.median for box in boxes],
        q3=[box.q75 for box in boxes],
        upperfence=[box.high for box in boxes],
        name=left,
        marker={"color": style.color},
        line={"color": style.color, "width": 1.5},
        fillcolor=style.faded(0.18),
        showlegend=False,
    )
    texts = [f"{value:,.0f}" for value in line.x]
    drawn = _trace(line, "2").update(x=texts)
    entries = [legend_entry(left, style, "markers"), legend_entry(line.label, line.style, "lines+markers")]
    second = _right_axis(right)
    panel = Panel({"title": {"text": x}, "type": "category"}, {"title": {"text": left}})
    return arrange([trace, drawn, *entries], [panel], yaxis2=second, modebar=ABOVE)


def bars(groups: Mapping[str, Mapping[str, Spread]], styles: Mapping[str, Style], x: str, y: str) -> go.Figure:
    """Draw a bar with ± population std for each label and name of x. groups: label → name of x → spread.

    Labels of one colour differ in their hatching, as their lines do in other figures.
    """
    traces = [
        go.Bar(
            x=list(spreads),
            y=[spread.mean for spread in spreads.values()],
            error_y={"type": "data", "array": [spread.std for spread in spreads.values()], "thickness": 1.2},
            name=label,
            marker={"color": styles[label].color, "pattern": {"shape": HATCHES[styles[label].dash], "solidity": 0.4}},
            hovertemplate=f"<b>{label}</b>, %{{x}}<br>%{{y:.4~g}}<extra></extra>",
        )
        for label, spreads in groups.items()
    ]
    panel = Panel({"title": {"text": x}, "type": "category"}, {"title": {"text": y}, "rangemode": "tozero"})
    return arrange(traces, [panel], barmode="group")


@dataclass(frozen=True)
class Grid:
    """A heat map: its title, the mean at each (row, column), and the number format in d3's notation."""

    title: str
    values: Sequence[Sequence[float]]
    digits: str


def heat_maps(grids: Sequence[Grid], x: tuple[str, Sequence[float]], y: tuple[str, Sequence[float]]) -> go.Figure:
    """Draw heat maps side by side with numbers in the cells. x, y: the axis's title and its values."""
    traces, panels = [], []
    for number, grid in enumerate(grids, start=1):
        traces.append(
            go.Heatmap(
                x=[f"{value:g}" for value in x[1]],
                y=[f"{value:g}" for value in y[1]],
                z=[list(row) for row in grid.values],
                colorscale="Cividis",
                showscale=False,
                showlegend=False,
                xgap=1,
                ygap=1,
                texttemplate=f"%{{z:{grid.digits}}}",
                name=grid.title,
                hovertemplate=f"{x[0]} %{{x}}, {y[0]} %{{y}}<br>{grid.title} %{{z:{grid.digits}}}<extra></extra>",
                **on(number),
            )
        )
        across = {"title": {"text": f"{x[0]}<br>{grid.title}"}, "type": "category", "gridcolor": GRID}
        panels.append(Panel(across, {"title": {"text": y[0] if number == 1 else ""}, "type": "category"}))
    return arrange(traces, panels)
