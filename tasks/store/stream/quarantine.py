"""What was set aside: a copy of each file with its reason, and a person's decisions on it.

A file is called `<first digits of its arrival>/<number>`. A person accepts it, with another label if need be, or
rejects it. Accepted files form a new delivery in the stream's folder `accepted/`, which the next pass receives.
"""

import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dash_core.errors import ConfigError
from dash_core.files import naming, sync, write_atomically
from dash_core.stream.state import StreamState
from tasks.store.stream.folder import StreamFolder
from tasks.store.stream.inbox import Item
from tasks.store.stream.ledger import Ledger

REASONS_FILE = "images.jsonl"
ACCEPTED, REJECTED = "accepted", "rejected"
SHORT = 12  # digits of an arrival's digest in names


@dataclass(frozen=True)
class SetAside:
    """A file that is not used, and why."""

    item: Item
    reason: str


@dataclass(frozen=True)
class Undecided:
    """A file that was set aside. name: what a person calls it by; copy: where its bytes are, None for a link."""

    name: str
    file: str
    label: str | None
    group: str | None
    reason: str
    copy: Path | None
    decision: str | None = None


def keep_aside(stream: StreamFolder, arrival: str, source: Path, files: Sequence[SetAside]) -> None:
    """Copy the files and their reasons to the quarantine; links are named and not followed."""
    if not files:
        return
    folder = stream.quarantine / arrival[:SHORT]
    unfinished = stream.cache / f"quarantine.{secrets.token_hex(4)}"
    with naming(folder):
        unfinished.mkdir(parents=True)
        try:
            lines = []
            for number, one in enumerate(files, start=1):
                path = source / one.item.file
                copy = None
                if not path.is_symlink():
                    copy = f"{number}{_suffix(path)}"
                    shutil.copyfile(path, unfinished / copy, follow_symlinks=False)
                    sync(unfinished / copy)
                about = {"file": one.item.file, "label": one.item.label, "group": one.item.group}
                lines.append(json.dumps({"number": number, **about, "reason": one.reason, "copy": copy}))
            write_atomically(unfinished / REASONS_FILE, ("\n".join(lines) + "\n").encode())
            shutil.rmtree(folder, ignore_errors=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            os.replace(unfinished, folder)
            sync(folder.parent)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    return suffix if len(suffix) <= 8 and suffix[1:].isalnum() else ""


def set_aside(stream: StreamFolder, state: StreamState) -> list[Undecided]:
    """Return everything that was set aside, oldest first, with the decisions on it."""
    found = []
    for arrival in state.arrivals:
        folder = stream.quarantine / arrival.digest[:SHORT]
        if not arrival.set_aside or not (folder / REASONS_FILE).exists():
            continue
        for line in (folder / REASONS_FILE).read_text(encoding="utf-8").splitlines():
            content = json.loads(line)
            name = f"{arrival.digest[:6]}/{content.pop('number')}"
            copy = content.pop("copy")
            path = folder / copy if copy else None
            found.append(Undecided(name=name, copy=path, decision=state.decided.get(name), **content))
    return found


def decide(
    stream: StreamFolder, ledger: Ledger, accept: Sequence[str], reject: Sequence[str], labels: Mapping[str, str]
) -> int:
    """Record a person's decisions; accepted files become a delivery, with the given labels. Return how many were.

    accept, reject: names, or "all" for everything undecided. ConfigError for unknown names and classes.
    """
    state = stream.state(ledger)
    by_name = {one.name: one for one in set_aside(stream, state)}
    undecided = [name for name, one in by_name.items() if one.decision is None]
    accept = undecided if list(accept) == ["all"] else list(dict.fromkeys([*accept, *labels]))
    reject = [name for name in undecided if name not in accept] if list(reject) == ["all"] else list(reject)
    for name in [*accept, *reject]:
        if name not in by_name:
            raise ConfigError(f"{name!r} was not set aside; `dashpipe stream quarantine {stream.name}` lists the names")
        if by_name[name].decision == ACCEPTED:
            raise ConfigError(f"{name} was accepted already")
    if both := sorted(set(accept) & set(reject)):
        raise ConfigError(f"{both[0]} is both accepted and rejected: decide")
    chosen = [replace(by_name[name], label=labels.get(name, by_name[name].label)) for name in accept]
    for one in chosen:
        if one.copy is None:
            raise ConfigError(f"{one.name} is a link, which is never followed: deliver the file itself")
        if one.label not in state.contract["classes"]:
            known = ", ".join(state.contract["classes"])
            raise ConfigError(
                f"{one.name}: {one.label!r} is no class of this stream ({known}): give one, --label {one.name}=CLASS, "
                f"or add it with `dashpipe stream add-class {stream.name} {one.label}`"
            )
    if chosen:
        _deliver(stream, len(state.decided) + 1, chosen)
    if accept or reject:
        ledger.append("decided", images={name: ACCEPTED for name in accept} | {name: REJECTED for name in reject})
    return len(chosen)


def _deliver(stream: StreamFolder, number: int, chosen: Sequence[Undecided]) -> None:
    """Make a delivery of the chosen files, with a manifest, which is written last."""
    folder = stream.accepted / f"accepted-{number:04d}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lines = []
    for one in chosen:
        name = one.name.replace("/", "-") + one.copy.suffix
        shutil.copyfile(one.copy, folder / name)
        sync(folder / name)
        size = (folder / name).stat().st_size
        lines.append(json.dumps({"file": name, "label": one.label, "group": one.group, "size": size}))
    write_atomically(folder / "manifest.jsonl", ("\n".join(lines) + "\n").encode())
