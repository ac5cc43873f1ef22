"""`reproduce --dry-run`: the runs, images, FLOPs and hours of items on this device, before anything starts."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Console

from dash_core.comparison import Params
from dash_core.config import RunConfig
from dash_core.device import choose_device, prepare_device
from dash_core.views.reproduction.expected import (
    BACKWARD,
    EPOCHS,
    OTHERWISE,
    RUN_OVERHEAD,
    Work,
    run_work,
    simulation_seconds,
)
from dash_core.views.reproduction.measuring import Pace, pace, step_of
from flows.command_line.output import say
from flows.command_line.reproduction import Selection, about, data_words
from tasks.store.place import Crew, Place
from tasks.store.runs import is_complete


@dataclass
class _Paces:
    """The measured paces of training steps, each measured once."""

    place: Place
    console: Console
    by_step: dict[tuple[object, ...], Pace] = field(default_factory=dict)

    def seconds(self, run: RunConfig, work: Work) -> float:
        """Return the expected seconds of a run in one process; a test image takes as long as its forward pass."""
        step = step_of(run)
        if step not in self.by_step:
            self.by_step[step] = pace(run, choose_device(self.place.device))
            found = self.by_step[step]
            say(
                self.console,
                f"measured {run.model.name}, {run.dataset.name}, {run.optimizer.name}, batch "
                f"{run.training.batch_size}: {found.images_per_second:,.0f} training images/s a process, "
                f"{found.precision}",
            )
        passes = BACKWARD * (2 if run.optimizer.name == "sam" else 1)
        images = work.trained + work.tested / passes
        return RUN_OVERHEAD + images / self.by_step[step].images_per_second


def tell_expected(selection: Selection, place: Place, console: Console) -> None:
    """Print for each item, and for all together, what is not complete yet and how long it takes here."""
    params = next((p for settings in selection.settings.values() for p in settings.values()), Params())
    crew = Crew.of(params, 2**20)
    prepare_device(choose_device(place.device), crew.threads)
    paces = _Paces(place, console)
    counted: dict[str, tuple[Work, float]] = {}
    simulations = 0.0
    lines = []
    for item in selection.items:
        settings = selection.settings[item.name]
        where = data_words(item, selection.scale, place)
        if item.simulated or not settings:
            seconds = sum(simulation_seconds(params) for params in settings.values())
            simulations += seconds
            lines.append(f"{item.name:10} {selection.scale}: no run, {about(seconds)}; {where}")
            continue
        runs = {run.id: run for params in settings.values() for run in params.runs()}
        pending = [run for run in runs.values() if selection.again or not is_complete(run, place)]
        shared = sum(run.id in counted for run in pending)
        for run in pending:
            if run.id not in counted:
                work = run_work(run)
                counted[run.id] = work, paces.seconds(run, work)
        of_item = {run.id: counted[run.id] for run in pending}
        also = f", {shared} of them also in items above" if shared else ""
        lines.append(
            f"{item.name:10} {selection.scale}: {len(pending)} of {len(runs)} runs{also}, "
            f"{_sum(of_item, crew)}; {where}"
        )
    for line in lines:
        say(console, line)
    say(console, f"together   {len(counted)} runs, {_sum(counted, crew, simulations)}")
    say(
        console,
        f"{crew.workers} runs at once of {crew.threads} thread(s). Hours assume {_epochs()} epochs an experiment, at "
        "most max_epochs; a method's own passes, diagnostics and what runs share are not counted.",
    )


def _sum(runs: Mapping[str, tuple[Work, float]], crew: Crew, more_seconds: float = 0.0) -> str:
    """Return in words the images, FLOPs and time of the runs."""
    work = sum((work for work, _ in runs.values()), Work())
    seconds = [seconds for _, seconds in runs.values()]
    time = max(sum(seconds) / crew.workers, max(seconds, default=0.0)) + more_seconds
    hours = f"{time / 3600:,.2g} h" if time < 36_000 else f"{time / 3600:,.0f} h"
    return f"{work.trained:,.3g} training images, {work.flops:.2g} FLOPs, {hours} ({about(time)})"


def _epochs() -> str:
    return ", ".join(f"{_name(name)} {epochs}" for name, epochs in EPOCHS.items()) + f", others {OTHERWISE}"


def _name(name: str) -> str:
    return name.replace("_", " ")
