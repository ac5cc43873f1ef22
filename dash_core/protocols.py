"""Protocols: what each experiment of a run trains on, for how long, and before which one the intervention comes.

A protocol is the section `protocol` of params.yaml. It says how the training set is cut in chunks and, by arithmetic
alone, what experiment j is; learner, interventions, trainer and records are the same for all. `Protocol` itself
behaves as the standard one, and the others say where they differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Generator, Tensor

from dash_core.errors import ConfigError
from dash_core.section import Accuracy, Count, Section

OLD_AS_NEW = "cold"  # the intervention that keeps nothing of what was trained before


@dataclass(frozen=True)
class Experiment:
    """One experiment: it trains on chunks first..last, of which those up to `trained` were trained on before.

    number: j, counted from 1, as chunks are. intervene: whether the method's intervention comes before it.
    epochs: it takes exactly so many; until: the running train accuracy that ends it; None: as `training` says.
    """

    number: int
    first: int
    last: int
    trained: int
    intervene: bool
    epochs: int | None = None
    until: float | None = None

    @property
    def overrides(self) -> dict[str, Any]:
        """What the experiment sets in the section `training`."""
        if self.epochs is not None:
            return {"stop_accuracy": None, "max_epochs": self.epochs}
        return {} if self.until is None else {"stop_accuracy": self.until}


class Protocol(Section):
    """In which order data come and what is trained on them."""

    name: str
    tests_what_arrived: ClassVar[bool] = False  # test on the classes in chunks 1..last alone

    @property
    def division(self) -> list[Any]:
        """What decides, beside their number, how chunks are cut: protocols with the same share their chunk plans."""
        return []

    def check(self, chunks: int) -> None:
        """Raise ValueError unless the protocol can be followed with so many chunks."""

    def check_intervenes(self, experiments: int) -> None:
        """Raise ValueError unless there is an intervention in so many experiments, where the protocol spaces them."""

    def count(self, chunks: int) -> int:
        """Return how many experiments a run has."""
        return chunks

    def experiment(self, number: int, chunks: int, intervention: str) -> Experiment:
        """Return experiment `number` of a run in so many chunks by a method of the named intervention."""
        return Experiment(number, 1, number, number - 1, intervene=number > 1)

    def cut(self, labels: Tensor, chunks: int, random: Generator) -> Sequence[Tensor]:
        """Return the positions of each chunk among images with these labels (N,), disjoint and covering.

        Here equal parts of a permutation; the first N mod chunks get one image more.
        """
        return torch.randperm(len(labels), generator=random).tensor_split(chunks)


class Standard(Protocol):
    """Experiment j trains on chunks 1..j; the intervention comes before each but the first (Shin et al., section 5)."""

    name: Literal["standard"] = "standard"


class TwoPhase(Protocol):
    """Pre-training on a share of the data, then training on all of it (Shin et al., figures 2, 8 and 19).

    The intervention comes between the two. Experiment 1 takes `pretrain_epochs`, or ends at `pretrain_accuracy`;
    experiment 2 takes `epochs`, or ends by the rule of `training`.
    """

    name: Literal["two_phase"] = "two_phase"
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5  # of the training images, in chunk 1
    pretrain_epochs: Count | None = None
    pretrain_accuracy: Accuracy | None = None
    epochs: Count | None = None

    @model_validator(mode="after")
    def _one_end_of_pretraining(self) -> Self:
        if (self.pretrain_epochs is None) == (self.pretrain_accuracy is None):
            raise ValueError("two_phase needs either `pretrain_epochs` or `pretrain_accuracy`, and not both")
        return self

    @property
    def division(self) -> list[Any]:
        """The share that comes first."""
        return ["share", self.share]

    def check(self, chunks: int) -> None:
        """Raise ValueError unless there are two chunks."""
        if chunks != 2:
            raise ValueError(f"two_phase has two chunks, got chunks={chunks}: set chunks=2")

    def experiment(self, number: int, chunks: int, intervention: str) -> Experiment:
        """Return the pre-training, or what follows it."""
        if number == 1:
            epochs, until = self.pretrain_epochs, self.pretrain_accuracy
            return Experiment(1, 1, 1, 0, intervene=False, epochs=epochs, until=until)
        return Experiment(2, 1, 2, 1, intervene=True, epochs=self.epochs)

    def cut(self, labels: Tensor, chunks: int, random: Generator) -> Sequence[Tensor]:
        """Cut a permutation after round(share * N) images."""
        images = len(labels)
        first = round(self.share * images)
        if not 0 < first < images:
            raise ConfigError(f"protocol.share: {self.share} of {images} training images leaves a chunk without any")
        return torch.randperm(images, generator=random).tensor_split((first,))


class Discarding(Protocol):
    """Data are not kept: experiment j trains on chunk j alone (Shin et al., figures 20 and 21).

    The intervention comes after every `interval` experiments, none before an experiment later than
    `last_intervention`. It sees the current chunk alone as well. The method `cold` starts anew with each chunk.
    """

    name: Literal["discarding"] = "discarding"
    interval: Count = 15  # experiments
    last_intervention: Count = 40

    def check_intervenes(self, experiments: int) -> None:
        """Raise ValueError unless the interval ends before the last experiment, or the last intervention."""
        _check_interval(self.interval, min(experiments, self.last_intervention))

    def experiment(self, number: int, chunks: int, intervention: str) -> Experiment:
        """Return experiment `number`, on the chunk of the same number; `cold` starts anew before each."""
        if intervention == OLD_AS_NEW:
            due = number > 1
        else:
            due = 1 < number <= self.last_intervention and (number - 1) % self.interval == 0
        return Experiment(number, number, number, number - 1, intervene=due)


class Continuous(Protocol):
    """Each epoch brings a chunk; when all are there, `final_epochs` more follow on them (Shin et al., figure 22).

    An experiment is one epoch. The intervention comes after every `interval` of them as long as data arrive. The
    method `cold` is the reference that had all data from the beginning: every one of its epochs is on all chunks, and
    it is never restarted.
    """

    name: Literal["continuous"] = "continuous"
    interval: Count = 50  # epochs
    final_epochs: Count = 500

    def check_intervenes(self, experiments: int) -> None:
        """Raise ValueError unless the interval ends before the last epoch that brings data, which are the first."""
        _check_interval(self.interval, experiments)

    def count(self, chunks: int) -> int:
        """Return the number of epochs: one a chunk, then the final ones."""
        return chunks + self.final_epochs

    def experiment(self, number: int, chunks: int, intervention: str) -> Experiment:
        """Return epoch `number`."""
        if intervention == OLD_AS_NEW:
            return Experiment(number, 1, chunks, chunks if number > 1 else 0, intervene=False, epochs=1)
        due = 1 < number <= chunks and (number - 1) % self.interval == 0
        return Experiment(number, 1, min(number, chunks), min(number - 1, chunks), intervene=due, epochs=1)


class ClassIncremental(Protocol):
    """Each chunk brings some classes; data are kept (Shin et al., figure 23, where it is one class).

    classes_per_chunk: so many classes in each chunk; the last chunk has what remains. order: labels of the classes in
    the order in which they arrive; None: drawn from the run's seed. A class is that of the dataset, before
    `dataset.label_noise`. Tests are on the test images of the classes that have arrived.
    """

    later: ClassVar = frozenset(("classes_per_chunk", "order"))
    name: Literal["class_incremental"] = "class_incremental"
    tests_what_arrived: ClassVar = True
    classes_per_chunk: Count = 1
    order: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None

    @property
    def division(self) -> list[Any]:
        """By class."""
        given = [self.classes_per_chunk, self.order]
        return ["class"] if given == [1, None] else ["class", *given]

    def chunks_of(self, classes: int) -> int:
        """Return how many chunks so many classes make."""
        return -(-classes // self.classes_per_chunk)

    def cut(self, labels: Tensor, chunks: int, random: Generator) -> Sequence[Tensor]:
        """Return the images of each chunk's classes, permuted; ConfigError unless chunks and order fit the classes."""
        order = torch.randperm(len(labels), generator=random)
        present, images = labels.unique(return_counts=True)
        classes, needed = present.tolist(), self.chunks_of(len(present))
        if chunks != needed:
            per_chunk = "one class" if self.classes_per_chunk == 1 else f"{self.classes_per_chunk} classes"
            raise ConfigError(
                f"chunks: {chunks} does not fit the {len(classes)} classes among the training images, since "
                f"class_incremental has {per_chunk} in each chunk: set chunks={needed}"
            )
        by_class = dict(zip(classes, order[labels[order].argsort(stable=True)].split(images.tolist()), strict=True))
        if self.order is None:
            arriving = [classes[place] for place in torch.randperm(len(classes), generator=random).tolist()]
        elif sorted(self.order) == classes:
            arriving = self.order
        else:
            raise ConfigError(f"protocol.order: {self.order} must name each of the labels {classes} once")
        size = self.classes_per_chunk
        groups = (arriving[start : start + size] for start in range(0, len(arriving), size))
        return [torch.cat([by_class[label] for label in group]) for group in groups]


def _check_interval(interval: int, last: int) -> None:
    """Raise ValueError unless an intervention comes after `interval` experiments, of which `last` may have one."""
    if interval >= last:
        raise ValueError(
            f"no method would ever intervene: the first intervention comes after {interval} experiments, and none "
            f"after experiment {last}: set protocol.interval below {last}, or have more chunks"
        )


STANDARD = Standard()


def _standard_unless_named(content: Any) -> Any:
    return {"name": STANDARD.name, **content} if isinstance(content, dict) else content


ProtocolConfig = Annotated[
    Standard | TwoPhase | Discarding | Continuous | ClassIncremental,
    Field(discriminator="name"),
    BeforeValidator(_standard_unless_named),
]
