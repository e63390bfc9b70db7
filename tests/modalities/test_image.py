import base64
import contextlib
import io
import struct
import time
import zlib

import numpy as np
import pytest
from pictures import encoded, halves, noise, with_orientation
from PIL import Image

from mmalign.errors import ConfigError, RowError
from mmalign.formats.media import MediaRef
from mmalign.modalities import image
from mmalign.modalities.image import ImageLimits

ANYTHING = ImageLimits()


def ref(content: bytes) -> MediaRef:
    return MediaRef(kind="image", content=content)


def loaded(content: bytes, limits: ImageLimits = ANYTHING, **how) -> np.ndarray:
    picture = image.load(ref(content), limits, **how)
    assert picture.mode == "RGB"
    assert image.check(ref(content), ImageLimits(max_decoded_pixels=limits.max_decoded_pixels))
    return np.asarray(picture)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "GIF", "JPEG", "JPEG2000", "AVIF", "ICO"])
def test_usual_formats_are_read(format):
    how = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}, "AVIF": {"quality": 100}}
    content = encoded(halves(64, 32), format, **how.get(format, {}))
    assert image.check(ref(content), ANYTHING) == ((64, 32) if format != "ICO" else image.check(ref(content), ANYTHING))
    pixels = loaded(content)
    assert np.abs(pixels[pixels.shape[0] // 2, 2].astype(int) - [255, 0, 0]).max() <= 12
    assert np.abs(pixels[pixels.shape[0] // 2, -3].astype(int) - [0, 0, 255]).max() <= 12


def test_path_bytes_and_data_uri_give_the_same_picture(tmp_path):
    content = encoded(halves())
    (tmp_path / "a.png").write_bytes(content)
    uri = "data:image/png;base64," + base64.b64encode(content).decode()
    limits = ImageLimits(root=tmp_path)
    refs = [ref(content), MediaRef(kind="image", uri="a.png"), MediaRef(kind="image", uri=uri)]
    assert {image.load(each, limits).tobytes() for each in refs} == {halves().tobytes()}
    assert len({image.content_hash(each, limits) for each in refs}) == 1


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "MPO"])
@pytest.mark.parametrize(
    ("orientation", "size", "first"),
    # where the red left half goes: upright, mirrored, upside down, flipped, and the four that stand
    [(1, (48, 32), "left"), (2, (48, 32), "right"), (3, (48, 32), "right"), (4, (48, 32), "left")]
    + [(5, (32, 48), "top"), (6, (32, 48), "top"), (7, (32, 48), "bottom"), (8, (32, 48), "bottom")],
)
def test_exif_orientation_is_obeyed(format, orientation, size, first):
    content = with_orientation(halves(48, 32), orientation, format)
    assert image.check(ref(content), ANYTHING) == size
    pixels = loaded(content).astype(int)
    assert pixels.shape[:2] == size[::-1]
    corner = {"left": pixels[16 % size[1], 2], "right": pixels[16, -3], "top": pixels[2, 16], "bottom": pixels[-3, 16]}
    assert corner[first][0] > 200 > 60 > corner[first][2]


def test_broken_exif_is_passed_over():
    content = encoded(halves(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert image.check(ref(content), ANYTHING) == (8, 4)
    assert loaded(content).shape == (4, 8, 3)


def test_transparency_is_laid_on_white():
    for mode, pixel in [("RGBA", (255, 0, 0, 0)), ("LA", (0, 0))]:
        assert loaded(encoded(Image.new(mode, (4, 4), pixel))).tolist() == [[[255, 255, 255]] * 4] * 4
    half = loaded(encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 128))))
    assert half[0, 0].tolist() == [255, 127, 127]
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((0, 0), 1)
    pixels = loaded(encoded(palette, transparency=0))
    assert pixels[0, 0].tolist() == [200, 100, 50]
    assert pixels[1, 1].tolist() == [255, 255, 255]
    keyed = loaded(encoded(halves(), transparency=(255, 0, 0)))
    assert keyed[0, 0].tolist() == [255, 255, 255]
    assert keyed[0, -1].tolist() == [0, 0, 255]


def test_a_palette_keeps_its_colours():
    assert loaded(encoded(halves().quantize(2), "GIF"))[0, 0].tolist() == [255, 0, 0]


def test_sixteen_bits_are_scaled_to_eight():
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    for format in ("PNG", "TIFF"):
        assert loaded(encoded(Image.fromarray(values), format))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_thirty_two_bits_and_floats_are_scaled_by_their_usual_range():
    integers = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.int32))
    assert loaded(encoded(integers, "TIFF"))[0, :, 0].tolist() == [0, 128, 255]
    beyond = Image.fromarray(np.array([[-5, 0, 1_000_000]], dtype=np.int32))
    assert loaded(encoded(beyond, "TIFF"))[0, :, 0].tolist() == [0, 0, 255]
    for values, expected in [([0.0, 0.5, 1.0], [0, 128, 255]), ([0.0, 100.0, 250.0], [0, 100, 250])]:
        floats = Image.fromarray(np.array([values], dtype=np.float32))
        assert loaded(encoded(floats, "TIFF"))[0, :, 0].tolist() == expected
    strange = Image.fromarray(np.array([[np.nan, np.inf, 1.0]], dtype=np.float32))
    assert loaded(encoded(strange, "TIFF"))[0, :, 0].tolist() == [0, 0, 255]
    assert loaded(encoded(Image.fromarray(np.zeros((1, 2), dtype=np.float32)), "TIFF")).max() == 0


