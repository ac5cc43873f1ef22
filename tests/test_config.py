"""The configuration: what is wrong is named before anything runs, and a run's id is what decides its result."""

import contextlib
import copy
import math
import pickle
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dash_core import comparison
from dash_core.comparison import Params
from dash_core.config import RunConfig, digest_of, merge, nearest, parse
from dash_core.errors import ConfigError
from dash_core.interventions import INTERVENTIONS
from dash_core.recipes import effective, resolve_run
from flows.command_line.settings import check


def runs(content: dict) -> list:
    """Do all that is done with parameters before a run starts."""
    params = parse(Params, content)
    check(params)
    assert params.name
    return params.runs()


def refusal(content: object) -> str:
    with pytest.raises(ConfigError) as caught:
        runs(content)
    return str(caught.value)


def nested(key: str, value: object) -> dict:
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("chunk", "chunks"),
        ("dataset.nam", "name"),
        ("dataset.label_nose", "label_noise"),
        ("model.nme", "name"),
        ("optimizer.learning_rate", "lr"),
        ("optimizer.momentun", "momentum"),
        ("training.batchsize", "batch_size"),
        ("training.max_epoch", "max_epochs"),
        ("compare.worker", "workers"),
        ("compare.method", "methods"),
        ("methods.dash.flor", "floor"),
        ("methods.shrink_perturb.stigma", "sigma"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(key, suggestion):
    assert refusal(nested(key, 1)).startswith(f"unknown key {key} (did you mean {suggestion!r}?)")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("methods.dash.lambda", "floor is the paper's lambda"),
        ("methods.dash.α", "alpha is the paper's α"),
        ("methods.dash_norms.lambda", "floor is the paper's lambda"),
        ("methods.shrink_perturb.lambda", "shrink is the paper's lambda"),
        ("methods.l2_init.lambda", "strength is the paper's lambda"),
        ("lambda", "methods.dash.floor is the paper's lambda"),
        ("theory.C", "classes is the paper's C"),
        ("lr", "did you mean optimizer.lr?"),
        ("tau", "did you mean theory.tau?"),
        ("training.momentum", "did you mean optimizer.momentum?"),
        ("dataset.chunks", "did you mean chunks?"),
        ("epochs", "did you mean training.max_epochs?"),
        ("arch", "did you mean 'model'?"),
    ],
)
def test_a_symbol_of_the_paper_and_a_key_of_another_section_are_told_where_they_belong(key, hint):
    assert refusal(nested(key, 1)).startswith(f"unknown key {key} ({hint})")


def test_the_sections_of_a_setting_can_be_hashed_and_written_as_lists():
    params = parse(Params, {"model": {"frozen": ["b", "a"]}, "training": {"recipe": "sota", "milestones": [3, 5]}})
    assert len({params.model, params.training, params.optimizer, params.dataset}) == 4
    dumped = params.model_dump(mode="json")
    assert (dumped["model"]["frozen"], dumped["training"]["milestones"]) == (["a", "b"], [3, 5])
    rates = parse(Params, {"optimizer": {"lr_multipliers": {"fc": 10.0, "conv1": 0.1}}})
    assert rates.optimizer.lr_multipliers == (("conv1", 0.1), ("fc", 10.0))
    assert rates.model_dump(mode="json")["optimizer"]["lr_multipliers"] == {"conv1": 0.1, "fc": 10.0}
    assert parse(Params, rates.model_dump(mode="json")) == rates
    assert len({rates.optimizer, params.optimizer}) == 2
    for wrong in ({"fc": 0.0}, {"fc": "fast"}, [1, 2], "fc", {1: 0.1}, {"": 0.1}):
        assert refusal({"optimizer": {"lr_multipliers": wrong}}).startswith("optimizer.lr_multipliers")
    assert refusal({"model": {"frozen": "a"}}) == "model.frozen is a list, got 'a': set model.frozen=[a]"


def test_a_method_may_have_its_own_learning_rate():
    content = {"methods": {"slow": {"intervention": "dash", "lr": 0.001}, "dash": {}}, "optimizer": {"lr": 0.1}}
    params = parse(Params, {**content, "compare": {"methods": ["slow", "dash"]}})
    assert [resolve_run(params.run(label, 0))[0].lr for label in ("slow", "dash")] == [0.001, 0.1]
    assert params.run("slow", 0).digest != params.run("dash", 0).digest
    assert params.run("dash", 0).id == parse(Params, {"optimizer": {"lr": 0.1}}).run("dash", 0).id
    assert "methods.slow.lr: input should be greater than 0" in refusal(
        nested("methods.slow", {"lr": 0, "intervention": "dash"})
    )


