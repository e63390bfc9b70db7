"""Collating prompt trees, with every index worked out by hand and padding ids that exist nowhere."""

import math
from dataclasses import replace

import pytest
import torch
from prompt_rows import Tree, ids

from mmalign.engine.families import FAMILIES, Family
from mmalign.engine.tree import NOT_OF_THE_ROW, collate, collate_media, places_of_rows
from mmalign.engine.views import without_history

TEXT = Family(name="llama")
IMPOSSIBLE = -77


def two_rows():
    """Prompts of 3 and 2 tokens, responses of 2 and 1, and of 3 tokens."""
    return [
        Tree(
            id="a",
            prompt_ids=ids(11, 12, 13),
            response_ids=(ids(21, 22), ids(31)),
            weight=2.0,
            margin=0.5,
            scores=(7.0, 5.0),
        ),
        Tree(id="b", prompt_ids=ids(14, 15), response_ids=(ids(41, 42, 43),), tags={"source": "x"}),
    ]


def test_a_row_is_prompt_then_responses_then_padding():
    batch = collate(two_rows(), TEXT, IMPOSSIBLE)
    assert batch.input_ids.tolist() == [
        [11, 12, 13, 21, 22, 31],
        [14, 15, 41, 42, 43, IMPOSSIBLE],
    ]
    assert batch.segment.tolist() == [[0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, -1]]
    assert batch.num_tokens == 11


def test_every_token_keeps_its_place_in_its_own_stand_alone_sequence():
    batch = collate(two_rows(), TEXT, IMPOSSIBLE)
    assert batch.index.tolist() == [[0, 1, 2, 3, 4, 3], [0, 1, 2, 3, 4, 0]]


def test_the_last_prompt_token_predicts_the_first_token_of_every_response():
    batch = collate(two_rows(), TEXT, IMPOSSIBLE)
    assert batch.target_rows.tolist() == [0, 0, 0, 1, 1, 1]
    assert batch.target_columns.tolist() == [3, 4, 5, 2, 3, 4]
    assert batch.predicting_columns.tolist() == [2, 3, 2, 1, 2, 3]
    assert batch.targets.tolist() == [21, 22, 31, 41, 42, 43]


def test_cells_of_missing_tokens_and_missing_responses_are_masked():
    batch = collate(two_rows(), TEXT, IMPOSSIBLE)
    assert batch.response_mask.int().tolist() == [[[1, 1, 0], [1, 0, 0]], [[1, 1, 1], [0, 0, 0]]]
    assert batch.response_lengths.tolist() == [[2, 1], [3, 0]]
    assert batch.response_starts.tolist() == [[3, 5], [2, 2]]
    assert batch.levels.tolist() == [[0, 1], [0, -1]]


def test_facts_of_a_row_travel_with_it():
    batch = collate(two_rows(), TEXT, IMPOSSIBLE)
    assert batch.ids == ("a", "b")
    assert batch.weight.tolist() == [2.0, 1.0]
    assert batch.margin[0] == 0.5
    assert batch.scores[0].tolist()[:2] == [7.0, 5.0]
    assert batch.scores[1].isnan().all()
    assert math.isnan(batch.margin[1])
    assert batch.tags == ({}, {"source": "x"})
    assert batch.token_weights is None


def test_named_scores_travel_by_name_and_are_nan_where_a_row_or_a_response_has_none():
    judged = Tree(prompt_ids=ids(1), response_ids=(ids(3), ids(4)), numbers={"judge": (-1.5, math.nan)})
    counted = Tree(prompt_ids=ids(1), response_ids=(ids(3),), numbers={"tokens/a": (7.0,)})
    batch = collate([judged, counted], TEXT, IMPOSSIBLE)
    assert set(batch.numbers) == {"judge", "tokens/a"}
    assert batch.numbers["judge"][0].tolist() == [-1.5, pytest.approx(math.nan, nan_ok=True)]
    assert batch.numbers["judge"][1].isnan().all()
    assert batch.numbers["tokens/a"][:, 0].tolist() == [pytest.approx(math.nan, nan_ok=True), 7.0]
    assert batch.numbers["tokens/a"].dtype == torch.float64


@pytest.mark.parametrize("said", [{"numbers": {"judge": (1.0,)}}, {"scores": (1.0,)}, {"response_weights": (ids(1),)}])
def test_what_is_said_of_fewer_responses_than_there_are_is_not_filled_up(said):
    tree = replace(Tree(id="a", prompt_ids=ids(1), response_ids=(ids(3), ids(4))), **said)
    with pytest.raises(ValueError, match=r"row a: 2 responses, and \w+ of 1"):
        collate([tree], TEXT, IMPOSSIBLE)


