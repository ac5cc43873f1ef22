"""What a command needs of the machine before it starts anything: open files, and a proxy that it can use."""

import errno
import importlib.util
import os
from collections.abc import Mapping

from dash_core.errors import ConfigError, without_password

try:
    import resource
except ImportError:  # only on Unix
    resource = None

LEAST_FILES, ENOUGH_FILES = 128, 1024  # that a process may have open at once: to work at all, to work in peace
OPEN_FILES = errno.EMFILE, errno.ENFILE  # of errors: no other file can be opened
PROXIES = "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"


def check_machine(environ: Mapping[str, str] = os.environ) -> None:
    """Raise ConfigError if this process may open too few files, or if Prefect's client cannot use the proxy."""
    allow_open_files()
    proxies = {name: environ.get(name) or environ.get(name.lower(), "") for name in PROXIES}
    for name, proxy in proxies.items():
        if proxy.lower().startswith("socks") and importlib.util.find_spec("socksio") is None:
            raise ConfigError(
                f"{name} is {without_password(proxy)}: Prefect's client cannot start with a SOCKS proxy; leave it "
                f"out for this command (`env -u {name} -u {name.lower()} uv run dashpipe ...`), or install socksio "
                "(`uv pip install socksio`)"
            )


def allow_open_files() -> None:
    """Let this process and its children open ENOUGH_FILES files if the system admits it."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    most = ENOUGH_FILES if hard == unlimited else min(hard, ENOUGH_FILES)
    if soft != unlimited and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft != unlimited and soft < LEAST_FILES:
        raise too_few_files(soft)


def too_few_files(limit: int | None = None) -> ConfigError:
    """Return the error of a process that may open no more files."""
    number = "no more" if limit is None else f"only {limit}"
    return ConfigError(
        f"this process may open {number} files (`ulimit -n`): allow more, for example `ulimit -n {ENOUGH_FILES}`, or "
        "have an administrator raise the limit, and repeat the command"
    )
