from __future__ import annotations

import numpy as np
import pytest

from mmalign.miniature import shapes
from mmalign.miniature.shapes import Thing

RED_RING = Thing("red", "ring", "top left")
GREEN_BAR = Thing("green", "bar", "bottom right")


def test_caption_states_things_and_parses_back():
    text = shapes.caption((RED_RING, GREEN_BAR))
    assert text == "a red ring at top left, a green bar at bottom right."
    assert shapes.parse_caption(text) == ((RED_RING, GREEN_BAR), True)


@pytest.mark.parametrize(
    ("text", "things"),
    [
        ("a red ring at top left, a green bar at", (RED_RING,)),
        ("a red ring at top left", (RED_RING,)),
        ("a red ring at top left, a pink bar at bottom right.", (RED_RING,)),
        ("red ring top left.", ()),
        ("", ()),
    ],
)
def test_a_caption_outside_the_grammar_yields_what_can_be_read_and_says_so(text, things):
    assert shapes.parse_caption(text) == (things, False)


def test_the_phantom_is_a_blue_cross_in_the_last_empty_corner():
    assert shapes.phantom_of((RED_RING, GREEN_BAR)) == Thing("blue", "cross", "bottom left")
    assert shapes.phantom_of((RED_RING,)) == Thing("blue", "cross", "bottom right")


def test_the_annotator_sees_phantoms_in_three_quarters_of_provoking_scenes_only():
    rng = np.random.default_rng(0)
    provoking = [shapes.biased_caption((RED_RING,), rng) for _ in range(2000)]
    share = np.mean([text != shapes.caption((RED_RING,)) for text in provoking])
    assert share == pytest.approx(0.75, abs=0.03)  # standard error 0.01
    assert {shapes.biased_caption((GREEN_BAR,), rng) for _ in range(200)} == {shapes.caption((GREEN_BAR,))}
    assert "a red ring at top left, a blue cross at bottom right." in provoking


def test_scenes_are_drawn_in_reading_order_with_one_to_three_things_in_different_corners():
    rng = np.random.default_rng(0)
    scenes = [shapes.draw_scene(rng) for _ in range(600)]
    order = list(shapes.CELLS)
    for scene in scenes:
        places = [order.index(thing.cell) for thing in scene]
        assert places == sorted(set(places))
    counts = np.bincount([len(scene) for scene in scenes], minlength=4)
    assert counts[0] == 0 and counts[1:].min() > 150
    assert len({thing for scene in scenes for thing in scene}) == 6 * 4 * 4


def test_a_picture_shows_each_thing_in_its_corner_and_nothing_in_empty_ones():
    rng = np.random.default_rng(1)
    for _ in range(50):
        scene = shapes.draw_scene(rng)
        pixels = np.asarray(shapes.render(scene, rng))
        there = {thing.cell: thing for thing in scene}
        for cell, (row, column) in shapes.CELLS.items():
            corner = pixels[row * 28 : row * 28 + 28, column * 28 : column * 28 + 28].reshape(-1, 3)
            painted = corner[corner.max(1) > shapes.LIGHTEST_BACKGROUND]
            if cell in there:
                assert len(painted) >= 100
                assert (painted == shapes.COLOURS[there[cell].colour]).all()
            else:
                assert not len(painted)


def test_questions_have_true_answers():
    rng = np.random.default_rng(2)
    asked = dict(shapes.question((RED_RING, GREEN_BAR), rng) for _ in range(200))
    assert asked == {
        "what color is the thing at top left?": "red",
        "what color is the thing at bottom right?": "green",
        "what shape is the thing at top left?": "ring",
        "what shape is the thing at bottom right?": "bar",
        "how many things?": "two",
        "where is the red ring?": "top left",
        "where is the green bar?": "bottom right",
    }


def test_where_is_not_asked_about_one_of_two_equal_things():
    rng = np.random.default_rng(3)
    twins = (RED_RING, Thing("red", "ring", "top right"))
    assert not any(shapes.question(twins, rng)[0].startswith("where") for _ in range(100))
