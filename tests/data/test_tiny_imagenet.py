import hashlib
import http.server
import shutil
import threading
import zipfile

import pytest
import torch

from dash_core.config import DatasetConfig
from dash_core.data import load_dataset
from dash_core.data import tiny_imagenet as module
from dash_core.errors import DataError

CONFIG = DatasetConfig(name="tiny_imagenet")


def load(data_root, cache, download=False):
    return load_dataset(CONFIG, data_root=data_root, cache=cache, download=download)


def test_the_official_layout_loads_with_validation_as_test(tmp_path, tiny_imagenet):
    tiny_imagenet(tmp_path)
    found = load(tmp_path, tmp_path / "cache")
    assert found.train.labels.tolist() == [0, 0, 1, 1]
    assert found.test.labels.tolist() == [0, 1]
    assert found.train.class_names == ("name of n00000001", "name of n00000002")
    assert found.train.image_shape == (3, 64, 64)
    assert found.train.mean == (0.485, 0.456, 0.406)
    assert found.train.std == (0.229, 0.224, 0.225)


def test_grey_images_become_rgb(tmp_path, tiny_imagenet, save_image):
    root = tiny_imagenet(tmp_path)
    save_image(root / "train/n00000001/images/n00000001_0.JPEG", size=(64, 64), mode="L")
    first = load(tmp_path, tmp_path / "cache").train.images[0]
    assert torch.equal(first[..., 0], first[..., 1])


def test_only_classes_with_a_folder_are_used_and_it_is_said(tmp_path, tiny_imagenet, caplog):
    root = tiny_imagenet(tmp_path)
    shutil.rmtree(root / "train" / "n00000001")
    found = load(tmp_path, tmp_path / "cache")
    assert found.train.class_names == ("name of n00000002",)
    assert (len(found.train), len(found.test)) == (2, 1)
    assert "1 of the 2 classes are there" in caplog.text


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda root: (root / "wnids.txt").unlink(), r"wnids\.txt: missing"),
        (lambda root: (root / "wnids.txt").write_text("../../etc\n"), r"wnids\.txt: '../../etc' is not"),
        (lambda root: (root / "wnids.txt").write_text("n99999999\n"), "train: no folder of a class"),
        (lambda root: (root / "wnids.txt").write_bytes(b"\xff\xff"), r"wnids\.txt: not text"),
        (lambda root: (root / "words.txt").unlink(), r"words\.txt: missing"),
        (lambda root: (root / "val/val_annotations.txt").unlink(), r"val_annotations\.txt: missing"),
        (lambda root: (root / "val/val_annotations.txt").write_text(""), r"val_annotations\.txt: no image"),
        (lambda root: (root / "val/val_annotations.txt").write_text("a.JPEG"), r"val_annotations\.txt: line 1"),
        (lambda root: (root / "val/val_annotations.txt").write_text("../a\tn00000001"), r"annotations\.txt: line 1"),
        (lambda root: (root / "val/images/val_1.JPEG").unlink(), r"val_1\.JPEG: named in"),
        (lambda root: (root / "val/images/val_1.JPEG").write_bytes(b"x"), r"val_1\.JPEG: damaged"),
        (lambda root: shutil.rmtree(root / "train/n00000001/images"), "n00000001/images: an empty class"),
    ],
    ids=range(12),
)
def test_what_is_missing_or_damaged_is_named(tmp_path, tiny_imagenet, damage, named):
    damage(tiny_imagenet(tmp_path))
    with pytest.raises(DataError, match=named):
        load(tmp_path, tmp_path / "cache")


def test_absent_and_offline_names_the_folder_and_the_remedy(tmp_path):
    with pytest.raises(DataError, match=r"none/tiny-imagenet-200, and downloads are off.*Set the data root"):
        load(tmp_path / "none", tmp_path / "cache")
    assert not (tmp_path / "none").exists()


@pytest.fixture
def served(tmp_path, monkeypatch, tiny_imagenet):
    """Serve a zip of the small set on this machine in the place of the official address."""
    tiny_imagenet(tmp_path / "origin")
    archive = tmp_path / "served" / "tiny.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as content:
        for file in sorted((tmp_path / "origin").rglob("*")):
            content.write(file, file.relative_to(tmp_path / "origin"))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(archive.parent))

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "URL", f"http://127.0.0.1:{server.server_port}/tiny.zip")
    monkeypatch.setattr(module, "MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    yield archive
    server.shutdown()
    thread.join()
    server.server_close()


def test_it_is_downloaded_once_and_leaves_no_litter(tmp_path, served):
    first = load(tmp_path / "root", tmp_path / "cache", download=True)
    served.unlink()
    again = load(tmp_path / "root", tmp_path / "cache2", download=True)
    assert first.train.digest == again.train.digest
    assert [entry.name for entry in (tmp_path / "root").iterdir()] == ["tiny-imagenet-200"]


def test_a_damaged_download_is_refused_and_does_not_count_as_there(tmp_path, served):
    content = bytearray(served.read_bytes())
    content[len(content) // 2] ^= 1
    served.write_bytes(content)
    with pytest.raises(DataError, match=r"downloading it failed: .* gives a file with MD5"):
        load(tmp_path / "root", tmp_path / "cache", download=True)
    assert list((tmp_path / "root").iterdir()) == []


def test_an_unreachable_address_names_folder_reason_and_remedy(tmp_path, served):
    served.unlink()
    with pytest.raises(DataError, match=r"root/tiny-imagenet-200, and downloading it failed: .*404.*Set the data root"):
        load(tmp_path / "root", tmp_path / "cache", download=True)


def test_a_zip_that_would_escape_is_refused_and_nothing_is_written(tmp_path, served, monkeypatch):
    with zipfile.ZipFile(served, "a") as content:
        content.writestr("../escaped.txt", "x")
    monkeypatch.setattr(module, "MD5", hashlib.md5(served.read_bytes()).hexdigest())
    with pytest.raises(DataError, match=r"'\.\./escaped\.txt' leads out of the folder"):
        load(tmp_path / "root", tmp_path / "cache", download=True)
    assert list((tmp_path / "root").iterdir()) == []
    assert not list(tmp_path.rglob("escaped.txt"))
