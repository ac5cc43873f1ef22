"""A trained model as files that can be used alone: raw images in, probabilities out, class names beside them."""

from dash_core.exporting.card import ModelCard
from dash_core.exporting.files import (
    CARD_FILE,
    GOLDEN_FILE,
    GRAPH_FILE,
    ExportedModel,
    ExportError,
    ModelInput,
    Tracer,
    export_model,
    open_export,
    read_card,
)
from dash_core.exporting.graph import RawImageClassifier, cut_to_size

__all__ = [
    "CARD_FILE",
    "GOLDEN_FILE",
    "GRAPH_FILE",
    "ExportError",
    "ExportedModel",
    "ModelCard",
    "ModelInput",
    "RawImageClassifier",
    "Tracer",
    "cut_to_size",
    "export_model",
    "open_export",
    "read_card",
]
