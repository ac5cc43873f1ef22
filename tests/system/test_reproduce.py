"""The paper's items as a user makes them: real runs of seconds, pages, verdicts and the summary."""

import json
import math
import time

import pytest

from dash_core.views.reproduction import ITEMS
from tasks.store.attempts import saved_steps
from tests.system.shell import dashpipe

ASKED = ("figure-1", "figure-3")  # a comparison, and the simulation


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory):
    store = tmp_path_factory.mktemp("reproduced") / "store"
    summary = ("--summary", str(store.parent / "summary.md"))
    return dashpipe(store, "reproduce", *ASKED, "--scale", "smoke", *summary, settings=())


def folder(store, item):
    return store / "reproduction" / item / "smoke"


def test_items_are_reproduced_in_one_command(reproduced):
    assert (reproduced.code, reproduced.err) == (0, "")
    assert {path.parent.name for path in (reproduced.store / "reproduction").glob("*/smoke")} == set(ASKED)


@pytest.mark.parametrize("item", ASKED)
def test_each_leaves_its_page_and_its_record(reproduced, item):
    result = json.loads((folder(reproduced.store, item) / "result.json").read_text())
    assert (result["item"], result["scale"], result["failures"]) == (item, "smoke", {})
    assert {claim["verdict"] for claim in result["claims"]} == {"too few seeds"}  # a single seed says nothing
    assert result["seconds"] > 0
    assert result["machines"]
    page = (folder(reproduced.store, item) / "index.html").read_text()
    assert result["command"] in page
    assert "too few seeds" in page


def test_the_console_tells_claims_numbers_and_page(reproduced):
    assert "DASH > S&P > cold > warm in last test accuracy" in reproduced.out
    assert "1 paired seed: no interval" in reproduced.out
    assert str(folder(reproduced.store, "figure-1") / "index.html") in reproduced.out


def experiments(store):
    return {len(path.read_text().splitlines()) for path in store.glob("runs/*-cold-*/chunks.jsonl")}


def test_each_chunk_of_the_standard_protocol_is_an_experiment(reproduced):
    assert experiments(reproduced.store) == {2}


def test_the_summary_names_the_machine_and_every_claim(reproduced):
    summary = (reproduced.store.parent / "summary.md").read_text()
    assert "Measured on " in summary
    for item in ASKED:
        claims = json.loads((folder(reproduced.store, item) / "result.json").read_text())["claims"]
        assert summary.count(f"| {item} |") == len(claims)


def test_an_unknown_item_is_refused_before_anything_starts(tmp_path):
    ended = dashpipe(tmp_path / "store", "reproduce", "figure-99", settings=())
    assert ended.code == 2
    assert "unknown item 'figure-99'" in ended.err


@pytest.mark.slow
def test_seeds_are_added_up_to_the_limit_and_a_budget_that_is_over_leaves_them_to_the_same_command(tmp_path):
    """Nothing is decided: runs of three epochs take equally many steps with every seed."""
    asked = ("reproduce", "figure-7", "--scale", "smoke", "--until-decided", "--max-seeds", "4")
    ended = dashpipe(tmp_path / "store", *asked, "--budget", "1s", settings=())
    assert (ended.code, ended.err) == (0, "")
    assert "figure-7 has no page yet: 2 runs are left" in ended.out
    assert "the same command continues with them" in ended.out
    ended = dashpipe(tmp_path / "store", *asked, settings=())
    assert (ended.code, ended.err) == (0, "")
    result = json.loads((folder(ended.store, "figure-7").with_name("smoke-until-decided") / "result.json").read_text())
    assert "--until-decided --max-seeds 4" in result["command"]
    for method in ("cold", "warm"):
        assert len(list(ended.store.glob(f"runs/*-{method}-*/result.json"))) == 4
    assert "open     2 claims at 4 seeds; --max-seeds up to 30 adds more" in ended.out


@pytest.mark.slow
def test_a_budget_stops_runs_under_way_and_the_same_command_goes_on_from_their_saved_states(tmp_path):
    """Runs without an end: only the budget stops them. The second one is so short that no run could catch up."""
    endless = ("--set", "training.max_epochs=1000000", "--set", "training.stop_accuracy=null", "--set", "seeds=[0, 1]")
    asked = ("reproduce", "figure-7", "--scale", "smoke", *endless, "--budget")
    started = time.monotonic()
    dashpipe(tmp_path / "nothing", *asked, "1s", settings=())
    short = math.ceil(2 * (time.monotonic() - started)) + 10
    saved = []
    for budget in (4 * short, short):
        ended = dashpipe(tmp_path / "store", *asked, f"{budget}s", settings=())
        assert ended.code == 0
        assert "stopping: the runs under way save their state …" in ended.err
        assert "left     4 runs" in ended.out
        saved.append({path.parent: saved_steps(path.parent) for path in ended.store.glob("runs/*/state.ckpt")})
    before, after = saved
    assert before
    assert all(steps > 0 for steps in before.values())
    assert all(after[run] > steps for run, steps in before.items())


@pytest.mark.slow
def test_every_item_runs_at_its_smoke_scale(tmp_path):
    ended = dashpipe(tmp_path / "store", "reproduce", "all", "--scale", "smoke", settings=())
    assert (ended.code, ended.err) == (0, "")
    assert {path.parent.name for path in (ended.store / "reproduction").glob("*/smoke")} == set(ITEMS)
    assert experiments(ended.store) >= {2, 10}  # chunks; figure 23 arrives class by class


@pytest.mark.slow
def test_an_item_that_fails_does_not_take_the_others_down(tmp_path):
    empty = tmp_path / "data"
    empty.write_text("no folder")  # nothing can be downloaded into a file
    ended = dashpipe(tmp_path / "store", "reproduce", "figure-18", "table-7", "--data-root", str(empty), settings=())
    assert ended.code == 1
    assert "1 of 2 items are incomplete" in ended.err
    assert (ended.store / "reproduction" / "table-7" / "small" / "index.html").exists()
