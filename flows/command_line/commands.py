"""What the commands `compare` and `run` do, from services started to table printed.

Imports wait until they are needed, in the order that uses two cores best: the Prefect server and the workers' fork
server import on their own while this process does, and start nothing before the data are known to be good.
"""

import shlex
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from dash_core.comparison import Params
from dash_core.config import RunConfig
from dash_core.data import Dataset
from flows.command_line.options import standing_by
from flows.services.environment import imports_done
from tasks.store.place import Place

if TYPE_CHECKING:
    from flows.services.prefect_server import PrivateServer

Source = tuple[Path, str | None, list[str]]  # the parameters' file, preset and overrides


@dataclass(frozen=True)
class Workplace:
    """Where a command works: its folders, its terminal, and the Prefect server that stands by (`standing_by`)."""

    place: Place
    console: Console
    server: "PrivateServer | None"  # None where the user's own is used, or `prefect_api` is to make one


def compare(settings: Params, source: Source, at: Workplace, again: bool) -> None:
    """Run the comparison's flow under a display, and print its table; ComparisonFailed names the runs that failed.

    source: what `settings` were read from.
    """
    from tasks.store.runs import is_complete

    place, console = at.place, at.console
    trains = again or not all(is_complete(run, place) for run in settings.runs())
    if trains:
        _fork_early({settings.model.name})
    check_data(settings, place, console)
    failure = None
    with _services(settings.name, settings.runs(), at, trains):
        from flows.command_line.live import print_table
        from flows.command_line.settings import as_options
        from flows.compare import ComparisonFailed, compare_methods

        try:
            command = f"uv run dashpipe compare{as_options(*source)}"
            published = compare_methods(settings, place, command, again)
        except ComparisonFailed as error:
            failure, published = error, error.published
    print_table(published.table, console)
    console.print(f"\ntables   {published.folder}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"report   {published.folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"records  {place.store / 'runs'}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"MLflow   {ui_command(place, source)}", markup=False, highlight=False, soft_wrap=True)
    if failure:
        raise failure


def ui_command(place: Place, source: Source) -> str:
    """Return the command that opens the comparison in MLflow's pages."""
    from flows.command_line.settings import as_options

    store = ["--store", str(place.store)] if place.store != Path.cwd() else []
    return f"uv run dashpipe ui {shlex.join(store)}".rstrip() + as_options(*source)


def train(settings: Params, label: str, place: Place, console: Console) -> None:
    """Run the flow that trains every seed of one method; what is complete already is left as it is."""
    from tasks.store.runs import is_complete

    what, runs = f"{settings.name}, {label}", [settings.run(label, seed) for seed in settings.seeds]
    trains = not all(is_complete(run, place) for run in runs)
    with standing_by(place.store) as server, _services(what, runs, Workplace(place, console, server), trains):
        from flows.compare import train_method

        train_method(settings, label, place)


def run(settings: Params, one: RunConfig, at: Workplace, again: bool) -> None:
    """Train one run of a comparison in this process; a complete run is trained again only if asked."""
    place, console, server = at.place, at.console, at.server
    dataset = check_data(settings, place, console)
    if server:
        server.start()
    from flows.command_line.announce import warned_failures
    from flows.command_line.live import watched
    from flows.experiment import train_run
    from flows.services.prefect_server import prefect_api
    from tasks.store.runs import forget, is_complete
    from tasks.tracking.follower import Follower
    from tasks.tracking.mirror import Mirror

    imports_done()
    mirror = Mirror(settings, place, lambda: dataset, warned_failures())
    if again:
        forget(one, place)
        mirror.forget(one)
    elif is_complete(one, place):
        note = f"{one.id} is complete; --again trains it again"
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    with prefect_api(place.services, server), watched([one], place, console), Follower(mirror, [one]):
        train_run(one, place)
    mirror.close("FINISHED")
    console.print(f"records  {place.run_folder(one)}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _services(what: str, runs: Sequence[RunConfig], at: Workplace, trains: bool) -> Iterator[None]:
    """Start all that runs need, show their progress, and end it when the block ends; trains: by workers."""
    at.console.print(f"{what}: {len(runs)} runs, starting services …", highlight=False)
    with services(at, {run.model.name for run in runs if trains}):
        from flows.command_line.live import watched

        with watched(runs, at.place, at.console):
            yield


@contextmanager
def services(at: Workplace, models: Collection[str]) -> Iterator[None]:
    """Start what flows need, and end it when the block ends; models: those that worker processes will build, if any."""
    from flows.services.prefect_health import loss_told
    from flows.services.prefect_server import prefect_api

    if at.server:
        at.server.start()
    if models:
        _fork_early(models)
    import flows.compare  # noqa: F401

    imports_done()
    with prefect_api(at.place.services, at.server), loss_told():
        yield


def _fork_early(models: Collection[str]) -> None:
    """Start the process that workers are forked from, with what they need to build the models."""
    from dash_core.models import model_spec
    from flows.services.workers import start_early

    start_early(sorted({module for name in models for module in model_spec(name).imports}))


def check_data(settings: Params, place: Place, console: Console) -> Dataset:
    """Return the dataset, decoded and cached; chunks, protocol and model must fit it, before anything is started."""
    from dash_core.data import ChunkPlan, check_plan
    from dash_core.models import build_model

    dataset = decoded(settings, place, console)
    for seed in settings.seeds:
        plan = ChunkPlan.split(dataset.train, settings.dataset, settings.chunks, seed, settings.protocol)
        for label in settings.compare.methods:
            check_plan(plan, settings.run(label, seed), dataset)
    shape, classes = dataset.train.image_shape, dataset.train.classes
    build_model(settings.model.name, shape, classes, seed=0, normalisation=settings.model.normalisation)
    return dataset


def decoded(settings: Params, place: Place, console: Console) -> Dataset:
    """Return the dataset, decoded and cached under a progress bar, downloaded where that is needed."""
    from dash_core.data import load_dataset
    from flows.command_line.live import progress_bar

    with progress_bar(console) as progress:
        return load_dataset(settings.dataset, data_root=place.data_root, cache=place.cache, progress=progress)
