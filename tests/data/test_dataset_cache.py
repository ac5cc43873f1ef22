import multiprocessing
import os

import pytest

from dash_core.config import DatasetConfig
from dash_core.data import decoding, load_dataset
from dash_core.data.cache_file import read_dataset
from dash_core.errors import DataError


@pytest.fixture
def tree(tmp_path, class_folders):
    return class_folders(tmp_path / "tree", {"cat": 4, "dog": 6})


@pytest.fixture
def decoded(monkeypatch):
    """Count how often images are decoded."""
    calls = []
    original = decoding.ImageFiles.decoded
    monkeypatch.setattr(decoding.ImageFiles, "decoded", lambda *a, **k: (calls.append(a), original(*a, **k))[1])
    return calls


def load(tree, cache, **settings):
    config = DatasetConfig(name="image_folder", folder=str(tree), **settings)
    return load_dataset(config, data_root=tree, cache=cache)


def digests(dataset):
    parts = (dataset.train, dataset.test)
    return [(part.digest, part.class_names, part.mean, part.std) for part in parts]


def test_the_second_time_nothing_is_decoded_and_all_is_equal(tmp_path, tree, decoded):
    first, second = load(tree, tmp_path / "cache"), load(tree, tmp_path / "cache")
    assert len(decoded) == 1
    assert digests(first) == digests(second)
    assert second.name == "image_folder"


def test_a_changed_or_added_image_is_decoded_afresh(tmp_path, tree, decoded, save_image):
    cache = tmp_path / "cache"
    before = digests(load(tree, cache))
    save_image(tree / "cat" / "000.png", value=999)
    changed = digests(load(tree, cache))
    save_image(tree / "cat" / "004.png", value=998)
    assert before != changed != digests(load(tree, cache))
    assert len(decoded) == 3


def test_a_file_swapped_for_one_of_equal_size_and_mtime_is_noticed(tmp_path, tree, decoded):
    cat, dog = tree / "cat" / "000.png", tree / "dog" / "000.png"
    for file in (cat, dog):
        file.write_bytes(file.read_bytes().ljust(400, b"\0"))
        os.utime(file, ns=(0, 0))
    before = digests(load(tree, tmp_path / "cache"))
    cat.write_bytes(dog.read_bytes())
    os.utime(cat, ns=(0, 0))
    assert digests(load(tree, tmp_path / "cache")) != before


@pytest.mark.parametrize("settings", [{"image_size": 4}, {"test_share": 0.5}], ids=str)
def test_other_options_have_a_cache_file_of_their_own(tmp_path, tree, decoded, settings):
    load(tree, tmp_path / "cache")
    load(tree, tmp_path / "cache", **settings)
    assert len(decoded) == 2
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("place", [0.0, 0.1, 0.2, 0.5, 0.8, 0.999, "cut", "empty", "other"])
def test_a_damaged_cache_file_is_rebuilt_and_it_is_said(tmp_path, tree, decoded, caplog, place):
    expected = digests(load(tree, tmp_path / "cache"))
    (file,) = (tmp_path / "cache").iterdir()
    content = bytearray(file.read_bytes())
    if isinstance(place, float):
        content[int(place * len(content))] ^= 1
    file.write_bytes({"cut": content[:-1], "empty": b"", "other": b"{}" * 50}.get(place, content))
    assert digests(load(tree, tmp_path / "cache")) == expected
    assert len(decoded) == 2
    assert "the cache file is damaged" in caplog.text
    read_dataset(file)


def test_no_bit_of_a_cache_file_can_flip_unnoticed(tmp_path, class_folders):
    expected = digests(load(class_folders(tmp_path / "t", {"a": 2, "b": 2}), tmp_path / "cache"))
    (file,) = (tmp_path / "cache").iterdir()
    content = file.read_bytes()
    damaged = tmp_path / "damaged.safetensors"
    for place in range(len(content)):
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        try:
            assert digests(read_dataset(damaged)) == expected  # only the order of keys, or padding, may change
        except DataError:
            continue


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, tree, caplog):
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert len(load(tree, tmp_path / "cache").train) == 8
    assert "cannot be kept" in caplog.text


def test_the_cache_leaves_no_temporary_file_and_follows_the_umask(tmp_path, tree):
    load(tree, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    (tmp_path / "usual").touch()
    assert file.name.startswith("image_folder-")
    assert file.stat().st_mode == (tmp_path / "usual").stat().st_mode


def load_and_report(tree, cache, barrier, results):
    barrier.wait(300)
    results.put(digests(load(tree, cache)))


def test_two_processes_may_build_the_same_cache_at_once(tmp_path, tree):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    other = context.Process(target=load_and_report, args=(tree, tmp_path / "cache", barrier, results))
    other.start()
    barrier.wait(300)
    here = digests(load(tree, tmp_path / "cache"))
    assert here == results.get(timeout=300) == digests(load(tree, tmp_path / "cache"))
    other.join(300)
    assert other.exitcode == 0
    assert len(list((tmp_path / "cache").iterdir())) == 1
