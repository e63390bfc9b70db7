"""What the page shows of a row: differences, weights, scores, media, refusals."""

import dataclasses
from base64 import b64encode
from urllib.parse import quote

from formats.rows import png
from PIL import Image
from report.data_rows import image, page_of, row, shelf
from report.driving import marked, search

from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response, Span
from mmalign.modalities.table import MODALITIES
from mmalign.report.data_page import DataPage
from mmalign.report.page import write
from mmalign.sources.quarantine import Refusal

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
    # No other answer has a score called "kind": a bar would compare it with itself.
    assert page.locator('[data-answer="1"] .scores i').evaluate_all("all => all.map((one) => one.style.width)") == [
        "100%",
        "100%",
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
    said = " ".join(page.inner_text("#row .finding").split())
    assert said.startswith("Refused: image is missing field media[0] value 'gone.jpg' way out ")
    assert page.locator(".answer").count() == 2


def test_a_row_that_is_no_preference_shows_its_columns_and_the_way_out(tmp_path, opened):
    refusal = Refusal("rows.jsonl", 4, "prompt", "''", "prompt is empty", "say something")
    page_with_columns = DataPage(shelf(tmp_path))
    page_with_columns.refuse(refusal, {"prompt": "", "chosen": "A kettle.", "<b>": [1]})
    html = page_with_columns.html(title="rows.jsonl", path="rows.jsonl")
    page = opened(write(tmp_path / "page.html", html))
    page.keyboard.press("j")
    said = " ".join(page.inner_text("#row .finding").split())
    assert said == "Refused: prompt is empty field prompt value '' way out say something"
    raw = [" ".join(line.split()) for line in page.locator("#row .facts-table").first.locator("div").all_inner_texts()]
    assert raw == ["prompt ''", "chosen 'A kettle.'", "<b> [1]"]
    assert search(page, "kettle") == ["rows.jsonl:4"]


def test_figures_of_any_size_stay_short(tmp_path, opened):
    page = opened(page_of(tmp_path, [row("a", margin=1e300), row("b", margin=1234567.0), row("c", margin=-2e15)]))
    for said in ("margin 1e+300", "margin 1,234,567", "margin -2e+15"):
        page.keyboard.press("j")
        assert page.locator(".labels .tag").all_inner_texts() == [said]


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
