"""All classification models of torchvision by name, without pre-trained weights.

torchvision takes seconds to import, so it is imported only to build one of its models.
"""

from typing import Any

from torch import nn

from dash_core.config import nearest
from dash_core.errors import ConfigError
from dash_core.extras import require
from dash_core.models.counting import forward_on_meta
from dash_core.parts import TORCHVISION

PREFIX = TORCHVISION
HEADS = {  # beginning of the name: attribute of the classifier; in all others it is `classifier`
    "googlenet": "fc",
    "inception": "fc",
    "regnet": "fc",
    "resnet": "fc",
    "resnext": "fc",
    "shufflenet": "fc",
    "swin": "head",
    "vit": "heads",
    "wide_resnet": "fc",
}
SMALLEST = {"alexnet": 63, "inception": 75}  # beginning of the name: smallest image side; all others 32


def check_name(name: str) -> None:
    """Raise ConfigError, with the nearest name, if torchvision has no such classification model."""
    require("data", f"the model {PREFIX}{name}")
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        suggestion = nearest(name, known)
        raise ConfigError(f"unknown model '{PREFIX}{name}'{suggestion}; torchvision's: {', '.join(known)}")


def head(name: str) -> str:
    """Return the name of the submodule that is the model's classifier."""
    return _by_beginning(HEADS, name, "classifier")


def smallest(name: str) -> int:
    """Return the smallest image side, in pixels, that the model takes."""
    return _by_beginning(SMALLEST, name, 32)


def build(name: str, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Return a freshly initialised torchvision model for these images and classes.

    Unless there are 3 channels, the first convolution is rebuilt with torch's default initialisation. Transformers are
    built for the image side, and inception_v3 and googlenet without the auxiliary classifiers that would make them
    return tuples. ConfigError if the model cannot take these images.
    """
    require("data", f"the model {PREFIX}{name}")
    from torchvision import models

    try:
        model = models.get_model(name, weights=None, num_classes=classes, **_extras(name, image_shape))
        if image_shape[0] != 3:
            _rebuild_first_convolution(model, image_shape[0])
        forward_on_meta(model, image_shape)
    except (AssertionError, RuntimeError, ValueError) as error:
        size = "x".join(map(str, image_shape[1:]))
        raise ConfigError(f"{PREFIX}{name} cannot take images of {size} pixels: {error}") from error
    return model


def _extras(name: str, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return the arguments that only this family of models has."""
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        return {"image_size": image_shape[1]}
    if name.startswith("maxvit"):
        return {"input_size": image_shape[1:]}
    return {}


def _rebuild_first_convolution(model: nn.Module, channels: int) -> None:
    """Replace, in place, the first convolution by one for so many channels."""
    name, old = next((name, part) for name, part in model.named_modules() if isinstance(part, nn.Conv2d))
    settings = {key: getattr(old, key) for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode")}
    new = nn.Conv2d(channels, old.out_channels, bias=old.bias is not None, **settings)
    model.set_submodule(name, new)


def _by_beginning(table: dict[str, Any], name: str, otherwise: Any) -> Any:
    return next((value for beginning, value in table.items() if name.startswith(beginning)), otherwise)
