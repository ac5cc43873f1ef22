"""The flow of one item of the paper: its comparisons one after the other, then its page with the verdicts."""

import shlex
import time
from collections.abc import Mapping, Sequence

from prefect import flow

from dash_core.comparison import Params
from dash_core.views.reproduction import select
from dash_core.views.reproduction.item import Item
from dash_core.views.reproduction.outcome import Measured
from dash_core.views.reproduction.reproduced import Reproduced
from dash_core.views.summary import total_cost
from flows.compare import compare
from tasks.reproduction import publish_item, simulate
from tasks.store.comparison_folder import machines_of
from tasks.store.place import Place, place_of


@flow(name="reproduce-item", flow_run_name="reproduce {name} · {scale}", persist_result=False, retries=0)
def reproduce_item(
    name: str,
    scale: str,
    settings: Mapping[str, Params],
    place: Place,
    overrides: Sequence[str] = (),
    again: bool = False,
) -> Reproduced:
    """Train every comparison of an item, and publish its page, verdicts and record.

    settings: the checked parameters of each comparison. place: its folders are used; devices and threads come from
    each comparison's parameters. A run that fails does not stop the others: the item uses the complete runs, and the
    failures are returned with it.
    """
    (item,), changes = select(name), changing(overrides)
    command = command_of(item, scale, overrides)
    measured, failures, simulation_seconds = {}, {}, 0.0
    for key, params in settings.items():
        own_place = place_of(params, place.store, place.data_root)
        if item.simulated:
            started = time.perf_counter()
            measured[key] = simulate(key, params, own_place)
            simulation_seconds += time.perf_counter() - started
        else:
            measured[key], failed = _compare(params, own_place, command, again)
            failures |= failed
    reproduced = Reproduced(
        item=item,
        scale=scale,
        outcome=measured,
        seconds=simulation_seconds or _seconds(measured),
        command=command,
        overrides=tuple(changes),
        failures=failures,
    )
    publish_item(reproduced, place)
    return reproduced


def _compare(params: Params, place: Place, command: str, again: bool) -> tuple[Measured, Mapping[str, str]]:
    """Return the complete runs, and why others failed; ComparisonFailed if a method has no complete run."""
    compared = compare(params, place, command, again)
    evidence = compared.evidence
    if {method.label for method in evidence.methods} != set(params.compare.methods):
        compared.raise_failures()
    return Measured(params, evidence.methods, machines_of(evidence)), compared.failures


def _seconds(measured: Mapping[str, Measured]) -> float:
    """Return the seconds that all runs took together, according to their records."""
    runs = [run for comparison in measured.values() for method in comparison.methods for run in method.runs.values()]
    return sum(total_cost(run).seconds for run in runs)


def changing(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that change results; the section `compare` only says how runs are trained."""
    return [override for override in overrides if not override.startswith("compare.")]


def command_of(item: Item, scale: str, overrides: Sequence[str] = ()) -> str:
    """Return the command that reproduces an item."""
    words = ["uv", "run", "dashpipe", "reproduce", item.name, "--scale", scale]
    for override in overrides:
        words += ["--set", override]
    return shlex.join(words)
