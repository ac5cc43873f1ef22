"""The networks by name: those of the paper, a small CNN, every classification model of torchvision, and your own.

A new model of ours is a builder in a file of this package and a line in MODELS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from dash_core.config import WIDTHS, nearest
from dash_core.errors import ConfigError
from dash_core.models import torchvision_models
from dash_core.models.cnn import cnn3, cnn3_small
from dash_core.models.counting import forward_flops, parameter_count
from dash_core.models.mlp import mlp
from dash_core.models.own import build_own
from dash_core.models.resnet import GROUPS, NORMALISATIONS, resnet10, resnet18, resnet18_sota
from dash_core.models.vgg import vgg16_bn
from dash_core.parts import MODELS as OWN_MODELS
from dash_core.parts import callable_part, check_no_clash, part_path
from dash_core.seeding import borrowed_global_generator

__all__ = ["MODELS", "ModelSpec", "build_model", "forward_flops", "model_spec", "parameter_count"]


@dataclass(frozen=True)
class ModelSpec:
    """A named network.

    build: (image_shape (C, H, W), classes) → the network, with weights drawn from the global generator. head: names of
    the submodules that are the classifier; none for an own model (see `InitialModel.head`). normalised: its inputs are
    normalised by channel, else scaled to [0, 1]. smallest: the smallest image side, in pixels. normalisations: values
    of the keyword `normalisation` of `build`; none if the network has its own. imports: modules that `build` imports,
    which takes seconds.
    """

    name: str
    summary: str
    source: str
    build: Callable[..., nn.Module]
    head: tuple[str, ...]
    normalised: bool = True
    smallest: int = 1
    normalisations: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()

    @property
    def width(self) -> int | None:
        """Channels of the first stage, if `build` takes the keyword `width`; None if the network has its own."""
        return WIDTHS.get(self.name)


def _resnet(name: str, summary: str, source: str, build: Callable[..., nn.Module]) -> ModelSpec:
    normalisations = tuple(NORMALISATIONS)
    return ModelSpec(name, summary, source, build, head=("fc",), smallest=8, normalisations=normalisations)


_TORCHVISION = ("torchvision.models",)
_SPECS = (
    _resnet("resnet18", "3x3 stem, max-pool kept", "He et al. 2016; DASH, section 5", resnet18),
    _resnet(
        "resnet18_sota",
        "3x3 stem, no max-pool, torch's default initialisation",
        "He et al. 2016; DASH, SoTA setting",
        resnet18_sota,
    ),
    _resnet(
        "resnet10", "resnet18 with one block a stage and a quarter of the width", "ours; cf. He et al. 2016", resnet10
    ),
    ModelSpec(
        name="vgg16_bn",
        summary="VGG-16 with BatchNorm, three-layer classifier with dropout",
        source="Simonyan & Zisserman 2015; DASH, section 5",
        build=vgg16_bn,
        head=("classifier.0", "classifier.3", "classifier.6"),
        smallest=32,
        imports=_TORCHVISION,
    ),
    ModelSpec("mlp", "three layers of width 1024, BatchNorm", "DASH, section 5", mlp, ("7",), normalised=False),
    ModelSpec("cnn3", "three convolutions 64-128-256, BatchNorm", "ours; cf. DASH, fig. 14", cnn3, ("fc",), smallest=4),
    ModelSpec("cnn3_small", "cnn3 at a quarter of its width, for tiny images", "ours", cnn3_small, ("fc",), smallest=4),
)
MODELS: dict[str, ModelSpec] = {spec.name: spec for spec in _SPECS}


def model_spec(name: str, normalisation: str = "batch", width: int | None = None) -> ModelSpec:
    """Return the specification of a model of MODELS, of "torchvision:<name>", or of an own one, which is imported.

    ConfigError if there is no such model, or if it has no such normalisation or width. Every model has "batch" and
    None, which change nothing.
    """
    if name.startswith(torchvision_models.PREFIX):
        spec = _torchvision_spec(name.removeprefix(torchvision_models.PREFIX))
    elif name in MODELS:
        check_no_clash(OWN_MODELS, name)
        spec = MODELS[name]
    elif path := part_path(OWN_MODELS, name):
        builder = callable_part(OWN_MODELS, path)
        spec = ModelSpec(name, "your own", path, partial(build_own, path, builder), head=())
    else:
        known = ", ".join(
            [*MODELS, f"{torchvision_models.PREFIX}<name>", "an import path such as mypackage.nets:build"]
        )
        raise ConfigError(f"unknown model {name!r}{nearest(name, list(MODELS))}; known: {known}")
    if normalisation not in (*spec.normalisations, "batch"):
        able = ", ".join(other.name for other in MODELS.values() if other.normalisations)
        raise ConfigError(
            f"model.normalisation: {name} has no {normalisation!r}, leave it at 'batch'; models that have it: {able}"
        )
    if width is not None and spec.width is None:
        able = ", ".join(other.name for other in MODELS.values() if other.width)
        raise ConfigError(
            f"model.width: the width of {name} cannot be changed, leave it at null; models whose width can: {able}"
        )
    if normalisation == "group" and (channels := width or spec.width) % GROUPS:
        raise ConfigError(
            f"model.width: {channels} channels cannot be cut into the {GROUPS} groups of model.normalisation=group; "
            f"take a multiple of {GROUPS}"
        )
    return spec


def build_model(
    name: str,
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    seed: int,
    normalisation: str = "batch",
    width: int | None = None,
) -> nn.Module:
    """Return a new network on the CPU for images (C, H, W); equal seeds give equal weights.

    normalisation: "batch" (no change), or "layer" or "group" for models that have them. width: channels of the first
    stage of a ResNet; None: the model's own. The global generator, which the initialisers draw from, is left as
    found. ConfigError if the model is unknown or has no such normalisation or width, if the images are too small for
    it, or if there are fewer than two classes.
    """
    spec = model_spec(name, normalisation, width)
    if min(image_shape[1:]) < spec.smallest:
        least, got = f"{spec.smallest}x{spec.smallest}", "x".join(map(str, image_shape[1:]))
        raise ConfigError(f"{name} takes images of at least {least} pixels, got {got}")
    if classes < 2:
        raise ConfigError(f"{name} needs at least 2 classes to tell apart, got {classes}")
    options = {"normalisation": normalisation} if spec.normalisations else {}
    options |= {"width": width or spec.width} if spec.width else {}
    with borrowed_global_generator(torch.device("cpu"), seed):
        return spec.build(image_shape, classes, **options)


def _torchvision_spec(name: str) -> ModelSpec:
    torchvision_models.check_name(name)
    return ModelSpec(
        name=f"{torchvision_models.PREFIX}{name}",
        summary="without pre-trained weights",
        source="torchvision.models",
        build=partial(torchvision_models.build, name),
        head=(torchvision_models.head(name),),
        smallest=torchvision_models.smallest(name),
        imports=_TORCHVISION,
    )
