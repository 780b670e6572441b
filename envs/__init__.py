"""The rate-control problem as Gymnasium environments; importing this registers them."""

from gymnasium.envs.registration import register

from vpxrc.envs.observations import TABLES, Column, observation_space
from vpxrc.envs.rate_control import RateControlContinuousEnv, RateControlEnv
from vpxrc.envs.rewards import LagrangianReward, PsnrReward, Reward, SelfCompetition
from vpxrc.envs.vector import RateControlContinuousVectorEnv, RateControlVectorEnv

__all__ = [
    "TABLES",
    "Column",
    "LagrangianReward",
    "PsnrReward",
    "RateControlContinuousEnv",
    "RateControlContinuousVectorEnv",
    "RateControlEnv",
    "RateControlVectorEnv",
    "Reward",
    "SelfCompetition",
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
