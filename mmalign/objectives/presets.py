"""All presets by name, and the names that TRL has for some of them.

A preset is one line of parts. Where it differs from its paper is said beside it, in `departures`; what is logged as the
reward of a response is beta times what the score measures before any transform: R for dpo and its kin, S for cpo, A for
simpo and orpo, as in TRL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from mmalign.errors import ConfigError, show
from mmalign.objectives.preset import Preset
from mmalign.objectives.presets_dense import DENSE_PRESETS
from mmalign.objectives.presets_free import FREE_PRESETS
from mmalign.objectives.presets_lists import LIST_PRESETS
from mmalign.objectives.presets_numbers import NUMBER_PRESETS
from mmalign.objectives.presets_ratio import RATIO_PRESETS
from mmalign.objectives.presets_sides import SIDES_PRESETS
from mmalign.objectives.presets_unpaired import UNPAIRED_PRESETS
from mmalign.objectives.presets_visual import VISUAL_PRESETS
from mmalign.objectives.presets_weighed import WEIGHED_PRESETS

GROUPS: Mapping[str, tuple[Preset, ...]] = {
    "margins against a reference": RATIO_PRESETS,
    "each response by itself, or a batch as a whole, against a reference": SIDES_PRESETS,
    "answers judged one by one": UNPAIRED_PRESETS,
    "without a reference": FREE_PRESETS,
    "pairs that count unequally": WEIGHED_PRESETS,
    "whole lists": LIST_PRESETS,
    "whole next-token distributions": DENSE_PRESETS,
    "under changed media": VISUAL_PRESETS,
    "with numbers of other models and judges": NUMBER_PRESETS,
}

PRESETS: Mapping[str, Preset] = {preset.name: preset for group in GROUPS.values() for preset in group}


@dataclass(frozen=True)
class Alias:
    """Another name of a preset.

    Args:
        of: our name.
        refuses: options that mean nothing under the other name -> what to write instead.
    """

    of: str
    refuses: Mapping[str, str] = field(default_factory=dict)


ALIASES: Mapping[str, Alias] = {
    "sigmoid": Alias("dpo", {"label_smoothing": "TRL's sigmoid ignores it; write name: cdpo, or name: robust"}),
    "sigmoid_norm": Alias("dpo_norm", {"label_smoothing": "TRL's sigmoid_norm ignores it; write name: dpo_norm"}),
    "exo_pair": Alias("exo"),
    "nca_pair": Alias("nca", {"label_smoothing": "TRL's nca_pair ignores it; write name: nca"}),
    "tpo-l": Alias("tpo_l"),
    "cyclealign": Alias("rrhf"),
    "selfee": Alias("spa"),
    "omni_dpo": Alias("uni_dpo"),
    "tdpo": Alias("tdpo2"),
}


NOT_HERE: Mapping[str, str] = {
    "more": "its weights of data sets solve for the shortest mixture of their gradients on the output head, and a step "
    "has one gradient, of the sum; give the rows of each data set weights of their own instead",
    "halva": "it compares aligned phrases inside two answers, a margin for each, beside a divergence on other rows; "
    "rows mark tokens with weights, but do not say which phrase answers which: take mask_dpo or ddpo on such rows",
    "nash_md": "it is a policy gradient on answers drawn in every step, half of them of a mixture of policy and "
    "reference, with a judge beside it; rows are given here: sppo takes rates of wins from them",
    "p3o": "it is a policy gradient on responses drawn anew in every step; rows are given here",
}
"""Papers that people look for, and why there is no preset: the reason, and what to do instead."""


def preset_named(name: str) -> Preset:
    """Return the preset of this name, ours or another's.

    Raises:
        ConfigError: there is none.
    """
    if name in ALIASES:
        return PRESETS[ALIASES[name].of]
    if name in PRESETS:
        return PRESETS[name]
    written = str(name).lower().replace("-", "_")
    if written in NOT_HERE:
        raise ConfigError(f"objective {show(name)} is not here: {NOT_HERE[written]}")
    near = get_close_matches(str(name).lower(), [*PRESETS, *ALIASES], n=1)
    meant = f"; did you mean {near[0]!r}?" if near else "."
    raise ConfigError(f"unknown objective {show(name)}{meant} There are: {', '.join(PRESETS)}")


def readers_of(option: str) -> list[str]:
    """Return the names of the presets that read an option."""
    return [preset.name for preset in PRESETS.values() if option in preset.options]
