"""Where memory runs out: DASH takes smaller parts, images are streamed, and what else can be done is said."""

import logging
import multiprocessing
import resource
from pathlib import Path

import pytest
import torch
from torch import nn

from dash_core import evaluation
from dash_core.errors import TrainingError
from dash_core.evaluation import EVALUATION_BATCH, evaluation_batch
from dash_core.interventions import dash
from dash_core.interventions.dash import Dash
from dash_core.learner import Learner
from dash_core.loading import GrowingData, Normalisation, ResidentSet, StreamedImages
from dash_core.memory import free_memory, is_out_of_memory, layer_bytes, saved_bytes
from dash_core.models import build_model
from dash_core.result import WEIGHTS_FILE
from dash_core.shrinking import averaged_gradient
from tests import toy

DASH = Dash(alpha=0.3, floor=0.05)


class Bounded(nn.Module):
    """A model on a device that has room for so many images."""

    def __init__(self, model: nn.Module, room: int) -> None:
        super().__init__()
        self.model, self.room = model, room

    def forward(self, images):
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.model(images)


def small_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4))


def learner(room: int = 2**31) -> Learner:
    torch.manual_seed(0)
    return Learner(
        build=lambda seed: Bounded(small_model(), room),
        make_optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        seed=0,
        device=toy.CPU,
    )


def growing(images: int = 60, budget: int | None = None) -> GrowingData:
    data = toy.images(images)
    plan = toy.ChunkPlan.split(data, toy.params().run("cold", 0).dataset, 2, 0)
    order = plan.up_to(2)
    resident = ResidentSet.of(
        data.images, data.labels, Normalisation.to_unit(toy.CPU), toy.CPU, order=order, budget=budget
    )
    return GrowingData(resident, plan, 2)


def weights(anyone: Learner) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in anyone.model.state_dict().values()]


def test_a_streamed_set_is_indexed_as_the_resident_one():
    data = toy.images(20, channels=3)
    order = torch.randperm(20)
    whole = ResidentSet.of(data.images, data.labels, None, toy.CPU, order=order)
    streamed = ResidentSet.of(data.images, data.labels, None, toy.CPU, order=order, budget=10)
    assert isinstance(streamed.images, StreamedImages)
    assert streamed.images.shape == whole.images.shape
    assert len(streamed.images) == 20
    assert torch.equal(streamed.images[3:9], whole.images[3:9])
    (part, labels), (same, same_labels) = streamed.part(4, 12), whole.part(4, 12)
    assert torch.equal(part[2:5], same[2:5])
    assert torch.equal(labels, same_labels)
    for size in (1, 3, 7):  # more batches than are read ahead, and fewer
        batches = torch.randperm(20).split(size)
        for (images, labels), (same, same_labels) in zip(
            streamed.batches(batches), whole.batches(batches), strict=True
        ):
            assert torch.equal(images, same)
            assert torch.equal(labels, same_labels)


def test_an_error_in_reading_ahead_reaches_the_reader():
    streamed = growing(budget=1)
    with pytest.raises(IndexError):
        list(streamed.batches([torch.tensor([0]), torch.tensor([99])]))


def test_a_set_is_streamed_only_above_its_budget(caplog):
    assert isinstance(growing(budget=60 * 64)._resident.images, torch.Tensor)
    assert not caplog.records
    assert isinstance(growing(budget=60 * 64 - 1)._resident.images, StreamedImages)
    assert "compare.resident_gib" in caplog.text


@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
@pytest.mark.parametrize("method", ["cold", "dash"])
@pytest.mark.processor
def test_a_streamed_run_has_the_bits_of_a_resident_one(tmp_path, method, augmentation):
    data = toy.dataset()
    run = toy.params(training={"batch_size": 16, "max_epochs": 3, "augmentation": augmentation}).run(method, 0)
    resident, streamed = tmp_path / "resident", tmp_path / "streamed"
    for folder, budget in ((resident, None), (streamed, 0)):
        folder.mkdir()
        toy.advance(toy.trajectory(folder, run, data, resident=budget))
    assert (resident / WEIGHTS_FILE).read_bytes() == (streamed / WEIGHTS_FILE).read_bytes()


