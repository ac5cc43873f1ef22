"""Child processes: start one, wait until it is healthy, end it, and have it end with its parent.

As a module it runs a program and ends it with its parent: `python -P -m flows.services.child PROGRAM ...`.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

PYTHON = (sys.executable, "-P")  # imports nothing from the folder that the user happens to be in
HEALTH_POLL_SECONDS = 0.05
PARENT_POLL_SECONDS = 0.1
END_SECONDS = 10.0  # for a group of processes to end by itself

Pipe = int | IO[bytes]


def start_child(
    *words: str,
    stdin: Pipe = subprocess.DEVNULL,
    stdout: Pipe = subprocess.DEVNULL,
    stderr: Pipe = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a Python process in a process group of its own: a Ctrl-C reaches only its parent, which ends the group.

    words: the interpreter's arguments, such as "-m", "module".
    """
    return subprocess.Popen(
        [*PYTHON, *words],
        bufsize=0,  # unbuffered: a word that cannot be sent must not wait
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=env,
        cwd=cwd,
        start_new_session=True,
    )


def absolute_python_path() -> str:
    """Return PYTHONPATH for a child with another working folder.

    An empty entry, as `PYTHONPATH=$PYTHONPATH:folder` leaves it, would stand for the working folder and is left out.
    """
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(str(Path(folder).resolve()) for folder in folders if folder)


def wait_healthy(child: "subprocess.Popen[bytes]", is_healthy: Callable[[float], bool], seconds: float) -> bool:
    """Return whether a child became healthy within some seconds; False as soon as it has ended.

    is_healthy: asks the child, for at most the given seconds.
    """
    deadline = time.monotonic() + seconds
    while child.poll() is None and (left := deadline - time.monotonic()) > 0:
        if is_healthy(max(left, HEALTH_POLL_SECONDS)):
            return True
        time.sleep(HEALTH_POLL_SECONDS)
    return False


def end_group(child: "subprocess.Popen[bytes]") -> None:
    """End a child and all processes of its group: ask first, then force."""
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        try:
            os.killpg(child.pid, number) if hasattr(os, "killpg") else child.send_signal(number)
            child.wait(timeout=END_SECONDS)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    child.wait()


def ancestors() -> list[int]:
    """Return the ids of the processes above this one, nearest first; only the parent's if the system has no /proc."""
    processes = [os.getppid()]
    with contextlib.suppress(OSError, ValueError, IndexError):
        while processes[-1] > 1:
            status = Path(f"/proc/{processes[-1]}/stat").read_text(encoding="utf-8", errors="replace")
            processes.append(int(status.rpartition(")")[2].split()[1]))
    return processes


class ParentWatch:
    """Watches the parent of this process in a thread, and calls `end` when the parent is gone.

    is_gone: tells that; None: another process has become the parent since this object was made.
    """

    def __init__(
        self, end: Callable[[], None] = lambda: os._exit(1), is_gone: Callable[[], bool] | None = None
    ) -> None:
        parent = os.getppid()
        self._is_gone = is_gone or (lambda: os.getppid() != parent)
        self._end = end
        self._stopped = threading.Event()
        self._thread = run_in_background(self._watch)

    def stop(self) -> None:
        """End the thread: a process should have no other threads when it is forked."""
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(PARENT_POLL_SECONDS):
            if self._is_gone():
                self._end()
                return


def run_in_background(function: Callable[[], None]) -> threading.Thread:
    """Run a function in a daemon thread, which does not keep this process alive."""
    thread = threading.Thread(target=function, name="parent-watch", daemon=True)
    thread.start()
    return thread


def main(words: Sequence[str]) -> int:
    """Run a Python program in this process's group until it ends or the parent is gone; return its exit code."""

    def end() -> None:
        os.killpg(0, signal.SIGTERM)
        time.sleep(END_SECONDS)
        os.killpg(0, signal.SIGKILL)

    signal.signal(signal.SIGTERM, lambda *_: None)  # the program gets the signal too, and this process ends after it
    if hasattr(os, "killpg"):
        ParentWatch(end)
    with subprocess.Popen([*PYTHON, *words]) as program:
        return program.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
