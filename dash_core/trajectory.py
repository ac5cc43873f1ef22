"""Trajectory: one run, experiment after experiment of its protocol, which can stop and continue at any step.

The run's folder contains `chunks.jsonl` (one record an experiment), `state.ckpt` (until the run is complete), and at
the end `weights.safetensors` and `result.json`. The result is written last: a run with a result is complete.

The run's state on the disk, from which it continues, is `dash_core.run_state`.
"""

import itertools
import math
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dash_core.beginnings import Course, State
from dash_core.config import RunConfig
from dash_core.cost import LIMITED, NO_LIMIT, Limit
from dash_core.data import ChunkPlan, Dataset
from dash_core.diagnostics import Subject, When, diagnose, diagnostics_named
from dash_core.errors import ConfigError, StopRequested, TrainingError
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
from dash_core.records import ChunkRecord, balanced_accuracy, check_present, milliseconds
from dash_core.result import kept_weights_file, write_result, write_weights
from dash_core.run_images import RunImages
from dash_core.run_state import NO_WATCH, Earlier, Intervened, RunState, Watch
from dash_core.training import EpochReport, Moment, Observers, TrainingOutcome, Validation, train_chunk


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
        self._limit = limit
        self._keep_weights = frozenset(keep_weights)
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
        self._begun = 0  # the last experiment that this object has begun; it begins none twice
        self._state = RunState(run.id, folder, self.identity, self.learner, watch)
        self._state.take_up(earlier, lambda: self._beginning(find_beginning))

    @property
    def records(self) -> list[ChunkRecord]:
        """The records of the experiments that are over."""
        return self._state.reached.records

    @property
    def rank_counts(self) -> set[int]:
        """Numbers of ranks that have trained this run."""
        return self._state.reached.rank_counts

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
        if self._state.reached.interrupted:
            return self._state.reached.interrupted
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
            if self._state.save_during_training(diagnostics, moment):
                raise StopRequested(
                    f"run {self.run.id} was asked to stop; the same command continues from its saved state"
                )

        observers = Observers(after_epoch, after_step)
        doing = f"training experiment {experiment} with {self.run.model.name} in batches of {config.batch_size}"
        remedy = "lower training.batch_size (another run, from its first chunk), or "
        meter = self.learner.meter
        with meter.phase("train"), self._memory_told(doing, remedy), self._state:
            validate = self._validation_of(experiment)
            try:
                outcome = train_chunk(self.learner, data, config, self.intervention, observers, begun, validate)
            except _LimitReached as reached:
                outcome = self._outcome_at(reached.moment)
            self._state.wait()
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
            taken_from=self._state.reached.taken_from,
            validation_accuracy=outcome.validation,
            picked_epoch=outcome.picked_epoch,
            process_seconds=process_seconds,
        )
        if ranks.first and experiment in self._keep_weights:
            # before the state that has the record: a kill between them loses neither
            write_weights(kept_weights_file(self.folder, experiment), self.run, self.learner.model.state_dict())
        self._state.record(record)
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
        self._state.remove()

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

    def _beginning(self, find: Callable[[Course], State | None]) -> State | None:
        """Return the state of another run to begin with, unless it is past an experiment whose weights are kept."""
        state = find(self.course)
        if state is None or any(experiment <= len(state["records"]) for experiment in self._keep_weights):
            return None
        return state


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
