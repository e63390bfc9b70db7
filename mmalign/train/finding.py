"""What a rule about the curves of a run has to say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that the curves say.

    Args:
        name: stable short name of the rule.
        sentence: what was seen and what it means, with figures.
        advice: what to try.
        evidence: the figures, by name.
    """

    name: str
    sentence: str
    advice: str
    evidence: Mapping[str, float]

    def __str__(self) -> str:
        return f"{self.sentence} {self.advice}"
