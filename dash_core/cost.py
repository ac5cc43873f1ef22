"""The cost meter: FLOPs, seconds and peak memory of each phase of an experiment.

torch's own counter counts the FLOPs of steps that really run; nothing is estimated by hand. The first step of each
kind and shape is counted while it trains, and later steps of that kind and shape cost the same. The counter sees matrix
products and convolutions (2 FLOPs a multiply-add), forward and backward. A convolution counts as its direct sum, even
if it is computed with fewer multiplications, so that costs are comparable between machines.

All seconds between two records are charged. Those outside any phase, in which the orchestrator schedules and the
process waits, belong to "orchestrate".
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
    """The cost of one phase.

    seconds: wall-clock time, including the wait for the device. flops: floating-point operations. peak_memory: bytes,
    the maximum during the phase: of the allocator on CUDA, of the process's resident set, libraries included, on the
    CPU; 0 for a phase that did not run.
    """

    __pydantic_config__: ClassVar = {"strict": True, "extra": "forbid", "allow_inf_nan": False}

    seconds: float = 0.0
    flops: int = 0
    peak_memory: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.seconds + other.seconds, self.flops + other.flops, max(self.peak_memory, other.peak_memory))


@dataclass(frozen=True)
class Limit:
    """What the intervention and training of one experiment may take; None: no bound.

    steps: of the optimiser. seconds: wall-clock time; only this bound depends on the machine.
    """

    steps: float | None = None
    flops: float | None = None
    seconds: float | None = None

    def reached(self, steps: int, flops: int, seconds: float) -> str | None:
        """Return the name of the first bound that is reached; None if none is."""
        spent = {"steps": steps, "flops": flops, "seconds": seconds}
        return next((name for name, bound in vars(self).items() if bound is not None and spent[name] >= bound), None)


NO_LIMIT = Limit()
LIMITED = ("intervene", "train")  # the phases that a limit counts


class CostMeter:
    """Adds up the cost of each phase of an experiment. processes: that train together, this one included."""

    def __init__(self, device: torch.device, processes: int = 1) -> None:
        self._device = device
        self._processes = processes
        self._spent: dict[str, Cost] = {}
        self._running: str | None = None  # the present phase
        self._started = 0.0  # when the present phase began, or continued after an aside
        self._flops = 0  # of the present phase since `_started`
        self._since = time.perf_counter()  # time of the last `take`, less the seconds that a loaded state had measured
        self._known: dict[Hashable, int] = {}  # FLOPs of each kind and shape of step seen so far
        self._begun = self._since  # of this process's share of the time since the last `take`
        self._beside = 0.0  # seconds of the other processes since then, in what a loaded state had measured

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
        """Charge the block to another phase; the present phase, if any, is interrupted for it.

        own_memory: measure the memory peaks of the two phases separately. For that the process returns its freed memory
        to the system twice, and later steps spend time to get it again. If False, one phase may get the other's peak.
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
        """Charge the FLOPs of the block, which is one step; `step` names its kind and shape."""
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
        """Return the cost of each phase since the last call, and start again from zero."""
        now = time.perf_counter()
        rest = now - self._since - sum(cost.seconds for cost in self._spent.values())
        spent = {name: self._spent.get(name, Cost()) for name in PHASES} | {"orchestrate": Cost(max(rest, 0.0))}
        self._spent, self._since = {}, now
        self._begun, self._beside = now, 0.0
        return spent

    def so_far(self, *phases: str) -> tuple[float, int]:
        """Return seconds and FLOPs of some phases since the last `take`, without waiting for the device."""
        spent = [self._spent.get(name, Cost()) for name in phases]
        if self._running in phases:
            spent.append(Cost(time.perf_counter() - self._started, self._flops))
        return sum(cost.seconds for cost in spent), sum(cost.flops for cost in spent)

    def process_seconds(self) -> float | None:
        """Return the seconds since the last `take`, those of each process added up; None if there was one at a time."""
        now, beside = time.perf_counter(), self._seconds_beside()
        return now - self._since + beside if beside else None

    def _seconds_beside(self) -> float:
        return self._beside + (self._processes - 1) * (time.perf_counter() - self._begun)

    def state_dict(self) -> dict[str, Any]:
        """Return the cost of each phase, the present one too, since the last `take`, and the FLOPs of known steps."""
        spent = {name: asdict(cost) for name, cost in self._so_far().items()}
        state = {"spent": spent, "elapsed": time.perf_counter() - self._since, "known": dict(self._known)}
        beside = self._seconds_beside()
        return state | ({"beside": beside} if beside else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of `state_dict`; a phase that was running continues when it is entered again."""
        self._spent = {name: Cost(**cost) for name, cost in state["spent"].items()}
        self._since = time.perf_counter() - state["elapsed"]
        self._known = dict(state["known"])
        self._begun, self._beside = time.perf_counter(), state.get("beside", 0.0)

    def _begin(self, name: str, *, reset: bool = True) -> None:
        self._flops = 0
        _synchronise(self._device)
        if reset:
            _reset_peak_memory(self._device)
        self._running, self._started = name, time.perf_counter()

    def _end(self) -> None:
        """Charge the cost of the present phase, if any, since it began or continued."""
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
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM, the peak, becomes the present resident set


@cache
def _peak_can_be_reset() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return True
    except OSError:
        logger.warning("the peak of the resident set cannot be reset here: memory is the process's peak so far")
        return False


def _peak_memory(device: torch.device) -> int:
    """Return the peak in bytes; on systems other than Linux it cannot be reset, and is that of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
