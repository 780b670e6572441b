"""RLlib's new API stack as it is used here: networks, offline data, algorithms, environments.

Importing this imports Ray and torch; nothing that decides does.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.algorithms.bc.bc_catalog import BCCatalog
from ray.rllib.algorithms.marwil import MARWILConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.algorithms.sac import SACConfig
from ray.rllib.algorithms.sac.sac_catalog import SACCatalog
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.configs import MLPEncoderConfig
from ray.rllib.core.models.torch.encoder import TorchMLPEncoder
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env import INPUT_ENV_SPACES
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.offline.offline_data import OfflineData
from ray.rllib.offline.offline_prelearner import OfflinePreLearner
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils import unflatten_dict
from ray.tune.registry import register_env

from vpxrc.agents.rllib.config import OFFLINE, RllibConfig
from vpxrc.agents.rllib.offline import read_episodes
from vpxrc.agents.rllib.policy import LIMIT
from vpxrc.envs.residual.config import ResidualConfig
from vpxrc.envs.residual.env import ResidualRateControlContinuousEnv, ResidualRateControlEnv
from vpxrc.envs.residual.observation import OBSERVATION

# The networks. RLlib's default modules build what their catalog gives them, so the rest of each
# algorithm's module is as RLlib has it, and its checkpoints are RLlib's.


@dataclass
class ScaledEncoderConfig(MLPEncoderConfig):
    """An MLP over inputs at mean 0 and deviation 1.

    Attributes:
        mean: Mean of each input.
        gain: One over each input's standard deviation.
    """

    mean: tuple[float, ...] = ()
    gain: tuple[float, ...] = ()

    def build(self, framework: str) -> Any:
        """Return the encoder."""
        return ScaledEncoder(self)


class ScaledEncoder(TorchMLPEncoder):
    """See :class:`ScaledEncoderConfig`."""

    def __init__(self, config: ScaledEncoderConfig) -> None:
        super().__init__(config)
        self.register_buffer("mean", torch.tensor(config.mean, dtype=torch.float32))
        self.register_buffer("gain", torch.tensor(config.gain, dtype=torch.float32))

    def _forward(self, inputs: dict[str, Any], **kwargs: Any) -> Any:
        scaled = ((inputs[Columns.OBS] - self.mean) * self.gain).clamp(-LIMIT, LIMIT)
        return super()._forward({**inputs, Columns.OBS: scaled}, **kwargs)


class _Adapted:
    """Encoders that scale, and a policy head that starts with what ``model_config`` says.

    The encoders scale by ``observation_mean`` and ``observation_gain``. The policy puts out
    ``head_bias`` for every observation until it has learned.
    """

    def _determine_components_hook(self: Any) -> None:
        # RLlib's catalog is the other base of what this is mixed into, which mypy cannot see.
        super()._determine_components_hook()  # type: ignore[misc]
        plain = self._encoder_config
        given = {field.name: getattr(plain, field.name) for field in fields(plain)}
        self._encoder_config = ScaledEncoderConfig(
            **given,
            mean=tuple(self._model_config_dict["observation_mean"]),
            gain=tuple(self._model_config_dict["observation_gain"]),
        )

    def build_pi_head(self: Any, framework: str) -> Any:
        head = super().build_pi_head(framework)  # type: ignore[misc]  # as above
        last = [layer for layer in head.modules() if isinstance(layer, torch.nn.Linear)][-1]
        with torch.no_grad():
            last.weight.zero_()
            last.bias.copy_(torch.tensor(self._model_config_dict["head_bias"]))
        return head


class PpoCatalog(_Adapted, PPOCatalog):
    """Builds the networks of ppo and marwil."""


class SacCatalog(_Adapted, SACCatalog):
    """Builds the networks of sac."""


class BcCatalog(_Adapted, BCCatalog):
    """Builds the networks of bc."""


def head_bias(
    actions: gymnasium.Space[Any], base_share: float | None, spread: float
) -> list[float]:
    """Return what an untrained policy puts out: logits, or means and logarithms of deviations.

    Args:
        actions: ``Discrete``, or ``Box`` of one dimension.
        base_share: Probability of action 0; None for the same of all.
        spread: The deviations.
    """
    if isinstance(actions, gymnasium.spaces.Discrete):
        bias = [0.0] * int(actions.n)
        if base_share is not None and len(bias) > 1:
            bias[0] = math.log(base_share / (1 - base_share) * (len(bias) - 1))
        return bias
    assert isinstance(actions, gymnasium.spaces.Box)
    (size,) = actions.shape
    return [0.0] * size + [math.log(spread)] * size


# The offline data


class WholeEpisodes(OfflinePreLearner):
    """Takes rows of whole episodes to the learner.

    RLlib's own reader makes one-step episodes of them, which leaves marwil's returns to be
    bootstrapped from a value function that has not learned yet.
    """

    def _map_to_episodes(
        self, batch: dict[str, Any], to_numpy: bool = False, **kwargs: Any
    ) -> dict[str, list[Any]]:
        """Return the episodes of rows as :func:`vpxrc.agents.rllib.offline.read_episodes` has."""
        episodes = []
        for place, (seen, actions, rewards) in enumerate(
            zip(batch[Columns.OBS], batch[Columns.ACTIONS], batch[Columns.REWARDS], strict=True)
        ):
            episode = SingleAgentEpisode(
                id_=str(place),
                observation_space=self.observation_space,
                action_space=self.action_space,
                observations=list(seen),
                actions=list(actions),
                rewards=rewards.tolist(),
                terminated=True,
                len_lookback_buffer=0,
            )
            episode.to_numpy()
            episodes.append(episode)
        return {"episodes": episodes}


class Lessons(OfflineData):
    """The episodes of parquet files, in this process.

    There are a few thousand steps at most, so they are taken through the learner's connectors once
    and kept. RLlib's own class has Ray Data read them, which takes two more processors.
    """

    def __init__(self, config: AlgorithmConfig) -> None:
        self.config = config
        self.module_spec: Any = None  # this and the next four are set by the algorithm
        self.learner_handles: Any = None
        self.locality_hints: Any = None
        self.spaces: Any = None
        self.is_multi_agent = False
        self.iter_batches_kwargs: dict[str, Any] = {}
        self._columns: dict[str, NDArray[Any]] = {}
        self._rng = np.random.default_rng(config.seed)
        self._order: list[int] = []  # of the steps to come

    def sample(
        self,
        num_samples: int,
        return_iterator: bool = False,
        num_shards: int = 1,
        module_state: dict[str, Any] | None = None,
    ) -> Any:
        """Return steps in a random order, every one once before any comes again."""
        assert not return_iterator and num_shards <= 1  # a local learner, one update at a time
        if not self._columns:
            self._columns = self._learnable()
        steps = len(next(iter(self._columns.values())))
        while len(self._order) < num_samples:
            self._order += self._rng.permutation(steps).tolist()
        rows, self._order = self._order[:num_samples], self._order[num_samples:]
        batch = SampleBatch({name: values[rows] for name, values in self._columns.items()})
        return MultiAgentBatch({DEFAULT_MODULE_ID: batch}, env_steps=num_samples)

    def state_dict(self) -> dict[str, Any]:
        """Return which steps come next, in a form that JSON takes."""
        return {"generator": self._rng.bit_generator.state, "order": self._order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the steps that :meth:`state_dict` told, while the network has not learned.

        Its values are in the columns, if only by rounding errors.
        """
        self._columns = self._learnable()
        self._rng.bit_generator.state = state["generator"]
        self._order = state["order"]

    def _learnable(self) -> dict[str, NDArray[Any]]:
        state = self.learner_handles[0].get_state(component=COMPONENT_RL_MODULE)
        prepare = self.config.prelearner_class(
            config=self.config,
            spaces=self.spaces[INPUT_ENV_SPACES],
            module_spec=self.module_spec,
            module_state=state[COMPONENT_RL_MODULE],
        )
        episodes = [episode for path in self.config.input_ for episode in read_episodes(path)]
        columns = unflatten_dict(
            prepare(
                {
                    Columns.OBS: [episode.observations for episode in episodes],
                    Columns.ACTIONS: [episode.actions for episode in episodes],
                    Columns.REWARDS: [episode.rewards for episode in episodes],
                }
            )
        )[DEFAULT_MODULE_ID]
        arrays = {name: np.asarray(values) for name, values in columns.items()}
        # The connectors add a step to every episode, for values to start from; it is no lesson.
        inside = arrays.pop(Columns.LOSS_MASK, None)
        if inside is not None:
            arrays = {name: values[inside] for name, values in arrays.items()}
        return arrays


