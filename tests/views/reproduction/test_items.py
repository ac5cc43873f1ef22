"""The items: every figure and table is there at three scales, and its settings are those of the paper."""

import re

import pytest
import yaml

from dash_core.comparison import Params
from dash_core.config import parse
from dash_core.errors import ConfigError
from dash_core.views.reproduction import ITEMS, select
from dash_core.views.reproduction.item import SCALES
from dash_core.views.reproduction.paper_numbers import PRINTED
from dash_core.views.reproduction.settings import DATASETS, MODELS, small_digits, sota, standard, thin
from flows.command_line.reproduction import settings_of
from flows.reproduce import changing, command_of
from tasks.reproduction import item_folder
from tests.test_presets import PRESETS, THIN

FIGURES = [1, 2, 3, 6, 7, 8, *range(9, 24)]
TABLES = range(1, 11)
REAL = {*DATASETS, "fashion_mnist", "digits"}

every_item = pytest.mark.parametrize("item", ITEMS.values(), ids=list(ITEMS))
every_scale = pytest.mark.parametrize("scale", SCALES)


def overlay_of(preset: str):
    """Return the declared setting that a preset stands for."""
    for name in DATASETS:
        for model in MODELS:
            if preset == f"{name.replace('_', '-')}-{model.removesuffix('_bn')}":
                return standard(name, model)
    return sota(preset.partition("-")[0])


def test_every_figure_and_table_of_the_paper_is_an_item_in_its_order():
    paper = [f"figure-{n}" for n in FIGURES] + [f"table-{n}" for n in TABLES]
    assert list(ITEMS) == [*paper, "direction", "growth", "sam-rho"]


@every_item
@every_scale
def test_every_run_of_every_scale_resolves(item, scale):
    for params in settings_of(item, scale).values():
        assert item.simulated or params.runs()


@pytest.mark.parametrize("preset", sorted(PRESETS.keys() - {THIN}))
def test_the_paper_s_settings_are_those_of_the_presets(preset):
    assert parse(Params, overlay_of(preset)) == parse(Params, yaml.safe_load(PRESETS[preset].read_text()))


@every_item
def test_small_scales_use_real_images_and_say_what_they_stand_in_for(item):
    small, full = item.scales["small"], item.scales["full"]
    for params in () if item.simulated else small.params().values():
        assert params.dataset.name in REAL
        assert params.dataset.name == "digits" or params.dataset.train_size <= 2000
        assert len(params.seeds) >= 5
    assert bool(small.stands_in) == (small.comparisons != full.comparisons)
    assert not full.stands_in


def test_small_scales_are_the_thin_network_up_to_its_third_experiment():
    preset = parse(Params, yaml.safe_load(PRESETS[THIN].read_text()))
    declared = parse(Params, thin(compared=preset.compare.methods))
    assert (declared.experiments, len(declared.seeds)) == (3, 5)
    changed = {"experiments": None, "seeds": preset.seeds, "diagnostics": []}
    training = declared.training.model_copy(update={"max_epochs": preset.training.max_epochs})
    assert declared.model_copy(update={**changed, "training": training}) == preset


def test_small_digits_are_the_main_job():
    ours = parse(Params, yaml.safe_load((PRESETS[THIN].parents[1] / "params.yaml").read_text()))
    declared = parse(Params, small_digits(ours.compare.methods))
    assert [run.digest for run in declared.runs()] == [run.digest for run in ours.runs()]


@every_item
def test_a_dataset_stands_under_its_own_name_alone(item):
    for scale in ("small", "full"):
        for key, params in () if item.simulated else item.scales[scale].params().items():
            named = {name for name in (*DATASETS, "fashion_mnist", "digits") if name in re.split("[/, ]", key)}
            assert named <= {params.dataset.name}
    number = int(item.name.removeprefix("table-")) if item.name.startswith("table-") else 0
    if 3 <= number <= 6:
        used = {params.dataset.name for params in item.scales["small"].params().values()}
        assert used == {DATASETS[number - 3]}


