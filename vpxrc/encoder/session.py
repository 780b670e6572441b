"""A second pass that stops at every decision, and a pool of many at once."""

import gc
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vpxrc import _native, _native_high
from vpxrc.cache import check_not_cut
from vpxrc.encoder.first_pass import first_pass_stats, geometry, library
from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.quantizer import log2_steps
from vpxrc.encoder.types import DEFAULT_TIMEOUT, Decision, Frame, Group, State
from vpxrc.errors import EncoderError, EncoderTimeoutError, PolicyError
from vpxrc.media.frames import Samples, Video, split_planes


class Session(Protocol):
    """One encode that stops at every decision: what policies, pools and environments ask of it.

    A context manager, which closes it. :class:`EncodeSession` is libvpx's.
    """

    def __enter__(self) -> Self:
        """Return the session."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the session."""

    @property
    def video(self) -> Video:
        """The clip."""

    @property
    def options(self) -> EncoderOptions:
        """The encoder's options."""

    @property
    def state(self) -> State:
        """What the session is doing; RUNNING only after a step that did not wait."""

    @property
    def progress(self) -> int:
        """Frames coded so far, those shown again included; may be asked for at any time."""

    @property
    def frame(self) -> Frame | None:
        """The frame that waits for a decision; None when none does."""

    @property
    def group(self) -> Group:
        """The current group."""

    @property
    def tpl(self) -> NDArray[np.float64] | None:
        """Statistics of libvpx's TPL pass over the current group; None where there are none."""

    @property
    def first_pass(self) -> NDArray[np.float64]:
        """Statistics of the clip's frames, ``[num_frames, 26]`` (``FIRST_PASS_FIELDS``)."""

    @property
    def log2_step(self) -> NDArray[np.float64]:
        """log2 of the quantiser step per q index, float64 ``[256]``, read-only."""

    @property
    def reconstruction(
        self,
    ) -> tuple[Samples, Samples, Samples] | None:
        """Y, U and V of the frame coded last, where they were asked for."""

    def records(self, start: int = 0) -> NDArray[np.void]:
        """Return the log so far from row ``start``, dtype ``RECORD_DTYPE``."""

    def wait(self) -> State:
        """Wait for the next hand-over or the end."""

    def step(self, decision: Decision) -> State:
        """Answer the pending frame and wait for what comes next (unless a queue tells)."""

    def step_group(self, plan: ArrayLike | None) -> State:
        """Answer the pending group with provisional q indices, or None."""

    def log(self) -> EncodeLog:
        """Return the log of the finished encode."""

    def close(self) -> None:
        """End the encode wherever it is; idempotent."""


FEW_SESSIONS = 16  # running ones at which those that nobody refers to are looked for


class _Forgotten:
    """Collects the sessions of reference cycles, whose size Python's own collector cannot know.

    It does so when the number of running sessions has doubled since the last time, so sessions that
    are in use cost a few collections only.
    """

    def __init__(self) -> None:
        self._most = FEW_SESSIONS

    def collect(self) -> None:
        """End sessions that nobody refers to, where there are many."""
        if self._num_running() >= self._most:
            gc.collect()
            self._most = max(FEW_SESSIONS, 2 * self._num_running())

    def _num_running(self) -> int:
        return _native.num_running() + _native_high.num_running()


_forgotten = _Forgotten()


