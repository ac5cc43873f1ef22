"""Own parts: found, named by their source, checked before anything long, and trained as ours are."""

import sys

import numpy as np
import pytest
import torch

from dash_core import parts
from dash_core.beginnings import Course
from dash_core.comparison import Params
from dash_core.config import DatasetConfig, ModelConfig, RunConfig, merge, parse
from dash_core.data import ChunkPlan, Dataset, load_dataset
from dash_core.errors import ConfigError, DataError
from dash_core.interventions import intervention_class
from dash_core.models import build_model, model_spec
from dash_core.models.pretrained import InitialModel
from dash_core.parts import PartError, check_source, load_part, source_digest
from dash_core.rehearsal import rehearse
from dash_core.result import WEIGHTS_FILE
from flows.command_line import settings
from tests import toy
from tests.parts import package
from tests.parts.conftest import forget

OWN = {
    "model": {"name": "mypackage.nets:build"},
    "dataset": {"name": "mypackage.data:load"},
    "training": {"batch_size": 16, "max_epochs": 3},
    "compare": {"methods": ["warm", "mypackage.methods:Halve"]},
    "chunks": 3,
    "seeds": [0],
}


def params(**changes) -> Params:
    return parse(Params, merge(OWN, changes))


def opened(config, tmp_path) -> Dataset:
    return load_dataset(config, data_root=tmp_path, cache=tmp_path / "cache")


def halve(**changes) -> RunConfig:
    return params(**changes).run("Halve", 0)


def test_an_own_model_dataset_and_method_train_and_an_interrupted_run_has_the_same_bits(project, tmp_path):
    run = halve(methods={"Halve": {"factor": 0.25}})
    data = opened(run.dataset, tmp_path)
    moving = toy.advance(toy.trajectory(tmp_path / "straight", run, data))
    assert moving.records[1].diagnostics["mypackage/factor"] == 0.25
    assert moving.learner.head == ("4",)
    toy.interrupted(tmp_path / "stopped", run, data, [3, 5])
    assert (tmp_path / "stopped" / WEIGHTS_FILE).read_bytes() == (tmp_path / "straight" / WEIGHTS_FILE).read_bytes()


def test_an_edited_part_is_another_run_and_never_goes_on_from_the_old_one(project):
    before = [halve(), params().run("warm", 0)]
    package.write(project, methods=package.METHODS.replace("= 0.5", "= 0.5  # more"))
    after = [halve(), params().run("warm", 0)]
    assert [run.id for run in before] != [run.id for run in after]
    assert before[0].method.source != after[0].method.source
    (project / "mypackage" / "notes.txt").write_text("no code")
    assert halve().id == after[0].id


def test_parameters_written_out_take_the_source_as_it_is(project):
    written = settings.complete(params())
    package.write(project, nets=package.NETS + "\n")
    again = parse(Params, written)
    assert again.run("Halve", 0).model.source == halve().model.source


def test_the_same_source_under_another_path_has_another_digest(project):
    assert source_digest(parts.METHODS, "mypackage.methods:Halve") != source_digest(parts.METHODS, "mypackage.nets:x")


def test_the_state_that_methods_share_is_not_that_of_other_source(project, tmp_path):
    run = halve()
    intervention = intervention_class(run.method.intervention)()
    edited = run.model_copy(update={"method": run.method.model_copy(update={"source": "0" * 64})})
    parts_of_course = {"split": "", "code": ""}, run.optimizer, run.training, intervention
    assert Course.of(run, *parts_of_course).method != Course.of(edited, *parts_of_course).method


def test_a_run_of_ours_keeps_its_name():
    plain = toy.params().run("warm", 0)
    for section, names in {"dataset": ("source", "plan"), "model": ("source",), "training": ("loss",)}.items():
        assert not set(names) & plain.identity[section].keys()
    assert "source" not in plain.identity["method"]


def test_what_changed_after_it_was_imported_is_refused(project, tmp_path):
    run = halve()
    load_part(parts.METHODS, "mypackage.methods:Halve")
    package.write(project, nets=package.NETS + "\n")
    check_source(parts.METHODS, run.method.intervention, run.method.source)  # this process has the old source
    with pytest.raises(ConfigError, match="mypackage have changed"):
        check_source(parts.METHODS, run.method.intervention, halve().method.source)
    forget("mypackage")
    with pytest.raises(ConfigError, match="mypackage have changed"):
        toy.trajectory(tmp_path / "run", run, opened(halve().dataset, tmp_path))


