"""Losses, gradients and logged rewards against TRL's own code, fed the same log-probs.

TRL computes losses inside trainer methods. They run here unbound, on an object that has just what they read, with a
model that returns our synthetic log-probs.
"""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from objectives.batches import random_batch, step_loss, with_logps

from mmalign.objectives.compose import build

trl = pytest.importorskip("trl", reason="parity needs trl (pip install 'mmalign[bench]')")

ACCELERATOR = SimpleNamespace(
    device=torch.device("cpu"), gather=lambda value: value, gather_for_metrics=lambda value: value
)


def _rows(logps, name="token_logps"):
    """Return [2B, T], chosen first, as TRL concatenates them, with zeros where there is no token."""
    values = getattr(logps, name)
    return torch.cat([values[:, 0], values[:, 1]]).nan_to_num(0.0)


def _with_gradient(logps):
    """Return log-probs that collect gradients, and the tensor that does."""
    start = logps.token_logps.clone().requires_grad_(True)
    return with_logps(logps, start), start


class _NoModel(torch.nn.Module):
    """What TRL asks about the model beside calling it."""

    is_gradient_checkpointing = False


def _trl_dpo(policy, reference, loss_types, loss_weights=None, **options):
    """Return loss and metrics of `DPOTrainer._compute_loss`."""
    log_probs, nothing = _rows(policy), torch.zeros_like(_rows(policy))
    seen = {"entropy": nothing, "is_top1": nothing.bool(), "mean_logits": nothing}
    outputs = SimpleNamespace(log_probs=log_probs, log_sum_sq_probs=_rows(policy, "log_purity"), **seen)
    reference_outputs = SimpleNamespace(log_probs=_rows(reference))
    completion_mask = torch.cat([policy.mask[:, 0], policy.mask[:, 1]]).long()
    completion_mask = torch.cat([torch.zeros_like(completion_mask[:, :1]), completion_mask], 1)
    inputs = {
        "input_ids": completion_mask,
        "attention_mask": completion_mask,
        "completion_mask": completion_mask,
    }
    model = lambda **_: outputs  # noqa: E731
    settings = {"beta": 0.1, "label_smoothing": 0.0, "ld_alpha": None, "use_weighting": False, "discopop_tau": 0.05}
    settings |= {"f_divergence_type": "reverse_kl", "f_alpha_divergence_coef": 0.5, **options}
    trainer = SimpleNamespace(
        model=_NoModel(),
        ref_model=lambda **_: reference_outputs,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None, discopop_tau=settings["discopop_tau"]),
        accelerator=ACCELERATOR,
        aux_loss_enabled=False,
        precompute_ref_logps=False,
        loss_types=loss_types,
        loss_weights=loss_weights or [1.0] * len(loss_types),
        **settings,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    loss = trl.DPOTrainer._compute_loss(trainer, model, inputs, return_outputs=False)
    return loss, {name: values[-1] for name, values in trainer._metrics["train"].items()}


def _require_same(spec, policy, reference, facts, loss, metrics, exact=1e-10):
    objective = build(spec)
    torch.testing.assert_close(step_loss(objective, policy, reference, facts), loss, rtol=exact, atol=1e-12)
    ours = objective(policy, reference, facts).metrics
    for name in ("chosen", "rejected", "accuracies", "margins"):
        total, count = ours[f"rewards/{name}"]
        assert (total / count).item() == pytest.approx(float(metrics[f"rewards/{name}"]), rel=1e-6), name
    for side in ("chosen", "rejected"):
        total, count = ours[f"logps/{side}"]
        if f"logps/{side}" in metrics:
            assert (total / count).item() == pytest.approx(float(metrics[f"logps/{side}"]), rel=1e-6), side


