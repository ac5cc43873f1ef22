"""Protocols: which images each experiment trains on, when the intervention comes, when training ends, what is tested.

The traces are of real runs of a set small enough to count: image k of it is known by its pixels.
"""

from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file

from dash_core.comparison import Params
from dash_core.config import parse
from dash_core.data import ChunkPlan, Dataset, ImageSet
from dash_core.errors import ConfigError
from dash_core.interventions import INTERVENTIONS, Intervention
from dash_core.protocols import ClassIncremental, Continuous, Discarding
from dash_core.records import RECORDS_FILE, read_records
from dash_core.result import read_result
from dash_core.run_state import Watch
from tasks.store.datasets import plan_path
from tests import toy

DATA = toy.dataset(train=12, test=8)  # of 4 classes: image k is of class k mod 4
NUMBER = {image.numpy().tobytes(): k for k, image in enumerate(DATA.train.images)}
PROTOCOLS = {
    "standard": {"experiments": 2},
    "two_phase": {"chunks": 2, "protocol": {"name": "two_phase", "share": 0.4, "pretrain_epochs": 2, "epochs": 3}},
    "discarding": {"chunks": 4, "protocol": {"name": "discarding", "interval": 2, "last_intervention": 3}},
    "continuous": {"chunks": 3, "protocol": {"name": "continuous", "interval": 2, "final_epochs": 3}},
    "class_incremental": {"chunks": 4, "protocol": {"name": "class_incremental"}},
}


class Probe(Intervention):
    """Changes nothing; remembers before which experiments it was called, and on which images each trained."""

    name: ClassVar = "probe"
    summary: ClassVar = "a test's"
    source: ClassVar = "a test"
    called: ClassVar[list[int]] = []
    shown: ClassVar[list[list[int]]] = []  # to the intervention, chunk by chunk
    trained: ClassVar[list[list[int]]] = []
    previous: ClassVar[list[list[int]]] = []

    def before_chunk(self, learner, data):
        self.called.append(data.experiment)
        self.shown.append([len(labels) for _, labels in data.chunks()])
        return {}

    def after_chunk(self, learner, data):
        ((images, _),) = data.batches([torch.arange(len(data))])
        numbers = [NUMBER[image.permute(1, 2, 0).contiguous().numpy().tobytes()] for image in images]
        self.trained.append(numbers)
        self.previous.append(numbers[: data.previous_images])


@pytest.fixture
def probe(monkeypatch) -> type[Probe]:
    monkeypatch.setitem(INTERVENTIONS, "probe", Probe)
    for remembered in (Probe.called, Probe.shown, Probe.trained, Probe.previous):
        remembered.clear()
    return Probe


def carried_out(folder, label: str = "probe", **changes):
    """Return a run of the twelve images to its end, and its chunks as lists of image numbers."""
    moving = toy.advance(toy.trajectory(folder, toy.params(**changes).run(label, 0), DATA))
    return moving, [chunk.tolist() for chunk in moving.plan.chunks]


def column(moving, name: str) -> list:
    return [getattr(record, name) for record in moving.records]


def test_standard_trains_on_all_chunks_so_far_and_intervenes_before_each_but_the_first(tmp_path, probe):
    moving, (a, b, c) = carried_out(tmp_path)
    assert [len(a), len(b), len(c)] == [4, 4, 4]
    assert probe.trained == [a, a + b, a + b + c]
    assert probe.previous == [[], a, a + b]
    assert probe.called == [2, 3]
    assert column(moving, "images") == [4, 8, 12]


def test_two_phase_trains_a_share_for_its_epochs_then_everything_for_its_own(tmp_path, probe):
    protocol = {"name": "two_phase", "share": 0.25, "pretrain_epochs": 2, "epochs": 5}
    moving, (a, b) = carried_out(tmp_path, chunks=2, protocol=protocol, training={"batch_size": 4})
    assert [len(a), len(b)] == [3, 9]
    assert probe.trained == [a, a + b]
    assert probe.previous == [[], a]
    assert probe.called == [2]
    assert column(moving, "epochs") == [2, 5]
    assert column(moving, "steps") == [2 * 1, 5 * 3]  # batches of 4, of 3 and of 12 images
    assert column(moving, "converged") == [True, True]


