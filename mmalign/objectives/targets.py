"""Label targets q: how far a label "better" is believed.

The loss of a pair is q * loss(right label) + (1 - q) * loss(wrong label). A target is a number, or a rule that finds
one for every pair (`rules.py`).
"""

from __future__ import annotations

CERTAIN = 1.0
"""q = 1: the label is right."""


def smoothed(error_rate: float) -> float:
    """Return q = 1 - e, the probability that the label is right (cDPO)."""
    return 1 - error_rate


def unbiased(error_rate: float) -> float:
    """Return q = (1 - e) / (1 - 2 e), larger than 1: with labels flipped at rate e the expected loss is the clean one.

    Check: (1 - e) [q l(m) + (1 - q) l(-m)] + e [q l(-m) + (1 - q) l(m)] = l(m).

    Source: robust DPO, arXiv:2403.00409.
    """
    return (1 - error_rate) / (1 - 2 * error_rate)
