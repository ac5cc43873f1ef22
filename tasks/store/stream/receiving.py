"""Receive a delivery: read its files, divide its images, write its chunk and hold-out, then its entry in the ledger.

Files are written before the entry. Files of which no entry speaks are removed by the next pass, which receives the
delivery again: it is read from the inbox, where nothing is changed.
"""

import io
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from dash_core.data.arrived import (
    CHUNKS,
    HELD_OUT,
    Arrived,
    held_digest,
    read_arrived,
    write_arrived,
)
from dash_core.data.image_file import decode, opened
from dash_core.data.image_folder import SUFFIXES
from dash_core.data.image_folder import UNREADABLE as PHOTOS
from dash_core.device import usable_cores
from dash_core.errors import DataError
from dash_core.files import naming
from dash_core.stream import guards
from dash_core.stream.chain import BEGINNING, chained
from dash_core.stream.contract import Contract
from dash_core.stream.guards import Candidates, KnownImages, divide
from dash_core.stream.identities import arrival_digest, file_id, image_id
from dash_core.stream.prints import image_print
from dash_core.stream.state import StreamState
from tasks.store.stream.folder import StreamFolder
from tasks.store.stream.inbox import Delivery, Item
from tasks.store.stream.ledger import Ledger
from tasks.store.stream.quarantine import SetAside, keep_aside

logger = logging.getLogger(__name__)
GREY_MODES = ("1", "L", "LA")
ZEROS = 2**20  # bytes that are written at a time
FILES_AHEAD = 256  # that are read and decoded before their pixels are stored


@dataclass
class Received:
    """What a delivery holds: decoded images in a scratch file, and what could not be read."""

    images: np.ndarray
    files: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    ids: list[bytes] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    prints: list[int] = field(default_factory=list)
    constant: list[bool] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    set_aside: list[SetAside] = field(default_factory=list)


def receive(stream: StreamFolder, ledger: Ledger, contract: Contract, delivery: Delivery) -> StreamState:
    """Take a complete delivery into the stream, and return the new state; nothing is written if it is known."""
    state = stream.state(ledger)
    scratch = stream.cache / "receiving.pixels"
    scratch.parent.mkdir(parents=True, exist_ok=True)
    try:
        received = _read_all(delivery, contract, scratch)
        mark = [("accepted", "")] if delivery.accepted else []  # or it would be the arrival it was set aside from
        digest = arrival_digest(received.pairs + mark)
        entry: dict = {"digest": digest, "source": delivery.source[:100]}
        same = [arrival for arrival in state.arrivals if arrival.digest == digest]
        if any(arrival.source == entry["source"] for arrival in same):
            return state  # it is recorded: only its times have changed, or a killed pass did not note that it is
        if any(arrival.retracted is None for arrival in same):
            entry["outcome"] = "duplicate"
        else:
            entry |= _admit(stream, state, contract, received, delivery, digest)
        ledger.append("arrival", arrival=entry)
        return stream.state(ledger)
    finally:
        scratch.unlink(missing_ok=True)


