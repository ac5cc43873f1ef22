"""The commands `compare` and `run`: start the services, train, print the table.

Most imports are inside the functions; `session.py` says why.
"""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flows.command_line.options import Again, Mirror, SharedOptions, shared_options, with_mirror
from flows.command_line.output import output_console, say
from flows.command_line.session import (
    Session,
    check_data,
    fork_early,
    make_writable,
    standing_by,
    watched_services,
)

if TYPE_CHECKING:
    from rich.console import Console

    from dash_core.comparison import Params
    from dash_core.config import RunConfig
    from tasks.store.place import Place
    from tasks.tracking.publication import Published


@shared_options("params", "preset", "overrides", "store", "data_root")
def compare(options: SharedOptions, again: Again = False, mirror: Mirror = None) -> None:
    """Train every method and seed of a comparison, side by side, and print the paper-style table."""
    options = with_mirror(options, mirror)
    with standing_by(options.services_folder) as server:
        place = options.place
        make_writable(place)
        compare_and_print(options, Session(place, output_console(), server), again)


@shared_options("params", "preset", "overrides", "store", "data_root")
def run(
    options: SharedOptions,
    method: Annotated[str, typer.Option(help="The method: a name in `methods` of the parameters, or an intervention.")],
    seed: Annotated[int | None, typer.Option(min=0, help="The seed. Default: the first of the parameters.")] = None,
    again: Again = False,
    mirror: Mirror = None,
) -> None:
    """Train one method with one seed over all chunks."""
    options = with_mirror(options, mirror)
    with standing_by(options.services_folder) as server:
        settings, place = options.settings, options.place
        chosen_run = settings.run(method, settings.seeds[0] if seed is None else seed)
        make_writable(place)
        train_here(settings, chosen_run, Session(place, output_console(), server), again)


def compare_and_print(options: SharedOptions, session: Session, again: bool) -> None:
    """Train the comparison under a display, and print its table; ComparisonFailed names the runs that failed."""
    from tasks.store.runs import is_complete

    settings, place, console = options.settings, session.place, session.console
    trains = again or not all(is_complete(run, place) for run in settings.runs())
    if trains:
        fork_early({settings.model.name}, place)
    check_data(settings, place, console)
    warn_of(settings)
    failure = None
    with watched_services(settings.name, settings.runs(), session, trains):
        from flows.compare import ComparisonFailed, compare_methods

        try:
            published = compare_methods(settings, place, options.compare_command, again)
        except ComparisonFailed as error:
            failure, published = error, error.published
    if published:
        _print_published(published, options, session)
    if failure:
        raise failure


def warn_of(settings: "Params") -> None:
    """Print, on standard error, what a person should know before the parameters train."""
    from flows.command_line.settings import cautions

    for caution in cautions(settings):
        print(f"warning: {caution}", file=sys.stderr)


def _print_published(published: "Published", options: SharedOptions, session: Session) -> None:
    """Print a comparison's table and the paths of its files."""
    from flows.command_line.live import print_table

    print_table(published.table, session.console)
    say(session.console, f"\ntables   {published.folder}")
    if (report := published.folder / "report.html").exists():  # it needs a complete run
        say(session.console, f"report   {report}")
    say(session.console, f"records  {session.place.store / 'runs'}")
    say(session.console, f"MLflow   {options.ui_command}")


def train_method(settings: "Params", label: str, place: "Place", console: "Console") -> None:
    """Train every seed of one method under a display; complete runs stay as they are."""
    from tasks.store.runs import is_complete

    title, runs = f"{settings.name}, {label}", [settings.run(label, seed) for seed in settings.seeds]
    trains = not all(is_complete(run, place) for run in runs)
    with standing_by(place.services) as server, watched_services(title, runs, Session(place, console, server), trains):
        from flows.compare import train_method

        train_method(settings, label, place)


def train_here(settings: "Params", run: "RunConfig", session: Session, again: bool) -> None:
    """Train one run of a comparison in this process; a complete run is trained again only with `again`."""
    place, console, server = session.place, session.console, session.server
    dataset = check_data(settings, place, console)
    if server:
        server.start()
    from flows.command_line.live import watched
    from flows.experiment import train_run
    from flows.services.announce import warned_failures
    from flows.services.environment import imports_done
    from flows.services.prefect_server import prefect_api
    from tasks.store.runs import forget, is_complete
    from tasks.tracking.follower import Follower
    from tasks.tracking.mirror import Mirror

    imports_done()
    mirror = Mirror(settings, place, lambda: dataset, warned_failures())
    if again:
        forget(run, place)
        mirror.forget(run)
    elif is_complete(run, place):
        say(console, f"{run.id} is complete; --again trains it again")
    with prefect_api(place.services, server), watched([run], place, console), Follower(mirror, [run]):
        train_run(run, place)
    mirror.close("FINISHED")
    say(console, f"records  {place.run_folder(run)}")
