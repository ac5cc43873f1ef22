"""Stopping politely: the first signal asks a run to save its state and stop, a second one interrupts it.

Besides SIGTERM and Ctrl-C these are SIGHUP, of a terminal that was closed, and SIGUSR1 and SIGUSR2, which clusters send
some time before they end a job.
"""

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)
INTERRUPTING = signal.SIGTERM, signal.SIGINT  # when they come a second time; SIGHUP often comes twice by itself

_signal: signal.Signals | None = None


def requested() -> bool:
    """Tell whether this process was asked to stop, within a block of `heeding`."""
    return _signal is not None


def asked_by() -> signal.Signals | None:
    """Return the signal that asked this process to stop; None if none did."""
    return _signal


@contextmanager
def heeding() -> Iterator[None]:
    """Have the STOPPING_SIGNALS only ask to stop, within the block; a second SIGTERM or Ctrl-C interrupts at once.

    An ignored signal stays ignored. Outside the main thread nothing changes, because signals do not arrive there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _signal
    _signal = None
    names = [name for name in STOPPING_SIGNALS if signal.getsignal(name) is not signal.SIG_IGN]
    handlers = {name: signal.signal(name, _note_signal) for name in names}
    try:
        yield
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)


def _note_signal(name: int, frame: FrameType | None) -> None:
    global _signal
    if _signal is None:
        _signal = signal.Signals(name)
    elif name in INTERRUPTING and multiprocessing.parent_process() is None:
        raise KeyboardInterrupt  # not in a worker: a signal to a whole job comes twice there, once from its parent


def ignore_signals(*numbers: signal.Signals) -> None:
    """Ignore signals in this process, and in those that are forked from it."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def ended_by(*numbers: signal.Signals) -> Iterator[None]:
    """Let signals end the block quietly, also in a background job, which a shell has ignore Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    except KeyboardInterrupt:
        return
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
