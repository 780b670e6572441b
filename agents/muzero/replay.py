"""The replay: whole episodes, drawn by the error of their values, and the targets made of them."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpxrc.errors import InputError

_LEAST = 1e-3  # added to an error, so that every step can be drawn


@dataclass(frozen=True, eq=False)
class PlayedEpisode:
    """The decisions of one episode of T steps, and what came of them.

    Attributes:
        observations: float32 ``[T, N]``.
        actions: int32 ``[T]``.
        policies: float32 ``[T, A]``: the search's improved policy at each step.
        values: float32 ``[T]``: the search's value of the state.
        rewards: float32 ``[T]``: the reward of each step.
        log2_bits: float32 ``[T]``: log2 of the step's bits per pixel; NaN where unknown.
        log2_distortion: float32 ``[T]``: log2 of its mean squared error; NaN where unknown.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.int32]
    policies: NDArray[np.float32]
    values: NDArray[np.float32]
    rewards: NDArray[np.float32]
    log2_bits: NDArray[np.float32]
    log2_distortion: NDArray[np.float32]

    def __len__(self) -> int:
        """Return T."""
        return len(self.actions)


@dataclass(frozen=True, eq=False)
class Batch:
    """B positions with what follows each for K steps; after an episode's end all is 0.

    Attributes:
        rows: int64 ``[B]``: the positions, for :meth:`Replay.update`.
        weights: float32 ``[B]``: importance weights, at most 1.
        observations: float32 ``[B, N]``.
        actions: int32 ``[B, K]``.
        policies: float32 ``[B, K + 1, A]``.
        values: float32 ``[B, K + 1]``: the return from each state on.
        rewards: float32 ``[B, K]``.
        log2_bits: float32 ``[B, K]``, NaN where unknown.
        log2_distortion: float32 ``[B, K]``, NaN where unknown.
        inside: bool ``[B, K + 1]``: whether the state is in the episode.
    """

    rows: NDArray[np.int64]
    weights: NDArray[np.float32]
    observations: NDArray[np.float32]
    actions: NDArray[np.int32]
    policies: NDArray[np.float32]
    values: NDArray[np.float32]
    rewards: NDArray[np.float32]
    log2_bits: NDArray[np.float32]
    log2_distortion: NDArray[np.float32]
    inside: NDArray[np.bool_]


