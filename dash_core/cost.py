"""The cost meter: what was spent, by phase, in FLOPs, seconds and peak memory.

FLOPs are counted by torch's own counter on steps that really run, never estimated by hand: the first
step of each kind and shape is counted while it trains, later ones of the same kind and shape cost the same.
The counter sees matrix products and convolutions (2 FLOPs a multiply-add), forward and backward; a convolution counts
as its direct sum, also where it is made with fewer multiplications, so that costs compare from machine to machine.

All seconds from one record to the next are charged: those of no phase, in which the orchestrator schedules and the
process waits, are "orchestrate".
"""

import logging
import resource
import sys
import time
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch

from dash_core.device import give_back_freed_memory
from dash_core.flops import FlopCounterMode

logger = logging.getLogger(__name__)
PHASES = ("intervene", "train", "evaluate", "diagnose", "checkpoint", "orchestrate")


@dataclass(frozen=True)
class Cost:
    """What one phase spent.

    seconds: wall-clock, the device waited for. flops: floating-point operations.
    peak_memory: bytes, the highest level within the phase: the allocator's on CUDA, the process's resident
    set on CPU, libraries included (0 for a phase that did not run).
    """

    __pydantic_config__: ClassVar = {"strict": True, "extra": "forbid", "allow_inf_nan": False}

    seconds: float = 0.0
    flops: int = 0
    peak_memory: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.flops + other.flops, max(self.peak_memory, other.peak_memory))


class CostMeter:
    """Adds up what each phase of a chunk spends."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spent: dict[str, Cost] = {}
        self._running: str | None = None  # the phase under way,
        self._started = 0.0  # when it began, or went on after what was spent aside,
        self._flops = 0  # and its FLOPs since then
        self._since = time.perf_counter()  # when the last `take` was, earlier by what a saved state had behind it
        self._known: dict[Hashable, int] = {}  # FLOPs of each kind and shape of step seen so far

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Charge the block to a phase; phases do not nest."""
        self._begin(name)
        try:
            yield
        finally:
            self._end()

    @contextmanager
    def aside(self, name: str, *, own_memory: bool = True) -> Iterator[None]:
        """Charge the block to another phase than the one under way, if any, which it interrupts.

        own_memory: the two phases' peaks are told apart; for that the process hands its freed memory back, twice, and
        the steps that follow pay for getting it again. Without, the peak of each may be the other's.
        """
        interrupted = self._running
        self._end()
        self._begin(name, reset=own_memory)
        try:
            yield
        finally:
            self._end()
            if interrupted:
                self._begin(interrupted, reset=own_memory)

    @contextmanager
    def counted(self, step: Hashable) -> Iterator[None]:
        """Charge the FLOPs of the block, one step of a kind and shape that `step` names."""
        if step not in self._known:
            with FlopCounterMode(display=False) as counter:
                yield
            self._known[step] = counter.get_total_flops()
        else:
            yield
        self._flops += self._known[step]

    def knows(self, step: Hashable) -> bool:
        """Tell whether a step of this kind and shape has been counted."""
        return step in self._known

    def take(self) -> dict[str, Cost]:
        """Return what each phase spent since the last call, and start again from nothing."""
        now = time.perf_counter()
        rest = now - self._since - sum(cost.seconds for cost in self._spent.values())
        spent = {name: self._spent.get(name, Cost()) for name in PHASES} | {"orchestrate": Cost(max(rest, 0.0))}
        self._spent, self._since = {}, now
        return spent

    def state_dict(self) -> dict[str, Any]:
        """Return what each phase spent since the last `take`, the phase under way up to now, and the FLOPs of steps."""
        spent = {name: asdict(cost) for name, cost in self._so_far().items()}
        return {"spent": spent, "elapsed": time.perf_counter() - self._since, "known": dict(self._known)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what was spent before: the phase that was under way goes on when it is entered again."""
        self._spent = {name: Cost(**cost) for name, cost in state["spent"].items()}
        self._since = time.perf_counter() - state["elapsed"]
        self._known = dict(state["known"])

    def _begin(self, name: str, *, reset: bool = True) -> None:
        self._flops = 0
        _synchronise(self._device)
        if reset:
            _reset_peak_memory(self._device)
        self._running, self._started = name, time.perf_counter()

    def _end(self) -> None:
        """Charge what was spent since the phase under way, if any, began or went on."""
        self._spent = self._so_far()
        self._running = None

    def _so_far(self) -> dict[str, Cost]:
        if self._running is None:
            return self._spent
        _synchronise(self._device)
        spent = Cost(time.perf_counter() - self._started, self._flops, _peak_memory(self._device))
        return {**self._spent, self._running: self._spent.get(self._running, Cost()) + spent}


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux" and _peak_can_be_reset():
        give_back_freed_memory()
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again from the present resident set


@cache
def _peak_can_be_reset() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return True
    except OSError:
        logger.warning("the peak of the resident set cannot be reset here: memory is the process's peak so far")
        return False


def _peak_memory(device: torch.device) -> int:
    """Bytes; on systems other than Linux the process's peak so far, which the kernel cannot reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
