"""A disk that is full, read-only or forbidden: an error that names the file and the remedy, and nothing half-written.

The full disk is a real one of 2 MiB, where this process may mount it.
"""

import contextlib
import errno
import os
import pickle
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from dash_core.checkpoint import load_checkpoint
from dash_core.data import ChunkPlan
from dash_core.errors import DashError
from dash_core.files import REMEDIES, DiskError, naming, remove_unfinished, telling_when_full, write_atomically
from dash_core.records import RECORDS_FILE, append_record, read_records
from tasks.store.locks import locked
from tests import toy
from tests.test_records import record

FULL = r"{}: No space left on device; free some space; the same command continues"
MANY = tuple([0.25] * 4000)  # a line longer than a page: a part of it may fit


@pytest.fixture
def disk(tmp_path):
    """A disk of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def forbidden():
    """A folder without permission to write, seen by a user who is not root."""
    folder = Path(tempfile.mkdtemp())
    user = os.geteuid()
    folder.chmod(0o555)
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    shutil.rmtree(folder)


def fill(disk: Path, leave: int = 0) -> Path:
    """Fill the disk but for some bytes; return the file to remove to make space."""
    stuffing = disk / "stuffing"
    with stuffing.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\x00" * 4096):
            pass
    os.truncate(stuffing, stuffing.stat().st_size - leave)
    return stuffing


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("leave", [0, 4096, 64 * 1024])
def test_a_file_that_does_not_fit_leaves_the_old_one_whole_and_no_other(disk, leave):
    path = disk / "table.md"
    write_atomically(path, b"old")
    fill(disk, leave)
    before = content(disk)
    with pytest.raises(DiskError, match=FULL.format(path)):
        write_atomically(path, b"new" * 100_000)
    assert content(disk) == before


def test_a_plan_that_does_not_fit_is_not_there(disk):
    plan = ChunkPlan.split(toy.dataset(train=4000).train, toy.params().dataset, 3, 0)
    stuffing = fill(disk, 8192)
    with pytest.raises(DiskError, match=FULL.format(disk / "plan.json")):
        plan.save(disk / "plan.json")
    assert [path.name for path in disk.iterdir()] == ["stuffing"]
    stuffing.unlink()
    plan.save(disk / "plan.json")
    assert ChunkPlan.load(disk / "plan.json").digest == plan.digest


@pytest.mark.parametrize("leave", [0, 4096, 200 * 1024])
def test_a_checkpoint_that_does_not_fit_leaves_the_newest_one_to_go_on_from(disk, leave):
    path = disk / "state.ckpt"
    for number in (1, 2):
        toy.save_checkpoint(path, {"number": number, "weights": toy.torch.zeros(1000)})
    stuffing = fill(disk, leave)
    large = {"number": 3, "weights": toy.torch.zeros(100_000)}
    for _ in range(2):
        with pytest.raises(DiskError, match=FULL.format(path)):
            toy.save_checkpoint(path, large)
        assert load_checkpoint(path)["number"] == 2
    assert not list(disk.glob(".*"))
    stuffing.unlink()
    toy.save_checkpoint(path, large)
    assert load_checkpoint(path)["number"] == 3


def test_a_record_that_does_not_fit_leaves_no_part_of_its_line(disk):
    append_record(disk, record(1))
    stuffing = fill(disk)
    before = content(disk)
    with pytest.raises(DiskError, match=FULL.format(disk / RECORDS_FILE)):
        append_record(disk, record(2, class_accuracy=MANY))
    assert content(disk) == before
    stuffing.unlink()
    append_record(disk, record(2))
    assert read_records(disk) == [record(1), record(2)]


@pytest.mark.parametrize("leave", [0, 8 * 1024, 60 * 1024, 130 * 1024])
def test_a_run_that_the_disk_stops_goes_on_to_the_same_results_when_there_is_space(tmp_path, disk, leave):
    run, data = toy.params(training={"max_epochs": 2}).run("dash", 0), toy.dataset()
    whole = toy.advance(toy.trajectory(tmp_path / "whole", run, data))
    folder = disk / "run"
    moving = toy.advance(toy.trajectory(folder, run, data), chunks=1)
    stuffing = fill(disk, leave)
    with contextlib.suppress(DiskError):  # with more space left it gets further
        toy.advance(moving)
    stopped = not (folder / "result.json").exists()
    assert stopped or leave == 130 * 1024
    assert not list(folder.glob(".*"))
    stuffing.unlink()
    again = toy.advance(toy.trajectory(folder, run, data)) if stopped else moving
    assert toy.results(again) == toy.results(whole)
    assert (folder / "weights.safetensors").read_bytes() == (tmp_path / "whole" / "weights.safetensors").read_bytes()


def writes(folder: Path):
    """Return what is written while a run trains, each as a function and the file that its error names."""
    return [
        (lambda: write_atomically(folder / "table.md", b"new"), folder / "table.md"),
        (lambda: write_atomically(folder / "new" / "table.md", b"new"), folder / "new" / "table.md"),
        (lambda: toy.save_checkpoint(folder / "state.ckpt", {"number": 3}), folder / "state.ckpt"),
        (lambda: append_record(folder, record(1)), folder / RECORDS_FILE),
        (lambda: locked(folder / "run.lock", "run").__enter__(), folder / "run.lock"),
    ]


def test_a_read_only_disk_is_named_with_the_remedy_and_nothing_changes(disk):
    write_atomically(disk / "table.md", b"old")
    toy.save_checkpoint(disk / "state.ckpt", {"number": 1})
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    before = content(disk)
    for write, path in writes(disk):
        with pytest.raises(
            DiskError, match=rf"{path}: Read-only file system; make it writable, or name another folder"
        ):
            write()
    assert content(disk) == before
    assert load_checkpoint(disk / "state.ckpt") == {"number": 1}


def test_a_folder_without_permission_is_named_with_the_remedy(forbidden):
    for write, path in writes(forbidden):
        with pytest.raises(DiskError, match=rf"{path}: Permission denied; allow it, or name another folder"):
            write()
    assert list(forbidden.iterdir()) == []


@pytest.mark.parametrize("number", REMEDIES)
def test_an_error_of_the_disk_is_one_of_ours_and_travels_between_processes(number):
    with pytest.raises(DashError) as caught, naming():
        raise OSError(number, "", "some/file")
    assert str(pickle.loads(pickle.dumps(caught.value))) == f"some/file: {os.strerror(number)}; {REMEDIES[number]}"


def test_an_error_that_is_not_the_disks_is_left_as_it_is():
    with pytest.raises(FileNotFoundError), naming():
        raise FileNotFoundError(errno.ENOENT, "no such file")


def test_what_a_killed_process_was_writing_is_cleared_away_and_nothing_else(tmp_path):
    write_atomically(tmp_path / "table.md", b"whole")
    (tmp_path / ".0123456789abcdef.tmp").write_bytes(b"half")
    (tmp_path / "notes.tmp").write_bytes(b"the user's")
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.tmp", "table.md"]


def test_whatever_fails_on_a_full_disk_is_told_as_that(disk):
    with pytest.raises(ZeroDivisionError), telling_when_full(disk):
        raise ZeroDivisionError
    fill(disk)
    with pytest.raises(DiskError, match="^" + FULL.format(disk)), telling_when_full(disk):
        raise ZeroDivisionError
    with pytest.raises(DiskError, match=f"^the server is gone\n{FULL.format(disk)}"), telling_when_full(disk):
        raise DashError("the server is gone")
