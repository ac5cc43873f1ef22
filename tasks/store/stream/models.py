"""The models of a stream: trained on all chunks so far from their parent's state, sealed in a folder, read back.

A model's folder contains its weights, the learner's state (momentum too), the records of its ancestors and its own, and
a description. It is moved into place whole, and then recorded in the ledger. The training itself is a `Trajectory` in
the folder `training/`, which continues at the step where it was killed.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import nn

from dash_core.checkpoint import STATE_FILE, CheckpointWriter, load_checkpoint
from dash_core.config import RunConfig, digest_of
from dash_core.cost import LIMITED, Limit
from dash_core.data import ChunkPlan, Dataset, ImageSet
from dash_core.data.arrived import CHUNKS, HELD_OUT, Arrived, check_arrived, joined, read_arrived
from dash_core.device import choose_device, prepare_device
from dash_core.errors import DataError, RecordError
from dash_core.files import naming, sync, write_atomically
from dash_core.models import build_model
from dash_core.records import RECORDS_FILE
from dash_core.result import WEIGHTS_FILE
from dash_core.run_state import Earlier, Watch
from dash_core.seeding import derive_seed
from dash_core.stream.contract import Contract
from dash_core.stream.heads import grown_state
from dash_core.stream.predicting import probabilities
from dash_core.stream.state import ID_LENGTH, Arrival, StreamState
from dash_core.trajectory import Trajectory
from tasks.store import stopping
from tasks.store.code import code_digest
from tasks.store.place import Place
from tasks.store.progress import ProgressWriter
from tasks.store.runs import facts, resident_bytes
from tasks.store.stream.folder import StreamFolder
from tasks.store.stream.ledger import Ledger

LEARNER_FILE, ABOUT_FILE, GOLDEN_FILE = "learner.ckpt", "model.json", "golden.npz"
GOLDEN_IMAGES = 16
GOLDEN_TOLERANCE = 1e-4  # of a probability


def open_training(
    stream: StreamFolder, state: StreamState, contract: Contract, place: Place
) -> tuple[Trajectory, ProgressWriter]:
    """Return the training of the newest chunk where it stopped, or at its beginning: the parent's state.

    DataError if any file of the model's data is not what the ledger says.
    """
    parent, arrival = state.parent, state.untrained
    if arrival is None:
        raise RecordError(f"stream {stream.name} has no chunk to train on")
    ends = [*state.ends(parent.id if parent else None), arrival.chunk]
    parts = chunks_of(stream, state)
    train = joined(parts, contract.classes, state.data_digest)
    numbers = [one.chunk for one in state.used_chunks]
    bounds = np.cumsum([0, *(len(part) for part in parts)])[[0, *np.searchsorted(numbers, ends, side="right")]]
    plan = ChunkPlan("stream", train.digest, contract.seed, torch.arange(len(train)).split(np.diff(bounds).tolist()))
    tested = held_out_images(stream, tested_arrivals(state), contract)
    run = _with_initial_weights(stream, contract.run(stream.name, len(ends)))
    device = choose_device(place.device)
    prepare_device(device, place.threads)
    stream.training.mkdir(parents=True, exist_ok=True)
    progress = ProgressWriter(stream.training, plan, run.schedule)
    trajectory = Trajectory(
        run,
        Dataset("stream", train, tested, None),
        plan,
        stream.training,
        device=device,
        code=code_digest(),
        watch=Watch(progress.after_epoch, stopping.requested, place.checkpoint_seconds),
        resident=resident_bytes(place, device),
        earlier=_earlier(stream, parent.id, contract) if parent else None,
        limit=limit_of(contract),
    )
    progress.resumed(trajectory.records)
    return trajectory, progress


def limit_of(contract: Contract) -> Limit:
    """Return what ends the training of a model: the training bounds of the contract's budget."""
    return Limit(**{name: getattr(contract.budget, f"training_{name}") for name in ("steps", "flops", "seconds")})


def _with_initial_weights(stream: StreamFolder, run: RunConfig) -> RunConfig:
    """Return the run with the path of the weights that the stream began with; its id does not depend on it."""
    if run.model.weights is None:
        return run
    model = run.model.model_copy(update={"weights": str(stream.path / run.model.weights)})
    return run.model_copy(update={"model": model})


