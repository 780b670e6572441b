"""LightZero's MuZero on the clips of the standard task Small: an environment and a configuration.

    python examples/lightzero_muzero.py --max-env-step 20000

LightZero 0.2.0 and DI-engine 0.5.3 ask for old packages (gym 0.25.1, numpy below 2), so they want a
virtual environment of their own; docs/recipes.md has what was tried. The environment is
``vpxrc/ResidualRateControl-v1`` with a decision per frame over a constant q. An action is one of
nine offsets from 5.7 times finer to 5.7 times coarser.
"""

import argparse
from typing import Any

import gymnasium
import numpy as np
from ding.envs import BaseEnv, BaseEnvTimestep
from ding.utils import ENV_REGISTRY
from easydict import EasyDict
from lzero.entry import train_muzero

import vpxrc.envs  # noqa: F401 - registers the environments

LEVELS = (0.0, -2.5, -1.5, -1.0, -0.5, 0.5, 1.0, 1.5, 2.5)  # log2 of the quantiser step
ENV = {
    "clips": "small-train",
    "target_bitrate": [24, 48, 96],
    "base": "constant-q:128",
    "decisions": "frame",
    "offsets": [(level, 0.0) for level in LEVELS],
    "max_frames": 12,
    "cpu_used": 8,
}
INPUTS = 120  # numbers of an observation


@ENV_REGISTRY.register("vpxrc_lightzero")
class LightZeroEnv(BaseEnv):
    """An environment with discrete actions, as LightZero's own environments are.

    Args:
        cfg: LightZero's configuration; ``env_id`` is read.
    """

    def __init__(self, cfg: EasyDict) -> None:
        self._env = gymnasium.make(cfg.env_id, **ENV)
        self.observation_space = self._env.observation_space
        self.action_space = self._env.action_space
        self.reward_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self._seed: int | None = None
        self._return, self._steps = 0.0, 0

    def seed(self, seed: int, dynamic_seed: bool = True) -> None:
        """Set the seed of the next episode; those after it go on drawing."""
        self._seed = seed

    def reset(self) -> dict[str, Any]:
        """Start an episode."""
        observation, _ = self._env.reset(seed=self._seed)
        self._seed, self._return, self._steps = None, 0.0, 0
        return self._seen(observation)

    def step(self, action: Any) -> BaseEnvTimestep:
        """Take a step."""
        observation, reward, done, _, _ = self._env.step(int(np.squeeze(action)))
        self._return += float(reward)
        self._steps += 1
        info = {"eval_episode_return": self._return} if done else {}
        return BaseEnvTimestep(self._seen(observation), float(reward), bool(done), info)

    def close(self) -> None:
        """End the encode."""
        self._env.close()

    def random_action(self) -> np.ndarray:
        """Return a random action."""
        return np.array([self.action_space.sample()], np.int64)

    def __repr__(self) -> str:
        """Return a name for LightZero's log."""
        return f"LightZeroEnv({self._env.spec.id})"

    def _seen(self, observation: np.ndarray) -> dict[str, Any]:
        mask = self._env.unwrapped.action_masks().astype(np.int8)
        return {
            "observation": observation,
            "action_mask": mask,
            "to_play": -1,
            "timestep": self._steps,
        }


def configuration(args: argparse.Namespace) -> tuple[EasyDict, EasyDict]:
    """Return LightZero's two configurations."""
    main_config = {
        "exp_name": args.out,
        "env": {
            "env_id": "vpxrc/ResidualRateControl-v1",
            "stop_value": 1e6,
            "collector_env_num": 8,
            "evaluator_env_num": 3,
            "n_evaluator_episode": 3,
            "manager": {"shared_memory": False},
        },
        "policy": {
            "model": {
                "observation_shape": INPUTS,
                "action_space_size": len(LEVELS),
                "model_type": "mlp",
                "latent_state_dim": 128,
                "self_supervised_learning_loss": True,
                "discrete_action_encoding_type": "one_hot",
                "norm_type": "BN",
            },
            "cuda": False,
            "env_type": "not_board_games",
            "action_type": "fixed_action_space",
            "game_segment_length": 20,
            "update_per_collect": args.updates,
            "batch_size": 64,
            "optim_type": "Adam",
            "piecewise_decay_lr_scheduler": False,
            "learning_rate": 0.003,
            "discount_factor": 1.0,
            "num_simulations": args.simulations,
            "n_episode": 8,
            "eval_freq": 100,
            "replay_buffer_size": 100_000,
            "collector_env_num": 8,
            "evaluator_env_num": 3,
        },
    }
    create_config = {
        "env": {"type": "vpxrc_lightzero", "import_names": []},
        "env_manager": {"type": "base"},
        "policy": {"type": "muzero", "import_names": ["lzero.policy.muzero"]},
    }
    return EasyDict(main_config), EasyDict(create_config)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return the arguments of the command."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-env-step", type=int, default=20_000)
    parser.add_argument("--simulations", type=int, default=25, help="of the tree search")
    parser.add_argument("--updates", type=int, default=50, help="after every 8 episodes")
    parser.add_argument("--out", default="lightzero", help="a folder for LightZero's files")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> Any:
    """Train, and return LightZero's policy."""
    args = parse(arguments)
    return train_muzero(configuration(args), seed=args.seed, max_env_step=args.max_env_step)


if __name__ == "__main__":
    main()
