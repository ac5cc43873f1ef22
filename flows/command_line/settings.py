"""Read Params from files and options: params.yaml, a preset laid over it, single values laid over both."""

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dash_core.comparison import Params
from dash_core.config import TrainingConfig, merge, nearest, parse, shown
from dash_core.errors import ConfigError

if TYPE_CHECKING:
    from dash_core.data.catalog import DatasetSpec
    from dash_core.models import ModelSpec


LARGEST_BYTES = 2**20  # of a parameters' file
MOST_VALUES = 20_000  # in a file or an override; an alias counts wherever it is used


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, with two of its traps closed: 1e-3 is a number, and a repeated key is an error."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Expand merged mappings; an error if merges of merges grow too large."""
        super().flatten_mapping(node)
        if len(node.value) > MOST_VALUES:
            raise yaml.constructor.ConstructorError(None, None, "its merges hold too many values", node.start_mark)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def _mapping_without_repeats(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    for key, count in Counter(keys).items():
        if count > 1:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
    loader.flatten_mapping(node)
    return {loader.construct_object(key): loader.construct_object(value, deep=True) for key, value in node.value}


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_repeats)


def load_params(params_file: Path, preset: str | None = None, overrides: Sequence[str] = ()) -> Params:
    """Return the checked parameters; ConfigError names file, key, value and remedy."""
    content = read_yaml(params_file)
    if preset:
        content = merge(content, read_yaml(preset_file(params_file.parent, preset)))
    for override in overrides:
        content = merge(content, parse_override(override))
    params = parse(Params, content)
    check(params)
    return params


def complete(params: Params) -> dict[str, Any]:
    """Return the parameters with every default, and a section under `methods` for each method that is compared."""
    content = params.model_dump(mode="json")
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

    model = model_spec(params.model.name, **params.model.options)
    _check_contradictions(params, dataset_spec(params.dataset.name), model)
    for label in {*params.methods, *params.compare.methods}:
        params.method(label)


def _check_contradictions(params: Params, dataset: "DatasetSpec", model: "ModelSpec") -> None:
    """Raise ConfigError for settings that contradict each other, before a download and not after it."""
    from dash_core.recipes import resolve

    name, images = dataset.name, dataset.train_size
    _, training = resolve(params.optimizer, params.training, name)
    if training.augmentation != "none" and not dataset.mirrored:
        raise ConfigError(
            f"training.augmentation: {training.augmentation} mirrors images, and a mirrored digit of {name} is no "
            "digit; set training.augmentation=none"
        )
    if training.warmup_epochs > training.max_epochs:
        raise ConfigError(
            f"training.warmup_epochs: {training.warmup_epochs} is more than the {training.max_epochs} of max_epochs: "
            "the learning rate would never be reached"
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
    if name == "continuous" and (training.schedule, training.warmup_epochs) != ("constant", 0):
        raise ConfigError(
            f"training.schedule: {training.schedule} with {training.warmup_epochs} epochs of warm-up starts again with "
            "each experiment, and each of continuous is one epoch: set training.schedule=constant and "
            "training.warmup_epochs=0"
        )


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; ConfigError says what is wrong with the file."""
    try:
        content = _load_yaml(_text_of(path))
    except FileNotFoundError:
        raise ConfigError(f"no file {path}: run inside the project's folder, or name the file with --params") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path} must hold a mapping of names to values, got {type(content).__name__}")
    return content


def _text_of(path: Path) -> str:
    """Return the file's text; ValueError if it is too large to be parameters."""
    with path.open("rb") as file:
        content = file.read(LARGEST_BYTES + 1)
    if len(content) > LARGEST_BYTES:
        raise ValueError(f"it has more than {LARGEST_BYTES} bytes")
    return content.decode()


def _load_yaml(text: str) -> Any:
    """Return the content of a YAML text; ValueError if aliases or its length make it too large."""
    content = yaml.load(text, Loader=_Loader)
    pending, values = [content], 0
    while pending:
        value = pending.pop()
        values += 1
        if values > MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES} values, aliases written out")
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list | tuple | set):
            pending += value
    return content


def preset_file(project: Path, name: str) -> Path:
    """Return the file of a preset; ConfigError lists the presets."""
    names = preset_names(project)
    if name not in names:
        raise ConfigError(f"unknown preset {shown(name)}{nearest(name, names)}; known: {', '.join(names) or 'none'}")
    return project / "presets" / f"{name}.yaml"


def preset_names(project: Path) -> list[str]:
    """Return the names of the presets in the project's folder."""
    return sorted(path.stem for path in (project / "presets").glob("*.yaml"))


def parse_override(text: str) -> dict[str, Any]:
    """Return 'model.name=resnet18' as {'model': {'name': 'resnet18'}}; the value is read as YAML."""
    key, equals, value = text.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise ConfigError(f"--set takes section.key=value, got {shown(text)}; for example --set model.name=resnet18")
    try:
        content = _load_yaml(value)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"--set {key}: the value {shown(value)} is not valid YAML: {error}") from None
    for name in reversed(names):
        content = {name: content}
    return content
