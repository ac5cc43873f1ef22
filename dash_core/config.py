"""The typed form of params.yaml: the sections of a run, checked before anything runs.

Each section of params.yaml is a class here, with the same names. A RunConfig is one run, and its hash is the run's id:
two equal configs are one run. The whole file is `dash_core.comparison.Params`.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from dash_core.mistakes import nearest as nearest
from dash_core.mistakes import parse as parse
from dash_core.mistakes import shown as shown
from dash_core.parts import DATASETS, LOSSES, MODELS, PLANS, is_path, is_torchvision, source_digest
from dash_core.protocols import STANDARD, Experiment, Protocol, ProtocolConfig
from dash_core.section import (
    Accuracy,
    AsPairs,
    AsTuple,
    Batch,
    Colour,
    Count,
    Digest,
    FileName,
    FolderName,
    Label,
    LayerName,
    Positive,
    Section,
    Seed,
    Share,
)

AUGMENTATION_NAMES = ("none", "crop_flip", "crop_flip_rotate", "resized_crop_flip")  # of dash_core.augmentation
LOSS_NAMES = ("cross_entropy", "squared_error", "one_against_rest")  # of dash_core.loss
RESIZED = ("image_folder", "imagenet", "hugging_face")  # datasets that image_size resizes
IN_FOLDERS = ("image_folder", "stream", "hugging_face")  # datasets that dataset.folder names
IN_FILES = ("image_folder", "imagenet", "tiny_imagenet")  # datasets whose images are single files
WIDTHS = {"resnet18": 64, "resnet18_sota": 64, "resnet10": 16}  # channels of the first stage, unless model.width says


def with_source(content: object, kind: str, key: str, digest_key: str) -> object:
    """Return the content of a section with the digest of the own part that it names at `key`, if it has none yet."""
    name = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(name, str) or content.get(digest_key):
        return content
    digest = source_digest(kind, name)
    return content if digest is None else {**content, digest_key: digest}


class DatasetConfig(Section):
    """Which images, and what is done to the training set before it is split into chunks."""

    later: ClassVar = frozenset(("background", "damaged", "resize", "hold_out", "source", "plan", "plan_source"))
    of_files: ClassVar = frozenset(("background", "damaged", "resize", "hold_out"))

    name: str = "digits"
    folder: FolderName | None = None  # image_folder only: the tree with train/ and, where there is one, test/
    image_size: Annotated[int, Field(ge=4, le=1024)] | None = None  # pixels a side; None: as found, imagenet: 224
    resize: Literal["crop", "squash", "pad"] = "crop"  # how image_size is reached; see `image_file.resized`
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.2  # hold-out where the source has no test split
    hold_out: Literal["stratified", "hashed"] = "stratified"  # hashed: image_folder; more images move none of them
    background: Colour = "white"  # shown through transparent pixels of image files
    damaged: Literal["refuse", "leave_out"] = "refuse"  # image files that cannot be read
    label_noise: Share = 0.0  # share of training labels replaced by another class, uniformly
    train_size: Count | None = None  # a seeded subset of the training set; None: all of it
    test_size: Count | None = None  # a seeded subset of the test set, the same for every seed; None: all of it
    source: Digest | None = None  # of your own dataset: of its code; None: as it is now
    plan: Annotated[str, Field(min_length=1)] | None = None  # your own chunk plan, by import path; None: the protocol's
    plan_source: Digest | None = None  # of its code; None: as it is now

    @model_validator(mode="before")
    @classmethod
    def _know_own_parts_by_their_source(cls, content: object) -> object:
        content = with_source(content, DATASETS, "name", "source")
        return with_source(content, PLANS, "plan", "plan_source")

    @model_validator(mode="after")
    def _folder_and_size_belong_to_the_dataset(self) -> Self:
        own = self.source is not None  # its function gets the folder, and its images may be of any size
        if not own and (self.name in IN_FOLDERS) != (self.folder is not None):
            raise ValueError(f"`folder` is needed by, and only used with, the datasets {' and '.join(IN_FOLDERS)}")
        if self.image_size is not None and not own and self.name not in RESIZED:
            raise ValueError(f"`image_size` is only used with the datasets {' and '.join(RESIZED)}")
        if self.resize != "crop" and self.image_size is None and self.name != "imagenet":
            raise ValueError(f"`resize: {self.resize}` needs the size of the images: set dataset.image_size")
        changed = self.of_files & self.identity.keys()
        if self.name == "hugging_face" or own:
            changed -= {"background", "resize"}
        if changed and self.name not in IN_FILES:
            raise ValueError(f"`{min(changed)}` is only used with the datasets {', '.join(IN_FILES)}")
        if self.hold_out != "stratified" and self.name != "image_folder":
            raise ValueError("`hold_out` is only used with the dataset image_folder")
        if self.plan is not None and not is_path(self.plan):
            raise ValueError(
                f"`plan`: {shown(self.plan)} is no import path; name a function, as in mypackage.plans:cut"
            )
        return self


class ModelConfig(Section):
    """Which network; `dashpipe models` lists the names."""

    later: ClassVar = frozenset(("width", "weights", "weights_sha256", "frozen", "source"))

    name: str = "cnn3_small"
    normalisation: Literal["batch", "layer", "group"] = "batch"  # of ResNets; others have their own
    width: Annotated[int, Field(ge=1, le=1024)] | None = None  # channels of a ResNet's first stage; None: as in WIDTHS

    weights: FileName | None = None  # file of weights to start from: safetensors, or as torch.save writes a state_dict
    weights_sha256: Digest | None = None  # of that file; None: as it is now
    frozen: Annotated[tuple[str, ...], AsTuple] = ()  # layers that are not trained, by name: [conv1, bn1, layer1]
    source: Digest | None = None  # of your own model: of its code; None: as it is now

    @model_validator(mode="before")
    @classmethod
    def _know_own_models_by_their_source(cls, content: object) -> object:
        return with_source(content, MODELS, "name", "source")

    @model_validator(mode="before")
    @classmethod
    def _know_the_weights_by_their_content(cls, content: object) -> object:
        """Add the hash of the file: two files of one name are two runs, and one file in two places is one run."""
        path = content.get("weights") if isinstance(content, Mapping) else None
        if not isinstance(path, str) or content.get("weights_sha256"):
            return content
        try:
            if not Path(path).is_file():  # a device would be read without end
                raise OSError("no such file")
            with open(path, "rb") as file:
                return {**content, "weights_sha256": hashlib.file_digest(file, "sha256").hexdigest()}
        except (OSError, ValueError) as error:
            raise ValueError(f"`weights`: {path} cannot be read ({error}); name a file of weights") from None

    @property
    def identity(self) -> dict[str, Any]:
        """The section's content, JSON-able, as hashes see it: the weights by their hash, wherever they are."""
        content = super().identity
        content.pop("weights", None)
        return content

    @field_validator("frozen")
    @classmethod
    def _no_layer_twice(cls, frozen: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(distinct(list(frozen), "frozen")))

    @field_validator("width")
    @classmethod
    def _one_name_for_a_width(cls, width: int | None, info: ValidationInfo) -> int | None:
        """Return None for a model's own width, so that equal networks are one run."""
        return None if width == WIDTHS.get(info.data.get("name", "")) else width

    @property
    def options(self) -> dict[str, Any]:
        """The keywords of `model_spec` and `build_model` beside the name."""
        return {"normalisation": self.normalisation, "width": self.width}

    @property
    def title(self) -> str:
        """The name, and the width if it is not the model's own: resnet18 of width 16."""
        return self.name if self.width is None else f"{self.name} of width {self.width}"


