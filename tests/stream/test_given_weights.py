"""A stream starts from a checkpoint of torchvision, with a new head for its own classes."""

import numpy as np
import pytest
import torch

from dash_core.data.normalisation import IMAGENET
from dash_core.errors import ConfigError
from dash_core.models.pretrained import InitialModel
from tasks.store.stream.creating import begin, contract_for, first_delivery
from tasks.store.stream.models import load_model
from tests import toy
from tests.stream import small


@pytest.fixture
def begun(tmp_path):
    """A stream of colour photos that begins with torchvision's ResNet-18 for 1,000 classes, and its weights."""
    from torchvision.models import resnet18

    weights = resnet18().state_dict()
    torch.save(weights, tmp_path / "resnet18.pth")
    random = np.random.default_rng(0)
    for number in range(20):
        pixels = random.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        small.save(pixels, tmp_path / "first" / f"class {number % 2}" / f"{number:02d}.png")
    model = {"name": "torchvision:resnet18", "weights": str(tmp_path / "resnet18.pth")}
    params = toy.params(model=model, training={"batch_size": 8, "max_epochs": 1})
    first = first_delivery(tmp_path / "first")
    contract = contract_for(first, params, "dash", {"salt": "salt", "share": 0.3}, {"gate": {"margin": 0.2}})
    stream, _ = begin(tmp_path, "photos", contract, {"settle_seconds": 0.0}, params.model.weights)
    (tmp_path / "resnet18.pth").unlink()  # the stream has a copy
    return stream, contract, weights


def test_all_but_the_head_is_the_checkpoint(begun):
    stream, contract, weights = begun
    assert (tuple(contract.mean), tuple(contract.std)) == IMAGENET
    copy = stream.path / contract.model.weights
    own = contract.model.model_copy(update={"weights": str(copy)})
    found = InitialModel(own, contract.image_shape, len(contract.classes))(contract.seed).state_dict()
    assert found["fc.weight"].shape == (2, 512)
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items() if not name.startswith("fc."))


@pytest.mark.slow
def test_the_first_champion_is_trained_from_it(begun):
    stream, contract, _ = begun
    with small.without_export():
        small.run(stream, only=stream.path.parents[1] / "first")
    _, state = stream.read()
    model = load_model(stream, state, contract, state.champion)
    assert model.fc.out_features == 2


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"optimizer": {"lr_multipliers": {"nowhere": 0.1}}}, "no layer 'nowhere'"),
        ({"training": {"augmentation": "torchvision:Resize(4)"}}, "size and type must stay"),
    ],
)
def test_a_setting_that_does_not_fit_the_images_is_no_part_of_a_contract(tmp_path, setting, words):
    first = first_delivery(small.deliver(tmp_path / "first", 16, seed=0))
    with pytest.raises(ConfigError, match=words):
        contract_for(first, toy.params(**setting), "dash", {"salt": "salt"}, {"gate": {"margin": 0.2}})
