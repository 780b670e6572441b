"""The log of a finished encode."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.types import RECORD_DTYPE, UPDATE_TYPES
from vpxrc.media.frames import ClipFormat
from vpxrc.media.muxing import ivf_bytes

if TYPE_CHECKING:
    import pandas as pd


MAX_PSNR = 100.0  # libvpx's, and what it answers where there is no error at all


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
        return float(frame_psnr(self.clip, self.shown).mean())

    @property
    def psnr_overall(self) -> float:
        """PSNR in dB of the mean squared error over all planes of all shown frames."""
        shown = self.shown
        total = shown["sse_y"].sum() + shown["sse_u"].sum() + shown["sse_v"].sum()
        mean = total / (len(shown) * self.clip.frame_samples)
        return float(psnr(mean, self.clip.bit_depth))

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


def frame_psnr(clip: ClipFormat, rows: NDArray[np.void]) -> NDArray[np.float64]:
    """Return the luma PSNR of coded frames in dB, each at most 100, float64 ``[len(rows)]``.

    Args:
        clip: The clip.
        rows: Rows of its log, dtype ``RECORD_DTYPE``.
    """
    return psnr(rows["sse_y"] / clip.pixels, clip.bit_depth)


def psnr(mse: ArrayLike, bit_depth: ArrayLike = 8) -> NDArray[np.float64]:
    """Return the PSNR in dB of mean squared errors, at most 100.

    Args:
        mse: Any shape, each at least 0.
        bit_depth: Bits per sample, one for all or of the same shape; they set the peak, 255 for 8
            and 1023 for 10.
    """
    peak = 2.0 ** np.asarray(bit_depth) - 1
    lowest = peak**2 / 10 ** (MAX_PSNR / 10)
    result = 10 * np.log10(peak**2 / np.maximum(mse, lowest))
    return np.asarray(result, dtype=np.float64)
