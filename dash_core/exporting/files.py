"""Write a model to files that load without this project, and open such files with a check that they answer rightly.

`model.pt2` is the graph: uint8 images (N, H, W, C) of any size → probabilities, loaded by `torch.export.load`.
`golden.npz` contains a few images and the probabilities that were right when the model was exported.
`model.json` is the card (classes, input, normalisation) and the SHA-256 of both; it is written last.
"""

import contextlib
import copy
import hashlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from dash_core.errors import DashError
from dash_core.exporting.card import ModelCard
from dash_core.exporting.graph import RawImageClassifier
from dash_core.files import naming, replaced_when_done, write_atomically
from dash_core.shrinking import in_mode

if TYPE_CHECKING:
    from torch.export import ExportedProgram

GRAPH_FILE, GOLDEN_FILE, CARD_FILE = "model.pt2", "golden.npz", "model.json"
FORMAT = 1
TOLERANCE = 1e-4  # of a golden probability: machines round differently
ROUNDING = 1e-6  # of a probability: one machine computes it by the graph and by the model
GOLDEN_IMAGES = 8  # at most


class ExportError(DashError):
    """An exported model cannot be used: the message names the file and the reason."""


@dataclass(frozen=True)
class ModelInput:
    """What a model's export needs beside the model: its card, and a few images, uint8 (n, H, W, C).

    tracer: shared by the exports of one architecture, which it traces once.
    """

    card: ModelCard
    images: Tensor
    tracer: "Tracer | None" = None


@dataclass(frozen=True)
class ExportedModel:
    """An exported model that was opened: its card, the SHA-256 of its graph, and the graph itself."""

    card: ModelCard
    digest: str
    graph: nn.Module

    @torch.inference_mode()
    def predict(self, images: np.ndarray | Tensor) -> np.ndarray:
        """Return the probabilities, float32 (N, classes), of uint8 images (N, H, W, C) of any size."""
        images = torch.as_tensor(images)
        channels = self.card.image_shape[0]
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] != channels:
            raise ExportError(f"images must be uint8 (N, H, W, {channels}), got {images.dtype} {tuple(images.shape)}")
        return self.graph(images).numpy()


class Tracer:
    """Traces models as graphs. Models that differ in their weights alone are traced once, which takes a second."""

    def __init__(self) -> None:
        self._kind: object = None
        self._program: ExportedProgram | None = None

    def program(
        self, classifier: RawImageClassifier, card: ModelCard, images: Tensor, expected: np.ndarray
    ) -> "ExportedProgram":
        """Return the graph of a classifier in eval mode, valid until the next call.

        The graph of the last classifier is used again, with the new weights, if all else about the two is equal as far
        as can be seen, and if it answers `images` as `expected`.
        """
        state = classifier.state_dict()
        shapes = [(name, tensor.shape, tensor.dtype) for name, tensor in state.items()]
        kind = repr(classifier), shapes, _plain_attributes(classifier), card.image_shape, card.mean, card.std
        if self._program is not None and kind == self._kind:
            with torch.no_grad():
                for name, tensor in self._program.state_dict.items():
                    tensor.copy_(state[name])
            with torch.inference_mode():
                answers = self._program.module()(images).numpy()
            if np.allclose(answers, expected, rtol=0, atol=ROUNDING):
                return self._program
        own = copy.deepcopy(classifier)  # whose tensors later weights are copied into
        self._program = torch.export.export(own, (_example(card),), dynamic_shapes=(_any_size(),))
        self._kind = kind
        return self._program


def _plain_attributes(model: nn.Module) -> list[tuple[str, str, object]]:
    """Return what a model's modules keep as numbers and texts, which their answers may depend on."""
    plain = bool, int, float, str, bytes
    return [
        (path, name, value)
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, plain)
    ]


