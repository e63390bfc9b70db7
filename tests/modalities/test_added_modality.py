"""A kind of media that one module and one row add: the one of docs/modalities.md, taken out of the page and used."""

import base64
import importlib.util
import io
import json
import re
import sys
import wave
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import training_runs
from PIL import Image
from rich.console import Console

from mmalign.errors import ConfigError, RowError
from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response
from mmalign.formats.store import parse_line, read_jsonl, read_parquet, to_line, write_jsonl, write_parquet
from mmalign.modalities import table
from mmalign.modalities.table import MODALITIES, Modality, limits_below
from mmalign.recipes.data_show import show
from mmalign.recipes.data_view import view
from mmalign.report.media_shelf import PICTURE_PIXELS
from mmalign.sources.write import write

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "modalities.md").read_text(encoding="utf-8")
MODULE, ROW = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
LINE, RECORD = (json.loads(line) for line in re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL))


@pytest.fixture
def sound(tmp_path, monkeypatch):
    """The module of the page, added by the row that stands there."""
    (tmp_path / "sound.py").write_text(MODULE)
    spec = importlib.util.spec_from_file_location("sound", tmp_path / "sound.py")
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "sound", made)
    spec.loader.exec_module(made)
    added = eval("{" + ROW + "}", {"Modality": Modality, "sound": made, "SoundLimits": made.SoundLimits})
    monkeypatch.setitem(table.MODALITIES, "sound", added["sound"])
    return made


def wav(samples: np.ndarray, bytes_each: int = 2) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(bytes_each)
        file.setframerate(8000)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


PICTURE = MediaRef(kind="image", uri="a.png")
FOUR = wav(np.array([0, 16384, -32768, 8192], dtype="<i2"))


def heard(*media: MediaRef, own: tuple[MediaRef, ...] | None = None) -> Preference:
    """A row about sounds and pictures; the rejected side may have heard others."""
    return Preference(
        id="a",
        prompt=(Message.of("user", *range(len(media)), "Who sings?"),),
        media=media,
        responses=(Response.of("A wren."), Response.of("A man.", media=own)),
    )


def test_the_modality_of_the_page_has_its_verbs(sound, tmp_path):
    (tmp_path / "a.wav").write_bytes(FOUR)
    ref, row = MediaRef(kind="sound", uri="a.wav"), MODALITIES["sound"]
    limits = limits_below(tmp_path, max_seconds=1.0)["sound"]
    assert row.check(ref, limits) == sound.SoundShape(samples=4, channels=1, duration_s=0.0005)
    assert row.load(ref, limits).tolist() == [[0.0], [0.5], [-1.0], [0.25]]
    assert row.messages(ref) == {"type": "audio"}
    silenced = row.perturb(np.ones((10, 1), dtype=np.float32), "silence", seed=0, strength=0.3)
    assert silenced.sum() == 7
    with pytest.raises(ConfigError, match="sound perturbation 'melt'"):
        row.perturb(silenced, "melt", seed=0)


def test_the_modality_of_the_page_is_drawn(sound, tmp_path):
    kind, _, code = sound.render(MediaRef(kind="sound", content=FOUR), sound.SoundLimits(), 64).partition(";base64,")
    assert kind == "data:image/png"
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(code))))
    # 4 high, 16 wide, 4 columns a sample: silence, half, all, a quarter of the height is dark from below.
    assert picture.shape == (4, 16)
    assert (picture == 0).sum(axis=0).tolist() == [0] * 4 + [2] * 4 + [4] * 4 + [1] * 4


def test_the_modality_of_the_page_refuses_what_is_bad(sound, tmp_path):
    rules = {
        "sound is not a WAV file": b"RIFFnothing of the kind",
        "sound is not of 16 bits": wav(np.zeros(4, dtype=np.uint8), bytes_each=1),
        "sound is empty or too long": wav(np.zeros(16_000, dtype="<i2")),
    }
    limits = limits_below(tmp_path, max_seconds=1.0)["sound"]
    for reason, content in rules.items():
        for verb in (sound.check, sound.load, sound.render):
            with pytest.raises(RowError) as error:
                verb(MediaRef(kind="sound", content=content), limits)
            assert error.value.reason == reason
    with pytest.raises(RowError, match="sound is empty or too long"):
        sound.check(MediaRef(kind="sound", content=wav(np.zeros(0, dtype="<i2"))), limits)
    with pytest.raises(RowError, match="sound is truncated"):
        sound.load(MediaRef(kind="sound", content=FOUR[:-2]), limits)


