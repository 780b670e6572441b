"""One encode as an environment goes through it, whatever is decided and observed."""

from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.session import Session
from vpxrc.encoder.types import Decision, Frame, Group, State
from vpxrc.envs.rewards import AnyReward, VideoReward, is_paid_by_step
from vpxrc.envs.view import EncodeView, mse_psnr
from vpxrc.errors import EncoderError, InputError
from vpxrc.media.frames import rgb

Seen = TypeVar("Seen")
Seen_co = TypeVar("Seen_co", covariant=True)


class Controller(Protocol[Seen_co]):
    """Turns frames into observations and actions into decisions; it has no session.

    Attributes:
        view: The facts of the encode, up to the last decision point.
    """

    view: EncodeView

    def plan_group(self, group: Group) -> ArrayLike | None:
        """Return provisional q indices of a new group, as :meth:`vpxrc.Policy.plan_group`."""

    def consider(self, frame: Frame) -> Seen_co | None:
        """Return the observation where the frame is a decision point; else None."""

    def answer(self, action: Any = None) -> Decision:
        """Return how to code the frame that was considered last.

        Args:
            action: The action at a decision point; None for a frame that is none.

        Raises:
            InputError: The action is no such action; nothing has changed.
        """

    def end(self) -> Seen_co:
        """Update the view when the stream is complete, and return the observation."""


class EncodeEpisode(Generic[Seen]):
    """One encode from the first decision to the complete stream.

    It works on a session that waits for its answers and on one of a :class:`vpxrc.SessionPool`:
    call ``advance`` whenever the session is at rest, and answer an observation with ``act``.

    Args:
        session: The encode, with the options that the controller asks for.
        controller: Observes the encode and turns actions into decisions.

    Attributes:
        session: The encode.
        controller: As given.
        log: The log of the encode once it is complete, else None.
        info: Numpy's numbers for users, as the environments' docstrings describe them: those of
            the last decision point, or of the end; always of the same names.
        steps: The rows ``[first, last)`` of the log that each decision led to, as far as they are
            there. At the end they are the whole log.
    """

    def __init__(self, session: Session, controller: Controller[Seen]) -> None:
        self.session = session
        self.controller = controller
        self.log: EncodeLog | None = None
        self.info: dict[str, Any] = {}
        self.steps: list[tuple[int, int]] = []
        self._pending: Seen | None = None
        self._has_acted = False
        self._first_row = 0
        self._paid: Any = 0.0
        self._cost = 0.0

    def advance(self) -> Seen | None:
        """Go on from where the session rests.

        Returns:
            The observation at a decision point and, with ``log`` there, at the end; again the same
            until ``act`` is called. None where the session has been answered and runs on.

        Raises:
            PolicyError: A policy behind the controller raised or answered out of range.
            EncoderError: libvpx failed, or the session still runs.
        """
        if self._pending is not None:
            return self._pending
        session, controller = self.session, self.controller
        if session.state == State.GROUP:
            session.step_group(controller.plan_group(session.group))
            return None
        if session.state == State.DONE:
            last = controller.end()
            self._end_step()
            self._finish()
            self._pending = last
            return last
        frame = session.frame
        if frame is None:
            raise EncoderError(f"{session.video.name}: the session is not at rest")
        observation = controller.consider(frame)
        if observation is None:
            session.step(controller.answer())
            return None
        self._end_step()
        self.info = self._told()
        self._pending = observation
        return observation

    def act(self, action: Any) -> None:
        """Answer a decision point; the session runs on.

        Args:
            action: An action, as the controller takes it.

        Raises:
            InputError: There is no such action, or nothing waits for one; nothing has changed.
        """
        if self._pending is None or self.log is not None:
            raise InputError("no decision is pending: call advance() first")
        decision = self.controller.answer(action)
        self._pending = None
        self._has_acted = True
        self.session.step(decision)

    def pay(self, reward: AnyReward) -> Any:
        """Return the reward of the step that has just ended; to be called once per step.

        Args:
            reward: The worth of encodes. A :class:`StepReward` is paid step by step, any other at
                the end.

        Returns:
            A number, or an array where the reward is a vector.
        """
        worth: Any
        if self.log is None:
            if not is_paid_by_step(reward):
                return 0.0
            worth = reward.so_far(self.controller.view)
        elif isinstance(reward, VideoReward):
            worth = reward.of_video(self.log, self.session.video)
        else:
            worth = reward(self.log)
        paid, self._paid = worth - self._paid, worth
        return paid

    def settle(self, reward: AnyReward) -> None:
        """Take the rewards so far as paid, in an episode that is played again.

        A reward that is paid at the end, and may remember the encode, is not asked.
        """
        if is_paid_by_step(reward) and self.log is None and self.steps:
            self.pay(reward)

    def picture(self) -> NDArray[np.uint8]:
        """Return the reconstruction of the frame coded last, RGB uint8 ``[height, width, 3]``."""
        planes = self.session.reconstruction
        video = self.session.video
        if planes is None:
            return np.zeros((video.height, video.width, 3), np.uint8)
        return rgb(*planes, video.colours)

    def _end_step(self) -> None:
        rows = len(self.controller.view.rows)
        if self._has_acted:
            self.steps.append((self._first_row, rows))
            self._first_row = rows

    def _finish(self) -> None:
        self.log = log = self.session.log()
        self.session.close()
        paid = self._cost
        self.info = self._told() | {
            "psnr": np.float64(log.psnr),
            "psnr_overall": np.float64(log.psnr_overall),
            "bitrate": np.float64(log.bitrate),
            "overshoot": np.float64(log.overshoot),
            "cost": np.float64(log.overshoot + 1 - paid),
        }

    def _psnr_overall(self) -> float:
        view, video = self.controller.view, self.session.video
        return mse_psnr(view.sse_sum / view.num_shown / video.frame_samples, video.bit_depth)

    def _told(self) -> dict[str, Any]:
        view, video, options = self.controller.view, self.session.video, self.session.options
        coded, shown = view.coded, view.num_shown
        bitrate = view.bits * float(video.fps) / max(shown, 1) / 1000
        before, self._cost = self._cost, view.bits / view.target_bits
        return {
            "target_bitrate": np.int64(options.target_bitrate),
            "update_type": np.int64(-1 if coded is None else coded.update_type),
            "show_index": np.int64(-1 if coded is None else coded.show_index),
            "q_index": np.int64(-1 if coded is None else coded.q_index),
            "bits": np.int64(0 if coded is None else coded.bits),
            "psnr": np.float64(view.psnr_sum / max(shown, 1)),
            "psnr_overall": np.float64(self._psnr_overall() if shown else 0.0),
            "bitrate": np.float64(bitrate),
            "overshoot": np.float64(bitrate / options.target_bitrate - 1 if shown else 0.0),
            "cost": np.float64(self._cost - before),
        }
