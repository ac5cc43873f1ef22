"""The processor-dependent tests under every instruction set that this processor can pretend to be limited to.

`uv run python -m tests.instruction_sets` runs all tests with the marker `processor`, once for each set. Numbers are
made by three libraries, and each has a switch of its own: torch's kernels, oneDNN and MKL.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
CORE = (  # the tests that are quick enough for the normal suite, a few seconds in each set
    "tests/convolution/test_filtering.py",
    "tests/convolution/test_layer.py::test_filtered_outputs_and_gradients_are_those_of_torch_in_fp32",
    "tests/convolution/test_layer.py::test_outputs_can_be_changed_in_place",
    "tests/interventions/test_golden.py",
    "tests/test_optim.py",
)
SWITCHES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")


@dataclass(frozen=True)
class InstructionSet:
    """A limit for torch, oneDNN and MKL, and what the processor must have (a name of torch.cpu.get_capabilities)."""

    name: str
    needs: str
    torch: str
    onednn: str
    mkl: str

    def environment(self) -> dict[str, str]:
        """Return the variables that set the limit."""
        return dict(zip(SWITCHES, (self.torch, self.onednn, self.mkl), strict=True))

    def is_here(self) -> bool:
        """Tell whether this processor has the set."""
        return bool(torch.cpu.get_capabilities().get(self.needs))


SETS = (
    InstructionSet("SSE4", "sse4_2", "default", "SSE41", "SSE4_2"),
    InstructionSet("AVX2", "avx2", "avx2", "AVX2", "AVX2"),
    InstructionSet("AVX-512", "avx512_vnni", "avx512", "AVX512_CORE", "AVX512"),
    InstructionSet("AVX-512 with bf16", "avx512_bf16", "avx512", "AVX512_CORE_BF16", "AVX512"),
    InstructionSet("AMX", "amx_bf16", "avx512", "AVX512_CORE_AMX", "AVX512"),
)


def run_tests(chosen: InstructionSet, *arguments: str) -> subprocess.CompletedProcess:
    """Run the tests with the marker `processor` in a process that is limited to a set; outputs are captured."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "processor and not slow", "-p", "no:cacheprovider"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment | chosen.environment(), capture_output=True, text=True
    )


def main() -> None:
    print("set by set:", ", ".join(each.name if each.is_here() else f"{each.name} (not here)" for each in SETS))
    failed = []
    for each in filter(InstructionSet.is_here, SETS):
        started = time.monotonic()
        done = run_tests(each)
        summary = done.stdout.strip().splitlines()[-1:]
        print(each.name, each.environment(), *summary, f"in {time.monotonic() - started:.0f} s", flush=True)
        if done.returncode:
            failed.append(each.name)
            print(done.stdout, done.stderr, sep="\n", flush=True)
    if failed:
        sys.exit(f"tests fail under {', '.join(failed)}")


if __name__ == "__main__":
    main()
