"""What a row keeps of where it came from when something new is made of it."""

from __future__ import annotations

from dataclasses import replace

from mmalign.formats.preference import Preference


def marked(preference: Preference, how: str) -> Preference:
    """Return the row with `how` added to what was done to it, under "relabel" in its provenance."""
    before = preference.provenance.get("relabel")
    done = how if before is None else f"{before}, {how}"
    return replace(preference, provenance={**preference.provenance, "relabel": done})
