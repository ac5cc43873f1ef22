"""A pass that is killed at any moment is completed by the next one, as if nothing had happened."""

import errno
import multiprocessing
import random
import shutil

import pytest

from dash_core.files import DiskError
from tasks.store.stream.folder import StreamFolder
from tests.stream import crashing, small
from tests.system.test_disk import mount as mount
from tests.test_files import fill

WRITES = ("replace", "fsync")  # changes that need space
EVERY = 9  # change of the disk at which the quick test kills a pass


pytestmark = pytest.mark.usefixtures("no_export")


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A store whose stream has a champion and deliveries that nobody has received, one with images to set aside."""
    store = tmp_path_factory.mktemp("begun")
    small.create(store, images=48)
    for number in (1, 2, 3):
        small.deliver(store / "inbox" / f"day-{number}", 12, seed=number)
    (store / "inbox" / "day-2" / "class 0" / "broken.png").write_bytes(b"no image")
    return store


@pytest.fixture(scope="module")
def undisturbed(begun, tmp_path_factory):
    stream = copy(begun, tmp_path_factory.mktemp("undisturbed") / "store")
    with crashing.dying(10**9, crashing.raise_killed) as count:
        small.run(stream)
    return crashing.history(stream), count[0]


def copy(begun, store):
    shutil.copytree(begun, store)
    stream = StreamFolder(store / "streams" / "toy")
    text = (stream.path / "stream.yaml").read_text().replace(str(begun / "inbox"), str(store / "inbox"))
    (stream.path / "stream.yaml").write_text(text)
    return StreamFolder(stream.path)


def passes_until_done(stream, moments) -> None:
    """Do passes that die at the given moments, then one that does not."""
    for at in moments:
        try:
            with crashing.dying(at, crashing.raise_killed):
                small.run(StreamFolder(stream.path))
            return
        except crashing.Killed:
            continue
    small.run(StreamFolder(stream.path))


def test_a_pass_that_dies_again_and_again_ends_as_if_it_had_not(begun, undisturbed, tmp_path):
    expected, changes = undisturbed
    stream = copy(begun, tmp_path / "store")
    passes_until_done(stream, [20 + EVERY * number for number in range(changes // EVERY)])
    assert crashing.history(stream) == expected


def must_be_full(error: OSError) -> None:
    """Raise an error of the disk again unless it says that the disk is full."""
    if not isinstance(error, DiskError) and error.errno != errno.ENOSPC:
        raise error


def check_full_disk(stream, moments, expected) -> None:
    """Do passes that find the disk full from a moment on, then one that does not."""
    for at in moments:
        try:
            with crashing.dying(at, crashing.raise_full, WRITES):
                small.run(StreamFolder(stream.path))
            break
        except OSError as error:
            must_be_full(error)
    small.run(StreamFolder(stream.path))
    assert crashing.history(stream) == expected


def test_a_disk_that_is_full_again_and_again_loses_nothing(begun, undisturbed, tmp_path):
    expected, changes = undisturbed
    check_full_disk(copy(begun, tmp_path / "store"), range(4, changes, 6), expected)


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_write_loses_nothing(begun, undisturbed, tmp_path):
    expected, changes = undisturbed
    for at in range(1, changes + 1):
        stream = copy(begun, tmp_path / f"store-{at}")
        check_full_disk(stream, [at], expected)
        shutil.rmtree(stream.path.parents[1])


@pytest.mark.slow
def test_a_real_disk_that_fills_up_loses_nothing(begun, undisturbed, tmp_path, mount):
    store = mount(tmp_path / "small", "24m") / "store"
    stream = copy(begun, store)
    full = 0
    for kilobytes in range(0, 2000, 40):
        stuffing = fill(store, leave=1024 * kilobytes)
        try:
            small.run(StreamFolder(stream.path))
        except OSError as error:
            must_be_full(error)
            full += 1
        else:
            break
        finally:
            stuffing.unlink()
    assert full >= 5, "the disk was full in several steps"
    small.run(StreamFolder(stream.path))
    assert crashing.history(stream) == undisturbed[0]


@pytest.mark.slow
def test_a_pass_that_dies_once_at_any_change_of_the_disk_ends_as_if_it_had_not(begun, undisturbed, tmp_path):
    expected, changes = undisturbed
    for at in range(1, changes + 1):
        stream = copy(begun, tmp_path / f"store-{at}")
        passes_until_done(stream, [at])
        assert crashing.history(stream) == expected, f"killed at change {at} of {changes}"
        shutil.rmtree(stream.path.parents[1])


@pytest.mark.slow
def test_processes_that_are_killed_at_random_moments_end_as_if_they_had_not(begun, undisturbed, tmp_path):
    expected, changes = undisturbed
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.stream.small", "tests.stream.crashing", "tasks.store.stream.judging"])
    moments = random.Random(0)
    stream = copy(begun, tmp_path / "store")
    killed = 0
    while True:
        at = moments.randint(1, changes // 3)
        process = processes.Process(target=crashing.pass_in_a_process, args=(tmp_path / "store", "toy", at))
        process.start()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -9, "the pass failed"
        killed += 1
        assert killed < 300, "the passes make no progress"
    assert killed >= 3
    assert crashing.history(stream) == expected
