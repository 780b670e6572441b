"""Encodes by the encoder's own rate control that rewards compare with, made once and cached."""

import dataclasses
import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache, cached_property
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from vpxrc import _native
from vpxrc.cache import read_entry, write_entry
from vpxrc.encoder.log import EncodeLog, frame_psnr, shown_rows
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.types import RECORD_DTYPE, Decision, Frame
from vpxrc.media.frames import ClipFormat, Video
from vpxrc.policies.base import Policy, encode
from vpxrc.policies.region import WeightedRegion
from vpxrc.policies.registry import make_policy
from vpxrc.quality import weighted_error
from vpxrc.storage import cache_dir, digest

_FORMAT = 1  # of the cached files, and of what is in them
_TYPICAL_SLOPE = 3.0  # dB per doubling of the bits
_SLOPES = (3.0, 10.0)  # dB per doubling; beyond, it is noise
_CLOSE = 0.1  # doublings between two encodes, below which their slope is noise
_KEPT = 256  # encodes that a process keeps in memory
_memory: OrderedDict[str, "ReferenceEncode"] = OrderedDict()


@dataclass(frozen=True, eq=False)
class ReferenceEncode:
    """The facts of an encode that others are compared with.

    Attributes:
        clip: The clip.
        target_bitrate: Target in kbit/s.
        records: The rows of its log, dtype ``RECORD_DTYPE``.
        bits: Bits of the stream: of all rows, and of what ties frames to packets.
    """

    clip: ClipFormat
    target_bitrate: int
    records: NDArray[np.void]
    bits: int

    @classmethod
    def of(cls, log: EncodeLog) -> "ReferenceEncode":
        """Return the facts of an encode."""
        return cls(log.clip, log.options.target_bitrate, log.records, log.bits)

    @cached_property
    def psnr(self) -> NDArray[np.float64]:
        """Luma PSNR in dB of each shown frame, by show index, float64 ``[num_frames]``."""
        shown = shown_rows(self.records)
        quality = np.zeros(self.clip.num_frames)
        quality[shown["show_index"]] = frame_psnr(self.clip, shown)
        return quality

    @cached_property
    def spread(self) -> NDArray[np.float64]:
        """Bits by show index, float64 ``[num_frames]``.

        The bits of each golden-frame group are spread evenly over the frames that are shown in it.
        """
        spread = np.zeros(self.clip.num_frames)
        groups = shown_groups(self.records)
        for group in np.unique(groups):
            rows = self.records[groups == group]
            inside = shown_rows(rows)["show_index"]
            spread[inside] = rows["bits"].sum() / max(len(inside), 1)
        return spread


class _OwnChoice(Policy):
    """Takes the q index that the encoder would take: for encoders that cannot be observed."""

    def decide(self, frame: Frame) -> Decision:
        """Return the encoder's own q index."""
        return Decision(frame.libvpx_q_index)


@cache
def reference_options(options: EncoderOptions) -> EncoderOptions:
    """Return the options of the reference encode, whatever mode a policy has asked for."""
    return make_policy("libvpx-vbr").options(options)


def anchors(video: Video, target_bitrate: int) -> tuple[int, int]:
    """Return two neighbouring powers of 2, in kbit/s, of which the first is not above a target.

    Any range of targets has few of them, so few encodes are needed. Above one bit per pixel, where
    libvpx soon has nothing left to spend bits on, they stay the same.
    """
    highest = max(round(video.width * video.height * float(video.fps) / 1000), 1)
    low = 1 << (min(target_bitrate, highest).bit_length() - 1)
    return low, 2 * low


def weighted_hash(content_hash: str, region: WeightedRegion | None) -> str:
    """Return what names a clip where errors in a region count more; its own without a region."""
    return content_hash if region is None else digest([content_hash, region.key])


def weighted_log(log: EncodeLog, video: Video, region: WeightedRegion) -> EncodeLog:
    """Return a log whose luma errors are weighted by a region.

    The weight of a pixel is R inside the region and 1 outside. An error of a shown frame becomes
    the number of its pixels times the weighted mean of the squared errors, rounded. The clip has
    another hash, so that no table takes it for the clip without a region.

    Args:
        log: The encode.
        video: The clip.
        region: The region.

    Raises:
        EncoderError: The stream cannot be decoded.
    """
    decoded = log.options.decode(log.stream, log.clip)
    errors = weighted_error(decoded, video, region.weights(video))
    records = log.records.copy()
    is_shown = records["is_shown"] != 0
    shown = records["show_index"][is_shown]
    records["sse_y"][is_shown] = np.rint(errors[shown] * log.clip.pixels)
    name = weighted_hash(log.clip.content_hash, region)
    clip = dataclasses.replace(log.clip, content_hash=name)
    return dataclasses.replace(log, records=records, clip=clip)


