"""Finding rows of the page: search, filters, order."""

import dataclasses

from formats.rows import png
from report.data_rows import KITCHEN, image, page_of, row
from report.driving import choose, search, shown

FOUND = {
    "RED": ["kettle", "list"],
    "red pans": ["kettle"],
    '"two pans"': ["kettle"],
    '"pans two"': [],
    "terse": ["bed"],
    "kitchen": ["kettle"],
    "user": ["demo"],
    "is empty": ["rows.jsonl:7"],
    "demo": ["demo"],
    ".*": [],
}


def test_search_finds_exactly_the_rows_that_hold_every_word(tmp_path, opened):
    page = opened(page_of(tmp_path, KITCHEN))
    for query, ids in FOUND.items():
        assert search(page, query) == ids
        assert page.inner_text("#status") == f"{len(ids)} of 5 rows"
    assert search(page, "") == ["kettle", "bed", "list", "demo", "rows.jsonl:7"]
    assert page.inner_text("#status") == "5 rows"


def test_filters_leave_exactly_the_rows_they_name(tmp_path, opened):
    (tmp_path / "a.png").write_bytes(png())
    page = opened(
        page_of(tmp_path, [*KITCHEN, row("seen", media=(image("a.png"),)), row("gone", media=(image("b.png"),))])
    )
    assert choose(page, "state", "refused") == ["rows.jsonl:7", "gone"]
    assert choose(page, "reason", "image is missing") == ["gone"]
    page.click("#filter-clear")
    assert choose(page, "state", "kept") == ["kettle", "bed", "list", "demo", "seen"]
    assert choose(page, "media", "image") == ["seen"]
    assert choose(page, "media", "none") == ["kettle", "bed", "list", "demo"]
    assert choose(page, "answers", "3") == ["list"]
    assert choose(page, "answers", "1") == ["demo"]
    assert choose(page, "answers", "") == ["kettle", "bed", "list", "demo"]
    assert choose(page, "tag", "room = kitchen") == ["kettle"]
    page.click("#filter-clear")
    page.fill("#filter-from", "26")
    page.fill("#filter-to", "30")
    page.wait_for_timeout(60)
    assert shown(page) == ["kettle", "seen", "gone"]
    assert page.inner_text("#filter-count") == "2"


def test_a_reason_in_the_overview_leads_to_its_rows(tmp_path, opened):
    page = opened(page_of(tmp_path, KITCHEN))
    page.get_by_role("button", name="prompt is empty").click()
    page.wait_for_timeout(60)
    assert shown(page) == ["rows.jsonl:7"]


def test_order_puts_rows_without_the_value_last(tmp_path, opened):
    page = opened(page_of(tmp_path, KITCHEN))
    assert choose(page, "order", "margin") == ["bed", "kettle", "list", "demo", "rows.jsonl:7"]
    page.check("#filter-upwards")
    page.wait_for_timeout(60)
    assert shown(page) == ["list", "kettle", "bed", "demo", "rows.jsonl:7"]
    assert choose(page, "order", "length") == ["rows.jsonl:7", "bed", "list", "kettle", "demo"]


def test_media_left_out_can_be_found_and_say_so(tmp_path, opened):
    (tmp_path / "a.png").write_bytes(png())
    page = opened(page_of(tmp_path, [row("a", media=(image("a.png"),)), row("b")], budget_bytes=10))
    assert choose(page, "media", "left-out") == ["a"]
    page.click(".item")
    assert "The picture was left out" in page.inner_text("#row .medium")
    assert page.locator("#row img").count() == 0


def test_words_that_were_searched_for_are_marked(tmp_path, opened):
    page = opened(page_of(tmp_path, [dataclasses.replace(KITCHEN[0], responses=KITCHEN[0].responses[:1])]))
    page.keyboard.press("j")
    page.fill("#query", "KETTLE red")
    page.wait_for_timeout(80)
    found = page.evaluate("[...CSS.highlights.get('found')].map((range) => range.toString())")
    assert sorted(found) == ["kettle", "kettle", "kettle", "red"]
