"""The work of the command `reproduce`: reproduce items of the paper, list them, summarise their verdicts."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from dash_core.comparison import Params
from dash_core.config import merge, parse
from dash_core.data.presence import is_here
from dash_core.device import choose_device, prepare_device
from dash_core.errors import ConfigError, DashError, StopRequested
from dash_core.views.reproduction import ITEMS, select
from dash_core.views.reproduction.claims import Finding
from dash_core.views.reproduction.expected import expected_seconds, training_rate
from dash_core.views.reproduction.item import SCALES, Item
from dash_core.views.reproduction.reproduced import Reproduced
from dash_core.views.rules import FIXED_SEEDS, Rule
from flows.command_line.output import say
from flows.command_line.session import Session, check_data, services, standing_by
from flows.command_line.settings import check, parse_override
from flows.reproduce import changing, reproduce_item
from tasks.reproduction import PAGE_FILE, item_folder, read_results, write_summary
from tasks.store.place import Crew, Place

FIXED_BY_ITEM = ("compare.methods", "diagnostics")  # an item's view and claims are made of them
MARKS = {"agree": "green", "disagree": "bold red", "too few seeds": "yellow"}
UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))  # seconds of each


class ReproductionFailed(DashError):
    """Some items are incomplete; the message names them. The other items are complete."""


@dataclass(frozen=True)
class Selection:
    """The items to reproduce at a scale, with overrides; `again` trains complete runs again.

    settings: by the item's name, the checked parameters of its comparisons by key.
    """

    items: Sequence[Item]
    settings: Mapping[str, Mapping[str, Params]]
    scale: str
    overrides: Sequence[str] = ()
    again: bool = False

    @classmethod
    def of(cls, names: Sequence[str], scale: str, overrides: Sequence[str], again: bool) -> "Selection":
        """Return the selection of the named items, each once; ConfigError if there is no such item or scale."""
        items = {item.name: item for name in names for item in select(name)}
        settings = {name: settings_of(item, scale, overrides) for name, item in items.items()}
        return cls(list(items.values()), settings, scale, overrides, again)


def reproduce(selection: Selection, place: Place, console: Console) -> None:
    """Reproduce the items and print their verdicts; ReproductionFailed names the items that failed."""
    failures: dict[str, str] = {}
    console.print(f"{len(selection.items)} item(s), scale {selection.scale}, starting services …", highlight=False)
    trained = [
        params for item in selection.items if not item.simulated for params in selection.settings[item.name].values()
    ]
    models = {params.model.name for params in trained}
    with standing_by(place.services) as server, services(Session(place, console, server), models):
        for item in selection.items:
            with apart(item, failures, console):
                if reason := _reproduce_item(item, selection, place, console):
                    failures[item.name] = reason
    raise_failures(failures, len(selection.items))


@contextmanager
def apart(item: Item, failures: dict[str, str], console: Console) -> Iterator[None]:
    """Note and say why an item fails, if it does in the block: the others go on without it."""
    try:
        yield
    except StopRequested:
        raise
    except DashError as error:
        failures[item.name] = str(error)
        say(console, f"{item.name}: {error}")


def raise_failures(failures: Mapping[str, str], items: int) -> None:
    """Raise ReproductionFailed if any of so many items failed. failures: reasons by name."""
    if failures:
        listing = "\n".join(f"  {name}: {reason}" for name, reason in failures.items())
        raise ReproductionFailed(f"{len(failures)} of {items} items are incomplete:\n{listing}")


def _reproduce_item(item: Item, selection: Selection, place: Place, console: Console) -> str:
    """Reproduce one item, print its verdicts, and return why runs failed, or an empty text."""
    from flows.command_line.live import watched

    settings = selection.settings[item.name]
    console.print(f"\n{item.name}: {item.shows}", style="bold", markup=False, highlight=False, soft_wrap=True)
    runs = {} if item.simulated else {run.id: run for params in settings.values() for run in params.runs()}
    if not item.simulated:
        for params in settings.values():
            check_data(params, place, console)
    started = time.perf_counter()
    with watched(list(runs.values()), place, console):
        reproduced = reproduce_item(item.name, selection.scale, settings, place, selection.overrides, selection.again)
    show(reproduced, place, console, time.perf_counter() - started)
    return reasons(reproduced.failures)


def show(reproduced: Reproduced, place: Place, console: Console, seconds: float) -> None:
    """Print an item's verdicts, and where its page is."""
    show_findings(reproduced.findings, console)
    if not reproduced.findings:
        console.print("no claim to check: see the page", highlight=False)
    folder = item_folder(place.store, reproduced.item.name, reproduced.scale, reproduced.overrides, reproduced.rule)
    say(console, f"page     {folder / PAGE_FILE} ({seconds:,.0f} s)")


