"""Presets on answers judged one by one, against a reference: a label good or bad in place of a pair.

s = beta R = beta (S - S_ref), z the baseline; one answer a row, or the best and the worst of several.
"""

from __future__ import annotations

from mmalign.objectives.links import ANCHORED_UP, BINARY, Sides, scaled
from mmalign.objectives.preset import Preset, alone
from mmalign.objectives.score import Score, sequence_sum
from mmalign.objectives.unpaired import Baseline, Judged, MeanOfMismatched, MeanSeen, Zero

_JUDGED = {"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0}
_ONCE = "Of a pair or a list the best are good and the worst are bad, each counted once, as TRL unpairs pairs."


def _judged(o, sides: Sides, baseline: Baseline):
    return alone(
        Judged(
            score=Score(of=sequence_sum, scale=o.beta, reference=True),
            good=scaled(sides.up, o.desirable_weight),
            bad=scaled(sides.down, o.undesirable_weight),
            baseline=baseline,
        )
    )


UNPAIRED_PRESETS = (
    Preset(
        name="kto",
        says="prospect theory on answers judged one by one: gains and losses from what answers to other prompts gain",
        source="Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7",
        formula="good: lD sigmoid(-(s - z)), bad: lU sigmoid(s - z),  z = max(0, mean s of other prompts' answers)",
        options=_JUDGED,
        parts=lambda o: _judged(o, ANCHORED_UP, MeanOfMismatched()),
        departures=(
            "The other prompt's answer of a row is drawn once, by its place among the rows, and is the same in every "
            "epoch, on every rank and in a resumed run; the paper and TRL shift the answers of each batch by one.",
            "z is the mean over everything a step sees, weighted as rows are; TRL takes the mean of a micro-batch.",
            _ONCE,
        ),
    ),
    Preset(
        name="apo_zero_unpaired",
        says="good answers above the reference, bad ones below it: kto without a baseline",
        source="D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7, unpaired as TRL has it",
        formula="good: lD sigmoid(-s), bad: lU sigmoid(s)",
        options=_JUDGED,
        parts=lambda o: _judged(o, ANCHORED_UP, Zero()),
        departures=(_ONCE,),
    ),
    Preset(
        name="bco_unpaired",
        says="is this answer good, yes or no: bco on answers judged one by one",
        source="Jung et al. 2024, arXiv:2404.04656",
        formula="good: -lD log sigmoid(s - delta), bad: -lU log sigmoid(-(s - delta)),  delta = mean of all s seen",
        options=_JUDGED,
        parts=lambda o: _judged(o, BINARY, MeanSeen()),
        departures=(
            "delta is the mean over the steps before; TRL's former BCOTrainer counted the current batch in as well.",
            "The weights of bad answers by the density of their prompts (UDM) want an embedding model, which is not "
            "here: write them into the rows as weight; the loss is then divided by the sum of weights.",
            _ONCE,
        ),
    ),
)
