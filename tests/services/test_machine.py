"""What a command needs of the machine is checked before anything starts."""

from types import SimpleNamespace

import pytest

from dash_core.errors import ConfigError
from flows.services import machine


@pytest.mark.parametrize("name", ["ALL_PROXY", "https_proxy", "HTTP_PROXY"])
def test_a_socks_proxy_without_its_client_is_a_message_without_password(name):
    with pytest.raises(ConfigError, match=rf"{name.upper()} is socks5h://host:1080: .*env -u {name.upper()} .*socksio"):
        machine.check_machine({name: "socks5h://me:secret@host:1080"})
    machine.check_machine({name: "http://host:3128"})


def test_a_socks_proxy_whose_client_is_installed_is_used(monkeypatch):
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))
    machine.check_machine({"ALL_PROXY": "socks5://host:1080"})


@pytest.mark.parametrize(
    ("soft", "hard", "raised"), [(24, 24, None), (64, 100, 100), (24, 4096, 1024), (2048, 4096, None), (24, -1, 1024)]
)
def test_the_limit_of_open_files_is_raised_where_it_can_be_and_else_named(soft, hard, raised, monkeypatch):
    limits = []
    limited = SimpleNamespace(
        RLIMIT_NOFILE=7,
        RLIM_INFINITY=-1,
        getrlimit=lambda which: (soft, hard),
        setrlimit=lambda which, both: limits.append(both),
    )
    monkeypatch.setattr(machine, "resource", limited)
    if min(raised or soft, 128) < 128:
        with pytest.raises(ConfigError, match=rf"may open only {raised or soft} files \(`ulimit -n`\)"):
            machine.allow_open_files()
    else:
        machine.allow_open_files()
    assert limits == ([] if raised is None else [(raised, hard)])