def reference_encode(
    video: Video, options: EncoderOptions, region: WeightedRegion | None = None
) -> ReferenceEncode:
    """Encode a clip by libvpx's two-pass VBR, unless that is in memory or in the cache.

    A learned codec is encoded at the q index that its rate model chooses.

    Args:
        video: The clip.
        options: The target and everything else.
        region: A region that the encode prefers, and whose errors count more; None: none.

    Raises:
        EncoderError: An encode failed.
        OutputError: The cache cannot be written.
    """
    options = reference_options(options)
    name = weighted_hash(video.content_hash, region)
    clip = dataclasses.replace(video.format, content_hash=name)
    key = digest([_FORMAT, _native.LIBVPX_VERSION, name, dataclasses.asdict(options)])
    if key in _memory:
        _memory.move_to_end(key)
        return dataclasses.replace(_memory[key], clip=clip)
    path = cache_dir() / "references" / f"{key}.npz"
    found = _read(read_entry(path), clip, options)
    if found is None:
        own = options.encoder == "vp9"
        policy = make_policy("libvpx-vbr") if own else _OwnChoice()
        if region is None:
            log = encode(video, options, policy)
        else:
            log = weighted_log(encode(video, options, region.around(policy, video)), video, region)
        found = ReferenceEncode.of(log)
        with write_entry(path) as (temporary, _), open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, records=found.records, bits=found.bits)
    _memory[key] = found
    if len(_memory) > _KEPT:
        _memory.popitem(last=False)
    return found


def reference_pair(
    video: Video, options: EncoderOptions, region: WeightedRegion | None = None
) -> tuple[ReferenceEncode, ReferenceEncode]:
    """Return the encodes at both :func:`anchors` of a target; see :func:`reference_encode`."""
    low, high = (
        reference_encode(video, dataclasses.replace(options, target_bitrate=target), region)
        for target in anchors(video, options.target_bitrate)
    )
    return low, high


def curve_slope(low: ReferenceEncode, high: ReferenceEncode) -> float:
    """Return the slope of the line through two encodes in dB per doubling of the bits, 3 to 10.

    Where both have about the same bits it is 3, a usual one.
    """
    distance = math.log2(high.bits / low.bits)
    if distance < _CLOSE:
        return _TYPICAL_SLOPE
    rise = float(high.psnr.mean() - low.psnr.mean())
    return min(max(rise / distance, _SLOPES[0]), _SLOPES[1])


def psnr_above(clip: ClipFormat, rows: NDArray[np.void], other: NDArray[np.float64]) -> float:
    """Return by how much frames raise their clip's mean luma PSNR over another's, in dB.

    Args:
        clip: The clip.
        rows: Rows of a log, dtype ``RECORD_DTYPE``; those that are not shown do not count.
        other: The other's luma PSNR in dB by show index, float64 ``[num_frames]``.
    """
    # No selection of whole rows: it takes most of a step's time.
    is_shown = rows["is_shown"] != 0
    better = frame_psnr(clip, rows)[is_shown] - other[rows["show_index"][is_shown]]
    return float(better.sum()) / clip.num_frames


def shown_groups(rows: NDArray[np.void]) -> NDArray[np.int64]:
    """Return each row's group; a frame shown again is in the one whose ARF it shows.

    So a group's rows come from its own decisions: the frame shown again is at position 0 of the
    next group, before that group's first decision.
    """
    coded = rows["is_shown_again"] == 0
    last_coded = np.maximum.accumulate(np.where(coded, np.arange(len(rows)), 0))
    return np.asarray(rows["group_index"][last_coded], np.int64)


def _read(data: bytes | None, clip: ClipFormat, options: EncoderOptions) -> ReferenceEncode | None:
    """Return the encode of a cached file; None where there is none, or another version's."""
    if data is None:
        return None
    try:
        with np.load(BytesIO(data), allow_pickle=False) as arrays:
            records, bits = arrays["records"], int(arrays["bits"])
    except (ValueError, KeyError):
        return None
    if records.dtype != RECORD_DTYPE:
        return None
    return ReferenceEncode(clip, options.target_bitrate, records, bits)
