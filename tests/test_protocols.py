"""libvpx's native classes are what the protocols say, member by member; logs travel."""

import dataclasses
import inspect
import pickle
from fractions import Fraction
from typing import get_args, get_origin, get_type_hints

import numpy as np
import pytest

import vpxrc
from vpxrc import EncoderOptions, EncodeSession, Frame, Group, InputError, UpdateType, encode
from vpxrc.encoder.first_pass import FirstPassMemory, first_pass_stats
from vpxrc.encoder.log import coded_rows, psnr, shown_rows
from vpxrc.encoder.session import Session
from vpxrc.policies.constant import ConstantQ
from vpxrc.policies.libvpx import libvpx_vbr_mlarf

OPTIONS = EncoderOptions(target_bitrate=60, cpu_used=5, auto_alt_ref=6)


def members(kind):
    return {name for name in vars(kind) if not name.startswith("_")}


def check(value, hint, size):
    if get_origin(hint) is tuple:
        assert isinstance(value, tuple) and len(value) == len(get_args(hint))
        for part, of_part in zip(value, get_args(hint), strict=True):
            check(part, of_part, size)
    elif get_origin(hint) is np.ndarray:
        assert value.dtype == np.int32 and value.shape in ((size,), (size, 3))
    else:
        assert type(value) is hint


@pytest.mark.parametrize("kind", [Frame, Group])
def test_native_classes_have_the_members_of_the_protocols(video, kind):
    with OPTIONS.open(video) as session:
        assert session.frame is not None
        for _ in range(3):
            native = session.frame if kind is Frame else session.group
            assert members(type(native)) == members(kind)
            size = session.group.size
            for name in members(kind):
                hint = get_type_hints(getattr(kind, name).fget)["return"]
                check(getattr(native, name), hint, size)
                assert inspect.getdoc(getattr(kind, name))  # the documentation is made of it
            session.step(vpxrc.Decision(100))


def test_a_session_has_the_members_of_the_protocol(video):
    assert members(Session) <= members(EncodeSession) | {"video", "options"}
    with OPTIONS.open(video, keep_reconstruction=True) as session:
        assert {name for name in members(Session) if not hasattr(session, name)} == set()
        for name in members(Session) & members(EncodeSession):
            ours, theirs = (getattr(kind, name) for kind in (EncodeSession, Session))
            assert isinstance(ours, property) == isinstance(theirs, property)
            if callable(ours):
                assert [*inspect.signature(ours).parameters] == [
                    *inspect.signature(theirs).parameters
                ]


def test_the_update_types_are_libvpxs(video):
    """FRAME_UPDATE_TYPE of libvpx's vp9_firstpass.h."""
    names = ["KEY", "LEAF", "GOLDEN", "ARF", "OVERLAY", "MID_OVERLAY", "SHOWN_AGAIN"]
    assert [kind.name for kind in UpdateType] == names
    assert list(UpdateType) == [0, 1, 2, 3, 4, 5, 6]
    log = encode(video, OPTIONS, libvpx_vbr_mlarf())
    kinds = log.records["update_type"]
    again = log.records["is_shown_again"] != 0
    assert again[kinds == UpdateType.SHOWN_AGAIN].all() and again.any()
    assert set(kinds[again]) <= {UpdateType.SHOWN_AGAIN, UpdateType.OVERLAY}
    assert np.array_equal(kinds == UpdateType.KEY, log.records["is_key"] != 0)
    assert not log.records["is_shown"][kinds == UpdateType.ARF].any()


def test_the_step_table_is_that_of_vp9(video):
    with OPTIONS.open(video) as session:
        table = session.log2_step
        assert table.dtype == np.float64 and table.shape == (256,) and not table.flags.writeable
        # ac_qlookup of vp9/common/vp9_quant_common.c: its ends, and one of the middle.
        assert np.exp2(table[[0, 1, 128, 255]]).round().tolist() == [4, 8, 176, 1828]
    assert vpxrc.nearest_q(table[77]) == 77
    assert vpxrc.nearest_q(-5.0) == 1  # 0 would be lossless
    assert vpxrc.nearest_q(3.1, np.arange(256.0)) == 3


