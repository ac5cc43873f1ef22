"""Folders as people really have them: competition layouts, validation sets, phone photos, damaged files."""

import os
import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image

from dash_core.config import DatasetConfig, parse
from dash_core.data import load_dataset
from dash_core.data.noticed import Noticed
from dash_core.errors import ConfigError, DataError

ORIENTATION = 0x0112  # the EXIF tag


@pytest.fixture
def load(tmp_path):
    def load_folder(folder, **settings):
        config = parse(DatasetConfig, {"name": "image_folder", "folder": str(folder), **settings})
        return load_dataset(config, data_root=tmp_path / "none", cache=tmp_path / "cache", download=False)

    return load_folder


def flat(folder, save_image, count=3, first=0):
    return [save_image(folder / f"{index}.png", first + index) for index in range(count)]


def test_splits_without_class_folders_are_not_taken_for_classes(tmp_path, load, save_image):
    flat(tmp_path / "k" / "train", save_image)
    flat(tmp_path / "k" / "test", save_image, first=10)
    with pytest.raises(DataError, match=r"k/train: holds images but no folder for each class.*k/train/<class>/"):
        load(tmp_path / "k")


def test_an_unlabelled_test_folder_is_left_out_and_a_share_held_out(tmp_path, load, class_folders, save_image, caplog):
    class_folders(tmp_path / "k" / "train", {"a": 5, "b": 5})
    flat(tmp_path / "k" / "test", save_image, first=50)
    found = load(tmp_path / "k")
    assert (len(found.train), len(found.test)) == (8, 2)
    assert "test: holds no folder for each class, so that labels are missing: it is left out" in caplog.text


@pytest.mark.parametrize(("train", "name"), [("train", "val"), ("Train", "valid"), ("TRAIN", "Validation")])
def test_a_validation_folder_is_the_test_set_where_there_is_no_test_folder(tmp_path, load, class_folders, train, name):
    class_folders(tmp_path / "k" / train, {"a": 5, "b": 5})
    class_folders(tmp_path / "k" / name, {"a": 2, "b": 1})
    found = load(tmp_path / "k")
    assert (len(found.train), len(found.test)) == (10, 3)


def test_a_test_folder_goes_before_a_validation_folder_which_is_named(tmp_path, load, class_folders, caplog):
    for name, images in (("train", 5), ("Test", 2), ("val", 3)):
        class_folders(tmp_path / "k" / name, {"a": images})
    assert len(load(tmp_path / "k").test) == 2
    assert "only train and Test are read, not val" in caplog.text


@pytest.mark.parametrize("image_size", [None, 4])
def test_a_photo_is_turned_upright_as_its_orientation_says(tmp_path, load, image_size):
    upright = np.zeros((8, 8, 3), dtype=np.uint8)
    upright[:4] = 200  # the sky is above
    for name in "ab":
        (tmp_path / "t" / name).mkdir(parents=True)
        lying = Image.fromarray(np.rot90(upright))
        exif = Image.Exif()
        exif[ORIENTATION] = 6  # turn by 90 degrees clockwise to see it upright
        lying.save(tmp_path / "t" / name / "0.png", exif=exif)
        Image.fromarray(upright).save(tmp_path / "t" / name / "1.png")
    found = load(tmp_path / "t", image_size=image_size)
    images = torch.cat((found.train.images, found.test.images))
    assert bool((images[:, 0] == 200).all())
    assert bool((images[:, -1] == 0).all())
    assert found.noticed.images_in_two_classes == 1  # all four are one picture


def test_photos_of_one_size_that_lie_in_two_ways_have_one_size(tmp_path, load):
    for name in "ab":
        (tmp_path / "t" / name).mkdir(parents=True)
        for index, turned in enumerate((False, True)):
            exif = Image.Exif()
            exif[ORIENTATION] = 6 if turned else 1
            Image.new("RGB", (6, 4) if turned else (4, 6)).save(tmp_path / "t" / name / f"{index}.jpg", exif=exif)
    assert load(tmp_path / "t").train.image_shape == (3, 6, 4)


