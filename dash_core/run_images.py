"""The images of one run on its device: those that each experiment trains on, and those that test it."""

from dataclasses import replace

import torch

from dash_core.config import RunConfig
from dash_core.data import ChunkPlan, Dataset, ImageSet, check_plan, tested_images, training_labels
from dash_core.errors import ConfigError
from dash_core.loading import GrowingData, Normalisation, ResidentSet
from dash_core.memory import running_out_told
from dash_core.models import model_spec
from dash_core.seeding import generator


class RunImages:
    """The training and test images of a run, on the device or streamed to it, in the order of its chunk plan.

    resident: bytes of images of either set that the device may hold; a larger set is streamed. ConfigError if the plan
    is not one for this run and dataset.
    """

    def __init__(
        self, run: RunConfig, dataset: Dataset, plan: ChunkPlan, device: torch.device, resident: int | None = None
    ) -> None:
        if len(plan) != run.chunks or plan.seed != run.seed or plan.dataset_digest != dataset.train.digest:
            raise ConfigError(f"the chunk plan is not that of run {run.id}: other dataset, seed or number of chunks")
        check_plan(plan, run, dataset)
        self._schedule = run.schedule
        self._plan = plan
        normalise = input_normalisation(run.model.name, dataset.train, device)
        train = dataset.train.images, training_labels(dataset.train, run.dataset, run.seed)
        last = max(experiment.last for experiment in self._schedule)
        held_out: ChunkPlan | None = None
        if run.training.validation_share is not None:
            self._plan, held_out = hold_out(plan, run.training.validation_share)
            self._plan.check_trainable(self._schedule)
        self._held_out = held_out
        order = self._plan.up_to(last)
        test = dataset.test.images, dataset.test.labels
        tested, self._arrivals = tested_images(plan, run, dataset)
        with running_out_told("holding the images", device, "lower compare.resident_gib to stream them"):
            self._train = ResidentSet.of(*train, normalise, device, order=order, budget=resident)
            self._test = ResidentSet.of(*test, normalise, device, order=tested, budget=resident)
            if held_out:
                self._validation = ResidentSet.of(
                    *train, normalise, device, order=held_out.up_to(last), budget=resident
                )

    def training(self, experiment: int) -> GrowingData:
        """Return the data that an experiment trains on."""
        scheduled = self._schedule[experiment - 1]
        first, last, trained = scheduled.first, scheduled.last, scheduled.trained
        return GrowingData(self._train, self._plan, experiment, first=first, last=last, trained=trained)

    def validation(self, experiment: int) -> ResidentSet | None:
        """Return the validation images of an experiment, those held out of its chunks; None if there are none."""
        if self._held_out is None:
            return None
        scheduled = self._schedule[experiment - 1]
        start, end = (sum(map(len, self._held_out.chunks[:last])) for last in (scheduled.first - 1, scheduled.last))
        return ResidentSet(*self._validation.part(start, end), self._validation.normalise)

    def test(self, experiment: int) -> ResidentSet:
        """Return the test images of an experiment: all, or those of the classes so far if the protocol says so."""
        if self._arrivals is None:
            return self._test
        return self._test.head(int((self._arrivals <= self._schedule[experiment - 1].last).sum()))


def hold_out(plan: ChunkPlan, share: float) -> tuple[ChunkPlan, ChunkPlan]:
    """Return what is left of each chunk to train on, and what is held out of it as validation images.

    round(share · N) of a chunk's N images are held out, one at least and all but one at most, drawn from the plan's
    seed. ConfigError if a chunk has a single image.
    """
    trained, held_out = [], []
    for number, chunk in enumerate(plan.chunks, start=1):
        if len(chunk) < 2:
            raise ConfigError(f"training.validation_share: chunk {number} has a single image; set fewer chunks")
        count = min(max(round(share * len(chunk)), 1), len(chunk) - 1)
        draws = torch.randperm(len(chunk), generator=generator(plan.seed, "validation", number))
        trained.append(chunk[draws[count:].sort().values])
        held_out.append(chunk[draws[:count].sort().values])
    return replace(plan, chunks=tuple(trained)), replace(plan, chunks=tuple(held_out))


def input_normalisation(model: str, train: ImageSet, device: torch.device) -> Normalisation:
    """Return what turns images into a model's inputs: the training set's mean and std, or only scaling to [0, 1]."""
    return Normalisation.of(train, device) if model_spec(model).normalised else Normalisation.to_unit(device)
