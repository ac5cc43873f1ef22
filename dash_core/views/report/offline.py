"""Render pages: one HTML file that contains everything and requests nothing."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dash_core.views.figures import config_of, plotly_js

HERE = Path(__file__).parent
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
STILL_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render(template: str, **content: Any) -> str:
    """Return a template of this folder as a page that contains style, figures and plotly.js.

    The page has no time of day and no random id, so equal contents give equal bytes. Its content security policy makes
    browsers refuse any request.
    """
    return _filled([HERE], template, policy=POLICY, javascript=_own("page.js"), plotly=Markup(plotly_js()), **content)


def render_light(folder: Path, template: str, **content: Any) -> str:
    """Return a template of another folder as a page in the same style and the folder's own, without any script."""
    own_css = Markup((folder / template.replace(".html.j2", ".css")).read_text(encoding="utf-8"))
    return _filled([folder, HERE], template, policy=STILL_POLICY, own_css=own_css, **content)


def _filled(folders: Sequence[Path], template: str, **content: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(css=_own("page.css"), **content)


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
