"""A run that begins with another run's state ends with the bits it would have had alone."""

import json
from pathlib import Path

import pytest

from dash_core import beginnings as science
from dash_core.beginnings import Beginning, acts_while_training
from dash_core.config import merge
from dash_core.interventions import INTERVENTIONS, build_intervention
from dash_core.interventions.base import Intervention
from dash_core.interventions.controls import CONTROLS
from dash_core.result import WEIGHTS_FILE
from dash_core.run_state import Watch
from flows.compare import in_turn
from tasks.store import beginnings as store
from tasks.store.beginnings import Beginnings, forget_beginnings
from tasks.store.place import Place
from tests import toy

DATA = toy.dataset()
MACHINE = {"device": "cpu", "threads": 1}
SHORT = {"chunks": 2, "training": {"max_epochs": 4}}
STRICT = {"training": {"stop_accuracy": 1.0}}
TWO_PHASE = {"name": "two_phase", "pretrain_epochs": 2, "epochs": 2}


def config(method: str = "warm", seed: int = 0, **changes: object):
    return toy.params(**merge(SHORT, changes)).run(method, seed)


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Beginning:
    """What is kept of the first experiment of a run that ended it at its limit of epochs."""
    moving = toy.advance(toy.trajectory(tmp_path_factory.mktemp("kept"), config("warm", **STRICT), DATA), 1)
    return moving.course.beginning(moving.records)


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(store=tmp_path / "store", data_root=tmp_path)


def trained(run, place: Place, experiments: int | None = None, machine=MACHINE):
    """Train a run in a store as the flow does, from what it may begin with."""
    beginnings = Beginnings(run, place, machine)
    moving = toy.trajectory(place.run_folder(run), run, DATA, find_beginning=beginnings.find)
    for _ in moving.pending[:experiments]:
        moving.advance()
        beginnings.keep(moving)
    if not moving.pending:
        moving.finish({})
        beginnings.keep_result(moving)
    return moving


def sources(moving) -> list[str | None]:
    return [record.taken_from for record in moving.records]


