"""Agents that correct another policy's decisions, as policies."""

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.types import Decision, Frame
from vpxrc.envs.residual.config import Offset, ResidualConfig, make_base
from vpxrc.envs.residual.controller import ResidualController
from vpxrc.policies.base import Episode
from vpxrc.policies.wrapper import PolicyWrapper


class ResidualPolicy(PolicyWrapper):
    """A base policy with an agent that corrects its decisions by :meth:`choose`.

    It codes, byte for byte, the stream that the environment codes under the same actions.

    Args:
        config: The base policy, the decision points and the offsets.

    Raises:
        InputError: There is no such base policy.
    """

    def __init__(self, config: ResidualConfig) -> None:
        super().__init__(make_base(config.base))
        self.config = config

    @abstractmethod
    def choose(self, observation: NDArray[np.float32]) -> int | Offset:
        """Return an action.

        Args:
            observation: float32 ``[len(OBSERVATION)]``.

        Returns:
            Index of one of ``config.actions``, or a (level, reference) of its own.
        """

    def begin(self, episode: Episode) -> None:
        """Start a clip."""
        self._controller = ResidualController(episode, self.policy, self.config)

    def decide(self, frame: Frame) -> Decision:
        """Return the base policy's decision with the agent's offset."""
        observation = self._controller.consider(frame)
        return self._controller.answer(None if observation is None else self.choose(observation))
