"""An encode session over a learned codec: one decision for each picture, its quality."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter, process_time
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vpxrc.codecs.codec import Codec, load_codec
from vpxrc.codecs.enhancement import ideal_step
from vpxrc.codecs.frames import frame_of, picture_of
from vpxrc.codecs.model import VariableModel, one_thread
from vpxrc.codecs.options import CodecOptions
from vpxrc.codecs.rate_model import NUM_Q, RateModel, expected_bits, quality_of
from vpxrc.encoder.first_pass import first_pass_stats, first_pass_table
from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.types import (
    DEFAULT_TIMEOUT,
    RECORD_DTYPE,
    Decision,
    State,
    UpdateType,
)
from vpxrc.errors import EncoderError, EncoderTimeoutError, InputError, PolicyError, VpxrcError
from vpxrc.media.frames import Video, split_planes
from vpxrc.storage import sha256_file

GROUP_SIZE = 16  # pictures; nothing depends on it but what a policy sees at once
_VP9_UNITS = 8.0  # VP9 counts steps in eighths of a sample


@dataclass(frozen=True)
class CodecFrame:
    """A picture about to be coded, as :class:`vpxrc.encoder.types.Frame` has it.

    It is a leaf, because no other picture is predicted from it.
    """

    coding_index: int
    group_index: int
    group_position: int
    libvpx_q_index: int
    libvpx_rdmult: int
    target_bits: int
    frames_to_key: int
    update_type: int = UpdateType.LEAF
    layer_depth: int = 0
    is_key: bool = False
    is_shown: bool = True
    tpl_q_index: int = -1
    reference_coding_index: tuple[int, int, int] = (-1, -1, -1)
    gfu_boost: int = 0
    has_tpl: bool = False
    takes_superblock_scale: bool = False
    r0: float = float("nan")

    @property
    def show_index(self) -> int:
        """Display index of its source frame: pictures are coded in order."""
        return self.coding_index

    @property
    def libvpx_q_low(self) -> int:
        """The rate model's choice: it has no range."""
        return self.libvpx_q_index

    @property
    def libvpx_q_high(self) -> int:
        """The rate model's choice: it has no range."""
        return self.libvpx_q_index


@dataclass(frozen=True, eq=False)
class CodecGroup:
    """The next pictures, as :class:`vpxrc.encoder.types.Group` has them."""

    index: int
    size: int
    first_show_index: int
    bit_allocation: NDArray[np.int32]
    max_layer_depth: int = 0
    key_boost: int = 0
    is_key_forced: bool = False
    zero_motion_share: int = 0

    @property
    def update_type(self) -> NDArray[np.int32]:
        """Leaves."""
        return np.full(self.size, UpdateType.LEAF, np.int32)

    @property
    def layer_depth(self) -> NDArray[np.int32]:
        """0 each."""
        return np.zeros(self.size, np.int32)

    @property
    def show_index(self) -> NDArray[np.int32]:
        """Display index of each picture."""
        return np.arange(self.first_show_index, self.first_show_index + self.size, dtype=np.int32)

    @property
    def gfu_boost(self) -> NDArray[np.int32]:
        """0 each."""
        return np.zeros(self.size, np.int32)

    @property
    def references(self) -> NDArray[np.int32]:
        """-1 each, ``[size, 3]``."""
        return np.full((self.size, 3), -1, np.int32)


@lru_cache(2)
def open_codec(path: str, weights: str) -> Codec:
    """Return the codec of a checkpoint.

    Args:
        path: The file.
        weights: SHA-256 that it has to have, in hexadecimal.

    Raises:
        InputError: It cannot be read, has changed, or has one quality only.
    """
    if sha256_file(path) != weights:
        raise InputError(f"{path} has changed since its options were made")
    codec = load_codec(path)
    if not isinstance(codec.model, VariableModel):
        raise InputError(f"{path}: {codec.spec} has one quality, so there is no rate to control")
    return codec


def _trade_off(codec: Codec, q_index: int) -> float:
    """Return lambda of the codec's objective at a q index."""
    assert isinstance(codec.model, VariableModel)  # open_codec() refuses others
    return codec.model.trade_off(quality_of(q_index))


@lru_cache(2)
def step_table(codec: Codec) -> NDArray[np.float64]:
    """Return log2 of the quantiser step that goes with each q index, float64 ``[256]``, read-only.

    A quality has a lambda, and at high rate one uniform step is best for it. The unit is VP9's, so
    that differences mean the same to a policy.
    """
    steps = [ideal_step(_trade_off(codec, q)) for q in range(NUM_Q)]
    table = np.log2(np.array(steps) * _VP9_UNITS)
    table.flags.writeable = False
    return table


