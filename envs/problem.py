"""The common part of all environments: spaces, tasks, and one encode after the other."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic

import gymnasium
import numpy as np
from gymnasium import logger, spaces
from gymnasium.error import InvalidAction, ResetNeeded
from numpy.typing import NDArray

from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.session import Session
from vpxrc.encoder.types import DEFAULT_TIMEOUT
from vpxrc.envs.episode import EncodeEpisode, Seen
from vpxrc.envs.rewards import PsnrReward, Reward
from vpxrc.envs.tasks import Tasks


class Problem(ABC, Generic[Seen]):
    """The observations and actions of an environment; it serves one episode at a time.

    Attributes:
        observation_space: The space of the observations.
        action_space: The space of the actions.
        plan_groups: Whether sessions stop at every new group too.
    """

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    plan_groups: bool = False

    def options(self, options: EncoderOptions) -> EncoderOptions:
        """Return the options to encode with, given those asked for."""
        return options

    @abstractmethod
    def episode(self, session: Session) -> EncodeEpisode[Seen]:
        """Return the episode of a session that is at its first stop."""

    @abstractmethod
    def action(self, given: Any) -> Any:
        """Return an action in the form that the episode takes.

        Raises:
            InvalidAction: It is not in the action space.
        """


def checked(action: Any, space: spaces.Space[Any]) -> Any:
    """Return an action that is in a space; for a ``Box``, numbers of any kind as float32.

    Raises:
        InvalidAction: It is not in the space.
    """
    if isinstance(space, spaces.Box):
        try:
            # The space would refuse float64, which is what most arithmetic ends in.
            action = np.asarray(action, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InvalidAction(f"{action!r} is not in the action space {space}") from error
    if not space.contains(action):
        raise InvalidAction(f"{action!r} is not in the action space {space}")
    return action


class EncodeEnv(gymnasium.Env[Seen, Any]):
    """An environment whose episodes are encodes.

    Args:
        make_problem: Makes the observations and actions; a batch of environments calls it for each.
        tasks: The clips, targets and encoder options to draw from.
        reward: The worth of encodes; None for :class:`vpxrc.envs.PsnrReward`.
        render_mode: None or ``rgb_array``.
        timeout: Seconds that the encoder may take for a frame.

    Attributes:
        make_problem: As given.
        problem: This environment's own.
        tasks: As given.
        reward: As given.
        timeout: As given.
        episode: The episode that is going on or has ended; None before the first one.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012

    def __init__(
        self,
        make_problem: Callable[[], Problem[Seen]],
        tasks: Tasks,
        reward: Reward | None = None,
        render_mode: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self.make_problem = make_problem
        self.problem = make_problem()
        self.tasks = tasks
        self.reward: Reward = PsnrReward() if reward is None else reward
        self.render_mode = render_mode
        self.timeout = timeout
        self.observation_space = self.problem.observation_space
        self.action_space = self.problem.action_space
        self.episode: EncodeEpisode[Seen] | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Seen, dict[str, Any]]:
        """Start an encode; one that is going on is ended.

        Args:
            seed: Seed of the generator that draws clip and target; None goes on drawing.
            options: May have ``clip``, a name, and ``target_bitrate``, in kbit/s.

        Raises:
            InputError: An option is unknown or out of range, or the clip cannot be used.
            PolicyError: The base policy, where there is one, failed.
            EncoderError: libvpx failed.
        """
        super().reset(seed=seed)
        video, encoder_options = self.tasks.draw(self.np_random, options)
        self.close()
        session = self.problem.options(encoder_options).open(
            video,
            keep_reconstruction=self.render_mode is not None,
            plan_groups=self.problem.plan_groups,
            timeout=self.timeout,
        )
        self.episode = self.problem.episode(session)
        return self._advance(self.episode), self.episode.info

    def step(self, action: Any) -> tuple[Seen, float, bool, bool, dict[str, Any]]:
        """Answer the pending decision, and go on to the next one.

        Raises:
            InvalidAction: The action is not in the action space; nothing has changed.
            ResetNeeded: No episode is going on.
            PolicyError: The base policy, where there is one, failed.
            EncoderError: libvpx failed or took too long.
        """
        episode = self.episode
        if episode is None or episode.log is not None:
            raise ResetNeeded("no episode is going on: call reset() first")
        episode.act(self.problem.action(action))
        observation = self._advance(episode)
        reward = episode.pay(self.reward)
        return observation, reward, episode.log is not None, False, episode.info

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Return the reconstruction of the frame coded last, RGB uint8 ``[height, width, 3]``."""
        if self.render_mode is None:
            logger.warn('render() needs gymnasium.make(..., render_mode="rgb_array")')
            return None
        if self.episode is None:
            raise ResetNeeded("no episode is going on: call reset() first")
        return self.episode.picture()

    def close(self) -> None:
        """End the encode wherever it is; idempotent."""
        if self.episode is not None:
            self.episode.session.close()
            self.episode = None

    def _advance(self, episode: EncodeEpisode[Seen]) -> Seen:
        while (observation := episode.advance()) is None:
            pass  # the session waits, so it rests again
        return observation
