"""Passes over a stream: deliveries become chunks, models are compared, released, taken back."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dash_core.data import ChunkPlan, load_dataset
from dash_core.data.arrived import arrived_files, read_arrived
from dash_core.errors import DataError, RecordError
from dash_core.interventions import INTERVENTIONS
from dash_core.trajectory import Trajectory
from tasks.store.stream.pending import next_step, pending_deliveries
from tasks.store.stream.releasing import release, roll_back
from tests import toy
from tests.stream import small

QUICK = ("dash", "shrink_perturb")


pytestmark = pytest.mark.usefixtures("no_export")


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A stream with three chunks, two of them delivered."""
    store = tmp_path_factory.mktemp("grown")
    stream = small.create(store)
    for number in (1, 2):
        small.deliver(store / "inbox" / f"day-{number}", 40, seed=number)
        small.run(stream)
    return stream


@pytest.fixture
def copied(grown, tmp_path):
    """A copy of that stream, to be changed."""
    shutil.copytree(grown.path.parents[1], tmp_path / "store")
    return _moved(grown, tmp_path / "store")


def _moved(stream, store):
    from tasks.store.stream.folder import StreamFolder

    copy = StreamFolder(store / "streams" / stream.name)
    contract = stream.contract(stream.read()[1])
    copy.write_contract(contract, {"inbox": str(store / "inbox"), "settle_seconds": 0.0})
    return copy


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in INTERVENTIONS]
)
@pytest.mark.processor
def test_a_stream_has_the_weights_of_the_bench_over_the_same_chunks_bit_for_bit(tmp_path, method):
    stream = small.create(tmp_path, method=method, images=60)
    for number in (1, 2):
        small.deliver(tmp_path / "inbox" / f"day-{number}", 30, seed=number)
        small.run(stream)
    _, state = stream.read()
    contract = stream.contract(state)
    run = contract.run(stream.name, 3).model_copy(
        update={"dataset": contract.run(stream.name, 3).dataset.model_copy(update={"folder": str(stream.path)})}
    )
    dataset = load_dataset(run.dataset, data_root=tmp_path, cache=tmp_path / "cache")
    plan = ChunkPlan.split(dataset.train, run.dataset, 3, contract.seed)
    bench = toy.advance(Trajectory(run, dataset, plan, tmp_path / "bench", device=toy.CPU))
    expected = bench.learner.model.state_dict()
    found = load_file(stream.model(state.latest.id) / "weights.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_pass_takes_every_delivery_as_a_chunk_and_compares_the_last_model_alone(tmp_path):
    stream = small.create(tmp_path)
    for number in (1, 2, 3):
        small.deliver(tmp_path / "inbox" / f"day-{number}", 24, seed=number)
    small.run(stream)
    _, state = stream.read()
    assert [arrival.source for arrival in state.chunks] == ["first", "day-1", "day-2", "day-3"]
    assert [model.chunk for model in state.models.values()] == [1, 2, 3, 4]
    assert [(look.challenger, look.champion) for look in state.looks] == [(state.latest.id, next(iter(state.models)))]


def test_a_second_pass_finds_nothing_to_do_and_writes_nothing(grown):
    before = grown.ledger_file.read_bytes()
    _, state = grown.read()
    assert next_step(state, pending_deliveries(grown, state)) is None
    assert small.run(grown) == []
    assert grown.ledger_file.read_bytes() == before


def test_the_same_content_under_other_names_and_times_is_nothing_new(copied):
    store = copied.path.parents[1]
    again = store / "inbox" / "again"
    for number, file in enumerate(sorted((store / "inbox" / "day-1").rglob("*.png"), reverse=True)):
        small.save(np.asarray(small.Image.open(file))[:, :, None], again / file.parent.name / f"other {number}.png")
    assert ["nothing new" in line for line in small.run(copied)] == [True]
    _, state = copied.read()
    assert (state.arrivals[-1].outcome, len(state.chunks), len(state.looks)) == ("duplicate", 3, 2)


def test_no_image_is_both_trained_on_and_held_out(grown):
    trained, held = (
        {bytes(image) for file in arrived_files(grown.path / kind) for image in read_arrived(file).ids}
        for kind in ("chunks", "holdout")
    )
    assert trained
    assert held
    assert not trained & held


def test_a_rollback_makes_the_champion_before_the_champion_again_and_trains_nothing(copied):
    ledger, state = copied.read()
    first, *_ = state.models
    if state.champion == first:
        state = release(copied, ledger, copied.contract(state), "a test")
    champion = state.champion
    after = roll_back(copied, ledger, copied.contract(state), "it was wrong")
    assert (after.champion, after.previous, len(after.models)) == (state.previous, champion, len(state.models))
    assert json.loads((copied.path / "champion.json").read_text())["model"] == after.champion
    assert after.parent.id == after.champion, "a model that was taken back must not be continued"


def test_after_a_rollback_the_next_model_continues_from_the_champion_on_all_data(copied):
    ledger, state = copied.read()
    if state.champion != state.latest.id:
        release(copied, ledger, copied.contract(state), "a test")
    state = roll_back(copied, ledger, copied.contract(state), "it was wrong")
    small.deliver(copied.path.parents[1] / "inbox" / "day-3", 24, seed=3)
    small.run(copied)
    _, after = copied.read()
    assert after.latest.parent == state.champion
    assert after.latest.images == sum(arrival.train for arrival in after.chunks)


def test_a_contract_that_was_edited_is_refused(copied):
    path = copied.path / "stream.yaml"
    path.write_text(path.read_text().replace("margin: 0.2", "margin: 0.3"))
    with pytest.raises(RecordError, match="frozen"):
        small.run(_fresh(copied))


def _fresh(stream):
    from tasks.store.stream.folder import StreamFolder

    return StreamFolder(stream.path)


@pytest.mark.parametrize("kind", ["chunks", "holdout"])
def test_a_flipped_bit_is_named_and_nothing_is_trained(copied, kind):
    file = arrived_files(copied.path / kind)[0]
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    small.deliver(copied.path.parents[1] / "inbox" / "day-3", 24, seed=3)
    with pytest.raises(DataError, match=file.name):
        small.run(copied)
    assert len(copied.read()[1].models) == 3


def test_weights_that_were_changed_are_not_released(copied):
    ledger, state = copied.read()
    file = copied.model(next(iter(state.models))) / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(RecordError, match="not what was trained"):
        roll_back(copied, ledger, copied.contract(state), "a test", to_first(state))


def to_first(state) -> str | None:
    return next(iter(state.models)) if state.champion != next(iter(state.models)) else None
