"""Fine-tuning: weights from a file, a new head where the classes differ, and layers that stay as they are."""

import pytest
import torch
from safetensors.torch import save_file

from dash_core.config import ModelConfig, parse
from dash_core.data import Dataset
from dash_core.errors import ConfigError
from dash_core.interventions import INTERVENTIONS
from dash_core.models import build_model
from dash_core.models.pretrained import InitialModel
from dash_core.result import WEIGHTS_FILE
from tests import toy

TEN = build_model("cnn3_small", (1, 8, 8), 10, seed=7).state_dict()
FROZEN = ["block1", "block2.1"]


@pytest.fixture
def file(tmp_path) -> str:
    save_file(TEN, tmp_path / "ten.safetensors")
    return str(tmp_path / "ten.safetensors")


def model_config(**changes) -> ModelConfig:
    return parse(ModelConfig, {"name": "cnn3_small", **changes})


def start(classes: int, seed: int = 0, **changes) -> dict[str, torch.Tensor]:
    return InitialModel(model_config(**changes), (1, 8, 8), classes)(seed).state_dict()


def test_of_a_file_for_ten_classes_a_model_of_four_has_the_backbone_and_a_new_head(file):
    four = start(4, weights=file)
    assert four["fc.weight"].shape[0] == 4
    assert all(torch.equal(four[name], TEN[name]) for name in TEN if not name.startswith("fc."))
    fresh = build_model("cnn3_small", (1, 8, 8), 4, seed=0).state_dict()
    assert torch.equal(four["fc.weight"], fresh["fc.weight"])  # drawn from the seed, as without a file
    assert not torch.equal(start(4, seed=1, weights=file)["fc.weight"], four["fc.weight"])


def test_where_the_classes_are_as_many_the_head_is_that_of_the_file_too(file):
    assert all(torch.equal(value, TEN[name]) for name, value in start(10, weights=file).items())


def test_only_the_layers_of_a_head_that_do_not_fit_are_new(tmp_path):
    whole = build_model("vgg16_bn", (3, 32, 32), 10, seed=7)
    few = {name: value for name, value in whole.state_dict().items() if not name.startswith("classifier.0")}
    with torch.device("meta"):
        other = build_model("vgg16_bn", (3, 32, 32), 4, seed=0)
    from dash_core.models.pretrained import load_pretrained_

    head = ("classifier.0", "classifier.3", "classifier.6")
    assert load_pretrained_(other.to("meta"), few, head, "file") == ["classifier.0", "classifier.6"]


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
        lambda state: {name: value for name, value in state.items() if "num_batches" not in name},
        lambda state: {**state, "aux.weight": torch.zeros(3)},
    ],
)
def test_what_training_scripts_save_is_read(tmp_path, wrapped):
    torch.save(wrapped(TEN), tmp_path / "ten.pth")
    found = start(10, weights=str(tmp_path / "ten.pth"))
    assert all(torch.equal(value, TEN[name]) for name, value in found.items())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no weights", "cannot be read in the format of torch.save"),
        ({"epoch": 3}, "holds no weights by name"),
        ({"fc.weight": torch.zeros(10, 64)}, r"does not fit the model: .* is missing; .*, and \d+ more"),
        (
            {**TEN, "block1.0.weight": torch.zeros(3, 3, 3, 3)},
            r"does not fit the model: block1.0.weight is \[3, 3, 3, 3\], not",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_an_error_that_says_why(tmp_path, content, words):
    path = tmp_path / "bad.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ConfigError, match=rf"model.weights: .*bad.pth {words}"):
        start(10, weights=str(path))


def test_a_missing_file_and_a_layer_that_is_not_there_are_named():
    with pytest.raises(ConfigError, match=r"`weights`: nowhere.pth cannot be read"):
        toy.params(model={"weights": "nowhere.pth"})
    with pytest.raises(ConfigError, match=r"`weights`: /dev/zero cannot be read \(no such file\)"):
        toy.params(model={"weights": "/dev/zero"})
    with pytest.raises(ConfigError, match=r"no layer 'blok1' \(did you mean 'block1'\?\); its layers: block1"):
        start(4, frozen=["blok1"])
    with pytest.raises(ConfigError, match="nothing is left to train"):
        start(4, frozen=["block1", "block2", "block3", "fc"])


def test_a_run_is_known_by_the_content_of_its_file_and_not_by_its_place(tmp_path, file):
    def digest(path) -> str:
        return toy.params(model={"weights": str(path)}).run("warm", 0).digest

    moved = tmp_path / "elsewhere.safetensors"
    moved.write_bytes((tmp_path / "ten.safetensors").read_bytes())
    assert digest(file) == digest(moved) != toy.params().run("warm", 0).digest
    before, config = digest(file), model_config(weights=file)
    save_file({**TEN, "fc.bias": TEN["fc.bias"] + 1}, file)
    assert digest(file) != before
    with pytest.raises(ConfigError, match="has changed"):
        InitialModel(config, (1, 8, 8), 10)  # what was checked is what is trained


def test_without_weights_and_frozen_layers_a_run_keeps_its_name():
    given = {"model": {"weights": None, "frozen": []}, "methods": {"warm": {}}}
    assert toy.params(**given).run("warm", 0).id == toy.params().run("warm", 0).id


@pytest.mark.parametrize("method", list(INTERVENTIONS))
@pytest.mark.processor
def test_frozen_layers_stay_bit_for_bit_whatever_a_method_does(tmp_path, file, method):
    data: Dataset = toy.dataset(train=32, test=8)
    model = {"weights": file, "frozen": FROZEN}
    training = {"max_epochs": 1, "batch_size": 16}
    run = toy.params(model=model, training=training, chunks=2, methods={method: {}}).run(method, 0)
    moving = toy.advance(toy.trajectory(tmp_path / "run", run, data))
    state = moving.learner.model.state_dict()
    frozen = [name for name in state if name.startswith(tuple(f"{name}." for name in FROZEN))]
    assert any("running_mean" in name for name in frozen)
    assert all(torch.equal(state[name], TEN[name]) for name in frozen)
    assert not torch.equal(state["block3.0.weight"], TEN["block3.0.weight"])
    assert (tmp_path / "run" / WEIGHTS_FILE).exists()


@pytest.mark.processor
def test_a_fine_tuned_run_that_was_stopped_has_the_bits_of_one_that_was_not(tmp_path, file):
    training = {"max_epochs": 2, "batch_size": 16}
    run = toy.params(model={"weights": file, "frozen": FROZEN}, training=training, chunks=2).run("dash", 0)
    data = toy.dataset(train=32, test=8)
    whole = toy.advance(toy.trajectory(tmp_path / "whole", run, data))
    parts = toy.interrupted(tmp_path / "parts", run, data, stops=[1, 3])
    assert toy.results(whole) == toy.results(parts)
    assert (tmp_path / "whole" / WEIGHTS_FILE).read_bytes() == (tmp_path / "parts" / WEIGHTS_FILE).read_bytes()


def test_a_layers_own_rate_is_part_of_a_runs_identity():
    plain, empty, own = (
        toy.params(optimizer=given).run("warm", 0)
        for given in ({}, {"lr_multipliers": {}}, {"lr_multipliers": {"fc": 2.0}})
    )
    assert plain.id == empty.id != own.id
