"""The models: their sizes against hand counts, their seeds, and the images they take."""

import dataclasses
import subprocess
import sys
from functools import cache
from itertools import pairwise

import pytest
import torch
import torchvision
from torch import nn

from dash_core.errors import ConfigError
from dash_core.models import MODELS, build_model, forward_flops, model_spec, parameter_count
from dash_core.models.cnn import GlobalAverage
from dash_core.models.resnet import NORMALISATIONS
from dash_core.models.vgg import AveragePoolTo
from dash_core.seeding import borrowed_global_generator

CIFAR = (3, 32, 32)
QUICK = ["mlp", "cnn3", "resnet18"]
TORCHVISION = ["torchvision:mobilenet_v3_small", "torchvision:efficientnet_b0", "torchvision:squeezenet1_1"]


def built(name: str, image_shape: tuple[int, int, int] = CIFAR, classes: int = 10) -> nn.Module:
    """Return a model that the tests share: none of them changes its weights."""
    return _built_once(name, image_shape, classes)


@cache
def _built_once(name: str, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return build_model(name, image_shape, classes, seed=0)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18", 11_173_962),
        ("resnet18_sota", 11_173_962),  # a max-pool has no parameters
        ("resnet10", 308_826),
        ("cnn3", 3 * 9 * 64 + 64 * 9 * 128 + 128 * 9 * 256 + 2 * (64 + 128 + 256) + 256 * 10 + 10),
        ("mlp", (3072 + 1024) * 1024 + 1024 * 2 + 4 * 1024 + 1024 * 10 + 10),
    ],
)
def test_parameters_on_cifar10(name: str, parameters: int) -> None:
    assert parameter_count(built(name)) == parameters


def test_cnn3_has_the_size_that_was_measured() -> None:
    assert parameter_count(built("cnn3")) == 373_834


