"""AV1's intra residuals: what the program records, and the reader of its files."""

import json
import os
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("constriction")

# These import torch and constriction.
from typer.testing import CliRunner

from vpxrc import cli
from vpxrc.codecs import residual_tool
from vpxrc.codecs.residual_tool import record, tool
from vpxrc.codecs.residuals import MAGIC, Q_INDICES, ROW, read_records, unpack_records
from vpxrc.errors import EncoderError, InputError
from vpxrc.storage import cache_dir

# A build of libaom takes minutes, so only those who ask for it pay.
BUILT = any(cache_dir().glob("av1_residuals-*")) or bool(os.environ.get("VPXRC_TEST_AV1_RESIDUALS"))
needs_tool = pytest.mark.skipif(
    not BUILT,
    reason="av1_residuals is not built: `vpxrc codec residuals` or VPXRC_TEST_AV1_RESIDUALS=1",
)


def run(*arguments):
    return CliRunner().invoke(cli.app, [*map(str, arguments)])


def picture(width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng(width)
    small = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    noisy = smooth + rng.normal(0, 8, smooth.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def packed(
    side: int = 4, change: str = "", count: int = 1, width: int = 4, height: int = 4
) -> bytes:
    """Return records made by hand: one luma block, and the two chroma blocks of a 4x4 picture."""
    blocks = np.zeros(3, ROW)
    blocks["plane"], blocks["width"], blocks["height"] = (0, 1, 2), side, side
    if change:
        blocks[change] = 77
    samples = 3 * side * side
    source, prediction = np.full((2, samples), 100, np.uint8)
    body = b"stream" + blocks.tobytes() + source.tobytes() + prediction.tobytes()
    body += np.full(samples, 255, np.uint8).tobytes() + np.full(samples, 200, "<i2").tobytes()
    head = struct.pack(
        "<8s7I", MAGIC, width, height, 32, 0, len(b"stream"), len(blocks), zlib.crc32(body)
    )
    return head + struct.pack("<I", zlib.crc32(head)) + body


def test_records_are_read():
    records = unpack_records(packed())
    assert (records.width, records.height, records.q_index) == (4, 4, 32)
    assert records.stream == b"stream"
    assert not records.closed_loop
    assert records.squares(0, 4).tolist() == [0]
    assert records.take(records.residuals, records.squares(0, 4)).shape == (1, 4, 4)
    assert records.put_together(records.reconstructions, 0).tolist() == [[255] * 4] * 4
    assert records.put_together(records.residuals, 1).tolist() == [[200] * 2] * 2


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no records"),
        (b"VLC\x01" + bytes(60), "no records"),
        (MAGIC[:-1] + b"\x02" + bytes(60), "another version"),
        (MAGIC + bytes(10), "cut off in their header"),
        (MAGIC + bytes(60), "damaged in their header"),
        (packed()[:-1], "cut off"),
        (packed() + b"x", "go on"),
        (packed()[:60] + b"?" + packed()[61:], "damaged"),
        (packed(change="width"), "impossible size"),
        (packed(change="plane"), "impossible block"),
        (packed(change="x"), "outside"),
        (packed(width=0), "impossible size"),
    ],
)
def test_foreign_and_damaged_records_are_refused(data, words):
    with pytest.raises(InputError, match=words):
        unpack_records(data)


def test_every_flipped_bit_is_found():
    good = packed()
    for place in range(len(good)):
        with pytest.raises(InputError):
            unpack_records(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])


def test_a_wrong_residual_is_found():
    data = bytearray(packed())
    data[-1] ^= 0x80  # negative now
    crc = zlib.crc32(data[40:])
    data[32:36] = struct.pack("<I", crc)
    data[36:40] = struct.pack("<I", zlib.crc32(data[:36]))
    with pytest.raises(InputError, match="does not give the reconstruction"):
        unpack_records(bytes(data))


def test_missing_samples_are_found():
    records = unpack_records(packed(width=9, height=4))
    with pytest.raises(InputError, match="in no block"):
        records.put_together(records.sources, 0)


