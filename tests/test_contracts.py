"""Who may know whom, and what stays light."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import dash_core

ROOT = Path(__file__).parents[1]
SHELL = ("yaml", "rich", "typer", "prefect", "mlflow", "dvc", "fastapi", "sqlalchemy")
DRAWING = ("plotly", "kaleido", "jinja2", "scipy")
VIEWS = (
    "dash_core.views.figures",
    "dash_core.views.report",
    "dash_core.views.reproduction",
    "dash_core.views.statistics",
    "dash_core.views.rules",
    "dash_core.views.holm",
    "dash_core.views.stream_report",
    "dash_core.stream.paired",
    "dash_core.stream.gate",
    "dash_core.stream.drift",
    "dash_core.stream.harm",
)  # of records, and of a stream's models: training needs none
EXTRAS = tuple(f"dash_core.integrations.{name}" for name in ("lightning", "skorch", "transformers"))

WITHOUT_THE_SHELL = """
import pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import dash_core
names = [
    module.name
    for module in pkgutil.walk_packages(dash_core.__path__, "dash_core.", onerror=lambda name: None)
    if not module.name.startswith({views!r})
]
for name in names:
    __import__(name)
for name in dash_core.__all__:
    getattr(dash_core, name)
print(len(names))
"""

FRONT_DOOR = """
import sys
from dash_core import dash_, shrink_perturb_
others = ("PIL", "filelock", "pydantic", "safetensors", "scipy", "sklearn", "torchvision")
print(*sorted(name for name in sys.modules if name.startswith("dash_core") or name in others))
"""

LIGHT = """
import sys
import flows.command_line.main
print(*(name for name in ("torch", "prefect", "mlflow", "numpy", "pydantic") if name in sys.modules))
"""


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_arrows_between_packages_only_go_down():
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "Contracts: 7 kept, 0 broken." in done.stdout, done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize(("absent", "views"), [(SHELL, EXTRAS), (SHELL + DRAWING, VIEWS + EXTRAS)])
def test_the_science_imports_where_none_of_the_shell_is_installed(absent, views):
    files = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "dash_core").rglob("*.py")]
    modules = {".".join(file.parts).removesuffix(".__init__") for file in files} - {"dash_core"}
    science = [module for module in modules if not module.startswith(views)]
    assert int(python(WITHOUT_THE_SHELL.format(absent=absent, views=views))) == len(science)


def test_the_functions_of_the_methods_load_one_folder_of_ours_and_no_library_beside_torch():
    first, *parts = python(FRONT_DOOR).split()
    assert first == "dash_core"
    assert parts
    assert {part.split(".")[1] for part in parts} == {"extras", "shrinking"}


def test_the_equations_import_torch_the_standard_library_and_one_another_alone():
    for path in (ROOT / "dash_core" / "shrinking").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {"." * node.level + (node.module or "") for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        others = {name for name in names if not name.startswith("dash_core.shrinking.") or path.stem == "__init__"}
        others -= {name for name in names if name.startswith("dash_core.shrinking.")}
        assert {name.partition(".")[0] for name in others} - sys.stdlib_module_names <= {"torch"}, path


def test_the_front_door_names_all_it_has_and_a_type_checker_sees_the_same():
    tree = ast.parse((ROOT / "dash_core" / "__init__.py").read_text(encoding="utf-8"))
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    assert sorted(alias.name for node in typed.body for alias in node.names) == sorted(dash_core.__all__)
    assert set(dash_core.__all__) <= set(dir(dash_core))
    for node in typed.body:
        for alias in node.names:
            assert getattr(dash_core, alias.name) is getattr(import_module(node.module), alias.name)
    with pytest.raises(AttributeError, match="has no attribute 'dash'"):
        _ = dash_core.dash


TRAINING = """
import sys, tempfile
from pathlib import Path
from tests import toy
for optimizer in ("sgd", "sam", "adam", "adamw"):
    run = toy.params(optimizer={"name": optimizer}, training={"max_epochs": 2}, chunks=2).run("dash", 0)
    toy.advance(toy.trajectory(Path(tempfile.mkdtemp()), run, toy.dataset()))
slow = ("torch._dynamo", "sympy", "torchvision", "sklearn", "prefect", "mlflow")
print(*(name for name in slow if name in sys.modules))
"""


def test_training_imports_neither_the_compiler_nor_anything_else_that_takes_seconds():
    assert python(TRAINING) == ""


def test_the_command_line_imports_nothing_heavy_before_a_command_needs_it():
    assert python(LIGHT) == ""
