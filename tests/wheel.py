"""The library as others install it: the wheel, and environments with the libraries that its metadata asks for alone."""

import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def build(folder: Path) -> Path:
    """Build the wheel of the checkout into `folder`, and return it."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path, *extras: str) -> Path:
    """Make an environment in `folder` with the wheel and what it asks for, and return its Python.

    The libraries are links to those that run this test: the same versions, and nothing is downloaded.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=300)
    site = next(folder.glob("lib/python3*/site-packages"))
    with zipfile.ZipFile(wheel) as content:
        content.extractall(site)
    (own,) = (Distribution.at(path) for path in site.glob("dashpipe-*.dist-info"))
    for library in needed(own, extras).values():
        for name in {file.parts[0] for file in library.files or ()} - {"..", "__pycache__"}:
            if not (site / name).exists():
                os.symlink(library.locate_file(name), site / name)
    return folder / "bin" / "python"


def needed(own: Distribution, extras: tuple[str, ...] = ()) -> dict[str, Distribution]:
    """Return by name every distribution that `own` with these extras asks for, directly or not."""
    found: dict[str, Distribution] = {}
    waiting = [(own, {"", *extras})]
    while waiting:
        asking, chosen = waiting.pop()
        for requirement in map(Requirement, asking.requires or ()):
            if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in chosen):
                continue
            name = re.sub(r"[-_.]+", "-", requirement.name).lower()
            try:
                library = distribution(name)
            except PackageNotFoundError:
                continue  # of another platform's torch
            if name not in found or requirement.extras:
                found[name] = library
                waiting.append((library, {"", *requirement.extras}))
    return found


def python(program: Path, code: str, folder: Path) -> str:
    """Run code in `folder` with a Python of `install`, without the checkout, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [program, "-W", "error", "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
