import os
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from dash_core.config import DatasetConfig
from dash_core.data import load_dataset
from dash_core.errors import DataError


@pytest.fixture
def load(tmp_path):
    def load_folder(folder, **settings):
        config = DatasetConfig(name="image_folder", folder=str(folder), **settings)
        return load_dataset(config, data_root=tmp_path / "none", cache=tmp_path / "cache", download=False)

    return load_folder


@pytest.fixture
def tree(tmp_path, class_folders):
    return class_folders(tmp_path / "tree", {"cat": 4, "dog": 6})


def pixels_of(path):
    return torch.from_numpy(np.array(Image.open(path)))


def test_a_train_and_a_test_folder_are_the_two_sets(tmp_path, load, class_folders):
    class_folders(tmp_path / "t" / "train", {"b": 3, "a": 2})
    class_folders(tmp_path / "t" / "test", {"b": 2})
    found = load(tmp_path / "t")
    assert found.train.class_names == found.test.class_names == ("a", "b")
    assert found.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert found.test.labels.tolist() == [1, 1]
    assert torch.equal(found.train.images[2], pixels_of(tmp_path / "t/train/b/000.png"))
    assert torch.equal(found.test.images[1], pixels_of(tmp_path / "t/test/b/001.png"))


def test_without_a_test_folder_a_share_of_each_class_is_held_out(load, tree):
    found = load(tree, test_share=0.5)
    assert torch.bincount(found.train.labels).tolist() == [2, 3]
    assert torch.bincount(found.test.labels).tolist() == [2, 3]
    seen = {bytes(image.numpy()) for part in (found.train, found.test) for image in part.images}
    assert len(seen) == 10


def test_hashed_images_keep_their_side_when_others_are_added_which_stratified_ones_do_not(tmp_path, load):
    def write(numbers) -> None:
        for number in numbers:
            path = tmp_path / "t" / f"class {number % 2}" / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(path)

    write(range(40))
    before = {choice: held(load(tmp_path / "t", hold_out=choice)) for choice in ("hashed", "stratified")}
    write(range(40, 60))
    after = {choice: load(tmp_path / "t", hold_out=choice) for choice in ("hashed", "stratified")}
    assert before["hashed"] <= held(after["hashed"])
    assert not before["stratified"] <= held(after["stratified"])


def held(dataset) -> set[bytes]:
    return {image.numpy().tobytes() for image in dataset.test.images}


def test_a_train_folder_alone_is_held_out_too(tmp_path, load, class_folders):
    class_folders(tmp_path / "t" / "train", {"a": 5, "b": 5})
    assert len(load(tmp_path / "t").test) == 2


def test_images_of_different_sizes_are_resized_by_the_rule_that_is_set(load, tree):
    strip = Image.new("RGB", (12, 4), "blue")
    strip.paste("red", (4, 0, 8, 4))  # a blue, a red and a blue square
    for path in tree.glob("*/*.png"):
        strip.save(path)

    def colours(**rule):
        """Return, by row, whether a pixel is red (r), blue (b) or white (w)."""
        image = load(tree, image_size=6, test_share=0.5, **rule).train.images[0].int()
        letters = {(True, False): "r", (False, True): "b", (True, True): "w"}
        return ["".join(letters[bool(r > 100), bool(b > 100)] for r, _, b in row.tolist()) for row in image]

    assert colours() == colours(resize="crop") == ["rrrrrr"] * 6
    assert colours(resize="squash") == ["bbrrbb"] * 6
    assert colours(resize="pad") == ["wwwwww"] * 2 + ["bbrrbb"] * 2 + ["wwwwww"] * 2
    with pytest.raises(ValueError, match="`resize: pad` needs the size of the images"):
        DatasetConfig(name="image_folder", folder=str(tree), resize="pad")


def test_a_class_may_be_called_train(tmp_path, load, class_folders):
    class_folders(tmp_path / "t", {"bus": 3, "train": 3})
    assert load(tmp_path / "t").train.class_names == ("bus", "train")


def test_images_are_resized_by_their_shorter_side_and_cut_in_the_centre(tmp_path, load):
    for name in "ab":
        for index in range(2):
            strip = np.zeros((8, 24, 3), dtype=np.uint8)
            strip[:, 8:16] = 200  # the centre square
            (tmp_path / "t" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(strip).save(tmp_path / "t" / name / f"{index}.png")
    images = load(tmp_path / "t", image_size=4).train.images
    assert images.shape == (2, 4, 4, 3)
    assert torch.all(images[:, :, 1:3] == 200)


def test_resizing_is_what_pil_does_to_the_whole_image(tmp_path, load, save_image):
    for name in "ab":
        for index in range(2):
            save_image(tmp_path / "t" / name / f"{index}.png", 5, size=(12, 8))
    expected = Image.open(tmp_path / "t/a/0.png").resize((6, 4), Image.Resampling.BILINEAR).crop((1, 0, 5, 4))
    found = load(tmp_path / "t", image_size=4).train.images[0]
    assert torch.equal(found, torch.from_numpy(np.array(expected)))


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("RGB", 3), ("P", 3), ("RGBA", 3)])
def test_only_grey_trees_keep_one_channel(tmp_path, load, class_folders, mode, channels):
    class_folders(tmp_path / "t", {"a": 2, "b": 2}, mode=mode)
    assert load(tmp_path / "t").train.image_shape == (channels, 6, 6)


def test_one_colour_image_makes_the_tree_rgb(tmp_path, load, class_folders, save_image):
    class_folders(tmp_path / "t", {"a": 2, "b": 2}, mode="L")
    save_image(tmp_path / "t/b/002.png", mode="RGB")
    assert load(tmp_path / "t").train.image_shape == (3, 6, 6)


