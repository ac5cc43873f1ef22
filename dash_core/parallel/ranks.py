"""What the processes that train one run together know and tell each other. One process alone has nobody to tell."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from dash_core.errors import TrainingError
from dash_core.shrinking import as_found, sum_over_processes_

# Ranks wait so long for each other: while one measures diagnostics or writes a state. A rank that is lost ends the
# connection to it, or is seen by torchrun, long before.
PATIENCE = timedelta(hours=2)


class Ranks:
    """One process that trains alone: rank 0 of 1. `JoinedRanks` overrides what several do together.

    together: whether BatchNorm normalises by the images of all ranks, for a pass over a divided batch.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")
    together: bool = False

    @property
    def first(self) -> bool:
        """Whether this rank writes the run's files."""
        return self.rank == 0

    def averaging(self, model: nn.Module, example: Callable[[], Tensor]) -> nn.Module:
        """Return the model as its training calls it: a backward pass leaves the mean of the ranks' gradients.

        example: returns two inputs of the model.
        """
        return model

    def normalising(self, divided: bool) -> AbstractContextManager:
        """Return a context for a forward pass; BatchNorm's statistics are those of all ranks if it is divided."""
        return nullcontext()

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean of the ranks' tensors, the same on every rank."""
        return tensor

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of the ranks' tensors, the same on every rank."""
        return tensor

    def maximum(self, tensor: Tensor) -> Tensor:
        """Return the largest of the ranks' tensors, element by element."""
        return tensor

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Sum many tensors over the ranks in place, in one message for each type."""

    def any(self, here: bool) -> bool:
        """Tell whether something is so on any rank."""
        return here

    def first_says(self, word: bool) -> bool:
        """Return the word of rank 0."""
        return word

    def agree(self, stop: bool, save: bool) -> tuple[bool, bool]:
        """Return whether all ranks are to stop, and to save, after the present step.

        It is called after each step, with what this rank would do. Several ranks find the answer while the next step
        runs: it comes one step late, and after the same step on every rank.
        """
        return stop, save

    def wait(self) -> None:
        """Return when every rank has come here."""

    def require_equal(self, tensors: Mapping[str, Tensor], what: str) -> None:
        """Raise TrainingError unless all ranks hold the same bits; it names the first tensor that differs."""


ALONE = Ranks()


class JoinedRanks(Ranks):
    """Several processes of torch's default process group. flags: a gloo group of the same processes."""

    def __init__(self, flags: distributed.ProcessGroup, device: torch.device) -> None:
        self.device = device
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self._flags = flags
        self._pending: tuple[distributed.Work, Tensor] | None = None

    def averaging(self, model: nn.Module, example: Callable[[], Tensor]) -> DistributedDataParallel:
        """Wrap the model in DistributedDataParallel, and do one pass for nothing.

        torch orders the gradients in its messages anew after the first backward pass. A run that continues must not
        have another order than one that never stopped: sums of three or more numbers depend on it.
        """
        device = next(model.parameters()).device
        ids = [device.index] if device.type == "cuda" and device.index is not None else None
        wrapped = DistributedDataParallel(model, device_ids=ids, **_buffers_are_equal())
        with as_found(model, training=True), torch.enable_grad(), warnings.catch_warnings():
            # a weight of one input channel has two equal orders in memory; torch warns once that they differ
            warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
            wrapped(example()).float().sum().backward()
        return wrapped

    @contextmanager
    def normalising(self, divided: bool) -> Iterator[None]:
        """Switch `together` on for the block if the pass is divided."""
        self.together = divided
        try:
            yield
        finally:
            self.together = False

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the sum over the ranks, divided by their number."""
        return self.sum(tensor) / self.size

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up in the order of the ranks, which does not depend on an element's place in the message."""
        table = tensor.new_zeros(self.size, *tensor.shape)
        table[self.rank] = tensor
        distributed.all_reduce(table)
        total = table[0].clone()
        for other in table[1:]:
            total += other
        return total

    def maximum(self, tensor: Tensor) -> Tensor:
        """Return the largest, in one message."""
        found = tensor.clone()
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return found

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Sum in place, all tensors of a type in one message."""
        sum_over_processes_(list(tensors))

    def any(self, here: bool) -> bool:
        """Return the largest of the ranks' answers."""
        return bool(self._flag(int(here)))

    def first_says(self, word: bool) -> bool:
        """Return the answer of rank 0; those of the others do not count."""
        return self.any(word and self.first)

    def agree(self, stop: bool, save: bool) -> tuple[bool, bool]:
        """Return what was agreed on after the last step, and send what this rank would do after this one."""
        agreed = self._heard()
        if agreed[0]:
            return agreed  # there is no step after this one
        flags = torch.tensor([stop, save and self.first], dtype=torch.uint8)
        self._pending = distributed.all_reduce(flags, distributed.ReduceOp.MAX, self._flags, async_op=True), flags
        return agreed

    def _heard(self) -> tuple[bool, bool]:
        """Return what was agreed on after the last step; nothing after the first."""
        if self._pending is None:
            return False, False
        work, flags = self._pending
        self._pending = None
        work.wait()
        stop, save = flags.tolist()
        return bool(stop), bool(save)

    def wait(self) -> None:
        """Return when every rank has come here."""
        self._flag(0)

    def _flag(self, value: int) -> int:
        flag = torch.tensor(value)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX, self._flags)
        return int(flag)

    def require_equal(self, tensors: Mapping[str, Tensor], what: str) -> None:
        """Compare a checksum of each tensor; see `Ranks.require_equal`."""
        if not tensors:
            return
        sums = torch.stack([_checksum(tensor) for tensor in tensors.values()]).cpu()
        extremes = torch.stack([sums, -sums])
        distributed.all_reduce(extremes, distributed.ReduceOp.MAX, self._flags)
        differing = (extremes[0] != -extremes[1]).nonzero()
        if len(differing):
            raise TrainingError(
                f"the {self.size} processes of this run do not hold the same {what}: "
                f"{list(tensors)[int(differing[0])]} differs. A method of your own must draw its random numbers from "
                "learner.generator; otherwise set compare.gpus_per_run=1, and the run continues from its last state"
            )

    def close(self) -> None:
        """Wait for the last message, which nobody reads."""
        self._heard()


