"""The measurement of image reliance goes all the way in small, and counts what it says it counts."""

import json
import sys
from pathlib import Path

import pytest

from mmalign.formats import store

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import measure_image_reliance


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A measurement of one step each; nothing is learned, but everything is done."""
    place = tmp_path_factory.mktemp("runs") / "7"
    sizes = {"BLIND_STEPS": 1, "ROWS_PER_STEP": 4, "STEPS": 1, "PAIRS_PER_STEP": 4}
    sizes |= {"LEARNED": 6, "FRESH": 4, "HELD_OUT": 5}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in sizes.items():
            patch.setattr(measure_image_reliance, name, value)
        place.mkdir()
        found = measure_image_reliance.measure(place, 7)
    return place, found


def test_every_model_is_measured_under_every_view(measured):
    _, found = measured
    assert list(found) == ["blind", "dpo", "mdpo"]
    assert all(list(figures) == ["blank", "another row's", "pairs in order"] for figures in found.values())


def test_captions_to_learn_from_are_of_other_pictures_and_pairs_of_their_own(measured):
    place, _ = measured
    blind = list(store.read_jsonl(place / "rows" / "blind.jsonl"))
    assert len(blind) == 6
    for row in store.read_jsonl(place / "rows" / "pairs.jsonl"):
        assert row.chosen.text.removesuffix(".") in row.rejected.text
        assert row.rejected.text.endswith("a blue cross at " + row.rejected.text.rsplit(" at ", 1)[1])


def test_the_other_picture_is_that_of_the_next_row(measured):
    place, _ = measured
    rows = list(store.read_jsonl(place / "rows" / "held_out.jsonl"))
    own = [row.media[0].uri for row in rows]
    assert [row.rejected.media[0].uri for row in rows] == own[1:] + own[:1]


def test_what_is_learned_from_says_so(measured):
    place, _ = measured
    assert json.loads((place / "mdpo" / "manifest.json").read_text())["objective"].startswith("mdpo(beta=0.3")
