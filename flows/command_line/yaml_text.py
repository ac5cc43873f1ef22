"""Read settings from YAML, each that is text as it is written: a folder may be called 2024-01-15, 007 or no."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml

from dash_core.comparison import Params
from dash_core.config import merge, shown
from dash_core.errors import ConfigError
from dash_core.interventions import INTERVENTIONS
from dash_core.section import Section

LARGEST_BYTES = 2**20  # of a parameters' file
MOST_VALUES = 20_000  # in a file or an override; an alias counts wherever it is used
TEXT = "text"  # the form of a setting that is text; that of a mapping or list is a Mapping, of other settings None
EACH = "*"  # in a form: every key of a mapping, or every value of a list
TAG = "tag:yaml.org,2002:"
MISREAD = {f"{TAG}{kind}" for kind in ("bool", "float", "int", "timestamp", "value")}  # text that YAML takes for others
NOTHING = ("", "~", "null", "Null", "NULL")  # as YAML writes it

Form = str | Mapping[str, Any] | None


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, with two of its traps closed: 1e-3 is a number, and a repeated key is an error."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Expand merged mappings; an error if merges of merges grow too large."""
        super().flatten_mapping(node)
        if len(node.value) > MOST_VALUES:
            raise yaml.constructor.ConstructorError(None, None, "its merges hold too many values", node.start_mark)


_Loader.add_implicit_resolver(
    f"{TAG}float", re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _mapping_without_repeats(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value if key.tag != f"{TAG}merge"]
    for key, count in Counter(keys).items():
        if count > 1:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
    loader.flatten_mapping(node)
    return {loader.construct_object(key): loader.construct_object(value, deep=True) for key, value in node.value}


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_repeats)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; ConfigError says what is wrong with the file."""
    try:
        content = _load_yaml(_text_of(path), _settings())
    except FileNotFoundError:
        raise ConfigError(f"no file {path}: run inside the project's folder, or name the file with --params") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path} must hold a mapping of names to values, got {type(content).__name__}")
    return content


def parse_override(text: str) -> dict[str, Any]:
    """Return 'model.name=resnet18' as {'model': {'name': 'resnet18'}}.

    The value is read as YAML; that of a setting that is text, unless it is in quotes, is the text itself.
    """
    key, equals, value = text.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise ConfigError(f"--set takes section.key=value, got {shown(text)}; for example --set model.name=resnet18")
    form: Form = _settings()
    for name in names:
        form = _part(form, name)
    try:
        content = _text_given(value.strip()) if form == TEXT and _is_plain(value) else _load_yaml(value, form)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"--set {key}: the value {shown(value)} is not valid YAML: {error}") from None
    for name in reversed(names):
        content = {name: content}
    return content


def _is_plain(value: str) -> bool:
    return value.isprintable() and not value.lstrip().startswith(("'", '"'))


def _text_given(value: str) -> str | None:
    return None if value in NOTHING else value


def _text_of(path: Path) -> str:
    """Return the file's text; ValueError if it is too large to be parameters."""
    with path.open("rb") as file:
        content = file.read(LARGEST_BYTES + 1)
    if len(content) > LARGEST_BYTES:
        raise ValueError(f"it has more than {LARGEST_BYTES} bytes")
    return content.decode()


def _load_yaml(text: str, form: Form) -> Any:
    """Return the content of a YAML text; ValueError if aliases or its length make it too large."""
    content = _construct(text, form)
    pending, values = [content], 0
    while pending:
        value = pending.pop()
        values += 1
        if values > MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES} values, aliases written out")
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list | tuple | set):
            pending += value
    return content


def _construct(text: str, form: Form) -> Any:
    """Return the content of a YAML text; its settings that are text are read as they are written."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _mark_text_(node, form, set())
        return loader.construct_document(_as_text(node) if form == TEXT else node)
    finally:
        loader.dispose()


def _mark_text_(node: yaml.Node, form: Form, seen: set[tuple[int, int]]) -> None:
    """Mark, in place, the scalars inside a node that are text by its form; seen: nodes already marked, with forms."""
    if not isinstance(form, Mapping) or (id(node), id(form)) in seen:
        return
    seen.add((id(node), id(form)))
    if isinstance(node, yaml.SequenceNode):
        parts = [(_part(form, EACH), value) for value in node.value]
        node.value = [_as_text(value) if part == TEXT else value for part, value in parts]
    elif isinstance(node, yaml.MappingNode):
        keys = [_as_text(key) if EACH in form else key for key, _ in node.value]
        forms = [form if key.tag == f"{TAG}merge" else _part(form, key.value) for key in keys]
        values = [
            _as_text(value) if part == TEXT else value for (_, value), part in zip(node.value, forms, strict=True)
        ]
        node.value = list(zip(keys, values, strict=True))
        parts = [
            (part, inner)
            for part, value in zip(forms, values, strict=True)
            for inner in (value.value if part is form and isinstance(value, yaml.SequenceNode) else [value])
        ]
    else:
        return
    for part, value in parts:
        _mark_text_(value, part, seen)


def _as_text(node: yaml.Node) -> yaml.Node:
    """Return an unquoted scalar as text, as it is written, if YAML takes it for a number, a date or a truth value."""
    if isinstance(node, yaml.ScalarNode) and node.style is None and node.tag in MISREAD:
        return yaml.ScalarNode(f"{TAG}str", node.value, node.start_mark, node.end_mark)
    return node


def _part(form: Form, key: object) -> Form:
    if not isinstance(form, Mapping) or not isinstance(key, str):
        return None
    return form.get(key, form.get(EACH))


@cache
def _settings() -> Mapping[str, Any]:
    """Return the form of params.yaml: which of its settings are text."""
    of_methods: Mapping[str, Any] = {"intervention": TEXT}
    for kind in INTERVENTIONS.values():
        of_methods = merge(of_methods, _form_of_section(kind))
    return {**_form_of_section(Params), "methods": {EACH: of_methods}}


def _form_of_section(kind: type[Section]) -> Mapping[str, Any]:
    forms = {name: _form(field.annotation) for name, field in kind.model_fields.items()}
    return {name: form for name, form in forms.items() if form}


def _form(annotation: Any) -> Form:
    """Return the form of a setting of this type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is str or (origin is Literal and all(isinstance(value, str) for value in arguments)):
        return TEXT
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return _form_of_section(annotation)
    if origin is Annotated:
        return _form(arguments[0])
    if origin in (list, tuple):
        inside = _form(arguments[0])
        return {EACH: inside} if inside else None
    if origin in (Union, UnionType):
        return _common([_form(kind) for kind in arguments if kind is not type(None)])
    return None


def _common(forms: Sequence[Form]) -> Form:
    """Return the form of a setting that may have any of these types: text only if all of them are."""
    if all(form == TEXT for form in forms):
        return TEXT
    if all(isinstance(form, Mapping) for form in forms):
        return {key: form for kind in forms for key, form in kind.items()}
    return None
