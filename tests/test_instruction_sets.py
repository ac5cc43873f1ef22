"""Numbers are right on other processors too, as far as this one can pretend to be one of them."""

import os

import pytest
import torch

from tests.instruction_sets import CORE, SETS, InstructionSet, run_tests

ALWAYS = ("AVX2", "AVX-512")  # the sets of most machines; .ci/run has them all, with all the marked tests


@pytest.mark.parametrize(
    "chosen",
    [pytest.param(each, marks=[] if each.name in ALWAYS else [pytest.mark.slow], id=each.name) for each in SETS],
)
def test_convolutions_golden_tensors_and_optimisers_under_another_instruction_set(chosen: InstructionSet):
    """All other marked tests are run under each set by .ci/run."""
    if not chosen.is_here():
        pytest.skip(f"this processor has no {chosen.needs}")
    done = run_tests(chosen, "-n", "0", *CORE, f"{__file__}::{test_torch_computes_as_it_is_told.__name__}")
    assert done.returncode == 0, done.stdout


@pytest.mark.processor
def test_torch_computes_as_it_is_told():
    has = torch.backends.cpu.get_cpu_capability()
    assert os.environ.get("ATEN_CPU_CAPABILITY", has).upper() == has
