"""Recipes fill in what a configuration leaves open; schedules are arithmetic that can be checked by hand."""

import pytest

from dash_core.augmentation import AUGMENTATIONS
from dash_core.config import OptimizerConfig, TrainingConfig
from dash_core.errors import ConfigError
from dash_core.optim.schedules import SCHEDULES, learning_rate_factor, schedule_of
from dash_core.recipes import RECIPES, resolve

CONSTANT, MULTISTEP = (schedule_of(TrainingConfig(schedule=name)) for name in ("constant", "multistep"))


def test_standard_is_training_without_any_regularisation() -> None:
    optimizer, training = resolve(OptimizerConfig(), TrainingConfig(recipe="standard"), "cifar100")
    assert optimizer.weight_decay == 0
    assert (training.schedule, training.warmup_epochs, training.augmentation) == ("constant", 0, "none")


@pytest.mark.parametrize(
    ("dataset", "augmentation"),
    [
        ("cifar10", "crop_flip"),
        ("cifar100", "crop_flip_rotate"),
        ("tiny_imagenet", "resized_crop_flip"),
        ("imagenet", "resized_crop_flip"),
    ],
)
def test_sota_augments_each_dataset_in_its_own_way(dataset: str, augmentation: str) -> None:
    optimizer, training = resolve(OptimizerConfig(), TrainingConfig(recipe="sota"), dataset)
    assert optimizer.weight_decay == 5e-4
    assert (training.schedule, training.warmup_epochs, training.augmentation) == ("multistep", 1, augmentation)


def test_what_was_given_stays() -> None:
    optimizer = OptimizerConfig(weight_decay=0.0)
    training = TrainingConfig(recipe="sota", schedule="constant", warmup_epochs=0, augmentation="none")
    assert resolve(optimizer, training, "cifar10") == (optimizer, training)


def test_resolving_changes_nothing_else_and_is_done_after_once() -> None:
    given = OptimizerConfig(lr=0.1), TrainingConfig(recipe="sota", batch_size=7)
    once = resolve(*given, "cifar10")
    assert resolve(*once, "cifar100") == once
    assert once[0].lr == 0.1
    assert once[1].batch_size == 7
    assert given == (OptimizerConfig(lr=0.1), TrainingConfig(recipe="sota", batch_size=7))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_recipes_name_schedules_and_augmentations_that_exist(recipe) -> None:
    assert recipe.schedule in SCHEDULES
    assert {recipe.augmentation, *recipe.augmentation_for.values()} <= set(AUGMENTATIONS)


def test_multistep_multiplies_by_a_fifth_at_each_milestone() -> None:
    epochs = (0, 59, 60, 119, 120, 159, 160, 199, 200, 259)
    factors = [learning_rate_factor(MULTISTEP, 0, epoch, 0, 10) for epoch in epochs]
    assert factors == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.04, 0.008, 0.008, 0.0016, 0.0016])


def test_milestones_and_decay_can_be_given_and_are_those_in_effect() -> None:
    _, given = resolve(OptimizerConfig(), TrainingConfig(recipe="sota", milestones=[2, 5], decay=0.5), "cifar10")
    schedule = schedule_of(given)
    assert [schedule(epoch) for epoch in (0, 1, 2, 4, 5, 99)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    _, usual = resolve(OptimizerConfig(), TrainingConfig(recipe="sota"), "cifar10")
    assert (usual.milestones, usual.decay) == ((60, 120, 160, 200), 0.2)


def test_cosine_falls_from_the_whole_rate_towards_nothing_at_max_epochs() -> None:
    schedule = schedule_of(TrainingConfig(schedule="cosine", max_epochs=4))
    assert [schedule(epoch) for epoch in range(4)] == pytest.approx([1, 0.853553, 0.5, 0.146447], abs=1e-6)


def test_constant_stays() -> None:
    assert {learning_rate_factor(CONSTANT, 0, epoch, step, 10) for epoch in (0, 300) for step in (0, 9)} == {1.0}


def test_warm_up_rises_by_equal_steps_to_the_full_rate() -> None:
    assert [learning_rate_factor(CONSTANT, 1, 0, step, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert learning_rate_factor(CONSTANT, 1, 1, 0, 4) == 1.0


def test_warm_up_may_last_several_epochs() -> None:
    factors = [learning_rate_factor(MULTISTEP, 2, epoch, step, 2) for epoch in (0, 1, 2) for step in (0, 1)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_an_unknown_schedule_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="did you mean 'multistep'"):
        schedule_of(TrainingConfig().model_copy(update={"schedule": "multi_step"}))


@pytest.mark.parametrize(("epoch", "step"), [(0, 5), (-1, 0), (0, -1)])
def test_a_step_outside_the_epoch_is_an_error(epoch: int, step: int) -> None:
    with pytest.raises(ValueError, match="outside an epoch of 5 steps"):
        learning_rate_factor(CONSTANT, 0, epoch, step, 5)
