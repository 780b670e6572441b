"""The rate-control problem as Gymnasium environments; importing this registers them."""

from gymnasium.envs.registration import register

from vpxrc.envs.direct import RateControlContinuousEnv, RateControlEnv
from vpxrc.envs.gain import GainReward
from vpxrc.envs.observations import TABLES, Column, observation_space
from vpxrc.envs.residual.config import FRAME_MOVES, GROUP_MOVES, ResidualConfig
from vpxrc.envs.residual.env import ResidualRateControlContinuousEnv, ResidualRateControlEnv
from vpxrc.envs.residual.episode import ResidualEpisode
from vpxrc.envs.residual.observation import OBSERVATION
from vpxrc.envs.rewards import (
    HistoricalOpponent,
    LagrangianReward,
    PsnrReward,
    Reward,
    SelfCompetition,
    StepReward,
)
from vpxrc.envs.vector import RateControlContinuousVectorEnv, RateControlVectorEnv

__all__ = [
    "FRAME_MOVES",
    "GROUP_MOVES",
    "OBSERVATION",
    "TABLES",
    "Column",
    "GainReward",
    "HistoricalOpponent",
    "LagrangianReward",
    "PsnrReward",
    "RateControlContinuousEnv",
    "RateControlContinuousVectorEnv",
    "RateControlEnv",
    "RateControlVectorEnv",
    "ResidualConfig",
    "ResidualEpisode",
    "ResidualRateControlContinuousEnv",
    "ResidualRateControlEnv",
    "Reward",
    "SelfCompetition",
    "StepReward",
    "observation_space",
]

for _id, _env in (
    ("vpxrc/RateControl-v1", "RateControl"),
    ("vpxrc/RateControlContinuous-v1", "RateControlContinuous"),
):
    register(
        id=_id,
        entry_point=f"vpxrc.envs:{_env}Env",
        vector_entry_point=f"vpxrc.envs:{_env}VectorEnv",
    )
for _id, _env in (
    ("vpxrc/ResidualRateControl-v0", "ResidualRateControlEnv"),
    ("vpxrc/ResidualRateControlContinuous-v0", "ResidualRateControlContinuousEnv"),
):
    register(id=_id, entry_point=f"vpxrc.envs:{_env}")
