"""Rewards: the worth of an encode, or of a step of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.log import MAX_PSNR, EncodeLog, frame_psnr, shown_rows
from vpxrc.encoder.options import EncoderOptions
from vpxrc.errors import InputError
from vpxrc.media.frames import ClipFormat, Video


class EncodeSoFar(Protocol):
    """An encode up to a decision, as a :class:`StepReward` judges it.

    Attributes:
        bits: Bits spent so far.
        num_shown: Frames shown so far. They are the first ones of the clip.
        psnr_sum: Sum of their luma PSNRs in dB.
    """

    bits: int
    num_shown: int
    psnr_sum: float

    @property
    def clip(self) -> ClipFormat:
        """The clip."""

    @property
    def options(self) -> EncoderOptions:
        """The encode's options."""

    def logged(self) -> NDArray[np.void]:
        """Return the rows of the log so far, dtype ``RECORD_DTYPE``."""


class FirstRows:
    """The first rows of a finished encode's log: an :class:`EncodeSoFar`.

    Args:
        log: The finished encode.
        count: How many rows.

    Attributes:
        clip: The clip.
        options: The encode's options.
        bits: Bits of the rows.
        num_shown: Frames that they show.
        psnr_sum: Sum of their luma PSNRs in dB.
    """

    def __init__(self, log: EncodeLog, count: int) -> None:
        self.clip = log.clip
        self.options = log.options
        self._rows = log.records[:count]
        shown = shown_rows(self._rows)
        self.bits = int(self._rows["bits"].sum())
        self.num_shown = len(shown)
        self.psnr_sum = float(frame_psnr(log.clip, shown).sum())

    def logged(self) -> NDArray[np.void]:
        """Return the rows, dtype ``RECORD_DTYPE``."""
        return self._rows


class _Bounded(Protocol):
    """What every reward says of its values."""

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest value."""

    @property
    def deterministic(self) -> bool:
        """Whether the same encode is always worth the same."""


class Reward(_Bounded, Protocol):
    """A reward, as the environments use it; any such callable will do.

    An encode that fails has no reward: the environment raises.

    Attributes:
        range: Lowest and highest value.
        deterministic: Whether the same encode is always worth the same.
    """

    def __call__(self, log: EncodeLog) -> float:
        """Return the worth of the finished encode."""


@runtime_checkable
class VideoReward(_Bounded, Protocol):
    """A reward that looks at the pictures: paid at the end, with the source at hand.

    Attributes:
        range: Lowest and highest value.
        deterministic: Whether the same encode is always worth the same.
    """

    def of_video(self, log: EncodeLog, video: Video) -> float:
        """Return the worth of the finished encode.

        Args:
            log: The encode; ``log.options.decode(log.stream, log.clip)`` has its frames.
            video: The clip.
        """


AnyReward: TypeAlias = Reward | VideoReward


@runtime_checkable
class PreparedReward(Protocol):
    """A reward that needs something of a clip before its first encode."""

    def prepare(self, video: Video, options: EncoderOptions) -> None:
        """Get ready for encodes of a clip; called at the beginning of every episode.

        Args:
            video: The clip.
            options: The encode's options.
        """


@runtime_checkable
class StepReward(Reward, Protocol):
    """A reward that is paid step by step: a step is worth what it adds to ``so_far``."""

    def so_far(self, encode: EncodeSoFar) -> float:
        """Return the worth of an encode so far; of nothing it is 0."""


def is_paid_by_step(reward: AnyReward) -> TypeGuard[StepReward]:
    """Return whether a reward is a :class:`StepReward`.

    It is asked at every step, and ``isinstance`` of a protocol takes a tenth of a step's time.
    """
    return hasattr(reward, "so_far")


@runtime_checkable
class SharedReward(Reward, Protocol):
    """A reward that can be shared among the steps when the encode is over."""

    def per_step(self, log: EncodeLog, steps: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
        """Return the worth of each step, as far as it is known when the encode is over.

        Args:
            log: The finished encode.
            steps: Rows ``[first, last)`` of the log that each step led to.

        Returns:
            float32 ``[len(steps)]``, whose sum is the value of the encode.
        """


@dataclass(frozen=True)
class PsnrReward:
    """Mean luma PSNR of the shown frames in dB; the bitrate is a constraint beside it."""

    range: ClassVar[tuple[float, float]] = (0.0, MAX_PSNR)
    deterministic: ClassVar[bool] = True

    def __call__(self, log: EncodeLog) -> float:
        """Return :attr:`vpxrc.EncodeLog.psnr`."""
        return log.psnr


@dataclass(frozen=True)
class LagrangianReward:
    """PSNR in dB less a price for the relative overshoot.

    A rate-distortion curve rises by some 3 to 6 dB per doubling of the bitrate, which is 4 to 9 dB
    per relative overshoot near the target. So the default makes overshoot a loss at any size of
    picture and any target.

    Attributes:
        multiplier: dB for an overshoot of 1, that is for twice the target bitrate; at least 0.
    """

    multiplier: float = 20.0

    range: ClassVar[tuple[float, float]] = (-math.inf, MAX_PSNR)
    deterministic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the multiplier."""
        is_number = isinstance(self.multiplier, int | float | np.integer | np.floating)
        if not is_number or not 0 <= self.multiplier < math.inf:
            raise InputError(f"multiplier must be finite and at least 0, not {self.multiplier!r}")

    def __call__(self, log: EncodeLog) -> float:
        """Return PSNR - multiplier * max(0, overshoot)."""
        return log.psnr - self.multiplier * max(0.0, log.overshoot)


