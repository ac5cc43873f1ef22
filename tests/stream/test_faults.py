"""What goes wrong around a stream: copies across the sides, noisy labels, odd deliveries, two passes, services away."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import tasks.stream
from dash_core.data.arrived import CHUNKS, HELD_OUT, arrived_files, read_arrived
from dash_core.views.stream_report import write_stream_report
from flows.command_line.main import app
from flows.command_line.stream import BUSY_EXIT
from tasks.store.stream.inbox import delivery
from tasks.store.stream.pending import pending_deliveries
from tasks.store.stream.receiving import receive
from tasks.tracking.registry import MirrorOutcome
from tests.stream import small

pytestmark = pytest.mark.usefixtures("no_export")


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A stream with a champion that knows its classes."""
    return small.create(tmp_path_factory.mktemp("grown"), images=120)


def take(stream, folder) -> list:
    """Receive a folder without training on it."""
    ledger, state = stream.read()
    found = delivery(folder, (), 0.0)
    assert found.waiting is None
    return list(receive(stream, ledger, stream.contract(state), found).arrivals)


def images_of(stream, kind: str) -> dict[str, bytes]:
    """Return the id of each image of a side by the name of its file."""
    parts = [read_arrived(file) for file in arrived_files(stream.path / kind)]
    return {name: bytes(one) for part in parts for name, one in zip(part.files, part.ids, strict=True)}


def smooth(count: int, side: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    coarse = random.integers(0, 255, (count, 6, 6), dtype=np.uint8)
    return [np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC)) for one in coarse]


def test_twenty_exact_and_twenty_encoded_copies_never_cross_the_sides(tmp_path):
    first, pictures = tmp_path / "first", smooth(80, 48)
    for number, image in enumerate(pictures):
        small.save(image[:, :, None], first / f"class {number % 2}" / f"{number:03d}.png")
    stream = small.begun(tmp_path / "store", first=first, share=0.5)
    take(stream, first)
    sides = {kind: images_of(stream, kind) for kind in (CHUNKS, HELD_OUT)}
    assert min(map(len, sides.values())) >= 30
    for name in [name for side in sides.values() for name in list(side)[:20]]:
        number = int(name[-7:-4])
        target = tmp_path / "copies" / f"class {number % 2}"
        small.save(pictures[number][:, :, None], target / f"exact {number:03d}.bmp")
        content = io.BytesIO()
        Image.fromarray(pictures[number]).save(content, "JPEG", quality=80)
        (target / f"encoded {number:03d}.jpg").write_bytes(content.getvalue())
    arrival = take(stream, tmp_path / "copies")[-1]
    assert arrival.known == 40, "an exact copy is the same image, on whichever side"
    crossed = {
        kind: [name for name in images_of(stream, kind) if "encoded" in name and _original(name) in sides[other]]
        for kind, other in ((CHUNKS, HELD_OUT), (HELD_OUT, CHUNKS))
    }
    assert crossed == {CHUNKS: [], HELD_OUT: []}
    assert arrival.set_aside["near duplicate of an image on the other side"] >= 10


def _original(name: str) -> str:
    return f"{name.partition('/')[0]}/{name[-7:-4]}.png"


def test_label_noise_is_on_the_page_and_nothing_of_it_is_removed(grown, tmp_path):
    stream = copied(grown, tmp_path)
    images, labels = small.pixels(100, seed=7)
    wrong = set(range(0, 100, 10))
    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        shown = (label + 1) % small.CLASSES if number in wrong else label
        small.save(image, tmp_path / "store" / "inbox" / "noisy" / f"class {shown}" / f"{number:03d}.png")
    small.run(stream)
    _, state = stream.read()
    arrival = state.arrivals[-1]
    assert (arrival.train + arrival.held_out, arrival.set_aside) == (100, {})
    found = json.loads((stream.evaluations / f"arrival-{arrival.number:04d}.json").read_text())["suspects"]
    planted = wrong & {int(name[-7:-4]) for name in read_arrived(arrived_files(stream.path / CHUNKS)[-1]).files}
    listed = [int(one["file"][-7:-4]) for one in found["listed"]]
    assert planted <= set(listed[: len(planted) + 4]), "the planted ones are on top"
    page = write_stream_report(state, stream.path).read_text()
    assert "Labels that look wrong" in page
    assert all(f"{number:03d}.png" in page for number in planted)


