"""Options of objectives: each declared once, with its meaning and its rule; a preset names those it reads.

The same word means the same everywhere. A preset gives each of its options a default; an option that it does not read,
or that another option leaves without effect, is refused by name: nothing is ignored in silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import SimpleNamespace
from typing import Any

from mmalign.engine.views import CONTRASTS
from mmalign.errors import ConfigError, show
from mmalign.objectives.divergences import DIVERGENCES
from mmalign.objectives.imitation import RESPONSES
from mmalign.objectives.numbers import FUSIONS
from mmalign.pairs.ranking import PAIRINGS

_NOTHING = object()


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option.

    Args:
        meaning: one line for people.
        rule: what a value must be, in words.
        broken: value -> hint at what is wrong with it ("" for nothing more than the rule), or None when it is right.
        neutral: value at which the option changes nothing; it is then left out of descriptions.
        only_if: (other option, value): read only when the other has this value.
    """

    meaning: str
    rule: str
    broken: Callable[[Any], str | None]
    neutral: Any = _NOTHING
    only_if: tuple[str, Any] | None = None

    def is_read(self, values: Mapping[str, Any]) -> bool:
        """Say whether the other options of a preset leave this one an effect."""
        return self.only_if is None or values.get(self.only_if[0]) == self.only_if[1]

    def is_quiet(self, values: Mapping[str, Any], value: Any) -> bool:
        """Say whether the value changes nothing."""
        return not self.is_read(values) or value == self.neutral


def number(
    meaning: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    **more: Any,
) -> Option:
    """Declare an option that is a finite number, with open (`above`, `below`) or closed bounds."""
    bounds = [("above", above), ("at least", at_least), ("below", below), ("at most", at_most)]
    words = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)

    def broken(value: Any) -> str | None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"YAML reads {value} as text, write it with a point" if _is_number_text(value) else ""
        outside = (
            not math.isfinite(value)
            or (above is not None and value <= above)
            or (at_least is not None and value < at_least)
            or (below is not None and value >= below)
            or (at_most is not None and value > at_most)
        )
        return "" if outside else None

    return Option(meaning=meaning, rule=f"a number {words}".rstrip(), broken=broken, **more)


def choice(meaning: str, among: tuple[str, ...], **more: Any) -> Option:
    """Declare an option that is one of a few words."""

    def broken(value: Any) -> str | None:
        near = get_close_matches(str(value), among, n=1)
        return None if value in among else f"did you mean {near[0]!r}?" if near else ""

    return Option(meaning=meaning, rule=f"one of {', '.join(among)}", broken=broken, **more)


def switch(meaning: str, **more: Any) -> Option:
    """Declare an option that is true or false."""
    return Option(
        meaning=meaning, rule="true or false", broken=lambda value: None if isinstance(value, bool) else "", **more
    )


def whole(meaning: str, *, at_least: int, **more: Any) -> Option:
    """Declare an option that is a whole number."""

    def broken(value: Any) -> str | None:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return None if is_whole and value >= at_least else ""

    return Option(meaning=meaning, rule=f"a whole number at least {at_least}", broken=broken, **more)


def text(meaning: str, **more: Any) -> Option:
    """Declare an option that is a name."""
    return Option(meaning=meaning, rule="a text", broken=lambda value: None if _is_name(value) else "", **more)


def texts(meaning: str, **more: Any) -> Option:
    """Declare an option that is a list of different names."""

    def broken(value: Any) -> str | None:
        if isinstance(value, str):
            return f"write [{value}]"
        named = isinstance(value, Sequence) and len(value) > 0 and all(_is_name(one) for one in value)
        return None if named and len(set(value)) == len(value) else ""

    return Option(meaning=meaning, rule="a list of different names", broken=broken, **more)


