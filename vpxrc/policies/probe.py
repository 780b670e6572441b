"""A quick encode of a small picture of the clip: where in time its bits will go."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.quantizer import LOG2_STEP
from vpxrc.media.frames import Video, split_planes, to_8_bits, video_from_frames

_PIXELS = 320 * 180  # of the small picture, at most
_SMALLEST = 32  # least width and height of the small picture
KEY_STEP = 2.4  # how far key frames are coded below the base, log2 step
# Nearly lossless frames may not fit libvpx's buffer for a frame, and lossless ones are coded in
# another way: nothing finer is probed.
_FINEST_BASE, _FINEST_KEY_LEVEL = 4.6, 1
_CPU_USED = 5  # libvpx's fastest speed for files

INTRA_SLOPE = 0.8  # bits of a key frame fall by 2 ** -this when the quantiser step doubles

# vp9_quantizer_to_qindex() of libvpx: q index of its levels 0..63.
_LEVELS = np.r_[np.arange(0, 61) * 4, 244, 249, 255]
LEVEL_LOG2_STEP = LOG2_STEP[_LEVELS]  # log2 of the quantiser step of libvpx's levels, ``[64]``


@dataclass(frozen=True, eq=False)
class Probe:
    """Bits of a small picture of a clip, coded at libvpx's constant quality.

    Attributes:
        base: log2 of the quantiser step of the frames that nothing depends on.
        key_bits: Bits of key frames by display index, float64 ``[num_frames]``: of the clip at its
            own size, ``KEY_STEP`` below the base.
        other_bits: Bits of all other frames by the display index of what they show, float64
            ``[num_frames]``.
        error: Mean squared error of the luma of each shown frame, float64 ``[num_frames]``.
        pixels: Luma samples of a small picture.
        first_pass: First-pass statistics of the small picture, float64 ``[num_frames, 26]``.
    """

    base: float
    key_bits: NDArray[np.float64]
    other_bits: NDArray[np.float64]
    error: NDArray[np.float64]
    pixels: int
    first_pass: NDArray[np.float64]


def small_picture(video: Video) -> Video:
    """Return a clip at a half, a third, ... of its size in 8 bits: means of squares of samples.

    The factor is at least 2, and it is 1 for clips that would become smaller than 32 samples.
    """
    width, height = video.width, video.height
    factor = 2
    while width * height > _PIXELS * factor * factor:
        factor += 1
    while factor > 1 and min(width, height) < _SMALLEST * factor:
        factor -= 1
    if factor == 1:
        return _in_8_bits(video)
    small_width, small_height = (2 * (size // (2 * factor)) for size in (width, height))
    frames = np.empty((video.num_frames, small_width * small_height * 3 // 2), dtype=np.uint8)
    for index in range(video.num_frames):
        planes = split_planes(frames[index], small_width, small_height)
        for target, source in zip(planes, video.planes(index), strict=True):
            target[:] = _means(to_8_bits(source), factor, *target.shape)
    return video_from_frames(
        frames, small_width, small_height, video.fps, name=f"{video.name}, small"
    )


def _in_8_bits(video: Video) -> Video:
    if video.bit_depth == 8:
        return video
    frames = to_8_bits(video.frames)
    return video_from_frames(frames, video.width, video.height, video.fps, f"{video.name}, 8 bits")


def _means(plane: NDArray[np.uint8], factor: int, rows: int, columns: int) -> NDArray[np.uint8]:
    cut = plane[: rows * factor, : columns * factor]
    sums = np.zeros((rows, columns), dtype=np.uint16 if factor <= 16 else np.uint32)
    for row in range(factor):
        for column in range(factor):
            sums += cut[row::factor, column::factor]
    return ((sums + factor * factor // 2) // (factor * factor)).astype(np.uint8)


def probe(video: Video, small: Video, options: EncoderOptions, base: float) -> Probe:
    """Encode a small picture of a clip at constant quality, without a policy.

    Args:
        video: The clip, at its own size.
        small: Its :func:`small_picture`.
        options: The options of the encode that is prepared; its key frames and lookahead are kept.
        base: log2 of the quantiser step to code at. The nearest of libvpx's 64 levels is taken, but
            none that is nearly lossless.

    Raises:
        EncoderError: libvpx failed.
    """
    level = int(np.abs(LEVEL_LOG2_STEP - max(base, _FINEST_BASE)).argmin())
    asked = dataclasses.replace(
        options, rate_control="q", cq_level=level, auto_alt_ref=1, tpl=False, cpu_used=_CPU_USED
    )
    with asked.open(small, observe=True) as session:
        log = session.log()
    records = log.records
    is_key = records["is_key"] != 0
    shown = np.clip(records["show_index"], 0, video.num_frames - 1)
    bits = records["bits"].astype(np.float64)
    pixels = small.width * small.height
    found = float(LEVEL_LOG2_STEP[level])
    key_bits = np.zeros(video.num_frames)
    keys = np.unique(shown[is_key])
    key_bits[keys] = _intra_bits(video, options, keys, found - KEY_STEP)
    return Probe(
        base=found,
        key_bits=key_bits,
        other_bits=np.bincount(shown, bits * ~is_key, video.num_frames).astype(np.float64),
        error=log.shown["sse_y"] / pixels,
        pixels=pixels,
        first_pass=log.first_pass,
    )


def _intra_bits(
    video: Video, options: EncoderOptions, keys: NDArray[np.int64], step: float
) -> NDArray[np.float64]:
    """Return the bits of some frames of a clip as key frames, float64 ``[len(keys)]``."""
    frames = to_8_bits(video.frames[np.append(keys, keys[-1])])  # a clip has two frames at least
    alone = video_from_frames(frames, video.width, video.height, video.fps, f"{video.name}, keys")
    level = max(int(np.abs(LEVEL_LOG2_STEP - step).argmin()), _FINEST_KEY_LEVEL)
    asked = dataclasses.replace(
        options,
        rate_control="q",
        cq_level=level,
        key_frame_max_distance=0,
        auto_alt_ref=0,
        tpl=False,
    )
    with asked.open(alone, observe=True) as session:
        records = session.log().records
    moved = LEVEL_LOG2_STEP[level] - step
    return np.asarray(records["bits"][: len(keys)] * 2.0 ** (INTRA_SLOPE * moved))
