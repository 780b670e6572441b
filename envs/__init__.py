"""The rate-control problem as Gymnasium environments; importing this registers them."""

from gymnasium.envs.registration import register

from vpxrc.envs.observations import TABLES, Column, observation_space
from vpxrc.envs.planned import (
    FRAME_MOVES,
    GROUP_MOVES,
    OBSERVATION,
    PlannedConfig,
    PlannedEpisode,
    PlannedRateControlContinuousEnv,
    PlannedRateControlEnv,
)
from vpxrc.envs.rate_control import RateControlContinuousEnv, RateControlEnv
from vpxrc.envs.rewards import (
    GainReward,
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
    "PlannedConfig",
    "PlannedEpisode",
    "PlannedRateControlContinuousEnv",
    "PlannedRateControlEnv",
    "PsnrReward",
    "RateControlContinuousEnv",
    "RateControlContinuousVectorEnv",
    "RateControlEnv",
    "RateControlVectorEnv",
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
    ("vpxrc/PlannedRateControl-v0", "PlannedRateControlEnv"),
    ("vpxrc/PlannedRateControlContinuous-v0", "PlannedRateControlContinuousEnv"),
):
    register(id=_id, entry_point=f"vpxrc.envs:{_env}")