class OptimizerConfig(Section):
    """How weights are updated. SAM's base optimiser is SGD."""

    later: ClassVar = frozenset(("lr_multipliers",))

    name: Literal["sgd", "sam", "adam", "adamw"] = "sgd"
    lr: Positive = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # sgd and sam
    weight_decay: Annotated[float, Field(ge=0)] | None = None  # None: the recipe's
    rho: Positive = 0.1  # sam: radius of the ascent step
    # factors of the learning rate, by layer: {fc: 10}
    lr_multipliers: Annotated[tuple[tuple[LayerName, Positive], ...], *AsPairs] = ()


class TrainingConfig(Section):
    """How each chunk is trained to convergence (paper, section 5 and appendix)."""

    later: ClassVar = frozenset(
        (
            "class_weights",
            "label_smoothing",
            "clip_norm",
            "micro_batch_size",
            "milestones",
            "decay",
            "validation_share",
            "stop",
            "patience",
            "loss",
            "loss_source",
        )
    )

    recipe: Literal["standard", "sota"] = "standard"
    batch_size: Batch = 128
    stop_accuracy: Accuracy | None = 0.999  # running train accuracy that ends a chunk; None: max_epochs alone does
    max_epochs: Count = 500
    schedule: Literal["constant", "multistep", "cosine"] | None = None  # None: the recipe's
    warmup_epochs: Annotated[int, Field(ge=0, lt=2**31)] | None = None  # None: the recipe's
    augmentation: Annotated[str, Field(min_length=1)] | None = None  # ours, or torchvision's transforms; None: recipe's
    precision: Literal["auto", "exact", "bf16"] = "auto"  # of a training step; auto: bf16 where the hardware has it
    compile: bool = False  # full batches by torch.compile, on CUDA as CUDA graphs
    class_weights: Literal["none", "balanced"] = "none"  # of the loss; balanced: each class counts as much in all
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of the target that all classes have equally
    clip_norm: Positive | None = None  # largest norm of the gradient of all parameters together; None: any
    micro_batch_size: Batch | None = None  # images in one pass; the gradients of a batch's parts are added; None: all
    milestones: Annotated[tuple[Count, ...], Field(min_length=1), AsTuple] | None = None  # epochs; None: see schedules
    decay: Annotated[float, Field(gt=0, lt=1)] | None = None  # factor at each of them; None: 0.2
    validation_share: Annotated[float, Field(gt=0, lt=1)] | None = None  # of each chunk: held out to measure each epoch
    stop: Literal["train_accuracy", "validation"] = "train_accuracy"  # what ends an experiment before max_epochs
    patience: Count = 5  # stop: validation ends after so many epochs without a better one, and keeps the best
    loss: Annotated[str, Field(min_length=1)] = "cross_entropy"  # that training minimises: a name, or an import path
    loss_source: Digest | None = None  # of your own loss: of its code; None: as it is now

    @model_validator(mode="before")
    @classmethod
    def _know_own_losses_by_their_source(cls, content: object) -> object:
        return with_source(content, LOSSES, "loss", "loss_source")

    @field_validator("augmentation")
    @classmethod
    def _ours_or_torchvisions(cls, augmentation: str | None) -> str | None:
        if augmentation not in (None, *AUGMENTATION_NAMES) and not is_torchvision(augmentation):
            known = f"{', '.join(AUGMENTATION_NAMES)}, or torchvision's, such as torchvision:RandAugment(magnitude=5)"
            suggestion = nearest(augmentation, AUGMENTATION_NAMES)
            raise ValueError(f"`augmentation`: unknown augmentation {shown(augmentation)}{suggestion}; known: {known}")
        return augmentation

    @field_validator("milestones")
    @classmethod
    def _rising(cls, milestones: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if milestones and tuple(sorted(set(milestones))) != milestones:
            raise ValueError(f"`milestones` must rise, got {list(milestones)}")
        return milestones

    @model_validator(mode="after")
    def _stop_on_what_is_measured(self) -> Self:
        if self.stop == "validation" and self.validation_share is None:
            raise ValueError("`stop: validation` needs a validation set: set training.validation_share, to 0.1 say")
        if (self.milestones or self.decay) and self.schedule not in (None, "multistep"):
            raise ValueError(f"`milestones` and `decay` are those of the schedule multistep, got {self.schedule}")
        if self.loss not in LOSS_NAMES and self.loss_source is None:
            known = f"{', '.join(LOSS_NAMES)}, or an import path such as mypackage.losses:focal"
            raise ValueError(f"`loss`: unknown loss {shown(self.loss)}{nearest(self.loss, LOSS_NAMES)}; known: {known}")
        if self.label_smoothing and self.loss != "cross_entropy":
            raise ValueError(f"`label_smoothing` is that of the loss cross_entropy, got {self.loss}: set it to 0")
        if self.class_weights != "none" and self.loss_source:
            raise ValueError("`class_weights`: your own loss weighs classes itself; set class_weights=none")
        return self


class MethodConfig(Section):
    """A named method of the comparison: an intervention and its parameters. lr: its own learning rate, if any.

    source: digest of the code of an own method.
    """

    later: ClassVar = frozenset(("lr", "source"))

    label: Label
    intervention: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    lr: Positive | None = None
    source: Digest | None = None


class Setting(Section):
    """The parameters that all runs of a comparison share."""

    dataset: DatasetConfig = DatasetConfig()
    chunks: Count = 10
    protocol: ProtocolConfig = STANDARD
    experiments: Count | None = None  # train only this many of the protocol's experiments, from the first; None: all
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()

    @field_validator("protocol")
    @classmethod
    def _fits_the_chunks(cls, protocol: Protocol, info: ValidationInfo) -> Protocol:
        if "chunks" in info.data:
            protocol.check(info.data["chunks"])
            protocol.check_intervenes(info.data["chunks"])
        return protocol

    @field_validator("experiments")
    @classmethod
    def _no_more_than_there_are(cls, experiments: int | None, info: ValidationInfo) -> int | None:
        if experiments and {"chunks", "protocol"} <= info.data.keys():
            protocol, chunks = info.data["protocol"], info.data["chunks"]
            if experiments > (most := protocol.count(chunks)):
                raise ValueError(f"{experiments} is more than the {most} that {protocol.name} has with chunks={chunks}")
            protocol.check_intervenes(min(experiments, chunks))
        return experiments

    @property
    def intervenes(self) -> bool:
        """Whether a method that changes the learner between experiments has an occasion to."""
        numbers = range(1, self.experiment_count + 1)
        return any(self.protocol.experiment(number, self.chunks, "warm").intervene for number in numbers)

    @property
    def experiment_count(self) -> int:
        """The number of a run's experiments, and of a complete run's records."""
        return self.experiments or self.protocol.count(self.chunks)


class RunConfig(Setting):
    """Everything that decides the result of one run: its setting, method and seed."""

    method: MethodConfig
    seed: Seed = 0
    diagnostics: list[str] = Field(default_factory=list)  # names in dash_core.diagnostics

    @field_validator("diagnostics")
    @classmethod
    def _in_any_order(cls, diagnostics: list[str]) -> list[str]:
        return sorted(distinct(diagnostics, "diagnostics"))

    @property
    def schedule(self) -> list[Experiment]:
        """The run's experiments, in order."""
        numbers = range(1, self.experiment_count + 1)
        return [self.protocol.experiment(number, self.chunks, self.method.intervention) for number in numbers]

    @cached_property
    def digest(self) -> str:
        """Hash of everything that decides the result; the method's label does not count."""
        content = self.identity
        del content["method"]["label"]
        return digest_of(content)

    @cached_property
    def id(self) -> str:
        """The run's id: readable first, unique by its hash; safe as a file name."""
        words = (self.dataset.name, self.model.name, self.method.label, f"s{self.seed}", self.digest[:10])
        return re.sub(r"[^A-Za-z0-9_.\-]+", "-", "-".join(words))


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `overlay` laid over it, mapping by mapping; lists and values are replaced whole."""
    merged = dict(base)
    for key, value in overlay.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def digest_of(content: object) -> str:
    """Return the SHA-256 of a JSON-able value in canonical form."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def distinct(values: list, name: str) -> list:
    """Return the values; ValueError names those that are repeated."""
    repeated = sorted(value for value, count in Counter(values).items() if count > 1)
    if repeated:
        raise ValueError(f"`{name}` repeats {', '.join(map(str, repeated[:10]))}: name each once")
    return values
