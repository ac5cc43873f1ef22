"""Perceptual hashes: images that look the same have nearly the same 64 bits, whatever their format and compression.

The hash is the sign of 64 low-frequency coefficients of a 32x32 grey image's cosine transform against their median
(pHash; Zauner, Implementation and benchmarking of perceptual image hash functions, 2010). Images below SMALLEST pixels
a side have too few of them: digits of one class would look the same.
"""

import numpy as np

SMALLEST = 32  # pixels a side; smaller images get no hash
NEAR_BITS = 4  # differing bits, at most, of two images that look the same
_SIDE, _KEPT = 32, 8  # of the transformed image, and of the block of coefficients that is kept
_BANDS = NEAR_BITS + 1  # two hashes with at most NEAR_BITS differing bits are equal in at least one of so many bands
_POWERS = np.uint64(1) << np.arange(64, dtype=np.uint64)


def image_print(pixels: np.ndarray) -> int:
    """Return the hash of an image uint8 (H, W, C); 0 for one that is too small or has no structure."""
    if min(pixels.shape[:2]) < SMALLEST:
        return 0
    from PIL import Image
    from scipy.fft import dctn

    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("L")
    grey = np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32)
    block = dctn(grey, norm="ortho")[:_KEPT, :_KEPT].ravel()
    bits = block > np.median(block[1:])
    bits[0] = False  # the mean brightness
    return int(_POWERS[bits].sum()) if np.ptp(grey) > 2 else 0


def near(prints: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return whether each hash is within NEAR_BITS bits of one of the others, bool (N,); 0 is near nothing."""
    found = np.zeros(len(prints), dtype=bool)
    others = np.unique(others[others != 0])
    if not len(others):
        return found
    for band in range(_BANDS):
        keys, other_keys = _band(prints, band), _band(others, band)
        order = np.argsort(other_keys, kind="stable")
        ordered, sorted_keys = others[order], other_keys[order]
        starts, ends = (np.searchsorted(sorted_keys, keys, side=side) for side in ("left", "right"))
        for row in np.nonzero((starts < ends) & ~found & (prints != 0))[0]:
            distances = np.bitwise_count(ordered[starts[row] : ends[row]] ^ prints[row])
            found[row] = bool((distances <= NEAR_BITS).any())
    return found


def _band(prints: np.ndarray, band: int) -> np.ndarray:
    first, last = 64 * band // _BANDS, 64 * (band + 1) // _BANDS
    mask = np.uint64((1 << (last - first)) - 1)
    return (prints >> np.uint64(first)) & mask
