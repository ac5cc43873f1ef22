"""What MLflow's registry must show of a stream, from the stream's state; nothing is asked if it shows that already."""

import json
from pathlib import Path

from dash_core.config import digest_of
from dash_core.exporting import CARD_FILE
from dash_core.files import write_atomically
from dash_core.stream.state import ModelEntry, StreamState
from tasks.store.locks import locked_tracking
from tasks.store.place import Place
from tasks.tracking.address import artifact_root, tracking_uri
from tasks.tracking.registry import MirrorOutcome, RegisteredModelState, RegistryState, mirror_registry


def mirror_stream(state: StreamState, folder: Path, place: Place, always: bool = False) -> MirrorOutcome:
    """Make MLflow's registry show a stream; `folder` is the stream's.

    MLflow's failures, and what a person changed there, are in the outcome.
    always: ask MLflow even if it showed this very state before, to find what a person changed there since.
    """
    wanted, uri = registry_state(state, folder), tracking_uri(place.databases)
    note = place.services / "registry" / f"{state.name}.json"
    content = {"uri": uri, "shown": _digest(wanted)}
    if not always and _read(note) == content:
        return MirrorOutcome()
    with locked_tracking(place.store):
        outcome = mirror_registry(uri, artifact_root(place.store), wanted)
    if outcome.complete:
        write_atomically(note, json.dumps(content).encode(), durable=False)
    else:
        note.unlink(missing_ok=True)
    return outcome


def registry_state(state: StreamState, folder: Path) -> RegistryState:
    """Return what the registry must show: every model that was released, and the challenger if it is exported."""
    challenger = state.challenger
    if challenger is not None and not (_export(folder, challenger) / CARD_FILE).is_file():
        challenger = None
    released = {release.model for release in state.releases}
    names = [model for model in state.models if model in released or model == challenger]
    models = [_model(state, state.models[name], folder) for name in names]
    aliases = {"champion": state.champion, "previous": state.previous, "challenger": challenger}
    return RegistryState(state.name, state.ledger_id, models, aliases)


def _model(state: StreamState, entry: ModelEntry, folder: Path) -> RegisteredModelState:
    verdict = next((one.verdict for one in reversed(state.verdicts) if one.model == entry.id), "none")
    tags = {
        "dashpipe.stream": state.name,
        "dashpipe.weights_sha256": entry.weights_sha256,
        "dashpipe.chain": entry.chain,
        "dashpipe.parent": entry.parent or "none",
        "dashpipe.gate": verdict,
        "dashpipe.contract": state.contract_digest,
    }
    if entry.id in state.tainted:
        tags["dashpipe.retracted"] = "trained on a delivery that was retracted"
    metrics = {
        "accuracy": entry.accuracy,
        "chunk": float(entry.chunk),
        "images": float(entry.images),
        "steps": float(entry.steps),
        "flops": float(entry.flops),
        "seconds": entry.seconds,
    }
    return RegisteredModelState(entry.id, _export(folder, entry.id), tags, metrics)


def _export(folder: Path, model: str) -> Path:
    return folder / "models" / model / "export"


def _digest(wanted: RegistryState) -> str:
    return digest_of([wanted.owner, [[model.model, dict(model.tags)] for model in wanted.models], dict(wanted.aliases)])


def _read(note: Path) -> object:
    try:
        return json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
