"""The published multimodal preference sets: what their rows become, worked by hand, and what is refused."""

import contextlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from formats.rows import png
from sources.example_rows import EXAMPLES, preference

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.sources.detect import detect, read

KITCHEN = MediaRef(kind="image", uri="kitchen.jpg")


def clip(uri):
    return MediaRef(kind="video", uri=uri)


def texts(made):
    return [response.text for response in made.responses]


# ---- ms-swift and TEMPLE ---------------------------------------------------------------------------------------------


def test_a_temple_row_is_a_pair_about_a_video():
    made = preference(EXAMPLES["swift", "a video, TEMPLE"])
    assert made.prompt == (Message.of("user", 0, "Describe the events in order."),)
    assert made.media == (clip("cooking.mp4"),)
    assert texts(made)[0].startswith("He fills") and texts(made)[1].startswith("He lights")


def test_swift_rejected_videos_take_their_places_among_the_pictures():
    row = {
        "messages": [
            {"role": "user", "content": "<video>Is <image> in it?"},
            {"role": "assistant", "content": "Yes."},
        ],
        "images": ["a.jpg"],
        "videos": ["a.mp4"],
        "rejected_response": "Yes.",
        "rejected_videos": ["b.mp4"],
    }
    made = preference(row)
    assert made.media == (clip("a.mp4"), MediaRef(kind="image", uri="a.jpg"))
    assert made.rejected.media == (clip("b.mp4"), MediaRef(kind="image", uri="a.jpg"))
    assert made.chosen.media is None


def test_swift_missing_tags_are_those_of_the_kind_that_is_missing():
    turns = [{"role": "user", "content": "Is <image> in it?"}, {"role": "assistant", "content": "Yes."}]
    made = preference({"messages": turns, "images": ["a.jpg"], "videos": ["a.mp4"], "rejected_response": "No."})
    assert made.prompt == (Message.of("user", 0, "Is ", 1, " in it?"),)
    assert [ref.kind for ref in made.media] == ["video", "image"]


def test_swift_conversations_may_stand_as_a_question_and_its_response():
    made = preference(EXAMPLES["swift", "a query and its response"])
    assert made.prompt == (
        Message.of("user", 0, "Is this a kitchen?"), Message.of("assistant", "Yes."),
        Message.of("user", "What is on the stove?"),
    )  # fmt: skip
    assert (made.media, texts(made)) == ((KITCHEN,), ["A red kettle.", "A red kettle and two pans."])
    made = preference(EXAMPLES["swift", "a question and its response, MM-RLHF's export"])
    assert made.prompt == (Message.of("user", 0, "What happens first?"),)
    assert (made.media, texts(made)) == ((clip("cooking.mp4"),), ["He fills the kettle.", "He lights the stove."])


# ---- MM-RLHF ---------------------------------------------------------------------------------------------------------


def test_mm_rlhf_reasons_are_critiques_and_the_picture_stands_first():
    row = EXAMPLES["mm_rlhf", "a picture"] | {"prompt": "What is<image>\n on the stove?<image>"}
    made = preference(row)
    assert made.prompt == (Message.of("user", 0, "What is\n on the stove?"),)
    assert [response.critique for response in made.responses] == ["Names what is there.", "There are no pans."]
    assert made.media == (MediaRef(kind="image", uri="long/kitchen.png"),)


def test_mm_rlhf_a_tie_has_one_level_and_the_strength_of_a_pair_is_kept():
    made = preference(EXAMPLES["mm_rlhf", "a folder of frames, a tie"] | {"mixed_up_image": "long/other.png"})
    assert (made.ties, made.levels()) == (((0, 1),), (0, 0))
    assert made.tags == {"ls_factor": "0.25", "mixed_up_image": "long/other.png"}
    assert made.media == (clip("video/cooking"),)


def test_mm_rlhf_ranks_and_scores_of_all_outputs():
    made = preference(EXAMPLES["mm_rlhf_ranked", "three outputs, two of them equally good"])
    assert texts(made) == ["A red kettle.", "A kettle.", "Two pans."]
    assert (made.levels(), made.ties) == ((0, 0, 1), ((0, 1),))
    assert made.chosen.scores == {"faithfulness": 5.0, "helpfulness": 5.0}
    assert (made.rejected.model, made.rejected.critique) == ("m-7b", "No pans.")


def test_mm_rlhf_lists_and_names_in_order_mean_the_same():
    row = {"question": "q", "models_output": ["x", "y", "z"], "final_ranking": [2, 1, 3], "helpfulness": [1, "5", 0]}
    assert texts(preference(row)) == ["y", "x", "z"]
    row = {"question": "q", "models_output": {"a": "x", "b": "y"}, "final_ranking": ["b", "a"]}
    assert [response.model for response in preference(row).responses] == ["b", "a"]


