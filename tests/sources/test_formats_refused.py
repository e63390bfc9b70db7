"""Rows of every published format that are refused, with which words, and rows that are odd and read."""

import contextlib
import copy
import json

import pytest
from sources.example_rows import BAD, EXAMPLES, GOOD, QUESTION, preference

from mmalign.errors import DataError, RowError
from mmalign.sources.detect import named, read
from mmalign.sources.quarantine import Refusal

PAIR = {"prompt": QUESTION, "chosen": GOOD, "rejected": BAD}
OURS = EXAMPLES["mmalign", "two responses"]
TRL = EXAMPLES["trl", "conversational"]
SHAREGPT = EXAMPLES["sharegpt", "preference"]
SWIFT = EXAMPLES["swift", "rejected_response"]
LLAVA = EXAMPLES["llava", "preference"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (PAIR | {"rejected": GOOD}, "rejected: chosen equals rejected .got 'A red kettle.'."),
        (PAIR | {"rejected": f" {GOOD}\n"}, "chosen equals rejected"),
        (PAIR | {"chosen": ""}, "chosen: response is empty"),
        (PAIR | {"rejected": " \n"}, "rejected: response is empty"),
        (PAIR | {"rejected": None}, "rejected: response must be a text or a list of turns .got 'nothing'."),
        (PAIR | {"prompt": "  "}, "prompt: prompt is empty"),
        (PAIR | {"prompt": None, "chosen": "a", "rejected": "b"}, "row has no prompt, and its answers share none"),
        (PAIR | {"prompt": []}, "prompt: turns must be a list that is not empty"),
        (PAIR | {"prompt": [{"role": "user"}]}, "response must be|content must be a text or a list of parts"),
        (PAIR | {"margin": float("nan")}, r"margin: number is not finite \(got nan\)"),
        (PAIR | {"margin": float("inf")}, r"margin: number is not finite \(got inf\)"),
        (PAIR | {"margin": "big"}, "margin: number is not finite"),
        (PAIR | {"chosen": "half \ud83d"}, "chosen: text is not valid Unicode"),
        (PAIR | {"images": [None]}, r"images\[0\]: image is neither a path, bytes nor a data URI"),
        (PAIR | {"images": [""]}, r"images\[0\]: image is neither a path"),
        (PAIR | {"images": {"bytes": None, "path": None}}, "images: image is neither a path"),
        (PAIR | {"image": "a.jpg", "images": ["b.jpg"]}, "image: row has both image and images"),
        (PAIR | {"images": ["data:image/png;base64,@"]}, "data URI is not valid base64"),
        (PAIR | {"prompt": "<image> <image>", "images": ["a.jpg"]}, r"2 placeholder\(s\), 1 medium"),
        (TRL | {"prompt": [{"role": "user", "content": [{"type": "text", "text": "q"}]}]}, r"0 placeholder\(s\), 1"),
        (EXAMPLES["mdpo", "preference"] | {"videos": ["a.mp4"]},
         r"videos: column videos is not read \(got \['a.mp4'\]\); rows of the format mdpo do not have it; if it"),
        (PAIR | {"audios": ["a.wav"]}, "audios: column audios is not supported .got .*; text, images and videos are"),
        (SHAREGPT | {"images": [], "videos": ["a.mp4"]}, "videos: placeholders and media do not match: they are of"),
        (PAIR | {"tools": [{"name": "f"}]}, "tools: column tools is not supported"),
        ({"prompt": "q", "completion": "a", "label": 0}, "label: judgement of an answer must be true or false .got 0."),
        ({"prompt": "q", "completion": "a", "kto_tag": "x"}, "kto_tag: judgement of an answer must be true or false"),
        ({"prompt": "q", "completion": "a", "kto_tag": True, "label": False}, "says in two ways how its answer was"),
        (SHAREGPT | {"images": []}, r"placeholders and media do not match: 1 placeholder\(s\), 0 medium"),
        (SHAREGPT | {"images": ["a.jpg", "b.jpg"]}, r"1 placeholder\(s\), 2 medium"),
        (SHAREGPT | {"chosen": {"from": "gpt", "value": "see <image>"}}, "chosen: a response must not hold media"),
        (SHAREGPT | {"chosen": {"from": "human", "value": "x"}}, "chosen: a response must be the assistant's"),
        (SHAREGPT | {"rejected": None}, "rejected: answer must be one turn .got 'nothing'."),
        (SHAREGPT | {"conversations": [{"from": "gpt", "value": "x"}]}, "must end with the user"),
        (SHAREGPT | {"conversations": [{"from": "elf", "value": "x"}]}, "from: role is unknown .got 'elf'"),
        (SHAREGPT | {"conversations": [{"from": "human", "value": 5}]}, "content must be a text or a list of parts"),
        ({"messages": [{"role": "user", "content": "q"}]}, "conversation must end with the assistant's answer"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "conversation has no turn before the answer"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [1]}]}, "tool calls are not supported"),
        (SWIFT | {"rejected_response": None}, "row must say what was rejected, once"),
        (SWIFT | {"rejected_response": {"a": 1}}, "rejected_response must be a text or a list of texts"),
        (SWIFT | {"rejected_images": ["a.jpg", "b.jpg"]}, r"rejected_images must be as many as images \(1\)"),
        (SWIFT | {"rejected_response": [BAD, GOOD]}, "two answers of different rank are the same"),
        (SWIFT | {"rejected_response": None, "rejected_messages": 5}, "turns must be a list that is not empty .got 5."),
        (OURS | {"prompt": [{**OURS["prompt"][0], "tool_calls": [1]}]}, "tool_calls: tool calls are not supported"),
        (SWIFT | {"objects": {"bbox": [[1, 2]]}, "messages": [{"role": "user", "content": "<bbox>"}]}, "boxes are not"),
        (LLAVA | {"rejected_conversations": []}, "turns must be a list that is not empty"),
        (LLAVA | {"rejected_conversations": [LLAVA["conversations"][1]] * 2}, "must share their prompt"),
        (LLAVA | {"rejected_conversations": [{"from": "system", "value": QUESTION}, LLAVA["conversations"][1]]},
         "the two conversations must share their prompt .got 'system: What is on the stove.'"),
        (SWIFT | {"rejected_response": None, "rejected_messages": [SWIFT["messages"][0], *SWIFT["messages"]]},
         "rejected_messages: the two conversations must share their prompt .got 'user: What is on"),
        ({"question": None, "chosen": "a", "rejected": "b"}, "question: column must be a text .got 'nothing'."),
        ({"instruction": 4, "output": "a"}, "instruction: column must be a text .got 4."),
        ({"instruction": "a", "input": 5, "output": "a"}, "input: column must be a text .got 5."),
        ({"instruction": "a", "output": "b", "history": [["x"]]}, "history must hold .question, answer."),
        (PAIR | {"rejected_response": "x"}, "columns: format is ambiguous"),
    ],
)  # fmt: skip
def test_a_row_is_refused_in_words(row, message):
    with pytest.raises(RowError, match=message):
        preference(row)


