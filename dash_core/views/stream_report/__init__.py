"""The page of a stream: what arrived, what was set aside, is it better, what is served, and how to undo it."""

from dash_core.views.stream_report.page import stream_html, write_stream_report

__all__ = ["stream_html", "write_stream_report"]
