"""The page docs/guide/own-parts.md: its package is written to a folder, and its commands are checked and rehearsed."""

import re

import yaml

from dash_core.data import ChunkPlan, load_dataset
from dash_core.rehearsal import rehearse
from flows.command_line.settings import load_params
from tests.pages import ROOT, blocks
from tests.parts import package
from tests.test_docs import commands

PAGE = ROOT / "docs" / "guide" / "own-parts.md"


def settings_of(words: list[str]) -> list[str]:
    return [words[place + 1] for place, word in enumerate(words) if word == "--set"]


def test_the_package_of_the_page_and_its_commands_work(project, tmp_path):
    for file in [*(project / "mypackage").iterdir(), *package.write(project).iterdir()]:
        file.unlink(missing_ok=True)
    for block in blocks(PAGE, "python"):
        (project / block.file).write_text(block.code)
    (project / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    mine, loss_and_plan = [
        settings_of(words) for words in commands(PAGE) if words[0] == "compare" and "mypackage" in " ".join(words)
    ]
    params = load_params(project / "params.yaml", overrides=[*mine, *loss_and_plan])
    data = load_dataset(params.dataset, data_root=tmp_path, cache=tmp_path)
    for label in params.compare.methods:
        rehearse(params.run(label, 0), data)
    assert params.method("Halve").parameters == {"factor": 0.4}
    sizes = [len(chunk) for chunk in ChunkPlan.split(data.train, params.dataset, 5, seed=0).chunks]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 10 * sizes[0]


def test_the_labels_of_the_page_are_two_methods_of_one_class(project):
    (section,) = re.findall(r"```yaml\n(methods:.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    base = yaml.safe_load((ROOT / "params.yaml").read_text())
    (project / "params.yaml").write_text(yaml.safe_dump({**base, **yaml.safe_load(section)}))
    params = load_params(project / "params.yaml")
    assert [params.method(label).parameters for label in params.compare.methods[1:]] == [
        {"factor": 0.5},
        {"factor": 0.9},
    ]
