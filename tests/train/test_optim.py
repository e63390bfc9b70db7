"""The optimiser's groups and the schedule as a function of the step."""

import pytest
import torch
from torch import nn

from mmalign.config.schema import TrainConfig
from mmalign.errors import ModelError
from mmalign.train.optim import build_optimizer, build_schedule, fill_gradients, set_learning_rate, warmup_steps


def config(**changes) -> TrainConfig:
    return TrainConfig(**{"output_dir": "runs/x", "learning_rate": 0.5, **changes})


def test_matrices_decay_and_vectors_do_not():
    model = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5))
    optimizer = build_optimizer(model, config(weight_decay=0.1))
    decayed, others = optimizer.param_groups
    assert decayed["weight_decay"] == 0.1 and [p.shape for p in decayed["params"]] == [(5, 3)]
    assert others["weight_decay"] == 0.0 and [p.shape for p in others["params"]] == [(5,)] * 3


def test_frozen_weights_are_left_out():
    model = nn.Sequential(nn.Linear(3, 5, bias=False), nn.Linear(5, 7, bias=False))
    model[0].requires_grad_(False)
    (group,) = build_optimizer(model, config()).param_groups
    assert [p.shape for p in group["params"]] == [(7, 5)]


def test_a_model_with_nothing_to_train_is_refused():
    with pytest.raises(ModelError, match="no weight of the model is trained"):
        build_optimizer(nn.Linear(3, 5).requires_grad_(False), config())


def test_linear_schedule_rises_over_the_warmup_and_falls_to_zero():
    rate = build_schedule(config(warmup_steps=2), total_steps=6)
    assert [rate(step) for step in range(7)] == [0.0, 0.25, 0.5, 0.375, 0.25, 0.125, 0.0]


@pytest.mark.parametrize(("name", "expected"), [("constant", 0.5), ("constant_with_warmup", 0.5), ("cosine", 0.25)])
def test_schedules_in_the_middle_of_a_run(name, expected):
    assert build_schedule(config(lr_scheduler_type=name), total_steps=8)(4) == pytest.approx(expected)


def test_warmup_ratio_is_a_share_of_all_steps_rounded_up():
    assert warmup_steps(config(warmup_ratio=0.1), total_steps=11) == 2
    assert warmup_steps(config(), total_steps=11) == 0


def test_every_group_gets_the_learning_rate():
    optimizer = build_optimizer(nn.Linear(3, 5), config(weight_decay=0.1))
    set_learning_rate(optimizer, 0.125)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.125]


def test_one_step_of_adamw_moves_each_weight_by_the_learning_rate_against_its_gradient():
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -1.0]]))
    optimizer = build_optimizer(layer, config(learning_rate=0.01))
    layer.weight.grad = torch.tensor([[3.0, -7.0]])
    optimizer.step()
    assert torch.allclose(layer.weight, torch.tensor([[0.99, -0.99]]))


def test_momentum_goes_on_where_no_row_of_a_step_reached_a_weight():
    """By hand for the second step: m = 0.9 x 0.1 g and v = 0.999 x 0.001 g^2, corrected for two steps."""
    reached, passed_by = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    weights = nn.ModuleList([reached, passed_by])
    optimizer = build_optimizer(weights, config(adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-12))
    (3 * reached.weight + 3 * passed_by.weight).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    before = passed_by.weight.item()
    (3 * reached.weight).sum().backward()
    fill_gradients(optimizer)
    assert (reached.weight.grad.item(), passed_by.weight.grad.item()) == (3, 0)
    optimizer.step()
    assert before - passed_by.weight.item() == pytest.approx(0.5 * (0.09 / 0.19) / (0.000999 / 0.001999) ** 0.5)
