"""What the curves of a run say, in words: findings with their figures and what to try next.

Each rule is a function from curves to a finding or None, in the table at the end. A rule compares the first with the
last quarter of a run and speaks only when the difference is both large and clear of the noise between steps: on a
healthy run nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from mmalign.objectives.presets_visual import VISUAL_PRESETS
from mmalign.train.curves import Curves, is_finite
from mmalign.train.diagnose_pairs import targets_at_half, weights_at_zero
from mmalign.train.finding import Finding

_SMALLEST_RISE = 1e-3
"""Rise of the held-out loss that counts even where the lowest is 0, as a hinge may be."""

_HIGHEST_USUAL_RATE = 2e-4
"""Learning rate above which a run hardly stands still for want of a higher one."""

_LEAST_RELIANCE = 0.01
"""Nats per token that blank media cost a model that looks at all."""


def diagnose(lines: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Return what the lines of a `metrics.jsonl` say, gravest first; nothing for a healthy or empty run."""
    curves = Curves(lines)
    return [finding for rule in RULES if (finding := rule(curves)) is not None]


def _non_finite(curves: Curves) -> Finding | None:
    for line in curves.lines:
        for name in ("loss", "grad_norm", "eval_loss"):
            if name in line and not is_finite(line[name]):
                sentence = f"At step {line['step']} {name} was {line[name]}: from there on the run means nothing."
                advice = "Lower train.learning_rate, set train.max_grad_norm: 1.0, or look at the rows of that step."
                return Finding("non_finite", sentence, advice, {"step": line["step"]})
    return None


def _learning_rate_zero(curves: Curves) -> Finding | None:
    rate = curves.get("learning_rate", fewest=2)
    if rate is None or max(rate.values) > 0:
        return None
    sentence = f"The learning rate was 0 in all {len(rate.values)} steps, so the weights are those of the start."
    return Finding(
        "learning_rate_zero", sentence, "Set train.learning_rate, and check the warm-up.", {"learning_rate": 0.0}
    )


def _gradient_zero(curves: Curves) -> Finding | None:
    norm = curves.get("grad_norm", fewest=2)
    if norm is None or max(norm.values) > 0:
        return None
    sentence = (
        f"The gradient was exactly 0 in all {len(norm.values)} steps: no weight that is trained reaches the loss."
    )
    advice = "Check model.freeze and model.lora.targets, and that the rows hold pairs that are not tied."
    return Finding("gradient_zero", sentence, advice, {"grad_norm": 0.0})


def _chosen_falls(curves: Curves) -> Finding | None:
    logps, margin = curves.get("logps/chosen"), curves.get("rewards/margins")
    level = curves.get("rewards/chosen")
    if logps is None or margin is None or level is None or not (margin.moved and margin.change > 0):
        return None
    # Rewards are taken against the reference, row by row, and so show a fall that differences between rows would hide.
    fell = (level.moved and level.change < 0) or (logps.moved and logps.change < 0)
    if not fell or level.change > -0.1 * margin.change:
        return None
    log_prob = f"log-prob {_number(logps.start)} to {_number(logps.end)} nats, " if logps.change < 0 else ""
    sentence = (
        f"The chosen answers became less likely ({log_prob}reward {_number(level.start)} to {_number(level.end)}) "
        f"while the margin rose from {_number(margin.start)} to {_number(margin.end)}: the model "
        "learns to avoid the rejected answers, not to give the chosen ones, and the probability may go to answers "
        "nobody judged."
    )
    likelihood = (
        "Raise the weight of the sft term" if _has_likelihood(curves) else "Add {name: sft, weight: 0.1} to objective"
    )
    advice = f"{likelihood}, raise beta, or lower train.learning_rate; judge by generated answers, not by the margin."
    evidence = {"logps/chosen start": logps.start, "logps/chosen end": logps.end}
    evidence |= {"rewards/margins start": margin.start, "rewards/margins end": margin.end}
    return Finding("chosen_falls", sentence, advice, evidence)


