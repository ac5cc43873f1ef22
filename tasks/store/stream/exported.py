"""The export of a model that is released: it takes raw images, and can be used without this project."""

import numpy as np
import torch

from dash_core.exporting import ModelCard, export_model
from dash_core.models import model_spec
from dash_core.stream.contract import Contract
from dash_core.stream.state import StreamState
from tasks.store.stream.folder import StreamFolder
from tasks.store.stream.models import GOLDEN_FILE, load_model, read_about

EXPORT = "export"  # folder in a model's folder


def export(stream: StreamFolder, state: StreamState, contract: Contract, model: str) -> dict[str, str]:
    """Export a model into its folder, unless it is exported already; return the SHA-256 of each file."""
    entry = state.models[model]
    classes = tuple(read_about(stream, model)["classes"])
    normalised = model_spec(contract.model.name).normalised
    channels = contract.channels
    card = ModelCard(
        name=contract.model.name,
        class_names=classes,
        image_shape=contract.image_shape,
        mean=tuple(contract.mean) if normalised else (0.0,) * channels,
        std=tuple(contract.std) if normalised else (1.0,) * channels,
        background=contract.background,
        facts={
            "stream": stream.name,
            "model": model,
            "weights_sha256": entry.weights_sha256,
            "chain": entry.chain,
            "parent": entry.parent,
            "contract": state.contract_digest,
        },
    )
    with np.load(stream.model(model) / GOLDEN_FILE) as golden:
        images = torch.from_numpy(golden["images"])
    return export_model(load_model(stream, state, contract, model), card, stream.model(model) / EXPORT, images)
