"""The command `ui`: MLflow's pages, opened on a comparison."""

from typing import Annotated

import typer

from flows.command_line.options import SharedOptions, shared_options


@shared_options("params", "preset", "overrides", "store")
def ui(
    options: SharedOptions,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes any free one.")] = 5000,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
) -> None:
    """Serve MLflow's UI on 127.0.0.1, opened on the comparison of the parameters."""
    from flows.services.mlflow_pages import serve_ui

    place = options.place
    serve_ui(place.store, port, browser, options.settings.name, databases=place.databases)
