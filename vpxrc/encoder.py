"""The encoder: its options, a session that stops at every decision, and the log of an encode."""

import dataclasses
import hashlib
import json
import threading
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vpxrc import _native
from vpxrc.container import ivf_bytes
from vpxrc.errors import EncoderError, EncoderTimeoutError, InputError, PolicyError
from vpxrc.files import atomic_write, cache_dir
from vpxrc.quantizer import LOG2_STEP, MULTI_LAYER
from vpxrc.video import ClipFormat, Video, decode_vp9, split_planes

if TYPE_CHECKING:
    import pandas as pd

State = _native.State
FIRST_PASS_FIELDS: tuple[str, ...] = _native.FIRST_PASS_FIELDS
TPL_FIELDS: tuple[str, ...] = _native.TPL_FIELDS
RECORD_DTYPE: np.dtype[np.void] = _native.FRAME_RECORD


class UpdateType(IntEnum):
    """What a frame is for, and so which references it updates: libvpx's ``FRAME_UPDATE_TYPE``.

    Attributes:
        KEY: A key frame.
        LEAF: An ordinary frame, which few or no other frames are predicted from.
        GOLDEN: A shown frame that starts a group without an alternate reference frame.
        ARF: An alternate reference frame: coded early, predicted from, not shown.
        OVERLAY: The frame that shows the base ARF's picture: coded once more or, with several
            layers, the ARF as it is (``is_shown_again`` in the log).
        MID_OVERLAY: The same for an ARF of a deeper layer. libvpx 1.17 never plans one.
        SHOWN_AGAIN: An ARF of a deeper layer that is shown as it is: nothing is coded, and there is
            no decision.
    """

    KEY = 0
    LEAF = 1
    GOLDEN = 2
    ARF = 3
    OVERLAY = 4
    MID_OVERLAY = 5
    SHOWN_AGAIN = 6


#: Names of the update types in tables.
UPDATE_TYPES: dict[int, str] = {
    UpdateType.KEY: "key",
    UpdateType.LEAF: "leaf",
    UpdateType.GOLDEN: "golden",
    UpdateType.ARF: "arf",
    UpdateType.OVERLAY: "overlay",
    UpdateType.SHOWN_AGAIN: "show-existing",
}

MAX_PSNR = 100.0  # libvpx's, and what it answers where there is no error at all

BITS_PER_PIXEL = 0.06  # a middling quality
# Slower than any frame of any size should be coded; a stuck encoder is an error, never a hang.
DEFAULT_TIMEOUT = 600.0


class Frame(Protocol):
    """A frame about to be coded."""

    @property
    def coding_index(self) -> int:
        """Position in coding order; frames shown again count."""

    @property
    def show_index(self) -> int:
        """Display index of its source frame."""

    @property
    def group_index(self) -> int:
        """Number of its group within the encode."""

    @property
    def group_position(self) -> int:
        """Its position in the group, in coding order."""

    @property
    def update_type(self) -> int:
        """What it is for, an :class:`UpdateType`."""

    @property
    def layer_depth(self) -> int:
        """0 key and golden, 1 base ARF, deeper layers above."""

    @property
    def is_key(self) -> bool:
        """Whether it is a key frame."""

    @property
    def is_shown(self) -> bool:
        """False for an ARF."""

    @property
    def tpl_q_index(self) -> int:
        """Provisional q index of the last TPL pass for this frame; -1 = none."""

    @property
    def reference_coding_index(self) -> tuple[int, int, int]:
        """Coding indices of the last, golden and altref reference; -1 = none."""

    @property
    def libvpx_q_index(self) -> int:
        """What libvpx's own rate control would take, 0..255."""

    @property
    def libvpx_q_low(self) -> int:
        """The lowest q index that libvpx would take."""

    @property
    def libvpx_q_high(self) -> int:
        """The highest q index that libvpx would take."""

    @property
    def libvpx_rdmult(self) -> int:
        """The frame's lambda at ``libvpx_q_index``."""

    @property
    def target_bits(self) -> int:
        """Libvpx's target for the frame."""

    @property
    def gfu_boost(self) -> int:
        """Libvpx's boost for golden and alternate reference frames."""

    @property
    def frames_to_key(self) -> int:
        """Frames to the next key frame."""

    @property
    def has_tpl(self) -> bool:
        """Whether the group's TPL statistics are there for it."""

    @property
    def takes_superblock_scale(self) -> bool:
        """Whether a superblock map has an effect on this frame.

        It does with TPL on, not at position 0 of a group, and on no ARF deeper than layer 3.
        """

    @property
    def r0(self) -> float:
        """intra_cost / mc_dep_cost over the frame, in (0, 1]; NaN without TPL."""


