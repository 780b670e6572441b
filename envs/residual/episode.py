"""One encode under a base policy whose decisions are corrected."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vpxrc.encoder.session import Session
from vpxrc.encoder.types import Decision, Frame, State
from vpxrc.envs.episode import Episode
from vpxrc.envs.observations import empty_arrays, observation_space
from vpxrc.envs.residual.config import Flat, Move, ResidualConfig, moved
from vpxrc.envs.residual.observation import ResidualObserver
from vpxrc.errors import EncoderError, InputError, PolicyError, VpxrcError
from vpxrc.policies.base import Episode as PolicyEpisode
from vpxrc.policies.base import Policy

# The encode


@contextmanager
def _plans_errors(session: Session) -> Iterator[None]:
    """Name clip and frame where the plan raises."""
    try:
        yield
    except VpxrcError:
        raise
    except Exception as error:
        where = f"{session.video.name}: coded frame {session.progress}"
        raise PolicyError(f"{where}: the plan raised: {error!r}") from error


class ResidualEpisode(Episode):
    """One encode under a plan whose decisions are moved, from the first decision on.

    Works on a session that waits for its answers and on one of a :class:`vpxrc.SessionPool`: call
    ``advance`` whenever it is at rest. Where it gives an observation, answer with ``act``.

    Args:
        session: The encode, with the plan's own options (``plan.options``) and with
            ``plan_groups`` where ``plan.plans_groups``.
        plan: The policy; it can serve one episode at a time.
        config: What is decided. Its ``plan`` is not read.

    Attributes:
        log: The log of the encode once it is complete, else None.
        info: What :meth:`Episode.observe` told at the last decision point or the end.
        steps: Per decision whose frames are coded: the rows ``[first, last)`` of the log that came
            of it. Together they are the whole log.
        moves: Per decision, (level, reference).
    """

    def __init__(self, session: Session, plan: Policy, config: ResidualConfig) -> None:
        # Of any length: what depends on it is not observed.
        arrays = empty_arrays(observation_space(max(session.video.num_frames, 2)))
        super().__init__(session, arrays)
        self.info: dict[str, Any] = {}
        self.steps: list[tuple[int, int]] = []
        self.moves: list[Move] = []
        self._plan = plan
        self._config = config
        self._sight = ResidualObserver(self._observer, arrays)
        self._group_index = -1
        self._pending: tuple[Frame, Decision, Flat] | None = None
        self._first_row = 0
        with _plans_errors(session):
            plan.begin(PolicyEpisode(session))

    def advance(self) -> Flat | None:
        """Go on from where the session rests.

        Returns:
            At a decision point, the observation, float32 ``[len(OBSERVATION)]``; again the same
            until ``act`` is called. Elsewhere None: the session has been answered and runs, or is
            complete and closed, and ``log`` is there.

        Raises:
            PolicyError: The plan raised or answered out of range.
            EncoderError: libvpx failed, or the session still runs.
        """
        if self._pending is not None:
            return self._pending[2].copy()
        session, plan = self.session, self._plan
        if self.log is not None:
            return None
        if session.state == State.DONE:
            self._end_step(len(session.records()))
            self.info = self.observe()
            return None
        if session.state == State.GROUP:
            with _plans_errors(session):
                answer = plan.plan_group(session.group)
            session.step_group(answer)
            return None
        frame = session.frame
        if frame is None:
            raise EncoderError(f"{session.video.name}: the session is not at rest")
        with _plans_errors(session):
            planned = plan.decide(frame)
        if self._config.decisions == "group" and frame.group_index == self._group_index:
            self._code(frame, planned)
            return None
        self._group_index = frame.group_index
        rows = session.records()
        self._end_step(len(rows))
        self.info = self.observe()
        observation = self._sight.observation(planned, rows, self.moves)
        self._pending = frame, planned, observation
        return observation.copy()

    def act(self, action: int | Move) -> None:
        """Answer a decision point; the session runs on.

        Args:
            action: Index of a move, or a (level, reference) of its own.

        Raises:
            InputError: There is no such move, or nothing waits for one; nothing has changed.
        """
        if self._pending is None:
            raise InputError("no decision is pending: call advance() first")
        if isinstance(action, tuple):
            level, reference = (float(part) for part in action)
            if not (math.isfinite(level) and math.isfinite(reference)):
                raise InputError(f"a move must be finite, not {action!r}")
            move = level, reference
        else:
            actions = self._config.actions
            if not 0 <= action < len(actions):
                raise InputError(f"there are actions 0..{len(actions) - 1}, not {action}")
            move = actions[action]
        frame, planned, _ = self._pending
        self._pending = None
        self.moves.append(move)
        self._code(frame, planned)

    def _code(self, frame: Frame, planned: Decision) -> None:
        decision = moved(frame, planned, self.moves[-1], self.session.log2_step)
        if decision.q_index != planned.q_index:
            with _plans_errors(self.session):
                self._plan.overruled(frame, decision)
        self.session.step(decision)

    def _end_step(self, rows: int) -> None:
        if self.moves:
            self.steps.append((self._first_row, rows))
            self._first_row = rows
