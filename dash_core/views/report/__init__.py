"""One self-contained HTML page for a comparison: reading, table, figures, statistics and set-up."""

from dash_core.views.report.content import ReportContent
from dash_core.views.report.page import report_html
from dash_core.views.report.reading import reading

__all__ = ["ReportContent", "reading", "report_html"]