def show_findings(findings: Sequence[Finding], console: Console) -> None:
    """Print claims with their verdicts and numbers."""
    for finding in findings:
        console.print(f"{finding.judgement:14}", style=MARKS[finding.judgement], end="", highlight=False)
        say(console, finding.claim.text)
        console.print(f"{'':14}{finding.numbers}", style="dim", markup=False, highlight=False, soft_wrap=True)


def reasons(failures: Mapping[str, str]) -> str:
    """Return in words why runs failed; an empty text if none did."""
    failed = "\n".join(f"    {run}: {reason}" for run, reason in failures.items())
    return f"{len(failures)} runs failed:\n{failed}" if failed else ""


def list_items(place: Place, console: Console) -> None:
    """Print what each item shows and, for each scale, its expected time and whether its data are on this machine."""
    device = choose_device(place.device)
    prepare_device(device, 1)
    rate, workers = training_rate(device), Crew.of(Params(), 2**20).workers
    speed = f"{rate / 1e9:,.0f} GFLOP/s a process, {workers} at once"
    console.print(f"expected times, from a measurement of one second: {speed}", markup=False, highlight=False)
    for item in ITEMS.values():
        console.print(f"\n{item.name}", style="bold", end="", highlight=False)
        say(console, f"  {item.shows}")
        for scale in SCALES:
            duration = about(expected_seconds(item, scale, rate, workers))
            line = f"  {scale:6} {duration:>10}  {data_words(item, scale, place)}"
            say(console, line)


def data_words(item: Item, scale: str, place: Place) -> str:
    """Return which datasets an item needs, and whether they are on this machine."""
    if item.simulated or not item.scales[scale].comparisons:
        return "needs no data"
    configs = {params.dataset.name: params.dataset for params in item.scales[scale].params().values()}
    presence = {name: is_here(config, place.data_root) for name, config in configs.items()}
    return ", ".join(f"{name} {'here' if here else 'not here'}" for name, here in presence.items())


def about(seconds: float) -> str:
    """Return seconds in words, to one or two digits: 'about 3 min'."""
    size, unit = next(((size, unit) for size, unit in UNITS if seconds >= size), UNITS[-1])
    return f"about {max(float(f'{seconds / size:.2g}'), 1):,g} {unit}"


def check_summary(scale: str, path: Path | None) -> None:
    """Raise ConfigError unless the scale exists and the summary can be written to the path."""
    check_scale(scale)
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise ConfigError(f"--summary: {path} is no file in a folder that exists; give for example reproduction.md")


def summarise(
    scale: str, overrides: Sequence[str], place: Place, path: Path, console: Console, rule: Rule = FIXED_SEEDS
) -> None:
    """Write one table of all items that were reproduced at a scale with these overrides, and judged by a rule."""
    results = read_results(place.store, list(ITEMS), scale, changing(overrides), rule)
    write_summary(results, path)
    say(console, f"summary  {path} ({len(results)} items)")


def settings_of(item: Item, scale: str, overrides: Sequence[str] = ()) -> dict[str, Params]:
    """Return the parameters of an item's comparisons with overrides laid over them; ConfigError names what is wrong."""
    check_scale(scale)
    for override in overrides:
        if override.partition("=")[0].strip() in FIXED_BY_ITEM:
            raise ConfigError(
                f"--set {override}: an item fixes {' and '.join(FIXED_BY_ITEM)}; override other parameters"
            )
    changes = [parse_override(override) for override in overrides]
    settings = {}
    for key, overlay in item.scales[scale].comparisons.items():
        content = overlay
        for change in changes:
            content = merge(content, change)
        settings[key] = parse(Params, content, where=f"{item.name}, {scale}, {key}")
        check(settings[key])
    return settings


def check_scale(scale: str) -> None:
    """Raise ConfigError if the scale is unknown."""
    if scale not in SCALES:
        raise ConfigError(f"unknown scale {scale!r}; known: {', '.join(SCALES)}")
