"""Training one chunk: what is measured and when, when it ends, what may break and what is then left."""

import math
from functools import partial
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dash_core.config import TrainingConfig
from dash_core.data import ChunkPlan
from dash_core.errors import TrainingError
from dash_core.interventions import Intervention, build_intervention
from dash_core.learner import Learner
from dash_core.loading import GrowingData, Normalisation, ResidentSet
from dash_core.optim import SAM
from dash_core.records import read_records
from dash_core.shrinking import batch_bounds
from dash_core.training import Observers, train_chunk
from tests import toy

pytestmark = pytest.mark.processor

WARM = build_intervention("warm", {})


class Threshold(nn.Module):
    """Says class 0 for every image if its one weight is positive, else class 1; remembers what it was shown."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([weight]))
        self.shown: list[list[int]] = []  # grey level of each image, batch by batch

    def forward(self, x):
        self.shown.append((x.flatten() * 255).round().int().tolist())
        score = self.weight.expand(len(x))
        return torch.stack((score, torch.zeros_like(score)), dim=1)


class PlusOne(torch.optim.Optimizer):
    """Adds 1 to each weight, whatever the gradient; remembers the learning rates it was given."""

    def __init__(self, parameters) -> None:
        super().__init__(parameters, {"lr": 0.4})
        self.rates: list[float] = []

    @torch.no_grad()
    def step(self):
        self.rates.append(self.param_groups[0]["lr"])
        for parameter in self.param_groups[0]["params"]:
            parameter.add_(1)


class ToNan(PlusOne):
    """Sets the weights to NaN at its third step."""

    def step(self):
        super().step()
        if len(self.rates) == 3:
            self.param_groups[0]["params"][0].data.fill_(math.nan)


def learner(model: nn.Module, make_optimizer=lambda model: PlusOne(model.parameters()), seed: int = 0) -> Learner:
    return Learner(build=lambda seed: model, make_optimizer=make_optimizer, seed=seed, device=toy.CPU)


def data(labels: list[int], levels: list[int] | None = None, chunk: int = 1) -> GrowingData:
    """Return grey images of one pixel as chunks 1..chunk, all of them in the first."""
    pixels = torch.tensor(levels or list(range(len(labels))), dtype=torch.uint8).view(-1, 1, 1, 1)
    resident = ResidentSet.of(pixels, torch.tensor(labels), Normalisation.to_unit(toy.CPU), toy.CPU)
    return GrowingData(resident, ChunkPlan("toy", "digest", 0, (torch.arange(len(labels)),)), chunk)


def config(batch_size: int, **changes) -> TrainingConfig:
    return TrainingConfig(
        **{"batch_size": batch_size, "schedule": "constant", "warmup_epochs": 0, "augmentation": "none", **changes}
    )


def epochs_of(model: nn.Module, labels: list[int], training: TrainingConfig, **options):
    """Train; return the outcome and the reports of its epochs."""
    reports = []
    outcome = train_chunk(learner(model, **options), data(labels), training, WARM, Observers(reports.append))
    return outcome, reports


def test_accuracy_is_measured_before_each_update():
    _, reports = epochs_of(Threshold(-1.5), [0] * 8, config(2, max_epochs=1))
    assert reports[0].train_accuracy == 0.5  # the weight is -1.5, -0.5, 0.5, 1.5 before its updates


def test_accuracy_is_the_mean_over_batches_not_over_images():
    _, reports = epochs_of(Threshold(-0.5), [0] * 7, config(4, max_epochs=1))
    assert reports[0].train_accuracy == 0.5  # 0 of 4, then 3 of 3; over images it would be 3/7


def test_loss_is_the_mean_over_batches_of_the_loss_before_each_update():
    _, reports = epochs_of(Threshold(0.0), [0] * 4, config(2, max_epochs=1))
    assert reports[0].train_loss == pytest.approx((math.log(2) + math.log(1 + math.exp(-1))) / 2)


def test_training_ends_with_the_first_epoch_that_reaches_the_stop_accuracy():
    outcome, reports = epochs_of(Threshold(-1.5), [0] * 8, config(2))
    assert [report.train_accuracy for report in reports] == [0.5, 1.0]
    assert (outcome.epochs, outcome.steps, outcome.converged) == (2, 8, True)


def test_an_epoch_that_just_reaches_the_stop_accuracy_ends_training():
    outcome, _ = epochs_of(Threshold(5.0), [0] * 9 + [1], config(10, stop_accuracy=0.9, max_epochs=3))
    assert (outcome.epochs, outcome.train_accuracy, outcome.converged) == (1, 0.9, True)


def test_training_that_does_not_reach_the_stop_accuracy_ends_at_max_epochs_unconverged():
    outcome, reports = epochs_of(Threshold(5.0), [0, 1] * 4, config(8, max_epochs=3))
    assert (len(reports), outcome.epochs, outcome.converged) == (3, 3, False)
    assert outcome.train_accuracy == 0.5


def test_without_a_stop_accuracy_training_takes_its_epochs_exactly_and_is_then_converged():
    for weight in (5.0, -5.0):  # right from the first epoch on, and never
        outcome, reports = epochs_of(Threshold(weight), [0] * 4, config(4, stop_accuracy=None, max_epochs=3))
        assert (len(reports), outcome.epochs, outcome.converged) == (3, 3, True)


def test_a_chunk_that_did_not_converge_is_recorded_as_such(tmp_path):
    run = toy.params(training={"max_epochs": 1}).run("warm", 0)
    toy.advance(toy.trajectory(tmp_path, run, toy.dataset()), chunks=1)
    (record,) = read_records(tmp_path)
    assert (record.converged, record.epochs) == (False, 1)
    assert record.train_accuracy < run.training.stop_accuracy


@pytest.mark.parametrize(("images", "steps"), [(6, 2), (8, 3), (7, 2)])
def test_the_last_partial_batch_is_a_step_unless_it_is_a_single_image(images, steps):
    outcome, reports = epochs_of(Threshold(5.0), [0] * images, config(3))
    assert (outcome.steps, reports[0].steps, reports[0].images) == (steps, steps, images)


def test_every_image_is_seen_once_an_epoch_in_an_order_of_its_own():
    model = Threshold(5.0)
    epochs_of(model, [0, 1] * 16, config(32, max_epochs=3))
    first, second, third = model.shown
    assert sorted(first) == sorted(second) == sorted(third) == list(range(32))
    assert first != second != third != first


@given(st.integers(1, 400), st.integers(2, 50))
def test_batches_cover_every_image_once_and_none_after_the_first_is_a_single_one(images, batch_size):
    bounds = batch_bounds(images, batch_size)
    assert [image for start, end in bounds for image in range(start, end)] == list(range(images))
    *full, (start, end) = bounds
    assert all(end - start == batch_size for start, end in full)
    assert end - start <= batch_size + 1
    assert end - start >= 2 or images == 1


def test_a_last_batch_of_one_image_joins_the_one_before():
    assert batch_bounds(9, 4) == [(0, 4), (4, 9)]
    assert batch_bounds(10, 4) == [(0, 4), (4, 8), (8, 10)]


def test_a_loss_that_is_not_finite_names_chunk_epoch_and_step():
    moving = learner(Threshold(1.0), lambda model: ToNan(model.parameters()))
    with pytest.raises(
        TrainingError, match=r"loss is nan at experiment 1, epoch 2, step 2, after .* \(optimizer.lr = 0.4\)"
    ):
        train_chunk(moving, data([0, 1] * 2), config(2, max_epochs=9), WARM)
    assert moving.optimizer.param_groups[0]["lr"] == 0.4


def test_a_run_that_diverges_keeps_the_records_of_the_chunks_before(tmp_path):
    run = toy.params(training={"max_epochs": 3}).run("warm", 0)
    moving = toy.advance(toy.trajectory(tmp_path, run, toy.dataset()), chunks=1)
    kept = read_records(tmp_path)
    moving.learner.optimizer.param_groups[0]["lr"] = 1e38
    with pytest.raises(
        TrainingError, match=r"experiment 2, epoch \d, step \d.*Records of the experiments before are kept"
    ):
        moving.advance()
    assert read_records(tmp_path) == kept == moving.records
    assert toy.trajectory(tmp_path, run, toy.dataset()).pending == range(2, 4)


def test_a_run_that_diverges_at_once_says_the_learning_rate_to_lower(tmp_path):
    run = toy.params(optimizer={"lr": 1e38}).run("warm", 0)
    with pytest.raises(TrainingError, match=r"experiment 1, epoch \d, step \d.*optimizer.lr = 1e\+38"):
        toy.trajectory(tmp_path, run, toy.dataset()).advance()


def test_the_schedule_starts_again_with_each_chunk():
    moving = learner(Threshold(5.0))
    for _ in range(2):
        train_chunk(moving, data([0, 1] * 4), config(2, warmup_epochs=2, max_epochs=1), WARM)
        assert moving.optimizer.param_groups[0]["lr"] == 0.4
    assert moving.optimizer.rates == pytest.approx([0.05, 0.1, 0.15, 0.2] * 2)  # stopped half-way up


def test_a_sam_update_is_two_passes_and_one_step():
    model = Threshold(5.0)
    moving = learner(model, lambda model: SAM(model.parameters(), lr=0.01, rho=0.1))
    outcome = train_chunk(moving, data([0, 1] * 2), config(2, max_epochs=1), WARM)
    assert (len(model.shown), outcome.steps) == (4, 2)
    assert model.shown[0] == model.shown[1] != model.shown[2] == model.shown[3]


class Linear(nn.Module):
    """Scores of two classes that depend on the grey level."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.3, -0.2]]))
        self.shown: list[int] = []  # images in each pass

    def forward(self, x):
        self.shown.append(len(x))
        return x.flatten(1) @ self.weight


