"""Objectives that read numbers of the rows learn what their papers claim in kind, on linear policies, three seeds.

Nulls, measured with these worlds and not asserted: spa is no better than dpo on labels flipped at random (69, 70, 74
against 68, 71, 74%); crm, which only drops pairs, stays below dpo on the judge's own order (79 to 82 against 82 to
83%); on pairs, in place of lists, cream is dpo on the judge's order; infifpo learns less with its clip than without (76
to 79 against 89 to 92%). In longer runs: poft is worse than sft where bad demonstrations are random and so cancel (56
to 79 against 83 to 89%); sppo on rates of wins is worse calibrated than dpo (off by 0.15 to 0.16 against 0.10 to 0.13);
the exploration of selm is no gain in accuracy (81, 61, 70 against 76, 71, 73%).
"""

import pytest
import torch
from learning.linear import choice_accuracy, facts_of, order_accuracy, trained

SEEDS = pytest.mark.parametrize("seed", [0, 1, 2])
PAIRS, FEATURES, STEPS = 400, 60, 50


def mislabelled(seed):
    """Return features [P, 2, F] of which 30% are in the wrong order, truth, a judge's scores, and fresh pairs.

    The judge is right as often as the labels, at different pairs, and less sure where it is wrong.
    """
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(FEATURES, generator=generator) / FEATURES**0.5
    features = torch.randn(PAIRS, 2, FEATURES, generator=generator)
    worse_first = (features @ truth).diff(dim=1).squeeze(1) > 0
    flipped = torch.rand(PAIRS, generator=generator) < 0.3
    features = torch.where((worse_first ^ flipped)[:, None, None], features.flip(1), features)
    quality = features @ truth
    judge = 2 * (quality + torch.randn(quality.shape, generator=generator))
    return features, truth, judge, torch.randn(2000, 2, FEATURES, generator=generator)


@SEEDS
def test_a_judge_beside_noisy_labels_teaches_crm_and_scir_more_than_labels_alone(seed):
    features, truth, judge, fresh = mislabelled(seed)
    facts = facts_of(PAIRS, 2, {"judge": judge})

    def accuracy(features=features, **spec):
        weights = trained({"beta": 1.0, **spec}, lambda w: features @ w, torch.zeros(FEATURES), facts, steps=STEPS)
        return order_accuracy(weights, truth, fresh)

    labels = accuracy(name="dpo")
    judged = features.gather(1, judge.argsort(1, descending=True)[..., None].expand_as(features))
    assert accuracy(name="crm", selected_share=0.7) > labels + 0.04
    assert accuracy(name="scir") > max(labels, accuracy(judged, name="dpo")) + 0.02


