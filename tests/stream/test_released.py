"""From deliveries to what is served, shown and registered: the real parts together."""

import json
import re

import mlflow
import numpy as np
import pytest

from dash_core.views.stream_report import write_stream_report
from flows.services.champion import Champion
from flows.services.model_server import answer
from tasks.tracking.address import tracking_uri
from tasks.tracking.client import client_of
from tasks.tracking.stream_mirror import mirror_stream
from tests.stream.small import create, deliver, pixels, place, run

pytestmark = pytest.mark.slow


def test_what_is_released_is_served_shown_and_registered(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    stream = create(tmp_path, images=240)
    _, before = stream.read()
    champion = Champion(stream.path, say=lambda message: None)
    assert champion.current.pointer.model == before.champion
    deliver(tmp_path / "inbox" / "monday", 80, seed=1)
    run(stream)
    _, state = stream.read()
    assert len(state.models) == 2
    champion.look()
    assert champion.current.pointer.model == state.champion
    body = (stream.path.parents[1] / "inbox" / "monday" / "class 1").glob("*.png").__next__().read_bytes()
    found = answer(champion.current, body)
    assert (found["stream"], found["model"]) == ("toy", state.champion)
    assert set(found["probabilities"]) == {f"class {number}" for number in range(4)}

    text = write_stream_report(state, stream.path).read_text()
    assert re.search(rf"Model {state.champion} is served since", text)
    assert "monday" in text

    here = place(tmp_path)
    outcome = mirror_stream(state, stream.path, here, always=True)
    assert outcome.complete, (outcome.conflicts, outcome.problems)
    aliases = client_of(tracking_uri(tmp_path)).get_registered_model("toy").aliases
    assert int(aliases["champion"]) == outcome.versions[state.champion]
    mlflow.set_tracking_uri(tracking_uri(tmp_path))
    scorer = mlflow.pyfunc.load_model("models:/toy@champion")
    raw, _ = pixels(6, seed=5)
    np.testing.assert_allclose(scorer.predict(raw), champion.current.exported.predict(raw), atol=1e-6)
    golden = np.load(stream.path / "models" / state.champion / "export" / "golden.npz")
    card = json.loads((stream.path / "models" / state.champion / "export" / "model.json").read_text())
    assert card["facts"]["weights_sha256"] == state.models[state.champion].weights_sha256
    np.testing.assert_allclose(scorer.predict(golden["images"]), golden["probabilities"], atol=1e-4)
