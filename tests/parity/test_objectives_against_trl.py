"""Losses and logged rewards against TRL's own code, fed the same log-probs.

TRL computes losses inside trainer methods. They run here unbound, on an object that has just what they read, with a
model that returns our synthetic log-probs.
"""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from objectives.batches import random_batch, step_loss

from mmalign.objectives.compose import build

trl = pytest.importorskip("trl", reason="parity needs trl (pip install 'mmalign[bench]')")

ACCELERATOR = SimpleNamespace(
    device=torch.device("cpu"), gather=lambda value: value, gather_for_metrics=lambda value: value
)


def _rows(logps):
    """Return [2B, T], chosen first, as TRL concatenates them, with zeros where there is no token."""
    return torch.cat([logps.token_logps[:, 0], logps.token_logps[:, 1]]).nan_to_num(0.0)


def _trl_dpo(policy, reference, loss_types, loss_weights=None, label_smoothing=0.0, beta=0.1):
    """Return loss and metrics of `DPOTrainer._compute_loss`."""
    log_probs = _rows(policy)
    reference_sums = reference.sums()
    nothing = torch.zeros_like(log_probs)
    outputs = SimpleNamespace(log_probs=log_probs, entropy=nothing, is_top1=nothing.bool(), mean_logits=nothing)
    completion_mask = torch.cat([policy.mask[:, 0], policy.mask[:, 1]]).long()
    completion_mask = torch.cat([torch.zeros_like(completion_mask[:, :1]), completion_mask], 1)
    inputs = {
        "input_ids": completion_mask,
        "attention_mask": completion_mask,
        "completion_mask": completion_mask,
        "ref_chosen_logps": reference_sums[:, 0],
        "ref_rejected_logps": reference_sums[:, 1],
    }
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=ACCELERATOR,
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        beta=beta,
        label_smoothing=label_smoothing,
        loss_types=loss_types,
        loss_weights=loss_weights or [1.0] * len(loss_types),
        use_weighting=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    loss = trl.DPOTrainer._compute_loss(trainer, lambda **_: outputs, inputs, return_outputs=False)
    return loss, {name: values[-1] for name, values in trainer._metrics["train"].items()}


def _require_same(spec, policy, reference, facts, loss, metrics):
    objective = build(spec)
    torch.testing.assert_close(step_loss(objective, policy, reference, facts), loss, rtol=1e-10, atol=1e-12)
    ours = objective(policy, reference, facts).metrics
    for name in ("chosen", "rejected", "accuracies", "margins"):
        total, count = ours[f"rewards/{name}"]
        assert (total / count).item() == pytest.approx(float(metrics[f"rewards/{name}"]), rel=1e-6), name
    for side in ("chosen", "rejected"):
        total, count = ours[f"logps/{side}"]
        if f"logps/{side}" in metrics:
            assert (total / count).item() == pytest.approx(float(metrics[f"logps/{side}"]), rel=1e-6), side


DPO_CASES = [
    ([{"name": "dpo", "beta": 0.3}], {"loss_types": ["sigmoid"], "beta": 0.3}),
    ([{"name": "ipo", "beta": 0.3}], {"loss_types": ["ipo"], "beta": 0.3}),
    ([{"name": "hinge", "beta": 0.3}], {"loss_types": ["hinge"], "beta": 0.3}),
    (
        [{"name": "robust", "beta": 0.3, "label_smoothing": 0.2}],
        {"loss_types": ["robust"], "beta": 0.3, "label_smoothing": 0.2},
    ),
    (
        [{"name": "dpo"}, {"name": "sft", "weight": 0.4}, {"name": "hinge", "weight": 2.0}],
        {"loss_types": ["sigmoid", "sft", "hinge"], "loss_weights": [1.0, 0.4, 2.0]},
    ),
]


