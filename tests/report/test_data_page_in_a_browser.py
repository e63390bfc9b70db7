"""The page of rows as a person uses it: search, filters, keys, differences, weights, colours, narrow screens."""

import dataclasses
from base64 import b64encode
from urllib.parse import quote

import pytest
from formats.rows import png
from PIL import Image
from report.contrast import WORST_CONTRAST
from report.data_rows import HOSTILE, image, many, page_of, row

from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response, Span
from mmalign.modalities.table import MODALITIES
from mmalign.sources.quarantine import Refusal


def shown(page) -> list[str]:
    """The ids of the rows in the list; at most a screen of them."""
    page.wait_for_selector("body[data-shown]")
    items = page.locator(".item").all()
    return [item.get_attribute("data-id") for item in sorted(items, key=lambda item: int(item.get_attribute("id")[5:]))]


def search(page, query: str) -> list[str]:
    page.fill("#query", query)
    page.wait_for_timeout(60)
    return shown(page)


def choose(page, name: str, value: str) -> list[str]:
    if page.locator("#filters").is_hidden():
        page.click("#filter-button")
    page.select_option(f"#filter-{name}", value)
    page.wait_for_timeout(60)
    return shown(page)


def heading(page) -> str:
    return page.inner_text("#row h1")


def marked(page, answer: int, tag: str) -> list[str]:
    return page.locator(f'[data-answer="{answer}"]').locator(tag).all_inner_texts()


KITCHEN = (
    row("kettle", "What boils?", ("A red kettle.", "A red kettle and two pans."), margin=1.5, tags={"room": "kitchen"}),
    row("bed", "What is soft?", (Response.of("The bed is.", critique="Terse, but right."), "The floor."), margin=9.0),
    row("list", "Name a colour", ("Red", "Green", "Blue as the sea in summer"), margin=0.5, tags={"room": "hall"}),
    row("demo", "Name a fruit", ("A pear, which is a user of water.",)),
    Refusal("rows.jsonl", 7, "prompt", "", "prompt is empty"),
)


# ---- search, filters, order --------------------------------------------------------------------------------------


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


# ---- answers -----------------------------------------------------------------------------------------------------


DIFFERENT = (
    ("A red kettle.", "A red kettle and two pans.", [], ["and two pans"]),
    ("He irons on a moving taxi.", "He washes on a parked taxi.", ["irons", "moving"], ["washes", "parked"]),
    ("one two three", "four five", ["one two three"], ["four five"]),
    ("It is 3.5 m, not 4.", "It is 3.6 m, not 4!", ["3.5", "."], ["3.6", "!"]),
    ("We don't know", "We do know", ["don't"], ["do"]),
    ("a b c d", "b c x d a", ["a"], ["x", "a"]),
    ("红色的水壶", "蓝色的水壶", ["红"], ["蓝"]),
    ("Same words here", "same words here", ["Same"], ["same"]),
)


def test_differences_mark_exactly_the_words_that_the_other_lacks(tmp_path, opened):
    rows = [row(str(k), answers=(better, worse)) for k, (better, worse, *_) in enumerate(DIFFERENT)]
    page = opened(page_of(tmp_path, rows))
    for better, worse, only_better, only_worse in DIFFERENT:
        page.keyboard.press("j")
        assert (marked(page, 1, "ins"), marked(page, 2, "del")) == (only_better, only_worse)
        assert page.locator(".answer p").all_inner_texts() == [better, worse]
    page.keyboard.press("d")
    assert page.locator("#row ins, #row del").count() == 0


def test_of_many_answers_all_are_compared_with_the_one_that_is_chosen(tmp_path, opened):
    page = opened(page_of(tmp_path, [row("a", answers=("a red cup", "a red pan", "a big pan"), ties=((1, 2),))]))
    page.keyboard.press("j")
    assert [marked(page, k, "ins, del") for k in (1, 2, 3)] == [[], ["pan"], ["big pan"]]
    page.select_option("#compared-with", "2")
    assert [marked(page, k, "ins, del") for k in (1, 2, 3)] == [["red cup"], ["red"], []]
    assert marked(page, 1, "ins") == ["red cup"]
    assert page.locator(".answer .who").all_inner_texts() == [
        "answer 1 · rank 1", "answer 2 · rank 2 (tied)", "answer 3 · rank 2 (tied)",
    ]  # fmt: skip
    assert "good" in page.get_attribute('[data-answer="1"]', "class")
    assert "the others are compared with this one" in page.inner_text('[data-answer="3"]')


