import sys

import pytest
import torch
from sklearn import datasets

from dash_core.config import DatasetConfig
from dash_core.data import DATASETS, load_dataset
from dash_core.data.digits import load_digits
from dash_core.data.hold_out import stratified_hold_out
from dash_core.errors import DataError


def test_digits_are_the_same_bits_for_ever():
    digits = load_digits(0.2)
    assert (len(digits.train), len(digits.test)) == (1438, 359)
    assert (DATASETS["digits"].train_size, DATASETS["digits"].test_size) == (1438, 359)
    assert digits.train.digest == "82d2bb028a40430e9e2b2bd060e28fe2c56f4a965301db5e5e62116a3e115f63"
    assert digits.test.digest == "0a15226b0bf1cf874d40fdd59886e45ab32d7d06ba8c285fab25b95ef72bf2da"


def test_digits_need_no_folder_of_data(tmp_path):
    digits = load_dataset(DatasetConfig(), data_root=tmp_path / "none", cache=tmp_path / "cache", download=False)
    assert digits.train.image_shape == (1, 8, 8)
    assert digits.train.classes == 10
    assert not (tmp_path / "none").exists()


def test_digits_are_those_that_scikit_learn_gives():
    digits, theirs = load_digits(0.2), datasets.load_digits()
    train, test = stratified_hold_out(torch.from_numpy(theirs.target).long(), digits.train.class_names, 0.2)
    for part, indices in ((digits.train, train), (digits.test, test)):
        assert part.labels.tolist() == theirs.target[indices].tolist()
        levels = part.images.squeeze(3).double() * 16 / 255
        assert torch.equal(levels.round(), torch.from_numpy(theirs.images[indices]))
    assert digits.train.class_names == tuple(map(str, theirs.target_names))


def test_digits_are_read_without_the_import_of_scikit_learn_and_kept_as_they_are(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    first = load_dataset(DatasetConfig(), data_root=tmp_path, cache=tmp_path / "cache")
    again = load_dataset(DatasetConfig(), data_root=tmp_path, cache=tmp_path / "cache")
    assert "sklearn" not in sys.modules
    assert (again.train.digest, again.test.digest) == (first.train.digest, first.test.digest)
    assert (again.train.mean, again.train.std) == (first.train.mean, first.train.std)


def test_grey_levels_span_the_whole_byte():
    digits = load_digits(0.2)
    assert sorted(digits.train.images.unique().tolist()) == [(level * 255 + 8) // 16 for level in range(17)]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_the_hold_out_keeps_the_proportions_of_the_classes(share):
    digits = load_digits(share)
    train, test = (torch.bincount(part.labels, minlength=10) for part in (digits.train, digits.test))
    assert torch.all((test - share * (train + test)).abs() <= 0.5)


def test_train_and_test_divide_all_digits_without_overlap():
    labels = torch.tensor([0, 1, 0, 1, 0, 0, 1])
    train, test = stratified_hold_out(labels, ("a", "b"), 0.4)
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(7))
    assert torch.bincount(labels[test]).tolist() == [2, 1]


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_every_class_keeps_an_image_on_either_side(share):
    labels = torch.tensor([0, 0, 0, 1, 1])
    train, test = stratified_hold_out(labels, ("a", "b"), share)
    assert set(labels[train].tolist()) == set(labels[test].tolist()) == {0, 1}


def test_a_class_of_one_image_cannot_be_held_out():
    with pytest.raises(DataError, match="class 'b' has 1 image"):
        stratified_hold_out(torch.tensor([0, 0, 1]), ("a", "b"), 0.5)