def test_two_phase_pretrains_to_its_accuracy_and_then_to_that_of_training(tmp_path):
    protocol = {"name": "two_phase", "pretrain_accuracy": 0.6}
    run, reports = toy.params(chunks=2, protocol=protocol).run("warm", 0), []
    toy.advance(toy.trajectory(tmp_path, run, toy.dataset(), watch=Watch(reports.append)))
    for chunk, stop in ((1, 0.6), (2, 0.999)):
        *before, last = [report.train_accuracy for report in reports if report.experiment == chunk]
        assert all(accuracy < stop for accuracy in before)
        assert last >= stop
    assert read_records(tmp_path)[0].train_accuracy < 0.999


def test_discarding_trains_on_one_chunk_alone_and_shows_the_intervention_no_other(tmp_path, probe):
    protocol = {"name": "discarding", "interval": 2, "last_intervention": 4}
    moving, chunks = carried_out(tmp_path, chunks=6, protocol=protocol)
    assert probe.trained == chunks
    assert probe.previous == [[]] * 6
    assert probe.called == [3]  # 5 comes after the last one
    assert probe.shown == [[2]]
    assert column(moving, "images") == [2] * 6


def test_continuous_adds_a_chunk_each_epoch_then_makes_the_final_ones(tmp_path, probe):
    protocol = {"name": "continuous", "interval": 2, "final_epochs": 2}
    moving, (a, b, c) = carried_out(tmp_path, chunks=3, protocol=protocol)
    whole = a + b + c
    assert probe.trained == [a, a + b, whole, whole, whole]
    assert probe.previous == [[], a, a + b, whole, whole]
    assert probe.called == [3]  # not before 5: all data are there
    assert column(moving, "epochs") == [1] * 5
    assert column(moving, "converged") == [True] * 5


def test_continuous_cold_has_all_data_from_the_beginning_and_is_never_restarted(tmp_path, monkeypatch):
    monkeypatch.setattr(INTERVENTIONS["cold"], "before_chunk", lambda *given: pytest.fail("it was restarted"))
    protocol = {"name": "continuous", "interval": 1, "final_epochs": 2}
    moving, _ = carried_out(tmp_path, "cold", chunks=3, protocol=protocol)
    assert column(moving, "images") == [12] * 5
    assert [experiment.trained for experiment in moving.run.schedule] == [0, 3, 3, 3, 3]


def test_class_incremental_brings_a_class_with_each_chunk_and_tests_on_those_that_have_come(tmp_path, probe):
    moving, chunks = carried_out(tmp_path, chunks=4, protocol={"name": "class_incremental"})
    classes = [{k % 4 for k in chunk} for chunk in chunks]
    assert [len(chunk) for chunk in chunks] == [3, 3, 3, 3]
    assert all(len(here) == 1 for here in classes)
    assert probe.trained == [[k for chunk in chunks[:j] for k in chunk] for j in (1, 2, 3, 4)]
    assert probe.called == [2, 3, 4]
    for j, record in enumerate(moving.records, start=1):
        come = set.union(*classes[:j])
        accuracies = record.class_accuracy
        assert [accuracy is not None for accuracy in accuracies] == [one in come for one in range(4)]
        assert record.test_accuracy == pytest.approx(sum(a for a in accuracies if a is not None) / j)  # 2 images each


def test_class_incremental_tests_a_part_of_the_test_set_class_by_class(tmp_path):
    changes = {"chunks": 4, "protocol": {"name": "class_incremental"}, "dataset": {"test_size": 7}}
    moving, _ = carried_out(tmp_path, "warm", **changes)
    last = moving.records[-1]
    assert all(one in (0, 0.5, 1) for one in last.class_accuracy)  # three classes of 2 images, one of 1
    assert last.test_accuracy * 7 == pytest.approx(round(last.test_accuracy * 7))


def test_class_incremental_takes_several_classes_a_chunk_in_a_given_order():
    labels = torch.arange(60) % 5
    protocol = ClassIncremental(classes_per_chunk=2, order=[4, 0, 3, 1, 2])
    chunks = protocol.cut(labels, 3, torch.Generator().manual_seed(0))
    assert [sorted(labels[chunk].unique().tolist()) for chunk in chunks] == [[0, 4], [1, 3], [2]]
    assert sorted(torch.cat(list(chunks)).tolist()) == list(range(60))


def test_class_incremental_refuses_chunks_and_orders_that_do_not_fit_the_classes():
    labels, random = torch.arange(60) % 5, torch.Generator().manual_seed(0)
    with pytest.raises(ConfigError, match=r"chunks: 5 does not fit the 5 classes .* 2 classes in each chunk.*chunks=3"):
        ClassIncremental(classes_per_chunk=2).cut(labels, 5, random)
    with pytest.raises(ConfigError, match=r"protocol.order: \[0, 0, 1, 2, 3\] must name each of the labels"):
        ClassIncremental(order=[0, 0, 1, 2, 3]).cut(labels, 5, random)


