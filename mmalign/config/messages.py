"""pydantic's errors in the words of the house: what, the value, the rule, the nearest valid name."""

from __future__ import annotations

import types
import typing
from typing import Any

from pydantic import BaseModel, ValidationError

from mmalign.config.problems import KeyPath, Problem, dotted, nearest
from mmalign.errors import show

_FOREIGN_NAMES = {
    "lr": "learning_rate",
    "epochs": "num_train_epochs",
    "num_epochs": "num_train_epochs",
    "steps": "max_steps",
    "batch_size": "per_device_train_batch_size",
    "grad_accum": "gradient_accumulation_steps",
    "scheduler": "lr_scheduler_type",
    "r": "rank",
    "lora_r": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "target_modules": "targets",
    "model_name_or_path": "path",
    "image_folder": "root",
    "dataset": "train",
    "cutoff_len": "max_length",
}
_TYPE_WORDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be finite",
    "bool_type": "must be true or false",
    "string_type": "must be text; quote it",
    "tuple_type": "must be a list, such as [a, b]",
    "model_type": "must be a mapping of keys",
    "dict_type": "must be a mapping of keys",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}
_BOUND_WORDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def problems_of(error: ValidationError, root: type[BaseModel]) -> list[Problem]:
    """Return what `error` says about values of `root`, in the order of the keys, each culprit once."""
    problems: dict[KeyPath, Problem] = {}
    for entry in error.errors(include_url=False):
        if entry["type"] == "combination":
            return entry["ctx"]["problems"]
        path = _key_path(root, entry["loc"])
        problems.setdefault(path, Problem(path=path, text=_words(entry, path, root)))
    return list(problems.values())


def _words(entry: dict[str, Any], path: KeyPath, root: type[BaseModel]) -> str:
    """Return what one of pydantic's entries means, without the key in front."""
    kind, value = entry["type"], entry.get("input")
    if kind == "extra_forbidden":
        return f"unknown key{_suggestion(str(path[-1]), path, root)}"
    if kind == "missing":
        return "is missing and has no default; add it"
    if kind == "literal_error":
        return _choice_words(value, entry["ctx"]["expected"])
    if kind in _BOUND_WORDS:
        name, words = _BOUND_WORDS[kind]
        return f"must be {words} {entry['ctx'][name]:g}, got {show(value)}"
    if kind == "string_type" and isinstance(value, dict):
        moved = (
            "; how a reference is computed is said by model.precompute_reference" if path[-1:] == ("reference",) else ""
        )
        return f"must be text, not a mapping of keys{moved}, got {show(value)}"
    return f"{_TYPE_WORDS.get(kind, entry['msg'])}, got {show(value)}"


def _choice_words(value: Any, expected: str) -> str:
    """Return the message of a value outside a closed list."""
    known = [name for quoted in expected.replace(" or ", ", ").split(", ") if (name := quoted.strip("'"))]
    close = nearest(str(value), known)
    hint = f"; did you mean {close!r}?" if close else ""
    return f"{show(value)} is not one of {', '.join(known)}{hint}"


def _suggestion(name: str, path: KeyPath, root: type[BaseModel]) -> str:
    """Return what an unknown key was probably meant to be: a sibling, or the same key in another section."""
    siblings = _fields_at(root, path[:-1])
    close = _FOREIGN_NAMES.get(name) if _FOREIGN_NAMES.get(name) in siblings else nearest(name, siblings)
    if close and close != name:
        return f"; did you mean {close!r}?"
    elsewhere = [known for known in _all_keys(root) if known[-1] in (name, _FOREIGN_NAMES.get(name))]
    if elsewhere:
        return f"; it belongs to {dotted(elsewhere[0])}"
    return f"; valid here: {', '.join(siblings)}"


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """Return the section classes that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, tuple, typing.Annotated):
        return [section for inner in typing.get_args(annotation) for section in _sections(inner)]
    return []


def _fields_at(root: type[BaseModel], path: KeyPath) -> list[str]:
    """Return the keys valid below `path`."""
    section: type[BaseModel] | None = root
    for key in path:
        if isinstance(key, int):
            continue
        found = _sections(section.model_fields[key].annotation) if section and key in section.model_fields else []
        section = found[0] if found else None
    return list(section.model_fields) if section else []


def _all_keys(root: type[BaseModel], above: KeyPath = ()) -> list[KeyPath]:
    """Return every key of the schema with its sections in front."""
    keys: list[KeyPath] = []
    for name, info in root.model_fields.items():
        keys.append((*above, name))
        for section in _sections(info.annotation):
            keys.extend(_all_keys(section, (*above, name)))
    return keys


def _key_path(root: type[BaseModel], loc: tuple[str | int, ...]) -> KeyPath:
    """Return pydantic's location without the names of union members that it mixes in."""
    path: list[str | int] = []
    section: type[BaseModel] | None = root
    for position, key in enumerate(loc):
        if isinstance(key, int):
            path.append(key)
        elif section is not None and (key in section.model_fields or position == len(loc) - 1):
            path.append(key)
            found = _sections(section.model_fields[key].annotation) if key in section.model_fields else []
            section = found[0] if found else None
    return tuple(path)
