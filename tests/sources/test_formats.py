"""Every published format: what one row of it becomes, worked by hand, and what is refused with which words."""

import contextlib
import copy
import json

import pytest

from mmalign.errors import DataError, RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference
from mmalign.sources.detect import SOURCES, detect, named, parse, read
from mmalign.sources.quarantine import Refusal
from mmalign.sources.read import RawRow

KITCHEN = MediaRef(kind="image", uri="kitchen.jpg")
QUESTION = "What is on the stove?"
GOOD, BAD = "A red kettle.", "A red kettle and two pans."
EXAMPLES = {(source.name, title): row for source in SOURCES for title, row in source.examples.items()}


def preference(row, format=None) -> Preference:
    return parse(RawRow("rows.jsonl", 7, row), format)


def texts(row) -> list[str]:
    return [response.text for response in preference(row).responses]


# ---- the examples --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "title"), EXAMPLES, ids=[f"{name}: {title}" for name, title in EXAMPLES])
def test_an_example_is_recognised_and_is_left_as_it_was(name, title):
    row = copy.deepcopy(EXAMPLES[name, title])
    assert detect(row).name == name
    made = preference(row)
    assert row == EXAMPLES[name, title]
    assert made.provenance == {"source": name, "file": "rows.jsonl", "row": "7"}
    assert made.id == row.get("id", "rows.jsonl:7")
    assert preference(row, format=name).prompt == made.prompt


SAME_PAIR = [
    ("mmalign", "two responses"),
    ("swift", "rejected_response"),
    ("llava", "preference"),
    ("rlhf_v", "question, chosen, rejected"),
    ("alpaca", "preference"),
    ("sharegpt", "preference"),
    ("trl", "conversational"),
    ("trl", "conversational, plain content"),
    ("trl", "standard"),
]


@pytest.mark.parametrize(("name", "title"), SAME_PAIR, ids=[f"{name}: {title}" for name, title in SAME_PAIR])
def test_the_same_pair_in_any_format_is_the_same_record(name, title):
    made = preference(EXAMPLES[name, title])
    assert made.prompt == (Message.of("user", 0, QUESTION),)
    assert made.media == (KITCHEN,)
    assert [response.messages for response in made.responses] == [
        (Message.of("assistant", GOOD),),
        (Message.of("assistant", BAD),),
    ]


# ---- TRL -----------------------------------------------------------------------------------------


def test_trl_images_of_plain_content_stand_before_the_first_user_turn():
    prompt = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
    ]
    row = {"images": ["1.jpg", "2.jpg"], "prompt": prompt, "chosen": "x", "rejected": "y"}
    row |= {name: [{"role": "assistant", "content": row[name]}] for name in ("chosen", "rejected")}
    assert preference(row).prompt == (
        Message.of("system", "Be brief."), Message.of("user", 0, 1, "a"), Message.of("user", "b")
    )  # fmt: skip


def test_trl_agrees_with_us_on_where_images_stand():
    data_utils = pytest.importorskip("trl.data_utils", reason="trl is not installed (extra `bench`)")
    prompt = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    theirs = data_utils.prepare_multimodal_messages(prompt, images=["1.jpg", "2.jpg"])
    row = {"images": ["1.jpg", "2.jpg"], "prompt": prompt, "chosen": "x", "rejected": "y"}
    row |= {name: [{"role": "assistant", "content": row[name]}] for name in ("chosen", "rejected")}
    made = preference(row)
    ours = [
        (message.role, [part.text if hasattr(part, "text") else made.media[part.index].uri for part in message.parts])
        for message in made.prompt
    ]
    assert ours == [
        (turn["role"], [part.get("image", part.get("text")) for part in turn["content"]]) for turn in theirs
    ]


