"""What is written for other tools reads back as the same record; what they cannot say is counted or refused."""

import dataclasses
import json

import pytest
from formats.rows import pair, png

from mmalign.errors import DataError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response, Span
from mmalign.sources.detect import SOURCES, parse, read
from mmalign.sources.read import RawRow
from mmalign.sources.write import TARGETS, write

FIRST, SECOND = MediaRef(kind="image", uri="1.jpg"), MediaRef(kind="image", uri="2.jpg")
TURNS = Preference(
    id="turns",
    prompt=(
        Message.of("system", "Be brief."),
        Message.of("user", 0, "\nfirst"),
        Message.of("assistant", "One. \u4f60\u597d"),
        Message.of("user", "and ", 1, " this?"),
    ),
    media=(FIRST, SECOND),
    responses=(Response.of("Yes."), Response.of("No.\n")),
)
ONE_ANSWER = pair(5, FIRST, responses=(Response.of("Only this."),))
FILES = [(to, ending) for to, target in TARGETS.items() for ending in target.endings]
every_file = pytest.mark.parametrize(("to", "ending"), FILES, ids=[f"{to}{ending}" for to, ending in FILES])


def _no_refusal(*refused):
    pytest.fail(f"refused: {refused}")


def there_and_back(folder, rows, to, ending):
    """Write rows, read them again, and return them without the place where they stand; then what was lost, refused."""
    refused = []
    written, lost = write(folder / f"rows{ending}", rows, to, lambda row, error: refused.append((row.id, str(error))))
    back = list(read(folder / f"rows{ending}", on_refused=_no_refusal)) if written else []
    assert len(back) == written
    return [dataclasses.replace(row, provenance={}) for row in back], lost, refused


@every_file
def test_what_is_written_reads_back_the_same(tmp_path, to, ending):
    judged = [pair(6 + good, FIRST, responses=(Response.of("This."),), label=good) for good in (False, True)]
    rows = [pair(0), TURNS, ONE_ANSWER, pair(1, FIRST), *judged]
    assert there_and_back(tmp_path, rows, to, ending) == (rows, {}, [])


@every_file
def test_bytes_come_back_as_bytes_or_stand_in_a_file_beside_the_rows(tmp_path, to, ending):
    content = png()
    (back,), _, _ = there_and_back(tmp_path, [pair(0, MediaRef(kind="image", content=content))], to, ending)
    if to in ("sharegpt", "swift"):
        assert back.media[0].uri.startswith("rows_media/") and back.media[0].uri.endswith(".png")
        assert (tmp_path / back.media[0].uri).read_bytes() == content
    else:
        assert back.media[0].content == content


def test_the_shape_of_what_other_tools_read(tmp_path):
    def written(to, ending, row=TURNS):
        write(tmp_path / f"rows{ending}", [row], to, _no_refusal)
        text = (tmp_path / f"rows{ending}").read_text()
        return json.loads(text) if ending == ".json" else json.loads(text.splitlines()[0])

    assert written("sharegpt", ".json") == [
        {
            "id": "turns",
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "<image>\nfirst"},
                {"from": "gpt", "value": "One. \u4f60\u597d"},
                {"from": "human", "value": "and <image> this?"},
            ],
            "chosen": {"from": "gpt", "value": "Yes."},
            "rejected": {"from": "gpt", "value": "No.\n"},
            "images": ["1.jpg", "2.jpg"],
        }
    ]
    swift = written("swift", ".jsonl")
    assert swift["messages"][-1] == {"role": "assistant", "content": "Yes."}
    assert (swift["rejected_response"], swift["images"]) == ("No.\n", ["1.jpg", "2.jpg"])
    assert set(written("trl", ".jsonl")) == {"id", "prompt", "images", "chosen", "rejected"}
    assert set(written("trl", ".jsonl", ONE_ANSWER)) == {"id", "prompt", "images", "completion"}
    judged = dataclasses.replace(ONE_ANSWER, label=False)
    assert set(written("trl", ".jsonl", judged)) == {"id", "prompt", "images", "completion", "label"}
    assert written("mmalign", ".jsonl", judged)["label"] is False
    assert "chosen" not in written("mmalign", ".jsonl", judged)
    assert written("sharegpt", ".json", judged)[0]["kto_tag"] is False
    assert written("swift", ".jsonl", judged)["label"] is False
    assert "rejected_response" not in written("swift", ".jsonl", judged)


