"""Worker processes of this machine. Each trains one run at a time.

If a worker dies, killed or out of memory, only its run fails; the next run gets a new process. Workers are forked from
a fork server, a process that has imported the modules and done nothing else: a fork of this process, inside a Prefect
flow or after CUDA was used, would be broken. Where there is no fork server they are spawned.
"""

import contextlib
import logging
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import cycle
from multiprocessing.connection import Connection
from typing import Any, Self

from dash_core.errors import DashError
from flows.services.child import run_in_background
from flows.services.executor import Ended, Stopped, WorkerDied
from flows.services.machine import OPEN_FILES
from flows.services.notices import Sender, handle_warnings, notices_of_command
from flows.services.prefect_settings import API_URL, is_private, read_environment_alone
from tasks.store.stopping import STOPPING_SIGNALS, ignore_signals

SAVING_SECONDS = 5.0  # for a run to save its state after it is asked to stop

_parent: Connection | None = None  # in a worker: the pipe to the process whose pool it belongs to
_parent_lock = threading.Lock()


class WorkerPool:
    """`size` worker processes with `threads` threads each, assigned in turn to the given GPUs (see `visible_gpus`).

    An `Executor` (`flows.services.executor`). Warnings of the workers are printed as they arrive, the last
    before the block ends.
    """

    def __init__(self, size: int, threads: int, gpus: Sequence[str] = (), saving_seconds: float | None = None) -> None:
        self._saving_seconds = saving_seconds or SAVING_SECONDS
        self._threads = threads
        self._gpus = cycle(gpus or [None])
        self._gpu_of: dict[ProcessPoolExecutor, str | None] = {}
        self._closed = False
        self._running: set[futures.Future] = set()
        self._workers: list[ProcessPoolExecutor] = []
        self._notices = notices_of_command()
        self._listeners: list[tuple[Connection, threading.Thread]] = []
        self._idle: queue.LifoQueue[ProcessPoolExecutor] = queue.LifoQueue()
        for _ in range(size):
            self._idle.put(self._new_worker(next(self._gpus)))

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return function(*arguments), computed by a worker; wait for an idle one. WorkerDied if it dies."""
        worker = self._idle.get()
        if self._closed:
            self._idle.put(worker)
            raise Stopped("the comparison was stopped before this run began")
        answer = None
        try:
            try:
                answer = worker.submit(function, *arguments)
            except BrokenProcessPool:  # the worker was killed while it was idle: no run is lost
                worker = self._replace(worker)
                answer = worker.submit(function, *arguments)
            self._running.add(answer)
            return answer.result()
        except BrokenProcessPool:
            if self._closed:
                raise Ended("the comparison was stopped while this run trained") from None
            worker = self._replace(worker)
            raise WorkerDied(
                "the process of this run died without a word: most likely it was killed, or the machine ran out of "
                "memory; the same command continues from the run's last saved state"
            ) from None
        finally:
            self._running.discard(answer)
            self._idle.put(worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        """Wait until the workers end; after an exception, end them at once."""
        if kind is not None:
            self.terminate()
        for worker in self._workers:
            worker.shutdown(wait=True, cancel_futures=True)
        for sender, thread in self._listeners:
            sender.close()
            thread.join()

    def terminate(self) -> None:
        """Ask the workers to stop, so that runs save their state; end those that do not. No other run starts."""
        if self._closed:
            return
        self._closed = True
        processes = [process for worker in self._workers for process in _processes_of(worker)]
        for process in processes:
            process.terminate()
        if self._running:
            _say("stopping: the runs under way save their state …")
        _, unsaved = futures.wait(list(self._running), timeout=self._saving_seconds)
        for process in processes:
            process.kill()
        if unsaved:
            runs = f"{len(unsaved)} of the runs did not finish a step within {self._saving_seconds:.0f} s"
            _say(f"{runs}: what they did since their last saved state is lost")

    def _replace(self, broken: ProcessPoolExecutor) -> ProcessPoolExecutor:
        self._workers.remove(broken)
        broken.shutdown(wait=False)
        return self._new_worker(self._gpu_of.pop(broken))

    def _new_worker(self, gpu: str | None) -> ProcessPoolExecutor:
        context = _context()
        receiver, sender = context.Pipe(duplex=False)
        settings = self._threads, gpu, sender, os.environ.get(API_URL)
        with _locks_explained():
            worker = ProcessPoolExecutor(1, mp_context=context, initializer=_start_worker, initargs=settings)
        self._workers.append(worker)
        self._gpu_of[worker] = gpu
        listener = threading.Thread(target=self._print_warnings, args=(receiver,), name="worker-listener", daemon=True)
        listener.start()
        self._listeners.append((sender, listener))
        return worker

    def _print_warnings(self, worker: Connection) -> None:
        """Print a worker's warnings, until its end of the pipe is closed."""
        while True:
            try:
                warning = worker.recv()
            except (EOFError, OSError):
                return
            with contextlib.suppress(OSError):  # a terminal that is gone
                self._notices.say(warning)


@contextlib.contextmanager
def _locks_explained() -> Iterator[None]:
    """Raise an error of the system in the block as one that says where the locks of processes are kept."""
    try:
        yield
    except OSError as error:
        if error.errno in OPEN_FILES:
            raise
        raise DashError(
            f"worker processes get no locks from the system ({error.strerror}); Linux keeps them in /dev/shm: free "
            "some space there (`df -h /dev/shm`), or mount it, and repeat the command"
        ) from None


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that is gone
        print(line, file=sys.stderr, flush=True)


def warn_parent(warning: str) -> None:
    """Send a warning from a worker to the process whose pool it belongs to; do nothing if that process is gone."""
    with _parent_lock, contextlib.suppress(OSError):
        _parent.send(warning)


def _processes_of(worker: ProcessPoolExecutor) -> list[Any]:
    """Return a worker's processes, a private part of the executor; where it has moved, all child processes."""
    processes = getattr(worker, "_processes", None)
    return list(processes.values()) if isinstance(processes, dict) else multiprocessing.active_children()


def start_early(modules: Sequence[str]) -> None:
    """Start the fork server, whose imports take seconds, while this process still prepares.

    modules: further imports of the workers. A fork server that already runs is left as it is.
    """
    if "forkserver" in multiprocessing.get_all_start_methods():
        from multiprocessing import forkserver

        _context(modules)
        forkserver.ensure_running()


def _context(modules: Sequence[str] = ()) -> multiprocessing.context.BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flows.services.preload", *modules, "flows.services.preloaded"])
    return context


def _start_worker(threads: int, gpu: str | None, parent: Connection, api: str | None) -> None:
    """Set up a worker: its threads, its GPU and the address of Prefect's API.

    It ends with its parent, which handles Ctrl-C and prints.
    """
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # read when CUDA is first used, and nothing here has used it
    if api is not None:
        os.environ[API_URL] = api  # the fork server may have started before the address was known
    ignore_signals(*STOPPING_SIGNALS)  # the parent gets them too, and sends its workers SIGTERM
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if is_private():
        read_environment_alone()
    logging.getLogger().handlers.clear()  # an import adds one, and every task would print on the terminal
    global _parent
    _parent = parent
    handle_warnings(Sender(warn_parent))
    run_in_background(_end_with_parent)


def _end_with_parent() -> None:
    """End this worker when the process of its pool ends; that is not the process it was forked from."""
    multiprocessing.parent_process().join()
    os._exit(1)
