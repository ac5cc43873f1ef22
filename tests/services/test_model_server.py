"""The model server: it answers, refuses what is no image, follows the champion, and never mixes two models."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import uvicorn

from dash_core.errors import ConfigError, DashError
from flows.services import champion as champion_module
from flows.services import model_server
from flows.services.champion import Champion, NoChampion, Pointer
from flows.services.model_server import application
from tests.exporting.models import NAMES, exported
from tests.services.serving import MODELS, Clients, ask, in_memory, png, point, weights_of

ROOT = Path(__file__).parents[2]
FIRST, SECOND, THIRD = MODELS


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A stream's folder whose first model is the champion; models are opened in memory."""
    monkeypatch.setattr(champion_module, "open_export", lambda path: in_memory(path.parent.name))
    point(tmp_path, FIRST)
    return tmp_path


@contextlib.contextmanager
def serving(champion):
    """Serve a champion on a free port of this process; give its address."""
    server = uvicorn.Server(uvicorn.Config(application(champion), port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def test_an_image_gets_its_class_and_the_name_of_the_model(folder):
    with serving(Champion(folder)) as base:
        status, content = ask(base, "/predict", png())
        answer = json.loads(content)
        assert (status, answer["stream"], answer["model"]) == (200, "demo", FIRST)
        assert list(answer["probabilities"]) == list(NAMES)
        assert answer["class"] == max(answer["probabilities"], key=answer["probabilities"].get)
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        status, content = ask(base, "/version")
        version = json.loads(content)
        assert (version["model"], version["weights_sha256"], version["refused"]) == (FIRST, weights_of(FIRST), None)
        assert [ask(base, path)[0] for path in ("/", "/health", "/ready", "/docs")] == [200, 200, 200, 404]


def test_what_is_no_image_gets_a_clear_refusal(folder, monkeypatch):
    monkeypatch.setattr(model_server, "LARGEST_BODY", 2**20)
    whole = png()
    bodies = {
        (400, "the body is empty; send an image file: curl --data-binary @photo.jpg"): (b"", {}),
        (413, "the body has more than 1 MiB; send a smaller image"): (b"x" * (2**20 + 1), {}),
        (415, "send the image file itself as the body, not application/json: curl --data-binary @photo.jpg"): (
            b"[[0]]",
            {"Content-Type": "application/json; charset=utf-8"},
        ),
        (422, "the body is no image that can be read; send an image file, for example a JPEG"): (whole[:99], {}),
    }
    with serving(Champion(folder)) as base:
        for (status, reason), (body, headers) in bodies.items():
            found, content = ask(base, "/predict", body, **headers)
            assert (found, json.loads(content)) == (status, {"error": reason})
        assert ask(base, "/predict")[0] == 405
        assert ask(base, "/predict", whole)[0] == 200


def test_a_decompression_bomb_is_refused(folder, monkeypatch):
    monkeypatch.setattr("dash_core.data.image_file.LARGEST", 1000)
    with serving(Champion(folder)) as base:
        status, content = ask(base, "/predict", png())
    assert (status, b"decompression bomb" in content) == (422, True)


def test_twenty_swaps_under_load_fail_no_request_and_mix_no_models(folder):
    champion, body = Champion(folder, say=lambda message: None), png()
    with serving(champion) as base:
        expected = {}
        for number, model_id in enumerate(MODELS):
            point(folder, model_id, release=number)
            champion.look()
            expected[model_id] = ask(base, "/predict", body)
        with Clients(base, body) as clients:
            for number in range(20):
                point(folder, list(MODELS)[number % 3], release=number)
                assert champion.look()
                time.sleep(0.02)
    assert {json.loads(content)["model"] for _, content in expected.values()} == set(MODELS)
    assert len({content for _, content in expected.values()}) == 3
    assert set(clients.answers) <= set(expected.values())
    assert sum(clients.answers.values()) >= 20


def test_a_rollback_opens_nothing_and_answers_as_before(folder, monkeypatch):
    champion, image = Champion(folder, say=lambda message: None), png()
    before = model_server.answer(champion.current, image)
    point(folder, SECOND, release=2)
    assert champion.look()
    monkeypatch.setattr(champion_module, "open_export", None)  # would fail
    point(folder, FIRST, release=3)
    assert champion.look()
    assert model_server.answer(champion.current, image) == before
    assert (champion.current.pointer.release, champion.previous.pointer.model) == (3, SECOND)


def test_a_model_that_fails_its_checks_is_refused_once_and_the_old_one_answers_on(folder, monkeypatch):
    said, opened = [], []
    champion = Champion(folder, say=said.append)

    def fail(path):
        opened.append(path)
        raise DashError("it answers its golden images otherwise")

    monkeypatch.setattr(champion_module, "open_export", fail)
    point(folder, SECOND, release=2)
    assert [champion.look(), champion.look()] == [False, False]
    assert (champion.current.pointer.model, len(opened)) == (FIRST, 1)
    assert said == [f"model {SECOND} is refused: it answers its golden images otherwise; model {FIRST} answers on"]
    monkeypatch.setattr(champion_module, "open_export", lambda path: in_memory(path.parent.name))
    point(folder, THIRD, release=3)
    assert champion.look()
    assert champion.refusal is None


def test_other_weights_than_the_pointer_names_are_refused(folder):
    champion = Champion(folder, say=lambda message: None)
    point(folder, SECOND, release=2, weights_sha256="00")
    assert not champion.look()
    assert "the export is of other weights" in champion.refusal


@pytest.mark.parametrize(
    "content", ["", "[]", '{"model": "x"}', '{"stream": "s", "model": "../x", "weights_sha256": "0", "release": 1}']
)
def test_a_damaged_pointer_keeps_the_model(folder, content):
    champion = Champion(folder, say=lambda message: None)
    (folder / "champion.json").write_text(content)
    assert not champion.look()
    assert "is damaged" in champion.refusal
    assert champion.current.pointer == Pointer("demo", FIRST, weights_of(FIRST), 1)


def test_a_stream_without_a_champion_and_a_taken_port_are_errors(folder, tmp_path_factory):
    with pytest.raises(NoChampion, match="has no champion yet"):
        Champion(tmp_path_factory.mktemp("empty"))
    with serving(Champion(folder)) as base, pytest.raises(ConfigError, match="cannot be used: Address already in use"):
        model_server.serve(folder, port=int(base.rpartition(":")[2]), say=lambda message: None)


def test_the_address_takes_requests_as_soon_as_it_is_said(folder):
    reached = []

    def connect(line):
        port = int(re.search(r":(\d+)/predict", line).group(1))
        socket.create_connection((model_server.HOST, port), timeout=10).close()
        reached.append(port)
        raise KeyboardInterrupt

    model_server.serve(folder, port=0, say=connect)
    assert len(reached) == 1


SERVE = """
import sys
from pathlib import Path
from flows.services.model_server import serve
serve(Path(sys.argv[1]), port=0)
"""


@pytest.mark.slow
def test_the_server_follows_the_champion_through_twenty_swaps_under_load(tmp_path):
    for model_id, seed in MODELS.items():
        exported(tmp_path / "models" / model_id / "export", seed, weights_sha256=weights_of(model_id))
    point(tmp_path, FIRST)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SERVE, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            base = re.search(r"http://[\d.:]+", server.stdout.readline()).group()
            body = png()

            def swap(model_id, release):
                point(tmp_path, model_id, release)
                end = time.monotonic() + 60
                while json.loads(ask(base, "/version")[1])["release"] != release:
                    assert time.monotonic() < end
                    time.sleep(0.05)

            expected = set()
            for number, model_id in enumerate([SECOND, THIRD, FIRST]):
                swap(model_id, 2 + number)
                expected.add(ask(base, "/predict", body))
            memory = psutil.Process(server.pid).memory_info().rss
            with Clients(base, body) as clients:
                for number in range(20):
                    swap(list(MODELS)[number % 3], 10 + number)
                damaged = tmp_path / "models" / ("d4" * 6)
                shutil.copytree(tmp_path / "models" / FIRST, damaged)
                (damaged / "export" / "model.pt2").write_bytes(b"no model")
                point(tmp_path, "d4" * 6, 99)
                end = time.monotonic() + 60
                while not json.loads(ask(base, "/version")[1])["refused"]:
                    assert time.monotonic() < end
                    time.sleep(0.05)
            assert set(clients.answers) == expected
            assert json.loads(ask(base, "/predict", body)[1])["model"] == list(MODELS)[19 % 3]
            assert psutil.Process(server.pid).memory_info().rss < memory + 200 * 2**20
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0


def test_an_answer_does_not_depend_on_who_resizes_the_image(folder):
    served = Champion(folder).current
    pixels = np.random.default_rng(3).integers(0, 256, (40, 30), dtype=np.uint8)
    expected = served.exported.predict(pixels[None, :, :, None])[0]
    found = model_server.answer(served, png(seed=3))["probabilities"]
    assert list(found.values()) == pytest.approx(expected.tolist(), abs=1e-6)