def copied(grown, tmp_path):
    shutil.copytree(grown.path.parents[1], tmp_path / "store")
    copy = type(grown)(tmp_path / "store" / "streams" / grown.name)
    contract = grown.contract(grown.read()[1])
    copy.write_contract(contract, {"inbox": str(tmp_path / "store" / "inbox"), "settle_seconds": 0.0})
    return type(grown)(copy.path)


def test_an_empty_delivery_is_named_and_a_delivery_of_one_class_is_a_chunk(grown, tmp_path):
    stream = copied(grown, tmp_path)
    inbox = tmp_path / "store" / "inbox"
    (inbox / "empty" / "class 0").mkdir(parents=True)
    (inbox / "marked").mkdir()
    (inbox / "marked" / "_DONE").touch()
    (inbox / "listed").mkdir()
    (inbox / "listed" / "manifest.csv").write_text("file,label\n")
    images, labels = small.pixels(80, seed=8)
    for number in np.flatnonzero(labels == 1).tolist():
        small.save(images[number], inbox / "one-class" / "class 1" / f"{number:03d}.png")
    said = small.run(stream)
    assert [line for line in said if "it is empty" in line] == [
        f"{name}: waited for: it is empty" for name in ("empty", "listed", "marked")
    ]
    _, state = stream.read()
    assert (state.arrivals[-1].source, state.latest.chunk, state.verdicts[-1].model) == (
        "one-class",
        2,
        state.latest.id,
    )
    assert not pending_deliveries(stream, state).complete


def test_a_second_pass_says_who_has_the_stream_and_exits_with_its_own_code(grown, tmp_path):
    stream = copied(grown, tmp_path)
    small.deliver(tmp_path / "store" / "inbox" / "day-1", 8, seed=1)
    with stream.locked():
        ended = CliRunner().invoke(app, ["stream", "arrive", "toy", "--no-wait", "--store", str(tmp_path / "store")])
    assert ended.exit_code == BUSY_EXIT == 3
    assert ended.stderr.startswith("busy: waiting for stream toy, which process ")
    assert "has held since" in ended.stderr


def test_ctrl_c_ends_watching_with_words_about_the_stream(grown, tmp_path, monkeypatch):
    copied(grown, tmp_path)

    def interrupt(stream):
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.command_line.stream._idle_quietly", interrupt)
    ended = CliRunner().invoke(app, ["stream", "watch", "toy", "--store", str(tmp_path / "store")])
    assert ended.exit_code == 130
    assert ended.stdout.splitlines()[-1] == "stopped watching toy: the next pass continues whatever was begun"


def test_a_pass_without_mlflow_is_complete_and_the_next_one_tries_again(grown, tmp_path, monkeypatch):
    stream = copied(grown, tmp_path)
    outcomes = [MirrorOutcome(problems=["MLflow's registry: refused"]), MirrorOutcome()]
    asked = []

    def mirror(state, folder, place, always):
        asked.append(state.head)
        return outcomes[len(asked) - 1]

    monkeypatch.setattr(tasks.stream, "mirror_stream", mirror)
    place = small.place(tmp_path / "store")
    assert tasks.stream.publish.fn(stream, place).problems == ["MLflow's registry: refused"]
    _, state = stream.read()
    assert not stream.is_published(state), "the next pass is not idle"
    assert tasks.stream.publish.fn(stream, place).problems == []
    assert stream.is_published(state)
    assert asked == [state.head] * 2


def test_a_comparison_that_broke_off_is_finished_before_a_new_delivery_is_received(grown, tmp_path):
    stream = copied(grown, tmp_path)
    small.deliver(tmp_path / "store" / "inbox" / "day-1", 60, seed=1)

    def die(stream, ledger, contract, place):
        state = stream.state(ledger)
        ledger.append("generation", last=len(state.arrivals), images=sum(one.held_out for one in state.arrivals))
        ledger.append("look", challenger=state.latest.id, champion=state.champion)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small.run(stream, judge=die)
    looked_at = stream.read()[1].latest.id
    small.deliver(tmp_path / "store" / "inbox" / "day-2", 60, seed=2)
    small.run(stream)
    _, state = stream.read()
    assert [verdict.model for verdict in state.verdicts][1:] == [looked_at, state.latest.id]
    assert [(look.challenger, look.number) for look in state.looks] == [(looked_at, 1), (state.latest.id, 2)]
