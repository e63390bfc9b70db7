"""`mmalign data score`: rows get a model's numbers, the same as training computes; interruptions and bad rows."""

import json
import math
from dataclasses import replace

import pytest
import torch
from pictures import encoded, noise
from typer.testing import CliRunner

from mmalign.cli import app
from mmalign.engine.load import load_model
from mmalign.engine.tokenise import load_processor
from mmalign.errors import ConfigError, DataError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response, Span
from mmalign.formats.store import read_jsonl, write_jsonl
from mmalign.recipes import data_score
from mmalign.recipes.data_score import report, score

TEXTS = ["It is one", "No, it is eleven at all", "It is"]


def written(path, count=5, responses=2, **changes):
    """Write rows of which every second has a picture."""
    rows = []
    for number in range(count):
        picture = (MediaRef(kind="image", content=encoded(noise(28, 56, seed=number))),) if number % 2 else ()
        asked = Message.of("user", 0, "What is it?") if picture else Message.of("user", "What is it?")
        answers = tuple(Response.of(f"{TEXTS[k]} {'indeed ' * (number % 3)}") for k in range(responses))
        rows.append(Preference(id=f"row {number}", prompt=(asked,), media=picture, responses=answers))
    write_jsonl(path, [replace(row, **changes) for row in rows])
    return path


def scores_of(path):
    return [[dict(response.scores) for response in row.responses] for row in read_jsonl(path)]


@torch.no_grad()
def by_hand(model, row):
    """Return sum and number of tokens of each answer, from the model's own forward over text alone."""
    loaded, processor = load_model(model).eval(), load_processor(model)
    found = []
    for response in row.responses:
        turns = [{"role": "user", "content": [{"type": "text", "text": row.prompt[0].text}]}]
        asked = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        answered = [*turns, {"role": "assistant", "content": [{"type": "text", "text": response.text}]}]
        whole = processor.apply_chat_template(answered, tokenize=False)
        ids = [
            processor.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (asked, whole[len(asked) :])
        ]
        tokens = torch.tensor([ids[0] + ids[1]])
        logps = loaded(input_ids=tokens).logits[0, :-1].log_softmax(-1)
        told = logps.gather(1, tokens[0, 1:, None])[len(ids[0]) - 1 :]
        found.append((told.sum().item(), len(ids[1])))
    return found


def test_a_response_gets_the_sum_and_the_number_of_its_token_log_probs(tmp_path, tiny_model):
    model = tiny_model("qwen2_5_vl")
    rows = written(tmp_path / "rows.jsonl", 3, responses=3)
    done = score(rows, tmp_path / "out.jsonl", model=model, name="small", batch_size=2)
    assert (done.rows, done.found, done.names) == (3, 0, ("logp/small", "tokens/small"))
    text_row, numbers = list(read_jsonl(rows))[2], scores_of(tmp_path / "out.jsonl")
    for found, (total, tokens) in zip(numbers[2], by_hand(model, text_row), strict=True):
        assert found["logp/small"] == pytest.approx(total, abs=1e-4)
        assert found["tokens/small"] == tokens
    assert all(number["logp/small"] < 0 for number in numbers[1])


def test_everything_else_of_a_row_stays_and_the_size_of_a_batch_does_not_matter(tmp_path, tiny_model):
    rows = written(tmp_path / "rows.jsonl", margin=0.5, tags={"a": "b"})
    for size in (1, 4):
        score(rows, tmp_path / f"{size}.jsonl", model=tiny_model("llava"), name="m", batch_size=size)
    before, after = (list(read_jsonl(path)) for path in (rows, tmp_path / "4.jsonl"))
    for one, other in zip(before, after, strict=True):
        assert (other.id, other.prompt, other.media, other.margin, other.tags) == (
            one.id,
            one.prompt,
            one.media,
            one.margin,
            one.tags,
        )
        assert [response.text for response in other.responses] == [response.text for response in one.responses]
    for one, other in zip(scores_of(tmp_path / "1.jsonl"), scores_of(tmp_path / "4.jsonl"), strict=True):
        assert [number["logp/m"] for number in one] == pytest.approx([number["logp/m"] for number in other], abs=1e-4)