def _rewards_do_not_move(curves: Curves) -> Finding | None:
    margin, accuracy = curves.get("rewards/margins"), curves.get("rewards/accuracies")
    if margin is None or accuracy is None or abs(margin.change) > 0.1:
        return None
    if any(line.get("reference_moves") for line in curves.lines):  # margins begin anew with every move
        return None
    # Under a small beta a small change is real, if it is clear of the noise and changes which answer is preferred.
    if margin.moved and (abs(margin.change) > 0.02 or abs(accuracy.change) > 0.1):
        return None
    # Under views, both rewards may rise together: then the policy moved, though nothing tells the answers apart.
    level, rate = curves.get("rewards/chosen"), curves.get("learning_rate", fewest=1)
    policy_moved = level is not None and level.moved and abs(level.change) > 0.1
    together = f" (the chosen reward went from {_number(level.start)} to {_number(level.end)})" if policy_moved else ""
    sentence = (
        f"The margin did not move: over {len(margin.values)} steps it went from {_number(margin.start)} to "
        f"{_number(margin.end)}{together}, accuracy from {accuracy.start:.2f} to {accuracy.end:.2f}."
    )
    read = "read some pairs with `mmalign data show`: are the better answers better?"
    if policy_moved or (rate is not None and max(rate.values) > _HIGHEST_USUAL_RATE):
        return Finding(
            "rewards_do_not_move",
            sentence,
            f"Train longer; if that changes nothing, {read}",
            {"start": margin.start, "end": margin.end},
        )
    at_most = "" if rate is None else f" (at most {max(rate.values):.1e} here)"
    advice = (
        f"Raise train.learning_rate{at_most} or train longer; full fine-tuning often wants 5e-7 to 1e-5, LoRA 1e-5 to "
        f"{_HIGHEST_USUAL_RATE:.0e}. If that changes nothing, {read}"
    )
    return Finding("rewards_do_not_move", sentence, advice, {"start": margin.start, "end": margin.end})


def _prefers_rejected(curves: Curves) -> Finding | None:
    margin, accuracy = curves.get("rewards/margins"), curves.get("rewards/accuracies")
    if margin is None or accuracy is None or margin.end >= 0 or accuracy.end > 0.4:
        return None
    if not (margin.moved and margin.change < 0):
        return None
    sentence = (
        f"The model turned towards the rejected answers: margin {_number(margin.start)} to {_number(margin.end)}, "
        f"accuracy {accuracy.end:.2f} in the last quarter."
    )
    advice = "See with `mmalign data show` whether chosen and rejected are exchanged in the rows."
    return Finding("prefers_rejected", sentence, advice, {"margin": margin.end, "accuracy": accuracy.end})


def _one_side_longer(curves: Curves) -> Finding | None:
    longer = curves.get("lengths/chosen_longer", fewest=4)
    chosen, rejected = curves.get("lengths/chosen", fewest=4), curves.get("lengths/rejected", fewest=4)
    if longer is None or chosen is None or rejected is None:
        return None
    share, mean_chosen, mean_rejected = fmean(longer.values), fmean(chosen.values), fmean(rejected.values)
    side, share_of_side = ("chosen", share) if share >= 0.5 else ("rejected", 1 - share)
    ratio = max(mean_chosen, mean_rejected) / max(min(mean_chosen, mean_rejected), 1e-9)
    if share_of_side < 0.85 or ratio < 1.1:
        return None
    sentence = (
        f"The {side} answer is the longer one in {share_of_side:.0%} of the pairs ({mean_chosen:.0f} tokens chosen, "
        f"{mean_rejected:.0f} rejected): length alone tells them apart, and the model may learn just that."
    )
    advice = (
        "Compare the length of generated answers before and after; balance the rows, or take an objective per token "
        "(simpo, ipo)."
    )
    evidence = {"chosen_longer": share, "lengths/chosen": mean_chosen, "lengths/rejected": mean_rejected}
    return Finding("one_side_longer", sentence, advice, evidence)


def _reward_follows_length(curves: Curves) -> Finding | None:
    correlation, longer = curves.get("rewards/length_correlation"), curves.get("lengths/chosen_longer")
    if correlation is None or abs(correlation.end) < 0.7:
        return None
    # Where one side is nearly always the longer one, reward cannot but follow length: that is another finding.
    if longer is None or not 0.15 < fmean(longer.values) < 0.85:
        return None
    side = "longer" if correlation.end > 0 else "shorter"
    sentence = (
        f"The reward follows length: inside pairs its correlation with the number of tokens is {correlation.end:.2f} "
        f"in the last quarter, though the chosen answer is the longer one in {fmean(longer.values):.0%} of them: the "
        f"{side} answer wins, whichever is better."
    )
    advice = (
        "Compare the length of generated answers before and after; take an objective per token (simpo, ipo, ld_dpo)."
    )
    return Finding("reward_follows_length", sentence, advice, {"correlation": correlation.end})


def _far_from_reference(curves: Curves) -> Finding | None:
    distance = curves.get("kl/k3")
    if distance is None or not (distance.moved and distance.change > 0) or distance.end < 2:
        return None
    sentence = (
        f"The policy is far from its reference: k3 is {_number(distance.end)} a token on the answers of the rows in "
        f"the last quarter ({_number(distance.start)} in the first). It grows exponentially with what a token loses; "
        "this much says that some were made nearly impossible, not how far apart the two are in nats."
    )
    advice = "Raise beta, lower train.learning_rate, or stop earlier; judge by generated answers."
    return Finding("far_from_reference", sentence, advice, {"kl/k3": distance.end})


