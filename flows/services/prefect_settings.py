"""Which of Prefect's settings apply: the user's with a server of their own, only ours with a private one.

Prefect reads settings from the environment, from `.env`, `prefect.toml` and `pyproject.toml` of the working folder and
from a profile. Any of them can name another database, a key, retries or a broker of messages.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

API_URL = "PREFECT_API_URL"
PREFIX = "PREFECT_"
SETTINGS_SOURCES, CURRENT_SETTINGS = (
    "settings_customise_sources",
    "GLOBAL_SETTINGS_CONTEXT",
)  # names of private parts of Prefect
ERRORS_FOLDER = "prefect-errors"  # folder of services
EMPTY_HOME = Path(__file__).with_name("prefect_home")  # no profile, no settings, no feature left to use first

# for each of our processes that uses Prefect: defaults with a server of the user's, fixed with a private server
QUIET_SETTINGS: Mapping[str, str] = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # the terminal is ours: flow and task logs go to the Prefect server, where each run shows its own
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",  # after a lost server, an error for each event
    "PREFECT_CLI_PROMPT": "false",
}
PRIVATE_SETTINGS: Mapping[str, str] = {
    "PREFECT_HOME": str(EMPTY_HOME),
    "PREFECT_PROFILES_PATH": str(EMPTY_HOME / "profiles.toml"),
    "PREFECT_PLUGINS_ENABLED": "false",
}
CLIENT_SETTINGS: Mapping[str, str] = {
    **QUIET_SETTINGS,
    **PRIVATE_SETTINGS,
    "PREFECT_LOGGING_EXTRA_LOGGERS": "dash_core",  # warnings of the science are logged with the run
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # a warning outside of a flow is not for the server
}


def without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without Prefect's settings, whose names Prefect reads in upper or lower case."""
    return {name: value for name, value in environ.items() if not name.upper().startswith(PREFIX)}


@contextmanager
def private_environment(services: Path) -> Iterator[None]:
    """Replace Prefect's settings in this process's environment by ours, also for its children, within the block.

    Enter it before Prefect is imported, which reads them. services: the store's folder of services, where Prefect
    keeps the error of a flow that failed.
    """
    users = {name: value for name, value in os.environ.items() if name.upper().startswith(PREFIX)}
    _replace_settings({**CLIENT_SETTINGS, "PREFECT_LOCAL_STORAGE_PATH": str(services.resolve() / ERRORS_FOLDER)})
    try:
        yield
    finally:
        _replace_settings(users)


def is_private() -> bool:
    """Tell whether this process, or the one that started it, is within `private_environment`."""
    return os.environ.get("PREFECT_HOME") == str(EMPTY_HOME)


@contextmanager
def private_settings() -> Iterator[None]:
    """Make the imported Prefect read only the environment within the block (`read_environment_alone`)."""
    from prefect import context
    from prefect.settings import base

    settings = vars(base).get("PrefectBaseSettings", object)
    users = getattr(context, CURRENT_SETTINGS, None), vars(settings).get(SETTINGS_SOURCES)
    read_environment_alone()
    try:
        yield
    finally:
        for owner, name, value in zip((context, settings), (CURRENT_SETTINGS, SETTINGS_SOURCES), users, strict=True):
            if value is not None:
                setattr(owner, name, value)


def read_environment_alone() -> None:
    """Have Prefect read its settings again, from the environment and from no file of the working folder.

    The list of sources is a private part of Prefect. Where it has moved, files of the working folder still count;
    the environment and the profile are ours in any case.
    """
    try:
        from prefect.context import refresh_global_settings_context
        from prefect.logging.configuration import setup_logging
        from prefect.settings.base import PrefectBaseSettings
    except ImportError:
        return
    sources_of_prefect = vars(PrefectBaseSettings).get(SETTINGS_SOURCES)

    def sources(cls: type, settings_cls: type, *sources: object, **named_sources: object) -> tuple:
        init, environment, *files = sources_of_prefect.__get__(None, cls)(settings_cls, *sources, **named_sources)
        for source in files:
            source.__class__ = _silent(type(source))
        return init, environment, *files

    if sources_of_prefect is not None:
        setattr(PrefectBaseSettings, SETTINGS_SOURCES, classmethod(sources))
    refresh_global_settings_context()
    setup_logging(incremental=True)  # sets the levels; the handlers stay those of the import


@cache
def _silent(kind: type) -> type:
    """Return a subclass of a source that yields no settings; Prefect would warn of a missing source."""
    return type(kind.__name__, (kind,), {"__call__": lambda source: {}})


def _replace_settings(settings: Mapping[str, str]) -> None:
    others = without_settings(os.environ)
    for name in set(os.environ) - set(others):
        del os.environ[name]
    os.environ.update(settings)
