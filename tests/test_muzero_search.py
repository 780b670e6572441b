"""The search against mctx, where that is installed; against recorded searches of mctx everywhere.

The model is a set of tables and the embedding the number of a state, so that both are given the
same numbers to the last bit. ``python tests/test_muzero_search.py`` records the searches in
``tests/data/muzero_trees.json`` anew; it needs mctx (pip install 'vpxrc[oracles]'). The agent's own
networks, which are native, are held against numpy.
"""

import importlib.util
import json
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpxrc.agents.muzero.config import MuZeroConfig
from vpxrc.agents.muzero.network import EPSILON, LIMIT, OUTCOMES, Network, shapes
from vpxrc.agents.muzero.search import Root, SearchOutput, Step, gumbel_muzero_search
from vpxrc.errors import InputError

RECORDED = Path(__file__).parent / "data" / "muzero_trees.json"


@dataclass(frozen=True)
class Cases:
    """A batch of searches. Tables by state ``[S]`` or by state and action ``[S, A]``."""

    after: np.ndarray
    reward: np.ndarray
    discount: np.ndarray
    logits: np.ndarray
    value: np.ndarray
    roots: np.ndarray
    gumbel: np.ndarray
    invalid: np.ndarray | None = None
    settings: dict[str, Any] | None = None

    def root(self) -> Root:
        embedding = self.roots[:, None].astype(np.float32)
        return Root(self.logits[self.roots], self.value[self.roots], embedding)

    def step(self, actions, embeddings) -> Step:
        at = embeddings[:, 0].astype(np.int64)
        after = self.after[at, actions]
        return Step(
            self.reward[at, actions],
            self.discount[at, actions],
            self.logits[after],
            self.value[after],
            after[:, None].astype(np.float32),
        )

    def search(self, recurrent=None) -> SearchOutput:
        return gumbel_muzero_search(
            self.root(),
            recurrent or self.step,
            gumbel=self.gumbel,
            invalid_actions=self.invalid,
            **self.settings,
        )


# Ties of all kinds among them, but "plain" and "terminal" (which cuts the return off at random).
KINDS = ("plain", "terminal", "sharp", "twins", "halves", "policy alone", "nothing", "constant")


