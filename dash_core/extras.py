"""What a part of dash_core needs beside torch and numpy, and the sentence that says so where it is missing.

The parts in `WITH_TORCH_ALONE` work after `pip install dashpipe`; each other part needs one of the extras. Where its
extra is missing, the import of a part raises ModuleNotFoundError: "dash_core.config needs pydantic, not installed here:
pip install 'dashpipe[training]'".
"""

import importlib.util
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

PACKAGE = __name__.partition(".")[0]
LIBRARIES = {  # extra: the modules that it brings
    "training": ("pydantic", "safetensors", "filelock"),
    "data": ("torchvision", "PIL", "sklearn", "scipy"),  # ours; arrays of your own need none
    "views": ("plotly", "kaleido", "jinja2", "scipy"),
}
DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}  # where the name of the module is another
WITH_TORCH_ALONE = ("errors", "extras", "files", "integrations", "optim", "penalties", "seeding", "shrinking")
EXTRAS = {  # part: its extra; all others, but those with torch alone, need the extra training
    "optim.schedules": "training",
    "views.figures": "views",
    "views.holm": "views",
    "views.report": "views",
    "views.reproduction": "views",
    "views.rules": "views",
    "views.statistics": "views",
    "views.stream_report": "views",
    "stream.drift": "data",
    "stream.harm": "data",
    "stream.gate": "data",
    "stream.paired": "data",
}


def require(extra: str, part: str) -> None:
    """Raise ModuleNotFoundError with what to install, if a library of the extra is missing that `part` needs."""
    missing = [library for library in LIBRARIES[extra] if importlib.util.find_spec(library) is None]
    if missing:
        names = " and ".join(DISTRIBUTIONS.get(library, library) for library in missing)
        raise ModuleNotFoundError(
            f"{part} needs {names}, not installed here: pip install 'dashpipe[{extra}]'", name=missing[0]
        )


class MissingExtras(MetaPathFinder):
    """A finder that finds nothing: it checks each part of dash_core before that is imported, and no other module."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Raise ModuleNotFoundError if `name` is a part of dash_core whose extra is missing."""
        package, _, part = name.partition(".")
        if package != PACKAGE:
            return
        extra = next((extra for start, extra in EXTRAS.items() if part == start or part.startswith(f"{start}.")), None)
        if extra is None and part.partition(".")[0] in WITH_TORCH_ALONE:
            return
        require("training", name)
        if extra is not None:
            require(extra, name)