def test_cmyk_one_bit_and_grey_become_rgb():
    assert loaded(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "TIFF"))[8, 8].tolist() == [255, 0, 0]
    jpeg = loaded(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))[8, 8].astype(int)
    assert jpeg[0] > 245 and jpeg[1:].max() < 10
    assert loaded(encoded(Image.new("1", (4, 4), 1)))[0, 0].tolist() == [255] * 3
    assert loaded(encoded(Image.new("L", (4, 4), 77)))[0, 0].tolist() == [77] * 3


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_animations_show_their_first_frame(format):
    frames = [Image.new("RGB", (16, 16), colour) for colour in [(255, 0, 0), (0, 255, 0), (0, 0, 255)]]
    content = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    pixel = loaded(content)[8, 8].astype(int)
    assert pixel[0] > 245 and pixel[1:].max() < 10


def test_pictures_are_resized_into_their_bounds():
    content = encoded(noise(300, 200))
    assert loaded(content, ImageLimits(max_pixels=15_000)).shape == (100, 150, 3)
    assert loaded(content, ImageLimits(max_pixels=15_000), max_pixels=600).shape == (20, 30, 3)
    assert loaded(content, ImageLimits(min_pixels=240_000)).shape == (400, 600, 3)
    assert loaded(content, ImageLimits(max_pixels=15_000), bounded=False).shape == (200, 300, 3)
    assert loaded(content, ImageLimits(min_pixels=10, max_pixels=60_000)).shape == (200, 300, 3)


def test_resizing_keeps_what_is_seen_and_which_side_is_up():
    content = with_orientation(halves(800, 400), 6, "JPEG")
    pixels = loaded(content, ImageLimits(max_pixels=5_000)).astype(int)
    assert pixels.shape[:2] == (100, 50)
    assert pixels[20, 25][0] > 240 and pixels[80, 25][2] > 240


def test_no_side_vanishes_at_extreme_aspect_ratios():
    assert loaded(encoded(Image.new("RGB", (400, 2))), ImageLimits(max_pixels=50)).shape == (1, 100, 3)


def test_a_line_is_refused():
    with pytest.raises(RowError, match=r"image is too narrow .*401 x 2 is beyond 200 to 1"):
        image.check(ref(encoded(Image.new("RGB", (401, 2)))), ANYTHING)
    assert image.check(ref(encoded(Image.new("RGB", (2, 400)))), ANYTHING) == (2, 400)


def test_one_pixel_is_a_picture():
    assert loaded(encoded(Image.new("RGB", (1, 1), (1, 2, 3)))).tolist() == [[[1, 2, 3]]]


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises a giant picture."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [9_500, 60_000])
@pytest.mark.filterwarnings("error")
def test_a_decompression_bomb_is_refused_by_its_header(side):
    started = time.perf_counter()
    for verb in (image.check, image.load):
        with pytest.raises(RowError, match="image has too many pixels"):
            verb(ref(bomb(side, side)), ANYTHING)
    assert time.perf_counter() - started < 1


def test_the_bound_on_decoded_pixels_is_a_setting():
    with pytest.raises(RowError, match=r"image has too many pixels .*8 x 4 exceeds 31; make it smaller"):
        image.check(ref(encoded(halves())), ImageLimits(max_decoded_pixels=31))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000"])
@pytest.mark.parametrize("share", [0.3, 0.8, 0.99])
def test_a_truncated_file_is_refused_by_check_and_by_load(format, share):
    content = encoded(noise(64, 48), format)
    content = content[: int(len(content) * share)]
    for verb in (image.check, image.load):
        with pytest.raises(RowError, match="image is (truncated or broken|not in a known format)"):
            verb(ref(content), ANYTHING)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_what_follows_a_whole_file_does_no_harm(format):
    content = encoded(halves(64, 48), format) + b"appended by a camera " * 500
    assert image.check(ref(content), ANYTHING) == (64, 48)
    assert loaded(content).shape == (48, 64, 3)


@pytest.mark.parametrize("content", [b"x", b"<html>not found</html>", b"%!PS-Adobe-3.0 EPSF-3.0\n", bytes(1000)])
def test_what_is_no_picture_is_refused(content):
    for verb in (image.check, image.load):
        with pytest.raises(RowError, match="image is not in a known format .*readable are JPEG"):
            verb(ref(content), ANYTHING)


