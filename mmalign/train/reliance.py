"""Image reliance: by how much good answers become less likely when the media of their rows are made blank.

    reliance = mean over rows of (S(best | media) - S(best | blank media)) / tokens of the best response

in nats per token, on the first held-out rows that have media. A model that answers without looking has 0; one that
reads the answer off the picture has much. Blank media have the size and the mean colour of the row's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import torch

from mmalign.engine.tokenise import PromptTree, Tokeniser
from mmalign.engine.views import View, contrasted
from mmalign.formats.preference import Preference
from mmalign.objectives.metrics import Ratio
from mmalign.train.groups import groups_of
from mmalign.train.loader import BatchReader, KeptTrees, load_ahead
from mmalign.train.metrics import Totals
from mmalign.train.rows import COLUMNS
from mmalign.train.sampler import StepSampler
from mmalign.train.step import Learner

METRIC = "eval_image_reliance"
MOST_ROWS = 64
"""Enough for a mean that says whether a model looks, and little beside an evaluation."""

_BLANK = contrasted("blank")


@dataclass(frozen=True, kw_only=True)
class Looking:
    """Held-out rows with media, as they are and blank.

    Args:
        reader: opens them with their best response alone.
        sampler: cuts and deals them.
        rows: their numbers among all held-out rows.
    """

    reader: BatchReader
    sampler: StepSampler
    rows: tuple[int, ...]


def looking(reader: BatchReader, sampler: StepSampler, tokeniser: Tokeniser, *, keep_bytes: int) -> Looking | None:
    """Return the rows that are looked at, None where no held-out row has media.

    Args:
        reader, sampler: of all held-out rows.
        tokeniser: of the held-out rows.
        keep_bytes: memory in which they may stay from one evaluation to the next.
    """
    has_media = reader.rows.lengths[:, 0, COLUMNS.index("media_tokens")] > 0
    rows = tuple(has_media.nonzero()[0][:MOST_ROWS].tolist())
    if not rows:
        return None
    reader = replace(
        reader,
        tokenise=partial(_best_alone, tokeniser),
        responses_read=_first,
        views=(_BLANK,),
        read_in=_first_in,
        answers=None,
        kept=KeptTrees(keep_bytes),
    )
    return Looking(reader=reader, sampler=replace(sampler, lengths=[sampler.lengths[row] for row in rows]), rows=rows)


@torch.no_grad()
def image_reliance(learner: Learner, seen: Looking, *, num_workers: int) -> dict[str, float]:
    """Return the policy's image reliance under its name; nothing when no row could be loaded. All ranks call it."""
    rank = learner.accelerator.process_index
    plan = (
        tuple(seen.rows[place] for place in places)
        for step in range(seen.sampler.steps_per_epoch)
        for places in seen.sampler.micro_batches(step, rank)
    )
    totals = Totals()
    learner.policy.eval()
    with closing(load_ahead(seen.reader, plan, num_workers)) as batches:
        for loaded in batches:
            batch = loaded.batch.to(learner.accelerator.device)
            with learner.vision.batch(batch):
                logps = groups_of(learner.policy(batch), batch)
            drop = (logps.means() - logps.views[_BLANK.name].means())[:, 0]
            ratio = Ratio(drop.sum(), drop.new_tensor(float(len(drop))))
            totals.add({METRIC: ratio}, counted=not loaded.is_filler)
    learner.policy.train()
    means, _ = totals.reduce(learner.accelerator, [0.0])
    return means


def _best_alone(tokeniser: Tokeniser, preference: Preference, views: Sequence[View]) -> Sequence[PromptTree]:
    """Tokenise a row with its best response only, which is seen under the media of the row."""
    best = replace(preference.responses[0], media=None)
    return tokeniser.trees(replace(preference, responses=(best,), ties=()), views)


def _first(levels: Sequence[int]) -> Sequence[int]:
    return (0,)


def _first_in(view: View, levels: Sequence[int]) -> Sequence[int]:
    return (0,)
