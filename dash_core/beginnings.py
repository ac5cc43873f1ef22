"""Beginnings: the state of a run after some experiments, with which another run may begin and end with the same bits.

Two runs are equal until something that differs between them has acted. Until its first intervention, a run of any
method trains as a run of any other, unless the method also changes the loss or the steps. More experiments change
nothing in those already done. A higher limit of epochs changes nothing before the first experiment that ended at the
limit, and that experiment itself goes on where it ended.

A `Course` is what decides each experiment of a run. A `Beginning` describes a state that some run kept; the course says
how many experiments it saves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from dash_core.config import OptimizerConfig, RunConfig, TrainingConfig, digest_of
from dash_core.interventions.base import Intervention
from dash_core.records import ChunkRecord

ENDS = ("stop_accuracy", "max_epochs")  # of a training: they decide nothing but when it ends
State = dict[str, Any]


@dataclass(frozen=True)
class Ended:
    """How an experiment ended: its stop accuracy and limit of epochs, the epochs it took, whether it converged."""

    stop_accuracy: float | None
    max_epochs: int
    epochs: int
    converged: bool

    def ends_within(self, max_epochs: int) -> bool:
        """Tell whether it would have ended the same with this limit of epochs."""
        if self.converged and self.stop_accuracy is not None:
            return self.epochs <= max_epochs
        return self.max_epochs == max_epochs


@dataclass(frozen=True)
class Beginning:
    """A kept state, after the experiments 1..k of a run.

    source: id of the run that trained it. setting: digest of what decides all experiments alike. arrivals: data of each
    experiment. method: digest of the method, None if it has not acted yet. weights: None for a state that can be
    trained on; for a complete run, of which no more is kept, the SHA-256 of its weights.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    source: str
    setting: str
    arrivals: tuple[tuple[int, int, int, int, bool], ...]
    method: str | None
    ended: tuple[Ended, ...]
    weights: str | None = None

    def to_json(self) -> str:
        """Return the description as one line."""
        return TypeAdapter(Beginning).dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> "Beginning":
        """Return the beginning that a line describes; ValueError if it is none."""
        try:
            return TypeAdapter(Beginning).validate_json(text)
        except ValidationError as error:
            raise ValueError(str(error)) from None

    @property
    def key(self) -> str:
        """Digest of everything but the source: equal beginnings have equal states."""
        return digest_of({**asdict(self), "source": None})


