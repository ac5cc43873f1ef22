"""A model's mode, and all else that a measurement touches, set for a block and put back."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from dash_core.seeding import borrowed_global_generator


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Put every module in train or eval mode for the block, and each back in the mode it was found in."""
    found = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, mode in found.items():
            module.training = mode


@contextmanager
def as_found(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Set the mode and clear gradients for the block; put modes, buffers, gradients and generators back."""
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    buffers = {buffer: buffer.clone() for buffer in model.buffers()} if training else {}
    device = next(model.parameters()).device
    with borrowed_global_generator(device), in_mode(model, training=training):
        try:
            for parameter in gradients:
                parameter.grad = None
            yield
        finally:
            for parameter, found in gradients.items():
                parameter.grad = found
            for buffer, found in buffers.items():
                buffer.copy_(found)
