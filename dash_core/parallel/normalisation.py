"""BatchNorm over the images of all ranks: torch's SyncBatchNorm on CUDA, and a short one of our own on the CPU.

SyncBatchNorm has no CPU kernels. The layers keep their names, weights and buffers, and normalise as ever unless
`Ranks.together` is on, which it is for the passes over batches that the ranks divide.
"""

from functools import cache

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from dash_core.parallel.ranks import Ranks


def use_global_statistics_(model: nn.Module, ranks: Ranks, device: torch.device) -> None:
    """Have every BatchNorm layer of the model normalise by the images of all ranks together, in place."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = OnCuda if device.type == "cuda" else _on_cpu(type(module))
            module.ranks, module.process_group = ranks, None


class OnCuda(nn.SyncBatchNorm):
    """torch's SyncBatchNorm while the ranks are `together`, BatchNorm otherwise."""

    ranks: Ranks

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input (B, C, ...)."""
        return super().forward(input) if self.ranks.together else _BatchNorm.forward(self, input)


class _OnCpu(_BatchNorm):
    """The same on the CPU; a base class to put before a BatchNorm class of torch."""

    ranks: Ranks

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and self.ranks.together):
            return super().forward(input)
        self._check_input_dim(input)
        output, mean, variance, count = _GlobalBatchNorm.apply(input, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            self.num_batches_tracked.add_(1)
            new = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), new)
                self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var.dtype), new)
        return output


@cache
def _on_cpu(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    return type(kind.__name__, (_OnCpu, kind), {})


class _GlobalBatchNorm(torch.autograd.Function):
    """Inputs (B, C, ...) of this rank → them normalised, and mean (C,), variance (C,) and count () of all ranks."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Merge each rank's count, mean and sum of squared deviations (Chan et al. 1979)."""
        wide = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input
        dims = [dim for dim in range(wide.dim()) if dim != 1]
        own = torch.var_mean(wide, dims, correction=0)
        count = wide.new_full((1,), wide.numel() // wide.shape[1])
        table = wide.new_zeros(distributed.get_world_size(), 2 * wide.shape[1] + 1)
        table[distributed.get_rank()] = torch.cat([own[1], own[0], count])
        distributed.all_reduce(table)
        means, variances, counts = table.split([wide.shape[1], wide.shape[1], 1], dim=1)
        count = counts.sum()
        mean = (means * counts).sum(0) / count
        variance = ((variances + (means - mean).square()) * counts).sum(0) / count
        shape = [1, -1, *[1] * (wide.dim() - 2)]
        scale = (variance + eps).rsqrt()
        normalised = (wide - mean.view(shape)) * scale.view(shape)
        ctx.save_for_backward(normalised, weight, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        output = normalised if weight is None else normalised * weight.view(shape) + bias.view(shape)
        return output.to(input.dtype), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        """Return the gradients of the inputs, over the sums of all ranks, and this rank's of weight and bias."""
        normalised, weight, scale, count = ctx.saved_tensors
        wide = gradient.to(normalised.dtype)
        dims = [dim for dim in range(wide.dim()) if dim != 1]
        shape = [1, -1, *[1] * (wide.dim() - 2)]
        of_bias, of_weight = wide.sum(dims), (wide * normalised).sum(dims)
        sums = torch.stack([of_bias, of_weight])
        distributed.all_reduce(sums)
        along, across = (sums / count).unbind()
        centred = wide - along.view(shape) - normalised * across.view(shape)
        factor = scale if weight is None else scale * weight
        found = (centred * factor.view(shape)).to(gradient.dtype)
        return (found, None, None, None) if weight is None else (found, of_weight, of_bias, None)