def test_a_transparent_palette_gives_no_warning(tmp_path, load, class_folders):
    class_folders(tmp_path / "t", {"a": 2, "b": 2})
    palette = Image.new("P", (6, 6))
    palette.putpalette([0] * 768)
    palette.save(tmp_path / "t/a/002.png", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load(tmp_path / "t").train) == 3


def test_a_missing_folder_is_named(tmp_path, load):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        load(tmp_path / "nowhere")


def test_a_truncated_image_is_named(load, tree):
    damaged = tree / "dog" / "003.png"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"dog/003\.png: damaged"):
        load(tree)


def test_a_truncated_jpeg_is_named_and_never_filled_with_grey(tmp_path, load, tree, save_image):
    damaged = save_image(tree / "cat" / "zzz.jpg", size=(64, 64))
    damaged.write_bytes(damaged.read_bytes()[:-600])
    with pytest.raises(DataError, match=r"cat/zzz\.jpg: damaged"):
        load(tree, image_size=8)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"GIF89a"], ids=range(4))
def test_what_is_no_image_is_named(load, tree, content):
    (tree / "dog" / "003.png").write_bytes(content)
    with pytest.raises(DataError, match=r"dog/003\.png: damaged, or not an image"):
        load(tree)


def test_the_first_image_of_another_size_is_named_with_the_remedy(load, tree, save_image):
    save_image(tree / "dog" / "002.png", size=(7, 6))
    save_image(tree / "dog" / "004.png", size=(9, 9))
    with pytest.raises(DataError, match=r"dog/002\.png: 7x6 pixels, but 000\.png has 6x6.*dataset\.image_size"):
        load(tree)


def test_sixteen_bits_are_refused_and_not_clipped(tmp_path, load, tree):
    Image.fromarray(np.full((6, 6), 40_000, dtype=np.uint16)).save(tree / "dog" / "002.png")
    with pytest.raises(DataError, match=r"dog/002\.png: has more than 8 bits"):
        load(tree)


@pytest.mark.parametrize("side", [8_100, 9_500, 14_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(load, tree, side):
    Image.new("1", (side, side)).save(tree / "dog" / "002.png")
    with pytest.raises(DataError, match=r"dog/002\.png: .*decompression bomb"):
        load(tree, image_size=8)


def test_an_empty_class_is_named(load, tree):
    (tree / "emu").mkdir()
    (tree / "emu" / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match="emu: an empty class"):
        load(tree)


def test_a_tree_without_classes_is_named(tmp_path, load, save_image):
    (tmp_path / "empty").mkdir()
    save_image(tmp_path / "flat" / "0.png")
    with pytest.raises(DataError, match="empty: holds nothing"):
        load(tmp_path / "empty")
    with pytest.raises(DataError, match="flat: holds 1 files but no folder"):
        load(tmp_path / "flat")


def test_a_test_class_without_training_images_is_named(tmp_path, load, class_folders):
    class_folders(tmp_path / "t" / "train", {"a": 2})
    class_folders(tmp_path / "t" / "test", {"a": 2, "zebra": 2})
    with pytest.raises(DataError, match="test/zebra: the class 'zebra' has no folder"):
        load(tmp_path / "t")


def test_a_class_of_one_image_cannot_be_held_out(tmp_path, load, class_folders):
    class_folders(tmp_path / "t", {"a": 2, "b": 1})
    with pytest.raises(DataError, match="b: the class 'b' has 1 image"):
        load(tmp_path / "t")


def test_folders_in_a_class_are_refused(load, tree, save_image):
    save_image(tree / "dog" / "images" / "0.png")
    with pytest.raises(DataError, match="dog/images: a folder in a class"):
        load(tree)


@pytest.mark.parametrize("target", ["file", "folder"])
def test_links_out_of_the_folder_are_not_followed(tmp_path, load, tree, save_image, target):
    secret = save_image(tmp_path / "elsewhere" / "secret.png")
    link = tree / "dog" / "secret.png" if target == "file" else tree / "emu"
    link.symlink_to(secret if target == "file" else secret.parent)
    with pytest.raises(DataError, match=f"{link.name}: a link that leads out"):
        load(tree)


def test_links_within_the_folder_are_followed(load, tree):
    (tree / "dog" / "linked.png").symlink_to("000.png")
    assert len(load(tree, test_share=0.5).train) == 2 + 3
    assert len(load(tree, test_share=0.5).test) == 2 + 4


@pytest.mark.parametrize("kind", ["broken", "loop", "pipe"])
def test_what_is_neither_file_nor_folder_is_named(load, tree, kind):
    odd = tree / "dog" / "odd.png"
    if kind == "pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to("odd.png" if kind == "loop" else "gone.png")
    with pytest.raises(DataError, match=r"odd\.png: neither a file nor a folder"):
        load(tree)


def test_hidden_names_and_other_files_are_passed_over_and_the_latter_logged(load, tree, caplog):
    (tree / ".git").mkdir()
    (tree / "dog" / ".DS_Store").write_text("")
    (tree / "dog" / "notes.txt").write_text("")
    found = load(tree)
    assert len(found.train) + len(found.test) == 10
    assert "1 files that are no images" in caplog.text


def test_progress_counts_every_image(tmp_path, tree):
    calls = []
    config = DatasetConfig(name="image_folder", folder=str(tree))
    load_dataset(config, data_root=tmp_path, cache=tmp_path / "cache", progress=lambda *call: calls.append(call))
    train, all_of_them = ("decoding images", 8, 10), ("decoding images", 10, 10)
    assert calls == [("reading image headers", 10, 10), train, all_of_them]