@pytest.mark.parametrize("budget", [None, 0], ids=["resident", "streamed"])
@pytest.mark.processor
def test_dash_takes_smaller_parts_of_a_chunk_that_does_not_fit_and_says_so(budget, caplog):
    whole, parts = learner(), learner(room=8)
    expected = DASH.before_chunk(whole, growing())
    assert DASH.before_chunk(parts, growing(budget=budget)) == pytest.approx(expected)
    for a, b in zip(weights(whole), weights(parts), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    said = [record.getMessage() for record in caplog.records if record.name == dash.__name__]
    assert [line.partition("micro-batches of ")[2].partition(",")[0] for line in said] == ["15", "7"]  # of 30


def test_a_given_micro_batch_that_does_not_fit_is_made_smaller(caplog):
    smaller = Dash(alpha=0.3, floor=0.05, micro_batch_size=10)
    smaller.before_chunk(learner(room=5), growing())
    assert "micro-batches of 5" in caplog.text


def test_in_train_mode_dash_says_what_to_set():
    stuck = learner(room=8)
    before = weights(stuck)
    with pytest.raises(TrainingError, match=r"cpu at DASH's gradient of 30 images: set the method's mode to eval"):
        Dash(mode="train").before_chunk(stuck, growing())
    assert all(map(torch.equal, before, weights(stuck)))


def test_a_single_image_that_does_not_fit_is_an_error_and_not_a_loop():
    with pytest.raises(torch.OutOfMemoryError):
        DASH.before_chunk(learner(room=0), growing())


def test_on_the_cpu_a_part_keeps_no_more_than_a_bound_whatever_memory_is_free(monkeypatch, caplog):
    each = saved_bytes(small_model(), torch.zeros(2, 1, 8, 8)) // 2
    monkeypatch.setattr(dash, "SAVED_BYTES", 9 * each)
    DASH.before_chunk(learner(room=9), growing())
    assert not caplog.records  # nothing failed
    with pytest.raises(torch.OutOfMemoryError):
        DASH.before_chunk(learner(room=0), growing())


def test_what_a_forward_pass_keeps_is_counted():
    # a linear layer keeps its input (4 x 8 floats), ReLU its output (4 x 16), the next layer nothing new
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    assert saved_bytes(model, torch.zeros(4, 8)) == 4 * 4 * (8 + 16)


def test_the_free_memory_is_no_more_than_the_machine_has():
    psutil = pytest.importorskip("psutil")
    assert 0 < free_memory(toy.CPU) <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("method", "remedy"),
    [
        ("train", "training experiment 1 with .* in batches of 16.*lower training.batch_size"),
        ("evaluate", "evaluating"),
    ],
)
def test_running_out_of_memory_says_where_and_what_to_set(tmp_path, monkeypatch, method, remedy):
    data, run = toy.dataset(), toy.params(training={"batch_size": 16, "max_epochs": 1}).run("warm", 0)
    moving = toy.trajectory(tmp_path, run, data)
    intervened = moving.intervene(1)
    if method == "evaluate":
        moving.train(1, intervened)
    monkeypatch.setattr(moving.learner, "model", Bounded(moving.learner.model, room=0))
    with pytest.raises(TrainingError, match=rf"out of memory on cpu .*{remedy}.*compare.workers"):
        moving.evaluate(1) if method == "evaluate" else moving.train(1, intervened)


@pytest.mark.processor
def test_an_evaluation_that_does_not_fit_takes_smaller_batches_and_records_their_size(tmp_path, monkeypatch, caplog):
    run = toy.params(chunks=1, training={"batch_size": 16, "max_epochs": 1}).run("warm", 0)
    moving = toy.trajectory(tmp_path, run, toy.dataset())
    trained = moving.train(1, moving.intervene(1))
    whole = moving.evaluate(1)
    assert whole.batch == EVALUATION_BATCH
    monkeypatch.setattr(moving.learner, "model", Bounded(moving.learner.model, room=7))
    parts = moving.evaluate(1)
    assert (parts.batch, parts.accuracy, parts.class_accuracy) == (4, whole.accuracy, whole.class_accuracy)
    assert parts.loss == pytest.approx(whole.loss)
    assert "batches of 8 images do not fit in the memory of cpu: they have 4" in caplog.text
    assert moving.record(1, trained, parts).evaluation_batch == 4


def test_the_batches_of_an_evaluation_follow_from_the_largest_layer(monkeypatch):
    model, few = small_model(), torch.zeros(2, 1, 8, 8)
    largest = 4 * 2 * 3 * 6 * 6  # BatchNorm takes and gives 3 maps of 6 x 6
    assert layer_bytes(model, few) == 2 * largest
    assert evaluation_batch(model, few) == EVALUATION_BATCH
    monkeypatch.setattr(evaluation, "EVALUATION_BYTES", 10 * largest)
    assert evaluation_batch(model, few) == 10
    monkeypatch.setattr(evaluation, "EVALUATION_BYTES", 1)
    assert evaluation_batch(model, few) == 1


@pytest.mark.parametrize(("side", "batch"), [(32, 512), (64, 512), (224, 41)])
def test_images_of_the_papers_sizes_are_evaluated_512_at_a_time_and_large_ones_in_a_gibibyte(side, batch):
    with torch.device("meta"):
        model, few = build_model("resnet18", (3, side, side), 10, seed=0), torch.zeros(2, 3, side, side)
    assert evaluation_batch(model.to("meta"), few) == batch


def test_other_errors_are_not_taken_for_it():
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def _limited(answers) -> None:
    """Take DASH's gradient of a chunk far too big for the address space this process is left with."""
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    dash.logger.addHandler(handler)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 64, 4))
    stuck = Learner(
        build=lambda seed: model,
        make_optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        seed=0,
        device=toy.CPU,
    )
    data = growing(20_000)
    averaged_gradient(model, [(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.long))])  # all that is ever imported
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20,) * 2)
    answers.put((DASH.before_chunk(stuck, data)["floor_share"], said))


def test_a_real_failed_allocation_makes_dash_take_smaller_parts():
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_limited, args=(answers,))
    process.start()
    share, said = answers.get(timeout=300)
    process.join()
    assert 0 <= share <= 1
    assert said
    assert "the same up to rounding" in said[-1]
