"""Trajectory: one run, experiment after experiment of its protocol, which can stop and continue at any step.

The run's folder contains `chunks.jsonl` (one record an experiment), `state.ckpt` (until the run is complete), and at
the end `weights.safetensors` and `result.json`. The result is written last: a run with a result is complete.

The state is saved after each experiment and, during training, every so many seconds between two steps; training
continues while the file is written. A state saved between two experiments does not contain the next intervention, so
it is applied when the run continues. A state saved during training contains it, so it is not applied again. An
intervention is therefore never applied twice and never skipped.
"""

import itertools
import logging
import math
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dash_core.beginnings import Course, State
from dash_core.checkpoint import CheckpointWriter, load_checkpoint, remove_checkpoint
from dash_core.config import RunConfig
from dash_core.cost import LIMITED, NO_LIMIT, Cost, Limit
from dash_core.data import ChunkPlan, Dataset
from dash_core.diagnostics import Subject, When, diagnose, diagnostics_named
from dash_core.errors import ConfigError, RecordError, StopRequested, TrainingError
from dash_core.evaluation import Evaluation, evaluate
from dash_core.interventions import build_intervention
from dash_core.learner import Learner
from dash_core.loss import training_loss
from dash_core.memory import running_out_told
from dash_core.models import forward_flops
from dash_core.models.pretrained import InitialModel
from dash_core.optim import build_optimizer
from dash_core.parallel import ALONE, Ranks
from dash_core.parallel.costs import summed_costs
from dash_core.parallel.limits import check_divisible
from dash_core.parts import DATASETS, LOSSES, METHODS, MODELS, PLANS, check_source
from dash_core.precision import resolve_precision
from dash_core.recipes import resolve_run
from dash_core.records import (
    RECORDS_FILE,
    ChunkRecord,
    append_record,
    balanced_accuracy,
    check_present,
    milliseconds,
    rewrite_records,
)
from dash_core.result import kept_weights_file, remove_result, write_result, write_weights
from dash_core.run_images import RunImages
from dash_core.training import EpochReport, Moment, Observers, TrainingOutcome, Validation, train_chunk

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


@dataclass(frozen=True)
class Trained:
    """An experiment after its training: how the training ended, and all diagnostics by name."""

    outcome: TrainingOutcome
    diagnostics: Mapping[str, float]


