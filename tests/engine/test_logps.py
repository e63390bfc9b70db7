"""Response log-probs: by hand, against log_softmax, in float64, and in memory."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmalign.engine import logps, tiles
from mmalign.engine.logps import GroupLogps, response_log_purity, response_logps

N, V, D = 13, 29, 7


def plain_logps(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, softcap: float | None) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight, bias)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits.log_softmax(-1).gather(1, targets[:, None]).squeeze(1)


def inputs(dtype=torch.float32, count=N, with_bias=True, frozen_head=False):
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(count, D, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(V, D, generator=generator).to(dtype).requires_grad_(not frozen_head)
    bias = torch.randn(V, generator=generator).to(dtype).requires_grad_(not frozen_head) if with_bias else None
    return hidden, weight, bias, torch.randint(0, V, (count,), generator=generator)


@pytest.fixture(params=["few tokens", "one tile", "many tiles"])
def tiling(request, monkeypatch):
    if request.param != "few tokens":
        monkeypatch.setattr(logps, "KEPT_LOGITS_BYTES", 0)
    if request.param == "many tiles":
        monkeypatch.setattr(tiles, "TOKENS_PER_TILE", 5)
        monkeypatch.setattr(tiles, "TILE_BYTES", 4 * 5 * 11)


def test_two_equal_logits_give_ln_half():
    value = response_logps(torch.ones(1, 1), torch.tensor([[3.0], [3.0]]), None, torch.tensor([1]))
    assert value.tolist() == pytest.approx([-math.log(2)])


def test_softcap_bends_logits_before_the_softmax():
    value = response_logps(torch.ones(1, 1), torch.tensor([[8.0], [0.0]]), None, torch.tensor([1]), softcap=2.0)
    assert value.item() == pytest.approx(-math.log1p(math.exp(2 * math.tanh(4))), rel=1e-6)


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("with_bias", [False, True])
def test_purity_is_the_mean_probability_of_a_draw(tiling, with_bias, softcap):
    hidden, weight, bias, _ = inputs(torch.float64, with_bias=with_bias)
    logits = torch.nn.functional.linear(hidden, weight, bias)
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    expected = logits.softmax(-1).square().sum(-1).log()
    purity = response_log_purity(hidden, weight, bias, softcap)
    torch.testing.assert_close(purity, expected, rtol=1e-12, atol=0)
    assert not purity.requires_grad


def test_purity_of_two_equal_logits_is_one_half_and_of_a_certain_one_is_one():
    weight = torch.tensor([[3.0], [3.0], [-90.0]])
    assert response_log_purity(torch.ones(1, 1), weight, None).item() == pytest.approx(-math.log(2))
    assert response_log_purity(-torch.ones(1, 1), weight, None).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("with_bias", [False, True])
def test_values_and_gradients_equal_log_softmax_and_gather(tiling, with_bias, softcap):
    results = []
    for function in (plain_logps, response_logps):
        *tensors, targets = inputs(with_bias=with_bias)
        value = function(*tensors, targets, softcap)
        (value * torch.linspace(-1, 2, N)).sum().backward()
        results.append([value, *(t.grad for t in tensors if t is not None)])
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_gradients_are_exact_in_float64(tiling, softcap):
    hidden, weight, bias, targets = inputs(torch.float64)
    assert torch.autograd.gradcheck(lambda h, w, b: response_logps(h, w, b, targets, softcap), (hidden, weight, bias))


def test_frozen_head_gets_no_gradient_and_hidden_gets_the_same(tiling):
    *trained, targets = inputs()
    *frozen, _ = inputs(frozen_head=True)
    response_logps(*trained, targets).sum().backward()
    response_logps(*frozen, targets).sum().backward()
    assert frozen[1].grad is None
    torch.testing.assert_close(frozen[0].grad, trained[0].grad)


def test_head_alone_can_be_trained(tiling):
    hidden, weight, bias, targets = inputs()
    response_logps(hidden.detach(), weight, bias, targets).sum().backward()
    expected = torch.autograd.grad(plain_logps(hidden, weight, bias, targets, None).sum(), weight)[0]
    torch.testing.assert_close(weight.grad, expected, rtol=1e-5, atol=1e-6)


def test_half_precision_accumulates_in_float32(tiling):
    hidden, weight, bias, targets = inputs(torch.bfloat16)
    value = response_logps(hidden, weight, bias, targets)
    value.sum().backward()
    exact_hidden, exact_weight, exact_bias = (t.detach().float().requires_grad_() for t in (hidden, weight, bias))
    exact = plain_logps(exact_hidden, exact_weight, exact_bias, targets, None)
    exact.sum().backward()
    assert value.dtype == torch.float32 and weight.grad.dtype == torch.bfloat16
    torch.testing.assert_close(value, exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weight.grad, exact_weight.grad.bfloat16())


def test_autocast_rounds_the_operands_only(tiling):
    hidden, weight, bias, targets = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = response_logps(hidden, weight, bias, targets)
    value.sum().backward()
    rounded = plain_logps(hidden.bfloat16().float(), weight.bfloat16().float(), bias.bfloat16().float(), targets, None)
    torch.testing.assert_close(value, rounded, rtol=1e-5, atol=1e-5)
    assert weight.grad.dtype == torch.float32


def test_no_response_token_gives_an_empty_result_and_zero_gradients():
    hidden, weight, bias, targets = inputs(count=0)
    response_logps(hidden, weight, bias, targets).sum().backward()
    assert weight.grad.abs().sum() == 0 and hidden.grad.shape == (0, D)


def test_largest_tensor_of_many_tokens_is_a_tile_and_not_the_logits(monkeypatch):
    monkeypatch.setattr(tiles, "TILE_BYTES", 4 * 64 * 64)
    monkeypatch.setattr(tiles, "TOKENS_PER_TILE", 64)
    monkeypatch.setattr(logps, "KEPT_LOGITS_BYTES", 0)
    hidden, weight = torch.randn(256, 8, requires_grad=True), torch.randn(512, 8, requires_grad=True)
    with _LargestTensor() as largest:
        response_logps(hidden, weight, None, torch.zeros(256, dtype=torch.long)).sum().backward()
    assert largest.elements == 64 * 64  # all logits: 256 x 512; the weight itself: 512 x 8


class _LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.elements = max(self.elements, out.numel())
        return out


def test_group_sums_skip_masked_tokens_and_apply_weights():
    token_logps = torch.tensor([[[-1.0, -2.0, float("nan")], [-3.0, -4.0, -5.0]]])
    mask = torch.tensor([[[True, True, False], [True, True, True]]])
    group = GroupLogps(token_logps, mask)
    assert group.sums().tolist() == [[-3.0, -12.0]]
    assert group.means().tolist() == [[-1.5, -4.0]]
    assert group.lengths().tolist() == [[2, 3]]
    weighted = GroupLogps(token_logps, mask, torch.tensor([[[1.0, 2.0, 9.0], [0.0, 1.0, 1.0]]]))
    assert weighted.sums().tolist() == [[-5.0, -9.0]]


def test_an_absent_response_has_mean_zero():
    group = GroupLogps(torch.full((1, 2, 1), -1.0), torch.tensor([[[True], [False]]]))
    assert group.means().tolist() == [[-1.0, 0.0]]


def test_a_reference_without_gradient_gets_the_very_numbers_of_the_policy():
    hidden, weight, targets = torch.randn(7, 5), torch.randn(11, 5), torch.arange(7)
    with_gradient = response_logps(hidden.requires_grad_(), weight, None, targets)
    with torch.no_grad():
        without = response_logps(hidden, weight, None, targets)
    assert torch.equal(with_gradient.detach(), without)
