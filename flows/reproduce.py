"""The flow of one item of the paper: its comparisons one after the other, then its page with the verdicts."""

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prefect import flow

from dash_core.comparison import Params
from dash_core.errors import DashError
from dash_core.views.reproduction import select
from dash_core.views.reproduction.item import Item
from dash_core.views.reproduction.outcome import Measured
from dash_core.views.reproduction.reproduced import Reproduced
from dash_core.views.rules import FIXED_SEEDS, GROUP_SEQUENTIAL, Rule
from dash_core.views.summary import total_cost
from flows.compare import Deadline, compare, train_runs
from flows.split import split_dataset
from tasks.reproduction import measured_runs, publish_item, simulate
from tasks.store.comparison_folder import machines_of
from tasks.store.place import Crew, Place, place_of
from tasks.store.runs import forget, is_complete


class NothingToShow(DashError):
    """An item has no page, because some of its methods have no complete run yet."""


@dataclass(frozen=True)
class Ordered:
    """The training of an item's runs before its page is made.

    most_seeds: seeds were added until claims were decided, up to this number; None: no seed was added. left: number of
    the item's runs that the deadline left. failures: why runs failed, by id.
    """

    most_seeds: int | None = None
    left: int = 0
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def rule(self) -> Rule:
        """How differences are judged."""
        return FIXED_SEEDS if self.most_seeds is None else GROUP_SEQUENTIAL


@flow(name="reproduce-item", flow_run_name="reproduce {name} · {scale}", persist_result=False, retries=0)
def reproduce_item(
    name: str,
    scale: str,
    settings: Mapping[str, Params],
    place: Place,
    overrides: Sequence[str] = (),
    again: bool = False,
    ordered: Ordered | None = None,
) -> Reproduced:
    """Train every comparison of an item, and publish its page, verdicts and record.

    settings: the checked parameters of each comparison. place: its folders are used; devices and threads come from
    each comparison's parameters. A run that fails does not stop the others: the item uses the complete runs, and the
    failures are returned with it. ordered: the runs were trained before, in an order of their own (`train_in_order`);
    None: they are trained here.
    """
    (item,), changes = select(name), changing(overrides)
    command = command_of(item, scale, overrides, ordered)
    measured, failures, simulation_seconds = {}, {}, 0.0
    for key, params in settings.items():
        own_place = place_of(params, place.store, place.data_root, place.given_services)
        if item.simulated:
            started = time.perf_counter()
            measured[key] = simulate(key, params, own_place)
            simulation_seconds += time.perf_counter() - started
        elif ordered and not all(is_complete(run, own_place) for run in params.runs()):
            measured[key] = measured_runs(params, own_place)
        else:
            measured[key], failed = _compare(params, own_place, command, again)
            failures |= failed
    if ordered and not item.simulated:
        _check_shown(item.name, measured, ordered.left)
        failures |= ordered.failures
    reproduced = Reproduced(
        item=item,
        scale=scale,
        outcome=measured,
        seconds=simulation_seconds or _seconds(measured),
        command=command,
        overrides=tuple(changes),
        failures=failures,
        rule=ordered.rule if ordered else FIXED_SEEDS,
        left=ordered.left if ordered else 0,
    )
    publish_item(reproduced, place)
    return reproduced


@flow(name="train-in-order", flow_run_name="train {title}", persist_result=False, retries=0)
def train_in_order(
    title: str,
    comparisons: Sequence[Params],
    order: Sequence[str],
    place: Place,
    deadline: Deadline | None = None,
    again: bool = False,
) -> Mapping[str, str]:
    """Train runs of several comparisons in one order, until the deadline; return why runs failed, by id.

    order: the runs' ids; hundreds of whole runs would be more than a Prefect server takes as parameters. again: whether
    complete runs are trained again. Runs that are complete on other data, or by other code, are trained anew.
    """
    runs = {run.id: run for params in comparisons for run in params.runs()}
    wanted = set(order)
    complete: set[str] = set()
    own_place = place
    for params in comparisons:
        own_place = place_of(params, place.store, place.data_root, place.given_services)
        _, plans = split_dataset(params, own_place)
        for run in params.runs():
            if run.id not in wanted or not is_complete(run, own_place):
                continue
            if not again and is_complete(run, own_place, plans[run.seed].digest, own_place.given_code):
                complete.add(run.id)
            else:
                forget(run, own_place)
    pending = [runs[run_id] for run_id in order if run_id not in complete]
    crew = Crew.of(comparisons[0], len(pending))
    return train_runs(pending, own_place.model_copy(update={"workers": crew.workers}), crew, deadline)


def _check_shown(name: str, measured: Mapping[str, Measured], left: int) -> None:
    """Raise NothingToShow unless every method of every comparison has a complete run."""
    without = [
        f"{label} of {key}"
        for key, one in measured.items()
        for label in one.params.compare.methods
        if not one.method(label).runs
    ]
    if without:
        runs = f"{left} runs are left, and " if left else ""
        raise NothingToShow(f"{name} has no page yet: {runs}there is no complete run of {', '.join(without)}")


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


def command_of(item: Item, scale: str, overrides: Sequence[str] = (), ordered: Ordered | None = None) -> str:
    """Return the command that reproduces an item."""
    words = ["uv", "run", "dashpipe", "reproduce", item.name, "--scale", scale]
    if ordered and ordered.most_seeds is not None:
        words += ["--until-decided", "--max-seeds", str(ordered.most_seeds)]
    for override in overrides:
        words += ["--set", override]
    return shlex.join(words)
