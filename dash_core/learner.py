"""The learner: the model and optimiser that are trained, and that an intervention may change."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dash_core.convolution import use_fast_convolutions_
from dash_core.cost import CostMeter
from dash_core.loss import Loss
from dash_core.parallel import ALONE, Ranks, use_global_statistics_
from dash_core.seeding import derive_seed, generator


class Learner:
    """A model and its optimiser, with named randomness and a cost meter.

    build: seed → a new model; the seed decides all its random draws. Its 4-d weights are stored channels-last, in
    which convolutions are faster. make_optimizer: model → a new optimiser of its parameters. head: names of the
    model's classifier modules. loss: labels (N,) of the training images → the loss that training minimises. frozen:
    names of modules whose parameters and buffers stay those of the first initialisation, whatever is done. ranks: the
    processes that train the model together, each with the same learner.
    """

    def __init__(
        self,
        *,
        build: Callable[[int], nn.Module],
        make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        seed: int,
        device: torch.device,
        head: tuple[str, ...] = (),
        loss: Callable[[Tensor], Loss] = lambda labels: functional.cross_entropy,
        frozen: Sequence[str] = (),
        ranks: Ranks = ALONE,
    ) -> None:
        self._build = build
        self._make_optimizer = make_optimizer
        self.seed = seed
        self.device = device
        self.head = head
        self.loss = loss
        self.ranks = ranks
        self.meter = CostMeter(device, ranks.size)
        self.model = build(derive_seed(seed, "init", 1)).to(device, memory_format=torch.channels_last)
        use_fast_convolutions_(self.model)
        if ranks.size > 1:
            use_global_statistics_(self.model, ranks, device)
        self._averaging: nn.Module | None = None
        self._frozen = [self.model.get_submodule(name) for name in frozen]
        for module in self._frozen:
            module.requires_grad_(False)
        self._kept = tuple(f"{name}." for name in frozen)
        self.optimizer = make_optimizer(self.model)

    def generator(self, *purpose: str | int) -> torch.Generator:
        """Return the CPU generator of this run for one named purpose."""
        return generator(self.seed, *purpose)

    def fresh_state(self, *purpose: str | int) -> dict[str, Tensor]:
        """Return the state of a newly initialised model, drawn from (seed, *purpose)."""
        return self._build(derive_seed(self.seed, *purpose)).to(self.device).state_dict()

    @cached_property
    def initial(self) -> dict[str, Tensor]:
        """The state of the very first initialisation (θ₀ of L2 INIT)."""
        return self.fresh_state("init", 1)

    @cached_property
    def compiled(self) -> Callable[[Tensor], Tensor]:
        """The model compiled for batches of one size, on CUDA as CUDA graphs; it uses the model's own weights.

        Interventions, cold restarts too, change weights in place, so one compilation serves all experiments.
        """
        mode = "reduce-overhead" if self.device.type == "cuda" else "default"
        return torch.compile(self.model, dynamic=False, mode=mode)

    def averaging(self, example: Callable[[], Tensor]) -> Callable[[Tensor], Tensor]:
        """Return the model whose backward pass leaves the mean of all ranks' gradients, with the model's own weights.

        One rank alone gets the model itself. example: returns two inputs of the model, (2, ...).
        """
        if self._averaging is None:
            self._averaging = self.ranks.averaging(self.model, example)
        return self._averaging

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have this process do by itself what the block does, without a word to the other ranks."""
        ranks, self.ranks = self.ranks, ALONE
        try:
            yield
        finally:
            self.ranks = ranks

    def train_mode(self) -> None:
        """Put the model in train mode, but for its frozen layers: their BatchNorm keeps its running statistics."""
        self.model.train()
        for module in self._frozen:
            module.eval()

    def changeable(self) -> Iterator[tuple[str, Tensor]]:
        """Yield name and tensor of each parameter and buffer, without those of frozen layers."""
        for name, tensor in self.model.state_dict().items():
            if not self._kept or not name.startswith(self._kept):
                yield name, tensor

    @torch.no_grad()
    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Copy parameters and buffers into the model in place: its tensors are not replaced, frozen ones unchanged."""
        for name, tensor in self.changeable():
            tensor.copy_(state[name])

    def restart_optimizer(self) -> None:
        """Forget momentum and step counts."""
        self.optimizer = self._make_optimizer(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later training depends on, but for the seed, which decides the generators."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state returned by `state_dict`; without its optimizer, only the weights are set."""
        self.load_weights(state["model"])
        if "optimizer" in state:
            self.optimizer.load_state_dict(state["optimizer"])
