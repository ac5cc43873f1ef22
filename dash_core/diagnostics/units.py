"""Dead and dormant units: which of the outputs of ReLU carry little or nothing."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from dash_core.diagnostics.base import Subject

DORMANT = 0.025  # score at or below which a unit is dormant (Sokar et al. 2023, their tau)
RELUS = {functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}

Call = tuple[str, int]  # block and number, from 1, of a ReLU call of a forward pass


def units(subject: Subject) -> dict[str, float]:
    """Return the shares of dead and dormant units over at most MOST_IMAGES training images so far, in eval mode."""
    positions = subject.draw(len(subject.data))
    return unit_shares(relu_outputs(subject.learner.model, lambda: subject.predict(positions)))


def unit_shares(outputs: Mapping[Call, Tensor]) -> dict[str, float]:
    """Return `dead` and `dormant`, the shares of all units, each also by block: `dead/<block>`.

    outputs: of each ReLU call, Σ|h| by unit (U,). A unit is dead where it is 0: for every image, and every position of
    a map. It is dormant where its mean |h| is at most DORMANT of the mean over its call's units; a dead unit is. A
    block's calls are also given one by one, `dead/<block>/<number>`, where it has several.
    """
    kinds = {"dead": lambda sums: sums == 0, "dormant": lambda sums: sums <= DORMANT * sums.mean()}
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
    """Return Σ|h| by unit (U,), float64, of every ReLU call of the model's forward passes while `run` goes on.

    A unit is an output's dimension 1: a channel of a map. The sum is over images and positions. Calls of a module that
    is called twice, and of torch.nn.functional.relu, count each for itself. The block is the module around the ReLU,
    or the ReLU itself where that is the whole model.
    """
    watch = _ReluWatch()
    with watch.following(model), watch:
        run()
    return watch.sums


class _ReluWatch(TorchFunctionMode):
    """Adds up what each ReLU call gives; `path` holds the names of the modules under way, the innermost last."""

    def __init__(self) -> None:
        super().__init__()
        self.sums: dict[Call, Tensor] = {}
        self.path: list[str] = []
        self.calls: dict[str, int] = {}  # of the forward pass under way, by block

    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if func in RELUS and self.path:
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
        """Keep `path` up to date in the model's forward passes; its hooks are removed afterwards."""
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
