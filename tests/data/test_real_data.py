"""With the real files beside the repository, where there are any: shared/data."""

from pathlib import Path

import pytest

from dash_core.config import DatasetConfig
from dash_core.data import DATASETS, load_dataset

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def load(name, folder, cache):
    if not (SHARED / folder).is_dir():
        pytest.skip(f"no {SHARED / folder}")
    return load_dataset(DatasetConfig(name=name), data_root=SHARED / folder, cache=cache, download=False)


@pytest.mark.parametrize(("name", "folder"), [("cifar10", "cifar-10"), ("fashion_mnist", "fashion-mnist")])
def test_the_whole_set_loads_offline_as_the_catalogue_says(tmp_path, name, folder):
    found, spec = load(name, folder, tmp_path), DATASETS[name]
    assert (len(found.train), len(found.test)) == (spec.train_size, spec.test_size)
    assert (found.train.image_shape, found.train.classes) == (spec.image_shape, spec.classes)
    assert found.train.labels.bincount().tolist() == [spec.train_size // spec.classes] * spec.classes
    again = load(name, folder, tmp_path)
    assert (again.train.digest, again.test.digest) == (found.train.digest, found.test.digest)


def test_the_sample_of_tiny_imagenet_loads(tmp_path):
    found = load("tiny_imagenet", "tiny-imagenet-sample", tmp_path)
    assert (len(found.train), len(found.test)) == (1000, 200)
    assert found.train.class_names[:2] == ("bullfrog, Rana catesbeiana", "Egyptian cat")
    assert found.train.image_shape == (3, 64, 64)
