"""Where a row's media stand: columns, parts of turns, tags in a text; and that a clip never becomes the whole file."""

import pytest
from sources.example_rows import EXAMPLES, preference

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message


def clip(uri):
    return MediaRef(kind="video", uri=uri)


def test_a_list_under_video_is_one_clip():
    row = EXAMPLES["trl", "a video"] | {"videos": None, "video": ["1.jpg", "2.jpg"]}
    assert preference(row).media == (MediaRef(kind="video", frames=("1.jpg", "2.jpg")),)


def test_files_of_videos_under_video_are_clips_and_no_frames():
    turn = [{"role": "user", "content": [{"type": "video"}, {"type": "video"}, {"type": "text", "text": "q"}]}]
    row = EXAMPLES["trl", "a video"] | {"videos": None, "prompt": turn, "video": ["a.avi", "b.mp4"]}
    assert preference(row).media == (clip("a.avi"), clip("b.mp4"))
    assert preference(EXAMPLES["trl", "a video"] | {"videos": None, "video": ["a.avi"]}).media == (clip("a.avi"),)
    mixed = "list of frames holds a video .got 'a.avi'.; a list of clips belongs into the column videos"
    for columns in ({"videos": None, "video": ["1.jpg", "a.avi"]}, {"videos": [["a.avi"]]}):
        with pytest.raises(RowError, match=mixed):
            preference(EXAMPLES["trl", "a video"] | columns)


# ---- a part of a video -----------------------------------------------------------------------------------------------

CLIP = MediaRef(kind="video", uri="cooking.avi", span_s=(1.0, 2.5))
SAME_CLIP = [
    {"prompt": {"type": "video", "video": "cooking.avi", "video_start": 1.0, "video_end": 2.5, "fps": 1, "nframes": 4}},
    {"prompt": {"type": "video_url", "video_url": {"url": "cooking.avi", "start": 1.0, "end": 2.5}, "text": None}},
    {"prompt": {"type": "video", "index": 0}, "videos": [{"path": "cooking.avi", "start": 1.0, "end": 2.5}]},
    {
        "prompt": {"type": "video"},
        "video": {"bytes": None, "path": "cooking.avi", "video_start": 1.0, "video_end": 2.5},
    },
]


def asked_about(part, **columns):
    row = {"prompt": [{"role": "user", "content": [part, {"type": "text", "text": "q"}]}]}
    return row | {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")} | columns


@pytest.mark.parametrize("columns", SAME_CLIP)
def test_a_clip_of_a_video_never_becomes_the_whole_file(columns):
    rest = {name: value for name, value in columns.items() if name != "prompt"}
    assert preference(asked_about(columns["prompt"], **rest)).media == (CLIP,)


def test_a_clip_without_a_start_begins_with_the_file():
    made = preference(asked_about({"type": "video", "video": "cooking.avi", "video_end": 2}))
    assert made.media == (MediaRef(kind="video", uri="cooking.avi", span_s=(0.0, 2)),)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "video", "video": "a.avi", "video_start": 1}, "clip has a start and no end .got 1.; give video_end"),
        ({"type": "video", "video": "a.avi", "start": 2, "end": 1}, "clip bounds must satisfy 0 <= start < end"),
        ({"type": "video", "video": "a.avi", "end": "2"}, "span_s: number is not finite .got '2'."),
        ({"type": "video", "video": "a.avi", "crop": [0, 0, 9, 9]}, "video has a key that is not read .got 'crop'."),
        ({"type": "video", "video": "a.avi", "end": 2, "video_end": 2}, "video has a key that is not read .got 'end'."),
        ({"type": "image", "image": "a.jpg", "start": 1, "end": 2}, "image has a key that is not read .got 'start'."),
        ({"type": "image_url", "image_url": {"url": "a.jpg", "crop": 1}}, "image has a key that is not read"),
        ({"type": "image", "crop": 1}, "image is neither a path, bytes nor a data URI"),
        ({"type": "image", "index": 1}, "index: parts must name the media in their order .got 1."),
    ],
)
def test_a_part_that_says_more_of_its_medium_than_is_read_is_refused(part, message):
    with pytest.raises(RowError, match=message):
        preference(asked_about(part))


def test_our_own_rows_name_a_medium_by_its_kind_alone():
    row = EXAMPLES["mmalign", "three responses with scores"]
    part = {"type": "video", "video": "a.avi", "video_start": 1.0}
    row = row | {"prompt": [{"role": "user", "content": [part]}], "videos": ["a.avi"]}
    with pytest.raises(RowError, match=r"prompt\[0\].content: a part must be a text or a medium"):
        preference(row)


# ---- prompts that are one text ---------------------------------------------------------------------------------------

ONE_TEXT = [
    ("vistadpo", "preference", "prompt"),
    ("align_anything", "text-image-to-text", "question"),
    ("mm_rlhf", "a picture", "prompt"),
    ("mm_rlhf_ranked", "three outputs, two of them equally good", "question"),
    ("llava_hound", "several pictures, MIA-DPO", "prompt"),
    ("rlhf_v", "question, chosen, rejected", "question"),
]


def about(name, title, column, text, *pictures):
    """The example of a format, asked `text` about pictures."""
    row = {key: value for key, value in EXAMPLES[name, title].items() if key not in ("image", "video")}
    return preference(row | {column: text, "image": list(pictures)}, format=name)


@pytest.mark.parametrize(("name", "title", "column"), ONE_TEXT, ids=[name for name, *_ in ONE_TEXT])
def test_a_tag_in_a_prompt_of_one_text_is_the_place_of_its_medium_and_never_stays_as_text(name, title, column):
    text = "See <image>\nand <image>: which?"
    made = about(name, title, column, text, "1.jpg", "2.jpg")
    assert made.prompt == (Message.of("user", "See ", 0, "and ", 1, ": which?"),)
    assert about(name, title, column, "Which?", "1.jpg", "2.jpg").prompt == (Message.of("user", 0, 1, "Which?"),)
    assert about(name, title, column, "<image>\nWhat?", "1.jpg").prompt == (Message.of("user", 0, "What?"),)
    with pytest.raises(RowError, match=r"row has no medium|1 placeholder\(s\), 0 medium"):
        about(name, title, column, "<image>\nWhat?")
