"""The rate-control problem as Gymnasium environments; importing this registers them."""

from gymnasium.envs.registration import register

from vpxrc.envs.columns import Column, Table
from vpxrc.envs.direct import RateControlContinuousEnv, RateControlEnv
from vpxrc.envs.episode import EncodeEpisode
from vpxrc.envs.gain import GainReward
from vpxrc.envs.observations import observation_space
from vpxrc.envs.pool import EpisodePool
from vpxrc.envs.residual.config import FRAME_OFFSETS, GROUP_OFFSETS, ResidualConfig
from vpxrc.envs.residual.controller import ResidualController
from vpxrc.envs.residual.env import (
    ResidualProblem,
    ResidualRateControlContinuousEnv,
    ResidualRateControlEnv,
)
from vpxrc.envs.residual.observation import OBSERVATION
from vpxrc.envs.rewards import (
    HistoricalOpponent,
    LagrangianReward,
    PsnrReward,
    Reward,
    SelfCompetition,
    StepReward,
)
from vpxrc.envs.tables import TABLES
from vpxrc.envs.vector import (
    EncodeVectorEnv,
    RateControlContinuousVectorEnv,
    RateControlVectorEnv,
    ResidualRateControlContinuousVectorEnv,
    ResidualRateControlVectorEnv,
)

__all__ = [
    "FRAME_OFFSETS",
    "GROUP_OFFSETS",
    "OBSERVATION",
    "TABLES",
    "Column",
    "EncodeEpisode",
    "EncodeVectorEnv",
    "EpisodePool",
    "GainReward",
    "HistoricalOpponent",
    "LagrangianReward",
    "PsnrReward",
    "RateControlContinuousEnv",
    "RateControlContinuousVectorEnv",
    "RateControlEnv",
    "RateControlVectorEnv",
    "ResidualConfig",
    "ResidualController",
    "ResidualProblem",
    "ResidualRateControlContinuousEnv",
    "ResidualRateControlContinuousVectorEnv",
    "ResidualRateControlEnv",
    "ResidualRateControlVectorEnv",
    "Reward",
    "SelfCompetition",
    "StepReward",
    "Table",
    "observation_space",
]

for _id, _name in (
    ("vpxrc/RateControl-v1", "RateControl"),
    ("vpxrc/RateControlContinuous-v1", "RateControlContinuous"),
    ("vpxrc/ResidualRateControl-v0", "ResidualRateControl"),
    ("vpxrc/ResidualRateControlContinuous-v0", "ResidualRateControlContinuous"),
):
    register(
        id=_id,
        entry_point=f"vpxrc.envs:{_name}Env",
        vector_entry_point=f"vpxrc.envs:{_name}VectorEnv",
    )
