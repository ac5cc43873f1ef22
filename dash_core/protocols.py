"""Protocols: the data of each experiment of a run, its length, and whether the intervention precedes it.

A protocol is the section `protocol` of params.yaml. It says how the training set is cut into chunks and computes
experiment j by arithmetic alone; learner, interventions, training and records are the same for all protocols.
`Protocol` itself behaves as the standard protocol, and the others override what differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Generator, Tensor

from dash_core.errors import ConfigError
from dash_core.section import Accuracy, Count, Section

KEEPS_NOTHING = "cold"  # the intervention after which nothing trained before is left


@dataclass(frozen=True)
class Experiment:
    """One experiment: it trains on chunks first..last; an earlier one trained on the chunks up to `trained`.

    number: j; experiments and chunks count from 1. intervene: whether the method's intervention precedes it.
    epochs: exact number of epochs. until: the running train accuracy that ends it. None: as `training` says.
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
        """The values that the experiment replaces in the section `training`."""
        if self.epochs is not None:
            return {"stop_accuracy": None, "max_epochs": self.epochs, "stop": "train_accuracy"}
        return {} if self.until is None else {"stop_accuracy": self.until, "stop": "train_accuracy"}


class Protocol(Section):
    """The order in which data arrive, and the experiments that train on them."""

    name: str
    tests_what_arrived: ClassVar[bool] = False  # test only on the classes in chunks 1..last

    @property
    def division(self) -> list[Any]:
        """Everything but the number of chunks that decides how they are cut; equal divisions share chunk plans."""
        return []

    def check(self, chunks: int) -> None:
        """Raise ValueError unless the protocol allows this number of chunks."""

    def check_intervenes(self, experiments: int) -> None:
        """Raise ValueError if the protocol has an interval between interventions too long for so many experiments."""

    def count(self, chunks: int) -> int:
        """Return the number of experiments of a run."""
        return chunks

    def experiment(self, number: int, chunks: int, intervention: str) -> Experiment:
        """Return experiment `number` of a run with so many chunks and the named intervention."""
        return Experiment(number, 1, number, number - 1, intervene=number > 1)

    def cut(self, labels: Tensor, chunks: int, random: Generator) -> Sequence[Tensor]:
        """Return the positions of each chunk among images with these labels (N,), disjoint and covering.

        Here: equal parts of a permutation, of which the first N mod `chunks` have one image more.
        """
        return torch.randperm(len(labels), generator=random).tensor_split(chunks)


class Standard(Protocol):
    """Experiment j trains on chunks 1..j; an intervention precedes each but the first (Shin et al., section 5)."""

    name: Literal["standard"] = "standard"


class TwoPhase(Protocol):
    """Pre-training on a share of the data, then training on all of it (Shin et al., figures 2, 8 and 19).

    The intervention comes between the two. Experiment 1 has `pretrain_epochs`, or ends at `pretrain_accuracy`.
    Experiment 2 has `epochs`, or ends by the rule of `training`.
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
        """The share of the images in chunk 1."""
        return ["share", self.share]

    def check(self, chunks: int) -> None:
        """Raise ValueError unless there are two chunks."""
        if chunks != 2:
            raise ValueError(f"two_phase has two chunks, got chunks={chunks}: set chunks=2")

    def experiment(self, number: int, chunks: int, intervention: str) -> Experiment:
        """Return the pre-training, or the experiment after it."""
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

    There is an intervention after every `interval` experiments, up to experiment `last_intervention`. It sees only the
    current chunk. The method `cold` starts anew with each chunk.
    """

    name: Literal["discarding"] = "discarding"
    interval: Count = 15  # experiments
    last_intervention: Count = 40

    def check_intervenes(self, experiments: int) -> None:
        """Raise ValueError unless the interval ends before the last experiment, or the last intervention."""
        _check_interval(self.interval, min(experiments, self.last_intervention))

    def experiment(self, number: int, chunks: int, intervention: str) -> Experiment:
        """Return experiment `number`, on the chunk of the same number; `cold` starts anew before each."""
        if intervention == KEEPS_NOTHING:
            due = number > 1
        else:
            due = 1 < number <= self.last_intervention and (number - 1) % self.interval == 0
        return Experiment(number, number, number, number - 1, intervene=due)


class Continuous(Protocol):
    """Each epoch brings a chunk; after the last chunk come `final_epochs` epochs on all data (Shin et al., figure 22).

    An experiment is one epoch. There is an intervention after every `interval` epochs while data arrive. The method
    `cold` is the reference with all data from the beginning: each of its epochs is on all chunks, and it is never
    restarted.
    """

    name: Literal["continuous"] = "continuous"
    interval: Count = 50  # epochs
    final_epochs: Count = 500

    def check_intervenes(self, experiments: int) -> None:
        """Raise ValueError unless the interval ends before the last epoch that brings data."""
        _check_interval(self.interval, experiments)

    def count(self, chunks: int) -> int:
        """Return the number of epochs: one a chunk, then the final epochs."""
        return chunks + self.final_epochs

    def experiment(self, number: int, chunks: int, intervention: str) -> Experiment:
        """Return epoch `number`."""
        if intervention == KEEPS_NOTHING:
            return Experiment(number, 1, chunks, chunks if number > 1 else 0, intervene=False, epochs=1)
        due = 1 < number <= chunks and (number - 1) % self.interval == 0
        return Experiment(number, 1, min(number, chunks), min(number - 1, chunks), intervene=due, epochs=1)


class ClassIncremental(Protocol):
    """Each chunk brings some classes; data are kept (Shin et al., figure 23, where it is one class).

    classes_per_chunk: number of classes in each chunk; the last chunk may have fewer. order: labels of the classes in
    the order in which they arrive; None: drawn from the run's seed. The class of an image is its class in the dataset,
    before `dataset.label_noise`. An experiment is tested on the test images of the classes so far.
    """

    later: ClassVar = frozenset(("classes_per_chunk", "order"))
    name: Literal["class_incremental"] = "class_incremental"
    tests_what_arrived: ClassVar = True
    classes_per_chunk: Count = 1
    order: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None

    @property
    def division(self) -> list[Any]:
        """By class, with the settings that differ from one class a chunk in the seed's order."""
        given = [self.classes_per_chunk, self.order]
        return ["class"] if given == [1, None] else ["class", *given]

    def chunks_of(self, classes: int) -> int:
        """Return the number of chunks for a number of classes."""
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
    """Raise ValueError unless the first intervention, after `interval` experiments, comes before experiment `last`."""
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
