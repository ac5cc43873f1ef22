"""The private Prefect server's own process: it ends when its parent closes the other end of stdin.

Run as a module: `python -P -m flows.services.prefect_process STORE [PORT]`. The first line on stdin is the secret that
clients must know (`prefect_access`). At first the process only imports, which takes seconds, and writes nothing to the
store. At the word "serve" it prints the port it listens on (PORT, by default any free one) and serves. At the word
"stop" it records all events that have reached it, then ends. When stdin closes without a word, the parent is gone,
however it died. No signal but a kill ends it: a signal to all processes of a job must not end the server before the
runs, which save their state then.
"""

import asyncio
import contextlib
import gc
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from flows.services.child import absolute_python_path
from flows.services.prefect_access import NO_ORIGIN, SERVER_AUTH, admit_own_clients
from flows.services.prefect_database import create_database, prepare_template
from flows.services.prefect_settings import PRIVATE_SETTINGS, QUIET_SETTINGS, without_settings
from tasks.store.sqlite_files import sqlite_url
from tasks.store.stopping import STOPPING_SIGNALS, ignore_signals

DATABASE_FILE = "prefect.db"
LOG_FILE = "prefect-server.log"
SERVER_MODULE = "flows.services.prefect_process"
BUSY_SECONDS = 60.0  # how long clients try again while another server writes to the database
RECORDING_SECONDS = {"stop": 20.0, "": 2.0}  # left for recording events, by the parent's last word ("": its end)
UNCOUNTED_EVENTS_SECONDS = 2.0  # wait, where events cannot be counted
SERVER_SETTINGS = {
    **QUIET_SETTINGS,
    **PRIVATE_SETTINGS,
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",  # it would write to PREFECT_HOME
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_API_BASE_PATH": "/api",
    "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": NO_ORIGIN,
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


def server_environment(store: Path) -> dict[str, str]:
    """Return the environment of a server over a store: this process's, with our settings of Prefect alone."""
    settings = {
        **SERVER_SETTINGS,
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": sqlite_url(store / DATABASE_FILE, "aiosqlite"),
    }
    return {**without_settings(os.environ), **settings, "PYTHONPATH": absolute_python_path()}


def main(store: Path, port: int = 0) -> int:
    """Import, serve from the word "serve" to the word "stop" or the parent's end, and return the exit code."""
    ignore_signals(*STOPPING_SIGNALS)
    os.environ[SERVER_AUTH] = sys.stdin.readline().strip()  # of this process, after its start: no other can read it
    listening: SimpleQueue[socket.socket] = SimpleQueue()
    threading.Thread(target=_open_listener, args=(store, port, listening), name="opener", daemon=True).start()
    gc.disable()  # imported objects stay, and each collection among them takes long
    with contextlib.suppress(Exception):
        import prefect.server.api.server  # noqa: F401  (what fails here fails again, and is logged, in _serve)
        import uvicorn  # noqa: F401
    gc.freeze()
    gc.enable()
    contents = prepare_template(store / DATABASE_FILE)
    listener = listening.get()
    if contents is not None:
        create_database(store / DATABASE_FILE, contents)
    return asyncio.run(_serve(listener))


def _open_listener(store: Path, port: int, listening: "SimpleQueue[socket.socket]") -> None:
    """Wait for the word "serve", then open a listening socket, print its port and put it into the queue."""
    if sys.stdin.readline().strip() != "serve":
        os._exit(0)
    try:
        with (store / LOG_FILE).open("ab", buffering=0) as log:
            os.dup2(log.fileno(), 2)
            listener = socket.create_server(("127.0.0.1", port), backlog=2048)
            print(listener.getsockname()[1], flush=True)
            os.dup2(log.fileno(), 1)  # the parent's pipe ends here
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    listening.put(listener)


async def _serve(listener: socket.socket) -> int:
    import uvicorn
    from prefect.server.api.server import create_app

    class Server(uvicorn.Server):
        def capture_signals(self) -> contextlib.AbstractContextManager:
            return contextlib.nullcontext()  # uvicorn's own would end it

    last_word = _last_word_of_the_parent()
    finish_batches_when_stopped()
    app = create_app(ephemeral=True, final=True)
    config = uvicorn.Config(
        admit_own_clients(retry_soon(app), listener.getsockname()[1]),
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=2,
        ws_ping_interval=None,
    )
    server = Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await asyncio.wait([serving, last_word], return_when=asyncio.FIRST_COMPLETED)
    if last_word.done():
        await wait_until_recorded(RECORDING_SECONDS[last_word.result()])
        server.should_exit = True
    await serving
    return 0 if server.started else 3


def finish_batches_when_stopped() -> None:
    """Have Prefect's recorder of task runs finish the batch it is recording before a stop of the server ends it.

    The function is a private part of Prefect. Where it has moved, a batch may be recorded twice and a traceback logged.
    """
    from prefect.server.services import task_run_recorder

    if record := getattr(task_run_recorder, "record_bulk_task_run_events", None):
        task_run_recorder.record_bulk_task_run_events = finish_when_cancelled(record)


def finish_when_cancelled(record: Callable) -> Callable:
    """Return a function that records a batch of events, and that finishes the batch before a cancellation takes effect.

    Prefect cancels `record` in mid-transaction, which rolls back, logs a traceback, and records the same batch again.
    """

    async def recorded(events: list) -> None:
        work = asyncio.ensure_future(record(events))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await work  # raises again if it was the work itself that was cancelled
            asyncio.current_task().cancel()

    return recorded


def retry_soon(app: Callable) -> Callable:
    """Return the ASGI app with a short Retry-After on each 503: it means that two writers met in SQLite.

    The database is free after milliseconds, but without the header Prefect's client waits for 2, 4, 8 seconds, and the
    whole run with it. The server of another command may write for longer. So for BUSY_SECONDS after the last successful
    change a second header tells the client not to count this try: it gives up after five.
    """
    changed = time.monotonic()

    async def serve(scope: dict, receive: Callable, send: Callable) -> None:
        async def send_with_header(message: dict) -> None:
            nonlocal changed
            if message["type"] == "http.response.start" and message["status"] == 503:
                patient = [(b"prefect-maintenance", b"true")] * (time.monotonic() - changed < BUSY_SECONDS)
                message = {**message, "headers": [*message["headers"], (b"retry-after", b"0.1"), *patient]}
            elif message["type"] == "http.response.start" and scope["method"] != "GET":
                changed = time.monotonic()
            await send(message)

        await app(scope, receive, send_with_header)

    return serve


def _last_word_of_the_parent() -> "asyncio.Future[str]":
    """Return a future of the last word on stdin, "" if it closes without one; a daemon thread reads it."""
    loop = asyncio.get_running_loop()
    last_word = loop.create_future()

    def wait() -> None:
        word = sys.stdin.readline().strip()
        with contextlib.suppress(RuntimeError):  # a signal may have closed the loop
            loop.call_soon_threadsafe(
                lambda: last_word.done() or last_word.set_result(word if word in RECORDING_SECONDS else "")
            )

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()
    return last_word


async def wait_until_recorded(seconds: float) -> None:
    """Wait, for at most `seconds`, until the recording service has received every event that has arrived.

    Services write what they have received when they stop. The counts of events are a private part of Prefect. Where
    they have moved, wait for a fixed time.
    """
    try:
        from prefect.server.utilities.messaging.memory import METRICS
    except ImportError:
        await asyncio.sleep(min(seconds, UNCOUNTED_EVENTS_SECONDS))
        return
    deadline = time.monotonic() + seconds
    idle_polls = 0
    while idle_polls < 3 and time.monotonic() < deadline:
        waiting = any(topic["published"] > topic["consumed"] for topic in METRICS.values())
        idle_polls = 0 if waiting else idle_polls + 1
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    code = main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    sys.stderr.flush()
    os._exit(code)  # everything is written, and an orderly end of the interpreter takes another second
