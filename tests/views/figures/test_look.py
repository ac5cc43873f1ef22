"""A method looks the same everywhere, and like no other."""

import itertools

import numpy as np
import pytest

from dash_core.interventions import INTERVENTIONS
from dash_core.views.figures import color_of, styles_of
from dash_core.views.figures.look import INK, PHASE_COLORS, STYLES
from tests.views.figures.samples import curves, figure, method

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB
PROTANOPIA = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
)
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
EIGHT = ("cold", "warm", "warm_rm", "shrink_perturb", "dash", "shrink", "head_reset", "l2_init")
APART = 18  # CIE 1976 difference; 2.3 is just noticeable
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def linear(color: str) -> np.ndarray:
    channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    x, y, z = np.cbrt(TO_XYZ @ np.clip(rgb, 1e-4, 1) / (0.95047, 1, 1.08883))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(color: str, background: str) -> float:
    dark, light = sorted((TO_XYZ[1] @ linear(c) + 0.05) for c in (color, background))
    return light / dark


@pytest.mark.parametrize("seen", [np.eye(3), PROTANOPIA, DEUTERANOPIA], ids=["all cones", "protanopia", "deuteranopia"])
@pytest.mark.parametrize("colors", [[STYLES[name].color for name in EIGHT], list(PHASE_COLORS.values())])
def test_colours_stay_apart_for_every_eye(colors, seen):
    pairs = itertools.combinations([lab(seen @ linear(color)) for color in colors], 2)
    assert min(np.linalg.norm(a - b) for a, b in pairs) > APART


def test_no_phase_has_the_colour_of_a_method():
    pairs = itertools.product({style.color for style in STYLES.values()}, PHASE_COLORS.values())
    assert min(np.linalg.norm(lab(linear(a)) - lab(linear(b))) for a, b in pairs) > APART


@pytest.mark.parametrize("background", ["#ffffff", "#15181c"])
def test_colours_stand_out_from_light_and_dark_pages(background):
    assert min(contrast(style.color, background) for style in STYLES.values()) > 2.4
    assert contrast(INK, background) > 4


def test_no_two_registered_interventions_look_alike():
    styles = styles_of((name, name) for name in INTERVENTIONS)
    assert set(STYLES) == set(INTERVENTIONS)
    assert len(set(styles.values())) == len({s.symbol for s in styles.values()}) == len(INTERVENTIONS)
    assert len({(style.color, style.dash) for style in styles.values()}) == len(INTERVENTIONS)


def test_an_intervention_unknown_to_the_palette_has_a_style_of_its_own():
    styles = styles_of([*((name, name) for name in INTERVENTIONS), ("brand_new", "brand_new")])
    assert len(set(styles.values())) == len(INTERVENTIONS) + 1


def test_another_label_of_an_intervention_has_its_colour_and_another_pattern():
    styles = styles_of([("dash", "dash"), ("dash_low", "dash"), ("dash_high", "dash")])
    assert {style.color for style in styles.values()} == {color_of("dash")}
    assert len({(style.dash, style.symbol) for style in styles.values()}) == 3


def test_a_style_depends_on_the_label_not_on_what_stands_beside_it():
    alone = styles_of([("dash_low", "dash")])["dash_low"]
    among = styles_of([("warm", "warm"), ("dash_low", "dash"), ("dash", "dash")])["dash_low"]
    assert alone == among
    assert styles_of([("dash", "dash")])["dash"] == STYLES["dash"]


def test_twenty_labels_of_one_intervention_are_all_unlike_in_any_order():
    labels = [(f"dash_{number}", "dash") for number in range(20)]
    styles = styles_of(labels)
    assert len(set(styles.values())) == 20
    assert styles_of(labels[::-1]) == styles


def test_the_intervention_and_not_the_label_gives_the_colour():
    assert styles_of([("warm", "dash")])["warm"].color == STYLES["dash"].color


def test_a_method_has_one_colour_in_every_figure():
    methods = (method("cold"), method("dash_low", intervention="dash"))
    for name in ("accuracy_and_steps", "accuracy_by_steps", "accuracy_by_flops", "seconds", "class_accuracy"):
        for label, color in (("cold", STYLES["cold"].color), ("dash_low", STYLES["dash"].color)):
            drawn = figure(name, *methods)
            of_method = [t for t in drawn.data if t.legendgroup == label]
            assert {t.marker.color for t in of_method} == {color}, name
            assert curves(drawn, label)
