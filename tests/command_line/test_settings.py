"""From params.yaml, a preset and --set to parameters."""

import contextlib
import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dash_core.errors import ConfigError
from flows.command_line.compare import warn_of
from flows.command_line.settings import load_params, parse_override, preset_names, read_yaml

EXAMPLES = settings(max_examples=100)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "paper.yaml").write_text("chunks: 50\noptimizer:\n  lr: 1e-3\n")
    (tmp_path / "presets" / "paper-sam.yaml").write_text("optimizer:\n  name: sam\n")
    (tmp_path / "params.yaml").write_text("chunks: 5\noptimizer:\n  momentum: 0.5\n")
    return tmp_path


def refusal(folder, content: bytes | str) -> str:
    path = folder / "bad.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        load_params(path)
    assert "bad.yaml" in str(caught.value)
    return str(caught.value)


def loaded(folder, text: str) -> object:
    path = folder / "good.yaml"
    path.write_text(text)
    return read_yaml(path)


@pytest.mark.parametrize(
    ("text", "number"), [("1e-3", 0.001), ("1E3", 1000.0), ("-2.5e+2", -250.0), ("1_0e1", 100.0), ("+1.e1", 10.0)]
)
def test_a_number_with_an_exponent_is_a_number(tmp_path, text, number):
    assert loaded(tmp_path, f"a: {text}") == {"a": number}


@pytest.mark.parametrize("text", ["e1", "1e", "1e-", "x1e3", "1e3x", "'1e3'"])
def test_a_word_that_only_looks_like_one_stays_a_word(tmp_path, text):
    assert loaded(tmp_path, f"a: {text}") == {"a": text.strip("'")}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("a: 1\na: 1", "a"),
        ("a:\n  b: 1\n  c: 2\n  b: 3", "b"),
        ("a: [{b: 1, b: 2}]", "b"),
        ("? a\n: 1\n'a': 2", "a"),
    ],
)
def test_a_key_given_twice_is_an_error_that_names_it(tmp_path, text, key):
    assert f"the key '{key}' is given twice" in refusal(tmp_path, text)


def test_a_merged_mapping_is_taken_in_and_may_be_overridden(tmp_path):
    assert loaded(tmp_path, "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}") == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch mark']",
        "a: !!python/name:os.system",
        "!!python/object/new:type [a, [], {}]",
        "a: !unknown 1",
    ],
)
def test_a_tag_that_would_run_something_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    assert "is not valid YAML: could not determine a constructor for the tag" in refusal(tmp_path, text)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "must hold a mapping of names to values, got NoneType"),
        ("[1, 2]", "got list"),
        ("words", "got str"),
        ("3: 4", "must hold a mapping of names to values"),
        ("a: [1", "is not valid YAML"),
        ("a: b: c", "is not valid YAML"),
        ("a: *nobody", "is not valid YAML"),
        ("a: &a {b: *a}", "is not valid YAML"),
        ("? [1, 2]\n: 3", "is not valid YAML"),
        ("a: 2020-13-45", "is not valid YAML"),
        ("- " * 3000, "is not valid YAML"),
        (b"\x00\x01\x02", "is not valid YAML"),
        (b"\xff\xfea\x00", "cannot be read"),
        (b"\x89PNG\r\n\x1a\n", "cannot be read"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_file_that_is_no_mapping_in_yaml_is_refused_by_name(tmp_path, content, words):
    assert words in refusal(tmp_path, content)


def test_a_file_saved_with_a_byte_order_mark_is_read(project):
    path = project / "params.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_params(path).chunks == 5


def test_a_missing_file_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(ConfigError, match=r"no file .*nowhere.yaml: run inside .*--params"):
        load_params(tmp_path / "nowhere.yaml")


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_params(tmp_path)


def test_a_date_is_not_a_setting(tmp_path):
    assert loaded(tmp_path, "a: 2020-01-02") == {"a": datetime.date(2020, 1, 2)}
    (tmp_path / "dated.yaml").write_text("chunks: 2020-01-02")
    with pytest.raises(ConfigError, match=r"chunks: input should be a valid integer, got datetime.date"):
        load_params(tmp_path / "dated.yaml")


def test_a_preset_lies_over_the_file_and_single_values_over_both(project):
    params = load_params(project / "params.yaml", "paper", ["chunks=7", "methods.dash.floor=0.05"])
    assert (params.chunks, params.optimizer.lr, params.optimizer.momentum) == (7, 0.001, 0.5)
    assert params.method("dash").parameters["floor"] == 0.05


def test_presets_are_those_beside_the_file(project):
    assert preset_names(project) == ["paper", "paper-sam"]
    with pytest.raises(
        ConfigError, match=r"unknown preset 'papper' \(did you mean 'paper'\?\); known: paper, paper-sam"
    ):
        load_params(project / "params.yaml", "papper")


@pytest.mark.parametrize("name", ["../params", "presets/paper", "paper.yaml", "/etc/passwd"])
def test_a_preset_is_a_name_and_not_a_path(project, name):
    with pytest.raises(ConfigError, match="unknown preset"):
        load_params(project / "params.yaml", name)


def test_without_presets_none_are_known(tmp_path):
    (tmp_path / "params.yaml").write_text("chunks: 5")
    with pytest.raises(ConfigError, match="known: none"):
        load_params(tmp_path / "params.yaml", "paper")


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("chunks=3", {"chunks": 3}),
        ("model.name=torchvision:resnet18", {"model": {"name": "torchvision:resnet18"}}),
        ("optimizer.lr=1e-3", {"optimizer": {"lr": 0.001}}),
        ("seeds=[0, 1]", {"seeds": [0, 1]}),
        (
            "methods.low={intervention: dash, floor: 0.05}",
            {"methods": {"low": {"intervention": "dash", "floor": 0.05}}},
        ),
        ("dataset.train_size=", {"dataset": {"train_size": None}}),
        ("dataset.folder='a=b'", {"dataset": {"folder": "a=b"}}),
        (" chunks =3", {"chunks": 3}),
    ],
)
def test_an_override_is_a_path_of_keys_and_a_value_in_yaml(text, content):
    assert parse_override(text) == content


