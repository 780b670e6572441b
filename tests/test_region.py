"""Regions of interest: exact streams, segments as ffmpeg reads them, quality by ffmpeg's frames."""

import dataclasses
import io
import json
import struct
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import pandas as pd
import pytest
from conftest import make_video
from PIL import Image
from typer.testing import CliRunner

from vpxrc import (
    Decision,
    EncoderOptions,
    EncodeSession,
    InputError,
    Policy,
    PolicyError,
    Region,
    RegionOfInterest,
    cli,
    encode,
    make_policy,
    video_from_frames,
)
from vpxrc.agents.teacher.trajectory import Follow, Record, Trajectory
from vpxrc.datasets import load_clips
from vpxrc.media.decoding import decode_vp9
from vpxrc.media.frames import write_y4m
from vpxrc.media.masks import RegionSpec
from vpxrc.policies import ConstantQ, LibvpxVbr, Replay
from vpxrc.policies.region import WeightedRegion
from vpxrc.quality import weighted_psnr
from vpxrc.transcoding import ChunkedEncode
from vpxrc.transcoding.regions import RegionEncode

WIDTH, HEIGHT = 150, 100  # neither is a multiple of 8
OPTIONS = EncoderOptions(target_bitrate=150, cpu_used=4, auto_alt_ref=6)


@pytest.fixture(scope="module")
def clip():
    return make_video(WIDTH, HEIGHT, 24)


@pytest.fixture(scope="module")
def mask():
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[30:70, 41:100] = True
    return mask


