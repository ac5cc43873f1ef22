import gzip
import hashlib
import io
import pickle
import struct
import tarfile

import numpy as np
import pytest
import scipy.io
import torch
from torchvision import datasets

from dash_core.config import DatasetConfig
from dash_core.data import download, load_dataset, torchvision_sets
from dash_core.data.normalisation import channel_statistics
from dash_core.data.torchvision_files import FILES, family
from dash_core.errors import DataError

MNISTS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
RANDOM = np.random.default_rng(0)


def load(name, root, **options):
    return load_dataset(DatasetConfig(name=name), data_root=root, cache=root.parent / "cache", **options)


def md5(content):
    return hashlib.md5(content).hexdigest()


def idx_files(images=6):
    """Content of MNIST's four idx files, with few images."""
    pixels = RANDOM.integers(0, 256, (images, 28, 28), dtype=np.uint8)
    image_file = struct.pack(">IIII", 0x803, images, 28, 28) + pixels.tobytes()
    label_file = struct.pack(">II", 0x801, images) + bytes(range(images))
    return dict(zip(IDX, [image_file, label_file] * 2, strict=True)), pixels


@pytest.fixture
def mnist(tmp_path):
    def write(folder):
        files, pixels = idx_files()
        raw = tmp_path / "root" / folder / "raw"
        raw.mkdir(parents=True)
        for name, content in files.items():
            (raw / name).write_bytes(content)
        return tmp_path / "root", pixels

    return write


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Write a few images in CIFAR's layout and have torchvision expect their checksums."""

    def write(kind, label_key, names_key, classes):
        folder = tmp_path / "root" / kind.base_folder
        folder.mkdir(parents=True)
        for listing in ("train_list", "test_list"):
            listed = []
            for name, _ in getattr(kind, listing):
                pixels = RANDOM.integers(0, 256, (2, 3072), dtype=np.uint8)
                content = pickle.dumps({"data": pixels, label_key: [0, classes - 1]})
                (folder / name).write_bytes(content)
                listed.append([name, md5(content)])
            monkeypatch.setattr(kind, listing, listed)
        content = pickle.dumps({names_key: [f"name {index}" for index in range(classes)]})
        (folder / kind.meta["filename"]).write_bytes(content)
        monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5(content)})
        return tmp_path / "root"

    return write


@pytest.fixture
def svhn(tmp_path, monkeypatch):
    root = tmp_path / "root"
    root.mkdir()
    listed = dict(datasets.SVHN.split_list)
    for split in ("train", "test"):
        url, name, _ = listed[split]
        pixels = RANDOM.integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
        scipy.io.savemat(root / name, {"X": pixels, "y": np.array([[10], [1], [9], [10]], dtype=np.uint8)})
        listed[split] = [url, name, md5((root / name).read_bytes())]
    monkeypatch.setattr(datasets.SVHN, "split_list", listed)
    return root


@pytest.mark.parametrize("name", MNISTS)
def test_mnist_and_fashion_mnist_are_read_from_their_idx_files(mnist, name):
    root, pixels = mnist(MNISTS[name])
    found = load(name, root, download=False)
    assert torch.equal(found.train.images, torch.from_numpy(pixels).unsqueeze(3))
    assert found.train.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert found.train.classes == 10
    assert (found.train.mean, found.train.std) == channel_statistics(found.train.images)


@pytest.mark.parametrize("file", IDX)
def test_a_damaged_idx_file_is_named(mnist, file):
    root, _ = mnist("MNIST")
    path = root / "MNIST" / "raw" / file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"MNIST/raw/{file}: damaged"):
        load("mnist", root, download=False)


@pytest.mark.parametrize("content", [b"", b"\0" * 40, struct.pack(">II", 0x801, 2) + b"\x63\x01"], ids=range(3))
def test_idx_files_that_cannot_be_are_refused(mnist, content):
    root, _ = mnist("MNIST")
    (root / "MNIST" / "raw" / IDX[1]).write_bytes(content)
    with pytest.raises(DataError, match="MNIST/raw"):
        load("mnist", root, download=False)


def test_cifar10_is_read_with_the_papers_normalisation(cifar):
    root = cifar(datasets.CIFAR10, "labels", "label_names", 10)
    found = load("cifar10", root, download=False)
    assert found.train.images.shape == (10, 32, 32, 3)
    assert found.test.labels.tolist() == [0, 9]
    assert found.train.class_names[1] == "name 1"
    assert found.train.mean == (0.4914, 0.4822, 0.4465)
    assert found.train.std == (0.2023, 0.1994, 0.2010)


def test_cifar_pixels_stand_where_they_belong(cifar):
    root = cifar(datasets.CIFAR10, "labels", "label_names", 10)
    stored = pickle.loads((root / "cifar-10-batches-py" / "data_batch_1").read_bytes())["data"]
    found = load("cifar10", root, download=False)
    assert found.train.images[0, 2, 5, 1] == stored[0, 1 * 1024 + 2 * 32 + 5]


def test_cifar100_has_its_fine_classes(cifar):
    root = cifar(datasets.CIFAR100, "fine_labels", "fine_label_names", 100)
    found = load("cifar100", root, download=False)
    assert found.train.classes == 100
    assert found.train.labels.tolist() == [0, 99]


