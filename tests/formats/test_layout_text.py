"""Layouts as records, as JSON, as text and as a prompt: exact ways back, and refusals that name the element."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmalign.errors import ConfigError, RowError
from mmalign.formats.layout import Box, Brief, Element, Layout
from mmalign.formats.layout_json import from_json, to_json
from mmalign.formats.layout_task import Task, asks_for_layout, task_of
from mmalign.formats.layout_text import Grid, read, write
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response

PHOTO = MediaRef(kind="image", uri="lake.jpg")
BRIEF = Brief(
    id="poster",
    width_px=1080,
    height_px=1350,
    elements=(
        Element(kind="background", asset=PHOTO),
        Element(kind="text", text='Ask "Ä"\n<now> {"a":1}', font="Lora", font_size_px=60, text_align="left"),
        Element(kind="shape", category="rounded", colour=(1, 2, 3), opacity=0.5, angle_deg=-12.5, z=-1),
    ),
)
BOXES = (
    Box(x=0, y=0, width=1, height=1),
    Box(x=0.1, y=0.2, width=0.5, height=0.25),
    Box(x=-0.2, y=0.9, width=0.3, height=0.2),
)
LAYOUT = Layout(brief=BRIEF, boxes=BOXES)
TEXTS = Brief(id="", width_px=10, height_px=10, elements=(Element(kind="text", text="SALE"), Element(kind="shape")))


def refused(call, *arguments) -> RowError:
    with pytest.raises(RowError) as error:
        call(*arguments)
    return error.value


# ---- records -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ((0, 0, 0, 1), "box is empty"),
        ((0, 0, 1, -0.5), "box is empty"),
        ((0, float("nan"), 1, 1), "number is not finite"),
        ((0, 0, float("inf"), 1), "number is not finite"),
        ((0, 0, 11, 1), "box is far larger than its canvas"),
        ((-10.5, 0, 1, 1), "box is far larger than its canvas"),
        (("0", 0, 1, 1), "number is not finite"),
    ],
)
def test_a_box_that_cannot_be_is_refused(values, reason):
    assert refused(lambda: Box(**dict(zip(("x", "y", "width", "height"), values, strict=True)))).reason == reason


def test_overflow_is_kept_and_counted():
    assert LAYOUT.boxes[2].x == -0.2
    assert LAYOUT.overflowing() == (2,)
    assert BOXES[2].overflow() == pytest.approx(0.2)


def test_painting_order_is_z_then_place():
    assert LAYOUT.painting_order() == [2, 0, 1]
    assert LAYOUT.placed() == [1, 2]


def test_a_layout_has_a_box_for_every_element():
    error = refused(lambda: Layout(brief=BRIEF, boxes=BOXES[:2]))
    assert str(error) == "boxes: layout needs one box for every element (got 2); the brief has 3 elements"


@pytest.mark.parametrize(
    ("said", "reason", "field"),
    [
        ({"kind": "logo"}, "kind of element is unknown", "type"),
        ({"opacity": 1.5}, "opacity must lie between 0 and 1", "opacity"),
        ({"text_align": "justify"}, "alignment of text is unknown", "text_align"),
        ({"colour": (0, 0, 256)}, "colour must lie between 0 and 255", "color"),
        ({"colour": (0, 0)}, "colour must be red, green and blue", "color"),
        ({"font_size_px": 0}, "size of the font must be positive", "font_size"),
        ({"z": 0.5}, "place in the order of painting is no whole number", "z"),
    ],
)
def test_an_element_that_cannot_be_is_refused(said, reason, field):
    error = refused(lambda: Element(**({"kind": "text"} | said)))
    assert (error.reason, error.field) == (reason, field)


@pytest.mark.parametrize("side", [0, -1, 100_001, 1.5, True])
def test_a_canvas_has_a_side_within_bounds(side):
    assert refused(lambda: Brief(id="", width_px=side, height_px=1, elements=TEXTS.elements)).field == "canvas.width_px"


# ---- JSON ----------------------------------------------------------------------------------------


def test_json_and_back_is_the_same_layout():
    assert from_json(json.loads(json.dumps(to_json(LAYOUT)))) == LAYOUT


def test_json_is_the_form_of_the_docs():
    assert to_json(LAYOUT)["elements"][2] == {
        "idx": 2,
        "type": "shape",
        "category": "rounded",
        "z": -1,
        "angle": -12.5,
        "opacity": 0.5,
        "color": [1, 2, 3],
        "bbox": [-0.2, 0.9, 0.3, 0.2],
    }


def test_elements_of_a_file_may_stand_in_any_order():
    raw = to_json(LAYOUT)
    raw["elements"].reverse()
    assert from_json(raw) == LAYOUT


def altered(change) -> dict:
    raw = to_json(LAYOUT)
    change(raw["elements"])
    return raw


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.pop(1), "elements[2]: element does not exist (got 2); there are elements 0 to 1"),
        (
            lambda e: e[2].update(idx=1),
            "elements[1]: element stands twice (got 1); idx counts from 0, each number once",
        ),
        (lambda e: e[1].pop("bbox"), 'elements[1].bbox: element has no box; text \'Ask "Ä"\\n<now> {"a":1}\''),
        (lambda e: e[1].pop("type"), "elements[1].type: element has no type"),
        (lambda e: e[2].update(idx="2"), "elements: element has no number"),
        (lambda e: e[2].update(bbox=[0, 0, 0, 1]), "elements[2].bbox: box is empty"),
        (lambda e: e[2].update(bbox=[0, 0, float("nan"), 1]), "elements[2].bbox: number is not finite"),
        (lambda e: e[2].update(bbox=[0, 0, 1]), "elements[2].bbox: box is not four numbers (got [0, 0, 1])"),
        (lambda e: e[2].update(bbox="0011"), "elements[2].bbox: box is not four numbers"),
        (lambda e: e[2].update(bbox=[0, 0, 99, 1]), "elements[2].bbox: box is far larger than its canvas"),
        (lambda e: e[2].update(size=3), "elements[2]: element has a key that is not read (got 'size')"),
        (lambda e: e[2].update(color=[1, 2, 999]), "elements[2].color: colour must lie between 0 and 255"),
        (lambda e: e.append(7), "elements: elements must be a list of objects"),
        (lambda e: e.clear(), "elements: layout has no elements, or too many (got 0)"),
    ],
)
def test_a_broken_layout_is_refused_and_the_element_named(change, message):
    assert message in str(refused(from_json, altered(change)))


# ---- text ----------------------------------------------------------------------------------------


def test_tokens_worked_by_hand():
    # 0.5 * 8 = 4, 0.99 * 8 = 7.92, 0.25 * 8 = 2, and 0.01 * 8 = 0.08, which is raised to 1: no size is 0.
    layout = Layout(brief=TEXTS, boxes=(Box(x=0.5, y=0.99, width=0.25, height=0.01), Box(x=0, y=0, width=1, height=1)))
    text = write(layout, Grid(bins=8), "tokens")
    assert text == "<pos_4><pos_7><pos_2><pos_1><pos_0><pos_0><pos_7><pos_7>"
    assert read(text, TEXTS, Grid(bins=8), "tokens").boxes[0] == Box(
        x=4.5 / 8, y=7.5 / 8, width=2.5 / 8, height=1.5 / 8
    )
    assert write(layout, Grid(bins=8), "json") == '[{"idx":0,"bbox":[4,7,2,1]},{"idx":1,"bbox":[0,0,7,7]}]'


def test_a_grid_with_overflow_keeps_what_lies_beyond_the_canvas():
    # From -0.25 to 1.25 in 6 bins of a quarter each: -0.2 is in the first.
    box = Box(x=-0.2, y=1.1, width=1.3, height=0.3)
    layout = Layout(brief=TEXTS, boxes=(box, box))
    assert Grid(bins=6, overflow=0.25).quantise(box) == (0, 5, 5, 1)
    assert Grid(bins=6, overflow=0.25).beyond(layout) == ()
    assert Grid(bins=6).beyond(layout) == (0, 1)


@given(
    st.integers(2, 1000),
    st.sampled_from([0.0, 0.1, 0.25, 1.0]),
    st.sampled_from(["tokens", "json"]),
    st.lists(st.tuples(*[st.floats(-3, 3)] * 2, *[st.floats(1e-4, 5)] * 2), min_size=2, max_size=2),
)
def test_text_and_back_is_exact(bins, overflow, form, values):
    grid = Grid(bins=bins, overflow=overflow)
    layout = Layout(brief=TEXTS, boxes=tuple(Box(x=x, y=y, width=w, height=h) for x, y, w, h in values))
    text = write(layout, grid, form)
    again = read(text, TEXTS, grid, form)
    assert again == grid.snapped(layout)
    assert write(again, grid, form) == text


P = "<pos_1>"
REFUSED_TEXTS = [
    ("tokens", "", "elements[0]: element is missing (got 0); it is text 'SALE'; 2 of 2 elements are not told"),
    ("tokens", P * 4, "elements[1]: element is missing (got 1); it is shape; 1 of 2 elements are not told"),
    ("tokens", P * 6, "elements[1].bbox: box is not four numbers (got [1, 1])"),
    ("tokens", P * 12, "elements[2]: element does not exist (got [1, 1, 1, 1]); there are elements 0 to 1"),
    ("tokens", P * 7 + "x" + P, "answer: answer holds something that is no position (got 'x<pos_1>')"),
    ("tokens", P * 7 + "<pos_8>", "elements[1].bbox: position is off the grid (got 8); the grid has bins 0 to 7"),
    (
        "tokens",
        P * 2 + "<pos_0>" + P * 5,
        "elements[0].bbox: box is empty (got 0); width and height are at least 1 bin",
    ),
    ("json", "[1", "answer: answer is not JSON"),
    ("json", "{}", "answer: answer is no list of elements"),
    ("json", '[{"idx":0}]', "answer: element is not an idx and a bbox"),
    ("json", '[{"idx":0,"bbox":[1,1,1,1]}]', "elements[1]: element is missing (got 1); it is shape"),
    ("json", '[{"idx":0,"bbox":[1,1,1,1]},{"idx":0,"bbox":[1,1,1,1]}]', "elements[0]: element stands twice"),
    ("json", '[{"idx":0,"bbox":[1,1,1,1]},{"idx":5,"bbox":[1,1,1,1]}]', "elements[5]: element does not exist"),
    ("json", '[{"idx":0,"bbox":[1,NaN,1,1]},{"idx":1,"bbox":[1,1,1,1]}]', "elements[0].bbox: number is not finite"),
    ("json", '[{"idx":0,"bbox":[1,1e999,1,1]},{"idx":1,"bbox":[1,1,1,1]}]', "elements[0].bbox: number is not finite"),
    (
        "json",
        '[{"idx":0,"bbox":[1,1.5,1,1]},{"idx":1,"bbox":[1,1,1,1]}]',
        "bbox: position is no whole number (got 1.5)",
    ),
    ("json", '[{"idx":0,"bbox":[1,1,1,-1]},{"idx":1,"bbox":[1,1,1,1]}]', "elements[0].bbox: box is empty (got -1)"),
    ("json", '[{"idx":0,"bbox":[1,1,1]},{"idx":1,"bbox":[1,1,1,1]}]', "elements[0].bbox: box is not four numbers"),
    ("json", '[{"idx":true,"bbox":[1,1,1,1]},{"idx":1,"bbox":[1,1,1,1]}]', "elements: element has no number"),
    ("json", "[" * 100_000, "answer: answer is not JSON"),
]


@pytest.mark.parametrize(("form", "text", "message"), REFUSED_TEXTS, ids=range(len(REFUSED_TEXTS)))
def test_an_answer_that_is_no_layout_is_refused_and_the_element_named(form, text, message):
    assert message in str(refused(read, text, TEXTS, Grid(bins=8), form))


@given(st.sampled_from(["tokens", "json"]), st.text(alphabet='<pos_12>[]{}":,idxb.e-', max_size=40))
def test_no_answer_is_fatal(form, text):
    with contextlib.suppress(RowError):
        read(text, TEXTS, Grid(bins=8), form)


@pytest.mark.parametrize("settings", [{"bins": 1}, {"bins": 10_001}, {"overflow": -0.1}, {"overflow": 1.5}])
def test_a_grid_has_bounds(settings):
    with pytest.raises(ConfigError, match="a grid needs 2 to 10,000 bins and an overflow between 0 and 1, got"):
        Grid(**settings)


# ---- the task as a prompt ------------------------------------------------------------------------


def test_the_prompt_says_what_is_to_be_done():
    messages, media = Task(brief=BRIEF, grid=Grid(bins=64, overflow=0.25), form="tokens").prompt()
    assert media == (PHOTO,)
    assert messages[0].parts[0].text == "Place 3 elements on a canvas of 1080 x 1350.\n0 background "
    assert messages[0].parts[2].text.splitlines()[-1] == (
        "Answer with position tokens, 64 bins, overflow 0.25: x, y, width, height of each."
    )


@pytest.mark.parametrize("form", ["tokens", "json"])
def test_whoever_has_the_prompt_can_read_the_answers(form):
    task = Task(brief=BRIEF, grid=Grid(bins=64, overflow=0.25), form=form)
    row = task.row("poster", [task.response(LAYOUT)])
    assert asks_for_layout(row)
    assert task_of(row) == task
    assert task_of(row).layout(row.chosen.text) == task.grid.snapped(LAYOUT)


def prompted(text: str) -> Preference:
    return Preference(id="a", prompt=(Message.of("user", text),), responses=(Response.of("x"),))


END = "\nAnswer with JSON, 32 bins: x, y, width, height of each."


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Place 1 elements on a canvas of 10 x 10.\n0 text", "prompt is no task of placing elements"),
        ("Place 1 elements on a canvas of 10 x 10.\n1 text" + END, "line of the prompt is no element"),
        ("Place 1 elements on a canvas of 10 x 10.\n0 text {bad}" + END, "line of the prompt is no element"),
        ("Place 2 elements on a canvas of 10 x 10.\n0 text" + END, "prompt has not as many elements as it says"),
        ("Place 1 elements on a canvas of 0 x 10.\n0 text" + END, "side of the canvas is out of bounds"),
        ("Place 1 elements on a canvas of 10 x 10.\n0 logo" + END, "kind of element is unknown"),
        (
            "Place 1 elements on a canvas of 10 x 10.\n0 text" + END.replace("32", "1"),
            "grid of the prompt is out of bounds",
        ),
    ],
)
def test_a_prompt_that_states_half_a_task_is_refused(text, reason):
    row = prompted(text)
    assert asks_for_layout(row)
    assert refused(task_of, row).reason == reason


def test_other_prompts_are_no_task():
    assert not asks_for_layout(prompted("What is on the stove?"))