def test_settings_of_class_incremental_that_were_added_later_leave_older_names_alone():
    assert ClassIncremental().identity == {"name": "class_incremental"}
    assert ClassIncremental().division == ["class"]
    assert ClassIncremental(classes_per_chunk=2).identity["classes_per_chunk"] == 2


def test_class_incremental_orders_the_classes_by_the_seed():
    orders = []
    for seed in (0, 1):
        plan = ChunkPlan.split(DATA.train, toy.params().dataset, 4, seed, _protocol("class_incremental"))
        orders.append([int(chunk[0]) % 4 for chunk in plan.chunks])
    assert [sorted(order) for order in orders] == [[0, 1, 2, 3]] * 2
    assert orders[0] != orders[1]


def _protocol(name: str):
    return toy.params(**PROTOCOLS[name]).protocol


def test_the_papers_interventions():
    """Figure 21: every 15 experiments, none after the 40th; figure 22: every 50 epochs of the first 500, of 1000."""
    discarding = [Discarding().experiment(j, 50, "dash") for j in range(1, 51)]
    assert [e.number for e in discarding if e.intervene] == [16, 31]
    continuous = [Continuous().experiment(j, 500, "dash") for j in range(1, Continuous().count(500) + 1)]
    assert len(continuous) == 1000
    assert [e.number for e in continuous if e.intervene] == [51, 101, 151, 201, 251, 301, 351, 401, 451]
    assert [e.last for e in continuous if e.number in (1, 500, 501, 1000)] == [1, 500, 500, 500]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_plan_is_disjoint_covers_and_comes_back_from_its_file(tmp_path, name):
    params = toy.params(**PROTOCOLS[name])
    plan = ChunkPlan.split(DATA.train, params.dataset, params.chunks, 3, params.protocol)
    plan.check(DATA.train, params.dataset)
    plan.save(tmp_path / "plan.json")
    back = ChunkPlan.load(tmp_path / "plan.json")
    assert back.digest == plan.digest
    assert sorted(back.up_to(params.chunks).tolist()) == list(range(12))


def test_plans_that_are_cut_otherwise_have_files_of_their_own(tmp_path):
    def file(**changes):
        return plan_path(tmp_path, toy.params(**{"chunks": 2, **changes}), 0, DATA.train.digest)

    two_phase = {"name": "two_phase", "pretrain_epochs": 1}
    others = [file(protocol={**two_phase, "share": 0.4}), file(protocol={"name": "class_incremental"})]
    assert len({file(), file(protocol=two_phase), *others}) == 4
    same = [{"name": "discarding", "interval": 1}, {"name": "continuous", "interval": 1}, {"name": "standard"}]
    assert {file(protocol=protocol) for protocol in same} == {file()}
    assert file(experiments=1) == file()
    assert file(protocol={**two_phase, "epochs": 7}) == file(protocol=two_phase)


def test_only_the_first_experiments_are_made_and_then_the_run_is_complete(tmp_path):
    run = toy.params(experiments=2).run("dash", 0)
    few = toy.advance(toy.trajectory(tmp_path / "few", run, DATA))
    whole = toy.advance(toy.trajectory(tmp_path / "whole", toy.params().run("dash", 0), DATA))
    assert toy.results(few) == toy.results(whole)[:2]
    assert read_result(tmp_path / "few", run)["run"] == run.id
    lines = (tmp_path / "few" / RECORDS_FILE).read_text().splitlines()
    (tmp_path / "few" / RECORDS_FILE).write_text(lines[0] + "\n")
    assert read_result(tmp_path / "few", run) is None


METHODS = ("cold", "shrink_perturb", "dash")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.processor
def test_a_run_that_stops_anywhere_ends_as_if_it_had_not(tmp_path, name, method):
    run = toy.params(**PROTOCOLS[name], training={"batch_size": 4}).run(method, 0)
    whole = toy.advance(toy.trajectory(tmp_path / "whole", run, DATA))
    stopped = toy.interrupted(tmp_path / "stopped", run, DATA, [1, 2, 1, 1])
    assert toy.results(stopped) == toy.results(whole)
    chunkwise = [toy.advance(toy.trajectory(tmp_path / "chunks", run, DATA), chunks=1) for _ in run.schedule]
    assert toy.results(chunkwise[-1]) == toy.results(whole)
    weights = [load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "stopped", "chunks")]
    assert all(torch.equal(weights[0][key], other[key]) for other in weights[1:] for key in weights[0])


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_run_that_stops_after_each_of_its_steps_intervenes_as_often_as_one_that_does_not(tmp_path, probe, name):
    run = toy.params(**PROTOCOLS[name], training={"batch_size": 4, "max_epochs": 2}).run("probe", 0)
    steps = sum(column(toy.advance(toy.trajectory(tmp_path / "whole", run, DATA)), "steps"))
    due = [experiment.number for experiment in run.schedule if experiment.intervene]
    assert probe.called == due
    probe.called.clear()
    toy.interrupted(tmp_path / "stopped", run, DATA, [1] * (steps - 1))
    assert probe.called == due