# The algorithms

_ENVIRONMENT = "vpxrc-residual"  # its name in RLlib
_WINDOW = 100  # episodes that a mean is over, as that of the return that RLlib tells
_CONFIGS = {"ppo": PPOConfig, "sac": SACConfig, "bc": BCConfig, "marwil": MARWILConfig}
_CATALOGS = {"ppo": PpoCatalog, "sac": SacCatalog, "bc": BcCatalog, "marwil": PpoCatalog}


def spaces(algorithm: str, config: ResidualConfig) -> tuple[gymnasium.Space[Any], ...]:
    """Return the spaces of observations and actions."""
    actions: gymnasium.Space[Any] = gymnasium.spaces.Discrete(len(config.actions))
    if algorithm == "sac":
        actions = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    return gymnasium.spaces.Box(-4, 4, (len(OBSERVATION),), np.float32), actions


def algorithm_config(
    algorithm: str,
    config: ResidualConfig,
    own: RllibConfig,
    *,
    mean: list[float],
    gain: list[float],
    seed: int = 0,
    runners: int = 0,
    device: str = "cpu",
    environment: dict[str, Any] | None = None,
    episodes: Sequence[str] = (),
    variance: float = 1.0,
) -> AlgorithmConfig:
    """Return RLlib's configuration of an algorithm.

    Args:
        algorithm: One of ``ALGORITHMS``.
        config: The problem.
        own: How it trains.
        mean: Means of the observations.
        gain: One over their standard deviations.
        seed: Seed of everything random.
        runners: Processes that act; 0: this one.
        device: Device of the learner, ``cpu`` or ``cuda``.
        environment: What :func:`make_environment` takes; for ppo and sac.
        episodes: Files of episodes; for bc and marwil.
        variance: Variance of the episodes' returns; for marwil.
    """
    made = _CONFIGS[algorithm]()
    seen, actions = spaces(algorithm, config)
    made.environment(observation_space=seen, action_space=actions)
    made.debugging(seed=seed, log_level="ERROR")
    made.learners(num_learners=0, num_gpus_per_learner=int(device == "cuda"))
    made.fault_tolerance(restart_failed_env_runners=False)
    model = {
        "fcnet_hiddens": list(own.hidden),
        "fcnet_activation": own.activation,
        "fusionnet_hiddens": [own.hidden[-1]],
        "fusionnet_activation": own.activation,
        "vf_share_layers": False,
        "observation_mean": mean,
        "observation_gain": gain,
        "head_bias": head_bias(actions, own.base_share, own.spread),
    }
    catalog = _CATALOGS[algorithm]
    made.rl_module(rl_module_spec=RLModuleSpec(catalog_class=catalog, model_config=model))
    made.training(gamma=1.0, train_batch_size_per_learner=own.batch)
    if algorithm in OFFLINE:
        _set_offline(made, algorithm, own, episodes, variance)
    else:
        _set_online(made, algorithm, own, runners, environment or {})
    return made


