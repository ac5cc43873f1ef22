"""Check a section of the configuration, and say of every mistake what was given, what is allowed and what to type."""

import difflib
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from dash_core.errors import ConfigError
from dash_core.protocols import Protocol
from dash_core.section import Section

if TYPE_CHECKING:
    from torch import nn

UNION = ("literal['auto']", "constrained-int", "constrained-float")  # pydantic's names for parts of `X | "auto"`
NO_SECTION = ("model_type", "model_attributes_type")  # pydantic's names for a value where a section belongs
MOST_MISTAKES = 20  # listed in one message
SYNONYMS = {  # other programs' words for settings, where a section has no setting of that name
    "arch": "model",
    "architecture": "model",
    "batch": "batch_size",
    "dataset_path": "folder",
    "epochs": "max_epochs",
    "learning_rate": "lr",
    "method": "methods",
    "network": "model",
    "norm": "normalisation",
    "normalization": "normalisation",
    "num_epochs": "max_epochs",
    "num_workers": "workers",
    "path": "folder",
    "scheduler": "schedule",
    "seed": "seeds",
    "warmup": "warmup_epochs",
    "wd": "weight_decay",
}


def parse(kind: type[Section], content: object, where: str = "") -> Any:
    """Return `content` as a checked section of the given kind; ConfigError lists every mistake with its remedy."""
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where or 'the configuration'} must be a mapping of names to values, got {shown(content)}")
    try:
        return kind.model_validate(dict(content))
    except ValidationError as error:
        lines = list(dict.fromkeys(_explain(kind, mistake, where) for mistake in error.errors()))
        more = [f"... and {len(lines) - MOST_MISTAKES} more"] if len(lines) > MOST_MISTAKES else []
        raise ConfigError("\n".join(lines[:MOST_MISTAKES] + more)) from None


def check_layer(key: str, name: str, model: "nn.Module") -> None:
    """Raise ConfigError unless the model has a layer of this name. key: of the setting that names it."""
    known = [path for path, _ in model.named_modules() if path]
    if name not in known:
        top = ", ".join(child for child, _ in model.named_children())
        raise ConfigError(f"{key}: the model has no layer {name!r}{nearest(name, known)}; its layers: {top}")


def nearest(name: str, known: Sequence[str]) -> str:
    """Return ' (did you mean ...?)' with the known name nearest to `name`, or nothing.

    Capital letters and punctuation do not count: CIFAR-10 is near to cifar10.
    """
    plain = {_plain(word): word for word in known}
    close = difflib.get_close_matches(_plain(name), list(plain), n=1)
    return f" (did you mean {plain[close[0]]!r}?)" if close else ""


def shown(value: object) -> str:
    """Return a value as errors show it: one short line, however long or deep the value is."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python refuses to write such numbers out
        return "a number of thousands of digits"


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 80, 80, 40


def _plain(word: str) -> str:
    return re.sub(r"[\W_]+", "", word.casefold()) or word


def _explain(kind: type[Section], mistake: Mapping[str, Any], where: str) -> str:
    """Turn one pydantic error into a line: key, value given, what is allowed."""
    path, section = _place(kind, mistake["loc"])
    key = ".".join(([where] if where else []) + path) or "the configuration"
    if mistake["type"] == "extra_forbidden":
        known = list(section.model_fields)
        listing = f"known {_where(section, key)}: {', '.join(known) or 'none'}"
        return f"unknown key {key}{_meant(path[-1], section, kind)}; {listing}"
    if mistake["type"] == "union_tag_invalid":
        name, known = mistake["input"]["name"], list(_members(section, path[-1]))
        suggestion = nearest(name, known) if isinstance(name, str) else ""
        return f"{key}.name: unknown {path[-1]} {shown(name)}{suggestion}; known: {', '.join(known)}"
    if mistake["type"] in NO_SECTION and isinstance(mistake["input"], str):
        first = _first_setting(section, path[-1])
        return f"{key} is a section of settings, got {shown(mistake['input'])}: set {key}.{first}={mistake['input']}"
    if mistake["type"] in ("list_type", "tuple_type") and isinstance(mistake["input"], str):
        return f"{key} is a list, got {shown(mistake['input'])}: set {key}=[{mistake['input']}]"
    message = mistake["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:] if message[:5] == "Input" else message
    if mistake["type"] == "value_error":
        return f"{key}: {message}"
    return f"{key}: {message}, got {shown(mistake['input'])}"


def _meant(name: str, section: type[Section], whole: type[Section]) -> str:
    """Return what is most likely meant by an unknown key of a section: a symbol, a near name, or a key elsewhere."""
    if name in section.symbols:
        return f" ({section.symbols[name]} is the paper's {name})"
    known = list(section.model_fields)
    if SYNONYMS.get(name) in known:
        return f" (did you mean {SYNONYMS[name]!r}?)"
    if elsewhere := [key for key in _keys(whole) if key.rpartition(".")[2] in (name, SYNONYMS.get(name))]:
        return f" (did you mean {' or '.join(elsewhere[:3])}?)"
    return nearest(name, known)


def _keys(kind: type[Section], prefix: str = "") -> Iterator[str]:
    """Yield every key of a section and of the sections in it, with dots."""
    for name, field in kind.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from _keys(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _first_setting(section: type[Section], key: str) -> str:
    """Return the first setting of the section that belongs at a key, which says what it is."""
    annotation = section.model_fields[key].annotation if key in section.model_fields else None
    kinds = [annotation, *_members(section, key).values()]
    return next(next(iter(kind.model_fields)) for kind in kinds if isinstance(kind, type) and issubclass(kind, Section))


def _place(kind: type[Section], location: Sequence[str | int]) -> tuple[list[str], type[Section]]:
    """Return the keys of an error's location, without pydantic's words, and the section that contains the last key."""
    path, section, inner = [], kind, kind
    for part in (str(part) for part in location if part not in UNION):
        if path and part in (members := _members(section, path[-1])):
            inner = members[part]
            continue
        path.append(part)
        section = inner or section
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        inner = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    return path, section


def _members(section: type[Section], key: str) -> dict[str, type[Section]]:
    """Return, by name, the sections that a key may hold."""
    kinds = get_args(section.model_fields[key].annotation) if key in section.model_fields else ()
    sections = (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section))
    return {kind.model_fields["name"].default: kind for kind in sections}


def _where(section: type[Section], key: str) -> str:
    """Return 'here' or, for a key of a protocol, the name of the protocol that was chosen."""
    if not issubclass(section, Protocol):
        return "here"
    return f"with {key.rpartition('.')[0]}.name={section.model_fields['name'].default}"