def test_an_unknown_format_names_the_columns_and_the_nearest_format():
    with pytest.raises(
        RowError, match=r"format is unknown \(got \['answer', 'query'\]\); a row of preferences has a prompt"
    ):
        preference({"query": "a", "answer": "b"})
    with pytest.raises(RowError, match="nearest known format is swift with the columns messages, rejected_response"):
        preference({"mesages": [], "rejected_responses": "b"})


def test_a_format_by_name():
    assert named("trl").name == "trl"
    with pytest.raises(
        DataError, match="format 'shargpt' is unknown; did you mean 'sharegpt'. known are mmalign, swift"
    ):
        named("shargpt")
    with pytest.raises(RowError, match="row does not have the shape of the format sharegpt .*KeyError: 'messages'"):
        preference(PAIR, format="sharegpt")


ODD_VALUES = [
    *(None, True, 0, -1.5, 10**400, "", "x", "\x00", "\u202e<image>", b"\xff"),
    *([], {}, [[]], [None], {"a": None}, ["x"], [{}]),
    *([{"role": "user"}], [{"role": [], "content": {}}], [{"from": "gpt", "value": []}]),
]


@pytest.mark.parametrize(("name", "title"), EXAMPLES, ids=[f"{name}: {title}" for name, title in EXAMPLES])
def test_whatever_stands_in_a_column_a_row_is_kept_or_refused(name, title):
    row = EXAMPLES[name, title]
    for column in row:
        for value in ODD_VALUES:
            for changed in (row | {column: value}, {key: row[key] for key in row if key != column}):
                with contextlib.suppress(RowError):
                    preference(changed)


def test_a_nan_in_a_file_is_refused_with_its_field(tmp_path):
    row = copy.deepcopy(EXAMPLES["mmalign", "three responses with scores"])
    row["responses"][1]["score"] = float("nan")
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))  # Python writes NaN, which is not JSON, and reads it
    refused = []
    assert list(read(tmp_path / "rows.jsonl", on_refused=refused.append)) == []
    assert refused == [Refusal("rows.jsonl", 1, "score", "nan", "number is not finite")]


def test_giant_rows_and_endless_conversations_are_read(tmp_path):
    turns = [{"role": ("user", "assistant")[k % 2], "content": f"<image>{k}"} for k in range(10_001)]
    long = {"messages": turns, "chosen": "x", "rejected": "y", "images": ["a.jpg"] * 10_001}
    giant = {"prompt": "q " * 5_000_000, "chosen": "x", "rejected": "y"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(long) + "\n" + json.dumps(giant))
    first, second = read(tmp_path / "rows.jsonl", on_refused=print)
    assert (len(first.prompt), len(first.media), first.prompt[-1].text) == (10_001, 10_001, "10000")
    assert len(second.prompt[0].text) == 10_000_000
