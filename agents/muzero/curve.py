"""The figures of a training, iteration by iteration."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from vpxrc.agents.muzero.actor import Played
from vpxrc.agents.muzero.purpose import MuZeroReward
from vpxrc.encoder.log import EncodeLog
from vpxrc.envs.gain import GainReward
from vpxrc.envs.rewards import SelfCompetition

WINDOW = 200  # episodes that the win rate is over, and iterations that the last means are over

Row = dict[str, float]


def episode_figures(
    reward: MuZeroReward,
    played: Sequence[Played],
    logs: Sequence[EncodeLog],
    returns: Sequence[float],
) -> Row:
    """Return what an iteration's row of the curve has of its episodes, mostly means over them.

    Args:
        reward: The reward; self-competition has the averages that it is against.
        played: The episodes.
        logs: Their encodes.
        returns: Their returns.
    """
    actions = np.concatenate([one.actions for one in played])
    overshoots = np.array([log.overshoot for log in logs])
    value = float(np.mean(returns))
    figures = {
        "episode_return": value,
        "gain": value if isinstance(reward, GainReward) else math.nan,
        "overshoot": float(overshoots.mean()),
        "over_target": float((overshoots > 0).mean()),
        "psnr": float(np.mean([log.psnr for log in logs])),
        "kept": float((actions == 0).mean()),
    }
    if isinstance(reward, SelfCompetition):
        quality, overshoot = np.mean([*reward.table.values()], axis=0)
        figures["average_quality"] = float(quality)
        figures["average_overshoot"] = float(overshoot)
    return figures


def win_rate(wins: Sequence[float]) -> float:
    """Return the mean of wins, 1 each, draws, 0.5, and losses, 0; NaN where there are none."""
    return float(np.mean(wins)) if wins else math.nan


def last_means(rows: Sequence[Row]) -> dict[str, Any]:
    """Return means over the last 200 iterations; None where there are none."""
    means = pd.DataFrame(rows[-WINDOW:]).mean().to_dict() if rows else {}
    names = ("episode_return", "gain", "overshoot", "over_target", "kept")
    return {name: means.get(name) for name in names}


def words(row: Row) -> str:
    """Return a row in a line of the progress."""
    return (
        f"return {row['episode_return']:+.2f}, wins {row['win_rate']:.0%}, "
        f"overshoot {row['overshoot']:+.1%}, {row['updates']:.0f} updates"
    )
