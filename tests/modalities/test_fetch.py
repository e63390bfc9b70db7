import base64
import http.server
import os
import threading
import time

import pytest

from mmalign.errors import ConfigError, RowError
from mmalign.formats.media import MediaRef
from mmalign.modalities.fetch import MediaLimits, content_hash, opened, read_bytes


def path_ref(uri: str, **facts) -> MediaRef:
    return MediaRef(kind="image", uri=uri, **facts)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"abc")
    (tmp_path / "secret.bin").write_bytes(b"secret")
    return folder


def test_a_path_below_the_root_is_read(root):
    (root / "deep").mkdir()
    (root / "deep" / "späte Löwen.bin").write_bytes(b"xyz")
    limits = MediaLimits(root=root)
    assert read_bytes(path_ref("a.bin"), limits) == b"abc"
    assert read_bytes(path_ref("deep/späte Löwen.bin"), limits) == b"xyz"
    assert read_bytes(path_ref(str(root / "a.bin")), limits) == b"abc"
    assert read_bytes(path_ref((root / "a.bin").as_uri()), limits) == b"abc"


def test_a_root_that_is_a_link_is_followed(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    assert read_bytes(path_ref("a.bin"), MediaLimits(root=tmp_path / "link")) == b"abc"


@pytest.mark.parametrize("uri", ["../secret.bin", "deep/../../secret.bin", "x/../a.bin"])
def test_dots_do_not_lead_out_of_the_root(root, uri):
    with pytest.raises(RowError, match=r"image path leaves the data root .*'\.\.' is not allowed"):
        read_bytes(path_ref(uri), MediaLimits(root=root))


def test_an_absolute_path_does_not_lead_out_of_the_root(root, tmp_path):
    for uri in (str(tmp_path / "secret.bin"), "/etc/passwd", "file:///etc/passwd"):
        with pytest.raises(RowError, match="image path leaves the data root .*links are followed"):
            read_bytes(path_ref(uri), MediaLimits(root=root))


def test_a_link_does_not_lead_out_of_the_root(root, tmp_path):
    (root / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(RowError, match="image path leaves the data root"):
        read_bytes(path_ref("link.bin"), MediaLimits(root=root))


def test_a_sibling_with_the_same_beginning_is_not_below_the_root(root, tmp_path):
    (tmp_path / "root2").mkdir()
    (tmp_path / "root2" / "a.bin").write_bytes(b"other")
    with pytest.raises(RowError, match="leaves the data root"):
        read_bytes(path_ref(str(tmp_path / "root2" / "a.bin")), MediaLimits(root=root))


def test_a_missing_file_is_named_with_the_root(root):
    with pytest.raises(
        RowError, match=r"images\[2\]: image is missing \(got 'b.bin'\); looked below data.root"
    ) as error:
        read_bytes(path_ref("b.bin"), MediaLimits(root=root), field="images[2]")
    assert (error.value.reason, error.value.field, error.value.value) == ("image is missing", "images[2]", "b.bin")


def test_a_path_through_a_file_is_missing(root):
    with pytest.raises(RowError, match="image is missing"):
        read_bytes(path_ref("a.bin/b.bin"), MediaLimits(root=root))


@pytest.mark.parametrize("uri", ["a\0b.bin", "   "])
def test_what_is_no_path_is_refused(root, uri):
    with pytest.raises(RowError, match="image path is not a path"):
        read_bytes(path_ref(uri), MediaLimits(root=root))


@pytest.mark.parametrize("uri", ["x" * 5000, "file://[/a.png"])
def test_what_the_system_cannot_name_is_refused(root, uri):
    with pytest.raises(RowError, match="image (cannot be read|is missing)"):
        read_bytes(path_ref(uri), MediaLimits(root=root))


def test_directories_pipes_and_devices_are_not_read(root):
    os.mkfifo(root / "pipe")
    (root / "zero").symlink_to("/dev/zero")
    limits = MediaLimits(root=root)
    for uri in ("pipe", "."):
        with pytest.raises(RowError, match="image path is not a regular file"):
            read_bytes(path_ref(uri), limits)
    with pytest.raises(RowError, match="leaves the data root"):
        read_bytes(path_ref("zero"), limits)
    with pytest.raises(RowError, match="image path is not a regular file"):
        read_bytes(path_ref("/dev/zero"), MediaLimits(root="/"))


def test_links_that_form_a_circle_are_refused(root):
    (root / "x").symlink_to(root / "y")
    (root / "y").symlink_to(root / "x")
    with pytest.raises(RowError, match="image (cannot be read|is missing)"):
        read_bytes(path_ref("x"), MediaLimits(root=root))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_refused(root):
    (root / "a.bin").chmod(0)
    with pytest.raises(RowError, match="image cannot be read"):
        read_bytes(path_ref("a.bin"), MediaLimits(root=root))


def test_an_empty_file_is_refused(root):
    (root / "empty").touch()
    with pytest.raises(RowError, match="image file is empty"):
        read_bytes(path_ref("empty"), MediaLimits(root=root))


def test_a_giant_file_is_refused_before_it_is_read(root):
    with open(root / "giant", "wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(RowError, match=r"image file is too large \(got 'giant'\); at most 67,108,864 bytes are read"):
        read_bytes(path_ref("giant"), MediaLimits(root=root))
    with pytest.raises(RowError, match=r"image file is too large \(got '<4 bytes>'\)"):
        read_bytes(MediaRef(kind="image", content=b"abcd"), MediaLimits(root=root, max_file_bytes=3))


def test_a_digest_must_match(root):
    assert content_hash(path_ref("a.bin"), MediaLimits(root=root)).startswith("ba7816bf")
    good = path_ref("a.bin", sha256="BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD")
    assert read_bytes(good, MediaLimits(root=root)) == b"abc"
    with pytest.raises(RowError, match="image does not match its sha256"):
        read_bytes(path_ref("a.bin", sha256="0" * 64), MediaLimits(root=root))


def test_data_uris_are_read():
    word = base64.b64encode(b"hello").decode()
    for uri in (f"data:image/png;base64,{word}", f"data:;base64,{word[:4]}\n{word[4:]}", "data:text/plain,hel%6Co"):
        assert read_bytes(path_ref(uri), MediaLimits()) == b"hello"


def test_broken_data_uris_are_refused():
    for uri in ("data:image/png;base64", "data:image/png;base64,@@@@", "data:image/png;base64,abc"):
        with pytest.raises(RowError, match="image data URI is broken"):
            read_bytes(path_ref(uri), MediaLimits())
    with pytest.raises(RowError, match="image file is empty"):
        read_bytes(path_ref("data:image/png;base64,"), MediaLimits())
    with pytest.raises(RowError, match="image file is too large"):
        read_bytes(path_ref("data:image/png;base64," + "A" * 100), MediaLimits(max_file_bytes=10))


def test_a_long_data_uri_is_cut_in_the_message():
    with pytest.raises(RowError) as error:
        read_bytes(path_ref("data:image/png;base64," + "@" * 10_000), MediaLimits())
    assert len(str(error.value)) < 400


def test_other_schemes_are_refused():
    for uri in ("s3://bucket/a.png", "ftp://host/a.png"):
        with pytest.raises(RowError, match="image address has a scheme that is not read"):
            read_bytes(path_ref(uri), MediaLimits(allow_http=True))


def test_limits_must_be_positive():
    with pytest.raises(ConfigError, match="media limits must be positive, got max_file_bytes=0"):
        MediaLimits(max_file_bytes=0)


def test_no_file_stays_open(root):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with opened(path_ref("a.bin"), MediaLimits(root=root)) as file:
            file.read(1)
    assert len(os.listdir("/proc/self/fd")) == before


class _Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/a")
            self.end_headers()
        elif self.path == "/slow":
            self.send_response(200)
            self.end_headers()
            for _ in range(30):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.05)
        elif self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"x" * 10)
        elif self.path == "/good":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")
        else:
            self.send_error(404)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def server():
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_http_needs_its_switch(server):
    with pytest.raises(RowError, match="image address needs the network .*set data.allow_http: true"):
        read_bytes(path_ref(f"{server}/good"), MediaLimits())
    assert read_bytes(path_ref(f"{server}/good"), MediaLimits(allow_http=True)) == b"hello"


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("missing", "404"),
        ("moved", "redirect to 'ftp://127.0.0.1/a' is not followed"),
        ("short", "10 of 100 bytes arrived|IncompleteRead"),
        ("slow", "it took more than 0.3 s"),
    ],
)
def test_failed_downloads_say_why(server, page, message):
    with pytest.raises(RowError, match=f"image could not be downloaded .*({message})"):
        read_bytes(path_ref(f"{server}/{page}"), MediaLimits(allow_http=True, http_timeout_s=0.3))


def test_a_download_is_bounded_in_bytes(server):
    with pytest.raises(RowError, match="image file is too large"):
        read_bytes(path_ref(f"{server}/good"), MediaLimits(allow_http=True, max_file_bytes=4))
