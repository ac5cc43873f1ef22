"""Numbers are right on other processors too, as far as this one can pretend to be one of them."""

import os

import pytest
import torch

from tests.instruction_sets import CORE, SETS, InstructionSet, run_tests


@pytest.mark.parametrize("chosen", SETS, ids=lambda chosen: chosen.name)
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
