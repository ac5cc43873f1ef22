"""torchvision's transforms as an augmentation, written as in Python: `torchvision:RandomCrop(32, padding=4) + AugMix`.

Each image is transformed alone, with random numbers from a seed of its own. So the number of processes and a stop
anywhere in an epoch change nothing. That is slower than our own augmentations, which transform whole batches.
"""

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
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
EXAMPLE = "write torchvision's transforms as in Python, such as torchvision:RandomCrop(32, padding=4) + AugMix"


@cache
def transforms_of(augmentation: str) -> Callable[[Tensor], Tensor]:
    """Return the transforms of `torchvision:A(…) + B(…)` as one function of an image, uint8 (C, H, W).

    ConfigError if it is not written so, if torchvision.transforms.v2 has no such transform, or if one refuses its
    arguments, which are numbers, strings, lists and the like. A name alone is a transform without arguments.
    """
    require("data", f"the augmentation {augmentation}")
    text = augmentation.removeprefix(TORCHVISION)
    try:
        expression = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ConfigError(f"{KEY}: {text!r} cannot be read ({error.msg}); {EXAMPLE}") from None
    from torchvision.transforms.v2 import Compose

    return Compose([_transform(term) for term in _terms(expression)])


def transformed(augmentation: str, transforms: Callable[[Tensor], Tensor], batch: Tensor, seeds: list[int]) -> Tensor:
    """Return a batch (B, C, H, W), each image transformed with the random numbers of its seed.

    The batch and the global generators are left as they were found. On a GPU this waits for the device. ConfigError if
    a transform fails, or changes the size or type of an image. augmentation: as it was written, for that error.
    """
    images = []
    with _seeded(batch.device) as seed_all:
        for image, seed in zip(batch, seeds, strict=True):
            seed_all(seed)
            images.append(_one(augmentation, transforms, image.clone(memory_format=torch.contiguous_format)))
    return torch.stack(images) if images else batch


def _one(augmentation: str, transforms: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    shape, dtype = image.shape, image.dtype
    try:
        changed = transforms(image)
    except Exception as error:
        raise ConfigError(
            f"{KEY}: {augmentation} fails on an image of {list(shape)} (channels, height, width): {error}"
        ) from error
    if not isinstance(changed, Tensor) or (changed.shape, changed.dtype) != (shape, dtype):
        what = f"{changed.dtype} {list(changed.shape)}" if isinstance(changed, Tensor) else type(changed).__name__
        raise ConfigError(
            f"{KEY}: {augmentation} makes {what} of {dtype} {list(shape)}; size and type must stay, as by "
            "RandomCrop(SIZE, padding=4), and normalisation follows by itself"
        )
    return changed


@contextmanager
def _seeded(device: torch.device) -> Iterator[Callable[[int], None]]:
    """Yield a function that seeds the global generators of CPU and device; put them back after the block.

    torch.manual_seed would seed every device, and takes longer than most transforms.
    """
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    states = [generator.get_state() for generator in generators]

    def seed_all(seed: int) -> None:
        for generator in generators:
            generator.manual_seed(seed)

    try:
        yield seed_all
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _terms(expression: ast.expr) -> list[ast.expr]:
    """Return the terms of a sum."""
    if isinstance(expression, ast.BinOp) and isinstance(expression.op, ast.Add):
        return [*_terms(expression.left), *_terms(expression.right)]
    return [expression]


def _transform(term: ast.expr) -> "Transform":
    """Return the transform of a term: a name, or a name with arguments in brackets."""
    from torchvision.transforms import v2

    call = term if isinstance(term, ast.Call) else ast.Call(func=term, args=[], keywords=[])
    if not isinstance(call.func, ast.Name) or any(keyword.arg is None for keyword in call.keywords):
        raise ConfigError(f"{KEY}: {ast.unparse(term)!r} is no transform; {EXAMPLE}")
    name = call.func.id
    names = [each for each in dir(v2) if _is_transform(getattr(v2, each))]
    if name not in names:
        raise ConfigError(f"{KEY}: torchvision.transforms.v2 has no transform {name!r}{nearest(name, names)}")
    try:
        arguments = [ast.literal_eval(argument) for argument in call.args]
        keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except ValueError:
        raise ConfigError(
            f"{KEY}: {ast.unparse(term)}: arguments are numbers, strings, lists and the like, not other transforms"
        ) from None
    try:
        return getattr(v2, name)(*arguments, **keywords)
    except Exception as error:
        raise ConfigError(f"{KEY}: {ast.unparse(term)}: {error}") from error


def _is_transform(member: Any) -> bool:
    from torchvision.transforms import v2

    return isinstance(member, type) and issubclass(member, v2.Transform) and member is not v2.Transform
