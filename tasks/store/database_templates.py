"""New databases as copies of templates that a package's own migrations made.

The copy takes milliseconds, the migrations take seconds. The first new database under a version of the package makes
the template, which is kept in the user's cache folder.
"""

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from dash_core.files import write_atomically


def template_of(package: str, migrate: Callable[[], bytes]) -> bytes:
    """Return the contents of a new database of the package's version.

    migrate: makes them. It is called only if the cache has no undamaged template of this version; its errors pass.
    """
    return _read(package) or _make(package, migrate)


def template_folder(package: str) -> Path:
    """Return the folder of a package's templates, in the user's cache ($XDG_CACHE_HOME, by default ~/.cache)."""
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (configured if configured.is_absolute() else Path.home() / ".cache") / "dashpipe" / package


def _name(package: str, digest: str) -> str:
    """Return a template's file name. The digest of its contents at the end shows damage; `*` matches any."""
    return f"{package}-{metadata.version(package)}-sqlite-{sqlite3.sqlite_version}-{digest}.db"


def _read(package: str) -> bytes | None:
    """Return an undamaged template of this version from the cache, or None. A damaged one is removed."""
    with contextlib.suppress(OSError, RuntimeError):  # no cache folder, no home
        for path in template_folder(package).glob(_name(package, "*")):
            with contextlib.suppress(OSError):  # one that cannot be read or removed does not hide another
                contents = path.read_bytes()
                if path.name == _name(package, hashlib.sha256(contents).hexdigest()):
                    return contents
                path.unlink()
    return None


def _make(package: str, migrate: Callable[[], bytes]) -> bytes:
    """Make the contents, keep a copy in the cache where that can be written, and return them."""
    contents = migrate()
    with contextlib.suppress(OSError, RuntimeError):
        write_atomically(template_folder(package) / _name(package, hashlib.sha256(contents).hexdigest()), contents)
    return contents
