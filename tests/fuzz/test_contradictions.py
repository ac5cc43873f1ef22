"""Settings that cannot go together end with exit code 2 and one message, before anything is started."""

import os

import pytest
from typer.testing import CliRunner

from flows.command_line import compare
from flows.command_line.main import app
from flows.services.prefect_server import PrivateServer
from tests.data.conftest import _class_folders as class_folders


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project's folder; services and training would fail the test."""
    for name in list(os.environ):
        monkeypatch.setenv(name, os.environ[name])  # whatever the command sets is undone
    for name in ("DASHPIPE_STORE", "DASHPIPE_DATA", "PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    for owner, name in ((compare, "watched_services"), (PrivateServer, "start")):
        assert hasattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *arguments, **options: pytest.fail("something was started"))
    monkeypatch.setattr(PrivateServer, "stand_by", lambda server: server)  # it only imports, a process each time
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("chunks: 3\n")
    class_folders(tmp_path / "pairs", {"a": 4, "b": 4})
    class_folders(tmp_path / "lonely", {"a": 4})
    class_folders(tmp_path / "single", {"a": 4, "b": 1})
    return tmp_path


FOLDER = "dataset.name=image_folder", "dataset.folder=pairs"
BEFORE_THE_DATA = {
    "more chunks than images of a set": (["dataset.name=svhn", "chunks=73258"], "chunks: 73258 is more than the 73257"),
    "more chunks than the images used": (
        ["dataset.name=mnist", "dataset.train_size=9", "chunks=10"],
        "chunks: 10 is more than the 9 training images of mnist",
    ),
    "more images than a set has": (
        ["dataset.name=cifar10", "dataset.train_size=50001"],
        "dataset.train_size: 50001 is more",
    ),
    "more test images than a set has": (
        ["dataset.name=cifar10", "dataset.test_size=10001"],
        "dataset.test_size: 10001 is more than the 10000 test images of cifar10",
    ),
    "a model for larger images": (["model.name=vgg16_bn"], "model.name: vgg16_bn needs images of 32x32 pixels or more"),
    "a model for larger images, with mnist": (["dataset.name=mnist", "model.name=vgg16_bn"], "and mnist has 28x28"),
    "svhn with mlp and augmentation": (
        ["dataset.name=svhn", "model.name=mlp", "training.augmentation=crop_flip"],
        "training.augmentation: crop_flip mirrors images, and a mirrored digit of svhn is no digit",
    ),
    "the recipe's augmentation of digits": (["training.recipe=sota"], "a mirrored digit of digits is no digit"),
    "more warm-up than epochs": (
        ["training.warmup_epochs=6", "training.max_epochs=5"],
        "training.warmup_epochs: 6 is more than the 5 of max_epochs",
    ),
    "chunks that are not the classes": (
        ["protocol.name=class_incremental", "chunks=9"],
        "chunks: 9 does not fit the 10 classes of digits, since class_incremental has 1 in each chunk: set chunks=10",
    ),
    "a schedule for single epochs": (
        ["protocol.name=continuous", "protocol.interval=2", "training.schedule=multistep"],
        "training.schedule: multistep with 0 epochs of warm-up starts again with each experiment",
    ),
    "warm-up for single epochs": (
        ["protocol.name=continuous", "protocol.interval=2", "training.warmup_epochs=1"],
        "set training.schedule=constant and training.warmup_epochs=0",
    ),
    "halves in ten chunks": (
        ["protocol.name=two_phase", "protocol.pretrain_epochs=5", "chunks=10"],
        "protocol: two_phase has two chunks, got chunks=10: set chunks=2",
    ),
    "two ends of the pre-training": (
        ["protocol.name=two_phase", "protocol.pretrain_epochs=5", "protocol.pretrain_accuracy=0.5", "chunks=2"],
        "two_phase needs either `pretrain_epochs` or `pretrain_accuracy`, and not both",
    ),
    "another protocol's key": (
        ["protocol.name=discarding", "protocol.share=0.5"],
        "unknown key protocol.share; known with protocol.name=discarding: name, interval, last_intervention",
    ),
    "more experiments than there are": (["experiments=4"], "experiments: 4 is more than the 3 that standard has"),
    "a folder for another dataset": (["dataset.folder=pairs"], "only used with, the datasets image_folder"),
    "a size for another dataset": (["dataset.image_size=8"], "only used with the datasets image_folder and imagenet"),
    "a size that is too small for the model": (
        ["dataset.name=imagenet", "dataset.image_size=16", "model.name=vgg16_bn"],
        "vgg16_bn needs images of 32x32 pixels or more, and imagenet has 16x16",
    ),
    "image_folder without a folder": (["dataset.name=image_folder"], "`folder` is needed by"),
    "an empty folder's name": (
        ["dataset.name=image_folder", "dataset.folder=''"],
        "dataset.folder: String should have",
    ),
    "no GPU of that number": (["compare.device=cuda:99"], "compare.device: cuda:99 is not here"),
    "lambda over 1": (["methods.dash.floor=1.01"], "methods.dash.floor"),
    "shrink over 1": (["methods.shrink_perturb.shrink=2"], "methods.shrink_perturb.shrink"),
    "negative noise": (["methods.shrink_perturb.sigma=-1"], "methods.shrink_perturb.sigma"),
    "alpha of 0": (["methods.dash.alpha=0"], "methods.dash.alpha"),
    "a parameter of another method": (["methods.warm.floor=0.3"], "unknown key methods.warm.floor; known here: none"),
    "an accuracy over 1": (["training.stop_accuracy=99.9"], "training.stop_accuracy"),
    "a schedule that is none": (["training.schedule=linear"], "training.schedule"),
    "early stopping without validation images": (["training.stop=validation"], "set training.validation_share"),
    "a file of weights that is not there": (["model.weights=nowhere.pth"], "`weights`: nowhere.pth cannot be read"),
    "milestones of another schedule": (["training.milestones=[3]"], "set training.schedule=multistep"),
    "batches of one image": (["training.batch_size=1"], "training.batch_size"),
    "more threads than any machine": (["compare.threads=100000"], "compare.threads"),
    "no workers": (["compare.workers=0"], "compare.workers"),
    "repeated seeds": (["seeds=[1, 2, 1]"], "`seeds` repeats 1"),
    "repeated methods": (["compare.methods=[dash, dash]"], "`methods` repeats dash"),
    "no methods": (["compare.methods=[]"], "compare.methods"),
    "no seeds": (["seeds=[]"], "seeds"),
    "a torchvision model for larger images": (
        ["model.name=torchvision:alexnet"],
        "torchvision:alexnet needs images of 63x63 pixels or more, and digits has 8x8",
    ),
}
WITH_THE_DATA = {
    "chunks that are not the classes of a folder": (
        [*FOLDER, "protocol.name=class_incremental"],
        "chunks: 3 does not fit the 2 classes among the training images, since class_incremental has one class in each",
    ),
    "a discarded chunk of one image": (
        ["protocol.name=discarding", "chunks=1437"],
        "chunks: experiment 2 has 1 image",
    ),
    "a share without an image": (
        ["protocol.name=two_phase", "protocol.pretrain_epochs=1", "protocol.share=1e-9", "chunks=2"],
        "protocol.share: 1e-09 of 1438 training images leaves a chunk without any",
    ),
    "more chunks than images of digits": (
        ["chunks=1439"],
        "chunks: 1439 must lie between 1 and the 1438 training images",
    ),
    "a first chunk of one image": (["chunks=1438"], "chunks: experiment 1 has 1 image"),
    "more images than digits has": (["dataset.train_size=1439"], "dataset.train_size: 1439 is more than the 1438"),
    "more test images than digits has": (["dataset.test_size=360"], "dataset.test_size: 360 is more than the 359 test"),
    "more chunks than images of a folder": (
        [*FOLDER, "model.name=mlp", "chunks=7"],
        "chunks: 7 must lie between 1 and the 6",
    ),
    "images too small for the model": ([*FOLDER, "model.name=vgg16_bn"], "vgg16_bn takes images of at least 32x32"),
    "a folder that is not there": (["dataset.name=image_folder", "dataset.folder=nowhere"], "nowhere: no such folder"),
    "imagenet that is not there": (["dataset.name=imagenet", "model.name=resnet18"], "train/<wnid>/*.JPEG"),
    "a folder of no known user": (
        ["dataset.name=image_folder", "dataset.folder=~nobody9/x"],
        "nobody9/x: no such folder",
    ),
    "a single class": (
        ["dataset.name=image_folder", "dataset.folder=lonely", "chunks=1", "model.name=mlp"],
        "needs at least 2 classes",
    ),
    "a class of one image": (["dataset.name=image_folder", "dataset.folder=single"], "the class 'b' has 1 image"),
}


