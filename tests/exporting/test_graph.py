"""The graph of an exported model: resized as Pillow does it, normalised as in training."""

import numpy as np
import pytest
import torch
from PIL import Image

from dash_core.data.image_file import resized
from dash_core.exporting import ModelCard, RawImageClassifier, cut_to_size
from dash_core.loading import Normalisation
from tests import toy
from tests.exporting.models import card, images, model

SIZES = [((8, 8), 8), ((37, 53), 8), ((64, 64), 32), ((5, 9), 16), ((1, 1), 8), ((200, 131), 64), ((333, 500), 224)]


@pytest.mark.parametrize(("shape", "side"), SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_resized_as_the_image_folder_resizes_it_pixel_by_pixel(shape, side, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, channels), dtype=np.uint8)
    expected = np.asarray(
        resized(Image.fromarray(pixels if channels == 3 else pixels[:, :, 0]), side, "crop", "white")
    ).reshape(side, side, channels)
    found = cut_to_size(torch.from_numpy(pixels)[None].permute(0, 3, 1, 2), (side, side))
    assert np.array_equal(found[0].permute(1, 2, 0).numpy(), expected)


def test_an_image_of_another_shape_is_covered_and_cut_in_its_centre():
    pixels = torch.zeros((1, 1, 6, 20))
    pixels[:, :, :, 6:14] = 255  # the middle, as wide as the cut and the reach of the filter
    found = cut_to_size(pixels, (3, 2))
    assert found.shape == (1, 1, 3, 2)
    assert torch.equal(found, torch.full((1, 1, 3, 2), 255.0, dtype=torch.float64))


def test_probabilities_are_those_of_the_model_on_normalised_images():
    network, raw = model().eval(), images()
    classifier = RawImageClassifier(network, card().image_shape, card().mean, card().std).eval()
    with torch.inference_mode():
        expected = network(Normalisation((0.3,), (0.2,), torch.device("cpu"))(raw.permute(0, 3, 1, 2))).softmax(1)
        torch.testing.assert_close(classifier(raw), expected, rtol=0, atol=1e-6)


def test_the_card_of_a_model_that_takes_plain_pixels_has_no_normalisation():
    assert (ModelCard.of("cnn3", toy.images(4)).mean, ModelCard.of("mlp", toy.images(4)).mean) == ((0.3,), (0.0,))
    assert ModelCard.of("mlp", toy.images(4)).std == (1.0,)
    assert ModelCard.from_dict(ModelCard.of("cnn3", toy.images(4), run="x").as_dict()).facts == {"run": "x"}
