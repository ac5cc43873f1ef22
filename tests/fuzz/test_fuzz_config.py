"""Malformed settings: whatever a file, a preset, an override or a variable holds is taken, or refused in words."""

import os
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dash_core.comparison import Params
from dash_core.config import parse
from dash_core.errors import ConfigError
from dash_core.interventions import INTERVENTIONS
from flows.command_line.options import SharedOptions
from flows.command_line.session import make_writable
from flows.command_line.settings import load_params, parse_override
from flows.services.prefect_server import check_health
from tests.fuzz.malformed import ODD, damaged, examples, listing, mutated, names, refusal, yaml_junk, yaml_text
from tests.system.shell import ROOT

FILES = [ROOT / "params.yaml", *sorted((ROOT / "presets").glob("*.yaml"))]
WHOLE = parse(Params, {"methods": {name: {} for name in INTERVENTIONS}, "seeds": [0]}).model_dump(mode="json")
CONTENTS = [WHOLE, *(yaml.safe_load(file.read_text()) for file in FILES)]
PARTS = [{name: content[name]} for content in CONTENTS for name in content]
FEW = [content for number, content in enumerate(PARTS) if content not in PARTS[:number]]
MALFORMED = st.one_of([mutated(good, yaml_junk) for good in FEW])


@pytest.fixture
def project(tmp_path):
    (tmp_path / "presets").mkdir()
    (tmp_path / "params.yaml").write_text("chunks: 5\n")
    return tmp_path


def refused_by_name(folder, load, known=()) -> None:
    """Assert that input is taken, or refused by the name of the file or a setting; and that nothing is written."""
    before = listing(folder)
    words = refusal(load)
    assert words is None or any(name in words for name in (".yaml", "method", "the configuration", *WHOLE, *known)), (
        words
    )
    assert listing(folder) == before


@examples(400)
@given(content=MALFORMED)
def test_a_file_with_anything_in_the_place_of_a_setting_is_taken_or_refused_by_name(project, content):
    (project / "params.yaml").write_text(yaml_text(content))
    refused_by_name(project, lambda: load_params(project / "params.yaml").runs(), content)


@examples(100)
@given(content=MALFORMED)
def test_a_preset_with_anything_in_the_place_of_a_setting_is_taken_or_refused_by_name(project, content):
    (project / "presets" / "odd.yaml").write_text(yaml_text(content))
    refused_by_name(project, lambda: load_params(project / "params.yaml", "odd").runs(), content)


@examples(100)
@given(content=st.one_of([damaged(file.read_bytes()) for file in FILES[:4]]))
def test_a_damaged_file_is_taken_or_refused_by_name(project, content):
    (project / "params.yaml").write_bytes(content)
    refused_by_name(project, lambda: load_params(project / "params.yaml").runs(), ["unknown key"])


PATHS = [f"{section}.{key}" for section, content in WHOLE.items() if isinstance(content, dict) for key in content]


@examples(250)
@given(
    key=st.sampled_from([*WHOLE, *PATHS, "methods.x.intervention", "", ".", "a..b"]) | names,
    value=st.text(max_size=8) | st.sampled_from(ODD) | yaml_junk.map(yaml_text),
)
def test_an_override_with_any_key_and_value_is_taken_or_refused_by_name(project, key, value):
    overrides = [f"{key}={value}"]
    refused_by_name(project, lambda: load_params(project / "params.yaml", None, overrides).runs(), ["--set", key])


@examples(50)
@given(st.text(max_size=20) | st.sampled_from(["../params", "/etc/passwd", "a\0b", "x" * 5000, "..", "odd.yaml"]))
def test_no_preset_is_looked_for_outside_the_presets(project, name):
    words = refusal(lambda: load_params(project / "params.yaml", name))
    assert words is None if name == "" else "unknown preset" in words


def typos(word: str) -> list[str]:
    """Return the word with a letter lost, doubled, and, where three others are left to know it by, mistaken."""
    return [word[:-1] if len(word) < 3 else word[0] + word[2:], word[0] + word, *([word[:-1] + "q"] * (len(word) > 3))]