class Trajectory:
    """The loop over one run: call `advance` while experiments are `pending`, then `finish`.

    A new trajectory over the folder of an interrupted run continues that run, with the results of a run that never
    stopped. code: digest of the code that decides results; a state that other code saved is not used. resident: bytes
    of images that the device may hold; a larger set is streamed to it, with the same results. Without a usable state in
    the folder, the run starts with its first experiment, or, if `earlier` is given, there, or else with the state of
    another run that `find_beginning` returns (`dash_core.beginnings`), which gives the same results. limit: ends the
    training of an experiment at the step that reaches it; the experiment is then recorded as not converged.
    keep_weights: experiments whose weights are kept in the folder; the run trains them itself. bf16: whether the
    precision "auto" may be bf16; None: if the device has it.

    ranks: the processes that train the run together. Each makes the same trajectory and calls the same methods; rank 0
    alone writes files, measures diagnostics and reads the clock, and another number of ranks may continue the run.
    """

    def __init__(
        self,
        run: RunConfig,
        dataset: Dataset,
        plan: ChunkPlan,
        folder: Path,
        *,
        device: torch.device,
        code: str = "",
        watch: Watch = NO_WATCH,
        resident: int | None = None,
        find_beginning: Callable[[Course], State | None] = lambda course: None,
        earlier: Earlier | None = None,
        limit: Limit = NO_LIMIT,
        keep_weights: Collection[int] = (),
        ranks: Ranks = ALONE,
        bf16: bool | None = None,
    ) -> None:
        check_divisible(run, ranks.size)
        if ranks.size > 1 and limit != NO_LIMIT:
            raise ConfigError("a limit is measured by one process: train the run without other ranks, or without it")
        self.images = RunImages(run, dataset, plan, device, resident)
        self.run = run
        self._schedule = run.schedule
        self.folder = folder
        self.plan = plan
        self._classes = dataset.train.classes
        self._watch = watch
        self._earlier = earlier
        self._limit = limit
        self._keep_weights = frozenset(keep_weights)
        self._checkpoint = folder / "state.ckpt"
        self._writer = CheckpointWriter(self._checkpoint, watch.before_write, watch.after_save)
        optimizer, training = resolve_run(run)
        self.intervention = build_intervention(run.method.intervention, run.method.parameters)
        self._measures = diagnostics_named(run.diagnostics)
        shape = dataset.train.image_shape
        initial = InitialModel(run.model, shape, self._classes)
        self.learner = Learner(
            build=initial,
            make_optimizer=lambda model: build_optimizer(model, optimizer),
            seed=run.seed,
            device=device,
            head=initial.head,
            loss=partial(training_loss, training),
            frozen=run.model.frozen,
            ranks=ranks,
        )
        _check_sources(run)
        flops = forward_flops(self.learner.model, shape)
        precision = resolve_precision(training.precision, device, flops, bf16)  # of the identity: a run keeps to it
        self._training = training.model_copy(update={"precision": precision})
        self.identity = {"run": run.digest, "split": plan.digest, "code": code, "precision": precision}
        self.course = Course.of(run, self.identity, optimizer, self._training, self.intervention)
        self._find_beginning = find_beginning
        self.records: list[ChunkRecord] = []
        self._taken_from: str | None = None  # the run that trained the first epochs of the interrupted experiment
        self._interrupted: dict[int, Intervened] = {}  # the experiment, if any, whose training a saved state is in
        self._begun = 0  # the last experiment that this object has begun; it begins none twice
        self._saved_at = time.monotonic()
        self.rank_counts = {ranks.size}  # numbers of ranks that have trained this run
        self._take_up()

    @property
    def pending(self) -> range:
        """The experiments without a record, in order; they count from 1."""
        return range(len(self.records) + 1, len(self._schedule) + 1)

    def advance(self, steps: "Steps | None" = None) -> ChunkRecord:
        """Do the next pending experiment and return its record; StopRequested if the watch stops the run.

        steps: functions to call in place of this object's own `intervene`, `train`, `evaluate` and `record`.
        """
        if not self.pending:
            raise RuntimeError(f"run {self.run.id} has no pending experiment: all {len(self.records)} are recorded")
        steps, experiment = steps or Steps(), self.pending[0]
        intervened = steps.intervene(self, experiment)
        trained = steps.train(self, experiment, intervened)
        evaluation = steps.evaluate(self, experiment)
        return steps.record(self, experiment, trained, evaluation)

    def intervene(self, experiment: int) -> Intervened:
        """Apply the intervention if the protocol has one here; nothing if the training was interrupted after it."""
        if experiment == self._begun:
            raise RuntimeError(
                f"experiment {experiment} was interrupted, and its weights are half-trained: make a new Trajectory "
                f"over {self.folder}, which continues from the last saved state"
            )
        self._begun = experiment
        if experiment in self._interrupted:
            return self._interrupted[experiment]
        diagnostics: dict[str, float] = {}
        if self._schedule[experiment - 1].intervene:
            diagnostics |= self._diagnose("before_intervention", experiment)
            with (
                self.learner.meter.phase("intervene"),
                self._memory_told(f"intervening before experiment {experiment}"),
            ):
                diagnostics |= self.intervention.before_chunk(self.learner, self.images.training(experiment))
        return Intervened(diagnostics | self._diagnose("before_training", experiment))

    def train(self, experiment: int, intervened: Intervened) -> Trained:
        """Train as long as the protocol says, from where it was interrupted; StopRequested if the watch stops it."""
        data = self.images.training(experiment)
        config = self._training.model_copy(update=self._schedule[experiment - 1].overrides)
        diagnostics = dict(intervened.diagnostics)

        def after_epoch(report: EpochReport) -> None:
            if self._measures:
                diagnostics.update(self._diagnose("after_epoch", experiment, report.epoch))
            self._watch.after_epoch(report)

        begun = intervened.begun
        steps = itertools.count(1 + (begun.steps + len(begun.measured) if begun else 0))

        def after_step(moment: Callable[[], Moment]) -> None:
            if self._is_over(next(steps)):  # before the state is saved: one saved here would train another step
                raise _LimitReached(moment())
            self._after_step(moment, diagnostics)

        observers = Observers(after_epoch, after_step)
        doing = f"training experiment {experiment} with {self.run.model.name} in batches of {config.batch_size}"
        remedy = "lower training.batch_size (another run, from its first chunk), or "
        meter = self.learner.meter
        with meter.phase("train"), self._memory_told(doing, remedy), self._writer:
            validate = self._validation_of(experiment)
            try:
                outcome = train_chunk(self.learner, data, config, self.intervention, observers, begun, validate)
            except _LimitReached as reached:
                outcome = self._outcome_at(reached.moment)
            with meter.aside("checkpoint", own_memory=False):
                self._writer.wait()
        self.intervention.after_chunk(self.learner, data)
        return Trained(outcome, diagnostics | self._diagnose("after_training", experiment, outcome.epochs))

    def _is_over(self, steps: int) -> bool:
        """Tell whether the limit is reached after so many steps of the present experiment."""
        if self._limit == NO_LIMIT:
            return False
        seconds, flops = self.learner.meter.so_far(*LIMITED)
        return self._limit.reached(steps, flops, seconds) is not None

    def _outcome_at(self, moment: Moment) -> TrainingOutcome:
        """Return the outcome of a training that ended within an epoch; its best weights are kept if it picks any."""
        validation = Validation(**moment.validation)
        if validation.best:
            self.learner.load_state_dict(validation.best["state"])
        accuracy, loss, _ = moment.measured.mean(0).tolist()
        fit = validation.best or {"train_accuracy": accuracy, "train_loss": loss}
        return TrainingOutcome(
            steps=moment.steps + len(moment.measured),
            epochs=moment.epoch + 1,
            converged=False,
            train_accuracy=fit["train_accuracy"],
            train_loss=fit["train_loss"],
            validation=tuple(validation.curve),
            picked_epoch=validation.picked if validation.best else None,
        )

    def _validation_of(self, experiment: int) -> Callable[[], float] | None:
        """Return a function that measures the accuracy on the experiment's validation images; None without any."""
        images = self.images.validation(experiment)
        if images is None:
            return None

        def validate() -> float:
            with self.learner.meter.aside("evaluate", own_memory=False):
                return evaluate(self.learner, images, self._classes).accuracy

        return validate

    def evaluate(self, experiment: int) -> Evaluation:
        """Measure test accuracy and loss; only on the classes seen so far if the protocol says so."""
        with self.learner.meter.phase("evaluate"), self._memory_told(f"evaluating after experiment {experiment}"):
            evaluation = evaluate(self.learner, self.images.test(experiment), self._classes)
        if not math.isfinite(evaluation.loss):
            raise TrainingError(f"the test loss is {evaluation.loss} at experiment {experiment}: lower optimizer.lr")
        return evaluation

    def record(self, experiment: int, trained: Trained, evaluation: Evaluation) -> ChunkRecord:
        """Save the learner's state, then append the experiment's record to the run's file; return the record."""
        if experiment != len(self.records) + 1:
            raise RuntimeError(f"experiment {experiment} cannot be recorded: {len(self.records)} are recorded so far")
        outcome, ranks = trained.outcome, self.learner.ranks
        ranks.require_equal(self.learner.model.state_dict(), "weights")
        process_seconds = self.learner.meter.process_seconds()
        record = ChunkRecord(
            experiment=experiment,
            images=len(self.images.training(experiment)),
            test_accuracy=evaluation.accuracy,
            test_loss=evaluation.loss,
            class_accuracy=evaluation.class_accuracy,
            train_accuracy=outcome.train_accuracy,
            train_loss=outcome.train_loss,
            steps=outcome.steps,
            epochs=outcome.epochs,
            converged=outcome.converged,
            cost=summed_costs(self.learner.meter.take(), ranks),
            diagnostics=trained.diagnostics,
            finished_at=milliseconds(),
            evaluation_batch=evaluation.batch,
            balanced_accuracy=balanced_accuracy(evaluation.class_accuracy),
            taken_from=self._taken_from,
            validation_accuracy=outcome.validation,
            picked_epoch=outcome.picked_epoch,
            process_seconds=process_seconds,
        )
        if ranks.first and experiment in self._keep_weights:
            # before the state that has the record: a kill between them loses neither
            write_weights(kept_weights_file(self.folder, experiment), self.run, self.learner.model.state_dict())
        self.records.append(record)
        try:
            with self.learner.meter.phase("checkpoint"), self._writer:  # its cost is charged to the next experiment
                self._save({}, None)
            if ranks.first:
                self._watch.before_write()
                append_record(self.folder, record)  # after the checkpoint: a record without its state would be lost
        except BaseException:
            self.records.pop()
            raise
        self._taken_from = None
        return record

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Write the final weights and the result with the given facts, then remove the checkpoint.

        RecordError if the records were removed: no run is complete without them.
        """
        if self.pending:
            missing = ", ".join(map(str, self.pending))
            raise RuntimeError(f"run {self.run.id} cannot finish: experiments {missing} are not recorded")
        if not self.learner.ranks.first:
            return
        check_present(self.folder)
        self._watch.before_write()
        write_result(self.folder, self.run, self.identity, self.learner.model.state_dict(), facts)
        remove_checkpoint(self._checkpoint)

    def _memory_told(self, doing: str, remedy: str = "") -> AbstractContextManager:
        remedy += "run fewer at once with compare.workers (the same run, from its last saved state)"
        return running_out_told(doing, self.learner.device, remedy)

    def _diagnose(self, when: When, experiment: int, epoch: int = 0) -> dict[str, float]:
        if not self._measures or not self.learner.ranks.first:
            return {}
        subject = Subject(
            self.learner, self.images.training(experiment), self.intervention, self._training.batch_size, epoch
        )
        with self.learner.alone(), self._memory_told(f"measuring diagnostics at experiment {experiment}"):
            return diagnose(self._measures, when, subject)

    def _after_step(self, moment: Callable[[], Moment], diagnostics: Mapping[str, float]) -> None:
        """Save the state if it is time to, or if the run is to stop: every rank after the same step."""
        due = time.monotonic() - self._saved_at >= self._watch.seconds
        stop, due = self.learner.ranks.agree(self._watch.stop(), due)
        if not stop:
            self._writer.check()
            if not due:
                return
        with self.learner.meter.aside("checkpoint", own_memory=False):
            self._save(diagnostics, moment())  # training continues while the file is written
            if stop:
                self._writer.wait()
        if stop:
            raise StopRequested(f"run {self.run.id} was asked to stop; the same command continues from its saved state")

    def _save(self, diagnostics: Mapping[str, float], moment: Moment | None) -> None:
        """Begin to write everything that the rest of the run depends on; moment: where the training is, if it began.

        The ranks call this together, for the costs are summed over them; rank 0 writes.
        """
        meter = self.learner.meter.state_dict()
        costs = {name: Cost(**cost) for name, cost in meter["spent"].items()}
        meter["spent"] = {name: asdict(cost) for name, cost in summed_costs(costs, self.learner.ranks).items()}
        state = {
            "identity": self.identity,
            "learner": self.learner.state_dict(),
            "records": [record.to_json() for record in self.records],
            "meter": meter,
            "diagnostics": diagnostics,
            "moment": moment and asdict(moment),
            "taken_from": moment and self._taken_from,
        }
        if self.rank_counts != {1}:
            state["rank_counts"] = sorted(self.rank_counts)
        if self.learner.ranks.first:
            check_present(self.folder)  # a state without its records would be taken for an older run's
            self._writer.save(state)
        self._saved_at = time.monotonic()

    def _take_up(self) -> None:
        """Continue the run, or start it. The other ranks take the state that rank 0 has left on the disk."""
        ranks = self.learner.ranks
        if ranks.first:
            with self.learner.alone():
                self._resume()
        ranks.wait()
        if not ranks.first:
            self._follow()
        moment = next((begun.begun for begun in self._interrupted.values()), None)
        place = [len(self.records), *((moment.epoch, moment.steps, len(moment.measured)) if moment else ())]
        state = {"place": torch.tensor([*place, *[-1] * (4 - len(place))]), **self.learner.model.state_dict()}
        ranks.require_equal(state, "state at the start")

    def _follow(self) -> None:
        """Continue as rank 0 does, whose costs so far are not counted twice."""
        state = load_checkpoint(self._checkpoint, keep_damaged=True)
        if state is None or state.get("identity") != self.identity:
            if self._earlier is None:
                return
            state = self._earlier.load()
        self._load({**state, "meter": {**state["meter"], "spent": {}}})

    def _resume(self) -> None:
        """Continue from the checkpoint, and make the records agree with it; without a usable one, start anew."""
        state = load_checkpoint(self._checkpoint)
        if not isinstance(state, dict) or state.get("identity") != self.identity:
            remove_result(self.folder)
            records = self.folder / RECORDS_FILE
            if state is not None or (records.exists() and records.stat().st_size):
                why = "it has no usable checkpoint" if state is None else "its checkpoint is of other data or code"
                logger.warning("run %s starts anew from its first experiment: %s", self.run.id, why)
            if self._earlier is None:
                rewrite_records(self.folder, [])
                self._begin()
                return
            state = self._earlier.load()
        try:
            self._load(state)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise RecordError(
                f"{self._checkpoint} does not contain the state of its run ({error!r}); "
                "remove the run's folder to run it again"
            ) from None
        rewrite_records(self.folder, self.records)  # even if they agree: the last line may be torn
        logger.info("run %s continues with experiment %d", self.run.id, len(self.records) + 1)

    def _begin(self) -> None:
        """Begin with the state of another run, if there is one, and save it as the state of this run."""
        state = self._find_beginning(self.course)
        if state is None or any(experiment <= len(state["records"]) for experiment in self._keep_weights):
            return
        self._load(state)
        interrupted = next(iter(self._interrupted.values()), Intervened({}))
        with self._writer:
            self._save(interrupted.diagnostics, interrupted.begun)
        rewrite_records(self.folder, self.records)
        logger.info("run %s begins with experiment %d", self.run.id, len(self.records) + 1)

    def _load(self, state: Mapping[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.learner.meter.load_state_dict(state["meter"])
        self.records = [ChunkRecord.from_json(line) for line in state["records"]]
        if state["moment"]:
            interrupted = Intervened(state["diagnostics"], Moment(**state["moment"]))
            self._interrupted = {len(self.records) + 1: interrupted}
            self._taken_from = state.get("taken_from")
        self.rank_counts |= set(state.get("rank_counts", [1]))


class _LimitReached(Exception):
    """The training has reached its limit at a moment; nothing is wrong."""

    def __init__(self, moment: Moment) -> None:
        super().__init__()
        self.moment = moment


def _check_sources(run: RunConfig) -> None:
    """Raise ConfigError unless this process imported the run's own parts from the source that the run is named by."""
    check_source(MODELS, run.model.name, run.model.source)
    check_source(DATASETS, run.dataset.name, run.dataset.source)
    check_source(PLANS, run.dataset.plan or "", run.dataset.plan_source)
    check_source(METHODS, run.method.intervention, run.method.source)
    check_source(LOSSES, run.training.loss, run.training.loss_source)


@dataclass(frozen=True)
class Steps:
    """The four steps of an experiment, as `Trajectory.advance` calls them: by default the trajectory's own methods."""

    intervene: Callable[[Trajectory, int], Intervened] = Trajectory.intervene
    train: Callable[[Trajectory, int, Intervened], Trained] = Trajectory.train
    evaluate: Callable[[Trajectory, int], Evaluation] = Trajectory.evaluate
    record: Callable[[Trajectory, int, Trained, Evaluation], ChunkRecord] = Trajectory.record
