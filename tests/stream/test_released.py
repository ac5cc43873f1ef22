"""From deliveries to what is served, shown and registered: the real parts together."""

import json
import os
import re
import signal
import subprocess
import urllib.request

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
from tests.system.shell import PROGRAM, free_port, within

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
    served = served_by_mlflow("models:/toy@champion", tracking_uri(tmp_path), raw, tmp_path / "serve.log")
    np.testing.assert_allclose(served, scorer.predict(raw), atol=1e-6)


def served_by_mlflow(model, uri, images, log):
    """Return what `mlflow models serve` answers for images."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [PROGRAM.with_name("mlflow"), "models", "serve", "-m", model, "--env-manager", "local", "-p", str(port)]
    environ = {**os.environ, "MLFLOW_TRACKING_URI": uri, "PATH": f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"}
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environ, stdout=file, stderr=file, start_new_session=True)
    try:
        assert within(120, lambda: answers(url)), log.read_text()
        body = json.dumps({"inputs": images.tolist()}).encode()
        request = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return np.array(json.loads(answer.read())["predictions"])
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url):
    try:
        with urllib.request.urlopen(f"{url}/ping", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
