"""torchvision's transforms by name: each image with numbers of its own, whatever the batch, the order and the state."""

import pytest
import torch
from torchvision.transforms import v2

from dash_core.augmentation import draw_augmentation
from dash_core.config import parse
from dash_core.errors import ConfigError
from dash_core.rehearsal import rehearse, rehearse_on
from dash_core.transforms import transforms_of
from flows.command_line.settings import check
from tests import toy

TEXT = "torchvision:RandomCrop(8, padding=2) + RandomHorizontalFlip + ColorJitter(brightness=0.4)"
IMAGES = torch.randint(0, 256, (6, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def drawn(text: str = TEXT, seed: int = 0):
    return draw_augmentation(text, len(IMAGES), (3, 8, 8), torch.Generator().manual_seed(seed))


def test_the_transforms_are_torchvisions_one_after_another():
    whole = drawn()(IMAGES, slice(0, 6))
    twin = v2.Compose([v2.RandomCrop(8, padding=2), v2.RandomHorizontalFlip(), v2.ColorJitter(brightness=0.4)])
    seeds = torch.randint(2**63 - 1, (6,), generator=torch.Generator().manual_seed(0))
    for made, image, seed in zip(whole, IMAGES, seeds.tolist(), strict=True):
        torch.manual_seed(seed)
        assert torch.equal(made, twin(image))
    assert not torch.equal(whole, IMAGES)
    assert (whole.dtype, whole.shape) == (IMAGES.dtype, IMAGES.shape)


def test_an_image_is_the_same_in_any_batch_and_batch_and_global_generators_are_left_alone():
    before, kept = torch.get_rng_state(), IMAGES.clone()
    drawn("torchvision:RandomErasing(p=1.0, inplace=True)")(IMAGES, slice(0, 6))
    assert torch.equal(IMAGES, kept)
    whole = drawn()(IMAGES, slice(0, 6))
    parts = [drawn()(IMAGES[rows].to(memory_format=torch.channels_last), rows) for rows in (slice(0, 2), slice(2, 6))]
    assert torch.equal(torch.cat(parts), whole)
    some = torch.tensor([4, 1])
    assert torch.equal(drawn()(IMAGES[some], some), whole[some])
    assert not torch.equal(drawn(seed=1)(IMAGES, slice(0, 6)), whole)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_stopped_anywhere_in_an_epoch_ends_with_the_same_weights(tmp_path):
    data = toy.dataset(train=48, channels=3)
    training = {"augmentation": TEXT, "max_epochs": 2, "stop_accuracy": None}
    run = toy.params(chunks=2, model={"name": "cnn3_small"}, training=training).run("dash", 0)
    whole = toy.advance(toy.trajectory(tmp_path / "whole", run, data))
    stopped = toy.interrupted(tmp_path / "stopped", run, data, stops=[2, 4])
    for ours, theirs in zip(
        stopped.learner.model.state_dict().values(), whole.learner.model.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("RandomCrp(8)", r"no transform 'RandomCrp' \(did you mean 'RandomCrop'\?\)"),
        ("RandomCrop(", "cannot be read"),
        ("RandomCrop(8).__class__", "is no transform"),
        ("RandomCrop(__import__('os'))", "arguments are numbers, strings, lists and the like"),
        ("RandomApply([RandomHorizontalFlip()])", "not other transforms"),
        ("RandomCrop(**{'size': 8})", "is no transform"),
        ("RandomCrop(height=8)", "unexpected keyword argument"),
        ("Transform", "no transform 'Transform'"),
        ("functional", "no transform 'functional'"),
        ("8", "is no transform"),
        ("", "cannot be read"),
    ],
)
def test_what_is_no_transform_is_refused_before_anything_starts(text, words):
    with pytest.raises(ConfigError, match=rf"training\.augmentation: .*{words}"):
        transforms_of(f"torchvision:{text}")
    if text:
        with pytest.raises(ConfigError, match=rf"training\.augmentation: .*{words}"):
            check(toy.params(training={"augmentation": f"torchvision:{text}"}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Resize(4)", r"makes torch\.uint8 \[3, 4, 4\] of torch\.uint8 \[3, 8, 8\]; size and type must stay"),
        ("ConvertImageDtype", r"makes torch\.float32 \[3, 8, 8\]"),
        ("ToPILImage", "makes Image of"),
        ("RandomCrop(99)", "fails on an image of"),
        ("MixUp(num_classes=4)", "fails on an image of"),  # it mixes the images of a batch, and their labels
        ("RandomZoomOut(p=0.3)", "size and type must stay"),  # not by every seed
    ],
)
def test_transforms_that_do_not_fit_the_images_are_refused_in_a_rehearsal_and_where_they_run(text, words, tmp_path):
    training = {"augmentation": f"torchvision:{text}", "max_epochs": 3, "stop_accuracy": None}
    run, data = toy.params(training=training).run("warm", 0), toy.dataset(channels=3)
    with pytest.raises(ConfigError, match=rf"training\.augmentation: .*{words}"):
        rehearse(run, data)
    with pytest.raises(ConfigError, match=words):
        rehearse_on((3, 8, 8), ["a", "b"], run)
    with pytest.raises(ConfigError, match=words):
        toy.advance(toy.trajectory(tmp_path, run, data))


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(ConfigError, match=r"training.augmentation: .*or torchvision's, such as torchvision:RandAug"):
        toy.params(training={"augmentation": "randaugment"})


def test_the_text_is_part_of_a_runs_identity():
    first, second = (
        toy.params(training={"augmentation": f"torchvision:RandAugment(magnitude={size})"}).run("warm", 0)
        for size in (5, 9)
    )
    assert first.id != second.id
    assert parse(type(first), first.model_dump(mode="json")) == first
