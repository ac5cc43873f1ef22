"""What malformed input is made of: good content with parts replaced, added or taken away, and damaged bytes."""

import copy
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from dash_core.errors import DashError

LONGEST = 20_000  # characters of a message that a person may still read


class Yaml(str):
    """A value that only YAML can say, written as it stands."""


def examples(count: int) -> settings:
    """Return the settings of a fuzz test: the same examples in every run, so that it fails for everybody or nobody."""
    unhealthy = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    return settings(max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=unhealthy)


WORDS = [
    "",
    "auto",
    "dash",
    "dataset",
    "../..",
    "/etc/passwd",
    "a\0b",
    "\x1b[31m",
    "\ud800",
    "ß" * 300,
    "x" * 5000,
    "~x",
]
NUMBERS = [0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1e308, -0.0, 0.5, 99.9, math.nan, math.inf, -math.inf]
ODD = [
    "2020-01-02",
    "2020-01-02T03:04:05Z",
    "!!binary aGVsbG8=",
    "!!set {a, b}",
    "!!omap [a: 1]",
    "!!python/name:os.system",
    "!unknown 1",
    "*nobody",
    "&a [*a]",
    "0x" + "f" * 6000,
    "9" * 6000,
    "1:30",
    "010",
    "yes",
    "~",
    "{<<: 3}",
    "{? [1]: 2}",
    "[" * 400 + "]" * 400,
]
scalars = st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.integers() | st.floats() | st.text(max_size=6)
values = scalars | st.sampled_from(WORDS)
names = st.text(max_size=6) | st.sampled_from(["name", "chunks", "intervention", "methods", "digest", "\ud800", "\0"])
json_junk = st.recursive(
    values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)
yaml_junk = json_junk | st.sampled_from(ODD).map(Yaml)


def mutated(good: dict[str, Any], junk: st.SearchStrategy, most: int = 3) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy for `good` with up to `most` of its parts replaced by junk, taken away, or added."""
    places = list(_places(good))

    @st.composite
    def build(draw: Callable) -> dict[str, Any]:
        content = copy.deepcopy(good)
        for _ in range(draw(st.integers(1, most))):
            *above, last = draw(st.sampled_from(places))
            holder = _descend(content, above)
            if holder is None or (isinstance(holder, list) and last not in range(len(holder))):
                continue
            what = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
            if what == "replace":
                holder[last] = draw(junk)
            elif what == "remove" and isinstance(holder, dict):
                holder.pop(last, None)
            elif isinstance(holder, dict):
                holder[draw(names)] = draw(junk)
        return content

    return build()


def damaged(good: bytes) -> st.SearchStrategy[bytes]:
    """Return a strategy for `good` cut, or with some bytes in it overwritten or put in."""
    hurt = [
        b"\0",
        b"\xff",
        b"\t",
        b"\n",
        b"{",
        b"[",
        b'"',
        b"'",
        b": ",
        b"*x",
        b"&x ",
        b"- ",
        b"? ",
        b"<<: ",
        b"\xef\xbb\xbf",
    ]
    piece = st.binary(min_size=1, max_size=4) | st.sampled_from(hurt)
    change = st.tuples(st.integers(0, len(good)), st.integers(0, 5), piece)

    def apply(changes: list[tuple[int, int, bytes]], end: int) -> bytes:
        content = good
        for start, length, new in changes:
            content = content[:start] + new + content[start + length :]
        return content[:end]

    return st.builds(apply, st.lists(change, min_size=1, max_size=3), st.just(10**9) | st.integers(0, len(good)))


def yaml_text(value: object) -> str:
    """Return a value as YAML: JSON, but for numbers that JSON has not and for `Yaml`."""
    if isinstance(value, Yaml):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {yaml_text(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(yaml_text, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    return json.dumps(value)


def refusal(action: Callable[[], object]) -> str | None:
    """Return the words in which `action` refuses its input, None where it takes it; any other exception passes."""
    try:
        action()
    except DashError as error:
        words = str(error)
        assert 0 < len(words) < LONGEST
        return words
    return None


def listing(folder: Path) -> dict[str, bytes | None]:
    """Return everything below a folder with its content."""
    found = sorted(folder.rglob("*"))
    return {str(path): path.read_bytes() if path.is_file() else None for path in found}


def _places(content: object, above: tuple = ()) -> Iterator[tuple]:
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, inner in pairs:
        yield (*above, key)
        yield from _places(inner, (*above, key))


def _descend(content: object, path: list) -> Any:
    """Return the dict or list at a path, None where an earlier change took it away."""
    for key in path:
        known = isinstance(content, dict) and key in content
        content = content[key] if known or (isinstance(content, list) and key in range(len(content))) else None
    return content if isinstance(content, dict | list) else None
