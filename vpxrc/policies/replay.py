"""A policy that repeats a logged encode."""

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.types import Decision, Frame, Group
from vpxrc.errors import PolicyError
from vpxrc.policies.base import Episode, Policy


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
