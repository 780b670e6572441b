"""The bits that a clip takes at a base step: foreseen by a probe, corrected by what is spent."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.types import FIRST_PASS_FIELDS
from vpxrc.policies.base import Episode
from vpxrc.policies.probe import KEY_STEP, Probe

_TAIL = 16  # frames before a key frame or the end, on which little depends
_KEY_REACH = 128  # frames; more followers do not make a key frame finer
_NEAR = 24  # frames by which a key frame of the probe may be elsewhere
# How far the base may go beyond the coarsest step: frames that are finer still follow it.
_BEYOND = 2.5
_LIMITS = (0.5, 2.6)  # of log2 of the ratios that are foreseen, for four times the samples
_STATISTICS = ("coded_error", "intra_error", "sr_coded_error")


@dataclass(frozen=True)
class RateParameters:
    """The constants of the rate model.

    The weights were fitted by ``python -m benchmarks.fit_rate_model``, on an earlier form of the
    policy; docs/constant-quality.md says on which clips, and how the rest was chosen.

    Attributes:
        slope: Bits fall by ``2 ** -slope`` when the quantiser step doubles.
        other: Weights of :func:`features` for log2 of the clip's bits over the probe's, where the
            clip has four times the probe's samples. Key frames have a ratio of 1.
        doubt: Weight of these ratios against what is really spent, as a share of the probe's bits.
        key_growth: Power of the number of followers in the bits of a key frame.
        tail: Factor on the bits of frames close before a key frame or the end.
        margin: Share of the target that is left unspent.
        slack: How far the total may be foreseen to miss the target, as a share of it, before the
            base moves.
    """

    slope: float = 0.7
    other: tuple[float, ...] = (
        -0.953, -0.02, -0.124, -0.362, 0.108, -0.262, 0.247, 0.153, -0.243, -0.071,
    )  # fmt: skip
    doubt: float = 0.2
    key_growth: float = 0.2
    tail: float = 0.75
    margin: float = 0.01
    slack: float = 0.015


def features(
    probe: Probe, first_pass: NDArray[np.float64], pixels: int, fps: float
) -> NDArray[np.float64]:
    """Return what the bits of a clip over those of its probe are foreseen by.

    Args:
        probe: The probe.
        first_pass: First-pass statistics of the clip at its own size, float64 ``[num_frames, 26]``.
        pixels: Luma samples of a frame of the clip.
        fps: Frames per second.

    Returns:
        float64 ``[10]``; all but the first are logarithms.
    """
    full, small = (
        [
            np.log2(np.maximum(table[1:, FIRST_PASS_FIELDS.index(name)], 1e-2).mean() / samples)
            for name in _STATISTICS
        ]
        for table, samples in ((first_pass, pixels), (probe.first_pass, probe.pixels))
    )
    frames = len(probe.error)
    return np.array(
        [
            1.0,
            np.log2(pixels) - 16,
            np.log2(fps / 30),
            max(probe.base - 8, -2.0),
            np.log2(max(probe.key_bits.max(), 1.0) / pixels),
            np.log2(max(probe.other_bits.sum() / frames, 1.0) / probe.pixels),
            np.log2(max(probe.error.mean(), 1e-2)),
            *(big - little for big, little in zip(full, small, strict=True)),
        ]
    )


class RateModel:
    """Follows the bits of one encode and foresees those that are left.

    The probe says how the bits of the clip are spread in time. Two ratios, for key frames and for
    all other frames, say how many bits the clip takes for one bit of the probe. They start at a
    regression and move to what is really spent.

    Args:
        parameters: The constants.
        episode: The encode.
        probe: The clip's probe.

    Attributes:
        spent: Bits so far.
        target: Bits that the stream may take.
    """

    def __init__(self, parameters: RateParameters, episode: Episode, probe: Probe) -> None:
        p = self._parameters = parameters
        video = episode.video
        self._episode, self._base = episode, probe.base
        self._log2_step = episode.log2_step
        self._key = probe.key_bits.copy()
        self._growth, self._other = _as_followed(probe, p)
        self._all_key = float((self._key * self._growth).sum())
        self._key_scale = 1.0
        pixels = video.width * video.height
        seen = features(probe, episode.first_pass, pixels, float(video.fps))
        scale = np.log2(pixels / probe.pixels) / 2  # 1 at four times the samples
        self._other_prior = float(scale * np.clip(seen @ np.array(p.other), *_LIMITS))
        self._rows = 0
        self.spent = 0.0
        self.target = episode.target_bits * (1.0 - p.margin)
        # What was paid at the probe's base, and what the probe paid for the same frames.
        self._paid_key = self._paid_other = 0.0
        self._seen_key = self._seen_other = 0.0
        self._next = 0  # display index of the first frame that no group has yet
        self._group = _Group(-1, np.zeros(0), 0.0, 0.0, True)
        self._bases: dict[int, float] = {}

    def start(self) -> float:
        """Return the base for a clip of which nothing is coded."""
        return self._solve(self.target, *self._left())

    def expect_key(self, step: float, frame: int) -> None:
        """Note how far a key frame is coded below the base.

        Later key frames are foreseen by it, and by how many frames follow them.

        Args:
            step: log2 step below the base.
            frame: Its display index.
        """
        nearest = self._nearest_key(frame)
        growth = 1.0 if nearest < 0 else float(self._growth[nearest])
        self._key_scale = 2.0 ** (self._parameters.slope * (step - KEY_STEP)) / growth

    def open(
        self, index: int, last: int, bits: NDArray[np.float64], is_key: NDArray[np.bool_]
    ) -> None:
        """Start a group.

        Args:
            index: Its number in the encode.
            last: Its highest display index.
            bits: Bits that a model foresees of each position, float64 ``[size]``, at any base.
            is_key: Which position is a key frame, bool ``[size]``.
        """
        self.account()
        if self._group.agrees:  # only whole groups count: the shares of frames are guessed
            self._paid_other += self._group.paid
            self._seen_other += self._group.seen
        first, end = self._next, max(last + 1, self._next)
        others = np.where(is_key, 0.0, bits)
        share = others / max(others.sum(), 1e-9)
        keys = np.flatnonzero(self._key)
        strays = bool(((keys >= first + 1) & (keys < end)).any())
        key_bits, has_key, nearest = 0.0, bool(is_key.any()), self._nearest_key(first)
        if has_key and nearest >= 0:
            key_bits = float(self._key[nearest] * self._growth[nearest] * self._key_scale)
            self._key[nearest] = 0.0
            strays = strays and first < nearest < end and len(keys) > 1
        self._key[: max(end - _NEAR, 0)] = 0.0
        self._group = _Group(
            index,
            share,
            float(self._other[first:end].sum()),
            key_bits,
            agrees=not strays and has_key == (key_bits > 0),
        )
        self._next = end
        self._bases = {}

    def book(self, position: int, base: float) -> None:
        """Note the base that a position of the group is coded at."""
        self._bases[position] = base

    def account(self) -> None:
        """Take the frames that the log has since the last call."""
        group = self._group
        for row in self._episode.records(self._rows):
            self._rows += 1
            bits, position = float(row["bits"]), int(row["group_position"])
            self.spent += bits
            if row["is_shown_again"] or row["group_index"] != group.index:
                continue
            paid = bits / self._falls(self._bases.get(position, self._base))
            if row["is_key"]:
                if group.agrees:
                    self._paid_key += paid
                    self._seen_key += group.key_bits
                group.key_bits = 0.0
            elif position < len(group.share):
                group.paid += paid
                group.seen += group.bits * group.share[position]
                group.share[position] = 0.0

    @property
    def has_seen_others(self) -> bool:
        """Whether a frame was coded that is no key frame."""
        self.account()
        return self._seen_other + self._group.seen > 0

    @property
    def other_ratio(self) -> float:
        """log2 of the bits of all frames but key frames over the probe's so far; NaN without."""
        self.account()
        paid, seen = self._paid_other + self._group.paid, self._seen_other + self._group.seen
        return float(np.log2(paid / seen)) if paid > 0 and seen > 0 else float("nan")

    def wanted(self, base: float) -> float:
        """Return the base that is nearest to the current one and meets the target.

        Args:
            base: The current base.
        """
        self.account()
        slack, left = self._parameters.slack, self._left()
        coarsest = self._solve(self.target * (1 - slack) - self.spent, *left)
        finest = self._solve(self.target * (1 + slack) - self.spent, *left)
        return float(np.clip(base, finest, coarsest))

    def _nearest_key(self, frame: int) -> int:
        """Return the probe's key frame near a frame that no group has yet; -1 = none is near."""
        keys = np.flatnonzero(self._key)
        if not len(keys):
            return -1
        nearest = int(keys[np.abs(keys - frame).argmin()])
        return nearest if abs(nearest - frame) <= _NEAR else -1

    def _falls(self, base: float) -> float:
        """Return the factor on bits from the probe's base to another."""
        return float(2.0 ** (-self._parameters.slope * (base - self._base)))

    def _left(self) -> tuple[float, float]:
        """Return the probe's bits that are left, of key frames and of others."""
        group = self._group
        key = group.key_bits + (self._key * self._growth).sum() * self._key_scale
        other = group.bits * group.share.sum() + self._other[self._next :].sum()
        return float(key), float(other)

    def _solve(self, budget: float, key: float, other: float) -> float:
        """Return the base at which so many of the probe's bits take a budget."""
        p = self._parameters
        doubt_key, doubt_other = p.doubt * self._all_key, p.doubt * self._other.sum()
        key_ratio = (doubt_key + self._paid_key) / max(doubt_key + self._seen_key, 1e-9)
        other_ratio = (doubt_other * 2**self._other_prior + self._paid_other) / max(
            doubt_other + self._seen_other, 1e-9
        )
        bits = max(key_ratio * key + other_ratio * other, 1.0)
        excess = np.log2(bits / max(budget, 2e-3 * self.target))
        base = self._base + excess / p.slope
        return float(np.clip(base, self._log2_step[1], self._log2_step[255] + _BEYOND))


@dataclass
class _Group:
    """A group of the encode.

    Attributes:
        index: Its number.
        share: Share of its bits by position, key frames apart; 0 once a frame is coded.
        bits: The probe's bits for its frames that are no key frames.
        key_bits: The probe's bits for its key frame; 0 once it is coded.
        agrees: Whether the probe has key frames where the clip has them.
        paid: Bits of its frames so far at the probe's base, key frames apart.
        seen: The probe's bits for the same frames.
    """

    index: int
    share: NDArray[np.float64]
    bits: float
    key_bits: float
    agrees: bool
    paid: float = 0.0
    seen: float = 0.0


def _as_followed(
    probe: Probe, parameters: RateParameters
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return factors on the probe's key frames, and its other bits.

    Both have less where few frames follow that depend on a frame.
    """
    growth, other = np.ones(len(probe.key_bits)), probe.other_bits.copy()
    starts = np.flatnonzero(probe.key_bits)
    for start, end in zip(starts, np.append(starts[1:], len(growth)), strict=True):
        growth[start] = (min(end - start, _KEY_REACH) / _KEY_REACH) ** parameters.key_growth
        other[max(start + 1, end - _TAIL) : end] *= parameters.tail
    return growth, other