def _saturated_from_the_start(curves: Curves) -> Finding | None:
    accuracy = curves.get("rewards/accuracies")
    if accuracy is None:
        return None
    # The first step is no evidence: there policy and reference are the same model.
    early = accuracy.values[1 : max(6, len(accuracy.values) // 20)]
    if fmean(early) < 0.98 or accuracy.end < 0.98:
        return None
    sentence = (
        f"Accuracy was {fmean(early):.2f} from step {accuracy.steps[1]} on: the pairs are told apart at once, so the "
        "later steps taught little, or something beside quality gives the better answer away."
    )
    advice = "Take harder pairs, check for length and formatting that differ, or stop earlier."
    return Finding("saturated_from_the_start", sentence, advice, {"accuracy": fmean(early)})


def _overfits(curves: Curves) -> Finding | None:
    held_out, loss = curves.get("eval_loss", fewest=3), curves.get("loss")
    if held_out is None or loss is None or loss.change >= 0:
        return None
    lowest = min(held_out.values)
    best_step, last = held_out.steps[held_out.values.index(lowest)], held_out.values[-1]
    if last - lowest < max(0.05 * abs(lowest), _SMALLEST_RISE) or best_step == held_out.steps[-1]:
        return None
    sentence = (
        f"Held-out loss was lowest at step {best_step} ({_number(lowest)}) and is {_number(last)} at the end, while "
        f"the training loss went on falling ({_number(loss.start)} to {_number(loss.end)}): the run learns its "
        "rows by heart."
    )
    advice = f"Take the checkpoint nearest to step {best_step}, or train fewer steps at a lower rate."
    return Finding("overfits", sentence, advice, {"best_step": best_step, "lowest": lowest, "last": last})


def _gradient_spikes(curves: Curves) -> Finding | None:
    norm = curves.get("grad_norm")
    if norm is None or max(norm.values) < 20 * max(median(norm.values), 1e-12):
        return None
    step = norm.steps[norm.values.index(max(norm.values))]
    sentence = (
        f"At step {step} the gradient was {max(norm.values) / median(norm.values):.0f} times its median "
        f"({_number(max(norm.values))} against {_number(median(norm.values))})."
    )
    advice = "Set train.max_grad_norm (1.0 is usual) if it is off, and look at the rows of that step."
    return Finding("gradient_spikes", sentence, advice, {"step": step, "largest": max(norm.values)})


def _waits_for_data(curves: Curves) -> Finding | None:
    data, step = curves.get("data_time_s"), curves.get("step_time_s")
    if data is None or step is None or sum(step.values[1:]) <= 0:
        return None
    share = sum(data.values[1:]) / sum(step.values[1:])  # waiting is part of the step's time
    if share < 0.3:
        return None
    sentence = f"{share:.0%} of the time went by waiting for images and tokens."
    advice = "Raise data.num_workers, lower data.max_pixels, or set vision.cache_dir when the vision tower is frozen."
    return Finding("waits_for_data", sentence, advice, {"share": share})


def _looks_away(curves: Curves) -> Finding | None:
    reliance = curves.get("eval_image_reliance", fewest=1)
    if reliance is None:
        return None
    first, last = reliance.values[0], reliance.values[-1]
    before = f"from {_number(first)} to {_number(last)}" if len(reliance.values) > 1 else f"{_number(last)}"
    if last >= _LEAST_RELIANCE and last >= 0.5 * first:
        return None
    what = "hardly looks at its media" if last < _LEAST_RELIANCE else "looks at its media less than before"
    sentence = (
        f"The model {what}: made blank, they cost the better held-out answers {before} nats per token "
        "(eval_image_reliance)."
    )
    teaches = "" if _sees_changed_media(curves) else "Objectives under changed media (mdpo) teach to look. "
    advice = (
        f"Read some rows: can they be answered without looking? {teaches}See also that model.freeze leaves the "
        "projector free."
    )
    return Finding("looks_away", sentence, advice, {"first": first, "last": last})


RULES: tuple[Callable[[Curves], Finding | None], ...] = (
    _non_finite,
    _learning_rate_zero,
    _gradient_zero,
    _prefers_rejected,
    _chosen_falls,
    _rewards_do_not_move,
    weights_at_zero,
    targets_at_half,
    _one_side_longer,
    _reward_follows_length,
    _far_from_reference,
    _saturated_from_the_start,
    _overfits,
    _looks_away,
    _gradient_spikes,
    _waits_for_data,
)


def _sees_changed_media(curves: Curves) -> bool:
    terms = {name.removeprefix("loss/") for line in curves.lines for name in line if name.startswith("loss/")}
    return any(term.startswith(preset.name) for term in terms for preset in VISUAL_PRESETS)


def _has_likelihood(curves: Curves) -> bool:
    names = {name for line in curves.lines for name in line}
    return any(name.startswith("loss/sft") or (name.startswith("loss/") and name.endswith("_nll")) for name in names)


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
