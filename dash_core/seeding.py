"""Named randomness: every generator is derived from (seed, purpose, ...), none from the global generator.

torch has no generator argument in two places: the initialisers in module constructors, and dropout. They draw from the
global generator, which is seeded for a block and then restored.
"""

import contextlib
import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed that depends on every part of (seed, *purpose), the same on all machines and versions."""
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator for one named purpose, e.g. ``generator(seed, "batches", experiment, epoch)``.

    Numbers are drawn on the CPU and then moved, so that every device gets the same.
    """
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


def global_state(device: torch.device) -> dict[str, Tensor]:
    """Return the states of the global generators that a model on `device` can draw from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_global_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Set the global generators to a state returned by `global_state`."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


@contextlib.contextmanager
def borrowed_global_generator(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Seed the global generators for the block, if a seed is given; restore them afterwards."""
    found = global_state(device)
    try:
        if seed is not None:
            seed_global(device, seed)
        yield
    finally:
        set_global_state(found, device)


def seed_global(device: torch.device, seed: int) -> None:
    """Seed the global generators; only for use inside `borrowed_global_generator`."""
    torch.random.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