def test_vgg16_bn_is_torchvisions_with_biases_and_the_large_classifier() -> None:
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    features = sum(9 * i * o + o + 2 * o for i, o in pairwise(widths))
    classifier = (25088 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 10
    assert parameter_count(built("vgg16_bn")) == features + classifier


def test_flops_of_the_mlp_by_hand() -> None:
    assert forward_flops(built("mlp"), CIFAR) == 2 * (3072 * 1024 + 1024 * 1024 + 1024 * 10)


def test_flops_of_cnn3_by_hand() -> None:
    convolutions = 32**2 * 27 * 64 + 16**2 * 9 * 64 * 128 + 8**2 * 9 * 128 * 256
    assert forward_flops(built("cnn3"), CIFAR) == 2 * (convolutions + 256 * 10)


@pytest.mark.parametrize(
    ("name", "blocks", "width", "mega"),
    [("resnet18", 2, 64, 280.4), ("resnet18", 2, 16, 18.2), ("resnet10", 1, 16, 8.8)],
)
def test_flops_of_a_resnet_by_hand(name: str, blocks: int, width: int, mega: float) -> None:
    """The stem at 32x32, then stages at 16, 8, 4, 2 pixels: the max-pool is kept."""
    total = 32**2 * 27 * width + 8 * width * 10
    for times, given, side in [(1, 1, 16), (2, 1, 8), (4, 2, 4), (8, 4, 2)]:
        shortcut = given * times if given != times else 0
        total += side**2 * width**2 * (9 * given * times + (2 * blocks - 1) * 9 * times**2 + shortcut)
    model = build_model(name, CIFAR, 10, seed=0, width=width)
    assert forward_flops(model, CIFAR) == 2 * total
    assert 2 * total / 1e6 == pytest.approx(mega, abs=0.05)


@pytest.mark.parametrize(("name", "parameters"), [("resnet18", 701_466), ("resnet10", 308_826)])
def test_a_narrow_resnet_is_the_wide_one_with_fewer_channels(name: str, parameters: int) -> None:
    wide, narrow = (build_model(name, CIFAR, 10, seed=0, width=width) for width in (64, 16))
    assert parameter_count(narrow) == parameters
    state, small = wide.state_dict(), narrow.state_dict()
    assert list(small) == list(state)
    assert type(narrow) is type(wide)
    assert [type(part) for part in narrow.modules()] == [type(part) for part in wide.modules()]
    scaled = {(*(n if n < 16 else n // 4 for n in state[key].shape[:2]), *state[key].shape[2:]) for key in state}
    assert {tuple(tensor.shape) for tensor in small.values()} <= scaled | {(10, 128)}
    assert not any(tensor.is_meta for tensor in small.values())


@pytest.mark.parametrize("name", ["resnet18", "resnet10"])
def test_a_narrow_resnet_draws_its_weights_as_the_wide_one_does(name: str) -> None:
    model = build_model(name, CIFAR, 10, seed=0, width=16)
    for part in model.modules():
        if isinstance(part, nn.Conv2d):
            fan = part.out_channels * part.kernel_size[0] ** 2
            assert part.weight.detach().std() == pytest.approx((2 / fan) ** 0.5, rel=0.1)
        if isinstance(part, nn.BatchNorm2d):
            assert bool((part.weight == 1).all() and (part.bias == 0).all())
    assert model.fc.weight.abs().max() <= 128**-0.5
    again, other = (build_model(name, CIFAR, 10, seed=seed, width=16) for seed in (0, 1))
    assert torch.equal(model.conv1.weight, again.conv1.weight)
    assert not torch.equal(model.conv1.weight, other.conv1.weight)


@pytest.mark.parametrize("normalisation", ["batch", "layer"])
def test_resnet18_is_torchvisions_with_another_stem_bit_for_bit(normalisation: str) -> None:
    """Weights, outputs and gradients: it is written out here so that torchvision need not be imported."""
    norm = NORMALISATIONS[normalisation]
    with borrowed_global_generator(torch.device("cpu"), 0):
        theirs = torchvision.models.resnet.ResNet(
            torchvision.models.resnet.BasicBlock, [2, 2, 2, 2], num_classes=10, norm_layer=norm
        )
        theirs.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
        nn.init.kaiming_normal_(theirs.conv1.weight, mode="fan_out", nonlinearity="relu")
    ours = build_model("resnet18", CIFAR, 10, seed=0, normalisation=normalisation)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [name for name, _ in ours.named_modules()] == [name for name, _ in theirs.named_modules()]
    assert all(torch.equal(tensor, theirs.state_dict()[key]) for key, tensor in ours.state_dict().items())
    images = torch.rand(4, *CIFAR, generator=torch.Generator().manual_seed(0))
    outputs = [model.train()(images) for model in (ours, theirs)]
    assert torch.equal(*outputs)
    gradients = [
        torch.autograd.grad(output.square().sum(), list(model.parameters()))
        for output, model in zip(outputs, (ours, theirs), strict=True)
    ]
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert all(torch.equal(tensor, theirs.state_dict()[key]) for key, tensor in ours.state_dict().items())


def test_a_width_that_a_model_cannot_have_is_an_error_that_says_which_can() -> None:
    with pytest.raises(
        ConfigError, match=r"model.width: the width of cnn3 cannot .* at null; .* resnet18, resnet18_sota"
    ):
        build_model("cnn3", CIFAR, 10, seed=0, width=16)
    with pytest.raises(ConfigError, match=r"model.width: 16 channels cannot be cut into the 32 groups"):
        build_model("resnet10", CIFAR, 10, seed=0, normalisation="group")


def test_without_the_max_pool_stages_see_four_times_the_pixels() -> None:
    stem_and_head = 2 * (32**2 * 27 * 64 + 512 * 10)
    pooled, full = (forward_flops(built(name), CIFAR) - stem_and_head for name in ("resnet18", "resnet18_sota"))
    assert full == 4 * pooled


def test_attention_counts_as_its_matrix_products() -> None:
    """8 rows of 4 numbers: projections in and out, 8x8 scores of 2 heads and their sums, two layers of 16 units."""
    model = nn.Sequential(nn.Flatten(0, 1), nn.TransformerEncoderLayer(4, 2, 16, batch_first=True))
    assert forward_flops(model, (1, 8, 4)) == 2 * 8 * (4 * 12 + 8 * 4 + 8 * 4 + 4 * 4 + 2 * 4 * 16)


def test_counting_leaves_weights_modes_and_the_generator_as_found() -> None:
    model = build_model("resnet18", CIFAR, 10, seed=0).train()
    model.layer1.eval()
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    forward_flops(model, CIFAR)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["cnn3", "resnet18", "resnet18_sota", "torchvision:squeezenet1_1"])
def test_the_seed_decides_the_weights_and_the_global_generator_is_left_as_found(name: str) -> None:
    state = torch.get_rng_state()
    first, again, other = (build_model(name, CIFAR, 10, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(one, same) for one, same, _ in pairs)
    assert any(not torch.equal(one, new) for one, _, new in pairs)


def test_resnet18_draws_convolutions_from_kaiming_fan_out_and_its_sota_twin_from_torchs_default() -> None:
    fan = 9 * 512  # in and out alike
    standard, sota = (built(name).layer4[1].conv2.weight.detach() for name in ("resnet18", "resnet18_sota"))
    assert standard.std() == pytest.approx((2 / fan) ** 0.5, rel=0.01)
    assert sota.std() == pytest.approx((1 / 3 / fan) ** 0.5, rel=0.01)  # uniform within 1 / sqrt(fan)
    assert sota.abs().max() <= fan**-0.5


def test_vgg16_bn_draws_linear_layers_from_a_narrow_normal_and_all_biases_are_zero() -> None:
    model = built("vgg16_bn")
    assert model.classifier[0].weight[:100].detach().std() == pytest.approx(0.01, rel=0.01)
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert all(not layer.bias.any() for layer in layers)
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.5, 0.5]


@pytest.mark.parametrize("given", [(1, 1), (2, 2), (3, 5), (7, 7), (8, 6), (14, 14)])
@pytest.mark.processor
def test_pooling_equals_torchs_adaptive_average(given: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *given, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(AveragePoolTo(given, 7)(x), nn.AdaptiveAvgPool2d(7)(x))


@pytest.mark.parametrize("given", [(1, 1), (8, 8), (3, 7)])
@pytest.mark.processor
def test_the_global_average_is_torchs(given: tuple[int, int]) -> None:
    for ours, theirs in zip(*_averages(given, torch.float64), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_of_a_global_average_holds_one_number_a_map(dtype: torch.dtype) -> None:
    (_, gradient), _ = _averages((3, 7), dtype)
    assert gradient.shape == (2, 3, 3, 7)
    assert gradient.untyped_storage().nbytes() == 2 * 3 * dtype.itemsize


def _averages(size: tuple[int, int], dtype: torch.dtype) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return averages of maps of a size and their gradients, ours and torch's."""
    draws = torch.Generator().manual_seed(0)
    maps, weights = (torch.rand(2, 3, *sides, generator=draws, dtype=dtype) for sides in (size, (1, 1)))
    maps = maps.to(memory_format=torch.channels_last).requires_grad_()
    averages = [pool(maps) for pool in (GlobalAverage(), nn.AdaptiveAvgPool2d(1))]
    return [(average, *torch.autograd.grad((average * weights).sum(), maps)) for average in averages]


BUILDING = """
import sys
from dash_core.models import build_model, model_spec

for name in sys.argv[1:]:
    build_model(name, (3, 32, 32), 10, seed=0)
    print("torchvision.models" in sys.modules, *model_spec(name).imports)
"""


def test_models_tell_what_their_building_imports() -> None:
    own = ["mlp", "cnn3", "cnn3_small", "resnet18", "resnet18_sota", "resnet10"]
    others = ["vgg16_bn", *TORCHVISION]
    done = subprocess.run([sys.executable, "-c", BUILDING, *own, *others], capture_output=True, text=True, timeout=600)
    told = done.stdout.splitlines()
    assert told == ["False"] * len(own) + ["True torchvision.models"] * len(others), done.stderr


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_of_the_smallest_images_passes_in_both_modes(name: str) -> None:
    shape = (3, MODELS[name].smallest, MODELS[name].smallest)
    model, batch = built(name, shape), torch.rand(4, *shape)
    with torch.no_grad():
        outputs = [model.train(mode)(batch) for mode in (True, False)]
    assert [tuple(output.shape) for output in outputs] == [(4, 10)] * 2
    assert all(output.isfinite().all() for output in outputs)


@pytest.mark.parametrize("name", QUICK)
def test_grey_images_of_handwritten_digits_pass(name: str) -> None:
    assert built(name, (1, 8, 8))(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_vgg16_bn_is_built_for_grey_images_and_for_64_pixels() -> None:
    with torch.device("meta"):
        model = MODELS["vgg16_bn"].build((1, 64, 64), 200)
        assert model(torch.rand(2, 1, 64, 64)).shape == (2, 200)


@pytest.mark.parametrize("name", QUICK)
def test_channels_last_batches_pass(name: str) -> None:
    batch = torch.rand(2, *CIFAR).to(memory_format=torch.channels_last)
    assert built(name)(batch).shape == (2, 10)


@pytest.mark.parametrize("name", MODELS)
def test_head_names_are_linear_layers_and_the_last_gives_the_classes(name: str) -> None:
    model = built(name)
    heads = [model.get_submodule(part) for part in MODELS[name].head]
    assert all(isinstance(part, nn.Linear) for part in heads)
    assert heads[-1].out_features == 10


@pytest.mark.parametrize("name", TORCHVISION)
@pytest.mark.parametrize("channels", [1, 3])
def test_models_of_torchvision_by_name(name: str, channels: int) -> None:
    spec, model = model_spec(name), built(name, (channels, 32, 32), 7)
    head = [part for part in model.get_submodule(spec.head[0]).modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    assert head
    assert model.train()(torch.rand(2, channels, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("resnet50", "fc"),
        ("swin_t", "head"),
        ("densenet121", "classifier"),
        ("vit_b_16", "heads"),
        ("vgg11", "classifier"),
    ],
)
def test_the_head_of_each_family_of_torchvision(name: str, head: str) -> None:
    spec = model_spec(f"torchvision:{name}")
    with torch.device("meta"):
        model = spec.build((3, 32, 32), 7)
    assert spec.head == (head,)
    outputs = [part.out_features for part in model.get_submodule(head).modules() if isinstance(part, nn.Linear)]
    assert outputs[-1] == 7


def test_models_with_auxiliary_classifiers_give_one_tensor_in_train_mode() -> None:
    model = built("torchvision:googlenet", (3, 32, 32), 7)
    assert model.train()(torch.rand(2, 3, 32, 32)).shape == (2, 7)


def test_images_that_a_transformer_cannot_cut_into_patches_are_an_error() -> None:
    with pytest.raises(ConfigError, match="vit_b_16 cannot take images of 40x40 pixels"):
        build_model("torchvision:vit_b_16", (3, 40, 40), 10, seed=0)


@pytest.mark.parametrize(("name", "smallest"), [("resnet18", 8), ("vgg16_bn", 32), ("torchvision:alexnet", 63)])
def test_images_that_are_too_small_are_an_error_with_both_sizes(name: str, smallest: int) -> None:
    given = smallest - 1
    with pytest.raises(ConfigError, match=f"{name} .* least {smallest}x{smallest} pixels, got 70x{given}"):
        build_model(name, (3, 70, given), 10, seed=0)


@pytest.mark.parametrize("name", ["resnet18", "resnet18_sota"])
@pytest.mark.parametrize(("normalisation", "groups"), [("layer", 1), ("group", 32)])
def test_normalisation_of_a_resnet_can_be_switched_and_draws_the_same_weights(name, normalisation, groups) -> None:
    model = build_model(name, CIFAR, 10, seed=0, normalisation=normalisation)
    kinds = [part for part in model.modules() if isinstance(part, nn.GroupNorm | nn.BatchNorm2d)]
    assert len(kinds) == 20  # stem, two in each of eight blocks, three shortcuts
    assert {(type(part), part.num_groups) for part in kinds} == {(nn.GroupNorm, groups)}
    assert parameter_count(model) == 11_173_962
    plain = dict(built(name).named_parameters())
    assert all(torch.equal(value, plain[key]) for key, value in model.named_parameters())


def test_layer_norm_of_a_map_is_over_channels_and_positions_of_one_image() -> None:
    norm = build_model("resnet18", CIFAR, 10, seed=0, normalisation="layer").bn1
    maps = 3 + 5 * torch.randn(2, 64, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(norm(maps), nn.functional.layer_norm(maps, maps.shape[1:]))


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("resnet")])
def test_other_models_have_no_other_normalisation(name: str) -> None:
    with pytest.raises(ConfigError, match=f"model.normalisation: {name} has no 'layer', .* resnet18, resnet18_sota"):
        build_model(name, CIFAR, 10, seed=0, normalisation="layer")


def test_one_class_is_an_error() -> None:
    with pytest.raises(ConfigError, match="cnn3 needs at least 2 classes to tell apart, got 1"):
        build_model("cnn3", CIFAR, 1, seed=0)


@pytest.mark.parametrize(
    ("name", "suggestion"), [("resnet81", "resnet18"), ("torchvision:efficientnet_b00", "efficientnet_b0")]
)
def test_unknown_names_get_a_suggestion(name: str, suggestion: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown model '{name}' .did you mean '{suggestion}'"):
        model_spec(name)


def test_only_the_mlp_takes_images_that_are_not_normalised() -> None:
    assert [name for name, spec in MODELS.items() if not spec.normalised] == ["mlp"]


def test_a_spec_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        model_spec("cnn3").smallest = 1
