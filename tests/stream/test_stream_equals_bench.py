"""A stream's last model has the weights of `dashpipe run` over the same chunks, for every method."""

import json
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import load_file

from dash_core.data import ChunkPlan, Dataset, load_dataset
from dash_core.interventions import INTERVENTIONS
from flows.command_line.settings import load_params
from flows.command_line.stream import _as_overrides
from tasks.store.runs import open_trajectory
from tasks.store.stream.creating import begin, contract_for, first_delivery, write_deliveries
from tasks.store.stream.models import read_about, weights_digest
from tests.stream import small
from tests.system.shell import ROOT, dashpipe

QUICK = ("dash", "warm_rm")
SETTINGS = ["model.name=cnn3_small", "model.width=null", "training.max_epochs=4", "training.stop_accuracy=0.95"]
HOLD_OUT = {"salt": "salt", "share": 0.3}


pytestmark = pytest.mark.usefixtures("no_export")


def digits(store, images: int | None = None) -> Dataset:
    """Return the digits, or so many of their training images and of their test images."""
    found = load_dataset(load_params(ROOT / "params.yaml").dataset, data_root=store, cache=store / "cache")
    if images is None:
        return found
    parts = (
        replace(part, images=part.images[:images], labels=part.labels[:images]) for part in (found.train, found.test)
    )
    return Dataset("digits", *parts)


def grown(store, method: str, dataset: Dataset, count: int):
    """Return a stream of digits after its first images and so many deliveries, taken one pass after another."""
    first, *rest = write_deliveries(dataset, store / "deliveries", 0.5, count)
    settings = load_params(ROOT / "params.yaml", overrides=SETTINGS)
    contract = contract_for(first_delivery(first), settings, method, HOLD_OUT, {"gate": {"margin": 0.3}})
    (store / "inbox").mkdir()
    stream, _ = begin(store, "digits", contract, {"inbox": str(store / "inbox"), "settle_seconds": 0.0})
    small.run(stream, only=first)
    for delivery in rest:
        shutil.copytree(delivery, store / "inbox" / delivery.name)
        small.run(stream)
    return stream


def bench_weights(stream, store) -> str:
    """Return the weights' hash of the run that `dashpipe run` trains with the stream's settings."""
    _, state = stream.read()
    label = stream.contract(state).method.label
    settings = load_params(ROOT / "params.yaml", overrides=_as_overrides(stream, state, [label]))
    run, place = settings.run(label, settings.seeds[0]), small.place(store)
    dataset = load_dataset(run.dataset, data_root=store, cache=store / "cache")
    plan = ChunkPlan.split(dataset.train, run.dataset, run.chunks, run.seed, run.protocol)
    trajectory, _ = open_trajectory(run, dataset, plan, place, lambda course: None)
    while trajectory.pending:
        trajectory.advance()
    trajectory.finish({})
    return weights_digest(load_file(place.run_folder(run) / "weights.safetensors"))


def check(store, method: str, dataset: Dataset, count: int) -> None:
    stream = grown(store, method, dataset, count)
    _, state = stream.read()
    assert len(state.chunks) == count + 1
    assert read_about(stream, state.latest.id)["weights"] == bench_weights(stream, store)


@pytest.mark.parametrize("method", QUICK)
@pytest.mark.processor
def test_digits_as_three_deliveries_end_with_the_weights_of_the_bench(tmp_path, method):
    check(tmp_path, method, digits(tmp_path, 60), 2)


@pytest.mark.slow
@pytest.mark.parametrize("method", INTERVENTIONS)
def test_digits_as_ten_deliveries_end_with_the_weights_of_the_bench(tmp_path, method):
    check(tmp_path, method, digits(tmp_path), 9)


@pytest.mark.slow
def test_the_commands_say_so_too(tmp_path):
    settings = ("model.name=cnn3_small", "model.width=null", "training.max_epochs=20")
    store = tmp_path / "store"
    options = ("--from", "digits", "--share", "0.4", "--salt", "salt", "--margin", "0.1")
    created = dashpipe(store, "stream", "create", "demo", *options, settings=settings)
    assert created.code == 0, created.err
    shutil.copytree(store / "demo-deliveries", store / "demo-inbox", dirs_exist_ok=True)
    shutil.rmtree(store / "demo-inbox" / "first")
    arrived = dashpipe(store, "stream", "arrive", "demo", settings=())
    assert arrived.code == 0, arrived.err
    folder = store / "streams" / "demo"
    bench = ("dataset.name=stream", f"dataset.folder={folder}", "chunks=10", "methods.dash.cutoff=0.001", *settings)
    ran = dashpipe(store, "run", "--method", "dash", settings=bench)
    assert ran.code == 0, ran.err
    (weights,) = store.glob("runs/*/weights.safetensors")
    trained = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    last = [entry["model"]["weights_sha256"][:12] for entry in trained if entry["kind"] == "trained"][-1]
    about = json.loads((folder / "models" / last / "model.json").read_text())
    assert len(list((folder / "models").iterdir())) == 10
    assert about["weights"] == weights_digest(load_file(weights))
