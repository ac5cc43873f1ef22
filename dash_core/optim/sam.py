"""SAM: sharpness-aware minimisation on SGD (Foret et al., ICLR 2021), plain, not adaptive."""

from collections.abc import Iterable

import torch
from torch import Tensor

from dash_core.optim.eager import SGD


class SAM(SGD):
    """SGD that steps from w with the gradient at w + ρ g/‖g‖.

    An update takes two gradient passes::

        loss(model(x), y).backward(); optimizer.ascend()     # w → w + ρ g/‖g‖
        loss(model(x), y).backward(); optimizer.descend()    # back to w, SGD step

    ‖g‖ is the norm over all parameters together. The state is that of SGD: SAM keeps nothing between updates.
    """

    def __init__(self, params: Iterable[Tensor], *, rho: float, **sgd: float | bool) -> None:
        if not rho > 0:
            raise ValueError(f"rho must be > 0, got {rho}")
        super().__init__(params, **sgd)
        self.rho = rho
        self._origin: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def ascend(self) -> None:
        """Move every parameter to w + ρ g/‖g‖, remember w, clear the gradients."""
        weights = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        gradients = [p.grad for p in weights]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        self._origin = [(p, p.clone()) for p in weights]
        torch._foreach_add_(weights, torch._foreach_mul(gradients, self.rho / (norm + 1e-12)))
        self.zero_grad()

    @torch.no_grad()
    def descend(self) -> None:
        """Go back to w and step from there with the present gradient, then clear the gradients."""
        if not self._origin:
            raise RuntimeError("descend() needs an ascend() before it")
        for parameter, origin in self._origin:
            parameter.copy_(origin)
        self._origin = []
        self.step()
        self.zero_grad()
