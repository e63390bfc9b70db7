"""What reading next-token distributions takes: log-probs of response tokens, and numbers that some objectives read."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmalign.engine.logps import KEPT_LOGITS_BYTES
from mmalign.engine.tiles import TILE_BYTES
from mmalign.engine.token_terms import ChosenLogps, LogitGain, ReferenceKl

if TYPE_CHECKING:
    from mmalign.config.schema import TeacherConfig
    from mmalign.engine.footprint import BatchShape

_WIDE, _ID = 4, 8
# Log-probs under the policy, as they are computed and in the places of their tokens, and what the loss makes of them.
_OWN_NUMBERS = 3


@dataclass(frozen=True, kw_only=True)
class Head:
    """The head of a model.

    Args:
        width: of a hidden state.
        vocabulary: number of logits.
        gradient: bytes of its own gradient, 0 where it is frozen.
        state_bytes: of one number of a hidden state.
    """

    width: int
    vocabulary: int
    gradient: int
    state_bytes: int

    def logps_bytes(self, shape: BatchShape) -> int:
        """Kept logits or tiles, hidden states of the scored tokens, and the head's gradient before it is added up."""
        hidden = _WIDE * self.width * (2 * shape.response_tokens + shape.rows * shape.columns)
        tiles = 2 * min(self._logits_bytes(shape.response_tokens), TILE_BYTES)
        return self._kept_bytes(shape.response_tokens) + tiles + hidden + self.gradient

    def reads_bytes(self, shape: BatchShape, reads: Collection[str], teacher: TeacherConfig | None) -> int:
        """What is read beside log-probs adds: what waits for the backward pass, and a second set of gradients.

        Args:
            reads: names of the terms that are asked of the policy (`token_terms.py`); others cost nothing here.
        """
        kept = 0
        if ReferenceKl.name in reads:
            kept += self._distance_bytes(shape.response_tokens)
        if ChosenLogps.name in reads and teacher is not None:
            kept += _likeliest_bytes(shape.response_tokens, teacher)
        if LogitGain.name in reads:
            # Half of the tokens are those of rows as they are, the others those of the view.
            tokens = shape.response_tokens // 2
            kept += _WIDE * self.width * tokens + self._kept_bytes(tokens)
        # Gradients of two readings stand beside each other before they are added up.
        return kept + _WIDE * self.width * shape.response_tokens + self.gradient if kept else 0

    def _distance_bytes(self, tokens: int) -> int:
        """Hidden states of the reference, and two normalisers of each token."""
        return tokens * (self.width * self.state_bytes + 2 * _WIDE)

    def _logits_bytes(self, tokens: int) -> int:
        return _WIDE * tokens * self.vocabulary

    def _kept_bytes(self, tokens: int) -> int:
        logits = self._logits_bytes(tokens)
        return logits if logits <= KEPT_LOGITS_BYTES else 0


def _likeliest_bytes(tokens: int, teacher: TeacherConfig) -> int:
    """Ids in the places of their tokens and one after the other; log-probs under the policy, and from the table."""
    models = 1 if teacher.contrast is None else 2
    return tokens * (2 * _ID * teacher.top_k + _WIDE * (teacher.top_k + 1) * (_OWN_NUMBERS + models))
