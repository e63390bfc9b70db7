"""The page of rows by keyboard and by address."""

from report.data_rows import KITCHEN, many, page_of
from report.driving import choose, heading


def test_keys_move_open_search_and_help(tmp_path, opened):
    page = opened(page_of(tmp_path, KITCHEN))
    assert page.locator("#overview").is_visible()
    moves = {"j": "kettle", "J": "kettle", "G": "rows.jsonl:7", "k": "demo", "g": "kettle"}
    for key, id in moves.items():
        page.keyboard.press(key if key.islower() else f"Shift+{key}")
        assert heading(page) == id
    page.keyboard.press("k")
    assert heading(page) == "kettle"
    assert page.get_attribute("#list", "aria-activedescendant") == "item-0"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "detail"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "list"
    page.keyboard.press("ArrowDown")
    assert heading(page) == "bed"
    page.keyboard.press("/")
    page.keyboard.type("jkjd")
    assert page.input_value("#query") == "jkjd" and heading(page) == "bed"
    page.keyboard.press("Escape")
    assert page.input_value("#query") == ""
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keyboard").is_visible()
    page.keyboard.press("j")
    page.keyboard.press("Escape")
    assert page.locator("#help").is_hidden() and heading(page) == "bed"
    page.keyboard.press("o")
    assert page.locator("#overview").is_visible() and page.locator("#row").is_hidden()


def test_after_any_control_was_used_the_keys_still_work(tmp_path, opened):
    page = opened(page_of(tmp_path, KITCHEN))
    page.click("#filter-button")
    page.keyboard.press("Escape")
    controls = [page.get_by_text(name, exact=True) for name in ("Light", "Dark", "Auto")]
    controls += [page.locator(f"#{name}") for name in ("filter-upwards", "filter-clear", "filter-button", "next")]
    for control in controls:
        page.keyboard.press("g")
        assert heading(page) == "kettle"
        control.click()
        page.keyboard.press("G")
        assert heading(page) == "rows.jsonl:7"
    page.keyboard.press("g")
    page.click("#differences")
    page.keyboard.press("d")
    assert page.is_checked("#differences")
    page.keyboard.press("j")
    assert heading(page) == "bed"


def test_a_control_of_a_row_keeps_the_focus_when_it_is_used(tmp_path, opened):
    page = opened(page_of(tmp_path, [KITCHEN[2], *KITCHEN[:2]]))
    focused = "document.activeElement.id"
    page.keyboard.press("j")
    assert page.locator("#row del").count() > 0
    page.focus("#differences")
    page.keyboard.press(" ")
    assert page.locator("#row del").count() == 0
    page.keyboard.press(" ")
    assert (page.evaluate(focused), page.locator("#row del").count() > 0) == ("differences", True)
    page.focus("#compared-with")
    page.keyboard.press("ArrowDown")
    assert (page.evaluate(focused), page.input_value("#compared-with")) == ("compared-with", "1")
    assert "the others are compared with this one" in page.inner_text('[data-answer="2"]')
    page.focus("#next")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert (page.evaluate(focused), heading(page)) == ("next", "bed")
    page.focus("#previous")
    page.keyboard.press(" ")
    assert (page.evaluate(focused), heading(page)) == ("previous", "kettle")
    page.keyboard.press("Escape")
    assert page.evaluate(focused) == "list"


def test_pages_of_the_list_take_the_choice_with_them(tmp_path, opened):
    page = opened(page_of(tmp_path, many(100)))
    page.wait_for_selector("body[data-shown]")
    page.focus("#list")
    page.keyboard.press("Home")
    by = page.evaluate("Math.floor(document.getElementById('list').clientHeight / 86)") - 1
    for key, at in (("PageDown", by), ("PageDown", 2 * by), ("PageUp", by), ("PageUp", 0), ("PageUp", 0)):
        page.keyboard.press(key)
        assert heading(page) == f"row-{at}"
        page.wait_for_timeout(60)
        assert page.get_attribute("#list", "aria-activedescendant") == f"item-{at}"
        box = page.locator(f"#item-{at}").bounding_box()
        assert page.locator("#list").bounding_box()["y"] <= box["y"] < 900 - 86 + 1


def test_the_address_names_the_row_by_its_number_in_the_file_and_is_followed(tmp_path, opened):
    path = page_of(tmp_path, KITCHEN)
    page = opened(path, hash="#row=7")
    assert heading(page) == "rows.jsonl:7"
    assert "#7" in page.inner_text('.item[data-id="rows.jsonl:7"]')
    assert page.text_content("#row .eyebrow") == "#7 · 5 of 5"
    page.keyboard.press("k")
    assert page.url.endswith("#row=4")
    page.evaluate("location.hash = '#row=2'")
    page.wait_for_function("document.querySelector('#row h1').textContent === 'bed'")
    assert page.get_by_role("option", selected=True).get_attribute("data-id") == "bed"
    choose(page, "state", "refused")
    page.evaluate("location.hash = '#row=3'")
    page.wait_for_function("document.querySelector('#row h1').textContent === 'list'")
    assert page.text_content("#row .eyebrow") == "#3 · not in the list"
    for gone in ("#row=5", "#", "#row=x"):
        page.evaluate("location.hash = '#row=2'")
        page.wait_for_selector("#row", state="visible")
        page.evaluate(f"location.hash = '{gone}'")
        page.wait_for_selector("#overview", state="visible")


def test_controls_have_names_and_the_list_is_one_to_a_screen_reader(tmp_path, opened):
    page = opened(page_of(tmp_path, KITCHEN))
    assert page.get_by_role("searchbox", name="Search in all texts, ids and tags").count() == 1
    assert page.get_by_role("listbox", name="Rows of rows.jsonl").count() == 1
    page.keyboard.press("j")
    chosen = page.get_by_role("option", selected=True)
    assert (chosen.get_attribute("aria-posinset"), chosen.get_attribute("aria-setsize")) == ("1", "5")
    page.keyboard.press("f")
    nameless = page.locator("button, input, select").evaluate_all(
        "all => all.filter((one) => !(one.labels?.length || one.ariaLabel || one.textContent.trim()))"
        ".map((one) => one.outerHTML)"
    )
    assert nameless == []