def one_step(lr: float = 0.1, optimizer=torch.optim.SGD, **changes) -> Linear:
    model = Linear()
    moving = learner(model, lambda model: optimizer(model.parameters(), lr=lr))
    levels = [10, 80, 120, 200, 250, 30, 60]
    train_chunk(moving, data([0, 1, 0, 1, 1, 0, 0], levels), config(7, max_epochs=1, **changes), WARM)
    return model


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, partial(SAM, rho=0.1)])
def test_the_gradients_of_the_parts_of_a_batch_add_up_to_that_of_the_batch(optimizer):
    whole, parts = one_step(optimizer=optimizer), one_step(optimizer=optimizer, micro_batch_size=3)
    passes = 1 if optimizer is torch.optim.SGD else 2
    assert (whole.shown, parts.shown) == ([7] * passes, [3, 4] * passes)  # a last part of one joins the one before
    torch.testing.assert_close(parts.weight, whole.weight)
    assert not torch.equal(whole.weight, Linear().weight)


def test_a_penalty_counts_once_however_many_parts_a_batch_has():
    moving = learner(Threshold(0.0), lambda model: torch.optim.SGD(model.parameters(), lr=0.1))
    train_chunk(moving, data([0, 1] * 3), config(6, micro_batch_size=2, max_epochs=1), TwiceTheWeight())
    assert moving.model.weight.item() == pytest.approx(-0.2)


