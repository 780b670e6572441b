"""Many episodes at once in one process, each encode on a native thread of its own."""

from typing import Generic

from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.session import SessionPool
from vpxrc.encoder.types import DEFAULT_TIMEOUT
from vpxrc.envs.episode import EncodeEpisode, Seen
from vpxrc.envs.problem import Problem
from vpxrc.errors import EncoderError
from vpxrc.media.frames import Video


class EpisodePool(Generic[Seen]):
    """Drives many episodes; hands back whichever has an observation next.

    Its length is the number of episodes that are going on.

    Args:
        timeout: Seconds that an encoder may take for a frame.
    """

    def __init__(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._pool = SessionPool(timeout)
        self._sessions: dict[int, int] = {}  # key -> the session's id in the pool
        self._keys: dict[int, int] = {}  # the inverse
        self._problems: dict[int, Problem[Seen]] = {}
        self._episodes: dict[int, EncodeEpisode[Seen]] = {}

    def start(
        self,
        key: int,
        video: Video,
        options: EncoderOptions,
        problem: Problem[Seen],
        *,
        keep_reconstruction: bool = False,
    ) -> None:
        """Start an episode; one of the same key is ended.

        Args:
            key: The name that ``next`` returns.
            video: The clip.
            options: The encoder's options, before the problem changes them.
            problem: The observations and actions; it serves no other episode of this pool.
            keep_reconstruction: Whether the episode has pictures.
        """
        self.end(key)
        session_id = self._pool.open(
            video,
            problem.options(options),
            plan_groups=problem.plan_groups,
            keep_reconstruction=keep_reconstruction,
        )
        self._sessions[key], self._keys[session_id] = session_id, key
        self._problems[key] = problem

    def next(self) -> tuple[int, EncodeEpisode[Seen], Seen]:
        """Wait for a decision point or the end of an episode.

        Returns:
            The episode's key, the episode, and the observation. The episode has to be answered by
            ``act`` before it is handed back again; at its end it has left the pool.

        Raises:
            PolicyError: A base policy failed; the episode has ended.
            EncoderTimeoutError: None coded a frame in time; all episodes have ended.
            EncoderError: libvpx failed; the episode has ended. Or no episode is at work.
        """
        while True:
            try:
                session_id, session = self._pool.next()
            except EncoderError:
                for key, failed in list(self._sessions.items()):
                    if failed not in self._pool:
                        self.end(key)
                raise
            key = self._keys[session_id]
            try:
                if key not in self._episodes:
                    self._episodes[key] = self._problems[key].episode(session)
                episode = self._episodes[key]
                observation = episode.advance()
            except Exception:
                self.end(key)
                raise
            if observation is not None:
                if episode.log is not None:
                    self.end(key)
                return key, episode, observation

    def end(self, key: int) -> None:
        """End an episode wherever it is, and forget it; idempotent."""
        if key in self._sessions:
            session_id = self._sessions.pop(key)
            del self._keys[session_id], self._problems[key]
            self._episodes.pop(key, None)
            self._pool.close_session(session_id)

    def close(self) -> None:
        """End all episodes."""
        for key in list(self._sessions):
            self.end(key)
        self._pool.close()

    def __contains__(self, key: int) -> bool:
        """Return whether an episode is going on."""
        return key in self._sessions

    def __len__(self) -> int:
        """Return how many episodes are going on."""
        return len(self._sessions)
