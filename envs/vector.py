"""Many rate-control environments in one process, each encode on a native thread of its own."""

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import logger
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from vpxrc.encoder.session import SessionPool
from vpxrc.encoder.types import DEFAULT_TIMEOUT, Decision
from vpxrc.envs.direct import RateControlContinuousEnv, RateControlEnv
from vpxrc.envs.episode import Episode
from vpxrc.envs.observations import DEFAULT_MAX_FRAMES, Arrays, empty_arrays, observation_space
from vpxrc.envs.rewards import PsnrReward, Reward
from vpxrc.envs.tasks import Clips, Targets, Tasks
from vpxrc.errors import InputError


class RateControlVectorEnv(VectorEnv[Arrays, Any, NDArray[Any]]):
    """A batch of :class:`RateControlEnv`, with the results of Gymnasium's ``SyncVectorEnv``.

    Bit for bit: also the seeds (``seed + i``), the autoreset on the step after an episode's end
    (whose action is ignored), and the order in which a shared reward sees the encodes. But the
    encoders run at the same time, so a step takes as long as its slowest frame.

    Args:
        num_envs: Number of environments, at least 1.
        clips: As all others, see :class:`RateControlEnv`.
        target_bitrate: kbit/s.
        reward: One object for all.
        max_frames: The most frames of a clip.
        dependency: Whether to observe the temporal dependency model.
        render_mode: None or ``rgb_array``.
        timeout: Seconds for a frame.
        options: Fields of :class:`vpxrc.EncoderOptions`.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        **RateControlEnv.metadata,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }
    _env: ClassVar[type[RateControlEnv]] = RateControlEnv

    def __init__(
        self,
        num_envs: int = 1,
        clips: Clips = "samples",
        target_bitrate: Targets = 256,
        *,
        reward: Reward | None = None,
        max_frames: int = DEFAULT_MAX_FRAMES,
        dependency: bool = True,
        render_mode: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        **options: Any,
    ) -> None:
        self.num_envs = num_envs
        self._tasks = Tasks(clips, target_bitrate, max_frames, options)
        self.reward: Reward = PsnrReward() if reward is None else reward
        self.dependency = dependency
        self.render_mode = render_mode
        self.single_observation_space = observation_space(max_frames)
        self.single_action_space = copy.deepcopy(self._env._action_space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

        self._arrays = empty_arrays(self.observation_space)
        self._slots = [
            {key: array[i] for key, array in self._arrays.items()} for i in range(num_envs)
        ]
        self._generators = [seeding.np_random()[0] for _ in range(num_envs)]
        self._pool = SessionPool(timeout)
        self._episodes: list[Episode | None] = [None] * num_envs
        self._sessions: dict[int, int] = {}  # environment -> its session's id in the pool

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Arrays, dict[str, Any]]:
        """Start an encode in every environment; those that are going on are ended.

        Args:
            seed: Environment i gets ``seed + i``, or ``seed[i]`` of a sequence; None goes on
                drawing.
            options: As for :meth:`RateControlEnv.reset`, for all environments alike;
                ``reset_mask``, bool ``[num_envs]``, says which ones to reset (all).

        Raises:
            InputError: An option is unknown or out of range, or a clip cannot be used.
            EncoderError: libvpx failed.
        """
        if seed is None or isinstance(seed, int | np.integer):
            seeds = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise InputError(f"{len(seeds)} seeds for {self.num_envs} environments")
        options = dict(options or {})
        mask = np.asarray(options.pop("reset_mask", np.ones(self.num_envs, np.bool_)))
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise InputError(f"reset_mask must be bool [{self.num_envs}]")
        started = np.flatnonzero(mask).tolist()
        for i in started:
            if seeds[i] is not None:
                self._generators[i] = seeding.np_random(seeds[i])[0]
        infos, _, _ = self._advance(dict.fromkeys(started), options)
        return self._observations(), infos

    def step(
        self, actions: Any
    ) -> tuple[Arrays, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Code a frame in every environment; where an episode has ended, start the next one.

        Raises:
            InvalidAction: An action is not in the action space; nothing has changed.
            ResetNeeded: An environment was never reset, or the last step failed.
            EncoderError: libvpx failed or took too long; all encodes have ended.
        """
        if len(actions) != self.num_envs:
            raise InvalidAction(f"{len(actions)} actions for {self.num_envs} environments")
        decisions: dict[int, Decision | None] = {}
        for i in range(self.num_envs):
            episode = self._running(i)
            decisions[i] = None
            if episode.log is None:
                action = self._env._checked(actions[i])
                decisions[i] = self._env._decision(action, episode)
        infos, rewards, terminations = self._advance(decisions, None)
        return (
            self._observations(),
            rewards,
            terminations,
            np.zeros(self.num_envs, np.bool_),
            infos,
        )

    def _advance(
        self, decisions: dict[int, Decision | None], options: dict[str, Any] | None
    ) -> tuple[dict[str, Any], NDArray[Any], NDArray[Any]]:
        """Answer environments, or start their next encodes (None), and wait for all of them."""
        found: dict[int, dict[str, Any]] = {}
        try:
            for i, decision in decisions.items():
                if decision is None:
                    self._start(i, options)
                else:
                    self._running(i).session.step(decision)
            environments = {session_id: i for i, session_id in self._sessions.items()}
            for _ in decisions:
                session_id, session = self._pool.next()
                i = environments[session_id]
                if self._episodes[i] is None:
                    self._episodes[i] = Episode(session, self._slots[i], self.dependency)
                found[i] = self._running(i).observe()
        except BaseException:
            self._end_all()  # some encoders are ahead of others: there is no going on
            raise
        infos: dict[str, Any] = {}
        rewards = np.zeros(self.num_envs)
        terminations = np.zeros(self.num_envs, np.bool_)
        # In order of the environments, whichever came first: a reward may remember.
        for i in sorted(found):
            log = self._running(i).log
            if log is not None:
                rewards[i] = self.reward(log)
                terminations[i] = True
            infos = self._add_info(infos, found[i], i)
        return infos, rewards, terminations

    def _start(self, i: int, options: dict[str, Any] | None) -> None:
        video, encoder_options = self._tasks.draw(self._generators[i], options)
        if i in self._sessions:
            self._pool.close_session(self._sessions.pop(i))
        self._episodes[i] = None
        self._sessions[i] = self._pool.open(
            video, encoder_options, keep_reconstruction=self.render_mode is not None
        )

    def _running(self, i: int) -> Episode:
        episode = self._episodes[i]
        if episode is None:
            raise ResetNeeded(f"environment {i} has no episode: call reset() first")
        return episode

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:  # type: ignore[override]
        """Return each environment's picture; see :meth:`RateControlEnv.render`."""
        if self.render_mode is None:
            logger.warn('render() needs gymnasium.make_vec(..., render_mode="rgb_array")')
            return None
        return tuple(self._running(i).picture() for i in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        """End all encodes."""
        self._end_all()

    def _end_all(self) -> None:
        self._pool.close()
        self._sessions.clear()
        self._episodes = [None] * self.num_envs

    def _observations(self) -> Arrays:
        return {key: array.copy() for key, array in self._arrays.items()}


class RateControlContinuousVectorEnv(RateControlVectorEnv):
    """A batch of :class:`RateControlContinuousEnv`; see :class:`RateControlVectorEnv`."""

    _env = RateControlContinuousEnv
