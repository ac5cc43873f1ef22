"""Our functions give what the authors' own give, to 1e-12 in float64."""

import pytest
import torch
from torch.nn import functional

from dash_core import SAM, dash_, l2_init_penalty_authors
from tests import golden

pytestmark = pytest.mark.processor

EXACT = {"rtol": 0, "atol": 1e-12}


@pytest.mark.parametrize("micro_batch_size", [None, 7])
@pytest.mark.parametrize(
    ("name", "network"),
    [("dash_cnn_a0.3_l0.3", golden.cnn), ("dash_cnn_a0.3_l0.05", golden.cnn), ("dash_mlp_a0.3_l0.1", golden.mlp)],
)
def test_dash_gives_the_weights_of_the_authors_function(name, network, micro_batch_size):
    tensors = golden.load(name)
    model = network()
    model.load_state_dict(golden.state(tensors, "before"))
    size = int(tensors["batch_size"])
    chunks = zip(tensors["x"].split(size), tensors["y"].split(size), strict=True)
    dash_(
        model, chunks, alpha=float(tensors["alpha"]), floor=float(tensors["lambda"]), micro_batch_size=micro_batch_size
    )
    for key, expected in golden.state(tensors, "after").items():
        torch.testing.assert_close(
            model.state_dict()[key], expected, **EXACT, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_five_sam_steps_give_the_weights_of_the_authors_optimiser():
    tensors = golden.load("sam_mlp")
    model = golden.mlp()
    model.load_state_dict(golden.state(tensors, "before"))
    settings = {key: float(tensors[key]) for key in ("lr", "momentum", "weight_decay", "rho")}
    optimizer = SAM(model.parameters(), **settings)
    model.train()
    for inputs, labels in zip(tensors["x"], tensors["y"], strict=True):
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.ascend()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.descend()
    for key, expected in golden.state(tensors, "after").items():
        torch.testing.assert_close(
            model.state_dict()[key], expected, **EXACT, msg=lambda text, key=key: f"{key}: {text}"
        )


def test_the_authors_l2_init_penalty_is_reproduced():
    tensors = golden.load("l2_init_reference")
    model = golden.mlp()
    model.load_state_dict(golden.state(tensors, "now"))
    penalty = 0.01 * l2_init_penalty_authors(model, golden.state(tensors, "init"))
    torch.testing.assert_close(penalty, tensors["penalty"].reshape(()), **EXACT)
