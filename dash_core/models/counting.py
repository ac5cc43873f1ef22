"""What a model costs on paper: its parameters, and the operations of one forward pass."""

from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dash_core.flops import FlopCounterMode
from dash_core.shrinking import in_mode


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters; buffers, such as BatchNorm's running statistics, are none."""
    return sum(parameter.numel() for parameter in model.parameters())


def forward_flops(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Return the floating-point operations of one image's forward pass in eval mode.

    A multiplication and its addition count as two; convolutions and matrix products count, and
    nothing else does (torch.utils.flop_counter). Weights, buffers, modes and the global generators stay as they were
    found. A model on the meta device is followed by its shapes alone.
    """
    device = next((parameter.device for parameter in model.parameters()), None)
    counter = FlopCounterMode(display=False)
    attention = sdpa_kernel(SDPBackend.MATH)  # not fused, nor by a pass without gradients: the counter would miss it
    with attention, torch.enable_grad(), in_mode(model, training=False), counter:
        model(torch.zeros(1, *image_shape, device=device))
    return int(counter.get_total_flops())


def forward_on_meta(model: nn.Module, image_shape: tuple[int, int, int]) -> Tensor:
    """Return the model's output, of the right shape but without values, for one image in eval mode."""
    tensors = chain(model.named_parameters(), model.named_buffers())
    shapes = {name: tensor.detach().to("meta") for name, tensor in tensors}
    with torch.no_grad(), in_mode(model, training=False):
        return torch.func.functional_call(model, shapes, torch.zeros(1, *image_shape, device="meta"))
