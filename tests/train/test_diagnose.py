"""Findings on synthetic curves: each rule speaks on the run it is for, and on no healthy one."""

import math
import random

import pytest

from mmalign.train.diagnose import RULES, diagnose


def run(steps=80, *, noise=0.02, seed=0, **curves):
    """Return metric lines: each curve a function of progress in [0, 1], with noise where it is not constant."""
    generator = random.Random(seed)

    def value(name, curve, progress):
        exact = curve(progress)
        return exact if exact == 0 or name == "learning_rate" else exact + generator.gauss(0, noise)

    return [
        {"step": step}
        | {name.replace("__", "/"): value(name, curve, (step - 1) / (steps - 1)) for name, curve in curves.items()}
        for step in range(1, steps + 1)
    ]


HEALTHY = {
    "loss": lambda t: 0.69 - 0.25 * t,
    "rewards__chosen": lambda t: 0.01 + 0.4 * t,
    "rewards__rejected": lambda t: -0.01 - 0.5 * t,
    "rewards__margins": lambda t: 0.02 + 0.9 * t,
    "rewards__accuracies": lambda t: 0.5 + 0.3 * t,
    "logps__chosen": lambda t: -30 + 4 * t,
    "logps__rejected": lambda t: -28 - 5 * t,
    "lengths__chosen": lambda t: 31.0,
    "lengths__rejected": lambda t: 29.0,
    "lengths__chosen_longer": lambda t: 0.55,
    "grad_norm": lambda t: 2.0,
    "learning_rate": lambda t: 1e-5 * (1 - t),
    "step_time_s": lambda t: 1.0,
    "data_time_s": lambda t: 0.05,
}


def names(lines):
    return [finding.name for finding in diagnose(lines)]


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_run_is_passed_over_in_silence(seed):
    assert names(run(seed=seed, **HEALTHY)) == []


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_run_with_noisy_steps_is_passed_over_in_silence(seed):
    lines = run(seed=seed, **HEALTHY)
    generator = random.Random(seed)
    for line in lines:
        line["logps/chosen"] += generator.gauss(0, 15)
        line["rewards/margins"] += generator.gauss(0, 0.2)
    assert names(lines) == []


def test_a_healthy_sft_run_is_passed_over_in_silence():
    kept = {name: HEALTHY[name] for name in ("loss", "logps__chosen", "lengths__chosen", "grad_norm", "learning_rate")}
    assert names(run(**kept)) == []


@pytest.mark.parametrize("lines", [[], run(steps=3, **HEALTHY)])
def test_nothing_is_said_of_runs_too_short_to_tell(lines):
    assert diagnose(lines) == []


def test_chosen_falling_while_margins_rise_is_said_with_both_figures():
    falling = HEALTHY | {
        "rewards__chosen": lambda t: 0.01 - 1.0 * t,
        "rewards__margins": lambda t: 0.02 + 1.5 * t,
        "logps__chosen": lambda t: -30 - 10 * t,
    }
    (finding,) = diagnose(run(noise=0.0, **falling))
    assert finding.name == "chosen_falls"
    assert "-31.2 to -38.8 nats" in str(finding)
    assert "margin rose from 0.2 to 1.34" in str(finding)
    assert "Add {name: sft, weight: 0.1}" in str(finding)
    with_sft = run(**falling, loss__sft=lambda t: 1.0)
    assert "Raise the weight of the sft term" in str(diagnose(with_sft)[0])


def test_a_log_prob_that_rose_by_the_luck_of_the_rows_is_not_held_against_the_reward():
    lucky = HEALTHY | {"rewards__chosen": lambda t: 0.01 - 1.0 * t, "logps__chosen": lambda t: -30 + 2 * t}
    (finding,) = diagnose(run(noise=0.0, **lucky))
    assert "became less likely (reward -0.11 to -0.87)" in finding.sentence


def test_chosen_rising_or_falling_a_little_is_no_finding():
    little = HEALTHY | {"rewards__chosen": lambda t: 0.01 - 0.05 * t}
    assert names(run(noise=0.001, **little)) == []


def test_rewards_that_do_not_move():
    still = HEALTHY | {
        "rewards__chosen": lambda t: 0.001,
        "rewards__margins": lambda t: 0.001,
        "rewards__accuracies": lambda t: 0.5,
    }
    (finding,) = diagnose(run(noise=0.005, **still))
    assert finding.name == "rewards_do_not_move"
    assert "over 80 steps" in finding.sentence
    assert "The margin did not move: over 80 steps it went from" in finding.sentence
    assert "(at most 1.0e-05 here)" in finding.advice
    (fast,) = diagnose(run(noise=0.005, **(still | {"learning_rate": lambda t: 2e-3})))
    assert fast.advice.startswith("Train longer; if that changes nothing, read some pairs")  # above the usual range
    moved = run(noise=0.005, **still, reference_moves=lambda t: float(t > 0.5))
    assert diagnose(moved) == []  # a reference that follows the policy lets margins begin anew


