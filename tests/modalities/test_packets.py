"""What packets say of files that are good, if unusual."""

from fractions import Fraction

import av
import numpy as np
import pytest
from videos import number_of, numbered, write

from mmalign.errors import RowError
from mmalign.formats.media import MediaRef
from mmalign.modalities import packets, video
from mmalign.modalities.sampling import Sampling
from mmalign.modalities.video import VideoLimits


def limits_in(folder) -> VideoLimits:
    return VideoLimits(root=folder, sampling=Sampling(policy="uniform", frames=64))


def ref(name: str) -> MediaRef:
    return MediaRef(kind="video", uri=name)


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_an_avi_that_skips_frames_is_whole(tmp_path, codec):
    # Every third of 82 places has a frame: the header counts places, and 28 packets are there.
    with av.open(str(tmp_path / "skips.avi"), "w") as container:
        stream = container.add_stream(codec, rate=10, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 4_000_000
        stream.codec_context.time_base = Fraction(1, 10)
        for k, frame in enumerate(numbered(28)):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = 3 * k, Fraction(1, 10)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    clip = video.load(ref("skips.avi"), limits_in(tmp_path))
    assert [number_of(frame) for frame in clip.frames] == list(range(28))
    assert clip.timestamps_s == pytest.approx([0.3 * k for k in range(28)])
    whole = (tmp_path / "skips.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: (whole.index(b"movi") + whole.index(b"idx1")) // 2])
    for verb in (video.check, video.load):
        with pytest.raises(RowError, match="video is truncated or broken .*of 82 frames are there"):
            verb(ref("cut.avi"), limits_in(tmp_path))


def test_a_title_in_another_encoding_refuses_no_file(tmp_path):
    write(tmp_path / "a.mkv", numbered(3))
    with av.open(str(tmp_path / "a.mkv")) as source, av.open(str(tmp_path / "titled.mkv"), "w") as target:
        target.metadata["title"] = "naive cafe"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    content = (tmp_path / "titled.mkv").read_bytes()
    assert content.count(b"naive cafe") == 1
    latin = content.replace(b"naive cafe", "naïve café".encode("latin-1"))
    clip = video.load(MediaRef(kind="video", content=latin), limits_in(tmp_path))
    assert [number_of(frame) for frame in clip.frames] == [0, 1, 2]


class _Timeless:
    """A container whose packet `place` has lost its time."""

    def __init__(self, container, place: int) -> None:
        self._container, self._place = container, place
        self.format = container.format

    def demux(self, stream):
        for place, packet in enumerate(self._container.demux(stream)):
            if place == self._place and packet.size:
                packet.pts = packet.dts = None
            yield packet


@pytest.mark.parametrize("place", [0, 3])
def test_a_packet_without_time_leaves_a_timeline_by_the_rate(tmp_path, place):
    write(tmp_path / "a.mp4", numbered(6), codec="mpeg4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        ticks, timeline = packets.index_of(_Timeless(container, place), container.streams.video[0])
    assert ticks is None
    assert timeline.times_s.tolist() == pytest.approx(np.arange(6) / 10)
    assert timeline.end_s == pytest.approx(0.6)
