"""The result of a complete run: its final weights and result.json, which is written last and makes it complete."""

import hashlib
import json
from collections.abc import Mapping
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
    state = {name: tensor.contiguous().cpu() for name, tensor in model_state.items()}
    weights = to_safetensors(state, {"run": run.id})
    write_atomically(folder / WEIGHTS_FILE, weights)
    result = {**identity, "run": run.id, "digest": run.digest, "weights_sha256": hashlib.sha256(weights).hexdigest()}
    write_atomically(folder / RESULT_FILE, (json.dumps({**result, **facts}, indent=2) + "\n").encode())


def remove_result(folder: Path) -> None:
    """Remove the result, so that the run is no longer complete."""
    (folder / RESULT_FILE).unlink(missing_ok=True)


def read_result(
    folder: Path, run: RunConfig, split: str | None = None, code: str | None = None
) -> dict[str, Any] | None:
    """Return the result of a complete run, or None if the run is not complete. RecordError if the file is damaged.

    split: digest of the chunk plan that the run must have been trained on. code: digest of the code that must have
    trained it. None allows any.
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
        belongs = result["digest"] == run.digest and split in (None, result["split"]) and code in (None, result["code"])
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is damaged ({error}); remove the run's folder to run it again") from None
    return result if belongs and len(read_records(folder)) == run.experiment_count else None
