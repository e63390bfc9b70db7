from __future__ import annotations

import pytest

from mmalign.errors import DataError
from mmalign.evaluate import captions

CAT, DOG, FOX = "cat", "dog", "fox"


def scored(stated, present, phantom=FOX, well_formed=True):
    values = captions.score([stated], [present], phantoms=[phantom], well_formed=[well_formed])
    return {name: float(array[0]) for name, array in values.items()}


def test_the_truth_scores_as_the_truth():
    assert scored([CAT, DOG], [DOG, CAT]) == {
        "hallucination": 0,
        "phantom": 0,
        "recall": 1,
        "count": 1,
        "exact": 1,
    }


def test_the_phantom_is_a_hallucination_with_full_recall_and_a_wrong_count():
    assert scored([CAT, DOG, FOX], [CAT, DOG]) == {
        "hallucination": 1,
        "phantom": 1,
        "recall": 1,
        "count": 0,
        "exact": 0,
    }


def test_saying_less_hallucinates_nothing_and_loses_recall():
    values = scored([CAT], [CAT, DOG])
    assert (values["hallucination"], values["recall"], values["count"], values["exact"]) == (0, 0.5, 0, 0)


def test_a_wrong_thing_in_place_of_a_right_one_keeps_the_count():
    values = scored([CAT, "cow"], [CAT, DOG])
    assert (values["hallucination"], values["phantom"], values["recall"], values["count"]) == (1, 0, 0.5, 1)


def test_a_repetition_is_no_hallucination_but_spoils_count_and_exactness():
    values = scored([CAT, CAT], [CAT])
    assert (values["hallucination"], values["recall"], values["count"], values["exact"]) == (0, 1, 0, 0)


def test_a_caption_that_cannot_be_read_to_its_end_is_not_exact():
    assert scored([CAT], [CAT], well_formed=False)["exact"] == 0


def test_summary_and_comparison_are_means_over_examples():
    before = captions.score([[CAT, FOX], [DOG]], [[CAT], [DOG]], phantoms=[FOX, FOX], well_formed=[True, True])
    after = captions.score([[CAT], [DOG]], [[CAT], [DOG]], phantoms=[FOX, FOX], well_formed=[True, True])
    assert captions.summarise(before)["hallucination"]["mean"] == 0.5
    difference = captions.compare(before, after)["hallucination"]
    assert (difference.mean, difference.low, difference.high) == (-0.5, -1.0, 0.0)


def test_unequal_or_empty_truths_are_refused():
    with pytest.raises(DataError, match=r"equally many, got \[1, 2\]"):
        captions.score([[CAT]], [[CAT], [DOG]], phantoms=[FOX], well_formed=[True])
    with pytest.raises(DataError, match="nothing is there"):
        captions.score([[CAT]], [[]], phantoms=[FOX], well_formed=[True])