def test_a_damaged_cifar_file_is_named_and_never_unpickled(cifar):
    root = cifar(datasets.CIFAR10, "labels", "label_names", 10)
    damaged = root / "cifar-10-batches-py" / "data_batch_3"
    damaged.write_bytes(pickle.dumps(Explosive()))
    with pytest.raises(DataError, match=r"data_batch_3: damaged, its MD5 is not"):
        load("cifar10", root, download=False)


class Explosive:
    def __reduce__(self):
        return pytest.fail, ("a damaged file was unpickled",)


def test_svhn_calls_the_digit_zero_class_zero(svhn):
    found = load("svhn", svhn, download=False)
    assert found.train.labels.tolist() == [0, 1, 9, 0]
    stored = scipy.io.loadmat(svhn / "train_32x32.mat")["X"]
    assert found.train.images[3, 4, 5, 2] == stored[4, 5, 2, 3]


def test_a_damaged_svhn_file_is_named(svhn):
    (svhn / "test_32x32.mat").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"test_32x32\.mat: damaged"):
        load("svhn", svhn, download=False)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100", "svhn"])
def test_absent_and_offline_names_the_folder_and_the_remedy(tmp_path, name):
    with pytest.raises(DataError, match=rf"{name}: no .* in {tmp_path}/none, and downloads are off"):
        load(name, tmp_path / "none", download=False)
    assert not (tmp_path / "none").exists()


def test_nothing_is_written_where_the_data_are(svhn):
    before = {entry: entry.stat() for entry in [svhn, *svhn.rglob("*")]}
    load("svhn", svhn, download=True)
    after = {entry: entry.stat() for entry in [svhn, *svhn.rglob("*")]}
    assert [(entry, status.st_mtime_ns) for entry, status in before.items()] == [
        (entry, status.st_mtime_ns) for entry, status in after.items()
    ]


@pytest.fixture
def internet(monkeypatch):
    """Stand in for the network: addresses and what they give."""
    pages: dict[str, bytes] = {}

    def fetch(url, file, md5, progress):
        if url not in pages:
            raise DataError(f"{url} could not be downloaded (no such host)")
        file.write_bytes(pages[url])
        if download.md5_of(file) != md5:
            raise DataError(f"{url} damaged")

    monkeypatch.setattr(download, "fetch", fetch)
    return pages


def test_cifar_is_downloaded_and_only_its_named_members_unpacked(cifar, internet, monkeypatch):
    root = cifar(datasets.CIFAR10, "labels", "label_names", 10)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(root / "cifar-10-batches-py", "cifar-10-batches-py")
        tar.addfile(tarfile.TarInfo("../escaped"), io.BytesIO())
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(packed.getvalue()))
    internet[datasets.CIFAR10.url] = packed.getvalue()
    fresh = root.parent / "deep" / "fresh"
    found = load("cifar10", fresh)
    assert found.train.digest == load("cifar10", root, download=False).train.digest
    assert [entry.name for entry in fresh.iterdir()] == ["cifar-10-batches-py"]
    assert not (fresh.parent / "escaped").exists()


def test_mnist_is_downloaded_from_the_second_mirror_where_the_first_fails(tmp_path, internet, monkeypatch):
    files, pixels = idx_files()
    packed = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    monkeypatch.setattr(datasets.MNIST, "resources", [(name, md5(content)) for name, content in packed.items()])
    internet.update({datasets.MNIST.mirrors[1] + name: content for name, content in packed.items()})
    found = load("mnist", tmp_path / "root")
    assert torch.equal(found.train.images[..., 0], torch.from_numpy(pixels))
    assert sorted(entry.name for entry in (tmp_path / "root").rglob("*") if entry.is_file()) == sorted(IDX)


def test_only_the_missing_file_is_downloaded(svhn, internet):
    url, name, _ = datasets.SVHN.split_list["test"]
    internet[url] = (svhn / name).read_bytes()
    (svhn / name).unlink()
    assert len(load("svhn", svhn).test) == 4


def test_files_that_another_command_brings_meanwhile_are_not_downloaded(svhn, internet, monkeypatch):
    content = (svhn / "test_32x32.mat").read_bytes()
    (svhn / "test_32x32.mat").unlink()

    def importing_torchvision(name):
        (svhn / "test_32x32.mat").write_bytes(content)
        return family(name)

    monkeypatch.setattr(torchvision_sets, "family", importing_torchvision)
    assert len(load("svhn", svhn).test) == 4


@pytest.mark.parametrize("name", ["mnist", "cifar100", "svhn"])
def test_a_failed_download_names_folder_reason_and_remedy(tmp_path, internet, name):
    with pytest.raises(DataError, match=rf"(?s){name}: not found in .*root, .*no such host.*Set the data root"):
        load(name, tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_every_torchvision_set_says_where_its_files_are_had():
    assert set(FILES) == {"mnist", "fashion_mnist", "cifar10", "cifar100", "svhn"}
    for name in FILES:
        known = torchvision_sets.family(name)
        for item in known.downloads(known.kind):
            assert all(url.startswith("http") for url in item.urls)
            assert len(item.md5) == 32
        assert [file for item in known.downloads(known.kind) for file in item.files] == list(FILES[name])
