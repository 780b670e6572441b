"""IVF against libvpx's layout and ffmpeg's own muxer; WebM against ffmpeg's demuxer."""

import struct
import subprocess
from fractions import Fraction

import imageio_ffmpeg
import pytest

from vpxrc.errors import InputError, OutputError
from vpxrc.media.audio import extract_audio
from vpxrc.media.muxing import Companions, ivf_bytes, ivf_packets, write_webm
from vpxrc.media.probing import Track

FPS = Fraction(30000, 1001)


def ffmpeg(*arguments, data=None):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    if data is None:
        command.insert(1, "-nostdin")
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


@pytest.fixture(scope="module")
def ffmpegs_ivf(tmp_path_factory):
    """A VP9 stream with a hidden alt-ref frame, muxed by ffmpeg."""
    path = tmp_path_factory.mktemp("ivf") / "clip.ivf"
    source = ("-f", "lavfi", "-i", "testsrc2=s=96x80:r=30000/1001", "-frames:v", "30")
    vp9 = ("-c:v", "libvpx-vp9", "-b:v", "100k", "-cpu-used", "5", "-auto-alt-ref", "1")
    ffmpeg(*source, *vp9, "-lag-in-frames", "20", path)
    return path.read_bytes()


def packets_of(ivf):
    packets, position = [], 32
    while position < len(ivf):
        size, pts = struct.unpack_from("<IQ", ivf, position)
        packets.append((ivf[position + 12 : position + 12 + size], pts))
        position += 12 + size
    return packets


def test_header_and_packets_are_laid_out_as_in_ivfenc():
    assert ivf_bytes([(b"abc", 0), (b"", 2**33 + 1)], 176, 144, FPS, "VP90") == bytes.fromhex(
        "444b4946"  # DKIF
        "0000 2000"  # version 0, header of 32 bytes
        "56503930"  # VP90
        "b000 9000"  # 176 x 144
        "30750000 e9030000"  # 30000 / 1001
        "02000000 00000000"  # two frames, unused
        "03000000 0000000000000000 616263"
        "00000000 0100000002000000"
    )


def test_packets_of_ffmpegs_ivf_give_its_bytes(ffmpegs_ivf):
    ours = ivf_bytes(packets_of(ffmpegs_ivf), 96, 80, FPS, "VP90")
    assert len(packets_of(ours)) == 30
    assert ours[:24] == ffmpegs_ivf[:24]
    assert ours[32:] == ffmpegs_ivf[32:]


def test_the_codec_is_in_the_header():
    of_vp8, of_vp9 = (ivf_bytes([(b"abc", 0)], 16, 16, FPS, f"VP{n}0") for n in (8, 9))
    assert of_vp8[8:12] == b"VP80" and of_vp8.replace(b"VP80", b"VP90") == of_vp9


@pytest.mark.parametrize(("width", "height"), [(0, 16), (16, 65536)])
def test_geometry_that_does_not_fit_is_refused(width, height):
    with pytest.raises(InputError, match=f"{width}x{height} pixels do not fit"):
        ivf_bytes([], width, height, FPS, "VP90")


def test_webm_has_the_same_packets(tmp_path, ffmpegs_ivf):
    write_webm(tmp_path / "a.webm", ffmpegs_ivf)
    write_webm(tmp_path / "b.webm", ffmpegs_ivf)
    webm = (tmp_path / "a.webm").read_bytes()
    assert webm.startswith(b"\x1a\x45\xdf\xa3")
    assert b"webm" in webm[:64]
    assert webm == (tmp_path / "b.webm").read_bytes()
    hashes = ("-c", "copy", "-f", "framehash", "-hash", "sha256", "-")
    ours = [
        line.split(b",")[-1] for line in ffmpeg("-i", tmp_path / "a.webm", *hashes).splitlines()
    ]
    ivf = ffmpeg("-f", "ivf", "-i", "-", *hashes, data=ffmpegs_ivf).splitlines()
    assert ours[-30:] == [line.split(b",")[-1] for line in ivf[-30:]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.webm", "b.webm"]


@pytest.mark.parametrize("codec", ["libopus", "libvorbis"])
def test_webm_with_audio_that_begins_later(tmp_path, ffmpegs_ivf, codec):
    sound = tmp_path / "sound.mka"
    tone = ("-itsoffset", "0.4", "-f", "lavfi", "-i", "sine=d=0.5")
    ffmpeg(*tone, "-c:a", codec, "-copyts", sound)
    film = tmp_path / "film.mkv"
    black = ("-f", "lavfi", "-i", "color=s=96x80:d=1")
    ffmpeg(*black, "-copyts", "-i", sound, "-c:v", "ffv1", "-c:a", "copy", "-copyts", film)
    audio = extract_audio(film, tmp_path / "audio.mka", Track(codec.removeprefix("lib")))
    assert audio is not None
    assert float(audio.start) == pytest.approx(0.4, abs=4e-3)
    write_webm(tmp_path / "clip.webm", ffmpegs_ivf, Companions(audio=audio))
    copied = ("-c", "copy", "-f", "framehash", "-hash", "sha256", "-")
    packets = [
        [row for row in ffmpeg("-copyts", "-i", path, "-map", "0:a", *copied).splitlines()]
        for path in (sound, tmp_path / "clip.webm")
    ]
    rows = [[row.split(b",") for row in file if row[:1] != b"#"] for file in packets]
    assert [row[-1] for row in rows[0]] == [row[-1] for row in rows[1]]
    begins = [int(file[0][2]) for file in rows]  # milliseconds
    assert begins[0] == pytest.approx(400, abs=10)
    assert begins[1] == pytest.approx(begins[0], abs=10)


def test_bytes_that_are_not_ivf_leave_no_file(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*clip\.webm: ") as caught:
        write_webm(tmp_path / "clip.webm", b"no packets at all" * 10)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path, ffmpegs_ivf):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Not a directory"):
        write_webm(tmp_path / "file" / "clip.webm", ffmpegs_ivf)


def test_the_packets_of_an_ivf_file_come_back():
    packets = [(b"one", 0), (b"", 1), (bytes(300), 2)]
    stream = ivf_bytes(packets, 30, 20, Fraction(25), "ABCD")
    assert ivf_packets(stream, "ABCD") == [data for data, _ in packets]
    for damaged in (stream[:-1], stream[:-305], stream[:20], b"", b"RIFF" + stream[4:]):
        with pytest.raises(InputError, match="IVF"):
            ivf_packets(damaged, "ABCD")
    with pytest.raises(InputError, match="not an IVF file of VP90"):
        ivf_packets(stream, "VP90")
