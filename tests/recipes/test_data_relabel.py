"""`mmalign data relabel`: rows of any format in, other rows of ours out, streaming, with a quarantine."""

import io
import json

import pytest
from rich.console import Console

from mmalign import cli
from mmalign.errors import ConfigError, DataError, RowError
from mmalign.pairs.relabel import HOWS, options_of, relabelling
from mmalign.recipes.data_relabel import relabel_file, show
from mmalign.sources.detect import read


def turns(role, *parts):
    said = [part if isinstance(part, dict) else {"type": "text", "text": part} for part in parts]
    return [{"role": role, "content": said}]


def scored(name, high, low, media=(), **columns):
    """A row of ours with two scored answers."""
    answers = [{"messages": turns("assistant", text), "score": score} for text, score in (("yes", high), ("no", low))]
    placeholders = [{"type": kind} for kind, _ in media]
    row = {"id": name, "prompt": turns("user", *placeholders, "Which?"), "responses": answers}
    row |= {"chosen": answers[0]["messages"], "rejected": answers[1]["messages"], **columns}
    for kind in ("image", "video"):
        row[f"{kind}s"] = [path for own, path in media if own == kind]
    return row


@pytest.fixture
def rows(tmp_path):
    """An image row, a video row, a text row, and one whose answers are equally good."""
    path = tmp_path / "rows.jsonl"
    lines = [
        scored("picture", 8.0, 3.0, [("image", "a.png")], tags={"task": "vqa"}),
        scored("clip", 9.0, 8.5, [("video", "a.mp4")], media_facts=[{"span_s": [1.0, 2.0]}]),
        scored("words", 2.0, 1.0),
        scored("equals", 4.0, 4.0),
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def _no_refusal(refusal):
    pytest.fail(f"refused: {refusal}")


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_rows_of_every_modality_are_written_and_read_back(tmp_path, rows, ending):
    out = tmp_path / f"out{ending}"
    options = ["place=user", "goal='Reach {score}.'"]
    done = relabel_file(
        rows, out, "reward_augmented", options, max_refused_share=0.5, console=Console(file=io.StringIO())
    )
    assert done.rows == 6
    back = {row.id: row for row in read(out, on_refused=_no_refusal)}
    assert len(back) == 6
    clip = back["clip#goal=worse"]
    assert clip.prompt[0].text == "Reach 8.5.\n\nWhich?"
    assert [response.text for response in clip.responses] == ["no", "yes"]
    assert [ref.span_s for ref in clip.media] == [(1.0, 2.0)]
    picture = back["picture#goal=better"]
    assert (picture.tags, picture.media[0].uri) == ({"task": "vqa", "goal": "8"}, "a.png")
    assert picture.provenance["relabel"] == "reward_augmented"


def test_what_cannot_be_relabelled_is_listed_with_its_place(tmp_path, rows):
    done = relabel_file(rows, tmp_path / "out.jsonl", "swap", max_refused_share=0.5)
    assert done.rows == 4  # equal scores are no tie of the row
    done = relabel_file(rows, tmp_path / "goals.jsonl", "reward_augmented", max_refused_share=0.5)
    (refused,) = [json.loads(line) for line in done.quarantine.read_text().splitlines()]
    assert (refused["file"], refused["row"]) == ("rows.jsonl", 4)
    assert refused["reason"] == "responses have the same score, so that both goals would be one"


def test_too_many_refused_rows_leave_nothing(tmp_path, rows):
    with pytest.raises(DataError, match="1 of 4 rows .* are refused: .* raise --max-refused-share"):
        relabel_file(rows, tmp_path / "out.jsonl", "reward_augmented")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_file_is_not_written_over_unasked(tmp_path, rows):
    (tmp_path / "out.jsonl").touch()
    with pytest.raises(DataError, match="exists; give another place, or --overwrite"):
        relabel_file(rows, tmp_path / "out.jsonl", "swap", max_refused_share=0.5)


def test_rows_go_into_our_own_formats_only(tmp_path, rows):
    with pytest.raises(DataError, match="rows of the format mmalign go into .jsonl or .parquet, not 'out.json'"):
        relabel_file(rows, tmp_path / "out.json", "swap")


def test_options_are_values_in_yaml(tmp_path, rows):
    with pytest.raises(ConfigError, match=r"scores must list two or more different names.*got \['help'\]"):
        relabel_file(rows, tmp_path / "out.jsonl", "dpa", ["scores=[help]"])
    with pytest.raises(ConfigError, match="--output is missing"):
        relabel_file(rows, None, "swap")


def test_the_command_says_what_it_wrote(tmp_path, rows, capsys):
    arguments = ["data", "relabel", str(rows), "--how", "pairs", "pairs=best_worst", "-o", str(tmp_path / "o.jsonl")]
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert not ended.value.code
    assert "4 rows written to" in capsys.readouterr().out


def test_the_list_names_every_relabelling_and_option():
    page = io.StringIO()
    show(Console(file=page, width=120))
    for how in HOWS:
        assert how in page.getvalue()
        for name, _, says in options_of(how):
            assert f"{name}=" in page.getvalue()
            assert says.split(";")[0] in page.getvalue()
    assert "2410.08067" in page.getvalue()


def test_published_rows_can_be_relabelled(shared_data):
    """Real pairs of several formats, images and videos among them, keep their media when turned round."""
    swap = relabelling("swap", {})
    turned = 0
    for path in sorted(shared_data.rglob("*.jsonl"))[:20]:
        try:
            for _, row in zip(range(5), read(path, on_refused=lambda refusal: None), strict=False):
                (made,) = swap(row)
                assert made.media == row.media
                assert made.chosen.text == row.responses[-1].text
                turned += 1
        except (DataError, RowError):
            continue
    assert turned > 0
