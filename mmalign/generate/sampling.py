"""How the next token is chosen and when an answer ends, the same for a model in memory and one behind an address."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from mmalign.errors import ConfigError

FEWEST_REPEATS = 4
"""An answer is without end when its last tokens are one piece, at least so many times over."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How answers are drawn.

    Args:
        max_new_tokens: an answer that does not end by then is cut.
        temperature: 0 takes the most probable token; 1 samples from the model's own distribution.
        top_p: sample from the smallest set of tokens that has this probability.
        top_k: sample from so many most probable tokens; None takes all.
        repetition_penalty: logits of tokens that the prompt or the answer holds are divided by it where positive and
            multiplied by it where negative, as transformers does.
        stop: texts that end an answer; they and what follows do not belong to it.
        endless_after_tokens: an answer is given up when so many of its last tokens repeat one piece; None never does.
            A server cannot be told; the words of its answers are looked at when they have come.

    Raises:
        ConfigError: a value is out of range.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    endless_after_tokens: int | None = 128

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ConfigError(
                f"sampling needs max_new_tokens >= 1, temperature >= 0 and 0 < top_p <= 1, got {self.max_new_tokens}, "
                f"{self.temperature} and {self.top_p}"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"sampling needs top_k >= 1, got {self.top_k}; leave it out to take all tokens")
        if self.repetition_penalty <= 0:
            raise ConfigError(f"sampling needs repetition_penalty > 0, got {self.repetition_penalty}; 1 has no effect")
        if isinstance(self.stop, str) or not all(self.stop):
            raise ConfigError(f"sampling needs stop to be a list of texts that are not empty, got {self.stop!r}")
        if self.endless_after_tokens is not None and self.endless_after_tokens < FEWEST_REPEATS:
            raise ConfigError(
                f"sampling needs endless_after_tokens >= {FEWEST_REPEATS}, got {self.endless_after_tokens}; "
                "leave it null to never give up"
            )


GREEDY = Sampling()
"""The most probable token, always."""


def seed_of(seed: int, row_id: str, number: int) -> int:
    """Return the seed of one answer: it depends on the run's seed, the row and the answer's number, on nothing else.

    Returns:
        48 bits, which a float, and so a column of scores, holds exactly.
    """
    name = f"{seed}\0{number}\0{row_id}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(name).digest()[:6], "big")


def is_endless(pieces: Sequence[Hashable], number: int | None) -> bool:
    """Say whether the last so many tokens are one piece over and over, at least `FEWEST_REPEATS` times."""
    if number is None or len(pieces) < number:
        return False
    tail = list(pieces[-number:])
    return any(tail[period:] == tail[:-period] for period in range(1, number // FEWEST_REPEATS + 1))