class Group(Protocol):
    """A golden-frame group, as the encoder planned it.

    Position 0 is its key, golden or overlay frame. Arrays are int32 ``[size]``.
    """

    @property
    def index(self) -> int:
        """Number of the group within the encode."""

    @property
    def size(self) -> int:
        """Frames, those shown again included."""

    @property
    def first_show_index(self) -> int:
        """Display index of position 0."""

    @property
    def max_layer_depth(self) -> int:
        """The deepest layer of the group."""

    @property
    def update_type(self) -> NDArray[np.int32]:
        """What each frame is for, an :class:`UpdateType`."""

    @property
    def layer_depth(self) -> NDArray[np.int32]:
        """0 key and golden, 1 base ARF, deeper layers above."""

    @property
    def show_index(self) -> NDArray[np.int32]:
        """Display index of each frame."""

    @property
    def bit_allocation(self) -> NDArray[np.int32]:
        """Libvpx's own allocation, bits."""

    @property
    def gfu_boost(self) -> NDArray[np.int32]:
        """Libvpx's boosts for golden and alternate reference frames."""

    @property
    def references(self) -> NDArray[np.int32]:
        """Positions of the last, golden and altref reference, ``[size, 3]``.

        -1 is a frame before the group.
        """


@dataclass(frozen=True)
class EncoderOptions:
    """What libvpx is told. Everything not named here keeps the library's default.

    Attributes:
        target_bitrate: Target in kbit/s, at least 1.
        cpu_used: libvpx's speed, 0 (slowest) to 8, good quality deadline.
        lag_in_frames: Lookahead, 0 to 25 frames.
        auto_alt_ref: 0 no alternate reference frames, 1 one layer, 2 to 6 so many layers.
        tpl: Whether libvpx runs its temporal-dependency model.
        threads: Threads of one encode, at least 1; more than one do not change the stream.
        key_frame_max_distance: The most frames between key frames, 0 to 9999.
        min_quantizer: Lower bound of libvpx's own choice, libvpx's 0..63 scale.
        max_quantizer: Its upper bound, not below ``min_quantizer``. A policy's q is not clipped.
        rate_control: The mode underneath, which also shapes libvpx's golden-frame groups: ``vbr``
            (two-pass variable bitrate), ``cq`` (the same, no finer than ``cq_level``) or ``q``
            (constant quality at ``cq_level``).
        cq_level: Quality of the ``cq`` and ``q`` modes, libvpx's 0..63 scale.
    """

    fourcc: ClassVar[str] = "VP90"  # the codec, in the header of an IVF file

    target_bitrate: int = 256
    cpu_used: int = 2
    lag_in_frames: int = 25
    auto_alt_ref: int = 1
    tpl: bool = True
    threads: int = 1
    key_frame_max_distance: int = 128
    min_quantizer: int = 0
    max_quantizer: int = 63
    rate_control: Literal["vbr", "cq", "q"] = "vbr"
    cq_level: int = 32

    def __post_init__(self) -> None:
        """Check every range, with the option's name in the complaint."""
        for name, low, high in (
            ("target_bitrate", 1, 2_000_000),
            ("cpu_used", 0, 8),
            ("lag_in_frames", 0, 25),
            ("auto_alt_ref", 0, 6),
            ("threads", 1, 64),
            ("key_frame_max_distance", 0, 9999),
            ("min_quantizer", 0, 63),
            ("max_quantizer", 0, 63),
            ("cq_level", 0, 63),
        ):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or not low <= value <= high:
                raise InputError(f"{name} must be an integer in {low}..{high}, not {value!r}")
        if self.min_quantizer > self.max_quantizer:
            raise InputError(
                f"min_quantizer {self.min_quantizer} is above max_quantizer {self.max_quantizer}"
            )
        if self.rate_control not in ("vbr", "cq", "q"):
            raise InputError(f"rate_control must be 'vbr', 'cq' or 'q', not {self.rate_control!r}")

    @classmethod
    def for_clip(
        cls, video: Video, target_bitrate: int | None = None, **options: Any
    ) -> "EncoderOptions":
        """Return options with a target that suits the size of a clip, where none is given.

        Args:
            video: The clip.
            target_bitrate: Target in kbit/s; by default ``BITS_PER_PIXEL``, a middling quality.
            **options: Other fields.

        Raises:
            InputError: An option is out of range.
        """
        if target_bitrate is None:
            pixels = video.width * video.height * float(video.fps)
            target_bitrate = max(1, round(BITS_PER_PIXEL * pixels / 1000))
        return cls(target_bitrate=target_bitrate, **options)

    def for_control(self) -> "EncoderOptions":
        """Return the options under which a policy decides every frame by itself.

        That is VBR, which shapes the golden-frame groups and gives an estimate of q, with all
        layers of alternate reference frames.
        """
        return dataclasses.replace(self, rate_control="vbr", auto_alt_ref=MULTI_LAYER)

    def open(self, video: Video, **arguments: Any) -> "EncodeSession":
        """Start an encode with these options.

        Args:
            video: The clip.
            **arguments: Those of :class:`EncodeSession`.
        """
        return EncodeSession(video, self, **arguments)

    def decode(self, stream: bytes | Path, clip: ClipFormat) -> NDArray[np.uint8]:
        """Decode a stream by a program that is not the encoder's: ffmpeg's own VP9 decoder.

        Args:
            stream: An IVF or WebM file, or its bytes.
            clip: The clip, which has the stream's size.

        Returns:
            uint8 ``[num_frames, frame_bytes]``, rows as in :class:`vpxrc.Video`: exactly the frames
            that are shown.

        Raises:
            EncoderError: The stream cannot be decoded or has another size.
            MissingDependencyError: There is no ffmpeg.
        """
        return decode_vp9(stream, clip.width, clip.height)


