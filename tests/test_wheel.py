"""The wheel: dash_core alone, on torch and numpy, with extras that say what to install."""

import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dash_core.extras import DISTRIBUTIONS, EXTRAS, LIBRARIES, WITH_TORCH_ALONE
from tests import wheel

ROOT = Path(__file__).parents[1]
ABSENT = ("prefect", "mlflow", "dvc", "typer", "rich", "yaml", "flows", "tasks")

SENTENCES = """
import importlib.util, pkgutil
import dash_core

def said(name):
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        return str(error)
    return ""

for module in pkgutil.walk_packages(dash_core.__path__, "dash_core.", onerror=lambda name: None):
    print(f"{module.name}: {said(module.name)}")
print("present:", *(name for name in %r if importlib.util.find_spec(name)))
"""

STEP = """
import torch
from dash_core import SAM, dash_, dash_batches_, l2_init_penalty, shrink_perturb_
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
chunks = [(torch.randn(60, 16), torch.randint(3, (60,))) for _ in range(2)]
first = {name: value.clone() for name, value in model.state_dict().items()}
report = dash_(model, chunks, alpha=0.3, floor=0.3)
print(sum(layer.vectors for layer in report.values()), "weight vectors")
loaders = [DataLoader(TensorDataset(*chunk), 20) for chunk in chunks]
loss = torch.nn.CrossEntropyLoss()
dash_batches_(model, loaders, loss=lambda batch: (loss(model(batch[0]), batch[1]), len(batch[1])))
shrink_perturb_(model, shrink=0.5)
optimizer = SAM(model.parameters(), lr=0.1, rho=0.1, momentum=0.9)
for update in (optimizer.ascend, optimizer.descend):
    (loss(model(chunks[1][0]), chunks[1][1]) + 0.01 * l2_init_penalty(model, first)).backward()
    update()
try:
    from dash_core import Trajectory
except ModuleNotFoundError as error:
    print(error)
"""

LOOP = """
from pathlib import Path
import torch
from dash_core import ChunkPlan, MethodConfig, RunConfig, Trajectory
from dash_core.config import DatasetConfig, ModelConfig, TrainingConfig

def data():
    from dash_core.data import load_dataset
    return load_dataset(DatasetConfig(train_size=200), data_root=Path("data"), cache=Path("cache"))

try:
    dataset = data()
except ModuleNotFoundError as error:
    print(error)
    raise SystemExit
run = RunConfig(
    method=MethodConfig(label="dash", intervention="dash"), chunks=2,
    model=ModelConfig(name="cnn3_small"), training=TrainingConfig(max_epochs=2, stop_accuracy=None),
)
plan = ChunkPlan.split(dataset.train, run.dataset, run.chunks, run.seed, run.protocol)
trajectory = Trajectory(run, dataset, plan, Path("run"), device=torch.device("cpu"))
while trajectory.pending:
    print(trajectory.advance().experiment)
trajectory.finish({})
"""


def sentences(program: Path, folder: Path) -> dict[str, str]:
    """Return by module of the library what its import says is missing; empty if nothing is."""
    *parts, present = wheel.python(program, SENTENCES % (ABSENT,), folder).splitlines()
    assert present == "present:"
    return dict(part.split(": ", 1) for part in parts)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return wheel.build(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_the_library_alone_and_asks_for_torch_and_numpy(built):
    with zipfile.ZipFile(built) as content:
        names = content.namelist()
        (metadata,) = (Parser().parsestr(content.read(name).decode()) for name in names if name.endswith("/METADATA"))
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "dash_core").rglob("*") if path.is_file()}
    expected = {file for file in files if "__pycache__" not in file}
    assert {name for name in names if not name.startswith("dashpipe-")} == expected
    assert not any(name.endswith("entry_points.txt") for name in names)
    asked = [Requirement(text) for text in metadata.get_all("Requires-Dist")]
    assert {requirement.name for requirement in asked if not requirement.marker} == {"torch", "numpy"}
    assert "```python" in metadata.get_payload()
    for extra, libraries in LIBRARIES.items():
        brought = {one.name for one in asked if one.marker and one.marker.evaluate({"extra": extra})}
        own = {DISTRIBUTIONS.get(library, library) for library in libraries}
        assert own <= brought, extra
        rest = brought - own - {"torch", "numpy"}
        assert rest <= set(LIBRARIES["training"]), extra  # which the other extras include


def test_every_part_with_an_extra_is_there():
    for part in (*WITH_TORCH_ALONE, *EXTRAS):
        path = ROOT.joinpath("dash_core", *part.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file(), part


@pytest.mark.slow
def test_the_library_alone_takes_a_dash_step_and_every_other_part_says_in_one_sentence_what_to_install(built, tmp_path):
    program = wheel.install(built, tmp_path / "alone")
    vectors, sentence = wheel.python(program, STEP, tmp_path).splitlines()
    assert vectors == "13 weight vectors"  # 8 + 3 rows, and two biases
    assert sentence == (
        "dash_core.trajectory needs pydantic and safetensors, not installed here: pip install 'dashpipe[training]'"
    )
    said = sentences(program, tmp_path)
    loaded = {name for name, text in said.items() if not text}
    assert {name.split(".")[1] for name in loaded} == set(WITH_TORCH_ALONE)
    for name, text in said.items():
        assert not text or "pip install 'dashpipe[" in text, (name, text)


@pytest.mark.slow
def test_each_extra_brings_what_the_parts_import_that_need_it(built, tmp_path):
    program = wheel.install(built, tmp_path / "training", "training")
    assert "the dataset digits needs torchvision" in wheel.python(program, LOOP, tmp_path)
    asking = sentences(program, tmp_path)
    missing = {name.removeprefix("dash_core.") for name, text in asking.items() if "dashpipe[data]" in text}
    assert missing == {part for part, extra in EXTRAS.items() if extra == "data"}
    program = wheel.install(built, tmp_path / "data", "data")
    assert wheel.python(program, LOOP, tmp_path).split() == ["1", "2"]
    program = wheel.install(built, tmp_path / "views", "data", "views")
    asking = sentences(program, tmp_path)
    assert {name.rpartition(".")[2] for name, text in asking.items() if text} == {"lightning", "skorch", "transformers"}
