"""Clusters of the tests: two raylets on loopback, one for all tests of a module."""

import contextlib
import importlib.util
import json

import pytest

from tests.executors.raylets import raylets
from tests.system import shell

SETTINGS = (
    *shell.TINY,
    "compare.device=cpu",
    "compare.checkpoint_seconds=0.2",
    "training.max_epochs=60",
    "dataset.train_size=500",  # a run takes seconds, so that what is killed is in the middle of one
    "seeds=[0, 1]",
)


def needs(package: str, extra: str):
    """Return a mark that skips where an extra is not installed."""
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"needs the extra {extra}: uv run --extra {extra} pytest tests/executors")


def attempts(store) -> dict[str, dict]:
    """Return the attempt of each run that is under way."""
    found = {}
    for path in store.glob("runs/*/attempt.json"):
        with contextlib.suppress(OSError, ValueError):
            found[path.parent.name] = json.loads(path.read_text())
    return found


def mid_run(store) -> list[str]:
    """Return the runs under way that have recorded an experiment."""
    return [folder.name for folder in shell.begun(store) if folder.name in attempts(store)]


@pytest.fixture(scope="module")
def cluster():
    with raylets(shell.ROOT) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def local(tmp_path_factory):
    """The same comparison by the local pool, which all others must equal in every bit."""
    ended = shell.dashpipe(tmp_path_factory.mktemp("local") / "store", "compare", settings=SETTINGS)
    assert ended.code == 0, ended.err
    return ended
