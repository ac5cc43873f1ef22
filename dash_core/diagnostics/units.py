"""Dead and dormant units: outputs of ReLU that are always zero, or nearly."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from dash_core.diagnostics.base import Subject

DORMANT_SCORE = 0.025  # a unit with this score or a lower one is dormant (tau in Sokar et al. 2023)
RELU_FUNCTIONS = {functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}

Call = tuple[str, int]  # block and number, from 1, of a ReLU call of a forward pass


def units(subject: Subject) -> dict[str, float]:
    """Return the shares of dead and dormant units over at most MOST_IMAGES training images so far, in eval mode."""
    positions = subject.draw(len(subject.data))
    return unit_shares(relu_outputs(subject.learner.model, lambda: subject.predict(positions)))


def unit_shares(outputs: Mapping[Call, Tensor]) -> dict[str, float]:
    """Return `dead` and `dormant`, the shares of all units, each also by block: `dead/<block>`.

    outputs: Σ|h| by unit (U,) of each ReLU call. A unit is dead if its sum is 0: it is 0 for every image and position.
    It is dormant if its mean |h| is at most DORMANT_SCORE times the mean over the units of its call, so a dead unit is
    dormant too. A block with several calls also has the share of each: `dead/<block>/<number>`.
    """
    kinds = {"dead": lambda sums: sums == 0, "dormant": lambda sums: sums <= DORMANT_SCORE * sums.mean()}
    calls: dict[str, int] = {}
    for block, _ in outputs:
        calls[block] = calls.get(block, 0) + 1
    shares: dict[str, float] = {}
    for kind, is_so in kinds.items() if outputs else ():
        flags = {call: is_so(sums).double().cpu() for call, sums in outputs.items()}
        shares[kind] = _share(flags.values())
        for block, count in calls.items():
            within = {number: flag for (name, number), flag in flags.items() if name == block}
            shares[f"{kind}/{block}"] = _share(within.values())
            if count > 1:
                shares |= {f"{kind}/{block}/{number}": _share([flag]) for number, flag in within.items()}
    return shares


def relu_outputs(model: nn.Module, run: Callable[[], object]) -> dict[Call, Tensor]:
    """Return Σ|h| by unit (U,), float64, of each ReLU call in the model's forward passes during `run()`.

    Units are the output's dimension 1, e.g. the channels of a map. The sum is over images and positions. Each call of a
    module that is called twice, and of torch.nn.functional.relu, counts separately. The block is the module around the
    ReLU, or the ReLU itself if it is the whole model.
    """
    watch = _ReluWatch()
    with watch.following(model), watch:
        run()
    return watch.sums


class _ReluWatch(TorchFunctionMode):
    """Adds up the outputs of each ReLU call. path: names of the modules being called, the innermost last."""

    def __init__(self) -> None:
        super().__init__()
        self.sums: dict[Call, Tensor] = {}
        self.path: list[str] = []
        self.calls: dict[str, int] = {}  # number of ReLU calls in the present forward pass, by block

    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if func in RELU_FUNCTIONS and self.path:
            self._add(output.detach())
        return output

    def _add(self, output: Tensor) -> None:
        name = self.path[-1]
        block = name.rpartition(".")[0] or name or "model"
        self.calls[block] = self.calls.get(block, 0) + 1
        others = [dim for dim in range(output.dim()) if dim != 1]
        call, sums = (block, self.calls[block]), output.abs().sum(others, dtype=torch.float64)
        self.sums[call] = self.sums[call] + sums if call in self.sums else sums

    @contextmanager
    def following(self, model: nn.Module) -> Iterator[None]:
        """Keep `path` up to date during the model's forward passes; remove the hooks afterwards."""
        handles = [
            handle
            for name, module in model.named_modules()
            for handle in (
                module.register_forward_pre_hook(lambda module, given, name=name: self._enter(name)),
                module.register_forward_hook(lambda module, given, output: self._leave(), always_call=True),
            )
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str) -> None:
        if not self.path:
            self.calls = {}
        self.path.append(name)

    def _leave(self) -> None:
        self.path.pop()


def _share(flags) -> float:
    """Return the share of ones in all the given flags (U,) together."""
    return float(torch.cat(list(flags)).mean())
