"""An exported model in MLflow's format: the files of the export, and what MLflow must know to load them.

The flavour `pytorch` is for `mlflow.pytorch.load_model`, the flavour `python_function` for `mlflow models serve`, batch
scoring and the registry's pages. Both load `data/model.pt2`, the exported graph itself, without our code. Beside it are
the card (`data/model.json`: classes, input, normalisation) and the golden batch (`data/golden.npz`).
"""

import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dash_core.exporting import CARD_FILE, GOLDEN_FILE, GRAPH_FILE, ModelCard, read_card

if TYPE_CHECKING:
    from mlflow.models import Model

DATA_FOLDER = "data"


def write_mlflow_model(export: Path, folder: Path, model: "Model") -> None:
    """Write an exported model as an MLflow model to the new folder `folder`. model: its description so far."""
    from mlflow import pyfunc
    from mlflow.models.model import MLMODEL_FILE_NAME
    from mlflow.pytorch import FLAVOR_NAME

    card, data = read_card(export), folder / DATA_FOLDER
    data.mkdir(parents=True)
    for name in (GRAPH_FILE, GOLDEN_FILE, CARD_FILE):
        shutil.copy(export / name, data)
    environment = _write_environment(folder)
    model.signature = _signature(card)
    model.metadata = {**(model.metadata or {}), **_metadata(card)}
    model.add_flavor(FLAVOR_NAME, model_data=DATA_FOLDER, pytorch_version=_torch_version(), code=None)
    pyfunc.add_to_model(
        model, loader_module="mlflow.pytorch", data=DATA_FOLDER, model_config={"device": "cpu"}, **environment
    )
    model.model_size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    model.save(str(folder / MLMODEL_FILE_NAME))


def _signature(card: ModelCard) -> Any:
    """Return the signature: uint8 images of any number and size in, a probability for each class out."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    images = TensorSpec(np.dtype(np.uint8), (-1, -1, -1, card.image_shape[0]))
    probabilities = TensorSpec(np.dtype(np.float32), (-1, len(card.class_names)))
    return ModelSignature(Schema([images]), Schema([probabilities]))


def _metadata(card: ModelCard) -> Mapping[str, Any]:
    return {"class_names": list(card.class_names), "image_shape": list(card.image_shape)}


def _write_environment(folder: Path) -> dict[str, str]:
    """Write the requirements in the three forms that MLflow reads, and return the files of the last two by name."""
    requirements = _requirements()
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n")
    python = platform.python_version()
    files = {
        "python_env": {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]},
        "conda_env": {
            "channels": ["conda-forge"],
            "dependencies": [f"python={python}", "pip", {"pip": requirements}],
            "name": "mlflow-env",
        },
    }
    names = {"python_env": "python_env.yaml", "conda_env": "conda.yaml"}
    for kind, content in files.items():
        (folder / names[kind]).write_text(yaml.safe_dump(content, sort_keys=False))
    return names


def _requirements() -> list[str]:
    import mlflow
    import numpy as np

    return [f"mlflow=={mlflow.__version__}", f"numpy=={np.__version__}", f"torch=={_torch_version()}"]


def _torch_version() -> str:
    import torch

    return torch.__version__.split("+")[0]  # the public version: the build is the machine's