def test_every_prefix_and_many_mutations_are_refused_or_read_without_a_traceback():
    generator = np.random.default_rng(0)
    for format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
        whole = np.frombuffer(encoded(noise(24, 16), format), dtype=np.uint8)
        for trial in range(60):
            content = whole.copy()
            places = generator.integers(0, len(content), 1 + trial % 8)
            content[places] = generator.integers(0, 256, len(places))
            for verb in (image.check, image.load):
                with contextlib.suppress(RowError):
                    verb(ref(content.tobytes()), ImageLimits(max_decoded_pixels=1_000_000))


def test_check_reads_a_header_only(tmp_path):
    (tmp_path / "large.png").write_bytes(encoded(noise(2000, 1500)))
    large, limits = MediaRef(kind="image", uri="large.png"), ImageLimits(root=tmp_path)
    image.check(large, limits)
    started = time.perf_counter()
    for _ in range(20):
        assert image.check(large, limits) == (2000, 1500)
    seconds = (time.perf_counter() - started) / 20
    started = time.perf_counter()
    image.load(large, limits)
    assert seconds < (time.perf_counter() - started) / 5


def test_bounds_must_make_sense():
    with pytest.raises(ConfigError, match="data.max_pixels must be positive, got 0"):
        ImageLimits(max_pixels=0)
    with pytest.raises(ConfigError, match="data.min_pixels 10 exceeds data.max_pixels 5"):
        ImageLimits(min_pixels=10, max_pixels=5)


def test_the_content_part_of_a_chat_template():
    assert image.messages(ref(b"x")) == {"type": "image"}


def test_render_is_a_small_picture_for_people():
    uri = image.render(ref(encoded(noise(300, 200))), ANYTHING, 6_000)
    head, payload = uri.split(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(payload))).size == (94, 63)


@pytest.mark.parametrize("how", ["crop", "blur", "noise", "blank"])
def test_perturbations_are_seeded_and_change_the_picture(how):
    picture = noise(40, 30)
    first, again = (image.perturb(picture, how, seed=1) for _ in range(2))
    assert first.tobytes() == again.tobytes()
    assert first.mode == "RGB" and first.tobytes() != picture.tobytes()
    if how in ("crop", "noise"):
        assert image.perturb(picture, how, seed=2).tobytes() != first.tobytes()


def test_perturbations_by_value():
    picture = halves(40, 20)
    assert image.perturb(picture, "crop", seed=0, strength=0.75).size == (20, 10)
    assert np.unique(image.perturb(picture, "blank", seed=0, strength=1.0)).tolist() == [0, 128]
    assert np.asarray(image.perturb(picture, "blank", seed=0, strength=0.5))[0, 0].tolist() == [191, 0, 64]
    seen = np.asarray(image.perturb(halves(200, 200), "noise", seed=0, strength=0.5), dtype=float)[:, :100, 0]
    # Red is +1 and becomes sqrt(0.5) * (1 + z), cut at 1: its mean is 0.7071 * (1 - E[max(z - 0.4142, 0)]) = 0.5476.
    assert seen.mean() == pytest.approx((1 + 0.5476) * 127.5, abs=2)
    sharp = np.asarray(picture, dtype=float)[:, :, 0].std()
    assert np.asarray(image.perturb(picture, "blur", seed=0, strength=1.0), dtype=float)[:, :, 0].std() < sharp


def test_unknown_perturbations_and_strengths_are_refused():
    with pytest.raises(ConfigError, match="perturbation 'melt' is unknown; use one of crop, blur, noise, blank"):
        image.perturb(halves(), "melt", seed=0)
    for how, strength in [("blur", 0.0), ("noise", 1.5), ("crop", 1.0)]:
        with pytest.raises(ConfigError, match="must satisfy 0 < strength <= 1"):
            image.perturb(halves(), how, seed=0, strength=strength)


def test_real_photographs_are_read(shared_data):
    limits = ImageLimits(root=shared_data / "image")
    photographs = sorted((shared_data / "image").glob("*.jpg"))
    for path in photographs:
        photograph = MediaRef(kind="image", uri=path.name)
        width, height = image.check(photograph, limits)
        assert image.load(photograph, limits).size == (width, height)
        small = image.load(photograph, limits, 10_000)
        assert 9_000 < small.width * small.height <= 10_000
        assert small.width / small.height == pytest.approx(width / height, rel=0.02)


def test_draft_decoding_shows_the_same_picture(shared_data):
    limits = ImageLimits(root=shared_data / "image")
    photograph = MediaRef(kind="image", uri="waterview.jpg")
    small = image.load(photograph, limits, 5_000)
    exact = image.load(photograph, limits).resize(small.size, Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(small, dtype=float) - np.asarray(exact, dtype=float)).mean() < 3
