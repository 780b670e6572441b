"""Rewards by name."""

from collections.abc import Callable
from typing import Any

from vpxrc.envs.gain import GainReward
from vpxrc.envs.relative import RelativeReward
from vpxrc.envs.rewards import (
    AnyReward,
    LagrangianReward,
    PsnrReward,
    Reward,
    SelfCompetition,
    VideoReward,
)
from vpxrc.errors import InputError

DEFAULT_REWARD = "relative"
_AUGMENTED_PRICE = 0.005  # dB per kbit/s, the paper's


def _named(cost_limit: float) -> dict[str, Callable[[], Reward]]:
    return {
        "relative": lambda: RelativeReward(cost_limit),
        "psnr": PsnrReward,
        "lagrangian": LagrangianReward,
        "gain": GainReward,
        "self-competition": SelfCompetition,
        "self-competition-augmented": lambda: SelfCompetition(overshoot_price=_AUGMENTED_PRICE),
    }


REWARD_NAMES: tuple[str, ...] = tuple(_named(1.0))


def make_reward(reward: str | AnyReward, cost_limit: float = 1.0) -> AnyReward:
    """Return a reward by its name; an object that is one is returned as it is.

    Args:
        reward: One of ``REWARD_NAMES``, or an object as :class:`vpxrc.envs.Reward` or
            :class:`vpxrc.envs.VideoReward` describes it.
        cost_limit: Achieved over target bitrate up to which ``relative`` has no price.

    Raises:
        InputError: It is neither.
    """
    if isinstance(reward, str):
        named = _named(cost_limit)
        if reward not in named:
            raise InputError(f"unknown reward {reward!r}: choose from {', '.join(named)}")
        return named[reward]()
    given: Any = reward
    if isinstance(given, type) or not (callable(given) or isinstance(given, VideoReward)):
        raise InputError(
            f"reward must be a name ({', '.join(REWARD_NAMES)}) or an object that is called with "
            f"the log, not {given!r:.80}"
        )
    return reward
