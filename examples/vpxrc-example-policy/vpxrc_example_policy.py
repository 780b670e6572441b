"""A policy for vpxrc: one base q, finer by layer, searched until the bitrate fits."""

import dataclasses

from vpxrc import (
    Decision,
    EncodeLog,
    EncoderOptions,
    Episode,
    Frame,
    Policy,
    UpdateType,
    nearest_q,
)

KEY, ARF = UpdateType.KEY, UpdateType.ARF
# Below the base, in log2 of the quantiser step: key frames, then ARFs by layer.
STEPS = {KEY: 2.5, (ARF, 1): 1.5, (ARF, 2): 0.5, (ARF, 3): 0.4}


class Pyramid(Policy):
    """One base q for the leaves, a fixed step below it for what they are predicted from.

    Args:
        encodes: The most encodes per result, in digits; eight find the base exactly.
    """

    def __init__(self, encodes: str = "8") -> None:
        self._encodes = int(encodes)
        self._reset()

    def _reset(self) -> None:
        self._low, self._high, self._done = 0, 255, 0  # the base is in here
        self._kept: EncodeLog | None = None

    def options(self, options: EncoderOptions) -> EncoderOptions:
        """Return the options with all layers of alternate reference frames."""
        return dataclasses.replace(options, auto_alt_ref=6)

    def begin(self, episode: Episode) -> None:
        """Start an encode."""
        self._log2_step = episode.log2_step

    def decide(self, frame: Frame) -> Decision:
        """Return the base less the layer's step."""
        kind = frame.update_type
        step = STEPS.get(kind, STEPS.get((kind, frame.layer_depth), 0.3 if kind == ARF else 0.0))
        return Decision(nearest_q(self._log2_step[self._base] - step, self._log2_step))

    @property
    def _base(self) -> int:
        return (self._low + self._high) // 2

    def review(self, log: EncodeLog) -> EncodeLog | None:
        """Halve the bracket; keep the last encode that fits, or the coarsest."""
        if log.overshoot <= 0:
            self._high, self._kept = self._base, log
        else:
            self._low = min(self._base + 1, 255)
            self._kept = self._kept or log
        self._done += 1
        close = -0.01 <= log.overshoot <= 0
        if self._low < self._high and not close and self._done < self._encodes:
            return None  # once more
        kept = self._kept
        self._reset()
        return kept
