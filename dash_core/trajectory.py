"""Trajectory: one run, experiment after experiment of its protocol, as steps that can be resumed.

Its folder holds `chunks.jsonl` (a record a chunk), `state.ckpt` (while the run is under way), and at the end
`weights.safetensors` and `result.json`, which is written last: a run with a result is complete.

The state is saved at the end of each chunk and, while one is trained, every so many seconds between two steps; these
are written while training goes on. Before the first of them, an intervention is part of no saved state and is made
again from the state before it; after it, it is part of the learner's state and is not made again. So it is never
applied twice, and never skipped.
"""

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors

from dash_core.checkpoint import CheckpointWriter, load_checkpoint, remove_checkpoint
from dash_core.config import RunConfig
from dash_core.data import ChunkPlan, Dataset, ImageSet, check_plan, tested_images, training_labels
from dash_core.diagnostics import Subject, When, diagnose, diagnostics_named
from dash_core.errors import ConfigError, RecordError, StopRequested, TrainingError
from dash_core.evaluation import Evaluation, evaluate
from dash_core.files import naming, write_atomically
from dash_core.interventions import build_intervention
from dash_core.learner import Learner
from dash_core.loading import GrowingData, Normalisation, ResidentSet
from dash_core.memory import running_out_told
from dash_core.models import build_model, forward_flops, model_spec
from dash_core.optim import build_optimizer
from dash_core.precision import resolve_precision
from dash_core.recipes import resolve
from dash_core.records import FILE, ChunkRecord, append_record, milliseconds, read_records, rewrite_records
from dash_core.training import EpochReport, Moment, Observers, TrainingOutcome, train_chunk

logger = logging.getLogger(__name__)
WEIGHTS = "weights.safetensors"
RESULT = {"run", "digest", "split", "code", "precision", "weights_sha256"}  # of result.json; the rest are facts


@dataclass(frozen=True)
class Watch:
    """Who follows a run and when its state is saved; none of it changes a result.

    after_epoch: told each epoch. stop: asked after each step whether to save and stop. seconds: between two saves
    within a chunk.
    """

    after_epoch: Callable[[EpochReport], None] = lambda report: None
    stop: Callable[[], bool] = lambda: False
    seconds: float = 60.0


UNWATCHED = Watch()