def test_only_packages_that_a_setting_names_are_found_in_the_projects_folder(project):
    (project / "threading.py").write_text("raise SystemExit('theirs')")
    (project / "optional_library.py").write_text("raise SystemExit('theirs')")
    halve()
    with pytest.raises(ModuleNotFoundError):
        __import__("optional_library")
    with pytest.raises(PartError, match=r"Python finds threading in .*hides the one in .*: rename yours"):
        source_digest(parts.MODELS, "threading:Thread")
    assert str(project) not in sys.path
    (project / "mypackage" / "nets.py").write_text("import optional_library")
    with pytest.raises(PartError, match="move optional_library into the package of the part"):
        model_spec("mypackage.nets:build")


def test_a_single_file_is_a_part_too_and_no_bytecode_is_written(project):
    (project / "nets.py").write_text(package.NETS)
    assert build_model("nets:build", (1, 8, 8), 4, seed=0)[0].out_channels == 4
    before = source_digest(parts.MODELS, "nets:build")
    (project / "nets.py").write_text(package.NETS.replace("ReLU", "GELU"))  # as long, and in the same second
    forget("nets")
    assert source_digest(parts.MODELS, "nets:build") != before
    assert isinstance(build_model("nets:build", (1, 8, 8), 4, seed=0)[2], torch.nn.GELU)
    assert not list(project.rglob("__pycache__"))


def test_a_method_by_path_is_labelled_and_its_settings_are_checked(project):
    assert params().compare.methods == ["warm", "Halve"]
    assert params(methods={"mypackage.methods:Halve": {"factor": 0.1}}) == params(methods={"Halve": {"factor": 0.1}})
    assert params().method("mypackage.methods:Halve") == params().method("Halve")
    assert parse(Params, {}).method("mypackage.methods:Halve").label == "Halve"
    mine = params(methods={"mine": {"intervention": "mypackage.methods:Halve"}}, compare={"methods": ["mine"]})
    assert mine.run("mine", 0).digest == halve().digest
    with pytest.raises(ConfigError, match=r"methods.Halve.factor: input should be less than or equal to 1, got 2"):
        params(methods={"Halve": {"factor": 2.0}}).method("Halve")
    with pytest.raises(ConfigError, match="`Halve` is another method; give it a label"):
        params(methods={"Halve": {"intervention": "warm"}})


BUILD = "from torch import nn\ndef build(shape, classes): return "
DRAWN_ELSEWHERE = """
import numpy
from torch import nn

class build(nn.Linear):
    def __init__(self, image_shape, classes):
        super().__init__(64, classes)
        self.bias.data += numpy.random.rand()
    def forward(self, images):
        return super().forward(images.flatten(1))
"""
BROKEN_NETS = {
    "raise RuntimeError('no GPU')": r"importing mypackage.nets failed: RuntimeError: no GPU \(.*nets.py, line 1\)",
    "def build(image_shape): pass": r"building it .* failed: TypeError: build\(\) takes 1 positional argument",
    "import sys; sys.exit(3)": "failed: SystemExit: 3",
    "def build(": r"failed: SyntaxError: .*nets.py, line 1\)",
    "build = 3": "must be a function or a class, got int",
    "bild = 3": r"has no 'build' \(did you mean 'bild'\?\)",
    "def build(shape, classes): return classes": "must return a torch.nn.Module, got int",
    BUILD + "nn.Flatten()": "no parameters to train",
    BUILD + "nn.LazyLinear(classes)": "lazy layers",
    BUILD + "nn.Linear(8, classes)": r"a tensor of \(2, 4\), .* and returns \(2, 1, 8, 4\)",
    BUILD + "nn.Linear(9, classes)": "a batch of 2 images of 1x8x8 failed: RuntimeError",
    DRAWN_ELSEWHERE: "two models of one seed differ",
}


@pytest.mark.parametrize(("source", "words"), BROKEN_NETS.items(), ids=range(len(BROKEN_NETS)))
def test_a_broken_model_is_one_sentence_before_anything_long(project, source, words):
    package.write(project, nets=source)
    with pytest.raises(PartError, match=words) as caught:
        InitialModel(parse(ModelConfig, {"name": "mypackage.nets:build"}), (1, 8, 8), 4).check()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("model mypackage.nets:build: ")
    assert ("Traceback" in caught.value.details) == (" failed: " in str(caught.value))


