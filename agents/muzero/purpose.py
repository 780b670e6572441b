"""What a MuZero agent is trained for: clips and targets, what it acts on, and its reward."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from vpxrc.agents.muzero.actor import Task
from vpxrc.envs.gain import GainReward
from vpxrc.envs.residual.config import ResidualConfig, make_base
from vpxrc.envs.rewards import HistoricalOpponent, SelfCompetition
from vpxrc.errors import InputError
from vpxrc.policies.registry import make_policy

RewardName = Literal["gain", "strict", "augmented", "opponent"]
REWARDS: tuple[str, ...] = get_args(RewardName)
# The paper's dB per kbit/s was for targets about this one; a rate-distortion curve, of so many dB
# per doubling, is steeper at lower ones.
PAPER_PRICE, PAPER_TARGET = 0.005, 512

MuZeroReward = GainReward | SelfCompetition | HistoricalOpponent


@dataclass(frozen=True)
class Purpose:
    """What an agent is trained for.

    Attributes:
        tasks: The clips and targets.
        residual: The base policy, the decision points and the offsets.
        reward: ``gain``: :class:`vpxrc.envs.GainReward`, percent of bits saved, paid step by step;
            ``strict`` and ``augmented``: :class:`vpxrc.envs.SelfCompetition`; ``opponent``:
            :class:`vpxrc.envs.HistoricalOpponent`, replaced by the agent of the time when it is
            beaten in 55 % of the last 200 episodes.
        overshoot_price: What ``augmented`` deducts for overshoot, dB per kbit/s. None: the paper's
            0.005, which was for targets of 256 to 768 kbit/s, times 512 over the tasks' mean
            target.
        reference: Spec of the policy that ``gain`` and, at first, ``opponent`` measure against;
            None for the base policy.
    """

    tasks: tuple[Task, ...]
    residual: ResidualConfig
    reward: RewardName = "gain"
    overshoot_price: float | None = None
    reference: str | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without reading a clip."""
        if not self.tasks:
            raise InputError("nothing to train on: no clips or no bitrates")
        if self.reward not in REWARDS:
            raise InputError(f"unknown reward {self.reward!r}: choose from {', '.join(REWARDS)}")
        make_base(self.residual.base)
        if self.reference is not None:
            make_policy(self.reference)

    def make_reward(self) -> MuZeroReward:
        """Return the reward, without a table."""
        if self.reward == "gain":
            return GainReward()
        if self.reward == "opponent":
            return HistoricalOpponent()
        if self.reward == "strict":
            return SelfCompetition()
        price = self.overshoot_price
        if price is None:
            targets = [math.log(task.options.target_bitrate) for task in self.tasks]
            price = PAPER_PRICE * PAPER_TARGET / math.exp(sum(targets) / len(targets))
        return SelfCompetition(overshoot_price=price)