def test_a_configuration_says_the_values_that_its_recipe_fills_in():
    params = parse(
        Params, {"training": {"recipe": "sota"}, "dataset": {"name": "cifar100"}, "methods": {"dash": {"lr": 1}}}
    )
    content = effective(params.run("dash", 0))
    assert (content["optimizer"]["weight_decay"], content["optimizer"]["lr"]) == (5e-4, 1.0)
    training = {name: content["training"][name] for name in ("schedule", "warmup_epochs", "augmentation", "milestones")}
    assert training == {
        "schedule": "multistep",
        "warmup_epochs": 1,
        "augmentation": "crop_flip_rotate",
        "milestones": [60, 120, 160, 200],
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schedule": "constant", "decay": 0.1}, "those of the schedule multistep, got constant"),
        ({"milestones": [5]}, "training.milestones: they are those of the schedule multistep, and it is constant"),
        ({"milestones": [5, 3]}, "must rise"),
        ({"clip_norm": 0}, "training.clip_norm: input should be greater than 0"),
        ({"micro_batch_size": 1}, "training.micro_batch_size: input should be greater than or equal to 2"),
    ],
)
def test_settings_of_training_that_mean_nothing_are_refused(changes, words):
    assert words in refusal({"training": changes})


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        ({"model": "resnet18"}, "set model.name=resnet18"),
        ({"dataset": "cifar10"}, "set dataset.name=cifar10"),
        ({"optimizer": "adam"}, "set optimizer.name=adam"),
        ({"protocol": "continuous"}, "set protocol.name=continuous"),
        ({"training": "sota"}, "set training.recipe=sota"),
    ],
)
def test_a_name_where_a_section_belongs_is_told_its_key(content, remedy):
    (section, name) = next(iter(content.items()))
    assert refusal(content) == f"{section} is a section of settings, got {name!r}: {remedy}"


def test_a_name_where_a_list_belongs_is_told_its_brackets():
    words = refusal({"compare": {"methods": "dash"}})
    assert words == "compare.methods is a list, got 'dash': set compare.methods=[dash]"


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("CIFAR10", ["cifar10", "cifar100"], "cifar10"),
        ("CIFAR-100", ["cifar10", "cifar100"], "cifar100"),
        ("Tiny-ImageNet", ["imagenet", "tiny_imagenet"], "tiny_imagenet"),
        ("ResNet18", ["resnet18", "resnet18_sota"], "resnet18"),
        ("DASH", ["cold", "dash", "dash_norms"], "dash"),
        ("λ", ["floor"], None),
    ],
)
def test_capitals_and_punctuation_do_not_hide_a_name(name, known, meant):
    assert nearest(name, known) == (f" (did you mean {meant!r}?)" if meant else "")