def test_a_gradient_longer_than_the_clip_norm_is_scaled_down_to_it_and_a_shorter_one_is_left():
    step = one_step(clip_norm=1e-3).weight - Linear().weight
    assert torch.linalg.vector_norm(step).item() == pytest.approx(0.1 * 1e-3, rel=1e-4)
    assert torch.equal(one_step(clip_norm=1e6).weight, one_step().weight)


class TwiceTheWeight(Intervention):
    """Penalises 2w, whose gradient is 2; keeps count of its calls."""

    name: ClassVar = "twice"
    calls: ClassVar[list[str]] = []

    def before_chunk(self, learner, data):
        self.calls.append(f"before {data.experiment}")
        return {}

    def penalty(self, learner):
        return 2 * learner.model.weight.sum() if isinstance(learner.model, Threshold) else None

    def after_step(self, learner):
        self.calls.append("step")

    def after_chunk(self, learner, data):
        self.calls.append(f"after {data.experiment}")


def test_a_penalty_enters_the_update_and_the_recorded_loss_is_without_it():
    moving = learner(Threshold(0.0), lambda model: torch.optim.SGD(model.parameters(), lr=0.1))
    outcome = train_chunk(moving, data([0, 1]), config(2, max_epochs=1), TwiceTheWeight())
    assert moving.model.weight.item() == pytest.approx(-0.2)  # the two images' own gradients cancel: 0 - 0.1 * 2
    assert outcome.train_loss == pytest.approx(math.log(2))

    outcome = train_chunk(moving, data([0, 1]), config(2, max_epochs=1), TwiceTheWeight())
    alone = (math.log(1 + math.exp(0.2)) + math.log(1 + math.exp(-0.2))) / 2
    assert outcome.train_loss == pytest.approx(alone)


def test_hooks_are_called_after_each_step_and_each_chunk_and_before_each_but_the_first(tmp_path):
    run = toy.params(chunks=2, training={"max_epochs": 1, "batch_size": 16}).run("warm", 0)
    moving = toy.trajectory(tmp_path, run, toy.dataset())
    moving.intervention = TwiceTheWeight()
    TwiceTheWeight.calls.clear()
    toy.advance(moving)
    assert TwiceTheWeight.calls == [*["step"] * 2, "after 1", "before 2", *["step"] * 4, "after 2"]


def test_batchnorm_takes_the_batches_statistics_while_training():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(1), nn.Linear(1, 2))
    moving = learner(model.eval(), lambda model: torch.optim.SGD(model.parameters(), lr=0.1))
    train_chunk(moving, data([0, 1], levels=[0, 255]), config(2, max_epochs=1), WARM)
    assert model[1].running_mean.item() == pytest.approx(0.1 * 0.5)
    assert all(module.training for module in model.modules())


class Masks(nn.Module):
    """Remembers what dropout makes of ones."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.dropout = nn.Dropout(0.5)
        self.drawn: list[list[float]] = []

    def forward(self, x):
        self.drawn.append(self.dropout(torch.ones(64)).tolist())
        return torch.stack((self.weight.expand(len(x)), torch.zeros(len(x))), dim=1)


def masks(seed: int, disturbance: int) -> list[list[float]]:
    torch.manual_seed(disturbance)
    before, model = torch.get_rng_state(), Masks()
    train_chunk(learner(model, seed=seed), data([0, 1] * 2), config(2, max_epochs=2), WARM)
    assert torch.equal(torch.get_rng_state(), before)
    return model.drawn


def test_dropout_follows_from_the_runs_seed_alone_and_differs_from_step_to_step():
    drawn = masks(seed=0, disturbance=1)
    assert drawn == masks(seed=0, disturbance=2)
    assert all(drawn[i] != drawn[j] for i in range(4) for j in range(i))
    assert drawn != masks(seed=1, disturbance=1)