class _Refusals:
    """Says which clip and frame a complaint is about: an answer's, or the native session's.

    A class of its own, since it is entered several times a step and a generator takes longer.
    """

    __slots__ = ("_session",)

    def __init__(self, session: "EncodeSession") -> None:
        self._session = session

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Raise what the error stands for."""
        if isinstance(error, ValueError | TypeError | OverflowError):
            raise PolicyError(f"{self._session.where}: {error}") from error
        if isinstance(error, RuntimeError):
            raise EncoderError(f"{self._session.where}: {error}") from error


class EncodeSession:
    """One second pass that stops at every decision, on a native thread of its own.

    A context manager; leaving it ends the encode wherever it is::

        with EncodeSession(video, options) as session:
            while session.frame is not None:
                session.step(Decision(q_index=120))
            log = session.log()

    Frames that are shown again carry no decision and are not presented.

    A session may be closed from any thread, and at any time. In a forked child it is of no use: it
    raises :class:`EncoderError`, and neither closing nor collecting it touches the parent's.

    Args:
        video: The clip. Its frames are read in place, without a copy.
        options: The encoder's options.
        observe: Let libvpx decide everything; nothing is presented, the session runs to its end.
        plan_groups: Stop at every new group too, for provisional q indices of its TPL pass.
        script: Decisions to be taken natively, one after the other, without stopping.
        keep_reconstruction: Keep the frame coded last for ``reconstruction``.
        timeout: Seconds that the encoder may take for a frame.
        queue: A queue that is told ``id`` whenever this session needs an answer or is over; the
            constructor and the steps then do not wait.
        id: See ``queue``.
    """

    def __init__(
        self,
        video: Video,
        options: EncoderOptions,
        *,
        observe: bool = False,
        plan_groups: bool = False,
        script: list[Decision] | None = None,
        keep_reconstruction: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
        queue: Any = None,
        id: int = 0,
    ) -> None:
        self.video = video
        self.options = options
        self.timeout = timeout
        self._wait = timeout if queue is None else 0.0
        self._state = State.RUNNING
        self._records: NDArray[np.void] | None = None
        stats = first_pass_stats(video, options)
        _forgotten.collect()
        try:
            self._native: _native.Session = library(video).Session(
                *geometry(video),
                options,
                stats,
                observe=observe,
                plan_groups=plan_groups,
                keep_reconstruction=keep_reconstruction,
                script=script,
                queue=queue,
                id=id,
            )
        except RuntimeError as error:  # no thread to be had
            raise EncoderError(f"{video.name}: cannot start the encoder: {error}") from error
        if queue is None:
            self.wait()

    def __enter__(self) -> Self:
        """Return the session."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the session."""
        self.close()

    @property
    def state(self) -> State:
        """What the session is doing; RUNNING only after a step that did not wait."""
        return self._state

    def wait(self) -> State:
        """Wait for the next hand-over or the end.

        Raises:
            EncoderError: libvpx failed; the message names clip, frame and libvpx's own words. Or
                the session is closed, or another process's.
            EncoderTimeoutError: ``timeout`` seconds went by; the session is closed.
        """
        with _Refusals(self):
            state = self._native.wait(self.timeout)
        return self._enter(state)

    def _enter(self, state: State) -> State:
        self._state = state
        if state == State.RUNNING and self._wait:
            self._native.close(0.0)
            raise EncoderTimeoutError(
                f"{self.video.name}: the encoder took more than {self.timeout:g} s for a frame"
            )
        if state == State.FAILED:
            words = self._native.error
            self.close()
            raise EncoderError(f"{self.where}: {words}")
        return state

    def step(self, decision: Decision) -> State:
        """Answer the pending frame and wait for what comes next (unless a queue tells).

        Raises:
            PolicyError: The decision is out of range; the session still waits for one.
            EncoderError: libvpx failed, or no frame is pending.
            EncoderTimeoutError: See ``wait``.
        """
        with _Refusals(self):
            state = self._native.step(decision, self._wait)
        return self._enter(state)

    def step_group(self, plan: ArrayLike | None) -> State:
        """Answer the pending group.

        Args:
            plan: Provisional q indices for the TPL pass, ``[group.size]`` or, with the overlay that
                follows, ``[group.size + 1]``; -1 each, or None for all: libvpx's own estimate.

        Raises:
            PolicyError: The plan is out of range or of another length.
            EncoderError: libvpx failed, or no group is pending.
        """
        with _Refusals(self):
            values = None if plan is None else np.asarray(plan, dtype=np.int64).tolist()
            state = self._native.step_group(values, self._wait)
        return self._enter(state)

    @property
    def where(self) -> str:
        """The clip and the frame that it has come to, for messages."""
        return f"{self.video.name}: coded frame {self._native.progress}"

    @property
    def progress(self) -> int:
        """Frames coded so far, those shown again included; may be asked for at any time."""
        return self._native.progress

    @property
    def frame(self) -> Frame | None:
        """The frame that waits for a decision; None when none does."""
        if self._state != State.FRAME:
            return None
        with _Refusals(self):
            return self._native.frame

    @property
    def group(self) -> Group:
        """The current golden-frame group."""
        with _Refusals(self):
            return self._native.group

    @property
    def tpl(self) -> NDArray[np.float64] | None:
        """TPL statistics of the current group, ``[size, rows, cols, 8]`` (``TPL_FIELDS``).

        Per 32x32 block after propagation; NaN for frames without. None at group position 0 (libvpx
        runs its TPL pass after it) and where the pass does not run.
        """
        with _Refusals(self):
            tpl: NDArray[np.float64] | None = self._native.tpl
        return tpl

    @property
    def first_pass(self) -> NDArray[np.float64]:
        """First-pass statistics of all frames, ``[num_frames, 26]`` (``FIRST_PASS_FIELDS``)."""
        with _Refusals(self):
            stats: NDArray[np.float64] = self._native.first_pass
        return stats

    @property
    def log2_step(self) -> NDArray[np.float64]:
        """log2 of the quantiser step per q index, float64 ``[256]``, read-only: VP9's AC steps.

        The unit is an eighth of a sample of 8 bits.
        """
        return log2_steps(self.video.bit_depth)

    def records(self, start: int = 0) -> NDArray[np.void]:
        """Return the log so far from row ``start``, dtype ``RECORD_DTYPE``."""
        with _Refusals(self):
            records: NDArray[np.void] = self._native.records(start)
        return records

    @property
    def reconstruction(
        self,
    ) -> tuple[Samples, Samples, Samples] | None:
        """Y, U and V of the frame coded last, where ``keep_reconstruction`` asked for it."""
        with _Refusals(self):
            frame = self._native.reconstruction
        return None if frame is None else split_planes(frame, self.video.width, self.video.height)

    def log(self) -> EncodeLog:
        """Return the log of the finished encode.

        Raises:
            EncoderError: The encode is not over.
            InputError: Another program has cut the clip's file in the cache meanwhile.
        """
        if self._state != State.DONE:
            raise EncoderError(f"{self.where}: the encode is not over")
        check_not_cut(self.video.frames, self.video.name)
        return EncodeLog(
            clip=self.video.format,
            options=self.options,
            records=self._native.records(),
            packets=self._native.packets,
            first_pass=self._native.first_pass,
            encode_seconds=self._native.encode_seconds,
            cpu_seconds=self._native.cpu_seconds,
        )

    def close(self) -> None:
        """End the encode wherever it is; idempotent, and safe from any thread."""
        self._native.close()


