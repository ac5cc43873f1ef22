"""The traces that figures share: a mean line with its band, legend entries, points with error bars."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import plotly.graph_objects as go

from dash_core.records import ChunkRecord
from dash_core.spread import Spread
from dash_core.views.figures.look import INK, Style, styles_of
from dash_core.views.figures.panels import on
from dash_core.views.summary import MethodRuns, Records

NOT_CONVERGED = "open marker: not converged"
_MARKERS = 10  # markers on a line, about


@dataclass(frozen=True)
class ComparedMethods:
    """The content of a figure: the methods with at least one run, and the names of the classes."""

    methods: tuple[MethodRuns, ...]
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, methods: Sequence[MethodRuns], class_names: Sequence[str]) -> "ComparedMethods":
        """Return the methods that have a run; ValueError if there is none."""
        shown = tuple(method for method in methods if method.runs)
        if not shown:
            labels = ", ".join(method.label for method in methods) or "none was given"
            raise ValueError(f"no method has a complete run to draw ({labels}): run one of them to its last chunk")
        return cls(shown, tuple(class_names))

    @cached_property
    def styles(self) -> dict[str, Style]:
        """The style of each label, in the order of the methods."""
        styles = styles_of((method.label, method.intervention) for method in self.methods)
        return {method.label: styles[method.label] for method in self.methods}

    @property
    def converged(self) -> bool:
        """Whether every experiment of every run converged."""
        return all(converged(records) for method in self.methods for records in method.runs.values())


@dataclass(frozen=True)
class Point:
    """One point of a line. x: mostly an experiment's number. spread: over `seeds` seeds. converged: all of them did."""

    x: int | str
    spread: Spread
    seeds: int
    converged: bool = True


@dataclass(frozen=True)
class Line:
    """A method's line. unit, digits: of the hover texts, digits in d3's notation. along: the name of x."""

    label: str
    style: Style
    points: tuple[Point, ...]
    unit: str
    digits: str
    along: str = "experiment"


def converged(records: Records) -> bool:
    """Return whether every experiment of the run converged."""
    return all(record.converged for record in records)


def points_of(method: MethodRuns, measure: Callable[[ChunkRecord], float | None]) -> tuple[Point, ...]:
    """Return the spread of a quantity over the method's seeds, for each experiment that measured it."""
    measured: dict[int, list[tuple[ChunkRecord, float]]] = {}
    for record in (record for records in method.runs.values() for record in records):
        if (value := measure(record)) is not None:
            measured.setdefault(record.experiment, []).append((record, value))
    return tuple(
        Point(j, Spread.of([value for _, value in found]), len(found), converged([record for record, _ in found]))
        for j, found in sorted(measured.items())
    )


def line_with_band(line: Line, panel: int, positive: bool = False) -> list[go.Scatter]:
    """Return the line of the means and the band of mean ± population std around it.

    positive: cut the band off at 0.5, for a logarithmic axis of whole numbers.
    """
    floor = 0.5 if positive else -math.inf
    if not any(point.spread.std for point in line.points):
        return [curve_of(line, panel)]
    upper = [point.spread.mean + point.spread.std for point in line.points]
    lower = [max(point.spread.mean - point.spread.std, floor) for point in line.points]
    return [band_of(line, panel, lower, upper), curve_of(line, panel)]


def curve_of(line: Line, panel: int) -> go.Scatter:
    """Return the line of the means."""
    return go.Scatter(
        x=[point.x for point in line.points],
        y=[point.spread.mean for point in line.points],
        mode="lines+markers",
        line={"color": line.style.color, "dash": line.style.dash, "width": 2},
        marker=_sparse(line),
        customdata=[[point.spread.std, seeds_text(point.seeds), _flaw(point.converged)] for point in line.points],
        hovertemplate=f"<b>{line.label}</b><br>{line.along} %{{x}}<br>%{{y:{line.digits}}} ± "
        f"%{{customdata[0]:{line.digits}}} {line.unit}<br>%{{customdata[1]}}%{{customdata[2]}}<extra></extra>",
        **_belonging(line, panel),
    )


def band_of(line: Line, panel: int, lower: list[float], upper: list[float]) -> go.Scatter:
    """Return the band from `lower` to `upper`, which have one value for each point of the line."""
    x = [point.x for point in line.points]
    outline = {"x": x + x[::-1], "y": upper + lower[::-1], "fill": "toself", "fillcolor": line.style.faded(0.18)}
    return go.Scatter(**outline, mode="lines", line={"width": 0}, hoverinfo="skip", **_belonging(line, panel))


def _belonging(line: Line, panel: int) -> dict:
    return {"legendgroup": line.label, "showlegend": False, "name": line.label, **on(panel)}


def _sparse(line: Line) -> dict:
    """Return markers on about ten experiments, and an open one on each experiment that did not converge."""
    stride = math.ceil(len(line.points) / _MARKERS)
    shown = [index % stride == 0 or not point.converged for index, point in enumerate(line.points)]
    return {
        "color": line.style.color,
        "size": [8 if show else 0 for show in shown],
        "symbol": [symbol(line.style, point.converged) for point in line.points],
        "opacity": 1,
        "line": {"width": 1.5, "color": line.style.color},
    }


def symbol(style: Style, has_converged: bool) -> str:
    """Return the style's symbol, open if training ended at its limit of epochs."""
    return style.symbol if has_converged else f"{style.symbol}-open"


def method_entries(styles: dict[str, Style], all_converged: bool, mode: str = "lines+markers") -> list[go.Scatter]:
    """Return the legend: one entry per method, and one that explains open markers if there are any."""
    entries = [legend_entry(label, style, mode) for label, style in styles.items()]
    if not all_converged:
        entries.append(legend_entry(NOT_CONVERGED, Style(INK, "solid", "circle-open"), "markers"))
    return entries


def legend_entry(name: str, style: Style, mode: str) -> go.Scatter:
    """Return a trace without points: its legend entry switches its group on and off."""
    return go.Scatter(
        x=[None],
        y=[None],
        mode=mode,
        name=name,
        legendgroup=name,
        showlegend=True,
        line={"color": style.color, "dash": style.dash, "width": 2},
        marker={"color": style.color, "symbol": style.symbol, "size": 9, "line": {"width": 1.5, "color": style.color}},
        hoverinfo="skip",
    )


def seeds_text(count: int) -> str:
    """Return the number of seeds as hover texts write it."""
    return f"n = {count} seed{'' if count == 1 else 's'}"


def _flaw(has_converged: bool) -> str:
    return "" if has_converged else "<br>not converged in every seed"
