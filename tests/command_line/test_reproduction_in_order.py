"""`reproduce` with a budget or until claims are decided: the study's decisions, without training."""

import contextlib
import json
import threading
import time
from types import SimpleNamespace

import pytest
from prefect.settings import get_current_settings
from pydantic_core import to_jsonable_python

from dash_core.comparison import Params
from dash_core.errors import RecordError
from dash_core.views.reproduction.outcome import Measured
from dash_core.views.rules import FIXED_SEEDS, GROUP_SEQUENTIAL
from dash_core.views.summary import MethodRuns
from flows import compare
from flows.command_line import reproduction_in_order
from flows.command_line.limits import Limits
from flows.command_line.output import output_console
from flows.command_line.reproduction import ReproductionFailed, Selection
from flows.command_line.reproduction_in_order import reproduce_in_order
from flows.experiment import RunFailed
from flows.services.executor import Ended
from tasks.store.place import place_of
from tasks.store.progress import read_progress
from tests import toy
from tests.views.reproduction.made import record

STEPS = {"cold": 100, "warm": 20}


class Store:
    """A store in which runs become complete without training: warm is faster, and accuracies are all alike."""

    def __init__(self, deadline_after: int | None = None) -> None:
        self.trained: list[str] = []
        self.on_other_data: set[str] = set()
        self.damaged: set[str] = set()
        self.failing = False
        self.published = []
        self.deadline_after = deadline_after

    def train(self, title, comparisons, order, place, deadline, again):
        left = len(order) if self.deadline_after is None else self.deadline_after
        self.trained += [] if self.failing else order[:left]
        self.on_other_data -= set(order)
        self.asked = {"title": title, "comparisons": comparisons, "order": order, "place": place}
        return dict.fromkeys(order, "no memory") if self.failing else {}

    def is_complete(self, run, place, split, code):
        if run.id in self.damaged:
            raise RecordError(f"{run.id}: result.json is damaged")
        return run.id in self.trained and run.id not in self.on_other_data

    def measured(self, params, place):
        methods = [MethodRuns(label, label, self.runs(params, label)) for label in params.compare.methods]
        return Measured(params, methods)

    def runs(self, params, label):
        seeds = [seed for seed in params.seeds if params.run(label, seed).id in self.trained]
        last = {seed: STEPS[label] + (seed * 7) % 5 * (label == "cold") for seed in seeds}
        return {
            seed: [record(j, 0.5, 10), record(2, 0.5, 10), record(3, 0.5, last[seed])] for seed in seeds for j in (1,)
        }

    def publish(self, name, scale, settings, place, overrides, again, ordered):
        self.published.append((name, settings, ordered))
        raise reproduction_in_order.NothingToShow("not here")


@pytest.fixture
def store(monkeypatch):
    store = Store()
    for name in ("standing_by", "services"):
        monkeypatch.setattr(reproduction_in_order, name, lambda *arguments: contextlib.nullcontext())
    monkeypatch.setattr(reproduction_in_order, "check_data", lambda *arguments: None)
    monkeypatch.setattr(reproduction_in_order, "training_rate", lambda device: 1e9)
    monkeypatch.setattr(reproduction_in_order, "train_in_order", store.train)
    monkeypatch.setattr(reproduction_in_order, "is_complete", store.is_complete)
    monkeypatch.setattr(reproduction_in_order, "open_dataset", lambda config, place: None)
    monkeypatch.setattr(reproduction_in_order, "open_plan", lambda run, dataset, place: SimpleNamespace(digest="split"))
    monkeypatch.setattr(reproduction_in_order, "measured_runs", store.measured)
    monkeypatch.setattr(reproduction_in_order, "reproduce_item", store.publish)
    monkeypatch.setattr("flows.command_line.live.watched", lambda *arguments: contextlib.nullcontext())
    monkeypatch.setattr(reproduction_in_order.Crew, "of", lambda params, runs: reproduction_in_order.Crew(2, 1))
    return store


def reproduce(store, tmp_path, limits, *overrides):
    selection = Selection.of(["figure-7"], "smoke", overrides, again=False)
    reproduce_in_order(selection, limits, place_of(Params(), tmp_path, None), output_console())
    ((_, settings, ordered),) = store.published
    (params,) = settings.values()
    return params, ordered


def test_seeds_are_added_only_while_a_claim_is_open(store, tmp_path):
    """Cold's steps grow by about 90, warm's by 10: with a spread of 2, three or four seeds decide both claims."""
    params, ordered = reproduce(store, tmp_path, Limits(most_seeds=20))
    assert 3 <= len(params.seeds) <= 5
    assert params.seeds == list(range(len(params.seeds)))
    assert len(store.trained) == 2 * len(params.seeds)
    assert (ordered.most_seeds, ordered.left, ordered.rule) == (20, 0, GROUP_SEQUENTIAL)


