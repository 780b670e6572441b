"""The policy ``constant-q``: the same q index for every frame."""

from vpxrc.encoder.types import Decision, Frame
from vpxrc.errors import InputError
from vpxrc.policies.base import Policy


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
