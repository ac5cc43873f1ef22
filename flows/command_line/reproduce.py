"""The command `reproduce`: the paper, item by item."""

from pathlib import Path
from typing import Annotated

import typer

from dash_core.errors import ConfigError
from flows.command_line.options import Again, SharedOptions, shared_options
from flows.command_line.output import output_console
from flows.command_line.session import make_writable

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


@shared_options("overrides", "store", "data_root")
def reproduce(
    options: SharedOptions,
    items: Items = None,
    scale: Scale = "small",
    listing: List = False,
    summary: Summary = None,
    again: Again = False,
) -> None:
    """Make figures and tables of the paper, with what it claims and whether these runs agree."""
    from dash_core.comparison import Params

    place, console = options.place_for(Params()), output_console()
    if not items and summary is None and not listing:
        raise ConfigError("name an item of the paper, for example figure-1, or give --list")
    if listing and (items or summary):
        raise ConfigError("--list names every item at every scale, and reproduces none: give it alone")
    from flows.command_line import reproduction

    reproduction.check_summary(scale, summary)
    if listing:
        reproduction.list_items(place, console)
        return
    make_writable(place)
    failure = None
    if items:
        try:
            selection = reproduction.Selection.of(items, scale, options.overrides, again)
            reproduction.reproduce(selection, place, console)
        except reproduction.ReproductionFailed as error:
            failure = error
    if summary:
        reproduction.summarise(scale, options.overrides, place, summary, console)
    if failure:
        raise failure