@dataclass(frozen=True, slots=True)
class Decision:
    """How one frame is to be coded.

    Attributes:
        q_index: Quantizer index 0..255, or -1 to leave it to libvpx's own rate control.
        lambda_scale: Factor on the frame's lambda (rdmult), in (0, 64]; 1 = libvpx's own.
        superblock_scale: Factors on lambda per 64x64 superblock, ``[rows, cols]``, in (0, 64], in
            steps of 1/256; None = libvpx's own TPL scale. Read by libvpx only where
            ``Frame.takes_superblock_scale``.
        delta_q_uv: Chroma q delta, -15..15.
        recode_trace: The field of that name of a logged frame, for an exact replay; else empty.
    """

    q_index: int
    lambda_scale: float = 1.0
    superblock_scale: NDArray[np.float32] | None = None
    delta_q_uv: int = 0
    recode_trace: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class EncodeLog:
    """Everything that one finished encode gave.

    It travels between processes: of the clip it has the format, not the frames.

    Attributes:
        clip: Name, size, rate, length and hash of the clip.
        options: The encoder's options.
        records: One row per coded frame and per frame shown again, dtype ``RECORD_DTYPE``: indices
            (coding, show, group, position in the group), ``update_type`` (an ``UpdateType``),
            ``layer_depth``, flags, ``q_index``, ``tpl_q_index`` (provisional, of the TPL pass),
            ``libvpx_q_index`` (what libvpx would have taken), ``rdmult``, ``target_bits``,
            ``lambda_scale``, ``bits`` and the squared errors ``sse_y``, ``sse_u``, ``sse_v`` of the
            reconstruction against the source frame.
        packets: The stream as ``(bytes, pts)`` per packet; an ARF travels with the frame after it.
        first_pass: float64 ``[num_frames, 26]``, columns ``FIRST_PASS_FIELDS``.
        encode_seconds: Wall time of the encoder's thread in the second pass, waits left out.
        cpu_seconds: Its processor time.
        encodes: Second passes spent on this result, searches included.
    """

    clip: ClipFormat
    options: EncoderOptions
    records: NDArray[np.void]
    packets: list[tuple[bytes, int]]
    first_pass: NDArray[np.float64]
    encode_seconds: float
    cpu_seconds: float
    encodes: int = 1

    def __eq__(self, other: object) -> bool:
        """Return whether both are the same encode; the times that it took do not count."""
        if not isinstance(other, EncodeLog):
            return NotImplemented
        return (
            self.clip.content_hash == other.clip.content_hash
            and self.options == other.options
            and self.packets == other.packets
            and len(self.records) == len(other.records)
            and all(  # field by field: what lies between them is arbitrary
                self.records[name].tobytes() == other.records[name].tobytes()
                for name in RECORD_DTYPE.names or ()
            )
        )

    def __hash__(self) -> int:
        """Return a hash of the stream."""
        return hash(self.stream)

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields alone: what is cached beside them can be made again."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @cached_property
    def coded(self) -> NDArray[np.void]:
        """The rows of ``records`` that were coded, read-only: all but the frames shown again."""
        return _read_only(coded_rows(self.records))

    @cached_property
    def shown(self) -> NDArray[np.void]:
        """The rows of ``records`` that show a frame of the clip, read-only, in order of coding."""
        return _read_only(shown_rows(self.records))

    @property
    def fourcc(self) -> str:
        """The codec in four characters, as the header of an IVF file has it."""
        return self.options.fourcc

    @cached_property
    def stream(self) -> bytes:
        """The stream as an IVF file."""
        clip = self.clip
        return ivf_bytes(self.packets, clip.width, clip.height, clip.fps, self.fourcc)

    @property
    def bits(self) -> int:
        """Bits of the stream's packets, without the container."""
        return 8 * sum(len(data) for data, _ in self.packets)

    @property
    def bitrate(self) -> float:
        """Achieved bitrate in kbit/s."""
        return self.bits / self.clip.duration / 1000.0

    @property
    def overshoot(self) -> float:
        """Achieved over target bitrate, minus 1."""
        return self.bitrate / self.options.target_bitrate - 1.0

    @property
    def psnr(self) -> float:
        """Mean over the shown frames of the luma PSNR in dB, each at most 100."""
        return float(psnr(self.shown["sse_y"] / self.clip.pixels).mean())

    @property
    def psnr_overall(self) -> float:
        """PSNR in dB of the mean squared error over all planes of all shown frames."""
        shown = self.shown
        total = shown["sse_y"].sum() + shown["sse_u"].sum() + shown["sse_v"].sum()
        return float(psnr(np.asarray(total / (len(shown) * self.clip.frame_bytes))))

    def to_pandas(self) -> "pd.DataFrame":
        """Return the records as a table, with ``update_type`` in words."""
        import pandas as pd  # slow to import, and most users of an encoder need no tables

        columns = {name: self.records[name] for name in RECORD_DTYPE.names or ()}
        trace = columns.pop("recode_trace")
        table = pd.DataFrame(columns)
        table["update_type"] = table["update_type"].map(UPDATE_TYPES)
        for name in ("is_key", "is_shown", "is_shown_again"):
            table[name] = table[name].astype(bool)
        table["recode_trace"] = trace.tolist()
        return table


