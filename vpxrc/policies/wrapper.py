"""A policy around another policy."""

from numpy.typing import ArrayLike

from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.types import Decision, Frame, Group
from vpxrc.policies.base import Episode, Policy


class PolicyWrapper(Policy):
    """Another policy, of which a subclass changes some methods; all others are the policy's own.

    A subclass that overrides ``plan_group`` is asked for every group, as any policy is.

    Args:
        policy: The other policy.

    Attributes:
        policy: The other policy.
    """

    plans_groups = False  # as the policy has it, not because the method is there

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.observes = policy.observes
        self.plans_groups = type(self).plans_groups or policy.plans_groups
        self.training_clips = policy.training_clips

    def options(self, options: EncoderOptions) -> EncoderOptions:
        """Return the policy's options."""
        return self.policy.options(options)

    def begin(self, episode: Episode) -> None:
        """Start the policy's encode."""
        self.policy.begin(episode)

    def plan_group(self, group: Group) -> ArrayLike | None:
        """Return the policy's word on the group."""
        return self.policy.plan_group(group)

    def decide(self, frame: Frame) -> Decision:
        """Return the policy's decision."""
        return self.policy.decide(frame)

    def overruled(self, frame: Frame, decision: Decision) -> None:
        """Tell the policy."""
        self.policy.overruled(frame, decision)

    def review(self, log: EncodeLog) -> EncodeLog | None:
        """Return what the policy makes of the encode."""
        return self.policy.review(log)
