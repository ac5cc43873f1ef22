"""The private Prefect server's own process: it lives as long as its parent holds the other end of stdin.

Run by path, not as a module, and knows nothing of the project: `python -P prefect_process.py STORE [PORT]`. It only
imports, which takes seconds, and touches nothing until it reads the word "serve": then it prints the port it listens
on, any free one unless it is given, and serves. At the word "stop" it first records what has reached it. When stdin
closes without a word the parent is gone, however it died.
"""

import asyncio
import contextlib
import gc
import os
import socket
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

DATABASE = "prefect.db"
LOG = "prefect-server.log"
SCHEMA = Path(__file__).with_name("prefect_schema.sql")
BUSY = 60.0  # seconds in which a database that another server writes to is tried again
PATIENCE = {"stop": 20.0, "": 2.0}  # seconds left for recording, by the last word of the parent
SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_API_BASE_PATH": "/api",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    # recorded in batches: one transaction a task run is too slow for a comparison
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    # nothing is scheduled, watched or streamed here, and the event feed would cost as much as the rest together
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_EVENTS_STREAM_OUT_ENABLED": "false",
    "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "false",
}


def main(store: Path, port: int = 0) -> int:
    """Import, then serve once told to, until told to stop or the parent is gone; return the exit code."""
    os.environ.update(SETTINGS, PREFECT_API_DATABASE_CONNECTION_URL=f"sqlite+aiosqlite:///{store / DATABASE}")
    os.environ.pop("PREFECT_API_URL", None)
    opened: SimpleQueue[socket.socket] = SimpleQueue()
    threading.Thread(target=_open_when_told, args=(store, port, opened), name="opener", daemon=True).start()
    gc.disable()  # imports make much that stays, and each look at it all takes long
    with contextlib.suppress(Exception):
        import prefect.server.api.server  # noqa: F401  (what fails here fails again, and is logged, in _serve)
        import uvicorn  # noqa: F401
    gc.freeze()
    gc.enable()
    return asyncio.run(_serve(opened.get()))


def _open_when_told(store: Path, port: int, opened: "SimpleQueue[socket.socket]") -> None:
    """Wait for the word "serve"; then hand over a socket that listens, its port printed, over a database that is."""
    if sys.stdin.readline().strip() != "serve":
        os._exit(0)
    try:
        with (store / LOG).open("ab", buffering=0) as log:
            os.dup2(log.fileno(), 2)
            listener = socket.create_server(("127.0.0.1", port), backlog=2048)
            print(listener.getsockname()[1], flush=True)
            os.dup2(log.fileno(), 1)  # the parent's pipe ends here
        create_database(store / DATABASE)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    opened.put(listener)


def create_database(path: Path) -> None:
    """Write a new database from the stored schema; Prefect's own migrations take seconds for the same result.

    The schema carries its revision, so that a newer Prefect migrates it further. Two servers may get here at once:
    the file appears whole, and the first one stays.
    """
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with contextlib.closing(sqlite3.connect(draft)) as database:
            database.executescript("PRAGMA synchronous = OFF;\n" + SCHEMA.read_text(encoding="utf-8"))
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    except (sqlite3.Error, OSError) as error:
        print(f"the database is created by migrations, since the stored schema failed: {error}", file=sys.stderr)
    finally:
        draft.unlink(missing_ok=True)


async def _serve(listener: socket.socket) -> int:
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.server.services import task_run_recorder

    told = _words_of_the_parent()
    task_run_recorder.record_bulk_task_run_events = finished_once_begun(task_run_recorder.record_bulk_task_run_events)
    app = create_app(ephemeral=True, final=True)
    config = uvicorn.Config(
        _retried_soon(app),
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=2,
        ws_ping_interval=None,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await asyncio.wait([serving, told], return_when=asyncio.FIRST_COMPLETED)
    if told.done():
        await _everything_recorded(PATIENCE[told.result()])
        server.should_exit = True
    await serving
    return 0 if server.started else 3


def finished_once_begun(record: Callable) -> Callable:
    """Return the recording of a batch of events such that a stop of the server waits for it, and stops then.

    Prefect cancels it in mid-transaction: it rolls back, logs a traceback, and records the same batch again.
    """

    async def recorded(events: list) -> None:
        work = asyncio.ensure_future(record(events))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await work  # raises again if it was the work itself that was cancelled
            asyncio.current_task().cancel()

    return recorded


def _retried_soon(app: Callable) -> Callable:
    """Return the ASGI app with a short Retry-After on each 503: two writers met in SQLite, which takes milliseconds.

    Without the header Prefect's client backs off for 2, 4, 8 seconds, and a whole run waits with it. Where the server
    of another command writes to the same database it takes longer: for BUSY seconds after the last change that went
    through, the client is told not to count its tries, of which it has five.
    """
    changed = time.monotonic()

    async def serve(scope: dict, receive: Callable, send: Callable) -> None:
        async def send_with_header(message: dict) -> None:
            nonlocal changed
            if message["type"] == "http.response.start" and message["status"] == 503:
                patient = [(b"prefect-maintenance", b"true")] * (time.monotonic() - changed < BUSY)
                message = {**message, "headers": [*message["headers"], (b"retry-after", b"0.1"), *patient]}
            elif message["type"] == "http.response.start" and scope["method"] != "GET":
                changed = time.monotonic()
            await send(message)

        await app(scope, receive, send_with_header)

    return serve


def _words_of_the_parent() -> "asyncio.Future[str]":
    """Return a future of the last word read from stdin before it closed; a daemon thread waits for it."""
    loop = asyncio.get_running_loop()
    told = loop.create_future()

    def wait() -> None:
        word = sys.stdin.readline().strip()
        with contextlib.suppress(RuntimeError):  # the loop may be closed by a signal
            loop.call_soon_threadsafe(lambda: told.done() or told.set_result(word if word in PATIENCE else ""))

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()
    return told


async def _everything_recorded(patience: float) -> None:
    """Wait until every event that has arrived was taken up; what then remains is written when the services stop."""
    from prefect.server.utilities.messaging.memory import METRICS

    deadline = time.monotonic() + patience
    calm = 0
    while calm < 3 and time.monotonic() < deadline:
        waiting = any(topic["published"] > topic["consumed"] for topic in METRICS.values())
        calm = 0 if waiting else calm + 1
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    code = main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    sys.stderr.flush()
    os._exit(code)  # all is written: taking the interpreter apart would cost another second
