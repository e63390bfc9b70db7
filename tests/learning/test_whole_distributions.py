"""What objectives on whole distributions claim in kind, on tables of logits: contexts by tokens, the truth known."""

from math import inf

import pytest
import torch

from mmalign.engine.distributions import Distributions, chosen_logps, kl_from, most_probable
from mmalign.engine.logps import GroupLogps
from mmalign.objectives.comparison import GroupFacts
from mmalign.objectives.compose import build

ROWS, TOKENS, VOCABULARY, STEPS, KEPT = 40, 6, 30, 120, 8


def drawn(seed):
    """Return logits [rows, 2, tokens, vocabulary] of a start, and the tokens of two responses of each row."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(ROWS, 2, TOKENS, VOCABULARY, generator=generator)
    return start, torch.randint(0, VOCABULARY, (ROWS, 2, TOKENS), generator=generator), generator


FACTS = GroupFacts(
    levels=torch.tensor([[0, 1]]).expand(ROWS, 2),
    weight=torch.ones(ROWS),
    margin=torch.ones(ROWS),
    response_mask=torch.ones(ROWS, 2, dtype=torch.bool),
    scores=torch.full((ROWS, 2), torch.nan),
    seed=torch.arange(ROWS),
    annotator=torch.zeros(ROWS, dtype=torch.int64),
)


def logps_of(logits, tokens, **dense):
    logps = logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
    return GroupLogps(logps, torch.ones_like(tokens, dtype=torch.bool), tokens=tokens, dense=dense)


def flat(logits):
    return Distributions(logits.reshape(-1, VOCABULARY), None)


def divergence(start, logits):
    return kl_from(flat(start), flat(logits)).view(ROWS, 2, TOKENS)


def trained(spec, logits, tokens, reference, dense, *, up_to=inf):
    """Return the logits that training reaches in its steps, or when the mean margin of rewards is `up_to`; and that."""
    objective, moved = build([spec]), logits.clone().requires_grad_()
    optimizer = torch.optim.Adam([moved], lr=0.02)
    for _ in range(STEPS):
        policy = logps_of(moved, tokens, **dense(moved))
        totals = {name: counts.sum() for name, counts in objective.counts(FACTS, policy.lengths()).items()}
        output = objective(policy, reference, FACTS)
        margin = None if output.rewards is None else output.rewards.diff(dim=1).neg().mean().item()
        if margin is not None and margin >= up_to:
            break
        output.loss(totals).backward()
        optimizer.step()
        optimizer.zero_grad()
    return moved.detach(), margin


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tdpo_keeps_whole_predictions_on_the_worse_response_nearer_to_the_reference_than_dpo(seed):
    start, tokens, _ = drawn(seed)
    reference = logps_of(start, tokens)
    found = {}
    for name in ("dpo", "tdpo1", "tdpo2"):
        moved, margin = trained(
            {"name": name, "beta": 0.1},
            start,
            tokens,
            reference,
            lambda now: {"reference_kl": divergence(start, now)},
            up_to=1.0,
        )
        found[name] = divergence(start, moved)[:, 1].sum(-1).mean().item(), margin
    for name in ("tdpo1", "tdpo2"):
        assert found[name][1] == pytest.approx(found["dpo"][1], rel=0.05), found
        assert found[name][0] < found["dpo"][0], found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_dckd_reaches_a_teacher_of_which_a_quarter_of_the_vocabulary_is_kept(seed):
    start, tokens, generator = drawn(seed)
    teacher = 2 * torch.randn(start.shape, generator=generator)
    ids = most_probable(flat(teacher), KEPT, VOCABULARY)
    kept = chosen_logps(flat(teacher), ids).view(ROWS, 2, TOKENS, KEPT + 1)

    def dense(now):
        return {"teacher_logps": kept, "student_logps": chosen_logps(flat(now), ids).view(kept.shape)}

    moved, _ = trained({"name": "dckd", "sft_weight": 0.0}, start, tokens, None, dense)
    before, after = (divergence(teacher, logits).mean().item() for logits in (start, moved))
    assert after < 0.25 * before, (before, after)
