"""Test accuracy by class after the last experiment: points, or a heat map if there are many classes."""

from html import escape

import plotly.graph_objects as go

from dash_core.spread import Spread
from dash_core.views.figures.look import Style
from dash_core.views.figures.panels import Panel, arrange
from dash_core.views.figures.phases import row_label
from dash_core.views.figures.traces import ComparedMethods, method_entries, seeds_text, symbol
from dash_core.views.summary import MethodRuns

MANY = 20  # classes; more are drawn as a heat map
_LONGEST = 24  # characters of a class name
_ROW = 30  # px of height per method


def class_accuracy(compared: ComparedMethods) -> go.Figure:
    """Draw the last experiment's test accuracy (%) of each class; classes without test images are left out.

    Raises ValueError if the number of classes in the records is not the number of names.
    """
    spreads = {method.label: _by_class(method, len(compared.class_names)) for method in compared.methods}
    kept = [c for c in range(len(compared.class_names)) if any(row[c] for row in spreads.values())]
    names = _readable(compared.class_names)
    draw = _heat_map if len(kept) > MANY else _dots
    rows = {label: [row[c] for c in kept] for label, row in spreads.items()}
    return draw(compared, rows, [names[c] for c in kept])


def _by_class(method: MethodRuns, classes: int) -> list[Spread | None]:
    """Return the accuracy of each class in percent over the seeds; None for a class without test images."""
    last = [run[-1].class_accuracy for run in method.runs.values()]
    for accuracies in last:
        if len(accuracies) != classes:
            raise ValueError(
                f"{method.label} has accuracies of {len(accuracies)} classes and {classes} class names are given: "
                "give the names of the data set that the runs were tested on"
            )
    columns = [[100 * a[c] for a in last if a[c] is not None] for c in range(classes)]
    return [Spread.of(column) if column else None for column in columns]


def _last_converged(method: MethodRuns) -> bool:
    return all(run[-1].converged for run in method.runs.values())


def _dots(compared: ComparedMethods, rows: dict[str, list[Spread | None]], names: list[str]) -> go.Figure:
    good = {method.label: _last_converged(method) for method in compared.methods}
    traces = method_entries(compared.styles, all(good.values()), mode="markers")
    for method in compared.methods:
        traces.append(_dots_of(method, compared.styles[method.label], rows[method.label], names))
    x = {"type": "category", "categoryorder": "array", "categoryarray": names, "title": {"text": "class"}}
    y = {"title": {"text": "test accuracy (%)"}, "range": _range([spread for row in rows.values() for spread in row])}
    return arrange(traces, [Panel(x, y)], scattermode="group", scattergap=0.4)


def _range(spreads: list[Spread | None]) -> list[float]:
    """Return a range around every mean and its spread; for grouped points plotly would begin at 0."""
    low = min(spread.mean - spread.std for spread in spreads if spread)
    high = max(spread.mean + spread.std for spread in spreads if spread)
    margin = max(0.06 * (high - low), 0.5)
    return [low - margin, high + margin]


def _dots_of(method: MethodRuns, style: Style, row: list[Spread | None], names: list[str]) -> go.Scatter:
    shown = [(name, spread) for name, spread in zip(names, row, strict=True) if spread]
    return go.Scatter(
        x=[name for name, _ in shown],
        y=[spread.mean for _, spread in shown],
        mode="markers",
        name=method.label,
        legendgroup=method.label,
        offsetgroup=method.label,
        showlegend=False,
        error_y={
            "type": "data",
            "array": [spread.std for _, spread in shown],
            "color": style.color,
            "thickness": 1.2,
            "width": 2,
        },
        marker={
            "color": style.color,
            "size": 7,
            "symbol": symbol(style, _last_converged(method)),
            "line": {"width": 1.2, "color": style.color},
        },
        hovertemplate=f"<b>{method.label}</b>, last experiment<br>%{{x}}<br>%{{y:.2f}} ± %{{error_y.array:.2f}} %<br>"
        f"{seeds_text(len(method.runs))}<extra></extra>",
    )


def _heat_map(compared: ComparedMethods, rows: dict[str, list[Spread | None]], names: list[str]) -> go.Figure:
    labels = {m.label: row_label(m.label) + ("" if _last_converged(m) else " †") for m in compared.methods}
    trace = go.Heatmap(
        x=names,
        y=list(labels.values()),
        z=[[spread and spread.mean for spread in rows[label]] for label in labels],
        customdata=[
            [[m.label, spread.std if spread else 0.0, seeds_text(len(m.runs))] for spread in rows[m.label]]
            for m in compared.methods
        ],
        colorscale="Cividis",
        hoverongaps=False,
        colorbar={
            "title": {"text": "test accuracy (%)", "side": "right"},
            "thickness": 10,
            "outlinewidth": 0,
            "xpad": 6,
        },
        showlegend=False,
        hovertemplate="<b>%{customdata[0]}</b>, last experiment<br>%{x}<br>%{z:.2f} ± %{customdata[1]:.2f} %<br>"
        "%{customdata[2]}<extra></extra>",
    )
    flawed = any(not _last_converged(method) for method in compared.methods)
    x = {"type": "category", "title": {"text": "class" + (" (†: not converged)" if flawed else "")}, "showgrid": False}
    y = {"type": "category", "autorange": "reversed", "showgrid": False}
    return arrange([trace], [Panel(x, y)], height=240 + _ROW * len(labels))


def _readable(names: tuple[str, ...]) -> list[str]:
    """Cut long names, number repeated ones, and escape markup."""
    short = [name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…" for name in names]
    numbered = [f"{name} ({c})" if short.count(name) > 1 else name for c, name in enumerate(short)]
    return [escape(name, quote=False) for name in numbered]
