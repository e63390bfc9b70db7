"""KTO and unpaired APO against TRL's own code, fed the same log-probs: loss, gradient, and what is logged.

TRL's KTOTrainer scores the answers and, in a second forward, the answers shifted by one row. Its loss method runs here
unbound, with a model that returns our synthetic log-probs for either.
"""

from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from objectives.batches import facts_of, random_batch, step_loss, with_logps

from mmalign.engine.logps import GroupLogps
from mmalign.objectives.compose import build

trl = pytest.importorskip("trl", reason="parity needs trl (pip install 'mmalign[bench]')")

LABELS = [True, False, False, True, True, False, True]
ACCELERATOR = SimpleNamespace(
    device=torch.device("cpu"), gather=lambda value: value, gather_for_metrics=lambda value: value
)


class _NoModel(torch.nn.Module):
    """What TRL asks about the model beside calling it."""

    is_gradient_checkpointing = False


def batch():
    """Return log-probs of seven answers, each with an answer to another prompt behind it, and their facts."""
    policy, reference, _ = random_batch(groups=len(LABELS))
    policy, reference = (GroupLogps(logps.token_logps, logps.mask) for logps in (policy, reference))
    facts = facts_of([(0 if label else 1, -1) for label in LABELS])
    mask = facts.response_mask & (facts.levels >= 0)
    return policy, reference, replace(facts, response_mask=mask)


def _model(logps):
    """Return what answers as a model of TRL: with the log-probs of the answers, or of those to other prompts."""

    def call(input_ids=None, **_):
        column = 0 if input_ids is _IDS[0] else 1
        rows = logps.token_logps[:, column].nan_to_num(0.0)
        nothing = torch.zeros_like(rows)
        return SimpleNamespace(log_probs=rows, entropy=nothing, mean_logits=nothing)

    return call


_IDS: list[torch.Tensor] = []


def _trl_kto(policy, reference, loss_type, **options):
    masks = [torch.cat([torch.zeros_like(m[:, :1]), m], 1).long() for m in policy.mask.unbind(1)]
    _IDS[:] = [mask.clone() for mask in masks]
    inputs = {"label": torch.tensor(LABELS)}
    for prefix, ids, mask in zip(("", "KL_"), _IDS, masks, strict=True):
        inputs |= {f"{prefix}input_ids": ids, f"{prefix}attention_mask": mask, f"{prefix}completion_mask": mask}
    trainer = SimpleNamespace(
        model=_NoModel(), ref_model=_model(reference), accelerator=ACCELERATOR,
        calculate_KL=loss_type == "kto", loss_type=loss_type, precompute_ref_logps=False, aux_loss_enabled=False,
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)}, _total_train_tokens=0, _tp_size=1,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None), **options,
    )  # fmt: skip
    trainer._compute_kl_logps = lambda model, inputs: trl.KTOTrainer._compute_kl_logps(trainer, model, inputs)
    loss = trl.KTOTrainer._compute_loss(trainer, _model(policy), inputs, return_outputs=False)
    metrics = trainer._metrics["train"] or trainer._metrics["eval"]
    return loss, {name: values[-1] for name, values in metrics.items()}


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.33, 0.75)], ids=["even", "uneven"])
@pytest.mark.parametrize("name", ["kto", "apo_zero_unpaired"])
def test_loss_gradient_and_rewards_agree_with_kto_trainer(name, weights):
    options = {"beta": 0.3, "desirable_weight": weights[0], "undesirable_weight": weights[1]}
    policy, reference, facts = batch()
    starts = [policy.token_logps.clone().requires_grad_(True) for _ in range(2)]
    loss, metrics = _trl_kto(with_logps(policy, starts[0]), reference, name, **options)
    loss.backward()
    objective = build([{"name": name, **options}])
    ours = step_loss(objective, with_logps(policy, starts[1]), reference, facts)
    ours.backward()
    torch.testing.assert_close(ours, loss, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(starts[1].grad.nan_to_num(), starts[0].grad.nan_to_num(), rtol=1e-10, atol=1e-13)
    logged = objective(policy, reference, facts).metrics
    for key in ("rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected"):
        total, count = logged[key]
        assert (total / count).item() == pytest.approx(metrics[key], rel=1e-6), key
    if name == "kto":
        total, count = logged["rewards/baseline"]
        assert (total / count).item() == pytest.approx(0.3 * metrics["kl"])
