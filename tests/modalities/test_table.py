"""The contract of modalities: five verbs each, one row each, and nothing else to touch."""

import importlib.util
import inspect
import io
import re
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, halves
from videos import numbered, write

from mmalign.errors import ConfigError, RowError
from mmalign.formats.media import MediaRef
from mmalign.modalities import table
from mmalign.modalities.fetch import MediaLimits
from mmalign.modalities.table import MODALITIES, Modality, limits_below

PAGE = Path(__file__).resolve().parents[2] / "docs" / "modalities.md"


@pytest.fixture
def media(tmp_path) -> dict[str, MediaRef]:
    (tmp_path / "a.png").write_bytes(encoded(halves(32, 24)))
    write(tmp_path / "a.mp4", numbered(5))
    return {"image": MediaRef(kind="image", uri="a.png"), "video": MediaRef(kind="video", uri="a.mp4")}


def test_every_kind_follows_the_contract(tmp_path, media):
    limits = limits_below(tmp_path)
    assert media.keys() == MODALITIES.keys() == limits.keys()
    for kind, row in MODALITIES.items():
        assert issubclass(row.limits, MediaLimits)
        assert row.check(media[kind], limits[kind], field="f") == row.check(media[kind], limits[kind])
        loaded = row.load(media[kind], limits[kind])
        assert row.messages(media[kind])["type"] == kind
        assert row.render(media[kind], limits[kind]).startswith("data:image/")
        row.perturb(loaded, "blur", seed=0, strength=0.5)
        with pytest.raises(RowError) as error:
            row.check(MediaRef(kind=kind, uri="gone"), limits[kind], field="media[3]")
        assert (error.value.reason, error.value.field) == (f"{kind} is missing", "media[3]")


def test_a_row_is_five_verbs_their_limits_and_what_moving_pictures_have():
    assert Modality._fields == ("limits", "check", "load", "messages", "render", "perturb", "playable")
    assert [kind for kind, row in MODALITIES.items() if row.playable] == ["video"]
    for row in MODALITIES.values():
        for verb in ("check", "load", "messages", "render", "perturb"):
            assert inspect.getdoc(getattr(row, verb)), verb


def test_limits_are_made_for_all_kinds_at_once(tmp_path):
    limits = limits_below(
        tmp_path, allow_http=True, max_pixels=100, decode_timeout_s=3.0, own={"video": {"max_pixels": 7}}
    )
    assert (limits["image"].max_pixels, limits["video"].max_pixels) == (100, 7)
    assert limits["image"].allow_http and limits["video"].allow_http
    assert limits["video"].decode_timeout_s == 3.0
    assert limits["image"].root == tmp_path
    with pytest.raises(ConfigError, match="no kind of media has a limit 'max_pixel'; there are allow_http, cache_dir"):
        limits_below(tmp_path, max_pixel=100)


def test_a_kind_is_a_name():
    for kind in ("", "Video", "a video", None):
        with pytest.raises(RowError, match="media kind is not a name"):
            MediaRef(kind=kind, uri="a")


@pytest.fixture
def sound(tmp_path, monkeypatch):
    """The module of docs/modalities.md, added by the row that stands there."""
    module, row = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (tmp_path / "sound.py").write_text(module)
    spec = importlib.util.spec_from_file_location("sound", tmp_path / "sound.py")
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "sound", made)
    spec.loader.exec_module(made)
    added = eval("{" + row + "}", {"Modality": Modality, "sound": made, "SoundLimits": made.SoundLimits})
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


def test_the_modality_of_the_page_can_be_added_and_used(sound, tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(np.array([0, 16384, -32768, 8192], dtype="<i2")))
    ref, row = MediaRef(kind="sound", uri="a.wav"), MODALITIES["sound"]
    limits = limits_below(tmp_path, max_seconds=1.0)["sound"]
    assert row.check(ref, limits) == (4, 8000)
    assert row.load(ref, limits).tolist() == [[0.0], [0.5], [-1.0], [0.25]]
    assert row.messages(ref) == {"type": "audio"}
    assert row.render(ref, limits).startswith("data:audio/wav;base64,UklGR")
    silenced = row.perturb(np.ones((10, 1), dtype=np.float32), "silence", seed=0, strength=0.3)
    assert silenced.sum() == 7
    with pytest.raises(ConfigError, match="sound perturbation 'melt'"):
        row.perturb(silenced, "melt", seed=0)


def test_the_modality_of_the_page_refuses_what_is_bad(sound, tmp_path):
    rules = {
        "sound is not a WAV file": b"RIFFnothing of the kind",
        "sound is not of 16 bits": wav(np.zeros(4, dtype=np.uint8), bytes_each=1),
        "sound is too long": wav(np.zeros(16_000, dtype="<i2")),
    }
    limits = limits_below(tmp_path, max_seconds=1.0)["sound"]
    for reason, content in rules.items():
        for verb in (sound.check, sound.load):
            with pytest.raises(RowError) as error:
                verb(MediaRef(kind="sound", content=content), limits)
            assert error.value.reason == reason
