"""The size of a model: its parameters, and the operations of one forward pass."""

from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dash_core.flops import FlopCounterMode
from dash_core.shrinking import in_mode


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters, without buffers such as BatchNorm's running statistics."""
    return sum(parameter.numel() for parameter in model.parameters())


def forward_flops(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return the floating-point operations of one image's forward pass in eval mode.

    A multiplication and its addition count as two. Only convolutions and matrix products count
    (torch.utils.flop_counter). Weights, buffers, modes and the global generators are left as found. A model on the meta
    device is counted from its shapes.
    """
    device = next((parameter.device for parameter in model.parameters()), None)
    counter = FlopCounterMode(display=False)
    attention = sdpa_kernel(SDPBackend.MATH)  # with gradients and not fused, or the counter would miss it
    with attention, torch.enable_grad(), in_mode(model, training=False), counter:
        model(torch.zeros(1, *image_shape, device=device))
    return int(counter.get_total_flops())


def forward_on_meta(model: nn.Module, image_shape: tuple[int, int, int]) -> Tensor:
    """Return the model's output for one image in eval mode, as a tensor with a shape but no values."""
    tensors = chain(model.named_parameters(), model.named_buffers())
    shapes = {name: tensor.detach().to("meta") for name, tensor in tensors}
    with torch.no_grad(), in_mode(model, training=False):
        return torch.func.functional_call(model, shapes, torch.zeros(1, *image_shape, device="meta"))
