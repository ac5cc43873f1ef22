"""The page of a comparison: reading, table, figures, statistics and set-up."""

from typing import Any

from dash_core.views.figures import FIGURES, draw
from dash_core.views.report.content import ReportContent
from dash_core.views.report.offline import bound, drawn, render
from dash_core.views.report.reading import findings, headline, warnings
from dash_core.views.report.sections import experiment_tables, fact_tables, statistics_tables


def report_html(content: ReportContent) -> str:
    """Return the report as one HTML page that requests nothing; equal contents give equal bytes."""
    return render(
        "page.html.j2",
        content=content,
        headline=bound(headline(content)),
        findings=[bound(sentence) for sentence in findings(content)],
        warnings=[bound(sentence) for sentence in warnings(content)],
        figures=_figures(content),
        statistics=statistics_tables(content),
        experiments=experiment_tables(content),
        facts=fact_tables(content),
    )


def _figures(content: ReportContent) -> list[dict[str, Any]]:
    complete = [method for method in content.methods if method.runs]
    figures = draw(complete, content.class_names) if complete else {}
    return [drawn(name, FIGURES[name].title, FIGURES[name].caption, figure) for name, figure in figures.items()]
