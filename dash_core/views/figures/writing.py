"""Figures as files: interactive pages that need no network, and static images."""

import json
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.io
import plotly.offline

from dash_core.files import write_atomically
from dash_core.views.figures.drawing import FIGURES, THEORY
from dash_core.views.figures.static import images

LIBRARY = "plotly.min.js"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body {{ margin: 12px; font-family: system-ui, sans-serif; color: #444 }} p {{ max-width: 45em }}</style>
<script src="{library}"></script>
<script>{fit}</script>
</head>
<body>
<h1 style="font-size: 1.2em">{title}</h1>
{figure}
<p>{caption}</p>
</body>
</html>
"""


@cache
def plotly_js() -> str:
    """Return the source of plotly.js, for use in a page or beside it."""
    return plotly.offline.get_plotlyjs()


@cache
def responsive_js() -> str:
    """Return the JavaScript function `fitPanels(plot)`: it arranges a figure's panels by the figure's width."""
    return Path(__file__).with_name("responsive.js").read_text(encoding="utf-8")


def config_of(name: str) -> dict[str, Any]:
    """Return plotly.js's settings for a figure: its width follows the page, and it offers no upload."""
    return {
        "responsive": True,
        "displaylogo": False,
        "showSendToCloud": False,
        "plotlyServerURL": "",
        "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
        "toImageButtonOptions": {"filename": name, "format": "svg"},
    }


def fragment(name: str, figure: go.Figure) -> str:
    """Return a div with the id `name` and a script that draws it; the page needs plotly.js and `responsive_js`."""
    drawn = plotly.io.to_json(figure, engine="json").replace("<", "\\u003c")  # so that no text ends the script
    return (
        f'<div id="{escape(name)}" style="height: {figure.layout.height}px"></div>\n'
        f"<script>\n"
        f"{{ const {{data, layout}} = {drawn};\n"
        f"  const config = {json.dumps(config_of(name))};\n"
        f"  Plotly.newPlot({json.dumps(name)}, data, layout, config).then(fitPanels); }}\n"
        f"</script>"
    )


def write_figures(figures: Mapping[str, go.Figure], folder: Path, static: bool) -> list[Path]:
    """Write '<name>.html' of every figure, with plotly.js beside them, and return the paths.

    static: write '<name>.svg' and '<name>.png' as well, before any other file.
    Equal figures give equal bytes. Raises ConfigError if static images are wanted and no browser draws them.
    """
    files = images(figures) if static else {}
    files |= {f"{name}.html": _page(name, figure).encode() for name, figure in figures.items()}
    files[LIBRARY] = plotly_js().encode()
    for name, content in files.items():
        write_atomically(Path(folder) / name, content)
    return [Path(folder) / name for name in files]


def _page(name: str, figure: go.Figure) -> str:
    drawing = {**FIGURES, "theory": THEORY}.get(name)
    title, caption = (drawing.title, drawing.caption) if drawing else (name, "")
    return _PAGE.format(
        title=escape(title),
        caption=escape(caption),
        library=LIBRARY,
        fit=responsive_js(),
        figure=fragment(name, figure),
    )