def _earlier(stream: StreamFolder, parent: str, contract: Contract) -> Earlier:
    """Return the parent's state; what it must be of is in its description. New classes need a larger head."""
    about = read_about(stream, parent)
    identity = {key: about["identity"][key] for key in ("run", "split")}
    if len(about["classes"]) == len(contract.classes):
        return Earlier(stream.model(parent) / LEARNER_FILE, identity)
    state = learner_state(stream, parent)
    fresh = _network(contract, derive_seed(contract.seed, "head", len(contract.classes)))
    names = [name for name, _ in fresh.named_parameters()]
    grown = {**state, "learner": {**state["learner"], **grown_state(state["learner"], fresh.state_dict(), names)}}
    path = stream.training / "grown.ckpt"
    with CheckpointWriter(path) as writer:
        writer.save(grown)
    return Earlier(path, identity)


def chunks_of(stream: StreamFolder, state: StreamState) -> list[Arrived]:
    """Return all chunks in use, oldest first, each checked against the ledger."""
    parts = []
    for arrival in state.used_chunks:
        file = stream.numbered(CHUNKS, arrival.chunk, arrival.chain)
        check_arrived(file, arrival.chain)
        parts.append(read_arrived(file))
    return parts


def tested_arrivals(state: StreamState) -> list[Arrival]:
    """Return the arrivals whose held-out images a model is measured on: the current generation's, or all before it."""
    generation = state.generation
    arrivals = state.arrivals[generation.first - 1 : generation.last] if generation else state.arrivals
    return [arrival for arrival in arrivals if arrival.held_out and arrival.retracted is None]


def held_out_parts(stream: StreamFolder, arrivals: Sequence[Arrival]) -> list[Arrived]:
    """Return the held-out images of arrivals, each file checked against the ledger. DataError if there is none."""
    parts = []
    for arrival in arrivals:
        file = stream.numbered(HELD_OUT, arrival.number, arrival.held_digest)
        check_arrived(file, arrival.held_digest)
        parts.append(read_arrived(file))
    if not parts:
        raise DataError(
            f"stream {stream.name} has no held-out image: deliver more images, or create it with a larger share"
        )
    return parts


def held_out_images(stream: StreamFolder, arrivals: Sequence[Arrival], contract: Contract) -> ImageSet:
    """Return the held-out images of arrivals as one set."""
    return joined(held_out_parts(stream, arrivals), contract.classes)


def seal(stream: StreamFolder, ledger: Ledger, contract: Contract, trajectory: Trajectory, place: Place) -> StreamState:
    """Move the trained model into its folder, then record it; return the new state."""
    state = stream.state(ledger)
    arrival, parent = state.untrained, state.parent
    weights = {name: tensor.contiguous().cpu() for name, tensor in trajectory.learner.model.state_dict().items()}
    content = to_safetensors(weights, {"chain": state.data_digest})  # of several keys the order would be random
    digest = hashlib.sha256(content).hexdigest()
    model = digest[:ID_LENGTH]
    record = trajectory.records[-1]
    about = {
        "weights_sha256": digest,
        "weights": weights_digest(weights),
        "chain": state.data_digest,
        "parent": parent.id if parent else None,
        "classes": list(contract.classes),
        "identity": trajectory.identity,
        "facts": facts(place),
    }
    unfinished = stream.cache / f"model.{model}"
    with naming(stream.models):
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        write_atomically(unfinished / WEIGHTS_FILE, content)
        shutil.copyfile(stream.training / STATE_FILE, unfinished / LEARNER_FILE)
        shutil.copyfile(stream.training / RECORDS_FILE, unfinished / RECORDS_FILE)
        sync(unfinished / LEARNER_FILE)
        sync(unfinished / RECORDS_FILE)
        _write_golden(unfinished, contract, model_of(contract, weights), read_arrived(_last_chunk(stream, arrival)))
        write_atomically(unfinished / ABOUT_FILE, (json.dumps(about, indent=2) + "\n").encode())
        shutil.rmtree(stream.model(model), ignore_errors=True)
        stream.models.mkdir(parents=True, exist_ok=True)
        os.replace(unfinished, stream.model(model))
        sync(stream.models)
    seconds, flops = (sum(getattr(record.cost[name], part) for name in LIMITED) for part in ("seconds", "flops"))
    stopped = None if record.converged else limit_of(contract).reached(record.steps, flops, seconds)
    ledger.append(
        "trained",
        model={
            "weights_sha256": digest,
            "chunk": arrival.chunk,
            "parent": about["parent"],
            "experiment": record.experiment,
            "accuracy": round(record.test_accuracy, 6),
            "images": record.images,
            "steps": record.steps,
            "epochs": record.epochs,
            "converged": record.converged,
            "seconds": round(seconds, 1),
            "flops": flops,
            "code": code_digest()[:8],
            **({"stopped": f"training_{stopped}"} if stopped else {}),
        },
    )
    shutil.rmtree(stream.training, ignore_errors=True)
    return stream.state(ledger)


