"""The result of a complete run: its final weights and result.json, which is written last and makes it complete."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors.torch import save as to_safetensors
from torch import Tensor

from dash_core.config import RunConfig
from dash_core.errors import RecordError
from dash_core.files import naming, write_atomically
from dash_core.records import read_records

WEIGHTS_FILE = "weights.safetensors"
RESULT_FILE = "result.json"
RESULT_KEYS = {"run", "digest", "split", "code", "precision", "weights_sha256"}  # the other keys are facts


def write_result(
    folder: Path,
    run: RunConfig,
    identity: Mapping[str, Any],
    model_state: Mapping[str, Tensor],
    facts: Mapping[str, Any],
) -> None:
    """Write the final weights, then the result.

    identity: digest of the chunk plan ("split") and of the code, and the precision. facts: hardware, versions, commit.
    """
    weights = write_weights(folder / WEIGHTS_FILE, run, model_state)
    result = {**identity, "run": run.id, "digest": run.digest, "weights_sha256": hashlib.sha256(weights).hexdigest()}
    write_atomically(folder / RESULT_FILE, (json.dumps({**result, **facts}, indent=2) + "\n").encode())


def write_weights(path: Path, run: RunConfig, model_state: Mapping[str, Tensor]) -> bytes:
    """Write a model's weights as safetensors, and return the file's content."""
    weights = to_safetensors(_apart(model_state), {"run": run.id})
    write_atomically(path, weights)
    return weights


def kept_weights_file(folder: Path, experiment: int) -> Path:
    """Return the file of the weights after an experiment that `compare.keep_weights` names."""
    return folder / f"weights-{experiment}.safetensors"


def _apart(model_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors on the CPU, copied where two share their memory, which safetensors refuses."""
    state: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model_state.items():
        tensor = tensor.contiguous().cpu()
        state[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return state


def remove_result(folder: Path) -> None:
    """Remove the result, so that the run is no longer complete."""
    (folder / RESULT_FILE).unlink(missing_ok=True)


def read_result(
    folder: Path, run: RunConfig, split: str | None = None, code: str | None = None
) -> dict[str, Any] | None:
    """Return the result of a complete run, or None if the run is not complete.

    RecordError if the file is damaged, or the weights are not those whose hash it holds. split: digest of the chunk
    plan that the run must have been trained on. code: digest of the code that must have trained it. None allows any.
    """
    path = folder / RESULT_FILE
    if not path.exists() or not (folder / WEIGHTS_FILE).exists():
        return None
    with naming(path):
        content = path.read_bytes()
    try:
        result = json.loads(content.decode())
        if not isinstance(result, dict) or not set(result) >= RESULT_KEYS:
            raise ValueError(f"it needs {', '.join(sorted(RESULT_KEYS))}")
        if not isinstance(result["weights_sha256"], str):
            raise ValueError("weights_sha256 is no text")
        belongs = result["digest"] == run.digest and split in (None, result["split"]) and code in (None, result["code"])
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is damaged ({error}); remove the run's folder to run it again") from None
    if not belongs or len(read_records(folder)) != run.experiment_count:
        return None
    _check_weights(folder, result)
    return result


def read_weights(folder: Path, result: Mapping[str, Any]) -> bytes:
    """Return the content of a complete run's weights; RecordError unless it has the hash in the run's result."""
    path = folder / WEIGHTS_FILE
    with naming(path):
        content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != result["weights_sha256"]:
        raise _damaged(path)
    return content


def _check_weights(folder: Path, result: Mapping[str, Any]) -> None:
    """Raise RecordError unless the run's weights have the hash in its result; an unchanged file is read once."""
    path = folder / WEIGHTS_FILE
    with naming(path):
        status = path.stat()
        digest = _digest_of_file(path, status.st_ino, status.st_size, status.st_mtime_ns)
    if digest != result["weights_sha256"]:
        raise _damaged(path)


@lru_cache(maxsize=4096)
def _digest_of_file(path: Path, inode: int, size: int, changed: int) -> str:
    """Return a file's SHA-256, computed again when its inode, size or time of change differ."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged(path: Path) -> RecordError:
    return RecordError(
        f"{path} is not what the run wrote: its SHA-256 is not that in {path.parent / RESULT_FILE}; "
        "remove the run's folder to run it again"
    )
