"""Passes that end at any moment at which something on the disk changes."""

import contextlib
import errno
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from tasks.store.stream.folder import StreamFolder

CHANGES = ("replace", "fsync", "unlink", "rmdir", "rename")  # functions of os that a pass changes the disk with
UNEQUAL = ("at", "before", "seconds")  # of two equal histories


class Killed(BaseException):
    """The process is dead: from now on it changes nothing on the disk."""


@contextlib.contextmanager
def dying(at: int, die: Callable[[], None], changes: tuple[str, ...] = CHANGES) -> Iterator[list[int]]:
    """Call `die` in place of change number `at` of the disk, and of every later one; yield a list with the count."""
    count = [0]
    kept = {name: getattr(os, name) for name in changes}

    def counted(name: str) -> Callable:
        def change(*words, **options):
            count[0] += 1
            if count[0] >= at:
                die()
            return kept[name](*words, **options)

        return change

    for name in changes:
        setattr(os, name, counted(name))
    try:
        yield count
    finally:
        for name, function in kept.items():
            setattr(os, name, function)


def raise_killed() -> None:
    raise Killed


def raise_full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def pass_in_a_process(store: Path, name: str, at: int) -> None:
    """Do a pass that is killed at a change of the disk; run in a process of its own."""
    from tasks.store.stream import judging
    from tests.stream import small

    judging.export = lambda *model: {}
    with dying(at, kill_this_process):
        small.run(StreamFolder(store / "streams" / name))


def history(stream: StreamFolder) -> dict[str, object]:
    """Return everything that two equal histories have in common."""
    entries = [json.loads(line) for line in stream.ledger_file.read_text().splitlines()]
    files = [
        *(stream.path / "chunks").glob("*"),
        *(stream.path / "holdout").glob("*"),
        *stream.models.glob("*/weights.safetensors"),
        *stream.models.glob("*/golden.npz"),
        *stream.evaluations.glob("*"),
        *stream.quarantine.rglob("*.*"),
        stream.path / "champion.json",
    ]
    contents = {str(file.relative_to(stream.path)): file.read_bytes() for file in files}
    return {"ledger": [_without_times(entry) for entry in entries], **contents}


def _without_times(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_times(part) for key, part in value.items() if key not in UNEQUAL}
    return value
