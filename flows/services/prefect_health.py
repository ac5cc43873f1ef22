"""Check that a Prefect API answers, and react when a server that answered before is lost."""

import base64
import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import unquote

from dash_core.errors import ConfigError, DashError
from flows.services.child import run_in_background
from flows.services.machine import OPEN_FILES
from flows.services.prefect_settings import API_URL

POLL_SECONDS = 0.5
LONGEST_ANSWER = 1000  # bytes that are read of an answer
SETTLING_SECONDS = 2.0  # for a server to take in what a lost process had sent of its tasks
REFUSALS = 401, 403  # of an API that asks for a key, which Prefect's client has
REMEDY = (
    f"start it (`prefect server start`), or unset it (`unset {API_URL}`; `prefect config unset {API_URL}` "
    "for a profile) and a private server is used"
)

_lost_server_seconds = 60.0  # how long a run waits for a lost server to come back


class ServerGone(DashError):
    """A Prefect server answered before, and does not answer now."""


def check_health(url: str, timeout: float = 10.0) -> None:
    """Raise ConfigError unless a Prefect API answers at `url` within `timeout` seconds."""
    try:
        healthy = _ask(url, "health", timeout).strip() == b"true"
    except urllib.error.HTTPError as error:
        healthy = error.code in REFUSALS
    except (OSError, ValueError, http.client.HTTPException) as error:  # the last for a URL with a space
        reason = getattr(error, "reason", error)
        if getattr(reason, "errno", None) in OPEN_FILES:  # our own fault, not the server's
            raise reason from None
        raise ConfigError(f"no Prefect API answers at {_split(url)[0]} ({API_URL}): {reason}; {REMEDY}") from None
    if not healthy:
        raise _no_api(url)


def check_api(url: str, timeout: float = 10.0) -> None:
    """Raise ConfigError unless what answers at `url` is a Prefect API: one that is healthy, and has a version."""
    check_health(url, timeout)
    try:
        version = json.loads(_ask(url, "admin/version", timeout))
    except urllib.error.HTTPError:
        known = True  # an API that asks for a key, or that keeps its version to itself
    except (OSError, ValueError, http.client.HTTPException):
        known = False
    else:
        known = isinstance(version, str) and version[:1].isdigit()
    if not known:
        raise _no_api(url)


def _no_api(url: str) -> ConfigError:
    return ConfigError(f"what answers at {_split(url)[0]} ({API_URL}) is no Prefect API, or an unhealthy one; {REMEDY}")


def _ask(url: str, path: str, seconds: float) -> bytes:
    """Return the beginning of an answer; OSError if it takes longer in all, also if it comes byte by byte."""
    address, secret = _split(url)
    request = urllib.request.Request(f"{address.rstrip('/')}/{path}")
    if secret:
        request.add_header("Authorization", f"Basic {base64.b64encode(secret.encode()).decode()}")
    answers: list[bytes | Exception] = []

    def read() -> None:
        try:
            with _opener(address).open(request, timeout=seconds) as answer:
                answers.append(answer.read(LONGEST_ANSWER))
        except Exception as error:
            answers.append(error)

    run_in_background(read).join(seconds + 1)
    if not answers:
        raise TimeoutError(f"the answer does not end within {seconds:.0f} s")
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]


def _split(url: str) -> tuple[str, str]:
    """Return an address without user and password, and `user:password` apart, "" if it has none."""
    scheme, slashes, rest = url.partition("//")
    secret, at, place = rest.rpartition("@")
    return (f"{scheme}{slashes}{place}", unquote(secret)) if at else (url, "")


def lost_server_error(timeout: float = 10.0) -> ServerGone | None:
    """Return the error to raise if the API of this process does not answer; None if it answers."""
    url = os.environ.get(API_URL)
    try:
        if url:
            check_health(url, timeout)
    except ConfigError:
        return ServerGone(
            f"the Prefect server at {_split(url)[0]} is gone; nothing is lost: the same command continues from there"
        )
    return None


def wait_for_api() -> None:
    """Return once the API answers: a lost server may be starting again. ServerGone if it does not answer in time.

    A process that has waited in vain once does not wait again.
    """
    global _lost_server_seconds
    deadline = time.monotonic() + _lost_server_seconds
    while error := lost_server_error():
        if time.monotonic() > deadline:
            _lost_server_seconds = 0.0
            raise error
        time.sleep(POLL_SECONDS)


@contextmanager
def explain_lost_server() -> Iterator[None]:
    """Raise ServerGone in place of Prefect's own errors in the block when its server is lost."""
    try:
        yield
    except DashError:
        raise
    except Exception:
        if lost := lost_server_error():
            raise lost from None
        raise


def crash_flow_run(flow_run: str, reason: str) -> None:
    """Show a flow run, and its tasks that were under way, as crashed: the process that was to say so is gone.

    What Prefect's server does not take is left out, because no result depends on it.
    """
    from uuid import UUID

    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, TaskRunFilter, TaskRunFilterState
    from prefect.client.schemas.filters import TaskRunFilterStateType as OfType
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    with suppress(Exception), get_client(sync_client=True) as client:
        found = client.read_flow_run(UUID(flow_run))
        if found.state is not None and found.state.is_final():
            return
        client.set_flow_run_state(UUID(flow_run), Crashed(message=reason[:1000]), force=True)
        under_way = TaskRunFilter(state=TaskRunFilterState(type=OfType(any_=[StateType.RUNNING, StateType.PENDING])))
        ours = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run)]))
        for seconds in (0.0, SETTLING_SECONDS):
            time.sleep(seconds)
            for task_run in client.read_task_runs(flow_run_filter=ours, task_run_filter=under_way):
                client.set_task_run_state(task_run.id, Crashed(message=reason[:1000]), force=True)


def quieten() -> None:
    """Keep the terminal free of errors about a lost server: each event and log record would print one."""
    logging.getLogger("prefect.events").setLevel(logging.CRITICAL)
    logging.raiseExceptions = False  # of log records that cannot be sent


def _opener(url: str) -> urllib.request.OpenerDirector:
    """Return an opener of URLs that uses no proxy for a local address."""
    local = "//127.0.0.1" in url or "//localhost" in url
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))