class QualityAndRate:
    """Two rewards in an array ``[2]``: mean luma PSNR in dB, and -(achieved / target bitrate).

    Each frame that is shown adds its PSNR over the number of frames, and each bit its share.
    """

    range: ClassVar[tuple[float, float]] = (-math.inf, MAX_PSNR)
    deterministic: ClassVar[bool] = True

    def __call__(self, log: EncodeLog) -> NDArray[np.float32]:
        """Return both values of the finished encode, float32 ``[2]``."""
        return np.array([log.psnr, -log.overshoot - 1], np.float32)

    def so_far(self, encode: EncodeSoFar) -> NDArray[np.float32]:
        """Return both values of what is coded so far, float32 ``[2]``."""
        target_bits = 1000.0 * encode.options.target_bitrate * encode.clip.duration
        quality = encode.psnr_sum / encode.clip.num_frames
        return np.array([quality, -encode.bits / target_bits], np.float32)


def clip_and_target(log: EncodeLog) -> tuple[str, int]:
    """Return the content hash and the target that averages are kept under."""
    return log.clip.content_hash, log.options.target_bitrate


def _check_price(price: float) -> None:
    if not 0 <= price < math.inf:
        raise InputError(f"overshoot_price must be finite and at least 0: {price}")


def _result(log: EncodeLog, price: float) -> tuple[float, float]:
    """Return quality, in dB less the price of the bitrate above the target, and overshoot."""
    return log.psnr - price * (log.bitrate - log.options.target_bitrate), log.overshoot


def _competition(own: tuple[float, float], other: tuple[float, float]) -> float:
    """Return 1, 0 or -1: where either overshoots, the lower overshoot wins, else the quality."""
    (quality, overshoot), (other_quality, other_overshoot) = own, other
    if overshoot > 0 or other_overshoot > 0:
        gain = other_overshoot - overshoot
    else:
        gain = quality - other_quality
    return float((gain > 0) - (gain < 0))


class SelfCompetition:
    """+1 where the agent beats its own moving average on this clip and target, else -1.

    As in MuZero-RC (Mandhane et al. 2022): where the encode or the average overshoots, the lower
    overshoot wins, otherwise the higher quality; a tie is worth 0. Then the averages move. Both
    overshoots are signed, so an average that is above the target once can come below it again. The
    first encode of a pair only starts its averages and is worth 0.

    One object shared by several environments is one table; copies of it, such as each process of
    an ``AsyncVectorEnv`` has, go separate ways.

    Args:
        decay: Share of an average that is kept at each encode of its pair, in [0, 1).
        overshoot_price: Quality is PSNR less this many dB per kbit/s of signed overshoot: 0 is the
            strict form, 0.005 (about the slope of a rate-distortion curve) the augmented one.
    """

    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    deterministic: ClassVar[bool] = False

    def __init__(self, decay: float = 0.9, overshoot_price: float = 0.0) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"decay must be in [0, 1), not {decay}")
        _check_price(overshoot_price)
        self.decay = decay
        self.overshoot_price = overshoot_price
        self._table: dict[tuple[str, int], tuple[float, float]] = {}

    @property
    def table(self) -> dict[tuple[str, int], tuple[float, float]]:
        """A copy of the averages: (clip's content hash, target) -> (quality in dB, overshoot)."""
        return dict(self._table)

    def __call__(self, log: EncodeLog) -> float:
        """Compare the encode with the averages of its pair, then move them."""
        key = clip_and_target(log)
        quality, overshoot = _result(log, self.overshoot_price)
        if key not in self._table:
            self._table[key] = quality, overshoot
            return 0.0
        mean_quality, mean_overshoot = self._table[key]
        kept = self.decay
        self._table[key] = (
            kept * mean_quality + (1 - kept) * quality,
            kept * mean_overshoot + (1 - kept) * overshoot,
        )
        return _competition((quality, overshoot), (mean_quality, mean_overshoot))

    def state_dict(self) -> dict[str, Any]:
        """Return the averages in a form that JSON takes."""
        return {"averages": [[*key, *value] for key, value in self._table.items()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the averages that ``state_dict`` returned."""
        self._table = {
            (str(clip), int(target)): (float(quality), float(overshoot))
            for clip, target, quality, overshoot in state["averages"]
        }


class HistoricalOpponent:
    """+1 where the agent beats a policy of the past on this clip and target, else -1.

    As in "play to plan" (Pirnay et al. 2023), the opponent is a frozen policy, such as the agent of
    some time ago, instead of an average that moves with every encode; ``record`` takes in its
    encodes. The comparison is :class:`SelfCompetition`'s; a pair without a record is worth 0.

    Args:
        overshoot_price: See :class:`SelfCompetition`.
    """

    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    deterministic: ClassVar[bool] = True

    def __init__(self, overshoot_price: float = 0.0) -> None:
        _check_price(overshoot_price)
        self.overshoot_price = overshoot_price
        self._table: dict[tuple[str, int], tuple[float, float]] = {}

    @property
    def table(self) -> dict[tuple[str, int], tuple[float, float]]:
        """A copy of the records: (clip's content hash, target) -> (quality in dB, overshoot)."""
        return dict(self._table)

    def record(self, log: EncodeLog) -> None:
        """Take an encode of the opponent's; it replaces an older one of its pair."""
        self._table[clip_and_target(log)] = _result(log, self.overshoot_price)

    def __call__(self, log: EncodeLog) -> float:
        """Compare the encode with the opponent's."""
        other = self._table.get(clip_and_target(log))
        return 0.0 if other is None else _competition(_result(log, self.overshoot_price), other)

    def state_dict(self) -> dict[str, Any]:
        """Return the records in a form that JSON takes."""
        return {"records": [[*key, *value] for key, value in self._table.items()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the records that ``state_dict`` returned."""
        self._table = {
            (str(clip), int(target)): (float(quality), float(overshoot))
            for clip, target, quality, overshoot in state["records"]
        }