def test_items_share_the_runs_of_their_small_scales():
    def runs(name, label="cold"):
        every = ITEMS[name].scales["small"].params().values()
        return {run.digest for p in every for run in p.runs() if run.method.label == label}

    thin_runs = runs("figure-7")
    assert len(thin_runs) == 5
    for name in ("figure-1", "figure-6", "figure-12", "figure-16", "table-1", "table-2", "table-3", "table-10"):
        assert thin_runs <= runs(name), name
    assert runs("figure-8", "warm") <= runs("figure-2", "warm")
    assert runs("figure-21", "dash") <= runs("figure-20", "dash")
    assert runs("figure-7", "warm") <= runs("direction", "warm")


@every_item
def test_smoke_scales_need_no_data(item):
    for params in () if item.simulated else item.scales["smoke"].params().values():
        assert params.dataset.name == "digits"
        assert params.training.max_epochs <= 3


@every_item
@every_scale
def test_every_claim_reads_comparisons_and_methods_that_are_there(item, scale):
    claims = item.claims_at(scale)
    assert all(claim.checks for claim in claims)
    assert len({claim.text for claim in claims}) == len(claims)


@pytest.mark.parametrize("name", ["figure-1", "table-1", "table-3", "table-6", "figure-3"])
def test_the_paper_s_numbers_are_checked_at_its_own_scale_alone(name):
    item = ITEMS[name]
    assert item.numbers
    assert len(item.claims_at("full")) == len(item.claims(list(item.scales["full"].comparisons))) + len(item.numbers)
    assert not {claim.text for claim in item.numbers} & {claim.text for claim in item.claims_at("small")}


def test_the_numbers_of_figure_1_are_those_of_table_1():
    key = "tiny_imagenet/sgd"
    assert len(ITEMS["figure-1"].numbers) == len(PRINTED[key])
    assert ITEMS["table-1"].scales["full"].params()[key].run("warm", 2021) == ITEMS["figure-1"].scales["full"].params()[
        "tiny_imagenet"
    ].run("warm", 2021)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("figure-1", ["figure-1"]),
        ("fig1", ["figure-1"]),
        ("figure17", ["figure-17"]),
        ("table3", ["table-3"]),
        ("figures-9-11", ["figure-9", "figure-10", "figure-11"]),
        ("tables-3-6", ["table-3", "table-4", "table-5", "table-6"]),
        ("figures-3-6", ["figure-3", "figure-6"]),
        ("all", list(ITEMS)),
    ],
)
def test_a_name_stands_for_one_item_a_range_or_all(name, found):
    assert [item.name for item in select(name)] == found


@pytest.mark.parametrize("name", ["figure-4", "figur-1", "tables-30-40", ""])
def test_an_unknown_name_is_told_with_those_that_are_known(name):
    with pytest.raises(ConfigError, match=r"unknown item .*known: figure-1, .*a range: tables-3-6"):
        select(name)


def test_overrides_are_laid_over_every_comparison_and_named_in_the_command():
    item = ITEMS["figure-12"]
    words = ["training.max_epochs=1", "compare.workers=1"]
    assert {p.training.max_epochs for p in settings_of(item, "small", words).values()} == {1}
    expected = "reproduce figure-12 --scale small --set training.max_epochs=1 --set compare.workers=1"
    assert command_of(item, "small", words) == f"uv run dashpipe {expected}"


def test_a_wrong_override_names_the_item_and_the_key():
    with pytest.raises(ConfigError, match=r"unknown key figure-1, small, digits\.training\.epochs"):
        settings_of(ITEMS["figure-1"], "small", ["training.epochs=1"])


@pytest.mark.parametrize("override", ["compare.methods=[cold]", "diagnostics=[]"])
def test_what_an_item_compares_and_measures_is_its_own(override):
    with pytest.raises(ConfigError, match=r"an item fixes compare\.methods and diagnostics"):
        settings_of(ITEMS["figure-2"], "small", [override])


def test_the_paper_s_numbers_are_held_against_its_own_setting_alone():
    item = ITEMS["figure-1"]
    own, changed = ([c.text for c in item.claims_at("full", changed=was)] for was in (False, True))
    assert item.numbers
    assert own == [*changed, *(claim.text for claim in item.numbers)]


def test_what_overrides_make_of_an_item_lies_apart(tmp_path):
    plain = item_folder(tmp_path, "figure-1", "small")
    changed = item_folder(tmp_path, "figure-1", "small", changing(["chunks=3"]))
    assert plain != changed
    assert item_folder(tmp_path, "figure-1", "small", changing(["compare.workers=1"])) == plain