def tables(rng, kind: str, states: int, actions: int) -> dict[str, np.ndarray]:
    """A model; its numbers are multiples of 1/64, which JSON holds exactly and briefly."""

    def normal(*shape: int) -> np.ndarray:
        return np.round(rng.normal(0, 64, shape)) / 64

    found = {
        "after": rng.integers(0, states, (states, actions)),
        "reward": normal(states, actions),
        "discount": np.full((states, actions), rng.choice([0.5, 0.90625, 0.984375, 1.0])),
        "logits": 2 * normal(states, actions),
        "value": normal(states),
    }
    if kind == "terminal":
        found["discount"] *= rng.random((states, actions)) < 0.7
    elif kind == "sharp":
        found["logits"] *= 15
    elif kind == "twins":
        for name in ("after", "reward", "logits", "discount"):
            found[name][:, 1::2] = found[name][:, : actions // 2 * 2 : 2]
    elif kind == "halves":
        found["reward"] = rng.choice([0, 0.5, 1], (states, actions))
        found["value"] = rng.choice([0, 0.5, 1], states)
        found["discount"][:] = 1
        found["logits"][:] = 0
    elif kind in ("policy alone", "nothing"):
        found["reward"][:] = found["value"][:] = 0
        found["logits"] *= kind == "policy alone"
    elif kind == "constant":
        found["reward"][:] = 0
        found["value"][:] = 0.296875
        found["discount"][:] = 1
    return found


def make_cases(
    batch: int, actions: int, seed: int, *, states: int = 64, kinds=KINDS, **settings
) -> tuple[Cases, list[str]]:
    """Models of their own, one after the other in the same tables, and their kinds. No noise."""
    rng = np.random.default_rng(seed)
    chosen = [kinds[i % len(kinds)] for i in range(batch)]
    models = [tables(rng, kind, states, actions) for kind in chosen]
    joined = {name: np.concatenate([model[name] for model in models]) for name in models[0]}
    joined["after"] += np.repeat(np.arange(batch) * states, states)[:, None]
    invalid = rng.random((batch, actions)) < rng.choice([0, 0.3, 0.8], (batch, 1))
    invalid[np.arange(batch), rng.integers(0, actions, batch)] = False
    return Cases(
        after=joined.pop("after"),
        **{name: values.astype(np.float32) for name, values in joined.items()},
        roots=np.arange(batch) * states,
        gumbel=np.zeros((batch, actions), np.float32),
        invalid=None if seed % 4 == 0 else invalid,
        settings=settings,
    ), chosen


def search_with_mctx(cases: Cases, seed: int) -> tuple[Cases, dict[str, np.ndarray]]:
    """The cases with the noise that mctx drew, and what it found; with the order of expansions."""
    import functools

    import jax
    import jax.numpy as jnp
    import mctx

    settings = dict(cases.settings)
    scaling = {
        "value_scale": settings.pop("value_scale", 0.1),
        "maxvisit_init": settings.pop("maxvisit_init", 50.0),
        "rescale_values": settings.pop("rescale", True),
    }
    mixed = settings.pop("mixed_value", True)
    qtransform = functools.partial(
        mctx.qtransform_completed_by_mix_value, use_mixed_value=mixed, **scaling
    )
    unscaled = functools.partial(
        mctx.qtransform_completed_by_mix_value,
        use_mixed_value=mixed,
        value_scale=1.0,
        maxvisit_init=1.0,
        rescale_values=False,
    )
    tables = [
        jnp.asarray(t)
        for t in (cases.after, cases.reward, cases.discount, cases.logits, cases.value)
    ]

    def recurrent(tables, key, actions, embeddings):
        all_after, reward, discount, logits, value = tables
        at = embeddings[:, 0].astype(jnp.int32)
        after = all_after[at, actions]
        return mctx.RecurrentFnOutput(
            reward=reward[at, actions],
            discount=discount[at, actions],
            prior_logits=logits[after],
            value=value[after],
        ), after[:, None].astype(jnp.float32)

    @jax.jit
    def search(tables, key, root, invalid, scale):
        output = mctx.gumbel_muzero_policy(
            tables,
            key,
            root,
            recurrent,
            settings["num_simulations"],
            invalid_actions=invalid,
            max_depth=settings.get("max_depth"),
            qtransform=qtransform,
            max_num_considered_actions=settings.get("max_considered", 16),
            gumbel_scale=scale,
        )
        tree = output.search_tree
        most = tree.children_visits[:, 0].max(axis=-1, keepdims=True)
        completed = jax.vmap(unscaled, in_axes=[0, None])(tree, 0) / (1 + most)
        return output, completed

    batch = len(cases.roots)
    scale = np.random.default_rng(seed).choice([0, 0.3, 1], (batch, 1)).astype(np.float32)
    root = mctx.RootFnOutput(**cases.root()._asdict())
    output, completed = search(tables, jax.random.PRNGKey(seed), root, cases.invalid, scale)
    tree = output.search_tree
    parents = np.asarray(tree.parents)[:, 1:]
    found = {
        "action": output.action,
        "action_weights": output.action_weights,
        "value": tree.node_values[:, 0],
        "visits": tree.children_visits[:, 0],
        "qvalues": completed,
        "expanded_actions": tree.action_from_parent[:, 1:].T,
        "expanded_states": np.take_along_axis(
            np.asarray(tree.embeddings)[:, :, 0], parents, axis=1
        ).T,
    }
    gumbel = np.asarray(tree.extra_data.root_gumbel)
    return replace(cases, gumbel=gumbel), {name: np.asarray(v) for name, v in found.items()}


def rounding_decides(qvalues: np.ndarray) -> np.ndarray:
    """Rows whose Q-values differ in rounding alone, which rescaling makes all the difference of."""
    spread = np.ptp(qvalues, axis=1)
    return (spread > 0) & (spread < 1e-6 * np.abs(qvalues).max(axis=1))


def assert_same(ours: SearchOutput, theirs: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(ours.action, theirs["action"])
    np.testing.assert_array_equal(ours.visits, theirs["visits"])
    np.testing.assert_allclose(ours.value, theirs["value"], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(ours.qvalues, theirs["qvalues"], rtol=1e-6, atol=1e-5)
    sure = ~(rounding_decides(theirs["qvalues"]) | rounding_decides(ours.qvalues))
    np.testing.assert_allclose(
        ours.action_weights[sure], theirs["action_weights"][sure], rtol=0, atol=1e-5
    )


SHAPES = [  # batch, actions, settings: 1,000 cases together; a shape takes seconds to compile
    (1, 9, {"num_simulations": 50}),
    (149, 2, {"num_simulations": 1}),
    (200, 3, {"num_simulations": 16}),
    (100, 5, {"num_simulations": 7, "mixed_value": False, "maxvisit_init": 20.0}),
    (150, 9, {"num_simulations": 50}),
    (150, 9, {"num_simulations": 32, "max_considered": 4, "max_depth": 3}),
    (150, 12, {"num_simulations": 33, "rescale": False, "value_scale": 0.05}),
    (100, 20, {"num_simulations": 64}),
]


@pytest.fixture(scope="module")
def oracle():
    """A process for mctx: where JAX has run, no other test may fork any more."""
    if importlib.util.find_spec("mctx") is None:
        pytest.skip("mctx is not installed: pip install 'vpxrc[oracles]'")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(int).result()  # its thread starts here, and not within a test
        yield pool


@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_the_search_is_mctxs(oracle, number):
    batch, actions, settings = SHAPES[number]
    cases, kinds = make_cases(batch, actions, seed=number + 1, **settings)
    cases, theirs = oracle.submit(search_with_mctx, cases, number).result()
    expanded = []

    def recurrent(actions, embeddings):
        expanded.append((actions, embeddings[:, 0]))
        return cases.step(actions, embeddings)

    assert_same(cases.search(recurrent), theirs)
    if "max_depth" not in settings:  # else a node is expanded again, and the tree has its last
        ours = [np.stack(column) for column in zip(*expanded, strict=True)]
        sure = np.array([kind != "constant" for kind in kinds])
        np.testing.assert_array_equal(ours[0][:, sure], theirs["expanded_actions"][:, sure])
        np.testing.assert_array_equal(ours[1][:, sure], theirs["expanded_states"][:, sure])


def test_recorded_searches_of_mctx():
    recorded = json.loads(RECORDED.read_text())
    assert sum(len(entry["roots"]) for entry in recorded) >= 36
    for entry in recorded:
        expected = {name: np.array(values) for name, values in entry["found"].items()}
        fields = {
            name: None if entry[name] is None else np.array(entry[name], dtype)
            for name, dtype in {
                **dict.fromkeys(("after", "roots"), np.int64),
                **dict.fromkeys(("reward", "discount", "logits", "value", "gumbel"), np.float32),
                "invalid": bool,
            }.items()
        }
        assert_same(Cases(**fields, settings=entry["settings"]).search(), expected)


def test_a_search_alone_is_the_same_as_in_a_batch():
    cases, _ = make_cases(16, 7, seed=21, num_simulations=20)
    cases = replace(cases, gumbel=np.random.default_rng(0).gumbel(size=(16, 7)).astype(np.float32))
    together = cases.search()
    for i in range(16):
        alone = replace(
            cases,
            roots=cases.roots[i : i + 1],
            gumbel=cases.gumbel[i : i + 1],
            invalid=cases.invalid[i : i + 1],
        ).search()
        for ours, row in zip(alone, together, strict=True):
            np.testing.assert_array_equal(ours[0], row[i])


def test_sequential_halving_by_hand():
    """Sixteen tries of four actions: two of each, then the better two get the rest."""
    cases, _ = make_cases(8, 4, seed=4, kinds=("plain",), num_simulations=16, max_depth=1)
    found = cases.search()
    np.testing.assert_array_equal(np.sort(found.visits, axis=1), [[2, 2, 6, 6]] * 8)
    # Never further than one action: the value of each is known after its first try.
    at = cases.roots
    exact = cases.reward[at] + cases.discount[at] * cases.value[cases.after[at]]
    np.testing.assert_allclose(found.qvalues, exact, rtol=1e-6, atol=1e-6)
    assert (found.action_weights.argmax(axis=1) == found.action).all()


def test_the_improved_policy_by_hand():
    """One try: the other action is completed by the mixed value of the paper's equation 33."""
    root = Root(np.log([[0.25, 0.75]]), np.array([2.0]), np.zeros((1, 1)))
    step = Step(np.array([1.0]), np.array([0.5]), np.zeros((1, 2)), np.array([8.0]), root.embedding)
    settings = {"num_simulations": 1, "gumbel": np.zeros((1, 2)), "rescale": False}
    found = gumbel_muzero_search(root, lambda *_: step, **settings)
    tried, mixed = 1 + 0.5 * 8, (2 + 1 * 5) / 2
    np.testing.assert_array_equal(found.visits, [[0, 1]])
    np.testing.assert_allclose(found.qvalues, [[mixed, tried]])
    np.testing.assert_allclose(found.value, [(2 + 5) / 2])
    logits = np.log([0.25, 0.75]) + (50 + 1) * 0.1 * np.array([mixed, tried])
    weights = np.exp(logits - logits.max())
    np.testing.assert_allclose(found.action_weights[0], weights / weights.sum(), rtol=1e-5)
    unmixed = gumbel_muzero_search(root, lambda *_: step, **settings, mixed_value=False)
    np.testing.assert_allclose(unmixed.qvalues, [[2, tried]])


def solved(cases: Cases) -> np.ndarray:
    """Action values of the tables' decision process by value iteration, ``[S, A]``."""
    value = np.zeros(len(cases.value))
    for _ in range(2000):
        value = (cases.reward + cases.discount * value[cases.after]).max(axis=1)
    return cases.reward + cases.discount * value[cases.after]


def test_the_search_sees_a_reward_behind_a_worse_step():
    """Left pays 1 at once; right pays nothing, then 3 for whoever goes right again."""
    after = np.array([[3, 1], [3, 2], [3, 3], [3, 3]])
    reward = np.array([[1, 0], [0, 3], [0, 0], [0, 0]], np.float32)
    discount = np.where(after == 3, 0, 1).astype(np.float32)
    cases = Cases(
        after,
        reward,
        discount,
        np.zeros((4, 2), np.float32),
        np.zeros(4, np.float32),
        roots=np.array([0]),
        gumbel=np.zeros((1, 2), np.float32),
        settings={"num_simulations": 16},
    )
    found = cases.search()
    np.testing.assert_array_equal(found.action, [1])
    assert found.action_weights[0, 1] > 0.9
    np.testing.assert_array_equal(solved(cases).argmax(axis=1)[[0, 1]], [1, 1])
    # With one action's foresight it is not to be seen.
    near = replace(cases, settings={"num_simulations": 16, "max_depth": 1}).search()
    np.testing.assert_array_equal(near.action, [0])


def test_the_search_finds_the_best_action_of_a_decision_process():
    """Random processes of three steps; a policy and values that know nothing: search finds out."""
    rng = np.random.default_rng(5)
    width, actions, batch = 4, 3, 40
    states = 4 * width  # of a process: layer by layer, the last is the end
    layer = np.tile(np.repeat(np.arange(4), width), batch)[:, None]
    process = np.repeat(np.arange(batch), states)[:, None]
    after = rng.integers(0, width, (batch * states, actions))
    after += process * states + np.minimum(layer + 1, 3) * width
    cases = Cases(
        after=after,
        reward=(rng.random((batch * states, actions)) * (layer < 3)).astype(np.float32),
        discount=np.broadcast_to(0.9 * (layer < 2), after.shape).astype(np.float32),
        logits=np.zeros((batch * states, actions), np.float32),
        value=np.zeros(batch * states, np.float32),
        roots=np.arange(batch) * states,
        gumbel=np.zeros((batch, actions), np.float32),
        # A small scale, or values that know nothing keep it from trying more than one way down.
        settings={"num_simulations": 400, "value_scale": 0.02},
    )
    exact = solved(cases)[cases.roots]
    ordered = np.sort(exact, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 0.05
    assert clear.sum() > 30
    found = cases.search()
    np.testing.assert_array_equal(found.action[clear], exact.argmax(axis=1)[clear])
    # The improved policy is better than the one that knows nothing.
    assert ((found.action_weights * exact).sum(axis=1) > exact.mean(axis=1)).all()


def test_invalid_actions_are_never_tried():
    cases, _ = make_cases(24, 6, seed=9, num_simulations=12)
    found = cases.search()
    assert cases.invalid.any()
    assert (found.visits[cases.invalid] == 0).all()
    assert (found.action_weights[cases.invalid] == 0).all()
    assert not cases.invalid[np.arange(24), found.action].any()
    np.testing.assert_array_equal(found.visits.sum(axis=1), 12)
    np.testing.assert_allclose(found.action_weights.sum(axis=1), 1, rtol=1e-5)


def test_the_model_may_keep_what_it_is_given():
    cases, _ = make_cases(2, 3, seed=1, num_simulations=6)
    kept = []

    def recurrent(actions, embeddings):
        kept.append((actions, embeddings, actions.copy(), embeddings.copy()))
        return cases.step(actions, embeddings)

    cases.search(recurrent)
    assert len(kept) == 6
    for actions, embeddings, actions_then, embeddings_then in kept:
        np.testing.assert_array_equal(actions, actions_then)
        np.testing.assert_array_equal(embeddings, embeddings_then)


def test_the_models_own_errors_come_through():
    cases, _ = make_cases(2, 3, seed=1, num_simulations=6)

    def broken(actions, embeddings):
        raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        cases.search(broken)


NAN = float("nan")
BAD = [
    ({"prior_logits": np.zeros(3)}, "prior_logits has shape"),
    ({"prior_logits": np.zeros((2, 0))}, "two dimensions of at least 1"),
    ({"prior_logits": np.full((2, 3), NAN)}, "prior_logits has a value that is not a finite"),
    ({"prior_logits": [["a"] * 3] * 2}, "prior_logits is not an array of numbers"),
    ({"value": np.zeros((2, 1))}, r"value has shape \[2, 1\]; expected \[2\]"),
    ({"value": np.array([0, np.inf])}, "value has a value that is not a finite"),
    ({"value": np.array([0, 1e39])}, "value has a value that is not a finite"),
    ({"embedding": np.zeros((3, 4))}, r"embedding has shape \[3, 4\]; expected \[2, 4\]"),
    ({"gumbel": np.zeros((2, 4))}, "gumbel has shape"),
    ({"gumbel": np.full((2, 3), NAN)}, "gumbel has a value that is not a finite"),
    ({"invalid_actions": np.zeros((2, 2), bool)}, "invalid_actions has shape"),
    ({"invalid_actions": np.array([[0, 0, 0], [1, 1, 1]], bool)}, "no action in row 1"),
    ({"num_simulations": 0}, "num_simulations is 0; expected 1 to"),
    ({"num_simulations": 2**40}, "num_simulations is 1099511627776"),
    ({"max_considered": 0}, "max_considered is 0"),
    ({"max_depth": 0}, "max_depth is 0"),
    ({"value_scale": NAN}, "value_scale and maxvisit_init must be finite"),
    ({"maxvisit_init": np.inf}, "value_scale and maxvisit_init must be finite"),
]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize(("changed", "words"), BAD)
def test_bad_inputs_are_refused_with_words(changed, words):
    root = Root(np.zeros((2, 3)), np.zeros(2), np.zeros((2, 4)))
    root = root._replace(**{name: v for name, v in changed.items() if name in Root._fields})
    arguments = {"num_simulations": 4, "gumbel": np.zeros((2, 3))}
    arguments |= {name: v for name, v in changed.items() if name not in Root._fields}
    with pytest.raises(InputError, match=words):
        gumbel_muzero_search(root, lambda *_: pytest.fail("asked the model"), **arguments)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"reward": np.zeros(3)}, r"the model's reward has shape \[3\]; expected \[2\]"),
        ({"discount": 1.0}, r"the model's discount has shape \[\]"),
        ({"prior_logits": np.zeros((2, 4))}, "the model's prior_logits has shape"),
        ({"value": np.array([0, NAN])}, "the model's value has a value that is not a finite"),
        ({"embedding": np.zeros((2, 5))}, "the model's embedding has shape"),
    ],
)
def test_bad_answers_of_the_model_are_refused_with_words(changed, words):
    root = Root(np.zeros((2, 3)), np.zeros(2), np.zeros((2, 4)))
    step = Step(np.zeros(2), np.ones(2), np.zeros((2, 3)), np.zeros(2), np.zeros((2, 4)))
    bad = step._replace(**changed)
    with pytest.raises(InputError, match=words):
        gumbel_muzero_search(root, lambda *_: bad, num_simulations=4, gumbel=np.zeros((2, 3)))


