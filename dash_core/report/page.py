"""The page itself: one HTML file with everything in it, the same bytes for the same content."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from dash_core.figures import FIGURES, config_of, draw, plotly_js
from dash_core.report.content import ReportContent
from dash_core.report.reading import findings, headline, warnings
from dash_core.report.sections import experiment_tables, fact_tables, statistics_tables

HERE = Path(__file__).parent
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def report_html(content: ReportContent) -> str:
    """Return the report as one HTML page that requests nothing: style, figures and plotly.js are within it.

    It has no time of day and no random id: equal contents give equal bytes. Browsers hold it to that: its policy
    forbids every request.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.j2").render(
        content=content,
        policy=POLICY,
        css=_own("page.css"),
        javascript=_own("page.js"),
        plotly=Markup(plotly_js()),
        headline=_bound(headline(content)),
        findings=[_bound(sentence) for sentence in findings(content)],
        warnings=[_bound(sentence) for sentence in warnings(content)],
        figures=_figures(content),
        statistics=statistics_tables(content),
        experiments=experiment_tables(content),
        facts=fact_tables(content),
    )


def _own(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8"))


def _bound(sentence: str) -> str:
    """Return the sentence with its percent signs bound to their numbers at a line's end."""
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%")


def _figures(content: ReportContent) -> list[dict[str, Any]]:
    complete = [method for method in content.methods if method.runs]
    figures = draw(complete, content.class_names) if complete else {}
    return [
        {
            "name": name,
            "title": FIGURES[name].title,
            "caption": FIGURES[name].caption,
            "json": _inert(figure.to_json(engine="json")),
            "config": json.dumps(config_of(name)),
        }
        for name, figure in figures.items()
    ]


def _inert(data: str) -> Markup:
    """Return JSON in which nothing can end the script element it stands in: < as its escape, the same value."""
    return Markup(data.replace("<", "\\u003c"))
