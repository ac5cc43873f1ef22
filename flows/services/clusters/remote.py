"""One call in a process of a cluster: its environment, its warnings, its answer or error. Light to import."""

import logging
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.services.clusters.node import Question


@dataclass(frozen=True)
class Call:
    """A function and its arguments, pickled, because their modules are imported only once the environment is set.

    threads: of torch. folder: where the command was started, which relative paths are relative to. question: what the
    machine must answer before it calls the function; None: nothing.
    """

    pickled: bytes
    threads: int
    folder: str
    question: "Question | None" = None

    @classmethod
    def of(
        cls, function: Callable[..., Any], arguments: tuple, threads: int, question: "Question | None" = None
    ) -> "Call":
        """Return the call of a function."""
        import cloudpickle

        return cls(cloudpickle.dumps((function, arguments)), threads, os.getcwd(), question)


@dataclass(frozen=True)
class Outcome:
    """The value or the error of a call, and the warnings that `dash_core` gave meanwhile."""

    value: Any = None
    error: Exception | None = None
    warnings: tuple[str, ...] = ()


def work(call: Call) -> Outcome:
    """Do a call in this process. Errors are returned, and an engine's own, of a lost process, stand apart from them."""
    from flows.services.environment import prepare_environment

    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(call.threads)
    prepare_environment()
    with suppress(OSError):  # on a machine without it a relative path leads nowhere, and the error names that path
        os.chdir(call.folder)
    import cloudpickle

    from dash_core.errors import ConfigError, DashError, without_password

    with _warnings() as warnings:
        try:
            if call.question is not None:
                from flows.services.clusters.node import examine, fault_of

                if fault := fault_of(call.question, examine(call.question)):
                    raise ConfigError(fault)
            function, arguments = cloudpickle.loads(call.pickled)
            return Outcome(function(*arguments), None, tuple(warnings))
        except DashError as error:
            return Outcome(None, error, tuple(warnings))
        except Exception as error:
            text = without_password(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
            return Outcome(None, DashError(text), tuple(warnings))


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Yield a list that gets the warnings of `dash_core` within the block; nothing is printed on this machine."""
    from flows.services.notices import SCIENCE_LOGGER, Sender, handle_warnings

    warnings: list[str] = []
    sender = Sender(warnings.append)
    handle_warnings(sender)
    logging.getLogger().handlers.clear()  # an import adds one, and every task would print in the worker's log
    try:
        yield warnings
    finally:
        SCIENCE_LOGGER.removeHandler(sender)
