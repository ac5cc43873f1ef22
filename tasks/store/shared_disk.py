"""File systems that several machines share: SQLite files are damaged there, so databases go to a local disk."""

import hashlib
import os
import re
from pathlib import Path

MOUNTS = Path("/proc/mounts")
NETWORK = {"afs", "cifs", "nfs", "nfs4", "smb3", "smbfs"}
PARALLEL = {"beegfs", "ceph", "gpfs", "lustre", "panfs", "pvfs2", "wekafs"}
SHARED = {"9p", "gfs2", "ocfs2", "virtiofs"} | NETWORK | PARALLEL
OWN_TEMPORARY = Path(f"/var/tmp/dashpipe-{os.getuid() if hasattr(os, 'getuid') else 0}")
LOCAL_FUSE = {"fuse.fuse-overlayfs", "fuse.mergerfs", "fuse.gocryptfs", "fuse.encfs"}  # on disks of one machine


def file_system(folder: Path, mounts: Path | None = None) -> str | None:
    """Return the type of the file system that a folder, or its nearest existing parent, is on; None if unknown.

    mounts: a table in the form of /proc/mounts, which only Linux has.
    """
    try:
        lines = (mounts or MOUNTS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    path = Path(os.path.realpath(folder))
    types = {_unescaped(fields[1]): fields[2] for fields in map(str.split, lines) if len(fields) > 2}
    return next((types[str(parent)] for parent in (path, *path.parents) if str(parent) in types), None)


def is_shared(kind: str | None) -> bool:
    """Tell whether a file system of this type is one that several machines may write to."""
    return kind is not None and (kind in SHARED or (kind.startswith("fuse.") and kind not in LOCAL_FUSE))


def local_services(store: Path, mounts: Path | None = None) -> Path | None:
    """Return the folder of a shared store's databases on a disk of this machine; None if the store is not shared.

    It is in XDG_STATE_HOME, by default ~/.local/state, or in /var/tmp if homes are shared too.
    """
    if not is_shared(file_system(store, mounts)):
        return None
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "dashpipe"
    if is_shared(file_system(state, mounts)) and _is_own(OWN_TEMPORARY):
        state = OWN_TEMPORARY
    return state / hashlib.sha256(os.fsencode(os.path.realpath(store))).hexdigest()[:16]


def _is_own(folder: Path) -> bool:
    """Tell whether a folder that anybody could have made is this user's, or is not there yet."""
    try:
        return os.lstat(folder).st_uid == os.getuid()
    except FileNotFoundError:
        return True


def _unescaped(word: str) -> str:
    r"""Return a path of /proc/mounts, in which blanks are written as \040."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), word)
