"""Rows of layouts: what each kind becomes, and what is refused with which words."""

import copy
import math

import pytest

from mmalign.errors import RowError
from mmalign.formats.layout import Box
from mmalign.formats.layout_task import task_of
from mmalign.formats.media import MediaRef
from mmalign.sources import layout
from mmalign.sources.detect import parse
from mmalign.sources.read import RawRow

OURS, COMPARED, CRELLO, WEB = layout.EXAMPLES.values()


def preference(row, format=None):
    return parse(RawRow("rows.jsonl", 1, row), format)


def changed(row, **changes):
    return {**copy.deepcopy(row), **changes}


def refused(row) -> str:
    with pytest.raises(RowError) as error:
        preference(row)
    return str(error.value)


def test_our_row_is_a_demonstration_of_its_layout():
    made = preference(OURS)
    assert len(made.responses) == 1
    # 128 bins: 0.1 x 128 = 12.8, 0.8 x 128 = 102.4, 0.2 x 128 = 25.6, 0.75 x 128 = 96, 0.4 x 128 = 51.2
    assert made.chosen.text == (
        '[{"idx":0,"bbox":[0,0,127,127]},{"idx":1,"bbox":[12,12,102,25]},{"idx":2,"bbox":[12,96,51,12]}]'
    )
    assert task_of(made).brief.elements[2].category == "rounded"


def test_the_form_is_that_of_the_row_or_of_the_format():
    assert preference(OURS, format="layout_tokens").chosen.text.startswith("<pos_0><pos_0><pos_127><pos_127><pos_12>")
    row = changed(OURS, form="tokens", bins=32, overflow=0.5)
    made = preference(row)
    assert made.provenance["source"] == "layout_tokens"
    # From -0.5 to 1.5 in 32 bins of 1/16: 0 is the eighth, 1 wide is 16.
    assert made.chosen.text.startswith("<pos_8><pos_8><pos_16><pos_16>")


def test_layouts_that_are_compared_share_their_elements():
    made = preference(COMPARED)
    task = task_of(made)
    assert [task.layout(response.text).boxes[2].y for response in made.responses] == [96.5 / 128, 32.5 / 128]
    listed = changed(
        COMPARED, layouts=[{"boxes": COMPARED["chosen"], "score": 2}, {"boxes": COMPARED["rejected"], "score": "1"}]
    )
    del listed["chosen"], listed["rejected"]
    again = preference(listed)
    assert [response.text for response in again.responses] == [response.text for response in made.responses]
    assert [response.score for response in again.responses] == [2.0, 1.0]


def test_what_the_grid_cuts_off_is_tagged():
    row = copy.deepcopy(OURS)
    row["elements"][1]["bbox"] = [-0.1, 0.1, 0.8, 0.2]
    assert preference(row).tags == {"overflow": "cut"}
    assert preference({**row, "overflow": 0.25}).tags == {}