# The agent's own networks, native


class InNumpy:
    """The agent's networks once more, as their definition reads."""

    def __init__(self, parameters: dict[str, np.ndarray]) -> None:
        self.parameters = parameters

    def linear(self, name, values):
        return values @ self.parameters[f"{name}.weight"].T + self.parameters[f"{name}.bias"]

    def inner(self, name, values):
        return np.maximum(self.linear(name, values), 0)

    def normalised(self, states):
        centred = states - states.mean(axis=1, keepdims=True)
        variance = np.square(centred).mean(axis=1, keepdims=True)
        return centred / np.sqrt(variance + np.float32(EPSILON))

    def represent(self, observations):
        scaled = observations - self.parameters["observation_mean"]
        scaled = np.clip(scaled * self.parameters["observation_gain"], -LIMIT, LIMIT)
        return self.normalised(self.linear("represent2", self.inner("represent1", scaled)))

    def predict(self, states):
        inner = self.inner("predict1", states)
        return self.linear("policy", inner), self.linear("value", inner)[:, 0]

    def step(self, actions, states):
        one_hot = np.eye(len(self.parameters["policy.bias"]), dtype=np.float32)[actions]
        inner = self.inner("dynamics1", np.concatenate([states, one_hot], axis=1))
        after = self.normalised(states + self.linear("dynamics2", inner))
        reward = self.linear("outcome", inner)[:, OUTCOMES.index("reward")]
        return Step(reward, np.ones_like(reward), *self.predict(after), after)