def test_trl_pictures_may_stand_in_the_parts_themselves():
    parts = [{"type": "image", "image": "1.jpg"}, {"type": "text", "text": "a"},
             {"type": "image_url", "image_url": {"url": "2.jpg"}}]  # fmt: skip
    row = {"prompt": [{"role": "user", "content": parts}]}
    row |= {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    made = preference(row)
    assert [ref.uri for ref in made.media] == ["1.jpg", "2.jpg"]
    assert made.prompt == (Message.of("user", 0, "a", 1),)


def test_trl_text_is_only_text():
    row = {"prompt": [{"role": "user", "content": "What does <image> do in HTML?"}], "images": []}
    row |= {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    assert preference(row).prompt == (Message.of("user", "What does <image> do in HTML?"),)


def test_trl_implicit_prompt_ends_where_the_answers_part():
    shared = [("user", "a"), ("assistant", "b"), ("user", "c")]
    turns = [{"role": role, "content": text} for role, text in shared]
    row = {name: [*turns, {"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    made = preference(row | {"images": ["1.jpg"]})
    assert made.prompt == (Message.of("user", 0, "a"), Message.of("assistant", "b"), Message.of("user", "c"))
    assert texts(row) == ["chosen", "rejected"]
    # UltraFeedback names the question in a column of its own as well
    assert preference(row | {"prompt": "a"}).prompt[0] == Message.of("user", "a")


def test_trl_implicit_prompt_of_plain_texts_ends_at_a_word():
    made = preference({"chosen": "The sky is blue.", "rejected": "The sky is black."})
    assert made.prompt == (Message.of("user", "The sky is"),)
    assert texts({"chosen": "The sky is blue.", "rejected": "The sky is black."}) == ["blue.", "black."]


def test_trl_implicit_prompt_of_a_transcript_is_split_into_turns():
    shared = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Say a or b\n\nAssistant:"
    made = preference({"chosen": shared + " a", "rejected": shared + " b"})
    assert made.prompt == (
        Message.of("user", "Hi"), Message.of("assistant", "Hello"), Message.of("user", "Say a or b")
    )  # fmt: skip
    assert [response.text for response in made.responses] == ["a", "b"]


def test_trl_margin_is_kept():
    assert preference(EXAMPLES["trl", "standard"] | {"margin": 1.25}).margin == 1.25


# ---- LLaMA-Factory -------------------------------------------------------------------------------


def test_sharegpt_tags_stand_where_they_are_in_any_turn():
    row = {
        "conversations": [
            {"from": "human", "value": "<image>first\n"},
            {"from": "gpt", "value": "one"},
            {"from": "human", "value": "then <image>\nand <image>"},
        ],
        "chosen": {"from": "gpt", "value": "x"},
        "rejected": {"from": "gpt", "value": "y"},
        "images": ["1.jpg", "2.jpg", "3.jpg"],
        "system": "Be brief.",
    }
    assert preference(row).prompt == (
        Message.of("system", "Be brief."),
        Message.of("user", 0, "first\n"),
        Message.of("assistant", "one"),
        Message.of("user", "then ", 1, "\nand ", 2),
    )


@pytest.mark.parametrize("role_key", ["role", "from"])
@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_sharegpt_takes_either_column_with_either_names(column, role_key):
    text_key = "content" if role_key == "role" else "value"
    turn = lambda role, text: {role_key: role, text_key: text}  # noqa: E731
    row = {column: [turn("user", "q")], "chosen": turn("assistant", "x"), "rejected": turn("gpt", "y")}
    assert preference(row).prompt == (Message.of("user", "q"),)
    assert texts(row) == ["x", "y"]


def test_sharegpt_demonstration_is_the_last_answer():
    made = preference(EXAMPLES["sharegpt", "demonstration"])
    assert [response.text for response in made.responses] == ["Red."]
    assert made.prompt[-1] == Message.of("user", "What colour has it?")


def test_alpaca_instruction_input_and_history():
    made = preference(EXAMPLES["alpaca", "demonstration"])
    assert made.prompt == (
        Message.of("system", "You are a translator."),
        Message.of("user", "Translate to French: stove."),
        Message.of("assistant", "cuisiniere"),
        Message.of("user", "Translate to French.\nkettle"),
    )


# ---- ms-swift ------------------------------------------------------------------------------------


def test_swift_several_rejected_answers_are_equally_bad():
    made = preference(EXAMPLES["swift", "several rejected responses"])
    assert [response.text for response in made.responses] == [GOOD, BAD, "Nothing."]
    assert made.levels() == (0, 1, 1)


def test_swift_rejected_side_may_have_seen_another_picture():
    made = preference(EXAMPLES["swift", "rejected_messages"])
    assert made.media == (KITCHEN,)
    assert made.chosen.media is None
    assert made.rejected.media == (MediaRef(kind="image", uri="living_room.jpg"),)
    assert made.chosen.text == made.rejected.text


def test_swift_the_same_picture_on_both_sides_is_the_rows():
    row = EXAMPLES["swift", "rejected_response"] | {"rejected_images": ["kitchen.jpg"]}
    assert preference(row).rejected.media is None


def test_swift_missing_tags_stand_before_the_first_turn():
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "a <image>"},
                {"role": "assistant", "content": "b"}]  # fmt: skip
    made = preference({"messages": messages, "images": ["1.jpg", "2.jpg"], "rejected_response": "c"})
    assert made.prompt == (Message.of("system", "s"), Message.of("user", 0, "a ", 1))


# ---- LLaVA, RLHF-V, mDPO -------------------------------------------------------------------------


def test_llava_line_break_beside_the_tag_belongs_to_the_tag():
    for text in ("<image>\nQ", "Q\n<image>"):
        row = copy.deepcopy(EXAMPLES["llava", "preference"])
        row["conversations"][0]["value"] = row["rejected_conversations"][0]["value"] = text
        assert preference(row).prompt[0].text == "Q"


def test_llava_rejected_may_be_the_answer_alone():
    row = EXAMPLES["llava", "preference"] | {"rejected_conversations": [{"from": "gpt", "value": BAD}]}
    assert texts(row) == [GOOD, BAD]


def test_rlhf_v_bytes_path_and_origin():
    row = EXAMPLES["rlhf_v", "question, chosen, rejected"] | {"image": {"bytes": b"jpeg", "path": "x.jpg"}}
    made = preference(row)
    assert made.media == (MediaRef(kind="image", content=b"jpeg"),)
    assert made.tags == {"origin_dataset": "kitchens"}
    made = preference(row | {"image": {"bytes": None, "path": None}, "image_path": "y.jpg", "idx": 12})
    assert made.media == (MediaRef(kind="image", uri="y.jpg"),)
    assert made.id == "12"


def test_rlhf_v_texts_may_be_json_in_one_column():
    assert texts(EXAMPLES["rlhf_v", "texts as JSON"]) == [GOOD, "Two pans."]
    with pytest.raises(RowError, match="text: column is not JSON"):
        preference({"text": "{", "image": "x.jpg"})


def test_mdpo_marks_become_turns():
    made = preference(EXAMPLES["mdpo", "preference"])
    assert made.prompt == (
        Message.of("system", "A chat between a user and an assistant."),
        Message.of("user", 0, QUESTION),
    )
    row = EXAMPLES["mdpo", "preference"] | {"prompt": "USER: <image>\na ASSISTANT: b USER: c ASSISTANT:"}
    assert preference(row).prompt == (
        Message.of("user", 0, "a"), Message.of("assistant", "b"), Message.of("user", "c")
    )  # fmt: skip


# ---- ids -----------------------------------------------------------------------------------------


def test_a_list_of_answers_is_ours_however_its_turns_are_written():
    answers = [[{"role": "assistant", "content": word}] for word in ("best", "middling", "worst")]
    row = {
        "id": "a",
        "prompt": [{"role": "user", "content": "How good?"}],
        "responses": [{"messages": turns, "score": 3.0 - k} for k, turns in enumerate(answers)],
        "chosen": answers[0],
        "rejected": answers[-1],
    }
    preference = parse(RawRow("rows.jsonl", 1, row))
    assert preference.provenance["source"] == "mmalign"
    assert [(response.text, response.score) for response in preference.responses] == [
        ("best", 3.0),
        ("middling", 2.0),
        ("worst", 1.0),
    ]


def test_ids_name_rows(tmp_path):
    rows = [{"id": "a"}, {"id": "a"}, {}, {"id": 5}]
    rows = [row | {"prompt": "q", "chosen": "x", "rejected": "y"} for row in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = [row.id for row in read(tmp_path / "rows.jsonl", on_refused=print)]
    assert made == ["a", "a (rows.jsonl:2)", "rows.jsonl:3", "5"]


def test_an_id_that_looks_like_the_mend_of_another_takes_nobodys_place(tmp_path):
    rows = [{"id": name, "prompt": "q", "chosen": "x", "rejected": "y"} for name in ("a (rows.jsonl:3)", "a", "a")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = [row.id for row in read(tmp_path / "rows.jsonl", on_refused=print)]
    assert made == ["a (rows.jsonl:3)", "a", "a (rows.jsonl:3) (rows.jsonl:3)"]


# ---- what is refused -----------------------------------------------------------------------------

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


# ---- real files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "format", "kept", "reasons"),
    [
        ("llamafactory_dpo_60.json", "sharegpt", 60, set()),
        ("llamafactory_mllm_demo.json", "sharegpt", 6, set()),
        ("mdpo_sample.json", "mdpo", 2, set()),
        ("vistadpo_object_60.jsonl", "vistadpo", 60, set()),
    ],
)
def test_real_files_are_read(shared_data, name, format, kept, reasons):
    refused = []
    rows = list(read(shared_data / "preferences" / name, on_refused=refused.append))
    assert len(rows) == kept
    assert {row.provenance["source"] for row in rows} == ({format} if kept else set())
    assert {refusal.reason for refusal in refused} == reasons
