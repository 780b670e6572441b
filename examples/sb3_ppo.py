"""Stable-Baselines3's PPO on a standard task.

pip install stable-baselines3
python examples/sb3_ppo.py --seed 1 --out submission.json
vpxrc leaderboard submission.json
"""

import argparse
import csv
import time
from pathlib import Path

import gymnasium
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from vpxrc.envs.standard import find_task, play_split
from vpxrc.evaluation.leaderboard import write_submission


class Curve(BaseCallback):
    """Notes the mean return of the last 100 episodes before each update."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, float, float]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        returns = [episode["r"] for episode in self.model.ep_info_buffer]
        mean = float(np.mean(returns)) if returns else float("nan")
        self.rows.append((self.num_timesteps, time.process_time(), mean))


def main(arguments: list[str] | None = None) -> float:
    """Train, play the test split, and return the mean return there."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--env-id", default="vpxrc/Small-v0")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--total-steps", type=int, default=80_000)
    parser.add_argument("--num-envs", type=int, default=8)
    parser.add_argument("--num-steps", type=int, default=96, help="per environment and update")
    parser.add_argument("--curve", help="a CSV file for the returns")
    parser.add_argument("--out", type=Path, help="a submission for `vpxrc leaderboard`")
    args = parser.parse_args(arguments)
    env = make_vec_env(lambda: gymnasium.make(args.env_id), args.num_envs, seed=args.seed)
    model = PPO(
        "MlpPolicy",
        env,
        learning_rate=lambda left: 1e-3 * left,
        n_steps=args.num_steps,
        batch_size=max(args.num_steps * args.num_envs // 8, 2),
        n_epochs=10,
        gamma=1.0,
        policy_kwargs={"log_std_init": -1.5},
        seed=args.seed,
        device="cpu",
    )
    curve = Curve()
    model.learn(args.total_steps, callback=curve)
    if args.curve:
        with open(args.curve, "w", newline="") as file:
            csv.writer(file).writerows([("steps", "cpu_seconds", "return"), *curve.rows])

    def choose(observation: np.ndarray) -> np.ndarray:
        return np.asarray(model.predict(observation, deterministic=True)[0])

    task = find_task(args.env_id.removeprefix("vpxrc/"))
    episodes = play_split(task, choose)
    env.close()
    if args.out:
        write_submission(args.out, task, f"SB3 PPO, seed {args.seed}", [episodes])
    score = float(np.mean([episode.value for episode in episodes]))
    print(f"test split: return {score:.3f}")
    return score


if __name__ == "__main__":
    main()
