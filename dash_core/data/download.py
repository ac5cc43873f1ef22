"""Downloads: a whole, checked file or none."""

import hashlib
import http.client
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from dash_core.data.progress import ProgressCallback
from dash_core.errors import DataError
from dash_core.files import replaced_when_done

TIMEOUT = 30  # seconds without a byte, after which a download fails
LARGEST = 4 * 2**30  # bytes; more than any download of the catalogue

_BLOCK = 2**20


def fetch_from_any(urls: Sequence[str], file: Path, md5: str, progress: ProgressCallback) -> None:
    """Download `file` from the first address that works; DataError lists every failure."""
    failures = []
    for url in urls:
        try:
            return fetch(url, file, md5, progress)
        except DataError as error:
            failures.append(str(error))
    raise DataError("\n".join(failures))


def fetch(url: str, file: Path, md5: str, progress: ProgressCallback) -> None:
    """Download `url` to `file`, atomically; DataError if the download fails or its MD5 differs."""
    request = urllib.request.Request(url, headers={"User-Agent": "dashpipe"})
    try:
        with (
            urllib.request.urlopen(request, timeout=TIMEOUT) as response,
            replaced_when_done(file) as unfinished,
            unfinished.open("xb") as target,
        ):
            _receive(response, target, url, md5, progress)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url} could not be downloaded ({error})") from error


def md5_of(file: Path) -> str:
    """Return a file's MD5, which the publishers give against damage."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _receive(response: http.client.HTTPResponse, target, url: str, md5: str, progress: ProgressCallback) -> None:
    """Copy the response to the open file `target`; check its size and its MD5."""
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else 0
    digest = hashlib.md5(usedforsecurity=False)
    done = 0
    while block := response.read(_BLOCK):
        target.write(block)
        digest.update(block)
        done += len(block)
        if done > LARGEST:
            raise DataError(f"{url} gives more than {LARGEST} bytes; it is not the dataset")
        progress(f"downloading {url}", done, total)
    if total and done != total:
        raise DataError(f"{url} broke off after {done} of {total} bytes; try again")
    if digest.hexdigest() != md5:
        raise DataError(f"{url} gives a file with MD5 {digest.hexdigest()}, not {md5}: damaged or changed; try again")
