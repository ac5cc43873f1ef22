"""Settings under which several processes would not give the results of one: refused before anything starts."""

from dash_core.config import RunConfig
from dash_core.errors import ConfigError
from dash_core.interventions import build_intervention
from dash_core.interventions.dash import Dash
from dash_core.parallel.division import LEAST_IMAGES

KEY = "compare.gpus_per_run"


def check_divisible(run: RunConfig, processes: int) -> None:
    """Raise ConfigError if a run cannot be divided over so many processes; the message names the setting."""
    if processes == 1:
        return
    training, method = run.training, run.method
    if training.compile:
        raise ConfigError(
            f"training.compile: a compiled step cannot be divided over the {processes} processes of {KEY}; set "
            f"training.compile=false or {KEY}=1"
        )
    intervention = build_intervention(method.intervention, method.parameters)
    if isinstance(intervention, Dash) and intervention.mode == "train":
        raise ConfigError(
            f"methods.{method.label}.mode: in train mode BatchNorm normalises each chunk by its own statistics, which "
            f"the {processes} processes of {KEY} would have to share; set methods.{method.label}.mode=eval or {KEY}=1"
        )
    smallest = min(training.batch_size, training.micro_batch_size or training.batch_size)
    if smallest < LEAST_IMAGES * processes:
        key = "batch_size" if smallest == training.batch_size else "micro_batch_size"
        raise ConfigError(
            f"training.{key}: {smallest} images are fewer than {LEAST_IMAGES} for each of the {processes} processes of "
            f"{KEY}, so that each would do all of them; set training.{key} to {LEAST_IMAGES * processes} or more, "
            f"or {KEY} to {max(smallest // LEAST_IMAGES, 1)}"
        )
