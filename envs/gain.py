"""The reward ``gain``: the bits saved against a reference encode at equal quality."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.log import EncodeLog, shown_rows
from vpxrc.encoder.options import EncoderOptions
from vpxrc.envs.reference import (
    ReferenceEncode,
    anchors,
    curve_slope,
    psnr_above,
    reference_pair,
    weighted_hash,
)
from vpxrc.envs.rewards import EncodeSoFar
from vpxrc.errors import InputError
from vpxrc.media.frames import ClipFormat, Video
from vpxrc.policies.region import WeightedRegion

# Show index, whether it is shown, update type and layer of a frame. An ARF and the frame that shows
# it are two.
_Key = tuple[int, int, int, int]
_KEY_FIELDS = ["show_index", "is_shown", "update_type", "layer_depth"]
_CLOSE = 0.02  # log2 bits between two references, below which their slope is noise
_FLAT = 0.1  # dB per log2 bits, below which quality says nothing of bits


@dataclass(frozen=True, eq=False)
class _Reference:
    """A reference encode.

    Attributes:
        bits: Bits of the stream.
        slope: dB per log2 bits; None = from the clip's other references.
        psnr: Luma PSNR in dB of each shown frame, by show index, float64 ``[num_frames]``.
        spread: The bits of each golden-frame group, spread evenly over the frames that are shown in
            it, by show index, float64 ``[num_frames]``.
        rows: Bits of each frame.
    """

    bits: int
    slope: float | None
    psnr: NDArray[np.float64]
    spread: NDArray[np.float64]
    rows: dict[_Key, int]


class GainReward:
    """Percent of bits saved at the reference's quality, where the bitrate is kept.

    The agent is to improve on the reference, such as its base policy's own encodes. Near such an
    encode, the rate-distortion curve is taken for a line in PSNR over log2 bits, as in
    Bjontegaard's delta rate (VCEG-M33). Its slope comes from the encodes at other targets. For an
    encode with PSNR P and B bits, and a reference with P0 and B0,
    ``saved = (P - P0) / slope - log2(B / B0)`` and the value is ``100 (1 - 2 ** -saved)``. Where
    the overshoot is above the tolerance, the value is ``-100 (overshoot - tolerance)`` instead,
    whatever the quality.

    The reward is paid step by step: a step is worth what it adds to ``so_far``, the value that the
    encode would have if its rest went as the reference's did. Where the reference is itself above
    the tolerance, its rest is scaled to the tolerance for the overshoot: so nothing is worth 0, and
    a step pays for its own bits only. ``per_step`` gives each step its
    share after the end: the value's linear part, which is the contribution of the step's frames'
    PSNRs to P - P0, and of its bits to B - B0. Bits are compared with those of the same frames of
    the reference. But libvpx sizes its golden-frame groups by the q of the frames before, so the
    reference may have no such frames: then bits are compared with the part of its groups that is
    shown meanwhile.

    An environment takes libvpx's own two-pass VBR for a reference where the clip has none.

    Args:
        tolerance: Overshoot that is allowed, at least 0.
    """

    range: ClassVar[tuple[float, float]] = (-math.inf, 100.0)
    deterministic: ClassVar[bool] = True

    def __init__(self, tolerance: float = 0.02) -> None:
        if not 0 <= tolerance < math.inf:
            raise InputError(f"tolerance must be finite and at least 0, not {tolerance}")
        self.tolerance = tolerance
        self._references: dict[str, dict[int, _Reference]] = {}
        self._prepared: set[str] = set()  # clips whose references are libvpx's own

    def prepare(
        self, video: Video, options: EncoderOptions, region: WeightedRegion | None = None
    ) -> None:
        """Take libvpx's own encodes near the target, unless the clip has a reference already.

        Args:
            video: The clip.
            options: The encode's options.
            region: A region that the encodes prefer; the logs to come are weighted by it.

        Raises:
            EncoderError: An encode failed.
            OutputError: The cache cannot be written.
        """
        name = weighted_hash(video.content_hash, region)
        curve = self._references.get(name, {})
        if name not in self._prepared and curve:
            return
        self._prepared.add(name)
        if not set(anchors(video, options.target_bitrate)) <= curve.keys():
            pair = reference_pair(video, options, region)
            for encode in pair:
                self._take(encode, curve_slope(*pair))

    def reference(self, log: EncodeLog, slope: float | None = None) -> None:
        """Take a reference encode; it replaces an older one of its clip and target.

        Args:
            log: The encode.
            slope: dB per log2 bits, at least 0.1. None: from the neighbours on the clip's curve, so
                two references at least are needed.
        """
        if slope is not None and not _FLAT <= slope < math.inf:
            raise InputError(f"slope must be finite and at least {_FLAT}, not {slope}")
        self._take(ReferenceEncode.of(log), slope)

    def _take(self, encode: ReferenceEncode, slope: float | None) -> None:
        self._references.setdefault(encode.clip.content_hash, {})[encode.target_bitrate] = (
            _Reference(
                encode.bits, slope, encode.psnr, encode.spread, _bits_by_frame(encode.records)
            )
        )

    def __call__(self, log: EncodeLog) -> float:
        """Return the percentage.

        Raises:
            InputError: The clip has no reference, or no slope.
        """
        reference, slope = self._find(log.clip, log.options.target_bitrate)
        saved = (log.psnr - float(reference.psnr.mean())) / slope
        saved -= math.log2(log.bits / reference.bits)
        return self._value(saved, log.overshoot)

    def so_far(self, encode: EncodeSoFar) -> float:
        """Return the value that the encode would have if the rest went as the reference's did.

        Raises:
            InputError: The clip has no reference, or no slope.
        """
        clip, rows, spent = encode.clip, encode.logged(), encode.bits
        reference, slope = self._find(clip, encode.options.target_bitrate)
        rest = max(reference.bits - _bits_there(reference, rows), 0.0)
        bits = max(spent + rest, 1.0)
        target_bits = 1000.0 * encode.options.target_bitrate * clip.duration
        scale = min((1 + self.tolerance) * target_bits / reference.bits, 1.0)
        overshoot = (spent + scale * rest) / target_bits - 1
        saved = psnr_above(clip, rows, reference.psnr) / slope - math.log2(bits / reference.bits)
        return self._value(saved, overshoot)

    def _value(self, saved: float, overshoot: float) -> float:
        if overshoot > self.tolerance:
            return -100.0 * (overshoot - self.tolerance)
        return float(100.0 * (1.0 - 2.0**-saved))

    def per_step(self, log: EncodeLog, steps: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
        """Return each step's share of the value.

        Steps that are parts of a golden-frame group which the reference does not have share the
        group's worth, by their bits. The last step takes the rest of the value: its part that is
        not linear, and the price of the overshoot.

        Args:
            log: The finished encode.
            steps: Rows ``[first, last)`` of the log that each step led to, the first of which is a
                coded frame; one step at least.

        Returns:
            float32 ``[len(steps)]``, percent; the sum is the value.

        Raises:
            InputError: The clip has no reference, or no slope.
        """
        reference, slope = self._find(log.clip, log.options.target_bitrate)
        rows = log.records
        shares = np.zeros(len(steps))
        groups = rows["group_index"][[first for first, _ in steps]]
        for group in np.unique(groups):
            places = np.flatnonzero(groups == group).tolist()
            whole = rows[steps[places[0]][0] : steps[places[-1]][1]]
            # The reference's bits for the same part of the clip, over the bits spent here.
            ratio = _bits_there(reference, whole) / max(int(whole["bits"].sum()), 1)
            has_all = _bits_by_frame(whole).keys() <= reference.rows.keys()
            for place in places:
                part = rows[slice(*steps[place])]
                there = ratio * int(part["bits"].sum())
                if has_all:
                    there = _bits_there(reference, part)
                shares[place] = _share(reference, slope, log.clip, part, there)
        shares[-1] += self(log) - shares.sum()
        return shares.astype(np.float32)

    def _find(self, clip: ClipFormat, target: int) -> tuple[_Reference, float]:
        """Return the reference at the nearest target, and the slope of the curve there."""
        curve = self._references.get(clip.content_hash)
        if not curve:
            raise InputError(f"{clip.name}: no reference encode to compare with")
        nearest = min(curve, key=lambda other: (abs(math.log(other / target)), other))
        reference = curve[nearest]
        if reference.slope is not None:
            return reference, reference.slope
        points = sorted(curve.values(), key=lambda point: point.bits)
        place = points.index(reference)
        low, high = points[max(place - 1, 0)], points[min(place + 1, len(points) - 1)]
        distance = math.log2(high.bits / low.bits)
        rise = float(high.psnr.mean() - low.psnr.mean())
        if distance < _CLOSE or rise < _FLAT * distance:
            raise InputError(
                f"{clip.name}: {len(points)} reference encodes give no slope at {target} kbit/s"
            )
        return reference, rise / distance

    def state_dict(self) -> dict[str, Any]:
        """Return the references in a form that JSON takes."""
        return {
            "references": [
                {
                    "clip": clip,
                    "target_bitrate": target,
                    "bits": reference.bits,
                    "slope": reference.slope,
                    "psnr": reference.psnr.tolist(),
                    "spread": reference.spread.tolist(),
                    "rows": [[*key, bits] for key, bits in reference.rows.items()],
                }
                for clip, curve in self._references.items()
                for target, reference in curve.items()
            ]
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the references that ``state_dict`` returned."""
        self._references = {}
        self._prepared = set()
        for entry in state["references"]:
            curve = self._references.setdefault(str(entry["clip"]), {})
            curve[int(entry["target_bitrate"])] = _Reference(
                int(entry["bits"]),
                None if entry["slope"] is None else float(entry["slope"]),
                np.array(entry["psnr"], np.float64),
                np.array(entry["spread"], np.float64),
                {(show, shown, kind, layer): n for show, shown, kind, layer, n in entry["rows"]},
            )


