"""ChunkPlan: the order in which a training set arrives; the same for every method of a (seed, dataset)."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from dash_core.config import DatasetConfig
from dash_core.data.imageset import ImageSet
from dash_core.data.own_plan import own_chunks
from dash_core.data.training_set import training_indices
from dash_core.errors import ConfigError, RecordError
from dash_core.files import write_atomically
from dash_core.protocols import STANDARD, Experiment, Protocol
from dash_core.seeding import generator

_KEYS = {"dataset": str, "dataset_digest": str, "seed": int, "digest": str, "chunks": list}


@dataclass(frozen=True, eq=False)
class ChunkPlan:
    """The seeded split of a training set into disjoint chunks that cover it.

    chunks: int64 index tensors into the training set, oldest chunk first.
    """

    dataset: str
    dataset_digest: str
    seed: int
    chunks: tuple[Tensor, ...]

    @classmethod
    def split(
        cls, train: ImageSet, config: DatasetConfig, chunks: int, seed: int, protocol: Protocol = STANDARD
    ) -> Self:
        """Cut the training indices into `chunks` parts by the protocol's rule; ConfigError if that is not possible."""
        indices = training_indices(train, config, seed)
        if not 1 <= chunks <= len(indices):
            raise ConfigError(f"chunks: {chunks} must lie between 1 and the {len(indices)} training images used")
        if config.plan:
            if protocol.division or train.arrived:
                raise ConfigError(
                    f"dataset.plan: {config.name} with the protocol {protocol.name} arrives in chunks of its own; "
                    "leave the plan out"
                )
            parts = own_chunks(config.plan, train.labels[indices], chunks, seed)
            return cls(config.name, train.digest, seed, tuple(indices[part] for part in parts))
        if train.arrived:
            return cls(config.name, train.digest, seed, _as_arrived(train, config, chunks, protocol))
        parts = protocol.cut(train.labels[indices], chunks, generator(seed, "chunks"))
        return cls(config.name, train.digest, seed, tuple(indices[part] for part in parts))

    def __len__(self) -> int:
        return len(self.chunks)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of dataset, dataset digest, seed and every chunk's indices: equal plans, equal digest."""
        digest = hashlib.sha256(json.dumps([self.dataset, self.dataset_digest, self.seed]).encode())
        for chunk in self.chunks:
            digest.update(f"/{len(chunk)}:".encode())
            digest.update(chunk.numpy().astype("<i8").tobytes())
        return digest.hexdigest()

    def up_to(self, chunk: int) -> Tensor:
        """Return the indices of chunks 1 to `chunk`, oldest first: all images that have arrived by then."""
        if not 1 <= chunk <= len(self):
            raise ValueError(f"chunk must lie in 1..{len(self)}, got {chunk}")
        return torch.cat(self.chunks[:chunk])

    def images(self, experiment: Experiment) -> int:
        """Return how many images an experiment trains on."""
        return sum(len(chunk) for chunk in self.chunks[experiment.first - 1 : experiment.last])

    def check_trainable(self, experiments: Iterable[Experiment]) -> None:
        """Raise ConfigError if an experiment has a single image: BatchNorm needs two for a variance."""
        for experiment in experiments:
            if self.images(experiment) < 2:
                raise ConfigError(
                    f"chunks: experiment {experiment.number} has 1 image, and training needs 2 or more: "
                    "use fewer chunks, or more images"
                )

    def check(self, train: ImageSet, config: DatasetConfig) -> None:
        """Raise RecordError unless this plan belongs to the training set and contains each used image exactly once."""
        if self.dataset_digest != train.digest:
            raise RecordError(
                f"the chunk plan was made for another version of {self.dataset} (digest {self.dataset_digest[:12]}, "
                f"the data here {train.digest[:12]}): make the split again, or bring back the data it was made for"
            )
        expected = training_indices(train, config, self.seed)
        found = self.up_to(len(self)).sort().values
        if not torch.equal(found, expected):
            raise RecordError(
                f"the chunk plan holds {len(found)} images, not exactly the {len(expected)} of {config.name} that "
                f"dataset.train_size={config.train_size} and seed {self.seed} choose: make the split again"
            )

    def save(self, path: Path) -> None:
        """Write the plan as JSON, one chunk per line, atomically."""
        head = {
            "dataset": self.dataset,
            "dataset_digest": self.dataset_digest,
            "seed": self.seed,
            "digest": self.digest,
        }
        fields = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        chunks = ",\n".join(json.dumps(chunk.tolist(), separators=(",", ":")) for chunk in self.chunks)
        text = "{\n" + ",\n".join([*fields, f'"chunks": [\n{chunks}\n]']) + "\n}\n"
        write_atomically(path, text.encode())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a plan back, checking types, disjointness and the stored digest; RecordError names the file."""
        content = _read(path)
        chunks = tuple(_indices(chunk, number, path) for number, chunk in enumerate(content["chunks"], start=1))
        if not chunks:
            raise RecordError(f"{path}: the chunk plan has no chunks; make the split again")
        everything = torch.cat(chunks)
        if len(everything.unique()) != len(everything):
            raise RecordError(f"{path}: an image stands in the chunk plan twice; make the split again")
        plan = cls(content["dataset"], content["dataset_digest"], content["seed"], chunks)
        if plan.digest != content["digest"]:
            raise RecordError(f"{path}: the chunk plan does not match its digest, so it was changed; make it again")
        return plan


def _as_arrived(train: ImageSet, config: DatasetConfig, chunks: int, protocol: Protocol) -> tuple[Tensor, ...]:
    """Return the chunks in which the images arrived; ConfigError for settings that would divide them otherwise."""
    if chunks != len(train.arrived):
        raise ConfigError(f"chunks: {config.name} arrived in {len(train.arrived)}, got {chunks}: set that number")
    if protocol.division or config.train_size is not None:
        key = "protocol.name" if protocol.division else "dataset.train_size"
        raise ConfigError(f"{key}: {config.name} arrived in chunks, which cannot be cut otherwise: leave it out")
    return torch.arange(len(train)).split(list(train.arrived))


def _read(path: Path) -> dict[str, Any]:
    """Return the file's JSON object after checking its keys and their types."""
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise RecordError(f"{path}: the chunk plan cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not a chunk plan in JSON ({error}); make the split again") from error
    if not isinstance(content, dict) or set(content) != set(_KEYS):
        raise RecordError(f"{path}: a chunk plan holds exactly {', '.join(_KEYS)}; make the split again")
    for key, kind in _KEYS.items():
        if type(content[key]) is not kind:
            raise RecordError(f"{path}: {key} must be {kind.__name__}, got {type(content[key]).__name__}")
    return content


def _indices(chunk: object, number: int, path: Path) -> Tensor:
    """Return one chunk's list of indices as a tensor."""
    if not isinstance(chunk, list) or not chunk:
        raise RecordError(f"{path}: chunk {number} must be a list with at least one index")
    if any(type(index) is not int or not 0 <= index < 2**63 for index in chunk):
        raise RecordError(f"{path}: chunk {number} must hold only whole numbers from 0 on")
    return torch.tensor(chunk, dtype=torch.int64)