# ---- VistaDPO --------------------------------------------------------------------------------------------------------


def test_vistadpo_two_rejected_answers_are_equally_bad_and_nothing_is_dropped():
    row = EXAMPLES["vistadpo", "preference"]
    made = preference(row)
    assert (len(made.responses), made.levels()) == (3, (0, 1, 1))
    assert made.media == (clip("star/COOK1"),)
    assert made.id == "star/COOK1"
    assert made.tags == {name: row[name] for name in ("bbox", "clip_w", "clip_l", "frame")}


def test_vistadpo_rows_of_other_sets_have_no_box():
    row = {key: value for key, value in EXAMPLES["vistadpo", "preference"].items() if key not in ("bbox", "frame")}
    assert set(preference(row).tags) == {"clip_w", "clip_l"}


# ---- LLaVA-Hound, TPO, MIA-DPO, POVID, SIMA, Uni-DPO -----------------------------------------------------------------


def test_llava_hound_drops_the_tag_and_keeps_the_scores():
    made = preference(EXAMPLES["llava_hound", "a video, LLaVA-Hound and TPO"])
    assert made.prompt == (Message.of("user", 0, "What happens first?"),)
    assert [response.score for response in made.responses] == [5.0, 2.0]
    assert made.media == (clip("v_cooking"),)


def test_mia_dpo_tags_say_where_each_picture_stands():
    made = preference(EXAMPLES["llava_hound", "several pictures, MIA-DPO"])
    assert made.prompt == (
        Message.of("user", "Image1: ", 0, "Image2: ", 1, "What is on the stove in Image2?"),
    )  # fmt: skip
    row = EXAMPLES["llava_hound", "several pictures, MIA-DPO"] | {"prompt": "Which is tidier?"}
    assert preference(row).prompt == (Message.of("user", 0, 1, "Which is tidier?"),)


def test_povid_and_sima_rows_are_llavas():
    row = EXAMPLES["llava", "preference"] | {"rejected_conversations": EXAMPLES["llava", "preference"]["conversations"]}
    row = row | {
        "conversations": [*row["conversations"][:1], {"from": "gpt", "value": "A kettle."}],
        "id": "000000033471",
    }
    assert (detect(row).name, preference(row).id, texts(preference(row))) == (
        "llava", "000000033471", ["A kettle.", "A red kettle."]
    )  # fmt: skip


def test_uni_dpo_scores_are_those_of_the_answers():
    made = preference(EXAMPLES["alpaca", "preference with scores, Uni-DPO"])
    assert [response.score for response in made.responses] == [4.5, 2.0]


def test_scores_that_contradict_the_label_do_not_turn_a_pair_round():
    made = preference(EXAMPLES["alpaca", "preference with scores, Uni-DPO"] | {"score_rejected": 9})
    assert texts(made) == ["A red kettle.", "A red kettle and two pans."]
    assert [(response.score, response.scores) for response in made.responses] == [
        (None, {"published": 4.5}),
        (None, {"published": 9.0}),
    ]


# ---- N candidates ----------------------------------------------------------------------------------------------------

RANKED = {"prompt": "q", "responses": ["x", "y", "z"]}


@pytest.mark.parametrize(
    ("row", "said", "levels"),
    [
        (RANKED | {"scores": [1, 3, 2]}, "yzx", (0, 1, 2)),
        (RANKED | {"rewards": ["-0.5", "-0.5", 4]}, "zxy", (0, 1, 1)),
        (RANKED | {"ranks": [3, 1, 2]}, "yzx", (0, 1, 2)),
        (RANKED | {"ranking": [0, 2, 1]}, "xzy", (0, 1, 2)),
        (RANKED | {"rank": [1, 1, 1]}, "xyz", (0, 0, 0)),
        (RANKED | {"order": [2, 0, 1]}, "zxy", (0, 1, 2)),
        ({"question": "q", "candidates": [{"text": "x", "score": 1}, {"text": "y", "score": 2}]}, "yx", (0, 1)),
        ({"instruction": "q", "completions": {"response": ["x", "y"], "overall_score": [1, 2]}}, "yx", (0, 1)),
        ({"prompt": "q", "answers": [{"answer": "x", "rank": 7}, {"answer": "y", "rank": 1}]}, "yx", (0, 1)),
        ({"prompt": "q", "responses": [[{"role": "assistant", "content": "x"}], "y"], "scores": [0, 1]}, "yx", (0, 1)),
    ],
)
def test_candidates_stand_best_first_with_their_ties(row, said, levels):
    made = preference(row)
    assert made.provenance["source"] == "ranked"
    assert ("".join(texts(made)), made.levels()) == (said, levels)


def test_scores_beside_the_answers_become_theirs():
    assert [response.score for response in preference(RANKED | {"scores": [1, 3, 2]}).responses] == [3.0, 2.0, 1.0]