def test_places_of_rows_leave_out_views_and_answers_to_other_prompts():
    """Two tokens of an own answer and one of a borrowed one; then the same answer in a view."""
    row, other = (Tree(prompt_ids=ids(1), response_ids=answers) for answers in ((ids(3, 4), ids(5)), (ids(3, 4),)))
    batch = collate([row, other, row, other], TEXT, IMPOSSIBLE, views=(without_history(),))
    batch = replace(batch, levels=torch.tensor([[0, NOT_OF_THE_ROW]] * 4))
    assert places_of_rows(batch).tolist() == [0, 1, 3, 4]


def test_token_weights_are_one_where_a_row_has_no_spans():
    weighted = Tree(prompt_ids=ids(1, 2), response_ids=(ids(3, 4),), response_weights=(torch.tensor([0.0, 5.0]),))
    plain = Tree(prompt_ids=ids(1), response_ids=(ids(3),))
    batch = collate([weighted, plain], TEXT, IMPOSSIBLE)
    assert batch.token_weights.tolist() == [[[0.0, 5.0]], [[1.0, 0.0]]]


def test_prime_lengths_meet_no_padding_id_in_any_real_cell():
    lengths = [(7, (2, 3, 5)), (3, (11,)), (13, (1, 17))]
    trees = [
        Tree(prompt_ids=torch.full((p,), 5), response_ids=tuple(torch.full((r,), 6) for r in rs)) for p, rs in lengths
    ]
    batch = collate(trees, TEXT, IMPOSSIBLE)
    assert batch.input_ids.shape == (3, 31)
    assert batch.response_mask.shape == (3, 3, 17)
    assert batch.num_tokens == 17 + 14 + 31
    assert int((batch.input_ids == IMPOSSIBLE).sum()) == 3 * 31 - batch.num_tokens
    assert set(batch.targets.tolist()) == {6}
    assert set(batch.input_ids[batch.target_rows, batch.predicting_columns].tolist()) == {5, 6}


def test_media_of_rows_follow_each_other_and_text_rows_have_none():
    media = [
        {"pixel_values": torch.full((4, 6), 1.0), "image_grid_thw": torch.tensor([[1, 2, 2]])},
        {},
        {"pixel_values": torch.full((8, 6), 2.0), "image_grid_thw": torch.tensor([[1, 2, 2], [1, 2, 2]])},
    ]
    collated, sizes = collate_media(media, FAMILIES["qwen2_5_vl"])
    assert collated["pixel_values"].shape == (12, 6)
    assert collated["pixel_values"][:, 0].tolist() == [1.0] * 4 + [2.0] * 8
    assert sizes == {"pixel_values": (4, 0, 8), "image_grid_thw": (1, 0, 2)}


def test_images_cut_into_fewer_patches_are_filled_up_with_zeros():
    media = [
        {"pixel_values": torch.ones(1, 3, 3, 2, 2), "image_sizes": torch.tensor([[2, 4]])},
        {"pixel_values": torch.ones(1, 5, 3, 2, 2), "image_sizes": torch.tensor([[4, 4]])},
    ]
    collated, _ = collate_media(media, FAMILIES["llava_next"])
    assert collated["pixel_values"].shape == (2, 5, 3, 2, 2)
    assert collated["pixel_values"].sum((2, 3, 4)).tolist() == [[12, 12, 12, 0, 0], [12] * 5]


def test_a_text_row_among_image_rows_is_a_row_of_zero_images_where_the_family_wants_rows():
    media = [{"pixel_values": torch.ones(1, 2, 3, 4, 4)}, {}, {"pixel_values": torch.ones(1, 3, 3, 4, 4)}]
    collated, sizes = collate_media(media, FAMILIES["idefics3"])
    assert collated["pixel_values"].shape == (3, 3, 3, 4, 4)
    assert collated["pixel_values"].sum((2, 3, 4)).tolist() == [[48, 48, 0], [0, 0, 0], [48, 48, 48]]
    assert sizes["pixel_values"] == (1, 1, 1)


def test_a_batch_without_any_media_has_none():
    assert collate_media([{}, {}], FAMILIES["idefics3"]) == ({}, {})


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_batch_moves_as_one(device):
    batch = collate(two_rows(), TEXT, 0).to(device)
    assert {batch.input_ids.device.type, batch.response_mask.device.type, batch.weight.device.type} == {device}
    assert batch.ids == ("a", "b")