ROWS = [
    heard(MediaRef(kind="sound", uri="a.wav", sha256="ab" * 32, span_s=(0.5, 1.0))),
    heard(MediaRef(kind="sound", content=FOUR), PICTURE, MediaRef(kind="sound", uri="b.wav")),
    heard(MediaRef(kind="sound", uri="a.wav"), own=(MediaRef(kind="sound", content=FOUR, span_s=(0.0, 2.0)),)),
    heard(MediaRef.of_json("sound", {"notes": ["c", 1.0, None], "\u00e9": {}})),
    heard(MediaRef(kind="sound", content=b'{"notes":  []}'), own=(MediaRef.of_json("sound", [1, [2]]),)),
]  # fmt: skip


def test_rows_with_an_added_kind_come_back_from_either_file(tmp_path):
    for row in ROWS:
        assert parse_line(to_line(row)) == row
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    write_parquet(tmp_path / "rows.parquet", ROWS, rows_per_group=1)
    assert list(read_jsonl(tmp_path / "rows.jsonl")) == ROWS
    assert list(read_parquet(tmp_path / "rows.parquet")) == ROWS
    assert pq.read_table(tmp_path / "rows.parquet")["media"][1].as_py() == [
        {"kind": "sound", "bytes": FOUR, "path": None},
        {"kind": "sound", "bytes": None, "path": "b.wav"},
    ]


def test_the_lines_of_the_page_are_rows_of_ours():
    row = parse_line(json.dumps(LINE))
    assert (row.media, row.chosen.text) == ((MediaRef(kind="sound", uri="a.wav"),), "A wren.")
    drawn = parse_line(json.dumps(LINE | {"prompt": [
        {"role": "user", "content": [{"type": "layout"}, {"type": "text", "text": "Who sings?"}]}
    ], "media": [RECORD]}))  # fmt: skip
    assert drawn.media[0].content == b'{"canvas":[1080,1920],"boxes":[]}'
    assert drawn.media[0].json() == {"canvas": [1080, 1920], "boxes": []}
    assert json.loads(to_line(drawn))["media"] == [RECORD]


def test_an_added_kind_is_shown_and_viewed(sound, tmp_path):
    (tmp_path / "a.wav").write_bytes(FOUR)
    write_jsonl(tmp_path / "rows.jsonl", [heard(MediaRef(kind="sound", uri=name)) for name in ("a.wav", "gone.wav")])
    assert "samples 4, channels 1, duration 0.0005 s" in shown(tmp_path / "rows.jsonl")
    done = view(tmp_path / "rows.jsonl", tmp_path / "rows.html")
    assert (done.rows, done.refused, done.pictures) == (2, 1, 1)
    page = done.path.read_text(encoding="utf-8")
    assert (
        "sound is missing" in page
        and sound.render(MediaRef(kind="sound", content=FOUR), sound.SoundLimits(), PICTURE_PIXELS) in page
    )


def shown(path: Path) -> str:
    console = Console(file=io.StringIO(), width=160)
    show(path, console=console)
    return console.file.getvalue()


def test_a_kind_that_no_module_reads_is_refused_where_it_is_looked_at(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [heard(MediaRef(kind="smell", uri="a.rose"))])
    assert "no modality reads this kind of media" in shown(tmp_path / "rows.jsonl")
    assert view(tmp_path / "rows.jsonl", tmp_path / "rows.html").refused == 1
    assert "no modality reads this kind of media" in (tmp_path / "rows.html").read_text(encoding="utf-8")
    with pytest.raises(RowError, match="got 'smell'.; there are image, video; docs/modalities.md adds one"):
        limits_below(tmp_path)["smell"]


def test_a_run_refuses_the_rows_whose_kind_its_model_or_nobody_reads(sound, tmp_path, tiny_model):
    rows = training_runs.write_rows(tmp_path / "rows", 4, text_only=(0, 1))
    (tmp_path / "rows" / "a.wav").write_bytes(FOUR)
    lines = [to_line(heard(MediaRef(kind="sound", uri="a.wav"))), to_line(heard(MediaRef(kind="smell", uri="a.rose")))]
    rows.write_text(rows.read_text() + "\n".join(lines) + "\n")
    more = {"train__max_steps": 1, "data__max_refused_share": 0.5}
    training_runs.run(training_runs.recipe(tiny_model("qwen2_5_vl"), rows, tmp_path / "run", **more))
    refused = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert [(line["row"], line["reason"]) for line in refused] == [
        (5, "model reads no sounds"),
        (6, "no modality reads this kind of media"),
    ]


@pytest.mark.parametrize("to", ["trl", "sharegpt", "swift"])
def test_formats_of_others_that_have_no_place_for_a_kind_refuse_it(tmp_path, to):
    refused = []
    out = tmp_path / "rows.jsonl"
    write(out, [heard(MediaRef(kind="sound", uri="a.wav"))], to, lambda _, error: refused.append(error.reason))
    assert refused == [f"{to} cannot hold this kind of media"]
