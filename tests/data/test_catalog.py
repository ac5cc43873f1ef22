from pathlib import Path

import pytest

from dash_core.config import DatasetConfig
from dash_core.data import DATASETS, load_dataset
from dash_core.data.sources import OPENERS
from dash_core.errors import ConfigError


def test_an_unknown_dataset_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"dataset\.name: unknown dataset 'cifar11' \(did you mean 'cifar10'\?\)"):
        load_dataset(DatasetConfig(name="cifar11"), data_root=Path("none"), cache=Path("none"))


def test_every_dataset_of_the_catalogue_can_be_loaded():
    assert set(DATASETS) == set(OPENERS)


def test_every_entry_says_what_it_is_in_a_line():
    for name, spec in DATASETS.items():
        assert spec.name == name
        assert spec.summary
        assert "\n" not in spec.summary
        assert spec.source
