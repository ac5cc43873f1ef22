"""Plotly figures from records: with one look, written as offline pages and static images."""

from plotly.graph_objects import Figure as PlotlyFigure

from dash_core.views.figures.drawing import FIGURES, THEORY, FigureKind, draw
from dash_core.views.figures.look import Style, color_of, styles_of
from dash_core.views.figures.static import find_browser
from dash_core.views.figures.theory import theory_figure
from dash_core.views.figures.writing import config_of, fragment, plotly_js, responsive_js, write_figures

__all__ = [
    "FIGURES",
    "THEORY",
    "FigureKind",
    "PlotlyFigure",
    "Style",
    "color_of",
    "config_of",
    "draw",
    "find_browser",
    "fragment",
    "plotly_js",
    "responsive_js",
    "styles_of",
    "theory_figure",
    "write_figures",
]
