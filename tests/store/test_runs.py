"""Complete runs: their weights are those that were written, and they name the commit of the code that trained them."""

import subprocess
from pathlib import Path

import pytest

from dash_core.errors import RecordError
from tasks.store import runs
from tasks.store.place import Place
from tasks.store.runs import PACKAGES, commit, final_model, forget, is_complete, remove_replaced
from tests import toy


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


def test_weights_that_changed_are_named_and_never_used(tmp_path):
    run, data = toy.params(training={"max_epochs": 1}).run("warm", 0), toy.dataset()
    place = Place(store=tmp_path, data_root=tmp_path)
    folder = place.run_folder(run)
    toy.advance(toy.trajectory(folder, run, data))
    path = folder / "weights.safetensors"
    whole = path.read_bytes()
    other = bytes([whole[-1] ^ 1])
    for damaged in (whole[:1000], whole[:-1] + other, b""):
        path.write_bytes(damaged)
        for use in (lambda: is_complete(run, place), lambda: final_model(run, data, place)):
            with pytest.raises(RecordError, match=r"weights\.safetensors is not what the run wrote.*remove the run's"):
                use()
    path.write_bytes(whole)
    assert is_complete(run, place)
    final_model(run, data, place)


def test_the_model_of_a_run_that_was_removed_is_an_error_that_says_so(tmp_path):
    run, data = toy.params().run("warm", 0), toy.dataset()
    with pytest.raises(RecordError, match=r"no longer complete: .* was removed"):
        final_model(run, data, Place(store=tmp_path, data_root=tmp_path))


def test_a_complete_run_that_is_trained_again_is_kept_until_the_new_one_is_complete(tmp_path):
    place = Place(store=tmp_path, data_root=tmp_path / "data")
    run = toy.params(chunks=1).run("warm", 0)
    toy.advance(toy.trajectory(place.run_folder(run), run, toy.dataset()))
    weights = (place.run_folder(run) / "weights.safetensors").read_bytes()
    forget(run, place)
    assert not place.run_folder(run).exists()
    assert (place.replaced_folder(run) / "weights.safetensors").read_bytes() == weights
    remove_replaced(run, place)
    assert not place.replaced_folder(run).exists()
