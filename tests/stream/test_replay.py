"""What `stream replay` asks the bench for."""

from safetensors.torch import save_file

from dash_core.models import build_model
from flows.command_line.stream import _as_overrides
from tasks.store.stream.creating import begin, contract_for, first_delivery
from tests import toy
from tests.stream import small


def test_a_stream_that_began_with_given_weights_is_replayed_from_its_own_copy_of_them(tmp_path, monkeypatch):
    given = tmp_path / "given.safetensors"
    save_file(build_model("cnn3_small", (1, 8, 8), small.CLASSES, seed=0).state_dict(), given)
    params = toy.params(model={"name": "cnn3_small", "weights": str(given)})
    first = first_delivery(small.deliver(tmp_path / "first", 8, seed=0))
    contract = contract_for(first, params, "dash", {"salt": "salt"}, {"gate": {"margin": 0.2}})
    stream, _ = begin(tmp_path, "toy", contract, {}, params.model.weights)
    given.unlink()
    monkeypatch.chdir(tmp_path)
    _, state = stream.read()
    overrides = dict(pair.split("=", 1) for pair in _as_overrides(stream, state, ["cold", "dash"]))
    copy = stream.path / "initial-weights.safetensors"
    assert copy.is_file()
    assert overrides["model.weights"] == str(copy)
    assert overrides["model.weights_sha256"] == contract.model.weights_sha256