@pytest.mark.parametrize(
    "section", ["dataset", "model", "optimizer", "training", "protocol", "compare", "methods", "methods.dash"]
)
@pytest.mark.parametrize("value", [None, 3, "words", [1]], ids=repr)
def test_a_section_must_be_a_mapping(section, value):
    assert refusal(nested(section, value)).startswith(section)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("chunks", 0, "greater than or equal to 1, got 0"),
        ("chunks", "10", "valid integer, got '10'"),
        ("chunks", 1.5, "valid integer, got 1.5"),
        ("chunks", True, "valid integer, got True"),
        ("chunks", 2**31, "less than 2147483648"),
        ("dataset.name", 3, "valid string, got 3"),
        ("dataset.label_noise", -0.1, "greater than or equal to 0"),
        ("dataset.label_noise", 1.1, "less than or equal to 1"),
        ("dataset.test_share", 0, "greater than 0"),
        ("dataset.test_share", 1, "less than 1"),
        ("dataset.train_size", 0, "greater than or equal to 1"),
        ("dataset.test_size", 0, "greater than or equal to 1"),
        ("optimizer.name", "sdg", "'sgd', 'sam', 'adam' or 'adamw', got 'sdg'"),
        ("optimizer.lr", 0, "greater than 0"),
        ("optimizer.lr", -1e-3, "greater than 0"),
        ("optimizer.lr", math.nan, "finite number, got nan"),
        ("optimizer.lr", math.inf, "finite number, got inf"),
        ("optimizer.lr", "1e-3", "valid number, got '1e-3'"),
        ("optimizer.lr", True, "valid number, got True"),
        ("optimizer.momentum", 1, "less than 1"),
        ("optimizer.weight_decay", -1, "greater than or equal to 0"),
        ("optimizer.rho", 0, "greater than 0"),
        ("training.recipe", "sotta", "'standard' or 'sota', got 'sotta'"),
        ("training.batch_size", 1, "greater than or equal to 2"),
        ("training.stop_accuracy", 99.9, "less than or equal to 1"),
        ("training.max_epochs", 0, "greater than or equal to 1"),
        ("training.schedule", "linear", "'constant', 'multistep' or 'cosine'"),
        ("training.warmup_epochs", -1, "greater than or equal to 0"),
        ("training.augmentation", "flip", "'crop_flip'"),
        ("seeds", [], "at least 1 item"),
        ("seeds", 3, "valid list, got 3"),
        ("seeds.0", 0, "valid list"),
        ("compare.methods", [], "at least 1 item"),
        ("compare.workers", 0, "greater than or equal to 1"),
        ("compare.threads", "many", "'auto', got 'many'"),
        ("compare.device", "gpu", "got 'gpu'"),
        ("methods.dash.floor", 1.01, "less than or equal to 1, got 1.01"),
        ("methods.dash.floor", -0.01, "greater than or equal to 0"),
        ("methods.dash.alpha", 0, "greater than 0"),
        ("methods.dash.alpha", math.nan, "finite number"),
        ("methods.dash.mode", "test", "'eval' or 'train'"),
        ("methods.dash.micro_batch_size", 1, "greater than or equal to 2"),
        ("methods.shrink_perturb.sigma", -1, "greater than or equal to 0"),
        ("methods.l2_init.strength", "0.1", "valid number, got '0.1'"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_and_what_is_allowed(key, value, words):
    message = refusal(nested(key, value))
    assert message.startswith(key.removesuffix(".0") + ": ")
    assert words in message


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seeds", [0, 1, 0], "seeds: `seeds` repeats 0: name each once"),
        ("compare.methods", ["warm", "dash", "warm"], "compare.methods: `methods` repeats warm: name each once"),
        ("seeds", [-1], "seeds.0: input should be greater than or equal to 0, got -1"),
        ("seeds", [2**31], "seeds.0: input should be less than 2147483648, got 2147483648"),
        ("compare.methods", ["dahs"], "unknown method 'dahs' (did you mean 'dash'?); known: cold, dash, "),
        (
            "methods.low",
            {"intervention": "dahs"},
            "methods.low.intervention: unknown intervention 'dahs' (did you mean",
        ),
        ("methods.low", {"intervention": 3}, "methods.low.intervention: unknown intervention 3; known: cold, dash, "),
        (
            "methods.low",
            {"intervention": ["dash"]},
            "methods.low.intervention: unknown intervention ['dash'] (did you mean 'dash'?)",
        ),
        ("methods.low", {}, "methods.low.intervention: unknown intervention 'low'; known: cold, dash, "),
        ("methods.warm", {"floor": 1}, "unknown key methods.warm.floor; known here: none"),
        ("methods", {"../up": {}}, "methods.../up.[key]: String should match pattern"),
        ("dataset.name", "cifar", "dataset.name: unknown dataset 'cifar' (did you mean 'cifar10'?)"),
        (
            "dataset.name",
            "image_folder",
            "dataset: `folder` is needed by, and only used with, the datasets image_folder and stream",
        ),
        (
            "dataset.folder",
            "here",
            "dataset: `folder` is needed by, and only used with, the datasets image_folder and stream",
        ),
        ("dataset.image_size", 8, "dataset: `image_size` is only used with the datasets image_folder and imagenet"),
        ("protocol.name", "discard", "protocol.name: unknown protocol 'discard' (did you mean 'discarding'?); known: "),
        ("protocol.name", 3, "protocol.name: unknown protocol 3; known: standard, two_phase, discarding, continuous, "),
        ("protocol", {"name": "continuous", "interval": 0}, "protocol.interval: input should be greater than or equal"),
        ("protocol.interval", 5, "unknown key protocol.interval; known with protocol.name=standard: name"),
        ("experiments", 11, "experiments: 11 is more than the 10 that standard has with chunks=10"),
        ("model.name", "resnet81", "unknown model 'resnet81' (did you mean 'resnet18'?)"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(key, value, message):
    assert refusal(nested(key, value)).startswith(message)


def test_every_mistake_is_named_at_once():
    message = refusal({"chunks": 0, "trainig": {}, "optimizer": {"lr": -1}})
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize("content", [None, [], "chunks: 3", 3], ids=repr)
def test_what_is_no_mapping_is_refused(content):
    assert "must be a mapping" in refusal(content)


def test_a_seed_given_for_one_run_is_checked_as_well():
    with pytest.raises(ConfigError, match="seed: input should be less than 2147483648"):
        parse(Params, {}).run("dash", 2**31)


BASE = {"methods": {"dash": {"floor": 0.1}, "low": {"intervention": "dash", "floor": 0.05}}}


def digest(label: str = "dash", seed: int = 0, **changes: object) -> str:
    return parse(Params, merge(BASE, changes)).run(label, seed).digest


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": {"name": "mnist"}},
        {"dataset": {"name": "image_folder", "folder": "here"}},
        {"dataset": {"test_share": 0.3}},
        {"dataset": {"label_noise": 0.1}},
        {"dataset": {"train_size": 100}},
        {"dataset": {"test_size": 100}},
        {"chunks": 11},
        {"experiments": 3},
        {"protocol": {"name": "discarding", "interval": 5}},
        {"training": {"stop_accuracy": None}},
        {"model": {"name": "mlp"}},
        {"optimizer": {"name": "sam"}},
        {"optimizer": {"lr": 0.02}},
        {"optimizer": {"momentum": 0.8}},
        {"optimizer": {"weight_decay": 0.1}},
        {"optimizer": {"rho": 0.05}},
        {"training": {"recipe": "sota"}},
        {"training": {"batch_size": 64}},
        {"training": {"stop_accuracy": 0.99}},
        {"training": {"max_epochs": 10}},
        {"training": {"schedule": "multistep"}},
        {"training": {"warmup_epochs": 1}},
        {"training": {"augmentation": "crop_flip"}},
        {"methods": {"dash": {"floor": 0.2}}},
        {"methods": {"dash": {"alpha": 0.2}}},
        {"methods": {"dash": {"mode": "train"}}},
        {"methods": {"dash": {"micro_batch_size": 8}}},
        {"seed": 1},
        {"label": "warm"},
    ],
    ids=str,
)
def test_whatever_decides_a_result_changes_the_runs_digest(changes):
    assert digest(**changes) != digest()


