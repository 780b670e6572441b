"""What episodes are measured against, and their rewards."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vpxrc.agents.muzero.actor import ReferenceJob, Task, open_task
from vpxrc.agents.muzero.network import Array
from vpxrc.agents.muzero.purpose import MuZeroReward, Purpose
from vpxrc.encoder.log import EncodeLog
from vpxrc.envs.gain import GainReward
from vpxrc.envs.rewards import HistoricalOpponent, SelfCompetition, SharedReward
from vpxrc.errors import InputError

# The second target of a clip that has only one, as a multiple of it: a slope takes two encodes.
SECOND_TARGET = 1.3
# dB per doubling of the bits, where the reference does not spend more at a higher target.
TYPICAL_SLOPE = 3.0


def missing_references(purpose: Purpose, reward: MuZeroReward) -> tuple[list[ReferenceJob], int]:
    """Return the encodes that a reward's table lacks, a job per clip, and the number of clips."""
    if isinstance(reward, SelfCompetition):
        return [], 0
    if isinstance(reward, GainReward):
        known = {entry["clip"] for entry in reward.state_dict()["references"]}
    else:
        known = {clip for clip, _ in reward.table}
    by_clip: dict[str, list[Task]] = {}
    for task in purpose.tasks:
        by_clip.setdefault(open_task(task).content_hash, []).append(task)
    jobs = []
    for clip, tasks in by_clip.items():
        if clip in known:
            continue
        if len(tasks) == 1 and isinstance(reward, GainReward):
            other = round(SECOND_TARGET * tasks[0].options.target_bitrate)
            options = dataclasses.replace(tasks[0].options, target_bitrate=other)
            tasks = [*tasks, Task(tasks[0].clip, options)]
        jobs.append(ReferenceJob(tuple(tasks), purpose.reference or purpose.residual.base))
    return jobs, len(by_clip)


def add_references(reward: MuZeroReward, logs: Sequence[EncodeLog]) -> None:
    """Take encodes of one clip into a reward's table; self-competition has no such encodes.

    Raises:
        InputError: No gain can be counted from them.
    """
    if isinstance(reward, HistoricalOpponent):
        for log in logs:
            reward.record(log)
    elif isinstance(reward, GainReward):
        for slope in (None, TYPICAL_SLOPE):
            for log in logs:
                reward.reference(log, slope)
            try:
                for log in logs:
                    reward(log)
                return
            except InputError:  # no slope
                if slope is not None:
                    raise


def episode_rewards(
    reward: MuZeroReward, log: EncodeLog, steps: list[tuple[int, int]]
) -> tuple[Array, float | None]:
    """Return the reward of each step of an episode, and whether it was won.

    Args:
        reward: The reward. Self-competition takes the episode into its table.
        log: The episode's encode.
        steps: Its T steps, as in :class:`vpxrc.agents.muzero.actor.Played`.

    Returns:
        float32 ``[T]``; and 1 for a win, 0.5 for a draw, 0 for a loss, None where there was nothing
        to win against.
    """
    if isinstance(reward, SharedReward):
        rewards = reward.per_step(log, steps)
        value, is_known = float(rewards.sum()), True
    else:
        is_known = (log.clip.content_hash, log.options.target_bitrate) in reward.table
        value = reward(log)
        rewards = np.zeros(len(steps), np.float32)
        rewards[-1] = value
    return rewards, 0.5 + 0.5 * float(np.sign(value)) if is_known else None
