"""The command `reproduce`: the paper, item by item."""

from pathlib import Path
from typing import Annotated

import typer

from dash_core.errors import ConfigError
from flows.command_line.options import (
    PARAMS,
    Again,
    DataRoot,
    Set,
    Store,
    make_writable,
    open_place,
    output_console,
    plain_errors,
)

Items = Annotated[
    list[str] | None, typer.Argument(help="Figures or tables: fig1, table8, tables-3-6, all; --list names them.")
]
Scale = Annotated[str, typer.Option(help="full: the paper's setting; small: minutes on two cores; smoke: seconds.")]
List = Annotated[
    bool, typer.Option("--list", help="Name the items, the time they take here, and whether data are here.")
]
Summary = Annotated[
    Path | None, typer.Option(help="Write the table of all items reproduced at this scale.", metavar="FILE")
]


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(reproduce)


def reproduce(
    items: Items = None,
    scale: Scale = "small",
    listing: List = False,
    summary: Summary = None,
    again: Again = False,
    overrides: Set = None,
    store: Store = None,
    data_root: DataRoot = None,
) -> None:
    """Make figures and tables of the paper, with what it claims and whether these runs agree."""
    with plain_errors():
        place, console = open_place(PARAMS, store, data_root), output_console()
        if not items and summary is None and not listing:
            raise ConfigError("name an item of the paper, for example figure-1, or give --list")
        if listing and (items or summary):
            raise ConfigError("--list names every item at every scale, and makes none: give it alone")
        from flows.command_line import reproduce_commands
        from flows.command_line.reproduce_commands import ReproductionFailed, Request

        reproduce_commands.check_summary(scale, summary)
        if listing:
            reproduce_commands.list_items(place, console)
            return
        make_writable(place)
        failure = None
        if items:
            try:
                reproduce_commands.reproduce(Request.of(items, scale, overrides or [], again), place, console)
            except ReproductionFailed as error:
                failure = error
        if summary:
            reproduce_commands.summarise(scale, overrides or [], place, summary, console)
        if failure:
            raise failure
