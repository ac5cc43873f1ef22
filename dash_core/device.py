"""The device that a run trains on: how it is chosen, set up so that equal runs give equal bits, and described."""

import ctypes
import math
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from dash_core.errors import ConfigError

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's malloc.h
CGROUPS = Path("/sys/fs/cgroup")  # where Linux mounts control groups, and containers too
OWN_CGROUPS = Path("/proc/self/cgroup")  # a line for each hierarchy: number:controllers:path


def choose_device(name: str) -> torch.device:
    """Return the device called auto, cpu, cuda or cuda:N; ConfigError if this machine has no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"compare.device: {name} is not here; torch sees {torch.cuda.device_count()} CUDA device(s)")
    return device


def usable_cores() -> int:
    """Return how many cores this process may use: those it may run on, or a container's quota of CPU time, rounded up.

    Python's own count knows no quota: in a container of two cores on a host of 64 it would be 64.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, _cpu_quotas())]))


def _cpu_quotas() -> Iterator[float]:
    """Yield the CPU quota, in cores, of each control group that this process is in (Linux, versions 1 and 2)."""
    for folder in _own_cgroups():
        try:
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if quota != "max" and float(quota) > 0:  # version 1 writes -1 for no quota
                yield float(quota) / float(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue


def _own_cgroups() -> Iterator[Path]:
    """Yield the folders of this process's control groups and of those around them; in a container, the mounted root."""
    try:
        lines = [line.split(":", 2) for line in OWN_CGROUPS.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in (parts for parts in lines if len(parts) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CGROUPS / "cpu" if controllers else CGROUPS
        own = root / path.strip("/")
        yield root
        yield from (folder for folder in (own, *own.parents) if root in folder.parents)


def visible_gpus(name: str, together: int = 1) -> list[str]:
    """Return the GPUs over which runs on the device `name` are spread, as CUDA_VISIBLE_DEVICES names them.

    together: GPUs of one run; each entry then names so many, and GPUs that are left over are not used. The list is
    empty on a CPU, and if `name` gives one GPU by its number.
    """
    if name not in ("auto", "cuda") or not torch.cuda.is_available():
        return []
    listed = [part for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    gpus = listed or [str(number) for number in range(torch.cuda.device_count())]
    return [",".join(gpus[first : first + together]) for first in range(0, len(gpus) - together + 1, together)]


def prepare_device(device: torch.device, threads: int) -> None:
    """Set the threads of this process, and exact, repeatable kernels: fp32 without TF32, deterministic cuDNN."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next allocation; other C libraries are left as they are.

    glibc returns large tensors to the system at once, and the system clears each page again for the next step, which
    takes a quarter of a CNN's training time on the CPU. `give_back_freed_memory` returns all freed memory.
    """
    if library := _glibc():
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Return freed memory to the system, so that the resident set is the memory in use."""
    if library := _glibc():
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """Return the C library if it is glibc, the only one with these calls."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def describe_machine(device: torch.device, threads: int) -> dict[str, Any]:
    """Return the hardware, the versions and the threads of a run, which are recorded with its result."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "device_type": device.type,
        "threads": threads,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(terse=True),
    }


def cpu_name() -> str:
    """Return the processor's name as the system reports it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
