"""A process opens a dataset once."""

import pytest

from dash_core.config import DatasetConfig
from tasks.store import datasets
from tasks.store.datasets import OpenedDataset, open_dataset
from tasks.store.place import Place
from tests import toy


@pytest.fixture
def opened(monkeypatch) -> list:
    """Stand in for reading data; lists what was read."""
    configs = []

    def load(config, **where):
        configs.append(config)
        return toy.dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "_opened", OpenedDataset())
    return configs


def test_a_dataset_is_opened_once_and_another_or_another_place_afresh(opened, tmp_path):
    place, elsewhere = (Place(store=tmp_path / name, data_root=tmp_path) for name in "ab")
    first = open_dataset(DatasetConfig(), place)
    assert open_dataset(DatasetConfig(), place) is first
    assert len(opened) == 1
    assert open_dataset(DatasetConfig(train_size=9), place) is not first
    open_dataset(DatasetConfig(train_size=9), elsewhere)
    assert [config.train_size for config in opened] == [None, 9, 9]


def test_data_that_could_not_be_opened_are_asked_for_again(opened, tmp_path, monkeypatch):
    place, load = Place(store=tmp_path, data_root=tmp_path), datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda config, **where: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        open_dataset(DatasetConfig(), place)
    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(open_dataset(DatasetConfig(), place).train) == 64
