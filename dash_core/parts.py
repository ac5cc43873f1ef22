"""Own parts: models, datasets, methods, losses and chunk plans of other packages.

A part is named by an import path, `mypackage.nets:build`, or by an entry point of an installed package in the groups
`dashpipe.models`, `dashpipe.datasets` and `dashpipe.methods`.

Python finds its package where it finds every other. What is nowhere else is looked for in the project's folder (that of
params.yaml). Only packages that a setting names are found there, so that no other file in the folder is ever imported.

The digest of a part covers its import path and all Python files of the top-level package, or of the one module, that it
belongs to. It is part of the identity of runs: an edited part makes new runs.
"""

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from dash_core.errors import ConfigError, DashError

MODELS, DATASETS, METHODS, LOSSES, PLANS = "model", "dataset", "method", "loss", "chunk plan"  # kinds of parts
GROUPS = {MODELS: "dashpipe.models", DATASETS: "dashpipe.datasets", METHODS: "dashpipe.methods"}  # of entry points
TORCHVISION = "torchvision:"  # before the names of its models and transforms: no import paths


class PartError(ConfigError):
    """An own part is broken: the message is one sentence, `details` the traceback of the part's own error, if any."""

    details: str = ""


class _ProjectFinder:
    """Finds the packages of own parts in the project's folder, after every other finder."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.packages: set[str] = set()

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return the specification of a package that a setting names; None for all others."""
        if path is not None or self.folder is None or name not in self.packages:
            return None
        return PathFinder.find_spec(name, [str(self.folder)])


_finder = _ProjectFinder()
_imported: dict[str, str] = {}  # packages that this process has imported as own parts: digest of their files then


def use_project(folder: Path | None) -> None:
    """Have this process look for packages of own parts in a project's folder, if Python finds them nowhere else."""
    _finder.folder = folder and folder.resolve()
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)


def project_folder() -> Path | None:
    """Return the folder that `use_project` was given last."""
    return _finder.folder


def is_torchvision(name: str) -> bool:
    """Tell whether a name is that of a model or of transforms of torchvision."""
    return name.startswith(TORCHVISION)


def is_path(name: object) -> bool:
    """Tell whether a name is an import path, module:name, and no part of torchvision."""
    if not isinstance(name, str) or is_torchvision(name):
        return False
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(word.isidentifier() for word in [*module.split("."), *attribute.split(".")])


def part_path(kind: str, name: str) -> str | None:
    """Return the import path of an own part, given by path or entry point; None if the name is neither.

    ConfigError if two installed packages give the name to different parts.
    """
    if is_path(name):
        return name
    found = _entries(kind).get(name, {})
    if len(found) > 1:
        packages = " and ".join(sorted(found.values()))
        raise ConfigError(f"{packages} both have a {kind} {name!r}: name one by its import path, {' or '.join(found)}")
    return next(iter(found), None)


def check_no_clash(kind: str, name: str) -> None:
    """Raise ConfigError if an installed package gives the name of one of our parts to another part."""
    if clash := _entries(kind).get(name):
        path, package = next(iter(clash.items()))
        raise ConfigError(
            f"{name!r} is a {kind} of dashpipe and an entry point of {package}: it could mean either; rename the entry "
            f"point in {package}, or uninstall it and name its {kind} by the import path {path}"
        )


def entry_point_parts(kind: str) -> Mapping[str, Mapping[str, str]]:
    """Return the parts of installed packages: by name, each import path with the package that gives it."""
    return _entries(kind)


