"""The world of bedrooms: its truths are good placements, its annotator's are not, and rows say what they should."""

from itertools import product

import numpy as np
import pytest

from mmalign.formats.scene_task import task_of
from mmalign.miniature import scene_rows, scenes
from mmalign.miniature.scenes import Room
from mmalign.modalities.answers import answer_kind
from mmalign.modalities.scene_losses import change, placement

ROOMS = [
    Room(3.0, 4.2, wall, other, piece, "oak")
    for wall, piece, other in product(scenes.WALLS, scenes.PIECES, ("", *scenes.PIECES))
    if piece != other
] + [Room(width, depth, "right", "", "desk", "white") for width, depth in product(scenes.SIDES_M, scenes.SIDES_M)]


@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_a_truth_is_inside_clear_of_all_and_comes_back(room):
    task, truth = scenes.task(room), scenes.truth(room)
    assert placement(task.scene.added(truth)).pbl_m3 == 0
    assert task.item(task.response(task.scene.added(truth)).text) == truth


def test_places_are_those_of_the_designer():
    # Head at the right wall of a room 3.0 wide (x to 1.5) and 4.2 deep (z to 2.1): the bed reaches 2 m into it.
    room = Room(3.0, 4.2, "right", "", "wardrobe", "oak")
    (bed,) = scenes.task(room).scene.objects
    assert bed.pos == (0.5, 0.0, 0.0)
    wardrobe = scenes.truth(room)
    assert wardrobe.pos == (-1.2, 0.0, 0.0)  # half of its depth of 0.6 from the wall at -1.5
    # Seen from the foot of the bed, at smaller x, right is where z is large: the bed's half of 0.8, a gap, half of 0.4.
    assert scenes.truth(room._replace(piece="nightstand")).pos == (1.3, 0.0, 1.05)
    assert scenes.truth(room._replace(piece="desk")).pos == (-1.0, 0.0, 1.8)


def test_the_annotator_is_in_a_hurry_in_two_thirds_of_the_cases():
    rng = np.random.default_rng(0)
    for piece, loss in (("wardrobe", 1.2 * 2.0 * 0.3), ("desk", 1.0 * 0.7 * 0.3), ("nightstand", 0.25 * 0.4 * 0.5)):
        room = Room(4.2, 4.2, "back", "", piece, "oak")
        drawn = [scenes.hurried(room, rng) for _ in range(300)]
        hurried = [item for item in drawn if item != scenes.truth(room)]
        assert len(hurried) / 300 == pytest.approx(0.65, abs=0.08)
        scene = scenes.task(room).scene
        assert change(scene, scene.added(hurried[0])).pbl_m3 == pytest.approx(loss, rel=0.05)


def test_rows_are_of_the_task_and_the_truth_comes_first():
    house = scene_rows.draw_house("rooms", 12, seed=3)
    rows = list(scene_rows.comparisons(house, seed=4))
    assert len(rows) >= 10
    for row in rows:
        number = int(row.id.partition(":")[2])
        assert answer_kind(row) == "scene" and not row.media
        assert task_of(row).item(row.chosen.text) == house.truths()[number]
        assert row.rejected.text != row.chosen.text
        assert 0 <= row.difficulty <= 0.75 and row.tags["mistake"] in scene_rows.MISTAKES
    assert rows == list(scene_rows.comparisons(scene_rows.draw_house("rooms", 12, seed=3), seed=4))


def test_rows_may_show_the_room_from_above():
    house = scene_rows.draw_house("rooms", 2, seed=3, is_shown=True)
    (first, _) = scene_rows.demonstrations(house, biased=False, seed=0)
    assert [media.kind for media in first.media] == ["image"]
    assert task_of(first) == house.tasks[0]


def test_the_reward_prefers_what_is_free_to_what_is_not_and_to_what_cannot_be_read():
    house = scene_rows.draw_house("rooms", 3, seed=5)
    truths = [t.response(t.scene.added(item)).text for t, item in zip(house.tasks, house.truths(), strict=True)]
    far = [text.replace('"pos": [', '"pos": [9') for text in truths]
    rows = list(scene_rows.rewarded(house, [(f, t, "none") for f, t in zip(far, truths, strict=True)]))
    assert [(row.chosen.text, row.rejected.text) for row in rows] == [(text, "none") for text in truths]
    assert all((row.chosen.score, row.rejected.score) == (1.0, 0.0) for row in rows)
    assert list(scene_rows.rewarded(house, [(text, text) for text in truths])) == []


def test_words_are_whole_pieces_of_prompts():
    words = scene_rows.words()
    assert {"nightstand", "furniture", "bedroom", "scenegraph"} <= set(words)
    assert len(words) < 120 and all(len(word) > 1 for word in words)