def _last_chunk(stream: StreamFolder, arrival: Arrival) -> Path:
    return stream.numbered(CHUNKS, arrival.chunk, arrival.chain)


def weights_digest(weights: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 of a model's tensors by name, whatever the file that they are in."""
    parts = {
        name: [str(tensor.dtype), list(tensor.shape), hashlib.sha256(_bytes(tensor)).hexdigest()]
        for name, tensor in weights.items()
    }
    return digest_of(parts)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().tobytes()


def model_of(contract: Contract, weights: dict[str, torch.Tensor]) -> nn.Module:
    """Return the contract's model with these weights, on the CPU, in eval mode; as many classes as its head has."""
    model = _network(contract, contract.seed)
    model.load_state_dict(weights)
    return model.eval()


def _network(contract: Contract, seed: int) -> nn.Module:
    """Return a new network of the contract."""
    classes = len(contract.classes)
    return build_model(contract.model.name, contract.image_shape, classes, seed=seed, **contract.model.options)


def read_about(stream: StreamFolder, model: str) -> dict[str, Any]:
    """Return a model's description; RecordError if it cannot be read."""
    path = stream.model(model) / ABOUT_FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(
            f"{path} cannot be read ({error}); bring the model's folder back, e.g. with `dvc pull`"
        ) from None


def load_model(stream: StreamFolder, state: StreamState, contract: Contract, model: str) -> nn.Module:
    """Return a trained model on the CPU; RecordError if its weights are not those of the ledger."""
    path = stream.model(model) / WEIGHTS_FILE
    with naming(path):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise RecordError(f"{path} is missing; bring the model's folder back, e.g. with `dvc pull`") from None
    if hashlib.sha256(content).hexdigest() != state.models[model].weights_sha256:
        raise RecordError(f"{path} is not what was trained; bring the model's folder back, e.g. with `dvc pull`")
    classes = len(read_about(stream, model)["classes"])
    return model_of(contract.model_copy(update={"classes": contract.classes[:classes]}), load_file(path))


def check_answers(stream: StreamFolder, state: StreamState, contract: Contract, model: str) -> None:
    """Raise RecordError unless a model loads and answers its golden images as it did when it was trained."""
    loaded = load_model(stream, state, contract, model)
    with np.load(stream.model(model) / GOLDEN_FILE) as golden:
        images, expected = golden["images"], golden["probabilities"]
    given = _answers(loaded, contract, images)
    if not np.allclose(given, expected, atol=GOLDEN_TOLERANCE):
        worst = float(np.abs(given - expected).max())
        raise RecordError(f"model {model} answers otherwise than when it was trained (by up to {worst:.2g}): not used")


def _write_golden(folder: Path, contract: Contract, model: nn.Module, chunk: Arrived) -> None:
    images = np.ascontiguousarray(chunk.images[:GOLDEN_IMAGES])
    with (folder / GOLDEN_FILE).open("wb") as out:
        np.savez(out, images=images, probabilities=_answers(model, contract, images))
    sync(folder / GOLDEN_FILE)


def _answers(model: nn.Module, contract: Contract, images: np.ndarray) -> np.ndarray:
    labels = torch.zeros(len(images), dtype=torch.int64)
    found = ImageSet(
        torch.from_numpy(images), labels, tuple(contract.classes), tuple(contract.mean), tuple(contract.std)
    )
    return probabilities(model, contract.model.name, found, torch.device("cpu"))


def learner_state(stream: StreamFolder, model: str) -> dict[str, Any]:
    """Return the learner's state of a model; RecordError if it is missing or damaged."""
    path = stream.model(model) / LEARNER_FILE
    state = load_checkpoint(path, keep_damaged=True)
    if state is None:
        raise RecordError(f"{path} is missing or damaged; bring it back, e.g. with `dvc pull`")
    return state
