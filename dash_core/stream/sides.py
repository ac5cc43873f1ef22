"""The side of an image: training or hold-out, decided once and for ever by a salted hash.

The hash sees the image alone, or its group (all photos of one patient, say), and never how many others there are. So no
image changes its side when others arrive, and images of one group are always on one side.
"""

import hashlib

RESOLUTION = 2**64


def is_held_out(key: str, salt: str, share: float) -> bool:
    """Tell whether the image or group with this key belongs to the hold-out; about `share` of all keys do."""
    digest = hashlib.sha256(f"{len(salt)}:{salt}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * RESOLUTION