def test_a_margin_that_stands_still_while_both_rewards_rise_is_no_standstill_of_the_policy():
    together = HEALTHY | {
        "rewards__chosen": lambda t: 1.7 * t,
        "rewards__rejected": lambda t: 1.7 * t,
        "rewards__margins": lambda t: 0.001,
        "rewards__accuracies": lambda t: 0.5,
    }
    (finding,) = diagnose(run(noise=0.005, **together))
    assert "(the chosen reward went from 0.2" in finding.sentence
    assert "rate" not in finding.advice


def test_small_margins_under_a_small_beta_count_as_moved_when_preferences_change():
    small = HEALTHY | {"rewards__margins": lambda t: 0.018 * t, "rewards__chosen": lambda t: 0.009 * t}
    assert names(run(noise=0.0005, **small)) == []


@pytest.mark.parametrize(
    ("share", "chosen", "rejected", "side"), [(0.97, 61.0, 32.0, "chosen"), (0.05, 20.0, 44.0, "rejected")]
)
def test_one_side_always_longer_names_the_side(share, chosen, rejected, side):
    biased = HEALTHY | {
        "lengths__chosen_longer": lambda t: share,
        "lengths__chosen": lambda t: chosen,
        "lengths__rejected": lambda t: rejected,
    }
    (finding,) = diagnose(run(**biased))
    assert finding.name == "one_side_longer"
    assert f"The {side} answer is the longer one" in finding.sentence


def test_one_token_of_difference_is_no_length_bias():
    close = HEALTHY | {
        "lengths__chosen_longer": lambda t: 1.0,
        "lengths__chosen": lambda t: 31.0,
        "lengths__rejected": lambda t: 30.0,
    }
    assert names(run(**close)) == []


@pytest.mark.parametrize(("sign", "side"), [(1, "longer"), (-1, "shorter")])
def test_a_reward_that_follows_length_names_the_side_that_wins(sign, side):
    (finding,) = diagnose(run(**(HEALTHY | {"rewards__length_correlation": lambda t: sign * (0.2 + 0.7 * t)})))
    assert finding.name == "reward_follows_length"
    assert f"the {side} answer wins, whichever is better" in finding.sentence
    assert "the chosen answer is the longer one in 55% of them" in finding.sentence


def test_a_reward_that_cannot_but_follow_length_is_said_once():
    one_sided = HEALTHY | {
        "rewards__length_correlation": lambda t: 0.9,
        "lengths__chosen_longer": lambda t: 0.97,
        "lengths__chosen": lambda t: 61.0,
    }
    assert names(run(**one_sided)) == ["one_side_longer"]


def test_a_policy_far_from_its_reference_is_named_with_its_distance():
    (finding,) = diagnose(run(**(HEALTHY | {"kl__k3": lambda t: 6 * t})))
    assert finding.name == "far_from_reference"
    assert "k3 is 5.28 a token" in finding.sentence and "not how far apart the two are in nats" in finding.sentence
    assert names(run(**(HEALTHY | {"kl__k3": lambda t: 0.5 * t, "rewards__length_correlation": lambda t: 0.5}))) == []


def test_accuracy_that_is_perfect_at_once():
    lines = run(noise=0.0, **(HEALTHY | {"rewards__accuracies": lambda t: 1.0}))
    lines[0]["rewards/accuracies"] = 0.0
    (finding,) = diagnose(lines)
    assert finding.name == "saturated_from_the_start"
    assert "from step 2 on" in finding.sentence


def test_accuracy_that_becomes_perfect_is_a_success():
    assert names(run(noise=0.0, **(HEALTHY | {"rewards__accuracies": lambda t: min(1.0, 0.5 + t)}))) == []


def test_a_model_that_turns_to_the_rejected_answers():
    swapped = HEALTHY | {
        "rewards__chosen": lambda t: -0.4 * t,
        "rewards__margins": lambda t: 0.02 - 0.9 * t,
        "rewards__accuracies": lambda t: 0.5 - 0.3 * t,
    }
    (finding,) = diagnose(run(**swapped))
    assert finding.name == "prefers_rejected"


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_value_that_is_not_finite_is_named_with_its_step(value):
    lines = run(**HEALTHY)
    lines[41]["loss"] = value
    (finding,) = diagnose(lines)
    assert finding.name == "non_finite"
    assert "At step 42 loss" in finding.sentence


@pytest.mark.parametrize(("metric", "name"), [("learning_rate", "learning_rate_zero"), ("grad_norm", "gradient_zero")])
def test_a_run_that_cannot_learn_says_why(metric, name):
    assert name in names(run(steps=4, **(HEALTHY | {metric: lambda t: 0.0})))


