"""Write the page of a stream into its folder."""

from pathlib import Path

from dash_core.stream.state import StreamState
from dash_core.views.stream_report import write_stream_report
from tasks.store.stream.folder import StreamFolder


def write_page(stream: StreamFolder, state: StreamState) -> Path:
    """Write `report/index.html`, and return its path."""
    return write_stream_report(state, stream.path)
