"""Train one experiment to convergence: mini-batch steps until the running train accuracy is high enough."""

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dash_core.augmentation import Augmentation, draw_augmentation
from dash_core.config import TrainingConfig
from dash_core.errors import TrainingError
from dash_core.interventions import Intervention
from dash_core.learner import Learner
from dash_core.loading import GrowingData
from dash_core.loss import Loss
from dash_core.optim.sam import SAM
from dash_core.optim.schedules import learning_rate_factor, schedule_of
from dash_core.parallel import Division, Part, divide_step
from dash_core.precision import arithmetic
from dash_core.seeding import borrowed_global_generator, derive_seed, global_state, seed_global, set_global_state
from dash_core.shrinking import batch_bounds


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch. Accuracy and loss are means over its mini-batches, each measured before its update.

    train_loss is the plain cross-entropy, without class weights, label smoothing or a method's penalty, so that runs
    can be compared.
    """

    experiment: int
    epoch: int  # counted from 1
    steps: int  # of this experiment so far
    images: int  # of this epoch
    train_accuracy: float
    train_loss: float
    seconds: float


@dataclass(frozen=True)
class TrainingOutcome:
    """How an experiment's training ended: its optimiser updates, its epochs, and the train_* of its last epoch.

    validation: accuracy on the validation images after each epoch. picked_epoch: the epoch, from 1, whose weights were
    kept, and whose train_* these are; None: the last.
    """

    steps: int
    epochs: int
    converged: bool
    train_accuracy: float
    train_loss: float
    validation: tuple[float, ...] = ()
    picked_epoch: int | None = None


@dataclass
class Validation:
    """The validation accuracy after each epoch, and the best epoch: the first of those with the highest accuracy.

    best: its number from 1, its train_accuracy and train_loss, and the learner's state after it. None: not kept.
    """

    curve: list[float] = field(default_factory=list)
    best: dict[str, Any] | None = None

    @property
    def picked(self) -> int:
        """The number of the best epoch so far, from 1."""
        return 1 + self.curve.index(max(self.curve))

    def add(self, accuracy: float, report: EpochReport, learner: Learner, keep: bool) -> None:
        """Add the accuracy after an epoch; keep the learner's state if it is the best so far, and if asked to."""
        self.curve.append(accuracy)
        if keep and self.picked == len(self.curve):
            state = copy.deepcopy(learner.state_dict())
            self.best = {"train_accuracy": report.train_accuracy, "train_loss": report.train_loss, "state": state}


@dataclass(frozen=True)
class Moment:
    """A moment between two steps of a training. With the learner's state it decides the rest of the training.

    epoch, steps: finished epochs and their steps. measured: (accuracy, loss, loss with penalty) of each step of the
    current epoch, float64 (S, 3). seconds: spent on that epoch. rates: the optimiser's learning rates before any
    schedule. generators: states of the global generators, which dropout draws from. validation: what was measured.
    """

    epoch: int
    steps: int
    measured: Tensor
    seconds: float
    rates: list[float]
    generators: dict[str, Tensor]
    validation: dict[str, Any] = field(default_factory=dict)


AfterStep = Callable[[Callable[[], Moment]], None]


@dataclass(frozen=True)
class Observers:
    """Callbacks: after_epoch gets each epoch's report; after_step gets a function that returns the present moment."""

    after_epoch: Callable[[EpochReport], None] = lambda report: None
    after_step: AfterStep = lambda moment: None


NO_OBSERVERS = Observers()


def train_chunk(
    learner: Learner,
    data: GrowingData,
    config: TrainingConfig,
    intervention: Intervention,
    observers: Observers = NO_OBSERVERS,
    begun: Moment | None = None,
    validate: Callable[[], float] | None = None,
) -> TrainingOutcome:
    """Train until an epoch's running train accuracy is ≥ `stop_accuracy`, or for `max_epochs`.

    With `stop: validation` training ends instead when the validation accuracy has had no new maximum for `patience`
    epochs, and the learner goes back to its state after the epoch with the maximum, the first if there are several.
    config: resolved, so that its precision is not "auto", and its schedule, warm-up and augmentation are not None;
    a stop_accuracy of None means exactly `max_epochs`. begun: the moment at which this training was interrupted; with
    the learner's state of that moment, it continues as if it never stopped. validate: called after each epoch, returns
    the accuracy on validation images. The learner is left in train mode, and the global generators, which dropout draws
    from, as found. TrainingError if the loss is no longer finite.

    The ranks of the learner divide each batch, and call this together; all get the same reports and the same outcome,
    those of one process but for rounding, and for the images that dropout leaves out.
    """
    if config.stop == "validation" and validate is None:
        raise ValueError("stop: validation needs a function that measures the validation accuracy")
    learner.train_mode()
    validation = Validation(**begun.validation) if begun else Validation()
    rates = begun.rates if begun else [group["lr"] for group in learner.optimizer.param_groups]
    loss = learner.loss(data.labels)
    averaging = learner.averaging(lambda: _two_inputs(data))
    training = _ChunkTraining(
        learner, data, config, intervention, loss, validation, rates, observers.after_step, averaging
    )
    epoch, steps = (begun.epoch, begun.steps) if begun else (0, 0)
    report = None
    try:
        with borrowed_global_generator(learner.device):
            while report is None or not (report.epoch >= config.max_epochs or _converged(report, config, validation)):
                report = training.epoch(epoch, steps, begun)
                epoch, steps, begun = report.epoch, report.steps, None
                if validate:
                    validation.add(validate(), report, learner, keep=config.stop == "validation")
                observers.after_epoch(report)
            converged = _converged(report, config, validation)
            if validation.best:
                learner.load_state_dict(validation.best["state"])
    finally:
        training.set_rates(1.0)
    fit = validation.best or {"train_accuracy": report.train_accuracy, "train_loss": report.train_loss}
    return TrainingOutcome(
        report.steps,
        report.epoch,
        converged,
        fit["train_accuracy"],
        fit["train_loss"],
        tuple(validation.curve),
        validation.picked if validation.best else None,
    )


