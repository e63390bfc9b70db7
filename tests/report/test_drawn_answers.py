"""Answers that are layouts stand on a page as pictures, and say why when they do not."""

from mmalign.formats.layout import Box, Brief, Element, Layout
from mmalign.formats.layout_task import Task
from mmalign.formats.layout_text import Grid
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.modalities.table import limits_below
from mmalign.report.data_page import DataPage
from mmalign.report.drawn_answers import drawn, told
from mmalign.report.media_shelf import MediaShelf

BRIEF = Brief(id="a", width_px=100, height_px=100, elements=(Element(kind="shape", colour=(200, 0, 0)),))
TASK = Task(brief=BRIEF, grid=Grid(bins=10), form="json")
GOOD = Layout(brief=BRIEF, boxes=(Box(x=0.1, y=0.1, width=0.5, height=0.5),))
ROW = TASK.row("a", [TASK.response(GOOD), Response.of("[]")])
PLAIN = Preference(id="b", prompt=(Message.of("user", "What?"),), responses=(Response.of("x"),))


def page_of(row: Preference, root, budget_bytes: int = 10**6) -> tuple[MediaShelf, DataPage]:
    shelf = MediaShelf(limits_below(root), budget_bytes)
    page = DataPage(shelf)
    page.add(row)
    return shelf, page


def test_a_layout_is_drawn_and_another_says_why_it_is_none(tmp_path):
    places = []
    how = {"place": lambda ref, field: places.append((ref, field)) or 5, "is_full": False}
    good = drawn(ROW, 0, limits_below(tmp_path), **how)
    assert (good["kind"], good["picture"]) == ("layout", 5)
    assert good["facts"].startswith("elements 1, beyond canvas 0, alignment 1, overlap 1")
    assert places[0][1] == "responses[0]" and places[0][0].content.startswith(b"\x89PNG")
    bad = drawn(ROW, 1, limits_below(tmp_path), **how)
    assert bad["trouble"] == "elements[0]: element is missing (got 0); it is shape" and "picture" not in bad
    assert drawn(PLAIN, 0, limits_below(tmp_path), **how) == {} and told(PLAIN, PLAIN.chosen) is None


def test_a_missing_picture_of_an_element_is_told_at_the_answer(tmp_path):
    brief = Brief(
        id="a", width_px=9, height_px=9, elements=(Element(kind="image", asset=MediaRef(kind="image", uri="gone.png")),)
    )
    task = Task(brief=brief, grid=Grid(bins=10), form="json")
    row = task.row("a", [task.response(Layout(brief=brief, boxes=GOOD.boxes))])
    found = drawn(row, 0, limits_below(tmp_path), place=lambda ref, field: 0, is_full=False)
    assert found["trouble"].startswith("elements[0].asset: image is missing")


def test_the_page_holds_the_picture_once_and_shows_it_in_the_list(tmp_path):
    shelf, page = page_of(ROW, tmp_path)
    html = page.html(title="t", path="p")
    assert len(shelf.pictures) == 1
    assert '"drawn":{"kind":"layout"' in html and "element is missing" in html
    assert page.refused_rows == 0  # an answer that is no layout is still an answer


def test_a_page_without_room_draws_nothing(tmp_path):
    shelf = MediaShelf(limits_below(tmp_path), 1)
    page = DataPage(shelf)
    page.add(ROW)
    assert shelf.is_full
    page.add(ROW)
    assert page.html(title="t", path="p").count('"left_out":true') >= 1
    assert shelf.pictures == []
