"""The code that decides a run's result: runs are trained again when it changes, and not when other code changes."""

import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
TRAINING_CODE = (  # the stage `train` of dvc.yaml depends on the same; a test derives both from the imports
    "dash_core/augmentation.py",
    "dash_core/beginnings.py",
    "dash_core/checkpoint.py",
    "dash_core/config.py",
    "dash_core/convolution",
    "dash_core/cost.py",
    "dash_core/data",
    "dash_core/device.py",
    "dash_core/diagnostics",
    "dash_core/evaluation.py",
    "dash_core/flops.py",
    "dash_core/interventions",
    "dash_core/learner.py",
    "dash_core/loading.py",
    "dash_core/loss.py",
    "dash_core/memory.py",
    "dash_core/models",
    "dash_core/optim",
    "dash_core/parallel",
    "dash_core/penalties.py",
    "dash_core/precision.py",
    "dash_core/protocols.py",
    "dash_core/recipes.py",
    "dash_core/records.py",
    "dash_core/result.py",
    "dash_core/run_images.py",
    "dash_core/run_state.py",
    "dash_core/section.py",
    "dash_core/seeding.py",
    "dash_core/shrinking",
    "dash_core/stream/chain.py",
    "dash_core/stream/identities.py",
    "dash_core/stream/sides.py",
    "dash_core/training.py",
    "dash_core/trajectory.py",
    "dash_core/transforms.py",
    "tasks/store/datasets.py",
    "tasks/steps.py",
    "flows/experiment.py",
)


@cache
def code_digest() -> str:
    """Return the SHA-256 of the code that decides a run's result, as that code was at the first call."""
    digest = hashlib.sha256()
    for part in TRAINING_CODE:
        for path in sorted((ROOT / part).rglob("*.py")) or [ROOT / part]:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(ROOT).as_posix()}:{len(content)}:".encode() + content)
    return digest.hexdigest()