def export_model(
    model: nn.Module, card: ModelCard, folder: Path, golden_images: Tensor, tracer: Tracer | None = None
) -> dict[str, str]:
    """Write a model's files to `folder`, and return the SHA-256 of each by name.

    model: takes normalised images (N, C, H, W) and returns logits; it is left as it was found. golden_images: uint8
    (n, H, W, C); the first few are kept. tracer: shared by the exports of one architecture, which it traces once. The
    first call in a process costs the import of torch's exporter, seconds. A folder that contains the same model already
    is left as it is. ExportError if the graph does not answer as the model does.
    """
    folder, golden_images = Path(folder), golden_images[:GOLDEN_IMAGES]
    classifier = RawImageClassifier(model, card.image_shape, card.mean, card.std)
    with _on_cpu(model), in_mode(classifier, training=False), _quiet():
        with torch.inference_mode():
            expected = classifier(golden_images).numpy()
        if digests := _exported_before(folder, card, expected, golden_images):
            return digests
        (folder / CARD_FILE).unlink(missing_ok=True)
        program = (tracer or Tracer()).program(classifier, card, golden_images, expected)
    with replaced_when_done(folder / GRAPH_FILE) as unfinished, unfinished.open("xb") as file, _quiet():
        torch.export.save(program, file)
    golden = io.BytesIO()
    np.savez(golden, images=golden_images.numpy(), probabilities=expected)
    write_atomically(folder / GOLDEN_FILE, golden.getvalue())
    digests = {name: _sha256(folder / name) for name in (GRAPH_FILE, GOLDEN_FILE)}
    content = {"format": FORMAT, **card.as_dict(), "files": digests, "made_with": {"torch": torch.__version__}}
    _check_answers(folder, _load(folder / GRAPH_FILE))
    write_atomically(folder / CARD_FILE, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
    return {**digests, CARD_FILE: _sha256(folder / CARD_FILE)}


def open_export(folder: Path) -> ExportedModel:
    """Open an exported model: its files must be those that were written, and it must answer its golden images.

    ExportError says what is wrong. The graph is loaded by torch, which can run code: open only what you wrote.
    """
    folder = Path(folder)
    content = _read_card(folder)
    for name, digest in content["files"].items():
        if not (folder / name).is_file():
            raise ExportError(f"{folder / name} is missing; export the model again")
        if _sha256(folder / name) != digest:
            raise ExportError(f"{folder / name} is not the file that was exported; export the model again")
    graph = _load(folder / GRAPH_FILE)
    _check_answers(folder, graph)
    return ExportedModel(ModelCard.from_dict(content), content["files"][GRAPH_FILE], graph)


def read_card(folder: Path) -> ModelCard:
    """Return the card of an exported model; ExportError if it is missing or damaged."""
    return ModelCard.from_dict(_read_card(Path(folder)))


def _exported_before(folder: Path, card: ModelCard, expected: np.ndarray, images: Tensor) -> dict[str, str] | None:
    """Return the digests of the folder's files if they are intact and belong to the same card and answers."""
    try:
        exported = open_export(folder)
        with np.load(folder / GOLDEN_FILE) as golden:
            same = np.array_equal(golden["images"], images.numpy()) and np.array_equal(
                golden["probabilities"], expected
            )
    except (ExportError, KeyError):
        return None
    if not same or exported.card.as_dict() != card.as_dict():
        return None
    return {name: _sha256(folder / name) for name in (GRAPH_FILE, GOLDEN_FILE, CARD_FILE)}


def _read_card(folder: Path) -> dict[str, Any]:
    path = folder / CARD_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, Mapping) or content.get("format") != FORMAT:
            raise ValueError(f"it needs format {FORMAT}")
        ModelCard.from_dict(content)
        if set(content["files"]) != {GRAPH_FILE, GOLDEN_FILE}:
            raise ValueError("it does not name its files")
    except FileNotFoundError:
        raise ExportError(f"{folder}: no exported model ({CARD_FILE} is missing)") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, DashError) as error:
        raise ExportError(f"{path} is damaged ({error}); export the model again") from None
    return dict(content)


def _load(path: Path) -> nn.Module:
    try:
        with _quiet():
            return torch.export.load(path).module()
    except Exception as error:  # torch raises RuntimeError, KeyError, zipfile errors and more
        raise ExportError(f"{path} cannot be loaded ({error}); export the model again") from error


@torch.inference_mode()
def _check_answers(folder: Path, graph: nn.Module) -> None:
    """Raise ExportError unless the graph answers the golden images as expected."""
    try:
        with np.load(folder / GOLDEN_FILE) as golden:
            images, expected = torch.from_numpy(golden["images"]), golden["probabilities"]
        answers = graph(images).numpy()
    except Exception as error:  # a graph that was changed can raise anything
        raise ExportError(f"{folder}: the model does not answer its golden images ({error})") from error
    if answers.shape != expected.shape or not np.allclose(answers, expected, rtol=0, atol=TOLERANCE):
        raise ExportError(f"{folder}: the model answers its golden images otherwise than when it was exported")


def _example(card: ModelCard) -> Tensor:
    """Return images for tracing: every dimension that may change differs from the others, from 0 and from 1."""
    channels, height, width = card.image_shape
    return torch.zeros((2, height + 5, width + 8, channels), dtype=torch.uint8)


def _any_size() -> dict[int, Any]:
    from torch.export import Dim

    return {0: Dim.DYNAMIC, 1: Dim.DYNAMIC, 2: Dim.DYNAMIC}


def _sha256(path: Path) -> str:
    with naming(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _on_cpu(model: nn.Module) -> Iterator[None]:
    """Put the model on the CPU within the block, then back."""
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    try:
        model.cpu()
        yield
    finally:
        model.to(device)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the notices of torch's exporter off the terminal; errors still show."""
    logger = logging.getLogger("torch")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
