"""Stream folders with models to serve, and clients that ask for answers."""

import io
import json
import threading
import urllib.error
import urllib.request

import numpy as np
from PIL import Image

from dash_core.exporting import ExportedModel, RawImageClassifier
from dash_core.files import write_atomically
from tests.exporting.models import card, model

MODELS = {"a1" * 6: 1, "b2" * 6: 2, "c3" * 6: 3}  # id: seed
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def weights_of(model_id):
    return model_id * 5


def point(folder, model_id, release=1, **changes):
    """Make a model the champion."""
    content = {"stream": "demo", "model": model_id, "weights_sha256": weights_of(model_id), "release": release}
    write_atomically(folder / "champion.json", json.dumps({**content, **changes}).encode())


def in_memory(model_id):
    """Return an opened model without the files of an export."""
    described = card(weights_sha256=weights_of(model_id))
    network = RawImageClassifier(model(MODELS[model_id]), described.image_shape, described.mean, described.std)
    return ExportedModel(described, model_id, network.eval())


def png(shape=(40, 30), seed=0):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def ask(base, path, body=None, **headers):
    """Return status and content of an answer."""
    request = urllib.request.Request(f"{base}{path}", data=body, headers=headers)
    try:
        with OPENER.open(request, timeout=60) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


class Clients:
    """Threads that ask for an image's class again and again, and keep every different answer with its count."""

    def __init__(self, base, body, threads=4):
        self.answers, self._lock, self._stop = {}, threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(base, body)) for _ in range(threads)]

    def _ask(self, base, body):
        while not self._stop.is_set():
            try:
                found = ask(base, "/predict", body)
            except OSError as error:
                found = (0, str(error).encode())
            with self._lock:
                self.answers[found] = self.answers.get(found, 0) + 1

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()
