"""mnist, fashion_mnist, cifar10, cifar100, svhn: torchvision's files, addresses, checksums and readers.

The data root is torchvision's root: data_root/MNIST/raw, data_root/cifar-10-batches-py, data_root/train_32x32.mat.
If the files exist, nothing is written there.
"""

import contextlib
import gzip
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from dash_core.config import DatasetConfig
from dash_core.data import normalisation
from dash_core.data.cache import Source, file_identity
from dash_core.data.download import fetch_from_any, md5_of
from dash_core.data.imageset import Dataset, ImageSet
from dash_core.data.progress import ProgressCallback
from dash_core.data.torchvision_files import FILES, Download, family
from dash_core.errors import DataError
from dash_core.files import replaced_when_done


def open_torchvision_set(config: DatasetConfig, data_root: Path, download: bool, progress: ProgressCallback) -> Source:
    """Find the dataset's files under `data_root`; download those that are missing."""
    files = [data_root / file for file in FILES[config.name]]
    if not all(file.is_file() for file in files):
        _provide(config.name, data_root, download, progress)
    return Source(file_identity(data_root, files), lambda: _decode(config.name, data_root, progress))


def _decode(name: str, data_root: Path, progress: ProgressCallback) -> Dataset:
    """Read both splits; torchvision checks the MD5 of the files first."""
    known = family(name)
    progress(f"reading {name}", 0, 1)
    try:
        train, test, class_names = known.read(known.kind, data_root)
    except RuntimeError as error:
        raise _damage(name, data_root, error) from error
    progress(f"reading {name}", 1, 1)
    names = tuple(class_names)
    statistics = normalisation.CIFAR10 if name == "cifar10" else normalisation.channel_statistics(train[0])
    try:
        return Dataset(name, ImageSet(*train, names, *statistics), ImageSet(*test, names, *statistics))
    except DataError as error:
        places = ", ".join(sorted({str((data_root / file).parent) for file in FILES[name]}))
        raise DataError(f"{places}: the files of {name} do not fit together ({error}); load them again") from error


def _damage(name: str, data_root: Path, error: RuntimeError) -> DataError:
    """Return an error that names the damaged file, since torchvision does not name it."""
    known = family(name)
    files = {data_root / file: md5 for item in known.downloads(known.kind) for file, md5 in item.files.items()}
    for file, md5 in files.items():
        if md5 is not None and md5_of(file) != md5:
            return DataError(f"{file}: damaged, its MD5 is not {md5}; delete it and load it again")
    return DataError(f"{name}: torchvision cannot read {', '.join(map(str, files))} ({error}); load them again")


def _provide(name: str, data_root: Path, download: bool, progress: ProgressCallback) -> None:
    """Download the missing files; each appears in its place only when it is whole."""
    known = family(name)
    missing = [file for file in FILES[name] if not (data_root / file).is_file()]
    if not missing:
        return  # another command has just downloaded them
    absent = [item for item in known.downloads(known.kind) if not set(missing).isdisjoint(item.files)]
    remedy = f"Set the data root to the folder that holds {missing[0]}, or load {name} once on a machine with a network"
    if not download:
        raise DataError(f"{name}: no {', '.join(missing)} in {data_root}, and downloads are off. {remedy}")
    try:
        data_root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=data_root, prefix=".download-") as temporary:
            for item in absent:
                archive = Path(temporary, item.name)
                fetch_from_any(item.urls, archive, item.md5, progress)
                _unpack(item, archive, data_root)
    except (DataError, OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{name}: not found in {data_root}, and downloading it failed: {error}. {remedy}") from error


def _unpack(item: Download, archive: Path, data_root: Path) -> None:
    """Put the missing files of a download in their places; only the named members are read."""
    with contextlib.ExitStack() as stack:
        member = _opener(archive, stack)
        for file in item.files:
            if (data_root / file).is_file():
                continue
            with (
                member(file) as source,
                replaced_when_done(data_root / file) as unfinished,
                unfinished.open("xb") as target,
            ):
                shutil.copyfileobj(source, target)


def _opener(archive: Path, stack: contextlib.ExitStack) -> Callable[[str], IO[bytes]]:
    """Return a function that opens a member of a .tar.gz by name, the content of a .gz, or the file itself."""
    if archive.name.endswith(".tar.gz"):
        tar = stack.enter_context(tarfile.open(archive))  # noqa: SIM115
        return lambda file: tar.extractfile(tar.getmember(file))
    if archive.name.endswith(".gz"):
        return lambda file: gzip.open(archive, "rb")
    return lambda file: archive.open("rb")