def _two_inputs(data: GrowingData) -> Tensor:
    images, _ = next(data.batches([torch.arange(2)]))
    return data.normalise(images)


def _converged(report: EpochReport, config: TrainingConfig, validation: Validation) -> bool:
    """Tell whether the rule that ends training is met or, without a rule, whether all epochs are done."""
    if config.stop == "validation":
        return len(validation.curve) - validation.picked >= config.patience
    if config.stop_accuracy is None:
        return report.epoch >= config.max_epochs
    return report.train_accuracy >= config.stop_accuracy


@dataclass(frozen=True)
class _ChunkTraining:
    """The training of one experiment. rates: the optimiser's learning rates before any schedule.

    averaging: the model whose backward pass leaves the mean gradient of all ranks.
    """

    learner: Learner
    data: GrowingData
    config: TrainingConfig
    intervention: Intervention
    loss: Loss
    validation: Validation
    rates: list[float]
    after_step: AfterStep
    averaging: Callable[[Tensor], Tensor]

    def epoch(self, epoch: int, steps_before: int, begun: Moment | None) -> EpochReport:
        """Do an epoch in a new order, or the rest of an interrupted one; wait for the device only at its end."""
        learner, data, config = self.learner, self.data, self.config
        started = time.perf_counter() - (begun.seconds if begun else 0.0)
        order, augment = self._draw(epoch)
        divisions = self._divisions()
        measured, before = self._measured(len(divisions), begun)
        batches = data.batches([order[division.rows] for division in divisions[before:]])
        schedule = schedule_of(config)
        for step, (images, labels) in enumerate(batches, start=before):
            division = divisions[step]
            self.set_rates(learning_rate_factor(schedule, config.warmup_epochs, epoch, step, len(divisions)))
            if augment:
                images = augment(images, division.rows)
            if learner.ranks.size > 1:
                self._seed_rank(epoch, step, division)
            with learner.meter.counted(("train", division.images)):
                measured[step] = self.step(data.normalise(images), labels, division.parts)
            self.intervention.after_step(learner)
            self.after_step(
                lambda done=step + 1: self._moment(epoch, steps_before, self._mean(measured[:done], before), started)
            )
        history = self._mean(measured, before).cpu()
        _check_finite(history[:, 2], data.experiment, epoch, self.rates)
        accuracy, loss, _ = history.mean(0).tolist()
        steps = steps_before + len(divisions)
        return EpochReport(data.experiment, epoch + 1, steps, len(data), accuracy, loss, time.perf_counter() - started)

    def _draw(self, epoch: int) -> tuple[Tensor, Augmentation | None]:
        """Return the epoch's order of images and its augmentation; seed the generators that dropout draws from."""
        learner, data = self.learner, self.data
        seed_global(learner.device, derive_seed(learner.seed, "dropout", data.experiment, epoch))
        order = torch.randperm(len(data), generator=learner.generator("batches", data.experiment, epoch)).to(
            learner.device
        )
        draws = learner.generator("augmentation", data.experiment, epoch)
        augment = draw_augmentation(self.config.augmentation, len(data), data.image_shape, draws)
        return order, augment and augment.to(learner.device)

    def _divisions(self) -> list[Division]:
        """Return what this rank does of each step of an epoch."""
        bounds, ranks = batch_bounds(len(self.data), self.config.batch_size), self.learner.ranks
        return [divide_step(*batch, self.config.micro_batch_size, ranks.rank, ranks.size) for batch in bounds]

    def _seed_rank(self, epoch: int, step: int, division: Division) -> None:
        """Seed the generators that dropout draws from: for other images otherwise than on the other ranks.

        They are seeded for each step, so that a saved state need not contain those of each rank.
        """
        learner = self.learner
        purpose = "dropout", self.data.experiment, epoch, step, learner.ranks.rank if division.divided else 0
        seed_global(learner.device, derive_seed(learner.seed, *purpose))

    def _mean(self, measured: Tensor, before: int) -> Tensor:
        """Return measurements (S, 3) over all ranks; those of the first `before` steps were saved so."""
        ranks = self.learner.ranks
        return measured if ranks.size == 1 else torch.cat([measured[:before], ranks.mean(measured[before:])])

    def _measured(self, steps: int, begun: Moment | None) -> tuple[Tensor, int]:
        """Return a tensor for the measurements of each step, and how many steps were done before an interruption."""
        measured = torch.empty((steps, 3), dtype=torch.float64, device=self.learner.device)
        if begun is None or not len(begun.measured):  # at the start of an epoch, for which the generators are seeded
            return measured, 0
        done = len(begun.measured)
        measured[:done] = begun.measured.to(self.learner.device)
        set_global_state(begun.generators, self.learner.device)
        return measured, done

    def _moment(self, epoch: int, steps: int, measured: Tensor, started: float) -> Moment:
        seconds, generators = time.perf_counter() - started, global_state(self.learner.device)
        return Moment(epoch, steps, measured.cpu(), seconds, self.rates, generators, vars(self.validation))

    def step(self, inputs: Tensor, labels: Tensor, parts: Sequence[Part]) -> Tensor:
        """Do one update; return (accuracy, cross-entropy, loss with penalty) before it, on the device.

        The update is the same on all ranks. Each measures its own images; the mean over ranks is that of the batch.
        """
        optimizer = self.learner.optimizer
        measured = self._gradient(inputs, labels, parts)
        if isinstance(optimizer, SAM):
            optimizer.ascend()
            self._gradient(inputs, labels, parts)
            self._clip()
            optimizer.descend()
        else:
            self._clip()
            optimizer.step()
            optimizer.zero_grad()
        return measured

    def _gradient(self, inputs: Tensor, labels: Tensor, parts: Sequence[Part]) -> Tensor:
        """Add the gradient of a batch, in parts of `micro_batch_size` if that is set; return what is measured, (3,)."""
        if len(parts) == 1:
            return self._forward_backward(inputs, labels, parts[0])
        measured = torch.zeros(3, dtype=torch.float64, device=self.learner.device)
        for part in parts:
            with self._kept_here(part is not parts[-1]):
                own = slice(part.start, part.end)
                measured += part.share * self._forward_backward(inputs[own], labels[own], part)
        return measured

    def _kept_here(self, kept: bool) -> AbstractContextManager:
        """Return a context in which gradients stay on their rank; the last part takes the mean of all parts."""
        return self.averaging.no_sync() if kept and self.learner.ranks.size > 1 else nullcontext()

    def _clip(self) -> None:
        """Scale the gradient of all parameters down to the norm `clip_norm` if it is longer."""
        if self.config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.learner.model.parameters(), self.config.clip_norm)

    def set_rates(self, factor: float) -> None:
        """Set the optimiser's learning rates to `factor` times those before any schedule."""
        for group, rate in zip(self.learner.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def _forward_backward(self, inputs: Tensor, labels: Tensor, part: Part) -> Tensor:
        """Add the part's share of the gradients of loss and penalty; the loss has the part's weight among the ranks.

        Return accuracy, cross-entropy, and loss with penalty, (3,).
        """
        learner, share, weight = self.learner, part.share, part.weight
        with learner.ranks.normalising(part.divided), arithmetic(self.config.precision, learner.device):
            outputs = self._model(len(labels))(inputs)
        outputs = outputs.float()
        loss = self.loss(outputs, labels)
        plain = loss if self.loss is functional.cross_entropy else functional.cross_entropy(outputs.detach(), labels)
        if weight != 1.0:
            loss, plain = loss * weight, plain * weight
        penalty = self.intervention.penalty(learner)
        penalised = loss if penalty is None else loss + penalty
        (penalised if share == 1.0 else penalised * share).backward()
        accuracy = (outputs.argmax(1) == labels).double().mean()  # float64: 9 of 10 right is ≥ 0.9
        if weight != 1.0:
            accuracy = accuracy * weight
        return torch.stack((accuracy, plain.detach().double(), penalised.detach().double()))

    def _model(self, images: int) -> Callable[[Tensor], Tensor]:
        """Return the model, or the compiled one if that is asked for, the batch is full and its FLOPs are known.

        The FLOP counter cannot look into compiled code, and each other batch size would be compiled separately.
        """
        if self.learner.ranks.size > 1:
            return self.averaging
        batch = self.config.batch_size
        full = min(self.config.micro_batch_size or batch, batch)
        compiled = self.config.compile and images == full and self.learner.meter.knows(("train", batch))
        return self.learner.compiled if compiled else self.learner.model


def _check_finite(losses: Tensor, experiment: int, epoch: int, rates: Sequence[float]) -> None:
    finite = losses.isfinite()
    if bool(finite.all()):
        return
    step = int((~finite).nonzero()[0])
    before = f", after {float(losses[step - 1]):.3g} one step before" if step else ""
    layers = "" if len(set(rates)) == 1 else " times optimizer.lr_multipliers"
    raise TrainingError(
        f"the loss is {float(losses[step])} at experiment {experiment}, epoch {epoch + 1}, step {step + 1}{before}: "
        f"most likely the learning rate is too high (optimizer.lr{layers} = {max(rates):g}); lower it, or lower "
        f"optimizer.rho or a method's strength where one is used. "
        f"Records of the experiments before are kept."
    )
