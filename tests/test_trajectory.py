"""A run is repeatable and resumable, bit for bit, and ends as it says."""

import itertools
import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from dash_core.checkpoint import load_checkpoint
from dash_core.data import ChunkPlan, evaluation_indices
from dash_core.errors import ConfigError, RecordError, StopRequested
from dash_core.interventions import INTERVENTIONS
from dash_core.interventions.controls import CONTROLS
from dash_core.models import MODELS
from dash_core.records import RECORDS_FILE, read_records
from dash_core.result import WEIGHTS_FILE, read_result
from dash_core.run_state import Watch
from dash_core.trajectory import Steps, Trajectory
from tests import toy

METHODS = list(INTERVENTIONS)


def is_quick(model: str, method: str) -> bool:
    """Tell whether a pair is tested every time; vgg16_bn has 134 million weights, which take ten seconds a method."""
    control = INTERVENTIONS[method] in CONTROLS
    if model == "vgg16_bn":
        return False
    if model == "resnet10":  # resnet18 with fewer blocks
        return method == "dash"
    return method == "dash" or model == "cnn3_small" or not control


PAIRS = [
    pytest.param(model, method, marks=[] if is_quick(model, method) else [pytest.mark.slow])
    for model in MODELS
    for method in METHODS
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.processor
def test_the_same_run_twice_gives_the_same_records_bit_for_bit(tmp_path, method):
    run = toy.params().run(method, 0)
    first, second = (toy.advance(toy.trajectory(tmp_path / name, run, toy.dataset())) for name in "ab")
    assert toy.results(first) == toy.results(second)
    weights = [load_file(tmp_path / name / "weights.safetensors") for name in "ab"]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("optimizer", ["sgd", "sam", "adamw"])
@pytest.mark.processor
def test_a_run_that_stops_after_any_chunk_ends_as_if_it_had_not(tmp_path, method, optimizer):
    run = toy.params(optimizer={"name": optimizer, "lr": 0.01}).run(method, 0)
    whole = toy.advance(toy.trajectory(tmp_path / "whole", run, toy.dataset()))
    for _ in range(run.chunks):
        stopped = toy.advance(toy.trajectory(tmp_path / "stopped", run, toy.dataset()), chunks=1)
    assert toy.results(stopped) == toy.results(whole)
    weights = [load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "stopped")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("setting", ["sgd", "sam", "adamw", "sota"])
@pytest.mark.processor
def test_a_run_that_stops_after_any_steps_ends_as_if_it_had_not(tmp_path, method, setting):
    changes = (
        {"training": {"recipe": "sota", "max_epochs": 4}} if setting == "sota" else {"optimizer": {"name": setting}}
    )
    run = toy.params(**changes).run(method, 0)
    whole = toy.advance(toy.trajectory(tmp_path / "whole", run, toy.dataset()))
    stopped = toy.interrupted(tmp_path / "stopped", run, toy.dataset(), [1, 2, 5, 3])
    assert toy.results(stopped) == toy.results(whole)
    weights = [load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "stopped")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.processor
def test_a_network_with_dropout_goes_on_in_mid_epoch_with_the_same_draws(tmp_path):
    model = {"name": "torchvision:mobilenet_v3_small"}
    run = toy.params(training={"max_epochs": 2}, model=model, chunks=1).run("warm", 0)
    data = toy.dataset(side=32)
    whole = toy.advance(toy.trajectory(tmp_path / "whole", run, data))
    left = itertools.count(3, -1)
    with pytest.raises(StopRequested):
        toy.advance(toy.trajectory(tmp_path / "stopped", run, data, watch=Watch(stop=lambda: next(left) <= 1)))
    stopped = toy.advance(toy.trajectory(tmp_path / "stopped", run, data))
    assert toy.results(stopped) == toy.results(whole)


def test_another_seed_gives_other_records(tmp_path):
    runs = [toy.params().run("warm", seed) for seed in (0, 1)]
    first, second = (toy.advance(toy.trajectory(tmp_path / run.id, run, toy.dataset())) for run in runs)
    assert toy.results(first) != toy.results(second)


def test_the_global_generator_is_neither_read_nor_set(tmp_path):
    run = toy.params(
        training={"recipe": "sota", "max_epochs": 2}, model={"name": "torchvision:mobilenet_v3_small"}
    ).run("dash", 0)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = toy.advance(toy.trajectory(tmp_path / "a", run, toy.dataset(side=32)), chunks=2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = toy.advance(toy.trajectory(tmp_path / "b", run, toy.dataset(side=32)), chunks=2)
    assert toy.results(first) == toy.results(second)


@pytest.mark.parametrize("resident", [None, 0], ids=["held", "streamed"])
def test_the_accuracy_is_of_the_test_images_that_were_asked_for(tmp_path, resident):
    size = toy.params(dataset={"test_size": 8}, training={"max_epochs": 1}).run("warm", 0)
    data = toy.dataset()
    kept = evaluation_indices(data.test, size.dataset)
    cut = replace(data, test=replace(data.test, images=data.test.images[kept], labels=data.test.labels[kept]))
    whole = toy.params(training={"max_epochs": 1}).run("warm", 0)
    found = toy.advance(toy.trajectory(tmp_path / "size", size, data, resident=resident), chunks=1)
    expected = toy.advance(toy.trajectory(tmp_path / "cut", whole, cut), chunks=1)
    assert toy.results(found) == toy.results(expected)


@pytest.mark.processor
def test_methods_agree_until_the_first_intervention(tmp_path):
    runs = [toy.params().run(method, 0) for method in ("cold", "warm", "dash", "shrink_perturb")]
    firsts = [toy.results(toy.advance(toy.trajectory(tmp_path / run.id, run, toy.dataset()), 1))[0] for run in runs]
    assert all(first == firsts[0] for first in firsts)


@pytest.mark.parametrize(("model", "method"), PAIRS)
def test_every_model_takes_every_method_for_a_real_chunk(tmp_path, model, method):
    small = {"training": {"max_epochs": 1, "batch_size": 16}, "chunks": 2, "model": {"name": model}}
    if model.startswith("resnet") and method != "dash":
        small["model"]["width"] = 8
    if model == "vgg16_bn":
        small["optimizer"] = {"lr": 0.0001}
    run = toy.params(**small).run(method, 0)
    side = 32 if model == "vgg16_bn" else 8
    data = toy.dataset(train=16 if model == "vgg16_bn" else 64, side=side, channels=3 if model == "vgg16_bn" else 1)
    moving = toy.trajectory(tmp_path, run, data)
    for _ in range(2):
        record = moving.advance()
        assert record.steps >= 1
        assert 0 <= record.test_accuracy <= 1


@pytest.mark.parametrize("done", [0, 1, 3])
def test_a_run_whose_folder_is_removed_says_so_and_writes_no_state_or_result_without_its_records(tmp_path, done):
    run = toy.params(training={"max_epochs": 2}).run("warm", 0)
    moving = toy.trajectory(tmp_path / "run", run, toy.dataset(), watch=Watch(seconds=0.0 if done else 60.0))
    for _ in range(done):
        moving.advance()
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(RecordError, match=r"chunks\.jsonl was removed while its run trained; the same command trains"):
        moving.advance() if moving.pending else moving.finish({})
    assert not list(tmp_path.glob("run/*"))


def test_result_and_weights_are_written_last_and_the_resume_state_goes(tmp_path):
    run = toy.params().run("dash", 0)
    moving = toy.advance(toy.trajectory(tmp_path, run, toy.dataset()), chunks=2)
    assert read_result(tmp_path, run) is None
    toy.advance(moving)
    result = read_result(tmp_path, run)
    assert result["run"] == run.id
    assert sorted(path.name for path in tmp_path.iterdir()) == [RECORDS_FILE, "result.json", "weights.safetensors"]
    assert read_result(tmp_path, toy.params().run("warm", 0)) is None  # not the result of another run


def test_a_torn_last_line_is_made_good_from_the_checkpoint(tmp_path):
    run = toy.params().run("dash", 0)
    moving = toy.advance(toy.trajectory(tmp_path, run, toy.dataset()), chunks=2)
    path = tmp_path / RECORDS_FILE
    path.write_text(path.read_text()[:-40])
    assert len(read_records(tmp_path)) == 1
    again = toy.trajectory(tmp_path, run, toy.dataset())
    assert read_records(tmp_path) == moving.records == again.records


def test_records_without_a_checkpoint_are_made_again(tmp_path, caplog):
    run = toy.params().run("warm", 0)
    whole = toy.advance(toy.trajectory(tmp_path, run, toy.dataset()), chunks=2)
    for path in tmp_path.glob("state.ckpt*"):
        path.unlink()
    again = toy.trajectory(tmp_path, run, toy.dataset())
    assert "starts anew from its first experiment" in caplog.text
    assert toy.results(toy.advance(again, chunks=2)) == toy.results(whole)


def test_the_plan_of_another_seed_is_refused(tmp_path):
    run, data = toy.params().run("warm", 0), toy.dataset()
    plan = ChunkPlan.split(data.train, run.dataset, run.chunks, 1)
    with pytest.raises(ConfigError, match="chunk plan is not that of run"):
        Trajectory(run, data, plan, tmp_path, device=toy.CPU)


def test_a_chunk_cannot_be_recorded_out_of_turn(tmp_path):
    moving = toy.trajectory(tmp_path, toy.params().run("warm", 0), toy.dataset())
    trained = moving.train(1, moving.intervene(1))
    with pytest.raises(RuntimeError, match="experiment 2 cannot be recorded"):
        moving.record(2, trained, moving.evaluate(1))
    moving.record(1, trained, moving.evaluate(1))
    with pytest.raises(RuntimeError, match="experiment 1 cannot be recorded"):
        moving.record(1, trained, moving.evaluate(1))


def test_advance_hands_each_step_what_the_one_before_returned(tmp_path):
    calls = []

    def spied(name: str):
        def step(trajectory, experiment, *given):
            returned = getattr(Trajectory, name)(trajectory, experiment, *given)
            calls.append((name, experiment, given, returned))
            return returned

        return step

    moving = toy.trajectory(tmp_path, toy.params().run("dash", 0), toy.dataset())
    records = [moving.advance(Steps(*map(spied, ("intervene", "train", "evaluate", "record")))) for _ in range(2)]
    for experiment, steps in zip((1, 2), (calls[:4], calls[4:]), strict=True):
        assert [step[:2] for step in steps] == [
            (name, experiment) for name in ("intervene", "train", "evaluate", "record")
        ]
        (_, _, nothing, intervened), (_, _, to_train, trained), (_, _, none, evaluation), (*_, to_record, record) = (
            steps
        )
        assert nothing == none == ()
        assert to_train == (intervened,)
        assert to_record == (trained, evaluation)
        assert record is records[experiment - 1]


def test_a_run_that_is_stopped_and_continued_intervenes_once_an_experiment(tmp_path):
    run, calls = toy.params(training={"max_epochs": 2}).run("dash", 0), []

    def moving(stop_after: int | None = None) -> Trajectory:
        steps = itertools.count(1)
        watch = Watch(stop=lambda: stop_after is not None and next(steps) >= stop_after)
        made = toy.trajectory(tmp_path, run, toy.dataset(), watch=watch)
        before_chunk = type(made.intervention).before_chunk

        class Counted(type(made.intervention)):
            def before_chunk(self, learner, data):
                calls.append(data.experiment)
                return before_chunk(self, learner, data)

        made.intervention = Counted(**made.intervention.model_dump())
        return made

    toy.advance(moving(), chunks=1)
    for _ in range(2):  # both times in the middle of the second experiment
        with pytest.raises(StopRequested):
            moving(stop_after=1).advance()
    assert calls == [2]
    toy.advance(moving())
    assert calls == [2, 3]


def test_a_run_without_a_pending_experiment_cannot_advance(tmp_path):
    moving = toy.advance(toy.trajectory(tmp_path, toy.params(chunks=1).run("warm", 0), toy.dataset()))
    with pytest.raises(RuntimeError, match="no pending experiment: all 1 are recorded"):
        moving.advance()


def test_the_records_are_lines_of_plain_json(tmp_path):
    toy.advance(toy.trajectory(tmp_path, toy.params().run("dash", 0), toy.dataset()))
    rows = [json.loads(line) for line in (tmp_path / RECORDS_FILE).read_text().splitlines()]
    assert [row["chunk"] for row in rows] == [1, 2, 3]
    assert [row["images"] for row in rows] == [22, 43, 64]
    assert rows[0]["cost"]["intervene"] == {"seconds": 0.0, "flops": 0, "peak_memory": 0}
    assert rows[1]["cost"]["intervene"]["flops"] > 0
    assert 0 <= rows[1]["diagnostics"]["floor_share"] <= 1


def test_an_interrupted_experiment_is_not_begun_again_by_the_same_trajectory(tmp_path):
    """Or its intervention would be applied twice, to half-trained weights."""
    run = toy.params().run("shrink", 0)
    stops = itertools.count()
    watch = Watch(stop=lambda: len(moving.records) == 1 and next(stops) > 2)
    moving = toy.trajectory(tmp_path, run, toy.dataset(), watch=watch)
    moving.advance()
    with pytest.raises(StopRequested):
        moving.advance()
    with pytest.raises(RuntimeError, match=r"experiment 2 was interrupted, .*make a new Trajectory over"):
        moving.advance()
    toy.advance(toy.trajectory(tmp_path, run, toy.dataset()))
    toy.advance(toy.trajectory(tmp_path / "undisturbed", run, toy.dataset()))
    weights = [(folder / WEIGHTS_FILE).read_bytes() for folder in (tmp_path, tmp_path / "undisturbed")]
    assert weights[0] == weights[1]


def test_the_weights_of_chosen_experiments_are_kept_and_no_other_run_trains_them(tmp_path):
    run, data = toy.params().run("dash", 0), toy.dataset()
    moving = toy.trajectory(tmp_path / "run", run, data, keep_weights=(2,))
    toy.advance(moving, 2)
    state, weights = load_checkpoint(tmp_path / "run" / "state.ckpt"), moving.learner.model.state_dict()
    kept = load_file(tmp_path / "run" / "weights-2.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in weights.items())
    assert not (tmp_path / "run" / "weights-1.safetensors").exists()
    for keep, done in {(2,): 0, (3,): 2}.items():
        other = toy.trajectory(
            tmp_path / f"keeps {keep}", run, data, keep_weights=keep, find_beginning=lambda course: state
        )
        assert len(other.records) == done
