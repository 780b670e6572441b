"""A base policy whose decisions are corrected, for policies and environments alike."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import ArrayLike

from vpxrc.encoder.types import Decision, Frame, Group
from vpxrc.envs.residual.config import Flat, Offset, ResidualConfig, offset_decision
from vpxrc.envs.residual.observation import OBSERVATION, VECTOR, ResidualObserver
from vpxrc.envs.view import EncodeView
from vpxrc.errors import InputError, PolicyError, VpxrcError
from vpxrc.policies.base import Episode, Policy


class ResidualController:
    """Asks the base policy about every frame of one encode, and adds an agent's offsets.

    Per frame call ``consider``, then ``answer``.

    Args:
        episode: The encode, at its first stop, with the base policy's options.
        base: The policy. It serves this encode only, until the encode is over.
        config: The decision points and the offsets. Its ``base`` is not read.
        unit: Whether observations are scaled to [-1, 1].

    Attributes:
        view: The facts of the encode; it is updated at decision points.
        offsets: (level, reference) per decision so far.

    Raises:
        PolicyError: The base policy raised.
    """

    def __init__(
        self, episode: Episode, base: Policy, config: ResidualConfig, *, unit: bool = False
    ) -> None:
        self.view = EncodeView(episode)
        self.offsets: list[Offset] = []
        self._base = base
        self._config = config
        self._unit = unit
        self._observer = ResidualObserver(self.view)
        self._group_index = -1
        self._considered: tuple[Frame, Decision] | None = None
        self._is_point = False
        with self._names_errors():
            base.begin(episode)

    def plan_group(self, group: Group) -> ArrayLike | None:
        """Return the base policy's provisional q indices of a new group.

        Raises:
            PolicyError: The base policy raised.
        """
        with self._names_errors():
            return self._base.plan_group(group)

    def consider(self, frame: Frame) -> Flat | None:
        """Ask the base policy about the pending frame.

        Returns:
            At a decision point, the observation, float32 ``[len(OBSERVATION)]``; else None.

        Raises:
            PolicyError: The base policy raised.
        """
        with self._names_errors():
            decision = self._base.decide(frame)
        self._considered = frame, decision
        is_new = frame.group_index != self._group_index
        self._is_point = is_new or self._config.decisions == "frame"
        if not self._is_point:
            return None
        self._group_index = frame.group_index
        self.view.update(frame)
        row = self._observer.observation(decision, self.offsets)
        return VECTOR.unit(row) if self._unit else row

    def answer(self, action: int | Offset | None = None) -> Decision:
        """Return how to code the frame that was considered last.

        Args:
            action: At a decision point, the index of one of ``config.actions``, or a
                (level, reference) of its own. None elsewhere: the last offset holds.

        Raises:
            InputError: There is no such action, or one is missing; nothing has changed.
            PolicyError: The base policy raised.
        """
        if self._considered is None or self._is_point != (action is not None):
            raise InputError("an action is for a decision point, and only for that")
        if action is not None:
            self.offsets.append(self._offset(action))
        frame, own = self._considered
        self._considered = None
        decision = offset_decision(frame, own, self.offsets[-1], self.view.episode.log2_step)
        if decision.q_index != own.q_index:
            with self._names_errors():
                self._base.overruled(frame, decision)
        return decision

    def end(self) -> Flat:
        """Update the view when the stream is complete, and return the observation: 0."""
        self.view.update(None)
        return np.zeros(len(OBSERVATION), np.float32)

    def _offset(self, action: int | Offset) -> Offset:
        if isinstance(action, tuple):
            level, reference = (float(part) for part in action)
            if not (math.isfinite(level) and math.isfinite(reference)):
                raise InputError(f"an offset must be finite, not {action!r}")
            return level, reference
        actions = self._config.actions
        if not 0 <= action < len(actions):
            raise InputError(f"there are actions 0..{len(actions) - 1}, not {action}")
        return actions[action]

    @contextmanager
    def _names_errors(self) -> Iterator[None]:
        """Name clip and frame where the base policy raises."""
        try:
            yield
        except VpxrcError:
            raise
        except Exception as error:
            episode = self.view.episode
            where = f"{episode.video.name}: coded frame {len(episode.records())}"
            raise PolicyError(f"{where}: the base policy raised: {error!r}") from error