MARGINS = ["sigmoid", "hinge", "ipo", "sigmoid_norm", "discopop"]
OTHERS = ["nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "aot", "aot_unpaired"]
# TRL weighs hinge in place, and its backward pass then fails.
WEIGHABLE = ["sigmoid", "ipo", "sigmoid_norm", "discopop", "nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down"]
SMOOTHED = [("robust", 0.2), ("exo_pair", 0.01), ("aot", 0.2), ("aot_unpaired", 0.2)]
# name of the loss and options, the same words in a recipe of ours and in DPOConfig
CASES = [
    *((name, {"beta": 0.3}) for name in MARGINS + OTHERS),
    *((name, {"beta": 0.3, "label_smoothing": e}) for name, e in SMOOTHED),
    *((name, {"beta": 0.3, "ld_alpha": 0.4}) for name in [*MARGINS, *OTHERS]),
    *((name, {"beta": 0.3, "use_weighting": True}) for name in WEIGHABLE),
    *((name, {"beta": 0.3, "f_divergence_type": "forward_kl"}) for name in MARGINS),
    *((name, {"beta": 0.3, "f_divergence_type": "js_divergence"}) for name in MARGINS),
    ("discopop", {"beta": 0.3, "discopop_tau": 0.5}),
    ("exo_pair", {"beta": 0.3, "label_smoothing": 0.01, "f_divergence_type": "js_divergence", "ld_alpha": 0.4}),
]


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_losses_gradients_and_rewards_agree_with_dpo_trainer(name, options):
    policy, reference, facts = random_batch(groups=13)
    theirs, their_start = _with_gradient(policy)
    loss, metrics = _trl_dpo(theirs, reference, [name], **options)
    if "ld_alpha" in options:  # TRL logs log-probs with the tail weighed, we log them whole for every objective
        del metrics["logps/chosen"], metrics["logps/rejected"]
    exact = 1e-6 if name == "exo_pair" else 1e-10  # TRL holds exo's smoothing in fp32
    ours, our_start = _with_gradient(policy)
    _require_same([{"name": name, **options}], ours, reference, facts, loss, metrics, exact)
    step_loss(build([{"name": name, **options}]), ours, reference, facts).backward()
    loss.backward()
    torch.testing.assert_close(
        our_start.grad.nan_to_num(), their_start.grad.nan_to_num(), rtol=exact, atol=1e-3 * exact
    )


@pytest.mark.parametrize("name", [*MARGINS, "robust"])
def test_the_alpha_divergence_agrees_in_fp32_which_is_all_that_trl_has_it_in(name):
    policy, reference, facts = random_batch(groups=13, dtype=torch.float32)
    options = {"beta": 0.3, "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.3}
    smoothing = {"label_smoothing": 0.2} if name == "robust" else {}
    loss, _ = _trl_dpo(policy, reference, [name], **options, **smoothing)
    ours = step_loss(build([{"name": name, **options, **smoothing}]), policy, reference, facts)
    torch.testing.assert_close(ours, loss, rtol=1e-5, atol=1e-6)


MIXTURES = [
    (
        [{"name": "dpo"}, {"name": "sft", "weight": 0.4}, {"name": "hinge", "weight": 2.0}],
        {"loss_types": ["sigmoid", "sft", "hinge"], "loss_weights": [1.0, 0.4, 2.0]},
    ),
    (
        [{"name": "mpo", "beta": 0.3}],
        {"loss_types": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0], "beta": 0.3},
    ),
    (
        [{"name": "rpo", "rpo_alpha": 0.7, "normalise": "token"}],
        {"loss_types": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]},
    ),
]


@pytest.mark.parametrize(("spec", "options"), MIXTURES, ids=lambda value: str(value))
def test_mixtures_agree_with_several_loss_types(spec, options):
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


