"""The page of a stream as one HTML file that requests nothing and runs no script."""

from pathlib import Path

from dash_core.files import write_atomically
from dash_core.stream.state import StreamState
from dash_core.views.report.offline import bound, render_light
from dash_core.views.stream_report import sections
from dash_core.views.stream_report.content import StreamContent, read_content

REPORT_FOLDER, PAGE_FILE = "report", "index.html"
HERE = Path(__file__).parent


def write_stream_report(state: StreamState, folder: Path) -> Path:
    """Write the page of a stream into its folder, and return its path. Equal states give equal bytes."""
    file = folder / REPORT_FOLDER / PAGE_FILE
    write_atomically(file, stream_html(read_content(state, folder)).encode(), durable=False)
    return file


def stream_html(content: StreamContent) -> str:
    """Return the page of a stream."""
    newest = content.newest_verdict
    return render_light(
        HERE,
        "stream.html.j2",
        name=content.state.name,
        headline=bound(sections.headline(content)),
        to_do=[(bound(sentence), command) for sentence, command in sections.to_do(content)],
        arrivals=sections.arrivals_table(content),
        guards=[bound(sentence) for sentence in sections.guards(content)],
        suspects=sections.suspects_table(content),
        set_aside=sections.set_aside_table(content),
        judged=newest[0].id if newest else None,
        verdict=newest[1]["verdict"] if newest else None,
        verdict_words=sections.RESULTS[newest[1]["verdict"]] if newest else None,
        sentences=[bound(sentence) for sentence in newest[1]["sentences"]] if newest else [],
        picture=sections.comparison_picture(content),
        looks=bound(sections.looks(content)),
        releases=sections.releases_table(content),
        charts=sections.charts(content),
        undo=sections.undo(content),
        facts=sections.facts(content),
    )