def save_transparent(path, mode, hidden):
    """Write an opaque grey pixel of level 100 beside a transparent one of the colour `hidden`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.array([[[100, 100, 100, 255], [*hidden, 0]]], dtype=np.uint8)
    image = Image.fromarray(pixels)
    if mode == "LA":
        image = Image.fromarray(pixels[:, :, [0, 3]])
    elif mode == "P":
        image = Image.new("P", (2, 1))
        image.putpalette([100, 100, 100, *hidden])
        image.putpixel((1, 0), 1)
        image.save(path, transparency=1)
        return
    image.save(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize(("background", "level"), [("white", 255), ("black", 0), ("#808080", 128)])
def test_hidden_colours_of_transparent_pixels_are_not_trained_on(tmp_path, load, mode, background, level):
    for name in "ab":
        for index, hidden in enumerate(((9, 9, 9), (77, 77, 77))):
            save_transparent(tmp_path / "t" / name / f"{index}.png", mode, hidden)
    images = load(tmp_path / "t", background=background).train.images
    assert images.unique().tolist() == sorted({100, level})
    assert bool((images[:, 0, 1] == level).all())


def damage(tree, *names):
    for name in names:
        path = tree / name
        path.write_bytes(path.read_bytes()[:-40] if "0" in path.stem else b"no image")


@pytest.mark.parametrize("first", ["a/003.png", "a/000.png"])
def test_all_damaged_images_are_named_at_once(tmp_path, load, class_folders, first):
    tree = class_folders(tmp_path / "t", {"a": 20, "b": 20})
    damage(tree, first, "b/000.png", "b/011.png")
    (tree / "a" / "007.png").write_bytes(b"no image at all")
    with pytest.raises(DataError, match=r"4 of 40 image files are damaged: .*dataset\.damaged=leave_out") as told:
        load(tree)
    for name in (first, "a/007.png", "b/000.png", "b/011.png"):
        assert str(tree / name) in str(told.value)


def test_all_damaged_pixels_are_named_although_the_headers_are_whole(tmp_path, load, class_folders):
    tree = class_folders(tmp_path / "t", {"a": 20, "b": 20})
    for name in ("a/000.png", "b/003.png"):
        path = tree / name
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"2 of 40 image files are damaged") as told:
        load(tree)
    assert all(str(tree / name) in str(told.value) for name in ("a/000.png", "b/003.png"))


def test_damaged_images_are_left_out_where_that_is_asked_for_and_counted(tmp_path, load, class_folders, caplog):
    tree = class_folders(tmp_path / "t", {"a": 20, "b": 20})
    damage(tree, "a/003.png", "b/000.png")
    found = load(tree, damaged="leave_out")
    assert len(found.train) + len(found.test) == 38
    assert found.noticed == Noticed(damaged_files_left_out=2)
    assert load(tree, damaged="leave_out").noticed == found.noticed  # read back from the cache
    assert f"left out: {tree / 'a/003.png'}" in caplog.text


def test_a_class_whose_images_are_all_damaged_is_not_left_out_in_silence(tmp_path, load, class_folders):
    tree = class_folders(tmp_path / "t", {"a": 4, "b": 2})
    damage(tree, "b/000.png", "b/001.png")
    with pytest.raises(DataError, match="class 'b': every training image is damaged"):
        load(tree, damaged="leave_out")


def test_settings_of_image_files_are_refused_where_there_are_no_files():
    with pytest.raises(ConfigError, match="`background` is only used with the datasets image_folder, imagenet"):
        parse(DatasetConfig, {"name": "digits", "background": "black"})
    with pytest.raises(ConfigError, match="background"):
        parse(DatasetConfig, {"name": "image_folder", "folder": "x", "background": "transparent"})


def test_a_setting_that_was_added_later_leaves_older_names_alone():
    config = DatasetConfig(name="image_folder", folder="photos")
    assert not {"background", "damaged"} & config.identity.keys()
    assert DatasetConfig(name="image_folder", folder="photos", background="black").identity["background"] == "black"


def test_repeated_photos_are_counted(tmp_path, load, class_folders):
    for part, first in (("train", 0), ("test", 0)):
        class_folders(tmp_path / "t" / part, {"a": 3 + first, "b": 3})  # the test photos are training photos
    copy = tmp_path / "t/train/b/copy.png"
    copy.write_bytes((tmp_path / "t/train/a/000.png").read_bytes())
    assert load(tmp_path / "t").noticed == Noticed(test_images_in_training=6, images_in_two_classes=1)


def test_several_frames_are_counted_and_the_first_is_used(tmp_path, load, class_folders):
    tree = class_folders(tmp_path / "t", {"a": 2, "b": 2})
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue")]
    frames[0].save(tree / "a" / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tree / "b" / "pages.tiff", save_all=True, append_images=frames[1:])
    found = load(tree)
    assert found.noticed.files_of_several_frames == 2
    assert [255, 0, 0] in found.train.images[:, 0, 0].tolist() + found.test.images[:, 0, 0].tolist()


@pytest.mark.parametrize(("name", "form"), [("x.jfif", "JPEG"), ("photo", "PNG")])
def test_images_with_rare_suffixes_or_none_are_read(tmp_path, load, class_folders, name, form):
    tree = class_folders(tmp_path / "t", {"a": 2, "b": 2})
    Image.new("RGB", (6, 6)).save(tree / "a" / name, format=form)
    found = load(tree)
    assert len(found.train) + len(found.test) == 5


def test_photos_that_cannot_be_read_are_named(tmp_path, load, class_folders, caplog):
    tree = class_folders(tmp_path / "t", {"a": 2, "b": 2})
    (tree / "a" / "IMG_1.HEIC").write_bytes(b"heic")
    load(tree)
    assert "a: 1 photos such as IMG_1.HEIC cannot be read: convert to JPEG" in caplog.text
    (tree / "c").mkdir()
    os.rename(tree / "a" / "IMG_1.HEIC", tree / "c" / "IMG_1.HEIC")
    with pytest.raises(DataError, match=r"c: an empty class.*its 1 \.HEIC photos cannot be read"):
        load(tree)


def test_what_a_mac_adds_to_an_archive_is_no_class(tmp_path, load, class_folders):
    tree = class_folders(tmp_path / "t", {"a": 2, "b": 2})
    (tree / "__MACOSX" / "a").mkdir(parents=True)
    assert load(tree).train.class_names == ("a", "b")


def test_a_class_name_is_the_same_in_both_unicode_forms(tmp_path, load, class_folders):
    name = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
    class_folders(tmp_path / "t" / "train", {name: 3})
    class_folders(tmp_path / "t" / "test", {unicodedata.normalize("NFD", name): 2})
    found = load(tmp_path / "t")
    assert found.train.class_names == (name,)
    assert len(found.test) == 2


def test_a_class_of_one_training_image_is_warned_of(tmp_path, load, class_folders, caplog):
    class_folders(tmp_path / "t" / "train", {"a": 3, "b": 1})
    class_folders(tmp_path / "t" / "test", {"a": 2, "b": 2})
    load(tmp_path / "t")
    assert "the class 'b' has a single training image" in caplog.text


@pytest.mark.parametrize("layout", ["val/images/{wnid}", "val/{wnid}", "val/{wnid}/images"])
def test_tiny_imagenet_is_read_as_the_authors_script_leaves_it(tmp_path, tiny_imagenet, layout):
    root = tiny_imagenet(tmp_path)
    config, places = DatasetConfig(name="tiny_imagenet"), {"data_root": tmp_path, "cache": tmp_path / "cache"}
    expected = load_dataset(config, download=False, **places)
    lines = (root / "val" / "val_annotations.txt").read_text().splitlines()
    for name, wnid in (line.split("\t")[:2] for line in lines):
        target = root / layout.format(wnid=wnid)
        target.mkdir(parents=True, exist_ok=True)
        os.rename(root / "val" / "images" / name, target / name)
    (root / "val" / "val_annotations.txt").unlink()
    found = load_dataset(config, download=False, **places)
    assert found.test.digest == expected.test.digest
