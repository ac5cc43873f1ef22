"""Which commit a run's result names: that of the code that runs, never that of a project around it."""

import subprocess
from pathlib import Path

import pytest

from tasks.store import runs
from tasks.store.runs import PACKAGES, commit


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def with_packages(folder: Path) -> Path:
    for name in PACKAGES:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("")
    return folder


@pytest.fixture
def host(tmp_path):
    """Another project under git, without our packages."""
    (tmp_path / "host").mkdir()
    git(tmp_path / "host", "init", "-q")
    git(tmp_path / "host", "commit", "-q", "--allow-empty", "-m", "the host's")
    return tmp_path / "host"


def test_a_checkout_names_its_commit_and_whether_the_code_was_changed(host, monkeypatch):
    monkeypatch.setattr(runs, "ROOT", with_packages(host))
    git(host, "add", "-A")
    git(host, "commit", "-qm", "our packages")
    assert commit() == git(host, "rev-parse", "--short=12", "HEAD")
    (host / "tasks" / "__init__.py").write_text("changed = True\n")
    assert commit() == git(host, "rev-parse", "--short=12", "HEAD") + "-dirty"


@pytest.mark.parametrize("where", [".venv/lib/python3.13/site-packages", "."], ids=["environment", "beside its files"])
def test_an_installed_package_does_not_name_the_commit_of_the_project_around_it(host, monkeypatch, where):
    monkeypatch.setattr(runs, "ROOT", with_packages(host / where))
    assert commit() is None


def test_outside_any_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "ROOT", with_packages(tmp_path / "alone"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert commit() is None
