"""The loss of training: class weights and label smoothing by their formulas, and the plain loss without them."""

import math

import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from dash_core.config import TrainingConfig, parse
from dash_core.errors import ConfigError
from dash_core.interventions.dash import Dash
from dash_core.loss import balanced_weights, training_loss
from dash_core.records import read_records
from dash_core.shrinking import averaged_gradient
from tests import toy

LABELS = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 3])  # class 2 has no image
OUTPUTS = torch.tensor([[2.0, 0.0, 1.0, -1.0]]).repeat(9, 1)


def test_balanced_weights_are_those_of_scikit_learn():
    expected = compute_class_weight("balanced", classes=LABELS.unique().numpy(), y=LABELS.numpy())
    assert balanced_weights(LABELS)[[0, 1, 3]].tolist() == pytest.approx(expected.tolist())
    assert balanced_weights(LABELS)[LABELS].mean().item() == pytest.approx(1)


def test_with_balanced_weights_each_class_has_the_same_share_of_the_loss():
    loss = training_loss(TrainingConfig(class_weights="balanced"), LABELS)
    each = functional.cross_entropy(OUTPUTS[:4], torch.arange(4), reduction="none")
    assert loss(OUTPUTS, LABELS).item() == pytest.approx(each[[0, 1, 3]].mean().item())


def test_label_smoothing_mixes_the_target_with_all_classes_equally():
    loss = training_loss(TrainingConfig(label_smoothing=0.2), LABELS)
    logs = functional.log_softmax(OUTPUTS[:1], dim=1)[0]
    expected = -(0.8 * logs[1] + 0.2 * logs.mean())
    assert loss(OUTPUTS[:1], torch.tensor([1])).item() == pytest.approx(expected.item())
    both = training_loss(TrainingConfig(label_smoothing=0.2, class_weights="balanced"), LABELS)
    assert both(OUTPUTS[:1], torch.tensor([1])).item() == pytest.approx(9 / (3 * 2) * expected.item())


def test_without_either_the_loss_is_the_plain_cross_entropy_and_a_run_keeps_its_name():
    assert training_loss(TrainingConfig(), LABELS) is functional.cross_entropy
    given = {"training": {"class_weights": "none", "label_smoothing": 0.0}}
    assert toy.params(**given).run("dash", 0).id == toy.params().run("dash", 0).id
    weighted = toy.params(training={"class_weights": "balanced"}).run("dash", 0)
    assert weighted.id != toy.params().run("dash", 0).id


@pytest.mark.parametrize("value", [1.0, -0.1, math.nan])
def test_label_smoothing_is_a_share_below_one(value):
    with pytest.raises(toy.ConfigError, match=r"training.label_smoothing"):
        toy.params(training={"label_smoothing": value})


@pytest.mark.processor
def test_dash_takes_the_gradient_of_the_loss_that_training_minimises(tmp_path):
    data = toy.dataset(train=60, classes=3)
    data.train.labels[:30] = 0
    run = toy.params(training={"class_weights": "balanced", "max_epochs": 1}).run("dash", 0)
    moving = toy.advance(toy.trajectory(tmp_path, run, data), chunks=1)
    images = moving.images.training(2)
    found = Dash().gradient(moving.learner, images)
    loss = training_loss(run.training, images.labels)
    expected = averaged_gradient(moving.learner.model, images.chunks(), loss=loss, transform=images.normalise)
    plain = averaged_gradient(moving.learner.model, images.chunks(), transform=images.normalise)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert not all(torch.equal(found[name], plain[name]) for name in found)


@pytest.mark.processor
def test_the_recorded_train_loss_is_the_plain_one(tmp_path):
    losses = []
    for smoothing in (0.0, 0.9):
        run = toy.params(
            chunks=1, optimizer={"lr": 1e-30}, training={"label_smoothing": smoothing, "max_epochs": 1}
        ).run("warm", 0)
        folder = tmp_path / str(smoothing)
        toy.advance(toy.trajectory(folder, run, toy.dataset()))
        losses.append(read_records(folder)[0].train_loss)
    assert losses[0] == losses[1]


def test_a_named_loss_is_that_of_its_formula():
    outputs, labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 0, 1])
    target = functional.one_hot(labels, 3).float()
    squared = training_loss(TrainingConfig(loss="squared_error"), labels)(outputs, labels)
    torch.testing.assert_close(squared, functional.mse_loss(outputs, target))
    logistic = training_loss(TrainingConfig(loss="one_against_rest"), labels)(outputs, labels)
    torch.testing.assert_close(logistic, 3 * functional.binary_cross_entropy_with_logits(outputs, target))
    weighted = training_loss(TrainingConfig(loss="squared_error", class_weights="balanced"), labels)(outputs, labels)
    each = (outputs - target).square().mean(1) * balanced_weights(labels)[labels]
    torch.testing.assert_close(weighted, each.mean())


def test_a_loss_that_is_not_there_or_not_cross_entropy_is_named():
    with pytest.raises(ConfigError, match=r"unknown loss 'squared_eror' \(did you mean 'squared_error'"):
        parse(TrainingConfig, {"loss": "squared_eror"})
    with pytest.raises(ConfigError, match="`label_smoothing` is that of the loss cross_entropy"):
        parse(TrainingConfig, {"loss": "squared_error", "label_smoothing": 0.1})
