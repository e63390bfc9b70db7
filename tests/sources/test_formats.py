"""Every published format: what one row of it becomes, worked by hand."""

import copy

import pytest
from sources.example_rows import BAD, EXAMPLES, GOOD, KITCHEN, QUESTION, preference

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.sources.detect import detect, parse, read
from mmalign.sources.read import RawRow


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


# ---- ours -----------------------------------------------------------------------------------------


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