def test_images_stand_in_the_order_of_their_tags(tmp_path):
    row = dataclasses.replace(TURNS, prompt=(Message.of("user", 1, "or", 0),))
    write(tmp_path / "rows.jsonl", [row], "swift", _no_refusal)
    assert json.loads((tmp_path / "rows.jsonl").read_text())["images"] == ["2.jpg", "1.jpg"]


def test_margin_is_kept_where_it_can_be_said(tmp_path):
    for to, lost in [("trl", {}), ("swift", {}), ("sharegpt", {"margin": 1})]:
        (back,), counted, _ = there_and_back(tmp_path, [pair(0, margin=2.0)], to, ".jsonl")
        assert (counted, back.margin) == (lost, None if lost else 2.0)


def test_what_is_lost_is_counted_by_name(tmp_path):
    span = Span(start=0, end=1, weight=0.0)
    answers = (Response.of("a", score=2.0, model="m"), Response.of("b"), Response.of("c", spans=(span,)))
    rows = [pair(k, tags={"a": "b"}, weight=0.5, difficulty=1.0, responses=answers) for k in range(2)]
    common = {
        "weight": 2,
        "difficulty": 2,
        "tags": 2,
        "score of answers": 2,
        "model of answers": 2,
        "spans of answers": 2,
    }
    back, lost, _ = there_and_back(tmp_path, rows, "trl", ".jsonl")
    assert lost == common | {"answers between the best and the worst": 2}
    assert [response.text for response in back[0].responses] == ["a", "c"]
    back, lost, _ = there_and_back(tmp_path, rows, "swift", ".jsonl")
    assert lost == common | {"order among the rejected": 2}
    assert [response.text for response in back[0].responses] == ["a", "b", "c"]


def test_swift_says_several_rejected_answers_that_are_equally_bad(tmp_path):
    row = pair(0, responses=tuple(map(Response.of, "abc")), ties=((1, 2),))
    assert there_and_back(tmp_path, [row], "swift", ".jsonl") == ([row], {}, [])


LOST_ORDER = [
    # levels of the answers, the target, what is lost, and the answers that are left
    ((0, 1, 1), "trl", {"answers as bad as the worst": 1}, "ab"),
    ((0, 1, 1), "sharegpt", {"answers as bad as the worst": 1}, "ab"),
    ((0, 1, 1), "swift", {}, "abc"),
    ((0, 0, 1), "trl", {"answers as good as the best": 1}, "ac"),
    ((0, 0, 1), "swift", {"answers as good as the best": 1}, "ac"),
    ((0, 1, 2), "sharegpt", {"answers between the best and the worst": 1}, "ac"),
    ((0, 1, 2), "swift", {"order among the rejected": 1}, "abc"),
    ((0, 0, 1, 2), "swift", {"answers as good as the best": 1, "order among the rejected": 1}, "acd"),
    ((0, 0, 1, 2, 2), "trl", {f"answers {name}": 1 for name in (
        "as good as the best", "between the best and the worst", "as bad as the worst")}, "ad"),
]  # fmt: skip


@pytest.mark.parametrize(("levels", "to", "lost", "left"), LOST_ORDER)
def test_a_lost_order_is_counted_and_the_first_of_the_worst_stays(tmp_path, levels, to, lost, left):
    groups = [[k for k, at in enumerate(levels) if at == level] for level in sorted(set(levels))]
    ties = tuple(tuple(group) for group in groups if len(group) > 1)
    row = pair(0, responses=tuple(map(Response.of, "abcde"[: len(levels)])), ties=ties)
    (back,), counted, refused = there_and_back(tmp_path, [row], to, ".jsonl")
    assert (counted, refused) == (lost, [])
    assert "".join(response.text for response in back.responses) == left