def random_parameters(observations, actions, hidden, width, seed=0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(0, shape[-1] ** -0.5, shape).astype(np.float32)
        for name, shape in shapes(observations, actions, hidden, width).items()
    }


def everything(network, observations, actions) -> list[np.ndarray]:
    states = network.represent(observations)
    return [states, *network.predict(states), *network.step(actions, states)]


SIZES = [  # observations, actions, hidden, width
    (1, 1, 2, 1),
    (3, 2, 5, 7),
    (6, 9, 16, 16),
    (21, 17, 33, 31),
    (8, 33, 15, 65),
    (44, 9, 64, 128),
    (10, 5, 127, 200),
]


@pytest.mark.parametrize("sizes", SIZES)
def test_the_native_networks_are_numpys(sizes):
    parameters = random_parameters(*sizes)
    network, numpys = Network(parameters), InNumpy(parameters)
    rng = np.random.default_rng(1)
    for batch in range(1, 17):
        seen = rng.normal(0, 3, (batch, sizes[0])).astype(np.float32)
        actions = rng.integers(0, sizes[1], batch).astype(np.int32)
        found = everything(network, seen, actions)
        for ours, theirs in zip(found, everything(numpys, seen, actions), strict=True):
            assert ours.dtype == np.float32
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
        # What is said of a row does not depend on the others, to the last bit.
        alone = everything(network, seen[-1:], actions[-1:])
        for ours, row in zip(found, alone, strict=True):
            np.testing.assert_array_equal(ours[-1:], row)


