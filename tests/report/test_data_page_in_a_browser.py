"""The page of rows in a browser: size, hostile rows, colours, narrow screens."""

import pytest
from formats.rows import png
from report.contrast import WORST_CONTRAST
from report.data_rows import HOSTILE, KITCHEN, image, many, page_of, row
from report.driving import choose, heading, shown

from mmalign.formats.preference import Response, Span
from mmalign.sources.quarantine import Refusal


def test_colours_follow_the_system_until_a_person_chooses(tmp_path, opened):
    page = opened(page_of(tmp_path, KITCHEN), colours="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.keyboard.press("t")
    light = page.evaluate(ground)
    assert (dark, light) == ("rgb(19, 21, 24)", "rgb(248, 247, 244)")
    page.keyboard.press("t")
    assert page.evaluate(ground) == dark
    page.get_by_text("Light", exact=True).click()
    assert page.evaluate(ground) == light


def test_ten_thousand_rows_are_a_screen_of_elements(tmp_path, opened):
    page = opened(page_of(tmp_path, many(10_000)))
    page.wait_for_selector("body[data-shown]")
    assert page.locator(".item").count() <= 25
    page.evaluate("document.getElementById('list').scrollTop = 5000 * 86")
    page.wait_for_selector('.item[data-id="row-5000"]')
    assert page.locator(".item").count() <= 25
    page.keyboard.press("Shift+G")
    assert heading(page) == "row-9999"
    elements = page.evaluate("document.querySelectorAll('*').length - document.scripts.length")
    assert elements < 500
    page.fill("#query", '"question 77" seventh')
    page.wait_for_selector('body:not([data-shown="10000"])')
    # 77, 770 to 779 and 7700 to 7799, as far as they are multiples of seven.
    expected = [f"row-{k}" for k in range(10_000) if k % 7 == 0 and str(k).startswith("77")]
    assert page.inner_text("#status") == f"{len(expected)} of 10,000 rows"
    assert shown(page)[:12] == expected[:12]


def test_hostile_rows_are_shown_and_do_nothing(tmp_path, opened):
    hostile = row(
        HOSTILE,
        HOSTILE,
        (Response.of(HOSTILE + "a", critique=HOSTILE, model=HOSTILE), HOSTILE + "b"),
        tags={HOSTILE: HOSTILE},
    )
    refusal = Refusal(HOSTILE, 3, HOSTILE, HOSTILE, HOSTILE)
    page = opened(page_of(tmp_path, [hostile, refusal], again=HOSTILE))
    page.keyboard.press("j")
    assert page.inner_text('[data-answer="1"] p') == HOSTILE + "a"
    assert heading(page) == HOSTILE
    page.keyboard.press("j")
    assert HOSTILE in page.inner_text("#row .finding")
    page.fill("#query", "<script>")
    page.wait_for_timeout(100)
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0


LONG = "unbreakable" * 60


def colourful(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    weights = (-2.0, 0.0, 0.3, 0.9, 1.5, 3.0, 9.0)
    text = "word " * len(weights)
    spans = tuple(Span(start=5 * k, end=5 * k + 4, weight=weight) for k, weight in enumerate(weights))
    worse = Response.of(text + "other than that", spans=spans, score=1.0, scores={"true": 0.5}, critique="Wrong.")
    best = Response.of(text + "and no more", spans=spans, score=2.0, model="m")
    dense = Response.of("w " * 40, spans=tuple(Span(start=2 * k, end=2 * k + 1, weight=k / 10) for k in range(40)))
    return [
        row("all", answers=(best, worse, dense), media=(image("a.png"), image("gone.png")), tags={"room": "hall"}),
        row("long" + LONG, LONG, (LONG + " a", LONG + " b"), tags={LONG: LONG}),
        Refusal("rows.jsonl", 7, "prompt", LONG, "prompt is empty"),
    ]


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(tmp_path, opened, colours):
    page = opened(page_of(tmp_path, colourful(tmp_path), again="x", more_rows=True), colours=colours)
    page.wait_for_selector("body[data-shown]")
    for key in ("f", "j", "?"):
        page.locator("body").evaluate("() => document.activeElement.blur()")
        page.keyboard.press(key)
        ratio, text = page.evaluate(WORST_CONTRAST)
        assert ratio >= 4.5, text


def test_a_narrow_screen_is_never_left_sideways(tmp_path, opened):
    page = opened(page_of(tmp_path, colourful(tmp_path)), width=390, height=844)
    page.wait_for_selector("body[data-shown]")
    boxes = "[...document.querySelectorAll('html, #detail, #list, #filters')]"
    wide = boxes + ".map((one) => one.scrollWidth - one.clientWidth)"
    for key in ("o", "f", "j", "j", "j"):
        page.keyboard.press(key)
        page.wait_for_timeout(60)
        assert page.evaluate(wide) == [0, 0, 0, 0]
        page.locator("body").evaluate("() => document.activeElement.blur()")


def test_on_a_narrow_screen_a_row_takes_the_place_of_the_list(tmp_path, opened):
    page = opened(page_of(tmp_path, KITCHEN), width=390, height=844)
    page.wait_for_selector("body[data-shown]")
    assert page.locator("#list").is_visible() and not page.locator("#detail").is_visible()
    page.click('.item[data-id="bed"]')
    assert heading(page) == "bed" and not page.locator("#list").is_visible()
    page.click(".back:visible")
    assert page.locator("#list").is_visible()


def test_on_a_narrow_screen_every_way_out_of_the_list_has_a_way_back(tmp_path, opened):
    page = opened(page_of(tmp_path, KITCHEN), width=390, height=844)
    page.wait_for_selector("body[data-shown]")
    page.click("#overview-button")
    assert page.locator("#overview").is_visible() and not page.locator("#list").is_visible()
    page.click(".back:visible")
    assert page.locator("#list").is_visible()
    for come in (lambda: page.click("#overview-button"), lambda: page.click('.item[data-id="bed"]')):
        come()
        assert not page.locator("#list").is_visible()
        page.locator("#query").press_sequentially("bed")
        assert page.locator("#list").is_visible() and shown(page) == ["bed"]
        assert page.evaluate("document.activeElement.id") == "query"
        page.fill("#query", "")
    page.click('.item[data-id="kettle"]')
    assert choose(page, "state", "refused") == ["rows.jsonl:7"]
    assert page.locator("#list").is_visible()
    page.click(".item")
    page.click("#filter-clear")
    assert page.locator("#list").is_visible()
