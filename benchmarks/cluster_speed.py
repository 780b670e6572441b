"""Steps per second of RLlib's runners on a cluster of one node and of two, on loopback.

    python -m benchmarks.cluster_speed [--num-envs 8]

Each node has one core and one runner, with a vector environment by name. Run it on a machine that
has two cores at least and does nothing else.
"""

import argparse
import json
import time
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray.rllib.algorithms.ppo import PPOConfig


def speed(runners: int, num_envs: int, steps: int) -> float:
    """Return the steps per second of all runners together."""
    algorithm = (
        PPOConfig()
        .environment("vpxrc.envs:vpxrc/Small-v0")
        .env_runners(
            num_env_runners=runners,
            num_envs_per_env_runner=num_envs,
            gym_env_vectorize_mode="vector_entry_point",
        )
        .learners(num_learners=0, num_cpus_per_learner=0)
        .build_algo()
    )
    group = algorithm.env_runner_group

    def sample(runner: Any) -> int:
        return sum(len(part) for part in runner.sample(num_timesteps=steps, random_actions=True))

    group.foreach_env_runner(sample, local_env_runner=False)  # everything is in the caches now
    begun = time.perf_counter()
    done = sum(group.foreach_env_runner(sample, local_env_runner=False))
    seconds = time.perf_counter() - begun
    algorithm.stop()
    return float(done / seconds)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--num-envs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2000, help="per runner")
    args = parser.parse_args()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    ray.init(address=cluster.address, include_dashboard=False, log_to_driver=False)
    found = {"one node": speed(1, args.num_envs, args.steps)}
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    found["two nodes"] = speed(2, args.num_envs, args.steps)
    found["ratio"] = found["two nodes"] / found["one node"]
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