@pytest.mark.parametrize(
    "changes",
    [
        {"compare": {"workers": 7}},
        {"compare": {"threads": 3}},
        {"compare": {"device": "cpu"}},
        {"compare": {"methods": ["dash"]}},
        {"seeds": [4, 5]},
        {"methods": {"low": {"floor": 0.3}}},
        {"methods": {"dash": {"alpha": 0.3, "mode": "eval", "micro_batch_size": None}}},  # the defaults, spelt out
    ],
    ids=str,
)
def test_what_does_not_decide_a_result_leaves_the_runs_digest(changes):
    assert digest(**changes) == digest()


def test_the_same_intervention_under_two_labels_is_the_same_digest_and_two_ids():
    params = parse(Params, merge(BASE, {"methods": {"low": {"floor": 0.1}}}))
    dash, low = params.run("dash", 0), params.run("low", 0)
    assert dash.digest == low.digest
    assert dash.id != low.id


def test_a_variant_is_its_intervention_with_its_own_parameters():
    method = parse(Params, BASE).method("low")
    expected = {"alpha": 0.3, "floor": 0.05, "cutoff": 0.0, "mode": "eval", "micro_batch_size": None}
    assert (method.label, method.intervention, method.parameters) == ("low", "dash", expected)


def test_an_id_says_what_the_run_is():
    assert re.fullmatch(r"digits-cnn3_small-low-s7-[0-9a-f]{10}", parse(Params, BASE).run("low", 7).id)


def test_runs_are_every_method_of_every_seed_in_order():
    params = parse(Params, {"seeds": [4, 2], "compare": {"methods": ["warm", "dash"]}})
    listed = [(run.seed, run.method.label) for run in params.runs()]
    assert listed == [(4, "warm"), (4, "dash"), (2, "warm"), (2, "dash")]