@pytest.mark.parametrize(("alpha", "smoothing", "likelihood"), [(0.25, 0.0, 0.0), (-0.5, 0.0, 0.0), (0.0, 0.2, 0.3)])
def test_alphapo_and_cpo_simpo_agree_with_cpo_trainer(alpha, smoothing, likelihood):
    trainer_class = pytest.importorskip("trl.experimental.cpo", reason="this trl has no CPO").CPOTrainer
    policy, _, facts = random_batch(groups=13)
    trainer = _cpo_like(beta=2.0, loss_type="simpo", label_smoothing=smoothing)
    trainer.alpha, trainer.cpo_alpha = alpha, likelihood
    loss, metrics = _batch_loss(trainer_class, trainer, "cpo_loss", policy.means(), policy)
    own = {"name": "cpo_simpo", "cpo_alpha": likelihood} if likelihood else {"name": "alphapo", "alpha": alpha}
    spec = [{**own, "beta": 2.0, "simpo_gamma": 0.5, "label_smoothing": smoothing}]
    torch.testing.assert_close(step_loss(build(spec), policy, None, facts), loss, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("loss_type", ["sigmoid", "tpo-l"])
def test_tpo_agrees_with_tpo_trainer(loss_type):
    """TRL has the gold answer in a column of its own, we have it first in the list."""
    trainer_class = pytest.importorskip("trl.experimental.tpo", reason="this trl has no TPO").TPOTrainer
    policy, _, facts = random_batch(groups=7, responses=3)
    order = [1, 2, 0]
    options = {"beta": 0.5, "label_smoothing": 0.2, "tpo_alpha": 0.7, "tpo_l_gamma": 0.3}
    logits, targets, mask = _as_logits(
        torch.cat([policy.token_logps[:, k] for k in order]).nan_to_num(0.0),
        torch.cat([policy.mask[:, k] for k in order]),
    )
    trainer = SimpleNamespace(
        model=_NoModel(), accelerator=ACCELERATOR, loss_type=loss_type, aux_loss_enabled=False,
        _metrics={"train": defaultdict(list)}, _total_train_tokens=0, _tp_size=1, **options,
    )  # fmt: skip
    inputs = {"input_ids": targets, "attention_mask": mask, "completion_mask": mask}
    outputs = SimpleNamespace(logits=logits)
    loss = trainer_class._compute_loss(trainer, lambda **_: outputs, inputs, return_outputs=False)
    read = {"tpo_alpha", "beta", "label_smoothing"} | ({"tpo_l_gamma"} if loss_type == "tpo-l" else set())
    name = "tpo" if loss_type == "sigmoid" else loss_type
    spec = [{"name": name, **{key: value for key, value in options.items() if key in read}}]
    torch.testing.assert_close(step_loss(build(spec), policy, None, facts), loss, rtol=1e-6, atol=1e-9)


def _as_logits(logps, mask):
    """Return logits over two tokens under which token 1 has these log-probs, ids, and the mask behind a prompt of 1."""
    ours = logps.clamp(max=-1e-6)
    logits = torch.stack([torch.log(-torch.expm1(ours)), ours], -1)
    logits = torch.cat([logits, torch.zeros_like(logits[:, :1])], 1)
    ids = torch.ones(logits.shape[:2], dtype=torch.int64)
    return logits, ids, torch.cat([torch.zeros_like(mask[:, :1]), mask], 1).long()


def test_orpo_agrees_with_orpo_trainer():
    trainer_class = pytest.importorskip("trl.experimental.orpo", reason="this trl has no ORPO").ORPOTrainer
    policy, _, facts = random_batch(groups=13, dtype=torch.float32)  # TRL casts to fp32
    trainer = SimpleNamespace(accelerator=ACCELERATOR, beta=0.3, aux_loss_enabled=False)
    loss, metrics = _batch_loss(trainer_class, trainer, "odds_ratio_loss", policy.means(), policy)
    objective = build([{"name": "orpo", "beta": 0.3}])
    torch.testing.assert_close(step_loss(objective, policy, None, facts), loss, rtol=1e-5, atol=1e-6)
    total, count = objective(policy, None, facts).metrics["rewards/margins"]
    assert (total / count).item() == pytest.approx(metrics["rewards/margins"], rel=1e-5)
