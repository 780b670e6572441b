"""An offline data set of a standard task in Minari's format: random episodes and good ones.

    pip install 'minari[hdf5]'
    python examples/minari_dataset.py --name vpxrc/small-v0 --episodes 200

A good episode is the best of ``--tries`` episodes of a constant action, with noise, on its clip and
target. Learning from the data needs no encoder.
"""

import argparse
from typing import Any

import gymnasium
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer

import vpxrc.envs  # noqa: F401 - registers the environments


def play(env: Any, number: int, choose: Any) -> EpisodeBuffer:
    """Play an episode of the clip and the target that a number draws."""
    observation, info = env.reset(seed=number)
    seen, actions, rewards, infos, done = [observation], [], [], [info], False
    while not done:
        actions.append(np.asarray(choose(), np.float32))
        observation, reward, done, _, info = env.step(actions[-1])
        seen.append(observation)
        rewards.append(float(reward))
        infos.append(info)
    ends = [False] * (len(rewards) - 1)
    return EpisodeBuffer(
        seed=number,
        observations=seen,
        actions=actions,
        rewards=rewards,
        terminations=[*ends, True],
        truncations=[*ends, False],
        infos={name: [one[name] for one in infos] for name in info},
    )


def episodes(env: Any, count: int, tries: int, seed: int) -> list[EpisodeBuffer]:
    """Return pairs of a random episode and a good one."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count // 2):
        found.append(play(env, number, lambda: rng.uniform(-1, 1, 2)))
        levels = rng.uniform(-1, 1, tries)
        tried = [
            play(env, number, lambda level=level: np.clip(rng.normal((level, 0), 0.1), -1, 1))
            for level in levels
        ]
        found.append(max(tried, key=lambda episode: sum(episode.rewards)))
    return found


def main(arguments: list[str] | None = None) -> Any:
    """Make the data set, and return it."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--env-id", default="vpxrc/Small-v0")
    parser.add_argument("--name", default="vpxrc/small-v0")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--tries", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    env = gymnasium.make(args.env_id)
    data = minari.create_dataset_from_buffers(
        args.name,
        episodes(env, args.episodes, args.tries, args.seed),
        env=env,
        algorithm_name="random episodes, and constant actions with noise",
        author="The vpxrc authors",
        author_email="none",
        code_permalink="examples/minari_dataset.py",
        description="Rate control of libvpx's VP9 encoder.",
    )
    env.close()
    print(f"{args.name}: {data.total_episodes} episodes, {data.total_steps} steps")
    return data


if __name__ == "__main__":
    main()
