"""Decoding the video stream of an open file, and what is found damaged on the way."""

import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from vpxrc.media.integrity import is_truncated
from vpxrc.media.reading import Reading

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

# Formats of which the libraries leave parts out and only log it. Level and part are fields of a log
# entry; no words are looked at.
_SILENT_FORMATS = ("matroska,webm", "gif")
# Formats without an index or a header, in which a file may begin anywhere.
_STREAMS = ("mpegts", "mpeg", "mpegvideo", "h264", "hevc")
logging.getLogger("libav").addHandler(logging.NullHandler())  # else they are printed


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
    """

    def __init__(self, reading: Reading, strict: bool, threads: bool) -> None:
        self._reading = reading
        self._video = reading.video
        self._video.thread_type = "AUTO" if threads else "SLICE"
        if strict:
            self._video.codec_context.options = {"err_detect": "explode"}
        self._tick = self._video.time_base or Fraction(1, 1000)
        self._has_begun = reading.container.format.name not in _STREAMS
        self.damage = reading.damage
        self.num_packets = 0
        self.num_frames = 0

    def frames(self) -> "Generator[tuple[VideoFrame, Fraction | None]]":
        """Yield every frame and its time in seconds, None where the file has none.

        At the end it is known whether the file is whole. Who stops before it closes the generator.
        """
        name = self._reading.container.format.name
        with _errors(name in _SILENT_FORMATS) as errors:
            try:
                for packet in self._packets():
                    for frame in self._decode(packet):
                        self.num_frames += 1
                        yield frame, None if frame.pts is None else frame.pts * self._tick
            finally:
                # PyAV frees a decoder while it has Python's lock, and waits there for the
                # decoder's threads, which need the lock to log an error. Here it has no lock.
                self._video.codec_context.flush_buffers()
        # Reading from the file has no part of its own.
        if any(part in (name, "") for _, part, _ in errors):
            self._note("a part cannot be read")
        if is_truncated(self._reading.path):
            self._note("the end is missing")

    def _packets(self) -> "Iterator[Packet[Any]]":
        import av

        try:
            yield from self._reading.packets(self._video)
        except av.FFmpegError as error:
            self._note(f"it cannot be read to its end: {error.strerror}")

    def _decode(self, packet: "Packet[Any]") -> "list[VideoFrame]":
        """Return the frames that come out for a packet."""
        import av

        # An empty packet repeats a frame; the last one has no time either and ends the decoder.
        if not packet.size and packet.dts is not None:
            return []
        if not self._has_begun and not packet.is_keyframe:
            self._note("the beginning is missing: its first frames follow no key frame")
            return []
        self._has_begun = True
        self.num_packets += bool(packet.size)
        if packet.is_corrupt:
            self._note(f"a packet {self._place(packet.dts)} is not whole")
        try:
            frames: list[VideoFrame] = packet.decode()
        except av.FFmpegError as error:
            self._note(f"a frame {self._place(packet.dts)} cannot be decoded: {error.strerror}")
            return []
        if any(frame.is_corrupt for frame in frames):
            self._note(f"a frame {self._place(packet.dts)} lacks something")
        return frames

    def _place(self, ticks: int | None) -> str:
        if ticks is None:
            return "at the end"
        return f"at {float(ticks * self._tick - self._reading.begin):.2f} s"

    def _note(self, words: str) -> None:
        self.damage = self.damage or words


@contextmanager
def _errors(are_wanted: bool) -> Iterator[list[tuple[int, str, str]]]:
    """Yield a list that gets the errors logged in this thread, if wanted: level, part, words."""
    import av.logging

    if not are_wanted:
        yield []
        return

    level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture(local=True) as errors:
            yield errors
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skips)
