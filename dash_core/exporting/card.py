"""What must be known beside a model's weights: its classes, its input, and how the input is normalised."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from dash_core.data import ImageSet
from dash_core.errors import DataError
from dash_core.models import model_spec


@dataclass(frozen=True)
class ModelCard:
    """The description of an exported model.

    name: of the network. class_names: in the order of the probabilities. image_shape: (C, H, W), to which every image
    is resized. mean, std: per channel, of images scaled to [0, 1]. background: colour behind transparent pixels of
    image files. facts: anything else, JSON-able.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    background: str = "white"
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.image_shape) != 3 or min(self.image_shape) < 1:
            raise DataError(f"image_shape must be (C, H, W), got {self.image_shape}")
        channels = self.image_shape[0]
        if not len(self.mean) == len(self.std) == channels:
            raise DataError(f"mean and std need one value for each of {channels} channels")

    @classmethod
    def of(cls, model: str, images: ImageSet, background: str = "white", **facts: Any) -> Self:
        """Return the card of a model of MODELS that was trained on `images`."""
        mean, std = images.mean, images.std
        if not model_spec(model).normalised:
            mean, std = (0.0,) * len(mean), (1.0,) * len(std)
        return cls(model, images.class_names, images.image_shape, mean, std, background, facts)

    def as_dict(self) -> dict[str, Any]:
        """Return the card as JSON."""
        channels, height, width = self.image_shape
        return {
            "name": self.name,
            "class_names": list(self.class_names),
            "image_shape": [channels, height, width],
            "mean": list(self.mean),
            "std": list(self.std),
            "background": self.background,
            "facts": dict(self.facts),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return the card that `as_dict` wrote; KeyError or TypeError if it is none."""
        names, shape, mean, std = (tuple(content[key]) for key in ("class_names", "image_shape", "mean", "std"))
        return cls(content["name"], names, shape, mean, std, content["background"], content["facts"])
