"""Unpack a zip file that may be hostile: every member is checked before any is written."""

import shutil
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from dash_core.data.progress import ProgressCallback
from dash_core.errors import DataError


def unpack_zip(archive: Path, target: Path, *, largest: int, progress: ProgressCallback) -> None:
    """Unpack a zip file into the new folder `target`; DataError if it is damaged, too large or would escape.

    largest: bytes that all members together may take when unpacked.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            members = content.infolist()
            _check(members, archive, largest)
            target.mkdir(parents=True)
            for done, member in enumerate(members, start=1):
                _unpack(content, member, target)
                progress(f"unpacking {archive.name}", done, len(members))
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(f"{archive}: {error.filename} is both a file and a folder in it") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{archive}: a damaged zip file ({error})") from error


def _check(members: Sequence[zipfile.ZipInfo], archive: Path, largest: int) -> None:
    """Raise DataError for the first member that is not a plain file or folder below the target."""
    for member in members:
        fault = _fault(member)
        if fault:
            raise DataError(f"{archive}: the member {member.orig_filename!r} {fault}; nothing was unpacked")
    names = [PurePosixPath(member.filename) for member in members]
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise DataError(f"{archive}: the member {str(name)!r} is there twice; nothing was unpacked")
    size = sum(member.file_size for member in members)
    if size > largest:
        raise DataError(f"{archive}: {size} bytes unpacked, more than the {largest} allowed; nothing was unpacked")


def _fault(member: zipfile.ZipInfo) -> str:
    """Return what is wrong with a member, '' if nothing. `orig_filename`, because zipfile cuts names at a NUL."""
    name = member.orig_filename
    kind = stat.S_IFMT(member.external_attr >> 16)
    if "\0" in name:
        return "has a NUL in its name"
    if "\\" in name or ":" in name:
        return "has a backslash or a colon in its name"
    if not name or name.startswith("/"):
        return "has an absolute path, or none"
    if ".." in PurePosixPath(name).parts:
        return "leads out of the folder"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a special file"
    return ""


def _unpack(content: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Write one checked member; zipfile returns at most its stated size, and checks its CRC."""
    path = target / member.filename
    if not path.resolve().is_relative_to(target.resolve()):
        raise DataError(f"{content.filename}: the member {member.filename!r} leads out of the folder")
    if member.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with content.open(member) as source, path.open("xb") as file:
        shutil.copyfileobj(source, file)
