"""PPO in one file, as CleanRL has it, on a standard task.

    python examples/ppo.py --seed 1 --curve curve.csv --out submission.json
    vpxrc leaderboard submission.json

Actions are Gaussian around the network's output. Observations are in [-1, 1] already, so nothing
scales them. Episodes are short and not discounted. After the training, the mean action is played on
the test split.
"""

import argparse
import csv
import time
from pathlib import Path

import gymnasium
import numpy as np
import torch
from torch import nn
from torch.distributions import Normal

from vpxrc.envs.standard import find_task, play_split
from vpxrc.evaluation.leaderboard import write_submission


class Agent(nn.Module):
    """A policy and a value, each a network of its own.

    Args:
        inputs: Numbers of an observation.
        actions: Numbers of an action.
        deviation: The logarithm of the actions' standard deviation, at first.
    """

    def __init__(self, inputs: int, actions: int, deviation: float) -> None:
        super().__init__()
        self.policy = network(inputs, actions, 0.01)
        self.value = network(inputs, 1, 1.0)
        self.log_deviation = nn.Parameter(torch.full((actions,), deviation))

    def forward(self, seen: torch.Tensor) -> tuple[Normal, torch.Tensor]:
        """Return the distribution of the action, and the value."""
        return Normal(self.policy(seen), self.log_deviation.exp()), self.value(seen)[..., 0]


def network(inputs: int, outputs: int, gain: float) -> nn.Sequential:
    """Return an MLP whose last layer begins small."""
    layers = nn.Sequential(
        nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs)
    )
    for layer, scale in ((layers[0], 2**0.5), (layers[2], 2**0.5), (layers[4], gain)):
        nn.init.orthogonal_(layer.weight, scale)
        nn.init.zeros_(layer.bias)
    return layers


def train(args: argparse.Namespace) -> Agent:
    """Train an agent, and write the curve of its returns."""
    torch.manual_seed(args.seed)
    env = gymnasium.make_vec(args.env_id, num_envs=args.num_envs, autoreset_mode="SameStep")
    inputs, actions = env.single_observation_space.shape[0], env.single_action_space.shape[0]
    agent = Agent(inputs, actions, args.log_std)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.rate, eps=1e-5)
    shape = (args.num_steps, args.num_envs)
    seen = torch.zeros(*shape, inputs)
    taken = torch.zeros(*shape, actions)
    log_probs, rewards, overs, values = (torch.zeros(shape) for _ in range(4))
    observation = torch.as_tensor(env.reset(seed=args.seed)[0])
    running, ended, curve = np.zeros(args.num_envs), [], []
    iterations = max(args.total_steps // (args.num_steps * args.num_envs), 1)
    begun = time.process_time()
    for iteration in range(iterations):
        optimizer.param_groups[0]["lr"] = args.rate * (1 - iteration / iterations)
        for step in range(args.num_steps):
            with torch.no_grad():
                distribution, values[step] = agent(observation)
            seen[step], taken[step] = observation, distribution.sample()
            log_probs[step] = distribution.log_prob(taken[step]).sum(-1)
            result = env.step(taken[step].clamp(-1, 1).numpy())
            observation = torch.as_tensor(result[0])
            rewards[step], overs[step] = torch.as_tensor(result[1]), torch.as_tensor(result[2])
            running += result[1]
            ended += running[result[2]].tolist()
            running[result[2]] = 0
        with torch.no_grad():
            following = agent(observation)[1]
        advantages, last = torch.zeros(shape), torch.zeros(args.num_envs)
        for step in reversed(range(args.num_steps)):
            goes_on = 1 - overs[step]
            error = rewards[step] + goes_on * following - values[step]
            advantages[step] = last = error + args.trace * goes_on * last
            following = values[step]
        update(agent, optimizer, args, seen, taken, log_probs, advantages, values)
        steps = (iteration + 1) * args.num_steps * args.num_envs
        mean = float(np.mean(ended[-100:])) if ended else float("nan")
        curve.append((steps, time.process_time() - begun, mean))
        print(f"{steps} steps, {curve[-1][1]:.0f} CPU-seconds, return {mean:.3f}", flush=True)
    env.close()
    if args.curve:
        with open(args.curve, "w", newline="") as file:
            csv.writer(file).writerows([("steps", "cpu_seconds", "return"), *curve])
    return agent


def update(agent, optimizer, args, seen, taken, log_probs, advantages, values) -> None:
    """Take several passes over what was played; all tensors are ``[steps, envs, ...]``."""
    seen, taken = seen.flatten(0, 1), taken.flatten(0, 1)
    log_probs, returns = log_probs.flatten(), (advantages + values).flatten()
    advantages = advantages.flatten()
    for _ in range(args.epochs):
        for batch in torch.randperm(len(seen)).chunk(args.minibatches):
            distribution, value = agent(seen[batch])
            ratio = (distribution.log_prob(taken[batch]).sum(-1) - log_probs[batch]).exp()
            gain = advantages[batch]
            gain = (gain - gain.mean()) / (gain.std() + 1e-8)
            clipped = ratio.clamp(1 - args.clip, 1 + args.clip)
            loss = -torch.min(ratio * gain, clipped * gain).mean()
            loss = loss + 0.5 * (value - returns[batch]).square().mean()
            loss = loss - args.entropy * distribution.entropy().sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()


def main(arguments: list[str] | None = None) -> float:
    """Train, play the test split, and return the mean return there."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--env-id", default="vpxrc/Small-v0")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--total-steps", type=int, default=80_000)
    parser.add_argument("--num-envs", type=int, default=8)
    parser.add_argument("--num-steps", type=int, default=96, help="per environment and update")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--trace", type=float, default=0.95, help="lambda of the advantages")
    parser.add_argument("--log-std", type=float, default=-1.5, help="of the actions, at first")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--minibatches", type=int, default=8)
    parser.add_argument("--clip", type=float, default=0.2)
    parser.add_argument("--entropy", type=float, default=0.0)
    parser.add_argument("--curve", help="a CSV file for the returns")
    parser.add_argument("--out", type=Path, help="a submission for `vpxrc leaderboard`")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    agent, task = train(args), find_task(args.env_id.removeprefix("vpxrc/"))

    def choose(observation: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return agent(torch.as_tensor(observation))[0].mean.clamp(-1, 1).numpy()

    episodes = play_split(task, choose)
    if args.out:
        write_submission(args.out, task, f"ppo.py, seed {args.seed}", [episodes])
    score = float(np.mean([episode.value for episode in episodes]))
    print(f"test split: return {score:.3f}")
    return score


if __name__ == "__main__":
    main()
