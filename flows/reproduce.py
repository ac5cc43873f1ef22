"""The flow of one item of the paper: its comparisons one after the other, then its page with the verdicts."""

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect import flow

from dash_core.comparison import Params
from dash_core.config import merge, parse
from dash_core.errors import ConfigError
from dash_core.views.reproduction import select
from dash_core.views.reproduction.item import SCALES, Item
from dash_core.views.reproduction.outcome import Measured
from dash_core.views.reproduction.reproduced import Reproduced
from dash_core.views.summary import total_cost
from flows.command_line.settings import check, parse_override
from flows.compare import compare
from tasks.reproduction import publish_item, simulate
from tasks.store.comparison_folder import machines_of
from tasks.store.place import Place, place_of

ITS_OWN = ("compare.methods", "diagnostics")  # what an item's view and claims are made of


@flow(name="reproduce-item", flow_run_name="reproduce {name} · {scale}", persist_result=False)
def reproduce_item(
    name: str,
    scale: str = "small",
    store: str = ".",
    data_root: str | None = None,
    overrides: Sequence[str] = (),
    again: bool = False,
) -> Reproduced:
    """Run every comparison of an item, and publish its page, verdicts and record.

    A run that fails does not take the others down: the item is made of what is complete, and its failures are told.
    """
    (item,), changes = select(name), changing(overrides)
    measured, failures, simulating = {}, {}, 0.0
    for key, params in settings_of(item, scale, overrides).items():
        place = place_of(params, Path(store), Path(data_root) if data_root else None)
        if item.simulated:
            started = time.perf_counter()
            measured[key] = simulate(key, params, place)
            simulating += time.perf_counter() - started
        else:
            measured[key], failed = _compare(params, place, command_of(item, scale, overrides), again)
            failures |= failed
    made = Reproduced(
        item=item,
        scale=scale,
        outcome=measured,
        seconds=simulating or _seconds(measured),
        command=command_of(item, scale, overrides),
        overrides=tuple(changes),
        failures=failures,
    )
    publish_item(made, place_of(Params(), Path(store), None))
    return made


def _compare(params: Params, place: Place, command: str, again: bool) -> tuple[Measured, Mapping[str, str]]:
    """Return what is complete and why runs failed; ComparisonFailed where a method has no complete run."""
    compared = compare(params, place, command, again)
    evidence = compared.evidence
    if {method.label for method in evidence.methods} != set(params.compare.methods):
        compared.raise_failures()
    return Measured(params, evidence.methods, machines_of(evidence)), compared.failures


def _seconds(measured: Mapping[str, Measured]) -> float:
    """Return what the records of all runs tell, one after the other."""
    runs = [run for one in measured.values() for method in one.methods for run in method.runs.values()]
    return sum(total_cost(run).seconds for run in runs)


def settings_of(item: Item, scale: str, overrides: Sequence[str] = ()) -> dict[str, Params]:
    """Return the parameters of an item's comparisons with overrides laid over them; ConfigError names what is wrong."""
    check_scale(scale)
    for override in overrides:
        if override.partition("=")[0].strip() in ITS_OWN:
            raise ConfigError(f"--set {override}: an item says itself what it compares and measures; override the rest")
    found = {}
    for key, overlay in item.scales[scale].comparisons.items():
        content = overlay
        for override in overrides:
            content = merge(content, parse_override(override))
        found[key] = parse(Params, content, where=f"{item.name}, {scale}, {key}")
        check(found[key])
    return found


def check_scale(scale: str) -> None:
    """Raise ConfigError unless there is such a scale."""
    if scale not in SCALES:
        raise ConfigError(f"unknown scale {scale!r}; known: {', '.join(SCALES)}")


def changing(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that change results; the section `compare` says only how runs are carried out."""
    return [override for override in overrides if not override.startswith("compare.")]


def command_of(item: Item, scale: str, overrides: Sequence[str] = ()) -> str:
    """Return the command that makes an item again."""
    words = ["uv", "run", "dashpipe", "reproduce", item.name, "--scale", scale]
    for override in overrides:
        words += ["--set", override]
    return shlex.join(words)