def coded_rows(records: NDArray[np.void]) -> NDArray[np.void]:
    """Return the rows that were coded; of a whole log they are ``EncodeLog.coded``.

    Args:
        records: Rows of a log, dtype ``RECORD_DTYPE``.
    """
    coded: NDArray[np.void] = records[records["is_shown_again"] == 0]
    return coded


def shown_rows(records: NDArray[np.void]) -> NDArray[np.void]:
    """Return the rows that show a frame of the clip; of a whole log they are ``EncodeLog.shown``.

    Args:
        records: Rows of a log, dtype ``RECORD_DTYPE``.
    """
    shown: NDArray[np.void] = records[records["is_shown"] != 0]
    return shown


def _read_only(rows: NDArray[np.void]) -> NDArray[np.void]:
    rows.flags.writeable = False
    return rows


def psnr(mse: ArrayLike) -> NDArray[np.float64]:
    """Return the PSNR in dB of mean squared errors of 8-bit samples, at most 100.

    Args:
        mse: Any shape, each at least 0.
    """
    lowest = 255**2 / 10 ** (MAX_PSNR / 10)
    result = 10 * np.log10(255**2 / np.maximum(mse, lowest))
    return np.asarray(result, dtype=np.float64)


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
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]] | None:
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


class EncodeSession:
    """One second pass that stops at every decision, on a native thread of its own.

    A context manager; leaving it ends the encode wherever it is::

        with EncodeSession(video, options) as session:
            while session.frame is not None:
                session.step(Decision(q_index=120))
            log = session.log()

    Frames that are shown again carry no decision and are not presented.

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
        self._native = _native.Session(
            *_geometry(video),
            options,
            first_pass_stats(video, options),
            observe=observe,
            plan_groups=plan_groups,
            keep_reconstruction=keep_reconstruction,
            script=script,
            queue=queue,
            id=id,
        )
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
            EncoderError: libvpx failed; the message names clip, frame and libvpx's own words.
            EncoderTimeoutError: ``timeout`` seconds went by; the session is closed.
        """
        return self._enter(self._native.wait(self.timeout))

    def _enter(self, state: State) -> State:
        self._state = state
        if state == State.RUNNING and self._wait:
            self._native.close(0.0)
            raise EncoderTimeoutError(
                f"{self.video.name}: the encoder took more than {self.timeout:g} s for a frame"
            )
        if state == State.FAILED:
            frame, words = self._native.num_records, self._native.error
            self.close()
            raise EncoderError(f"{self.video.name}: coded frame {frame}: {words}")
        return state

    def step(self, decision: Decision) -> State:
        """Answer the pending frame and wait for what comes next (unless a queue tells).

        Raises:
            PolicyError: The decision is out of range; the session still waits for one.
            EncoderError: libvpx failed, or no frame is pending.
            EncoderTimeoutError: See ``wait``.
        """
        try:
            state = self._native.step(decision, self._wait)
        except (ValueError, TypeError) as error:
            raise PolicyError(f"{self._where()}: {error}") from error
        except RuntimeError as error:
            raise EncoderError(f"{self._where()}: {error}") from error
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
        try:
            values = None if plan is None else np.asarray(plan, dtype=np.int64).tolist()
            state = self._native.step_group(values, self._wait)
        except (ValueError, TypeError, OverflowError) as error:
            raise PolicyError(f"{self._where()}: {error}") from error
        except RuntimeError as error:
            raise EncoderError(f"{self._where()}: {error}") from error
        return self._enter(state)

    def _where(self) -> str:
        return f"{self.video.name}: coded frame {self._native.num_records}"

    @property
    def progress(self) -> int:
        """Frames coded so far, those shown again included; may be asked for at any time."""
        return self._native.progress

    @property
    def frame(self) -> Frame | None:
        """The frame that waits for a decision; None when none does."""
        return self._native.frame if self._state == State.FRAME else None

    @property
    def group(self) -> Group:
        """The current golden-frame group."""
        return self._native.group

    @property
    def tpl(self) -> NDArray[np.float64] | None:
        """TPL statistics of the current group, ``[size, rows, cols, 8]`` (``TPL_FIELDS``).

        Per 32x32 block after propagation; NaN for frames without. None at group position 0 (libvpx
        runs its TPL pass after it) and where the pass does not run.
        """
        tpl: NDArray[np.float64] | None = self._native.tpl
        return tpl

    @property
    def first_pass(self) -> NDArray[np.float64]:
        """First-pass statistics of all frames, ``[num_frames, 26]`` (``FIRST_PASS_FIELDS``)."""
        stats: NDArray[np.float64] = self._native.first_pass
        return stats

    @property
    def log2_step(self) -> NDArray[np.float64]:
        """log2 of the quantiser step per q index, float64 ``[256]``, read-only: VP9's AC steps."""
        return LOG2_STEP

    def records(self, start: int = 0) -> NDArray[np.void]:
        """Return the log so far from row ``start``, dtype ``RECORD_DTYPE``."""
        records: NDArray[np.void] = self._native.records(start)
        return records

    @property
    def reconstruction(
        self,
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]] | None:
        """Y, U and V of the frame coded last, where ``keep_reconstruction`` asked for it."""
        frame = self._native.reconstruction
        return None if frame is None else split_planes(frame, self.video.width, self.video.height)

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
            records=self._native.records(),
            packets=self._native.packets,
            first_pass=self._native.first_pass,
            encode_seconds=self._native.encode_seconds,
            cpu_seconds=self._native.cpu_seconds,
        )

    def close(self) -> None:
        """End the encode wherever it is; idempotent."""
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
            EncoderError: The session's encode failed.
        """
        while True:
            before = self._progress()
            session_id = self._queue.pop(self._timeout)
            if session_id is None:
                if self._progress() != before:
                    continue  # observers and scripts come back at their end only
                self.close()
                raise EncoderTimeoutError(f"no session coded a frame within {self._timeout:g} s")
            session = self._sessions.get(session_id)
            if session is not None:  # a session closed since is passed over
                session.wait()
                return session_id, session

    def _progress(self) -> int:
        return sum(session.progress for session in self._sessions.values())

    def close_session(self, session_id: int) -> None:
        """Close one session and forget it."""
        self._sessions.pop(session_id).close()

    def close(self) -> None:
        """Close all sessions."""
        while self._sessions:
            self._sessions.popitem()[1].close()

    def __len__(self) -> int:
        """Return how many sessions are open."""
        return len(self._sessions)


def _geometry(video: Video) -> tuple[NDArray[np.uint8], int, int, int, int]:
    fps = video.fps
    return video.frames, video.width, video.height, fps.numerator, fps.denominator


# Options of the second pass alone: they do not change the first pass's statistics.
_SECOND_PASS_ONLY = EncoderOptions()


class FirstPassMemory:
    """First-pass statistics by key; those asked for longest ago are forgotten first.

    Args:
        most_bytes: Of all statistics together; the last ones are kept however large they are.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._stats: dict[str, bytes] = {}  # those asked for last are at the end
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        """Return the statistics of a key, where they are still known."""
        with self._lock:
            stats = self._stats.pop(key, None)
            if stats is not None:
                self._stats[key] = stats
            return stats

    def put(self, key: str, stats: bytes) -> None:
        """Take the statistics of a key in place of those before."""
        with self._lock:
            self._stats.pop(key, None)
            self._stats[key] = stats
            total = sum(map(len, self._stats.values()))
            while total > self._most_bytes and len(self._stats) > 1:
                total -= len(self._stats.pop(next(iter(self._stats))))


