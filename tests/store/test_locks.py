"""A lock has one holder at a time, is free when that one is gone, and says who holds it."""

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.store import locks as locking
from tasks.store.locks import Busy, NoLocks, Owner, locked, locked_run
from tasks.store.place import Place
from tests import toy
from tests.system import shell

HOLD = "import sys, filelock; a = filelock.FileLock(sys.argv[1]); a.acquire(); print(flush=True); sys.stdin.read()"


def elsewhere(function, *arguments):
    """Return what a function gives in another thread, which no lock of this one lets in."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(function, *arguments).result(timeout=120)


def attempt(path: Path, wait: bool = False) -> str:
    try:
        with locked(path, "run 1", wait=wait):
            return "held"
    except Busy as busy:
        return str(busy)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "locks" / "run-a0.3.lock"


@pytest.fixture
def held_by_another(path):
    """A process that holds the lock until it is killed."""
    path.parent.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        yield holder
        holder.kill()


def test_who_does_not_wait_is_told_which_process_holds_the_lock_and_since_when(path):
    with locked(path, "run 1"):
        refused = elsewhere(attempt, path)
    assert re.match(rf"waiting for run 1, which process {os.getpid()} on \S+ has held since \d\d:\d\d \(.+\)$", refused)
    assert elsewhere(attempt, path) == "held"


def test_who_waits_says_so_once_and_has_the_lock_as_soon_as_it_is_free(path, capsys, monkeypatch):
    monkeypatch.setattr(locking, "SILENT_SECONDS", 0.1)
    said = []

    def count() -> int:
        said.append(capsys.readouterr().err)
        return "".join(said).count("waiting for run 1, which process")

    with ThreadPoolExecutor(1) as threads:
        with locked(path, "run 1"):
            other = threads.submit(attempt, path, True)
            assert shell.within(20, lambda: count() == 1)
            time.sleep(0.5)  # time to say it again, which must not happen
            assert not other.done()
        assert other.result(timeout=120) == "held"
    assert count() == 1


def test_many_who_want_one_lock_have_it_one_at_a_time(path):
    inside, most = [], []

    def work() -> None:
        with locked(path, "run 1"):
            inside.append(1)
            time.sleep(0.01)
            most.append(len(inside))
            inside.pop()

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(work) for _ in range(8)]:
            done.result(timeout=300)
    assert most == [1] * 8


def test_the_lock_of_a_killed_process_is_free_whatever_its_note_says(path, held_by_another):
    path.with_suffix(".owner").write_text('{"pid": 123, "host": "here", "command": "dashpipe compare", "since": 0}')
    assert "process 123 on here has held since" in attempt(path)
    held_by_another.send_signal(signal.SIGKILL)
    held_by_another.wait()
    assert attempt(path) == "held"
    assert Owner.of(path) is None


@pytest.mark.parametrize("note", ["", "{", "[]", '{"pid": 1}', "\x00\x00"], ids=repr)
def test_a_damaged_note_hides_the_owner_and_nothing_else(path, held_by_another, note):
    path.with_suffix(".owner").write_text(note)
    assert attempt(path) == "waiting for run 1, which another process holds"


@pytest.mark.parametrize("silent", [0.1, 2.0])
def test_ctrl_c_ends_a_wait_at_once(path, held_by_another, capsys, monkeypatch, silent):
    monkeypatch.setattr(locking, "SILENT_SECONDS", silent)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012
        timer.start()  # in the block, so that an early signal on a busy machine is caught too
        with locked(path, "run 1"):
            timer.cancel()
            pytest.fail("it is held by another")
    assert time.monotonic() - began < 20
    held_by_another.kill()
    held_by_another.wait()
    assert attempt(path) == "held"


def test_a_lock_is_given_back_when_its_block_fails(path):
    with pytest.raises(ZeroDivisionError), locked(path, "run 1"):
        raise ZeroDivisionError
    assert elsewhere(attempt, path) == "held"


def test_other_runs_and_other_stores_are_not_kept_waiting(tmp_path):
    places = [Place(store=tmp_path / name, data_root=tmp_path) for name in "ab"]
    first, second = (toy.params().run("warm", seed) for seed in (0, 1))

    def take(run, place) -> str:
        with locked_run(run, place, wait=False):
            return "held"

    with locked_run(first, places[0]):
        assert elsewhere(take, second, places[0]) == elsewhere(take, first, places[1]) == "held"
        with pytest.raises(Busy):
            elsewhere(take, first, places[0])


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_an_error_with_the_remedy(path, monkeypatch, number):
    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(NoLocks, match=rf"{path} cannot be locked \(.*\): put --store on a disk of this machine"):
        attempt(path)


def test_a_run_that_another_command_does_is_asked_for_until_it_is_free_and_said_once(monkeypatch, capsys):
    from flows import compare

    monkeypatch.setattr(compare, "RETRY_SECONDS", 0.01)
    answers = iter([Busy("waiting for run 1"), Busy("waiting for run 1"), None])

    class Pool:
        def call(self, *work):
            assert work == ("train", "run 1")
            if isinstance(answer := next(answers), Busy):
                raise answer

    compare._train_when_free(Pool(), "train", "run 1")
    assert list(answers) == []
    assert capsys.readouterr().err == "waiting for run 1\n"