def test_spans_weigh_tokens_as_they_do_in_training(tmp_path, tiny_model):
    plain = written(tmp_path / "plain.jsonl", 1)

    def silent(response):
        return replace(response, spans=(Span(start=0, end=len(response.text), weight=0.0),))

    spans = [replace(row, responses=tuple(map(silent, row.responses))) for row in read_jsonl(plain)]
    write_jsonl(tmp_path / "spans.jsonl", spans)
    for name in ("plain", "spans"):
        score(tmp_path / f"{name}.jsonl", tmp_path / f"{name}-out.jsonl", model=tiny_model("qwen2_5_vl"), name="m")
    whole, weighed = (scores_of(tmp_path / f"{name}-out.jsonl")[0][0] for name in ("plain", "spans"))
    assert weighed["tokens/m"] == whole["tokens/m"]
    assert whole["logp/m"] < weighed["logp/m"] < 0  # what is left is the end of the turn


def test_models_of_two_vocabularies_stand_side_by_side_and_one_is_held_against_the_other(tmp_path, tiny_model):
    rows = written(tmp_path / "rows.jsonl", 2)
    score(rows, tmp_path / "one.jsonl", model=tiny_model("qwen2_5_vl"), name="one")
    score(tmp_path / "one.jsonl", tmp_path / "two.jsonl", model=tiny_model("llava"), name="two", against="one")
    for number in scores_of(tmp_path / "two.jsonl")[0]:
        assert set(number) == {"logp/one", "tokens/one", "logp/two", "tokens/two", "reward/two"}
        assert number["reward/two"] == pytest.approx(number["logp/two"] - number["logp/one"])


def test_an_interrupted_start_goes_on_and_gives_the_same_file(tmp_path, tiny_model, monkeypatch):
    rows = written(tmp_path / "rows.jsonl", 6)
    lines = rows.read_text().splitlines()
    lines[1] = "{"
    rows.write_text("\n".join(lines) + "\n")
    choices = {"model": tiny_model("qwen2_5_vl"), "name": "m", "batch_size": 2, "max_refused_share": 0.5}
    score(rows, tmp_path / "whole.jsonl", **choices)

    measure, calls = data_score.Scorer.measure, []

    def dies(self, trees):
        calls.append(len(trees))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(self, trees)

    monkeypatch.setattr(data_score.Scorer, "measure", dies)
    with pytest.raises(KeyboardInterrupt):
        score(rows, tmp_path / "out.jsonl", **choices)
    assert not (tmp_path / "out.jsonl").exists()
    with (tmp_path / "out.jsonl.unfinished").open("ab") as file:
        file.write(b'{"id": "half a li')  # what a kill in the middle of a write leaves
    done = score(rows, tmp_path / "out.jsonl", **choices)
    assert (done.found, done.rows, done.refused) == (2, 5, {"line is not JSON": 1})
    assert calls == [2, 2, 2, 1]
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.jsonl", "out.jsonl.quarantine.jsonl"]


def test_an_unfinished_file_of_another_model_is_not_gone_on_with(tmp_path, tiny_model, monkeypatch):
    rows, out = written(tmp_path / "rows.jsonl", 2), tmp_path / "out.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(data_score.UnfinishedRows, "finish", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            score(rows, out, model=tiny_model("qwen2_5_vl"), name="m")
    with pytest.raises(DataError, match=r"earlier start that had another model, name; .* or --overwrite"):
        score(rows, out, model=tiny_model("llava"), name="n")
    assert score(rows, out, model=tiny_model("llava"), name="n", overwrite=True).found == 0
    assert "logp/n" in scores_of(out)[0][0]