def _share(
    reference: _Reference, slope: float, clip: ClipFormat, rows: NDArray[np.void], there: float
) -> float:
    """Return the contribution of rows of a log to the gain, in percent of the reference's bits.

    Args:
        reference: The reference.
        slope: dB per log2 bits.
        clip: The clip.
        rows: Rows of the log.
        there: The reference's bits for the same.
    """
    quality = math.log(2) * psnr_above(clip, rows, reference.psnr) / slope
    return 100.0 * (quality - (float(rows["bits"].sum()) - there) / reference.bits)


def _bits_there(reference: _Reference, rows: NDArray[np.void]) -> float:
    """Return the reference's bits for the same frames, or for the same part of the clip."""
    keys = _bits_by_frame(rows).keys()
    if keys <= reference.rows.keys():
        return float(sum(reference.rows[key] for key in keys))
    return float(reference.spread[shown_rows(rows)["show_index"]].sum())


def _bits_by_frame(rows: NDArray[np.void]) -> dict[_Key, int]:
    bits: dict[_Key, int] = {}
    for *key, n in rows[[*_KEY_FIELDS, "bits"]].tolist():
        show, shown, kind, layer = map(int, key)
        bits[show, shown, kind, layer] = bits.get((show, shown, kind, layer), 0) + int(n)
    return bits