def test_crello_columns_become_elements_in_the_order_of_painting():
    row = changed(
        CRELLO,
        type=["imageElement", "imageElement", "textElement", "svgElement", "maskElement"],
        left=[-0.005, 0.2, 0.1, 0.0, 0.0],
        top=[0.0, 0.2, 0.1, -0.3, 0.0],
        width=[1.01, 0.3, 0.8, 0.5, 0.1],
        height=[1.0, 0.3, 0.2, 0.5, 0.1],
        angle=[0.0, math.pi / 2, 0.0, 0.0, 0.0],
        opacity=[1.0, 0.5, 1.0, 1.0, 1.0],
        text=["", "", "Summer sale", "", ""],
        image=[{"bytes": b"png", "path": None}, None, None, None, None],
        font_size=[0.0, 0.0, 80.0, 0.0, 0.0],
        text_align=["", "", "left", "", ""],
    )
    made = layout.layout_of(row)
    elements = made.brief.elements
    assert [element.kind for element in elements] == ["background", "image", "text", "shape", "image"]
    assert (elements[1].angle_deg, elements[1].opacity) == (pytest.approx(90), 0.5)
    assert (elements[2].text, elements[2].font_size_px, elements[2].text_align) == ("Summer sale", 80.0, "left")
    assert elements[0].asset == MediaRef(kind="image", content=b"png")
    assert made.boxes[3] == Box(x=0.0, y=-0.3, width=0.5, height=0.5)
    assert made.overflowing() == (0, 3)
    assert preference(row).media == (elements[0].asset,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": [0, 4]}, "elements[0].type: kind of element is unknown (got 0); known are coloredBackground"),
        ({"left": [0.0]}, "left: columns of elements are not equally long (got [0.0]); the column type has 2 entries"),
        ({"width": [1.0, 0.0]}, "elements[1].bbox: box is empty"),
        ({"top": [0.0, math.nan]}, "elements[1].bbox: number is not finite"),
        ({"height": [1.0, 999.0]}, "elements[1].bbox: box is far larger than its canvas"),
        ({"opacity": [1.0, 2.0]}, "elements[1].opacity: opacity must lie between 0 and 1"),
        ({"angle": [0.0, "x"]}, "elements[1].angle: must be a number"),
        ({"canvas_width": None}, "canvas_width: must be a number"),
        ({"canvas_height": 0}, "canvas.height_px: side of the canvas is out of bounds"),
    ],
)
def test_a_broken_crello_row_is_refused_and_the_element_named(changes, words):
    assert words in refused(changed(CRELLO, **changes))


def test_web_pages_keep_their_leaves():
    made = layout.layout_of(WEB)
    assert [element.kind for element in made.brief.elements] == ["text", "shape"]
    assert (made.brief.width_px, made.brief.height_px) == (1280, 720)
    assert made.boxes[1] == Box(x=64 / 1280, y=300 / 720, width=200 / 1280, height=60 / 720)
    assert preference(WEB).media == ()  # the screenshot would show the answer


def test_web_pages_leave_out_what_is_tiny_beside_the_page_or_twice_there():
    boxes = [
        [0, 0, 1280, 720],
        [10, 10, 400, 100],
        [10, 10, 400, 100],
        [0, 0, 2, 2],
        [2000, 0, 2100, 700],
        [30, 200, 30, 400],
    ]
    row = changed(WEB, contentBoxes=boxes, labels=[["WebArea"], ["img"], ["link"], ["link"], ["link"], ["link"]])
    assert [element.kind for element in layout.layout_of(row).brief.elements] == ["image"]


def test_web_pages_without_a_viewport_in_their_name_take_the_largest_box():
    row = changed(WEB, key_name="iPad-Pro")
    assert (layout.layout_of(row).brief.width_px, layout.layout_of(row).brief.height_px) == (1280, 720)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (changed(WEB, contentBoxes=[[0, 0, 1]]), "contentBoxes: columns of elements are not equally long"),
        (changed(WEB, contentBoxes=[[0, 0, 1], [], []]), "contentBoxes[0]: box is not four numbers"),
        (changed(WEB, contentBoxes=[], labels=[]), "elements: layout has no elements, or too many (got 0)"),
        (changed(COMPARED, rejected=[[0, 0, 1, 1]]), "rejected: layout needs one box for every element"),
        (
            changed(COMPARED, rejected=[[0, 0, 1, 1], [0, 0, 1, 0], [0, 0, 1, 1]]),
            "rejected.elements[1].bbox: box is empty",
        ),
        (changed(COMPARED, rejected=None), "rejected: layout needs one box for every element"),
        (changed(OURS, layouts=[]), "layouts: layouts must be a list, best first (got [])"),
        (changed(OURS, form="words"), "form: form of layouts is unknown (got 'words'); use json or tokens"),
        (changed(OURS, bins=1), "bins: grid is out of bounds (got 1); a grid needs 2 to 10,000 bins"),
        (changed(OURS, elements=[]), "elements: layout has no elements, or too many (got 0)"),
    ],
)
def test_a_broken_row_is_refused_in_words(row, words):
    assert words in refused(row)