def test_vlfeedback_ratings_are_named_scores_and_their_mean_orders():
    row = EXAMPLES["ranked", "annotated completions, VLFeedback"]
    made = preference(row)
    assert made.media == (KITCHEN,)
    assert [(response.model, response.score) for response in made.responses] == [("m-7b", 5.0), ("m-1b", 1.5)]
    assert made.rejected.scores == {"Helpfulness": 2.0, "Visual Faithfulness": 1.0}
    columns = {name: [entry[name] for entry in row["completions"]] for name in row["completions"][0]}
    assert preference(row | {"completions": columns}).responses == made.responses


def test_a_rating_that_is_missing_makes_no_answer_better():
    def answer(text, **ratings):
        return {"response": text, "annotations": {name: {"Rating": rating} for name, rating in ratings.items()}}

    rows = [answer("lame but true", help="N/A", truth="4"), answer("good", help="4", truth="5")]
    made = preference({"prompt": "q", "completions": rows})
    # by the mean of its own ratings the first would have 4 and the second 4.5; by truth alone it is 4 and 5
    assert [(response.text, response.score) for response in made.responses] == [("good", 5.0), ("lame but true", 4.0)]
    rows = [answer("unrated in truth", help="5", truth=""), answer("good", help="5", truth="4")]
    assert preference({"prompt": "q", "completions": rows}).levels() == (0, 0)
    rows = [answer("x", help="5", truth=None), answer("y", help="N/A", truth="4")]
    with pytest.raises(RowError, match="completions: nothing orders all answers"):
        preference({"prompt": "q", "completions": rows})


def test_a_demonstration_with_a_column_of_answers_stays_one():
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert detect({"messages": turns, "answers": ["a", "b"]}).name == "sharegpt"


# ---- align-anything --------------------------------------------------------------------------------------------------


def test_align_anything_the_number_says_which_is_better():
    made = preference(EXAMPLES["align_anything", "text-image-to-text"])
    assert texts(made) == ["A red kettle.", "A red kettle and two pans."]
    assert (made.chosen.model, made.chosen.scores) == ("m-72b", {"objective_rules": 3.0})
    assert made.media == (KITCHEN,)


def test_align_anything_videos_and_critiques():
    made = preference(EXAMPLES["align_anything", "text-video-to-text"])
    assert made.media == (clip("./videos/cooking.mp4"),)
    assert made.prompt == (Message.of("user", 0, "What happens first?"),)
    assert made.rejected.critique == "That comes second."


def test_pku_saferlhf_says_which_answer_is_safe_and_which_is_safer():
    made = preference(EXAMPLES["align_anything", "text only, PKU-SafeRLHF"])
    assert texts(made) == ["A kettle.", "A fridge."]
    assert [(response.model, response.scores) for response in made.responses] == [
        ("m-7b-chat", {"safe": 1.0}), ("m-7b", {"safe": 1.0})
    ]  # fmt: skip
    assert made.tags == {"safer": "rejected"}


def test_parquet_with_the_bytes_of_pictures(tmp_path):
    content = png()
    row = EXAMPLES["align_anything", "text-image-to-text"] | {"image": {"bytes": content, "path": "x.png"}}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    (made,) = read(tmp_path / "rows.parquet", on_refused=pytest.fail)
    assert made.media == (MediaRef(kind="image", content=content),)


# ---- what is refused -------------------------------------------------------------------------------------------------

