"""A project's folder in which own parts are found, and from which this process forgets everything afterwards."""

import sys

import pytest

from dash_core import parts, rehearsal
from dash_core.models import pretrained
from tests.parts import package


def forget(*names: str) -> None:
    """Forget packages that were imported as own parts, as a new process would."""
    for name in [name for name in sys.modules if name.partition(".")[0] in names]:
        del sys.modules[name]
    for name in names:
        parts._imported.pop(name, None)
    parts._finder.packages.difference_update(names)
    pretrained._checked.clear()
    rehearsal._rehearsed.clear()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project's folder with the package, which is not on Python's path."""
    monkeypatch.setattr(parts._finder, "folder", None)
    package.write(tmp_path / "project")
    parts.use_project(tmp_path / "project")
    forget("mypackage", "nets")
    yield tmp_path / "project"
    forget("mypackage", "nets")
