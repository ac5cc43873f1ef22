"""Files that are whole or absent, never half-written; an error of the disk names the file and the remedy."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from dash_core.errors import ConfigError, DashError

REMEDIES = {
    errno.ENOSPC: "free some space; the same command continues",
    errno.EDQUOT: "free some of your quota; the same command continues",
    errno.EROFS: "make it writable, or name another folder; the same command continues",
    errno.EACCES: "allow it, or name another folder; the same command continues",
    errno.EPERM: "allow it, or name another folder; the same command continues",
    errno.EIO: "the disk fails: check it, or name a folder on another one",
}
FULL_DISK_BYTES = 2**20  # a disk with fewer free bytes counts as full


class DiskError(DashError, OSError):
    """The disk is full, read-only, forbidden or failing: the message names the file, the reason and the remedy."""


@contextlib.contextmanager
def naming(path: Path | None = None) -> Iterator[None]:
    """Raise an error of the disk in the block as a DiskError that names `path`, or else the error's own file."""
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        where = path or error.filename or "a file"
        raise DiskError(f"{where}: {os.strerror(error.errno)}; {REMEDIES[error.errno]}") from error


@contextlib.contextmanager
def telling_when_full(folder: Path) -> Iterator[None]:
    """Raise any error of the block as a DiskError if the disk of `folder` is full: libraries seldom give the reason."""
    try:
        yield
    except Exception as error:
        if isinstance(error, DiskError) or not folder.exists() or shutil.disk_usage(folder).free >= FULL_DISK_BYTES:
            raise
        told = f"{error}\n" if isinstance(error, DashError) else ""
        raise DiskError(f"{told}{folder}: {os.strerror(errno.ENOSPC)}; {REMEDIES[errno.ENOSPC]}") from error


def check_space(folder: Path) -> None:
    """Raise DiskError if the disk of `folder` is full."""
    usage = shutil.disk_usage(folder)
    if usage.total and usage.free < FULL_DISK_BYTES:  # some file systems do not say how large they are
        raise DiskError(f"{folder}: {os.strerror(errno.ENOSPC)}; {REMEDIES[errno.ENOSPC]}")


def make_writable_folder(option: str, folder: Path, inner: Path | None = None) -> None:
    """Make `folder`, which an option names, and `inner` in it; ConfigError says why it cannot hold results."""
    try:
        (inner or folder).mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(None, "no permission to write")
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"{option}: {folder} cannot hold results ({reason}); name a folder you can write") from None


def write_atomically(path: Path, *parts: bytes, durable: bool = True) -> None:
    """Write the parts one after another, and make the folder; readers and crashes see the old file or the new one.

    durable: wait until the file is on the disk. Not needed for files that are useless after a crash of the machine.
    """
    with replaced_when_done(path, durable=durable) as unfinished, unfinished.open("xb") as file:
        file.writelines(parts)


@contextlib.contextmanager
def replaced_when_done(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give the block the path of a temporary file beside `path`, for the block to write.

    If the block succeeds, the file is synced and replaces `path`. If the block raises, the file is removed, and `path`
    is unchanged. DiskError names `path`, the reason and the remedy.
    """
    path = Path(path)
    unfinished = path.with_name(f".{secrets.token_hex(8)}.tmp")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            if durable:
                sync(unfinished)
            os.replace(unfinished, path)
        except BaseException:
            with contextlib.suppress(OSError):  # a disk that cannot be written cannot be cleaned up either
                unfinished.unlink(missing_ok=True)
            raise
        if durable:
            sync(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files of killed processes from `folder`; no other process may be writing there."""
    for litter in folder.glob(".*.tmp"):
        litter.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