BROKEN_METHODS = {
    "class Halve: pass": "must be a subclass of dash_core.interventions.Intervention, got the class Halve",
    "Halve = 3": "got int",
    "{0}    def before_chunk(self, learner): return {{}}": r"before_chunk must be .* with \(self, learner, data\)",
    "{0}    def before_chunk(self, learner, data): return 3": "a rehearsal of two experiments .*failed: TypeError",
    "{0}    def before_chunk(self, learner, data): 1 / 0": "failed: ZeroDivisionError: division by zero .*methods.py",
    "{0}    def penalty(self, learner): return 'much'": "a rehearsal .* failed: TypeError",
    "{0}    def after_chunk(self, learner, data): raise KeyError('x')": "a rehearsal .* failed: KeyError",
}


@pytest.mark.parametrize("source", BROKEN_METHODS)
def test_a_broken_method_fails_in_a_rehearsal(project, tmp_path, source):
    head = "from dash_core.interventions import Intervention\nclass Halve(Intervention):\n"
    package.write(project, methods=source.format(head))
    with pytest.raises(PartError, match=BROKEN_METHODS[source]):
        rehearse(halve(), opened(params(compare={"methods": ["warm"]}).dataset, tmp_path))


def test_a_rehearsal_leaves_nothing_behind_and_is_done_once(project, tmp_path, monkeypatch):
    data = opened(params().dataset, tmp_path)
    before = torch.random.get_rng_state()
    rehearse(halve(), data)
    assert torch.equal(torch.random.get_rng_state(), before)
    monkeypatch.setattr("dash_core.rehearsal.Trajectory", None)
    rehearse(halve(), data)
    rehearse(toy.params().run("dash", 0), data)


PAIRS = """
import numpy as np
import torch
from PIL import Image
from mypackage.data_of_arrays import split

class Pairs(torch.utils.data.Dataset):
    classes = ["north", "east", "south", "west"]
    def __init__(self, images, form):
        self.pixels, self.labels = split(images, int(images == 40))
        self.form = form
    def __len__(self):
        return len(self.labels)
    def __getitem__(self, i):
        return FORMS[self.form](self.pixels[i]), int(self.labels[i])

FORMS = {
    "pillow": lambda pixels: Image.fromarray(pixels[:, :, 0]),
    "array": lambda pixels: pixels[:, :, 0],
    "bytes": lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1),
    "floats": lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1) / 255,
}
"""


@pytest.mark.parametrize("form", ["pillow", "array", "bytes", "floats"])
def test_a_map_style_dataset_has_the_images_of_the_arrays(project, tmp_path, form):
    arrays = opened(params().dataset, tmp_path)
    (project / "mypackage" / "data_of_arrays.py").write_text(package.DATA)
    load = f"def load(): return {{'train': Pairs(96, {form!r}), 'test': Pairs(40, {form!r})}}"
    package.write(project, data=PAIRS + load)
    forget("mypackage")
    pairs = opened(params().dataset, tmp_path)
    assert torch.equal(pairs.train.images, arrays.train.images)
    assert torch.equal(pairs.test.labels, arrays.test.labels)
    assert pairs.train.class_names == ("north", "east", "south", "west")
    assert pairs.noticed is not None


def test_a_dataset_without_test_images_is_divided_and_its_function_gets_the_folder(project, tmp_path):
    load = "\ndef load(folder): return split(int((folder / 'count').read_text()), 0)"
    package.write(project, data=package.DATA + load)
    (tmp_path / "count").write_text("80")
    data = opened(params(dataset={"folder": str(tmp_path)}).dataset, tmp_path)
    assert (len(data.train), len(data.test)) == (64, 16)


NORMALISED = """
import torch

class Normalised(torch.utils.data.Dataset):
    def __len__(self):
        return 1
    def __getitem__(self, position):
        return torch.full((3, 8, 8), -0.5), 0

def load():
    return Normalised()
"""
BROKEN_DATA = {
    "def load(): return [1, 2, 3]": "each split must be a pair of arrays",
    "import numpy as n\ndef load(): return n.zeros((9, 3, 8, 8), n.uint8), n.zeros(9, int)": r"transpose\(0, 2, 3, 1\)",
    "import numpy as n\ndef load(): return n.zeros((9, 8, 8, 3)), n.zeros(9, int)": "must be uint8",
    "import numpy as n\ndef load(): return n.zeros((9, 8, 8, 3), n.uint8), n.zeros(8, int)": "labels must be 9 whole",
    "import numpy as n\ndef load(): return n.zeros((9, 8, 8, 3), n.uint8), n.arange(9) - 1": "labels must be 0 to 7",
    "def load(): return {'training': 3}": "a mapping without the key train, but with training",
    "def load(): raise OSError('no disk')": "its call with no arguments failed: OSError: no disk",
    "import torch\ndef load(): return [(torch.randn(3, 8, 8), 0)]": "each split must be",
    NORMALISED: "leave normalisation and augmentation out",
}