def _admit(
    stream: StreamFolder, state: StreamState, contract: Contract, received: Received, delivery: Delivery, digest: str
) -> dict:
    """Write chunk, hold-out and what is set aside; return the arrival's entry."""
    candidates = Candidates(
        received.ids,
        np.array(received.labels, dtype=np.int64),
        received.keys,
        np.array(received.prints, dtype=np.uint64),
        np.array(received.constant, dtype=bool),
        delivery.accepted,
    )
    division = divide(candidates, known_images(stream, state), contract.hold_out.salt, contract.hold_out.share)
    for row, reason in division.set_aside.items():
        received.set_aside.append(SetAside(received.items[row], reason))
    keep_aside(stream, digest, delivery.path, received.set_aside)
    ids = np.frombuffer(b"".join(received.ids), dtype=np.uint8).reshape(-1, 32)
    about = {"classes": list(contract.classes), "mean": list(contract.mean), "std": list(contract.std)}
    arrived = Arrived(received.images, candidates.labels, ids, candidates.prints, received.files, about)
    entry: dict = {"outcome": "admitted" if len(division.train) or len(division.held_out) else "set aside"}
    if entry["outcome"] == "set aside" and not received.set_aside:
        entry["outcome"] = "duplicate"  # every image is known already
    if len(division.held_out):
        pairs = [(received.ids[row], received.labels[row]) for row in division.held_out.tolist()]
        held = held_digest(pairs)
        number = len(state.arrivals) + 1
        part = Arrived(arrived.images, arrived.labels, ids, arrived.prints, arrived.files, about | {"number": number})
        write_arrived(stream.numbered(HELD_OUT, number, held), part, division.held_out)
        entry |= {"held_out": len(division.held_out), "held_digest": held}
    if len(division.train):
        chunks = state.chunks
        previous = chunks[-1].chain if chunks else BEGINNING
        number = len(chunks) + 1
        chain = chained(previous, ((received.ids[row], received.labels[row]) for row in division.train.tolist()))
        part = Arrived(
            arrived.images, arrived.labels, ids, arrived.prints, arrived.files,
            about | {"number": number, "previous": previous},
        )  # fmt: skip
        write_arrived(stream.numbered(CHUNKS, number, chain), part, division.train)
        entry |= {"train": len(division.train), "chunk": number, "chain": chain}
    if len(division.known):
        entry["known"] = len(division.known)
    if received.set_aside:
        entry["set_aside"] = dict(sorted(Counter(one.reason for one in received.set_aside).items()))
    return entry


def _read_all(delivery: Delivery, contract: Contract, scratch: Path) -> Received:
    """Read every file of a delivery in its order; decoded pixels go to a scratch file, which may exceed the memory."""
    side, channels = contract.image_size, contract.channels
    shape = (max(len(delivery.items), 1), side, side, channels)
    _reserve(scratch, int(np.prod(shape)))
    images = np.memmap(scratch, dtype=np.uint8, mode="r+", shape=shape)
    received = Received(images)
    group = contract.hold_out.group
    for item, pixels, content_id, reason in _decoded(delivery, contract):
        received.pairs.append((content_id, item.label or ""))
        if reason or pixels is None:
            received.set_aside.append(SetAside(item, reason))
            continue
        row = len(received.files)
        images[row] = pixels
        received.files.append(item.file)
        received.items.append(item)
        received.labels.append(contract.classes.index(item.label))
        received.ids.append(bytes.fromhex(content_id))
        received.keys.append(_key(item, group, content_id))
        received.prints.append(image_print(pixels))
        received.constant.append(bool(pixels.max() == pixels.min()))
    received.images = images[: len(received.files)]
    return received


def _reserve(file: Path, size: int) -> None:
    """Make a file of zeros whose space is reserved: writing to a mapped file on a full disk would kill the process."""
    with naming(file), file.open("wb") as out:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(out.fileno(), 0, size)
            return
        for start in range(0, size, ZEROS):
            out.write(bytes(min(ZEROS, size - start)))


def _key(item: Item, pattern: str | None, content_id: str) -> str:
    """Return what decides an image's side: its group, or itself."""
    import re

    if item.group:
        return f"group {item.group}"
    if pattern and (found := re.search(pattern, item.file)):
        return f"group {found.group(1) if found.groups() else found.group(0)}"
    return content_id


def _decoded(delivery: Delivery, contract: Contract) -> Iterator[tuple[Item, np.ndarray | None, str, str]]:
    """Yield each file with its pixels and identity, or with the reason why it is set aside; threads read ahead."""
    items, root = list(delivery.items), os.path.realpath(delivery.path)
    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="decode") as threads:
        for start in range(0, len(items), FILES_AHEAD):
            part = items[start : start + FILES_AHEAD]
            yield from threads.map(lambda item: (item, *_read(delivery, item, contract, root)), part)


