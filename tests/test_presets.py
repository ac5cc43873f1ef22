"""The presets: each is a comparison of the paper, laid over params.yaml."""

from pathlib import Path

import pytest
import yaml

from dash_core.comparison import Params
from dash_core.config import merge, parse
from dash_core.data.catalog import DATASETS
from dash_core.models import MODELS
from dash_core.recipes import resolve

ROOT = Path(__file__).parents[1]
PRESETS = {path.stem: path for path in sorted((ROOT / "presets").glob("*.yaml"))}
DATASET_NAMES = {"cifar10": "cifar10", "cifar100": "cifar100", "svhn": "svhn", "tiny-imagenet": "tiny_imagenet"}
MODEL_NAMES = {"resnet18": "resnet18", "vgg16": "vgg16_bn", "mlp": "mlp"}
STANDARD = {f"{dataset}-{model}": (dataset, model) for dataset in DATASET_NAMES for model in MODEL_NAMES}
SOTA = ["cifar10-resnet18-sota", "cifar100-resnet18-sota"]
THIN = "cifar10-resnet18-thin"

every_preset = pytest.mark.parametrize("name", PRESETS)


def content(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def laid_over(name: str) -> Params:
    return parse(Params, merge(content(ROOT / "params.yaml"), content(PRESETS[name])))


def keys(mapping: dict, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    inner = [keys(value, (*path, key)) if isinstance(value, dict) else {(*path, key)} for key, value in mapping.items()]
    return set().union(*inner)


def test_there_is_a_preset_for_each_dataset_and_model_of_the_tables() -> None:
    assert set(PRESETS) == {*STANDARD, *SOTA, THIN}


@every_preset
def test_every_run_of_a_preset_resolves(name: str) -> None:
    params = laid_over(name)
    runs = params.runs()
    assert len({run.id for run in runs}) == len(params.seeds) * len(params.compare.methods)
    assert params.dataset.name in DATASETS
    assert params.model.name in MODELS


@every_preset
def test_a_preset_has_the_keys_of_params_yaml_only(name: str) -> None:
    assert keys(content(PRESETS[name])) <= keys(content(ROOT / "params.yaml"))


@every_preset
def test_what_decides_a_result_does_not_depend_on_params_yaml(name: str) -> None:
    alone = parse(Params, content(PRESETS[name]))
    assert [run.digest for run in alone.runs()] == [run.digest for run in laid_over(name).runs()]


@every_preset
def test_a_preset_says_what_is_the_papers_and_what_is_ours(name: str) -> None:
    lines = PRESETS[name].read_text().splitlines()
    header = "\n".join(lines[: lines.index("")])
    assert all(line.startswith("#") for line in lines[: lines.index("")])
    for words in ("reproduces", "The paper's:", "UNKNOWN, so ours:", "Expected", "Cost:"):
        assert words in header


@pytest.mark.parametrize("name", STANDARD)
def test_the_standard_protocol(name: str) -> None:
    dataset, model = STANDARD[name]
    params = laid_over(name)
    optimizer, training = resolve(params.optimizer, params.training, params.dataset.name)
    assert (params.dataset.name, params.model.name) == (DATASET_NAMES[dataset], MODEL_NAMES[model])
    assert (params.chunks, training.batch_size, training.stop_accuracy) == (50, 128, 0.999)
    assert (optimizer.name, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.9, 0.0)
    assert optimizer.lr == (0.001 if model == "resnet18" else 0.01)
    assert (training.schedule, training.augmentation) == ("constant", "none")
    assert params.dataset.train_size == (50_000 if dataset == "svhn" else None)
    assert len(params.seeds) == (3 if dataset == "tiny-imagenet" else 5)
    assert params.methods["dash"]["floor"] == (0.05 if model == "resnet18" else 0.3)


@pytest.mark.parametrize(("name", "augmentation"), [(SOTA[0], "crop_flip"), (SOTA[1], "crop_flip_rotate")])
def test_the_sota_protocol(name: str, augmentation: str) -> None:
    params = laid_over(name)
    optimizer, training = resolve(params.optimizer, params.training, params.dataset.name)
    assert (params.model.name, params.chunks, len(params.seeds)) == ("resnet18_sota", 50, 3)
    assert (optimizer.lr, optimizer.weight_decay) == (0.1, 5e-4)
    assert (training.schedule, training.warmup_epochs, training.max_epochs) == ("multistep", 1, 260)
    assert training.augmentation == augmentation


def test_the_authors_seeds_for_cifar10_with_resnet18() -> None:
    assert laid_over("cifar10-resnet18").seeds == [2021, 2022, 2023, 2024, 2025]


def test_the_thin_network_keeps_the_standard_protocol_and_shrinks_what_takes_time() -> None:
    thin, paper = laid_over(THIN), laid_over("cifar10-resnet18")
    assert (thin.model.width, paper.model.width) == (16, None)
    assert (thin.dataset.train_size, thin.dataset.test_size, thin.chunks, thin.seeds) == (2000, 2000, 5, [0, 1, 2])
    assert thin.optimizer == paper.optimizer
    smaller = {"batch_size": 32, "max_epochs": 500}
    assert thin.training == paper.training.model_copy(update=smaller)
