"""What a decision of the search costs: `python -m benchmarks.search_speed`, as JSON.

Fifty simulations from a latent state, ours (trees and networks native) over mctx (both jitted
together), on one core: medians over pairs measured in turn in the same run. Times are the
processor's, which on an idle core are the clock's, and on a busy one leave out what others used.
Needs the oracles: pip install 'vpxrc[oracles]'.
"""

import os
from typing import Any

# Before numpy and jax start their threads.
CORE = min(os.sched_getaffinity(0))
os.sched_setaffinity(0, {CORE})
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import argparse
import json
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import mctx
import numpy as np
from numpy.typing import NDArray

from vpxrc.agents.muzero.network import EPSILON, OUTCOMES, Network, shapes
from vpxrc.agents.muzero.search import Root, SearchOutput, gumbel_muzero_search

Array = NDArray[np.float32]
HIDDEN, ACTIONS, SIMULATIONS = 64, 9, 50


def parameters(seed: int) -> dict[str, Array]:
    """Of the agent's networks, every layer as wide as the latent state."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(0, shape[-1] ** -0.5, shape).astype(np.float32)
        for name, shape in shapes(1, ACTIONS, HIDDEN, HIDDEN).items()
    }


def jax_network(parameters: dict[str, Array]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The same networks for mctx: the prediction and the recurrent function."""
    p = {name: jnp.asarray(value) for name, value in parameters.items()}

    def linear(name, x):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def predict(states):
        inner = jax.nn.relu(linear("predict1", states))
        return linear("policy", inner), linear("value", inner)[:, 0]

    def step(_, key, actions, states):
        one_hot = jax.nn.one_hot(actions, ACTIONS)
        inner = jax.nn.relu(linear("dynamics1", jnp.concatenate([states, one_hot], axis=1)))
        after = states + linear("dynamics2", inner)
        after -= after.mean(axis=1, keepdims=True)
        after /= jnp.sqrt(jnp.square(after).mean(axis=1, keepdims=True) + EPSILON)
        reward = linear("outcome", inner)[:, OUTCOMES.index("reward")]
        logits, value = predict(after)
        return mctx.RecurrentFnOutput(
            reward=reward, discount=jnp.ones_like(reward), prior_logits=logits, value=value
        ), after

    return predict, step


def measure(batch: int, pairs: int) -> dict[str, object]:
    p = parameters(seed=1)
    rng = np.random.default_rng(batch)
    states = rng.normal(size=(batch, HIDDEN)).astype(np.float32)
    states -= states.mean(axis=1, keepdims=True)  # as the representation's are
    states /= states.std(axis=1, keepdims=True)
    network = Network(p).native
    predict, step = jax_network(p)

    @jax.jit
    def search(key, states):
        logits, value = predict(states)
        root = mctx.RootFnOutput(prior_logits=logits, value=value, embedding=states)
        return mctx.gumbel_muzero_policy((), key, root, step, SIMULATIONS)

    key, on_device = jax.random.PRNGKey(0), jnp.asarray(states)

    def ours(gumbel: Array | None = None) -> SearchOutput:
        logits, value = network.predict(states)
        if gumbel is None:
            gumbel = rng.gumbel(size=(batch, ACTIONS)).astype(np.float32)
        return gumbel_muzero_search(
            Root(logits, value, states), network, num_simulations=SIMULATIONS, gumbel=gumbel
        )

    def theirs():
        return jax.block_until_ready(search(key, on_device))

    found = theirs().search_tree
    visits = ours(np.asarray(found.extra_data.root_gumbel)).visits
    agree = int((visits == found.summary().visit_counts).all(axis=1).sum())
    times: dict[str, list[float]] = {"ours": [], "mctx": []}
    for index in range(pairs):
        # Whoever goes first alternates, so that a drift favours neither.
        for name, work in (("ours", ours), ("mctx", theirs))[:: 1 if index % 2 else -1]:
            start = time.process_time()
            work()
            times[name].append(time.process_time() - start)
    return {
        "ours_over_mctx": statistics.median(
            a / b for a, b in zip(times["ours"], times["mctx"], strict=True)
        ),
        **{f"{name}_ms": 1e3 * statistics.median(taken) for name, taken in times.items()},
        "same_visits": f"{agree} of {batch}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=200)
    pairs = parser.parse_args().pairs
    report: dict[str, object] = {
        "core": CORE,
        "simulations": SIMULATIONS,
        "actions": ACTIONS,
        "hidden": HIDDEN,
        "pairs": pairs,
    }
    goals = {1: "ours_over_mctx <= 1, ours_ms <= 10", 8: "ours_over_mctx <= 1"}
    for batch, goal in goals.items():
        report[f"batch_{batch}"] = {"goal": goal, **measure(batch, pairs)}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
