"""The chain of chunks: each chunk's digest covers its images, their labels, their order, and all chunks before it."""

import hashlib
from collections.abc import Iterable

SET_DIGITS = 32  # hex digits of the digest of a set of ids
CHUNKS, HELD_OUT = "chunks", "holdout"  # folders in a stream's folder
RETRACTED_FILE = "retracted.json"  # in a stream's folder: numbers of what is left out, by those two names
BEGINNING = ""  # the digest before the first chunk


def chained(previous: str, images: Iterable[tuple[bytes, int]]) -> str:
    """Return the digest of a chunk: SHA-256 of the previous digest and the ordered (32-byte id, label) pairs."""
    digest = hashlib.sha256(f"chunk after {previous}:".encode())
    for image, label in images:
        digest.update(image)
        digest.update(int(label).to_bytes(8, "little"))
    return digest.hexdigest()


def chained_without(chain: str, retracted: Iterable[str]) -> str:
    """Return the digest of all chunks up to one, less the retracted ones: `chain` itself if there are none."""
    left_out = sorted(retracted)
    if not left_out:
        return chain
    return hashlib.sha256(f"{chain} without {' '.join(left_out)}".encode()).hexdigest()


def digest_of_ids(ids: Iterable[bytes]) -> str:
    """Return a digest of a set of 32-byte image ids, whatever their order."""
    digest = hashlib.sha256()
    for image in sorted(ids):
        digest.update(image)
    return digest.hexdigest()[:SET_DIGITS]