@pytest.mark.parametrize("sizes", SIZES)
def test_a_native_search_is_the_one_that_calls_back(sizes):
    parameters = random_parameters(*sizes, seed=2)
    network, numpys = Network(parameters), InNumpy(parameters)
    rng = np.random.default_rng(3)
    same = []
    for batch, settings in (
        (1, {"num_simulations": 50}),
        (2, {"num_simulations": 1}),
        (3, {"num_simulations": 33, "max_depth": 2, "max_considered": 3, "mixed_value": False}),
        (8, {"num_simulations": 40}),
        (16, {"num_simulations": 20, "rescale": False, "value_scale": 0.02}),
    ):
        states = network.represent(rng.normal(0, 2, (batch, sizes[0])).astype(np.float32))
        root = Root(*network.predict(states), states)
        invalid = rng.random((batch, sizes[1])) < 0.3
        invalid[:, rng.integers(sizes[1])] = False
        gumbel = rng.gumbel(size=(batch, sizes[1])).astype(np.float32)
        settings |= {"gumbel": gumbel, "invalid_actions": invalid}
        found = gumbel_muzero_search(root, network.native, **settings)
        called = gumbel_muzero_search(root, network.step, **settings)
        for ours, theirs in zip(found, called, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        theirs = gumbel_muzero_search(root, numpys.step, **settings)
        rows = (found.visits == theirs.visits).all(axis=1)
        np.testing.assert_array_equal(found.action[rows], theirs.action[rows])
        np.testing.assert_allclose(found.value[rows], theirs.value[rows], rtol=1e-4, atol=1e-4)
        same.extend(rows)
    assert sum(same) >= len(same) - 1  # once, two actions may be alike but for rounding


def test_the_agents_search_in_threads_and_elsewhere():
    network = Network(random_parameters(6, 5, 16, 32))
    seen = np.random.default_rng(4).normal(size=(7, 6)).astype(np.float32)
    config = MuZeroConfig(hidden=16, width=32)
    states = network.represent(seen)
    expected = gumbel_muzero_search(
        Root(*network.predict(states), states),
        network.step,
        num_simulations=200,
        gumbel=np.zeros((len(seen), network.actions), np.float32),
        max_considered=config.max_considered,
        value_scale=config.value_scale,
        rescale=False,
    )
    with ThreadPoolExecutor(4) as pool:
        searches = [pool.submit(network.search, seen, 200, config=config) for _ in range(8)]
    elsewhere = pickle.loads(pickle.dumps(network)).search(seen, 200, config=config)
    for found in (*(search.result() for search in searches), elsewhere):
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "dynamics1.weight",
            np.full((7, 8), NAN),
            "dynamics1.weight has a value that is not a fin",
        ),
        ("policy.bias", np.full(3, np.inf), "policy.bias has a value that is not a finite number"),
        ("observation_gain", np.zeros(5), r"observation_gain has shape \[5\]; expected \[4\]"),
        ("dynamics2.weight", np.zeros((7, 5)), r"dynamics2.weight .*\[7, 5\]; expected \[5, 7\]"),
        ("represent2.weight", np.zeros((0, 7)), "represent2.weight .*two dimensions of at least 1"),
        ("outcome.weight", np.zeros(7), "outcome.weight .*two dimensions of at least 1"),
        ("value.weight", [["a"] * 7], "value.weight is not an array of numbers"),
        ("predict1.bias", None, "no predict1.bias"),
    ],
)
def test_bad_networks_are_refused_with_words(name, value, words):
    parameters = random_parameters(4, 3, 5, 7)
    parameters |= {name: value}
    if value is None:
        del parameters[name]
    with pytest.raises(InputError, match=f"^network: {words}"):
        Network(parameters)


