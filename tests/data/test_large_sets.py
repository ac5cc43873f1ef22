"""Sets larger than the memory: decoded block by block into a file, mapped to be read, checked when they may differ."""

import os
import shutil
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from dash_core.config import DatasetConfig
from dash_core.data import cache as cache_module
from dash_core.data import cache_file, decoding, load_dataset, silent
from dash_core.data.cache_file import decode_into, read_dataset
from dash_core.data.decoding import ImageFiles
from dash_core.data.imageset import ContentDigest
from dash_core.data.normalisation import channel_statistics
from dash_core.data.noticed import Noticed
from dash_core.errors import DataError


@pytest.fixture
def tree(tmp_path, class_folders):
    return class_folders(tmp_path / "tree", {"cat": 40, "dog": 60})


def load(tree, cache, progress=silent):
    config = DatasetConfig(name="image_folder", folder=str(tree))
    return load_dataset(config, data_root=tree, cache=cache, progress=progress)


def files_of(tree):
    files = sorted(tree.rglob("*.png"))
    return ImageFiles("toy", ("cat", "dog"), files, torch.arange(len(files)) % 2, train=70)


def contents(dataset):
    return [(part.digest, part.labels.tolist(), part.mean, part.std) for part in (dataset.train, dataset.test)]


@pytest.fixture
def all_large(monkeypatch):
    monkeypatch.setattr(cache_file, "LARGE", 0)


@pytest.fixture
def hashed(monkeypatch):
    """Count the pixels' bytes that are hashed."""
    taken = []
    original = ContentDigest.update
    monkeypatch.setattr(
        ContentDigest, "update", lambda own, pixels: (taken.append(pixels.nbytes), original(own, pixels))
    )
    return taken


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("block", [1, 400, 2**22])
def test_pixels_statistics_and_digests_do_not_depend_on_blocks_threads_or_place(
    tmp_path, tree, monkeypatch, block, threads
):
    found = files_of(tree)
    pixels = torch.from_numpy(np.stack([np.array(Image.open(file)) for file in found.files]))
    monkeypatch.setattr(decoding, "_BLOCK", block)
    monkeypatch.setattr(decoding, "usable_cores", lambda: threads)
    decode_into(tmp_path / "toy.safetensors", found, silent)
    for dataset in (found.in_memory(silent), read_dataset(tmp_path / "toy.safetensors")):
        assert torch.equal(torch.cat((dataset.train.images, dataset.test.images)), pixels)
        assert (dataset.train.mean, dataset.train.std) == channel_statistics(pixels[:70])
        assert contents(dataset) == contents(found.in_memory(silent))


def test_decoding_holds_some_blocks_and_not_the_set(tmp_path, monkeypatch):
    """120 MB of pixels; two threads of two blocks of 4 MiB at a time, and one that is taken."""
    monkeypatch.setattr(decoding, "usable_cores", lambda: 2)
    Image.new("RGB", (1000, 1000), "red").save(tmp_path / "red.png")
    found = ImageFiles("toy", ("red",), [tmp_path / "red.png"] * 40, torch.zeros(40, dtype=torch.int64), train=30)
    tracemalloc.start()
    try:
        decode_into(tmp_path / "toy.safetensors", found, silent)
        read = read_dataset(tmp_path / "toy.safetensors")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read.train.images.shape == (30, 1000, 1000, 3)
    assert peak < 60e6


def test_a_file_larger_than_memory_and_swap_is_opened_and_read_in_places(tmp_path):
    memory = 2 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    count = memory // (1024 * 1024 * 3) + 2
    found = ImageFiles("toy", ("any",), [tmp_path / "none"] * count, torch.zeros(count), train=count - 1)
    found.__dict__["image_shape"] = (1024, 1024, 3)
    described = cache_file._described("toy", ("any",), ((0.5,) * 3, (0.5,) * 3), ("0" * 64, "1" * 64), Noticed())
    head = cache_file._head(found, described)
    file = tmp_path / "toy.safetensors"
    with file.open("wb") as out:
        out.write(head)
        try:
            out.truncate(len(head) + 8 * count + found.pixel_bytes)  # holes: it takes no space
        except OSError:
            pytest.skip("no file as large as that can be made here")
        out.seek(-1, os.SEEK_END)
        out.write(b"\7")
    cache_file.record_checked(file)
    read = read_dataset(file)
    assert (read.train.digest, read.test.digest) == ("0" * 64, "1" * 64)
    assert int(read.test.images[0, -1, -1, -1]) == 7
    assert int(read.train.images[count // 2].sum()) == 0


def test_a_large_file_is_hashed_when_written_and_then_only_when_it_or_its_record_changed(
    tmp_path, tree, all_large, hashed
):
    def hashed_by_loading():
        hashed.clear()
        assert contents(load(tree, tmp_path / "cache")) == expected
        return sum(hashed)

    expected = contents(load(tree, tmp_path / "cache"))
    (file,) = (tmp_path / "cache").glob("*.safetensors")
    pixels = 100 * 6 * 6 * 3
    assert sum(hashed) == pixels
    assert hashed_by_loading() == 0
    file.with_name(f"{file.name}.checked").unlink()
    assert hashed_by_loading() == pixels
    assert hashed_by_loading() == 0
    os.utime(file, ns=(0, 0))
    assert hashed_by_loading() == pixels


@pytest.mark.parametrize("place", [0.05, 0.5, 0.99])
def test_a_large_file_that_was_written_to_is_found_damaged(tmp_path, tree, all_large, caplog, place):
    expected = contents(load(tree, tmp_path / "cache"))
    (file,) = (tmp_path / "cache").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 1
    times = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert contents(load(tree, tmp_path / "cache")) == expected
    assert "the cache file is damaged" in caplog.text


def test_without_the_space_it_is_said_beforehand_what_is_needed_and_what_is_there(tmp_path, tree, monkeypatch, caplog):
    expected = contents(load(tree, tmp_path / "cache"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 5, 5))
    assert contents(load(tree, tmp_path / "other")) == expected
    assert list((tmp_path / "other").iterdir()) == []
    assert "image_folder decoded takes 0.0 GB, and 0.0 GB are free there: free some space" in caplog.text
    monkeypatch.setattr(cache_module, "free_memory", lambda device: 2 * 100 * 6 * 6 * 3 - 1)
    with pytest.raises(DataError, match=r"are free there.* Nor can it be held in memory: its images take 0\.0 GB"):
        load(tree, tmp_path / "other")


def test_an_interruption_leaves_nothing_and_a_kill_nothing_that_stays(tmp_path, tree):
    def interrupted(what, done, total):
        if (what, done) == ("decoding images", 64):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(tree, tmp_path / "cache", interrupted)
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "cache" / ".0123456789abcdef.tmp").write_bytes(b"half of it, when it was killed")
    load(tree, tmp_path / "cache")
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".safetensors"]
