"""ImageNet's official layout in small: 3 classes of 2 training images, and 4 validation images."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from dash_core.config import DatasetConfig
from dash_core.data import load_dataset
from dash_core.data.imagenet import DEVKIT, META, TRUTH
from dash_core.errors import DataError

NUMBERS = {"n00000001": 2, "n00000002": 3, "n00000003": 1}  # of the classes, as the development kit counts them
VALIDATION = ("n00000003", "n00000001", "n00000001", "n00000002")  # classes of images 1 to 4
LABELS = [2, 0, 0, 1]


def load(tmp_path, **settings):
    config = DatasetConfig(name="imagenet", **settings)
    return load_dataset(config, data_root=tmp_path, cache=tmp_path / "cache", download=False)


def flat_name(number):
    return f"ILSVRC2012_val_{number:08d}.JPEG"


@pytest.fixture
def flat(tmp_path, save_image):
    """The layout in which val is one folder, with the development kit."""
    root = tmp_path / "imagenet"
    for number, wnid in enumerate(NUMBERS):
        for index in range(2):
            save_image(root / "train" / wnid / f"{wnid}_{index}.JPEG", 10 * number + index, (40 + 5 * index, 30))
    for number in range(1, 5):
        save_image(root / "val" / flat_name(number), 50 + number, (30, 35))
    (root / DEVKIT).mkdir(parents=True)
    (root / DEVKIT / TRUTH).write_text("".join(f"{NUMBERS[wnid]}\n" for wnid in VALIDATION))
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    rows = [(number, wnid, f"name of {wnid}") for wnid, number in NUMBERS.items()]
    savemat(root / DEVKIT / META, {"synsets": np.array([*rows, (1001, "n00000009", "an inner node")], dtype=kinds)})
    return root


@pytest.fixture
def folders(flat):
    """The layout in which val has a folder a class."""
    for number, wnid in enumerate(VALIDATION, start=1):
        (flat / "val" / wnid).mkdir(exist_ok=True)
        (flat / "val" / flat_name(number)).rename(flat / "val" / wnid / flat_name(number))
    shutil.rmtree(flat / DEVKIT.parent)
    return flat


def test_the_flat_layout_takes_classes_from_the_development_kit(tmp_path, flat):
    found = load(tmp_path)
    assert found.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.test.labels.tolist() == LABELS
    assert found.train.class_names == tuple(NUMBERS)
    assert found.train.image_shape == (3, 224, 224)
    assert (found.train.mean, found.train.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_both_layouts_hold_the_same_images_under_the_same_labels(tmp_path, flat, request):
    one = load(tmp_path, image_size=16)
    request.getfixturevalue("folders")
    other = load(tmp_path, image_size=16)
    assert other.train.digest == one.train.digest
    assert other.test.labels.tolist() == sorted(LABELS)
    for label in range(3):
        assert torch.equal(other.test.images[other.test.labels == label], one.test.images[one.test.labels == label])


def test_the_shorter_side_is_resized_and_the_centre_cut_out(tmp_path, flat):
    found = load(tmp_path, image_size=15).train.images[1]
    whole = Image.open(flat / "train/n00000001/n00000001_1.JPEG")  # 45x30: half of it is 22.5x15
    expected = whole.resize((15, 15), Image.Resampling.BILINEAR, box=(7.5, 0, 37.5, 30))
    assert torch.equal(found, torch.from_numpy(np.array(expected)))


def test_cmyk_and_grey_images_and_a_png_in_disguise_become_rgb(tmp_path, flat):
    red = Image.new("RGB", (20, 20), (250, 0, 0))
    places = [flat / "train" / wnid / f"{wnid}_0.JPEG" for wnid in NUMBERS]
    red.convert("CMYK").save(places[0], "JPEG", quality=100)
    red.save(places[1], "PNG")
    red.convert("L").save(places[2], "JPEG")
    cmyk, png, grey = load(tmp_path, image_size=8).train.images[::2]
    assert (png == torch.tensor([250, 0, 0])).all()
    assert (cmyk.int() - torch.tensor([250, 0, 0])).abs().max() <= 8
    assert (grey == grey[..., :1]).all()


def test_only_classes_with_training_images_are_used_and_it_is_said(tmp_path, flat, caplog):
    shutil.rmtree(flat / "train" / "n00000001")
    found = load(tmp_path, image_size=8)
    assert found.train.class_names == ("n00000002", "n00000003")
    assert found.test.labels.tolist() == [1, 0]
    assert "2 of the 1000 classes are there" in caplog.text


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (shutil.rmtree, r"no folder \S*imagenet\. .*register at image-net\.org.*unpack .*, all in \S*imagenet"),
        (lambda root: shutil.rmtree(root / "train"), r"no folder \S*imagenet/train\. "),
        (lambda root: shutil.rmtree(root / "val"), r"no folder \S*imagenet/val\. "),
        (lambda root: shutil.rmtree(root / DEVKIT), rf"{TRUTH}: missing, and val has no folders of classes"),
        (lambda root: (root / DEVKIT / META).unlink(), r"meta\.mat: missing, and val has no folders of classes"),
        (lambda root: (root / DEVKIT / META).write_bytes(b"MATLAB 5.0"), r"meta\.mat: damaged, or not"),
        (lambda root: savemat(root / DEVKIT / META, {"other": 1}), r"meta\.mat: damaged, or not"),
        (lambda root: (root / DEVKIT / TRUTH).write_text("1\n2\n3\n"), r"val: holds 4 images, but \S* has 3 lines"),
        (lambda root: (root / DEVKIT / TRUTH).write_text("1\n2\n3\n7\n"), rf"{TRUTH}: the class 7 is not in meta\.mat"),
        (lambda root: (root / DEVKIT / TRUTH).write_text("1\n2\n3\nx\n"), rf"{TRUTH}: must hold a class's number"),
        (lambda root: (root / "val" / flat_name(2)).rename(root / "val" / flat_name(9)), "where image 2 should be"),
        (lambda root: (root / "val" / flat_name(2)).write_bytes(b"x"), rf"{flat_name(2)}: damaged"),
        (lambda root: (root / "train/n00000002/n00000002_1.JPEG").write_bytes(b""), r"n00000002_1\.JPEG: damaged"),
        (lambda root: [file.unlink() for file in root.glob("train/n00000002/*")], "n00000002: an empty class"),
        (lambda root: [shutil.rmtree(file) for file in root.glob("train/*")], "train: no folder of a class"),
    ],
    ids=range(15),
)
def test_what_is_missing_or_damaged_is_named(tmp_path, flat, damage, named):
    damage(flat)
    with pytest.raises(DataError, match=named):
        load(tmp_path, image_size=8)


def test_validation_images_of_no_training_class_are_no_test_set(tmp_path, folders):
    for wnid in NUMBERS:
        (folders / "val" / wnid).rename(folders / "val" / wnid.replace("n0", "n1"))
    with pytest.raises(DataError, match="val: no image of the classes in train"):
        load(tmp_path, image_size=8)
