"""Metrics of layouts against values worked by hand and, where it is installed, an independent solver."""

import math

import numpy as np
import pytest

from mmalign.errors import ConfigError, DataError
from mmalign.evaluate import layout as metrics
from mmalign.formats.layout import Box, Brief, Element, Layout

# Two boxes that share a left edge at 0.1 and overlap by 0.2 x 0.1; a third one far off.
PAIR = np.array([[0.1, 0.1, 0.5, 0.3], [0.1, 0.2, 0.3, 0.6]])
THIRD = np.array([[0.62, 0.7, 0.92, 0.95]])


def layout(*boxes, kinds="text") -> Layout:
    kinds = [kinds] * len(boxes) if isinstance(kinds, str) else kinds
    brief = Brief(id="a", width_px=100, height_px=100, elements=tuple(Element(kind=kind) for kind in kinds))
    made = tuple(Box(x=left, y=top, width=right - left, height=bottom - top) for left, top, right, bottom in boxes)
    return Layout(brief=brief, boxes=made)


def test_boxes_with_a_common_edge_are_aligned():
    assert metrics.alignment(PAIR) == {"ac_layout_gan": 0.0, "layout_gan_pp": 0.0, "ndn": 0.0}


def test_alignment_by_hand():
    # The third box's nearest line: lines of the pair are left .1 .1, middle .3 .2, right .5 .3, top .1 .2, middle
    # .2 .4, bottom .3 .6; its own .62 .77 .92 .7 .825 .95. Nearest: bottom 0.95 - 0.6 = 0.35;
    # across: right 0.92 - 0.5 = 0.42.
    found = metrics.alignment(np.concatenate([PAIR, THIRD]))
    assert found["ac_layout_gan"] == pytest.approx(-math.log(0.65))
    assert found["layout_gan_pp"] == pytest.approx(-math.log(0.65) / 3)
    assert found["ndn"] == pytest.approx(0.42)


def test_official_alignment_looks_at_the_empty_boxes_behind_a_short_layout():
    edges = np.array([[0.05, 0.3, 0.4, 0.5], [0.5, 0.62, 0.93, 0.9]])
    # Corrected: the nearest lines are top against top, 0.32 (left 0.45, middles 0.49 and 0.36, right 0.53, bottom 0.4).
    assert metrics.alignment(edges)["ac_layout_gan"] == pytest.approx(-2 * math.log(1 - 0.32))
    # Official, beside a layout of three: an empty box at (0, 0) is 0.05 from the first box's left edge.
    found = metrics.alignment(edges, compat="official", batch_length=3)
    assert found["ac_layout_gan"] == pytest.approx(-math.log(0.95) - math.log(1 - 0.32))
    assert metrics.alignment(edges, compat="official", batch_length=2) == metrics.alignment(edges)


def test_one_box_and_none_are_aligned_and_overlap_nothing():
    for edges in (THIRD, np.zeros((0, 4))):
        assert set(metrics.alignment(edges).values()) == {0.0}
        assert set(metrics.overlap(edges).values()) == {0.0}
        assert set(metrics.average_iou(edges).values()) == {0.0}


def test_boxes_a_canvas_apart_have_a_finite_misalignment():
    far = np.array([[-3.0, -4.0, -2.5, -3.2], [2.0, 3.0, 2.7, 3.9]])
    assert math.isfinite(metrics.alignment(far)["ac_layout_gan"])
    assert metrics.alignment(far, compat="official")["ac_layout_gan"] == 0.0


def test_overlap_by_hand():
    # They share 0.2 x 0.1 = 0.02 of 0.08 and of 0.08.
    found = metrics.overlap(np.concatenate([PAIR, THIRD]))
    assert found["ac_layout_gan"] == pytest.approx(0.5)
    assert found["layout_gan_pp"] == pytest.approx(0.5 / 3)
    assert found["layout_gan"] == pytest.approx(0.02)


def test_average_iou_by_hand():
    found = metrics.average_iou(np.concatenate([PAIR, THIRD]))
    assert found["vtn"] == pytest.approx(0.02 / 0.14)
    # On 32 x 32 cells: columns 3..16 and rows 3..10 (13 x 7), columns 3..10 and rows 6..19 (7 x 13), together less
    # columns 3..10 and rows 6..10 (7 x 4); the third columns 20..29 and rows 22..30 (9 x 8).
    assert found["blt"] == pytest.approx(0.02 / ((91 + 91 - 28 + 72) / 1024))


def test_mean_iou_is_of_the_same_element_and_leaves_backgrounds_out():
    kinds = ["background", "text", "shape"]
    truth = layout((0, 0, 1, 1), (0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1), kinds=kinds)
    half = layout((0, 0, 1, 1), (0, 0, 0.5, 0.25), (0.5, 0.5, 1, 1), kinds=kinds)
    swapped = layout((0, 0, 1, 1), (0.5, 0.5, 1, 1), (0, 0, 0.5, 0.5), kinds=kinds)
    assert metrics.mean_iou(truth, truth) == 1.0
    assert metrics.mean_iou(half, truth) == pytest.approx(0.75)
    assert metrics.mean_iou(swapped, truth) == 0.0
    with pytest.raises(DataError, match="do not have the same elements in the same order"):
        metrics.mean_iou(truth, layout((0, 0, 1, 1)))


def test_max_iou_assigns_elements_and_layouts_best():
    one = (np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]), ["text", "text"])
    exchanged = (one[0][::-1], ["text", "text"])
    labelled = (one[0][::-1], ["text", "image"])
    assert metrics.max_iou([one], [exchanged]) == 1.0
    assert metrics.max_iou([one], [labelled]) == 0.0  # other categories: nothing can be assigned
    half = (np.array([[0, 0, 0.5, 0.25], [0.5, 0.5, 1, 1]]), ["text", "text"])
    # Two against two: each is assigned to its like, not both to the better.
    assert metrics.max_iou([one, half], [half, one]) == 1.0
    assert metrics.max_iou([one], [half]) == pytest.approx(0.75)


def test_max_iou_of_layouts_needs_no_order_of_elements():
    first = layout((0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1), kinds=["text", "shape"])
    second = layout((0.5, 0.5, 1, 1), (0, 0, 0.5, 0.5), kinds=["shape", "text"])
    assert metrics.max_iou([metrics.labelled(first)], [metrics.labelled(second)]) == 1.0


def test_an_unknown_mode_is_named():
    with pytest.raises(ConfigError, match="compat 'offical' is unknown; use one of official, corrected"):
        metrics.alignment(PAIR, compat="offical")