def cells(mask):
    """The 8x8 blocks that the region reaches, by a loop over its pixels."""
    found = np.zeros((13, 19), np.bool_)
    for y, x in np.argwhere(mask):
        found[y // 8, x // 8] = True
    return found


class Regions(Policy):
    """A q index, and regions that may change from frame to frame."""

    def __init__(self, q_index, *regions):
        self.q_index, self.regions = q_index, regions

    def decide(self, frame):
        region = self.regions[frame.coding_index % len(self.regions)]
        return Decision(self.q_index, region=region)


def decoded(log):
    """The luma of the frames that ffmpeg shows, float ``[num_frames, height, width]``."""
    frames = log.options.decode(log.stream, log.clip)[:, : log.clip.pixels]
    return frames.astype(float).reshape(-1, log.clip.height, log.clip.width)


def errors(log, video):
    """Squared errors of ffmpeg's frames, which are the log's: the encoder saw what ffmpeg does."""
    frames = video.frames[:, : log.clip.pixels].reshape(-1, log.clip.height, log.clip.width)
    squares = (decoded(log) - frames) ** 2
    shown = np.sort(log.shown, order="show_index")
    np.testing.assert_array_equal(squares.sum(axis=(1, 2)), shown["sse_y"])
    return squares


def psnr(squares, mask):
    return np.mean(10 * np.log10(255**2 / squares[:, mask].mean(axis=1)))


def q_offsets(stream) -> Iterator[dict[tuple[int, int], int] | None]:
    """Per shown frame the offset on q of every 8x8 block, as ffmpeg's decoder has it; None without.

    libavutil/video_enc_params.h has the structs.
    """
    with av.open(io.BytesIO(stream), "r") as file:
        video = file.streams.video[0]
        video.codec_context.options = {"export_side_data": "venc_params"}
        for frame in file.decode(video):
            data: Any = frame.side_data.get("VIDEO_ENC_PARAMS")
            raw = bytes(data)
            number, offset, size = struct.unpack_from("=I4xQQ", raw)
            found = {}
            for place in range(number):
                x, y, width, height, delta = struct.unpack_from("=5i", raw, offset + size * place)
                for row in range(y // 8, (y + height) // 8):
                    for column in range(x // 8, (x + width) // 8):
                        found[row, column] = delta
            yield found or None


# What the encoder does with a region


@pytest.mark.parametrize("deep", [False, True], ids=["8 bits", "10 bits"])
@pytest.mark.parametrize(
    ("cpu_used", "tpl", "threads"), [(1, True, 1), (4, False, 1), (4, True, 4), (8, True, 1)]
)
def test_ffmpeg_decodes_what_the_encoder_has(clip, mask, deep, cpu_used, tpl, threads):
    video = clip
    if deep:
        frames = clip.frames.astype(np.uint16) * 4 + 1
        video = video_from_frames(frames, WIDTH, HEIGHT, 30)
    options = dataclasses.replace(OPTIONS, cpu_used=cpu_used, tpl=tpl, threads=threads)
    for kinds in ({}, {"moves_q": True}, {"moves_q": True, "scales_lambda": False}):
        policy = RegionOfInterest(ConstantQ(110), mask, 8, **kinds)
        log = encode(video, options, policy)
        errors(log, video)
        assert encode(video, options, policy).stream == log.stream


def test_threads_do_not_change_the_stream(mask):
    video = make_video(560, 80, 10)  # wide enough for two columns of tiles
    here = np.zeros((80, 560), np.bool_)
    here[16:60, 200:400] = True
    streams = {
        encode(
            video,
            dataclasses.replace(OPTIONS, threads=threads),
            RegionOfInterest(ConstantQ(110), here, moves_q=True),
        ).stream
        for threads in (1, 4)
    }
    assert len(streams) == 1


def test_segments_are_in_the_stream(clip, mask):
    policy = RegionOfInterest(ConstantQ(120), mask, 16, moves_q=True)
    log = encode(clip, OPTIONS, policy)
    here = cells(mask)
    inside, outside = -round(2 * (1 - here.mean()) / 0.02324), round(2 * here.mean() / 0.02324)
    # A block of up to 64x64 that the region reaches belongs to it as a whole.
    reached = np.zeros_like(here)
    for row, column in np.argwhere(here):
        reached[row // 8 * 8 :, column // 8 * 8 :][:8, :8] = True
    assert not reached.all()
    frames = list(q_offsets(log.stream))
    keys = [row["show_index"] for row in log.shown if row["is_key"]]
    assert len(frames) == 24 and len(keys) == 2
    for show_index in keys:  # ffmpeg gives the map of those frames that send it
        frame = frames[show_index]
        assert set(frame.values()) == {inside, outside}
        assert all(frame[row, column] == inside for row, column in np.argwhere(here))
        assert all(frame[row, column] == outside for row, column in np.argwhere(~reached))
    # It is kept for the others, so that a map that is sent with every frame takes more bits.
    first = Record(policy)
    encode(clip, OPTIONS, first)
    region = first.decisions[0].region
    assert region is not None and region.segment_map is not None
    moving = region.segment_map.copy()
    moving[-1, -1] = 0
    sent = encode(
        clip, OPTIONS, Regions(120, region, dataclasses.replace(region, segment_map=moving))
    )
    errors(log, clip)
    assert 0 < sent.bits - log.bits < 200 * len(log.coded)


def test_segments_come_and_go(clip, mask):
    """Maps and offsets change from frame to frame, are sent when they do, and are gone without."""
    here = cells(mask).astype(np.uint8)
    one = Region(segment_map=here, segment_q_offset=(20, -30))
    other = Region(segment_map=here[::-1].copy(), segment_q_offset=(20, -30))
    third = Region(segment_map=here * 7, segment_q_offset=(-10,) * 7 + (-50,))
    lambdas = Region(block_scale=np.linspace(0.5, 2, 70, dtype=np.float32).reshape(7, 10))
    both = dataclasses.replace(one, block_scale=lambdas.block_scale)
    regions = (one, other, None, third, lambdas, both, None)
    expected = ({20, -30}, {20, -30}, {None}, {-10, -50}, {None}, {20, -30}, {None})
    log = encode(clip, OPTIONS, Regions(110, *regions))
    errors(log, clip)
    frames, met = list(q_offsets(log.stream)), set()
    for row in log.shown[log.shown["is_shown_again"] == 0]:
        frame = frames[row["show_index"]]
        found = {None} if frame is None else set(frame.values())
        kind = row["coding_index"] % len(regions)
        assert found <= expected[kind]
        met.add(kind)
    assert len(met) >= 5
    # A lossless frame has no segments.
    lossless = encode(clip, OPTIONS, Regions(0, one))
    assert (lossless.coded["q_index"] == 0).all()
    assert set(q_offsets(lossless.stream)) == {None}
    errors(lossless, clip)


def test_without_a_region_nothing_changes(clip):
    plain = encode(clip, OPTIONS, ConstantQ(110))
    assert encode(clip, OPTIONS, Regions(110, Region())).stream == plain.stream
    assert set(q_offsets(plain.stream)) == {None}


@pytest.fixture(scope="module")
def carphone():
    """A man's face in the middle of the picture, and the mask of it."""
    video = dataclasses.replace(load_clips("samples")[0], num_frames=60).open()
    mask = np.zeros((video.height, video.width), np.bool_)
    mask[32:112, 48:128] = True
    return video, mask


@pytest.mark.parametrize("policy", ["libvpx-vbr-mlarf", "constant-quality", "dependency"])
def test_the_region_gets_better_at_the_same_bitrate(carphone, policy):
    video, mask = carphone
    options = EncoderOptions(target_bitrate=80, cpu_used=4)
    plain = encode(video, options, make_policy(policy))
    before = errors(plain, video)
    last = 0.0
    for moves_q in (False, True):
        log = encode(video, options, RegionOfInterest(make_policy(policy), mask, moves_q=moves_q))
        after = errors(log, video)
        gain = psnr(after, mask) - psnr(before, mask)
        assert gain > last + 0.1
        last = gain
        assert psnr(after, ~mask) < psnr(before, ~mask)
        if policy.startswith("libvpx") and moves_q:
            continue  # libvpx knows nothing of the segments' q, and two seconds are short
        assert log.bits == pytest.approx(plain.bits, rel=0.04)


def test_a_frame_left_to_libvpx_is_coded_as_often_as_before(clip, mask):
    """libvpx codes a frame again where it misses its target; a region does not stop that."""
    options = dataclasses.replace(OPTIONS, cpu_used=1)
    log = encode(clip, options, RegionOfInterest(LibvpxVbr(6), mask))
    assert (log.coded["q_index"] != log.coded["libvpx_q_index"]).any()
    observed = encode(clip, options, LibvpxVbr(6))
    assert log.bits == pytest.approx(observed.bits, rel=0.1)


@pytest.mark.parametrize(
    ("region", "words"),
    [
        (Region(block_scale=np.ones((2, 2), np.float32)), "block map of 4 values, .* 70 blocks of"),
        (Region(block_scale=np.zeros((7, 10), np.float32)), r"block_scale must be in \(0, 64\]"),
        (Region(block_scale=np.ones((0, 0), np.float32)), r"block_scale must be in \(0, 64\]"),
        (
            Region(segment_map=np.zeros((1, 3), np.uint8), segment_q_offset=(0,)),
            "segment map of 3 values, the frame has 247 blocks of 8x8",
        ),
        (Region(segment_map=np.ones((13, 19), np.uint8), segment_q_offset=(0,)), "segment_map"),
        (Region(segment_map=np.full((13, 19), 0.5)), "segment_map cannot be"),
        (Region(segment_q_offset=(0,) * 9), "at most 8 offsets"),
        (Region(segment_q_offset=(256,)), "offsets in -255..255"),
    ],
)
def test_a_region_that_does_not_fit(clip, region, words):
    with pytest.raises(Exception, match=words) as raised:
        encode(clip, OPTIONS, Regions(110, region))
    assert type(raised.value).__name__ in ("PolicyError", "EncoderError")


def test_a_refused_region_leaves_the_session_waiting(clip):
    with EncodeSession(clip, OPTIONS) as session:
        with pytest.raises(PolicyError, match="segment_q_offset"):
            session.step(Decision(100, region=Region(segment_q_offset=(999,))))
        assert session.frame is not None and session.frame.coding_index == 0
        session.step(Decision(100, region=Region()))


# The policy


def shown_region(video, policy):
    """The region of the first decision."""
    record = Record(policy)
    encode(video, dataclasses.replace(OPTIONS, cpu_used=8), record)
    return record.decisions[0].region


def test_factors_and_offsets_by_hand(clip, mask):
    here = cells(mask)
    share = here.sum() / here.size
    region = shown_region(clip, RegionOfInterest(ConstantQ(110), mask, 9, moves_q=True))
    log2_scale = np.log2(region.block_scale)
    assert region.block_scale.shape == (7, 10)
    # Whole blocks inside and outside differ by the weight, and mixed ones lie between.
    assert log2_scale[3, 4] == pytest.approx(-(1 - share) * np.log2(9), abs=1e-5)
    assert log2_scale[0, 0] == pytest.approx(share * np.log2(9), abs=1e-5)
    inside = here[2:4, 4:6].mean()
    assert 0 < inside < 1
    assert log2_scale[1, 2] == pytest.approx((share - inside) * np.log2(9), abs=1e-5)
    # The geometric mean over the cells is 1.
    assert np.repeat(np.repeat(log2_scale, 2, 0), 2, 1)[:13, :19].mean() == pytest.approx(
        0, abs=1e-4
    )
    np.testing.assert_array_equal(region.segment_map == 0, here)
    # The steps differ by the square root of the weight: by a factor of 3, as the AC table has it.
    low, high = region.segment_q_offset
    with EncodeSession(clip, OPTIONS) as session:
        table = session.log2_step
    for base in (90, 130, 170):
        ratio = table[base + high] - table[base + low]
        assert ratio == pytest.approx(np.log2(3), rel=0.25)
    assert low * share + high * (1 - share) == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight": 1}, "above 1 and at most 64, not 1"),
        ({"weight": 64.1}, "not 64.1"),
        ({"weight": float("nan")}, "not nan"),
        ({"scales_lambda": False}, "lambda, the q index or both"),
        ({"mask": np.zeros((HEIGHT, WIDTH), np.bool_)}, "is empty"),
        ({"mask": np.ones((HEIGHT, WIDTH), np.bool_)}, "is the whole picture"),
        ({"mask": np.ones(3, np.bool_)}, "two dimensions, not 1"),
        ({"mask": np.eye(64, dtype=np.bool_)}, "a mask of 64x64 for a video of 150x100"),
    ],
)
def test_what_is_no_region(clip, mask, change, words):
    with pytest.raises(InputError, match=words):
        encode(clip, OPTIONS, RegionOfInterest(ConstantQ(), **{"mask": mask, **change}))


def test_replays_are_exact(clip, mask, tmp_path):
    policy = RegionOfInterest(make_policy("layered"), mask, moves_q=True)
    log = encode(clip, OPTIONS, record := Record(policy))
    # Of the log, with the region around it.
    again = encode(clip, OPTIONS, RegionOfInterest(Replay(log), mask, moves_q=True))
    assert again.stream == log.stream
    assert encode(clip, OPTIONS, Replay(log)).stream != log.stream
    # Of the decisions, which hold the region, kept in a file.
    trajectory = Trajectory.of(log, record.decisions)
    trajectory.to_pandas().to_parquet(tmp_path / "table.parquet")
    kept = Trajectory.from_pandas(pd.read_parquet(tmp_path / "table.parquet"))
    assert kept.content_hash == trajectory.content_hash
    assert encode(clip, OPTIONS, Follow(kept)).stream == log.stream
    bare = dataclasses.replace(trajectory, region=())
    assert "block_scale" not in bare.to_pandas() and bare.content_hash != kept.content_hash
    assert encode(clip, OPTIONS, Follow(bare)).stream != log.stream


@pytest.mark.parametrize(
    ("column", "value"), [("block_scale", float("nan")), ("segment_map", float("inf"))]
)
def test_a_table_with_a_wrong_map(clip, mask, column, value):
    policy = RegionOfInterest(ConstantQ(110), mask, moves_q=True)
    log = encode(clip, OPTIONS, record := Record(policy))
    table = Trajectory.of(log, record.decisions).to_pandas()
    table.loc[2, column][0] = value
    with pytest.raises(InputError, match="maps are finite"):
        Trajectory.from_pandas(table)


# The command


@pytest.fixture(scope="module")
def source(tmp_path_factory, clip):
    path = tmp_path_factory.mktemp("region") / "clip.y4m"
    write_y4m(clip, path)
    return path


def picture(path, pixels, mode=None):
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def command(*arguments, code=0):
    quick = ("--policy", "layered", "--cpu-used", 8, "-b", 150, "--jobs", 1)
    result = CliRunner().invoke(cli.app, ["encode", *map(str, (*quick, *arguments))])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize(
    ("kind", "options", "settings"),
    [
        ("box", (), {}),
        ("mask", (), {}),
        ("large grey mask", ("--roi-weight", 9), {"weight": 9}),
        ("16-bit mask", ("--roi-segments",), {"moves_q": True}),
        ("boxes", ("--roi-segments",), {"moves_q": True}),
    ],
)
def test_the_command_encodes_as_the_policy_does(
    clip, mask, source, tmp_path, kind, options, settings
):
    white = (mask * 255).astype(np.uint8)
    roi = {
        "box": lambda: ["box:41,30,59,40"],
        "boxes": lambda: ["box:41,30,30,40", "box:60,30,40,40"],
        "mask": lambda: [picture(tmp_path / "mask.png", white, "1")],
        "large grey mask": lambda: [
            picture(tmp_path / "mask.jpg", np.repeat(np.repeat(white, 3, 0), 3, 1) // 2 + 64, "RGB")
        ],
        "16-bit mask": lambda: [picture(tmp_path / "mask.png", white.astype(np.uint16) * 257)],
    }[kind]()
    output = tmp_path / "out.ivf"
    parts = [part for one in roi for part in ("--roi", one)]
    command(source, "-o", output, *parts, *options)
    policy = RegionOfInterest(make_policy("layered"), mask, **settings)
    expected = encode(clip, EncoderOptions(150, cpu_used=8), policy)
    assert output.read_bytes() == expected.stream
    assert expected.stream != encode(clip, expected.options, make_policy("layered")).stream


def test_in_chunks_and_as_a_sample(source, tmp_path):
    roi = ("--roi", "box:41,30,59,40")
    output = tmp_path / "out.webm"
    command(source, "-o", output, *roi, "--roi-segments", "--chunk", 0.5)
    decoded = decode_vp9(output, WIDTH, HEIGHT, 8)
    assert len(decoded) == 24
    result = command(source, *roi, "--sample", "--json")
    assert json.loads(result.stdout)["bitrate"] > 0
    beyond = ("--roi", "box:100,20,60,20", "--chunk", 0.5, "--jobs", 2)
    result = command(source, "-o", tmp_path / "beyond.webm", *beyond, code=2)
    assert "reaches beyond the picture" in result.stderr and result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--roi", "box:1,2,3"), "a box is box:X,Y,W,H in whole pixels, not 'box:1,2,3'"),
        (("--roi", "box:1,2,3,x"), "not 'box:1,2,3,x'"),
        (("--roi", "box:-1,2,3,4"), "X and Y are at least 0"),
        (("--roi", "box:1,2,0,4"), "W and H at least 1"),
        (("--roi", "box:100,20,60,20"), "reaches beyond the picture, which has 150x100"),
        (("--roi", "box:0,0,150,100"), "is the whole picture"),
        (("--roi", "box:0,0,150,60", "--roi", "box:0,60,150,40"), "is the whole picture"),
        (("--roi", "box:0,0,145,97"), "is the whole picture"),  # of 8x8 blocks
        (("--roi", "none.png"), "none.png: no such file"),
        (("--roi", "text.png"), "text.png: not a picture that can be read"),
        (("--roi", "cut.png"), "cut.png: not a picture that can be read"),
        (("--roi", "clip.bin"), "clip.bin: not a picture that can be read, nor a video"),
        (("--roi", "."), "clip.bin: not a picture that can be read"),
        (("--roi", "empty"), "empty: no picture in it"),
        (("--roi", "sizes"), "2.png: a mask of 90x90 after masks of 150x100"),
        (("--roi", "deep"), "inside: a folder of masks has pictures only"),
        (("--roi", "dark"), "dark: none of its masks has both white and black"),
        (("--roi", "squares"), "squares: a mask of 90x90 does not have the shape"),
        (("--roi", "long.gif"), "25 masks for a video of 24 frames"),
        (("--roi", "long.gif", "--sample"), "25 masks for a video of 24 frames"),
        (("--roi", "cut.gif"), "cut.gif: not a picture that can be read"),
        (("--roi", "black.png"), "nothing in it is white"),
        (("--roi", "white.png"), "all of it is white"),
        (("--roi", "square.png"), "a mask of 90x90 does not have the shape of the picture"),
        (("--roi", "dot.png"), "nothing is left of the region at 150x100"),
        (("--roi", ""), "a region of interest is box:X,Y,W,H or a path, not ''"),
        (("--roi", "box:8,8,8,8", "--roi-weight", 1), "above 1 and at most 64, not 1"),
        (("--roi", "box:8,8,8,8", "--roi-weight", 65), "not 65"),
        (("--roi", "box:8,8,8,8", "--roi-weight", "nan"), "not nan"),
        (("--roi-weight", 2), "go with --roi"),
        (("--roi-segments",), "go with --roi"),
        (("--roi", "box:8,8,8,8", "--effort", 20), "does not go with --roi"),
    ],
)
def test_what_the_command_refuses(source, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    pixels = np.zeros((100, 150), np.uint8)
    picture(tmp_path / "black.png", pixels)
    picture(tmp_path / "white.png", pixels + 255)
    pixels[20:60, 20:60] = 255
    picture(tmp_path / "square.png", pixels[:90, :90])
    noise = np.random.default_rng(1).integers(0, 256, (100, 150), dtype=np.uint8)
    whole = picture(tmp_path / "cut.png", noise)
    whole.write_bytes(whole.read_bytes()[:900])
    dot = np.zeros((1000, 1500), np.uint8)
    dot[500, 500] = 255
    picture(tmp_path / "dot.png", dot)
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "clip.bin").write_bytes(source.read_bytes()[:40])
    for folder, names in {
        "empty": [".hidden"],
        "sizes": ["10.png", "1.png", "2.png"],
        "deep": ["1.png"],
        "dark": ["1.png", "2.png"],
        "squares": ["1.png"],
    }.items():
        (tmp_path / folder).mkdir()
        for name in names:
            is_square = (folder, name) in (("sizes", "2.png"), ("squares", "1.png"))
            shown = pixels[:90, :90] if is_square else pixels * (folder != "dark")
            Image.fromarray(shown).save(tmp_path / folder / name, "PNG")
    (tmp_path / "deep" / "inside").mkdir()
    frames = [Image.fromarray(np.roll(pixels, index, axis=1)) for index in range(25)]
    frames[0].save(tmp_path / "long.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "cut.gif").write_bytes((tmp_path / "long.gif").read_bytes()[:1500])
    before = sorted(tmp_path.iterdir())
    result = command(source, "-o", "out.webm", *arguments, code=2)
    (line,) = result.stderr.splitlines()
    assert words in line
    assert sorted(tmp_path.iterdir()) == before


# A mask for each frame


@pytest.fixture(scope="module")
def moving(mask):
    """A region that moves for 20 of 24 frames, and is not there in one."""
    masks = np.stack([np.roll(mask, 2 * index, axis=1) for index in range(20)])
    masks[5] = False
    return masks


def kept(moving):
    return moving[np.minimum(np.arange(24), 19)]


def test_each_frame_has_its_mask(clip, moving):
    masks = kept(moving)
    policy = RegionOfInterest(ConstantQ(120), masks.__getitem__, 16, moves_q=True)
    log = encode(clip, OPTIONS, record := Record(policy))
    errors(log, clip)
    for decision, row in zip(record.decisions, log.coded, strict=True):
        if row["show_index"] == 5:
            assert decision.region is None
        else:
            assert decision.region is not None
            np.testing.assert_array_equal(
                decision.region.segment_map == 0, cells(masks[row["show_index"]])
            )
    # ffmpeg gives the map of each frame that sends it: here each that is coded and has a region.
    frames, offset = list(q_offsets(log.stream)), -round(2 * (1 - cells(masks[0]).mean()) / 0.02324)
    assert frames[0] is not None
    assert {frames[0][row, column] for row, column in np.argwhere(cells(masks[0]))} == {offset}
    with pytest.raises(InputError, match="a mask of 100x150 for a video of 150x100"):
        encode(clip, OPTIONS, RegionOfInterest(ConstantQ(), lambda index: masks[index].T))


@pytest.mark.parametrize("kind", ["folder", "gif", "png", "webm"])
def test_masks_in_files(clip, source, moving, tmp_path, kind):
    pictures = [Image.fromarray(one).convert("L") for one in moving]
    path = tmp_path / f"masks.{kind}"
    if kind == "folder":
        path.mkdir()
        for index, one in enumerate(pictures):
            one.save(path / f"mask-{index}.png")
    elif kind == "webm":
        frames = np.full((20, WIDTH * HEIGHT * 3 // 2), 128, np.uint8)
        frames[:, : WIDTH * HEIGHT] = np.where(moving, 235, 16).reshape(20, -1)
        options = EncoderOptions(target_bitrate=4000, cpu_used=8)
        video = video_from_frames(frames, WIDTH, HEIGHT, 30)
        path = tmp_path / "masks.ivf"
        path.write_bytes(encode(video, options, ConstantQ(0)).stream)
    else:
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40)
    output = tmp_path / "out.ivf"
    command(source, "-o", output, "--roi", path)
    masks = kept(moving)
    policy = RegionOfInterest(make_policy("layered"), masks.__getitem__)
    assert output.read_bytes() == encode(clip, EncoderOptions(150, cpu_used=8), policy).stream


def test_chunks_and_samples_take_their_own_masks(clip, moving):
    spec = RegionSpec.of(moving)
    encode_by = RegionEncode("layered", WeightedRegion(spec))
    options = EncoderOptions(150, cpu_used=8)
    with ChunkedEncode(clip, options, encode_by, [0, 9]) as job:
        job.run()
        chunks = job.chunks
    masks = kept(moving)
    for chunk, first, stop in zip(chunks, (0, 9), (9, 24), strict=True):
        part = video_from_frames(clip.frames[first:stop], WIDTH, HEIGHT, 30)
        policy = RegionOfInterest(make_policy("layered"), masks[first:stop].__getitem__)
        assert chunk.log.stream == encode(part, chunk.options, policy).stream
    # A sample has parts of the clip, and chunks are parts of it.
    sample = encode_by.of_frames([3, 4, 10, 11], clip)
    assert sample.of_frames(range(2, 4), clip).frames == (10, 11)


# The measure


def test_weighted_psnr_by_hand(clip, mask):
    log = encode(clip, OPTIONS, RegionOfInterest(ConstantQ(110), mask))
    decoded = log.options.decode(log.stream, log.clip)
    squares = errors(log, clip)
    inside = weighted_psnr(decoded, clip, mask)
    np.testing.assert_allclose(inside, 10 * np.log10(255**2 / squares[:, mask].mean(axis=1)))
    weights = np.where(mask, 3.0, 0.5)
    expected = [(weights * one).sum() / weights.sum() for one in squares]
    np.testing.assert_allclose(
        weighted_psnr(decoded, clip, weights), 10 * np.log10(255**2 / np.array(expected))
    )
    np.testing.assert_allclose(weighted_psnr(decoded, clip, np.ones(mask.shape)).mean(), log.psnr)
    for wrong in (mask.T, -weights, weights * 0, weights * np.nan):
        with pytest.raises(InputError, match="weights are"):
            weighted_psnr(decoded, clip, wrong)
