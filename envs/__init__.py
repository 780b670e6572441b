"""The rate-control problem as Gymnasium environments; importing this registers them."""

from gymnasium.envs.registration import register

from vpxrc.envs.columns import Column, Table
from vpxrc.envs.direct import MORateControlEnv, RateControlContinuousEnv, RateControlEnv
from vpxrc.envs.episode import EncodeEpisode
from vpxrc.envs.flat import FLAT, FLAT_COLUMNS
from vpxrc.envs.gain import GainReward
from vpxrc.envs.named import REWARD_NAMES, make_reward
from vpxrc.envs.observations import observation_space
from vpxrc.envs.pool import EpisodePool
from vpxrc.envs.relative import RelativeReward
from vpxrc.envs.residual.config import FRAME_OFFSETS, GROUP_OFFSETS, ResidualConfig
from vpxrc.envs.residual.controller import ResidualController
from vpxrc.envs.residual.env import (
    ResidualProblem,
    ResidualRateControlContinuousEnv,
    ResidualRateControlEnv,
)
from vpxrc.envs.residual.observation import OBSERVATION
from vpxrc.envs.rewards import (
    EncodeSoFar,
    FirstRows,
    HistoricalOpponent,
    LagrangianReward,
    PreparedReward,
    PsnrReward,
    QualityAndRate,
    Reward,
    SelfCompetition,
    SharedReward,
    StepReward,
    VideoReward,
)
from vpxrc.envs.standard import (
    STANDARD_TASKS,
    MediumEnv,
    MediumVectorEnv,
    ScoredEpisode,
    SmallEnv,
    SmallVectorEnv,
    StandardTask,
    play_split,
)
from vpxrc.envs.tables import TABLES
from vpxrc.envs.vector import (
    EncodeVectorEnv,
    MORateControlVectorEnv,
    RateControlContinuousVectorEnv,
    RateControlVectorEnv,
    ResidualRateControlContinuousVectorEnv,
    ResidualRateControlVectorEnv,
)

__all__ = [
    "FLAT",
    "FLAT_COLUMNS",
    "FRAME_OFFSETS",
    "GROUP_OFFSETS",
    "OBSERVATION",
    "REWARD_NAMES",
    "STANDARD_TASKS",
    "TABLES",
    "Column",
    "EncodeEpisode",
    "EncodeSoFar",
    "EncodeVectorEnv",
    "EpisodePool",
    "FirstRows",
    "GainReward",
    "HistoricalOpponent",
    "LagrangianReward",
    "MORateControlEnv",
    "MORateControlVectorEnv",
    "MediumEnv",
    "MediumVectorEnv",
    "PreparedReward",
    "PsnrReward",
    "QualityAndRate",
    "RateControlContinuousEnv",
    "RateControlContinuousVectorEnv",
    "RateControlEnv",
    "RateControlVectorEnv",
    "RelativeReward",
    "ResidualConfig",
    "ResidualController",
    "ResidualProblem",
    "ResidualRateControlContinuousEnv",
    "ResidualRateControlContinuousVectorEnv",
    "ResidualRateControlEnv",
    "ResidualRateControlVectorEnv",
    "Reward",
    "ScoredEpisode",
    "SelfCompetition",
    "SharedReward",
    "SmallEnv",
    "SmallVectorEnv",
    "StandardTask",
    "StepReward",
    "Table",
    "VideoReward",
    "make_reward",
    "observation_space",
    "play_split",
]

for _id, _name in (
    ("vpxrc/RateControl-v2", "RateControl"),
    ("vpxrc/RateControlContinuous-v2", "RateControlContinuous"),
    ("vpxrc/MORateControl-v0", "MORateControl"),
    ("vpxrc/ResidualRateControl-v1", "ResidualRateControl"),
    ("vpxrc/ResidualRateControlContinuous-v1", "ResidualRateControlContinuous"),
    ("vpxrc/Small-v0", "Small"),
    ("vpxrc/Medium-v0", "Medium"),
):
    register(
        id=_id,
        entry_point=f"vpxrc.envs:{_name}Env",
        vector_entry_point=f"vpxrc.envs:{_name}VectorEnv",
        disable_env_checker=_name.startswith("MO"),  # it takes no vector for a reward
    )

# Earlier versions, with the observations and the reward that they had.
for _id, _name, _observation in (
    ("vpxrc/RateControl-v1", "RateControl", "dict"),
    ("vpxrc/RateControlContinuous-v1", "RateControlContinuous", "dict"),
    ("vpxrc/ResidualRateControl-v0", "ResidualRateControl", "columns"),
    ("vpxrc/ResidualRateControlContinuous-v0", "ResidualRateControlContinuous", "columns"),
):
    register(
        id=_id,
        entry_point=f"vpxrc.envs:{_name}Env",
        vector_entry_point=f"vpxrc.envs:{_name}VectorEnv",
        kwargs={"observation": _observation, "reward": "psnr"},
    )