def assert_as_alone(moving, tmp_path: Path) -> None:
    """Compare a run with one that had no other to begin with: weights, optimiser's traces in them, records, FLOPs."""
    run = moving.run
    alone = toy.advance(toy.trajectory(tmp_path / "alone" / run.id, run, DATA))
    assert toy.results(moving) == toy.results(alone)
    assert (moving.folder / WEIGHTS_FILE).read_bytes() == (alone.folder / WEIGHTS_FILE).read_bytes()


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A store in which one run of no method that is tested has done its first experiment, and that run."""
    folder = tmp_path_factory.mktemp("begun")
    place = Place(store=folder, data_root=folder)
    return place, trained(config("shrink", methods={"shrink": {"shrink": 0.9}}), place, 1).run


@pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=[pytest.mark.slow] * (kind in CONTROLS[1:])) for name, kind in INTERVENTIONS.items()],
)
def test_methods_share_what_comes_before_they_act_and_nothing_else(begun, tmp_path, method):
    place, first = begun
    moving = trained(config(method), place)
    acts = acts_while_training(build_intervention(method, {}))
    assert sources(moving) == [None if acts else first.id, None]
    assert acts == (method in ("l2_init", "l2_init_authors"))
    assert_as_alone(moving, tmp_path)


def test_a_new_hook_of_the_base_class_counts_as_acting(monkeypatch):
    class Acting(Intervention):
        name = "acting"

        def before_step(self, learner):
            pass

    assert not acts_while_training(Acting())
    monkeypatch.setattr(Intervention, "before_step", lambda self, learner: None, raising=False)
    assert acts_while_training(Acting())
    assert not acts_while_training(build_intervention("dash", {}))


@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "sam", "rho": 0.05},
        pytest.param({"name": "adam", "lr": 0.001}, marks=pytest.mark.slow),
        {"name": "sgd"},
    ],
    ids=lambda optimizer: optimizer["name"],
)
def test_more_experiments_go_on_from_a_complete_run(place, tmp_path, optimizer):
    changes = {"chunks": 4, "optimizer": optimizer}
    few = trained(config("dash", experiments=2, **changes), place)
    more = trained(config("dash", experiments=3, **changes), place)
    every = trained(config("dash", **changes), place)
    assert sources(more) == [few.run.id, few.run.id, None]
    assert sources(every) == [few.run.id, few.run.id, more.run.id, None]
    assert_as_alone(every, tmp_path)


@pytest.mark.parametrize(
    ("method", "rate"),
    [
        ("dash", 0.01),
        ("l2_init", 0.01),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("cold", 0.03), ("warm", 0.01), ("shrink_perturb", 0.003))
        ),
    ],
)
def test_a_higher_limit_of_epochs_goes_on_where_the_first_experiment_that_met_it_ended(place, tmp_path, method, rate):
    changes = {"chunks": 3, "optimizer": {"lr": rate}, "training": {"stop_accuracy": 1.0}}
    short = trained(config(method, **changes), place)
    longer = merge(changes, {"training": {"max_epochs": 7}})
    reached = next(record.experiment for record in short.records if not record.converged)
    moving = trained(config(method, **longer), place)
    assert sources(moving)[:reached] == [short.run.id] * reached
    assert moving.records[reached - 1].epochs > short.records[reached - 1].epochs
    assert_as_alone(moving, tmp_path)


def test_a_limit_that_no_experiment_met_changes_nothing_and_trains_nothing(place, tmp_path):
    changes = {"training": {"max_epochs": 60, "stop_accuracy": 0.5}}
    short = trained(config("dash", **changes), place)
    assert all(record.converged and record.epochs < 60 for record in short.records)
    longer = merge(changes, {"training": {"max_epochs": 90}})
    moving = trained(config("dash", **longer), place)
    assert sources(moving) == [short.run.id] * 2
    assert_as_alone(moving, tmp_path)
    path = short.folder / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-1] + b"x")  # the run was trained again, or is damaged
    another = merge(changes, {"training": {"max_epochs": 80}})
    again = trained(config("dash", **another), place)
    assert sources(again) == [short.run.id] * 2  # from the copy of its results that the second run is
    assert_as_alone(again, tmp_path)


@pytest.mark.parametrize("method", ["dash", "warm"])
def test_a_shorter_pretraining_is_the_beginning_of_a_longer_one(place, tmp_path, method):
    short = trained(config(method, protocol=TWO_PHASE), place)
    longer = trained(config(method, protocol=merge(TWO_PHASE, {"pretrain_epochs": 5, "epochs": 3})), place)
    assert sources(longer) == [short.run.id, None]
    assert [record.epochs for record in longer.records] == [5, 3]
    assert_as_alone(longer, tmp_path)


def test_experiments_before_the_first_intervention_are_shared_in_every_protocol(place, tmp_path):
    discarding = {"chunks": 4, "protocol": {"name": "discarding", "interval": 2}}
    first = trained(config("warm", **discarding), place)
    moving = trained(config("dash", **discarding), place)
    assert sources(moving) == [first.run.id, first.run.id, None, None]
    assert_as_alone(moving, tmp_path)
    cold = trained(config("cold", **discarding), place)  # it acts before the second
    assert sources(cold) == [first.run.id, None, None, None]
    assert_as_alone(cold, tmp_path)


@pytest.mark.parametrize(
    ("changes", "reach"),
    [
        ({}, 1),
        ({"training": {"max_epochs": 5}}, 0.5),
        ({"training": {"max_epochs": 3}}, 0),
        ({"training": {"batch_size": 8}}, 0),
        ({"training": {"stop_accuracy": 0.9}}, 0),
        ({"training": {"class_weights": "balanced"}}, 0),
        ({"optimizer": {"lr": 0.02}}, 0),
        ({"model": {"name": "mlp"}}, 0),
        ({"dataset": {"label_noise": 0.1}}, 0),
        ({"chunks": 3}, 0),
        ({"diagnostics": ["units"]}, 0),
        ({"seed": 1}, 0),
    ],
    ids=str,
)
def test_runs_share_as_far_as_nothing_differs_that_decides_an_experiment(kept, tmp_path, changes, reach):
    run = config("dash", changes.get("seed", 0), **merge(STRICT, {k: v for k, v in changes.items() if k != "seed"}))
    assert toy.trajectory(tmp_path, run, DATA).course.reach(kept) == reach


def test_another_machine_shares_nothing(place):
    trained(config("warm"), place, 1)
    assert sources(trained(config("dash"), place, 1, machine={"device": "gpu", "threads": 1})) == [None]


def test_a_run_that_began_with_anothers_state_continues_after_a_stop(place, tmp_path):
    first = trained(config("warm"), place, 1)
    run = config("dash")
    beginnings = Beginnings(run, place, MACHINE)
    begun = toy.trajectory(place.run_folder(run), run, DATA, find_beginning=beginnings.find)
    assert len(begun.records) == 1
    forget_beginnings(run, place)  # from now on it has its own
    moving = toy.advance(toy.trajectory(place.run_folder(run), run, DATA, watch=Watch(seconds=0)))
    assert sources(moving) == [first.run.id, None]
    assert_as_alone(moving, tmp_path)


def test_a_damaged_kept_state_is_passed_over(place, tmp_path):
    trained(config("warm"), place, 1)
    (kept,) = place.beginnings.rglob("*.ckpt")
    kept.write_bytes(kept.read_bytes()[:-1])
    moving = trained(config("dash"), place)
    assert sources(moving) == [None, None]
    for path in place.beginnings.rglob("*.json"):
        path.write_text("{")
    assert sources(trained(config("shrink"), place, 1)) == [None]
    assert_as_alone(moving, tmp_path)


def test_the_oldest_states_go_when_there_are_too_many_and_the_newest_stays(place, monkeypatch):
    trained(config("warm"), place, 1)
    monkeypatch.setattr(store, "MOST_BYTES", 1)
    trained(config("warm", seed=1), place, 1)
    kept = list(place.beginnings.rglob("*.ckpt"))
    assert len(kept) == 1
    assert [path.with_suffix(".ckpt") for path in place.beginnings.rglob("*.json")] == kept
    assert sources(trained(config("dash", seed=1), place, 1)) != [None]
    assert sources(trained(config("dash"), place, 1)) == [None]


def test_a_description_is_read_back_as_it_was_written(place):
    moving = trained(config("warm"), place, 1)
    beginning = moving.course.beginning(moving.records)
    assert Beginning.from_json(beginning.to_json()) == beginning
    with pytest.raises(ValueError, match="extra"):
        Beginning.from_json(json.dumps({**json.loads(beginning.to_json()), "extra": 1}))
    assert science.Ended(0.9, 5, 5, False).ends_within(5)


def test_each_seed_begins_once_before_any_begins_twice():
    runs = toy.params(seeds=[0, 1], compare={"methods": ["cold", "warm", "dash"]}).runs()
    order = [(run.method.label, run.seed) for run in in_turn(runs)]
    assert order == [(method, seed) for method in ("cold", "warm", "dash") for seed in (0, 1)]