def refused(command: str, settings: list[str]) -> str:
    words = [word for setting in settings for word in ("--set", setting)]
    answer = CliRunner().invoke(app, [*command.split(), *words, "--store", "store"])
    assert answer.exit_code == 2, answer.output
    assert answer.stderr.startswith("error: ")
    assert answer.stderr.count("error: ") == 1
    assert "Traceback" not in answer.output
    return answer.stderr


@pytest.mark.parametrize("case", BEFORE_THE_DATA)
def test_what_is_known_beforehand_is_refused_before_any_data_are_read_or_loaded(project, case):
    settings, message = BEFORE_THE_DATA[case]
    assert message in refused("compare", settings)
    assert not (project / "store").exists()


@pytest.mark.parametrize("case", WITH_THE_DATA)
def test_what_only_the_data_tell_is_refused_before_anything_is_started(project, case):
    settings, message = WITH_THE_DATA[case]
    assert message in refused("compare", settings)
    assert sorted(path.name for path in (project / "store").iterdir()) in ([], [".dashpipe"])


@pytest.mark.parametrize("command", ["run --method dash", "split", "train dash"])
def test_every_command_that_needs_the_data_refuses_alike(project, command):
    assert "chunks: 1439 must lie between 1 and the 1438" in refused(command, ["chunks=1439"])


@pytest.mark.parametrize("variable", ["DASHPIPE_STORE", "DASHPIPE_DATA"])
@pytest.mark.parametrize("value", ["loop", "x" * 5000, "params.yaml"])
def test_a_folder_in_the_environment_that_cannot_be_is_refused(project, monkeypatch, variable, value):
    os.symlink("loop", project / "loop")
    monkeypatch.setenv(variable, value)
    settings = ["--set", "dataset.name=tiny_imagenet"] if variable == "DASHPIPE_DATA" else []
    answer = CliRunner().invoke(app, ["compare", *settings])
    assert answer.exit_code == 2, answer.output
    assert answer.stderr.startswith("error: ")
    assert "Traceback" not in answer.output


def test_a_message_obeys_no_control_characters(project):
    (project / "params.yaml").write_text('"\\e[31mred\\a": 1')
    answer = CliRunner().invoke(app, ["compare"])
    assert answer.exit_code == 2
    assert "unknown key \\x1b[31mred\\x07" in answer.stderr
