"""A stream in git and DVC: pushed here, pulled and continued elsewhere; DVC's lock is waited for."""

import subprocess
import sys
import threading
import time

import pytest

from tasks.store.stream.folder import StreamFolder
from tasks.store.stream.releasing import restore
from tasks.store.stream.versions import add_to_dvc, write_ignored
from tests.stream import crashing, small

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_export")]


def git(folder, *words: str) -> None:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def dvc(folder, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def here(tmp_path):
    """A project in git and DVC with a remote folder, and a stream of two chunks in it."""
    folder = tmp_path / "here"
    folder.mkdir()
    git(folder, "init", "-b", "main")
    dvc(folder, "init", "--quiet")
    dvc(folder, "config", "core.analytics", "false")
    dvc(folder, "remote", "add", "--default", "shared", str(tmp_path / "remote"))
    (folder / ".gitignore").write_text("/inbox\n/first\n")
    stream = small.create(folder, images=48)
    write_ignored(stream)
    small.deliver(folder / "inbox" / "day-1", 16, seed=1)
    small.run(stream)
    return stream


def test_a_colleague_pulls_a_stream_and_goes_on_as_here(here, tmp_path):
    folder = here.path.parents[1]
    assert list(add_to_dvc(here, here.read()[1])) == []
    git(folder, "add", ".")
    git(folder, "commit", "-m", "Monday")
    dvc(folder, "push", "--quiet")
    tracked = subprocess.run(["git", "ls-files"], cwd=folder, capture_output=True, text=True).stdout
    assert ".safetensors\n" not in tracked, "git has no image and no weight"
    there = tmp_path / "there"
    git(tmp_path, "clone", "here", "there")
    dvc(there, "pull", "--quiet")
    stream = StreamFolder(there / "streams" / "toy")
    said = list(restore(stream, stream.read()[0]))
    assert "their files are whole" in said[-1]
    assert (stream.path / "champion.json").read_bytes() == (here.path / "champion.json").read_bytes()
    delivered = small.deliver(tmp_path / "tuesday", 16, seed=2)
    small.run(stream, only=delivered)
    small.run(here, only=delivered)
    ledgers = [crashing.history(one)["ledger"] for one in (stream, here)]
    assert ledgers[0] == ledgers[1], "the same chunks, weights and verdicts"
    assert list(add_to_dvc(stream, stream.read()[1])) == []


def test_dvc_that_is_locked_is_waited_for(here):
    folder = here.path.parents[1]
    hold = (
        "import time, sys; from dvc.repo import Repo; repo = Repo('.')\n"
        "with repo.lock: print('locked', flush=True); sys.stdin.readline()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "locked\n"
    problems = []
    adding = threading.Thread(target=lambda: problems.extend(add_to_dvc(here, here.read()[1])))
    adding.start()
    time.sleep(8)
    assert adding.is_alive(), "it waits"
    holder.communicate("\n")
    adding.join()
    assert problems == []
    assert list(here.path.glob("chunks/*.dvc"))
