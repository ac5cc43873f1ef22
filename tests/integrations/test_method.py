"""A method by name, as all callbacks take it: wrong names, parameters and values are errors at once."""

import subprocess
import sys

import pytest
import torch

from dash_core.integrations.method import Method, moved, number_of_examples, require_chunks


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("dahs", {}, "unknown method 'dahs'; known: dash, shrink_perturb, shrink"),
        ("dash", {"flor": 0.3}, "dash has no parameter 'flor'; it has alpha, floor, cutoff, mode, vectors"),
        ("dash", {"floor": 1.3}, r"floor must be in \[0, 1\], got 1.3"),
        ("dash", {"alpha": 0}, r"alpha must be in \(0, 1\], got 0"),
        ("dash", {"mode": "test"}, "mode must be 'eval' or 'train', got 'test'"),
        ("shrink_perturb", {"sigma": -1}, "sigma must be >= 0, got -1"),
        ("shrink_perturb", {"factor": 0.3}, "has no parameter 'factor'; it has shrink, sigma, vectors, seed"),
        ("shrink", {}, "shrink needs factor="),
    ],
)
def test_a_wrong_method_is_refused_when_the_callback_is_made(name, parameters, words):
    random = torch.get_rng_state()
    with pytest.raises(ValueError, match=words):
        Method(name, parameters)
    assert torch.equal(torch.get_rng_state(), random)


def test_chunks_are_for_dash_and_for_no_other_method():
    with pytest.raises(ValueError, match=r"dash needs chunks=\[old_loader, ..., new_loader\], oldest first"):
        require_chunks(Method("dash", {}), None)
    with pytest.raises(ValueError, match="shrink looks at no data: leave chunks= away"):
        require_chunks(Method("shrink", {"factor": 0.3}), [[]])


def test_a_batch_of_any_form_is_counted_and_moved():
    batch = {"name": "a", "pair": [torch.tensor(1), torch.zeros(5, 2)], "other": (torch.zeros(3),)}
    assert number_of_examples(batch) == 5
    copy = moved(batch, torch.device("meta"))
    assert [copy["name"], type(copy["pair"]), type(copy["other"])] == ["a", list, tuple]
    assert copy["pair"][1].is_meta
    with pytest.raises(ValueError, match="give size=, batch → number"):
        number_of_examples({"name": "a"})


MISSING = """
import sys
sys.modules[{library!r}] = None
try:
    import dash_core.integrations.{name}
except ModuleNotFoundError as error:
    print(error)
"""


@pytest.mark.parametrize(("name", "library"), [("lightning", "lightning.pytorch"), ("skorch", "skorch")])
def test_without_its_library_a_callback_names_the_extra(name, library):
    code = MISSING.format(name=name, library=library)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert f"pip install 'dashpipe[{name}]'" in done.stdout
