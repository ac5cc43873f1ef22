"""The device a run trains on, set up so that equal runs give equal bits, and what it is."""

import os
import platform
from typing import Any

import torch

from dash_core.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """Return the device called auto, cpu, cuda or cuda:N; ConfigError if this machine has no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"compare.device: {name} is not here; torch sees {torch.cuda.device_count()} CUDA device(s)")
    return device


def prepare_device(device: torch.device, threads: int) -> None:
    """Set this process's threads and exact, repeatable kernels: fp32 without TF32, cuDNN deterministic."""
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def describe_machine(device: torch.device, threads: int) -> dict[str, Any]:
    """Return hardware, versions and the threads of a run, for the records: a number never travels alone."""
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
    """Return the processor's name as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
