"""A disk that fills up while the program works: one message, nothing half-written, and the same command continues."""

import subprocess
from pathlib import Path

import pytest

from tests.system import shell
from tests.system.shell import TINY, dashpipe
from tests.test_files import fill

ONE = (*TINY, "compare.methods=[dash]")

pytestmark = pytest.mark.slow


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def mount():
    """A function that puts a small disk at a folder."""
    mounted = []

    def put(folder: Path, size: str) -> Path:
        folder.mkdir(parents=True)
        order = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        if (answer := subprocess.run(order, capture_output=True, text=True)).returncode:
            pytest.skip(f"no disk can be mounted here: {answer.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield put
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_run_that_finds_the_disk_full_says_so_and_goes_on_when_there_is_space(tmp_path, store, mount):
    runs = mount(store / "runs", "2m")
    stuffing = fill(runs, leave=80 * 1024)
    stopped = dashpipe(store, "compare", settings=ONE)
    run = shell.params(ONE).runs()[0]
    assert stopped.code == 1
    assert stopped.err.splitlines()[0] == "error: 1 of 1 runs failed:"
    assert f"  {run.id}: {runs / run.id}" in stopped.err
    assert "No space left on device; free some space; the same command continues" in stopped.err
    assert "Traceback" not in stopped.err
    assert not list((runs / run.id).glob(".*"))
    stuffing.unlink()
    ended = dashpipe(store, "compare", settings=ONE)
    assert (ended.code, ended.err) == (0, "")
    whole = dashpipe(tmp_path / "whole", "compare", settings=ONE)
    assert shell.results(store, ONE) == shell.results(whole.store, ONE)
    assert shell.weights(store, ONE) == shell.weights(whole.store, ONE)


@pytest.mark.parametrize("leave", [0, 2 * 1024 * 1024], ids=["at the beginning", "soon"])
def test_a_store_on_a_full_disk_is_a_message_and_no_traceback(store, mount, leave):
    stuffing = fill(mount(store, "8m"), leave)
    stopped = dashpipe(store, "compare", settings=ONE)
    assert stopped.code in (1, 2)
    assert "No space left on device" in stopped.err or "disk is full" in stopped.err
    assert "Traceback" not in stopped.err
    assert shell.within(10, lambda: not shell.processes_of(store))
    stuffing.unlink()