def test_without_a_source_of_libaom(tmp_path, monkeypatch):
    """The tarball is another file, so no network is asked."""
    wrong = tmp_path / "libaom.tar.gz"
    wrong.write_bytes(b"none")
    monkeypatch.setenv("VPXRC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("VPXRC_LIBAOM_SOURCE", str(wrong))
    photo = tmp_path / "a.png"
    Image.fromarray(picture(16, 16)).save(photo)
    result = run("codec", "residuals", photo, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "VPXRC_LIBAOM_SOURCE is not libaom 3.12.1" in result.stderr
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("names", "q_indices", "words"),
    [
        (["a"], "33", "libaom's q indices"),
        (["a"], "x", "--qindex takes integers"),
        (["a", "sub/a"], "32", "two pictures are called a"),
        ([], "32", "no such file"),
    ],
)
def test_wrong_wishes(tmp_path, names, q_indices, words):
    (tmp_path / "sub").mkdir()
    for name in names:
        Image.fromarray(picture(16, 16)).save(tmp_path / f"{name}.png")
    given = [tmp_path / f"{name}.png" for name in names] or [tmp_path / "none.png"]
    result = run("codec", "residuals", *given, "--qindex", q_indices, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


@needs_tool
@pytest.mark.parametrize("size", [(1, 1), (33, 17), (150, 101)])
def test_another_decoder_agrees(tmp_path, size):
    """dav1d, as PyAV brings it, decodes the stream to what the blocks give."""
    for q_index in (0, 32, 128, 255):
        records = record(picture(*size), q_index, tmp_path / "a.residuals")
        decoder: Any = av.CodecContext.create("libdav1d", "r")
        frames = [*decoder.decode(av.Packet(records.stream)), *decoder.decode(None)]
        assert len(frames) == 1
        for number, plane in enumerate(frames[0].planes):
            rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            expected = rows[: plane.height, : plane.width]
            found = records.put_together(records.reconstructions, number)
            np.testing.assert_array_equal(found, expected)
        assert (records.blocks["bits"] > 0).all()
        assert records.blocks["bits"].sum() < 8 * len(records.stream)
        # AV1's q index 0 is lossless.
        assert q_index or np.array_equal(records.sources, records.reconstructions)


@needs_tool
def test_the_source_is_the_picture(tmp_path):
    pixels = picture(64, 40)
    records = record(pixels, 80, tmp_path / "a.residuals")
    y, cb, cr = (records.put_together(records.sources, plane) for plane in range(3))
    ours = np.asarray(Image.fromarray(pixels).convert("YCbCr"), int)
    assert np.abs(ours[..., 0] - y).max() <= 1
    for plane, channel in ((cb, 1), (cr, 2)):
        means = ours[..., channel].reshape(20, 2, 32, 2).mean((1, 3))
        assert np.abs(means - plane).max() <= 1.5


class Watched:
    """A loop that writes down what it is asked and told, and replaces some blocks."""

    def __init__(self, replacement, *, in_encoder=False):
        self.in_encoder, self.replacement = in_encoder, replacement
        self.asked, self.told = {}, {}

    def reconstruct(self, row, source, prediction):
        where = tuple(int(row[name]) for name in ("plane", "x", "y", "width", "height"))
        about = [int(row[name]) for name in ("mode", "angle", "filter", "dc_step", "ac_step")]
        self.asked.setdefault(where, []).append((about, prediction.tobytes()))
        return self.replacement(row, source, prediction)

    def kept(self, row, reconstruction, prediction):
        where = tuple(int(row[name]) for name in ("plane", "x", "y", "width", "height"))
        assert self.asked[where][-1][1] == prediction.tobytes()
        self.told[where] = reconstruction.copy()


@needs_tool
def test_closed_loop_sees_the_replacement(tmp_path):
    """With the source as reconstruction, predictions come from the source and nothing is lost."""
    pixels = picture(72, 56)
    plain = record(pixels, 172, tmp_path / "a.residuals")
    watched = Watched(lambda row, source, prediction: source)
    loop = record(pixels, 172, tmp_path / "b.residuals", watched)
    assert loop.closed_loop
    assert loop.stream == plain.stream
    np.testing.assert_array_equal(loop.sources, loop.reconstructions)
    for name in ("x", "y", "plane", "width", "height", "mode"):
        np.testing.assert_array_equal(loop.blocks[name], plain.blocks[name])
    assert not np.array_equal(loop.predictions, plain.predictions)

    def fails(row, source, prediction):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        record(pixels, 172, tmp_path / "c.residuals", Watched(fails))
    assert not (tmp_path / "c.residuals").exists()


@needs_tool
def test_an_encoder_in_whose_loop_all_is_kept_is_av1s(tmp_path):
    pixels = picture(72, 56)
    plain = record(pixels, 128, tmp_path / "a.residuals")
    watched = Watched(lambda row, source, prediction: None, in_encoder=True)
    loop = record(pixels, 128, tmp_path / "b.residuals", watched)
    assert loop.closed_loop
    assert loop.stream == plain.stream
    np.testing.assert_array_equal(loop.blocks, plain.blocks)
    np.testing.assert_array_equal(loop.residuals, plain.residuals)
    for row, start in zip(loop.blocks, loop.starts, strict=True):
        where = tuple(int(row[name]) for name in ("plane", "x", "y", "width", "height"))
        own = loop.reconstructions[start : start + where[3] * where[4]]
        np.testing.assert_array_equal(watched.told[where].ravel(), own)


@needs_tool
@pytest.mark.parametrize("q_index", [32, 128])
def test_encoder_and_decoder_see_the_same_reconstructions(tmp_path, q_index):
    """Of a block, the last question of the encoder is the decoder's: place, mode and prediction."""

    def coarse(row, source, prediction):
        if row["plane"] or row["width"] > 16:
            return None
        residual = source.astype(int) - prediction
        return (prediction + np.rint(residual / 24) * 24).clip(0, 255)

    pixels = picture(136, 72)
    watched = Watched(coarse, in_encoder=True)
    loop = record(pixels, q_index, tmp_path / "a.residuals", watched)
    plain = record(pixels, q_index, tmp_path / "b.residuals")
    assert loop.stream != plain.stream
    replaced = 0
    for row, start in zip(loop.blocks, loop.starts, strict=True):
        where = tuple(int(row[name]) for name in ("plane", "x", "y", "width", "height"))
        *_, encoder, decoder = watched.asked[where]
        assert encoder == decoder
        samples = slice(start, start + where[3] * where[4])
        shape = where[4], where[3]
        source, prediction, reconstruction = (
            part[samples].reshape(shape)
            for part in (loop.sources, loop.predictions, loop.reconstructions)
        )
        expected = coarse(row, source, prediction)
        if expected is not None:
            np.testing.assert_array_equal(reconstruction, expected)
            replaced += 1
    assert replaced > 10


@needs_tool
def test_the_program_refuses(tmp_path):
    for arguments, given in (
        (["8", "8", "20", str(tmp_path / "a")], bytes(95)),
        (["0", "8", "20", str(tmp_path / "a")], b""),
        (["8", "8"], b""),
        (["8", "8", "20", str(tmp_path / "none" / "a")], bytes(96)),
        (["8", "8", "20", str(tmp_path / "a"), "decoder"], bytes(96)),
        (["8", "8", "20", str(tmp_path / "a"), "encoder"], bytes(96)),
        (["8", "8", "20", str(tmp_path / "a"), "loop"], bytes(96)),
    ):
        result = subprocess.run([tool(), *arguments], input=given, capture_output=True)
        assert result.returncode == 1
        assert result.stderr.count(b"\n") == 1
    assert not list(tmp_path.iterdir())


@needs_tool
def test_a_program_that_dies_leaves_nothing(tmp_path, monkeypatch):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(residual_tool, "tool", lambda: program)
    with pytest.raises(EncoderError, match="broken"):
        record(picture(8, 8), 32, tmp_path / "a.residuals")
    assert [path.name for path in tmp_path.iterdir()] == ["program"]


@needs_tool
def test_the_command(tmp_path):
    photo = tmp_path / "a.png"
    Image.fromarray(picture(40, 24)).save(photo)
    result = run(
        "codec", "residuals", photo, "--qindex", "80,220", "--out", tmp_path / "out", "--json"
    )
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)
    assert [Path(row["output"]).name for row in rows] == ["a.q080.residuals", "a.q220.residuals"]
    for row in rows:
        records = read_records(Path(row["output"]))
        assert len(records.blocks) == row["blocks"]
        assert row["coefficient_bits"] == pytest.approx(records.blocks["bits"].sum())
    assert set(Q_INDICES) >= {80, 220}
