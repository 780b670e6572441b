"""An open media file: the streams that are used of it, and their packets on one clock."""

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from vpxrc.errors import InputError
from vpxrc.media.ffmpeg import NOT_READ, READING
from vpxrc.media.messages import are_of, heard, listening
from vpxrc.media.webp import as_quicktime, is_animated_webp

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

BUFFER_BYTES = 1 << 18  # read from the disk at a time
# Seconds; a larger step from one packet to the next is no pause but another clock, and so is a
# step back, because times of decoding rise (both as in ffmpeg).
LARGEST_STEP = 10
LARGEST_STEP_BACK = 0.1
# Flags of formats, from libavformat/avformat.h.
_NO_TIMES = 0x0080  # AVFMT_NOTIMESTAMPS
_CLOCK_JUMPS = 0x0200  # AVFMT_TS_DISCONT


def check_file(path: Path) -> None:
    """Refuse a path that is no file with something in it.

    Raises:
        InputError: The path is a folder, does not exist or is an empty file.
    """
    if path.is_dir():
        raise InputError(f"{path}: a folder, not a video file")
    if not path.is_file():
        raise InputError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")


class Reading:
    """An open media file; a context manager.

    The libraries get the file open. So no name is taken for a protocol, and any bytes may be in it.

    Args:
        path: The file.

    Raises:
        InputError: The file is missing, empty or no media file, or has no video stream that can be
            decoded.
        OutputError: A temporary file cannot be written, which some formats need.

    Attributes:
        path: The file.
        container: The file as PyAV has it.
        video: The first video stream that is not a cover picture.
        num_others: Number of the other video streams that are no cover pictures.
        damage: What was found wrong with the file when it was opened, in words; empty for nothing.
        has_gaps: Whether a part of the file could not be read when it was opened.
        has_moved: Whether the file is not read from its beginning.
    """

    def __init__(self, path: Path) -> None:
        import av  # loaded where it is needed: `import vpxrc` stays quick

        self.path = path
        check_file(path)
        with ExitStack() as opened:
            try:
                file: IO[bytes] = opened.enter_context(open(path, "rb"))
                is_webp = is_animated_webp(file)
            except OSError as error:
                raise InputError(f"cannot read {path}: {error.strerror or error}") from error
            self.damage = ""
            if is_webp:
                file, self.damage = as_quicktime(str(path), file)
                opened.enter_context(file)
            try:
                with listening(), heard() as entries:
                    container = av.open(
                        file,
                        "r",
                        metadata_errors="replace",
                        container_options=dict(READING),
                        buffer_size=BUFFER_BYTES,
                    )
                self.container = opened.enter_context(container)
            except av.ArgumentError:  # so it calls what is not among the formats
                raise InputError(f"{path}: {NOT_READ}") from None
            except av.FFmpegError as error:
                raise InputError(
                    f"{path}: not a video, truncated or corrupt: {error.strerror}"
                ) from None
            self.has_gaps = are_of(entries, self.container.format.name, "")
            self.has_moved = False
            cover = av.stream.Disposition.attached_pic
            videos = [one for one in self.container.streams.video if not one.disposition & cover]
            if not videos:
                raise InputError(f"{path}: no video stream")
            video = videos[0]
            if video.codec_context is None:  # in spite of PyAV's types
                raise InputError(f"{path}: there is no decoder for its video")
            # Else pixels that a stream leaves out at the left stay, up to an aligned address.
            video.codec_context.flags |= av.codec.context.Flags.unaligned
            self.video: VideoStream = video
            self.num_others = len(videos) - 1
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        """Return the open file."""
        return self

    def __exit__(self, *failure: object) -> None:
        """Close the file."""
        self._opened.close()

    @property
    def has_times(self) -> bool:
        """Whether the format has time stamps at all."""
        return not self.container.format.flags & _NO_TIMES

    @property
    def begin(self) -> Fraction:
        """The time in seconds at which the first of all streams begins, as the file says."""
        return Fraction(self.container.start_time or 0, 1_000_000)

    def seek(self, start: float) -> bool:
        """Go to a key frame at or before a time, and return whether the format can.

        Args:
            start: Seconds from the beginning.
        """
        import av

        try:
            self.container.seek(round((float(self.begin) + start) * 1_000_000))
        except av.FFmpegError:
            return False
        self.has_moved = True
        return True

    def packets(self, stream: "Stream") -> "Iterator[Packet[Any]]":
        """Yield the packets of a stream, and at last an empty one, which ends its decoder.

        Where the clock of a broadcast jumps, its packets are put one after the other. For that the
        pictures and the first sound are read together, whichever of them is asked for.
        """
        if not self.container.format.flags & _CLOCK_JUMPS:
            yield from self.container.demux(stream)
            return
        clock = _Clock()
        together = {
            one.index: one for one in (stream, self.video, *self.container.streams.audio[:1])
        }
        for packet in self.container.demux(*together.values()):
            clock.mend(packet)
            # Not by packet.stream_index, which is 0 in the empty packets that end a decoder.
            if packet.stream.index == stream.index:
                yield packet


class _Clock:
    """The time of a broadcast, whose own clock may begin anew in the middle."""

    def __init__(self) -> None:
        self._offset = Fraction(0)
        self._last: Fraction | None = None
        # Of each stream: the time of its last packet, and the time at which that ends.
        self._times: dict[int, Fraction] = {}
        self._next: dict[int, Fraction] = {}

    def mend(self, packet: "Packet[Any]") -> None:
        """Move a packet to where its stream goes on, if its time is too far from there."""
        ticks, tick = packet.dts if packet.dts is not None else packet.pts, packet.time_base
        if ticks is None or not tick:
            return
        time = ticks * tick + self._offset
        expected = self._next.get(packet.stream_index, self._last)
        if expected is not None and (
            abs(time - expected) > LARGEST_STEP or self._is_step_back(packet, time)
        ):
            self._offset += expected - time
            time = expected
        self._times[packet.stream_index] = time
        self._next[packet.stream_index] = time + (packet.duration or 0) * tick
        self._last = time
        moved = round(self._offset / tick)
        if packet.dts is not None:
            packet.dts += moved
        if packet.pts is not None:
            packet.pts += moved

    def _is_step_back(self, packet: "Packet[Any]", time: Fraction) -> bool:
        """Whether a time of decoding is before that of the packet before; times to show may be."""
        before = self._times.get(packet.stream_index)
        return packet.dts is not None and before is not None and time < before - LARGEST_STEP_BACK
