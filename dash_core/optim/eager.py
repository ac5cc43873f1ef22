"""torch's optimisers without its compiler.

torch wraps these methods so that their first call imports torch._dynamo, which takes two seconds, only to exclude them
from compilation. We never compile an optimiser, so we call the methods inside the wrappers, which do the same.
"""

import inspect

import torch
from torch.optim import Optimizer


class Eager(Optimizer):
    """A base class to put before an optimiser of torch; every update is that optimiser's, bit for bit."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters from their gradients."""
        inspect.unwrap(super().step)(self)


class SGD(Eager, torch.optim.SGD):
    """torch.optim.SGD."""


class Adam(Eager, torch.optim.Adam):
    """torch.optim.Adam."""


class AdamW(Eager, torch.optim.AdamW):
    """torch.optim.AdamW."""