def test_texts_too_long_to_compare_are_shown_and_say_so(tmp_path, opened):
    page = opened(page_of(tmp_path, [row("a", answers=("a b " * 1500, "c d " * 1500))]))
    page.keyboard.press("j")
    assert page.locator("#row ins, #row del").count() == 0
    assert "too long to be compared word by word" in page.inner_text('[data-answer="1"]')


def test_weights_stand_at_their_characters(tmp_path, opened):
    text = "\U0001f642 It is a red kettle, not a pan."
    spans = (
        Span(start=2, end=4, weight=0.0),
        Span(start=10, end=20, weight=2.0),
        Span(start=14, end=20, weight=-1.5),
        Span(start=22, end=25, weight=0.25),
        Span(start=26, end=27, weight=1.0),
    )
    page = opened(page_of(tmp_path, [row("a", answers=("It is.", Response.of(text, spans=spans)))]))
    page.keyboard.press("j")
    found = page.locator('[data-answer="2"] .weighted')
    said = [(one.inner_text(), one.get_attribute("data-weight"), one.get_attribute("class")) for one in found.all()]
    assert said == [
        ("It", "×0", "weighted none"),
        ("red ", "×2", "weighted up"),
        ("kettle", "×-1.5", "weighted against"),
        ("not", "×0.25", "weighted down"),
    ]
    assert page.inner_text('[data-answer="2"] p') == text


def test_a_span_stays_one_element_where_differences_cut_it(tmp_path, opened):
    worse = Response.of("a blue cup here", spans=(Span(start=2, end=10, weight=3.0),))
    page = opened(page_of(tmp_path, [row("a", answers=("a red cup here", worse))]))
    page.keyboard.press("j")
    assert page.locator("#row .weighted").all_inner_texts() == ["blue cup"]
    assert page.locator("#row .weighted del").all_inner_texts() == ["blue"]


def test_a_row_shows_everything_that_is_known_about_it(tmp_path, opened):
    (tmp_path / "a.png").write_bytes(png(size=(200, 100)))
    (tmp_path / "b.png").write_bytes(png((0, 0, 9), size=(180, 170)))
    best = Response.of(
        "good",
        score=4.0,
        scores={"true": 5.0, "kind": 2.5},
        critique="So <b>it</b> is.",
        model="m-7b",
        annotator="anna",
    )
    worst = Response(
        messages=(Message.of("assistant", "look"), Message.of("tool", "42"), Message.of("assistant", " up")),
        score=1.0, scores={"true": 1.0}, media=(image("b.png"),),
    )  # fmt: skip
    preference = Preference(
        id="all",
        prompt=(Message.of("system", "Be exact."), Message.of("user", "Look:", 0, "What?")),
        media=(image("a.png"),),
        responses=(best, worst),
        margin=3.0, weight=0.5, difficulty=0.25, tags={"room": "hall"},
        provenance={"source": "trl", "file": "rows.jsonl", "row": "12", "model": "various"},
    )  # fmt: skip
    page = opened(page_of(tmp_path, [preference]))
    page.keyboard.press("j")
    assert page.locator(".turn .role").all_inner_texts() == ["system", "user"]
    assert page.locator(".turn.user p, .turn.user img").evaluate_all("all => all.map((one) => one.tagName)") == [
        "P",
        "IMG",
        "P",
    ]
    assert page.locator(".prompt .caption").inner_text() == "a.png · image, 200 x 100"
    assert page.locator('[data-answer="2"] .caption').inner_text() == "b.png · image, 180 x 170"
    assert page.locator(".labels .tag").all_inner_texts() == ["margin 3", "weight 0.5", "difficulty 0.25", "room hall"]
    scores = page.locator('[data-answer="1"] .scores > div').all_inner_texts()
    assert [" ".join(line.split()) for line in scores] == ["score 4", "true 5", "kind 2.5"]
    assert page.locator('[data-answer="2"] .scores i').evaluate_all("all => all.map((one) => one.style.width)") == [
        "25%",
        "20%",
    ]
    assert page.inner_text(".critique").split("\n")[-1] == "So <b>it</b> is."
    assert page.locator('[data-answer="2"] p').all_inner_texts() == ["look", "tool\n42", " up"]
    assert "by m-7b · judged by anna" in page.inner_text('[data-answer="1"] .note')
    facts = [" ".join(line.split()) for line in page.locator(".facts-table > div").all_inner_texts()]
    assert facts == ["id all", "format trl", "from rows.jsonl, row 12", "model various"]