class Trajectory:
    """The loop over one run's schedule: `intervene`, `train`, `evaluate`, `record` for each pending chunk, `finish`.

    The steps of a chunk are called in this order; `record` makes the chunk durable. A trajectory made again over the
    same folder goes on after the last recorded chunk, with the same results as if it had never stopped; `code`
    stands for the code that decides them, and a state that other code left is not taken up. `resident` is how many
    bytes of images the device may hold; a larger set is streamed to it, with the same results.
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
        watch: Watch = UNWATCHED,
        resident: int | None = None,
    ) -> None:
        if len(plan) != run.chunks or plan.seed != run.seed or plan.dataset_digest != dataset.train.digest:
            raise ConfigError(f"the chunk plan is not that of run {run.id}: other dataset, seed or number of chunks")
        check_plan(plan, run, dataset)
        self.run = run
        self._schedule = run.schedule
        self.folder = folder
        self.plan = plan
        self._classes = dataset.train.classes
        self._watch = watch
        self._checkpoint = folder / "state.ckpt"
        self._writer = CheckpointWriter(self._checkpoint)
        optimizer, training = resolve(run.optimizer, run.training, run.dataset.name)
        self.intervention = build_intervention(run.method.intervention, run.method.parameters)
        self._measures = diagnostics_named(run.diagnostics)
        name, normalisation, shape = run.model.name, run.model.normalisation, dataset.train.image_shape
        self.learner = Learner(
            build=lambda seed: build_model(name, shape, self._classes, seed=seed, normalisation=normalisation),
            make_optimizer=lambda model: build_optimizer(model, optimizer),
            seed=run.seed,
            device=device,
            head=model_spec(name).head,
        )
        flops = forward_flops(self.learner.model, shape)
        precision = resolve_precision(training.precision, device, flops)  # a state does not go on in another one
        self._training = training.model_copy(update={"precision": precision})
        self._identity = {"run": run.digest, "split": plan.digest, "code": code, "precision": precision}
        normalise = input_normalisation(run.model.name, dataset.train, device)
        train = dataset.train.images, training_labels(dataset.train, run.dataset, run.seed)
        order = plan.up_to(max(experiment.last for experiment in self._schedule))
        test = dataset.test.images, dataset.test.labels
        tested, self._arrivals = tested_images(plan, run, dataset)
        with running_out_told("holding the images", device, "lower compare.resident_gib, and they are streamed"):
            self._train = ResidentSet.of(*train, normalise, device, order=order, budget=resident)
            self._test = ResidentSet.of(*test, normalise, device, order=tested, budget=resident)
        self.records: list[ChunkRecord] = []
        self._diagnostics: dict[str, float] = {}
        self._begun: Moment | None = None  # where the training of the next chunk stopped
        self._saved = time.monotonic()
        self._outcome: TrainingOutcome | None = None
        self._evaluation: Evaluation | None = None
        self._resume()

    @property
    def pending(self) -> range:
        """The experiments still to be done, counted from 1."""
        return range(len(self.records) + 1, len(self._schedule) + 1)

    def intervene(self, experiment: int) -> None:
        """Apply the intervention where the protocol has one before this chunk, unless training had begun."""
        if self._begun is not None:
            return
        self._diagnostics = {}
        if self._schedule[experiment - 1].intervene:
            self._diagnose("before_intervention", experiment)
            with (
                self.learner.meter.phase("intervene"),
                self._memory_told(f"intervening before experiment {experiment}"),
            ):
                self._diagnostics |= self.intervention.before_chunk(self.learner, self._data(experiment))
        self._diagnose("before_training", experiment)

    def train(self, experiment: int) -> TrainingOutcome:
        """Train as long as the protocol has it, from where it stopped; StopRequested if it is to stop again."""
        data, config = (
            self._data(experiment),
            self._training.model_copy(update=self._schedule[experiment - 1].overrides),
        )
        begun, self._begun = self._begun, None
        observers = Observers(self._after_epoch, self._after_step)
        doing = f"training experiment {experiment} with {self.run.model.name} in batches of {config.batch_size}"
        remedy = "lower training.batch_size (another run, from its first chunk), or "
        meter = self.learner.meter
        with meter.phase("train"), self._memory_told(doing, remedy), self._writer:
            self._outcome = train_chunk(self.learner, data, config, self.intervention, observers, begun)
            with meter.aside("checkpoint", own_memory=False):
                self._writer.wait()
        self.intervention.after_chunk(self.learner, data)
        self._diagnose("after_training", experiment, self._outcome.epochs)
        return self._outcome

    def evaluate(self, experiment: int) -> Evaluation:
        """Measure test accuracy and loss, on the classes that have arrived where the protocol tests only those."""
        arrivals, last = self._arrivals, self._schedule[experiment - 1].last
        test = self._test if arrivals is None else self._test.head(int((arrivals <= last).sum()))
        with self.learner.meter.phase("evaluate"), self._memory_told(f"evaluating after experiment {experiment}"):
            self._evaluation = evaluate(self.learner, test, self._classes)
        if not math.isfinite(self._evaluation.loss):
            raise TrainingError(
                f"the test loss is {self._evaluation.loss} at experiment {experiment}: lower optimizer.lr"
            )
        return self._evaluation

    def record(self, experiment: int) -> ChunkRecord:
        """Put the chunk's record and the learner's state on disk."""
        if experiment != len(self.records) + 1 or self._outcome is None or self._evaluation is None:
            raise RuntimeError(
                f"experiment {experiment} cannot be recorded: it has not been trained and evaluated in its turn"
            )
        outcome, evaluation = self._outcome, self._evaluation
        record = ChunkRecord(
            experiment=experiment,
            images=len(self._data(experiment)),
            test_accuracy=evaluation.accuracy,
            test_loss=evaluation.loss,
            class_accuracy=evaluation.class_accuracy,
            train_accuracy=outcome.train_accuracy,
            train_loss=outcome.train_loss,
            steps=outcome.steps,
            epochs=outcome.epochs,
            converged=outcome.converged,
            cost=self.learner.meter.take(),
            diagnostics=self._diagnostics,
            finished_at=milliseconds(),
        )
        self.records.append(record)
        self._outcome, self._evaluation, self._diagnostics = None, None, {}
        with self.learner.meter.phase("checkpoint"), self._writer:  # its cost is part of the next chunk's
            self._save(None)
        # the checkpoint is the truth: no record is there before it
        append_record(self.folder, record)
        return record

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Write the final weights and, last, the result with the given facts; the resume state is removed."""
        if self.pending:
            raise RuntimeError(f"run {self.run.id} cannot finish: chunks {list(self.pending)} are still to be trained")
        state = {name: tensor.contiguous().cpu() for name, tensor in self.learner.model.state_dict().items()}
        weights = to_safetensors(state, {"run": self.run.id})
        write_atomically(self.folder / WEIGHTS, weights)
        identity = {**self._identity, "run": self.run.id, "digest": self.run.digest}
        result = {**identity, "weights_sha256": hashlib.sha256(weights).hexdigest(), **facts}
        write_atomically(self.folder / "result.json", (json.dumps(result, indent=2) + "\n").encode())
        remove_checkpoint(self._checkpoint)

    def _memory_told(self, doing: str, remedy: str = "") -> AbstractContextManager:
        remedy += "run fewer at once with compare.workers (the same run, from its last saved state)"
        return running_out_told(doing, self.learner.device, remedy)

    def _diagnose(self, when: When, experiment: int, epoch: int = 0) -> None:
        subject = Subject(self.learner, self._data(experiment), self.intervention, self._training.batch_size, epoch)
        with self._memory_told(f"measuring diagnostics at experiment {experiment}"):
            self._diagnostics |= diagnose(self._measures, when, subject)

    def _after_epoch(self, report: EpochReport) -> None:
        if self._measures:
            self._diagnose("after_epoch", report.experiment, report.epoch)
        self._watch.after_epoch(report)

    def _after_step(self, moment: Callable[[], Moment]) -> None:
        stop = self._watch.stop()
        if not stop:
            self._writer.check()
            if time.monotonic() - self._saved < self._watch.seconds:
                return
        with self.learner.meter.aside("checkpoint", own_memory=False):
            self._save(moment())  # written while training goes on
            if stop:
                self._writer.wait()
        if stop:
            raise StopRequested(f"run {self.run.id} was asked to stop; the same command goes on from there")

    def _save(self, moment: Moment | None) -> None:
        """Begin to put on disk all that the rest of the run depends on."""
        state = {
            "identity": self._identity,
            "learner": self.learner.state_dict(),
            "records": [record.to_json() for record in self.records],
            "meter": self.learner.meter.state_dict(),
            "diagnostics": self._diagnostics,
            "moment": moment and asdict(moment),
        }
        self._writer.save(state)
        self._saved = time.monotonic()

    def _data(self, experiment: int) -> GrowingData:
        scheduled = self._schedule[experiment - 1]
        first, last, trained = scheduled.first, scheduled.last, scheduled.trained
        return GrowingData(self._train, self.plan, experiment, first=first, last=last, trained=trained)

    def _resume(self) -> None:
        """Take up the state after the last recorded chunk; the checkpoint is the truth, the records follow it."""
        state = load_checkpoint(self._checkpoint)
        if not isinstance(state, dict) or state.get("identity") != self._identity:
            (self.folder / "result.json").unlink(missing_ok=True)
            if state is not None or ((self.folder / FILE).exists() and (self.folder / FILE).stat().st_size):
                why = "no usable checkpoint" if state is None else "a checkpoint of other data or code"
                logger.warning("run %s has records and %s: starting again", self.run.id, why)
            rewrite_records(self.folder, [])
            return
        try:
            self._take_up(state)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise RecordError(
                f"{self._checkpoint} does not hold the state of its run ({error!r}); "
                "remove the run's folder to run it again"
            ) from None
        rewrite_records(self.folder, self.records)  # also where they agree: nothing is appended to a torn line
        logger.info("run %s goes on with chunk %d", self.run.id, len(self.records) + 1)

    def _take_up(self, state: Mapping[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.learner.meter.load_state_dict(state["meter"])
        self._diagnostics = state["diagnostics"]
        self._begun = Moment(**state["moment"]) if state["moment"] else None
        self.records = [ChunkRecord.from_json(line) for line in state["records"]]


def input_normalisation(model: str, train: ImageSet, device: torch.device) -> Normalisation:
    """Return how a model takes its images: normalised by the training set's statistics, or only scaled to [0, 1]."""
    return Normalisation.of(train, device) if model_spec(model).normalised else Normalisation.to_unit(device)


def read_result(
    folder: Path, run: RunConfig, split: str | None = None, code: str | None = None
) -> dict[str, Any] | None:
    """Return a complete run's result, or None if the run is not complete.

    `split` is the digest of the chunk plan it must have been trained on, `code` that of the code it must have been
    trained by; None: any.
    """
    path = folder / "result.json"
    if not path.exists() or not (folder / WEIGHTS).exists():
        return None
    with naming(path):
        content = path.read_bytes()
    try:
        result = json.loads(content.decode())
        if not isinstance(result, dict) or not set(result) >= RESULT:
            raise ValueError(f"it needs {', '.join(sorted(RESULT))}")
        belongs = result["digest"] == run.digest and split in (None, result["split"]) and code in (None, result["code"])
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is damaged ({error}); remove the run's folder to run it again") from None
    return result if belongs and len(read_records(folder)) == run.experiment_count else None
