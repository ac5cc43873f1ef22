"""DASH on timm's own networks and checkpoints, beside its optimisers and averaged weights."""

import copy

import pytest
import torch
from torch import nn

from dash_core import dash_
from dash_core.shrinking import find_weights
from tests.integrations.data import assert_equal, state

pytestmark = pytest.mark.filterwarnings("ignore")
timm = pytest.importorskip("timm")
SIDE = 32


def network(name: str, **options) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=4, **options)


def chunk(seed: int, count: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=random)
    images = torch.randn(count, 3, SIDE, SIDE, generator=random)
    images[torch.arange(count), 0, labels] += 3  # the row is the class
    return images, labels


@pytest.mark.parametrize(
    ("name", "options"),
    [("vit_tiny_patch16_224", {"img_size": SIDE, "depth": 2}), ("resnet10t", {}), ("convnext_atto", {})],
)
def test_what_is_left_alone_in_a_network_of_timm_is_less_than_a_hundredth_of_it(name, options):
    net = network(name, **options)
    found = find_weights(net)
    sizes = {parameter: tensor.numel() for parameter, tensor in net.named_parameters()}
    layers = [layer for layer in net.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert sum(layer.weight.numel() for layer in layers) > 0.97 * sum(sizes.values())
    left = {parameter: sizes[parameter] for parameter in found.left_alone}
    assert sum(left.values()) < 0.01 * sum(sizes.values()), left


def test_three_arrivals_through_timms_checkpoints_are_those_of_plain_torch(tmp_path):
    from timm.optim import create_optimizer_v2
    from timm.utils import ModelEmaV3

    plain, file = network("resnet10t"), tmp_path / "last.pth.tar"
    torch.save({"state_dict": plain.state_dict()}, file)
    chunks = []
    for arrival in range(3):
        chunks.append(chunk(arrival))
        net = network("resnet10t", checkpoint_path=str(file))
        assert_equal(state(net), state(plain))
        if arrival:
            before = copy.deepcopy(net)
            dash_(net, chunks)
            dash_(plain, chunks)
            torch.save({"state_dict": net.state_dict()}, tmp_path / "warm.pth.tar")
            net = network("resnet10t", checkpoint_path=str(tmp_path / "warm.pth.tar"))
            assert_equal(state(net), state(plain))
            assert any((old != new).any() for old, new in zip(before.parameters(), net.parameters(), strict=True))
        optimizer = create_optimizer_v2(net, opt="momentum", lr=0.05, weight_decay=0.0)
        average = ModelEmaV3(net, decay=0.5)
        reference = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
        for _ in range(3):
            for images, labels in chunks:
                for model, steps in ((net, optimizer), (plain, reference)):
                    model.train()
                    steps.zero_grad()
                    nn.functional.cross_entropy(model(images), labels).backward()
                    steps.step()
                average.update(net)
        assert_equal(state(net), state(plain), 1e-6)
        torch.save({"state_dict": net.state_dict(), "state_dict_ema": average.module.state_dict()}, file)
        plain.load_state_dict(average.module.state_dict())  # timm goes on from the averaged weights
