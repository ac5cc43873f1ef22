"""The comparison on real photographs, where they are at hand."""

import json

import pytest

from tests.system import shell

DATA = shell.ROOT.parent / "shared" / "data" / "cifar-10"
HOURS = 3.0  # it takes a quarter of an hour on two free cores; larger batches take more epochs
METHODS = ["cold", "warm", "shrink_perturb", "dash"]
SETTINGS = (
    "dataset.name=cifar10",
    "dataset.train_size=1000",
    "chunks=4",
    "model.name=cnn3",
    "optimizer.lr=0.01",
    "training.batch_size=32",
    "training.precision=auto",
    f"compare.methods={json.dumps(METHODS)}",
    "seeds=[0]",
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not DATA.is_dir(), reason=f"no CIFAR-10 in {DATA}")]


def test_cifar_comparison_converges_with_every_method_and_tests_on_all_images(tmp_path):
    ended = shell.start(tmp_path / "store", "compare", settings=SETTINGS, DASHPIPE_DATA=str(DATA)).end(HOURS * 3600)
    assert (ended.code, ended.err) == (0, "")
    found = shell.records(ended.store, SETTINGS)
    assert list(found) == [f"{method} 0" for method in METHODS]
    for chunks in found.values():
        assert [record.images for record in chunks] == [250, 500, 750, 1000]
        assert all(record.converged and record.train_accuracy >= 0.999 for record in chunks)
        # every class has 1,000 test images: each accuracy is a whole number of thousandths, and they make the total
        assert all(share * 1000 == pytest.approx(round(share * 1000)) for share in chunks[-1].class_accuracy)
        assert sum(chunks[-1].class_accuracy) / 10 == pytest.approx(chunks[-1].test_accuracy)
        assert chunks[-1].test_accuracy > 0.15
    assert shell.mlflow_runs(ended.store, SETTINGS)["dash 0"].info.status == "FINISHED"