class SessionPool:
    """Many sessions at once; hands back whichever needs an answer next.

    ``open`` takes the arguments of :class:`EncodeSession`. Sessions run on their own threads, so a
    process keeps as many cores busy as it has sessions open.
    """

    def __init__(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._queue = _native.ReadyQueue()
        self._timeout = timeout
        self._sessions: dict[int, Session] = {}
        self._next_id = 0

    def open(self, video: Video, options: EncoderOptions, **arguments: Any) -> int:
        """Start a session and return its id."""
        session_id, self._next_id = self._next_id, self._next_id + 1
        self._sessions[session_id] = options.open(
            video, queue=self._queue, id=session_id, timeout=self._timeout, **arguments
        )
        return session_id

    def next(self) -> tuple[int, Session]:
        """Return the id and session that has waited longest for an answer, or is over.

        Raises:
            EncoderTimeoutError: None coded a frame in time; all sessions are closed.
            EncoderError: The session's encode failed; it has left the pool. Or none is at work, so
                nothing would ever come.
        """
        while True:
            if not any(session.state == State.RUNNING for session in self._sessions.values()):
                raise EncoderError(
                    f"no session of the pool is at work, {len(self)} wait for an answer or are over"
                )
            before = self._progress()
            try:
                session_id = self._queue.pop(self._timeout)
            except RuntimeError as error:
                raise EncoderError(f"the pool of sessions: {error}") from error
            if session_id is None:
                if self._progress() != before:
                    continue  # observers and scripts come back at their end only
                self.close()
                raise EncoderTimeoutError(f"no session coded a frame within {self._timeout:g} s")
            session = self._sessions.get(session_id)
            if session is not None:  # a session closed since is passed over
                try:
                    session.wait()
                except EncoderError:
                    self.close_session(session_id)
                    raise
                return session_id, session

    def _progress(self) -> int:
        return sum(session.progress for session in self._sessions.values())

    def close_session(self, session_id: int) -> None:
        """Close one session and forget it; idempotent."""
        session = self._sessions.pop(session_id, None)
        if session is not None:
            session.close()

    def close(self) -> None:
        """Close all sessions."""
        for session_id in list(self._sessions):
            self.close_session(session_id)

    def __contains__(self, session_id: int) -> bool:
        """Return whether a session is open."""
        return session_id in self._sessions

    def __len__(self) -> int:
        """Return how many sessions are open."""
        return len(self._sessions)
