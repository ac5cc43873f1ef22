"""Plotly figures from records: drawn alike everywhere, written as offline pages and static images."""

from plotly.graph_objects import Figure as PlotlyFigure

from dash_core.figures.drawing import FIGURES, THEORY, Drawing, draw
from dash_core.figures.look import Style, color_of, styles_of
from dash_core.figures.static import find_browser
from dash_core.figures.theory import theory_figure
from dash_core.figures.writing import config_of, fragment, plotly_js, responsive_js, write_figures

__all__ = [
    "FIGURES",
    "THEORY",
    "Drawing",
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
