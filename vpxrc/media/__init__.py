"""Reading and writing media files: frames, decoding, probing, sound, and WebM."""

from vpxrc.media.decoding import open_video
from vpxrc.media.frames import (
    ClipFormat,
    Video,
    parse_fps,
    split_planes,
    video_from_frames,
    write_y4m,
)

__all__ = [
    "ClipFormat",
    "Video",
    "open_video",
    "parse_fps",
    "split_planes",
    "video_from_frames",
    "write_y4m",
]
