"""The common part of all environments: spaces, tasks, and one encode after the other."""

import copy
import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, NamedTuple, Self

import gymnasium
import numpy as np
from gymnasium import logger, spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import InvalidAction, ResetNeeded
from numpy.typing import NDArray

from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.session import Session
from vpxrc.encoder.types import DEFAULT_TIMEOUT
from vpxrc.envs.checks import check_choice, check_positive
from vpxrc.envs.episode import EncodeEpisode, Seen
from vpxrc.envs.named import DEFAULT_REWARD, make_reward
from vpxrc.envs.region import RegionController, RegionReward, check_region
from vpxrc.envs.rewards import AnyReward, PreparedReward
from vpxrc.envs.tasks import Tasks
from vpxrc.media.frames import Video
from vpxrc.policies.base import Episode
from vpxrc.policies.region import WeightedRegion


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


class RegionProblem(Problem[Seen]):
    """Another problem, whose decisions have a region of interest.

    Args:
        make_problem: Makes the other problem.
        region: The region.
    """

    def __init__(self, make_problem: Callable[[], Problem[Seen]], region: WeightedRegion) -> None:
        self._problem = make_problem()
        self._region = region
        self.observation_space = self._problem.observation_space
        self.action_space = self._problem.action_space
        self.plan_groups = self._problem.plan_groups

    def options(self, options: EncoderOptions) -> EncoderOptions:
        """Return the other problem's options."""
        return self._problem.options(options)

    def episode(self, session: Session) -> EncodeEpisode[Seen]:
        """Return the episode of a session that is at its first stop.

        Raises:
            InputError: The region does not fit the clip.
            PolicyError: The base policy, where there is one, failed.
        """
        regions = self._region.regions(Episode(session))
        controller = self._problem.episode(session).controller
        return EncodeEpisode(session, RegionController(controller, regions))

    def action(self, given: Any) -> Any:
        """Return an action in the form that the other problem takes.

        Raises:
            InvalidAction: It is not in the action space.
        """
        return self._problem.action(given)


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


class Played(NamedTuple):
    """An episode as what has to be done to get there again: the encode is deterministic.

    Attributes:
        clip: Name of the clip.
        options: The encoder's options, before the problem changes them.
        actions: The actions so far, in the form that the episode takes.
    """

    clip: str
    options: EncoderOptions
    actions: list[Any]


