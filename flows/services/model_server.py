"""Serve a stream's champion on this machine: POST an image, get its class and the probabilities of all classes."""

import asyncio
import io
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dash_core.data.image_file import DamagedImage, decode
from dash_core.device import usable_cores
from dash_core.errors import ConfigError, DataError
from flows.services.champion import Champion, ServedModel
from tasks.store.stopping import ended_by

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

HOST = "127.0.0.1"
LARGEST_BODY = 32 * 2**20  # bytes of one image file
DISCARDED_BODY = 4 * LARGEST_BODY  # bytes that are read of a larger one, so that its client hears the reason
BODY_SECONDS = 30.0  # for a request's body to arrive
WAITING_REQUESTS = 256  # that are taken at once; more are refused with 503
NO_IMAGE = "the body is no image that can be read; send an image file, for example a JPEG"
USAGE = """POST an image file as the body, and get its class:
    curl --data-binary @photo.jpg {address}/predict
GET /version names the model, GET /ready and GET /health say whether it answers.
"""


class _Refused(Exception):
    """A request that cannot be answered: the status and what the client should change."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class _Body(io.BytesIO):
    """A request's body, which errors call by a name."""

    def __str__(self) -> str:
        return "the body"


def serve(folder: Path, port: int = 8000, say: Callable[[str], None] = print) -> None:
    """Serve the champion of a stream's folder until Ctrl-C or SIGTERM, and follow it. Port 0 takes any free one.

    DashError if the stream has no champion or if it fails its checks; ConfigError if the port is taken.
    """
    import uvicorn

    champion = Champion(Path(folder), say)
    with _listening(port) as listener, ended_by(signal.SIGTERM, signal.SIGINT):
        address = f"http://{HOST}:{listener.getsockname()[1]}"
        say(f"serving model {champion.current.pointer.model} at {address}/predict   (Ctrl-C ends it)")
        champion.follow()
        try:
            config = uvicorn.Config(
                application(champion, address),
                log_level="warning",
                access_log=False,
                lifespan="off",
                limit_concurrency=WAITING_REQUESTS,
                timeout_graceful_shutdown=10,
            )
            uvicorn.Server(config).run(sockets=[listener])  # answers what it was asked, then raises the signal again
        finally:
            champion.stop()


def application(champion: Champion, address: str = f"http://{HOST}:8000") -> "FastAPI":
    """Return the application that answers with a champion's model. address: shown in its help."""
    from fastapi import FastAPI, Request
    from fastapi.concurrency import run_in_threadpool
    from fastapi.responses import JSONResponse, PlainTextResponse
    from starlette.requests import ClientDisconnect

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)  # its pages would load scripts from elsewhere
    turns = asyncio.Semaphore(usable_cores())  # decoding takes memory: no more images at once than cores

    @app.get("/")
    async def usage() -> PlainTextResponse:
        return PlainTextResponse(USAGE.format(address=address))

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, Any]:
        return {"status": "ok", "model": champion.current.pointer.model}

    @app.get("/version")
    async def version() -> dict[str, Any]:
        return _version(champion)

    async def predict(request: Request) -> JSONResponse:
        try:
            body = await _body(request)
            async with turns:
                return JSONResponse(await run_in_threadpool(answer, champion.current, body))
        except _Refused as refused:
            return JSONResponse({"error": refused.reason}, refused.status)
        except ClientDisconnect:  # nobody is left to read this
            return JSONResponse({"error": "the body broke off"}, 400)

    app.post("/predict")(predict)
    return app


def answer(served: ServedModel, body: bytes) -> dict[str, Any]:
    """Return the answer to one image file. It names the model, and equal images get equal answers from it."""
    card = served.exported.card
    channels, height, width = card.image_shape
    size = height if height == width else None  # Pillow and the graph resize alike, and Pillow needs less memory
    try:
        pixels = decode(_Body(body), channels == 1, size, card.background)
    except DamagedImage:
        raise _Refused(422, NO_IMAGE) from None
    except DataError as error:
        raise _Refused(422, str(error)) from None
    probabilities = served.exported.predict(pixels[None].copy())[0].tolist()
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    return {
        "class": card.class_names[best],
        "probability": probabilities[best],
        "probabilities": dict(zip(card.class_names, probabilities, strict=True)),
        "stream": served.pointer.stream,
        "model": served.pointer.model,
    }


async def _body(request: "Request") -> bytes:
    """Return a request's body; _Refused if it is of another kind, empty, too large or too slow."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("multipart/") or kind == "application/json":
        raise _Refused(415, f"send the image file itself as the body, not {kind}: curl --data-binary @photo.jpg")
    length, received, body = request.headers.get("content-length", "0"), 0, bytearray()
    too_large = _Refused(413, f"the body has more than {LARGEST_BODY // 2**20} MiB; send a smaller image")
    if length.isdecimal() and int(length) > DISCARDED_BODY:
        raise too_large
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                received += len(part)
                if received > DISCARDED_BODY:
                    break
                if received <= LARGEST_BODY:
                    body += part
    except TimeoutError:
        raise _Refused(408, f"the body did not arrive within {BODY_SECONDS:g} s") from None
    if received > LARGEST_BODY:
        raise too_large
    if not body:
        raise _Refused(400, "the body is empty; send an image file: curl --data-binary @photo.jpg")
    return bytes(body)


def _version(champion: Champion) -> dict[str, Any]:
    served, before = champion.current, champion.previous
    return {
        "stream": served.pointer.stream,
        "model": served.pointer.model,
        "release": served.pointer.release,
        "weights_sha256": served.pointer.weights_sha256,
        "classes": list(served.exported.card.class_names),
        "since": served.since,
        "previous": before.pointer.model if before else None,
        "refused": champion.refusal,
    }


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    """Lend a socket that listens on the port; ConfigError if it cannot be had.

    Who reads the address may ask at once: the system keeps the request until the server has started.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
        try:
            listener.bind((HOST, port))
            listener.listen()
        except OSError as error:
            raise ConfigError(
                f"port {port} of {HOST} cannot be used: {error.strerror}; choose another with --port, "
                "or --port 0 for a free one"
            ) from None
        yield listener