@SEEDS
def test_cream_believes_the_lists_that_two_judges_have_in_one_order(seed):
    """Half of the lists are judged nearly by chance, by both judges."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(FEATURES, generator=generator) / FEATURES**0.5
    features = torch.randn(300, 4, FEATURES, generator=generator)
    noise = torch.where(torch.rand(300, 1, generator=generator) < 0.5, 0.3, 5.0)
    one, other = (features @ truth + noise * torch.randn(300, 4, generator=generator) for _ in range(2))
    order = one.argsort(1, descending=True)
    features, judge = features.gather(1, order[..., None].expand_as(features)), other.gather(1, order)
    fresh = torch.randn(2000, 2, FEATURES, generator=generator)

    def accuracy(**spec):
        spec, facts = {"beta": 1.0, **spec}, facts_of(300, 4, {"judge": judge})
        return order_accuracy(
            trained(spec, lambda w: features @ w, torch.zeros(FEATURES), facts, steps=STEPS), truth, fresh
        )

    blind = accuracy(name="cdpo", label_smoothing=0.25, pairs="best_worst")
    assert accuracy(name="cream") > max(blind, accuracy(name="dpo", pairs="best_worst")) + 0.01


@SEEDS
def test_irepo_is_as_sure_as_the_votes_where_dpo_is_surer(seed):
    """Five people vote on each pair, with the probabilities of Bradley and Terry."""
    generator = torch.Generator().manual_seed(seed)
    truth = 1.5 * torch.randn(20, generator=generator) / 20**0.5
    features = torch.randn(600, 2, 20, generator=generator)
    wins = torch.sigmoid((features[:, 0] - features[:, 1]) @ truth)
    votes = (torch.rand(600, 5, generator=generator) < wins[:, None]).sum(1).float()
    first = votes >= 3
    features = torch.where(first[:, None, None], features, features.flip(1))
    strength = torch.stack([torch.maximum(votes, 5 - votes), torch.minimum(votes, 5 - votes)], 1)
    fresh = torch.randn(2000, 2, 20, generator=generator)
    gap = fresh[:, 0] - fresh[:, 1]

    def off(**spec):
        facts = facts_of(600, 2, {"strength": strength})
        weights = trained({"beta": 1.0, **spec}, lambda w: features @ w, torch.zeros(20), facts, steps=60)
        return (torch.sigmoid(gap @ weights) - torch.sigmoid(gap @ truth)).abs().mean().item()

    assert off(name="irepo", least_probability=0.1) < off(name="dpo") - 0.02


@SEEDS
def test_infifpo_learns_from_sources_that_each_know_half_of_the_truth(seed):
    features, truth, _, fresh = mislabelled(seed)
    halves = {"a": torch.arange(FEATURES) < FEATURES // 2, "b": torch.arange(FEATURES) >= FEATURES // 2}
    numbers = {f"logp/{name}": 3 * (features @ (truth * half)) - 5 for name, half in halves.items()}
    facts = facts_of(PAIRS, 2, numbers | {f"tokens/{name}": torch.ones(PAIRS, 2) for name in halves})

    def accuracy(**spec):
        weights = trained({"beta": 1.0, **spec}, lambda w: features @ w - 5, torch.zeros(FEATURES), facts, steps=STEPS)
        return order_accuracy(weights, truth, fresh)

    both, one = {"name": "infifpo_sum", "sources": ["a", "b"]}, {"name": "infifpo_sum", "sources": ["a"]}
    plain = accuracy(name="dpo")
    assert accuracy(**both) > plain + 0.03
    open_ended = accuracy(**both, clip=False)
    assert open_ended > max(plain, accuracy(**one, clip=False, count_reference=False)) + 0.05


@SEEDS
def test_poft_passes_over_demonstrations_that_aligned_models_find_unlikely(seed):
    """Half of the demonstrations follow another taste; three models know the right one nearly."""
    generator = torch.Generator().manual_seed(seed)
    truth, lure = (3 * torch.randn(12, generator=generator) / 12**0.5 for _ in range(2))
    options = torch.randn(300, 8, 12, generator=generator)
    fresh = torch.randn(2000, 8, 12, generator=generator)
    lured = torch.rand(300, generator=generator) < 0.5
    shown = torch.where(lured, (options @ lure).argmax(1), (options @ truth).argmax(1))[:, None]
    numbers = {}
    for name in "abc":
        taste = truth + 0.9 * torch.randn(12, generator=generator) / 12**0.5
        numbers[f"logp/{name}"] = (options @ taste).log_softmax(1).gather(1, shown)
        numbers[f"tokens/{name}"] = torch.ones(300, 1)

    def accuracy(**spec):
        def score(weights):
            return (options @ weights).log_softmax(1).gather(1, shown)

        weights = trained(spec, score, torch.zeros(12), facts_of(300, 1, numbers), steps=60)
        return choice_accuracy(weights, truth, fresh)

    assert accuracy(name="poft", sources=["a", "b", "c"]) > accuracy(name="sft") + 0.1


@SEEDS
def test_exploration_moves_probability_to_what_the_reference_finds_unlikely(seed):
    """Three of eight options were drawn from the reference, one of them is marked as its own answer."""
    generator = torch.Generator().manual_seed(seed)
    truth = 3 * torch.randn(12, generator=generator) / 12**0.5
    options = torch.randn(300, 8, 12, generator=generator)
    start = 0.3 * truth + 0.5 * torch.randn(12, generator=generator)
    before = (options @ start).log_softmax(1)
    drawn = torch.multinomial(before.exp(), 3, replacement=False, generator=generator)
    order = (options @ truth).gather(1, drawn).argsort(1, descending=True)
    facts = facts_of(300, 3, {"from_reference": (order == 0).float()})
    unlikely = before < before.median(1, keepdim=True).values

    def share(**spec):
        def score(weights):
            return (options @ weights).log_softmax(1).gather(1, drawn.gather(1, order))

        weights = trained({"beta": 0.5, **spec}, score, start, facts, steps=60, rate=0.06)
        return ((options @ weights).softmax(1) * unlikely).sum(1).mean().item()

    of_selm, of_xpo = share(name="selm", exploration=0.1), share(name="xpo", exploration=0.05)
    assert of_selm == pytest.approx(of_xpo, rel=1e-3)  # beta 0.5 of selm's term makes them one, but for a constant
    assert of_selm > 1.5 * share(name="dpo", pairs="best_worst")
