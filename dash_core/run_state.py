"""The state of a run on the disk: how far it is, and everything that the rest of it depends on.

The state is saved after each experiment and, during training, every so many seconds between two steps; training
continues while the file is written. A state saved between two experiments does not contain the next intervention, so
it is applied when the run continues. A state saved during training contains it, so it is not applied again. An
intervention is therefore never applied twice and never skipped.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch

from dash_core.checkpoint import STATE_FILE, CheckpointWriter, load_checkpoint, remove_checkpoint
from dash_core.cost import Cost
from dash_core.errors import RecordError
from dash_core.learner import Learner
from dash_core.parallel.costs import summed_costs
from dash_core.records import RECORDS_FILE, ChunkRecord, append_record, check_present, rewrite_records
from dash_core.result import remove_result
from dash_core.training import EpochReport, Moment

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watch:
    """Follows a run and says when its state is saved; none of it changes a result.

    after_epoch: called after each epoch. stop: called after each step; True saves the state and stops the run.
    seconds: between two saves during training. before_write: called before each write to the run's folder, also on the
    thread that writes states; an error of it prevents the write and ends the run. after_save: called on that thread
    with the state that is on disk; it may read its records and its moment, and no tensor.
    """

    after_epoch: Callable[[EpochReport], None] = lambda report: None
    stop: Callable[[], bool] = lambda: False
    seconds: float = 60.0
    before_write: Callable[[], None] = lambda: None
    after_save: Callable[[Mapping[str, Any]], None] = lambda state: None


NO_WATCH = Watch()


@dataclass(frozen=True)
class Earlier:
    """The state after the first chunks of the same run, from which a run over more chunks starts.

    file: a checkpoint. identity: what it must be of: the run over those chunks, their plan and the precision; the code
    may have changed since.
    """

    file: Path
    identity: Mapping[str, Any]

    def load(self) -> dict[str, Any]:
        """Return the state; RecordError unless it is the expected one."""
        state = load_checkpoint(self.file, keep_damaged=True)
        if state is None or any(state["identity"].get(key) != value for key, value in self.identity.items()):
            raise RecordError(f"{self.file} is not the state of the model that training continues from; bring it back")
        return state


@dataclass(frozen=True)
class Intervened:
    """An experiment that is ready to be trained.

    diagnostics: measured so far, by name. begun: where its training was interrupted; None: it has not begun.
    """

    diagnostics: Mapping[str, float]
    begun: Moment | None = None


@dataclass
class Reached:
    """How far a run is.

    records: of the experiments that are over. interrupted: the next experiment, if its training has begun. taken_from:
    the run that trained the first epochs of the interrupted experiment. rank_counts: numbers of ranks that have trained
    this run.
    """

    records: list[ChunkRecord] = field(default_factory=list)
    interrupted: Intervened | None = None
    taken_from: str | None = None
    rank_counts: set[int] = field(default_factory=set)


class RunState:
    """The state of one run, in the learner and in the files `state.ckpt` and `chunks.jsonl` of the run's folder.

    name: of the run, for messages. identity: run, data, code and precision that a saved state must have been made
    with. Every rank calls the same methods; rank 0 alone writes files. As a context manager it waits until a state that
    is being written is on the disk.
    """

    def __init__(self, name: str, folder: Path, identity: Mapping[str, Any], learner: Learner, watch: Watch) -> None:
        self.reached = Reached(rank_counts={learner.ranks.size})
        self._name = name
        self._folder = folder
        self._identity = identity
        self._learner = learner
        self._watch = watch
        self._file = folder / STATE_FILE
        self._writer = CheckpointWriter(self._file, watch.before_write, watch.after_save)
        self._saved_at = time.monotonic()

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)

    def wait(self) -> None:
        """Wait until the last state is on the disk; raise the error of writing it."""
        with self._learner.meter.aside("checkpoint", own_memory=False):
            self._writer.wait()

    def take_up(self, earlier: Earlier | None, find_beginning: Callable[[], Mapping[str, Any] | None]) -> None:
        """Continue the run. Without a usable state, start it from `earlier`, or from what `find_beginning` returns.

        find_beginning: returns a state of another run; None: the run starts with its first experiment. The other ranks
        take the state that rank 0 has left on the disk.
        """
        ranks = self._learner.ranks
        if ranks.first:
            with self._learner.alone():
                self._resume(earlier, find_beginning)
        ranks.wait()
        if not ranks.first:
            self._follow(earlier)
        interrupted = self.reached.interrupted
        moment = interrupted and interrupted.begun
        place = [len(self.reached.records)]
        place += [moment.epoch, moment.steps, len(moment.measured)] if moment else [-1, -1, -1]
        ranks.require_equal({"place": torch.tensor(place), **self._learner.model.state_dict()}, "state at the start")

    def save_during_training(self, diagnostics: Mapping[str, float], moment: Callable[[], Moment]) -> bool:
        """Save the state if it is time to, or if the run is to stop: every rank after the same step.

        Return whether the run is to stop; its state is then on the disk.
        """
        due = time.monotonic() - self._saved_at >= self._watch.seconds
        stop, due = self._learner.ranks.agree(self._watch.stop(), due)
        if not stop:
            self._writer.check()
            if not due:
                return False
        with self._learner.meter.aside("checkpoint", own_memory=False):
            self._save(diagnostics, moment())  # training continues while the file is written
            if stop:
                self._writer.wait()
        return stop

    def record(self, record: ChunkRecord) -> None:
        """Save the state with the record of the experiment that is over, then append the record to the run's file."""
        self.reached.records.append(record)
        try:
            with self._learner.meter.phase("checkpoint"), self:  # its cost is charged to the next experiment
                self._save({}, None)
            if self._learner.ranks.first:
                self._watch.before_write()
                append_record(self._folder, record)  # after the state: a record without its state would be lost
        except BaseException:
            self.reached.records.pop()
            raise
        self.reached.taken_from = self.reached.interrupted = None

    def remove(self) -> None:
        """Remove the saved state of a run that is complete."""
        remove_checkpoint(self._file)

    def _save(self, diagnostics: Mapping[str, float], moment: Moment | None) -> None:
        """Begin to write everything that the rest of the run depends on; moment: where the training is, if it began.

        The ranks call this together, for the costs are summed over them; rank 0 writes.
        """
        learner, reached = self._learner, self.reached
        meter = learner.meter.state_dict()
        costs = {name: Cost(**cost) for name, cost in meter["spent"].items()}
        meter["spent"] = {name: asdict(cost) for name, cost in summed_costs(costs, learner.ranks).items()}
        state = {
            "identity": self._identity,
            "learner": learner.state_dict(),
            "records": [record.to_json() for record in reached.records],
            "meter": meter,
            "diagnostics": diagnostics,
            "moment": moment and asdict(moment),
            "taken_from": moment and reached.taken_from,
        }
        if reached.rank_counts != {1}:
            state["rank_counts"] = sorted(reached.rank_counts)
        if learner.ranks.first:
            check_present(self._folder)  # a state without its records would be taken for an older run's
            self._writer.save(state)
        self._saved_at = time.monotonic()

    def _follow(self, earlier: Earlier | None) -> None:
        """Continue as rank 0 does, whose costs so far are not counted twice."""
        state = load_checkpoint(self._file, keep_damaged=True)
        if state is None or state.get("identity") != self._identity:
            if earlier is None:
                return
            state = earlier.load()
        self._load({**state, "meter": {**state["meter"], "spent": {}}})

    def _resume(self, earlier: Earlier | None, find_beginning: Callable[[], Mapping[str, Any] | None]) -> None:
        """Continue from the saved state, and make the records agree with it; without a usable one, start anew."""
        state = load_checkpoint(self._file)
        if not isinstance(state, dict) or state.get("identity") != self._identity:
            remove_result(self._folder)
            records = self._folder / RECORDS_FILE
            if state is not None or (records.exists() and records.stat().st_size):
                why = "it has no usable checkpoint" if state is None else "its checkpoint is of other data or code"
                logger.warning("run %s starts anew from its first experiment: %s", self._name, why)
            if earlier is None:
                rewrite_records(self._folder, [])
                self._begin(find_beginning())
                return
            state = earlier.load()
        try:
            self._load(state)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise RecordError(
                f"{self._file} does not contain the state of its run ({error!r}); "
                "remove the run's folder to run it again"
            ) from None
        rewrite_records(self._folder, self.reached.records)  # even if they agree: the last line may be torn
        logger.info("run %s continues with experiment %d", self._name, len(self.reached.records) + 1)

    def _begin(self, state: Mapping[str, Any] | None) -> None:
        """Begin with the state of another run, if there is one, and save it as the state of this run."""
        if state is None:
            return
        self._load(state)
        interrupted = self.reached.interrupted or Intervened({})
        with self:
            self._save(interrupted.diagnostics, interrupted.begun)
        rewrite_records(self._folder, self.reached.records)
        logger.info("run %s begins with experiment %d", self._name, len(self.reached.records) + 1)

    def _load(self, state: Mapping[str, Any]) -> None:
        self._learner.load_state_dict(state["learner"])
        self._learner.meter.load_state_dict(state["meter"])
        self.reached.records = [ChunkRecord.from_json(line) for line in state["records"]]
        if state["moment"]:
            self.reached.interrupted = Intervened(state["diagnostics"], Moment(**state["moment"]))
            self.reached.taken_from = state.get("taken_from")
        self.reached.rank_counts |= set(state.get("rank_counts", [1]))