@pytest.mark.parametrize("source", BROKEN_DATA)
def test_a_broken_dataset_is_one_sentence(project, tmp_path, source):
    package.write(project, data=source)
    with pytest.raises(PartError, match=BROKEN_DATA[source]):
        opened(params().dataset, tmp_path)


def test_a_folder_that_is_no_dataset_of_hugging_face_and_a_missing_library_are_named(tmp_path, monkeypatch):
    config = parse(DatasetConfig, {"name": "hugging_face", "folder": str(tmp_path / "saved")})
    with pytest.raises(DataError, match=r"saved: no dataset of Hugging Face, which has the file dataset_dict.json or"):
        opened(config, tmp_path)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"needs the package `datasets` .*; install it: uv pip install datasets"):
        opened(config, tmp_path)


def test_a_dataset_of_hugging_face_has_the_images_and_classes_that_were_saved(tmp_path):
    """Run it with the library: uv run --with datasets pytest -n 0 tests/parts/test_parts.py."""
    library = pytest.importorskip("datasets")
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 8, 3), dtype=np.uint8)
    features = {"picture": library.Image(), "kind": library.ClassLabel(names=["north", "east", "south"])}
    content = {"picture": [Image.fromarray(one) for one in pixels], "kind": [number % 3 for number in range(12)]}
    split = library.Dataset.from_dict(content, features=library.Features(features))
    library.DatasetDict({"train": split, "validation": split}).save_to_disk(tmp_path / "both")
    data = opened(parse(DatasetConfig, {"name": "hugging_face", "folder": str(tmp_path / "both")}), tmp_path)
    assert np.array_equal(data.train.images.numpy(), pixels)
    assert data.test.labels.tolist() == content["kind"]
    assert data.train.class_names == ("north", "east", "south")


def test_a_dataset_that_differs_in_a_worker_is_named(project, tmp_path):
    from tasks.store.datasets import open_plan
    from tasks.store.place import place_of

    place = place_of(params(), tmp_path, None)
    assert place.project == project
    data = opened(params().dataset, tmp_path)
    open_plan(halve(), data, place)
    made = place.model_copy(update={"splits_made": True})
    assert open_plan(halve(), data, made).digest
    other = Dataset("other", toy.images(96), toy.images(40))
    with pytest.raises(DataError, match="its images in this process are not those"):
        open_plan(halve(), other, made)


def test_an_own_chunk_plan_has_chunks_of_its_sizes(project, tmp_path):
    config = params(dataset={"plan": "mypackage.others:drift"}).dataset
    data = opened(config, tmp_path)
    plan = ChunkPlan.split(data.train, config, 3, seed=0)
    assert [len(chunk) for chunk in plan.chunks] == [16, 16, 64]
    assert set(data.train.labels[plan.chunks[0]].tolist()) == {0}
    plan.check(data.train, config)
    assert halve(dataset={"plan": "mypackage.others:drift"}).id != halve().id


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("[labels]", "must return 3 index arrays"),
        ("[[0], [1], [1]]", "each of the 96 positions exactly once, and have 3 of which 2 differ"),
        ("[[0], [], [1]]", "chunk 2 must be an array of one or more positions"),
        ("[[0.0], [1], [2]]", "got float64"),
    ],
)
def test_a_broken_chunk_plan_is_named(project, tmp_path, returned, words):
    package.write(project, others=f"def drift(labels, chunks, seed): return {returned}")
    config = params(dataset={"plan": "mypackage.others:drift"}).dataset
    with pytest.raises(PartError, match=words):
        ChunkPlan.split(opened(config, tmp_path).train, config, 3, seed=0)


ENTRY = "[dashpipe.models]\ntiny = mypackage.nets:build\n{0}\n[dashpipe.methods]\n{1} = mypackage.methods:Halve\n"


