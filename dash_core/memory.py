"""Memory: how much is free, how much a forward pass needs, and the error when it runs out."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from dash_core.errors import TrainingError
from dash_core.shrinking import in_mode

_SIGNS = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an allocation failed; on the CPU and in CUDA libraries this is a plain RuntimeError."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


@contextlib.contextmanager
def running_out_told(doing: str, device: torch.device, remedy: str) -> Iterator[None]:
    """If memory runs out in the block, raise a TrainingError that says at what, where, and what to set."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(f"out of memory on {device} {doing}: {remedy}") from None


def free_memory(device: torch.device) -> int | None:
    """Return the free bytes of a device as the system reports them; None if it does not report them."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if sys.platform != "linux":
        return None
    available = Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]
    return min(int(available) * 1024, *_left_to_containers())


def _left_to_containers() -> Iterator[int]:
    """Yield the bytes that each control group (version 2) of this process may still take, page cache included."""
    yield sys.maxsize
    with contextlib.suppress(OSError, ValueError):
        path = Path("/proc/self/cgroup").read_text().rpartition("::/")[2].strip()
        inner = Path("/sys/fs/cgroup") / path
        for group in (inner, *inner.parents[: len(Path(path).parts)]):
            limit, used = group / "memory.max", group / "memory.current"
            if limit.exists() and (given := limit.read_text().strip()) != "max":
                cached = (group / "memory.stat").read_text().split("inactive_file ")[1].split()[0]
                yield int(given) - int(used.read_text()) + int(cached)


def layer_bytes(model: nn.Module, example: Tensor) -> int:
    """Return the bytes of the largest layer in a forward pass in eval mode over `example` (B, ...): input and output.

    Without gradients this is what the pass holds at a time, apart from the weights and a residual branch.
    """
    largest = 0

    def measure(module: nn.Module, inputs: object, outputs: object) -> None:
        nonlocal largest
        largest = max(largest, _bytes_of(inputs) + _bytes_of(outputs))

    hooks = [module.register_forward_hook(measure) for module in model.modules()]
    try:
        with in_mode(model, training=False), torch.no_grad():
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return largest


def _bytes_of(value: object) -> int:
    """Return the bytes of a tensor, or of the tensors in a tuple or list."""
    if isinstance(value, Tensor):
        return value.nbytes
    return sum(map(_bytes_of, value)) if isinstance(value, tuple | list) else 0


def saved_bytes(model: nn.Module, example: Tensor) -> int:
    """Return the bytes that a forward pass in eval mode over `example` (B, ...) saves for its backward pass."""
    seen = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    total = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal total
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total += storage.nbytes()
        return tensor

    with in_mode(model, training=False), torch.enable_grad():
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            outputs = model(example)
        del outputs
    return total
