"""Agents that correct another policy's decisions, as policies."""

from abc import abstractmethod
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.session import Session
from vpxrc.encoder.types import Decision, Frame
from vpxrc.envs.residual.config import Move, ResidualConfig, make_plan
from vpxrc.envs.residual.episode import ResidualEpisode
from vpxrc.policies.base import Episode
from vpxrc.policies.wrapper import PolicyWrapper


class ResidualPolicy(PolicyWrapper):
    """A plan whose decisions are moved by what :meth:`choose` makes of the observation.

    What it codes is, byte for byte, what the environment codes under the same actions.

    Args:
        config: The plan, when there is a decision, and the moves.

    Raises:
        InputError: There is no such plan.
    """

    def __init__(self, config: ResidualConfig) -> None:
        super().__init__(make_plan(config.plan))
        self.config = config

    @abstractmethod
    def choose(self, observation: NDArray[np.float32]) -> int | Move:
        """Return an action.

        Args:
            observation: float32 ``[len(OBSERVATION)]``.

        Returns:
            Index of one of ``config.actions``, or a (level, reference) of its own.
        """

    def begin(self, episode: Episode) -> None:
        """Start a clip."""
        self._relay = _Relay(episode._session)
        session = cast(Session, self._relay)
        self._episode = ResidualEpisode(session, self.policy, self.config)

    def decide(self, frame: Frame) -> Decision:
        """Return the plan's decision, moved."""
        observation = self._episode.advance()
        if observation is not None:
            self._episode.act(self.choose(observation))
        return self._relay.decision


class _Relay:
    """A session at rest whose step only keeps the decision, for its owner to take."""

    decision: Decision

    def __init__(self, session: Session) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def step(self, decision: Decision) -> None:
        self.decision = decision