def test_a_log_travels_without_its_frames(video):
    log = encode(video, OPTIONS, ConstantQ(100))
    there = pickle.loads(pickle.dumps(log))
    assert there == log and there.clip == video.format
    assert there.psnr == log.psnr and there.stream == log.stream
    assert len(log.coded) and len(log.shown) and log.stream  # cached from here on
    assert len(pickle.dumps(log)) == len(pickle.dumps(there)) < video.frames.nbytes / 2


def test_a_clips_format_says_what_the_clip_does(video):
    form = video.format
    assert (form.name, form.width, form.height, form.fps) == ("made", 64, 48, Fraction(30))
    for name in ("num_frames", "frame_bytes", "duration", "content_hash"):
        assert getattr(form, name) == getattr(video, name)
    assert form.pixels == 64 * 48


def test_the_rows_of_a_log(video):
    log = encode(video, OPTIONS, libvpx_vbr_mlarf())
    again, shown = (log.records[name] != 0 for name in ("is_shown_again", "is_shown"))
    for rows, ours, mask in (
        (log.coded, coded_rows(log.records), ~again),
        (log.shown, shown_rows(log.records), shown),
    ):
        np.testing.assert_array_equal(rows, log.records[mask])
        np.testing.assert_array_equal(ours, log.records[mask])
    assert len(log.shown) == video.num_frames
    with pytest.raises(ValueError, match="read-only"):
        log.coded["bits"] = 0
    log.records["bits"][0] += 0  # those are the caller's own
    assert log.psnr == float(psnr(log.shown["sse_y"] / (64 * 48)).mean())


def test_a_stream_decodes_to_what_the_log_says(video):
    log = encode(video, OPTIONS, ConstantQ(100))
    assert log.fourcc == "VP90" == log.stream[8:12].decode()
    frames = log.options.decode(log.stream, log.clip)
    assert frames.shape == video.frames.shape
    error = frames[:, : 64 * 48].astype(np.int64) - video.frames[:, : 64 * 48]
    in_order = np.argsort(log.shown["show_index"])
    assert (error**2).sum(axis=1).tolist() == log.shown["sse_y"][in_order].tolist()


def test_options_for_a_clip(video):
    # 0.06 bits per pixel: 64 x 48 x 30 x 0.06 / 1000
    assert EncoderOptions.for_clip(video, cpu_used=7) == EncoderOptions(6, cpu_used=7)
    assert EncoderOptions.for_clip(video, 90) == EncoderOptions(90)
    with pytest.raises(InputError, match="target_bitrate"):
        EncoderOptions.for_clip(video, 0)
    asked = EncoderOptions(90, cpu_used=7, rate_control="q", auto_alt_ref=1, tpl=False)
    controlled = dataclasses.replace(asked, rate_control="vbr", auto_alt_ref=6)
    assert asked.for_control() == controlled


def test_first_pass_statistics_are_forgotten_in_order():
    memory = FirstPassMemory(10)
    assert memory.get("a") is None
    memory.put("a", b"1234")
    memory.put("b", b"1234")
    assert memory.get("a") == b"1234"  # asked for: "b" is older now
    memory.put("c", b"1234")
    assert [memory.get(key) for key in "abc"] == [b"1234", None, b"1234"]
    memory.put("large", bytes(100))
    assert memory.get("large") == bytes(100)
    assert memory.get("a") is memory.get("c") is None
    memory.put("a", b"1")
    assert memory.get("large") is None and memory.get("a") == b"1"


def test_forgotten_statistics_are_found_again(video, monkeypatch):
    before = first_pass_stats(video, OPTIONS)
    monkeypatch.setattr("vpxrc.encoder.first_pass._first_pass_memory", FirstPassMemory(0))
    assert first_pass_stats(video, OPTIONS) == before