_first_pass_memory = FirstPassMemory(64 * 2**20)  # some 300,000 frames


def _first_pass_options(options: EncoderOptions) -> EncoderOptions:
    return dataclasses.replace(
        _SECOND_PASS_ONLY,
        cpu_used=options.cpu_used,
        lag_in_frames=options.lag_in_frames,
        key_frame_max_distance=options.key_frame_max_distance,
    )


def first_pass_key(video: Video, options: EncoderOptions) -> str:
    """Return a hexadecimal key of all that first-pass statistics depend on."""
    asked = dataclasses.asdict(_first_pass_options(options))
    parts = [_native.LIBVPX_SHA256, video.content_hash, asked]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def keep_first_pass(key: str, stats: bytes) -> None:
    """Take statistics for :func:`first_pass_stats` of the clip and options with that key."""
    _first_pass_memory.put(key, stats)


def first_pass_stats(video: Video, options: EncoderOptions) -> bytes:
    """Return libvpx's first-pass statistics of a clip, as its opaque blob.

    They depend on the clip and a few options only, so they are kept in memory and in the cache.

    Raises:
        EncoderError: libvpx failed.
    """
    options = _first_pass_options(options)
    key = first_pass_key(video, options)
    stats = _first_pass_memory.get(key)
    if stats is None:
        path = cache_dir() / "first_pass" / f"{key}.bin"
        if path.is_file():
            stats = path.read_bytes()
        else:
            try:
                stats = _native.run_first_pass(*_geometry(video), options)
            except RuntimeError as error:
                raise EncoderError(f"{video.name}: first pass: {error}") from error
            with atomic_write(path) as temporary:
                temporary.write_bytes(stats)
        _first_pass_memory.put(key, stats)
    return stats
