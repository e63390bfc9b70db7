"""YAML with positions: a file's text becomes plain values plus the line where each of them stands.

Two departures from PyYAML's YAML 1.1 habits, both towards YAML 1.2: `1e-5` is a number, and `off`, `no` and the like
are text, so that only `true` and `false` are booleans.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mmalign.config.problems import KeyPath, dotted
from mmalign.errors import ConfigError, show

_MOST_VALUES = 10_000
_PLAIN_SCALARS: tuple[tuple[str, str, str], ...] = (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the plain scalars of YAML 1.2."""

    yaml_implicit_resolvers: dict = {}


class Dumper(yaml.SafeDumper):
    """Writes what `Loader` reads back equal; text that any YAML version takes for something else is quoted."""


for _tag, _pattern, _first in _PLAIN_SCALARS:
    _characters = ["" if character == "\0" else character for character in _first]
    Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _characters)
    Dumper.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _characters)
Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))
Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: float(_python_float(node.value)))


def _python_float(text: str) -> str:
    """Return YAML's `.inf` and `.nan` as Python spells them."""
    return text.lower().replace(".inf", "inf").replace(".nan", "nan") if text.lower().endswith(("inf", "nan")) else text


@dataclass
class Document:
    """Plain values and where each stands.

    Args:
        values: the file as dicts, lists and scalars.
        places: for every path in `values`, text such as "recipe.yaml:12" to put before a message.
        source: the file's name, or the override as it was typed.
        numbered: whether `source` has lines that a message should name.
    """

    values: dict[str, Any]
    source: str
    places: dict[KeyPath, str] = field(default_factory=dict)
    numbered: bool = True

    def line(self, mark: yaml.Mark | None) -> str:
        """Return where `mark` stands, as "recipe.yaml:12"."""
        return f"{self.source}:{mark.line + 1}" if self.numbered and mark else self.source

    def place(self, path: KeyPath) -> str:
        """Return where `path` stands, or where the nearest enclosing value does when it is missing."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, self.source)


def read_document(path: str | Path) -> Document:
    """Read a YAML file.

    Raises:
        ConfigError: the file is missing, is not UTF-8, is not YAML, holds a key twice, or is not a mapping.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a recipe in YAML") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a directory; give the path of a recipe in YAML") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_document(text, str(path))


def parse_document(text: str, source: str) -> Document:
    """Parse a recipe's text; see `read_document`."""
    document = Document(values={}, source=source)
    node = _compose(text, document)
    if node is None:
        raise ConfigError(f"{source}: is empty; a recipe needs at least recipe, model, data and train")
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{document.line(node.start_mark)}: a recipe is a mapping of keys: `recipe: preference`, ...")
    document.values = _Reader(document).value(node, ())
    return document


def parse_value(text: str, source: str) -> Any:
    """Parse one value written in YAML, as overrides carry it.

    Raises:
        ConfigError: `text` is not YAML.
    """
    document = Document(values={}, source=source, numbered=False)
    node = _compose(text, document)
    return None if node is None else _Reader(document).value(node, ())


def _compose(text: str, document: Document) -> yaml.Node | None:
    """Return the one document of `text` as nodes."""
    try:
        return yaml.compose(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        place = document.line(error.problem_mark or error.context_mark)
        raise ConfigError(f"{place}: is not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{document.source}: is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{document.source}: is nested too deeply to be a recipe") from None


class _Reader:
    """Turns nodes into values and notes their places in a document."""

    def __init__(self, document: Document) -> None:
        self.document, self.open_nodes, self.seen = document, [], 0

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        """Return the value of `node`, which stands at `path`."""
        self.document.places.setdefault(path, self._place(node))
        self.seen += 1
        if node in self.open_nodes or self.seen > _MOST_VALUES:
            raise ConfigError(f"{self._place(node)}: an alias repeats its own value or too many; write the value out")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        self.open_nodes.append(node)
        read = self._mapping if isinstance(node, yaml.MappingNode) else self._sequence
        value = read(node, path)
        self.open_nodes.pop()
        return value

    def _place(self, node: yaml.Node) -> str:
        return self.document.line(node.start_mark)

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        try:
            return Loader.yaml_constructors[node.tag](Loader(""), node)
        except (KeyError, ValueError, yaml.YAMLError):
            raise ConfigError(
                f"{self._place(node)}: {show(node.value)} with tag {node.tag!r} is no plain value; remove the tag"
            ) from None

    def _sequence(self, node: yaml.SequenceNode, path: KeyPath) -> list[Any]:
        return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, child in node.value:
            place = self._place(key_node)
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or not isinstance(self._scalar(key_node), str):
                raise ConfigError(f"{place}: a key must be text, got {show(key)}; write `name: value`")
            if key in values:
                first = self.document.places[(*path, key)]
                raise ConfigError(f"{place}: {dotted((*path, key))}: stands twice (first at {first}); keep one")
            self.document.places[(*path, key)] = place
            values[key] = self.value(child, (*path, key))
        return values