def _read(delivery: Delivery, item: Item, contract: Contract, root: str) -> tuple[np.ndarray | None, str, str]:
    """Return pixels, identity and, if the file is set aside, the reason. DataError if the file changes meanwhile.

    root: the delivery's folder without links, which the file must not lead out of.
    """
    path = delivery.path / item.file
    if os.path.islink(path) or not Path(os.path.realpath(path)).is_relative_to(root):
        return None, file_id(os.fsencode(item.file)), guards.LINK
    try:
        content = path.read_bytes()
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; the delivery is taken when it is whole") from None
    if (status.st_size, status.st_mtime_ns) != item.stamp[:2]:
        raise DataError(f"{path}: changed while it was read; the delivery is taken when it is whole")
    identity = file_id(content)
    if item.sha256 and identity != f"file:{item.sha256.lower()}":
        return None, identity, guards.CHANGED
    suffix = path.suffix.lower()
    if suffix in PHOTOS:
        return None, identity, guards.UNSUPPORTED
    if suffix and suffix not in SUFFIXES:
        return None, identity, guards.NO_IMAGE
    try:
        pixels, reason = _pixels(content, contract)
    except DataError:
        return None, identity, guards.UNREADABLE
    if pixels is None:
        return None, identity, reason
    if item.label is None:
        return None, image_id(pixels), guards.NO_LABEL
    if item.label not in contract.classes:
        return None, image_id(pixels), guards.UNKNOWN_CLASS
    return pixels, image_id(pixels), ""


def _pixels(content: bytes, contract: Contract) -> tuple[np.ndarray | None, str]:
    """Return the pixels as the contract wants them, or the reason why they do not fit."""
    with opened(io.BytesIO(content)) as image:
        mode, palette = image.mode, image.mode == "P"
        if contract.channels == 1 and mode not in GREY_MODES and not (palette and _is_grey(image)):
            return None, guards.COLOUR
    size = contract.image_size if contract.resize else None
    pixels = decode(io.BytesIO(content), contract.channels == 1, size, contract.background)
    if pixels.shape != (contract.image_size, contract.image_size, contract.channels):
        return None, guards.WRONG_SHAPE
    return pixels, ""


def _is_grey(image: Image.Image) -> bool:
    colours = np.asarray(image.convert("RGB"))
    return bool((colours == colours[..., :1]).all())


def known_images(stream: StreamFolder, state: StreamState) -> KnownImages:
    """Return the images of all chunks and hold-outs that are in use; those of retracted deliveries may come again."""
    labels: dict[bytes, int] = {}
    prints: dict[str, list[np.ndarray]] = {CHUNKS: [], HELD_OUT: []}
    used = [arrival for arrival in state.arrivals if arrival.retracted is None]
    files = [(CHUNKS, stream.numbered(CHUNKS, one.chunk, one.chain)) for one in used if one.chunk is not None]
    files += [(HELD_OUT, stream.numbered(HELD_OUT, one.number, one.held_digest)) for one in used if one.held_out]
    for kind, file in files:
        part = read_arrived(file)
        labels.update(part.pairs)
        prints[kind].append(part.prints)
    empty = [np.empty(0, np.uint64)]
    return KnownImages(labels, *(np.concatenate(empty + found) for found in prints.values()))


def remove_unrecorded(stream: StreamFolder, state: StreamState) -> None:
    """Remove what a killed pass left: chunks, hold-outs, models and what was set aside, of which no entry speaks."""
    wanted = {stream.numbered(CHUNKS, one.chunk, one.chain) for one in state.chunks}
    wanted |= {stream.numbered(HELD_OUT, one.number, one.held_digest) for one in state.arrivals if one.held_out}
    for kind in (CHUNKS, HELD_OUT):
        for file in [*(stream.path / kind).glob("*.safetensors"), *(stream.path / kind).glob(".*.tmp")]:
            if file not in wanted:
                file.unlink()
    recorded: Sequence[tuple[Path, set[str]]] = (
        (stream.models, set(state.models)),
        (stream.quarantine, {arrival.digest[:12] for arrival in state.arrivals}),
    )
    for folder, names in recorded:
        for path in folder.glob("*"):
            if path.is_dir() and path.name not in names:
                shutil.rmtree(path)