class EncodeEnv(gymnasium.Env[Seen, Any]):
    """An environment whose episodes are encodes.

    It can be pickled, copied and forked in the middle of an episode. A copy has the decisions so
    far; the first time that it needs the encoder, it codes these frames again and goes on exactly
    where the original was.

    Args:
        make_problem: Makes the observations and actions; a batch of environments calls it for each.
        tasks: The clips, targets and encoder options to draw from.
        max_episode_steps: A number of steps that no episode exceeds.
        reward: The worth of encodes: a name, see :func:`vpxrc.envs.make_reward`, or an object.
        cost_limit: Achieved over target bitrate that is allowed, above 0: the sum of ``cost``.
        render_mode: None or ``rgb_array``.
        timeout: Seconds that the encoder may take for a frame.
        region: A region that all decisions have, and whose errors count more; None: none.

    Attributes:
        make_problem: What makes the observations and actions.
        problem: This environment's own.
        tasks: As given.
        reward: The worth of encodes.
        cost_limit: As given.
        timeout: As given.
        max_episode_steps: As given; ``spec`` has it too.
        log: The log of the encode that was finished last; None before the first one.

    Raises:
        InputError: An argument cannot be used.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012
    _spec: EnvSpec | None = None

    def __init__(
        self,
        make_problem: Callable[[], Problem[Seen]],
        tasks: Tasks,
        max_episode_steps: int,
        reward: str | AnyReward = DEFAULT_REWARD,
        cost_limit: float = 1.0,
        render_mode: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        region: WeightedRegion | None = None,
    ) -> None:
        self.make_problem = make_problem
        if region is not None:
            self.make_problem = partial(RegionProblem, make_problem, region)
        self.problem = self.make_problem()
        self.tasks = tasks
        self.max_episode_steps = max_episode_steps
        self.cost_limit = check_positive("cost_limit", cost_limit)
        self.reward = make_reward(reward, self.cost_limit)
        if region is not None:
            check_region(region, tasks)
            self.reward = RegionReward(self.reward, region)
        self.render_mode: str | None = check_choice("render_mode", render_mode, (None, "rgb_array"))
        self.timeout = check_positive("timeout", timeout)
        self.observation_space = self.problem.observation_space
        self.action_space = self.problem.action_space
        self.log: EncodeLog | None = None
        self._episode: EncodeEpisode[Seen] | None = None
        self._played: Played | None = None
        self._process = os.getpid()

    @property
    def spec(self) -> EnvSpec | None:
        """The specification that it was made by, with its own ``max_episode_steps``."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        if spec is not None and spec.max_episode_steps is None:
            spec = dataclasses.replace(spec, max_episode_steps=self.max_episode_steps)
        self._spec = spec

    @property
    def clip_names(self) -> tuple[str, ...]:
        """Names of the clips, in the order that ``info["clip_index"]`` counts."""
        return self.tasks.clip_names

    @property
    def episode(self) -> EncodeEpisode[Seen] | None:
        """The episode that is going on or has ended; None before the first one.

        Raises:
            PolicyError: The base policy, where there is one, failed.
            EncoderError: libvpx failed.
        """
        if self._process != os.getpid():  # a forked child has the session but not its thread
            self._process = os.getpid()
            self._episode = None
        if self._episode is None and self._played is not None:
            self._episode = self._play_again(self._played)
        return self._episode

    @property
    def played(self) -> Played | None:
        """The decisions of the episode that is going on or has ended; None before the first."""
        return self._played and self._played._replace(actions=list(self._played.actions))

    def resume(self, played: Played) -> None:
        """Go on where another environment with the same tasks and the same reward was.

        The frames so far are coded once more, when they are first needed.

        Args:
            played: The other one's ``played``.
        """
        self.close()
        self._played = played._replace(actions=list(played.actions))

    def __getstate__(self) -> dict[str, Any]:
        """Return everything but what encodes at the moment: of it, the decisions."""
        generator = self.np_random  # made when it is first asked for; here for both
        return {
            **self.__dict__,
            "_np_random": generator,
            "_played": self.played,  # of which a shallow copy has actions of its own too
            "problem": None,
            "_episode": None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over what ``__getstate__`` returned."""
        self.__dict__.update(state)
        self.problem = self.make_problem()
        self._process = os.getpid()

    def clone(self) -> Self:
        """Return an independent copy at the same point of the same episode.

        The copy codes the frames so far once more, when it is first used. Everything is exact: the
        same actions lead to the same observations, rewards and streams.
        """
        return copy.deepcopy(self)

    def action_masks(self) -> NDArray[np.bool_]:
        """Return which actions there are, all: bool ``[n]``, as sb3-contrib's MaskablePPO asks.

        Raises:
            TypeError: The actions are not discrete.
        """
        if not isinstance(self.action_space, spaces.Discrete):
            raise TypeError("only discrete actions have a mask")
        return np.ones(int(self.action_space.n), np.bool_)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Seen, dict[str, Any]]:
        """Start an encode; one that is going on is ended.

        Args:
            seed: Seed of the generator that draws clip and target; None goes on drawing.
            options: May have ``clip``, a name or an index, and ``target_bitrate``, in kbit/s.

        Raises:
            InputError: An option is unknown or out of range, or the clip cannot be used.
            PolicyError: The base policy, where there is one, failed.
            EncoderError: libvpx failed.
        """
        if seed is not None:
            self.start_generator(seed)
        video, encoder_options = self.draw(options)
        episode, observation = self._begin(video, encoder_options)
        return observation, self.told(episode)

    def draw(self, options: dict[str, Any] | None) -> tuple[Video, EncoderOptions]:
        """End the encode that is going on, and return clip and options of the next one.

        Args:
            options: As for ``reset``.

        Raises:
            InputError: An option is unknown or out of range, or the clip cannot be used.
            EncoderError: A reward's reference encode failed.
        """
        video, encoder_options = self.tasks.draw(self.np_random, options)
        self.close()
        if isinstance(self.reward, PreparedReward):
            self.reward.prepare(video, encoder_options)
        return video, encoder_options

    def adopt(self, episode: EncodeEpisode[Seen], options: EncoderOptions) -> None:
        """Take an episode at its first decision for the one that is going on.

        Args:
            episode: The episode.
            options: What ``draw`` returned for it.
        """
        self._process = os.getpid()
        self._episode = episode
        self._played = Played(episode.session.video.name, options, [])

    def step(self, action: Any) -> tuple[Seen, Any, bool, bool, dict[str, Any]]:
        """Answer the pending decision, and go on to the next one.

        Raises:
            InvalidAction: The action is not in the action space; nothing has changed.
            ResetNeeded: No episode is going on.
            PolicyError: The base policy, where there is one, failed.
            EncoderError: libvpx failed or took too long.
        """
        episode = self.act(self.problem.action(action))
        observation = _advance(episode)
        reward, terminated, info = self.outcome(episode)
        return observation, reward, terminated, False, info

    def act(self, action: Any) -> EncodeEpisode[Seen]:
        """Answer the pending decision; the encoder runs on.

        Args:
            action: An action in the form that the episode takes, see :meth:`Problem.action`.

        Returns:
            The episode that is going on.

        Raises:
            ResetNeeded: No episode is going on.
        """
        episode, played = self.episode, self._played
        if episode is None or played is None or episode.log is not None:
            raise ResetNeeded("no episode is going on: call reset() first")
        episode.act(action)
        played.actions.append(action)
        return episode

    def outcome(self, episode: EncodeEpisode[Seen]) -> tuple[Any, bool, dict[str, Any]]:
        """Return reward, termination and info of the step that has ended, once per step."""
        reward = episode.pay(self.reward)
        self.log = episode.log or self.log
        return reward, episode.log is not None, self.told(episode)

    def start_generator(self, seed: int) -> None:
        """Start the generator that draws clips and targets anew."""
        super().reset(seed=seed)

    def sibling(self) -> Self:
        """Return another environment with the same tasks and the same reward, one object each."""
        other = copy.copy(self)  # with a problem of its own
        other.forget()
        return other

    def forget(self) -> None:
        """Forget the episode, the last log and the generators, as if it had just been made."""
        self._episode = self._played = self.log = None
        self._np_random = self._np_random_seed = None
        self.observation_space = self.problem.observation_space
        self.action_space = self.problem.action_space

    def told(self, episode: EncodeEpisode[Any]) -> dict[str, Any]:
        """Return ``info``: numpy's numbers, of the same names at every step."""
        info = episode.info
        # TorchRL and others ask for the type of each.
        return {
            "clip_index": np.int64(self.clip_names.index(episode.session.video.name)),
            **info,
            "constraint_met": np.int64(info["overshoot"] + 1 <= self.cost_limit),
        }

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
        if self._episode is not None:
            self._episode.session.close()
        self._episode = self._played = None

    def _begin(self, video: Video, options: EncoderOptions) -> tuple[EncodeEpisode[Seen], Seen]:
        session = self.problem.options(options).open(
            video,
            keep_reconstruction=self.render_mode is not None,
            plan_groups=self.problem.plan_groups,
            timeout=self.timeout,
        )
        episode = self.problem.episode(session)
        self.adopt(episode, options)
        return episode, _advance(episode)

    def _play_again(self, played: Played) -> EncodeEpisode[Seen]:
        """Come to where an episode was; its rewards have been paid."""
        episode, _ = self._begin(self.tasks.open(played.clip), played.options)
        for action in played.actions:
            episode.act(action)
            _advance(episode)
        episode.settle(self.reward)
        self._played = played
        return episode


def _advance(episode: EncodeEpisode[Seen]) -> Seen:
    while (observation := episode.advance()) is None:
        pass  # the session waits, so it rests again
    return observation
