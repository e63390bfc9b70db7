"""Every error a person can meet, as one tree.

    MmalignError
    |-- ConfigError      a recipe file, an override or a combination of options is wrong
    |-- DataError        a file of rows cannot be read at all, or too many of its rows are refused
    |   `-- RowError     one row is refused: it goes to quarantine, the run goes on
    |-- ModelError       a model directory, its processor or its family cannot do what is asked
    |-- TrainingError    a step produced something that must not reach the weights
    `-- CheckpointError  a checkpoint is missing, incomplete or belongs to another run

A message says what is wrong, shows the offending value, gives the rule and names the way out. The command line prints
it without a traceback and exits with 2.
"""

from __future__ import annotations

from typing import Any

_LONGEST_VALUE_SHOWN = 120


def show(value: Any) -> str:
    """Return `value` as a reader should see it in a message: its repr, cut to one readable length."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE_SHOWN else text[: _LONGEST_VALUE_SHOWN - 3] + "..."


class MmalignError(Exception):
    """Base of all errors that mmalign raises on purpose."""


class ConfigError(MmalignError, ValueError):
    """A recipe file, an override, or a combination of options is wrong."""


class DataError(MmalignError, ValueError):
    """A file of rows cannot be read, or too many of its rows are refused."""


class RowError(DataError):
    """One row is refused.

    Args:
        reason: short, constant text of the rule that was broken, fit for counting ("image is missing").
        field: the column or path inside the row ("images[0]").
        value: the offending value.
        hint: what to do about it.
    """

    def __init__(self, reason: str, *, field: str = "", value: Any = None, hint: str = "") -> None:
        self.reason, self.field, self.value, self.hint = reason, field, value, hint
        where = f"{field}: " if field else ""
        shown = f" (got {show(value)})" if value is not None else ""
        way_out = f"; {hint}" if hint else ""
        super().__init__(f"{where}{reason}{shown}{way_out}")


class ModelError(MmalignError):
    """A model directory, its processor or its family cannot do what is asked."""


class TrainingError(MmalignError):
    """A step produced something that must not reach the weights."""


class CheckpointError(MmalignError):
    """A checkpoint is missing, incomplete, or belongs to another run."""
