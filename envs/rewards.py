"""What an episode is worth: objects that turn the log of a finished encode into its return.

All of them pay at the end of the episode only; before it, the environments pay 0.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from vpxrc.encoder import EncodeLog
from vpxrc.errors import InputError
from vpxrc.metrics import MAX_PSNR


class Reward(Protocol):
    """What the environments ask of a reward; any such callable will do.

    An encode that fails has no reward: the environment raises.

    Attributes:
        range: Lowest and highest value.
        deterministic: Whether the same encode is always worth the same.
    """

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest value."""

    @property
    def deterministic(self) -> bool:
        """Whether the same encode is always worth the same."""

    def __call__(self, log: EncodeLog) -> float:
        """Return what the finished encode is worth."""


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
    """PSNR in dB less a price per kbit/s above the target.

    Attributes:
        multiplier: dB per kbit/s, at least 0.
    """

    multiplier: float = 0.005

    range: ClassVar[tuple[float, float]] = (-math.inf, MAX_PSNR)
    deterministic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the multiplier."""
        if not 0 <= self.multiplier < math.inf:
            raise InputError(f"multiplier must be finite and at least 0, not {self.multiplier}")

    def __call__(self, log: EncodeLog) -> float:
        """Return PSNR - multiplier * max(0, overshoot in kbit/s)."""
        return log.psnr - self.multiplier * max(0.0, log.bitrate - log.options.target_bitrate)


class SelfCompetition:
    """+1 where the agent beats its own moving average on this clip and target, else -1.

    As in MuZero-RC (Mandhane et al. 2022): where the encode or the average overshoots, the lower
    overshoot wins, otherwise the higher quality; a tie is worth 0. Then the averages move. Both
    overshoots are signed, so an average that is above the target once can come below it again. The
    first encode of a pair only starts its averages and is worth 0.

    One object shared by several environments is one table; copies of it, such as each process of
    an ``AsyncVectorEnv`` has, go separate ways.

    Args:
        decay: What is kept of an average at each encode of its pair, in [0, 1).
        overshoot_price: Quality is PSNR less this many dB per kbit/s of signed overshoot: 0 is the
            strict form, 0.005 (about the slope of a rate-distortion curve) the augmented one.
    """

    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    deterministic: ClassVar[bool] = False

    def __init__(self, decay: float = 0.9, overshoot_price: float = 0.0) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"decay must be in [0, 1), not {decay}")
        if not 0 <= overshoot_price < math.inf:
            raise InputError(f"overshoot_price must be finite and at least 0: {overshoot_price}")
        self.decay = decay
        self.overshoot_price = overshoot_price
        self._table: dict[tuple[str, int], tuple[float, float]] = {}

    @property
    def table(self) -> dict[tuple[str, int], tuple[float, float]]:
        """A copy of the averages: (clip's content hash, target) -> (quality in dB, overshoot)."""
        return dict(self._table)

    def __call__(self, log: EncodeLog) -> float:
        """Compare the encode with the averages of its pair, then move them."""
        target = log.options.target_bitrate
        key = (log.video.content_hash, target)
        overshoot = log.overshoot
        quality = log.psnr - self.overshoot_price * (log.bitrate - target)
        if key not in self._table:
            self._table[key] = quality, overshoot
            return 0.0
        mean_quality, mean_overshoot = self._table[key]
        if overshoot > 0 or mean_overshoot > 0:
            gain = mean_overshoot - overshoot
        else:
            gain = quality - mean_quality
        kept = self.decay
        self._table[key] = (
            kept * mean_quality + (1 - kept) * quality,
            kept * mean_overshoot + (1 - kept) * overshoot,
        )
        return float((gain > 0) - (gain < 0))

    def state_dict(self) -> dict[str, Any]:
        """Return the averages in a form that JSON takes."""
        return {"averages": [[*key, *value] for key, value in self._table.items()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the averages that ``state_dict`` returned."""
        self._table = {
            (str(clip), int(target)): (float(quality), float(overshoot))
            for clip, target, quality, overshoot in state["averages"]
        }
