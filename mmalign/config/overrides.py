"""`key=value` on the command line: dotted keys, list positions, values in YAML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmalign.config.document import Document, parse_value
from mmalign.config.problems import KeyPath, dotted
from mmalign.errors import ConfigError, show

# Two ways to say one thing: naming one on the command line takes the place of the other in the file.
ALTERNATIVES: tuple[tuple[KeyPath, KeyPath], ...] = (
    (("train", "num_train_epochs"), ("train", "max_steps")),
    (("train", "warmup_ratio"), ("train", "warmup_steps")),
)


def apply_overrides(document: Document, overrides: Sequence[str]) -> None:
    """Write each `key=value` into `document`, in order; the last one wins.

    `train.max_steps=20` takes the place of `num_train_epochs` in the file and the other way round, likewise the two
    forms of warmup. `objective.0.beta=0.2` reaches into a list; the position after the last one appends.

    Raises:
        ConfigError: an override has no `=`, no key, a value that is not YAML, or reaches into something that is no
            mapping or list.
    """
    named: set[KeyPath] = set()
    for override in overrides:
        path, value = _split(override)
        _write(document, path, value, f"override {override!r}")
        named.add(path)
    for first, second in ALTERNATIVES:
        for winner, loser in ((first, second), (second, first)):
            if winner in named and loser not in named and _read(document.values, winner) is not None:
                _drop(document, loser)


def _split(override: str) -> tuple[KeyPath, Any]:
    """Return the path and the value of one `key=value`."""
    key, equals, text = override.partition("=")
    if not equals or not key or "" in key.split("."):
        raise ConfigError(f"override {override!r}: write key=value, for example train.learning_rate=1e-6")
    path = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
    return path, parse_value(text, f"override {override!r}")


def _write(document: Document, path: KeyPath, value: Any, place: str) -> None:
    """Put `value` at `path`, making mappings on the way, and note that it stands at `place`."""
    holder: Any = document.values
    for depth, key in enumerate(path[:-1]):
        _require_reachable(holder, key, path, depth, place)
        if isinstance(holder, list) and key == len(holder):
            holder.append({})
        if isinstance(holder, dict) and holder.get(key) is None:
            holder[key] = {}
        document.places.setdefault(path[: depth + 1], place)
        holder = holder[key]
    _require_reachable(holder, path[-1], path, len(path) - 1, place)
    if isinstance(holder, list) and path[-1] == len(holder):
        holder.append(value)
    else:
        holder[path[-1]] = value
    for known in [known for known in document.places if known[: len(path)] == path]:
        del document.places[known]
    document.places[path] = place


def _require_reachable(holder: Any, key: str | int, path: KeyPath, depth: int, place: str) -> None:
    """Refuse a step into something that has no `key`."""
    where = dotted(path[:depth]) or "the recipe"
    if isinstance(holder, dict):
        if isinstance(key, int):
            raise ConfigError(f"{place}: {where} is a mapping and has no position {key}; name one of its keys")
    elif isinstance(holder, list):
        if not isinstance(key, int) or key > len(holder):
            raise ConfigError(f"{place}: {where} is a list of {len(holder)}; positions 0 to {len(holder)} can be set")
    else:
        raise ConfigError(f"{place}: {where} is {show(holder)}, which has no key {key!r} inside")


def _read(values: Any, path: KeyPath) -> Any:
    """Return the value at `path`, or None."""
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _drop(document: Document, path: KeyPath) -> None:
    """Remove the value at `path` if it is there."""
    holder = _read(document.values, path[:-1])
    if isinstance(holder, dict):
        holder.pop(path[-1], None)
        document.places.pop(path, None)