@pytest.mark.parametrize("to", ["trl", "sharegpt"])
def test_a_vistadpo_row_keeps_its_rejected_answer_not_the_irrelevant_one(tmp_path, to):
    example = next(source for source in SOURCES if source.name == "vistadpo").examples["preference"]
    made = parse(RawRow("rows.jsonl", 1, example))
    (back,), lost, _ = there_and_back(tmp_path, [made], to, ".jsonl")
    assert [response.text for response in back.responses] == [example["chosen"], example["rejected"]]
    assert lost == {"tags": 1, "answers as bad as the worst": 1}


def test_a_lost_origin_is_counted_when_it_says_more_than_where_the_row_was_read(tmp_path):
    place = {"source": "trl", "file": "x.jsonl", "row": "3"}
    rows = [pair(0, provenance=place), pair(1, provenance=place | {"annotator": "anna"})]
    assert write(tmp_path / "rows.jsonl", rows, "trl", _no_refusal) == (2, {"provenance": 1})


def test_swift_says_that_the_rejected_answer_saw_another_picture(tmp_path):
    row = pair(0, FIRST, responses=(Response.of("a"), Response.of("a", media=(SECOND,))))
    assert there_and_back(tmp_path, [row], "swift", ".jsonl") == ([row], {}, [])
    _, _, refused = there_and_back(tmp_path, [row], "trl", ".jsonl")
    assert refused == [("row-0", "responses[1].media: trl cannot say that this answer saw other media")]


@pytest.mark.parametrize("to", ["trl", "sharegpt", "swift"])
def test_a_tie_is_never_written_as_a_preference(tmp_path, to):
    _, _, refused = there_and_back(tmp_path, [pair(0, ties=((0, 1),))], to, ".jsonl")
    assert refused[0][1].startswith(f"ties: {to} cannot say that answers are equally good")


@pytest.mark.parametrize("to", ["sharegpt", "swift"])
def test_a_text_that_holds_the_tag_is_not_written_where_it_would_be_a_picture(tmp_path, to):
    row = dataclasses.replace(pair(0), prompt=(Message.of("user", "What does <image> do?"),))
    assert "takes <image> in a text for a picture" in there_and_back(tmp_path, [row], to, ".jsonl")[2][0][1]
    assert there_and_back(tmp_path, [row], "trl", ".jsonl")[0] == [row]


TAGS = [("sharegpt", "<audio>", "a sound"), ("swift", "<audio>", "a sound"), ("swift", "<bbox>", "a box"),
        ("swift", "<ref-object>", "an object")]  # fmt: skip


@pytest.mark.parametrize(("to", "tag", "meaning"), TAGS)
def test_a_text_that_holds_another_tag_of_the_format_is_not_written(tmp_path, to, tag, meaning):
    row = dataclasses.replace(pair(0), responses=(Response.of(f"Use {tag}."), Response.of("b")))
    assert f"{to} takes {tag} in a text for {meaning}" in there_and_back(tmp_path, [row], to, ".jsonl")[2][0][1]
    assert there_and_back(tmp_path, [row], "trl", ".jsonl")[0] == [row]


@pytest.mark.parametrize("to", ["sharegpt", "swift"])
def test_an_answer_of_several_turns_is_refused(tmp_path, to):
    turns = tuple(Message.of("assistant", text) for text in "ab")
    row = pair(0, responses=(Response(messages=turns), Response.of("c")))
    assert there_and_back(tmp_path, [row], to, ".jsonl")[2][0][1].startswith("responses[0]: answer has several turns")


def test_unknown_formats_and_endings_are_named(tmp_path):
    with pytest.raises(DataError, match="cannot write the format 'llava'; known are mmalign, trl, sharegpt, swift"):
        write(tmp_path / "x.jsonl", [], "llava", _no_refusal)
    with pytest.raises(DataError, match=r"rows of the format sharegpt go into \.json or \.jsonl, not 'x.parquet'"):
        write(tmp_path / "x.parquet", [], "sharegpt", _no_refusal)


