"""Columns that change what a row means are read, in whatever format they stand, or the row is refused by their name."""

import dataclasses

import pytest
from sources.example_rows import EXAMPLES, preference

from mmalign.errors import RowError
from mmalign.formats.message import Message
from mmalign.sources.detect import parse
from mmalign.sources.meaning import MEANINGFUL, Watched
from mmalign.sources.read import RawRow

PAIR = {"prompt": "q", "chosen": "x", "rejected": "y"}
# What each column says when it says something, and a companion without which it says nothing.
FILLED = {
    **dict.fromkeys(("image", "img_path", "image_path"), "new.jpg"),
    **dict.fromkeys(("video", "video_path"), "new.mp4"),
    **{"images": ["new.jpg"], "videos": ["new.mp4"], "rejected_images": ["new.jpg"], "rejected_videos": ["new.mp4"]},
    "media": [{"kind": "sound", "path": "new.wav"}],
    **{"system": "Be brief.", "history": [["a", "b"]], "margin": 2.5, "is_tie": True},
    **{"score_chosen": 9.0, "score_rejected": 1.0, "chosen_score": 9.0, "rejected_score": 1.0},
}
TELL_A_FORMAT = ("image", "video", "img_path", "is_tie")  # by being there, whatever they hold
COMPANION = {
    "score_chosen": "score_rejected",
    "score_rejected": "score_chosen",
    "chosen_score": "rejected_score",
    "rejected_score": "chosen_score",
}


def said(row):
    """What a row becomes, or None when it is refused; the format that reads it does not count."""
    try:
        return dataclasses.replace(preference(row), provenance={})
    except RowError:
        return None


def test_every_column_is_tried():
    assert set(FILLED) == set(MEANINGFUL)


@pytest.mark.parametrize(("name", "title"), EXAMPLES, ids=[f"{name}: {title}" for name, title in EXAMPLES])
def test_a_column_with_a_meaning_changes_the_record_or_the_row_is_refused(name, title):
    row = EXAMPLES[name, title]
    for column in MEANINGFUL:
        others = [COMPANION[column]] if column in COMPANION else []
        filled = row | {at: FILLED[at] for at in (column, *others)}
        if filled == row:
            continue  # the example says it already
        made = said(filled)
        # RLHF-V publishes the picture and, beside it, its name; a screenshot of a page shows the answer, its layout
        same_picture = (name, column) == ("rlhf_v", "image_path") or (title, column) == ("WebUI", "image")
        assert made is None or same_picture or made != said(row), column


@pytest.mark.parametrize(("name", "title"), EXAMPLES, ids=[f"{name}: {title}" for name, title in EXAMPLES])
def test_a_column_that_says_nothing_changes_nothing(name, title):
    row = EXAMPLES[name, title]
    nothing = {column: None for column in MEANINGFUL if column not in row and column not in TELL_A_FORMAT}
    assert said(row | nothing) == said(row) is not None


def test_what_means_the_same_in_every_format_is_read_in_every_format():
    row = PAIR | {"question": "q", "system": "Be brief.", "score_chosen": 4, "score_rejected": "1", "margin": 3}
    made = preference({name: row[name] for name in row if name != "prompt"})
    assert made.provenance["source"] == "rlhf_v"  # Orca's columns
    assert made.prompt == (Message.of("system", "Be brief."), Message.of("user", "q"))
    assert ([response.score for response in made.responses], made.margin) == ([4.0, 1.0], 3)
    tied = preference({name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
                      | {"prompt": [{"role": "user", "content": "q"}], "is_tie": True})  # fmt: skip
    assert (tied.provenance["source"], tied.levels()) == ("trl", (0, 0))


def test_a_systems_text_that_is_said_twice_is_put_once():
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "q"}]
    row = {"messages": turns, "chosen": "x", "rejected": "y", "system": "Be brief."}
    row |= {name: {"role": "assistant", "content": name} for name in ("chosen", "rejected")}
    assert preference(row).prompt == (Message.of("system", "Be brief."), Message.of("user", "q"))
    with pytest.raises(RowError, match="system: row says in two ways what the system's text is .got 'Be long.'."):
        preference(row | {"system": "Be long."})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (PAIR | {"rejected_images": ["a.jpg"]}, "rejected_images: column rejected_images is not read .got"),
        (PAIR | {"image_path": "a.jpg"}, "image_path: column image_path is not read .*rows of the format trl do not"),
        (PAIR | {"history": [["a", "b"]]}, "history: column history is not read"),
        *(({"prompt": "q", "completion": "x", "label": text},
           f"label: judgement of an answer must be true or false .got '{text}'.; write true or false, without quot")
          for text in ("false", "True", "NO", "good", "undesirable", "0")),
        (PAIR | {"is_tie": "yes", "images": []}, "is_tie: must be true or false .got 'yes'."),
        (PAIR | {"system": 5}, "system: column must be a text .got 5."),
        (PAIR | {"score_chosen": 5}, "score_rejected: only one of the two answers has a score .got 'nothing'."),
        (PAIR | {"score_chosen": 2, "score_rejected": 1, "chosen_score": 2, "rejected_score": 1},
         "chosen_score: column chosen_score is not read .got 2."),
        (EXAMPLES["mdpo", "preference"] | {"image": "b.jpg"}, "image: column image is not read .*the format mdpo do"),
        (EXAMPLES["vistadpo", "preference"] | {"chosen_score": 5}, "chosen_score: column chosen_score is not read"),
    ],
)  # fmt: skip
def test_the_column_is_named(row, message):
    with pytest.raises(RowError, match=message):
        preference(row)


def test_a_class_under_label_judges_no_answer():
    assert preference({"prompt": "q", "completion": "x", "label": "kitchen"}).label is None


def test_a_watched_row_knows_what_was_read_of_it():
    row = Watched(PAIR | {"label": True, "note": "x", "id": 5})
    parse(RawRow("rows.jsonl", 7, row))
    assert {"prompt", "chosen", "rejected", "id"} <= row.asked
    assert row.asked.isdisjoint({"label", "note"})
