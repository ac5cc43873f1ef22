"""A champion that is worse on what arrives after its release is found, and taken back where the contract says so."""

import numpy as np
import pytest

from dash_core.stream.harm import ENOUGH, Harm, harm_of
from dash_core.stream.outcomes import Outcomes
from dash_core.stream.paired import evidence_of_harm
from tasks.store.stream import observing
from tasks.store.stream.releasing import release
from tests.stream import small

pytestmark = pytest.mark.usefixtures("no_export")


@pytest.fixture
def bad_champion(monkeypatch):
    """The champion answers every second image of each delivery wrongly, and the model before it none."""

    def answers(stream, state, contract, model):
        arrival = state.untrained
        correct = np.arange(arrival.train) % 2 == 0 if model == state.champion else np.ones(arrival.train, dtype=bool)
        numbers = np.zeros(arrival.train, dtype=np.int64)
        return Outcomes([str(row) for row in range(arrival.train)], numbers, correct, numbers.astype(np.float64))

    monkeypatch.setattr(observing, "_answers", answers)


def released_twice(store, by: str, **rules):
    """Return a stream with two releases, the second by a person or by the gate."""
    stream = small.create(store, rules=rules)
    small.deliver(store / "inbox" / "day-1", 40, seed=1)
    small.run(stream)
    ledger, state = stream.read()
    if state.champion != state.latest.id:
        release(stream, ledger, stream.contract(state), "a test")
    if by == "gate":
        state = stream.read()[1]
        assert state.releases[-1].by == "gate", "the toy's second model passes the gate"
    small.deliver(store / "inbox" / "day-2", 40, seed=2)
    return stream


def test_both_answer_each_delivery_before_it_is_trained_on(tmp_path):
    stream = released_twice(tmp_path, "gate")
    small.run(stream)
    _, state = stream.read()
    kinds = [entry["kind"] for entry in stream.read()[0].entries]
    assert kinds.index("observed") < len(kinds) - 1 - kinds[::-1].index("trained")
    (seen,) = state.observations
    assert (seen.arrival, seen.images, seen.release) == (3, state.arrivals[2].train, 2)
    assert small.run(stream) == []


def test_harm_is_taken_back_where_the_contract_says_so_and_the_ledger_says_why(tmp_path, bad_champion):
    stream = released_twice(tmp_path, "gate", rollback="automatic")
    before = stream.read()[1]
    said = small.run(stream)
    _, state = stream.read()
    assert f"taken back: {before.previous} is the champion again (release 3)" in said
    back = state.releases[2]
    assert (back.model, back.by) == (before.previous, "harm")
    assert "is shown that the champion is worse" in back.reason
    assert before.champion in state.rejected
    assert state.latest.parent == before.previous, "what was taken back is not continued"
    assert state.latest.images == sum(arrival.train for arrival in state.chunks)


@pytest.mark.parametrize(("by", "rollback"), [("gate", "advise")])
def test_harm_is_only_told_where_a_person_decides(tmp_path, bad_champion, by, rollback):
    stream = released_twice(tmp_path, by, rollback=rollback)
    before = stream.read()[1]
    said = small.run(stream)
    assert any("dashpipe stream rollback toy" in line for line in said)
    state = stream.read()[1]
    assert all(one.by != "harm" for one in state.releases)
    assert before.champion not in state.rejected


@pytest.mark.slow
def test_what_is_known_of_a_champion_starts_anew_with_each_release(tmp_path):
    stream = released_twice(tmp_path, "gate")
    small.run(stream)
    ledger, state = stream.read()
    if state.champion != state.latest.id:
        state = release(stream, ledger, stream.contract(state), "a test")
    assert state.observations
    assert harm_of(state) is None


def test_a_model_that_is_not_worse_hardly_ever_looks_so():
    random = np.random.default_rng(0)
    alarms = 0
    for _ in range(500):
        lost = np.cumsum(random.integers(0, 2, 400))[::5]
        won = np.arange(1, 401)[::5] - lost
        alarms += any(evidence_of_harm(int(b), int(c)) >= ENOUGH for b, c in zip(won, lost, strict=True))
    assert alarms <= 12, "1 % of 500 are 5; 12 has a probability below 0.2 %"


def test_nine_losses_and_no_win_are_enough():
    assert not Harm(100, 0, 8, evidence_of_harm(0, 8)).shown
    assert Harm(100, 0, 9, evidence_of_harm(0, 9)).shown
