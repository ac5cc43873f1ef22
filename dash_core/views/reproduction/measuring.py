"""How fast a run's own training steps are on this device: a few seconds of training on made-up images."""

from dataclasses import dataclass

import torch

from dash_core.config import RunConfig
from dash_core.data import ChunkPlan, ImageSet, dataset_spec
from dash_core.interventions import build_intervention
from dash_core.learner import Learner
from dash_core.loading import GrowingData, ResidentSet
from dash_core.models import build_model, forward_flops, model_spec
from dash_core.optim import build_optimizer
from dash_core.precision import resolve_precision
from dash_core.recipes import resolve
from dash_core.run_images import input_normalisation
from dash_core.training import EpochReport, Observers, train_chunk
from dash_core.views.reproduction.expected import image_shape

SECONDS = 2.0  # of measured training, about; a single step may take longer
FIRST_IMAGES = 32  # of the first, short measurement, and the fewest of any
TINY_RATE = 1e-9  # learning rate: weights hardly change, so that the loss stays finite


@dataclass(frozen=True)
class Pace:
    """Training images per second of one process, with the precision of the steps ("exact" or "bf16")."""

    images_per_second: float
    precision: str


def step_of(run: RunConfig) -> tuple[object, ...]:
    """Return what the time of a run's training step depends on; runs for which it is equal have equal paces."""
    return run.model, image_shape(run), run.optimizer.name, run.training, dataset_spec(run.dataset.name).classes


def pace(run: RunConfig, device: torch.device) -> Pace:
    """Measure the run's training steps, with its model, optimiser, batch size, augmentation and precision.

    The device and its number of threads must have been prepared (`prepare_device`). A batch that would take longer than
    SECONDS is measured with fewer images. Compilation and a method's own passes and penalties are not measured.
    """
    optimizer, training = resolve(run.optimizer, run.training, run.dataset.name)
    shape, classes = image_shape(run), dataset_spec(run.dataset.name).classes or 10
    learner = Learner(
        build=lambda seed: build_model(run.model.name, shape, classes, seed=seed, **run.model.options),
        make_optimizer=lambda model: build_optimizer(model, optimizer.model_copy(update={"lr": TINY_RATE})),
        seed=0,
        device=device,
        head=model_spec(run.model.name).head,
    )
    precision = resolve_precision(training.precision, device, forward_flops(learner.model, shape))
    changes = {"precision": precision, "compile": False, "stop_accuracy": None, "max_epochs": 2}
    config = training.model_copy(update=changes)

    def seconds(images: int) -> float:
        """Return the seconds of a second epoch of so many images; the first one warms up and counts FLOPs."""
        reports: list[EpochReport] = []
        whole = config.model_copy(update={"batch_size": min(config.batch_size, images)})
        data = _made_up(run, shape, classes, images, device)
        train_chunk(learner, data, whole, build_intervention("warm", {}), Observers(reports.append))
        return reports[-1].seconds

    with learner.meter.phase("train"):
        short = seconds(FIRST_IMAGES)
        affordable = int(SECONDS / 2 / short * FIRST_IMAGES)  # the first epoch takes as long as the second
        batches = max(affordable // config.batch_size, 1)
        images = max(min(batches * config.batch_size, affordable), FIRST_IMAGES)
        return Pace(images / seconds(images), precision)


def _made_up(
    run: RunConfig, shape: tuple[int, int, int], classes: int, count: int, device: torch.device
) -> GrowingData:
    """Return random images and labels as the data of a first experiment."""
    channels, height, width = shape
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, height, width, channels), dtype=torch.uint8, generator=random)
    labels = torch.randint(classes, (count,), generator=random)
    names = tuple(map(str, range(classes)))
    made_up = ImageSet(images, labels, names, (0.5,) * channels, (0.25,) * channels)
    resident = ResidentSet.of(images, labels, input_normalisation(run.model.name, made_up, device), device)
    return GrowingData(resident, ChunkPlan("made up", "", 0, (torch.arange(count),)), 1)