NAMES = ["2024-01-15", "2024", "1_000", "007", "0x1F", "1e5", "1.50", "12:30", "no", "on", "True", ".inf", "="]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_is_called_what_is_written(project, name):
    (project / "params.yaml").write_text(f"dataset:\n  name: image_folder\n  folder: {name}  # my photos\n")
    assert load_params(project / "params.yaml").dataset.folder == name
    (project / "params.yaml").write_text("dataset: {name: image_folder, folder: photos}\n")
    assert load_params(project / "params.yaml", None, [f"dataset.folder={name}"]).dataset.folder == name
    given = [f"dataset={{name: image_folder, folder: {name}}}"]
    assert load_params(project / "params.yaml", None, given).dataset.folder == name


@pytest.mark.parametrize(
    "name", ["a: b", "#1", "photos #2", "[x]", "*old", "!new", "@home", "100%", "C:\\photos", "- a"]
)
def test_the_folder_of_an_override_needs_no_quotes(project, name):
    given = ["dataset.name=image_folder", f"dataset.folder={name}"]
    assert load_params(project / "params.yaml", None, given).dataset.folder == name


def test_every_other_setting_that_is_text_is_read_as_it_is_written(project):
    (project / "params.yaml").write_text(
        "methods:\n  2024: &a {intervention: dash}\n  no: {<<: *a, floor: 1e-1}\n  1_0: {mode: train, <<: *a}\n"
        "compare: {methods: [2024, no, 1_0]}\ndataset: {background: '#00ff00', name: tiny_imagenet}\nseeds: [1_0]\n"
    )
    params = load_params(project / "params.yaml", None, ["dataset.background=#ffffff"])
    assert [run.method.label for run in params.runs()] == ["2024", "no", "1_0"]
    assert params.method("no").parameters["floor"] == 0.1
    assert (params.dataset.background, params.seeds) == ("#ffffff", [10])
    with pytest.raises(ConfigError, match=r"optimizer.name: .*got 'on'"):
        load_params(project / "params.yaml", None, ["optimizer.name=on"])


def test_null_and_quotes_keep_their_meaning(project):
    given = ["dataset.name=image_folder", "dataset.folder='null'"]
    assert load_params(project / "params.yaml", None, given).dataset.folder == "null"
    assert load_params(project / "params.yaml", None, ["dataset.folder=null"]).dataset.folder is None
    assert load_params(project / "params.yaml", None, ["dataset.folder="]).dataset.folder is None


@pytest.mark.parametrize("text", ["chunks", "", "=3", ".=3", "a..b=3", "a.=3"])
def test_an_override_without_key_or_value_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match=r"--set takes section.key=value, got .*for example"):
        parse_override(text)


@pytest.mark.parametrize("text", ["a=[1", "a={b: 1, b: 2}", "a=!!python/name:os.system", "a=: :", "a=\x00"])
def test_an_override_whose_value_is_no_yaml_is_refused(text):
    with pytest.raises(ConfigError, match=r"--set a: the value .* is not valid YAML"):
        parse_override(text)


@pytest.mark.parametrize(
    ("changes", "warned"),
    [
        ([], False),
        (["experiments=1"], True),
        (["chunks=1"], True),
        (["experiments=2"], False),
        (["protocol.name=two_phase", "protocol.pretrain_epochs=1", "chunks=2", "experiments=1"], True),
        (["experiments=1", "compare.methods=[warm, l2_init]"], False),
        (["experiments=1", "compare.methods=[warm, l2_init, dash]"], True),
    ],
)
def test_methods_that_can_only_act_between_experiments_are_warned_of_where_there_is_no_between(
    project, changes, warned, capsys
):
    warn_of(load_params(project / "params.yaml", None, changes))
    assert capsys.readouterr().err.startswith("warning: no method intervenes in 1 experiment(s)") == warned


@EXAMPLES
@given(st.binary(max_size=60) | st.text(alphabet="ab:{}[]&*!<>?-\n \"'#|0e", max_size=40).map(str.encode))
def test_no_file_is_anything_but_read_or_refused_in_words(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(content)
    with contextlib.suppress(ConfigError):
        load_params(path)


@EXAMPLES
@given(st.text(max_size=30))
def test_no_override_is_anything_but_read_or_refused_in_words(text):
    with contextlib.suppress(ConfigError):
        parse_override(text)
