"""The arithmetic of a training step. DASH's gradient and the evaluation are always exact."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["exact", "bf16"]
BF16_MIN_FLOPS = 1_000_000  # an image's forward pass; in smaller models the casts cost more than bf16 saves


def resolve_precision(
    asked: Literal["auto", "exact", "bf16"], device: torch.device, flops: int, bf16: bool | None = None
) -> Precision:
    """Return the precision on a device of a model whose forward pass takes so many FLOPs an image.

    "auto" is bf16 if the hardware has instructions for it and the model is large enough to gain from them, else exact.
    bf16: whether the hardware counts as having them, the same on all machines of a cluster; None: the device is asked.
    """
    if asked != "auto":
        return asked
    return "bf16" if flops >= BF16_MIN_FLOPS and (has_bf16(device) if bf16 is None else bf16) else "exact"


def has_bf16(device: torch.device) -> bool:
    """Tell whether a device has instructions for bf16 products: tensor cores, AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    known = torch.cpu.get_capabilities()
    return bool(known.get("amx_bf16") or known.get("avx512_bf16"))


def arithmetic(precision: Precision, device: torch.device) -> AbstractContextManager:
    """Return a context for a forward pass: fp32, or bf16 with fp32 weights, sums and losses (torch's autocast)."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
