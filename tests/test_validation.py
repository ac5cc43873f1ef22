"""A validation share of each chunk, and early stopping on it: the epoch kept is the one the recorded curve says."""

import pytest
import torch

from dash_core.data import ChunkPlan, Dataset, ImageSet
from dash_core.errors import ConfigError
from dash_core.records import read_records
from dash_core.result import WEIGHTS_FILE
from dash_core.run_images import hold_out
from dash_core.training import train_chunk
from flows.command_line.settings import check
from tests import toy
from tests.test_training import WARM, Threshold, config, data, learner

EARLY = {"batch_size": 16, "max_epochs": 30, "validation_share": 0.25, "stop": "validation", "patience": 3}


def run_of(method: str = "warm", **changes):
    return toy.params(**{"chunks": 2, "training": {**EARLY, **changes}}).run(method, 0)


def test_a_share_of_each_chunk_is_held_out_and_the_rest_keeps_its_order():
    plan = ChunkPlan("toy", "digest", 3, torch.arange(60).split((10, 2, 48)))
    trained, held_out = hold_out(plan, 0.25)
    assert [len(chunk) for chunk in held_out.chunks] == [2, 1, 12]
    for chunk, kept, apart in zip(plan.chunks, trained.chunks, held_out.chunks, strict=True):
        assert torch.equal(torch.cat((kept, apart)).sort().values, chunk)
        assert torch.equal(kept.sort().values, kept)
    assert torch.equal(hold_out(plan, 0.25)[0].up_to(3), trained.up_to(3))


def test_a_chunk_of_one_image_cannot_be_shared():
    with pytest.raises(ConfigError, match=r"training.validation_share: chunk 2 has a single image"):
        hold_out(ChunkPlan("toy", "digest", 3, torch.arange(11).split((10, 1))), 0.25)


def test_validation_images_are_of_the_chunks_so_far_and_never_trained_on(tmp_path):
    dataset = toy.dataset()
    images = toy.trajectory(tmp_path, run_of(), dataset).images
    seen: set[bytes] = set()
    for experiment, size in ((1, 32), (2, 64)):
        validation = images.validation(experiment)
        trained = {
            bytes(image.flatten().tolist()) for batch, _ in images.training(experiment).chunks() for image in batch
        }
        apart = {bytes(image.flatten().tolist()) for image in validation.images}
        assert (len(trained), len(apart)) == (size * 3 // 4, size // 4)
        assert not trained & apart
        assert seen <= apart
        seen = apart


def curves(accuracies: list[float], **changes):
    """Train with a validation accuracy that follows a script; return the outcome and the weight after it."""
    script = iter(accuracies)
    moving = learner(Threshold(-9.5))
    early = {**EARLY, **changes}
    del early["batch_size"]
    outcome = train_chunk(moving, data([0] * 4), config(2, **early), WARM, validate=lambda: next(script))
    return outcome, moving.model.weight.item()


def test_the_epoch_kept_is_the_first_with_the_highest_validation_accuracy():
    outcome, weight = curves([0.1, 0.5, 0.4, 0.5, 0.3, 0.9])
    assert outcome.validation == (0.1, 0.5, 0.4, 0.5, 0.3)  # three epochs after the second without a better one
    assert (outcome.epochs, outcome.picked_epoch, outcome.converged) == (5, 2, True)
    assert weight == -9.5 + 4  # two steps an epoch, one up each: as after epoch 2


def test_an_accuracy_that_rises_to_the_end_is_kept_and_did_not_converge():
    outcome, weight = curves([0.1, 0.2, 0.3, 0.4], max_epochs=4)
    assert (outcome.epochs, outcome.picked_epoch, outcome.converged) == (4, 4, False)
    assert weight == -9.5 + 8


@pytest.mark.processor
def test_the_record_holds_the_curve_and_the_weights_are_those_of_the_best_epoch(tmp_path):
    run, dataset = run_of(), toy.dataset()
    moving = toy.advance(toy.trajectory(tmp_path, run, dataset))
    for record in read_records(tmp_path):
        assert len(record.validation_accuracy) == record.epochs
        assert record.picked_epoch == 1 + record.validation_accuracy.index(max(record.validation_accuracy))
    (last,) = read_records(tmp_path)[-1:]
    kept = moving._validation_of(2)()
    assert kept == max(last.validation_accuracy)
    assert last.images == 48


@pytest.mark.processor
def test_the_test_set_is_never_looked_at_while_an_experiment_trains(tmp_path, monkeypatch):
    run = run_of()
    dataset = toy.dataset()
    noise = torch.randint(0, 256, dataset.test.images.shape, dtype=torch.uint8)
    other = ImageSet(noise, 3 - dataset.test.labels, *vars_of(dataset.test))
    whole = toy.trajectory(tmp_path / "whole", run, dataset)
    monkeypatch.setattr(whole.images, "_test", Unreadable())
    whole.train(1, whole.intervene(1))
    with pytest.raises(AssertionError, match="looked at"):
        whole.evaluate(1)
    weights = []
    for name, test in (("right", dataset.test), ("wrong", other)):
        toy.advance(toy.trajectory(tmp_path / name, run, Dataset("toy", dataset.train, test)))
        weights.append((tmp_path / name / WEIGHTS_FILE).read_bytes())
    assert weights[0] == weights[1]


def vars_of(images: ImageSet) -> tuple:
    return images.class_names, images.mean, images.std


class Unreadable:
    """Stands for a test set that nobody may look at."""

    def __getattr__(self, name):
        raise AssertionError(f"the test set's {name} was looked at")

    def __len__(self):
        raise AssertionError("the test set's size was looked at")


@pytest.mark.parametrize("stop", ["validation", "train_accuracy"])
@pytest.mark.processor
def test_a_run_stopped_between_the_best_epoch_and_the_last_has_the_bits_of_one_that_was_not(tmp_path, stop):
    run, dataset = run_of("dash", stop=stop, max_epochs=8), toy.dataset()
    whole = toy.advance(toy.trajectory(tmp_path / "whole", run, dataset))
    parts = toy.interrupted(tmp_path / "parts", run, dataset, stops=[3, 4, 5, 7])
    assert toy.results(whole) == toy.results(parts)
    assert (tmp_path / "whole" / WEIGHTS_FILE).read_bytes() == (tmp_path / "parts" / WEIGHTS_FILE).read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training": {"stop": "validation"}}, "set training.validation_share"),
        ({"training": {"validation_share": 1.0}}, "training.validation_share: input should be less than 1"),
        (
            {"training": EARLY, "protocol": {"name": "continuous", "interval": 1, "final_epochs": 1}},
            "training.stop: each experiment of continuous is one epoch",
        ),
    ],
)
def test_what_cannot_be_measured_cannot_stop(changes, words):
    with pytest.raises(ConfigError, match=words):
        check(toy.params(**changes))
