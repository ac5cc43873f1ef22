"""Augmentation in batches against torchvision, one image at a time."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as slow

from dash_core.augmentation import (
    AUGMENTATIONS,
    Augmentation,
    CropFlip,
    CropFlipRotate,
    ResizedCropFlip,
    draw_augmentation,
)
from dash_core.errors import ConfigError

IMAGES = 64
DRAWN = ["crop_flip", "crop_flip_rotate", "resized_crop_flip"]


def pictures(*, side: int = 32, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 256, (IMAGES, channels, side, side), generator=generator, dtype=torch.uint8)


def draw(name: str, *, images: int = IMAGES, shape: tuple[int, int, int] = (3, 32, 32), seed: int = 0) -> Augmentation:
    return draw_augmentation(name, images, shape, torch.Generator().manual_seed(seed))


def one_by_one(change: Callable[[Tensor, int], Tensor], batch: Tensor) -> Tensor:
    return torch.stack([change(image, index) for index, image in enumerate(batch)])


def crop_flip_twin(augmentation: CropFlip, image: Tensor, index: int) -> Tensor:
    padded = slow.pad(image, [4, 4, 4, 4])
    crop = slow.crop(padded, int(augmentation.top[index]), int(augmentation.left[index]), *image.shape[1:])
    return slow.horizontal_flip(crop) if augmentation.flip[index] else crop


def rotate_twin(augmentation: CropFlipRotate, image: Tensor, index: int) -> Tensor:
    degrees = math.degrees(math.atan2(augmentation.sine[index], augmentation.cosine[index]))
    return slow.rotate(crop_flip_twin(augmentation, image, index), degrees, fill=[0.0])


def resized_crop_twin(augmentation: ResizedCropFlip, image: Tensor, index: int, antialias: bool) -> Tensor:
    box = [int(getattr(augmentation, name)[index]) for name in ("top", "left", "height", "width")]
    crop = slow.resized_crop(image, *box, size=list(image.shape[1:]), antialias=antialias)
    return slow.horizontal_flip(crop) if augmentation.flip[index] else crop


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.processor
def test_crop_and_flip_equal_torchvision_exactly(dtype: torch.dtype) -> None:
    batch, augmentation = pictures().to(dtype), draw("crop_flip")
    expected = one_by_one(lambda image, index: crop_flip_twin(augmentation, image, index), batch)
    torch.testing.assert_close(augmentation(batch, slice(0, IMAGES)), expected, rtol=0, atol=0)


def test_crop_and_flip_of_images_that_are_not_square() -> None:
    batch, augmentation = pictures()[:, :1, :, :20], draw("crop_flip", shape=(1, 32, 20))
    expected = one_by_one(lambda image, index: crop_flip_twin(augmentation, image, index), batch)
    torch.testing.assert_close(augmentation(batch, slice(0, IMAGES)), expected, rtol=0, atol=0)


@pytest.mark.parametrize("width", [32, 21])
@pytest.mark.processor
def test_rotation_takes_the_same_pixels_as_torchvision(width: int) -> None:
    batch, augmentation = pictures()[..., :width], draw("crop_flip_rotate", shape=(3, 32, width))
    expected = one_by_one(lambda image, index: rotate_twin(augmentation, image, index), batch)
    assert (augmentation(batch, slice(0, IMAGES)) == expected).float().mean() >= 0.999


def test_rotation_turns_counter_clockwise_about_the_centre() -> None:
    zero, four = torch.zeros(1), torch.tensor([4])
    quarter = CropFlipRotate(torch.tensor([False]), four, four, cosine=zero, sine=torch.ones(1))
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    torch.testing.assert_close(quarter(image, slice(0, 1)), torch.tensor([[[[2.0, 4.0], [1.0, 3.0]]]]))


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("side", "width"), [(64, 64), (64, 40), (224, 224)])
@pytest.mark.processor
def test_resized_crop_equals_torchvision_with_and_without_antialiasing(side: int, width: int, antialias: bool) -> None:
    batch = pictures(side=side)[..., :width] / 255
    augmentation = draw("resized_crop_flip", shape=(3, side, width))
    expected = one_by_one(lambda image, index: resized_crop_twin(augmentation, image, index, antialias), batch)
    torch.testing.assert_close(augmentation(batch, slice(0, IMAGES)), expected, rtol=0, atol=1e-4)


def test_resized_crop_of_bytes_is_rounded_to_the_nearest() -> None:
    batch, augmentation = pictures(), draw("resized_crop_flip")
    exact = augmentation(batch.double(), slice(0, IMAGES))
    found = augmentation(batch, slice(0, IMAGES))
    assert found.dtype == torch.uint8
    assert (found - exact).abs().max() <= 0.5 + 1e-3


def test_resized_crops_cover_what_torchvision_allows() -> None:
    crops = draw("resized_crop_flip", images=5000, shape=(3, 64, 64))
    area, ratio = crops.height * crops.width / 64**2, crops.width / crops.height
    assert area.min() > 0.07
    assert area.max() <= 1
    assert 0.70 < ratio.min() < 0.80  # sides are rounded to pixels: a little beyond 3/4 and 4/3
    assert 1.25 < ratio.max() < 1.43
    assert ((crops.top >= 0) & (crops.top + crops.height <= 64)).all()
    assert ((crops.left >= 0) & (crops.left + crops.width <= 64)).all()


@pytest.mark.parametrize(("shape", "box"), [((3, 100, 4), (47, 0, 5, 4)), ((3, 4, 100), (0, 47, 4, 5))])
def test_images_too_narrow_for_any_crop_get_the_central_one(
    shape: tuple[int, int, int], box: tuple[int, int, int, int]
) -> None:
    crops = draw("resized_crop_flip", images=500, shape=shape)
    boxes = torch.stack((crops.top, crops.left, crops.height, crops.width), dim=1).tolist()
    assert list(box) in boxes


def test_draws_are_uniform_over_offsets_flips_and_angles() -> None:
    crops = draw("crop_flip_rotate", images=9000)
    for offset in (crops.top, crops.left):
        counts = offset.bincount(minlength=9)
        assert len(counts) == 9
        assert counts.min() > 850
    assert crops.flip.float().mean() == pytest.approx(0.5, abs=0.03)
    degrees = torch.atan2(crops.sine, crops.cosine).rad2deg()
    assert degrees.abs().max() <= 15.001
    assert degrees.std() == pytest.approx(30 / math.sqrt(12), rel=0.03)


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.processor
def test_an_epoch_in_batches_equals_the_epoch_at_once(name: str) -> None:
    batch, augmentation = pictures(), draw(name)
    parts = [augmentation(batch[start : start + 24], slice(start, start + 24)) for start in (0, 24, 48)]
    torch.testing.assert_close(torch.cat(parts), augmentation(batch, slice(0, IMAGES)), rtol=0, atol=0)


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_generator_gives_the_same_images_and_the_batch_is_left_alone(name: str) -> None:
    batch = pictures()
    found = [draw(name, seed=seed)(batch, slice(0, IMAGES)) for seed in (3, 3, 4)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(batch, pictures())


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_global_generator_is_not_touched(name: str) -> None:
    before = torch.get_rng_state()
    augmentation = draw(name)
    if augmentation is not None:
        augmentation(pictures(), slice(0, IMAGES))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.processor
def test_channels_last_batches_give_the_same_images(name: str) -> None:
    batch, augmentation = pictures(), draw(name)
    found = augmentation(batch.to(memory_format=torch.channels_last), slice(0, IMAGES))
    assert torch.equal(found, augmentation(batch, slice(0, IMAGES)))


@pytest.mark.parametrize("name", DRAWN)
def test_every_device_gets_the_same_numbers(name: str) -> None:
    augmentation = draw(name)
    moved = augmentation.to("meta")
    assert type(moved) is type(augmentation)
    assert {tensor.device.type for tensor in vars(moved).values()} == {"meta"}
    assert moved(pictures().to("meta"), slice(0, IMAGES)).shape == (IMAGES, 3, 32, 32)  # no value is ever waited for


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", DRAWN)
def test_a_gpu_gives_the_same_images(name: str) -> None:
    batch, augmentation = pictures() / 255, draw(name)
    found = augmentation.to("cuda")(batch.cuda(), slice(0, IMAGES)).cpu()
    same = (found - augmentation(batch, slice(0, IMAGES))).abs() < 1e-4
    assert same.float().mean() >= 0.999


def test_none_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert draw_augmentation("none", IMAGES, (3, 32, 32), generator) is None
    assert torch.equal(generator.get_state(), before)


def test_positions_must_match_the_batch() -> None:
    with pytest.raises(ValueError, match="are 32 images, the batch has 64"):
        draw("crop_flip")(pictures(), slice(0, 32))


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="did you mean 'crop_flip'"):
        draw("crop_flp")