NESTED = [path for path in PATHS if not path.startswith("methods.")]
PARAMETERS = [f"methods.{name}.{key}" for name, kind in INTERVENTIONS.items() for key in kind.model_fields]


@pytest.mark.parametrize("path", [*WHOLE, *NESTED, *PARAMETERS])
def test_every_setting_with_a_letter_wrong_is_refused_and_suggested(path):
    *above, key = path.split(".")
    for typo in typos(key):
        with pytest.raises(ConfigError, match=rf"unknown key {'.'.join([*above, typo])} \(did you mean '{key}'\?\)"):
            load_params_from(parse_override(".".join([*above, typo]) + "=1"))


def load_params_from(content: dict) -> None:
    params = parse(Params, content)
    for label in params.methods:
        params.method(label)


LAUGHS = "x0: &x0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 30)
)
MERGES = "x0: &x0 {k: 1}\n" + "".join(f"x{n}: &x{n} {{<<: [{', '.join([f'*x{n - 1}'] * 9)}]}}\n" for n in range(1, 30))
BOMBS = {
    "aliases of aliases": LAUGHS,
    "aliases as a setting": LAUGHS + "chunks: *x29\n",
    "merges of merges": MERGES,
    "mappings of mappings": LAUGHS.replace("[", "[{a: ").replace(", ", "}, {a: ").replace("]", "}]"),
    "lists in lists": "chunks: " + "[" * 2000,
    "mappings in mappings": "methods: " + "{a: " * 300 + "1" + "}" * 300,
    "a long word": "chunks: " + "a" * 500_000,
    "a long number": "chunks: 0x" + "f" * 500_000,
    "many keys": "\n".join(f"key{n}: 1" for n in range(3000)),
    "many seeds": f"seeds: {list(range(9_000))}\nchunks: 0",
    "the same seed": f"seeds: [{'1, ' * 15_000}]",
    "a large file": "# " + "x" * 2**21,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_made_to_fill_memory_or_time_is_refused_soon_and_briefly(project, name):
    (project / "params.yaml").write_text(BOMBS[name])
    started = time.process_time()
    words = refusal(lambda: load_params(project / "params.yaml"))
    assert time.process_time() - started < 10
    assert len(words) < 3000


def test_an_override_of_any_depth_is_refused(project):
    deep = "chunks." + "a." * 5000 + "b=1"
    assert "chunks: input should be a valid integer" in refusal(
        lambda: load_params(project / "params.yaml", None, [deep])
    )


@pytest.mark.parametrize(
    "device", ["cuda:99", "cuda:128", "cuda:256", "cuda:٣", "cuda:-1", "cuda:99999999999999999999", "gpu", "", "cpu\n"]
)
def test_a_device_that_is_not_here_is_refused(project, device):
    (project / "params.yaml").write_text(yaml_text({"compare": {"device": device}}))
    assert "compare.device" in refusal(lambda: SharedOptions(project / "params.yaml").place)


@pytest.mark.parametrize("which", ["store", "data_root"])
@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "file", "loop", "/proc/nothing", "file/below"])
def test_a_folder_that_cannot_be_is_refused_or_left_alone(project, which, name):
    (project / "file").write_text("")
    os.symlink("loop", project / "loop")
    places = {"store": project / "good", "data_root": None, which: project / name}

    def open_it():
        make_writable(SharedOptions(project / "params.yaml", **places).place)

    words = refusal(open_it)
    assert "--store" in words if which == "store" else words is None or "--data-root" in words


@pytest.mark.parametrize(
    "url", ["", "here", "http://", "http://[::1", "http://127.0.0.1:x", "http://a b", "http://\0", "http://127.0.0.1:9"]
)
def test_an_address_of_prefect_that_is_none_is_refused(url):
    assert "PREFECT_API_URL" in refusal(lambda: check_health(url, timeout=1))
