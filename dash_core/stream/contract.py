"""The contract of a stream, frozen when the stream is created: what an image is, what is trained, what is released."""

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from dash_core.config import (
    DatasetConfig,
    MethodConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainingConfig,
    digest_of,
)
from dash_core.section import Colour, Positive, Section, Seed
from dash_core.stream.gate_config import Budget, GateConfig, Parent

ClassName = Annotated[str, Field(min_length=1, max_length=255)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]


class HoldOut(Section):
    """Which images are held out for ever. salt: text that is hashed with each image; share: of all images.

    group: a regular expression that is searched in a file's path below its delivery; its first group, or else the whole
    match, names the images that must be on one side. A column `group` of a manifest does the same. None: every image
    for itself.
    """

    salt: Annotated[str, Field(min_length=1)]
    share: OpenShare = 0.2
    group: str | None = None

    @field_validator("group")
    @classmethod
    def _is_a_pattern(cls, group: str | None) -> str | None:
        try:
            re.compile(group or "")
        except re.error as error:
            raise ValueError(f"{group!r} is not a regular expression ({error})") from None
        return group


class Contract(Section):
    """Everything that the models of a stream have in common. Labels are positions in `classes`.

    image_size: pixels a side. resize: other sizes are resized and cut to it; otherwise they are set aside. mean, std:
    per channel, of images scaled to [0, 1]; frozen, so that warm-started weights always see the same inputs.
    parent: a new model continues from the latest trained one, or from the champion. rollback: what happens when a
    champion is shown to be worse than the model before: a person is advised, or the one before is released again.
    """

    later: ClassVar = frozenset({"rollback"})

    classes: Annotated[list[ClassName], Field(min_length=2)]
    image_size: Annotated[int, Field(ge=4, le=1024)]
    resize: bool = True
    channels: Literal[1, 3]
    background: Colour = "white"
    mean: list[float]
    std: list[Positive]
    model: ModelConfig
    optimizer: OptimizerConfig
    training: TrainingConfig
    method: MethodConfig
    seed: Seed = 0
    hold_out: HoldOut
    gate: GateConfig = GateConfig()
    budget: Budget = Budget()
    parent: Parent = "latest"
    rollback: Literal["advise", "automatic"] = "advise"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("`classes` repeats a name: name each class once")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"`mean` and `std` need one value for each of the {self.channels} channels")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the whole contract."""
        return digest_of(self.identity)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.image_size, self.image_size

    def run(self, name: str, chunks: int) -> RunConfig:
        """Return the run of the stream's model after so many chunks, as the bench would train it over `name`."""
        fields: dict[str, Any] = {
            key: getattr(self, key) for key in ("model", "optimizer", "training", "method", "seed")
        }
        return RunConfig(dataset=DatasetConfig(name="stream", folder=f"streams/{name}"), chunks=chunks, **fields)
