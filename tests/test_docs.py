"""The code in README.md and docs/**/*.md: Python runs, page by page; commands and their options exist."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise, takewhile
from pathlib import Path

import pytest
import yaml

from tests.pages import LANGUAGES, PAGES, ROOT, blocks, page_name

INLINE = re.compile(r"`((?:uv run )?dashpipe [^`\n]+)`")


def run(page: Path, *, extras: bool, **names: object) -> None:
    """Run the Python of a page, block by block in one namespace, with or without those that need an extra."""
    for block in blocks(page, "python"):
        if block.is_run and not (block.needs and not (extras and importlib.util.find_spec(block.needs))):
            exec(compile("\n" * block.line + block.code, page, "exec"), names)


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page))], ids=page_name)
def test_every_block_is_complete_and_the_page_says_why_one_is_not_run(page):
    for block in blocks(page):
        assert block.language in LANGUAGES
        assert not block.mark or re.match(r"needs: \w+$|run smaller$|not run: \w.{10}", block.mark), block.mark
        if block.language == "python":
            compile(block.code, page, "exec")


@pytest.mark.parametrize(
    "page",
    ["README.md", "packaging/README.md", *(f"docs/guide/{name}.md" for name in ("own-loop", "own-data", "own-parts"))],
)
def test_the_python_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = []
    run(ROOT / page, extras=False, train=lambda model, optimizer, chunks: trained.append(len(chunks)))  # the reader's
    assert page != "README.md" or trained == [1, 2, 3, 4, 5]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the other libraries
def test_the_blocks_that_need_other_libraries_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run(ROOT / "docs" / "guide" / "own-loop.md", extras=True)


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words after `dashpipe` of each command of a page, in its blocks and in its text."""
    lines = [line for block in blocks(page, "") for line in block.code.replace("\\\n", " ").splitlines()]
    for line in [*lines, *INLINE.findall(page.read_text(encoding="utf-8"))]:
        if "dashpipe" not in line or line.count("'") % 2:
            continue
        words = shlex.split(line, comments=True)
        for start, word in enumerate(words):
            if word == "dashpipe" and (start == 0 or words[start - 1] in ("run", "&&")):
                yield list(takewhile(lambda word: word not in ("&&", "|", ">", ";"), words[start + 1 :]))


@pytest.mark.parametrize("page", [page for page in PAGES if any(commands(page))], ids=page_name)
def test_every_command_and_option_that_a_page_names_is_there(page):
    from typer.main import get_command

    from flows.command_line.main import app

    group = get_command(app)
    for words in commands(page):
        assert words[0] in group.commands or words[0].startswith("-"), f"dashpipe {words[0]}"
        command = group.commands.get(words[0], group)
        if hasattr(command, "commands") and words[1:] and words[1] != "…":
            assert words[1] in command.commands, f"dashpipe {words[0]} {words[1]}"
            command = command.commands[words[1]]
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= options | {"--help"}, f"dashpipe {' '.join(words)}"


# what the reader of a page has, and this checkout does not
YOURS = re.compile(r"mypackage|resnet18\.pth|weights\.safetensors")


def settings(page: Path) -> Iterator[list[str]]:
    """Yield the values of `--set` of each command of a page, without those of the reader's own files and parts."""
    for words in commands(page):
        given = [value for option, value in pairwise(words) if option == "--set"]
        if given and not YOURS.search(" ".join(given)):
            yield given


@pytest.mark.parametrize("page", [page for page in PAGES if any(settings(page))], ids=page_name)
def test_every_setting_that_a_page_gives_a_command_is_taken(page):
    from flows.command_line.settings import load_params

    for given in settings(page):
        load_params(ROOT / "params.yaml", overrides=given)


def test_every_yaml_block_of_the_page_of_settings_is_taken():
    from dash_core.comparison import Params
    from dash_core.config import parse
    from flows.command_line.settings import check

    for block in blocks(ROOT / "docs" / "settings.md", "yaml"):
        check(parse(Params, {"dataset": {"name": "cifar10"}, **yaml.safe_load(block.code)}))
