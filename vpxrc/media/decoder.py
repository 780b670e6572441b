"""Decoding the video stream of an open file, and what is found damaged on the way."""

from collections.abc import Generator, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from vpxrc.media.integrity import is_truncated
from vpxrc.media.messages import are_of, heard, listening
from vpxrc.media.reading import LARGEST_STEP, Reading

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

# Decoders that conceal damage and only log it, although they are told to end with it.
_SILENT_DECODERS = ("ffv1", "gif")
_MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
# Formats without an index or a header, in which a file may begin anywhere.
_STREAMS = ("mpegts", "mpeg", "mpegvideo", "h264", "hevc")


class Decoder:
    """The frames of a file's video stream, in the order in which they are shown.

    Args:
        reading: The open file, at its beginning or where a seek has come out.
        strict: Whether decoders report damage. Else they conceal it as well as they can.
        threads: Whether several frames are decoded at the same time. Then frames after a damage may
            be missing.

    Attributes:
        damage: The first damage in words; empty while there is none.
        num_packets: Number of packets that were decoded.
        num_frames: Number of frames that came out.
        num_hidden: Number of frames that the file has, and says not to show.
        has_errors: Whether the decoder has logged errors. With several threads, they may be those
            of another reader in this process.
    """

    def __init__(self, reading: Reading, strict: bool, threads: bool) -> None:
        self._reading = reading
        self._video = reading.video
        self._video.thread_type = "AUTO" if threads else "SLICE"
        if not threads:
            self._video.codec_context.thread_count = 1
        self._has_threads = threads
        if strict:
            self._video.codec_context.options = {"err_detect": "explode"}
        self._tick = self._video.time_base or Fraction(1, 1000)
        self._has_begun = reading.container.format.name not in _STREAMS
        self.damage = reading.damage
        self._has_gaps = reading.has_gaps
        self._num_read = 0  # empty ones as well
        self.num_packets = 0
        self.num_frames = 0
        self.num_hidden = 0
        self.has_errors = False

    def forget(self) -> None:
        """Forget what was found so far: it is of frames that are not wanted."""
        self.damage, self.has_errors, self.num_hidden = "", False, 0

    def frames(self) -> "Generator[tuple[VideoFrame, Fraction | None]]":
        """Yield every frame and its time in seconds, None where the file has none.

        At the end it is known whether the file is whole. Who stops before it closes the generator.
        """
        with listening(self._video.codec_context.codec.name) as are_errors_elsewhere:
            try:
                for packet in self._packets():
                    for frame in self._decode(packet):
                        self.num_frames += 1
                        yield frame, None if frame.pts is None else frame.pts * self._tick
                    if self._has_threads and are_errors_elsewhere():
                        self.has_errors = True
            finally:
                # PyAV frees a decoder while it has Python's lock, and waits there for the
                # decoder's threads, which need the lock to log an error. Here it has no lock.
                self._video.codec_context.flush_buffers()
                if self._has_gaps:
                    self._note("a part cannot be read")
        self._check_count()
        if is_truncated(self._reading.path):
            self._note("the end is missing")

    def _check_count(self) -> None:
        """Compare the number of packets with the one that the file names.

        Other formats than these name none, or count frames that are left out on purpose.
        """
        name, missing = self._reading.container.format.name, self._video.frames - self._num_read
        if self._reading.has_moved or missing <= 0:
            return
        if name == "ivf":
            self._note(f"it names {self._video.frames} frames, and {self._num_read} are there")
        elif name == _MP4:  # far outside of what an edit list shows, packets are not read
            self.num_hidden += missing

    def _packets(self) -> "Iterator[Packet[Any]]":
        import av

        packets = self._reading.packets(self._video)
        name = self._reading.container.format.name
        while True:
            try:
                with heard() as entries:
                    packet = next(packets, None)
            except av.FFmpegError as error:
                self._note(f"it cannot be read to its end: {error.strerror}")
                return
            self._has_gaps = self._has_gaps or are_of(entries, name, "")
            if packet is None:
                return
            yield packet

    def _decode(self, packet: "Packet[Any]") -> "list[VideoFrame]":
        """Return the frames that come out for a packet."""
        import av

        self._num_read += packet.size > 0 or packet.dts is not None
        # An empty packet repeats a frame; the last one has no time either and ends the decoder.
        if not packet.size and packet.dts is not None:
            return []
        if not self._has_begun and not packet.is_keyframe:
            self._note("the beginning is missing: its first frames follow no key frame")
            return []
        self._has_begun = True
        self.num_packets += bool(packet.size)
        place, codec = self._place(packet.dts), self._video.codec_context.codec.name
        if packet.is_corrupt:
            self._note(f"a packet {place} is not whole")
        if packet.is_discard:
            self.num_hidden += 1
            if packet.dts is not None and packet.pts is not None:
                distance = abs(packet.pts - packet.dts) * self._tick
                if distance > LARGEST_STEP:
                    self._note(f"a frame {place} is to be shown {float(distance):.0f} s away")
        try:
            with heard() as entries:
                frames: list[VideoFrame] = packet.decode()
        except av.FFmpegError as error:
            self._note(f"a frame {place} cannot be decoded: {error.strerror}")
            return []
        if are_of(entries, codec):
            self.has_errors = True
            if codec in _SILENT_DECODERS:
                self._note(f"a frame {place} cannot be decoded as a whole")
        if any(frame.is_corrupt for frame in frames):
            self._note(f"a frame {place} lacks something")
        return frames

    def _place(self, ticks: int | None) -> str:
        if ticks is None:
            return "at the end"
        return f"at {float(ticks * self._tick - self._reading.begin):.2f} s"

    def _note(self, words: str) -> None:
        self.damage = self.damage or words
