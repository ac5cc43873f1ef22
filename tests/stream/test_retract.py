"""A delivery that was wrong leaves all that follows; nothing that was recorded is changed."""

import json
import shutil

import pytest

from dash_core.data import ChunkPlan, load_dataset
from dash_core.errors import ConfigError
from dash_core.stream.chain import chained_without
from dash_core.stream.history import state_of
from dash_core.trajectory import Trajectory
from flows.command_line.stream import _as_overrides
from tasks.store.stream.models import read_about, weights_digest
from tasks.store.stream.pending import next_step, pending_deliveries
from tasks.store.stream.receiving import known_images
from tasks.store.stream.releasing import release, roll_back
from tasks.store.stream.retracting import retract
from tasks.store.stream.telling import told_advice, told_retraction
from tests import toy
from tests.stream import small

pytestmark = pytest.mark.usefixtures("no_export")


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A stream with four chunks, each released: first, day-1, day-2, day-3."""
    store = tmp_path_factory.mktemp("grown")
    stream = small.create(store, images=60)
    for number in (1, 2, 3):
        small.deliver(store / "inbox" / f"day-{number}", 24, seed=number)
        small.run(stream)
        ledger, state = stream.read()
        if state.champion != state.latest.id:
            release(stream, ledger, stream.contract(state), "a test")
    return stream


@pytest.fixture
def copied(grown, tmp_path):
    shutil.copytree(grown.path.parents[1], tmp_path / "store")
    copy = type(grown)(tmp_path / "store" / "streams" / grown.name)
    contract = grown.contract(grown.read()[1])
    copy.write_contract(contract, {"inbox": str(tmp_path / "store" / "inbox"), "settle_seconds": 0.0})
    return type(grown)(copy.path)


def retracted(stream, delivery, **options):
    ledger, state = stream.read()
    return retract(stream, ledger, stream.contract(state), delivery, "wrong labels", **options)


def test_models_that_were_trained_on_it_are_marked_and_the_last_release_that_was_not_is_served_at_once(copied):
    before = copied.read()[1]
    lines = copied.ledger_file.read_bytes()
    two, three, four = list(before.models)[1:]
    state = retracted(copied, "day-2")
    assert (state.tainted, state.champion, state.releases[-1].by) == ({three, four}, two, "retract")
    assert json.loads((copied.path / "champion.json").read_text())["model"] == two
    assert copied.ledger_file.read_bytes().startswith(lines), "what was recorded stays"
    told = list(told_retraction(before, state))
    assert told[0].startswith(f"day-2: {before.arrivals[2].train} training images")
    assert f"continues from {two} (chunk 2)" in told[-1]
    with pytest.raises(ConfigError, match="was trained on a delivery that was retracted"):
        release(copied, copied.read()[0], copied.contract(state), "a test", four)
    with pytest.raises(ConfigError, match="was trained on a delivery that was retracted"):
        roll_back(copied, copied.read()[0], copied.contract(state), "a test", three)


def test_the_next_pass_trains_without_it_from_the_last_model_that_was_not_trained_on_it(copied):
    state = retracted(copied, "day-2")
    assert next_step(state, pending_deliveries(copied, state)) == "train"
    small.run(copied)
    _, after = copied.read()
    new, chunks = after.latest, after.chunks
    assert (new.parent, new.chunk, new.without) == (state.champion, 4, (3,))
    assert new.images == sum(arrival.train for arrival in chunks) - chunks[2].train
    assert new.chain == chained_without(chunks[3].chain, [chunks[2].chain]) == read_about(copied, new.id)["chain"]
    assert small.run(copied) == []
    held = json.loads((copied.path / "retracted.json").read_text())
    assert held == {"chunks": [3], "holdout": [3]}
    small.deliver(copied.path.parents[1] / "inbox" / "day-4", 24, seed=4)
    small.run(copied)
    _, later = copied.read()
    assert (later.latest.parent, later.latest.without) == (new.id, (3,))
    assert not later.tainted & set(later.lineage(later.champion))


def test_from_scratch_the_model_is_that_of_the_bench_over_the_data_in_use(copied, tmp_path):
    retracted(copied, "3", start="scratch")
    small.run(copied)
    _, state = copied.read()
    assert state.latest.parent is None
    contract = copied.contract(state)
    run = contract.run("toy", 1)
    run = run.model_copy(update={"dataset": run.dataset.model_copy(update={"folder": str(copied.path)})})
    dataset = load_dataset(run.dataset, data_root=tmp_path, cache=tmp_path / "cache")
    assert dataset.train.digest == state.latest.chain
    assert len(dataset.train) == state.latest.images
    assert len(dataset.test) == sum(one.held_out for one in state.arrivals if not one.retracted)
    assert "chunks=3" in _as_overrides(copied, state, ["dash"])
    plan = ChunkPlan("stream", dataset.train.digest, contract.seed, (toy.torch.arange(len(dataset.train)),))
    bench = toy.advance(Trajectory(run, dataset, plan, tmp_path / "bench", device=toy.CPU))
    assert weights_digest(bench.learner.model.state_dict()) == read_about(copied, state.latest.id)["weights"]


def test_a_person_chooses_where_the_next_model_begins(copied):
    first = next(iter(copied.read()[1].models))
    retracted(copied, "day-3", start=first[:8])
    small.run(copied)
    _, state = copied.read()
    assert (state.latest.parent, state.latest.chunk) == (first, 3)


def test_the_newest_delivery_is_retracted_without_any_training(copied):
    before = copied.read()[1]
    state = retracted(copied, "day-3")
    assert state.champion == list(before.models)[2] == state.latest.id
    assert small.run(copied) == []
    assert copied.read()[1].models == state.models


def test_images_of_a_retracted_delivery_may_come_again_with_other_labels(copied):
    state = retracted(copied, "day-2")
    gone = copied.read()[1].arrivals[2]
    assert len(known_images(copied, state).labels) == sum(
        one.train + one.held_out for one in state.arrivals if one.number != gone.number
    )
    inbox = copied.path.parents[1] / "inbox"
    for file in sorted((inbox / "day-2").rglob("*.png")):
        label = (int(file.parent.name.split()[1]) + 1) % small.CLASSES
        target = inbox / "day-2-mended" / f"class {label}" / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    small.run(copied)
    _, after = copied.read()
    mended = after.arrivals[-1]
    assert (mended.train, mended.held_out, mended.set_aside) == (gone.train, gone.held_out, {})


def test_what_cannot_be_retracted_is_said_and_nothing_is_recorded(copied):
    lines = copied.ledger_file.read_bytes()
    with pytest.raises(ConfigError, match="names 0 deliveries"):
        retracted(copied, "nonsense")
    assert copied.ledger_file.read_bytes() == lines
    retracted(copied, "day-3")
    with pytest.raises(ConfigError, match="already"):
        retracted(copied, "day-3")


def test_all_that_was_trained_on_may_not_be_retracted(tmp_path):
    stream = small.create(tmp_path, images=24)
    with pytest.raises(ConfigError, match="no image to train on is left"):
        retracted(stream, "first")


def test_without_an_earlier_release_the_champion_stays_until_the_next_pass(copied):
    before = copied.read()[1]
    state = retracted(copied, "first")
    assert (state.champion, state.latest) == (before.champion, None)
    assert state.tainted == set(before.models)
    assert "no earlier release was not" in next(iter(told_advice(state, None)))
    small.run(copied)
    after = copied.read()[1]
    assert (after.latest.parent, after.latest.without) == (None, (1,))


def history(*entries):
    first = {"kind": "created", "name": "toy", "contract": {"gate": {"looks": 3}}, "contract_digest": "c"}
    found = [{"at": 0, **entry} for entry in (first, *entries)]
    return state_of(found, [""] * len(found))


def test_what_was_held_out_of_it_leaves_the_generation_and_an_unfinished_look_at_its_model_is_used_up():
    arrivals = [
        {"kind": "arrival", "arrival": one}
        for one in (
            {"digest": str(number), "source": f"day-{number}", "outcome": "admitted", "train": 8, "chunk": number}
            | {"chain": str(number), "held_out": 10 * number, "held_digest": "h"}
            for number in (1, 2)
        )
    ]
    cost = {"experiment": 1, "accuracy": 1.0, "images": 8, "steps": 1, "epochs": 1, "converged": True}
    cost |= {"seconds": 1.0, "flops": 1, "code": ""}
    trained = [
        {"kind": "trained", "model": {"weights_sha256": name * 64, "chunk": chunk, "parent": parent, **cost}}
        for name, chunk, parent in (("a", 1, None), ("b", 2, "a" * 12))
    ]
    verdict = {"kind": "verdict", "model": "a" * 12, "verdict": "pass", "details": "", "anchor": True}
    begun = (arrivals[0], trained[0], verdict, arrivals[1], trained[1], {"kind": "generation", "last": 2, "images": 30})
    look = {"kind": "look", "challenger": "b" * 12, "champion": "a" * 12}
    assert history(*begun, look).unfinished_look
    state = history(*begun, look, {"kind": "retracted", "arrival": 2, "reason": "a test"})
    assert (state.generation.images, state.generation.looks, state.unfinished_look) == (10, 1, None)
    assert (state.tainted, state.challenger, state.untrained) == ({"b" * 12}, None, None)
