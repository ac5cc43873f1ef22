"""What a stream costs as it grows: DASH's pass is bounded, and no file of a known delivery is read again."""

import torch

from dash_core.shrinking import averaged_gradient
from flows.command_line.stream import CUTOFF
from tasks.store.stream import receiving
from tests.stream import small


def passes(chunks: int) -> int:
    """Return for how many chunks DASH's pass computes a gradient before a chunk."""
    counted = []

    class Batch:
        def __init__(self, images: int) -> None:
            counted.append(images)

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

    model = torch.nn.Linear(3, 2)
    data = [(torch.ones(4, 3), torch.tensor([0, 1, 0, 1]))] * chunks
    averaged_gradient(model, data, alpha=0.3, cutoff=CUTOFF, around_batch=Batch)
    return sum(counted)


def test_dash_before_chunk_five_hundred_costs_what_twenty_chunks_cost():
    assert passes(500) == passes(100) == 20 * 4
    assert passes(10) == 10 * 4


def test_a_file_that_did_not_change_is_read_once(tmp_path, monkeypatch):
    read = []
    real = receiving._read
    monkeypatch.setattr(receiving, "_read", lambda *words: read.append(words[1].file) or real(*words))
    with small.without_export():
        stream = small.create(tmp_path, images=24)
        small.deliver(tmp_path / "inbox" / "day-1", 8, seed=1)
        small.run(stream)
        small.deliver(tmp_path / "inbox" / "day-2", 8, seed=2)
        small.run(stream)
        small.run(stream)
    assert len(read) == 24 + 8 + 8