def test_a_held_out_loss_that_turns_up_again():
    lines = run(**HEALTHY)
    for step, loss in [(20, 0.60), (40, 0.50), (60, 0.55), (80, 0.63)]:
        lines[step - 1]["eval_loss"] = loss
    (finding,) = diagnose(lines)
    assert finding.name == "overfits"
    assert "lowest at step 40 (0.5) and is 0.63" in finding.sentence


def test_a_held_out_loss_that_falls_to_the_end_is_no_finding():
    lines = run(**HEALTHY)
    for step, loss in [(20, 0.60), (40, 0.55), (60, 0.50), (80, 0.49)]:
        lines[step - 1]["eval_loss"] = loss
    assert names(lines) == []


def test_a_held_out_hinge_of_zero_may_tremble():
    lines = run(**HEALTHY)
    for step, loss in [(20, 0.5), (40, 0.0), (60, 1e-6), (80, 1e-6)]:
        lines[step - 1]["eval_loss"] = loss
    assert names(lines) == []


def test_a_gradient_spike_names_its_step():
    lines = run(**HEALTHY)
    lines[16]["grad_norm"] = 200.0
    (finding,) = diagnose(lines)
    assert finding.name == "gradient_spikes"
    assert "At step 17" in finding.sentence


def test_waiting_for_data():
    (finding,) = diagnose(run(**(HEALTHY | {"data_time_s": lambda t: 0.5})))
    assert finding.name == "waits_for_data"


def test_every_finding_says_what_was_seen_and_what_to_try():
    assert len({rule.__name__ for rule in RULES}) == len(RULES)
    for finding in diagnose(run(**(HEALTHY | {"learning_rate": lambda t: 0.0, "data_time_s": lambda t: 0.5}))):
        assert finding.sentence.endswith(".")
        assert finding.advice.endswith(".")
        assert all(math.isfinite(value) for value in finding.evidence.values())


def test_a_run_whose_pairs_mostly_have_no_weight_is_named():
    gated = {"weights__up_to_0": lambda t: 0.5 + 0.4 * t, "weights__mean": lambda t: 0.5 - 0.4 * t}
    (finding,) = diagnose(run(noise=0.001, **(HEALTHY | gated)))
    assert finding.name == "weights_at_zero"
    assert "in the last quarter 85% of them counted for nothing (55% in the first; mean weight 0.15)" in str(finding)
    assert "a lower confidence, a larger selected_share" in finding.advice


def test_a_run_whose_targets_came_to_one_half_is_named():
    doubted = {"targets__up_to_0.55": lambda t: 0.1 + 0.9 * t, "targets__mean": lambda t: 0.9 - 0.4 * t}
    (finding,) = diagnose(run(noise=0.001, **(HEALTHY | doubted)))
    assert finding.name == "targets_at_half"
    assert "in the last quarter 89% of the pairs had a target of 0.45 to 0.55 (21% in the first; mean 0.55)" in str(
        finding
    )
    assert "better than chance" in finding.advice


def test_selected_pairs_and_doubted_labels_as_they_are_meant_are_passed_over():
    """beta-DPO sets a fifth of the pairs aside; LCPO begins at a reliability of 0.9 and doubts some."""
    usual = {"weights__up_to_0": lambda t: 0.2, "weights__mean": lambda t: 1.0}
    usual |= {"targets__up_to_0.55": lambda t: 0.3 * t, "targets__mean": lambda t: 0.9 - 0.2 * t}
    assert names(run(**(HEALTHY | usual))) == []


def looking(*values):
    """Return the lines of a run that was evaluated so often."""
    return [{"step": step, "eval_image_reliance": value} for step, value in enumerate(values, start=1)]


def test_a_model_that_answers_without_looking_is_named():
    (finding,) = diagnose(looking(0.002))
    assert finding.name == "looks_away"
    assert "The model hardly looks at its media: made blank, they cost the better held-out answers 0.002 nats" in str(
        finding
    )
    assert "Objectives under changed media (mdpo) teach to look" in str(finding)


def test_a_run_that_already_trains_under_changed_media_is_not_told_to():
    (finding,) = diagnose([line | {"loss/mdpo_visual": 0.7} for line in looking(0.002)])
    assert finding.name == "looks_away"
    assert "mdpo" not in finding.advice
    assert "Objectives under changed media" in str(diagnose([line | {"loss/dpo": 0.7} for line in looking(0.002)])[0])


def test_a_model_that_looks_less_than_before_is_named_and_one_that_looks_is_not():
    (finding,) = diagnose(looking(0.4, 0.3, 0.15))
    assert "looks at its media less than before: made blank, they cost" in str(finding)
    assert "from 0.4 to 0.15 nats per token" in str(finding)
    assert diagnose(looking(0.4, 0.3, 0.25)) == []
    assert diagnose(looking(0.02, 0.4)) == []
