import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dash_core.config import DatasetConfig
from dash_core.data import ImageSet, evaluation_indices, training_indices, training_labels
from dash_core.errors import ConfigError


def labelled(images: int, classes: int) -> ImageSet:
    pixels = torch.zeros((images, 1, 1, 1), dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(images) % classes, tuple(map(str, range(classes))), (0.0,), (1.0,))


@given(st.integers(1, 200), st.integers(2, 12), st.floats(0, 1), st.integers(0, 2**31 - 1))
def test_exactly_the_asked_share_of_labels_changes(images, classes, share, seed):
    train = labelled(images, classes)
    noisy = training_labels(train, DatasetConfig(label_noise=share), seed)
    assert int((noisy != train.labels).sum()) == round(share * images)
    assert int(noisy.min()) >= 0
    assert int(noisy.max()) < classes


def test_a_noisy_label_is_any_other_class_equally_often():
    train = labelled(30_000, 3)
    noisy = training_labels(train, DatasetConfig(label_noise=1.0), seed=0)
    shares = torch.bincount((noisy - train.labels) % 3, minlength=3) / 30_000
    assert shares[0] == 0
    assert shares[1] == pytest.approx(0.5, abs=0.02)


def test_label_noise_is_seeded_and_leaves_the_true_labels_alone():
    train = labelled(100, 5)
    true = train.labels.clone()
    one, same, other = (training_labels(train, DatasetConfig(label_noise=0.5), seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(train.labels, true)


def test_label_noise_does_not_depend_on_the_subset_used():
    train = labelled(100, 5)
    whole = training_labels(train, DatasetConfig(label_noise=0.5), seed=0)
    part = training_labels(train, DatasetConfig(label_noise=0.5, train_size=10), seed=0)
    assert torch.equal(whole, part)


def test_without_noise_the_labels_are_the_true_ones():
    train = labelled(10, 2)
    assert torch.equal(training_labels(train, DatasetConfig(), seed=0), train.labels)


def test_label_noise_needs_another_class():
    with pytest.raises(ConfigError, match=r"dataset\.label_noise: 0\.5 needs at least 2 classes"):
        training_labels(labelled(10, 1), DatasetConfig(label_noise=0.5), seed=0)


@settings(max_examples=50)
@given(st.data())
def test_training_indices_are_a_sorted_subset_of_the_asked_size(data):
    images = data.draw(st.integers(1, 100))
    size = data.draw(st.integers(1, images))
    indices = training_indices(labelled(images, 1), DatasetConfig(train_size=size), seed=3)
    assert len(indices) == size
    assert indices.tolist() == sorted(set(indices.tolist()))
    assert 0 <= int(indices[0]) <= int(indices[-1]) < images


def test_without_a_size_every_image_is_used():
    assert training_indices(labelled(5, 1), DatasetConfig(), seed=0).tolist() == [0, 1, 2, 3, 4]


def test_the_subset_is_seeded():
    one, same, other = (training_indices(labelled(90, 1), DatasetConfig(train_size=30), seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_more_training_images_than_there_are_is_refused():
    with pytest.raises(ConfigError, match=r"dataset\.train_size: 6 is more than the 5 training images"):
        training_indices(labelled(5, 1), DatasetConfig(train_size=6), seed=0)


@given(st.integers(1, 100), st.data())
def test_test_indices_are_a_sorted_subset_of_the_asked_size_and_always_the_same(images, data):
    size = data.draw(st.integers(1, images))
    one, same = (evaluation_indices(labelled(images, 1), DatasetConfig(test_size=size)) for _ in range(2))
    assert len(one) == size
    assert one.tolist() == sorted(set(one.tolist()))
    assert 0 <= int(one[0]) <= int(one[-1]) < images
    assert torch.equal(one, same)


def test_a_smaller_test_set_is_part_of_a_larger_one():
    small, large = (evaluation_indices(labelled(90, 1), DatasetConfig(test_size=size)).tolist() for size in (10, 30))
    assert set(small) < set(large)
    assert large != list(range(30))


def test_without_a_size_no_test_image_is_chosen_out():
    assert evaluation_indices(labelled(5, 1), DatasetConfig()) is None


def test_more_test_images_than_there_are_is_refused():
    with pytest.raises(ConfigError, match=r"dataset\.test_size: 6 is more than the 5 test images"):
        evaluation_indices(labelled(5, 1), DatasetConfig(test_size=6))
