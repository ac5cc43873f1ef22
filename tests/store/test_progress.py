"""A run's progress file: what is left is arithmetic that can be checked by hand."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from dash_core.config import TrainingConfig
from dash_core.data import ChunkPlan
from dash_core.protocols import STANDARD, TwoPhase
from dash_core.records import ChunkRecord
from dash_core.training import EpochReport
from tasks.store import progress
from tasks.store.progress import PROGRESS_FILE, Progress, ProgressWriter, mark_progress, read_progress, write_progress

PLAN = ChunkPlan("toy", "digest", 0, torch.arange(60).split((10, 20, 30)))  # unions of 10, 30 and 60 images
SCHEDULE = [STANDARD.experiment(number, 3, "warm") for number in (1, 2, 3)]


@pytest.fixture(autouse=True)
def _every_epoch_is_written(monkeypatch):
    monkeypatch.setattr(progress, "WRITE_SECONDS", 0.0)


def report(chunk: int, epoch: int, images: int, seconds: float = 1.0, steps: int = 5) -> EpochReport:
    return EpochReport(chunk, epoch, steps, images, train_accuracy=0.9, train_loss=0.1, seconds=seconds)


def record(chunk: int, epochs: int = 4, steps: int = 8) -> ChunkRecord:
    return ChunkRecord(chunk, 10, 0.75, 1.0, (), 1.0, 0.0, steps, epochs, True)


def test_a_run_without_a_file_is_waiting(tmp_path):
    assert read_progress(tmp_path) == Progress(state="waiting")


def test_what_is_written_is_read(tmp_path):
    now = Progress("training", 1, 2, 3, 4, 0.5, 0.25, 100.0, 9.5)
    write_progress(tmp_path / "run", now)
    assert read_progress(tmp_path / "run") == now
    assert [path.name for path in (tmp_path / "run").iterdir()] == [PROGRESS_FILE]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"other": 1}', "3"])
def test_a_file_that_a_crash_emptied_or_tore_counts_as_waiting(tmp_path, content):
    (tmp_path / PROGRESS_FILE).write_text(content)
    assert read_progress(tmp_path) == Progress(state="waiting")


def test_before_a_chunk_is_finished_nobody_knows_what_is_left(tmp_path):
    ProgressWriter(tmp_path, PLAN, SCHEDULE).after_epoch(report(1, 3, images=10))
    assert read_progress(tmp_path) == Progress("training", 0, 1, 3, 5, 0.9, None, 10.0, None)


def test_after_a_chunk_its_epochs_are_expected_of_each_chunk_to_come(tmp_path):
    writer = ProgressWriter(tmp_path, PLAN, SCHEDULE)
    writer.after_epoch(report(1, 4, images=10))
    writer.after_experiment(record(1, epochs=4))
    now = read_progress(tmp_path)
    assert (now.finished, now.experiment, now.epoch, now.steps, now.test_accuracy) == (1, 1, 4, 8, 0.75)
    assert now.seconds_left == pytest.approx(4 * (30 + 60) / 10)


def test_within_a_chunk_the_epochs_that_are_done_are_subtracted(tmp_path):
    writer = ProgressWriter(tmp_path, PLAN, SCHEDULE)
    writer.after_epoch(report(1, 4, images=10))
    writer.after_experiment(record(1, epochs=4))
    writer.after_epoch(report(2, 1, images=30, seconds=3.0, steps=2))
    now = read_progress(tmp_path)
    assert (now.finished, now.experiment, now.steps) == (1, 2, 8 + 2)
    assert now.images_per_second == pytest.approx(10.0)
    assert now.seconds_left == pytest.approx(((4 - 1) * 30 + 4 * 60) / 10)


def longer_than_the_last(folder, accuracies: list[float], **training) -> Progress:
    """Return the progress in experiment 2, with these accuracies by epoch, after an experiment of 2 epochs."""
    writer = ProgressWriter(folder, PLAN, SCHEDULE, TrainingConfig(**{"stop_accuracy": 0.99, **training}))
    writer.after_epoch(report(1, 2, images=10))
    writer.after_experiment(record(1, epochs=2))
    for epoch, accuracy in enumerate(accuracies, start=1):
        writer.after_epoch(replace(report(2, epoch, images=30, seconds=3.0), train_accuracy=accuracy))
    return read_progress(folder)


def test_what_is_left_of_an_experiment_longer_than_the_last_follows_from_its_own_curve(tmp_path):
    halving = [1 - 0.64 / 2**epoch for epoch in range(5)]  # 4 % wrong after epoch 5: 1 % after 2 more, then 7 of 60
    assert longer_than_the_last(tmp_path, halving).seconds_left == pytest.approx((2 * 30 + 7 * 60) / 10)


def test_no_time_is_told_if_the_curve_is_short_or_does_not_rise_or_ends_nothing(tmp_path):
    assert longer_than_the_last(tmp_path, [0.5, 0.6, 0.7]).seconds_left is None
    assert longer_than_the_last(tmp_path, [0.9, 0.8, 0.9, 0.9, 0.9]).seconds_left is None
    assert longer_than_the_last(tmp_path, [0.5, 0.6, 0.7, 0.8, 0.9], stop_accuracy=None).seconds_left is None


def test_an_experiment_is_expected_to_end_at_max_epochs(tmp_path):
    slow = [0.1 + 0.001 * epoch for epoch in range(5)]
    assert longer_than_the_last(tmp_path, slow, max_epochs=8).seconds_left == pytest.approx((3 * 30 + 8 * 60) / 10)


def test_where_the_protocol_fixes_the_epochs_they_are_expected_and_not_those_of_the_last_chunk(tmp_path):
    protocol = TwoPhase(pretrain_epochs=2, epochs=5)
    plan = ChunkPlan("toy", "digest", 0, torch.arange(30).split((10, 20)))
    writer = ProgressWriter(tmp_path, plan, [protocol.experiment(number, 2, "warm") for number in (1, 2)])
    writer.after_epoch(report(1, 2, images=10))
    writer.after_experiment(record(1, epochs=2))
    assert read_progress(tmp_path).seconds_left == pytest.approx(5 * 30 / 10)
    writer.after_epoch(report(2, 3, images=30, seconds=3.0))
    assert read_progress(tmp_path).seconds_left == pytest.approx(2 * 30 / 10)


def test_speed_is_smoothed(tmp_path):
    writer = ProgressWriter(tmp_path, PLAN, SCHEDULE)
    writer.after_epoch(report(1, 1, images=10, seconds=1.0))
    writer.after_epoch(report(1, 2, images=10, seconds=0.5))
    assert read_progress(tmp_path).images_per_second == pytest.approx(0.8 * 10 + 0.2 * 20)


def test_at_the_end_nothing_is_left(tmp_path):
    writer = ProgressWriter(tmp_path, PLAN, SCHEDULE)
    writer.after_epoch(report(1, 1, images=10))
    writer.resumed([record(1), record(2), record(3)])
    assert read_progress(tmp_path).seconds_left == 0
    mark_progress(tmp_path, "done")
    now = read_progress(tmp_path)
    assert (now.state, now.finished, now.steps, now.seconds_left) == ("done", 3, 24, None)


def test_a_resumed_run_counts_the_chunks_before(tmp_path):
    writer = ProgressWriter(tmp_path, PLAN, SCHEDULE)
    writer.resumed([record(1, steps=8), record(2, steps=12)])
    writer.after_epoch(report(3, 1, images=60, seconds=2.0, steps=6))
    now = read_progress(tmp_path)
    assert (now.finished, now.steps) == (2, 8 + 12 + 6)
    assert now.seconds_left == pytest.approx((4 - 1) * 60 / 30)


def test_a_run_that_failed_keeps_what_it_showed(tmp_path):
    ProgressWriter(tmp_path, PLAN, SCHEDULE).after_epoch(report(1, 3, images=10))
    mark_progress(tmp_path, "failed")
    now = read_progress(tmp_path)
    assert (now.state, now.epoch) == ("failed", 3)


def test_within_a_chunk_the_file_is_written_at_most_at_every_interval(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "WRITE_SECONDS", 1000.0)
    writer = ProgressWriter(tmp_path, PLAN, SCHEDULE)
    writer.resumed([])
    writer.after_epoch(report(1, 1, images=10))
    assert json.loads((tmp_path / PROGRESS_FILE).read_text())["epoch"] == 0
    writer.after_experiment(record(1, epochs=4))
    assert read_progress(tmp_path).epoch == 4


def test_the_folder_of_a_removed_run_is_not_made_again(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    writer = ProgressWriter(folder, PLAN, SCHEDULE)
    writer.resumed([])
    shutil.rmtree(folder)
    writer.after_epoch(report(1, 3, images=10))
    writer.resumed([])
    assert not folder.exists()
