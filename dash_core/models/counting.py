"""What a model costs on paper: its parameters, and the operations of one forward pass."""

import contextlib
from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters; buffers, such as BatchNorm's running statistics, are none."""
    return sum(parameter.numel() for parameter in model.parameters())


def forward_flops(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return the floating-point operations of one image's forward pass in eval mode.

    A multiplication and its addition count as two; convolutions and matrix products count, and
    nothing else does (torch.utils.flop_counter). Shapes alone are followed: no pixel is computed,
    and weights, buffers, modes and the global generators stay as they were found.
    """
    with FlopCounterMode(display=False) as counter:
        forward_on_meta(model, image_shape)
    return int(counter.get_total_flops())


def forward_on_meta(model: nn.Module, image_shape: tuple[int, int, int]) -> Tensor:
    """Return the model's output, of the right shape but without values, for one image in eval mode."""
    tensors = chain(model.named_parameters(), model.named_buffers())
    shapes = {name: tensor.detach().to("meta") for name, tensor in tensors}
    with torch.no_grad(), _eval_mode(model):
        return torch.func.functional_call(model, shapes, torch.zeros(1, *image_shape, device="meta"))


@contextlib.contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode; afterwards every submodule has its own mode back."""
    found = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in found:
            module.training = training
