"""Gumbel MuZero's search over a batch of states (Danihelka et al., ICLR 2022).

The trees are native (:mod:`vpxrc._search`), and so may the model be; any other is called back once
per simulation, for all states at once. What is chosen is what ``gumbel_muzero_policy`` of `mctx
<https://github.com/google-deepmind/mctx>`_ 0.0.71 chooses.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vpxrc import _search
from vpxrc.errors import InputError

Array = NDArray[np.float32]


class Root(NamedTuple):
    """What the model says of the states that are searched from, float32.

    Attributes:
        prior_logits: Logits of the policy, ``[B, A]``.
        value: Expected return from here, in units of reward, ``[B]``.
        embedding: The model's own description of the state, ``[B, H]``.
    """

    prior_logits: Array
    value: Array
    embedding: Array


class Step(NamedTuple):
    """What the model says of an action in a state, float32.

    Attributes:
        reward: Reward of the action, ``[B]``.
        discount: Factor on the value of the next state, ``[B]``; 0 where the episode ends.
        prior_logits: Logits of the policy in the next state, ``[B, A]``.
        value: Value of the next state, ``[B]``.
        embedding: The model's description of the next state, ``[B, H]``.
    """

    reward: Array
    discount: Array
    prior_logits: Array
    value: Array
    embedding: Array


Recurrent = Callable[[NDArray[np.int32], Array], Step]


class SearchOutput(NamedTuple):
    """What the search says of the root states.

    Attributes:
        action: The action to take, int32 ``[B]``.
        action_weights: The improved policy, ``softmax(logits + scaled completed Q-values)``: what a
            policy network learns. float32 ``[B, A]``, 0 for invalid actions.
        value: Mean of all returns seen from the root, in units of reward, float32 ``[B]``.
        visits: How often each action was tried, int32 ``[B, A]``.
        qvalues: Reward plus discounted value of each action, in units of reward; those of actions
            that were not tried completed with the root's mixed value. float32 ``[B, A]``.
    """

    action: NDArray[np.int32]
    action_weights: Array
    value: Array
    visits: NDArray[np.int32]
    qvalues: Array


def gumbel_muzero_search(
    root: Root,
    recurrent: Recurrent | _search.Network,
    *,
    num_simulations: int,
    gumbel: Array,
    invalid_actions: NDArray[np.bool_] | None = None,
    max_considered: int = 16,
    value_scale: float = 0.1,
    maxvisit_init: float = 50.0,
    rescale: bool = True,
    mixed_value: bool = True,
    max_depth: int | None = None,
) -> SearchOutput:
    """Search for the best action of each state of a batch.

    At the root, sequential halving on ``gumbel + logits + scaled Q``; below, the action that is
    tried least for what the improved policy gives it. Without noise (``gumbel`` zero) that is a
    deterministic plan; with noise from Gumbel(0, 1) the action is a sample, and the improved
    policy is better than the prior in expectation even with few simulations.

    Two Q-values that differ in rounding alone count as different where ``rescale`` stretches them
    and all others of their node to 0..1 (mctx does the same).

    Args:
        root: The states.
        recurrent: The model: called ``num_simulations`` times with actions int32 ``[B]`` and the
            embeddings float32 ``[B, H]`` of the states that they are taken in. The arrays are its
            to keep. Native networks instead are evaluated in one call for the whole search, without
            the GIL.
        num_simulations: Actions tried per state, 1 to 2**24.
        gumbel: Noise on the root's logits, ``[B, A]``; zeros for none.
        invalid_actions: True where the root's action must not be taken, ``[B, A]``.
        max_considered: Actions that sequential halving starts with, at least 1.
        value_scale: Scaled Q-values are ``(maxvisit_init + most visits) * value_scale`` times the
            (rescaled) completed ones.
        maxvisit_init: See ``value_scale``.
        rescale: Whether a node's completed Q-values are stretched to 0..1 first.
        mixed_value: Whether Q-values are completed by the mixed value of the paper's appendix D,
            else by the network's value.
        max_depth: Actions in a row at most, at least 1; None for no limit.

    Raises:
        InputError: Shapes that do not agree, a number that is not finite, a state without a valid
            action, or a setting outside its range.
    """
    try:
        tree = _search.SearchTree(
            *root,
            gumbel,
            invalid_actions,
            num_simulations=num_simulations,
            max_depth=max_depth,
            max_considered=max_considered,
            value_scale=value_scale,
            maxvisit_init=maxvisit_init,
            rescale=rescale,
            mixed_value=mixed_value,
        )
    except ValueError as error:
        raise InputError(f"search: {error}") from None
    if isinstance(recurrent, _search.Network):
        try:
            tree.search(recurrent)
        except ValueError as error:
            raise InputError(f"search: the model's {error}") from None
        return SearchOutput(*tree.result())
    for _ in range(num_simulations):
        step = recurrent(*tree.select())
        try:
            tree.expand(*step)
        except ValueError as error:
            raise InputError(f"search: the model's {error}") from None
    return SearchOutput(*tree.result())
