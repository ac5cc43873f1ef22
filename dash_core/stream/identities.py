"""Identities by content: an image is the hash of its pixels, an arrival the hash of its (image, label) pairs.

File names, their order, their times and the file format do not matter: equal pixels are the same image, and the same
images with the same labels are the same arrival. Light to import: nothing here needs torch.
"""

import hashlib
from collections.abc import Iterable

import numpy as np

UNREAD = "file:"  # begins the identity of a file whose pixels cannot be decoded: the hash of its bytes follows


def image_id(pixels: np.ndarray) -> str:
    """Return the SHA-256 of an image's shape and pixels, uint8 (H, W, C)."""
    digest = hashlib.sha256(repr(tuple(pixels.shape)).encode())
    digest.update(np.ascontiguousarray(pixels))
    return digest.hexdigest()


def file_id(content: bytes) -> str:
    """Return the identity of a file that is no readable image."""
    return UNREAD + hashlib.sha256(content).hexdigest()


def arrival_digest(pairs: Iterable[tuple[str, str]]) -> str:
    """Return the SHA-256 of an arrival's (image id, label) pairs, in any order; repeated pairs count once."""
    digest = hashlib.sha256()
    for image, label in sorted(set(pairs)):
        digest.update(f"{image}/{len(label.encode())}:{label}\n".encode())
    return digest.hexdigest()
