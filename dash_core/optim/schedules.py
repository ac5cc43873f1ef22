"""Learning-rate schedules: pure functions of epoch and step; each experiment starts its schedule anew."""

from collections.abc import Callable

from dash_core.config import nearest
from dash_core.errors import ConfigError

MILESTONES = (60, 120, 160, 200)  # epochs; the paper's text names 60, 120 and 200, the authors' code 160 as well
DECAY = 0.2  # the learning rate is multiplied by this at each milestone


def constant(epoch: int) -> float:
    """Return 1."""
    return 1.0


def multistep(epoch: int) -> float:
    """Return DECAY ** (milestones reached); epochs count from 0, and epoch 60 is the first one after milestone 60."""
    return DECAY ** sum(epoch >= milestone for milestone in MILESTONES)


SCHEDULES: dict[str, Callable[[int], float]] = {"constant": constant, "multistep": multistep}


def learning_rate_factor(schedule: str, warmup_epochs: int, epoch: int, step: int, steps_per_epoch: int) -> float:
    """Return the factor of the base learning rate at one step of an experiment.

    Epochs of the experiment and steps of the epoch count from 0. Warm-up is linear over the steps of the first
    `warmup_epochs`: step s of S has (s + 1) / S times the factor of the schedule, so that the last step has all of it.
    """
    if schedule not in SCHEDULES:
        suggestion = nearest(schedule, list(SCHEDULES))
        raise ConfigError(f"unknown schedule {schedule!r}{suggestion}; known: {', '.join(SCHEDULES)}")
    if not (epoch >= 0 and 0 <= step < steps_per_epoch):
        raise ValueError(f"step {step} of epoch {epoch} is outside an epoch of {steps_per_epoch} steps")
    factor = SCHEDULES[schedule](epoch)
    if epoch < warmup_epochs:
        factor *= (epoch * steps_per_epoch + step + 1) / (warmup_epochs * steps_per_epoch)
    return factor
