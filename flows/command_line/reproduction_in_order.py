"""The command `reproduce` with a budget, or until claims are decided: all runs in one order, then the pages."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console

from dash_core.comparison import Params
from dash_core.config import RunConfig
from dash_core.device import choose_device, prepare_device
from dash_core.errors import DashError
from dash_core.views.reproduction.claims import Claim, Finding, find
from dash_core.views.reproduction.expected import RUN_OVERHEAD, run_flops, training_rate
from dash_core.views.reproduction.item import Item
from dash_core.views.reproduction.items_theory import simulated
from dash_core.views.reproduction.outcome import Measured, Outcome
from dash_core.views.reproduction.planning import by_claims_decided, more_seeds, needed
from dash_core.views.rules import FIXED_SEEDS, GROUP_SEQUENTIAL, LAST_LOOK, Rule
from flows.command_line.durations import seconds_of
from flows.command_line.output import say
from flows.command_line.reproduction import ReproductionFailed, Selection, about, reasons, show, show_findings
from flows.command_line.session import Session, check_data, services, standing_by
from flows.compare import Deadline
from flows.reproduce import NothingToShow, Ordered, reproduce_item, train_in_order
from tasks.reproduction import measured_runs
from tasks.store.place import Crew, Place, place_of
from tasks.store.runs import is_complete

PAGE_SECONDS = 2.0  # to write one item's page after training
MOST_FOR_PAGES = 0.2  # of the budget
MORE_SIMULATIONS = 3  # seeds that a simulation gets at once


@dataclass(frozen=True)
class Limits:
    """When training stops. budget: seconds for the command, None without one. most_seeds: of a comparison, or None.

    most_seeds: seeds are added until claims are decided, up to this number; None: no seed is added.
    """

    budget: float | None = None
    most_seeds: int | None = None

    @classmethod
    def of(cls, budget: str | None, until_decided: bool, max_seeds: int) -> "Limits":
        """Return the limits that the options give; ConfigError if the budget is no duration."""
        return cls(seconds_of(budget, "--budget") if budget else None, max_seeds if until_decided else None)

    @property
    def rule(self) -> Rule:
        """The rule of the verdicts: a sequential one if seeds are added."""
        return FIXED_SEEDS if self.most_seeds is None else GROUP_SEQUENTIAL

    def deadline(self, items: int) -> Deadline | None:
        """Return when training stops, so that there is time for the pages of so many items."""
        if self.budget is None:
            return None
        return Deadline(self.budget - min(PAGE_SECONDS * items, MOST_FOR_PAGES * self.budget))


def reproduce_in_order(selection: Selection, limits: Limits, place: Place, console: Console) -> None:
    """Train the runs in the order in which they decide most claims, add seeds if asked, and publish every item.

    ReproductionFailed names the items that failed. An item without a page, because the budget ended, has not failed.
    """
    deadline = limits.deadline(len(selection.items))
    console.print(f"{len(selection.items)} item(s), scale {selection.scale}, starting services …", highlight=False)
    models = {params.model.name for item, params in _trained(selection)}
    with standing_by(place.services) as server, services(Session(place, console, server), models):
        study = _Study(selection, limits, place, console, deadline)
        study.check()
        study.train(selection.again)
        while limits.most_seeds is not None and not study.over and study.add_seeds():
            study.train()
        study.publish()
    study.tell()


def _trained(selection: Selection) -> Iterator[tuple[Item, Params]]:
    for item in selection.items:
        if not item.simulated:
            yield from ((item, params) for params in selection.settings[item.name].values())


@dataclass
class _Study:
    """The runs and claims of the selected items, while runs are trained and seeds are added.

    settings: parameters by item and comparison; they get more seeds. wanted: runs by id, of each item; failures: why
    runs failed, by id; broken: why items failed, by name.
    """

    selection: Selection
    limits: Limits
    place: Place
    console: Console
    deadline: Deadline | None
    settings: dict[str, dict[str, Params]] = field(default_factory=dict)
    wanted: dict[str, dict[str, RunConfig]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    open_claims: int = 0

    @property
    def over(self) -> bool:
        """Whether the time has passed."""
        return self.deadline is not None and self.deadline.passed

    @property
    def items(self) -> list[Item]:
        """The items that can be trained."""
        return [item for item in self.selection.items if item.name not in self.broken]

    def check(self) -> None:
        """Check the data of every item; those of an item that fails are not trained."""
        for item in self.selection.items:
            settings = dict(self.selection.settings[item.name])
            try:
                for params in () if item.simulated else settings.values():
                    check_data(params, self.place, self.console)
            except DashError as error:
                self.broken[item.name] = str(error)
                say(self.console, f"{item.name}: {error}")
                continue
            self.settings[item.name] = settings
            runs = () if item.simulated else (run for params in settings.values() for run in params.runs())
            self.wanted[item.name] = {run.id: run for run in runs}
        device = choose_device(self.place.device)
        prepare_device(device, 1)
        self.rate = training_rate(device)

    def train(self, again: bool = False) -> None:
        """Train every wanted run that is not complete, those first that decide most claims for their time."""
        from flows.command_line.live import watched

        runs = {run_id: run for item in self.items for run_id, run in self.wanted[item.name].items()}
        pending = {run_id: run for run_id, run in runs.items() if again or not is_complete(run, self.place)}
        pending = {run_id: run for run_id, run in pending.items() if run_id not in self.failures}
        comparisons = self._comparisons_of(pending)
        if not pending or self.over:
            return
        seconds = {run_id: RUN_OVERHEAD + run_flops(run) / self.rate for run_id, run in pending.items()}
        order = by_claims_decided(self._runs_by_claim(), seconds)
        title = f"{len(order)} runs of {len(comparisons)} comparisons"
        with watched([pending[run_id] for run_id in order], self.place, self.console):
            self.failures |= train_in_order(title, comparisons, order, self.place, self.deadline, again)

    def _comparisons_of(self, pending: Mapping[str, RunConfig]) -> list[Params]:
        every = [params for item in self.items if not item.simulated for params in self.settings[item.name].values()]
        return [params for params in every if any(run.id in pending for run in params.runs())]

    def _runs_by_claim(self) -> list[list[str]]:
        """Return the runs that each claim of an item that is trained needs, seed by seed."""
        claims = []
        for item in self.items:
            if not item.simulated:
                settings = self.settings[item.name]
                claims += [self._runs_of(item, needed(claim, settings)) for claim in self._claims(item)]
        return claims

    def _claims(self, item: Item) -> Sequence[Claim]:
        return item.claims_at(self.selection.scale, bool(self.selection.overrides))

    def _runs_of(self, item: Item, needs: set[tuple[str, str]]) -> list[str]:
        settings = self.settings[item.name]
        ids = {settings[key].run(label, seed).id for key, label in needs for seed in settings[key].seeds}
        return [run_id for run_id in self.wanted[item.name] if run_id in ids]

    def add_seeds(self) -> bool:
        """Add seeds for the claims that are open; return whether any were added."""
        extended = {item.name: self._open_needs(item) for item in self.items}
        self.open_claims = sum(count for count, _ in extended.values())
        workers = Crew.of(Params(), 2**20).workers
        count = math.ceil(workers / max(sum(len(needs) for _, needs in extended.values()), 1))
        added = False
        for item in self.items:
            for key in dict.fromkeys(key for key, _ in sorted(extended[item.name][1])):
                labels = [label for other, label in sorted(extended[item.name][1]) if other == key]
                added |= self._extend(item, key, labels, count)
        return added

    def _open_needs(self, item: Item) -> tuple[int, set[tuple[str, str]]]:
        """Return how many claims are open that seeds can decide, and the runs that they compare."""
        settings = self.settings[item.name]
        found = find(self._claims(item), self._outcome(item), self.limits.rule)
        needs: set[tuple[str, str]] = set()
        count = 0
        for finding in found:
            checks = [
                check
                for check, verdict in zip(finding.claim.checks, finding.verdicts, strict=True)
                if check.tested and verdict.judgement == "too few seeds"
            ]
            if finding.judgement == "too few seeds" and checks:
                count += 1
                needs |= needed(replace(finding.claim, checks=checks), settings)
        return count, needs

    def _outcome(self, item: Item) -> Outcome:
        settings = self.settings[item.name]
        if item.simulated:
            return {key: Measured(params, simulated(params.theory)) for key, params in settings.items()}
        return {
            key: measured_runs(
                params, place_of(params, self.place.store, self.place.data_root, self.place.given_services)
            )
            for key, params in settings.items()
        }

    def _extend(self, item: Item, key: str, labels: Sequence[str], count: int) -> bool:
        """Give a comparison more seeds for some methods, which get those of other methods too; return whether any."""
        params, wanted = self.settings[item.name][key], self.wanted[item.name]
        known = len(wanted)
        if item.simulated:
            seeds = more_seeds(params.theory.seeds, MORE_SIMULATIONS, self.limits.most_seeds)
            longer = params.model_copy(update={"theory": params.theory.model_copy(update={"seeds": seeds})})
        else:
            seeds = more_seeds(params.seeds, count, self.limits.most_seeds)
            longer = params.model_copy(update={"seeds": seeds})
            wanted |= {run.id: run for seed in seeds for run in (longer.run(label, seed) for label in labels)}
        self.settings[item.name][key] = longer
        return len(seeds) > len(params.theory.seeds) if item.simulated else len(wanted) > known

    def publish(self) -> None:
        """Write the page of every item from its complete runs, and print its verdicts."""
        for item in self.items:
            say(self.console, f"\n{item.name}: {item.shows}")
            started = time.perf_counter()
            failures = {run: why for run, why in self.failures.items() if run in self.wanted[item.name]}
            ordered = Ordered(self.limits.most_seeds, len(self._left(item)), failures)
            selection, settings = self.selection, self.settings[item.name]
            try:
                reproduced = reproduce_item(
                    item.name, selection.scale, settings, self.place, selection.overrides, False, ordered
                )
            except NothingToShow as error:
                show_findings(self._judged(item), self.console)
                say(self.console, str(error))
                continue
            except DashError as error:
                self.broken[item.name] = str(error)
                say(self.console, f"{item.name}: {error}")
                continue
            show(reproduced, self.place, self.console, time.perf_counter() - started)
            if reproduced.failures:
                self.broken[item.name] = reasons(reproduced.failures)

    def _judged(self, item: Item) -> list[Finding]:
        """Return the claims of an item without a page whose runs are complete, with their verdicts."""
        if item.simulated:
            return []
        left, settings = self._left(item).keys(), self.settings[item.name]
        needs = [(claim, self._runs_of(item, needed(claim, settings))) for claim in self._claims(item)]
        claims = [claim for claim, runs in needs if runs and left.isdisjoint(runs)]
        return find(claims, self._outcome(item), self.limits.rule) if claims else []

    def _left(self, item: Item) -> dict[str, RunConfig]:
        runs = self.wanted.get(item.name, {})
        return {
            run_id: run
            for run_id, run in runs.items()
            if run_id not in self.failures and not is_complete(run, self.place)
        }

    def tell(self) -> None:
        """Say what is left; ReproductionFailed if items failed."""
        left = {run_id: run for item in self.selection.items for run_id, run in self._left(item).items()}
        if left:
            workers = Crew.of(Params(), len(left)).workers
            seconds = sum(RUN_OVERHEAD + run_flops(run) / self.rate for run in left.values()) / workers
            say(self.console, f"left     {len(left)} runs, {about(seconds)} here; the same command continues with them")
        elif self.limits.most_seeds is not None and self.open_claims and not self.over:
            most = self.limits.most_seeds
            say(
                self.console,
                f"open     {self.open_claims} claims at {most} seeds; --max-seeds up to {LAST_LOOK} adds more",
            )
        if self.broken:
            listing = "\n".join(f"  {name}: {reason}" for name, reason in self.broken.items())
            count = len(self.selection.items)
            raise ReproductionFailed(f"{len(self.broken)} of {count} items are incomplete:\n{listing}")
