"""A pass that is killed at any moment is completed by the next one, as if nothing had happened."""

import multiprocessing
import random
import shutil

import pytest

from tasks.store.stream.folder import StreamFolder
from tests.stream import crashing, small

EVERY = 9  # change of the disk at which the quick test kills a pass


@pytest.fixture(scope="module", autouse=True)
def _no_export():
    with small.without_export():
        yield


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
