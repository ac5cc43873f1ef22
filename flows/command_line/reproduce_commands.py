"""What the command `reproduce` does: items of the paper one by one, their verdicts, their list, their summary."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from dash_core.comparison import Params
from dash_core.data.presence import is_here
from dash_core.device import choose_device, prepare_device
from dash_core.errors import ConfigError, DashError, StopRequested
from dash_core.views.reproduction import ITEMS, select
from dash_core.views.reproduction.expected import expected_seconds, training_rate
from dash_core.views.reproduction.item import SCALES, Item
from flows.command_line import commands
from flows.command_line.options import standing_by
from flows.reproduce import changing, check_scale, reproduce_item, settings_of
from tasks.reproduction import PAGE, item_folder, read_results, write_summary
from tasks.store.place import Crew, Place

MARKS = {"agree": "green", "disagree": "bold red", "too few seeds": "yellow"}
UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


class ReproductionFailed(DashError):
    """Some items could not be reproduced whole; the others are."""


@dataclass(frozen=True)
class Request:
    """What is to be reproduced: items at a scale, with overrides; again: train what is complete as well.

    settings: of each item's comparisons, by its name.
    """

    items: Sequence[Item]
    settings: Mapping[str, Mapping[str, Params]]
    scale: str
    overrides: Sequence[str] = ()
    again: bool = False

    @classmethod
    def of(cls, names: Sequence[str], scale: str, overrides: Sequence[str], again: bool) -> "Request":
        """Return the request of items by name, each once; ConfigError if there is no such item or scale."""
        items = {item.name: item for name in names for item in select(name)}
        settings = {name: settings_of(item, scale, overrides) for name, item in items.items()}
        return cls(list(items.values()), settings, scale, overrides, again)


def reproduce(asked: Request, place: Place, console: Console) -> None:
    """Reproduce the items, print their verdicts; ReproductionFailed names those that failed, the others are done."""
    failures: dict[str, str] = {}
    console.print(f"{len(asked.items)} item(s), scale {asked.scale}, starting services …", highlight=False)
    trained = [params for item in asked.items if not item.simulated for params in asked.settings[item.name].values()]
    models = {params.model.name for params in trained}
    with standing_by(place.store) as server, commands.services(commands.Workplace(place, console, server), models):
        for item in asked.items:
            try:
                if reason := _one(item, asked, place, console):
                    failures[item.name] = reason
            except StopRequested:
                raise
            except DashError as error:
                failures[item.name] = str(error)
                console.print(f"{item.name}: {error}", markup=False, highlight=False, soft_wrap=True)
    if failures:
        listing = "\n".join(f"  {name}: {reason}" for name, reason in failures.items())
        raise ReproductionFailed(f"{len(failures)} of {len(asked.items)} items are not whole:\n{listing}")


def _one(item: Item, asked: Request, place: Place, console: Console) -> str:
    """Reproduce one item, print its verdicts, and return why it is not whole, or nothing."""
    from flows.command_line.live import watched

    settings = asked.settings[item.name]
    console.print(f"\n{item.name}: {item.shows}", style="bold", markup=False, highlight=False, soft_wrap=True)
    runs = {} if item.simulated else {run.id: run for params in settings.values() for run in params.runs()}
    if not item.simulated:
        for params in settings.values():
            commands.check_data(params, place, console)
    started = time.perf_counter()
    with watched(list(runs.values()), place, console):
        made = reproduce_item(
            item.name, asked.scale, str(place.store), str(place.data_root), list(asked.overrides), asked.again
        )
    for finding in made.findings:
        console.print(f"{finding.judgement:14}", style=MARKS[finding.judgement], end="", highlight=False)
        console.print(finding.claim.text, markup=False, highlight=False, soft_wrap=True)
        console.print(f"{'':14}{finding.numbers}", style="dim", markup=False, highlight=False, soft_wrap=True)
    if not made.findings:
        console.print("no claim to check: see the page", highlight=False)
    folder = item_folder(place.store, item.name, asked.scale, made.overrides)
    seconds, page = time.perf_counter() - started, folder / PAGE
    console.print(f"page     {page} ({seconds:,.0f} s)", markup=False, highlight=False, soft_wrap=True)
    failed = "\n".join(f"    {run}: {reason}" for run, reason in made.failures.items())
    return f"{len(made.failures)} runs failed:\n{failed}" if failed else ""


def list_items(place: Place, console: Console) -> None:
    """Print each item: what it shows, its scales, the time expected on this machine, whether its data are here."""
    device = choose_device(place.device)
    prepare_device(device, 1)
    rate, workers = training_rate(device), Crew.of(Params(), 2**20).workers
    measured = f"{rate / 1e9:,.0f} GFLOP/s a process, {workers} at once"
    console.print(f"expected times from a measurement of a second: {measured}", markup=False, highlight=False)
    for item in ITEMS.values():
        console.print(f"\n{item.name}", style="bold", end="", highlight=False)
        console.print(f"  {item.shows}", markup=False, highlight=False, soft_wrap=True)
        for scale in SCALES:
            expected = about(expected_seconds(item, scale, rate, workers))
            line = f"  {scale:6} {expected:>10}  {_data(item, scale, place)}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _data(item: Item, scale: str, place: Place) -> str:
    """Return which data an item needs, and whether they are here."""
    if item.simulated or not item.scales[scale].comparisons:
        return "needs no data"
    configs = {params.dataset.name: params.dataset for params in item.scales[scale].params().values()}
    found = {name: is_here(config, place.data_root) for name, config in configs.items()}
    return ", ".join(f"{name} {'here' if here else 'not here'}" for name, here in found.items())


def about(seconds: float) -> str:
    """Return a time to one or two digits: 'about 3 min'."""
    size, unit = next(((size, unit) for size, unit in UNITS if seconds >= size), UNITS[-1])
    return f"about {max(float(f'{seconds / size:.2g}'), 1):,g} {unit}"


def check_summary(scale: str, path: Path | None) -> None:
    """Raise ConfigError unless there is such a scale, and the summary's file can be one."""
    check_scale(scale)
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise ConfigError(f"--summary: {path} is no file in a folder that exists; give for example reproduction.md")


def summarise(scale: str, overrides: Sequence[str], place: Place, path: Path, console: Console) -> None:
    """Write the one table of the items that were reproduced at a scale, with these overrides."""
    results = read_results(place.store, list(ITEMS), scale, changing(overrides))
    write_summary(results, path)
    console.print(f"summary  {path} ({len(results)} items)", markup=False, highlight=False, soft_wrap=True)