def _buffers_are_equal() -> dict[str, bool]:
    """Return the option of DistributedDataParallel by which it leaves buffers alone; its name changed in torch 2.13."""
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    return {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}


def _checksum(tensor: Tensor) -> Tensor:
    """Return a sum over a tensor's bits, int64, below 2^62 in size so that it can be negated."""
    flat = tensor.detach().contiguous().flatten()
    size = flat.element_size()
    bits = flat.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[size])
    places = torch.arange(1, len(bits) + 1, device=bits.device) % 8191 + 1  # so that an exchange of two values is seen
    return (bits.long() * places).sum() >> 2


_joined: Ranks = ALONE


def joined() -> Ranks:
    """Return the ranks that this process has joined; ALONE outside of `joining`."""
    return _joined


@contextmanager
def joining(
    device: torch.device, store: Path, rank: int, size: int, backend: str | None = None
) -> Iterator[JoinedRanks]:
    """Train together with other processes of this machine within the block.

    store: a file, the same for all, that does not exist yet; the ranks find each other in it, so that no port is open
    to others. backend: None for NCCL on CUDA, gloo elsewhere. gloo's sockets are on the interface that the environment
    variable GLOO_SOCKET_IFNAME names (`loopback_environment`). After an exception the other ranks are left to find out.
    """
    global _joined
    backend = backend or ("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    files = distributed.FileStore(str(store), size)
    distributed.init_process_group(backend, store=files, rank=rank, world_size=size, timeout=PATIENCE)
    ranks = JoinedRanks(distributed.new_group(backend="gloo", timeout=PATIENCE), device)
    _joined = ranks
    try:
        yield ranks
        ranks.close()
        distributed.destroy_process_group()  # not after an exception: it may wait for a rank that is lost
    finally:
        _joined = ALONE


def loopback_environment(interfaces: Callable[[], list[tuple[int, str]]] | None = None) -> dict[str, str]:
    """Return environment variables by which gloo and NCCL open sockets on the loopback interface alone."""
    import socket

    names = [name for _, name in (interfaces or socket.if_nameindex)()]
    loopback = next((name for name in ("lo", "lo0") if name in names), None)
    return {f"{kind}_SOCKET_IFNAME": loopback for kind in ("GLOO", "NCCL")} if loopback else {}