def test_bad_questions_are_refused_with_words():
    parameters = random_parameters(4, 3, 5, 7)
    network, states = Network(parameters), np.zeros((2, 5), np.float32)
    for ask, words in (
        (lambda: network.represent(np.zeros(4)), "observations has shape"),
        (lambda: network.represent(np.full((1, 4), NAN)), "observations has a value that is not"),
        (lambda: network.predict(np.zeros((2, 4))), r"states .*\[2, 4\]; expected \[2, 5\]"),
        (lambda: network.step(np.zeros(3, np.int32), states), "actions has shape"),
        (lambda: network.step(np.array([0, 3]), states), "actions has 3; expected 0 to 2"),
        (lambda: network.step(np.array([-1, 0]), states), "actions has -1; expected 0 to 2"),
    ):
        with pytest.raises(InputError, match=words):
            ask()
    root = Root(np.zeros((2, 3)), np.zeros(2), np.zeros((2, 4)))
    settings = {"num_simulations": 4, "gumbel": np.zeros((2, 3))}
    with pytest.raises(InputError, match="3 actions and 5 numbers per state; expected 3 and 4"):
        gumbel_muzero_search(root, network.native, **settings)
    # Finite parameters, whose sum is not.
    parameters["dynamics2.bias"][:] = np.finfo(np.float32).max
    with pytest.raises(InputError, match="the model's prior_logits has a value that is not a fin"):
        gumbel_muzero_search(
            root._replace(embedding=states), Network(parameters).native, **settings
        )


