"""Many environments in one process, each encode on a native thread of its own."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import logger
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, create_empty_array
from numpy.typing import NDArray

from vpxrc.envs.direct import RateControlContinuousEnv, RateControlEnv
from vpxrc.envs.episode import EncodeEpisode
from vpxrc.envs.pool import EpisodePool
from vpxrc.envs.problem import EncodeEnv
from vpxrc.envs.residual.env import ResidualRateControlContinuousEnv, ResidualRateControlEnv
from vpxrc.errors import InputError


class EncodeVectorEnv(VectorEnv[Any, Any, NDArray[Any]]):
    """A batch of environments, with the results of Gymnasium's ``SyncVectorEnv``.

    The results are equal bit for bit. So are the seeds (``seed + i``), the autoreset on the step
    after an episode's end (whose action is ignored), and the order in which a shared reward sees
    the encodes. But the encoders run at the same time, so a step takes as long as its slowest one.

    Args:
        num_envs: Number of environments, at least 1.
        arguments: As the single environment takes them.
        options: As the single environment takes them. ``reward`` is one object for all.
    """

    single: ClassVar[type[EncodeEnv[Any]]]
    metadata: dict[str, Any] = {  # noqa: RUF012
        **EncodeEnv.metadata,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(self, num_envs: int = 1, *arguments: Any, **options: Any) -> None:
        self.closed = True  # nothing has to be closed yet, should one of these raise
        env = self.single(*arguments, **options)
        self.num_envs = num_envs
        self.reward = env.reward
        self.render_mode = env.render_mode
        self.single_observation_space = env.observation_space
        self.single_action_space = env.action_space
        self.observation_space = batch_space(env.observation_space, num_envs)
        self.action_space = batch_space(env.action_space, num_envs)
        self._tasks = env.tasks
        self._problems = [env.problem, *(env.make_problem() for _ in range(num_envs - 1))]
        self._batch: Any = create_empty_array(env.observation_space, num_envs, fn=np.zeros)
        self._generators = [seeding.np_random()[0] for _ in range(num_envs)]
        self._pool = EpisodePool[Any](env.timeout)
        self._episodes: list[EncodeEpisode[Any] | None] = [None] * num_envs
        self.closed = False

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Start an encode in every environment; those that are going on are ended.

        Args:
            seed: Environment i gets ``seed + i``, or ``seed[i]`` of a sequence; None goes on
                drawing.
            options: As for :meth:`EncodeEnv.reset`, for all environments alike; ``reset_mask``,
                bool ``[num_envs]``, says which ones to reset (all).

        Raises:
            InputError: An option is unknown or out of range, or a clip cannot be used.
            PolicyError: The base policy, where there is one, failed.
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
        infos, _, _ = self._advance(started, {}, options)
        return self._observations(), infos

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Take a step in every environment; where an episode has ended, start the next one.

        Raises:
            InvalidAction: An action is not in the action space; nothing has changed.
            ResetNeeded: An environment was never reset, or the last step failed.
            PolicyError: The base policy, where there is one, failed; all encodes have ended.
            EncoderError: libvpx failed or took too long; all encodes have ended.
        """
        if len(actions) != self.num_envs:
            raise InvalidAction(f"{len(actions)} actions for {self.num_envs} environments")
        started: list[int] = []
        answers: dict[int, Any] = {}
        for i, problem in enumerate(self._problems):
            if self._episode(i).log is not None:
                started.append(i)
            else:
                answers[i] = problem.action(actions[i])
        infos, rewards, terminations = self._advance(started, answers, None)
        truncations = np.zeros(self.num_envs, np.bool_)
        return self._observations(), rewards, terminations, truncations, infos

    def _advance(
        self, started: Sequence[int], answers: dict[int, Any], options: dict[str, Any] | None
    ) -> tuple[dict[str, Any], NDArray[Any], NDArray[Any]]:
        """Start episodes and answer others, and wait until all of these have observations."""
        try:
            for i in started:
                self._start(i, options)
            for i, action in answers.items():
                self._episode(i).act(action)
            for _ in range(len(started) + len(answers)):
                i, self._episodes[i], observation = self._pool.next()
                self._write(i, observation)
        except BaseException:
            self._end_all()  # some encoders are ahead of others: there is no going on
            raise
        infos: dict[str, Any] = {}
        rewards = np.zeros(self.num_envs)
        terminations = np.zeros(self.num_envs, np.bool_)
        # In order of the environments, whichever came first: a reward may remember.
        for i in sorted((*started, *answers)):
            episode = self._episode(i)
            if i in answers:
                rewards[i] = episode.pay(self.reward)
                terminations[i] = episode.log is not None
            infos = self._add_info(infos, episode.info, i)
        return infos, rewards, terminations

    def _start(self, i: int, options: dict[str, Any] | None) -> None:
        video, encoder_options = self._tasks.draw(self._generators[i], options)
        self._episodes[i] = None
        self._pool.start(
            i,
            video,
            encoder_options,
            self._problems[i],
            keep_reconstruction=self.render_mode is not None,
        )

    def _episode(self, i: int) -> EncodeEpisode[Any]:
        episode = self._episodes[i]
        if episode is None:
            raise ResetNeeded(f"environment {i} has no episode: call reset() first")
        return episode

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:  # type: ignore[override]
        """Return each environment's picture; see :meth:`EncodeEnv.render`."""
        if self.render_mode is None:
            logger.warn('render() needs gymnasium.make_vec(..., render_mode="rgb_array")')
            return None
        return tuple(self._episode(i).picture() for i in range(self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        """End all encodes."""
        self._end_all()

    def _end_all(self) -> None:
        self._pool.close()
        self._episodes = [None] * self.num_envs

    def _write(self, i: int, observation: Any) -> None:
        if isinstance(observation, dict):
            for key, array in observation.items():
                self._batch[key][i] = array
        else:
            self._batch[i] = observation

    def _observations(self) -> Any:
        if isinstance(self._batch, dict):
            return {key: array.copy() for key, array in self._batch.items()}
        return self._batch.copy()


class RateControlVectorEnv(EncodeVectorEnv):
    """A batch of :class:`RateControlEnv`; see :class:`EncodeVectorEnv`."""

    single = RateControlEnv


class RateControlContinuousVectorEnv(EncodeVectorEnv):
    """A batch of :class:`RateControlContinuousEnv`; see :class:`EncodeVectorEnv`."""

    single = RateControlContinuousEnv


class ResidualRateControlVectorEnv(EncodeVectorEnv):
    """A batch of :class:`ResidualRateControlEnv`; see :class:`EncodeVectorEnv`."""

    single = ResidualRateControlEnv


class ResidualRateControlContinuousVectorEnv(EncodeVectorEnv):
    """A batch of :class:`ResidualRateControlContinuousEnv`; see :class:`EncodeVectorEnv`."""

    single = ResidualRateControlContinuousEnv
