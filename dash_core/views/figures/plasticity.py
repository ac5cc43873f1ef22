"""Figures of the diagnostics by experiment: how much a network still knows, and how well it can still learn."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from dash_core.records import ChunkRecord
from dash_core.spread import Spread
from dash_core.views.figures.lines import experiment_axis, experiments_of
from dash_core.views.figures.panels import Panel, Trace, arrange
from dash_core.views.figures.traces import (
    ComparedMethods,
    Line,
    Point,
    band_of,
    curve_of,
    line_with_band,
    method_entries,
    points_of,
)
from dash_core.views.summary import MethodRuns


class Part(NamedTuple):
    """A recorded value as a panel shows it: key, title of the axis, and unit, digits and scale of the hover text."""

    key: str
    title: str
    unit: str = ""
    digits: str = ",.4~r"
    scale: float = 1.0

    def of(self, record: ChunkRecord) -> float | None:
        """Return the value in the shown unit; None if it was not recorded."""
        value = record.diagnostics.get(self.key)
        return None if value is None else self.scale * value


def recorded(compared: ComparedMethods) -> set[str]:
    """Return the names of all recorded diagnostics: the part of a key before its first slash."""
    runs = (records for method in compared.methods for records in method.runs.values())
    return {key.partition("/")[0] for records in runs for record in records for key in record.diagnostics}


def previous_accuracy(compared: ComparedMethods, name: str = "previous_accuracy") -> go.Figure:
    """Draw the accuracy (%) on the previous data after each intervention, and over the first epochs after the last.

    name: of the diagnostic.
    """
    title = "accuracy (%)"
    right_after = _percent(f"{name}/epoch_0", title)
    epochs = [(k, _percent(f"{name}/epoch_{k}", title)) for k in range(_epochs(compared, name) + 1)]
    axis = {"title": {"text": "epoch of the last experiment"}, "dtick": 1}
    return _arrange(compared, [_by_experiment(compared, right_after), _of_last(compared, "epoch", epochs, axis)])


def gradient_norm(compared: ComparedMethods) -> go.Figure:
    """Draw the norm of the summed gradient on all, previous and new data before training."""
    parts = [Part(f"gradient_norm/{part}", f"gradient norm, {part} data") for part in ("all", "previous", "new")]
    return _arrange(compared, [_by_experiment(compared, part) for part in parts])


def alignment(compared: ComparedMethods) -> go.Figure:
    """Draw the quartiles of the cosines above 0.1, and the share (%) above it, before each intervention."""
    low, median, high = (Part(f"alignment/{name}", "cosine", digits=".3f") for name in ("q25", "median", "q75"))
    quartiles = [
        [[point.spread.mean for point in points_of(method, bound.of)] for bound in (low, high)]
        for method in compared.methods
    ]
    above = _percent("alignment/above_0.1", "cosine above 0.1 (% of vectors)")
    return _arrange(
        compared, [_by_experiment(compared, median)._replace(bounds=quartiles), _by_experiment(compared, above)]
    )


def units(compared: ComparedMethods) -> go.Figure:
    """Draw the shares (%) of dead and of dormant units, and the dead ones of each block in the last experiment."""
    by_experiment = [
        _by_experiment(compared, _percent(f"units/{kind}", f"{kind} units (%)")) for kind in ("dead", "dormant")
    ]
    blocks = [(block, _percent(f"units/dead/{block}", "dead units (%)")) for block in _blocks(compared)]
    axis = {"title": {"text": "block, last experiment"}, "type": "category"}
    by_block = [_of_last(compared, "block", blocks, axis)] if len(blocks) > 1 else []
    return _arrange(compared, by_experiment + by_block)


def norms(compared: ComparedMethods) -> go.Figure:
    """Draw the norm of all weights together, and the mean norm of an image's features."""
    parts = (Part("norms/weights", "norm of the weights"), Part("norms/features", "mean norm of the features"))
    return _arrange(compared, [_by_experiment(compared, part) for part in parts])


def feature_rank(compared: ComparedMethods) -> go.Figure:
    """Draw the effective rank of the features."""
    return _arrange(compared, [_by_experiment(compared, Part("feature_rank/effective", "effective rank"))])


def distance(compared: ComparedMethods) -> go.Figure:
    """Draw the distance of all parameters from the first initialisation."""
    return _arrange(compared, [_by_experiment(compared, Part("distance/total", "distance"))])


class _Drawn(NamedTuple):
    """A panel's axes and lines. bounds: lower and upper bound of each line's band; default: ± standard deviation."""

    x: dict[str, Any]
    y: dict[str, Any]
    lines: Sequence[Line]
    bounds: Sequence[list[list[float]]] = ()

    def traces(self, panel: int) -> list[Trace]:
        if not self.bounds:
            return [trace for line in self.lines for trace in line_with_band(line, panel)]
        pairs = zip(self.lines, self.bounds, strict=True)
        return [one for line, bounds in pairs for one in (band_of(line, panel, *bounds), curve_of(line, panel))]


def _percent(key: str, title: str) -> Part:
    return Part(key, title, "%", ".2f", 100)


def _line(compared: ComparedMethods, method: MethodRuns, points: tuple[Point, ...], part: Part, **along: str) -> Line:
    return Line(method.label, compared.styles[method.label], points, part.unit, part.digits, **along)


def _by_experiment(compared: ComparedMethods, part: Part) -> _Drawn:
    axis = experiment_axis(experiments_of(compared))
    lines = [_line(compared, method, points_of(method, part.of), part) for method in compared.methods]
    return _Drawn(axis, {"title": {"text": part.title}, "rangemode": "tozero"}, lines)


def _of_last(
    compared: ComparedMethods, along: str, parts: Sequence[tuple[int | str, Part]], axis: dict[str, Any]
) -> _Drawn:
    """Return a panel with several parts of each method's last experiment along x."""
    lines = []
    for method in compared.methods:
        last = [records[-1] for records in method.runs.values()]
        found = [(x, [value for record in last if (value := part.of(record)) is not None]) for x, part in parts]
        points = tuple(Point(x, Spread.of(values), len(values)) for x, values in found if values)
        lines.append(_line(compared, method, points, parts[0][1], along=along))
    return _Drawn(axis, {"title": {"text": parts[0][1].title}, "rangemode": "tozero"}, lines)


def _arrange(compared: ComparedMethods, drawn: Sequence[_Drawn]) -> go.Figure:
    """Return the figure of all panels with at least one point."""
    shown = [panel for panel in drawn if any(line.points for line in panel.lines)]
    traces: list[Trace] = [*method_entries(compared.styles, compared.converged)]
    for number, panel in enumerate(shown, start=1):
        traces += panel.traces(number)
    return arrange(traces, [Panel(panel.x, panel.y) for panel in shown])


def _last_keys(compared: ComparedMethods) -> list[str]:
    """Return the keys of every run's last experiment, each once, in the order in which they were recorded."""
    last = (records[-1] for method in compared.methods for records in method.runs.values())
    return list(dict.fromkeys(key for record in last for key in record.diagnostics))


def _epochs(compared: ComparedMethods, name: str) -> int:
    """Return the highest epoch of a last experiment with an accuracy on the previous data."""
    prefix = f"{name}/epoch_"
    return max((int(key.removeprefix(prefix)) for key in _last_keys(compared) if key.startswith(prefix)), default=0)


def _blocks(compared: ComparedMethods) -> list[str]:
    """Return the blocks in the network's order; `units/dead/<block>/<number>` is a single call within one."""
    parts = [key.split("/") for key in _last_keys(compared) if key.startswith("units/dead/")]
    return [part[2] for part in parts if len(part) == 3]