def record() -> None:
    """Write the recorded searches anew, from mctx."""
    lines = []
    recorded_kinds = tuple(kind for kind in KINDS if kind != "constant")
    for number, (actions, settings) in enumerate(
        [
            (2, {"num_simulations": 1}),
            (3, {"num_simulations": 12}),
            (9, {"num_simulations": 50}),
            (16, {"num_simulations": 40}),
            (5, {"num_simulations": 20, "max_considered": 3, "max_depth": 2}),
            (6, {"num_simulations": 16, "rescale": False, "value_scale": 0.05}),
            (4, {"num_simulations": 32, "mixed_value": False, "maxvisit_init": 20.0}),
        ]
    ):
        cases, _ = make_cases(7, actions, number, states=12, kinds=recorded_kinds, **settings)
        cases, found = search_with_mctx(cases, number)
        entry = {**vars(cases), "found": {name: found[name] for name in SearchOutput._fields}}
        lines.append(json.dumps(entry, default=brief, separators=(",", ":")))
    RECORDED.parent.mkdir(exist_ok=True)
    RECORDED.write_text("[" + ",\n".join(lines) + "]\n")


def brief(values: np.ndarray) -> list:
    """For JSON: float32 in as few digits as tell it from its neighbours."""
    if values.ndim > 1:
        return [brief(row) for row in values]
    return [float(str(v)) if values.dtype == np.float32 else v.item() for v in values]


if __name__ == "__main__":
    record()
