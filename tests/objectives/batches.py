"""Synthetic log-probs for objectives: groups of responses with prime lengths and nothing readable under the mask."""

from __future__ import annotations

from dataclasses import replace
from math import log

import torch

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.comparison import GroupFacts
from mmalign.objectives.compose import build
from mmalign.objectives.presets import PRESETS
from mmalign.train.survey import told

VIEWS = tuple(dict.fromkeys(view.name for name in PRESETS for view in build([{"name": name}]).views))
"""Every view that a preset reads."""


def logps_of(sums_and_lengths, *, dtype=torch.float64) -> GroupLogps:
    """Return log-probs whose sums are given: [[(sum, length), ...], ...], spread evenly over the tokens.

    Every prediction is as sharp as one that is certain (log purity 0).
    """
    longest = max(length for group in sums_and_lengths for _, length in group)
    responses = max(len(group) for group in sums_and_lengths)
    token_logps = torch.full((len(sums_and_lengths), responses, longest), torch.nan, dtype=dtype)
    mask = torch.zeros(token_logps.shape, dtype=torch.bool)
    for b, group in enumerate(sums_and_lengths):
        for k, (total, length) in enumerate(group):
            token_logps[b, k, :length] = total / length
            mask[b, k, :length] = True
    tokens = torch.arange(mask.numel()).reshape(mask.shape)
    purity = torch.where(mask, 0.0, torch.nan).to(dtype)
    return GroupLogps(token_logps, mask, tokens=tokens, log_purity=purity, dense=unmoved(mask, dtype))


def unmoved(mask, dtype):
    """Return numbers per token of a policy that is its reference and its teacher, and rewards of 0; three outcomes."""
    nothing = torch.where(mask, 0.0, torch.nan).to(dtype)
    even = torch.where(mask[..., None], -log(3), torch.nan).to(dtype).expand(*mask.shape, 3)
    return {
        "reference_kl": nothing,
        "token_reward": nothing,
        "gained_logps": nothing,
        "student_logps": even,
        "teacher_logps": even,
        "contrast_logps": even,
    }


def with_logps(logps, token_logps):
    """Return `logps` with other values, which may collect gradients."""
    return replace(logps, token_logps=token_logps)


def with_views(logps, seen):
    """Return `logps` of groups that have the log-probs `seen` in every view."""
    return replace(logps, views=dict.fromkeys(VIEWS, seen))


def facts_of(levels, *, weight=None, scores=None, dtype=torch.float64) -> GroupFacts:
    """Return the facts of groups with these levels; shorter groups miss their last responses."""
    responses = max(len(group) for group in levels)
    padded = torch.tensor([list(group) + [-7] * (responses - len(group)) for group in levels])
    exists = torch.tensor([[k < len(group) for k in range(responses)] for group in levels])
    weights = torch.ones(len(levels), dtype=dtype) if weight is None else torch.tensor(weight, dtype=dtype)
    return GroupFacts(
        levels=padded,
        weight=weights,
        margin=torch.full((len(levels),), torch.nan, dtype=dtype),
        response_mask=exists,
        scores=torch.full(padded.shape, torch.nan, dtype=dtype) if scores is None else padded_scores(scores, dtype),
        seed=torch.arange(101, 101 + len(levels)),
        annotator=torch.zeros(len(levels), dtype=torch.int64),
        numbers=numbers_of(padded.shape, dtype),
    )


NUMBERS = {
    "logp/other": lambda share: -3 * share - 0.5,
    "tokens/other": lambda share: 1 + (5 * share).floor(),
    "win_rate": lambda share: share,
    "strength": lambda share: 3 * share,
    "from_reference": lambda share: (share > 0.5).to(share),
    "judge": lambda share: 2 * share - 1,
}
"""Every number that a preset reads by default, from a share between 0 and 1."""