def test_no_rows_make_an_empty_array(tmp_path):
    assert write(tmp_path / "x.json", [], "sharegpt", _no_refusal) == (0, {})
    assert json.loads((tmp_path / "x.json").read_text()) == []


# ---- videos --------------------------------------------------------------------------------------------------------

CLIP, PICTURE = MediaRef(kind="video", uri="a.mp4"), MediaRef(kind="image", uri="1.jpg")
MIXED = dataclasses.replace(pair(0, CLIP, PICTURE), prompt=(Message.of("user", "See ", 0, " and ", 1, ": which?"),))


@every_file
def test_videos_and_pictures_in_one_row_read_back_the_same(tmp_path, to, ending):
    assert there_and_back(tmp_path, [pair(1), MIXED, pair(2, CLIP)], to, ending) == (
        [pair(1), MIXED, pair(2, CLIP)], {}, []
    )  # fmt: skip


@pytest.mark.parametrize("to", ["sharegpt", "swift"])
def test_videos_stand_as_tags_and_in_a_column_of_their_own(tmp_path, to):
    write(tmp_path / "rows.jsonl", [MIXED], to, _no_refusal)
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    assert (row["videos"], row["images"]) == (["a.mp4"], ["1.jpg"])
    turn = row["conversations"][0]["value"] if to == "sharegpt" else row["messages"][0]["content"]
    assert turn == "See <video> and <image>: which?"


def test_bytes_of_a_video_become_a_file_that_its_ending_tells(tmp_path):
    content = b"\x00\x00\x00\x18ftypmp42 and so on"
    (back,), _, _ = there_and_back(tmp_path, [pair(0, MediaRef(kind="video", content=content))], "swift", ".jsonl")
    assert back.media[0].uri.endswith(".mp4") and (tmp_path / back.media[0].uri).read_bytes() == content


FRAMES = MediaRef(kind="video", frames=("clip/1.jpg", "clip/2.jpg"))


@every_file
def test_a_list_of_frames_is_written_where_it_can_be_read_or_refused(tmp_path, to, ending):
    back, _, refused = there_and_back(tmp_path, [pair(0, FRAMES)], to, ending)
    if to in ("mmalign", "sharegpt"):
        assert back == [pair(0, FRAMES)]
    else:
        assert refused == [
            ("row-0", f"videos: {to} cannot say that a video is a list of frames (got ('clip/1.jpg', 'clip/2.jpg'))")
        ]


@pytest.mark.parametrize("to", ["trl", "sharegpt", "swift"])
@pytest.mark.parametrize("part", [{"span_s": (1.0, 2.0)}, {"frame_indices": (0, 5)}], ids=["clip", "frames"])
def test_a_part_of_a_video_never_becomes_the_whole_of_it(tmp_path, to, part):
    row = pair(0, dataclasses.replace(CLIP, **part))
    _, _, ((_, message),) = there_and_back(tmp_path, [row], to, ".jsonl")
    assert message.startswith(f"videos: {to} cannot say that a part of the video is meant")


def test_swift_says_that_the_rejected_answer_saw_another_video(tmp_path):
    other = (dataclasses.replace(CLIP, uri="b.mp4"), PICTURE)
    row = dataclasses.replace(MIXED, responses=(Response.of("a"), Response.of("a", media=other)))
    assert there_and_back(tmp_path, [row], "swift", ".jsonl") == ([row], {}, [])
    written = json.loads((tmp_path / "rows.jsonl").read_text())
    assert (written["rejected_videos"], written["rejected_images"]) == (["b.mp4"], ["1.jpg"])


@pytest.mark.parametrize("to", ["sharegpt", "swift"])
def test_a_text_that_holds_a_videos_tag_is_not_written_either(tmp_path, to):
    row = dataclasses.replace(pair(0), responses=(Response.of("Use <video>."), Response.of("b")))
    assert f"{to} takes <video> in a text for a video" in there_and_back(tmp_path, [row], to, ".jsonl")[2][0][1]
