"""Decoded frames made rows of a video: upright, of one size, progressive, 4:2:0 of 8 or 10 bits."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av.filter import Graph
    from av.video.frame import VideoFrame
    from av.video.plane import VideoPlane

# The formats of rows by their bit depth, and those whose planes are copied as they are.
_FORMATS = {8: "yuv420p", 10: "yuv420p10le"}
_PLAIN = {8: ("yuv420p", "yuvj420p", "yuva420p"), 10: ("yuv420p10le", "yuva420p10le")}
_PLANES = 3


def side_data(frame: "VideoFrame", name: str) -> NDArray[np.int32] | None:
    """Return data that goes with a frame as the integers of its C struct; None without."""
    try:
        data: Any = frame.side_data.get(name)
    except ValueError:  # PyAV gives none where there is a kind that it does not know, such as EXIF
        _accept_unknown_side_data()
        data = frame.side_data.get(name)
    return None if data is None else np.frombuffer(bytes(data), np.int32)


def _accept_unknown_side_data() -> None:
    """Make PyAV count kinds of side data that it does not know as one that is not used here."""
    from av.sidedata.sidedata import Type

    def other(cls: type[Type], value: object) -> Type:
        return cls.SEI_UNREGISTERED

    # What an enumeration calls for a value without a member (Python's documentation of enum).
    setattr(Type, "_missing_", classmethod(other))  # noqa: B010 - mypy takes no other way


def upright_filters(frame: "VideoFrame") -> list[str]:
    """Return the filters that turn a frame upright, by the rules of the program ffmpeg.

    Args:
        frame: A frame, which has the display matrix of its stream.
    """
    matrix = side_data(frame, "DISPLAYMATRIX")
    if matrix is None:
        return []
    angle = -frame.rotation % 360  # clockwise
    if abs(angle - 90) < 1:
        return ["transpose=cclock_flip" if matrix[3] > 0 else "transpose=clock"]
    if abs(angle - 180) < 1:
        return ["hflip"] * bool(matrix[0] < 0) + ["vflip"] * bool(matrix[4] < 0)
    if abs(angle - 270) < 1:
        return ["transpose=clock_flip" if matrix[3] < 0 else "transpose=cclock"]
    return ["vflip"] if matrix[4] < 0 and min(angle, 360 - angle) < 1 else []


def has_transparency(frame: "VideoFrame") -> bool:
    """Return whether any pixel of a frame is not opaque."""
    if not any(part.is_alpha for part in frame.format.components) and frame.format.name != "pal8":
        return False
    alpha = frame.reformat(format="yuva420p", threads=1).planes[_PLANES]
    return bool(_rows(alpha)[: alpha.height, : alpha.width].min() < 255)


def _rows(plane: "VideoPlane") -> NDArray[np.uint8]:
    """Return the bytes of a plane, a row for each of its rows, with their padding."""
    data: Any = plane
    return np.frombuffer(data, np.uint8).reshape(-1, plane.line_size)


class Pictures:
    """Makes rows of a video of decoded frames, one for each of them.

    Args:
        width: Scale to this width in pixels (Lanczos). Where only one of width and height is given
            the other keeps the aspect ratio, rounded to an even number.
        height: Scale to this height in pixels.
        deinterlace: Whether frames that are marked as interlaced are deinterlaced (bwdif).
        bit_depth: Bits per sample of the rows, 8 or 10.

    Attributes:
        size: Width and height of all rows in pixels; None before the first row.
        num_interlaced: Number of frames so far that were marked as interlaced.
    """

    def __init__(
        self, width: int | None, height: int | None, deinterlace: bool, bit_depth: int
    ) -> None:
        self._asked = (width, height)
        self._deinterlace = deinterlace
        self._bit_depth = bit_depth
        self._graph: Graph | None = None
        self._made_for: tuple[object, ...] | None = None  # what the graph was made for
        self._rotation: int | None = None  # of the frame before
        self._upright: list[str] = []
        self.size: tuple[int, int] | None = None
        self.num_interlaced = 0

    def push(self, frame: "VideoFrame") -> Iterator[bytes]:
        """Take a frame, and yield the rows that are ready; deinterlacing is a frame behind."""
        self.num_interlaced += frame.interlaced_frame
        # From the first interlaced frame on; the filter passes progressive ones through.
        filters = ["bwdif=mode=send_frame:deint=interlaced"] * bool(
            self._deinterlace and self.num_interlaced
        )
        # Data beside a frame are looked at only where they are new: they keep the frame, in a cycle
        # of references, until Python looks for cycles, which is 100 frames later.
        if frame.rotation != self._rotation:
            self._rotation, self._upright = frame.rotation, upright_filters(frame)
        filters += self._upright
        is_scaled = self._asked != (None, None) or self.size not in (
            None,
            (frame.width, frame.height),
        )
        if not filters and not is_scaled and frame.format.name in _PLAIN[self._bit_depth]:
            yield from self.flush()
            yield self._row(frame)
            return
        wanted = (frame.width, frame.height, frame.format.name, *filters)
        if wanted != self._made_for:
            yield from self.flush()
            self._graph, self._made_for = self._make_graph(frame, filters), wanted
        assert self._graph is not None
        frame.pts = None  # Rows come in the order of the frames.
        self._graph.push(frame)
        yield from self._pull()

    def flush(self) -> Iterator[bytes]:
        """Yield the rows that are left."""
        if self._graph is not None:
            self._graph.push(None)
            yield from self._pull()
        self._graph = self._made_for = None

    def _pull(self) -> Iterator[bytes]:
        import av

        assert self._graph is not None
        while True:
            try:
                frame = self._graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            yield self._row(frame)

    def _make_graph(self, frame: "VideoFrame", filters: list[str]) -> "Graph":
        from av.filter import Graph

        graph = Graph()
        # A graph is in a cycle of references. Threads of its own would be there until Python looks
        # for cycles, and a process forked meanwhile would wait for threads that it does not have.
        graph.threads = 1
        source = (
            f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/1000:"
            f"colorspace={int(frame.colorspace)}:range={int(frame.color_range)}"
        )
        width, height = self.size or self._asked
        flags = "bicubic" if self._asked == (None, None) else "lanczos"
        keep = (width, height) == (None, None)
        scale = f"scale={'iw:ih' if keep else f'{width or -2}:{height or -2}'}:flags={flags}"
        nodes = [graph.add("buffer", source)]
        for description in [*filters, scale, f"format={_FORMATS[self._bit_depth]}", "copy"]:
            name, _, arguments = description.partition("=")
            nodes.append(graph.add(name, arguments or None))
        graph.link_nodes(*nodes, graph.add("buffersink")).configure()
        return graph

    def _row(self, frame: "VideoFrame") -> bytes:
        """Return the planes of a frame one after the other, without padding."""
        self.size = (frame.width, frame.height)
        planes: list[NDArray[np.uint8]] = []
        sample_bytes = 1 if self._bit_depth == 8 else 2
        for index, plane in enumerate(frame.planes[:_PLANES]):
            half = bool(index)
            width, height = (-(-side // (1 + half)) for side in self.size)
            planes.append(_rows(plane)[:height, : width * sample_bytes])
        return b"".join(plane.tobytes() for plane in planes)