def test_a_comparisons_name_is_that_of_its_runs_in_any_order():
    one, other, third = (
        parse(Params, {"seeds": seeds, "compare": {"methods": methods, "workers": 3}}).name
        for seeds, methods in (([0, 1], ["warm", "dash"]), ([1, 0], ["dash", "warm"]), ([0], ["warm", "dash"]))
    )
    assert one == other != third


@given(
    label=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,63}", fullmatch=True),
    model=st.text(min_size=1, max_size=40),
    seed=st.integers(0, 2**31 - 1),
)
@settings(max_examples=50)
def test_ids_and_names_are_safe_as_file_names(label, model, seed):
    content = {"methods": {label: {"intervention": "warm"}}, "model": {"name": model}, "compare": {"methods": [label]}}
    params = parse(Params, content)
    for name in (params.run(label, seed).id, params.name):
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", name)
        assert len(name) < 250


def test_merging_lays_mappings_over_and_replaces_everything_else():
    base = {"a": {"b": 1, "c": [1, 2]}, "d": {"e": 1}}
    before = copy.deepcopy(base)
    assert merge(base, {"a": {"c": [3]}, "d": 5}) == {"a": {"b": 1, "c": [3]}, "d": 5}
    assert base == before


WHOLE = parse(Params, {"methods": {name: {} for name in INTERVENTIONS}, "seeds": [0]}).model_dump(mode="json")
PATHS = [(section,) for section in WHOLE] + [
    (section, key) for section, content in WHOLE.items() if isinstance(content, dict) for key in content
]
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["auto", "dash", "dataset", "intervention", "\ud800", "__class__"])
    | st.binary(max_size=3)
    | st.dates()
)
keys = st.text(max_size=8) | st.sampled_from(["name", "methods", "intervention", "floor", "\ud800"]) | st.integers()
junk = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


@st.composite
def malformed(draw) -> object:
    """Return a whole configuration with one to three of its parts replaced, or added, at random."""
    content = copy.deepcopy(WHOLE)
    for _ in range(draw(st.integers(1, 3))):
        *above, last = draw(st.sampled_from(PATHS))
        place = content
        for key in above:
            place = place[key] if isinstance(place[key], dict) else content
        place[draw(st.just(last) | keys)] = draw(junk)
    return content


@settings(max_examples=300)
@given(malformed() | junk)
def test_no_content_is_anything_but_accepted_or_refused_in_words(content):
    with contextlib.suppress(ConfigError):
        runs(content)


def test_a_method_is_parsed_once_however_often_its_runs_are_asked_for(monkeypatch):
    built, real = [], comparison.build_intervention

    def counted(name, *given, **more):
        built.append(name)
        return real(name, *given, **more)

    monkeypatch.setattr(comparison, "build_intervention", counted)
    params = parse(Params, {"methods": {"low": {"intervention": "dash", "floor": 0.05}}, "seeds": [0, 1, 2]})
    check(params)
    for _ in range(3):
        assert params.name
        assert len(params.runs()) == 15
        assert params.run("low", 1).method.parameters["floor"] == 0.05
    assert len(built) == 6  # the five that are compared, and `low`


def test_what_parameters_keep_resolved_shows_in_no_comparison_copy_or_dump():
    params, untouched = parse(Params, BASE), parse(Params, BASE)
    assert params.name
    assert (params, hash(params.dataset)) == (untouched, hash(untouched.dataset))
    assert params.model_dump_json() == untouched.model_dump_json()
    assert repr(params) == repr(untouched)
    assert pickle.loads(pickle.dumps(params)).runs() == params.runs()
    changed = params.model_copy(update={"seeds": [7]})
    assert {run.seed for run in changed.runs()} == {7}
    assert changed.name != params.name


def test_a_run_hashes_itself_once_and_its_changed_copy_anew(monkeypatch):
    """A display asks hundreds of runs for their ids, twice a second."""
    run, untouched, hashed = parse(Params, BASE).runs()[0], parse(Params, BASE).runs()[0], []
    monkeypatch.setattr("dash_core.config.digest_of", lambda content: hashed.append(content) or digest_of(content))
    for _ in range(3):
        assert run.id.endswith(run.digest[:10])
    assert len(hashed) == 1
    other = run.model_copy(update={"seed": run.seed + 1})
    assert other.id != run.id
    assert other.id == parse(RunConfig, other.model_dump(mode="json")).id
    assert (run, run.model_dump_json(), repr(run)) == (untouched, untouched.model_dump_json(), repr(untouched))
    assert pickle.loads(pickle.dumps(run)).id == run.id