@cache
def _entries(kind: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for entry in entry_points(group=GROUPS[kind]) if kind in GROUPS else ():
        package = entry.dist.name if entry.dist else "an installed package"
        found.setdefault(entry.name, {})[entry.value.partition("[")[0].strip()] = package
    return found


def source_digest(kind: str, name: str) -> str | None:
    """Return the digest of an own part's import path and source, as they are now; None for a name of ours."""
    path = part_path(kind, name)
    return None if path is None else _with_path(path, _digest_of_files(kind, path))


def check_source(kind: str, name: str, digest: str | None) -> None:
    """Raise ConfigError unless this process imported the part from the source that has the digest."""
    if digest is None or (path := part_path(kind, name)) is None:
        return
    package = _package(path)
    if _with_path(path, _imported.get(package) or _digest_of_files(kind, path)) != digest:
        raise ConfigError(
            f"{kind} {name}: the Python files of {package} have changed since its digest was taken; repeat the "
            "command, without a `source` in its settings if there is one"
        )


def load_part(kind: str, path: str) -> Any:
    """Import the object at an import path; PartError says why that fails, or that its source changed meanwhile.

    No bytecode is written: Python takes a file of the same second and size for unchanged.
    """
    module_name, _, attributes = path.partition(":")
    package = _package(path)
    first, fresh = package not in _imported, module_name not in sys.modules
    digest = _digest_of_files(kind, path)
    with explained(kind, path, f"importing {module_name}"), _without_bytecode():
        module = importlib.import_module(module_name)
    if first:
        if _digest_of_files(kind, path) != digest:
            raise PartError(f"{kind} {path}: the Python files of {package} changed while it was imported; repeat")
        _imported[package] = digest
    elif fresh and digest != _imported[package]:
        raise PartError(f"{kind} {path}: the Python files of {package} changed after others were imported; repeat")
    found: Any = module
    for word in attributes.split("."):
        if not hasattr(found, word):
            raise PartError(f"{kind} {path}: {module_name} has no {word!r}{_near(word, dir(found))}")
        found = getattr(found, word)
    return found


def callable_part(kind: str, path: str) -> Callable[..., Any]:
    """Import a function or class; PartError if the object is not one."""
    found = load_part(kind, path)
    if not callable(found):
        raise PartError(f"{kind} {path}: it must be a function or a class, got {type(found).__name__}")
    return found


@contextlib.contextmanager
def explained(kind: str, path: str, doing: str) -> Iterator[None]:
    """Raise an error of a part's own code as a PartError: what failed, where, and the traceback as its details."""
    try:
        yield
    except DashError:
        raise
    except (Exception, SystemExit) as error:
        reason = str(error).strip().partition("\n")[0][:300] or "no message"
        sentence = f"{kind} {path}: {doing} failed: {type(error).__name__}: {reason}{_place_of(error)}{_hint(error)}"
        broken = PartError(sentence)
        broken.details = "".join(traceback.format_exception(error))
        raise broken from error


def _place_of(error: BaseException) -> str:
    """Return ' (file, line n)' of the innermost line of the error that is in a package of own parts."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}, line {error.lineno})"
    lines = traceback.extract_tb(error.__traceback__)
    own = [line for line in lines if _finder.packages & {*Path(line.filename).parts, Path(line.filename).stem}]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def _hint(error: BaseException) -> str:
    """Return what to do about a module beside a part's package, which is not found."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    folder = _finder.folder
    if not name or folder is None or not ((folder / f"{name}.py").exists() or (folder / name).is_dir()):
        return ""
    return (
        f"; move {name} into the package of the part, and import it from there: only that package is found in {folder}"
    )


def _package(path: str) -> str:
    return path.partition(":")[0].partition(".")[0]


def _with_path(path: str, digest: str) -> str:
    return hashlib.sha256(f"{path}\n{digest}".encode()).hexdigest()


def _digest_of_files(kind: str, path: str) -> str:
    """Return the SHA-256 of the Python files of a part's top-level package, with their names in it."""
    digest = hashlib.sha256()
    for root, file in source_files(kind, path):
        with explained(kind, path, f"reading {file}"):
            content = file.read_bytes()
        digest.update(f"{file.relative_to(root).as_posix()}:{len(content)}:".encode() + content)
    return digest.hexdigest()


def source_files(kind: str, path: str) -> list[tuple[Path, Path]]:
    """Return the Python files of a part's top-level package, or its one module: (folder that contains them, file)."""
    package = _package(path)
    _finder.packages.add(package)
    if package not in sys.modules:
        importlib.invalidate_caches()
    with explained(kind, path, f"finding {package}"):
        spec = importlib.util.find_spec(package)
    if spec is None:
        where = f", nor in {_finder.folder}" if _finder.folder else ""
        raise PartError(
            f"{kind} {path}: no module {package!r} is installed{where}; install it, put it there, or name its folder "
            "in PYTHONPATH"
        )
    _check_not_hidden(kind, path, spec)
    if spec.submodule_search_locations is not None:
        roots = [Path(folder) for folder in spec.submodule_search_locations]
        return [(root, file) for root in roots for file in sorted(root.rglob("*.py"))]
    if not spec.origin or not Path(spec.origin).is_file():
        raise PartError(f"{kind} {path}: {package} is part of Python and has no file of its own: name your own package")
    return [(Path(spec.origin).parent, Path(spec.origin))]


def _check_not_hidden(kind: str, path: str, spec: ModuleSpec) -> None:
    """Raise PartError if the project's folder has a package of this name, and Python finds another before it."""
    own = _finder.folder and PathFinder.find_spec(spec.name, [str(_finder.folder)])
    if not own or (own.origin is None and spec.origin is not None):  # a folder without __init__.py, such as data/
        return
    places = [_places(one) for one in (own, spec)]
    if places[0] != places[1]:
        raise PartError(
            f"{kind} {path}: Python finds {spec.name} in {spec.origin or places[1]}, which hides the one in "
            f"{_finder.folder}: rename yours"
        )


def _places(spec: ModuleSpec) -> list[str]:
    return [str(Path(place).resolve()) for place in spec.submodule_search_locations or [spec.origin or ""]]


def _near(word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(word, [name for name in known if not name.startswith("__")], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


@contextlib.contextmanager
def _without_bytecode() -> Iterator[None]:
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
