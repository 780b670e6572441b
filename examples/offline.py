"""Offline RL by d3rlpy on the data set of minari_dataset.py; nothing is encoded before the test.

    pip install 'minari[hdf5]' d3rlpy
    python examples/minari_dataset.py
    python examples/offline.py --method bc --share 0.25 --out submission.json
    python examples/offline.py --method iql --out submission.json
    vpxrc leaderboard submission.json

``bc`` clones what it is given, so it wants the better part of the data; ``iql`` (implicit
Q-learning) and ``td3+bc`` learn from the bad episodes as well.
"""

import argparse
from pathlib import Path
from typing import Any

import d3rlpy
import minari
import numpy as np
from d3rlpy.algos import BCConfig, IQLConfig, TD3PlusBCConfig
from d3rlpy.logging import NoopAdapterFactory

from vpxrc.envs.standard import find_task, play_split
from vpxrc.evaluation.leaderboard import write_submission

METHODS = {  # episodes are short and not discounted
    "bc": lambda: BCConfig(batch_size=256),
    "iql": lambda: IQLConfig(gamma=1.0),
    "td3+bc": lambda: TD3PlusBCConfig(gamma=1.0),
}


def load(name: str, share: float) -> d3rlpy.dataset.MDPDataset:
    """Return the episodes of a data set with the highest returns, as d3rlpy takes them.

    Args:
        name: Name of the data set.
        share: Share of the episodes.
    """
    episodes = sorted(
        minari.load_dataset(name).iterate_episodes(), key=lambda one: -float(one.rewards.sum())
    )
    chosen = episodes[: max(round(share * len(episodes)), 1)]
    return d3rlpy.dataset.MDPDataset(
        np.concatenate([one.observations[:-1] for one in chosen]),
        np.concatenate([one.actions for one in chosen]),
        np.concatenate([one.rewards for one in chosen]).astype(np.float32),
        np.concatenate([one.terminations for one in chosen]).astype(np.float32),
    )


def main(arguments: list[str] | None = None) -> float:
    """Train, play the test split, and return the mean return there."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", default="vpxrc/small-v0", help="name of the data set")
    parser.add_argument("--task", default="Small-v0")
    parser.add_argument("--method", choices=list(METHODS), default="iql")
    parser.add_argument("--share", type=float, default=1.0, help="of the episodes: the best ones")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5000, help="of gradient descent")
    parser.add_argument("--out", type=Path, help="a submission for `vpxrc leaderboard`")
    args = parser.parse_args(arguments)
    d3rlpy.seed(args.seed)
    data = load(args.data, args.share)
    agent = METHODS[args.method]().create(device=False)
    agent.fit(
        data,
        n_steps=args.steps,
        n_steps_per_epoch=args.steps,
        logger_adapter=NoopAdapterFactory(),
        show_progress=False,
    )

    def choose(observation: np.ndarray) -> Any:
        return np.clip(agent.predict(observation[None])[0], -1, 1)

    task = find_task(args.task)
    episodes = play_split(task, choose)
    if args.out:
        write_submission(args.out, task, f"d3rlpy {args.method}, seed {args.seed}", [episodes])
    score = float(np.mean([episode.value for episode in episodes]))
    print(f"test split: return {score:.3f}")
    return score


if __name__ == "__main__":
    main()
