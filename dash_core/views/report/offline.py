"""Render pages: one HTML file that contains everything and requests nothing."""

import json
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dash_core.views.figures import config_of, plotly_js

HERE = Path(__file__).parent
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def render(template: str, **content: Any) -> str:
    """Return a template of this folder as a page that contains style, figures and plotly.js.

    The page has no time of day and no random id, so equal contents give equal bytes. Its content security policy makes
    browsers refuse any request.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(
        policy=POLICY,
        css=_own("page.css"),
        javascript=_own("page.js"),
        plotly=Markup(plotly_js()),
        **content,
    )


def bound(sentence: str) -> str:
    """Return the sentence with no-break spaces before its percent signs."""
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%")


def drawn(name: str, title: str, caption: str, figure: go.Figure) -> dict[str, Any]:
    """Return a figure in the form that the templates expect. name: safe as an id."""
    return {
        "name": name,
        "title": title,
        "caption": caption,
        "json": _inert(figure.to_json(engine="json")),
        "config": json.dumps(config_of(name)),
    }


def _own(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8"))


def _inert(data: str) -> Markup:
    """Return the JSON with < escaped, so that no text can end the script element around it."""
    return Markup(data.replace("<", "\\u003c"))
