"""What cannot be used is set aside with its reason, and a person can bring it back."""

import io

import numpy as np
import pytest
from PIL import Image

from dash_core.data.arrived import arrived_files, read_arrived
from dash_core.errors import ConfigError
from tasks.store.stream.creating import add_class
from tasks.store.stream.folder import StreamFolder
from tasks.store.stream.models import load_model
from tasks.store.stream.quarantine import decide, set_aside
from tests.stream import small

pytestmark = pytest.mark.usefixtures("no_export")


def jpeg(image: np.ndarray, quality: int = 60) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image[:, :, 0]).save(content, "JPEG", quality=quality)
    return content.getvalue()


def write(path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A stream after a delivery with one fault of each kind among good images."""
    store = tmp_path_factory.mktemp("faulty")
    stream = small.create(store, images=48)
    monday = small.deliver(store / "inbox" / "monday", 12, seed=5)
    images, _ = small.pixels(4, seed=9)
    write(monday / "class 0" / "truncated.jpg", jpeg(images[0])[:200])
    small.save(images[1], monday / "class 0" / "twice.png")
    small.save(images[1], monday / "class 1" / "twice.png")
    small.save(images[2], monday / "zebra" / "new.png")
    small.save(np.full((8, 8, 1), 7, np.uint8), monday / "class 0" / "constant.png")
    small.save(np.zeros((9, 8, 1), np.uint8), monday / "class 0" / "shape.png")
    small.save(images[3].repeat(3, 2) // np.array([1, 2, 3], dtype=np.uint8), monday / "class 0" / "colour.png")
    write(monday / "class 0" / "phone.heic", b"photo")
    write(monday / "class 0" / "notes.txt", b"text")
    small.save(images[3], monday / "loose.png")
    (monday / "class 0" / "link.png").symlink_to(store / "first" / "class 0" / "0000.png")
    write(monday / "class 0" / ("x" * 240 + "\n.png"), b"no image")
    small.run(stream)
    return stream


def reasons(stream) -> dict[str, str]:
    return {one.file.rpartition("/")[2]: one.reason for one in set_aside(stream, stream.read()[1])}


def test_each_fault_has_its_reason_and_the_good_images_are_used(faulty):
    _, state = faulty.read()
    assert reasons(faulty) == {
        "truncated.jpg": "unreadable image",
        "twice.png": "two labels",
        "new.png": "unknown class",
        "constant.png": "constant image",
        "shape.png": "wrong shape",
        "colour.png": "colour in a grey stream",
        "phone.heic": "unsupported photo format",
        "notes.txt": "no image file",
        "loose.png": "no label",
        "link.png": "link",
        "x" * 240 + "\n.png": "unreadable image",
    }
    monday = state.arrivals[-1]
    assert (monday.train + monday.held_out, sum(monday.set_aside.values())) == (12, 12)


def test_an_accepted_image_is_a_delivery_of_the_next_pass_and_a_rejected_one_is_not(faulty):
    ledger, state = faulty.read()
    by_file = {one.file: one.name for one in set_aside(faulty, state)}
    chosen = [by_file["class 0/constant.png"], by_file["loose.png"]]
    decide(faulty, ledger, chosen[:1], [by_file["class 0/notes.txt"]], {chosen[1]: "class 2"})
    small.run(faulty)
    _, after = faulty.read()
    assert after.arrivals[-1].train + after.arrivals[-1].held_out == 2
    assert {one.name: one.decision for one in set_aside(faulty, after) if one.decision} == {
        chosen[0]: "accepted",
        chosen[1]: "accepted",
        by_file["class 0/notes.txt"]: "rejected",
    }


def test_decisions_that_cannot_be_are_refused(faulty):
    ledger, state = faulty.read()
    by_file = {one.file: one.name for one in set_aside(faulty, state)}
    with pytest.raises(ConfigError, match="was not set aside"):
        decide(faulty, ledger, ["nonsense/1"], [], {})
    with pytest.raises(ConfigError, match="add-class"):
        decide(faulty, ledger, [by_file["zebra/new.png"]], [], {})
    with pytest.raises(ConfigError, match="never followed"):
        decide(faulty, ledger, [by_file["class 0/link.png"]], [], {})


def test_a_class_that_a_person_adds_gets_a_larger_head_and_the_old_labels_stay(faulty):
    ledger, state = faulty.read()
    before = load_model(faulty, state, faulty.contract(state), state.latest.id)
    contract = add_class(faulty, ledger, faulty.contract(state), "zebra", "a test")
    stream = StreamFolder(faulty.path)
    images, _ = small.pixels(8, seed=21)
    for number, image in enumerate(images):
        small.save(image, faulty.path.parents[1] / "inbox" / "tuesday" / "zebra" / f"{number}.png")
    small.run(stream)
    _, after = stream.read()
    assert contract.classes == [*state.contract["classes"], "zebra"]
    model = load_model(stream, after, stream.contract(after), after.latest.id)
    assert model.fc.weight.shape[0] == before.fc.weight.shape[0] + 1
    assert after.latest.parent == state.latest.id


def test_near_copies_of_held_out_images_are_never_trained_on(tmp_path):
    pixels = np.random.default_rng(0)
    first = tmp_path / "first"
    smooth = [
        np.asarray(Image.fromarray(pixels.integers(0, 255, (6, 6), dtype=np.uint8)).resize((48, 48), Image.BICUBIC))
        for _ in range(60)
    ]
    for number, image in enumerate(smooth):
        small.save(image[:, :, None], first / f"class {number % 2}" / f"{number:03d}.png")
    stream = small.create(tmp_path / "store", first=first)
    held = {bytes(image) for file in arrived_files(stream.path / "holdout") for image in read_arrived(file).ids}
    assert held
    inbox = tmp_path / "store" / "inbox"
    for number, image in enumerate(smooth):
        write(inbox / "copies" / f"class {number % 2}" / f"{number:03d}.jpg", jpeg(image[..., None], 80))
    small.run(stream)
    held_numbers = {name[-7:-4] for name in read_arrived(arrived_files(stream.path / "holdout")[0]).files}
    trained = [read_arrived(file) for file in arrived_files(stream.path / "chunks")][1:]
    copies = {name[-7:-4] for part in trained for name in part.files}
    assert len(copies & held_numbers) <= 0.05 * len(held_numbers)