@dataclass(frozen=True)
class Course:
    """What decides each experiment of a run.

    setting, method, arrivals: as in `Beginning`. ends: (stop accuracy, limit of epochs) of each experiment. raisable:
    whether that limit is the user's to raise. acts: the number of the first experiment that the method acts in.
    reenters: whether an experiment that ended may go on: no diagnostic and no method has acted at its end.
    extendable: whether the protocol has experiments after the last.
    """

    run: str
    setting: str
    method: str
    arrivals: tuple[tuple[int, int, int, int, bool], ...]
    ends: tuple[tuple[float | None, int], ...]
    raisable: tuple[bool, ...]
    acts: int
    reenters: bool
    extendable: bool

    @classmethod
    def of(
        cls,
        run: RunConfig,
        identity: Mapping[str, Any],
        optimizer: OptimizerConfig,
        training: TrainingConfig,
        intervention: Intervention,
    ) -> Self:
        """Return the course of a run. identity: its chunk plan and code; optimizer, training: resolved."""
        schedule = run.schedule
        trained = [training.model_copy(update=experiment.overrides) for experiment in schedule]
        fixed = {name: value for name, value in training.identity.items() if name not in ENDS}
        setting = {
            "data": [run.dataset.identity, run.chunks, run.protocol.tests_what_arrived],
            "trained": [run.model.identity, optimizer.identity, fixed, run.seed, run.diagnostics],
            "by": [identity["split"], identity["code"]],
        }
        own = [run.method.source] if run.method.source else []
        intervenes = (number for number, experiment in enumerate(schedule, start=1) if experiment.intervene)
        always = acts_while_training(intervention) or bool(run.diagnostics)  # a diagnostic may ask the method
        return cls(
            run=run.id,
            setting=digest_of(setting),
            method=digest_of([run.method.intervention, intervention.identity, *own]),
            arrivals=tuple((e.number, e.first, e.last, e.trained, e.intervene) for e in schedule),
            ends=tuple((config.stop_accuracy, config.max_epochs) for config in trained),
            raisable=tuple(experiment.epochs != 1 for experiment in schedule),
            acts=1 if always else next(intervenes, len(schedule) + 1),
            reenters=not run.diagnostics and not _acts_in(intervention, "after_chunk"),
            extendable=len(schedule) < run.protocol.count(run.chunks),
        )

    def beginning(self, records: Sequence[ChunkRecord], weights: str | None = None) -> Beginning:
        """Return the description of the state after the recorded experiments. weights: as in `Beginning`."""
        done = len(records)
        ended = zip(self.ends[:done], records, strict=True)
        return Beginning(
            source=self.run,
            setting=self.setting,
            arrivals=self.arrivals[:done],
            method=self.method if done >= self.acts else None,
            ended=tuple(Ended(*ends, record.epochs, record.converged) for ends, record in ended),
            weights=weights,
        )

    def keeps(self, records: Sequence[ChunkRecord]) -> bool:
        """Tell whether the state after the recorded experiments is worth keeping for other runs.

        It is if it is the last that all methods share, the first that a higher limit of epochs goes on from, or the
        last of a run that has not done all experiments of its protocol.
        """
        done = len(records)
        at_limit = [experiment for experiment in range(done) if self._ended_at_limit(experiment, records[experiment])]
        return done == self.acts - 1 or at_limit == [done - 1] or (done == len(self.ends) and self.extendable)

    def _ended_at_limit(self, experiment: int, record: ChunkRecord) -> bool:
        stop, _ = self.ends[experiment]
        return self.raisable[experiment] and (stop is None or not record.converged)

    def reach(self, beginning: Beginning) -> float:
        """Return how many experiments a beginning saves, 0 for none; k - 0.5 if it saves a part of experiment k."""
        done = len(beginning.ended)
        same = (
            beginning.setting == self.setting
            and beginning.arrivals == self.arrivals[:done]
            and beginning.method == (self.method if done >= self.acts else None)
            and all(ended.stop_accuracy == stop for ended, (stop, _) in zip(beginning.ended, self.ends, strict=False))
        )
        if not same or not done or (beginning.weights and done < len(self.ends)):
            return 0
        limits = [limit for _, limit in self.ends[:done]]
        equal = [ended.ends_within(limit) for ended, limit in zip(beginning.ended, limits, strict=True)]
        if all(equal):
            return done
        goes_on = self.reenters and not beginning.weights and limits[-1] > beginning.ended[-1].max_epochs
        return done - 0.5 if all(equal[:-1]) and goes_on else 0


def acts_while_training(intervention: Intervention) -> bool:
    """Tell whether a method does more than to change the learner before an experiment that it precedes."""
    hooks = [name for name in vars(Intervention) if not name.startswith(("_", "model_"))]
    return any(_acts_in(intervention, name) for name in hooks if name != "before_chunk")


def _acts_in(intervention: Intervention, hook: str) -> bool:
    return getattr(type(intervention), hook) is not getattr(Intervention, hook)


def begin_with(state: Mapping[str, Any], beginning: Beginning, reach: float) -> State:
    """Return a kept state as one to begin with: its records name their source, and their cost is paid again.

    If the reach ends within an experiment, its record is taken away, and it stands after its last epoch.
    """
    records = [ChunkRecord.from_json(line) for line in state["records"]]
    taken = [record.taken(beginning.source) for record in records[: int(reach)]]
    begun = {**state, "records": [record.to_json() for record in taken], "diagnostics": {}, "moment": None}
    if reach < len(records):
        begun |= _reentered(state, records[-1], beginning.source)
    return begun


def _reentered(state: Mapping[str, Any], record: ChunkRecord, source: str) -> State:
    """Return what differs in a state that stands at the end of the record's training, which goes on."""
    spent = {phase: asdict(cost) for phase, cost in record.cost.items() if phase not in ("evaluate", "orchestrate")}
    elapsed = sum(cost.seconds for phase, cost in record.cost.items() if phase != "evaluate")
    moment = {
        "epoch": record.epochs,
        "steps": record.steps,
        "measured": torch.empty((0, 3), dtype=torch.float64),
        "seconds": 0.0,
        "rates": [group["lr"] for group in state["learner"]["optimizer"]["param_groups"]],
        "generators": {},
    }
    return {
        "meter": {"spent": spent, "elapsed": elapsed, "known": state["meter"]["known"]},
        "diagnostics": dict(record.diagnostics),
        "moment": moment,
        "taken_from": record.taken_from or source,
    }


def of_complete_run(weights: Mapping[str, torch.Tensor], records: Sequence[ChunkRecord]) -> State:
    """Return the state of a complete run of which only weights and records are left: nothing is trained on from it."""
    return {
        "learner": {"model": dict(weights)},
        "records": [record.to_json() for record in records],
        "meter": {"spent": {}, "elapsed": 0.0, "known": {}},
    }
