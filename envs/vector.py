"""Many environments in one process, each encode on a native thread of its own."""

import os
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import logger
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, create_empty_array
from numpy.typing import NDArray

from vpxrc.encoder.options import EncoderOptions
from vpxrc.envs.checks import check_integer
from vpxrc.envs.direct import MORateControlEnv, RateControlContinuousEnv, RateControlEnv
from vpxrc.envs.pool import EpisodePool
from vpxrc.envs.problem import EncodeEnv
from vpxrc.envs.residual.env import ResidualRateControlContinuousEnv, ResidualRateControlEnv
from vpxrc.errors import InputError


class EncodeVectorEnv(VectorEnv[Any, Any, NDArray[Any]]):
    """A batch of environments, with the results of Gymnasium's ``SyncVectorEnv``.

    The results are equal bit for bit. So are the seeds (``seed + i``), the autoreset, and the order
    in which a shared reward sees the encodes. But the encoders run at the same time, so a step
    takes as long as its slowest one. ``send`` and ``recv`` do not wait for that one; they are
    EnvPool's.

    Args:
        num_envs: Number of environments, at least 1.
        arguments: As the single environment takes them.
        autoreset_mode: Gymnasium's ``NextStep`` (the step after an episode's end starts the next
            one, and its action is ignored), ``SameStep`` (the last step does; ``final_obs`` and
            ``final_info`` of ``info`` have what was there) or ``Disabled``.
        batch_size: The observations that ``recv`` returns, the first that are ready. None: all.
        max_episode_steps: Steps after which an episode is truncated; None: never.
        options: As the single environment takes them. ``reward`` is one object for all.

    Attributes:
        envs: The environments.
        batch_size: As given.
    """

    single: ClassVar[type[EncodeEnv[Any]]]
    metadata: dict[str, Any] = {  # noqa: RUF012
        **EncodeEnv.metadata,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        *arguments: Any,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        batch_size: int | None = None,
        max_episode_steps: int | None = None,
        **options: Any,
    ) -> None:
        self.closed = True  # nothing has to be closed yet, should one of these raise
        self.num_envs = check_integer("num_envs", num_envs, 1)
        asked = num_envs if batch_size is None else batch_size
        self.batch_size = check_integer("batch_size", asked, 1, num_envs)
        self._mode = _mode(autoreset_mode)
        if max_episode_steps is not None:
            check_integer("max_episode_steps", max_episode_steps, 1)
        self._max_steps = max_episode_steps
        self.metadata = {**type(self).metadata, "autoreset_mode": self._mode}
        env = self.single(*arguments, **options)
        self.envs = [env, *(env.sibling() for _ in range(num_envs - 1))]
        self.render_mode = env.render_mode
        self.single_observation_space = env.observation_space
        self.single_action_space = env.action_space
        self.observation_space = batch_space(env.observation_space, num_envs)
        self.action_space = batch_space(env.action_space, num_envs)
        self._reward_shape = getattr(env, "reward_space", np.zeros(())).shape
        self._batch: Any = create_empty_array(env.observation_space, num_envs, fn=np.zeros)
        self._pool = EpisodePool[Any](env.timeout)
        self._process = os.getpid()
        self._starting: dict[int, EncoderOptions] = {}  # of episodes without a first observation
        self._acting: set[int] = set()  # environments that have been answered
        self._steps = np.zeros(num_envs, np.int64)
        self._is_over = np.zeros(num_envs, np.bool_)
        self.closed = False

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to be copied: the encoders of a batch share a queue.

        Raises:
            TypeError: Always.
        """
        raise TypeError("a vector environment cannot be copied: copy env.envs[i].clone() instead")

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
        options = dict(options or {})
        mask = np.asarray(options.pop("reset_mask", np.ones(self.num_envs, np.bool_)))
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise InputError(f"reset_mask must be bool [{self.num_envs}]")
        self._leave_parent()
        started = np.flatnonzero(mask).tolist()
        self._seed(seed, started)
        infos: dict[str, Any] = {}
        for i, _, _, info in self._outcomes(self._start(started, options)):
            infos = self._add_info(infos, info, i)
        return self._observations(), infos

    def step(
        self, actions: Any
    ) -> tuple[Any, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Take a step in every environment.

        Raises:
            InvalidAction: An action is not in the action space; nothing has changed.
            ResetNeeded: An environment was never reset, or the last step failed.
            PolicyError: The base policy, where there is one, failed; all encodes have ended.
            EncoderError: libvpx failed or took too long; all encodes have ended.
        """
        everyone = range(self.num_envs)
        self._answer(actions, everyone)
        rewards = np.zeros((self.num_envs, *self._reward_shape))
        terminations = np.zeros(self.num_envs, np.bool_)
        infos: dict[str, Any] = {}
        ended = []
        for i, rewards[i], terminations[i], info in self._outcomes(self.num_envs):
            if self._mode is AutoresetMode.SAME_STEP and self._is_over[i]:
                last = {"final_obs": self._observations(i), "final_info": info}
                infos = self._add_info(infos, last, i)
                ended.append(i)
            else:
                infos = self._add_info(infos, info, i)
        truncations = self._is_over & ~terminations
        for i, _, _, info in self._outcomes(self._start(ended, None)):
            infos = self._add_info(infos, info, i)
        return self._observations(), rewards, terminations, truncations, infos

    # The asynchronous half, as EnvPool has it

    def async_reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> None:
        """Start an encode in every environment without waiting; ``recv`` has what comes of it.

        Args:
            seed: As for ``reset``.
            options: As for ``reset``, without a mask.

        Raises:
            InputError: An option is unknown or out of range, a clip cannot be used, or the mode of
                the autoreset is not ``NextStep``.
        """
        if self._mode is not AutoresetMode.NEXT_STEP:
            raise InputError("send and recv need autoreset_mode NextStep")
        self._leave_parent()
        everyone = range(self.num_envs)
        self._seed(seed, everyone)
        self._start(everyone, options)

    def send(self, actions: Any, env_ids: Iterable[int]) -> None:
        """Answer some environments without waiting.

        Where the episode has ended, the action is ignored and the next episode starts.

        Args:
            actions: An action for each.
            env_ids: Their numbers, as ``recv`` had them in ``info["env_id"]``.

        Raises:
            InvalidAction: An action is not in the action space; nothing has changed.
            ResetNeeded: An environment has no episode, or has been answered already.
        """
        self._answer(actions, [int(i) for i in env_ids])

    def recv(self) -> tuple[Any, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Return the first ``batch_size`` environments that have observations, as ``step`` does.

        All arrays have ``batch_size`` rows, and ``info["env_id"]`` says whose they are.

        Raises:
            ResetNeeded: Fewer environments have been answered.
            PolicyError: The base policy, where there is one, failed; all encodes have ended.
            EncoderError: libvpx failed or took too long; all encodes have ended.
        """
        if len(self._acting) < self.batch_size:
            raise ResetNeeded(f"{len(self._acting)} environments run, of {self.batch_size} to wait")
        outcomes = self._outcomes(self.batch_size)
        ids = np.array([i for i, *_ in outcomes])
        rewards = np.array([reward for _, reward, _, _ in outcomes], np.float64)
        terminations = np.array([over for _, _, over, _ in outcomes])
        infos = {name: np.array([info[name] for *_, info in outcomes]) for name in outcomes[0][-1]}
        infos["env_id"] = ids
        return (
            self._observations(ids),
            rewards,
            terminations,
            self._is_over[ids] & ~terminations,
            infos,
        )

    # The environments one by one

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Return an attribute of each environment, or what it returns when called.

        Args:
            name: The attribute's name.
            args: Arguments of the call.
            kwargs: Arguments of the call by name.
        """
        found = [getattr(env, name) for env in self.envs]
        return tuple(part(*args, **kwargs) if callable(part) else part for part in found)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Return an attribute of each environment; ``log`` has the encode that ended last."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of each environment.

        Args:
            name: The attribute's name.
            values: A list or tuple with a value for each, or one value for all.

        Raises:
            InputError: There is another number of values.
        """
        if not isinstance(values, list | tuple):
            values = [values] * self.num_envs
        if len(values) != self.num_envs:
            raise InputError(f"{len(values)} values for {self.num_envs} environments")
        for env, value in zip(self.envs, values, strict=True):
            setattr(env, name, value)

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:  # type: ignore[override]
        """Return each environment's picture; see :meth:`EncodeEnv.render`."""
        if self.render_mode is None:
            logger.warn('render() needs gymnasium.make_vec(..., render_mode="rgb_array")')
            return None
        pictures = [env.render() for env in self.envs]
        return tuple(picture for picture in pictures if picture is not None)

    def close_extras(self, **kwargs: Any) -> None:
        """End all encodes."""
        self._end_all()

    # What these have in common

    def _leave_parent(self) -> None:
        """In a forked child, which has the parent's pool without its threads, begin anew."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._pool = EpisodePool[Any](self.envs[0].timeout)
            self._end_all()

    def _seed(self, seed: int | Sequence[int | None] | None, chosen: Iterable[int]) -> None:
        if seed is None or isinstance(seed, int | np.integer):
            seeds = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise InputError(f"{len(seeds)} seeds for {self.num_envs} environments")
        for i in chosen:
            if (own := seeds[i]) is not None:
                self.envs[i].start_generator(own)

    def _start(self, chosen: Iterable[int], options: dict[str, Any] | None) -> int:
        """Start episodes, and return how many."""
        started = list(chosen)
        try:
            for i in started:
                env = self.envs[i]
                video, self._starting[i] = env.draw(options)
                self._steps[i], self._is_over[i] = 0, False
                self._pool.start(
                    i,
                    video,
                    self._starting[i],
                    env.problem,
                    keep_reconstruction=self.render_mode is not None,
                )
                self._acting.add(i)
        except BaseException:
            self._end_all()
            raise
        return len(started)

    def _answer(self, actions: Any, chosen: Sequence[int]) -> None:
        """Act, or start the next episode where one has ended."""
        if len(actions) != len(chosen):
            raise InvalidAction(f"{len(actions)} actions for {len(chosen)} environments")
        if self._process != os.getpid():
            raise ResetNeeded("this process is a fork, whose encoders do not run: call reset()")
        answers: dict[int, Any] = {}
        for action, i in zip(actions, chosen, strict=True):
            if i in self._acting or self.envs[i].episode is None:
                raise ResetNeeded(f"environment {i} waits for no action: call reset() first")
            if not self._is_over[i]:
                answers[i] = self.envs[i].problem.action(action)
            elif self._mode is not AutoresetMode.NEXT_STEP:
                raise ResetNeeded(f"the episode of environment {i} has ended: call reset() first")
        try:
            self._start([i for i in chosen if i not in answers], None)
            for i, action in answers.items():
                self.envs[i].act(action)
                self._acting.add(i)
        except BaseException:
            self._end_all()  # some encoders are ahead of others: there is no going on
            raise

    def _outcomes(self, count: int) -> list[tuple[int, Any, bool, dict[str, Any]]]:
        """Wait for so many environments; return number, reward, termination and info of each.

        They are in order of their numbers, whichever came first: a reward may remember.
        """
        ready = []
        try:
            for _ in range(count):
                i, episode, observation = self._pool.next()
                if i in self._starting:
                    self.envs[i].adopt(episode, self._starting[i])
                self._write(i, observation)
                ready.append((i, episode))
        except BaseException:
            self._end_all()
            raise
        outcomes = []
        for i, episode in sorted(ready, key=lambda pair: pair[0]):
            self._acting.remove(i)
            env = self.envs[i]
            if self._starting.pop(i, None) is not None:
                outcomes.append((i, np.zeros(self._reward_shape), False, env.told(episode)))
                continue
            reward, terminated, info = env.outcome(episode)
            self._steps[i] += 1
            is_late = self._max_steps is not None and self._steps[i] >= self._max_steps
            self._is_over[i] = terminated or is_late
            outcomes.append((i, reward, terminated, info))
        return outcomes

    def _end_all(self) -> None:
        self._pool.close()
        self._starting.clear()
        self._acting.clear()
        self._is_over[:] = False
        for env in self.envs:
            env.close()

    def _write(self, i: int, observation: Any) -> None:
        if isinstance(observation, dict):
            for key, array in observation.items():
                self._batch[key][i] = array
        else:
            self._batch[i] = observation

    def _observations(self, chosen: Any = ...) -> Any:
        """Return a copy of the last observations: all, or those that an index chooses."""
        if isinstance(self._batch, dict):
            return {key: np.array(array[chosen]) for key, array in self._batch.items()}
        return np.array(self._batch[chosen])


def _mode(given: str | AutoresetMode) -> AutoresetMode:
    try:
        return AutoresetMode(given)
    except ValueError:
        names = ", ".join(mode.value for mode in AutoresetMode)
        raise InputError(f"autoreset_mode must be one of {names}, not {given!r:.80}") from None


class RateControlVectorEnv(EncodeVectorEnv):
    """A batch of :class:`RateControlEnv`; see :class:`EncodeVectorEnv`."""

    single = RateControlEnv


class RateControlContinuousVectorEnv(EncodeVectorEnv):
    """A batch of :class:`RateControlContinuousEnv`; see :class:`EncodeVectorEnv`."""

    single = RateControlContinuousEnv


class MORateControlVectorEnv(EncodeVectorEnv):
    """A batch of :class:`MORateControlEnv`; see :class:`EncodeVectorEnv`."""

    single = MORateControlEnv


class ResidualRateControlVectorEnv(EncodeVectorEnv):
    """A batch of :class:`ResidualRateControlEnv`; see :class:`EncodeVectorEnv`."""

    single = ResidualRateControlEnv


class ResidualRateControlContinuousVectorEnv(EncodeVectorEnv):
    """A batch of :class:`ResidualRateControlContinuousEnv`; see :class:`EncodeVectorEnv`."""

    single = ResidualRateControlContinuousEnv
