"""Check that a Prefect API answers, and react when a server that answered before is lost."""

import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from dash_core.errors import ConfigError, DashError
from flows.services.prefect_settings import API_URL

POLL_SECONDS = 0.5

_lost_server_seconds = 60.0  # how long a run waits for a lost server to come back


class ServerGone(DashError):
    """A Prefect server answered before, and does not answer now."""


def check_health(url: str, timeout: float = 10.0) -> None:
    """Raise ConfigError unless a Prefect API answers at `url`."""
    remedy = (
        f"start it (`prefect server start`), or unset it (`unset {API_URL}`; `prefect config unset {API_URL}` "
        "for a profile) and a private server is used"
    )
    try:
        with _opener(url).open(f"{url.rstrip('/')}/health", timeout=timeout) as answer:
            healthy = answer.read().strip() == b"true"
    except urllib.error.HTTPError as error:
        healthy = error.code in (401, 403)  # an API that asks for a key, which Prefect's client has
    except (OSError, ValueError, http.client.HTTPException) as error:  # the last for a URL with a space
        reason = getattr(error, "reason", error)
        raise ConfigError(f"no Prefect API answers at {url} ({API_URL}): {reason}; {remedy}") from None
    if not healthy:
        raise ConfigError(f"what answers at {url} ({API_URL}) is no Prefect API, or an unhealthy one; {remedy}")


def lost_server_error(timeout: float = 10.0) -> ServerGone | None:
    """Return the error to raise if the API of this process does not answer; None if it answers."""
    url = os.environ.get(API_URL)
    try:
        if url:
            check_health(url, timeout)
    except ConfigError:
        return ServerGone(
            f"the Prefect server at {url} is gone; nothing is lost: the same command continues from there"
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


def quieten() -> None:
    """Keep the terminal free of errors about a lost server: each event and log record would print one."""
    logging.getLogger("prefect.events").setLevel(logging.CRITICAL)
    logging.raiseExceptions = False  # of log records that cannot be sent


def _opener(url: str) -> urllib.request.OpenerDirector:
    """Return an opener of URLs that uses no proxy for a local address."""
    local = "//127.0.0.1" in url or "//localhost" in url
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))