def numbers_of(shape, dtype=torch.float64):
    """Return a value of every number for every response; the same for the same place, whatever the shape."""
    groups, responses = shape
    place = 7 * torch.arange(groups)[:, None] + 3 * torch.arange(responses)
    shares = [((place + 5 * shift) % 17 + 0.5).to(dtype) / 17 for shift in range(len(NUMBERS))]
    return {name: make(share) for (name, make), share in zip(NUMBERS.items(), shares, strict=True)}


def padded_scores(scores, dtype=torch.float64):
    """Return [[3.0, 1.0], [2.0]] as a tensor, nan where there is no response."""
    most = max(len(group) for group in scores)
    return torch.tensor([list(group) + [torch.nan] * (most - len(group)) for group in scores], dtype=dtype)


def random_batch(seed=0, *, groups=5, responses=2, longest=11, dtype=torch.float64):
    """Return policy, reference, facts of strictly ranked groups with random log-probs and lengths 1 to `longest`."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (groups, responses), generator=generator)
    mask = torch.arange(longest) < lengths[..., None]

    tokens = torch.randint(0, 3, mask.shape, generator=torch.Generator().manual_seed(seed))

    def draw() -> GroupLogps:
        logps = -torch.rand((groups, responses, longest), generator=generator, dtype=dtype) * 3 - 0.05
        purity = -torch.rand(logps.shape, generator=generator, dtype=dtype) - 0.02
        logps, purity = (values.masked_fill(~mask, torch.nan) for values in (logps, purity))
        return GroupLogps(logps, mask, None, tokens, purity, random_dense(mask, seed, dtype))

    scores = [[float(2 * responses - 2 * k) for k in range(responses)]] * groups
    policy, reference = draw(), draw()
    policy, reference = (replace(one, views={name: draw() for name in VIEWS}) for one in (policy, reference))
    return policy, reference, facts_of([range(responses)] * groups, scores=scores, dtype=dtype)


def random_dense(mask, seed, dtype):
    """Return numbers per token: divergences above 0, rewards, and distributions over four outcomes."""
    generator = torch.Generator().manual_seed(1000 + seed)
    dense = {
        name: torch.rand(mask.shape, generator=generator, dtype=dtype) for name in ("reference_kl", "token_reward")
    }
    dense["gained_logps"] = -torch.rand(mask.shape, generator=generator, dtype=dtype)
    for name in ("student_logps", "teacher_logps", "contrast_logps"):
        dense[name] = torch.randn(*mask.shape, 4, generator=generator, dtype=dtype).log_softmax(-1)
    return {
        name: values.masked_fill(~mask.view(*mask.shape, *[1] * (values.dim() - 3)), torch.nan)
        for name, values in dense.items()
    }


def step_loss(objective, policy, reference, facts):
    """Return the loss of a step that consists of this one batch."""
    totals = {name: counts.sum() for name, counts in objective.counts(facts, policy.lengths()).items()}
    return objective(policy, reference, facts).loss(totals)


def select(logps, groups):
    """Return the log-probs of some groups."""
    return logps.mapped(lambda value: value[groups])


def select_facts(facts, groups):
    """Return the facts of some groups."""
    return facts.select(groups)


def swapped(logps):
    """Return the log-probs with the order of responses turned round."""
    return logps.mapped(lambda value: value.flip(1))


def cut_loss(objective, policy, reference, facts, cuts):
    """Return the loss of a step whose groups come in micro-batches, told about each other as `train/step.py` does."""
    lengths = policy.lengths()
    totals = {name: counts.sum() for name, counts in objective.counts(facts, lengths).items()}
    batches = [(select(policy, cut), select(reference, cut), select_facts(facts, cut)) for cut in cuts]
    surveys = [objective.survey(*batch) for batch in batches]
    together = {name: torch.cat([survey[name] for survey in surveys]) for name in surveys[0]}
    starts, loss = dict.fromkeys(together, 0), 0.0
    for batch, survey in zip(batches, surveys, strict=True):
        loss = loss + objective(*batch, told(objective.first_memory(), together, starts)).loss(totals)
        starts = {name: start + len(survey[name]) for name, start in starts.items()}
    return loss