def test_more_experiments_than_the_protocol_has_are_refused():
    changes = {"chunks": 3, "protocol": {"name": "continuous", "interval": 2, "final_epochs": 4}}
    assert parse(Params, {**changes, "experiments": 7}).experiment_count == 7
    message = "experiments: 8 is more than the 7 that continuous has with chunks=3"
    with pytest.raises(ConfigError, match=message):
        parse(Params, {**changes, "experiments": 8})


@pytest.mark.parametrize("chunks", [3, 5])
def test_class_incremental_needs_a_chunk_for_each_class(chunks):
    with pytest.raises(ConfigError, match=rf"chunks: {chunks} does not fit the 4 classes .*: set chunks=4"):
        ChunkPlan.split(DATA.train, toy.params().dataset, chunks, 0, _protocol("class_incremental"))


@pytest.mark.parametrize(
    ("kept", "words"),
    [([1, 2], "no test image that is used is of the class class 0"), ([0, 1, 2, 3], "of the class class 3")],
)
def test_class_incremental_needs_images_of_what_it_tests(tmp_path, kept, words):
    """There are training images of classes 0, 1 and 2, and test images of the kept ones."""
    train, test = _classes(DATA.train, [0, 1, 2]), _classes(DATA.test, kept)
    params = toy.params(chunks=3, protocol={"name": "class_incremental"})
    plans = (ChunkPlan.split(train, params.dataset, 3, seed, params.protocol) for seed in range(20))
    plan = next(plan for plan in plans if train.labels[plan.chunks[0][0]] == 0)  # class 0 comes first
    with pytest.raises(ConfigError, match=words):
        toy.trajectory(tmp_path, params.run("warm", plan.seed), Dataset("toy", train, test))


def _classes(images: ImageSet, kept: list[int]) -> ImageSet:
    chosen = torch.isin(images.labels, torch.tensor(kept))
    return ImageSet(images.images[chosen], images.labels[chosen], images.class_names, images.mean, images.std)


@pytest.mark.parametrize(
    ("settings", "last"),
    [
        ({"chunks": 15, "protocol": {"name": "discarding"}}, 15),
        ({"chunks": 50, "protocol": {"name": "discarding", "last_intervention": 15}}, 15),
        ({"chunks": 50, "protocol": {"name": "discarding"}, "experiments": 12}, 12),
        ({"chunks": 50, "protocol": {"name": "continuous"}}, 50),
    ],
)
def test_a_comparison_in_which_no_method_ever_intervenes_is_refused(settings, last):
    with pytest.raises(ConfigError, match=rf"no method would ever intervene.*set protocol\.interval below {last}"):
        toy.params(**settings)


def test_an_intervention_right_before_the_last_experiment_is_enough():
    run = toy.params(chunks=16, protocol={"name": "discarding"}).run("dash", 0)
    assert [e.number for e in run.schedule if e.intervene] == [16]


def test_cold_starts_anew_with_each_chunk_also_where_data_are_discarded():
    run = toy.params(chunks=4, protocol={"name": "discarding", "interval": 2, "last_intervention": 3}).run("cold", 0)
    assert [e.number for e in run.schedule if e.intervene] == [2, 3, 4]


def test_an_experiment_of_a_single_image_is_refused_before_any_training(tmp_path):
    run = toy.params(chunks=11, protocol={"name": "discarding", "interval": 5}).run("warm", 0)
    with pytest.raises(ConfigError, match="chunks: experiment 2 has 1 image, and training needs 2 or more"):
        toy.trajectory(tmp_path, run, DATA)


def test_two_phase_needs_images_in_both_of_its_chunks():
    params = toy.params(chunks=2, protocol={"name": "two_phase", "share": 0.04, "pretrain_epochs": 1})
    with pytest.raises(ConfigError, match=r"protocol\.share: 0\.04 of 12 training images leaves a chunk without any"):
        ChunkPlan.split(DATA.train, params.dataset, 2, 0, params.protocol)