def test_rows_that_cannot_be_scored_are_quarantined_for_one_reason(tmp_path, tiny_model, monkeypatch):
    rows = written(tmp_path / "rows.jsonl", 4)
    before = list(read_jsonl(rows))
    before[0] = replace(before[0], responses=tuple(replace(r, scores={"logp/m": -1.0}) for r in before[0].responses))
    write_jsonl(rows, before)
    measure = data_score.Scorer.measure
    spoilt = lambda self, trees: [([math.nan] * 2, n) if t.id == "row 2" else (s, n)  # noqa: E731
                                  for t, (s, n) in zip(trees, measure(self, trees), strict=True)]  # fmt: skip
    monkeypatch.setattr(data_score.Scorer, "measure", spoilt)
    done = score(rows, tmp_path / "out.jsonl", model=tiny_model("qwen2_5_vl"), name="m", max_refused_share=0.5)
    assert done.refused == {"response has such a number already": 1, "number is not finite": 1}
    assert [row.id for row in read_jsonl(tmp_path / "out.jsonl")] == ["row 1", "row 3"]
    listed = [json.loads(line) for line in done.quarantine.read_text().splitlines()]
    assert {(line["row"], line["field"]) for line in listed} == {(1, "responses[0].scores.logp/m"), (3, "logp/m")}


def test_a_model_without_eyes_refuses_rows_with_pictures(tmp_path, tiny_model):
    rows = written(tmp_path / "rows.jsonl", 4)
    done = score(rows, tmp_path / "out.jsonl", model=tiny_model("llama"), name="text", max_refused_share=0.5)
    assert (done.rows, done.refused.total()) == (2, 2)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"name": "a/b"}, ConfigError, r"--as must be a name without spaces and slashes, e.g. qwen \(got 'a/b'\)"),
        ({"against": "a b"}, ConfigError, "--against must be a name"),
        ({"against": "m"}, ConfigError, "--as and --against are both 'm'"),
        ({"out": "out.parquet"}, DataError, "go into a .jsonl, not 'out.parquet'"),
        ({"out": "rows.jsonl"}, DataError, "cannot be read and written at once"),
        ({"out": "there.jsonl"}, DataError, "exists; give another place, or --overwrite"),
        ({"path": ".", "out": "out.jsonl"}, DataError, "lies in the folder"),
        ({"against": "base"}, DataError, "response lacks a number that the objective reads"),
    ],
    ids=lambda value: str(value),
)
def test_what_makes_no_sense_is_refused(tmp_path, tiny_model, changes, error, said):
    written(tmp_path / "rows.jsonl", 2)
    (tmp_path / "there.jsonl").write_text("")
    places = {name: tmp_path / changes.get(name, usual) for name, usual in (("path", "rows.jsonl"), ("out", "o.jsonl"))}
    choices = {"name": "m", **{name: value for name, value in changes.items() if name not in places}}
    with pytest.raises(error, match=said):
        score(**places, model=tiny_model("qwen2_5_vl"), **choices)


def test_a_built_in_model_scores_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = written(tmp_path / "rows.jsonl", 2)
    for out in ("one.jsonl", "two.jsonl"):
        score(rows, tmp_path / out, model="miniature/llava", name="m")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_the_report_says_what_was_written(tmp_path, tiny_model, capsys):
    report(score(written(tmp_path / "rows.jsonl", 2), tmp_path / "out.jsonl", model=tiny_model("llava"), name="m"))
    said = " ".join(capsys.readouterr().out.split())
    assert "2 rows written to" in said
    assert "every response has logp/m, tokens/m" in said


def test_the_command_teaches_and_runs(tmp_path, tiny_model):
    help_text = " ".join(CliRunner().invoke(app, ["data", "score", "--help"]).output.split())
    assert "logp/NAME" in help_text
    assert "lists NAME under sources" in help_text.replace("│ │", "")
    rows = written(tmp_path / "rows.jsonl", 2)
    line = [
        "data",
        "score",
        str(rows),
        "--model",
        str(tiny_model("llava")),
        "--as",
        "m",
        "-o",
        str(tmp_path / "o.jsonl"),
    ]
    ended = CliRunner().invoke(app, line)
    assert ended.exit_code == 0, ended.output
    assert "logp/m" in scores_of(tmp_path / "o.jsonl")[0][0]
