"""The policy ``equal-slope``: one slope of rate and distortion for all pictures of a clip."""

from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.types import Decision, Frame
from vpxrc.errors import InputError
from vpxrc.policies.base import Policy


class EqualSlope(Policy):
    """Codes every picture at the quality that the codec's own rate model proposes.

    A quality of a learned codec stands for a slope of its rate-distortion curve. Where no picture
    depends on another, the squared error of a clip is least, for its bits, if all pictures have the
    same slope. So there is one quality, at which the rate model expects what is left of the clip to
    take what is left of the budget.
    """

    def options(self, options: EncoderOptions) -> EncoderOptions:
        """Return the options.

        Raises:
            InputError: They are libvpx's, whose q index is no slope of a single frame.
        """
        if options.encoder.partition(":")[0] != "learned":
            raise InputError("equal-slope is a policy of learned codecs: --encoder learned:CODEC")
        return options

    def decide(self, frame: Frame) -> Decision:
        """Return the encoder's own choice."""
        return Decision(frame.libvpx_q_index)
