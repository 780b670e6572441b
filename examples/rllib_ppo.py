"""RLlib's PPO on a standard task, by the environment's name, with runners on a cluster.

    pip install 'vpxrc[ray]'
    python examples/rllib_ppo.py --seed 1 --out submission.json
    vpxrc leaderboard submission.json

A runner is another process, which has not imported vpxrc.envs. So the name has the module in front
of it: ``vpxrc.envs:vpxrc/Small-v0``. ``--address`` joins a cluster, whose nodes all need vpxrc;
``--runners`` are spread over it, each with ``--num-envs`` environments in one process, by the
vector environment of the name.
"""

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from vpxrc.envs.standard import find_task, play_split
from vpxrc.evaluation.leaderboard import write_submission


class Module(DefaultPPOTorchRLModule):
    """RLlib's own networks; they begin as those of ppo.py and of Stable-Baselines3 do."""

    def setup(self) -> None:
        """Make the networks."""
        super().setup()
        for part, gain in ((self.encoder, 2**0.5), (self.pi, 0.01), (self.vf, 1.0)):
            for layer in part.modules():
                if isinstance(layer, torch.nn.Linear):
                    torch.nn.init.orthogonal_(layer.weight, gain)
                    torch.nn.init.zeros_(layer.bias)
        torch.nn.init.constant_(self.pi.log_std, -1.5)


def main(arguments: list[str] | None = None) -> float:
    """Train, play the test split, and return the mean return there."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--env-id", default="vpxrc/Small-v0")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--total-steps", type=int, default=80_000)
    parser.add_argument("--address", help="of a Ray cluster; one starts here without")
    parser.add_argument("--runners", type=int, default=1, help="processes; 0: this one")
    parser.add_argument("--num-envs", type=int, default=8, help="environments of a runner")
    parser.add_argument("--num-steps", type=int, default=96, help="per environment and update")
    parser.add_argument("--curve", help="a CSV file for the returns")
    parser.add_argument("--out", type=Path, help="a submission for `vpxrc leaderboard`")
    args = parser.parse_args(arguments)
    if not ray.is_initialized():
        ray.init(address=args.address, include_dashboard=False, log_to_driver=False)
    batch = args.num_steps * args.num_envs * max(args.runners, 1)
    config = (
        PPOConfig()
        .environment(f"vpxrc.envs:{args.env_id}")
        .env_runners(
            num_env_runners=args.runners,
            num_envs_per_env_runner=args.num_envs,
            gym_env_vectorize_mode="vector_entry_point",
        )
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=Module,
                model_config=DefaultModelConfig(
                    fcnet_hiddens=[64, 64], vf_share_layers=False, free_log_std=True
                ),
            )
        )
        .training(
            lr=[[0, 1e-3], [args.total_steps, 0.0]],
            gamma=1.0,
            lambda_=0.95,
            clip_param=0.2,
            train_batch_size_per_learner=batch,
            minibatch_size=max(batch // 8, 1),
            num_epochs=10,
            vf_loss_coeff=0.5,
            vf_clip_param=100.0,
            use_kl_loss=False,
            grad_clip=0.5,
        )
        .debugging(seed=args.seed)
    )
    algorithm = config.build_algo()
    sampled, begun, curve = 0, time.perf_counter(), []
    while sampled < args.total_steps:
        result = algorithm.train()
        sampled = int(result["num_env_steps_sampled_lifetime"])
        mean = result["env_runners"].get("episode_return_mean", float("nan"))
        speed = sampled / (time.perf_counter() - begun)
        curve.append((sampled, time.process_time(), mean))
        print(f"{sampled} steps, return {mean:.3f}, {speed:.0f} steps per second", flush=True)
    if args.curve:
        with open(args.curve, "w", newline="") as file:
            csv.writer(file).writerows([("steps", "cpu_seconds", "return"), *curve])
    module = algorithm.get_module()

    def choose(observation: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            inputs = {Columns.OBS: torch.as_tensor(observation)[None]}
            logits = module.forward_inference(inputs)[Columns.ACTION_DIST_INPUTS][0]
        mean = logits[: len(logits) // 2].numpy()
        return np.asarray(np.clip(mean, -1, 1), np.float32)

    task = find_task(args.env_id.removeprefix("vpxrc/"))
    episodes = play_split(task, choose)
    algorithm.stop()
    if args.out:
        write_submission(args.out, task, f"RLlib PPO, seed {args.seed}", [episodes])
    score = float(np.mean([episode.value for episode in episodes]))
    print(f"test split: return {score:.3f}")
    return score


if __name__ == "__main__":
    main()