@pytest.fixture
def installed(project, monkeypatch):
    """Have the package be installed, with entry points."""

    def install(models: str = "", method: str = "halve", name: str = "theirs") -> None:
        info = project / f"{name}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(ENTRY.format(models, method))
        monkeypatch.syspath_prepend(str(project))
        parts._entries.cache_clear()

    yield install
    parts._entries.cache_clear()


def test_an_entry_point_is_a_short_name_of_the_same_part(installed):
    installed()
    run = params(model={"name": "tiny"}, compare={"methods": ["halve"]}).run("halve", 0)
    assert run.model.source == halve().model.source
    assert run.method.source == halve().method.source
    assert intervention_class("halve").__name__ == "Halve"
    assert model_spec("tiny").source == "mypackage.nets:build"


def test_a_clash_of_names_is_refused(installed):
    installed(models="mlp = mypackage.nets:build", method="dash")
    with pytest.raises(ConfigError, match="'mlp' is a model of dashpipe and an entry point of theirs"):
        model_spec("mlp")
    with pytest.raises(ConfigError, match="'dash' is a method of dashpipe and an entry point of theirs"):
        parse(Params, {}).method("dash")
    installed(models="small = mypackage.nets:small", name="others")
    installed(models="small = mypackage.nets:build")
    with pytest.raises(ConfigError, match="others and theirs both have a model 'small'"):
        model_spec("small")


def test_weights_of_tied_layers_are_written_and_read_back(project, tmp_path):
    tied = package.NETS.replace(
        "    return nn.Sequential(", "    one = nn.Conv2d(4, 4, 1)\n    return nn.Sequential("
    ).replace("nn.ReLU()", "one, nn.ReLU(), one")
    package.write(project, nets=tied)
    run = halve()
    moving = toy.advance(toy.trajectory(tmp_path / "run", run, opened(run.dataset, tmp_path)))
    from safetensors.torch import load_file

    weights = load_file(tmp_path / "run" / WEIGHTS_FILE)
    assert torch.equal(weights["2.weight"], weights["4.weight"])
    moving.learner.model.load_state_dict(weights)


def test_a_weights_file_of_an_own_model_is_taken_and_its_classifier_is_new(project, tmp_path):
    torch.save(build_model("mypackage.nets:build", (1, 8, 8), 10, seed=7).state_dict(), tmp_path / "ten.pth")
    config = parse(ModelConfig, {"name": "mypackage.nets:build", "weights": str(tmp_path / "ten.pth")})
    four = InitialModel(config, (1, 8, 8), 4)(0)
    ten = torch.load(tmp_path / "ten.pth", weights_only=True)
    assert torch.equal(four[0].weight, ten["0.weight"])
    assert four[4].weight.shape == (4, 256)


def test_numpy_arrays_given_to_a_plan_are_its_own(project, tmp_path):
    data = opened(params().dataset, tmp_path)
    package.write(
        project, others="def drift(labels, chunks, seed):\n    labels[:] = 0\n    return [[i] for i in range(96)]"
    )
    config = params(dataset={"plan": "mypackage.others:drift"}).dataset
    forget("mypackage")
    before = data.train.labels.clone()
    ChunkPlan.split(data.train, config, 96, seed=0)
    assert torch.equal(data.train.labels, before)
    assert np.asarray(before).max() == 3


def test_an_own_loss_trains_and_is_that_of_dash_too(project, tmp_path):
    run = params(training={"loss": "mypackage.others:focal"}, compare={"methods": ["dash"]}).run("dash", 0)
    moving = toy.advance(toy.trajectory(tmp_path / "run", run, opened(run.dataset, tmp_path)))
    assert moving.learner.loss(torch.zeros(1)).__name__ == "focal"
    assert run.id != params(compare={"methods": ["dash"]}).run("dash", 0).id


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("functional.cross_entropy(outputs, labels, reduction='sum')", "it must be the mean over the images"),
        (
            "functional.cross_entropy(outputs, labels, reduction='none')",
            r"a scalar tensor with a gradient, .* got \(4,\)",
        ),
        ("0.3", "got float"),
        ("outputs.nope", "failed: AttributeError"),
    ],
)
def test_a_broken_loss_is_named(project, tmp_path, returned, words):
    source = f"from torch.nn import functional\ndef focal(outputs, labels): return {returned}"
    package.write(project, others=source)
    run = params(training={"loss": "mypackage.others:focal"}).run("warm", 0)
    with pytest.raises(PartError, match=words):
        rehearse(run, opened(run.dataset, tmp_path))
