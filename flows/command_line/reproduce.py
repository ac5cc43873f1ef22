"""The command `reproduce`: the paper, item by item."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dash_core.errors import ConfigError
from flows.command_line.options import Again, SharedOptions, shared_options
from flows.command_line.output import output_console
from flows.command_line.session import make_writable

if TYPE_CHECKING:
    from rich.console import Console

    from flows.command_line.limits import Limits
    from flows.command_line.reproduction import Selection
    from tasks.store.place import Place

MOST_SEEDS = 20  # the default of --max-seeds

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
Budget = Annotated[
    str | None,
    typer.Option(
        help="Stop after this time, such as 90s, 30m or 2h; runs that decide most claims come first.", metavar="TIME"
    ),
]
UntilDecided = Annotated[
    bool, typer.Option("--until-decided", help="Add seeds while a claim is open, judged by a sequential rule.")
]
MaxSeeds = Annotated[int, typer.Option(help="With --until-decided: the most seeds of a comparison, 3 to 30.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say which runs, images, FLOPs and hours are left here; train nothing.")
]


@shared_options("overrides", "store", "data_root")
def reproduce(
    options: SharedOptions,
    items: Items = None,
    scale: Scale = "small",
    listing: List = False,
    summary: Summary = None,
    budget: Budget = None,
    until_decided: UntilDecided = False,
    max_seeds: MaxSeeds = MOST_SEEDS,
    dry_run: DryRun = False,
    again: Again = False,
) -> None:
    """Make figures and tables of the paper, with what it claims and whether these runs agree."""
    from dash_core.comparison import Params

    place, console = options.place_for(Params()), output_console()
    if not items and summary is None and not listing:
        raise ConfigError("name an item of the paper, for example figure-1, or give --list")
    if listing and (items or summary):
        raise ConfigError("--list names every item at every scale, and reproduces none: give it alone")
    if dry_run and (not items or summary):
        raise ConfigError("--dry-run trains nothing and writes nothing: give it with items, and without --summary")
    _check_seeds(max_seeds, until_decided)
    from flows.command_line import reproduction
    from flows.command_line.limits import Limits

    limits = Limits.of(budget, until_decided, max_seeds)
    reproduction.check_summary(scale, summary)
    if listing:
        reproduction.list_items(place, console)
        return
    if dry_run:
        from flows.command_line.dry_run import tell_expected

        tell_expected(reproduction.Selection.of(items, scale, options.overrides, again), place, console)
        return
    make_writable(place)
    failure = None
    if items:
        try:
            selection = reproduction.Selection.of(items, scale, options.overrides, again)
            _reproduce(selection, limits, place, console)
        except reproduction.ReproductionFailed as error:
            failure = error
    if summary:
        reproduction.summarise(scale, options.overrides, place, summary, console, limits.rule)
    if failure:
        raise failure


def _reproduce(selection: "Selection", limits: "Limits", place: "Place", console: "Console") -> None:
    """Reproduce the items one after the other or, with a budget or more seeds, all runs in one order."""
    if limits.budget is None and limits.most_seeds is None:
        from flows.command_line.reproduction import reproduce

        reproduce(selection, place, console)
    else:
        from flows.command_line.reproduction_in_order import reproduce_in_order

        reproduce_in_order(selection, limits, place, console)


def _check_seeds(max_seeds: int, until_decided: bool) -> None:
    from dash_core.views.rules import FIRST_LOOK, LAST_LOOK

    if max_seeds != MOST_SEEDS and not until_decided:
        raise ConfigError("--max-seeds limits the seeds that --until-decided adds: give both, or --set seeds=[…]")
    if not FIRST_LOOK <= max_seeds <= LAST_LOOK:
        raise ConfigError(
            f"--max-seeds must be {FIRST_LOOK} to {LAST_LOOK}, for which its rule is made; got {max_seeds}"
        )
