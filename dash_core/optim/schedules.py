"""Learning-rate schedules: pure functions of epoch and step; each experiment starts its schedule anew."""

import math
from collections.abc import Callable, Sequence
from functools import partial

from dash_core.config import TrainingConfig, nearest
from dash_core.errors import ConfigError

MILESTONES = (60, 120, 160, 200)  # epochs; the paper's text names 60, 120 and 200, the authors' code 160 as well
DECAY = 0.2  # the learning rate is multiplied by this at each milestone


def constant(epoch: int) -> float:
    """Return 1."""
    return 1.0


def multistep(epoch: int, milestones: Sequence[int] = MILESTONES, decay: float = DECAY) -> float:
    """Return decay ** (milestones reached); epochs count from 0, and epoch 60 is the first one after milestone 60."""
    return decay ** sum(epoch >= milestone for milestone in milestones)


def cosine(epoch: int, epochs: int) -> float:
    """Return (1 + cos(π epoch / epochs)) / 2; epochs count from 0, so that the last of them is above 0."""
    return (1 + math.cos(math.pi * epoch / epochs)) / 2


SCHEDULES: dict[str, Callable[[TrainingConfig], Callable[[int], float]]] = {
    "constant": lambda config: constant,
    "multistep": lambda config: partial(
        multistep, milestones=config.milestones or MILESTONES, decay=config.decay or DECAY
    ),
    "cosine": lambda config: partial(cosine, epochs=config.max_epochs),
}


def schedule_of(config: TrainingConfig) -> Callable[[int], float]:
    """Return the factor of the base learning rate as a function of the epoch, without warm-up."""
    if config.schedule not in SCHEDULES:
        suggestion = nearest(str(config.schedule), list(SCHEDULES))
        raise ConfigError(f"unknown schedule {config.schedule!r}{suggestion}; known: {', '.join(SCHEDULES)}")
    return SCHEDULES[config.schedule](config)


def learning_rate_factor(
    schedule: Callable[[int], float], warmup_epochs: int, epoch: int, step: int, steps_per_epoch: int
) -> float:
    """Return the factor of the base learning rate at one step of an experiment.

    schedule: the factor without warm-up, by epoch. Epochs of the experiment and steps of the epoch count from 0.
    Warm-up is linear over the steps of the first `warmup_epochs`: step s of S has (s + 1) / S times the factor of the
    schedule, so that the last step has all of it.
    """
    if not (epoch >= 0 and 0 <= step < steps_per_epoch):
        raise ValueError(f"step {step} of epoch {epoch} is outside an epoch of {steps_per_epoch} steps")
    factor = schedule(epoch)
    if epoch < warmup_epochs:
        factor *= (epoch * steps_per_epoch + step + 1) / (warmup_epochs * steps_per_epoch)
    return factor
