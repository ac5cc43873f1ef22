"""What a person should know about a dataset's images, counted while they are read: none of it is an error."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
import torch

WORDS = {
    "test_images_in_training": "test images have the same pixels as a training image",
    "images_in_two_classes": "images are stored under more than one class",
    "files_of_several_frames": "files hold several frames or pages; the first one is used",
    "damaged_files_left_out": "damaged files are left out",
}


@dataclass(frozen=True)
class Noticed:
    """Counts; WORDS says what each of them counts. An image that is stored several times has one set of pixels."""

    test_images_in_training: int = 0
    images_in_two_classes: int = 0
    files_of_several_frames: int = 0
    damaged_files_left_out: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """The counts that are not 0, by name."""
        return {name: count for name, count in asdict(self).items() if count}

    @property
    def sentences(self) -> list[str]:
        """The counts that are not 0, in words."""
        return [f"{count:,} {WORDS[name]}" for name, count in self.counts.items()]


def fingerprints(images: np.ndarray) -> list[bytes]:
    """Return a 16-byte hash of each image's pixels, for images uint8 (N, H, W, C)."""
    return [hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest() for image in images]


def count_repeats(prints: Iterable[bytes], labels: torch.Tensor, train: int) -> Noticed:
    """Count images that appear in both sets, and images under several labels.

    prints, labels: of all images, the `train` training images first.
    """
    seen: dict[bytes, set[int]] = defaultdict(set)
    training: set[bytes] = set()
    repeated = 0
    for index, (fingerprint, label) in enumerate(zip(prints, labels.tolist(), strict=True)):
        seen[fingerprint].add(label)
        if index < train:
            training.add(fingerprint)
        else:
            repeated += fingerprint in training
    return Noticed(repeated, sum(len(found) > 1 for found in seen.values()))
