"""The interface of processes that train runs: workers of this machine, or of a cluster."""

from collections.abc import Callable
from typing import Any, Protocol, Self

from dash_core.errors import DashError

RANKS_SAVING_SECONDS = 60.0  # for a run of several processes, a large one, to save its state after it is asked to stop


class WorkerDied(DashError):
    """The process of a run ended without an answer."""


class Stopped(DashError):
    """The executor was ended before a run started."""


class Ended(Stopped):
    """The executor was ended while a run trained, and the run's process with it."""


class Executor(Protocol):
    """Calls functions in worker processes, several at once. A context manager: the processes end with the block.

    After an exception in the block they end at once, as after `terminate`.
    """

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return function(*arguments), computed by a worker, or raise its error; wait while no worker is idle.

        WorkerDied if the worker's process dies; Stopped or Ended after `terminate`. May be called by many threads.
        """
        ...

    def terminate(self) -> None:
        """Ask the workers to stop, so that runs save their state, and end those that do not; start no other call."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None: ...


def open_executor(size: int, threads: int, device: str, gpus_per_run: int = 1) -> Executor:
    """Return an executor of `size` workers with `threads` torch threads each, on the GPUs of a device setting.

    gpus_per_run: a worker starts so many processes for its run, which need longer to save their state.
    """
    from dash_core.device import visible_gpus
    from flows.services.workers import WorkerPool

    saving = None if gpus_per_run == 1 else RANKS_SAVING_SECONDS
    return WorkerPool(size, threads, visible_gpus(device, gpus_per_run), saving)
