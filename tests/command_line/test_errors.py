"""How a command fails: one message, no password, and an exit code that says what happened."""

import errno
import os
import signal

import pytest
import typer

from dash_core.errors import DashError, public_address, without_password
from flows.command_line import errors
from flows.command_line.errors import plain_errors
from tasks.store import stopping
from tasks.store.stopping import heeding, requested

STOPS = [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT]


@pytest.fixture(autouse=True)
def handlers():
    """Reset signals that `nohup` left ignored, and put the handlers back: a command leaves its own."""
    before = {number: signal.getsignal(number) for number in STOPS}
    for number in STOPS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def fail(error):
    with plain_errors():
        raise error


@pytest.mark.parametrize("number", STOPS)
def test_each_signal_that_stops_a_command_ends_it_with_its_code_and_the_same_words(number, capsys):
    def stop():
        with plain_errors():
            os.kill(os.getpid(), number)
            signal.pause()

    with pytest.raises(typer.Exit) as ended:
        stop()
    assert ended.value.exit_code == 128 + number
    assert capsys.readouterr().err == "stopped: the same command continues from the last saved state of each run\n"


def test_a_signal_that_the_shell_has_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    with plain_errors():
        os.kill(os.getpid(), signal.SIGHUP)
        with heeding():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not requested()


@pytest.mark.parametrize("number", STOPS)
def test_each_signal_asks_a_run_to_stop_and_those_that_come_twice_by_themselves_do_not_interrupt_it(number):
    with heeding():
        os.kill(os.getpid(), number)
        assert requested()
        assert stopping.asked_by() == number
        for repeated in (signal.SIGHUP, signal.SIGUSR1):
            os.kill(os.getpid(), repeated)
        for interrupting in (signal.SIGTERM, signal.SIGINT):
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), interrupting)


def test_a_worker_is_not_interrupted_by_a_signal_that_its_job_and_its_parent_send(monkeypatch):
    monkeypatch.setattr(stopping.multiprocessing, "parent_process", lambda: object())
    with heeding():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert requested()


def test_a_clock_before_1970_is_named_before_anything_starts(monkeypatch, capsys):
    monkeypatch.setattr(errors.time, "time", lambda: -2_051_222_400.0)
    with pytest.raises(typer.Exit) as ended, plain_errors():
        pytest.fail("started")
    assert ended.value.exit_code == 2
    assert "the clock of this machine says 1905: set it" in capsys.readouterr().err


def test_the_systems_error_that_no_file_can_be_opened_is_one_message(capsys):
    with pytest.raises(typer.Exit) as ended:
        fail(OSError(errno.EMFILE, "Too many open files"))
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err.startswith("error: this process may open no more files (`ulimit -n`): allow more")


def test_no_error_prints_a_password_of_an_address(capsys):
    with pytest.raises(typer.Exit):
        fail(DashError("nobody at http://me:se/cr@et@host:1/api, nor at postgresql://me:secret@db/x"))
    assert capsys.readouterr().err == "error: nobody at http://host:1/api, nor at postgresql://db/x\n"


@pytest.mark.parametrize(
    ("address", "printed"),
    [
        ("http://me:se/cr@et word@host:1/api", "http://host:1/api"),
        ("http://host:1/api", "http://host:1/api"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("databricks", "databricks"),
    ],
)
def test_an_address_is_printed_without_its_password_and_a_path_whole(address, printed):
    assert public_address(address) == printed
    assert without_password(f"at {printed}") == f"at {printed}"
