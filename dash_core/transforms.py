"""torchvision's transforms as an augmentation, written as in Python: `torchvision:RandomCrop(32, padding=4) + AugMix`.

Each image is transformed alone, with numbers drawn from a seed of its own, so that every device and number of
processes, and a run that continues anywhere in an epoch, get the same images. That is slower than our own
augmentations, which transform whole batches.
"""

import ast
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dash_core.errors import ConfigError
from dash_core.extras import require
from dash_core.mistakes import nearest
from dash_core.parts import TORCHVISION

if TYPE_CHECKING:
    from torchvision.transforms.v2 import Transform

KEY = "training.augmentation"


def is_torchvision(augmentation: str) -> bool:
    """Tell whether an augmentation is one of torchvision's transforms, or several."""
    return augmentation.startswith(TORCHVISION)


def transforms_of(augmentation: str) -> Callable[[Tensor], Tensor]:
    """Return the transforms of `torchvision:A(…) + B(…)` as one function of an image, uint8 (C, H, W).

    ConfigError if it is not written so, if torchvision.transforms.v2 has no such transform, or if one refuses its
    arguments, which are numbers, strings, lists and the like. A name alone is a transform without arguments.
    """
    require("data", f"the augmentation {augmentation}")
    text = augmentation.removeprefix(TORCHVISION)
    try:
        written = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ConfigError(f"{KEY}: {text!r} cannot be read ({error.msg}); {_EXAMPLE}") from None
    from torchvision.transforms.v2 import Compose

    return Compose([_transform(part) for part in _parts(written)])


def check_transforms(augmentation: str, image_shape: tuple[int, int, int]) -> None:
    """Raise ConfigError unless the transforms turn an image (C, H, W) into another of the same shape and type."""
    image = torch.zeros(image_shape, dtype=torch.uint8)
    try:
        made = transformed(transforms_of(augmentation), image[None], torch.zeros(1, dtype=torch.int64))[0]
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{KEY}: {augmentation} fails on an image of {list(image_shape)} (channels, height, width): {error}"
        ) from error
    if (made.shape, made.dtype) != (image.shape, image.dtype):
        raise ConfigError(
            f"{KEY}: {augmentation} makes {made.dtype} {list(made.shape)} of {image.dtype} {list(image.shape)}; size "
            "and type must stay, as by RandomCrop(SIZE, padding=4), and normalisation follows by itself"
        )


def transformed(transforms: Callable[[Tensor], Tensor], batch: Tensor, seeds: Tensor) -> Tensor:
    """Return a batch (B, C, H, W), each image transformed with the numbers of its seed (B,), on the CPU.

    The global generators are left as they were found. On a GPU this waits for the device.
    """
    devices = [batch.device] if batch.device.type == "cuda" else []
    images = []
    with torch.random.fork_rng(devices):
        for image, seed in zip(batch, seeds.tolist(), strict=True):
            torch.manual_seed(seed)
            images.append(transforms(image.contiguous()))
    return torch.stack(images)


_EXAMPLE = "write torchvision's transforms as in Python, such as torchvision:RandomCrop(32, padding=4) + AugMix"


def _parts(written: ast.expr) -> list[ast.expr]:
    """Return the terms of a sum."""
    if isinstance(written, ast.BinOp) and isinstance(written.op, ast.Add):
        return [*_parts(written.left), *_parts(written.right)]
    return [written]


def _transform(written: ast.expr) -> "Transform":
    """Return the transform of a term: a name, or a name with arguments in brackets."""
    from torchvision.transforms import v2

    call = written if isinstance(written, ast.Call) else ast.Call(func=written, args=[], keywords=[])
    if not isinstance(call.func, ast.Name) or any(keyword.arg is None for keyword in call.keywords):
        raise ConfigError(f"{KEY}: {ast.unparse(written)!r} is no transform; {_EXAMPLE}")
    name = call.func.id
    known = [found for found in dir(v2) if _is_transform(getattr(v2, found))]
    if name not in known:
        raise ConfigError(f"{KEY}: torchvision.transforms.v2 has no transform {name!r}{nearest(name, known)}")
    try:
        arguments = [ast.literal_eval(argument) for argument in call.args]
        named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        return getattr(v2, name)(*arguments, **named)
    except Exception as error:
        raise ConfigError(f"{KEY}: {ast.unparse(written)}: {error}") from error


def _is_transform(found: Any) -> bool:
    from torchvision.transforms import v2

    return isinstance(found, type) and issubclass(found, v2.Transform) and found is not v2.Transform