OPTIONS: Mapping[str, Option] = {
    "beta": number("inverse temperature: how many nats of log-ratio make one unit of reward", above=0),
    "gamma": number("by how much beta times the better score must lead", at_least=0),
    "pairs": choice("which pairs of a list of responses are compared", PAIRINGS),
    "label_smoothing": number("e, the share of labels believed to be flipped", at_least=0, below=0.5, neutral=0),
    "epsilon": number("e, the probability that the target gives to the worse response", above=0, below=0.5),
    "sft_weight": number("weight of the likelihood of the best response", at_least=0),
    "normalise": choice("what the sum over the batch is divided by", ("token", "sequence")),
    "f_divergence_type": choice(
        "divergence that holds the policy to the reference", tuple(DIVERGENCES), neutral="reverse_kl"
    ),
    "f_alpha_divergence_coef": number(
        "order of the alpha divergence; 1 is reverse KL", only_if=("f_divergence_type", "alpha_divergence")
    ),
    "ld_alpha": number(
        "weight of the tokens beyond the length of the shorter response (LD-DPO)", at_least=0, at_most=1, neutral=1
    ),
    "edit_weight": number("weight of the tokens that differ between the two responses", above=0),
    "use_weighting": switch(
        "weigh a pair by how probable its responses are under the policy (WPO), unbounded as in TRL", neutral=False
    ),
    "discopop_tau": number("temperature of the blend between logistic and exponential loss", above=0, below=1),
    "alpha": number("exponent of the inverse power of the token probability; 0 is the log-probability"),
    "desirable_weight": number("factor of the loss of better responses", above=0),
    "undesirable_weight": number("factor of the loss of worse responses", above=0),
    "list_weight": number("weight of the order of the list", above=0),
    "best_factor": number("factor of beta where the better response is of the best level", above=0),
    "reach": number("by what share of itself beta grows at most", at_least=0),
    "rate": number("how fast beta grows with the gap between scores", above=0),
    "gap_factor": number("factor of beta at a gap of 0", above=0),
    "mean_gap": number("mean of the score gaps of all rows"),
    "quality_rate": number("how fast the weight grows with the gap between scores", at_least=0),
    "settled_at": number("beta times the gap of log-probs per token at which a pair counts half", at_least=0),
    "focus": number("power with which settled pairs lose weight; 0 is off", at_least=0),
    "good_score": number("score from which a best response is kept from becoming less likely"),
    "beta_scaling": number("how strongly beta follows the mean margin of the step", at_least=0),
    "selected_share": number("share of the step's pairs that are selected", above=0, at_most=1),
    "reliability": number("eta: share of right labels believed before the first step", above=0.5, below=1),
    "reliability_rate": number("how far a step moves the reliability of an annotator", at_least=0, at_most=1),
    "dpo_weight": number("weight of the dpo term", at_least=0),
    "bco_weight": number("weight of the bco_pair term", at_least=0),
    "kl_weight": number("weight of the divergence from the reference along a response", at_least=0),
    "token_rate": number("how fast the weight of a token grows with beta times its reward", at_least=0),
    "positive_weights": switch("token weights below 0 count as 0", neutral=False),
    "chosen_weight": number("weight of the divergence from the teacher on the best response", at_least=0),
    "rejected_weight": number("weight of the divergence from the teacher on the other responses", at_least=0),
    "advantage_weight": number("weight of the teacher's advantage over the model it is contrasted with", above=0),
    "responses": choice("which responses of a row are imitated", RESPONSES),
    "lead": number("how far the teacher is led on from the model it is contrasted with", at_least=0),
    "temperature": number("temperature of the teacher's distribution", above=0),
    "threshold": number("by how much history must raise a token's probability for it to be owed to it", at_least=0),
    "owed_weight": number("weight of tokens that are owed to history; the others have 1 minus it", above=0, below=1),
    "history_weight": number("weight of the likelihood under what history adds to the logits", at_least=0),
    "contrast": choice("how the media of the row are changed for the view that it is compared with", tuple(CONTRASTS)),
    "visual_weight": number("weight of the comparison with changed media", at_least=0),
    "visual_share": number("share of the comparison with changed media; the rest is dpo's", above=0, below=1),
    "anchor_weight": number("weight of the term that keeps the better response above the reference", at_least=0),
    "anchor": number("by how much beta R of the better response must lead in that term"),
    "anchor_beta": number("beta of the terms that keep good responses above the reference", above=0),
    "guidance": number("how often the media count in the policy's log-probs; 1 is plain dpo", at_least=1),
    "symmetry_weight": number("weight of the comparisons of two good responses under either picture", at_least=0),
    "margin_weight": number("weight of the squared difference of the margins under the two pictures", at_least=0),
    "irrelevant_share": number("share of the last, irrelevant response in what is pushed down", at_least=0, at_most=1),
    "video_weight": number("weight of the comparison with a video of drawn values", at_least=0),
    "clip_weight": number("weight of the comparison of the clips that the tags clip_w and clip_l name", at_least=0),
    "frame_weight": number("weight of the comparison of the tagged frame with and without its box", at_least=0),
    "token_weight": number("weight of the comparison with divergences token by token (TDPO2)", at_least=0),
    "other_text": choice("which response is scored under the other media", ("rejected", "chosen")),
    "sources": texts("models whose log-probs come with the rows, as `mmalign data score --as` named them"),
    "fusion": choice("how the log-probs of several sources become one", FUSIONS),
    "clip": switch("let no source fall behind the reference: at least as sure of the better, as doubtful of the worse"),
    "count_reference": switch("whether the reference is one of the sources"),
    "offset": number("added to the margin"),
    "least_probability": number("win probabilities are kept this far from 0 and 1", above=0, below=0.5),
    "exploration": number("weight of the responses that the reference gave; 0 is off", at_least=0, neutral=0),
    "judge": text("name of the number that holds the second judge's score of a response"),
    "doubt": number("share of wrong labels believed among pairs of small margin", at_least=0, below=0.5),
    "quantile": number("share of late margins up to which a margin is small", above=0, below=1),
    "window": whole("pairs whose margins are kept", at_least=1),
    "warmup_steps": whole("steps in which every label is believed", at_least=0),
    "confidence": number("probability that judge and policy must each give to their order", at_least=0.5, below=1),
    "consistency_weight": number("weight of the pull towards the judge", at_least=0),
}


