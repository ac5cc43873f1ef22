import pytest
import torch

from dash_core.data.normalisation import channel_statistics


@pytest.mark.processor
def test_statistics_are_those_of_the_float_images():
    images = torch.randint(0, 256, (50, 4, 5, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = images.double().reshape(-1, 3) / 255
    mean, std = channel_statistics(images)
    assert mean == pytest.approx(pixels.mean(0).tolist(), abs=1e-14)
    assert std == pytest.approx(pixels.std(0, correction=0).tolist(), abs=1e-14)


def test_statistics_by_hand():
    images = torch.tensor([0, 255, 255, 0], dtype=torch.uint8).reshape(4, 1, 1, 1)
    assert channel_statistics(images) == ((0.5,), (0.5,))


def test_a_constant_channel_is_divided_by_one():
    images = torch.full((3, 2, 2, 1), 51, dtype=torch.uint8)
    assert channel_statistics(images) == ((0.2,), (1.0,))