class Replay:
    """A ring of steps that keeps whole episodes and forgets the oldest.

    Positions are drawn with a chance proportional to ``(|error| + 0.001) ** priority``, the error
    being that of the value that was predicted there (Schaul et al. 2016).

    Args:
        capacity: Steps, at least 1.
        observations: N, the width of an observation.
        actions: A, the number of actions.
        priority: See above.
        correction: Exponent of the importance weights ``(size * chance) ** -correction``, which are
            divided by the largest of the batch.
        trace: Lambda of the returns' TD(lambda); rewards are not discounted.
    """

    def __init__(
        self,
        capacity: int,
        observations: int,
        actions: int,
        *,
        priority: float = 0.6,
        correction: float = 0.4,
        trace: float = 0.9,
    ) -> None:
        self.capacity = capacity
        self._priority, self._correction, self._trace = priority, correction, trace
        self._columns: dict[str, NDArray[Any]] = {
            "observations": np.zeros((capacity, observations), np.float32),
            "actions": np.zeros(capacity, np.int32),
            "policies": np.zeros((capacity, actions), np.float32),
            "values": np.zeros(capacity, np.float32),
            "rewards": np.zeros(capacity, np.float32),
            "log2_bits": np.zeros(capacity, np.float32),
            "log2_distortion": np.zeros(capacity, np.float32),
        }
        self._left = np.zeros(capacity, np.int64)  # steps to the episode's end; 0: nothing here
        self._chance = np.zeros(capacity)  # not normalised
        self._episodes: deque[int] = deque()  # lengths, the oldest first
        self._size = 0  # their sum
        self._end = 0

    def __len__(self) -> int:
        """Return how many steps it has."""
        return self._size

    @property
    def observations(self) -> NDArray[np.float32]:
        """All observations, float32 ``[len, N]``."""
        return np.asarray(self._columns["observations"][self._left > 0])

    def add(self, episode: PlayedEpisode) -> None:
        """Take an episode in.

        Raises:
            InputError: It is empty or longer than the capacity.
        """
        length = len(episode)
        if not 0 < length <= self.capacity:
            raise InputError(f"an episode of {length} steps in a replay of {self.capacity}")
        while self._size + length > self.capacity:
            oldest = self._episodes.popleft()
            gone = (self._end - self._size + np.arange(oldest)) % self.capacity
            self._left[gone], self._chance[gone] = 0, 0.0
            self._size -= oldest
        rows = (self._end + np.arange(length)) % self.capacity
        for name, column in self._columns.items():
            column[rows] = getattr(episode, name)
        self._left[rows] = length - np.arange(length)
        self._episodes.append(length)
        self._size += length
        self._end = (self._end + length) % self.capacity
        self.update(rows, episode.values - self.returns(rows, 0)[:, 0])

    def update(self, rows: NDArray[np.int64], errors: NDArray[np.float32]) -> None:
        """Set the errors of positions, float32 ``[len(rows)]``."""
        self._chance[rows] = (np.abs(errors) + _LEAST) ** self._priority

    def refresh(
        self, rows: NDArray[np.int64], policies: NDArray[np.float32], values: NDArray[np.float32]
    ) -> None:
        """Replace what an older network's search had found at some positions.

        Args:
            rows: int64 ``[n]``.
            policies: float32 ``[n, A]``.
            values: float32 ``[n]``.
        """
        self._columns["policies"][rows] = policies
        self._columns["values"][rows] = values

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return positions, int64 ``[count]``, drawn with replacement."""
        total = np.cumsum(self._chance)
        drawn = np.searchsorted(total, rng.random(count) * total[-1], side="right")
        # A sum's last place may round up to the total.
        return np.asarray(np.minimum(drawn, np.flatnonzero(self._chance)[-1]))

    def following(
        self, rows: NDArray[np.int64], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the positions after each, itself first, and whether they are in its episode.

        Args:
            rows: int64 ``[B]``.
            count: C, at least 1.

        Returns:
            int64 and bool ``[B, C]``.
        """
        steps = np.arange(count)
        return (rows[:, None] + steps) % self.capacity, steps < self._left[rows][:, None]

    def observed(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the observations at positions, float32 ``[*rows.shape, N]``."""
        return np.asarray(self._columns["observations"][rows])

    def returns(self, rows: NDArray[np.int64], unroll: int) -> NDArray[np.float32]:
        """Return TD(lambda) from each position and the K after it; 0 beyond the end.

        ``G[t] = r[t] + (1 - trace) * value[t + 1] + trace * G[t + 1]``

        Args:
            rows: int64 ``[B]``.
            unroll: K, at least 0.

        Returns:
            float32 ``[B, K + 1]``.
        """
        longest = max(int(self._left[rows].max()), unroll + 1)
        at, inside = self.following(rows, longest)
        rewards = np.where(inside, self._columns["rewards"][at], 0)
        values = np.where(inside, self._columns["values"][at], 0)
        out = np.zeros((len(rows), longest + 1), np.float32)
        value = np.zeros(len(rows), np.float32)
        for step in reversed(range(longest)):
            mixed = (1 - self._trace) * value + self._trace * out[:, step + 1]
            out[:, step] = rewards[:, step] + mixed
            value = values[:, step]
        return out[:, : unroll + 1]

    def batch(self, rows: NDArray[np.int64], unroll: int) -> Batch:
        """Return what the learner learns from, at positions that :meth:`draw` returned.

        Args:
            rows: int64 ``[B]``.
            unroll: K, at least 1.
        """
        at, inside = self.following(rows, unroll + 1)
        chance = self._chance[rows] / self._chance.sum()
        weights = (self._size * chance) ** -self._correction

        def padded(name: str) -> NDArray[Any]:
            column = self._columns[name][at]
            return np.where(inside.reshape(inside.shape + (1,) * (column.ndim - 2)), column, 0)

        return Batch(
            rows=rows,
            weights=(weights / weights.max()).astype(np.float32),
            observations=self.observed(rows),
            actions=padded("actions")[:, :-1],
            policies=padded("policies"),
            values=self.returns(rows, unroll),
            rewards=padded("rewards")[:, :-1],
            log2_bits=padded("log2_bits")[:, :-1],
            log2_distortion=padded("log2_distortion")[:, :-1],
            inside=inside,
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what it holds, the oldest first, as arrays by name, and where the ring ends."""
        rows = (self._end - self._size + np.arange(self._size)) % self.capacity
        arrays = {name: column[rows] for name, column in self._columns.items()}
        return {
            **arrays,
            "chance": self._chance[rows],
            "lengths": np.fromiter(self._episodes, np.int64, len(self._episodes)),
            "end": np.array([self._end], np.int64),
        }

    def load_state(self, state: dict[str, NDArray[Any]]) -> None:
        """Take over what :meth:`state` returned, in place of what is here.

        Raises:
            InputError: It does not fit.
        """
        lengths, (end,) = state["lengths"].tolist(), state["end"].tolist()
        count = sum(lengths)
        shapes = {name: (count, *column.shape[1:]) for name, column in self._columns.items()}
        if count > self.capacity or any(state[n].shape != shape for n, shape in shapes.items()):
            raise InputError("a replay of another form")
        # At the same places: what is drawn depends on them.
        rows = (end - count + np.arange(count)) % self.capacity
        for name, column in self._columns.items():
            column[rows] = state[name]
        self._chance[:], self._left[:] = 0.0, 0
        self._chance[rows] = state["chance"]
        left: Iterable[NDArray[np.int64]] = (np.arange(length, 0, -1) for length in lengths)
        self._left[rows] = np.concatenate([*left, np.zeros(0, np.int64)])
        self._episodes, self._size = deque(lengths), count
        self._end = end % self.capacity
