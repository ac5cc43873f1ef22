"""The session of a command that trains: its folders, its terminal, the services that it starts, its data.

Most imports are inside the functions, in the order that uses two cores best: the Prefect server and the workers' fork
server import in their own processes at the same time. Neither starts anything before the data have been checked.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dash_core.files import check_space, make_writable_folder

if TYPE_CHECKING:
    from rich.console import Console

    from dash_core.comparison import Params
    from dash_core.config import RunConfig
    from dash_core.data import Dataset
    from flows.services.prefect_server import PrivateServer
    from tasks.store.place import Place


@dataclass(frozen=True)
class Session:
    """What a command uses: its folders, its terminal, and the Prefect server that stands by (`standing_by`)."""

    place: "Place"
    console: "Console"
    server: "PrivateServer | None"  # None where the user's own is used, or where `prefect_api` is to start one


@contextmanager
def standing_by(services: Path) -> Iterator["PrivateServer | None"]:
    """Yield a private Prefect server that only imports, which takes seconds. It serves and writes nothing yet.

    services: folder of its database (`Place.services`, or `SharedOptions.services_folder` before there is a place).

    None if the user configured an API. Enter it first, so that the server imports while this process does.
    """
    from flows.services.machine import check_machine
    from flows.services.prefect_server import PrivateServer, configured_url
    from flows.services.prefect_settings import private_environment

    check_machine()
    try:
        server = None if configured_url() else PrivateServer(services).stand_by()
    except (OSError, RuntimeError, ValueError):  # SharedOptions.place reports a folder that cannot exist
        server = None
    if server is None:
        yield None
        return
    try:
        with private_environment(services):
            yield server
    finally:
        server.stop()


def make_writable(place: "Place") -> None:
    """Create the store; ConfigError says why results cannot be written there, DiskError that its disk is full."""
    make_writable_folder("--store", place.store, place.common_services)
    check_space(place.store)
    if place.given_services:
        make_writable_folder("--services", place.services)
        check_space(place.services)


@contextmanager
def watched_services(title: str, runs: Sequence["RunConfig"], session: Session, trains: bool) -> Iterator[None]:
    """Start the services that the runs need, show the runs' progress, and stop both when the block ends.

    trains: whether worker processes will train any run.
    """
    session.console.print(f"{title}: {len(runs)} runs, starting services …", highlight=False)
    with services(session, {run.model.name for run in runs if trains}):
        from flows.command_line.live import watched

        with watched(runs, session.place, session.console):
            yield


@contextmanager
def services(session: Session, models: Collection[str]) -> Iterator[None]:
    """Start the services that flows need, and stop them when the block ends.

    models: names of the models that worker processes will build; empty if no run will be trained.
    """
    from flows.services.environment import imports_done
    from flows.services.prefect_health import explain_lost_server
    from flows.services.prefect_server import prefect_api

    if session.server:
        session.server.start()
    if models:
        fork_early(models, session.place)
    import flows.compare  # noqa: F401

    imports_done()
    with prefect_api(session.place.services, session.server), explain_lost_server():
        yield


def fork_early(models: Collection[str], place: "Place") -> None:
    """Start the process that workers are forked from, with the imports that building the models needs.

    Not for a cluster, whose workers are on other machines.
    """
    if place.executor != "local":
        return
    from dash_core.models import model_spec
    from flows.services.workers import start_early

    start_early(sorted({module for name in models for module in model_spec(name).imports}))


def check_data(settings: "Params", place: "Place", console: "Console") -> "Dataset":
    """Return the dataset, decoded and cached; ConfigError unless chunks, protocol and model fit it."""
    from dash_core.data import ChunkPlan, check_plan
    from dash_core.models.pretrained import InitialModel
    from dash_core.rehearsal import rehearse

    dataset = decoded(settings, place, console)
    for seed in settings.seeds:
        plan = ChunkPlan.split(dataset.train, settings.dataset, settings.chunks, seed, settings.protocol)
        for label in settings.compare.methods:
            check_plan(plan, settings.run(label, seed), dataset)
    shape, classes = dataset.train.image_shape, dataset.train.classes
    InitialModel(settings.model, shape, classes).check()
    for label in settings.compare.methods:
        rehearse(settings.run(label, settings.seeds[0]), dataset)
    return dataset


def decoded(settings: "Params", place: "Place", console: "Console") -> "Dataset":
    """Return the dataset, decoded and cached under a progress bar, and downloaded if it is missing."""
    from flows.command_line.live import progress_bar
    from tasks.store.datasets import open_dataset

    with progress_bar(console) as progress:
        return open_dataset(settings.dataset, place, progress)
