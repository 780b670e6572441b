"""libvpx's own rate control as policies."""

import dataclasses

from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.quantizer import MULTI_LAYER
from vpxrc.policies.base import Policy


class LibvpxVbr(Policy):
    """libvpx's two-pass variable bitrate, recode loop included.

    Args:
        auto_alt_ref: Layers of alternate reference frames; 1 is the one in the literature.
    """

    observes = True

    def __init__(self, auto_alt_ref: int = 1) -> None:
        self._auto_alt_ref = auto_alt_ref

    def options(self, options: EncoderOptions) -> EncoderOptions:
        """Return the options in VBR mode with this policy's layers."""
        return dataclasses.replace(options, rate_control="vbr", auto_alt_ref=self._auto_alt_ref)


class LibvpxQ(Policy):
    """libvpx's Q mode with the quality level searched until the bitrate fits.

    Bisects the 64 levels for the best quality whose bitrate does not exceed the target: what a
    patient user can do today, with six or seven encodes. Where even the worst level exceeds it,
    that one is kept.

    Args:
        auto_alt_ref: Layers of alternate reference frames.
    """

    observes = True

    def __init__(self, auto_alt_ref: int = 1) -> None:
        self._auto_alt_ref = auto_alt_ref
        self._reset()

    def _reset(self) -> None:
        self._low, self._high = 0, 63  # the answer is in here
        self._kept: EncodeLog | None = None

    @property
    def _level(self) -> int:
        return (self._low + self._high) // 2

    def options(self, options: EncoderOptions) -> EncoderOptions:
        """Return the options in Q mode at the level to be tried."""
        return dataclasses.replace(
            options, rate_control="q", auto_alt_ref=self._auto_alt_ref, cq_level=self._level
        )

    def review(self, log: EncodeLog) -> EncodeLog | None:
        """Halve the bracket; keep the log when it has closed."""
        if log.overshoot <= 0:
            self._high, self._kept = self._level, log
        else:
            self._low = min(self._level + 1, 63)
            if log.options.cq_level == 63:
                self._high, self._kept = 63, log
        if self._kept is None or self._low < self._high:
            return None
        kept = self._kept
        self._reset()
        return kept


def libvpx_vbr() -> Policy:
    """Return libvpx's VBR with one layer of alternate reference frames."""
    return LibvpxVbr(1)


def libvpx_vbr_mlarf() -> Policy:
    """Return libvpx's VBR with multi-layer alternate reference frames."""
    return LibvpxVbr(MULTI_LAYER)


def libvpx_q() -> Policy:
    """Return libvpx's Q mode, searched, with one layer of alternate reference frames."""
    return LibvpxQ(1)


def libvpx_q_mlarf() -> Policy:
    """Return libvpx's Q mode, searched, with multi-layer alternate reference frames."""
    return LibvpxQ(MULTI_LAYER)
