"""However a stream grows, no image changes its side, and none that is held out is ever trained on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dash_core.stream import guards
from dash_core.stream.guards import Candidates, KnownImages, divide
from dash_core.stream.identities import arrival_digest
from dash_core.stream.prints import NEAR_BITS, image_print, near
from dash_core.stream.sides import is_held_out

IMAGES = 40  # different images that histories draw from
arrivals = st.lists(
    st.lists(st.tuples(st.integers(0, IMAGES - 1), st.integers(0, 2)), min_size=1, max_size=25), min_size=1, max_size=8
)


def candidates(arrival, grouped: bool, prints: bool) -> Candidates:
    ids = [bytes([image]) * 32 for image, _ in arrival]
    labels = np.array([label for _, label in arrival])
    keys = [f"group {image % 7}" if grouped else one.hex() for (image, _), one in zip(arrival, ids, strict=True)]
    hashes = [1 << (image % 20) if prints else 0 for image, _ in arrival]  # of many pairs that look alike
    return Candidates(ids, labels, keys, np.array(hashes, dtype=np.uint64), np.zeros(len(ids), dtype=bool))


def check_history(history, grouped: bool, prints: bool) -> None:
    labels: dict[bytes, int] = {}
    sides: dict[bytes, str] = {}
    seen = {"train": [], "held_out": []}
    for arrival in history:
        found = candidates(arrival, grouped, prints)
        known = KnownImages(labels, *(np.array(seen[side], dtype=np.uint64) for side in seen))
        division = divide(found, known, "salt", 0.3)
        rows = [*division.train, *division.held_out, *division.known, *division.set_aside]
        assert sorted(rows) == list(range(len(arrival))), "each image has one outcome"
        for side in seen:
            for row in getattr(division, side).tolist():
                image = found.ids[row]
                assert image not in sides, "an image is taken once"
                assert (side == "held_out") == is_held_out(found.keys[row], "salt", 0.3)
                sides[image], labels[image] = side, int(found.labels[row])
                seen[side].append(int(found.prints[row]))
        groups = {(image[0] % 7, side) for image, side in sides.items()}
        assert not grouped or len(groups) == len({group for group, _ in groups}), "a group is on one side"
        hashes = [np.array(seen[side], dtype=np.uint64) for side in seen]
        assert not near(*hashes).any(), "no image on one side looks like one on the other"


@given(history=arrivals, grouped=st.booleans(), prints=st.booleans())
@settings(max_examples=50)
def test_no_image_changes_its_side_and_no_held_out_image_is_trained_on(history, grouped, prints):
    check_history(history, grouped, prints)


@pytest.mark.slow
@given(history=arrivals, grouped=st.booleans(), prints=st.booleans())
@settings(max_examples=1000)
def test_no_image_changes_its_side_in_a_thousand_histories(history, grouped, prints):
    check_history(history, grouped, prints)


def test_one_image_under_two_labels_is_set_aside_and_neither_is_trained_on():
    division = divide(candidates([(1, 0), (2, 0), (1, 1)], False, False), KnownImages(), "salt", 0.3)
    assert division.set_aside == {0: guards.TWO_LABELS, 2: guards.TWO_LABELS}


def test_an_image_that_is_known_under_another_label_is_set_aside():
    known = KnownImages({bytes([1]) * 32: 0})
    assert divide(candidates([(1, 1)], False, False), known, "salt", 0.3).set_aside == {0: guards.TWO_LABELS}
    assert divide(candidates([(1, 0)], False, False), known, "salt", 0.3).known.tolist() == [0]


def test_about_the_share_is_held_out():
    held = sum(is_held_out(str(number), "salt", 0.2) for number in range(10_000))
    assert 1_850 < held < 2_150


def test_an_arrival_is_its_pairs_in_any_order():
    assert arrival_digest([("a", "x"), ("b", "y")]) == arrival_digest([("b", "y"), ("a", "x"), ("a", "x")])
    assert arrival_digest([("a", "x"), ("b", "y")]) != arrival_digest([("a", "y"), ("b", "x")])


def test_hashes_that_differ_in_few_bits_are_near_wherever_the_bits_are():
    random = np.random.default_rng(0)
    prints = random.integers(1, 2**63, 200, dtype=np.uint64)
    flips = [random.permutation(64)[:NEAR_BITS] for _ in prints]
    flipped = [int(one) ^ sum(1 << int(bit) for bit in bits) for one, bits in zip(prints, flips, strict=True)]
    assert near(np.array(flipped, dtype=np.uint64), prints).all()
    assert not near(random.integers(1, 2**63, 200, dtype=np.uint64), prints).any()


def test_small_images_have_no_perceptual_hash():
    assert image_print(np.random.default_rng(0).integers(0, 255, (8, 8, 1), dtype=np.uint8)) == 0
