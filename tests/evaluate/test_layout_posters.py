"""PosterLayout's eight metrics against values worked by hand, in both modes."""

import math

import numpy as np
import pytest

from mmalign.errors import ConfigError, DataError
from mmalign.evaluate.layout_posters import Poster, gradients, score

SIDE = 100


def poster(boxes, classes, **pictures) -> Poster:
    edges = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return Poster(edges=edges, classes=np.array(classes), width_px=SIDE, height_px=SIDE, **pictures)


# A title on an underlay that it leaves at the right, and a logo beneath; all share no line but one.
TITLE, LOGO, UNDERLAY = (20, 20, 70, 40), (30, 60, 50, 90), (10, 15, 60, 45)
SCENE = poster([TITLE, LOGO, UNDERLAY], [1, 2, 3])


def test_validity_counts_what_is_seen_and_leaves_the_rest_out():
    unseen = (99.99, 0, 140, 10)  # 0.01 x 10 pixels lie on the canvas: a hundredth of a thousandth
    one = poster([TITLE, unseen, (0, 0, 0, 0)], [1, 2, 0])
    assert score([one])["val"] == 0.5
    assert score([one])["ove"] == 0.0


def test_a_box_beyond_the_corner_is_seen_by_the_official_program_alone():
    beyond = poster([TITLE, (150, 150, 200, 200)], [1, 2])
    assert score([beyond])["val"] == 0.5
    assert score([beyond], compat="official")["val"] == 1.0


def test_overlap_is_of_elements_that_are_no_underlays():
    assert score([SCENE])["ove"] == 0.0
    crossing = poster([TITLE, (20, 30, 70, 50), UNDERLAY], [1, 1, 3])
    # 50 x 10 of 50 x 20 each: IoU 1/3, by two elements.
    assert score([crossing])["ove"] == pytest.approx(1 / 6)
    assert score([poster([UNDERLAY], [3])])["ove"] == 0.0


def test_alignment_in_both_modes():
    # Lines by 100: left 20 30 10, middle 45 40 35, right 70 50 60, top 20 60 15, middle 30 75 30, bottom 40 90 45.
    # Title and underlay share the middle from top to bottom; the logo is 5 from the title's middle across.
    assert score([SCENE])["ali"] == pytest.approx(-math.log10(0.95))
    # Official: the nearest pair of the layout stands for all three, and that one is 0 apart.
    assert score([SCENE], compat="official")["ali"] == 0.0
    apart = poster([TITLE, LOGO], [1, 2])
    assert score([apart])["ali"] == pytest.approx(-2 * math.log10(0.95))
    assert score([apart], compat="official")["ali"] == pytest.approx(-2 * math.log10(0.95))


def test_a_poster_of_one_element_counts_as_aligned():
    assert score([poster([TITLE], [1]), SCENE])["ali"] == pytest.approx(-math.log10(0.95) / 2)


def test_underlays_in_both_modes():
    # 40 of the title's 50 columns lie on it.
    assert score([SCENE])["und_l"] == pytest.approx(0.8)
    assert score([SCENE])["und_s"] == 0.0
    assert score([SCENE], compat="official")["und_s"] == 1.0
    inside = poster([(20, 20, 50, 40), UNDERLAY], [1, 3])
    assert score([inside])["und_s"] == score([inside])["und_l"] == 1.0
    # Posters without an underlay are not looked at.
    assert score([inside, poster([TITLE], [1])])["und_s"] == 1.0
    assert score([inside, poster([TITLE], [1])])["underlays"] == 1.0
    assert score([poster([UNDERLAY], [3])])["und_l"] == 0.0


def test_utility_and_occlusion_by_hand():
    saliency = np.zeros((SIDE, SIDE))
    saliency[:, :50] = 1.0
    made = score([poster([(40, 0, 60, 100)], [1], saliency=saliency)])
    assert made["uti"] == pytest.approx(10 / 50)
    assert made["occ"] == pytest.approx(0.5)


def test_boxes_are_cut_at_the_canvas_or_count_from_the_other_end():
    saliency = np.zeros((SIDE, SIDE))
    saliency[:, 90:] = 1.0
    one = poster([(-10, 0, 95, 100)], [1], saliency=saliency)
    assert score([one])["uti"] == 1.0
    # Official: columns from -10, which is 90, to 95.
    assert score([one], compat="official")["uti"] == 0.0
    assert score([one], compat="official")["occ"] == 1.0


def edge_picture(low: int, high: int) -> np.ndarray:
    picture = np.full((SIDE, SIDE, 3), low, dtype=np.uint8)
    picture[:, 50:] = high
    return picture


def test_gradients_of_an_edge():
    # Sobel across an edge of height h is 4 h in the two columns beside it; scaled by the largest that is 1.
    strength = gradients(edge_picture(10, 20))
    assert strength[50, 49] == strength[50, 50] == 1.0
    assert strength.sum() == 2 * SIDE
    assert (gradients(edge_picture(20, 10)) == strength).all()
    assert not gradients(edge_picture(7, 7)).any()


def test_official_gradients_lose_edges_to_darker_pixels_and_wrap():
    # 4 x 2 = 8, squared 64; to darker pixels nothing is left.
    assert gradients(edge_picture(10, 12), "official").sum() == 2 * SIDE
    assert not gradients(edge_picture(12, 10), "official").any()
    # 4 x 4 = 16, squared 256, which is 0 modulo 256.
    assert not gradients(edge_picture(10, 14), "official").any()


def test_readability_is_of_texts_without_underlay():
    picture = edge_picture(10, 20)
    text = poster([(40, 0, 60, 100)], [1], picture=picture)
    assert score([text])["rea"] == pytest.approx(2 / 20)
    covered = poster([(40, 0, 60, 100), (40, 0, 50, 100)], [1, 3], picture=picture)
    assert score([covered])["rea"] == pytest.approx(1 / 10)
    assert score([poster([(40, 0, 60, 100)], [2], picture=picture)])["rea"] == 0.0


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(DataError, match="there is no element to score"):
        score([poster([(0, 0, 1, 1)], [0])])
    with pytest.raises(DataError, match="box that is not finite"):
        poster([(0, 0, math.nan, 1)], [1])
    with pytest.raises(DataError, match="1 classes and boxes of shape"):
        Poster(edges=np.zeros((2, 4)), classes=np.array([1]))
    with pytest.raises(
        DataError, match=r"saliency of a poster must be of the canvas's size \(100, 100\), got \(9, 9\)"
    ):
        poster([TITLE], [1], saliency=np.zeros((9, 9)))
    with pytest.raises(ConfigError, match="compat 'both' is unknown"):
        score([SCENE], compat="both")
