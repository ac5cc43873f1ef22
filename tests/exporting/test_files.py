"""An exported model as files: it loads alone, answers as the model does, and is refused if anything was changed."""

import json
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from dash_core.exporting import (
    CARD_FILE,
    GOLDEN_FILE,
    GRAPH_FILE,
    ExportError,
    ModelCard,
    RawImageClassifier,
    Tracer,
    export_model,
    open_export,
)
from tests.exporting.models import NAMES, SHAPE, card, exported, images, model


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An intact export that tests only read."""
    return exported(tmp_path_factory.mktemp("export") / "model", run="r1")


@pytest.fixture(scope="module")
def opened(whole):
    return open_export(whole)


@pytest.fixture
def export(whole, tmp_path):
    """A copy of the export that a test may damage."""
    return shutil.copytree(whole, tmp_path / "export")


def test_the_files_answer_as_the_model_does_for_any_number_and_size_of_images(opened):
    network = model().train()
    classifier = RawImageClassifier(network, card().image_shape, card().mean, card().std).eval()
    assert (opened.card.class_names, opened.card.facts) == (NAMES, {"run": "r1"})
    for shape in ((1, 8, 8, 1), (3, 1, 1, 1), (2, 31, 20, 1), (5, 50, 50, 1)):
        raw = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
        with torch.inference_mode():
            expected = classifier(torch.from_numpy(raw)).numpy()
        np.testing.assert_allclose(opened.predict(raw), expected, atol=1e-6)


def test_a_model_is_left_in_its_mode_and_exported_once(opened, export):
    network = model()
    assert network.training
    before = {path.name: path.stat().st_mtime_ns for path in export.iterdir()}
    digests = export_model(network, card(run="r1"), export, images())
    assert {path.name: path.stat().st_mtime_ns for path in export.iterdir()} == before
    assert network.training
    assert set(digests) == {GRAPH_FILE, GOLDEN_FILE, CARD_FILE}
    assert digests[GRAPH_FILE] == opened.digest


def test_models_of_one_kind_are_traced_once_and_each_file_answers_as_its_own_model(tmp_path, monkeypatch):
    traced, export, tracer = [], torch.export.export, Tracer()
    monkeypatch.setattr(torch.export, "export", lambda *given, **named: traced.append(1) or export(*given, **named))
    first, second = model(0), model(1)
    weights = [tensor.clone() for tensor in first.state_dict().values()]
    for number, network in enumerate((first, second)):
        export_model(network, card(), tmp_path / str(number), images(), tracer)
    assert len(traced) == 1
    assert all(torch.equal(*pair) for pair in zip(weights, first.state_dict().values(), strict=True))
    for number, network in enumerate((first, second)):
        classifier = RawImageClassifier(network, card().image_shape, card().mean, card().std).eval()
        with torch.inference_mode():
            expected = classifier(images()).numpy()
        np.testing.assert_allclose(open_export(tmp_path / str(number)).predict(images()), expected, atol=1e-6)
    other = ModelCard("cnn3_small", NAMES, SHAPE, (0.3,), (0.25,))
    export_model(first, other, tmp_path / "other", images(), tracer)
    assert len(traced) == 2


class Scaled(torch.nn.Module):
    """A model that its text and its weights do not tell apart from another: `factor` is neither."""

    def __init__(self, factor):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
        self.factor = factor

    def forward(self, images):
        return self.layers(images) * self.factor


def test_models_that_differ_in_more_than_their_weights_are_traced_each(tmp_path):
    tracer, network = Tracer(), Scaled(1.0)
    for factor in (1.0, 3.0):
        network.factor = factor
        export_model(network, card(), tmp_path / str(factor), images(), tracer)
    one, three = (open_export(tmp_path / str(factor)).predict(images()) for factor in (1.0, 3.0))
    assert np.abs(one - three).max() > 0.01


def test_wrong_images_are_an_error_that_says_what_is_taken(opened):
    for wrong in (np.zeros((1, 8, 8, 1)), np.zeros((8, 8, 1), np.uint8), np.zeros((1, 8, 8, 3), np.uint8)):
        with pytest.raises(ExportError, match=r"images must be uint8 \(N, H, W, 1\), got"):
            opened.predict(wrong)


@pytest.mark.parametrize("name", [GRAPH_FILE, GOLDEN_FILE])
def test_a_flipped_bit_is_found_and_the_file_named(export, name):
    content = bytearray((export / name).read_bytes())
    content[len(content) // 2] ^= 1
    (export / name).write_bytes(content)
    with pytest.raises(ExportError, match=f"{name} is not the file that was exported"):
        open_export(export)
    (export / name).unlink()
    with pytest.raises(ExportError, match=f"{name} is missing"):
        open_export(export)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', '{"format": 2}', "\x00"])
def test_a_damaged_card_is_an_error(export, content):
    (export / CARD_FILE).write_text(content)
    with pytest.raises(ExportError, match=r"model\.json is damaged"):
        open_export(export)


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(ExportError, match="no exported model"):
        open_export(tmp_path)


def rewritten(export, name, content):
    """Replace a file and its digest in the card, as if it had been exported so."""
    import hashlib

    (export / name).write_bytes(content)
    card_content = json.loads((export / CARD_FILE).read_text())
    card_content["files"][name] = hashlib.sha256(content).hexdigest()
    (export / CARD_FILE).write_text(json.dumps(card_content))


def test_a_model_that_does_not_load_or_answers_otherwise_is_refused(export, tmp_path):
    golden = np.load(export / GOLDEN_FILE)
    other = tmp_path / "other.npz"
    np.savez(other, images=golden["images"], probabilities=golden["probabilities"][:, ::-1])
    rewritten(export, GOLDEN_FILE, other.read_bytes())
    with pytest.raises(ExportError, match="answers its golden images otherwise"):
        open_export(export)
    rewritten(export, GRAPH_FILE, b"no graph")
    with pytest.raises(ExportError, match="cannot be loaded"):
        open_export(export)


@pytest.mark.slow
def test_the_graph_loads_where_there_is_only_torch(whole):
    program = f"""
        import sys, torch
        graph = torch.export.load({str(whole / GRAPH_FILE)!r}).module()
        answer = graph(torch.zeros((3, 20, 30, 1), dtype=torch.uint8))
        assert answer.shape == (3, 4) and torch.allclose(answer.sum(1), torch.ones(3))
        assert not any(name.split(".")[0] in ("tasks", "flows", "dash_core", "mlflow") for name in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=whole, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
