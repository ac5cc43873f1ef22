"""What a machine of a cluster must have in common with the command before it may train: the preflight.

Without the command's code a resubmitted run would silently begin again; where a lock excludes nobody, two machines
would train one run.
"""

import importlib.metadata
import os
import platform
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from dash_core.files import write_atomically


@dataclass(frozen=True)
class Question:
    """What a machine is asked. token: content of a file in the store. lock: a file that the command has locked.

    versions: those of the command, by name. device: of the runs, as settings name it. api: URL of the user's Prefect
    API; None if it is on this machine alone.
    """

    token_file: Path
    token: str
    lock: Path
    code: str
    versions: dict[str, str]
    device: str
    api: str | None = None


@dataclass(frozen=True)
class Answer:
    """What a machine answers. token: None if the file cannot be read, and then `reason` says why.

    excluded: whether the command's lock keeps this machine out; None if it could not be tried. device_name: of the
    runs' device, None if it has none. bf16: whether that device has instructions for it.
    """

    host: str
    token: str | None
    excluded: bool | None
    code: str
    versions: dict[str, str]
    device_type: str | None
    device_name: str | None
    bf16: bool
    api_answers: bool
    reason: str = ""


def versions() -> dict[str, str]:
    """Return what must be equal on all machines: dashpipe, torch, and Python without its patch level."""
    import torch

    with suppress(importlib.metadata.PackageNotFoundError):
        own = importlib.metadata.version("dashpipe")
        return {"dashpipe": own, "torch": torch.__version__, "Python": platform.python_version().rpartition(".")[0]}
    return {"torch": torch.__version__, "Python": platform.python_version().rpartition(".")[0]}


@contextmanager
def question_of(locks: Path, device: str, api: str | None) -> Iterator[Question]:
    """Yield the question, whose file is in the store and whose lock is held within the block. locks: a folder there."""
    from tasks.store.code import code_digest

    token = secrets.token_hex(16)
    name = f"preflight-{socket.gethostname()}-{os.getpid()}-{token[:8]}"
    token_file, lock = locks / f"{name}.txt", locks / f"{name}.lock"
    write_atomically(token_file, token.encode())
    try:
        with FileLock(lock, fallback_to_soft=False):
            yield Question(token_file, token, lock, code_digest(), versions(), device, api)
    finally:
        for path in (token_file, lock):
            with suppress(OSError):
                path.unlink(missing_ok=True)


def examine(question: Question) -> Answer:
    """Answer a question on this machine."""
    from dash_core.device import choose_device, describe_machine
    from dash_core.errors import ConfigError
    from dash_core.precision import has_bf16
    from tasks.store.code import code_digest

    try:
        token, reason = question.token_file.read_text(encoding="utf-8"), ""
    except (OSError, ValueError) as error:
        token, reason = None, str(error)
    excluded = _is_excluded(question.lock) if token == question.token else None
    try:
        device = choose_device(question.device)
        name, has = describe_machine(device, 1)["device"], has_bf16(device)
    except ConfigError:
        device, name, has = None, None, False
    return Answer(
        host=socket.gethostname(),
        token=token,
        excluded=excluded,
        code=code_digest(),
        versions=versions(),
        device_type=device and device.type,
        device_name=name,
        bf16=has,
        api_answers=question.api is not None and _answers(question.api),
        reason=reason,
    )


def fault_of(question: Question, answer: Answer) -> str | None:
    """Return why a machine may not train, and the remedy; None if it may."""
    store = question.token_file.parents[2]
    if answer.token != question.token:
        found = answer.reason or "another file is there"
        return (
            f"{answer.host} does not see the store {store} ({found}): put --store on a disk that all machines "
            "of the cluster mount at the same path"
        )
    if answer.excluded is False:
        return (
            f"a lock on {question.lock.parent} does not keep {answer.host} out, so two machines could train one run: "
            "mount the disk with locks that all machines share (NFS: without nolock and local_lock; Lustre: flock and "
            "not localflock), or put --store on another disk"
        )
    for name, version in question.versions.items():
        if (other := answer.versions.get(name)) != version:
            return (
                f"{answer.host} has {name} {other}, and this machine {version}: install the same environment on both, "
                "for example with `uv sync --frozen`"
            )
    if answer.code != question.code:
        return (
            f"{answer.host} has other training code ({answer.code[:10]}) than this machine ({question.code[:10]}), so "
            "runs would begin anew there: install the same version, or the same commit without changes, on both"
        )
    if answer.device_name is None:
        return (
            f"compare.device: {question.device} is not on {answer.host}: set compare.device=cpu, or another "
            "compare.cluster.gpus"
        )
    return None


def _is_excluded(lock: Path) -> bool:
    taken = FileLock(lock, fallback_to_soft=False)
    try:
        taken.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # a file system without locks
        return False
    taken.release()
    return False


def _answers(api: str) -> bool:
    from dash_core.errors import ConfigError
    from flows.services.prefect_health import check_health

    with suppress(ConfigError, OSError):
        check_health(api, 10.0)
        return True
    return False
