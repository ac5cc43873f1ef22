"""How long an item is expected to take: arithmetic on its runs."""

import pytest
import torch

from dash_core.comparison import Params
from dash_core.config import DatasetConfig, parse
from dash_core.data.presence import is_here
from dash_core.models import build_model, forward_flops
from dash_core.views.reproduction import ITEMS
from dash_core.views.reproduction.expected import expected_seconds, run_flops, training_rate
from dash_core.views.reproduction.item import SCALES
from flows.command_line.reproduction import about

SHAPE = (1, 8, 8)
FORWARD = forward_flops(build_model("cnn3_small", SHAPE, 10, seed=0), SHAPE)


def run(label="cold", **changes):
    base = {"dataset": {"train_size": 100, "test_size": 50}, "chunks": 2, "training": {"max_epochs": 500}}
    return parse(Params, {**base, **changes}).run(label, 0)


def test_a_run_is_its_epochs_on_growing_data_and_its_tests():
    assert run_flops(run()) == FORWARD * (3 * 15 * (50 + 100) + 2 * 50)
    assert run_flops(run("warm")) == FORWARD * (3 * 5 * (50 + 100) + 2 * 50)


def test_a_narrow_network_takes_twice_the_epochs():
    narrow = run(model={"name": "resnet18", "width": 16})
    forward = forward_flops(build_model("resnet18", SHAPE, 10, seed=0, width=16), SHAPE)
    assert run_flops(narrow) == forward * (3 * 30 * (50 + 100) + 2 * 50)


def test_sam_takes_two_gradients_a_step():
    assert run_flops(run(optimizer={"name": "sam"})) == FORWARD * (2 * 3 * 15 * 150 + 100)


def test_epochs_that_are_fixed_or_limited_are_taken_as_they_are():
    assert run_flops(run(training={"max_epochs": 2})) == FORWARD * (3 * 2 * 150 + 100)
    two_phase = {"name": "two_phase", "pretrain_epochs": 4, "epochs": 7}
    assert run_flops(run(protocol=two_phase)) == FORWARD * (3 * (4 * 50 + 7 * 100) + 100)


def test_more_workers_and_a_faster_machine_take_less_time():
    item = ITEMS["figure-7"]
    slow, fast = (expected_seconds(item, "small", rate, workers) for rate, workers in ((1e10, 1), (1e11, 2)))
    assert slow > 2 * fast


@pytest.mark.parametrize("name", ITEMS)
def test_full_takes_longer_than_small_and_small_longer_than_smoke(name):
    full, small, smoke = (expected_seconds(ITEMS[name], scale, 1e11, 2) for scale in SCALES)
    assert full >= small >= smoke


def test_a_second_s_measurement_gives_a_rate():
    assert training_rate(torch.device("cpu")) > 1e7


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "about 1 s"), (44, "about 44 s"), (130, "about 2.2 min"), (9000, "about 2.5 h"), (1e6, "about 12 d")],
)
def test_times_are_told_to_two_digits(seconds, words):
    assert about(seconds) == words


def test_data_are_here_only_where_their_files_are(tmp_path):
    assert is_here(DatasetConfig(name="digits"), tmp_path)
    assert not is_here(DatasetConfig(name="cifar10"), tmp_path)
    assert not is_here(DatasetConfig(name="tiny_imagenet"), tmp_path)
    assert not list(tmp_path.iterdir())