class CodecSession:
    """One encode by a learned codec that stops at every picture.

    It has the protocol of :class:`vpxrc.encoder.session.Session`. A q index is a quality: 0 the
    finest, 255 the coarsest; -1 leaves it to the session's own rate model. Pictures are coded where
    they are asked for, in the calling thread and on one processor, so that the same decisions give
    the same stream.

    Args:
        video: The clip.
        options: The codec and the target.
        observe: Refused: a learned codec has no rate control that could be observed.
        plan_groups: Stop at every new group too; what is answered has no effect.
        script: Decisions that are taken one after the other, without stopping.
        keep_reconstruction: Keep the picture coded last for ``reconstruction``.
        timeout: Seconds that a picture may take; it is not interrupted, but the encode ends.
        queue: A queue that is told ``id`` whenever this session needs an answer or is over.
        id: See ``queue``.

    Raises:
        InputError: The checkpoint cannot be used, or ``observe`` is asked for.
    """

    def __init__(
        self,
        video: Video,
        options: CodecOptions,
        *,
        observe: bool = False,
        plan_groups: bool = False,
        script: Sequence[Decision] | None = None,
        keep_reconstruction: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
        queue: Any = None,
        id: int = 0,
    ) -> None:
        if observe:
            raise InputError("libvpx's own rate control does not run on a learned codec")
        self.video, self.options, self.timeout = video, options, timeout
        self._codec = open_codec(options.codec, options.weights)
        self._first_pass = first_pass_table(first_pass_stats(video, options))
        target = 1000.0 * options.target_bitrate * video.duration
        self._rate = RateModel(expected_bits(self._codec, video), target)
        self._records = np.zeros(video.num_frames, RECORD_DTYPE)
        self._packets: list[tuple[bytes, int]] = []
        self._plans_groups, self._keeps = plan_groups, keep_reconstruction
        self._queue, self._id = queue, id
        self._reconstruction: NDArray[np.uint8] | None = None
        self._seconds = self._cpu_seconds = 0.0
        self._is_closed = False
        self._group = self._next_group()
        self._state = self._rest = State.GROUP if plan_groups else State.FRAME
        for decision in script or ():
            if self._rest == State.DONE:
                break
            if self._rest == State.GROUP:
                self._rest = State.FRAME
            self._code(self._checked(decision))
        if script is not None and self._rest != State.DONE:
            raise EncoderError(f"{self._where()}: the script is over before the clip")
        self._tell()

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
        """What the session is doing; RUNNING where a queue tells and ``wait`` was not called."""
        return self._state

    @property
    def progress(self) -> int:
        """Pictures coded so far."""
        return len(self._packets)

    @property
    def frame(self) -> CodecFrame | None:
        """The picture that waits for a decision; None when none does."""
        self._check_open()
        return self._frame() if self._state == State.FRAME else None

    @property
    def group(self) -> CodecGroup:
        """The current group."""
        self._check_open()
        return self._group

    @property
    def tpl(self) -> None:
        """None: there is no TPL pass."""
        return None

    @property
    def first_pass(self) -> NDArray[np.float64]:
        """Statistics of the clip by libvpx's first pass, ``[num_frames, 26]``."""
        return self._first_pass

    @property
    def log2_step(self) -> NDArray[np.float64]:
        """log2 of the quantiser step per q index, float64 ``[256]``, read-only."""
        return step_table(self._codec)

    @property
    def reconstruction(
        self,
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]] | None:
        """Y, U and V of the picture coded last, where they were asked for."""
        frame = self._reconstruction
        return None if frame is None else split_planes(frame, self.video.width, self.video.height)

    def records(self, start: int = 0) -> NDArray[np.void]:
        """Return the log so far from row ``start``, dtype ``RECORD_DTYPE``."""
        self._check_open()
        return self._records[start : self.progress].copy()

    def wait(self) -> State:
        """Return what the session is doing.

        Raises:
            EncoderError: The session is closed.
        """
        self._check_open()
        self._state = self._rest
        return self._state

    def step(self, decision: Decision) -> State:
        """Code the pending picture.

        Raises:
            PolicyError: The decision is out of range, or has more than a quality; the session still
                waits for one.
            EncoderError: The picture cannot be coded, or none is pending.
            EncoderTimeoutError: It took more than ``timeout`` seconds; the session is closed.
        """
        self._check_open()
        if self._state != State.FRAME:
            raise EncoderError(f"{self._where()}: no frame waits for a decision")
        q_index = self._checked(decision)
        try:
            self._code(q_index)
        except VpxrcError:
            self.close()
            raise
        return self._tell()

    def step_group(self, plan: ArrayLike | None) -> State:
        """Answer the pending group.

        Args:
            plan: Provisional q indices, ``[group.size]`` or one more, or None; they have no effect.

        Raises:
            PolicyError: The plan is out of range or of another length.
            EncoderError: No group is pending.
        """
        self._check_open()
        if self._state != State.GROUP:
            raise EncoderError(f"{self._where()}: no group waits for a plan")
        if plan is not None:
            values = np.asarray(plan)
            fits = values.shape in ((self._group.size,), (self._group.size + 1,))
            if not fits or values.min() < -1 or values.max() >= NUM_Q:
                raise PolicyError(f"{self._where()}: a plan has a q index of -1..255 per picture")
        self._rest = State.FRAME
        return self._tell()

    def log(self) -> EncodeLog:
        """Return the log of the finished encode.

        Raises:
            EncoderError: The encode is not over.
        """
        if self._state != State.DONE:
            raise EncoderError(f"{self._where()}: the encode is not over")
        return EncodeLog(
            clip=self.video.format,
            options=self.options,
            records=self._records.copy(),
            packets=list(self._packets),
            first_pass=self._first_pass,
            encode_seconds=self._seconds,
            cpu_seconds=self._cpu_seconds,
        )

    def close(self) -> None:
        """End the encode wherever it is; idempotent."""
        self._is_closed = True

    # How it goes on

    def _tell(self) -> State:
        """Come to rest: at once, or for a pool when it asks."""
        if self._queue is None:
            return self.wait()
        self._state = State.RUNNING
        self._queue.push(self._id)
        return self._state

    def _next_group(self) -> CodecGroup:
        first = self.progress
        size = min(GROUP_SIZE, self.video.num_frames - first)
        allocation = np.minimum(self._rate.allocation(size), 2**31 - 1).astype(np.int32)
        return CodecGroup(first // GROUP_SIZE, size, first, allocation)

    def _frame(self) -> CodecFrame:
        index, q_index = self.progress, self._rate.q_index()
        return CodecFrame(
            coding_index=index,
            group_index=self._group.index,
            group_position=index - self._group.first_show_index,
            libvpx_q_index=q_index,
            libvpx_rdmult=self._rdmult(q_index),
            target_bits=int(min(self._rate.allocation(1)[0], 2**31 - 1)),
            frames_to_key=self.video.num_frames - index,
        )

    def _rdmult(self, q_index: int) -> int:
        """Return the squared error, in levels of 8 bits, that a bit is worth per pixel."""
        return round(1 / _trade_off(self._codec, q_index))

    def _checked(self, decision: Decision) -> int:
        """Return the q index of a decision.

        Raises:
            PolicyError: It is out of range, or has more than a quality.
        """
        q_index = decision.q_index
        if not isinstance(q_index, int | np.integer) or not -1 <= q_index < NUM_Q:
            raise PolicyError(f"{self._where()}: q_index must be in -1..255, not {q_index!r}")
        if (
            decision.lambda_scale != 1
            or decision.superblock_scale is not None
            or decision.delta_q_uv
            or any(decision.recode_trace)
            or decision.region is not None
        ):
            raise PolicyError(f"{self._where()}: a learned codec takes a q index and nothing else")
        return self._rate.q_index() if q_index < 0 else int(q_index)

    def _code(self, q_index: int) -> None:
        """Code the next picture, and find what comes after it."""
        frame = self._frame()
        wall, cpu = perf_counter(), process_time()
        source = self.video.frames[frame.coding_index]
        picture = picture_of(source, self.video.width, self.video.height)
        try:
            with one_thread():
                coded = self._codec.compress(picture, quality_of(q_index))
        except VpxrcError as error:
            raise EncoderError(f"{self._where()}: {error}") from error
        decoded = frame_of(coded.picture)
        seconds = perf_counter() - wall
        self._seconds += seconds
        self._cpu_seconds += process_time() - cpu
        if seconds > self.timeout:
            raise EncoderTimeoutError(f"{self._where()}: took more than {self.timeout:g} s")
        bits = 8 * len(coded.data)
        self._records[frame.coding_index] = self._row(frame, q_index, bits, source, decoded)
        self._packets.append((coded.data, frame.show_index))
        self._rate.account(q_index, bits)
        if self._keeps:
            self._reconstruction = decoded
        self._rest = State.FRAME
        if self.progress == self.video.num_frames:
            self._rest = State.DONE
        elif self.progress % GROUP_SIZE == 0:
            self._group = self._next_group()
            if self._plans_groups:
                self._rest = State.GROUP

    def _row(
        self,
        frame: CodecFrame,
        q_index: int,
        bits: int,
        source: NDArray[np.uint8],
        decoded: NDArray[np.uint8],
    ) -> NDArray[np.void]:
        """Return the row of a coded picture."""
        row = np.zeros((), RECORD_DTYPE)
        for name in RECORD_DTYPE.names or ():
            if hasattr(frame, name):
                row[name] = getattr(frame, name)
        size = self.video.width, self.video.height
        errors = (
            np.square(a.astype(np.int64) - b).sum()
            for a, b in zip(split_planes(source, *size), split_planes(decoded, *size), strict=True)
        )
        row["sse_y"], row["sse_u"], row["sse_v"] = errors
        row["q_index"], row["rdmult"] = q_index, self._rdmult(q_index)
        row["lambda_scale"], row["bits"] = 1.0, bits
        return row

    def _where(self) -> str:
        return f"{self.video.name}: coded frame {self.progress}"

    def _check_open(self) -> None:
        if self._is_closed:
            raise EncoderError(f"{self._where()}: the session is closed")
