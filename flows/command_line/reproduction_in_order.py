"""The command `reproduce` with a budget, or until claims are decided: all runs in one order, then the pages."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

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
from dash_core.views.rules import LAST_LOOK
from flows.command_line.limits import Limits
from flows.command_line.output import say
from flows.command_line.reproduction import Selection, about, apart, raise_failures, reasons, show, show_findings
from flows.command_line.session import Session, check_data, services, standing_by
from flows.compare import Deadline
from flows.reproduce import NothingToShow, Ordered, reproduce_item, train_in_order
from tasks.reproduction import measured_runs
from tasks.store.datasets import open_dataset, open_plan, plan_path
from tasks.store.place import Crew, Place, place_of
from tasks.store.runs import is_complete

MORE_SIMULATIONS = 3  # seeds that a simulation gets at once


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
    runs failed, by id; broken: why items failed, by name. rate: FLOP/s of a worker.
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
    rate: float = 1.0
    _splits: dict[Path, str] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether the time has passed."""
        return self.deadline is not None and self.deadline.passed

    @property
    def items(self) -> list[Item]:
        """The items that can be trained."""
        return [item for item in self.selection.items if item.name not in self.broken]

    def check(self) -> None:
        """Check the data and the records of every item; the runs of an item that fails are not trained."""
        for item in self.selection.items:
            settings = dict(self.selection.settings[item.name])
            with self._apart(item):
                for params in () if item.simulated else settings.values():
                    check_data(params, self.place, self.console)
                runs = () if item.simulated else (run for params in settings.values() for run in params.runs())
                self.settings[item.name] = settings
                self.wanted[item.name] = {run.id: run for run in runs}
                self._left(item)  # reads the record of each run: a damaged one is told before any training
        device = choose_device(self._computing.compare.device)
        prepare_device(device, 1)
        self.rate = training_rate(device)

    @contextmanager
    def _apart(self, item: Item) -> Iterator[None]:
        """As `apart`; the runs of an item that fails are no longer wanted: their records may be unreadable."""
        with apart(item, self.broken, self.console):
            try:
                yield
            except DashError:
                self.wanted.pop(item.name, None)
                raise

    @property
    def _computing(self) -> Params:
        """Parameters whose section `compare` says on what all runs are trained."""
        return next((params for _, params in _trained(self.selection)), Params())

    def _is_complete(self, run: RunConfig) -> bool:
        """Tell whether a run is complete on the data that are here now."""
        path = plan_path(self.place.splits, run, run.seed, "")  # names the plan, whatever the images
        if path not in self._splits:
            self._splits[path] = open_plan(run, open_dataset(run.dataset, self.place), self.place).digest
        return is_complete(run, self.place, self._splits[path], self.place.given_code)

    def train(self, again: bool = False) -> None:
        """Train every wanted run that is not complete, those first that decide most claims for their time."""
        from flows.command_line.live import watched

        runs = {run_id: run for item in self.items for run_id, run in self.wanted[item.name].items()}
        pending = {run_id: run for run_id, run in runs.items() if again or not self._is_complete(run)}
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
        extended = self._open_claims()
        workers = Crew.of(self._computing, 2**20).workers
        count = math.ceil(workers / max(sum(len(needs) for _, needs in extended.values()), 1))
        added = False
        for item in self.items:
            for key in dict.fromkeys(key for key, _ in sorted(extended[item.name][1])):
                labels = [label for other, label in sorted(extended[item.name][1]) if other == key]
                added |= self._extend(item, key, labels, count)
        return added

    def _open_claims(self) -> dict[str, tuple[int, set[tuple[str, str]]]]:
        """Return `_open_needs` of each item, by name."""
        found = {}
        for item in self.items:
            with self._apart(item):
                found[item.name] = self._open_needs(item)
        return found

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
            with self._apart(item):
                if failures := self._publish(item):
                    self.broken[item.name] = reasons(failures)

    def _publish(self, item: Item) -> Mapping[str, str]:
        """Write an item's page, unless some method has no run yet; return why runs failed, by id."""
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
            return failures
        show(reproduced, self.place, self.console, time.perf_counter() - started)
        return reproduced.failures

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
            run_id: run for run_id, run in runs.items() if run_id not in self.failures and not self._is_complete(run)
        }

    def tell(self) -> None:
        """Say what is left; ReproductionFailed if items failed."""
        left = {run_id: run for item in self.selection.items for run_id, run in self._left(item).items()}
        if left:
            workers = Crew.of(self._computing, len(left)).workers
            seconds = sum(RUN_OVERHEAD + run_flops(run) / self.rate for run in left.values()) / workers
            same = "the same command without --again" if self.selection.again else "the same command"
            say(self.console, f"left     {len(left)} runs, {about(seconds)} here; {same} continues with them")
        elif self.limits.most_seeds is not None:
            self._tell_open(sum(count for count, _ in self._open_claims().values()), self.limits.most_seeds)
        raise_failures(self.broken, len(self.selection.items))

    def _tell_open(self, claims: int, most: int) -> None:
        """Say what decides the open claims."""
        if not claims:
            return
        if self.over:
            say(self.console, f"open     {claims} claims; the same command adds seeds for them")
        elif most < LAST_LOOK:
            say(self.console, f"open     {claims} claims at {most} seeds; --max-seeds up to {LAST_LOOK} adds more")
        else:
            say(self.console, f"open     {claims} claims at {most} seeds, the most that the rule is made for")