@pytest.mark.parametrize(("spec", "options"), DPO_CASES, ids=lambda value: str(value))
def test_reference_based_losses_agree_with_dpo_trainer(spec, options):
    policy, reference, facts = random_batch(groups=13)
    loss, metrics = _trl_dpo(policy, reference, **options)
    _require_same(spec, policy, reference, facts, loss, metrics)


def test_cdpo_agrees_with_the_smoothed_loss_of_cpo_trainer_against_a_reference_of_zeros():
    """DPOTrainer ignores label_smoothing for its sigmoid; CPOTrainer has the same expression, on log-probs."""
    trainer_class = pytest.importorskip("trl.experimental.cpo", reason="this trl has no CPO").CPOTrainer
    policy, reference, facts = random_batch(groups=13)
    ratio = policy.sums() - reference.sums()
    trainer = _cpo_like(beta=0.3, loss_type="sigmoid", label_smoothing=0.2)
    losses, *_ = trainer_class.cpo_loss(trainer, ratio[:, 0], ratio[:, 1])
    ours = step_loss(build([{"name": "cdpo", "beta": 0.3, "label_smoothing": 0.2}]), policy, reference, facts)
    torch.testing.assert_close(ours, losses.mean(), rtol=1e-10, atol=1e-12)


def _cpo_like(**options):
    return SimpleNamespace(
        accelerator=ACCELERATOR, alpha=0.0, simpo_gamma=0.5, cpo_alpha=1.0, aux_loss_enabled=False, **options
    )


def _batch_loss(trainer_class, trainer, loss_method, scores, policy):
    """Run `get_batch_loss_metrics` with our log-probs in place of a forward, and TRL's own loss."""
    likelihood = -policy.token_logps[:, 0][policy.mask[:, 0]].mean()
    nothing = torch.zeros(1)
    trainer.concatenated_forward = lambda *_: (scores[:, 0], scores[:, 1], nothing, nothing, likelihood)
    setattr(trainer, loss_method, lambda *logps: getattr(trainer_class, loss_method)(trainer, *logps))
    return trainer_class.get_batch_loss_metrics(trainer, None, {})


def test_cpo_and_simpo_agree_with_cpo_trainer():
    trainer_class = pytest.importorskip("trl.experimental.cpo", reason="this trl has no CPO").CPOTrainer
    policy, _, facts = random_batch(groups=13)
    cpo = _cpo_like(beta=0.3, loss_type="sigmoid", label_smoothing=0.0)
    loss, metrics = _batch_loss(trainer_class, cpo, "cpo_loss", policy.sums(), policy)
    _require_same([{"name": "cpo", "beta": 0.3}], policy, None, facts, loss, metrics)

    simpo = _cpo_like(beta=2.0, loss_type="simpo", label_smoothing=0.0)
    simpo.cpo_alpha = 0.0
    loss, metrics = _batch_loss(trainer_class, simpo, "cpo_loss", policy.means(), policy)
    del metrics["logps/chosen"], metrics["logps/rejected"]  # TRL logs means there, we log sums for every objective
    _require_same([{"name": "simpo", "beta": 2.0, "gamma": 0.5}], policy, None, facts, loss, metrics)


def test_orpo_agrees_with_orpo_trainer():
    trainer_class = pytest.importorskip("trl.experimental.orpo", reason="this trl has no ORPO").ORPOTrainer
    policy, _, facts = random_batch(groups=13, dtype=torch.float32)  # TRL casts to fp32
    trainer = SimpleNamespace(accelerator=ACCELERATOR, beta=0.3, aux_loss_enabled=False)
    loss, metrics = _batch_loss(trainer_class, trainer, "odds_ratio_loss", policy.means(), policy)
    objective = build([{"name": "orpo", "beta": 0.3}])
    torch.testing.assert_close(step_loss(objective, policy, None, facts), loss, rtol=1e-5, atol=1e-6)
    total, count = objective(policy, None, facts).metrics["rewards/margins"]
    assert (total / count).item() == pytest.approx(metrics["rewards/margins"], rel=1e-5)