def read_options(
    defaults: Mapping[str, Any],
    given: Mapping[str, Any],
    where: str,
    *,
    readers: Callable[[str], list[str]],
    called: Mapping[str, str],
) -> SimpleNamespace:
    """Return the values of a preset's options.

    Args:
        defaults: option -> default, all that the preset reads.
        given: option -> value, from a recipe.
        where: how a message names the place ("dpo", or "objective[1] dpo").
        readers: option -> names of the presets that read it.
        called: option -> how the recipe writes it, where that is not our name.

    Raises:
        ConfigError: unknown or out-of-range option, or one that the preset does not read.
    """
    for name, value in given.items():
        if name not in defaults:
            raise ConfigError(_unread(name, defaults, where, readers))
        option = OPTIONS[name]
        if (hint := option.broken(value)) is not None:
            problem = f"must be {option.rule}" + (f"; {hint}" if hint else "")
            raise ConfigError(f"{where}: option {called.get(name, name)!r} {problem} (got {show(value)})")
    values = {**defaults, **given}
    for name in given:
        if not OPTIONS[name].is_read(values):
            other, wanted = OPTIONS[name].only_if
            raise ConfigError(
                f"{where}: option {name!r} is read only with {other}: {wanted} (got {other}: {values[other]}); "
                f"set that too, or remove {name!r}"
            )
    return SimpleNamespace(**values)


def described(values: SimpleNamespace) -> str:
    """Return the options that change something, as "beta=0.1, pairs=all"."""
    plain = vars(values)
    shown = {name: value for name, value in plain.items() if not OPTIONS[name].is_quiet(plain, value)}
    return ", ".join(f"{name}={_written(value)}" for name, value in shown.items())


def _written(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, str) or not isinstance(value, Sequence) else f"[{', '.join(value)}]"


def _unread(name: str, defaults: Mapping[str, Any], where: str, readers: Callable[[str], list[str]]) -> str:
    if name in OPTIONS:
        which = readers(name)
        others = ", ".join(which[:8]) + (", ..." if len(which) > 8 else "")
        return f"{where}: option {name!r} makes no sense here, nothing would read it; it is read by {others}"
    near = get_close_matches(str(name), defaults, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else "."
    return f"{where}: unknown option {show(name)}{meant} It has: weight, {', '.join(defaults)}"


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False
