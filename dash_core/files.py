"""Files that are whole or not there: nothing is written half."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`, making its folder: a reader, or a crash, sees the old file or the new one whole."""
    with replaced_when_done(path) as unfinished, unfinished.open("xb") as file:
        file.write(content)


@contextlib.contextmanager
def replaced_when_done(path: Path) -> Iterator[Path]:
    """Lend the block the path of a temporary file beside `path`, for the block to write.

    If the block succeeds, the file is synced and takes the place of `path`; if it raises, the file is removed
    and `path` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        yield unfinished
        sync(unfinished)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
