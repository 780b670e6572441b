"""libvpx's own rate control as policies, a constant q, and exact replays."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder import Decision, EncodeLog, EncoderOptions, Frame, Group
from vpxrc.errors import InputError, PolicyError
from vpxrc.policy import Episode, Policy
from vpxrc.quantizer import MULTI_LAYER


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


class ConstantQ(Policy):
    """The same q index for every frame, whatever the target.

    Args:
        q_index: 0..255, as a number or in digits.
    """

    def __init__(self, q_index: int | str = 128) -> None:
        try:
            self._q_index = int(q_index)
        except ValueError as error:
            raise InputError(f"constant-q takes a q index, not {q_index!r}") from error
        if not 0 <= self._q_index <= 255:
            raise InputError(f"q_index must be in 0..255, not {self._q_index}")

    def decide(self, frame: Frame) -> Decision:
        """Return the constant."""
        return Decision(self._q_index)


class Replay(Policy):
    """Repeats a logged encode, bit for bit where the clip and the options are the log's.

    Args:
        log: What to repeat; its options are encoded with, whatever is asked for.
        exact: Hand back the provisional q indices of the TPL pass and the traces of recodes too.
            Without, only q and lambda are repeated, as a policy could have chosen them.
    """

    def __init__(self, log: EncodeLog, exact: bool = True) -> None:
        self._options = log.options
        self._all = log.records
        self._coded = log.coded
        self._exact = exact
        self._position = 0

    def options(self, options: EncoderOptions) -> EncoderOptions:
        """Return the options of the log."""
        return self._options

    def begin(self, episode: Episode) -> None:
        """Go back to the log's first frame."""
        self._position = 0

    def plan_group(self, group: Group) -> NDArray[np.int32] | None:
        """Return the provisional q indices that the logged TPL pass used."""
        if not self._exact:
            return None
        here = self._all[self._all["group_index"] == group.index]["tpl_q_index"].copy()
        overlay = self._all[self._all["group_index"] == group.index + 1]["tpl_q_index"][:1]
        if len(here) != group.size:
            return None
        here[0] = -1  # of the group before
        return np.append(here, overlay)

    def decide(self, frame: Frame) -> Decision:
        """Return the logged decision.

        Raises:
            PolicyError: The encode takes another course than the log.
        """
        if self._position >= len(self._coded):
            raise PolicyError(f"the log ends before coded frame {frame.coding_index}")
        row = self._coded[self._position]
        self._position += 1
        if row["show_index"] != frame.show_index or row["update_type"] != frame.update_type:
            raise PolicyError(
                f"coded frame {frame.coding_index} shows frame {frame.show_index}, "
                f"the log's shows {row['show_index']}"
            )
        return Decision(
            int(row["q_index"]),
            lambda_scale=float(row["lambda_scale"]),
            recode_trace=tuple(row["recode_trace"].tolist()) if self._exact else (),
        )