def test_seeds_are_added_up_to_the_limit_for_a_claim_that_stays_open(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(STEPS, "warm", 100)  # warm's steps grow as cold's: the second claim has no answer
    params, _ = reproduce(store, tmp_path, Limits(most_seeds=6))
    assert params.seeds == list(range(6))
    assert "open     1 claims at 6 seeds; --max-seeds up to 30 adds more" in capsys.readouterr().out


def test_a_budget_adds_no_seed_and_counts_the_runs_that_are_left(store, tmp_path, capsys):
    store.deadline_after = 1
    params, ordered = reproduce(store, tmp_path, Limits(budget=3600.0), "seeds=[0, 1]")
    assert params.seeds == [0, 1]
    assert (ordered.left, ordered.rule) == (3, FIXED_SEEDS)
    assert "left     3 runs, about" in capsys.readouterr().out


def test_an_item_without_a_page_still_tells_the_claims_whose_runs_are_complete(store, tmp_path, capsys):
    store.deadline_after = 3
    reproduce(store, tmp_path, Limits(budget=3600.0), "seeds=[0, 1, 2]")
    out = " ".join(capsys.readouterr().out.split())
    assert "agree cold's steps grow with the data: the last experiment takes more than the middle one" in out
    assert "cold's steps grow by more than warm's" not in out


def test_a_prefect_server_takes_the_runs_of_all_items_as_parameters_of_one_flow(store, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduction_in_order, "by_claims_decided", lambda claims, seconds: list(seconds))
    store.deadline_after = 0
    selection = Selection.of(["all"], "small", (), again=False)
    reproduce_in_order(selection, Limits(budget=3600.0), place_of(Params(), tmp_path, None), output_console())
    assert len(store.asked["order"]) > 400
    size = len(json.dumps(to_jsonable_python(store.asked)))
    assert size < get_current_settings().server.api.max_parameter_size / 2


def test_nothing_is_trained_after_the_budget(store, tmp_path):
    _, ordered = reproduce(store, tmp_path, Limits(budget=1e-9))
    assert (store.trained, ordered.left) == ([], 2)


def test_an_item_without_data_fails_and_is_named(store, tmp_path, monkeypatch):
    def missing(*arguments):
        raise reproduction_in_order.DashError("no such data")

    monkeypatch.setattr(reproduction_in_order, "check_data", missing)
    with pytest.raises(ReproductionFailed, match="1 of 1 items are incomplete:\n  figure-7: no such data"):
        reproduce(store, tmp_path, Limits(budget=60.0))


def test_runs_that_all_fail_make_the_command_fail(store, tmp_path):
    store.failing = True
    with pytest.raises(ReproductionFailed, match=r"figure-7: 2 runs failed:\n.*: no memory"):
        reproduce(store, tmp_path, Limits(budget=60.0))


def test_runs_that_are_complete_on_other_data_are_trained_again(store, tmp_path):
    params, _ = reproduce(store, tmp_path, Limits(budget=60.0))
    (stale, _) = [run.id for run in params.runs()]
    store.on_other_data, store.published = {stale}, []
    _, ordered = reproduce(store, tmp_path, Limits(budget=60.0))
    assert (list(store.asked["order"]), ordered.left) == ([stale], 0)


def test_an_item_with_a_damaged_record_is_named_and_the_others_go_on(store, tmp_path):
    selection = Selection.of(["figure-7", "figure-16"], "smoke", (), again=False)
    (params,) = selection.settings["figure-7"].values()
    damaged = params.runs()[0].id
    assert damaged not in {run.id for one in selection.settings["figure-16"].values() for run in one.runs()}
    store.damaged = {damaged}
    with pytest.raises(ReproductionFailed, match=r"1 of 2 items are incomplete:\n  figure-7: .* is damaged"):
        reproduce_in_order(selection, Limits(budget=60.0), place_of(Params(), tmp_path, None), output_console())
    assert [name for name, *_ in store.published] == ["figure-16"]


def test_claims_that_the_rule_can_look_at_no_more_are_told_so(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(STEPS, "warm", 102)  # cold's mean: the second claim has no answer
    reproduce(store, tmp_path, Limits(most_seeds=30))
    assert "open     1 claims at 30 seeds, the most that the rule is made for" in capsys.readouterr().out


def test_training_stops_early_enough_for_the_pages():
    started = time.monotonic()
    left = Limits(budget=1000.0).deadline(items=10).seconds_left
    assert 980 - (time.monotonic() - started) <= left <= 980
    assert Limits(budget=10.0).deadline(items=31).seconds_left <= 8
    assert Limits().deadline(items=1) is None


class Waiting:
    """An executor whose runs train until they are asked to stop."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    def __enter__(self):
        return self

    def __exit__(self, *details):
        pass

    def terminate(self):
        self.asked.set()

    def call(self, function, run, *arguments):
        if run.method.label == "warm":
            raise RunFailed("broken")
        assert self.asked.wait(60)
        raise Ended("the comparison was stopped while this run trained")


def test_at_the_deadline_runs_stop_without_having_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "open_executor", lambda *arguments: Waiting())
    monkeypatch.setattr(compare, "serialize_context", dict)
    runs = [params.run(label, 0) for params in [toy.params()] for label in ("warm", "cold")]
    place = place_of(Params(), tmp_path, None)
    failures = compare.train_runs(runs, place, compare.Crew(1, 1), compare.Deadline(0.01))
    assert failures == {runs[0].id: "broken"}
    assert read_progress(place.run_folder(runs[1])).state == "stopped"
