"""The contract of modalities: five verbs each, one row each, and nothing else to touch."""

import inspect

import pytest
from pictures import encoded, halves
from videos import numbered, write

from mmalign.errors import ConfigError, RowError
from mmalign.formats.media import MediaRef
from mmalign.modalities.fetch import MediaLimits
from mmalign.modalities.table import MODALITIES, Modality, limits_below


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
    for kind in ("", "Video", "a video", "text", None):
        with pytest.raises(RowError, match="media kind is not a name"):
            MediaRef(kind=kind, uri="a")