def _set_offline(
    made: AlgorithmConfig,
    algorithm: str,
    own: RllibConfig,
    episodes: Sequence[str],
    variance: float,
) -> None:
    """Set what bc and marwil have of their own."""
    made.offline_data(
        input_=list(episodes),
        offline_data_class=Lessons,
        prelearner_class=WholeEpisodes,
        dataset_num_iters_per_learner=1,
    )
    made.training(lr=own.rate_of(algorithm))
    if algorithm == "marwil":
        made.training(
            beta=own.beta,
            moving_average_sqd_adv_norm_start=variance,
            moving_average_sqd_adv_norm_update_rate=1e-2,
        )


def _set_online(
    made: AlgorithmConfig,
    algorithm: str,
    own: RllibConfig,
    runners: int,
    environment: dict[str, Any],
) -> None:
    """Set what ppo and sac have of their own."""
    rate = own.rate_of(algorithm)
    register_env(_ENVIRONMENT, make_environment)
    made.environment(_ENVIRONMENT, env_config=environment)
    made.env_runners(
        env_runner_cls=Runner,
        num_env_runners=runners,
        num_cpus_per_env_runner=1,
        # RLlib drops what a runner plays in more than a minute, and then learns from nothing.
        sample_timeout_s=None,
    )
    made.callbacks(on_episode_end=note_overshoot)
    if algorithm == "ppo":
        made.env_runners(batch_mode="complete_episodes")
        made.training(
            lr=rate,
            lambda_=own.trace,
            num_epochs=own.epochs,
            minibatch_size=min(own.minibatch, own.batch),
            entropy_coeff=own.entropy,
            clip_param=own.clip,
            vf_clip_param=math.inf,  # returns are percent
            use_kl_loss=False,
            grad_clip=1.0,
        )
    else:
        made.training(
            actor_lr=rate,
            critic_lr=rate,
            alpha_lr=rate,
            training_intensity=own.reuse,
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": own.replay},
            num_steps_sampled_before_learning_starts=own.warmup,
            grad_clip=10.0,
        )
        made.reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=own.steps)


# What RLlib's processes call


class Runner(SingleAgentEnvRunner):
    """RLlib's, but that an error in it is told; RLlib's own ends its process without a word."""

    def apply(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what a function makes of this runner."""
        return func(self, *args, **kwargs)


def make_environment(context: Any) -> gymnasium.Env[Any, Any]:
    """Make an environment from the arguments that :func:`algorithm_config` was given.

    Args:
        context: RLlib's: a dictionary.
    """
    arguments = dict(context)
    kind = ResidualRateControlContinuousEnv if "reach" in arguments else ResidualRateControlEnv
    return kind(**arguments, observation="columns")


def note_overshoot(*, episode: Any, metrics_logger: Any, **kwargs: Any) -> None:
    """Tell RLlib's metrics by how much a finished encode missed its target."""
    overshoot = episode.get_infos(-1)["overshoot"]
    metrics_logger.log_value("overshoot", overshoot, reduce="mean", window=_WINDOW)
