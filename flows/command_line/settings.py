"""Read Params from files and options: params.yaml, a preset laid over it, single values laid over both."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dash_core.comparison import Params
from dash_core.config import TrainingConfig, merge, nearest, parse, shown
from dash_core.errors import ConfigError
from dash_core.interventions import Intervention, intervention_class
from dash_core.parts import use_project
from dash_core.views.summary import listed
from flows.command_line.yaml_text import parse_override, read_yaml

if TYPE_CHECKING:
    from dash_core.data.catalog import DatasetSpec
    from dash_core.models import ModelSpec

OTHER_HOOKS = {"penalty", "after_step", "after_chunk"}  # of an intervention, beside that between two experiments


def load_params(params_file: Path, preset: str | None = None, overrides: Sequence[str] = ()) -> Params:
    """Return the checked parameters; ConfigError names file, key, value and remedy."""
    use_project(params_file.parent)
    content = read_yaml(params_file)
    if preset:
        content = merge(content, read_yaml(preset_file(params_file.parent, preset)))
    for override in overrides:
        content = merge(content, parse_override(override))
    params = parse(Params, content)
    check(params)
    return params


def cautions(params: Params) -> list[str]:
    """Return what a person should know about checked parameters before they train: methods that cannot differ."""
    acts_between = [
        label
        for label in params.compare.methods
        if not OTHER_HOOKS & {name for kind in _classes_of(params, label) for name in vars(kind)}
    ]
    if params.intervenes or len(acts_between) < 2:
        return []
    return [
        f"no method intervenes in {params.experiment_count} experiment(s) of the protocol {params.protocol.name}, so "
        f"{listed(acts_between)} will have the same results: set chunks and experiments to 2 or more"
    ]


def _classes_of(params: Params, label: str) -> list[type]:
    """Return the classes of a method's intervention, without the base class, whose hooks do nothing."""
    kind = intervention_class(params.method(label).intervention)
    return [parent for parent in kind.__mro__ if issubclass(parent, Intervention) and parent is not Intervention]


def complete(params: Params) -> dict[str, Any]:
    """Return the parameters with every default, and a section under `methods` for each method that is compared."""
    content = params.model_dump(mode="json")
    for section, name in (
        ("dataset", "source"),
        ("dataset", "plan_source"),
        ("model", "source"),
        ("training", "loss_source"),
    ):
        content[section][name] = None  # of own parts as they are: written out, it would refuse their next edit
    compared = {label: content["methods"].get(label, {}) for label in params.compare.methods}
    return {**content, "methods": {**content["methods"], **compared}}


def as_options(params_file: Path, preset: str | None, overrides: Sequence[str]) -> str:
    """Return the options that select the same comparison, quoted for a shell, each after a space."""
    words = [] if params_file == Path("params.yaml") else ["--params", str(params_file)]
    words += ["--preset", preset] if preset else []
    for override in overrides:
        words += ["--set", override]
    return "".join(f" {shlex.quote(word)}" for word in words)


def check(params: Params) -> None:
    """Raise ConfigError if a name is unknown, a method's parameters are wrong, or settings contradict each other."""
    from dash_core.data import dataset_spec
    from dash_core.models import model_spec
    from dash_core.parallel.limits import check_divisible

    model = model_spec(params.model.name, **params.model.options)
    _check_contradictions(params, dataset_spec(params.dataset.name), model)
    if beyond := [number for number in params.compare.keep_weights if number > params.experiment_count]:
        raise ConfigError(
            f"compare.keep_weights: there is no experiment {beyond[0]}; the protocol {params.protocol.name} with "
            f"chunks={params.chunks} has {params.experiment_count}"
        )
    for label in {*params.methods, *params.compare.methods}:
        params.method(label)
    for label in params.compare.methods:
        check_divisible(params.run(label, params.seeds[0]), params.compare.gpus_per_run)


def _check_contradictions(params: Params, dataset: "DatasetSpec", model: "ModelSpec") -> None:
    """Raise ConfigError for settings that contradict each other, before a download and not after it."""
    from dash_core.parts import is_torchvision
    from dash_core.recipes import resolve
    from dash_core.transforms import transforms_of

    name, images = dataset.name, dataset.train_size
    _, training = resolve(params.optimizer, params.training, name)
    if is_torchvision(training.augmentation):
        transforms_of(training.augmentation)
    elif training.augmentation != "none" and not dataset.mirrored:
        raise ConfigError(
            f"training.augmentation: {training.augmentation} mirrors images, and a mirrored digit of {name} is no "
            "digit; set training.augmentation=none"
        )
    if training.warmup_epochs > training.max_epochs:
        raise ConfigError(
            f"training.warmup_epochs: {training.warmup_epochs} is more than the {training.max_epochs} of max_epochs: "
            "the learning rate would never be reached"
        )
    if training.milestones and training.schedule != "multistep":
        raise ConfigError(
            f"training.milestones: they are those of the schedule multistep, and it is {training.schedule}; "
            "set training.schedule=multistep"
        )
    _check_protocol(params, training, dataset.classes)
    side = params.dataset.image_size or min((dataset.image_shape or ())[1:], default=None)
    if side and side < (least := model.smallest):
        raise ConfigError(
            f"model.name: {model.name} needs images of {least}x{least} pixels or more, and {name} has {side}x{side}"
        )
    if images is None or dataset.origin == "embedded":
        return
    used = params.dataset.train_size or images
    if used > images:
        raise ConfigError(f"dataset.train_size: {used} is more than the {images} training images of {name}")
    if (tested := params.dataset.test_size) and tested > dataset.test_size:
        raise ConfigError(f"dataset.test_size: {tested} is more than the {dataset.test_size} test images of {name}")
    if params.chunks > used:
        raise ConfigError(f"chunks: {params.chunks} is more than the {used} training images of {name}")


def _check_protocol(params: Params, training: TrainingConfig, classes: int | None) -> None:
    """Raise ConfigError if the resolved training or the dataset's classes (None: unknown) do not suit the protocol."""
    name = params.protocol.name
    if name == "class_incremental" and classes and params.chunks != (needed := params.protocol.chunks_of(classes)):
        raise ConfigError(
            f"chunks: {params.chunks} does not fit the {classes} classes of {params.dataset.name}, since "
            f"class_incremental has {params.protocol.classes_per_chunk} in each chunk: set chunks={needed}"
        )
    if name == "continuous" and training.stop == "validation":
        raise ConfigError(
            "training.stop: each experiment of continuous is one epoch, which validation cannot end; "
            "set training.stop=train_accuracy"
        )
    if name == "continuous" and (training.schedule, training.warmup_epochs) != ("constant", 0):
        raise ConfigError(
            f"training.schedule: {training.schedule} with {training.warmup_epochs} epochs of warm-up starts again with "
            "each experiment, and each of continuous is one epoch: set training.schedule=constant and "
            "training.warmup_epochs=0"
        )


def preset_file(project: Path, name: str) -> Path:
    """Return the file of a preset; ConfigError lists the presets."""
    names = preset_names(project)
    if name not in names:
        raise ConfigError(f"unknown preset {shown(name)}{nearest(name, names)}; known: {', '.join(names) or 'none'}")
    return project / "presets" / f"{name}.yaml"


def preset_names(project: Path) -> list[str]:
    """Return the names of the presets in the project's folder."""
    return sorted(path.stem for path in (project / "presets").glob("*.yaml"))