MM_RLHF = EXAMPLES["mm_rlhf", "a picture"]
OUTPUTS = EXAMPLES["mm_rlhf_ranked", "three outputs, two of them equally good"]
VISTA = EXAMPLES["vistadpo", "preference"]
HOUND = EXAMPLES["llava_hound", "a video, LLaVA-Hound and TPO"]
ALIGN = EXAMPLES["align_anything", "text-image-to-text"]
SWIFT = EXAMPLES["swift", "a video, TEMPLE"]
MIA = EXAMPLES["llava_hound", "several pictures, MIA-DPO"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (SWIFT | {"rejected_videos": ["a.mp4", "b.mp4"]}, r"rejected_videos must be as many as videos \(1\)"),
        (SWIFT | {"videos": [7]}, r"videos\[0\]: video is neither a path, bytes nor a data URI .got 7."),
        (SWIFT | {"videos": []}, r"1 placeholder\(s\), 0 medium"),
        (SWIFT | {"rejected_response": "<video>"}, "rejected_response: a response must not hold media"),
        (MM_RLHF | {"video": "video/x"}, "video: row has both image and video .got 'video/x'."),
        (MM_RLHF | {"is_tie": "yes"}, "is_tie: must be true or false .got 'yes'."),
        (MM_RLHF | {"chosen_reason": 5}, "chosen_reason: column must be a text .got 5."),
        (MM_RLHF | {"ls_factor": "big"}, "ls_factor: must be a number .got 'big'."),
        (OUTPUTS | {"models_output": "x"}, "models_output: column has a form that is not known .got 'x'.; use {mod"),
        (OUTPUTS | {"final_ranking": {"m-7b": 1}}, "final_ranking: column has a form that is not known .*one entry"),
        (OUTPUTS | {"final_ranking": "m-7b > m-72b"}, "final_ranking: column has a form that is not known"),
        (OUTPUTS | {"helpfulness": [1, 2]}, "helpfulness: column has a form that is not known"),
        (OUTPUTS | {"helpfulness": ["a", 1, 2]}, r"helpfulness\['m-7b'\]: must be a number .got 'a'."),
        (OUTPUTS | {"models_output": {"a": 5, "b": "y"}, "final_ranking": [1, 2], "faithfulness": None,
                    "helpfulness": None, "score_reasons": None}, r"models_output\['a'\]: column must be a text"),
        (OUTPUTS | {"score_reasons": [1, 2, 3]}, r"score_reasons\['m-7b'\]: column has a form that is not known"),
        (VISTA | {"rejected_2": None}, "rejected_2: column must be a text .got 'nothing'."),
        (VISTA | {"bbox": [1, 2, 3, 4]}, "bbox: box must be a text"),
        (VISTA | {"clip_w": 5}, "tags.clip_w: must be a text .got 5."),
        (HOUND | {"chosen_score": "x"}, "chosen_score: must be a number .got 'x'."),
        (MIA | {"image": ["a.jpg"] * 3}, r"2 placeholder\(s\), 3 medium"),
        (ALIGN | {"overall_response": 0}, "overall_response: row does not say which answer is better .got 0.; 1 or 2"),
        (ALIGN | {"overall_response": None}, "overall_response: row does not say which answer is better .got 'nothi"),
        (ALIGN | {"better_response_id": 1}, "better_response_id: row says in two ways which answer is better .got 1."),
        (ALIGN | {"is_response_1_safe": 1}, "is_response_1_safe: must be true or false .got 1."),
        (ALIGN | {"safer_response_id": 0}, "safer_response_id: must be the number of an answer .got 0."),
        (ALIGN | {"response_1": {"bytes": b"x"}}, "response_1: column must be a text"),
        (ALIGN | {"objective_rules_rate_2": "x"}, "objective_rules_rate_2: must be a number"),
        (RANKED | {"scores": [1, 2]}, "scores: must be a list with one number per answer .got .1, 2..; 3 answers"),
        (RANKED | {"scores": [1, 2, float("nan")]}, r"scores\[2\]: must be a number .got nan."),
        (RANKED | {"order": [0, 1]}, "order: must name every answer once, from 0 .got .0, 1..; 3 answers"),
        (RANKED | {"ranks": [1, 2, 3], "prompt": [{"role": "user", "content": "q"},
                                                  {"role": "assistant", "content": "a"}]},
         "prompt: turns before the answers must end with the user .got 'assistant'."),
        (RANKED | {"scores": None, "ranks": None}, "responses: nothing orders all answers; give scores, ranks or"),
        (RANKED | {"responses": ["x"], "scores": [1]}, "row must have two answers or more .got 1."),
        (RANKED | {"responses": ["x", "x", "y"], "scores": [1, 2, 3]}, "two answers of different rank are the same"),
        (RANKED | {"scores": [1, 2, 3], "ranks": [1, 2, 3]}, "responses must stand best first by score"),
        ({"prompt": "q", "completions": {"response": ["x", "y"], "score": [1]}}, "completions: lists must be equally"),
        ({"prompt": "q", "completions": [{"response": "x", "annotations": 5}] * 2}, "annotations must be"),
        ({"prompt": "q", "completions": [{"rank": 1}, {"rank": 2}]}, r"completions\[0\]: answer has no text"),
    ],
)  # fmt: skip
def test_a_row_is_refused_in_words(row, message):
    with pytest.raises(RowError, match=message):
        preference(row)


def test_rows_of_benchmarks_and_files_keyed_by_ids_are_no_rows():
    with pytest.raises(RowError, match=r"format is unknown .*'question_id', 'text'"):
        preference({"question_id": 1, "image": "a.jpg", "text": "Is there a car?", "label": "yes"})
    with pytest.raises(RowError, match="these are 70 entries under one object, no row; write one row a line"):
        preference({str(k): {"question": "q", "answer": "a"} for k in range(70)})


def test_no_two_examples_put_together_end_in_a_traceback():
    rows = list(EXAMPLES.values())
    for one in rows:
        for other in rows:
            with contextlib.suppress(RowError):
                preference(one | other)
