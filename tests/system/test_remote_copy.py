"""A comparison whose run folders are copied: a store that is lost is no loss."""

import shutil

import pytest

from tests.system import shell


@pytest.mark.slow
def test_a_lost_store_is_filled_from_the_copy_without_training(tmp_path):
    mirror = f"--mirror=file://{tmp_path / 'bucket'}"
    first = shell.dashpipe(tmp_path / "store", "compare", mirror)
    assert (first.code, first.err) == (0, "")
    weights, records = shell.weights(first.store), shell.records(first.store)
    shutil.rmtree(first.store)
    again = shell.dashpipe(tmp_path / "store", "compare", mirror)
    assert again.code == 0, again.err
    assert again.err.count("takes up its result from file://") == len(weights) == 2
    assert (shell.weights(again.store), shell.records(again.store)) == (weights, records)