def test_a_refused_row_gives_its_reason_field_and_value(tmp_path, opened):
    page = opened(page_of(tmp_path, [row("a", media=(image("gone.jpg"),))]))
    assert "✕ image is missing" in page.inner_text(".item")
    page.keyboard.press("j")
    said = page.inner_text("#row .finding").split()
    assert " ".join(said) == "Refused: image is missing field media[0] value 'gone.jpg'"
    assert page.locator(".answer").count() == 2


def test_a_clip_is_played_and_paused(tmp_path, opened, monkeypatch):
    (tmp_path / "a.png").write_bytes(png())
    still, moving = (f"data:image/png;base64,{b64encode(png(colour)).decode()}" for colour in ((1, 2, 3), (9, 8, 7)))
    shows = MODALITIES["image"]._replace(
        render=lambda ref, limits, max_pixels, field: still, playable=lambda ref, limits, field: moving
    )
    monkeypatch.setitem(MODALITIES, "image", shows)
    page = opened(page_of(tmp_path, [row("a", media=(image("a.png"),))]))
    page.keyboard.press("j")
    assert page.get_attribute("#row img", "src") == still
    page.get_by_role("button", name="Play").click()
    assert page.get_attribute("#row img", "src") == moving
    page.keyboard.press("p")
    assert page.get_attribute("#row img", "src") == still


def test_a_real_clip_is_a_strip_of_frames_that_can_be_played(tmp_path, opened):
    first, *others = (Image.new("RGB", (64, 48), (40 * k, 0, 200 - 40 * k)) for k in range(5))
    first.save(tmp_path / "clip.gif", save_all=True, append_images=others, duration=400)
    page = opened(page_of(tmp_path, [MediaRef(kind="video", uri="clip.gif")]))
    page.keyboard.press("j")
    page.wait_for_selector("#row .reel.strip")
    strip = page.locator("#row img").evaluate("(one) => [one.naturalWidth, one.naturalHeight]")
    assert strip[0] > 3.5 * strip[1]
    assert "clip.gif · video, frames 4, 64 x 48" in page.inner_text("#row .caption")
    page.keyboard.press("p")
    page.wait_for_selector("#row .reel:not(.strip)")
    assert page.locator("#row img").evaluate("(one) => [one.naturalWidth, one.naturalHeight]") == [64, 48]
    assert page.get_attribute("#row img", "src").startswith("data:image/webp;base64,")


def test_the_page_shows_whatever_a_modality_renders(tmp_path, opened, monkeypatch):
    drawn = "data:image/svg+xml," + quote('<svg xmlns="http://www.w3.org/2000/svg" width="300" height="200"/>')
    plan = dataclasses.make_dataclass("Plan", [("boxes", int), ("area_m", float)])
    draws = MODALITIES["video"]._replace(
        check=lambda ref, limits, field: plan(7, 12.25), render=lambda ref, limits, pixels, field: drawn, playable=None
    )
    monkeypatch.setitem(MODALITIES, "video", draws)
    page = opened(page_of(tmp_path, [row("a", media=(MediaRef(kind="video", uri="room.json"),))]))
    page.keyboard.press("j")
    assert page.get_attribute("#row img", "src") == drawn
    assert page.inner_text("#row .caption") == "room.json · video, boxes 7, area 12.25 m"
    assert page.locator(".play").count() == 0


# ---- keys --------------------------------------------------------------------------------------------------------


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


def test_the_address_names_the_row_that_is_open(tmp_path, opened):
    path = page_of(tmp_path, KITCHEN)
    page = opened(path, hash="#row=3")
    assert heading(page) == "list"
    page.keyboard.press("j")
    assert page.url.endswith("#row=4")


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


# ---- size, hostility, looks --------------------------------------------------------------------------------------


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
    page.click(".back")
    assert page.locator("#list").is_visible()


def test_words_that_were_searched_for_are_marked(tmp_path, opened):
    page = opened(page_of(tmp_path, [dataclasses.replace(KITCHEN[0], responses=KITCHEN[0].responses[:1])]))
    page.keyboard.press("j")
    page.fill("#query", "KETTLE red")
    page.wait_for_timeout(80)
    found = page.evaluate("[...CSS.highlights.get('found')].map((range) => range.toString())")
    assert sorted(found) == ["kettle", "kettle", "kettle", "red"]
