"""Whole next-token distributions, tile by tile: against the plain way, in float64, at the edges, and in memory."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmalign.engine import tiles
from mmalign.engine.distributions import Distributions, chosen_logps, kl_from, most_probable

N, V, D, CHOSEN = 13, 29, 7, 4


def drawn(seed=1, dtype=torch.float32, *, count=N, with_bias=True, softcap=None, trained=True) -> Distributions:
    generator = torch.Generator().manual_seed(seed)
    hidden, weight, bias = (torch.randn(*size, generator=generator).to(dtype) for size in ((count, D), (V, D), (V,)))
    for tensor in (hidden, weight, bias):
        tensor.requires_grad_(trained)
    return Distributions(hidden, weight, bias if with_bias else None, softcap)


def plain(side: Distributions) -> Tensor:
    """All log-probs [N, V], as anybody would write them."""
    logits = side.hidden @ side.weight.T + (0 if side.bias is None else side.bias)
    if side.softcap is not None:
        logits = side.softcap * torch.tanh(logits / side.softcap)
    return logits.log_softmax(-1)


def plain_kl(other: Distributions, own: Distributions) -> Tensor:
    return torch.nn.functional.kl_div(plain(own), plain(other).detach(), reduction="none", log_target=True).sum(-1)


def plain_chosen(own: Distributions, ids: Tensor) -> Tensor:
    logps = plain(own)
    left = torch.ones_like(logps, dtype=torch.bool).scatter(1, ids, False)
    others = torch.stack([row[keep].exp().sum().log() for row, keep in zip(logps, left, strict=True)])
    return torch.cat([logps.gather(1, ids), others[:, None]], 1)


def some_ids(count=N) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.stack([torch.randperm(V, generator=generator)[:CHOSEN] for _ in range(count)])


def gradients(value: Tensor, side: Distributions) -> list[Tensor]:
    value = value * torch.linspace(-1, 2, value.numel()).view_as(value).to(value.dtype)
    wanted = [tensor for tensor in (side.hidden, side.weight, side.bias) if tensor is not None]
    return list(torch.autograd.grad(value.sum(), wanted))


@pytest.fixture(params=["one tile", "many tiles"])
def tiling(request, monkeypatch):
    if request.param == "many tiles":
        monkeypatch.setattr(tiles, "TOKENS_PER_TILE", 5)
        monkeypatch.setattr(tiles, "TILE_BYTES", 4 * 5 * 11)


def test_kl_of_two_coins_by_hand():
    """Heads has 3/4 on one side and 1/2 on the other: 3/4 ln(3/2) + 1/4 ln(1/2)."""
    one, weight = torch.ones(1, 1), torch.tensor([[math.log(3.0)], [0.0]])
    biased, fair = Distributions(one, weight), Distributions(one, torch.zeros(2, 1))
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kl_from(biased, fair).item() == pytest.approx(expected, rel=1e-6)


def test_chosen_and_other_outcomes_of_a_die_by_hand():
    die = Distributions(torch.ones(1, 1), torch.zeros(6, 1))
    assert chosen_logps(die, torch.tensor([[0, 5]])).exp().tolist() == [pytest.approx([1 / 6, 1 / 6, 4 / 6])]


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("with_bias", [False, True])
def test_values_and_gradients_are_those_of_all_log_probs(tiling, with_bias, softcap):
    own, other = (drawn(seed, with_bias=with_bias, softcap=softcap) for seed in (1, 2))
    for ours, theirs in (
        (kl_from(other, own), plain_kl(other, own)),
        (chosen_logps(own, some_ids()), plain_chosen(own, some_ids())),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=5e-6)
        for got, expected in zip(gradients(ours, own), gradients(theirs, own), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_gradients_are_exact_in_float64(tiling, softcap):
    own, other = (drawn(seed, torch.float64, softcap=softcap) for seed in (1, 2))
    tensors = (own.hidden, own.weight, own.bias)
    assert torch.autograd.gradcheck(lambda *t: kl_from(other, Distributions(*t, softcap)), tensors)
    assert torch.autograd.gradcheck(lambda *t: chosen_logps(Distributions(*t, softcap), some_ids()), tensors)


def test_the_other_side_gets_no_gradient(tiling):
    own, other = drawn(1), drawn(2)
    kl_from(other, own).sum().backward()
    assert own.hidden.grad is not None
    assert [tensor.grad for tensor in (other.hidden, other.weight, other.bias)] == [None, None, None]


def test_equal_sides_are_exactly_at_distance_zero_with_gradient_zero(tiling):
    own = drawn(1)
    value = kl_from(drawn(1), own)
    assert value.tolist() == [0.0] * N
    assert all(not gradient.any() for gradient in gradients(value, own))


def test_a_frozen_head_gets_no_gradient_and_hidden_gets_the_same(tiling):
    trained, other = drawn(1), drawn(2)
    frozen = drawn(1, trained=False)
    frozen.hidden.requires_grad_()
    for read in (lambda own: kl_from(other, own), lambda own: chosen_logps(own, some_ids())):
        (alone,) = torch.autograd.grad(read(frozen).sum(), [frozen.hidden])
        torch.testing.assert_close(alone, torch.autograd.grad(read(trained).sum(), [trained.hidden])[0])


def test_half_precision_accumulates_in_float32(tiling):
    own, other = drawn(1, torch.bfloat16), drawn(2, torch.bfloat16)
    exact = [
        Distributions(*(t.detach().float().requires_grad_() for t in (side.hidden, side.weight, side.bias)))
        for side in (own, other)
    ]
    for value, expected in (
        (kl_from(other, own), plain_kl(exact[1], exact[0])),
        (chosen_logps(own, some_ids()), plain_chosen(exact[0], some_ids())),
    ):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
        for got, wanted in zip(gradients(value, own), gradients(expected, exact[0]), strict=True):
            assert got.dtype == torch.bfloat16
            torch.testing.assert_close(got.float(), wanted, rtol=1e-2, atol=1e-2)


def test_autocast_rounds_the_operands_only(tiling):
    own, other = drawn(1), drawn(2)
    rounded = [
        Distributions(*(t.detach().bfloat16().float() for t in (side.hidden, side.weight, side.bias)))
        for side in (own, other)
    ]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distance, chosen = kl_from(other, own), chosen_logps(own, some_ids())
    torch.testing.assert_close(distance, plain_kl(rounded[1], rounded[0]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(chosen, plain_chosen(rounded[0], some_ids()), rtol=1e-5, atol=1e-5)
    assert gradients(distance, own)[1].dtype == torch.float32


def test_logits_of_a_model_whose_head_is_not_known_give_the_same(tiling):
    own, other = drawn(1), drawn(2)
    logits = [Distributions(side.hidden @ side.weight.T + side.bias, None) for side in (own, other)]
    torch.testing.assert_close(kl_from(logits[1], logits[0]), kl_from(other, own), rtol=1e-5, atol=5e-6)
    torch.testing.assert_close(chosen_logps(logits[0], some_ids()), chosen_logps(own, some_ids()), rtol=1e-5, atol=5e-6)
    assert torch.equal(most_probable(logits[0], 3, V), most_probable(own, 3, V))


def test_no_token_gives_an_empty_result_and_zero_gradients():
    own, other = drawn(1, count=0), drawn(2, count=0)
    for value in (kl_from(other, own), chosen_logps(own, torch.zeros(0, CHOSEN, dtype=torch.int64))):
        assert len(value) == 0
        assert all(not gradient.any() for gradient in gradients(value, own))


def test_the_most_probable_tokens_are_those_of_the_whole_vocabulary(tiling):
    own = drawn(1)
    assert torch.equal(most_probable(own, 6, V), plain(own).topk(6).indices)
    assert torch.equal(most_probable(own, 6, 17), plain(own)[:, :17].topk(6).indices)


def test_largest_tensor_is_a_tile_and_not_the_logits(monkeypatch):
    monkeypatch.setattr(tiles, "TILE_BYTES", 4 * 64 * 64)
    monkeypatch.setattr(tiles, "TOKENS_PER_TILE", 64)
    own, other = (
        Distributions(torch.randn(256, 8, requires_grad=True), torch.randn(512, 8, requires_grad=True)) for _ in "ab"
    )
    with _LargestTensor() as largest:
        ids = most_probable(other, 4, 512)
        (kl_from(other, own).sum() + chosen_logps(own, ids).sum()).backward()
    assert largest.elements == 64 * 64  # all logits: 256 x 512; the weight itself: 512 x 8


class _LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple) else (out,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out
